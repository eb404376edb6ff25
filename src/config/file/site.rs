//! `[[site]]` and `[[site.rule]]`.

use std::collections::HashMap;
use std::sync::Arc;

use crate::semantics::Policy;

use super::super::error::Problem;
use super::super::reader::{Entry, Found, Place, Read, Table};
use super::super::{Rule, names};
use super::{SiteDraft, policy};

/// A host pattern.
struct Pattern(String);

impl Read for Pattern {
    fn read(entry: &Entry<'_>) -> Option<Self> {
        entry.parsed("a host: \"example.org\" or \"*.example.org\"", names::parse_pattern).map(Self)
    }
}

/// Reads one site with its rules.
pub(super) fn read(mut table: Table<'_>, default: &Arc<Policy>) -> SiteDraft {
    let name = table.required_parsed("name", "\"main\"", names::parse_name);
    let hosts = hosts(&mut table);
    let origin = table.optional::<String>("origin");
    let host = table.optional_parsed("host", names::parse_host_field).map(|found| found.value);
    let base = policy::read(&mut table, default);
    let rules = rules(&mut table, &base);
    let place = table.place.clone();
    table.finish();
    let whole = name.is_some();
    let name = name.unwrap_or(Found { value: String::new(), place });
    SiteDraft { name, hosts, origin, host, rules, whole }
}

fn hosts(table: &mut Table<'_>) -> Vec<Found<String>> {
    let example = "[\"example.org\", \"*.example.org\"]";
    let Some(list) = table.required::<Vec<Found<Pattern>>>("hosts", example) else {
        return Vec::new();
    };
    if list.value.is_empty() && table.array_is_empty("hosts") {
        let problem = Problem::new(format!("`{}` is empty", list.place.key));
        let help = "a site without hosts is never reached; \"*\" stands for every host";
        table.sink.missing(problem.at(list.place.span).help(help));
    }
    let plain = |found: Found<Pattern>| Found { value: found.value.0, place: found.place };
    list.value.into_iter().map(plain).collect()
}

/// Its rules over the policy of the site; one for `/` is added where none is written.
fn rules(table: &mut Table<'_>, base: &Arc<Policy>) -> Vec<Rule> {
    let mut rules = Vec::new();
    let mut seen: HashMap<String, Place> = HashMap::new();
    for mut rule in table.tables("rule").unwrap_or_default() {
        let path = rule.required_parsed("path", "\"/assets\"", names::parse_path);
        let policy = policy::read(&mut rule, base);
        let sink = rule.sink;
        rule.finish();
        let Some(Found { value: path, place }) = path else { continue };
        if let Some(first) = seen.insert(path.clone(), place.clone()) {
            sink.push(
                Problem::new(format!("two rules of the site have the path \"{path}\""))
                    .at(place.span)
                    .label("here again")
                    .other(first.span, "first here")
                    .help("the longest path wins, so one of them would never be used: join them"),
            );
        }
        rules.push(Rule { path, policy });
    }
    if !seen.contains_key("/") {
        rules.push(Rule { path: "/".to_owned(), policy: Arc::clone(base) });
    }
    rules
}
