//! The mesh as the configuration means it: who belongs to it, how its links behave, who witnesses.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustls::pki_types::DnsName;

use super::certificates::read_mesh_credentials;
use super::check::{EXPIRES_SOON, check_unique};
use super::error::{Problem, nearest, shown};
use super::file::{MeshDraft, NodeDraft};
use super::reader::{Place, Sink};
use super::{Canary, CertificateFiles, Node, Site, canary};
use crate::clock::Now;

/// This node's part in a mesh. A node without one is alone.
#[derive(Clone, Debug)]
pub struct Mesh {
    /// Where peers connect; port 0 lets the system choose.
    pub listen: SocketAddr,
    /// Address that others are told; `None`: the one listened on.
    pub advertise: Option<SocketAddr>,
    /// This node's certificate, which bears its name, and its key.
    pub identity: CertificateFiles,
    /// Files of the authorities that peers' certificates must come from: one, two in a rotation.
    pub authorities: Vec<PathBuf>,
    /// Nodes that are asked for the others.
    pub seeds: Vec<Seed>,
    /// Every node of the mesh, this one included.
    pub nodes: Vec<MeshNode>,
    /// Names of the witnesses: one, three or five.
    pub witnesses: Vec<String>,
    /// Number of the witness set.
    pub witness_set: u64,
    /// Folder of a witness's log; `None`: it keeps none.
    pub directory: Option<PathBuf>,
    /// How long a lease is.
    pub lease: Duration,
    /// Nodes of each other PoP that a purge is sent to at once.
    pub relays: usize,
    /// Purges kept for nodes that missed them.
    pub log_records: usize,
    /// Bytes of them.
    pub log_bytes: usize,
    /// Purges per second that are taken from one issuer as they come.
    pub purge_rate: u32,
    /// Purges that may come at once.
    pub purge_burst: u32,
    /// How long one key of session tickets is used.
    pub ticket_keys: Duration,
    /// Bounds and paces of the links.
    pub links: LinkLimits,
    /// Paces of the search for other nodes.
    pub membership: Membership,
    /// This node's canary; `None`: it has none.
    pub canary: Option<Canary>,
}

impl Mesh {
    /// A mesh of these nodes; everything that has a default has it.
    #[must_use]
    pub fn new(
        listen: SocketAddr,
        identity: CertificateFiles,
        authorities: Vec<PathBuf>,
        nodes: Vec<MeshNode>,
        witnesses: Vec<String>,
    ) -> Self {
        let MeshPaces {
            witness_set,
            lease,
            relays,
            log_records,
            log_bytes,
            purge_rate,
            purge_burst,
            ticket_keys,
        } = MeshPaces::default();
        Self {
            listen,
            advertise: None,
            identity,
            authorities,
            seeds: Vec::new(),
            nodes,
            witnesses,
            witness_set,
            directory: None,
            lease,
            relays,
            log_records,
            log_bytes,
            purge_rate,
            purge_burst,
            ticket_keys,
            links: LinkLimits::default(),
            membership: Membership::default(),
            canary: None,
        }
    }

    /// The same with these paces.
    #[must_use]
    pub(super) fn paced(self, paces: MeshPaces) -> Self {
        let MeshPaces {
            witness_set,
            lease,
            relays,
            log_records,
            log_bytes,
            purge_rate,
            purge_burst,
            ticket_keys,
        } = paces;
        Self {
            witness_set,
            lease,
            relays,
            log_records,
            log_bytes,
            purge_rate,
            purge_burst,
            ticket_keys,
            ..self
        }
    }

    /// A node of the roster.
    #[must_use]
    pub fn node(&self, name: &str) -> Option<&MeshNode> {
        self.nodes.iter().find(|node| node.name == name)
    }

    /// Every node with its PoP.
    #[must_use]
    pub fn roster(&self) -> BTreeMap<&str, &str> {
        self.nodes.iter().map(|node| (node.name.as_str(), node.pop.as_str())).collect()
    }
}

/// What of a mesh has a default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MeshPaces {
    /// Number of the witness set.
    pub witness_set: u64,
    /// How long a lease is.
    pub lease: Duration,
    /// Nodes of each other PoP that a purge is sent to at once.
    pub relays: usize,
    /// Purges kept for nodes that missed them.
    pub log_records: usize,
    /// Bytes of them.
    pub log_bytes: usize,
    /// Purges per second that are taken from one issuer as they come.
    pub purge_rate: u32,
    /// Purges that may come at once.
    pub purge_burst: u32,
    /// How long one key of session tickets is used.
    pub ticket_keys: Duration,
}

impl Default for MeshPaces {
    fn default() -> Self {
        Self {
            witness_set: 1,
            lease: Duration::from_millis(1_800),
            relays: 2,
            log_records: 1_000_000,
            log_bytes: 256 << 20,
            purge_rate: 2_000,
            purge_burst: 10_000,
            ticket_keys: Duration::from_secs(4 * 3_600),
        }
    }
}

/// A node of the roster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeshNode {
    /// Its name, which its certificate bears.
    pub name: String,
    /// Its PoP.
    pub pop: String,
    /// Whether purges may be asked for at it.
    pub issues: bool,
}

/// A node that is known before any other.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Seed {
    /// DNS name or literal address, without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
}

/// Bounds and paces of the links.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkLimits {
    /// Bytes that may wait for one peer; more are dropped.
    pub queue_bytes: usize,
    /// Frames that may wait for one peer.
    pub queue_frames: usize,
    /// Longest frame that is taken.
    pub frame_bytes: usize,
    /// Time for connecting, the TLS handshake and the greeting.
    pub handshake: Duration,
    /// Time without a byte from a peer after which its link is closed.
    pub idle: Duration,
    /// First pause before a peer is dialled again, and its growth's end.
    pub redial_least: Duration,
    /// Longest pause before a peer is dialled again.
    pub redial_most: Duration,
    /// Connections from outside that have not shown who they are.
    pub half_open: usize,
    /// Of them from one address.
    pub half_open_per_address: usize,
}

impl Default for LinkLimits {
    fn default() -> Self {
        Self {
            queue_bytes: 16 << 20,
            queue_frames: 16_384,
            frame_bytes: 4 << 20,
            handshake: Duration::from_secs(5),
            idle: Duration::from_secs(6),
            redial_least: Duration::from_millis(200),
            redial_most: Duration::from_secs(10),
            half_open: 256,
            half_open_per_address: 32,
        }
    }
}

/// Paces of membership, which finds addresses; no promise rests on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    /// How often another node is probed.
    pub probe: Duration,
    /// Time within which it is to answer.
    pub probe_answer: Duration,
    /// How long a node is suspected before it counts as down.
    pub suspect: Duration,
}

impl Default for Membership {
    fn default() -> Self {
        Self {
            probe: Duration::from_secs(2),
            probe_answer: Duration::from_millis(700),
            suspect: Duration::from_secs(6),
        }
    }
}

impl From<SocketAddr> for Seed {
    fn from(address: SocketAddr) -> Self {
        Self { host: address.ip().to_string(), port: address.port() }
    }
}

/// Looks at how a mesh hangs together, with the node that it is for.
pub(super) fn check(
    mut draft: MeshDraft,
    (node, sites): (&Node, &[Site]),
    sink: &Sink,
    now: Now,
) -> Option<Mesh> {
    let canary = draft.canary.take();
    let names = draft.nodes.iter().map(|node| (node.name.value.as_str(), &node.name.place));
    check_unique("mesh node", names, sink);
    check_roster(&draft, node, sink);
    check_witnesses(&draft, node, sink);
    check_addresses(&draft, sink);
    let (listen, certificate, key) = (draft.listen?, draft.certificate?, draft.key?);
    let identity = CertificateFiles { chain: certificate.value, key: key.value };
    let authorities: Vec<PathBuf> = draft.ca.into_iter().map(|found| found.value).collect();
    if !authorities.is_empty() {
        check_files(&identity, &certificate.place, &authorities, &node.name, sink, now);
        check_key(&identity.key, &key.place, sink);
    }
    let nodes = draft.nodes.into_iter();
    let nodes = nodes.map(|NodeDraft { name, pop, issues }| MeshNode {
        name: name.value,
        pop: pop.value,
        issues,
    });
    let nodes: Vec<MeshNode> = nodes.collect();
    let canary = canary.and_then(|canary| canary::check(canary, (node, &nodes), sites, sink));
    let witnesses = draft.witnesses?.value.into_iter().map(|found| found.value).collect();
    Some(
        Mesh {
            advertise: draft.advertise.map(|found| found.value),
            seeds: draft.seeds,
            directory: draft.directory.map(|found| found.value),
            links: draft.links,
            membership: draft.membership,
            canary,
            ..Mesh::new(listen.value, identity, authorities, nodes, witnesses)
        }
        .paced(draft.paces),
    )
}

/// The roster has this node where it says that it is, and names that certificates can bear.
fn check_roster(draft: &MeshDraft, node: &Node, sink: &Sink) {
    for listed in &draft.nodes {
        if DnsName::try_from(listed.name.value.as_str()).is_err() {
            let name = shown(&listed.name.value);
            let problem = Problem::new(format!("the mesh node {name} cannot have a certificate"));
            let help = "a name in a certificate is like a host's: letters, digits, '-' and '.'";
            sink.push(problem.at(listed.name.place.span.clone()).help(help));
        }
    }
    let mine = draft.nodes.iter().find(|listed| listed.name.value == node.name);
    let Some(mine) = mine else {
        let message = format!("this node, {}, is not in the mesh", shown(&node.name));
        let names = draft.nodes.iter().map(|listed| listed.name.value.as_str());
        let near = nearest(&node.name, names)
            .map(|near| format!("did you mean name = \"{near}\" in [node]?"));
        let problem = Problem::new(message).at(draft.place.span.clone());
        let problem = near.into_iter().fold(problem, Problem::help);
        sink.missing(problem.help(format!(
            "every node is listed, this one included:\n[[mesh.node]]\nname = \"{}\"\npop = \"{}\"",
            node.name, node.pop
        )));
        return;
    };
    if mine.pop.value != node.pop {
        let message = format!("the mesh has this node in the PoP {}", shown(&mine.pop.value));
        let help = format!("[node] says {}: one of the two is wrong", shown(&node.pop));
        sink.push(Problem::new(message).at(mine.pop.place.span.clone()).help(help));
    }
    if draft.seeds.is_empty() && draft.nodes.len() > 1 {
        let problem = Problem::new("`mesh.seeds` names nobody to ask for the others").warning();
        let help =
            "this node waits until others come to it: name one or two, on every node the same";
        sink.push(problem.at(draft.place.span.clone()).help(help));
    }
}

/// One, three or five of the roster.
fn check_witnesses(draft: &MeshDraft, node: &Node, sink: &Sink) {
    let Some(witnesses) = &draft.witnesses else { return };
    let place = &witnesses.place;
    let names = || draft.nodes.iter().map(|node| node.name.value.as_str());
    for witness in &witnesses.value {
        if !names().any(|name| name == witness.value) {
            let problem = Problem::new(format!("there is no mesh node {}", shown(&witness.value)));
            let near = nearest(&witness.value, names());
            let near = near.map(|near| format!("did you mean \"{near}\"?"));
            let problem = near.into_iter().fold(problem, Problem::help);
            sink.missing(problem.at(witness.place.span.clone()).label("no such node"));
        }
    }
    check_unique("witness", witnesses.value.iter().map(|w| (w.value.as_str(), &w.place)), sink);
    let help = match witnesses.value.len() {
        1 | 3 | 5 => None,
        0 => Some("without a witness no purge is ever acknowledged: name one, three or five nodes"),
        2 => Some("two are worse than one: a purge needs a majority, and that is both of them"),
        4 => Some("four bear the loss of one, as three do, and wait for one more: name three"),
        _ => Some("more than five only cost time: a purge waits for a majority of them"),
    };
    if let Some(help) = help {
        let message = format!("{} witnesses", witnesses.value.len());
        let problem = Problem::new(message).at(place.span.clone()).label("one, three or five");
        sink.push(problem.help(help));
    }
    let witness = witnesses.value.iter().any(|witness| witness.value == node.name);
    if witness && draft.directory.is_none() && draft.nodes.len() > 1 {
        let problem = Problem::new("this witness forgets at each restart what it has acknowledged");
        let help =
            "name a `directory` for its log; without one it has to ask the other witnesses first";
        sink.push(problem.warning().at(draft.place.span.clone()).help(help));
    }
}

/// Others have to be told an address that they can connect to.
fn check_addresses(draft: &MeshDraft, sink: &Sink) {
    let told = draft.advertise.as_ref().or(draft.listen.as_ref());
    let Some(told) = told.filter(|told| told.value.ip().is_unspecified()) else { return };
    let port = told.value.port();
    let message = if draft.advertise.is_some() {
        format!("nobody can connect to {}", told.value)
    } else {
        format!("the others cannot be told {} as the address of this node", told.value)
    };
    let help = format!("say where they reach it: advertise = \"192.0.2.1:{port}\"");
    sink.push(Problem::new(message).at(told.place.span.clone()).help(help));
}

fn check_files(
    identity: &CertificateFiles,
    place: &Place,
    authorities: &[PathBuf],
    name: &str,
    sink: &Sink,
    now: Now,
) {
    let problem = |what: &str| Problem::new(what).at(place.span.clone());
    match read_mesh_credentials(identity, authorities, name, now) {
        Err(error) => sink.push(problem("the mesh's certificate cannot be used").help(error)),
        Ok(read) => {
            let left = read.not_after.duration_since(now.wall).unwrap_or_default();
            if left < EXPIRES_SOON {
                let end = httpdate::fmt_http_date(read.not_after);
                let help =
                    format!("{}: it ends on {end}; issue a new one", identity.chain.display());
                sink.push(problem("the mesh's certificate expires soon").warning().help(help));
            }
        }
    }
}

/// A key that others can read is no secret.
fn check_key(key: &Path, place: &Place, sink: &Sink) {
    let open =
        std::fs::metadata(key).is_ok_and(|metadata| metadata.permissions().mode() & 0o077 != 0);
    if open {
        let problem = Problem::new("`mesh.key` can be read by others than its owner").warning();
        let help = format!("chmod 600 {}: who has it can speak for this node", key.display());
        sink.push(problem.at(place.span.clone()).help(help));
    }
}
