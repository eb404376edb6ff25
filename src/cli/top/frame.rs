//! One picture of a node: from two looks at it to lines.

use std::time::Duration;

use serde_json::{Value, json};

use super::metrics::{Metrics, quantile};
use crate::cli::remote::plain;
use crate::cli::table::{amount, member, number, rows, seconds, size, table};

/// Rows of a section that may take much.
const ROWS: usize = 5;

/// What one look saw.
#[derive(Clone, Debug, Default)]
pub(super) struct Look {
    /// When, on the boot clock.
    pub(super) at: Duration,
    pub(super) metrics: Metrics,
    pub(super) status: Value,
    pub(super) origins: Value,
    pub(super) purges: Value,
    pub(super) keys: Value,
    pub(super) tags: Value,
}

/// What came between two looks.
struct Rates {
    requests: f64,
    hit_ratio: Option<f64>,
    error_ratio: Option<f64>,
    bytes: f64,
    cores: f64,
    hits: [Option<f64>; 3],
    all: [Option<f64>; 3],
}

/// Shares of answers whose time is told.
const SHARES: [f64; 3] = [0.5, 0.9, 0.99];

impl Rates {
    fn of(old: &Look, new: &Look) -> Self {
        let passed = new.at.saturating_sub(old.at).as_secs_f64().max(1e-3);
        let (old, new) = (&old.metrics, &new.metrics);
        // A node that was started anew counts from zero.
        let moved = |old: f64, new: f64| if new >= old { new - old } else { new };
        let requests = moved(old.requests, new.requests);
        let share = |part: f64| (requests > 0.0).then(|| (part / requests).clamp(0.0, 1.0));
        Self {
            requests: requests / passed,
            hit_ratio: share(moved(old.hits, new.hits)),
            error_ratio: share(moved(old.errors, new.errors)),
            bytes: moved(old.bytes, new.bytes) / passed,
            cores: moved(old.cpu_seconds, new.cpu_seconds) / passed,
            hits: SHARES.map(|share| quantile(&old.hit_times, &new.hit_times, share)),
            all: SHARES.map(|share| quantile(&old.times, &new.times, share)),
        }
    }
}

/// The picture, no wider and no higher than this.
pub(super) fn frame(old: &Look, new: &Look, width: usize, height: usize) -> Vec<String> {
    let mut lines = head(old, new);
    let mut sections = [origins(old, new), keys(new), tags(new), purges(new)];
    let mut room = height.saturating_sub(lines.len());
    let [_, _, tags, purges] = &sections;
    let small = tags.len() + purges.len();
    for (at, section) in sections.iter_mut().enumerate() {
        // The keys take what the sections behind them leave.
        let behind = if at == 1 { small } else { 0 };
        let least = room.min(5);
        section.truncate(room.saturating_sub(behind).max(least));
        // A title alone says nothing.
        if section.len() > 2 {
            room -= section.len();
            lines.append(section);
        }
    }
    lines.truncate(height);
    lines.into_iter().map(|line| line.chars().take(width).collect()).collect()
}

fn head(old: &Look, new: &Look) -> Vec<String> {
    let rates = Rates::of(old, new);
    let status = &new.status;
    let node = status.get("node").unwrap_or(&Value::Null);
    let flag = |name: &str| status.get(name) == Some(&json!(true));
    let state = match (flag("draining"), flag("ready")) {
        (true, _) => "DRAINING",
        (false, true) => "ready",
        (false, false) => "NOT READY",
    };
    let stored =
        |name: &str| rows(status, "store").iter().map(|row| number(row, name)).sum::<f64>();
    vec![
        format!(
            "atoll {}  {}  {state}  up {}  epoch {}  purge rows {}",
            member(status, "version"),
            member(node, "name"),
            seconds(number(status, "uptime_seconds")),
            member(status, "epoch"),
            member(status, "purge_rows"),
        ),
        format!(
            "requests {}/s  from memory {}  5xx {}  sent {}/s  connections {}  fills {}",
            amount(rates.requests),
            percent(rates.hit_ratio),
            percent(rates.error_ratio),
            size(rates.bytes),
            member(status, "connections"),
            member(status, "fills"),
        ),
        format!("hits {}   all {}", times(rates.hits), times(rates.all)),
        format!(
            "store {} of {}, {} responses  memory {}  cores {:.2}",
            size(stored("bytes")),
            size(number(status, "store_budget_bytes")),
            amount(stored("entries")),
            size(new.metrics.resident_bytes),
            rates.cores,
        ),
    ]
}

fn percent(share: Option<f64>) -> String {
    share.map_or_else(|| "-".to_owned(), |share| format!("{:.1} %", share * 100.0))
}

fn times(found: [Option<f64>; 3]) -> String {
    let told = SHARES.iter().zip(found).map(|(share, time)| {
        let time = time.map_or_else(|| "-".to_owned(), milliseconds);
        format!("p{:.0} {time}", share * 100.0)
    });
    told.collect::<Vec<_>>().join("  ")
}

fn milliseconds(time: f64) -> String {
    let millis = time * 1000.0;
    if millis < 10.0 { format!("{millis:.2} ms") } else { format!("{millis:.0} ms") }
}

/// A blank line, and a table.
fn section(head: &[&str], cells: impl Iterator<Item = Vec<String>>) -> Vec<String> {
    let text = table(head, cells);
    std::iter::once(String::new()).chain(text.lines().map(str::to_owned)).collect()
}

fn origins(old: &Look, new: &Look) -> Vec<String> {
    let passed = new.at.saturating_sub(old.at).as_secs_f64().max(1e-3);
    let rate = |name: &str| {
        let count = |look: &Look| look.metrics.origins.get(name).copied().unwrap_or(0.0);
        (count(new) - count(old)).max(0.0) / passed
    };
    let row = |origin: &Value| {
        let name = member(origin, "name");
        let endpoints = rows(origin, "endpoints");
        let up = endpoints.iter().filter(|endpoint| is_up(endpoint)).count();
        let open = origin.get("circuit").is_some_and(|circuit| circuit == "open");
        let state = match (origin.get("healthy"), origin.get("panic")) {
            _ if open => "OPEN",
            (_, Some(Value::Bool(true))) => "panic",
            (Some(Value::Bool(true)), _) => "well",
            _ => "DOWN",
        };
        vec![
            amount(rate(&name)),
            name,
            state.to_owned(),
            format!("{up}/{}", endpoints.len()),
            member(origin, "in_flight"),
            member(origin, "queued"),
        ]
    };
    let head = ["ASKED/S", "ORIGIN", "STATE", "UP", "UNDER WAY", "WAITING"];
    section(&head, rows(&new.origins, "origins").iter().take(ROWS).map(row))
}

fn is_up(endpoint: &Value) -> bool {
    endpoint.get("state").and_then(Value::as_str).is_some_and(|state| state == "up")
}

fn keys(new: &Look) -> Vec<String> {
    hottest(rows(&new.keys, "keys").iter(), "HOTTEST", "url")
}

fn tags(new: &Look) -> Vec<String> {
    match rows(&new.tags, "tags") {
        [] => Vec::new(),
        rows => hottest(rows.iter().take(ROWS), "TAG", "tag"),
    }
}

fn hottest<'a>(rows: impl Iterator<Item = &'a Value>, title: &str, name: &str) -> Vec<String> {
    let row = |hot: &Value| {
        vec![
            format!("{:.1}", number(hot, "requests_per_second")),
            format!("{}/s", size(number(hot, "bytes_per_second"))),
            member(hot, name),
        ]
    };
    section(&["ASKED/S", "SENT", title], rows.map(row))
}

fn purges(new: &Look) -> Vec<String> {
    let row = |purge: &Value| {
        let first = rows(purge, "selectors").first().unwrap_or(&Value::Null);
        let word =
            |name: &str| first.get(name).and_then(Value::as_str).map(plain).unwrap_or_default();
        let more = number(purge, "count") - 1.0;
        let more = if more > 0.5 { format!(" and {more:.0} more") } else { String::new() };
        vec![
            member(purge, "at").chars().skip(11).take(8).collect(),
            member(purge, "token"),
            member(purge, "mode"),
            member(purge, "matched"),
            format!("{} {}{more}", word("kind"), word("value")),
        ]
    };
    let head = ["AT (UTC)", "TOKEN", "MODE", "MATCHED", "PURGED"];
    section(&head, rows(&new.purges, "purges").iter().take(ROWS).map(row))
}

/// The same figures for programs.
pub(super) fn figures(old: &Look, new: &Look) -> Value {
    let rates = Rates::of(old, new);
    let times =
        |found: [Option<f64>; 3]| json!({"p50": found[0], "p90": found[1], "p99": found[2]});
    json!({
        "requests_per_second": rates.requests,
        "hit_ratio": rates.hit_ratio,
        "error_ratio": rates.error_ratio,
        "bytes_per_second": rates.bytes,
        "cores": rates.cores,
        "hit_seconds": times(rates.hits),
        "seconds": times(rates.all),
        "status": new.status,
        "origins": new.origins.get("origins"),
        "purges": new.purges.get("purges"),
        "keys": new.keys.get("keys"),
        "tags": new.tags.get("tags"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(second: u64, requests: f64) -> Look {
        let metrics = format!(
            "atoll_requests_total{{site=\"a\",cache=\"hit\",status=\"2xx\"}} {requests}\n\
             atoll_request_duration_seconds_bucket{{site=\"a\",cache=\"hit\",le=\"0.001\"}} {requests}\n\
             atoll_request_duration_seconds_bucket{{site=\"a\",cache=\"hit\",le=\"+Inf\"}} {requests}\n\
             atoll_origin_requests_total{{origin=\"web\"}} {second}\n"
        );
        let key = |at: u32| json!({"url": format!("https://a/{at}"), "requests_per_second": 2.5, "bytes_per_second": 2048});
        let tag = |at: u32| json!({"tag": format!("t{at}"), "requests_per_second": 1.5, "bytes_per_second": 10});
        let purge = |at: u32| {
            json!({
                "at": "2026-01-02T03:04:05.678Z", "token": "deploy", "mode": "soft", "matched": null,
                "count": 3, "selectors": [{"kind": "tag", "value": format!("t{at}\u{1b}")}],
            })
        };
        Look {
            at: Duration::from_secs(second),
            metrics: Metrics::parse(&metrics),
            status: json!({
                "node": {"name": "edge-1"}, "version": "1.2.3", "ready": true, "draining": false,
                "uptime_seconds": 61, "epoch": 4, "purge_rows": 2, "connections": 9, "fills": 1,
                "store_budget_bytes": 4096, "store": [{"bytes": 1024, "entries": 3}],
            }),
            origins: json!({"origins": [{"name": "web", "healthy": true, "in_flight": 1, "queued": 0,
                "endpoints": [{"state": "up"}, {"state": "ejected"}]}]}),
            purges: json!({"purges": (0..9).map(purge).collect::<Vec<_>>()}),
            keys: json!({"keys": (0..50).map(key).collect::<Vec<_>>()}),
            tags: json!({"tags": (0..20).map(tag).collect::<Vec<_>>()}),
        }
    }

    #[test]
    fn a_picture_tells_what_came_between_two_looks() {
        let lines = frame(&look(10, 100.0), &look(12, 300.0), 100, 31);
        let expected = [
            "atoll 1.2.3  edge-1  ready  up 1 m 1 s  epoch 4  purge rows 2",
            "requests 100/s  from memory 100.0 %  5xx 0.0 %  sent 0 B/s  connections 9  fills 1",
            "hits p50 0.50 ms  p90 0.90 ms  p99 0.99 ms   all p50 0.50 ms  p90 0.90 ms  p99 0.99 ms",
            "store 1.0 KiB of 4.0 KiB, 3 responses  memory 0 B  cores 0.00",
            "",
            "ASKED/S  ORIGIN  STATE  UP   UNDER WAY  WAITING",
            "1        web     well   1/2  1          0",
            "",
            "ASKED/S  SENT       HOTTEST",
            "2.5      2.0 KiB/s  https://a/0",
        ];
        assert_eq!(lines[..expected.len()], expected);
        assert_eq!(lines.len(), 31);
        assert_eq!(lines[18], "ASKED/S  SENT    TAG");
        assert_eq!(lines[19], "1.5      10 B/s  t0");
        assert_eq!(lines[24], "");
        assert_eq!(lines[26], "03:04:05  deploy  soft  -        tag t0  and 2 more");
    }

    #[test]
    fn it_fits_every_terminal() {
        let (old, new) = (look(10, 100.0), look(12, 300.0));
        for (width, height) in [(0, 0), (1, 1), (20, 3), (40, 8), (80, 10), (300, 200)] {
            let lines = frame(&old, &new, width, height);
            assert!(lines.len() <= height, "{width}x{height}: {lines:#?}");
            assert!(lines.iter().all(|line| line.chars().count() <= width), "{lines:#?}");
            assert!(lines.iter().all(|line| !line.contains('\u{1b}')));
        }
        assert!(frame(&old, &new, 80, 10).iter().any(|line| line.contains("web")));
    }

    #[test]
    fn nothing_known_is_no_picture_of_health() {
        let lines = frame(&Look::default(), &Look::default(), 80, 24);
        assert_eq!(lines.len(), 4, "{lines:#?}");
        assert!(lines[0].contains("NOT READY"), "{lines:#?}");
        assert!(figures(&Look::default(), &Look::default())["hit_ratio"].is_null());
    }
}
