//! Asks endpoints whether they are well, where that is configured.
//!
//! Each probe has a connection of its own and no place in the request queue: a busy origin is not
//! a sick one. Per endpoint there is at most one probe an interval, jittered by a tenth so that
//! many nodes do not ask in step.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use http::header::{HOST, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use tokio::task::JoinSet;

use crate::clock;
use crate::config::{HttpVersions, Probe, Server};
use crate::health::{ProbeRules, jittered};
use crate::message::Body;

use super::connect::{Versions, connect_once};
use super::dice::Dice;
use super::endpoint::Endpoint;
use super::http2::ask_once;
use super::roundtrip::Exchange;
use super::set::Origin;
use super::upload::Upload;
use super::{Head, SendError};

/// Longest time before a new endpoint is noticed.
const NOTICE: Duration = Duration::from_secs(1);

/// Probes the endpoints of an origin for ever.
pub(super) async fn run(origin: Arc<Origin>, probe: Probe, dice: Arc<Dice>) {
    let mut due: HashMap<u64, Duration> = HashMap::new();
    let mut under_way = JoinSet::new();
    let interval = probe.interval.max(Duration::from_millis(10));
    loop {
        let endpoints = origin.endpoints();
        due.retain(|id, _| endpoints.iter().any(|endpoint| endpoint.id == *id));
        let now = clock::now().boot;
        let mut wait = NOTICE.min(interval);
        for endpoint in endpoints.iter() {
            // The first one comes soon, but not for all endpoints at once.
            let time = due
                .entry(endpoint.id)
                .or_insert_with(|| now + interval.mul_f64(dice.draw() / 10.0));
            if *time <= now {
                *time = now + jittered(interval, dice.draw());
                under_way.spawn(probe_once(
                    Arc::clone(&origin),
                    Arc::clone(endpoint),
                    probe.clone(),
                ));
            }
            wait = wait.min(time.saturating_sub(now));
        }
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            Some(_) = under_way.join_next() => {}
        }
    }
}

async fn probe_once(origin: Arc<Origin>, endpoint: Arc<Endpoint>, probe: Probe) {
    let ask = ask(&origin, &endpoint, &probe);
    let outcome = tokio::time::timeout(probe.timeout, ask)
        .await
        .unwrap_or(Err(SendError::HttpResponseTimeout));
    let rules = ProbeRules { rise: probe.rise, fall: probe.fall };
    origin.observe_probe(&endpoint, outcome, rules, clock::now().boot);
}

async fn ask(
    origin: &Arc<Origin>,
    endpoint: &Arc<Endpoint>,
    probe: &Probe,
) -> Result<(), SendError> {
    let server = origin.config.servers.get(endpoint.server);
    let request = request(probe, server).ok_or(SendError::HttpProtocolError("probe's host"))?;
    let mut connection = connect_once(origin, endpoint, Versions::Configured).await?;
    if origin.config.http == HttpVersions::Two || connection.agreed_on_http2() {
        let now = clock::now().boot;
        let (status, _) = ask_once(connection, &request, &origin.limits, now, 0).await?;
        return judge(probe, status);
    }
    let mut upload = Upload::new(&request, Body::Empty, 0);
    let (method, mut interim) = (&request.method, |_| {});
    let exchange =
        Exchange::new(&mut connection, &mut upload, method, &origin.limits, &mut interim);
    let response = exchange.run().await.map_err(|(error, _)| error)?;
    judge(probe, response.parsed.head.status)
}

fn judge(probe: &Probe, status: StatusCode) -> Result<(), SendError> {
    if is_well(probe, status) {
        Ok(())
    } else {
        Err(SendError::HttpProtocolError("probe answered with another status"))
    }
}

fn is_well(probe: &Probe, status: StatusCode) -> bool {
    match probe.status {
        Some(expected) => status.as_u16() == expected,
        None => status.is_success() || status.is_redirection(),
    }
}

fn request(probe: &Probe, server: Option<&Server>) -> Option<Head> {
    let host = match (&probe.host, server) {
        (Some(host), _) => host.clone(),
        (None, Some(server)) => authority(server),
        (None, None) => return None,
    };
    let mut headers = HeaderMap::new();
    headers.insert(HOST, HeaderValue::try_from(host).ok()?);
    headers.insert(USER_AGENT, HeaderValue::from_static("atoll-probe"));
    let (target, streams, hop) = (probe.path.clone(), false, None);
    Some(Head { method: Method::GET, target, headers, streams, hop })
}

/// A server's name as `Host` has it: without the port that its scheme implies.
fn authority(server: &Server) -> String {
    let host = server.domain();
    if server.srv {
        return host.to_owned();
    }
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    let implied = if server.tls { 443 } else { 80 };
    if server.port == implied { host } else { format!("{host}:{}", server.port) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authority_is_written_as_host_has_it() {
        let cases = [
            ("a.example", 443, true, "a.example"),
            ("a.example", 80, true, "a.example:80"),
            ("a.example", 80, false, "a.example"),
            ("::1", 8080, false, "[::1]:8080"),
        ];
        for (host, port, tls, expected) in cases {
            let server = Server { tls, host: host.to_owned(), port, ..Server::default() };
            assert_eq!(authority(&server), expected);
        }
    }
}
