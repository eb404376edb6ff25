//! `[[hook]]` and `[[hook.on]]`.

use std::path::{Path, PathBuf};

use http::{HeaderName, header};

use crate::hooks::{Condition, Kind, Mapping, Place, Pointer, Template};
use crate::purge::Strength;

use super::super::certificates::read_file;
use super::super::error::Problem;
use super::super::hook::{Encoding, Proof, ProofKind, Secret};
use super::super::names;
use super::super::reader::{Entry, Found, Read, Table};

/// Shortest secret in bytes.
const SECRET_BYTES: usize = 16;
/// Largest file with a secret.
const LARGEST: u64 = 4096;
/// Templates in one list, and words in one condition.
const MOST: usize = 64;

/// A hook as written.
pub(in crate::config) struct HookDraft {
    pub(in crate::config) name: Found<String>,
    pub(in crate::config) site: Option<Found<String>>,
    pub(in crate::config) proof: Proof,
    pub(in crate::config) on: Vec<Mapping>,
}

/// Reads one hook. Relative paths are meant from `folder`.
pub(super) fn read(mut table: Table<'_>, folder: &Path) -> Option<HookDraft> {
    let name = table.required_parsed("name", "\"cms\"", names::parse_name);
    let site = table.optional::<String>("site");
    let proof = proof(&mut table, folder);
    let place = table.place.clone();
    let tables = table.tables("on").unwrap_or_default();
    if tables.is_empty() {
        let help = "say what its events purge:\n[[hook.on]]\ntags = [\"article:{/entry/id}\"]";
        let problem = Problem::new("a [[hook]] without [[hook.on]] does nothing");
        table.sink.missing(problem.at(place.span).help(help));
    }
    let on = tables.into_iter().map(mapping).collect();
    table.finish();
    Some(HookDraft { name: name?, site, proof: proof?, on })
}

fn proof(table: &mut Table<'_>, folder: &Path) -> Option<Proof> {
    let kinds = [
        ("hmac-sha256", Some(ProofKind::HmacSha256(Encoding::Hex))),
        ("shared", Some(ProofKind::Shared)),
    ];
    let mut kind = None;
    if table.required::<String>("verify", "\"hmac-sha256\" or \"shared\"").is_some() {
        table.choose("verify", &kinds, &mut kind);
    }
    let header = table.required_parsed("header", "\"X-Hub-Signature-256\"", header_name);
    let mut prefix = String::new();
    table.set("prefix", &mut prefix);
    let mut encoding = Encoding::Hex;
    table.choose(
        "encoding",
        &[("hex", Encoding::Hex), ("base64", Encoding::Base64)],
        &mut encoding,
    );
    let secret = secret(table, folder);
    let kind = match kind? {
        ProofKind::HmacSha256(_) => ProofKind::HmacSha256(encoding),
        ProofKind::Shared => ProofKind::Shared,
    };
    Some(Proof { kind, header: header?.value, prefix, secret: secret? })
}

/// The secret, in the file itself or beside it.
fn secret(table: &mut Table<'_>, folder: &Path) -> Option<Secret> {
    let written = table.optional::<String>("secret");
    let file = table.optional::<PathBuf>("secret_file");
    let place = table.place.clone();
    match (written, file) {
        (Some(secret), None) => {
            let fine = secret.value.len() >= SECRET_BYTES;
            if !fine {
                let problem = Problem::new(format!("`{}` is too short", secret.place.key));
                table.sink.push(problem.at(secret.place.span).help(short()));
            }
            fine.then(|| Secret::new(secret.value.as_bytes()))
        }
        (None, Some(file)) => match secret_of(&folder.join(&file.value)) {
            Ok(secret) => Some(secret),
            Err(error) => {
                let problem = Problem::new(format!("`{}` cannot be used", file.place.key));
                table.sink.push(problem.at(file.place.span).help(error));
                None
            }
        },
        (written, _) => {
            let what = if written.is_some() { "one of the keys" } else { "the key" };
            let problem = Problem::new(format!("[[hook]] needs {what} `secret_file` or `secret`"));
            let help = "what the system that sends the events signs them with";
            table.sink.missing(problem.at(place.span).help(help));
            None
        }
    }
}

fn short() -> String {
    format!("a secret has at least {SECRET_BYTES} bytes; `atoll token new` makes a good one")
}

/// The secret in a file: its first line.
fn secret_of(file: &Path) -> Result<Secret, String> {
    let bytes = read_file(file, LARGEST)?;
    let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default().trim_ascii();
    if line.len() < SECRET_BYTES {
        return Err(format!("{}: {}", file.display(), short()));
    }
    Ok(Secret::new(line))
}

fn header_name(text: &str) -> Result<HeaderName, String> {
    HeaderName::try_from(text).map_err(|_invalid| "expected the name of a header field".to_owned())
}

fn mapping(mut table: Table<'_>) -> Mapping {
    let when = table.optional::<When>("when").map_or_else(Vec::new, |found| found.value.0);
    let urls = templates(&mut table, "urls", Kind::Url);
    let tags = templates(&mut table, "tags", Kind::Tag);
    let prefixes = templates(&mut table, "prefixes", Kind::Prefix);
    let hosts = templates(&mut table, "hosts", Kind::Host);
    let mut all = false;
    table.set("all", &mut all);
    let modes = [("hard", Strength::Hard), ("check", Strength::Check), ("soft", Strength::Soft)];
    let mut mode = Strength::Hard;
    table.choose("mode", &modes, &mut mode);
    let lists = ["urls", "tags", "prefixes", "hosts"];
    let named = lists.iter().any(|list| table.span_of(list).is_some());
    let place = table.place.span.clone();
    if !named && !all {
        let problem = Problem::new("a [[hook.on]] names nothing to purge").at(place);
        table.sink.missing(problem.help("for example: tags = [\"article:{/entry/id}\"]"));
    } else if named && all {
        let problem = Problem::new("`all` stands without other selectors").at(place);
        table.sink.push(problem.help("everything of the site has the others in it"));
    }
    table.finish();
    Mapping { when, urls, tags, prefixes, hosts, all, mode }
}

fn templates(table: &mut Table<'_>, key: &'static str, kind: Kind) -> Vec<Template> {
    let Some(list) = table.optional::<Vec<Found<String>>>(key) else { return Vec::new() };
    if list.value.len() > MOST {
        let problem = Problem::new(format!("`{}` is too long", list.place.key));
        table.sink.push(problem.at(list.place.span).help(format!("at most {MOST} templates")));
    }
    let mut read = Vec::new();
    for found in list.value {
        match Template::parse(&found.value, kind) {
            Ok(template) => read.push(template),
            Err(help) => {
                let problem = Problem::new(format!("`{}` is not valid", found.place.key));
                table.sink.push(problem.at(found.place.span).label("not valid").help(help));
            }
        }
    }
    read
}

/// Conditions by place: `{ "/event" = "entry.publish", "X-GitHub-Event" = ["push", "release"] }`.
struct When(Vec<Condition>);

impl Read for When {
    fn read(entry: &Entry<'_>) -> Option<Self> {
        const FORM: &str =
            "a table: { \"/event\" = \"entry.publish\", \"X-GitHub-Event\" = \"push\" }";
        let mut conditions = Vec::new();
        for (place, words) in entry.pairs(FORM)? {
            match (place_of(place.value), Words::read(&words)) {
                (Ok(place), Some(words)) => conditions.push(Condition { place, is: words.0 }),
                (Err(help), _) => {
                    let problem = Problem::new(format!("`{}` is not valid", place.place.key));
                    entry.sink().push(problem.at(place.place.span).label("not valid").help(help));
                }
                (Ok(_), None) => {}
            }
        }
        Some(Self(conditions))
    }
}

fn place_of(text: &str) -> Result<Place, String> {
    if text.starts_with('/') {
        return Pointer::parse(text).map(Place::Body);
    }
    let name = header_name(text).ok().filter(|name| *name != header::COOKIE);
    name.map(Place::Field).ok_or_else(|| {
        "expected a JSON pointer (\"/event\") or the name of a header field".to_owned()
    })
}

/// A word, or a list of them.
struct Words(Vec<String>);

impl Read for Words {
    fn read(entry: &Entry<'_>) -> Option<Self> {
        let words =
            if entry.is_list() { Vec::<String>::read(entry)? } else { vec![String::read(entry)?] };
        if words.is_empty() || words.len() > MOST {
            let help = format!("expected 1 to {MOST} words");
            entry.report(format!("`{}` is not valid", entry.place.key), "not valid", help);
            return None;
        }
        Some(Self(words))
    }
}
