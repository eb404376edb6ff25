//! `atoll purge --replay`: sends the purges of an audit log again.
//!
//! For a node that came up with a store from before, or another node that has to forget the same.
//! What is sent are the selectors that a purge came to, site by site, so that the token that sends
//! them again reaches neither more nor less than the one that sent them first. Each request bears an
//! `Idempotency-Key` made of the purge's id: a replay that broke off can be begun again.

use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use http::{HeaderName, HeaderValue, StatusCode};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::audit::Part;
use crate::clock;
use crate::config::{hash_token, parse_duration};
use crate::telemetry::rfc3339;

use super::audit::read_log;
use super::remote::{Remote, problem, required_token};
use super::{DONE, REFUSED, USAGE, complain, counted};

/// Time for one request.
const EXCHANGE: Duration = Duration::from_secs(30);

/// Pause where the node says that the token purges too fast, and how often.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSES: usize = 120;

const KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// A purge of the log.
#[derive(Debug, Deserialize)]
struct Line {
    time: String,
    act: String,
    #[serde(default)]
    what: What,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct What {
    id: String,
    mode: String,
    selectors: Vec<Part>,
}

/// A request to be sent.
#[derive(Debug, PartialEq, Eq)]
struct Again {
    id: String,
    key: String,
    body: Value,
}

/// What became of it all.
#[derive(Debug, Default)]
struct Tally {
    requests: usize,
    refused: usize,
}

/// A moment such as `2026-11-22T10:00:00Z`, a beginning of one, or how long ago: `2h`.
pub(super) fn since(text: &str) -> Result<String, String> {
    if let Ok(ago) = parse_duration(text) {
        return Ok(rfc3339(clock::now().wall - ago));
    }
    let form = |byte: u8| byte.is_ascii_digit() || b"-T:.Z".contains(&byte);
    let day = text.len() >= 10 && text.bytes().all(form);
    let dashes = text.as_bytes().get(4) == Some(&b'-') && text.as_bytes().get(7) == Some(&b'-');
    if !(day && dashes) {
        return Err(
            "expected a moment in UTC or how long ago: \"2026-11-22T10:00Z\", \"2h\"".into()
        );
    }
    Ok(text.trim_end_matches('Z').to_owned())
}

/// Sends the purges of these files again, those since a moment, and returns the exit code.
pub(super) fn run(remote: &Remote, files: &[PathBuf], since: Option<&str>) -> u8 {
    replay(remote, files, since).unwrap_or_else(|code| code)
}

fn replay(remote: &Remote, files: &[PathBuf], since: Option<&str>) -> Result<u8, u8> {
    let token = required_token(remote)?;
    let (purges, requests) = read(files, since)?;
    let mut tally = Tally::default();
    for again in &requests {
        let key = HeaderValue::from_str(&again.key).map_err(|_invalid| USAGE)?;
        let body = again.body.to_string();
        let mut pauses = 0;
        let answer = loop {
            let field = Some((KEY, key.clone()));
            let answer = remote.send_with("/v1/purge", &token, field, body.as_bytes(), EXCHANGE)?;
            if answer.status != StatusCode::TOO_MANY_REQUESTS || pauses == PAUSES {
                break answer;
            }
            pauses += 1;
            thread::sleep(PAUSE);
        };
        tally.requests += 1;
        if !answer.status.is_success() {
            tally.refused += 1;
            complain(&format!("{}: {}", again.id, problem(&answer)));
        }
    }
    if remote.json {
        let Tally { requests, refused } = tally;
        println!("{}", json!({ "purges": purges, "requests": requests, "refused": refused }));
    } else {
        println!(
            "{} sent again in {}, {} refused",
            counted(purges, "purge"),
            counted(tally.requests, "request"),
            tally.refused
        );
    }
    Ok(if tally.refused == 0 { DONE } else { REFUSED })
}

/// The purges of a log, as requests. A log that was altered is not replayed.
fn read(files: &[PathBuf], since: Option<&str>) -> Result<(usize, Vec<Again>), u8> {
    let (mut purges, mut requests) = (0, Vec::new());
    let log = read_log(files, |_, raw| {
        let Ok(line) = serde_json::from_slice::<Line>(raw) else { return };
        if line.act == "purge" && since.is_none_or(|since| *line.time >= *since) {
            purges += 1;
            requests.extend(again(&line.what));
        }
    });
    let log = log.map_err(|error| {
        complain(&error);
        USAGE
    })?;
    for (path, broken) in &log.breaks {
        complain(&format!("{}: {broken}", path.display()));
    }
    if !log.breaks.is_empty() {
        complain("the log is not as it was written; nothing was sent");
        return Err(REFUSED);
    }
    Ok((purges, requests))
}

fn again(what: &What) -> Vec<Again> {
    let sites = |part: &Part| match &*part.sites {
        [] => vec![None],
        sites => sites.iter().map(|site| Some(site.to_string())).collect(),
    };
    let bodies = what.selectors.iter().flat_map(|part| {
        sites(part).into_iter().map(|site| body(part, site.as_deref(), &what.mode))
    });
    let number = |(number, body): (usize, Value)| Again {
        id: what.id.clone(),
        key: key(&what.id, number),
        body,
    };
    bodies.enumerate().map(number).collect()
}

/// A key that is the same whenever this part of this purge is sent again.
fn key(id: &str, number: usize) -> String {
    use std::fmt::Write as _;
    let hash = hash_token(format!("{number} {id}"));
    hash.iter().fold("replay-".to_owned(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn body(part: &Part, site: Option<&str>, mode: &str) -> Value {
    let mut body = Map::new();
    body.insert("mode".to_owned(), json!(mode));
    if let Some(site) = site {
        body.insert("site".to_owned(), json!(site));
    }
    if part.all {
        body.insert("all".to_owned(), json!(true));
    }
    for (name, list) in [
        ("urls", &part.urls),
        ("tags", &part.tags),
        ("prefixes", &part.prefixes),
        ("hosts", &part.hosts),
        ("globs", &part.globs),
    ] {
        if !list.is_empty() {
            body.insert(name.to_owned(), json!(list));
        }
    }
    Value::Object(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_purge_is_sent_again_site_by_site() {
        let what: What = serde_json::from_value(json!({
            "id": "n1.00ff.3", "mode": "soft", "selectors": [
                {"sites": ["shop", "blog"], "tags": ["a"], "globs": ["*.css"]},
                {"sites": ["shop"], "urls": ["http://shop.example/?q"]},
                {"sites": ["shop"], "all": true},
                {"all": true},
            ],
        }))
        .unwrap();
        let requests = again(&what);
        let bodies: Vec<&Value> = requests.iter().map(|again| &again.body).collect();
        assert_eq!(
            bodies,
            [
                &json!({"mode": "soft", "site": "shop", "tags": ["a"], "globs": ["*.css"]}),
                &json!({"mode": "soft", "site": "blog", "tags": ["a"], "globs": ["*.css"]}),
                &json!({"mode": "soft", "site": "shop", "urls": ["http://shop.example/?q"]}),
                &json!({"mode": "soft", "site": "shop", "all": true}),
                &json!({"mode": "soft", "all": true}),
            ]
        );
        let mut keys: Vec<&str> = requests.iter().map(|again| &*again.key).collect();
        assert!(keys.iter().all(|key| key.len() == 71));
        keys.dedup();
        assert_eq!(keys.len(), 5);
        assert_eq!(again(&what), requests, "the same keys every time");
    }

    #[test]
    fn a_moment_is_told_in_utc_or_by_how_long_ago() {
        assert_eq!(since("2026-11-22T10:00:00Z").as_deref(), Ok("2026-11-22T10:00:00"));
        assert_eq!(since("2026-11-22").as_deref(), Ok("2026-11-22"));
        assert!("2026-11-22T10:00:00.000Z" >= &*since("2026-11-22T10:00:00Z").unwrap());
        assert!(since("2h").unwrap() < since("1h").unwrap());
        for wrong in ["", "yesterday", "10:00", "22/11/2026", "2026-11-22T10:00+01:00"] {
            assert!(since(wrong).is_err(), "{wrong}");
        }
    }
}
