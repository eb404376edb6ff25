//! The canary as the configuration means it: where its object comes from, and where it is read.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::check::check_unique;
use super::error::{Problem, nearest, shown};
use super::file::CanaryDraft;
use super::reader::Sink;
use super::{MeshNode, Node, Server, Site};
use crate::route::Routes;

/// A prober that tries out whether what it purges is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Canary {
    /// Where the nodes fetch its object; port 0 lets the system choose.
    pub listen: SocketAddr,
    /// Host of the object, for which a site of every node answers.
    pub host: String,
    /// Its path.
    pub path: String,
    /// Time from the end of a round to the next, or a little less.
    pub interval: Duration,
    /// Time for one reading, and for the acknowledgement of a purge.
    pub timeout: Duration,
    /// Authorities of the nodes' certificates; `None`: the system's.
    pub ca: Option<PathBuf>,
    /// Where the object is read.
    pub nodes: Vec<CanaryNode>,
}

/// A node that is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CanaryNode {
    /// Its name in the mesh.
    pub name: String,
    /// Where clients reach it.
    pub server: Server,
}

/// What of a canary has a default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CanaryPaces {
    /// Path of the object.
    pub path: String,
    /// Time between rounds.
    pub interval: Duration,
    /// Time for one reading, and for the acknowledgement of a purge.
    pub timeout: Duration,
}

impl Default for CanaryPaces {
    fn default() -> Self {
        Self {
            path: "/canary".to_owned(),
            interval: Duration::from_secs(60),
            timeout: Duration::from_secs(5),
        }
    }
}

/// Looks at how a canary fits the node that has it, and the mesh.
pub(super) fn check(
    draft: CanaryDraft,
    (node, roster): (&Node, &[MeshNode]),
    sites: &[Site],
    sink: &Sink,
) -> Option<Canary> {
    let names = draft.nodes.iter().map(|(name, _)| (name.value.as_str(), &name.place));
    check_unique("canary node", names, sink);
    for (name, _) in &draft.nodes {
        check_name(&name.value, name.place.span.clone(), roster, sink);
    }
    let problem = |what: &str| Problem::new(what).at(draft.place.span.clone());
    if draft.nodes.is_empty() {
        let help = "name a node, and where clients reach it:\n[[mesh.canary.node]]\n\
                    name = \"fra-1\"\nurl = \"https://192.0.2.1\"";
        sink.missing(problem("the canary reads no node").help(help));
    }
    if roster.iter().any(|listed| listed.name == node.name && !listed.issues) {
        let help = "the roster has `issues = false` for it: put the canary on another node";
        sink.push(problem("the canary purges, and this node may not").help(help));
    }
    let (listen, host) = (draft.listen?, draft.host?);
    if !answers(sites, &host.value) {
        let message = format!("no site answers for the canary's host {}", shown(&host.value));
        let help = "on every node, this one included, a site with that host and an origin at the \
                    canary's `listen`";
        sink.push(Problem::new(message).at(host.place.span).help(help));
    }
    let super::CanaryPaces { path, interval, timeout } = draft.paces;
    let nodes = draft.nodes.into_iter();
    let nodes = nodes.map(|(name, server)| CanaryNode { name: name.value, server }).collect();
    let (listen, host) = (listen.value, host.value);
    Some(Canary { listen, host, path, interval, timeout, ca: draft.ca, nodes })
}

fn check_name(name: &str, span: Option<std::ops::Range<usize>>, roster: &[MeshNode], sink: &Sink) {
    let names = || roster.iter().map(|node| node.name.as_str());
    if names().any(|known| known == name) {
        return;
    }
    let problem = Problem::new(format!("there is no mesh node {}", shown(name)));
    let near = nearest(name, names()).map(|near| format!("did you mean \"{near}\"?"));
    let problem = near.into_iter().fold(problem, Problem::help);
    sink.missing(problem.at(span).label("no such node"));
}

fn answers(sites: &[Site], host: &str) -> bool {
    let none: [(String, std::sync::Arc<crate::semantics::Policy>); 0] = [];
    Routes::new(sites.iter().map(|site| (site.hosts.clone(), none.clone()))).site(host).is_some()
}
