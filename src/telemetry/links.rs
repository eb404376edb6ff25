//! What passes between the nodes of a mesh, and what does not.

use prometheus::{IntCounter, IntGauge};

use super::collect::Shelf;

/// Counts of a node's links.
#[derive(Debug)]
pub struct LinkMetrics {
    /// Links that are up.
    pub up: IntGauge,
    /// Handshakes that ended in a link.
    pub handshakes: IntCounter,
    /// Links that were dialled again after they had been up.
    pub reconnects: IntCounter,
    /// Frames of a kind, or messages, that this version does not know.
    pub unknown: IntCounter,
    /// Messages dropped for want of room or of a link: what is urgent, and batches.
    pub dropped: [IntCounter; 2],
    refused: Vec<IntCounter>,
    closed: Vec<IntCounter>,
    sent: Vec<Flow>,
    received: Vec<Flow>,
    members: Vec<IntGauge>,
}

/// Frames of one kind in one direction, and their bytes.
#[derive(Debug)]
struct Flow {
    frames: IntCounter,
    bytes: IntCounter,
}

/// Why a connection between nodes did not become a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkRefused {
    /// TLS was not agreed on: another version, or no TLS at all.
    Tls,
    /// It did not speak the mesh's protocol (ALPN).
    Protocol,
    /// It showed no certificate.
    NoCertificate,
    /// Its certificate is not from the mesh's authority, not in time, or not for this use.
    Certificate,
    /// Its certificate bears no name of the roster, or several.
    Roster,
    /// It claims, or was expected to have, another name than its certificate's.
    Name,
    /// It is this node itself.
    Own,
    /// Its greeting cannot be read.
    Greeting,
    /// It took too long.
    Timeout,
    /// Too many connections have not shown who they are.
    Busy,
    /// The other side refused.
    Peer,
    /// The network failed.
    Network,
}

impl LinkRefused {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::Tls,
        Self::Protocol,
        Self::NoCertificate,
        Self::Certificate,
        Self::Roster,
        Self::Name,
        Self::Own,
        Self::Greeting,
        Self::Timeout,
        Self::Busy,
        Self::Peer,
        Self::Network,
    ];

    /// Its name in metrics and logs.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Tls => "tls",
            Self::Protocol => "protocol",
            Self::NoCertificate => "no-certificate",
            Self::Certificate => "certificate",
            Self::Roster => "roster",
            Self::Name => "name",
            Self::Own => "own",
            Self::Greeting => "greeting",
            Self::Timeout => "timeout",
            Self::Busy => "busy",
            Self::Peer => "peer",
            Self::Network => "network",
        }
    }
}

/// Why a link ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkClosed {
    /// The other side closed it.
    Peer,
    /// Another connection to the same node took its place.
    Replaced,
    /// Nothing came for too long.
    Idle,
    /// The other side took nothing for too long.
    Stalled,
    /// What came could not be read.
    Malformed,
    /// The network failed.
    Network,
    /// What its peer had shown is not good any more.
    Certificate,
    /// This node closes.
    Closing,
}

impl LinkClosed {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Peer,
        Self::Replaced,
        Self::Idle,
        Self::Stalled,
        Self::Malformed,
        Self::Network,
        Self::Certificate,
        Self::Closing,
    ];

    /// Its name in metrics and logs.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Peer => "peer",
            Self::Replaced => "replaced",
            Self::Idle => "idle",
            Self::Stalled => "stalled",
            Self::Malformed => "malformed",
            Self::Network => "network",
            Self::Certificate => "certificate",
            Self::Closing => "closing",
        }
    }
}

/// What a frame is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Traffic {
    /// Purges as they are issued.
    Record,
    /// Acknowledgements, and words that a purge was applied.
    Acknowledge,
    /// Questions and answers for leases.
    Lease,
    /// Signs of life.
    Beat,
    /// Comparing, and handing over what was missed.
    Repair,
    /// Witnesses among themselves.
    Witness,
    /// Membership.
    Membership,
    /// Keys of session tickets.
    Keys,
    /// The link itself.
    Link,
}

impl Traffic {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Record,
        Self::Acknowledge,
        Self::Lease,
        Self::Beat,
        Self::Repair,
        Self::Witness,
        Self::Membership,
        Self::Keys,
        Self::Link,
    ];

    fn label(self) -> &'static str {
        match self {
            Self::Record => "record",
            Self::Acknowledge => "acknowledge",
            Self::Lease => "lease",
            Self::Beat => "beat",
            Self::Repair => "repair",
            Self::Witness => "witness",
            Self::Membership => "membership",
            Self::Keys => "keys",
            Self::Link => "link",
        }
    }
}

impl LinkMetrics {
    pub(super) fn new(shelf: &Shelf<'_>) -> Self {
        let refused = shelf.counters(
            "atoll_mesh_handshakes_refused_total",
            "Connections between nodes that did not become links, by reason.",
            &["reason"],
        );
        let closed = shelf.counters(
            "atoll_mesh_links_closed_total",
            "Links that ended, by reason.",
            &["reason"],
        );
        let dropped = shelf.counters(
            "atoll_mesh_dropped_total",
            "Messages to other nodes dropped for want of room or of a link.",
            &["class"],
        );
        let members = shelf.gauges(
            "atoll_mesh_members",
            "Other nodes of the roster, by what membership believes of them.",
            &["state"],
        );
        let [sent, received] = flows(shelf);
        Self {
            up: shelf.gauge("atoll_mesh_links_up", "Links to other nodes that are up."),
            handshakes: shelf
                .counter("atoll_mesh_handshakes_total", "Handshakes that ended in a link."),
            reconnects: shelf.counter(
                "atoll_mesh_reconnects_total",
                "Links that came up again after they had been up.",
            ),
            unknown: shelf.counter(
                "atoll_mesh_unknown_total",
                "Frames and messages of kinds that this version does not know, passed over.",
            ),
            dropped: ["urgent", "bulk"].map(|class| dropped.with_label_values(&[class])),
            refused: LinkRefused::ALL.map(|why| refused.with_label_values(&[why.label()])).into(),
            closed: LinkClosed::ALL.map(|why| closed.with_label_values(&[why.label()])).into(),
            sent,
            received,
            members: ["alive", "suspect", "down", "unknown"]
                .map(|state| members.with_label_values(&[state]))
                .into(),
        }
    }

    /// Counts a connection that did not become a link.
    pub fn refused(&self, why: LinkRefused) {
        if let Some(counter) = self.refused.get(why as usize) {
            counter.inc();
        }
    }

    /// Counts a link that ended.
    pub fn closed(&self, why: LinkClosed) {
        if let Some(counter) = self.closed.get(why as usize) {
            counter.inc();
        }
    }

    /// Counts a message that was queued, with its frames' bytes.
    pub fn sent(&self, what: Traffic, bytes: usize) {
        note(self.sent.get(what as usize), bytes);
    }

    /// Counts a frame that came.
    pub fn received(&self, what: Traffic, bytes: usize) {
        note(self.received.get(what as usize), bytes);
    }

    /// Nodes by state: alive, suspect, down, unknown.
    pub fn members(&self, counts: [usize; 4]) {
        for (gauge, count) in self.members.iter().zip(counts) {
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }
}

fn note(flow: Option<&Flow>, bytes: usize) {
    if let Some(flow) = flow {
        flow.frames.inc();
        flow.bytes.inc_by(bytes as u64);
    }
}

fn flows(shelf: &Shelf<'_>) -> [Vec<Flow>; 2] {
    let labels = ["direction", "kind"];
    let frames = shelf.counters(
        "atoll_mesh_messages_total",
        "Messages exchanged with other nodes, by direction and what they are about.",
        &labels,
    );
    let bytes = shelf.counters(
        "atoll_mesh_bytes_total",
        "Bytes of them, before TLS, by direction and what they are about.",
        &labels,
    );
    ["sent", "received"].map(|direction| {
        let flow = |kind: Traffic| Flow {
            frames: frames.with_label_values(&[direction, kind.label()]),
            bytes: bytes.with_label_values(&[direction, kind.label()]),
        };
        Traffic::ALL.map(flow).into()
    })
}
