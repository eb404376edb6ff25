//! `[[site]]` and `[[site.rule]]`.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use crate::semantics::Policy;

use super::super::error::Problem;
use super::super::reader::{Entry, Found, Place, Read, Table};
use super::super::{Rule, names};
use super::rules::Spot;
use super::{SiteDraft, policy, rules};

/// A host pattern.
struct Pattern(String);

impl Read for Pattern {
    fn read(entry: &Entry<'_>) -> Option<Self> {
        entry.parsed("a host: \"example.org\" or \"*.example.org\"", names::parse_pattern).map(Self)
    }
}

/// Reads one site with its rules.
pub(super) fn read(mut table: Table<'_>, default: &Arc<Policy>, folder: &Path) -> SiteDraft {
    let name = table.required_parsed("name", "\"main\"", names::parse_name);
    let hosts = hosts(&mut table);
    let origin = table.optional::<String>("origin");
    let host = table.optional_parsed("host", names::parse_host_field).map(|found| found.value);
    let scope = name.as_ref().map_or("", |found| &*found.value);
    let spot = Spot { path: "/", folder, scope };
    let base = policy::read(&mut table, default, spot);
    let (rules, rule_origins) = rules_of(&mut table, &base, spot);
    let place = table.place.clone();
    table.finish();
    let whole = name.is_some();
    let name = name.unwrap_or(Found { value: String::new(), place });
    SiteDraft { name, hosts, origin, host, rules, rule_origins, whole }
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
fn rules_of(
    table: &mut Table<'_>,
    base: &Arc<Policy>,
    site: Spot<'_>,
) -> (Vec<Rule>, Vec<(usize, Found<String>)>) {
    let (mut rules, mut origins) = (Vec::new(), Vec::new());
    let mut seen: HashMap<String, Place> = HashMap::new();
    for mut rule in table.tables("rule").unwrap_or_default() {
        let path = rule.required_parsed("path", "\"/assets\"", names::parse_path);
        let own = path.as_ref().map_or("/", |found| &*found.value);
        let scope = format!("{} {own}", site.scope);
        let spot = Spot { path: own, scope: &scope, ..site };
        let mut policy = policy::read(&mut rule, base, spot);
        let origin = rule.optional::<String>("origin");
        rules::host(&mut rule, &mut policy);
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
        origins.extend(origin.map(|origin| (rules.len(), origin)));
        rules.push(Rule { path, policy });
    }
    if !seen.contains_key("/") {
        rules.push(Rule { path: "/".to_owned(), policy: Arc::clone(base) });
    }
    (rules, origins)
}
