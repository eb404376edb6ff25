//! `[mesh]` and `[[mesh.node]]`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::super::error::Problem;
use super::super::names::{parse_name, parse_seed};
use super::super::reader::{Entry, Found, Place, Read, Table};
use super::super::{LinkLimits, Membership, MeshPaces, Seed};
use super::canary::{self, CanaryDraft};
use crate::replication::FRAME_BYTES;

/// The mesh as written.
pub(in crate::config) struct MeshDraft {
    pub(in crate::config) place: Place,
    pub(in crate::config) listen: Option<Found<SocketAddr>>,
    pub(in crate::config) advertise: Option<Found<SocketAddr>>,
    pub(in crate::config) certificate: Option<Found<PathBuf>>,
    pub(in crate::config) key: Option<Found<PathBuf>>,
    pub(in crate::config) ca: Vec<Found<PathBuf>>,
    pub(in crate::config) seeds: Vec<Seed>,
    pub(in crate::config) nodes: Vec<NodeDraft>,
    pub(in crate::config) witnesses: Option<Found<Vec<Found<String>>>>,
    pub(in crate::config) directory: Option<Found<PathBuf>>,
    pub(in crate::config) paces: MeshPaces,
    pub(in crate::config) links: LinkLimits,
    pub(in crate::config) membership: Membership,
    pub(in crate::config) canary: Option<CanaryDraft>,
}

/// A node of the roster as written.
pub(in crate::config) struct NodeDraft {
    pub(in crate::config) name: Found<String>,
    pub(in crate::config) pop: Found<String>,
    pub(in crate::config) issues: bool,
}

impl Read for Seed {
    fn read(entry: &Entry<'_>) -> Option<Self> {
        entry.parsed("a node with its port: \"fra-1.example:7946\"", parse_seed)
    }
}

/// Reads the table; `None` where there is none.
pub(super) fn read(mut table: Table<'_>, folder: &Path) -> Option<MeshDraft> {
    let there = table.is_there();
    let draft = read_keys(&mut table, folder);
    table.finish();
    there.then_some(draft)
}

fn read_keys(table: &mut Table<'_>, folder: &Path) -> MeshDraft {
    let file =
        |found: Found<PathBuf>| Found { value: folder.join(found.value), place: found.place };
    let listen = table.required("listen", "\"0.0.0.0:7946\"");
    let advertise = table.optional("advertise");
    let certificate = table.required("certificate", "\"/etc/atoll/mesh/fra-1.pem\"").map(file);
    let key = table.required("key", "\"/etc/atoll/mesh/fra-1.key\"").map(file);
    let ca = table.required::<Vec<Found<PathBuf>>>("ca", "[\"/etc/atoll/mesh/mesh-ca.pem\"]");
    let ca = ca.map(|found| found.value.into_iter().map(file).collect()).unwrap_or_default();
    if table.array_is_empty("ca") {
        let problem = Problem::new("`mesh.ca` is empty").at(table.span_of("ca"));
        table.sink.missing(problem.help("without an authority nobody is trusted: name its file"));
    }
    let mut seeds = Vec::new();
    table.set("seeds", &mut seeds);
    let witnesses = table.required("witnesses", "[\"fra-1\"]");
    let directory = table.optional("directory").map(file);
    let paces = read_paces(table);
    let (links, membership) = (read_links(table), read_membership(table));
    let nodes = table.tables("node").unwrap_or_default();
    let nodes = nodes.into_iter().filter_map(node).collect();
    let canary = canary::read(table.table("canary"), folder);
    let place = table.place.clone();
    MeshDraft {
        place,
        listen,
        advertise,
        certificate,
        key,
        ca,
        seeds,
        nodes,
        witnesses,
        directory,
        paces,
        links,
        membership,
        canary,
    }
}

fn node(mut table: Table<'_>) -> Option<NodeDraft> {
    let name = table.required_parsed("name", "\"fra-1\"", parse_name);
    let pop = table.required_parsed("pop", "\"fra\"", parse_name);
    let mut issues = true;
    table.set("issues", &mut issues);
    table.finish();
    Some(NodeDraft { name: name?, pop: pop?, issues })
}

fn read_paces(table: &mut Table<'_>) -> MeshPaces {
    let mut paces = MeshPaces::default();
    let MeshPaces {
        witness_set,
        lease,
        relays,
        log_records,
        log_bytes,
        purge_rate,
        purge_burst,
        ticket_keys,
    } = &mut paces;
    table.count("witness_set", witness_set, 1..=u64::MAX);
    table.time("lease", lease, 200..=1_800);
    table.count("relays", relays, 1..=16);
    table.count("log_records", log_records, 1_000..=100_000_000);
    table.size("log_bytes", log_bytes, 1 << 20..=1 << 40);
    table.count("purge_rate", purge_rate, 1..=1_000_000);
    table.count("purge_burst", purge_burst, 1..=10_000_000);
    table.time("ticket_keys", ticket_keys, 1_000..=3 * 86_400_000);
    paces
}

fn read_links(table: &mut Table<'_>) -> LinkLimits {
    let mut links = LinkLimits::default();
    let LinkLimits {
        queue_bytes,
        queue_frames,
        frame_bytes,
        handshake,
        idle,
        redial_least,
        redial_most,
        half_open,
        half_open_per_address,
    } = &mut links;
    table.size("queue_bytes", queue_bytes, 4 << 20..=1 << 32);
    table.count("queue_frames", queue_frames, 256..=10_000_000);
    table.size("frame_bytes", frame_bytes, 2 << 20..=FRAME_BYTES as u64);
    table.time("handshake", handshake, 100..=60_000);
    table.time("idle", idle, 1_000..=300_000);
    table.time("redial_least", redial_least, 10..=60_000);
    table.time("redial_most", redial_most, 100..=600_000);
    table.count("half_open", half_open, 4..=100_000);
    table.count("half_open_per_address", half_open_per_address, 1..=100_000);
    if links.redial_least > links.redial_most {
        let help = "`redial_least` is at most `redial_most`: lower it, or raise the other";
        let message = "`mesh.redial_least` is larger than `mesh.redial_most`";
        disagree(table, ["redial_least", "redial_most"], message, help);
    }
    links
}

fn read_membership(table: &mut Table<'_>) -> Membership {
    let mut membership = Membership::default();
    let Membership { probe, probe_answer, suspect } = &mut membership;
    table.time("probe", probe, 100..=60_000);
    table.time("probe_answer", probe_answer, 50..=30_000);
    table.time("suspect", suspect, 100..=600_000);
    if membership.probe_answer * 2 > membership.probe {
        let help = "who does not answer is asked again, through others, before the next probe";
        let message = "`mesh.probe_answer` is more than half of `mesh.probe`";
        disagree(table, ["probe_answer", "probe"], message, help);
    }
    membership
}

/// Reports two times that make sense only the other way round.
fn disagree(table: &Table<'_>, keys: [&str; 2], message: &str, help: &str) {
    let span = keys.iter().find_map(|key| table.span_of(key));
    table.sink.push(Problem::new(message).at(span).help(help));
}
