//! `atoll warm`.

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Args};
use http::Method;
use serde_json::{Map, Value, json};

use super::client::Answer;
use super::explain::field;
use super::purge::read;
use super::purges::id;
use super::remote::{Remote, plain, required_token};
use super::table::{amount, member, number, rows, size};
use super::{DONE, REFUSED, USAGE, complain};

/// Time for one exchange.
const MOST: Duration = Duration::from_secs(10);
/// Time between two looks at how far it has come.
const LOOK: Duration = Duration::from_millis(250);
/// Looks between two lines where nobody sees a bar.
const QUIET: u32 = 40;
/// Signs of the bar.
const BAR: usize = 30;

const ABOUT: &str = "Has a node fetch URLs before clients ask for them";

const MORE: &str = "\
Each URL is asked for as a client would ask, through the node, and stored where its answer allows
it; what is there already and fresh is left as it is. A sitemap is fetched through the node, too, so
it must stand on a site of the token; URLs of other sites in it are left out. The node goes on when
this program is ended: --stop ends the warm-up.

Examples:
  atoll warm https://www.example.org/ https://www.example.org/news
  atoll warm --sitemap https://www.example.org/sitemap.xml --rate 50
  atoll warm --file urls.txt --variant 'Accept-Encoding: br' --variant 'Accept-Encoding: gzip'
  atoll warm --stop edge-1.5c0ffee5c0ffee00.w3

A file holds one URL a line. Empty lines and lines that begin with # are passed over.

Environment:
  ATOLL_ADMIN_TOKEN   the token (scope warm)
  ATOLL_ADMIN         the admin listener, unless --admin says it

Exit codes:
  0  all was fetched
  1  refused, stopped, or something could not be fetched
  2  wrong flags
  3  no answer in time
  4  nobody answers";

#[derive(Args, Debug)]
#[command(about = ABOUT, after_help = MORE)]
#[command(group(
    ArgGroup::new("what").required(true).args(["urls", "sitemap", "file", "stop"])
))]
pub(super) struct Warm {
    /// URL to fetch.
    #[arg(value_name = "URL")]
    urls: Vec<String>,
    /// Sitemap, or index of sitemaps, whose URLs are fetched.
    #[arg(long, value_name = "URL")]
    sitemap: Option<String>,
    /// File of URLs, one a line; "-" for standard input.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// End this warm-up.
    #[arg(long, value_name = "ID", value_parser = id)]
    stop: Option<String>,
    /// Requests per second [default: 10].
    #[arg(long, value_name = "NUMBER", value_parser = rate, conflicts_with = "stop")]
    rate: Option<f64>,
    /// Header field of every request; may be repeated.
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE", value_parser = field, conflicts_with = "stop")]
    header: Vec<(String, String)>,
    /// Every URL is fetched once with each of these fields; may be repeated.
    #[arg(long, value_name = "NAME: VALUE", value_parser = field, conflicts_with = "stop")]
    variant: Vec<(String, String)>,
    #[command(flatten)]
    remote: Remote,
}

fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse().ok().filter(|rate| (0.1..=1000.0).contains(rate));
    rate.ok_or_else(|| "a number from 0.1 to 1000".to_owned())
}

impl Warm {
    pub(super) fn run(self) -> u8 {
        self.ask().unwrap_or_else(|code| code)
    }

    fn ask(&self) -> Result<u8, u8> {
        let token = required_token(&self.remote)?;
        if let Some(id) = &self.stop {
            let path = format!("/v1/warm/{id}");
            let answer = self.remote.ask(&Method::DELETE, &path, Some(&token), None, MOST)?;
            return Ok(self.end(&answer, DONE));
        }
        let body = self.body().map_err(|error| {
            complain(&error);
            USAGE
        })?;
        let body = body.to_string();
        let (path, body) = ("/v1/warm", Some(body.as_bytes()));
        let answer = self.remote.ask(&Method::POST, path, Some(&token), body, MOST)?;
        if !answer.status.is_success() {
            return Ok(self.remote.refused(&answer));
        }
        let answer = self.follow(answer, &token)?;
        let code = if went_well(&read_json(&answer)) { DONE } else { REFUSED };
        Ok(self.end(&answer, code))
    }

    /// Looks how far it has come until it is over, and gives the last answer.
    fn follow(&self, first: Answer, token: &str) -> Result<Answer, u8> {
        let seen = std::io::stderr().is_terminal() && !self.remote.json;
        let mut answer = first;
        for look in 0_u32.. {
            let told = read_json(&answer);
            if !answer.status.is_success() || told.get("state") != Some(&json!("running")) {
                break;
            }
            if seen {
                eprint!("\r{}\u{1b}[K", bar(&told));
                let _ = std::io::stderr().flush();
            } else if !self.remote.json && look % QUIET == 0 {
                eprintln!("{}", line(&told));
            }
            std::thread::sleep(LOOK);
            let id = id(told.get("id").and_then(Value::as_str).unwrap_or_default());
            let path = format!("/v1/warm/{}", id.map_err(|_not_an_id| REFUSED)?);
            answer = self.remote.ask(&Method::GET, &path, Some(token), None, MOST)?;
        }
        if seen {
            eprint!("\r\u{1b}[K");
        }
        Ok(answer)
    }

    fn end(&self, answer: &Answer, code: u8) -> u8 {
        if !answer.status.is_success() {
            return self.remote.refused(answer);
        }
        if self.remote.json {
            self.remote.print_raw(answer);
        } else {
            print!("{}", summary(&read_json(answer)));
        }
        code
    }

    fn body(&self) -> Result<Value, String> {
        let mut body = Map::new();
        if let Some(sitemap) = &self.sitemap {
            body.insert("sitemap".to_owned(), json!(sitemap));
        } else {
            let mut urls = self.urls.clone();
            if let Some(file) = &self.file {
                let text = read(file).map_err(|error| format!("{}: {error}", file.display()))?;
                let lines = text.lines().map(str::trim);
                let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
                urls.extend(lines.map(str::to_owned));
            }
            body.insert("urls".to_owned(), json!(urls));
        }
        if let Some(rate) = self.rate {
            body.insert("rate".to_owned(), json!(rate));
        }
        let with = |field: Option<&(String, String)>| -> Vec<(String, String)> {
            self.header.iter().chain(field).cloned().collect()
        };
        if !self.variant.is_empty() {
            let sets: Vec<_> = self.variant.iter().map(|field| with(Some(field))).collect();
            body.insert("headers".to_owned(), json!(sets));
        } else if !self.header.is_empty() {
            body.insert("headers".to_owned(), json!([with(None)]));
        }
        Ok(Value::Object(body))
    }
}

fn read_json(answer: &Answer) -> Value {
    serde_json::from_slice(&answer.body).unwrap_or_default()
}

/// Whether all was fetched.
fn went_well(told: &Value) -> bool {
    let errors = told.get("errors").and_then(Value::as_object);
    told.get("state") == Some(&json!("done")) && errors.is_some_and(Map::is_empty)
}

/// `[######........................]  20 %  20/100  1.4 MiB  2 failed`
fn bar(told: &Value) -> String {
    let (done, total) = (number(told, "done"), told.get("total").and_then(Value::as_f64));
    let Some(total) = total else { return "reading the sitemap".to_owned() };
    let share = if total > 0.0 { (done / total).clamp(0.0, 1.0) } else { 1.0 };
    let filled = (1..=BAR).filter(|at| *at as f64 <= share * BAR as f64).count();
    let bar = "#".repeat(filled) + &".".repeat(BAR - filled);
    let percent = share * 100.0;
    let mut out = format!(
        "[{bar}] {percent:3.0} %  {}/{}  {}",
        amount(done),
        amount(total),
        size(number(told, "bytes"))
    );
    let failed = number(told, "failed");
    if failed > 0.0 {
        out.push_str(&format!("  {} failed", amount(failed)));
    }
    out
}

/// The same for a file.
fn line(told: &Value) -> String {
    match told.get("total").and_then(Value::as_u64) {
        None => "reading the sitemap".to_owned(),
        Some(total) => {
            format!("{} of {total} done, {} failed", member(told, "done"), member(told, "failed"))
        }
    }
}

fn summary(told: &Value) -> String {
    const MEMBERS: [(&str, &str); 9] = [
        ("id", "warm-up"),
        ("state", "state"),
        ("done", "done"),
        ("stored", "stored"),
        ("hits", "were there"),
        ("not_stored", "not to be stored"),
        ("failed", "failed"),
        ("remaining", "remaining"),
        ("skipped", "left out"),
    ];
    let mut out = String::new();
    for (name, title) in MEMBERS {
        out.push_str(&format!("{title:<18}{}\n", member(told, name)));
    }
    out.push_str(&format!("{:<18}{}\n", "bodies", size(number(told, "bytes"))));
    for (kind, count) in told.get("errors").and_then(Value::as_object).into_iter().flatten() {
        out.push_str(&format!("{:<18}{} {count}\n", "error", plain(kind)));
    }
    for failure in rows(told, "failures") {
        let (url, why) = (member(failure, "url"), member(failure, "why"));
        out.push_str(&format!("{:<18}{why} {url}\n", "failure"));
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
        warm: Warm,
    }

    fn body(words: &[&str]) -> Value {
        let line = Line::try_parse_from(std::iter::once(&"warm").chain(words)).expect("fine");
        line.warm.body().expect("readable")
    }

    #[test]
    fn flags_become_the_body_that_the_admin_listener_reads() {
        assert_eq!(
            body(&["https://a/b", "https://a/c"]),
            json!({"urls": ["https://a/b", "https://a/c"]})
        );
        assert_eq!(
            body(&["--sitemap", "https://a/s", "--rate", "2.5", "-H", "A: b"]),
            json!({"sitemap": "https://a/s", "rate": 2.5, "headers": [[["A", "b"]]]})
        );
        assert_eq!(
            body(&["https://a/b", "-H", "A: b", "--variant", "C: d", "--variant", "C: e"]),
            json!({"urls": ["https://a/b"],
                   "headers": [[["A", "b"], ["C", "d"]], [["A", "b"], ["C", "e"]]]})
        );
    }

    #[test]
    fn how_far_it_has_come_is_a_bar() {
        let told = |done: u64, total: Value| json!({"done": done, "total": total, "bytes": 2048, "failed": 0, "state": "running"});
        for (told, expected) in [
            (told(0, Value::Null), "reading the sitemap".to_owned()),
            (told(0, json!(3)), format!("[{}]   0 %  0/3  2.0 KiB", ".".repeat(30))),
            (
                told(1, json!(2)),
                format!("[{}{}]  50 %  1/2  2.0 KiB", "#".repeat(15), ".".repeat(15)),
            ),
            (told(3, json!(3)), format!("[{}] 100 %  3/3  2.0 KiB", "#".repeat(30))),
            (told(0, json!(0)), format!("[{}] 100 %  0/0  2.0 KiB", "#".repeat(30))),
        ] {
            assert_eq!(bar(&told), expected);
        }
    }

    #[test]
    fn only_what_went_well_all_through_is_well() {
        for (told, expected) in [
            (json!({"state": "done", "errors": {}}), true),
            (json!({"state": "done", "errors": {"status-404": 1}}), false),
            (json!({"state": "stopped", "errors": {}}), false),
            (json!({}), false),
        ] {
            assert_eq!(went_well(&told), expected, "{told}");
        }
    }

    #[test]
    fn the_end_is_told_with_its_failures() {
        let told = json!({
            "id": "n.1.w1", "state": "done", "total": 3, "done": 3, "stored": 1, "hits": 1, "failed": 1,
            "not_stored": 0, "remaining": 0, "skipped": 0, "bytes": 10,
            "errors": {"status-404": 1}, "failures": [{"url": "https://a/\u{1b}x", "why": "status-404"}],
        });
        let text = summary(&told);
        assert!(text.contains("were there        1\n"), "{text}");
        assert!(
            text.ends_with(
                "bodies            10 B\nerror             status-404 1\n\
             failure           status-404 https://a/ x\n"
            ),
            "{text}"
        );
    }
}
