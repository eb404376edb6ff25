//! What the admin listener needs of the node behind it. The application implements it; the tests
//! of this room play it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;

use super::reload::Reloading;
use super::upgrade::Upgrading;
use crate::audit::Audit;
use crate::clock::Now;
use crate::health::Order;
use crate::mesh::{Busy, Issued, MeshView, ReceiptView, Until};
use crate::message::{Refusal, RequestHead};
use crate::origin::{OriginStatus, UnknownEndpoint};
use crate::purge::{Selector, Strength};
use crate::replication::Identity as PurgeId;
use crate::semantics::{Explanation, Outcome};
use crate::store::{Author, Events, Past, Tried};
use crate::telemetry::{Hot, Load, Weight};

/// What a node can be told and asked.
pub trait Control: Send + Sync + 'static {
    /// Applies one purge, all selectors at one epoch, counts them in the metrics, and sends it to the
    /// other nodes. In force here when this returns. The selectors are canonical and there is at least
    /// one; URLs are as a request has them, and hit what is stored under the keys made of them.
    fn purge(
        &self,
        by: Author,
        selectors: &[Selector],
        strength: Strength,
        now: Now,
    ) -> Result<Issued, Busy>;

    /// How a purge that this node took stands, as long as that is remembered.
    fn receipt(&self, id: &PurgeId, now: Now) -> Option<ReceiptView>;

    /// Waits until a purge that this node took has come so far, at most for `most`. What it came to is
    /// told by [`Control::receipt`] then.
    fn wait(&self, id: &PurgeId, until: Until, most: Duration) -> Waiting;

    /// How the mesh looks from here.
    fn mesh(&self, now: Now) -> MeshView;

    /// Counts what a purge would hit, by a walk over all that is stored, and names the `hottest` of
    /// it. Blocks for its time.
    fn try_purge(&self, selectors: &[Selector], hottest: usize, now: Now) -> Tried;

    /// The purges that are remembered and `pass`, newest first, `most` of them.
    fn past(&self, most: usize, pass: &dyn Fn(&Past) -> bool) -> Vec<Past>;

    /// The purge with this number on this node, where it is remembered.
    fn past_one(&self, sequence: u64) -> Option<Past>;

    /// The purge of this name, whichever node took it, where it is remembered here.
    fn past_of(&self, id: &PurgeId) -> Option<Past>;

    /// Empties the store, fills under way included, and gives the epoch from which that holds.
    fn reset(&self, now: Now) -> u64;

    /// Reads the configuration anew, and puts it in force if all of it can be; `by` asked for it.
    fn reload(&self, by: &str) -> Reloading;

    /// Starts the program anew and hands over to it, or goes on; `by` asked for it.
    fn upgrade(&self, by: &str) -> Upgrading;

    /// Begins to drain, as SIGTERM does. Asking again changes nothing.
    fn drain(&self, now: Now);

    /// Whether the node takes traffic, and if not why.
    fn readiness(&self) -> Readiness;

    /// What the node is doing.
    fn status(&self) -> NodeStatus;

    /// Every origin with its endpoints.
    fn origins(&self) -> Vec<OriginStatus>;

    /// Carries out an operator's word about one address of an origin, and gives how the origin
    /// stands then.
    fn order(
        &self,
        origin: &str,
        address: SocketAddr,
        order: Order,
    ) -> Result<OriginStatus, UnknownEndpoint>;

    /// Site that answers for a host in canonical form.
    fn site_of(&self, host: &str) -> Option<Arc<str>>;

    /// What would be done with a request without a body that came now. Changes nothing.
    fn explain(&self, request: RequestHead, now: Now) -> Explanation;

    /// What happens on the node.
    fn events(&self) -> Arc<Events>;

    /// Where is written down what was done.
    fn audit(&self) -> &Audit;

    /// What is stored under the URL of a request, or why no client could ask for it.
    fn entry(&self, request: RequestHead, now: Now) -> Result<Explanation, Refusal>;

    /// Fetches as a client would, through the whole way of a request; the body is read to its end
    /// and dropped, unless it has at most `keep_bytes`. Nothing but the origins of the sites can be
    /// reached, and the client traffic of log and metrics does not show it.
    fn fetch(&self, request: RequestHead, keep_bytes: usize) -> Fetch;

    /// What is asked for most, lately: URLs of the sites whose names `pass`.
    fn hottest(&self, by: Weight, most: usize, pass: &dyn Fn(&str) -> bool, now: Now) -> Vec<Hot>;

    /// Tags of what is asked for most, likewise.
    fn hottest_tags(
        &self,
        by: Weight,
        most: usize,
        pass: &dyn Fn(&str) -> bool,
        now: Now,
    ) -> Vec<Hot>;

    /// How much each site is asked for, lately, by its name.
    fn loads(&self, now: Now) -> HashMap<Arc<str>, Load>;

    /// Brings gauges up to date that nobody counts on the way; called before metrics are shown.
    fn observe(&self);
}

/// The end of a wait; given up when it is dropped.
pub type Waiting = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A fetch that goes on while it is awaited, and is given up when it is dropped.
pub type Fetch = Pin<Box<dyn Future<Output = Fetched> + Send>>;

/// What came of a fetch.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// Status of the answer; 0 where there was none.
    pub status: u16,
    /// How the cache came to it.
    pub outcome: Outcome,
    /// The answer was stored.
    pub stored: bool,
    /// Bytes of its body.
    pub bytes: u64,
    /// Why there is no usable answer: the origin's failure, our refusal, a body that broke off.
    pub error: Option<&'static str>,
    /// The body, where it is short enough.
    pub body: Option<Bytes>,
}

impl Fetched {
    /// Nothing came.
    #[must_use]
    pub fn failed(why: &'static str) -> Self {
        Self {
            status: 0,
            outcome: Outcome::Refused,
            stored: false,
            bytes: 0,
            error: Some(why),
            body: None,
        }
    }
}

/// Who this node is. A purge's identity is made of it.
#[derive(Clone, Debug, Serialize)]
pub struct Identity {
    /// Name of the node.
    pub name: String,
    /// Point of presence.
    pub pop: String,
    /// Random number of this run of the process, in hexadecimal.
    pub incarnation: String,
}

/// Whether a node takes traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Readiness {
    /// Its listeners are open.
    pub listening: bool,
    /// It has missed no purge.
    pub caught_up: bool,
    /// It has been told to stop.
    pub draining: bool,
    /// A worker has not moved for too long.
    pub stuck: bool,
}

impl Readiness {
    /// Whether traffic may come.
    #[must_use]
    pub fn ready(self) -> bool {
        self.listening && self.caught_up && !self.draining && !self.stuck
    }
}

/// What a node is doing.
#[derive(Clone, Debug, Default, Serialize)]
pub struct NodeStatus {
    /// Purges applied.
    pub epoch: u64,
    /// Rows in the purge table.
    pub purge_rows: u64,
    /// Whether the node holds the lease.
    pub lease: bool,
    /// Bytes that the store may hold.
    pub store_budget_bytes: u64,
    /// What the store holds.
    pub store: Vec<StoreClass>,
    /// Fills under way.
    pub fills: u64,
    /// Client connections open.
    pub connections: u64,
    /// Where clients connect.
    pub listeners: Vec<ListenerStatus>,
}

/// What one size class of the store holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StoreClass {
    /// Number of the class, from small to large.
    pub size_class: usize,
    /// Stored responses.
    pub entries: u64,
    /// Their bytes, bookkeeping included.
    pub bytes: u64,
}

/// One address where clients connect.
#[derive(Clone, Debug, Serialize)]
pub struct ListenerStatus {
    /// Address with the port that is really open.
    pub address: SocketAddr,
    /// Clients speak TLS here.
    pub tls: bool,
    /// HTTP/2 is spoken here.
    pub http2: bool,
}
