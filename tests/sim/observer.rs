//! Who watches from outside: knows what the origin had when, and which purges were acknowledged when
//! by a clock of its own, and nothing of how the mesh works.

use std::collections::BTreeMap;

use atoll::replication::Identity;

use super::origin::{OBJECTS, Object, Purge, Strength, Version};
use super::plan::{MILLI, SECOND};

/// The promise's T.
pub(crate) const T: u64 = 2 * SECOND;

/// What went wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    /// An answer from what an acknowledged purge had killed.
    Promise { at: u64, node: usize, object: Object, version: Version, wanted: Version },
    /// An answer from what a purge that the node had applied had killed.
    Resurrection { at: u64, node: usize, object: Object, version: Version, wanted: Version },
    /// A purge that was acknowledged had no effect on a node.
    Lost { node: usize, identity: Identity },
    /// A response of a site that no purge named was killed.
    Overreach { at: u64, node: usize, object: Object },
    /// A node has applied a purge, its issuer lives and could have known for long, and does not.
    Receipt { at: u64, node: usize, identity: Identity },
    /// Nodes disagree long after the last fault.
    Unconverged { what: String },
    /// A node holds more than it may.
    Memory { at: u64, node: usize, what: String },
    /// Messages without end.
    Storm { at: u64 },
    /// Rubbish was taken for a message.
    Rubbish { at: u64 },
}

#[derive(Debug)]
pub(crate) struct Issued {
    pub(crate) purge: Purge,
    pub(crate) at: u64,
    pub(crate) versions: [Version; OBJECTS],
    pub(crate) acknowledged: Option<u64>,
}

#[derive(Debug, Default)]
pub(crate) struct Observer {
    pub(crate) issued: BTreeMap<Identity, Issued>,
    /// For each object: from when on which version is demanded. Both grow.
    demands: [Vec<(u64, Version)>; OBJECTS],
    pub(crate) broken: Option<Broken>,
    pub(crate) answers: u64,
}

impl Observer {
    pub(crate) fn issue(
        &mut self,
        identity: Identity,
        purge: Purge,
        versions: [Version; OBJECTS],
        at: u64,
    ) {
        self.issued.insert(identity, Issued { purge, at, versions, acknowledged: None });
    }

    /// The caller reads that its purge is acknowledged.
    pub(crate) fn acknowledge(&mut self, identity: &Identity, at: u64) -> bool {
        let Some(issued) = self.issued.get_mut(identity) else { return false };
        issued.acknowledged = Some(at);
        if issued.purge.strength == Strength::Hard {
            for object in Object::all().filter(|object| issued.purge.selector.hits(*object)) {
                let version = issued.versions[object.index()];
                let demands = &mut self.demands[object.index()];
                let most = demands.last().map_or(0, |(_, version)| *version);
                demands.push((at + T, version.max(most)));
            }
        }
        true
    }

    /// The version that an answer to a request sent then must have at least.
    pub(crate) fn demanded(&self, object: Object, sent: u64) -> Version {
        let demands = &self.demands[object.index()];
        let past = demands.partition_point(|(from, _)| *from <= sent);
        past.checked_sub(1).map_or(0, |last| demands[last].1)
    }

    pub(crate) fn judge_answer(
        &mut self,
        node: usize,
        object: Object,
        (sent, at): (u64, u64),
        version: Version,
        by_node: Version,
    ) {
        self.answers += 1;
        let wanted = self.demanded(object, sent);
        if version < wanted {
            self.fail(Broken::Promise { at, node, object, version, wanted });
        } else if version < by_node {
            self.fail(Broken::Resurrection { at, node, object, version, wanted: by_node });
        }
    }

    pub(crate) fn fail(&mut self, broken: Broken) {
        self.broken.get_or_insert(broken);
    }
}

/// When the prober asks after an acknowledgement: as soon as the promise holds, and a little later.
pub(crate) const PROBES: [u64; 4] = [T, T + MILLI, T + 40 * MILLI, T + 400 * MILLI];
