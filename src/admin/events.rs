//! `GET /v1/events`: what happens on the node, as server-sent events, for caches that follow it.
//!
//! A follower has a position in the node's ring of events, which it gets as the id of every event
//! and of every heartbeat; with it in `Last-Event-ID` it goes on where it was. What can't be told any
//! more is told as `lost`: then whatever the follower keeps may be out of date. The same ends the
//! stream of a follower that is too slow. When tokens or sites change, all streams end: who comes back
//! is judged anew, and goes on where it was.
//!
//! A token that is bound to sites is told what concerns them, and of a purge that reaches further
//! only its share: a follower must learn of every purge of its site, whoever else it hit.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use serde::Serialize;
use serde_json::json;
use tokio::sync::{Notify, OwnedSemaphorePermit, mpsc, watch};
use tokio::time::timeout;

use super::body::ReplyBody;
use super::past::ToldSelector;
use super::past::may_see;
use super::problem::Problem;
use super::{Admin, Call, Control, Reply, purge_id};
use crate::admin::{Identity, milliseconds};
use crate::config::Token;
use crate::replication::Identity as PurgeId;
use crate::store::{Event, Events, Named, PurgeTold, WarmUp, What};
use crate::telemetry::rfc3339;

/// The field with which a follower says where it was.
const LAST: HeaderName = HeaderName::from_static("last-event-id");

/// Events that are written at once.
const AT_ONCE: usize = 16;
/// Pieces that may wait for a slow client, beside what its connection holds.
const PIECES: usize = 2;

/// Times of a stream.
#[derive(Clone, Copy, Debug)]
struct Pace {
    /// Silence after which a sign of life is sent.
    heartbeat: Duration,
    /// Time in which a client must take a piece.
    patience: Duration,
}

const PACE: Pace = Pace { heartbeat: Duration::from_secs(15), patience: Duration::from_secs(30) };

/// Tells the connection of a stream to be cut, where its client takes nothing any more.
#[derive(Clone, Debug)]
pub(super) struct Cut(pub(super) Arc<Notify>);

/// `GET /v1/events`
pub(super) fn follow(admin: &Admin, call: &Call<'_>) -> Result<Reply, Problem> {
    if call.query.is_some() {
        return Err(Problem::bad("query", "this takes no query"));
    }
    if admin.control.readiness().draining {
        let detail = "the node drains, and nothing is told any more";
        return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "draining", detail));
    }
    let place = Arc::clone(&admin.followers).try_acquire_owned().map_err(|_full| {
        let detail = "as many follow the node as `admin.event_followers` says";
        Problem::wait("followers", detail, Duration::from_secs(5))
    })?;
    let events = admin.control.events();
    let view = View::new(admin, call);
    let last = call.headers.get(LAST);
    let (position, lost) = match last.map(|id| view.position(id, &events)) {
        None => (events.newest(), None),
        Some(Some(position)) => (position, None),
        Some(None) => (events.earliest(), Some("what came after the last event is not kept")),
    };
    let cut = Arc::new(Notify::new());
    let (sender, pieces) = mpsc::channel(PIECES);
    let ended = admin.followed.subscribe();
    let stream = Stream { events, view, sender, position, pace: PACE, ended };
    let (told, cutting) = (lost.map(str::to_owned), Arc::clone(&cut));
    tokio::spawn(async move {
        if stream.run(told.as_deref(), place).await.is_err() {
            cutting.notify_one();
        }
    });
    let mut reply = Response::new(ReplyBody::Pieces(pieces));
    let headers = reply.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    reply.extensions_mut().insert(Cut(cut));
    Ok(reply)
}

/// One follower's stream.
struct Stream {
    events: Arc<Events>,
    view: View,
    sender: mpsc::Sender<Bytes>,
    /// Number of the last event that was told or passed over.
    position: u64,
    pace: Pace,
    /// Turns true when the follower has to be judged anew.
    ended: watch::Receiver<bool>,
}

/// The client takes nothing any more.
#[derive(Debug, PartialEq, Eq)]
struct Stuck;

impl Stream {
    /// Tells until the node drains, the client is gone, or it can't keep up.
    async fn run(mut self, lost: Option<&str>, place: OwnedSemaphorePermit) -> Result<(), Stuck> {
        let _place = place;
        let mut watch = self.events.watch();
        let mut first = format!("retry: 1000\nid: {}\n\n", self.view.id(self.position));
        if let Some(why) = lost {
            first.push_str(&self.lost(why));
        }
        self.send(first).await?;
        loop {
            watch.borrow_and_update();
            let since = self.events.since(self.position, AT_ONCE);
            if since.lost {
                self.position = self.events.earliest();
                let text = self.lost("the follower was too slow");
                break self.send(text).await;
            }
            let (text, ends) = self.written(&since.events);
            if !text.is_empty() {
                self.send(text).await?;
            }
            if ends || *self.ended.borrow() {
                break Ok(());
            }
            if since.events.len() == AT_ONCE {
                continue;
            }
            tokio::select! {
                grown = watch.changed() => if grown.is_err() { break Ok(()) },
                judged = self.ended.changed() => if judged.is_err() { break Ok(()) },
                () = self.sender.closed() => break Ok(()),
                () = tokio::time::sleep(self.pace.heartbeat) => {
                    let text = format!(": alive\nid: {}\n\n", self.view.id(self.position));
                    self.send(text).await?;
                }
            }
        }?;
        Ok(())
    }

    /// The blocks of these events, and whether the stream ends with them.
    fn written(&mut self, events: &[Arc<Event>]) -> (String, bool) {
        let mut text = String::new();
        for event in events {
            self.position = event.number;
            if let Some((name, data)) = self.view.told(event) {
                let id = self.view.id(event.number);
                text.push_str(&format!("event: {name}\nid: {id}\ndata: {data}\n\n"));
            }
            if event.what == What::Drain {
                return (text, true);
            }
        }
        (text, false)
    }

    fn lost(&self, why: &str) -> String {
        let (id, data) = (self.view.id(self.position), json!({ "why": why }));
        format!("event: lost\nid: {id}\ndata: {data}\n\n")
    }

    /// A client that is gone is none that is stuck: the loop ends for it by itself.
    async fn send(&self, text: String) -> Result<(), Stuck> {
        match timeout(self.pace.patience, self.sender.send(Bytes::from(text))).await {
            Ok(_sent_or_gone) => Ok(()),
            Err(_) => Err(Stuck),
        }
    }
}

/// What one follower may see, and how it is written.
struct View {
    identity: Identity,
    /// Name of its token.
    token: String,
    /// Sites that it may know of; `None`: all.
    sites: Option<HashSet<Arc<str>>>,
    /// Origins of these sites.
    origins: HashSet<String>,
    /// The token itself.
    bound: Token,
    control: Arc<dyn Control>,
}

impl View {
    fn new(admin: &Admin, call: &Call<'_>) -> Self {
        let covered = || admin.sites.iter().filter(|site| call.token.covers_site(&site.name));
        let bound = !call.token.sites.is_empty();
        Self {
            identity: admin.identity.clone(),
            token: call.token.name.clone(),
            bound: call.token.clone(),
            control: Arc::clone(&admin.control),
            sites: bound.then(|| covered().map(|site| Arc::clone(&site.name)).collect()),
            origins: covered().map(|site| site.origin.clone()).collect(),
        }
    }

    /// The id of a position: it is worth nothing in another life of the node.
    fn id(&self, position: u64) -> String {
        format!("{}.{position}", self.identity.incarnation)
    }

    /// The position that an id stands for, where all that came after it is still kept.
    fn position(&self, id: &HeaderValue, events: &Events) -> Option<u64> {
        let (life, number) = id.to_str().ok()?.rsplit_once('.')?;
        let position = number.parse().ok().filter(|_| life == self.identity.incarnation)?;
        (!events.since(position, 0).lost).then_some(position)
    }

    /// Name and data of an event, where it concerns the follower.
    fn told(&self, event: &Event) -> Option<(&'static str, String)> {
        let at = rfc3339(event.at);
        match &event.what {
            What::Purge(told) => {
                let told = self.purge(told, at)?;
                serde_json::to_string(&told).ok().map(|data| ("purge", data))
            }
            What::Reset { epoch } => {
                Some(("reset", json!({ "at": at, "epoch": epoch }).to_string()))
            }
            What::Health { origin, address, state, why } => {
                let seen = self.sites.is_none() || self.origins.contains(origin);
                let up = matches!(*state, "up" | "probation");
                let data = json!({
                    "at": at, "origin": origin, "address": address, "up": up, "state": state,
                    "why": why,
                });
                seen.then(|| ("health", data.to_string()))
            }
            What::WarmUp(WarmUp { id, token, purge, state, total, done, failed, stored }) => {
                // As for whoever asks for it: its own, and everybody's for a token without sites.
                let data = json!({
                    "at": at, "id": id, "token": token, "purge": purge, "state": state,
                    "total": total, "done": done, "failed": failed, "stored": stored,
                });
                let seen = self.sites.is_none() || self.token == *token;
                seen.then(|| ("warm-up", data.to_string()))
            }
            What::Origin { origin, state, why } => {
                let seen = self.sites.is_none() || self.origins.contains(origin);
                let data = json!({ "at": at, "origin": origin, "state": state, "why": why });
                seen.then(|| ("origin", data.to_string()))
            }
            What::Upgrade(told) => {
                let whole = self.sites.is_none();
                let data = json!({
                    "at": at, "outcome": told.outcome, "by": whole.then_some(&told.by),
                    "why": told.why.as_ref().filter(|_| whole),
                });
                Some(("upgrade", data.to_string()))
            }
            What::Acknowledged { identity, after } => {
                let data = json!({
                    "at": at, "id": identity.dotted(), "after_ms": milliseconds(*after),
                });
                self.sees(identity).then(|| ("acknowledged", data.to_string()))
            }
            What::Lease { held, without } => {
                let without = without.map(milliseconds);
                let data = json!({ "at": at, "held": held, "without_ms": without });
                Some(("lease", data.to_string()))
            }
            What::RefusedRecord { identity } => {
                let data = json!({ "at": at, "id": identity.dotted() });
                self.sites.is_none().then(|| ("refused-record", data.to_string()))
            }
            What::BrokenPromise { node, purge, after } => {
                let data = json!({
                    "at": at, "node": &**node, "id": purge.dotted(), "after_ms": milliseconds(*after),
                });
                self.sites.is_none().then(|| ("broken-promise", data.to_string()))
            }
            What::Distrust { epoch, why } => {
                Some(("distrust", json!({ "at": at, "epoch": epoch, "why": why }).to_string()))
            }
            What::Drain => Some(("drain", json!({ "at": at }).to_string())),
            // What changed may be of sites that the follower knows nothing of.
            What::Reload(told) => {
                let whole = self.sites.is_none();
                let data = json!({
                    "at": at, "outcome": told.outcome, "by": whole.then_some(&told.by),
                    "config": told.config, "changes": told.changes, "waiting": told.waiting,
                    "why": told.why.as_ref().filter(|_| whole),
                });
                Some(("reload", data.to_string()))
            }
        }
    }

    /// Whether the follower may know of a purge: a token that is bound to sites only as long as it is
    /// remembered what the purge was about.
    fn sees(&self, identity: &PurgeId) -> bool {
        self.sites.is_none()
            || self.control.past_of(identity).is_some_and(|past| may_see(&self.bound, &past))
    }

    fn purge(&self, told: &PurgeTold, at: String) -> Option<Told> {
        let selectors: Vec<ToldSelector> =
            told.selectors.iter().flat_map(|named| self.seen(named)).collect();
        if selectors.is_empty() {
            return None;
        }
        let own = self.sites.as_ref().is_none_or(|own| {
            told.sites.as_ref().is_some_and(|sites| sites.iter().all(|site| own.contains(site)))
        });
        Some(Told {
            id: purge_id(&self.identity, told.identity.as_deref(), told.applied),
            epoch: told.applied.epoch,
            at,
            token: own.then(|| told.by.token.clone()),
            from: own.then(|| told.by.address.to_canonical().to_string()),
            mode: told.strength.label(),
            selectors,
            count: own.then_some(told.count),
        })
    }

    /// A selector as far as the follower may see it: of everything, its own sites.
    fn seen(&self, named: &Named) -> Vec<ToldSelector> {
        match (&self.sites, &named.site) {
            (Some(own), Some(site)) if !own.contains(site) => Vec::new(),
            (Some(own), None) => {
                let site = |site: &Arc<str>| ToldSelector {
                    kind: "site",
                    site: None,
                    value: site.to_string().into_boxed_str(),
                };
                own.iter().map(site).collect()
            }
            _ => vec![ToldSelector::new(named.clone())],
        }
    }
}

/// A purge, or a part of one, as it is told.
#[derive(Debug, Serialize)]
struct Told {
    id: String,
    epoch: u64,
    at: String,
    /// Name of the token; none where the purge reached beyond the follower's sites.
    token: Option<Box<str>>,
    from: Option<String>,
    mode: &'static str,
    selectors: Vec<ToldSelector>,
    /// Number of all selectors of the purge; none where the follower may not see all.
    count: Option<usize>,
}

#[cfg(test)]
mod tests;
