//! `atoll origins`.

use std::net::SocketAddr;
use std::time::Duration;

use clap::{Args, Subcommand};
use http::Method;
use serde_json::{Value, json};

use super::DONE;
use super::client::Answer;
use super::remote::{Remote, required_token};
use super::table::{member, number, rows, table};
use crate::health::Order;

/// Time for the whole exchange.
const MOST: Duration = Duration::from_secs(10);

const ABOUT: &str = "Lists the origins with their endpoints, and takes endpoints out of use";

const MORE: &str = "\
STATE is what traffic and probes show, or what an operator has said. SHARE is what an endpoint takes
of its load while it returns. A circuit is open while no endpoint answers: requests are then refused
at once, or answered stale, but for one on trial now and then.

An order holds while the address comes and goes in the DNS, and until the node ends:
  drain   what runs is finished, nothing new is sent; probes go on
  down    the same, and no probes
  auto    health decides, and the load comes back slowly

Examples:
  atoll origins
  atoll origins set main 192.0.2.10:443 drain
  atoll origins set main [2001:db8::10]:443 auto

Environment:
  ATOLL_ADMIN_TOKEN   the token (scope read; config to set)
  ATOLL_ADMIN         the admin listener, unless --admin says it

Exit codes:
  0  done
  1  refused, or no such origin or endpoint
  2  wrong flags
  3  no answer in time
  4  nobody answers";

#[derive(Args, Debug)]
#[command(about = ABOUT, after_help = MORE, args_conflicts_with_subcommands = true)]
pub(super) struct Origins {
    #[command(subcommand)]
    act: Option<Act>,
    #[command(flatten)]
    remote: Remote,
}

#[derive(Debug, Subcommand)]
enum Act {
    Set(Set),
}

#[derive(Args, Debug)]
#[command(about = "Takes one endpoint out of use, or leaves it to its health again", after_help = MORE)]
struct Set {
    /// Name of the origin.
    #[arg(value_name = "ORIGIN", value_parser = name)]
    origin: String,
    /// Address of the endpoint with its port, as the list has it.
    #[arg(value_name = "ADDRESS", value_parser = crate::config::parse_address)]
    address: SocketAddr,
    /// drain, down or auto.
    #[arg(value_name = "STATE", value_parser = order)]
    order: Order,
    #[command(flatten)]
    remote: Remote,
}

/// A name goes into a path as it is.
fn name(text: &str) -> Result<String, String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let fine = !text.is_empty() && text.bytes().all(plain);
    if fine { Ok(text.to_owned()) } else { Err("the name of an origin".to_owned()) }
}

fn order(word: &str) -> Result<Order, String> {
    Order::parse(word).ok_or_else(|| "one of drain, down, auto".to_owned())
}

impl Origins {
    pub(super) fn run(self) -> u8 {
        let done = match &self.act {
            Some(Act::Set(set)) => set.ask(),
            None => self.ask(),
        };
        done.unwrap_or_else(|code| code)
    }

    fn ask(&self) -> Result<u8, u8> {
        let token = required_token(&self.remote)?;
        let answer = self.remote.ask(&Method::GET, "/v1/origins", Some(&token), None, MOST)?;
        Ok(show(&self.remote, &answer, |value| rows(value, "origins").iter().map(told).collect()))
    }
}

impl Set {
    fn ask(&self) -> Result<u8, u8> {
        let token = required_token(&self.remote)?;
        let path = format!("/v1/origins/{}/endpoints/{}", self.origin, self.address);
        let body = json!({ "state": self.order.label() }).to_string();
        let body = Some(body.as_bytes());
        let answer = self.remote.ask(&Method::PUT, &path, Some(&token), body, MOST)?;
        Ok(show(&self.remote, &answer, told))
    }
}

fn show(remote: &Remote, answer: &Answer, tell: impl Fn(&Value) -> String) -> u8 {
    if !answer.status.is_success() {
        return remote.refused(answer);
    }
    match serde_json::from_slice::<Value>(&answer.body) {
        Ok(value) if !remote.json => print!("{}", tell(&value)),
        _ => remote.print_raw(answer),
    }
    DONE
}

/// One origin: a line of its own, and one for each endpoint.
fn told(origin: &Value) -> String {
    const HEAD: [&str; 7] =
        ["ENDPOINT", "SERVER", "STATE", "SHARE", "UNDER WAY", "LATENCY", "LAST ERROR"];
    let flag = |name: &str| origin.get(name).and_then(Value::as_bool) == Some(true);
    let mut line = format!(
        "{}  {}  {} of {} under way, {} waiting",
        member(origin, "name"),
        if flag("healthy") { "well" } else { "DOWN" },
        member(origin, "in_flight"),
        member(origin, "places"),
        member(origin, "queued"),
    );
    if member(origin, "circuit") != "closed" {
        line += &format!("  circuit {}", member(origin, "circuit"));
    }
    if flag("panic") {
        line += "  panic: nearly all look down, all are used";
    }
    let servers = rows(origin, "servers");
    let server = |row: &Value| {
        let position = row.get("server").and_then(Value::as_u64);
        let found = position.and_then(|at| servers.get(usize::try_from(at).ok()?));
        found.map_or_else(|| "-".to_owned(), |server| member(server, "url"))
    };
    let endpoint = |row: &Value| {
        let ordered = row.get("order").and_then(Value::as_str).is_some_and(|word| word != "auto");
        let by = if ordered { " (operator)" } else { "" };
        let latency = row.get("ewma_ms").and_then(Value::as_f64);
        vec![
            member(row, "address"),
            server(row),
            format!("{}{by}", member(row, "state")),
            format!("{:.0} %", number(row, "share") * 100.0),
            member(row, "in_flight"),
            latency.map_or_else(|| "-".to_owned(), |millis| format!("{millis:.1} ms")),
            member(row, "last_error"),
        ]
    };
    let absent = |row: &Value| {
        let dash = || "-".to_owned();
        let state = format!("{} (operator), not in DNS", member(row, "order"));
        vec![member(row, "address"), server(row), state, dash(), dash(), dash(), dash()]
    };
    let all = rows(origin, "endpoints").iter().map(endpoint);
    let all = all.chain(rows(origin, "absent").iter().map(absent));
    format!("{line}\n{}\n", table(&HEAD, all))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_told_in_lines() {
        let endpoint = |address: &str, state: &str, order: &str, share: f64| {
            json!({"address": address, "server": 0, "state": state, "order": order, "share": share,
                   "in_flight": 2, "ewma_ms": 1.25, "last_error": null})
        };
        let origin = json!({
            "name": "main", "in_flight": 4, "places": 256, "queued": 0, "healthy": true,
            "panic": false, "circuit": "closed",
            "servers": [{"url": "http://a.example:80"}],
            "endpoints": [endpoint("192.0.2.1:80", "up", "auto", 0.5),
                          endpoint("192.0.2.2:80", "drain", "drain", 1.0)],
            "absent": [{"address": "192.0.2.3:80", "server": 0, "order": "down"}],
        });
        let expected = "\
main  well  4 of 256 under way, 0 waiting
ENDPOINT      SERVER               STATE                        SHARE  UNDER WAY  LATENCY  LAST ERROR
192.0.2.1:80  http://a.example:80  up                           50 %   2          1.2 ms   -
192.0.2.2:80  http://a.example:80  drain (operator)             100 %  2          1.2 ms   -
192.0.2.3:80  http://a.example:80  down (operator), not in DNS  -      -          -        -

";
        assert_eq!(told(&origin), expected);
        let sick = json!({"name": "b", "healthy": false, "panic": true, "circuit": "open"});
        let line = "b  DOWN  - of - under way, - waiting  circuit open  panic: nearly all look down, all are used\n";
        assert!(told(&sick).starts_with(line), "{}", told(&sick));
    }
}
