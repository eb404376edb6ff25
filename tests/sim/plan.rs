//! What a seed stands for: a cluster and the faults that befall it.

use std::fmt;

use super::dice::Dice;

pub(crate) const MILLI: u64 = 1_000;
pub(crate) const SECOND: u64 = 1_000_000;

/// When the first fault may come: the cluster has found itself by then.
pub(crate) const CALM: u64 = 4 * SECOND;
/// When the last fault is over.
pub(crate) const TROUBLE: u64 = 55 * SECOND;
/// How long after the last fault everything must be well again.
pub(crate) const HEALING: u64 = 30 * SECOND;

/// One simulated run.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) cluster: Cluster,
    pub(crate) faults: Vec<Fault>,
}

/// Who is there and how they are set up.
#[derive(Clone, Debug)]
pub(crate) struct Cluster {
    /// PoP of each node.
    pub(crate) pops: Vec<u8>,
    /// One that is added later, beyond those.
    pub(crate) spare: u8,
    pub(crate) witnesses: Vec<usize>,
    pub(crate) disk: bool,
    /// Whether it now and then takes seconds to write.
    pub(crate) slow_disk: bool,
    pub(crate) ask_relays: bool,
    pub(crate) relays: usize,
    pub(crate) log_records: usize,
    pub(crate) sources: usize,
    /// Nodes that cannot read newer payloads.
    pub(crate) old_version: Vec<bool>,
    /// Parts per million that the clock runs too fast.
    pub(crate) drift_ppm: Vec<i64>,
    /// One-way delay between PoPs.
    pub(crate) wide_micros: u64,
    pub(crate) purge_every: u64,
    /// Purges per second that are taken from one issuer as they come.
    pub(crate) rate: u32,
}

#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) at: u64,
    pub(crate) lasts: u64,
    pub(crate) kind: Kind,
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = |micros: u64| micros as f64 / SECOND as f64;
        write!(f, "{:.3} s for {:.3} s: {:?}", seconds(self.at), seconds(self.lasts), self.kind)
    }
}

/// What goes wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Loss {
        percent: u64,
    },
    Duplicate {
        percent: u64,
    },
    Reorder {
        most: u64,
    },
    Delay {
        percent: u64,
        most: u64,
    },
    OneWay {
        from: usize,
        to: usize,
    },
    Isolate {
        node: usize,
    },
    Split {
        mask: u64,
    },
    Flap {
        from: usize,
        to: usize,
    },
    Pause {
        node: usize,
    },
    Restart {
        node: usize,
    },
    Forget {
        node: usize,
    },
    ForgetAll,
    ForgetMost,
    /// Peers in the mask are linked to the old process, the others to the new one; some time later
    /// the other way round.
    Twice {
        node: usize,
        mask: u64,
    },
    /// Its disk takes seconds to write.
    SlowDisk {
        node: usize,
    },
    /// Its configuration names other witnesses under the number of those in force.
    Misread {
        node: usize,
        members: Vec<usize>,
    },
    /// A split that one node can reach both sides of.
    Bridge {
        node: usize,
        mask: u64,
    },
    WallJump {
        node: usize,
        millis: i64,
    },
    Suspend {
        node: usize,
    },
    Freeze {
        node: usize,
    },
    Add,
    Remove {
        node: usize,
    },
    ChangeWitnesses {
        members: Vec<usize>,
    },
    Replay {
        percent: u64,
    },
    Garbage {
        percent: u64,
    },
    /// Many purges at once, by one node or by any.
    Burst {
        by: Option<usize>,
    },
}

impl Plan {
    pub(crate) fn of(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let mut cluster = Cluster::draw(&mut dice);
        let mut faults = Vec::new();
        if dice.percent(60) {
            faults = super::stories::draw(&mut cluster, &mut dice);
        }
        // Drawn apart, so that the plans of other seeds stay what they were.
        let mut apart = Dice::new(seed ^ 0x7265_706c_6163_6564);
        if apart.percent(10) && cluster.pops.len() >= 5 && cluster.witnesses.len() > 1 {
            faults = match apart.below(10) {
                0..=3 if cluster.pops.len() == 5 => {
                    super::stories::outnumbered(&mut cluster, &mut apart)
                }
                4..=7 if cluster.pops.len() == 5 => super::stories::faded(&mut cluster, &mut apart),
                0..=1 if cluster.pops.len() > 5 => {
                    super::stories::outdated(&mut cluster, &mut apart)
                }
                2..=5 if cluster.pops.len() > 5 => {
                    super::stories::overtaken(&mut cluster, &mut apart)
                }
                _ => super::stories::replaced(&mut cluster, &mut apart),
            };
        }
        let count = if faults.is_empty() { dice.between(1, 9) } else { dice.below(4) };
        faults.extend((0..count).map(|_| draw_fault(&cluster, &mut dice)));
        faults.sort_by_key(|fault| fault.at);
        Self { seed, cluster, faults }
    }
}

impl Cluster {
    fn draw(dice: &mut Dice) -> Self {
        let nodes = dice.between(3, 6) as usize;
        let places = dice.between(1, 3);
        let pops = (0..nodes).map(|node| (node as u64 % places) as u8).collect();
        let count = match dice.below(20) {
            0 | 1 => 1,
            2..=4 if nodes >= 5 => 5,
            _ => 3,
        };
        let drifts = dice.percent(50);
        let drift = |dice: &mut Dice| dice.between(0, 80_000) as i64 - 40_000;
        Self {
            pops,
            spare: dice.below(places) as u8,
            witnesses: (0..count).collect(),
            disk: dice.percent(60),
            slow_disk: dice.percent(15),
            ask_relays: dice.percent(30),
            relays: dice.between(1, 2) as usize,
            log_records: if dice.percent(40) { dice.between(3, 12) as usize } else { 10_000 },
            sources: if dice.percent(40) { 3 } else { 64 },
            old_version: (0..=nodes).map(|_| dice.percent(20)).collect(),
            drift_ppm: (0..=nodes).map(|_| if drifts { drift(dice) } else { 0 }).collect(),
            wide_micros: dice.between(2, 90) * MILLI,
            purge_every: dice.between(300, 2_500) * MILLI,
            rate: if dice.percent(10) { 2 } else { 2_000 },
        }
    }
}

fn draw_fault(cluster: &Cluster, dice: &mut Dice) -> Fault {
    let nodes = cluster.pops.len();
    let node = dice.index(nodes);
    let other = (node + 1 + dice.index(nodes - 1)) % nodes;
    let witness = cluster.witnesses[dice.index(cluster.witnesses.len())];
    let kind = match dice.below(30) {
        0 | 1 => Kind::Loss { percent: dice.between(5, 50) },
        2 => Kind::Duplicate { percent: dice.between(10, 100) },
        3 => Kind::Reorder { most: dice.between(10, 2_000) * MILLI },
        4 | 5 => {
            Kind::Delay { percent: dice.between(5, 60), most: dice.between(500, 60_000) * MILLI }
        }
        6 | 7 => Kind::OneWay { from: node, to: other },
        8 | 9 => Kind::Isolate { node },
        10 | 11 => Kind::Split { mask: draw_mask(cluster, dice) },
        12 => Kind::Flap { from: node, to: other },
        13 | 14 => Kind::Pause { node },
        15 => Kind::Restart { node },
        16 => Kind::Restart { node: witness },
        17 | 18 => Kind::Forget { node: witness },
        19 => match dice.below(3) {
            0 => Kind::ForgetAll,
            1 => Kind::ForgetMost,
            _ => Kind::Forget { node },
        },
        20 | 21 => Kind::Twice { node: witness, mask: dice.below(1 << nodes) },
        22 => Kind::WallJump { node, millis: dice.between(0, 20_000) as i64 - 10_000 },
        23 => Kind::Suspend { node },
        24 => Kind::Freeze { node },
        25 => Kind::Add,
        26 => Kind::Remove { node: nodes - 1 },
        27 => Kind::ChangeWitnesses { members: other_witnesses(cluster, dice) },
        28 => {
            if dice.percent(50) {
                Kind::Replay { percent: dice.between(1, 30) }
            } else {
                Kind::Garbage { percent: dice.between(1, 30) }
            }
        }
        _ => Kind::Burst { by: None },
    };
    let at = dice.between(CALM, TROUBLE - 2 * SECOND);
    let most = (TROUBLE - at).min(15 * SECOND);
    Fault { at, lasts: dice.between(200 * MILLI, most), kind }
}

/// Half of the nodes, or the nodes of one PoP.
pub(crate) fn draw_mask(cluster: &Cluster, dice: &mut Dice) -> u64 {
    let nodes = cluster.pops.len();
    let pop = cluster.pops[dice.index(nodes)];
    let inside = (0..nodes).filter(|node| cluster.pops[*node] == pop);
    let by_pop = inside.fold(0, |mask, node| mask | 1 << node);
    if dice.percent(50) { by_pop } else { dice.between(1, (1 << nodes) - 2) }
}

/// Another set of the same size, as far as there are nodes.
fn other_witnesses(cluster: &Cluster, dice: &mut Dice) -> Vec<usize> {
    let mut all: Vec<usize> = (0..cluster.pops.len()).collect();
    while all.len() > cluster.witnesses.len() {
        let gone = dice.index(all.len());
        all.remove(gone);
    }
    all
}
