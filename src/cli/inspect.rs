//! `atoll inspect`.

use std::time::Duration;

use clap::Args;
use http::Method;
use serde_json::Value;

use super::explain::field;
use super::remote::{Remote, required_token};
use super::table::{member, number, query_value, rows, seconds, size, table};
use super::{DONE, REFUSED};

/// Time for the whole exchange.
const MOST: Duration = Duration::from_secs(5);

const ABOUT: &str = "Shows what a node has stored under a URL: every variant, and its pieces";

const MORE: &str = "\
Nothing is fetched, stored or counted. STATE is what the purges say: alive, soft, check or dead (a
dead response is never served and waits for the sweep). TTL is what is left of freshness, negative
where it is stale. Where the cache key holds header fields, name them by -H.

Examples:
  atoll inspect https://www.example.org/news
  atoll inspect https://www.example.org/news -H 'X-Kind: new' --json

Environment:
  ATOLL_ADMIN_TOKEN   the token (scope read)
  ATOLL_ADMIN         the admin listener, unless --admin says it

Exit codes:
  0  something is stored
  1  nothing is stored, or refused
  2  wrong flags
  3  no answer in time
  4  nobody answers";

#[derive(Args, Debug)]
#[command(about = ABOUT, after_help = MORE)]
pub(super) struct Inspect {
    /// The URL, with scheme and host.
    #[arg(value_name = "URL")]
    url: String,
    /// Header field that is in the cache key; may be repeated.
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE", value_parser = field)]
    header: Vec<(String, String)>,
    #[command(flatten)]
    remote: Remote,
}

impl Inspect {
    pub(super) fn run(self) -> u8 {
        self.ask().unwrap_or_else(|code| code)
    }

    fn ask(&self) -> Result<u8, u8> {
        let token = required_token(&self.remote)?;
        let answer = self.remote.ask(&Method::GET, &self.path(), Some(&token), None, MOST)?;
        if !answer.status.is_success() {
            return Ok(self.remote.refused(&answer));
        }
        let told: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        if self.remote.json {
            self.remote.print_raw(&answer);
        } else {
            print!("{}", page(&told));
        }
        let none = rows(&told, "stored").is_empty() && rows(&told, "parts").is_empty();
        Ok(if none { REFUSED } else { DONE })
    }

    fn path(&self) -> String {
        let fields = self
            .header
            .iter()
            .map(|(name, value)| format!("&header={}", query_value(&format!("{name}: {value}"))));
        format!("/v1/cache/entry?url={}{}", query_value(&self.url), fields.collect::<String>())
    }
}

const HEAD: [&str; 11] = [
    "STATE", "STATUS", "BYTES", "MEMORY", "AGE", "TTL", "SOURCE", "TAGS", "CODED", "SEGMENTS",
    "VARY",
];

fn page(told: &Value) -> String {
    let section = |name: &str| told.get(name).unwrap_or(&Value::Null);
    let mut out = format!(
        "{}\nsite {}, rule {}, origin {}\n",
        member(section("key"), "url"),
        member(section("site"), "name"),
        member(section("site"), "rule"),
        member(section("site"), "origin"),
    );
    if let Some(fields) = section("key").get("fields").and_then(Value::as_str) {
        out.push_str(&format!("key fields {}\n", super::remote::plain(fields)));
    }
    let (stored, parts) = (rows(told, "stored"), rows(told, "parts"));
    if stored.is_empty() && parts.is_empty() {
        out.push_str("\nnothing is stored\n");
    }
    if !stored.is_empty() {
        out.push_str(&format!("\n{}", table(&HEAD, stored.iter().map(row))));
    }
    if !parts.is_empty() {
        let mut head = HEAD;
        head[8] = "OF";
        head[9] = "RANGES";
        out.push_str(&format!("\nincomplete\n{}", table(&head, parts.iter().map(part))));
    }
    let remembered = section("uncacheable");
    if !remembered.is_null() {
        let (why, time) = (member(remembered, "reason"), number(remembered, "for_seconds"));
        out.push_str(&format!("\nnot shared ({why}); remembered for {}\n", seconds(time)));
    }
    if !section("fill").is_null() {
        let arrived = size(number(section("fill"), "arrived_bytes"));
        let readers = member(section("fill"), "readers");
        out.push_str(&format!("\nbeing fetched: {arrived} so far, {readers} waiting\n"));
    }
    out
}

fn row(stored: &Value) -> Vec<String> {
    vec![
        member(stored, "state"),
        member(stored, "status"),
        size(number(stored, "body_bytes")),
        size(number(stored, "memory_bytes")),
        seconds(number(stored, "age_seconds")),
        seconds(number(stored, "ttl_seconds")),
        member(stored, "source"),
        member(stored, "tags"),
        member(stored, "codings"),
        member(stored, "segments"),
        member(stored, "vary"),
    ]
}

fn part(stored: &Value) -> Vec<String> {
    let mut cells = row(stored);
    let total = stored.get("total_bytes").and_then(Value::as_f64);
    let beside = [total.map_or_else(|| "-".to_owned(), size), member(stored, "ranges")];
    for (cell, text) in cells.iter_mut().skip(8).zip(beside) {
        *cell = text;
    }
    cells
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_stored_becomes_a_page() {
        let told = json!({
            "site": {"name": "main", "rule": "/", "origin": "back"},
            "key": {"url": "https://a/b"},
            "stored": [
                {"state": "alive", "status": 200, "body_bytes": 2048, "memory_bytes": 2900,
                 "age_seconds": 3.4, "ttl_seconds": 57, "source": "max-age", "tags": 2,
                 "codings": "br (300 bytes)", "vary": "accept-language: de\u{1b}"},
                {"state": "dead", "status": 404, "body_bytes": 5, "memory_bytes": 900,
                 "age_seconds": 200, "ttl_seconds": -140, "source": "s-maxage", "tags": 0},
            ],
            "parts": [{"state": "alive", "status": 206, "body_bytes": 100, "memory_bytes": 900,
                       "age_seconds": 1, "ttl_seconds": 9, "source": "max-age", "tags": 0,
                       "ranges": "0-99", "total_bytes": 4096}],
            "uncacheable": {"reason": "private", "for_seconds": 61.2},
        });
        let expected = "\
https://a/b
site main, rule /, origin back

STATE  STATUS  BYTES    MEMORY   AGE       TTL        SOURCE    TAGS  CODED           SEGMENTS  VARY
alive  200     2.0 KiB  2.8 KiB  3 s       57 s       max-age   2     br (300 bytes)  -         accept-language: de
dead   404     5 B      900 B    3 m 20 s  -2 m 20 s  s-maxage  0     -               -         -

incomplete
STATE  STATUS  BYTES  MEMORY  AGE  TTL  SOURCE   TAGS  OF       RANGES  VARY
alive  206     100 B  900 B   1 s  9 s  max-age  0     4.0 KiB  0-99    -

not shared (private); remembered for 1 m 1 s
";
        assert_eq!(page(&told), expected);
        let empty = json!({"key": {"url": "https://a/b"}, "stored": [], "parts": []});
        assert!(page(&empty).ends_with("\n\nnothing is stored\n"), "{}", page(&empty));
    }
}
