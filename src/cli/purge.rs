//! `atoll purge`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{ArgGroup, Args, ValueEnum};
use http::{HeaderValue, StatusCode};
use serde_json::{Map, Value, json};

use crate::config::{format_duration, parse_duration};

use super::receipt::{KEY, follow, nodes};
use super::remote::{Remote, cell, problem, required_token};
use super::{DONE, LATE, USAGE, complain, replay};

/// Time for the exchange itself, beside the time that the node is told to wait.
const EXCHANGE: Duration = Duration::from_secs(5);

/// Time that is waited for a level where nobody says how long.
const PATIENCE: Duration = Duration::from_secs(5);

/// Time for a dry run: the node walks over all that it has stored.
const WALK: Duration = Duration::from_secs(120);

/// Largest list of selectors that is read from a file.
const LARGEST_FILE: u64 = 16 << 20;

const ABOUT: &str =
    "Purges stored responses: from its answer on, a node does not serve them any more";

const MORE: &str = "\
Without --site every site that the token covers is meant. --url means a URL with all its variants,
--tag the tags that the origin gave in Surrogate-Key, Cache-Tag, Edge-Cache-Tag, xkey or
Cache-Groups, --prefix a host with the beginning of a path, up to a \"/\", --host a host whatever the
port, --glob a pattern for host, path and query together, in which * stands for any run of
characters. Everything that is named in one command is purged together, or nothing is.

With --wait the way of the purge to the nodes is drawn as a table by PoP: applied, with the time that
took; fenced, where a node that has not said so uses its memory no more without asking the origin;
unknown, and why. --wait=acknowledged ends when no node can miss it for long, --wait (everywhere) when
no node of the mesh is unknown. In a script: `atoll purge --tag a --wait --timeout 10s || exit`.

Examples:
  atoll purge --tag article-1 --wait
  atoll purge --tag article-1 --tag front-page
  atoll purge --url https://www.example.org/news --soft
  atoll purge --prefix www.example.org/news/ --host img.example.org --dry-run
  atoll purge --glob '*.example.org/*.css?v=*'
  atoll purge --tag front-page --refetch 100
  atoll purge --all --site shop --wait everywhere --timeout 10s
  atoll purge --replay /var/log/atoll/audit.log --since 2h
  grep -v draft tags.txt | sed 's/^/tag /' | atoll purge --file -

A file holds one selector a line: `url`, `tag`, `prefix`, `host` or `glob`, a blank, and its value.
Empty lines and lines that begin with # are passed over. --replay sends the purges of an audit log
again, each known by its id, so that doing it twice does no more than once.

Environment:
  ATOLL_ADMIN_TOKEN   the token (scope purge; purge-all for --all without --site)
  ATOLL_ADMIN         the admin listener, unless --admin says it

Exit codes:
  0  done: it has come as far as --wait says
  1  refused, nothing was purged
  2  wrong flags
  3  not in time: it may or may not have taken effect everywhere; repeat it
  4  nobody answers";

#[derive(Args, Debug)]
#[command(about = ABOUT, after_help = MORE)]
#[command(group(
    ArgGroup::new("what").required(true).multiple(true).args(["url", "tag", "prefix", "host", "glob", "file", "all", "replay"])
))]
pub(super) struct Purge {
    /// URL, with all its variants; may be repeated.
    #[arg(long, value_name = "URL")]
    url: Vec<String>,
    /// Tag; may be repeated.
    #[arg(long, value_name = "TAG")]
    tag: Vec<String>,
    /// Host and beginning of a path: www.example.org/news/; may be repeated.
    #[arg(long, value_name = "PREFIX")]
    prefix: Vec<String>,
    /// Host; may be repeated.
    #[arg(long, value_name = "HOST")]
    host: Vec<String>,
    /// Pattern with * for host, path and query: *.example.org/*.css; slow; may be repeated.
    #[arg(long, value_name = "PATTERN")]
    glob: Vec<String>,
    /// Everything.
    #[arg(long, conflicts_with_all = ["url", "tag", "prefix", "host", "glob", "file"])]
    all: bool,
    /// File of selectors, one a line; "-" for standard input.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// File of an audit log whose purges are sent again; may be repeated.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["url", "tag", "prefix", "host", "glob",
        "file", "all", "site", "soft", "check", "dry_run", "guard", "refetch", "idempotency_key", "wait", "timeout"])]
    replay: Vec<PathBuf>,
    /// Only those since then: a moment in UTC, or how long ago.
    #[arg(long, value_name = "TIME", requires = "replay", conflicts_with_all = ["url", "tag", "prefix",
        "host", "glob", "file", "all"], value_parser = replay::since)]
    since: Option<String>,
    /// Only within this site.
    #[arg(long, value_name = "NAME")]
    site: Option<String>,
    /// Make stale rather than dead: may still be shown while it is renewed.
    #[arg(long)]
    soft: bool,
    /// Rather than dead, to be shown again only once the origin has confirmed it.
    #[arg(long, conflicts_with = "soft")]
    check: bool,
    /// Say how much would be purged, and purge nothing.
    #[arg(long)]
    dry_run: bool,
    /// Purge nothing if more than this share of what is stored would go.
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(0..=100))]
    guard: Option<u8>,
    /// Have so many of what it takes fetched again, the most asked for first (scope warm).
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    refetch: Option<u32>,
    /// A text of your own for this purge: sent again with the same one, it is done once.
    #[arg(long, value_name = "KEY", value_parser = key)]
    idempotency_key: Option<HeaderValue>,
    /// How far it must have come before the answer [default: acknowledged; alone: everywhere].
    #[arg(long, value_name = "LEVEL", value_enum, num_args = 0..=1, default_missing_value = "everywhere")]
    wait: Option<Level>,
    /// Longest time to wait for that [default: 5s].
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    timeout: Option<Duration>,
    #[command(flatten)]
    remote: Remote,
}

/// How far a purge must have come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Level {
    /// Applied by the node that was asked.
    Local,
    /// Known to a majority of the witnesses: no node forgets it.
    Acknowledged,
    /// Applied by every node, or that node fenced off.
    Everywhere,
}

impl Level {
    fn label(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Acknowledged => "acknowledged",
            Self::Everywhere => "everywhere",
        }
    }
}

/// Reads a value of `Idempotency-Key`.
fn key(text: &str) -> Result<HeaderValue, String> {
    let sound = (1..=255).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    let value = HeaderValue::from_str(text).ok().filter(|_| sound);
    value.ok_or_else(|| "expected 1 to 255 visible ASCII characters".to_owned())
}

/// The selectors of the command line and of the file.
#[derive(Debug, Default, PartialEq, Eq)]
struct Selectors {
    urls: Vec<String>,
    tags: Vec<String>,
    prefixes: Vec<String>,
    hosts: Vec<String>,
    globs: Vec<String>,
}

impl Purge {
    pub(super) fn run(self) -> u8 {
        if !self.replay.is_empty() {
            return replay::run(&self.remote, &self.replay, self.since.as_deref());
        }
        self.ask().unwrap_or_else(|code| code)
    }

    fn ask(&self) -> Result<u8, u8> {
        let usage = |error: String| {
            complain(&error);
            USAGE
        };
        let selectors = self.selectors().map_err(usage)?;
        let token = required_token(&self.remote)?;
        let body = self.body(selectors);
        let walks = self.dry_run || self.guard.is_some() || self.refetch.is_some();
        let waits = self.timeout.unwrap_or(PATIENCE);
        let answer = if self.follows() {
            follow(&self.remote, &token, self.idempotency_key.clone(), body, waits)?
        } else {
            let most = if walks { WALK + waits } else { waits + EXCHANGE };
            let key = self.idempotency_key.clone().map(|key| (KEY, key));
            let body = body.to_string();
            self.remote.send_with("/v1/purge", &token, key, body.as_bytes(), most)?
        };
        let late = answer.status == StatusCode::SERVICE_UNAVAILABLE;
        if !answer.status.is_success() && !late {
            return Ok(self.remote.refused(&answer));
        }
        if self.remote.json {
            self.remote.print_raw(&answer);
        } else {
            if late {
                complain(&problem(&answer));
            }
            let told = serde_json::from_slice(&answer.body).unwrap_or(Value::Null);
            print!("{}", table(&told));
            if late && !self.follows() {
                print!("{}", nodes(&told));
            }
        }
        Ok(if late { LATE } else { DONE })
    }

    /// Whether its way to the nodes is drawn as it goes. What has to be looked for first is answered
    /// in one piece.
    fn follows(&self) -> bool {
        let far = self.wait.is_some_and(|level| level != Level::Local);
        let looks = self.dry_run || self.guard.is_some() || self.refetch.is_some();
        far && !looks && !self.remote.json
    }

    fn selectors(&self) -> Result<Selectors, String> {
        let mut selectors = Selectors {
            urls: self.url.clone(),
            tags: self.tag.clone(),
            prefixes: self.prefix.clone(),
            hosts: self.host.clone(),
            globs: self.glob.clone(),
        };
        if let Some(file) = &self.file {
            let name = if file == Path::new("-") {
                "standard input".to_owned()
            } else {
                file.display().to_string()
            };
            let text = read(file).map_err(|error| format!("{name}: {error}"))?;
            selectors.add_lines(&text).map_err(|error| format!("{name}: {error}"))?;
        }
        if !self.all && selectors == Selectors::default() {
            return Err("the file holds no selector; to purge everything say --all".to_owned());
        }
        Ok(selectors)
    }

    fn body(&self, selectors: Selectors) -> Value {
        let mut body = Map::new();
        let mut put = |name: &str, value: Value| body.insert(name.to_owned(), value);
        if let Some(site) = &self.site {
            put("site", json!(site));
        }
        for (name, list) in [
            ("urls", selectors.urls),
            ("tags", selectors.tags),
            ("prefixes", selectors.prefixes),
            ("hosts", selectors.hosts),
            ("globs", selectors.globs),
        ] {
            if !list.is_empty() {
                put(name, json!(list));
            }
        }
        if self.all {
            put("all", json!(true));
        }
        if self.soft {
            put("mode", json!("soft"));
        }
        if self.check {
            put("mode", json!("check"));
        }
        if let Some(level) = self.wait {
            put("wait", json!(level.label()));
        }
        if let Some(timeout) = self.timeout {
            put("timeout", json!(format_duration(timeout)));
        }
        if let Some(percent) = self.guard {
            put("guard", json!(percent));
        }
        if let Some(most) = self.refetch {
            put("refetch", json!(most));
        }
        if self.dry_run {
            put("dry_run", json!(true));
        }
        Value::Object(body)
    }
}

impl Selectors {
    fn add_lines(&mut self, text: &str) -> Result<(), String> {
        for (i, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (kind, value) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
            let list = match kind {
                "url" => &mut self.urls,
                "tag" => &mut self.tags,
                "prefix" => &mut self.prefixes,
                "host" => &mut self.hosts,
                "glob" => &mut self.globs,
                _ => {
                    return Err(format!(
                        "line {}: begins with none of url, tag, prefix, host, glob",
                        i + 1
                    ));
                }
            };
            let value = value.trim();
            if value.is_empty() {
                return Err(format!("line {}: a value is missing: \"{kind} VALUE\"", i + 1));
            }
            list.push(value.to_owned());
        }
        Ok(())
    }
}

pub(super) fn read(file: &Path) -> Result<String, String> {
    use std::io::Read as _;
    let mut text = String::new();
    let input: Box<dyn std::io::Read> = if file == Path::new("-") {
        Box::new(std::io::stdin())
    } else {
        Box::new(std::fs::File::open(file).map_err(|error| error.to_string())?)
    };
    let count = input.take(LARGEST_FILE + 1).read_to_string(&mut text);
    let count = count.map_err(|error| error.to_string())? as u64;
    if count > LARGEST_FILE { Err(format!("larger than {LARGEST_FILE} bytes")) } else { Ok(text) }
}

/// The receipt, or what a dry run found, a line for each of its members.
fn table(receipt: &Value) -> String {
    const MEMBERS: [(&str, &str); 13] = [
        ("id", "purge"),
        ("state", "state"),
        ("epoch", "epoch"),
        ("took_ms", "took (ms)"),
        ("dry_run", "dry run"),
        ("stored", "stored"),
        ("matched", "matched"),
        ("bytes", "bytes"),
        ("requests_per_second", "requests/s"),
        ("freed", "freed (bytes)"),
        ("/refetch/requests", "fetched again"),
        ("/refetch/warm_up", "warm-up"),
        ("audit", "in audit log"),
    ];
    let mut out = String::new();
    let dry = receipt.get("dry_run").is_some();
    for (member, name) in MEMBERS {
        // How much is stored is never told to a token that is bound to sites.
        let found =
            if member.starts_with('/') { receipt.pointer(member) } else { receipt.get(member) };
        if let Some(value) = found.filter(|value| !(dry && value.is_null())) {
            out.push_str(&format!("{name:<16}{}\n", cell(value)));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        purge: Purge,
    }

    fn body(line: &str) -> Value {
        let words = std::iter::once("purge").chain(line.split(' '));
        let purge = Line::try_parse_from(words).expect(line).purge;
        purge.body(purge.selectors().expect(line))
    }

    #[test]
    fn flags_become_the_body_that_the_admin_listener_reads() {
        for (line, expected) in [
            ("--tag a --tag b", json!({"tags": ["a", "b"]})),
            ("--all --site s", json!({"all": true, "site": "s"})),
            (
                "--url https://a/b --soft --wait everywhere --timeout 1m30s --dry-run",
                json!({"urls": ["https://a/b"], "mode": "soft", "wait": "everywhere",
                       "timeout": "1m30s", "dry_run": true}),
            ),
            ("--host h --guard 5", json!({"hosts": ["h"], "guard": 5})),
            ("--tag t --refetch 50", json!({"tags": ["t"], "refetch": 50})),
            ("--host h --check", json!({"hosts": ["h"], "mode": "check"})),
            (
                "--prefix a/b --host h --glob *.x/*",
                json!({"prefixes": ["a/b"], "hosts": ["h"], "globs": ["*.x/*"]}),
            ),
        ] {
            assert_eq!(body(line), expected, "{line}");
        }
    }

    #[test]
    fn a_file_holds_one_selector_a_line() {
        let mut selectors = Selectors::default();
        selectors.add_lines("# a list\n\ntag a b\r\nurl\thttps://a/b\n").expect("fine");
        assert_eq!(selectors.tags, ["a b"]);
        assert_eq!(selectors.urls, ["https://a/b"]);
        for (text, expected) in
            [("x y", "line 1: begins with none"), ("\ntag", "line 2: a value is missing")]
        {
            let error = Selectors::default().add_lines(text).expect_err(text);
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn a_receipt_becomes_a_table() {
        let receipt = json!({"id": "n.1.2", "epoch": 43, "took_ms": 0.2, "state": "acknowledged", "matched": null,
                             "refetch": {"requests": 3, "warm_up": "n.1.w1"}});
        let expected = "\
purge           n.1.2
state           acknowledged
epoch           43
took (ms)       0.2
matched         not known yet
fetched again   3
warm-up         n.1.w1
";
        assert_eq!(table(&receipt), expected);
        let preview = json!({"dry_run": true, "mode": "hard", "selectors": 1, "stored": null,
                             "matched": 12, "bytes": 34567, "requests_per_second": 7.5, "took_ms": 1.5});
        let expected = "\
took (ms)       1.5
dry run         true
matched         12
bytes           34567
requests/s      7.5
";
        assert_eq!(table(&preview), expected);
    }
}
