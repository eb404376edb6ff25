//! Faults that belong together: rare by chance, and each what some part of the protocol is for.

use super::dice::Dice;
use super::plan::{CALM, Cluster, Fault, Kind, MILLI, SECOND, TROUBLE, draw_mask};

pub(crate) fn draw(cluster: &mut Cluster, dice: &mut Dice) -> Vec<Fault> {
    if cluster.pops.len() < 5 || cluster.witnesses.len() == 1 {
        return Vec::new();
    }
    cluster.purge_every = cluster.purge_every.min(800 * MILLI);
    let mut faults = Vec::new();
    let mut at = CALM + dice.below(3 * SECOND);
    while at < TROUBLE - 18 * SECOND {
        let lasts = match dice.below(13) {
            0 | 9 => forgotten(cluster, at, dice, &mut faults),
            1 | 10 => two_processes(cluster, at, dice, &mut faults),
            2 | 11 => generation(cluster, at, dice, &mut faults),
            3 => retired(cluster, at, dice, &mut faults),
            4 => unwritten(cluster, at, dice, &mut faults),
            8 => torn(cluster, at, dice, &mut faults),
            7 => misread(cluster, at, dice, &mut faults),
            6 => holed(cluster, at, dice, &mut faults),
            5 => changed(cluster, at, dice, &mut faults),
            _ => reborn(cluster, at, dice, &mut faults),
        };
        at += lasts + dice.between(SECOND, 8 * SECOND);
    }
    faults
}

fn mask(nodes: &[usize]) -> u64 {
    nodes.iter().fold(0, |mask, node| mask | 1 << node)
}

/// Three witnesses in some order, and the nodes that are none.
fn cast(cluster: &Cluster, dice: &mut Dice) -> ([usize; 3], Vec<usize>) {
    let mut witnesses = cluster.witnesses.clone();
    let mut take = || {
        let one = dice.index(witnesses.len());
        witnesses.remove(one)
    };
    let three = [take(), take(), take()];
    let rest = (0..cluster.pops.len()).filter(|node| !three.contains(node)).collect();
    (three, rest)
}

/// Two witnesses know what the third one missed. One of them forgets while the other can't be
/// reached: only the third one could tell it.
fn forgotten(cluster: &mut Cluster, at: u64, dice: &mut Dice, faults: &mut Vec<Fault>) -> u64 {
    let ([a, _b, c], rest) = cast(cluster, dice);
    let without = rest[1];
    let split = dice.between(2 * SECOND, 4 * SECOND);
    let lasts = dice.between(200 * MILLI, SECOND);
    let (turn, apart) = (at + split, mask(&[a, c, without]));
    faults.push(Fault { at, lasts: split, kind: Kind::Split { mask: mask(&[c, without]) } });
    faults.push(Fault { at: turn, lasts, kind: Kind::Forget { node: a } });
    faults.push(Fault { at: turn, lasts: 6 * SECOND, kind: Kind::Split { mask: apart } });
    split + 6 * SECOND
}

/// Two processes of one witness, each with links of its own, to sides that can't hear one another.
fn two_processes(cluster: &mut Cluster, at: u64, dice: &mut Dice, faults: &mut Vec<Fault>) -> u64 {
    let ([a, b, _c], rest) = cast(cluster, dice);
    let lasts = dice.between(6 * SECOND, 12 * SECOND);
    let side = if dice.percent(50) { mask(&[b, rest[1]]) } else { mask(&[rest[0]]) };
    // Often just when the new process has recovered, before anybody heard of it from others.
    let soon = dice.between(250 * MILLI, 900 * MILLI);
    let late = at + if dice.percent(50) { soon } else { dice.between(0, 3 * SECOND) };
    let ends = at + lasts;
    let kind = match dice.below(3) {
        0 => Kind::Split { mask: side | 1 << a },
        _ => Kind::Bridge { node: a, mask: side },
    };
    let links = if dice.percent(70) { !side } else { dice.next() };
    let links = links & ((1 << cluster.pops.len()) - 1);
    faults.push(Fault { at, lasts, kind: Kind::Twice { node: a, mask: links } });
    faults.push(Fault { at: late, lasts: ends - late, kind });
    lasts
}

/// A majority acknowledges and forgets, while the others hear nothing.
fn generation(cluster: &mut Cluster, at: u64, dice: &mut Dice, faults: &mut Vec<Fault>) -> u64 {
    let [a, b] = [0, 1];
    let (split, down) = (dice.between(2 * SECOND, 4 * SECOND), dice.between(200, 800 * MILLI));
    faults.push(Fault { at, lasts: split, kind: Kind::Split { mask: mask(&[a, b]) } });
    let begins = at + split - down.min(split);
    faults.push(Fault { at: begins, lasts: down, kind: Kind::ForgetMost });
    let later = at + split + dice.between(800 * MILLI, 2 * SECOND);
    if dice.percent(60) {
        let node = if dice.percent(50) { a } else { b };
        faults.push(Fault { at: later, lasts: 5 * SECOND, kind: Kind::Isolate { node } });
    }
    cluster.witnesses.truncate(3);
    split + 8 * SECOND
}

/// A node misses the last purges of lives that end and are retired while it is away.
fn retired(cluster: &mut Cluster, at: u64, dice: &mut Dice, faults: &mut Vec<Fault>) -> u64 {
    let (_, rest) = cast(cluster, dice);
    cluster.sources = 1;
    cluster.log_records = cluster.log_records.max(1_000);
    let lasts = dice.between(9 * SECOND, 13 * SECOND);
    faults.push(Fault { at, lasts, kind: Kind::Isolate { node: rest[0] } });
    for node in 1..cluster.pops.len() {
        if node != rest[0] && dice.percent(60) {
            let at = at + dice.between(SECOND, 4 * SECOND);
            faults.push(Fault { at, lasts: 300 * MILLI, kind: Kind::Restart { node } });
        }
    }
    lasts
}

/// A witness ends before its disk has what it holds, and another one can't be reached then.
fn unwritten(cluster: &mut Cluster, at: u64, dice: &mut Dice, faults: &mut Vec<Fault>) -> u64 {
    let ([a, _b, c], rest) = cast(cluster, dice);
    (cluster.disk, cluster.slow_disk) = (true, true);
    let split = dice.between(SECOND, 3 * SECOND);
    faults.push(Fault { at, lasts: split, kind: Kind::Split { mask: mask(&[c, rest[1]]) } });
    let (turn, apart) = (at + split, mask(&[a, c, rest[1]]));
    faults.push(Fault { at: turn, lasts: 300 * MILLI, kind: Kind::Restart { node: a } });
    faults.push(Fault { at: turn, lasts: 6 * SECOND, kind: Kind::Split { mask: apart } });
    split + 6 * SECOND
}

/// A witness that forgot is told again by two others, of whom only one knows all, and ends while its
/// disk writes that down. Then it and the one that knows less are alone.
fn torn(cluster: &mut Cluster, at: u64, dice: &mut Dice, faults: &mut Vec<Fault>) -> u64 {
    let ([a, _b, c], rest) = cast(cluster, dice);
    cluster.disk = true;
    cluster.wide_micros = cluster.wide_micros.min(40 * MILLI);
    let apart = mask(&[c, rest[1]]);
    let split = dice.between(2 * SECOND, 4 * SECOND);
    let (turn, down) = (at + split, 200 * MILLI);
    let ends = turn + down + dice.between(250 * MILLI, 750 * MILLI);
    faults.push(Fault { at, lasts: split, kind: Kind::Split { mask: apart } });
    faults.push(Fault { at: turn, lasts: down, kind: Kind::Forget { node: a } });
    faults.push(Fault { at: turn, lasts: ends - turn, kind: Kind::SlowDisk { node: a } });
    let bridge = Kind::Bridge { node: a, mask: apart };
    faults.push(Fault { at: turn, lasts: ends - turn, kind: bridge });
    faults.push(Fault { at: ends, lasts: down, kind: Kind::Restart { node: a } });
    let kind = Kind::Split { mask: apart | 1 << a };
    faults.push(Fault { at: ends, lasts: 6 * SECOND, kind });
    split + 8 * SECOND
}

/// Everybody starts anew and numbers from one again, over a bad network.
fn reborn(cluster: &mut Cluster, at: u64, dice: &mut Dice, faults: &mut Vec<Fault>) -> u64 {
    for node in 0..cluster.pops.len() {
        let at = at + node as u64 * 400 * MILLI;
        faults.push(Fault { at, lasts: 200 * MILLI, kind: Kind::Restart { node } });
    }
    let later = at + 3 * SECOND;
    if dice.percent(30) {
        let mask = draw_mask(cluster, dice);
        faults.push(Fault { at: later, lasts: SECOND, kind: Kind::Split { mask } });
    }
    faults.push(Fault { at: later, lasts: 8 * SECOND, kind: Kind::Loss { percent: 50 } });
    11 * SECOND
}

/// The witnesses are changed on one side of a split, of which the other side hears nothing.
fn changed(cluster: &mut Cluster, at: u64, dice: &mut Dice, faults: &mut Vec<Fault>) -> u64 {
    cluster.witnesses = vec![0, 1, 2];
    // Of five nodes one witness at a time.
    let few = cluster.pops.len() == 5;
    let (members, side) = if few { (vec![1, 2, 3], [1, 3, 4]) } else { (vec![2, 3, 4], [2, 3, 4]) };
    let lasts = dice.between(6 * SECOND, 9 * SECOND);
    faults.push(Fault { at, lasts, kind: Kind::Split { mask: mask(&side) } });
    let at = at + dice.between(300 * MILLI, SECOND);
    faults.push(Fault { at, lasts: SECOND, kind: Kind::ChangeWitnesses { members } });
    lasts
}

/// Witnesses that others have taken the place of forget that, and are alone with each other and, at times,
/// with those who never heard of it.
pub(crate) fn replaced(cluster: &mut Cluster, dice: &mut Dice) -> Vec<Fault> {
    cluster.witnesses = vec![0, 1, 2];
    cluster.purge_every = cluster.purge_every.min(800 * MILLI);
    let outside: Vec<usize> = (4..cluster.pops.len()).collect();
    let at = CALM + dice.below(20 * SECOND);
    let changes = at + dice.between(200 * MILLI, SECOND);
    let turn = changes + dice.between(3 * SECOND, 6 * SECOND);
    let lasts = dice.between(6 * SECOND, 10 * SECOND);
    let mut alone = vec![0, 1];
    let mut faults = Vec::new();
    if dice.percent(50) {
        faults.push(Fault { at, lasts: turn - at, kind: Kind::Split { mask: mask(&outside) } });
        alone.extend(outside);
    } else if dice.percent(50) {
        alone.push(dice.between(2, 4) as usize);
    }
    let one = dice.percent(50) || cluster.pops.len() == 5;
    let members = if one { vec![1, 2, 3] } else { vec![2, 3, 4] };
    faults.push(Fault { at: changes, lasts: SECOND, kind: Kind::ChangeWitnesses { members } });
    for node in [0, 1] {
        let lasts = dice.between(200 * MILLI, SECOND);
        faults.push(Fault { at: turn, lasts, kind: Kind::Forget { node } });
    }
    faults.push(Fault { at: turn, lasts, kind: Kind::Split { mask: mask(&alone) } });
    faults
}

/// Two of three witnesses are replaced where the nodes are too few for that, while the third is down. Then
/// those two forget it, and are most of the nodes together with the third.
pub(crate) fn outnumbered(cluster: &mut Cluster, dice: &mut Dice) -> Vec<Fault> {
    cluster.witnesses = vec![0, 1, 2];
    cluster.purge_every = cluster.purge_every.min(800 * MILLI);
    let at = CALM + dice.below(20 * SECOND);
    let changes = at + dice.between(200 * MILLI, SECOND);
    let turn = changes + dice.between(3 * SECOND, 6 * SECOND);
    let lasts = dice.between(6 * SECOND, 10 * SECOND);
    let (down, members) = (dice.between(200 * MILLI, 800 * MILLI), vec![2, 3, 4]);
    vec![
        Fault { at, lasts: turn + down - at, kind: Kind::Restart { node: 2 } },
        Fault { at: changes, lasts: SECOND, kind: Kind::ChangeWitnesses { members } },
        Fault { at: turn, lasts: down, kind: Kind::Forget { node: 0 } },
        Fault { at: turn, lasts: down, kind: Kind::Forget { node: 1 } },
        Fault { at: turn, lasts, kind: Kind::Split { mask: mask(&[0, 1, 2]) } },
    ]
}

/// A witness is replaced while its successor is down. Who knows of that forgets it before the successor
/// comes back, and so do two former witnesses afterwards, with whom it is alone then.
pub(crate) fn faded(cluster: &mut Cluster, dice: &mut Dice) -> Vec<Fault> {
    cluster.witnesses = vec![0, 1, 2];
    cluster.purge_every = cluster.purge_every.min(800 * MILLI);
    let at = CALM + dice.below(12 * SECOND);
    let changes = at + dice.between(200 * MILLI, SECOND);
    let apart = changes + dice.between(2 * SECOND, 3 * SECOND);
    let back = apart + dice.between(7 * SECOND, 9 * SECOND);
    let turn = back + dice.between(2 * SECOND, 4 * SECOND);
    let lasts = dice.between(6 * SECOND, 10 * SECOND);
    let (down, members) = (dice.between(200 * MILLI, 800 * MILLI), vec![1, 2, 3]);
    vec![
        Fault { at, lasts: back - at, kind: Kind::Restart { node: 3 } },
        Fault { at: changes, lasts: SECOND, kind: Kind::ChangeWitnesses { members } },
        Fault { at: apart, lasts: turn - apart, kind: Kind::Split { mask: mask(&[4]) } },
        Fault { at: apart, lasts: down, kind: Kind::Forget { node: 4 } },
        Fault { at: turn, lasts: down, kind: Kind::Forget { node: 0 } },
        Fault { at: turn, lasts: down, kind: Kind::Forget { node: 1 } },
        Fault { at: turn, lasts, kind: Kind::Split { mask: mask(&[0, 1, 4]) } },
    ]
}

/// A witness forgets, and asks while there is no newer set. Others take its place without its hearing
/// of that; then a second one of the former set forgets, and the two are alone.
pub(crate) fn outdated(cluster: &mut Cluster, dice: &mut Dice) -> Vec<Fault> {
    cluster.witnesses = vec![0, 1, 2];
    cluster.purge_every = cluster.purge_every.min(800 * MILLI);
    let at = CALM + dice.below(20 * SECOND);
    let asked = at + dice.between(1_500 * MILLI, 3 * SECOND);
    let changes = asked + dice.between(300 * MILLI, SECOND);
    let turn = changes + dice.between(4 * SECOND, 7 * SECOND);
    let lasts = dice.between(6 * SECOND, 10 * SECOND);
    let split = |nodes: &[usize]| Kind::Split { mask: mask(nodes) };
    let down = dice.between(200 * MILLI, 800 * MILLI);
    let members = vec![2, 3, 4];
    vec![
        Fault { at, lasts: down, kind: Kind::Forget { node: 0 } },
        Fault { at, lasts: asked - at, kind: split(&[1, 2]) },
        Fault { at: asked, lasts: turn - asked, kind: split(&[0]) },
        Fault { at: changes, lasts: SECOND, kind: Kind::ChangeWitnesses { members } },
        Fault { at: turn, lasts: down, kind: Kind::Forget { node: 1 } },
        Fault { at: turn, lasts, kind: split(&[0, 1]) },
    ]
}

/// The only witness goes over to a joint set that hardly anybody hears of, forgets it, and is told by most that
/// there is none. Then most hear of it from the other one.
pub(crate) fn overtaken(cluster: &mut Cluster, dice: &mut Dice) -> Vec<Fault> {
    cluster.witnesses = vec![0];
    cluster.purge_every = cluster.purge_every.min(800 * MILLI);
    let at = CALM + dice.below(15 * SECOND);
    let changes = at + dice.between(200 * MILLI, SECOND);
    // What it says of the joint set counts for five seconds: just after it was asked anew.
    let forgets = changes + dice.between(5_200 * MILLI, 6_500 * MILLI);
    let turn = forgets + dice.between(1_500 * MILLI, 3 * SECOND);
    let lasts = dice.between(6 * SECOND, 9 * SECOND);
    let split = |nodes: &[usize]| Kind::Split { mask: mask(nodes) };
    let down = dice.between(200 * MILLI, 800 * MILLI);
    vec![
        Fault { at, lasts: forgets - at, kind: split(&[0, 1]) },
        Fault { at: changes, lasts: SECOND, kind: Kind::ChangeWitnesses { members: vec![1] } },
        Fault { at: forgets, lasts: down, kind: Kind::Forget { node: 0 } },
        Fault { at: forgets, lasts: turn - forgets, kind: split(&[1]) },
        Fault { at: turn, lasts, kind: split(&[0, 5]) },
    ]
}

/// A node whose configuration names fewer witnesses under the same number, on the side of a split where
/// only those are.
fn misread(cluster: &mut Cluster, at: u64, dice: &mut Dice, faults: &mut Vec<Fault>) -> u64 {
    let ([a, b, _c], rest) = cast(cluster, dice);
    let node = rest[0];
    let lasts = dice.between(6 * SECOND, 9 * SECOND);
    let members = if dice.percent(70) { vec![a] } else { vec![a, b, rest[1]] };
    faults.push(Fault { at, lasts, kind: Kind::Misread { node, members } });
    let split = at + dice.between(SECOND, 3 * SECOND);
    let kind = Kind::Split { mask: mask(&[a, node, rest[1]]) };
    faults.push(Fault { at: split, lasts: at + lasts - split, kind });
    lasts
}

/// Of many purges some get lost, and who issued them can't be asked for those soon after.
fn holed(cluster: &mut Cluster, at: u64, dice: &mut Dice, faults: &mut Vec<Fault>) -> u64 {
    let (_, rest) = cast(cluster, dice);
    let node = rest[0];
    cluster.wide_micros = cluster.wide_micros.min(20 * MILLI);
    cluster.rate = 2_000;
    let lossy = SECOND / 2;
    faults.push(Fault { at, lasts: lossy, kind: Kind::Loss { percent: 50 } });
    let bursts = at + 100 * MILLI;
    faults.push(Fault { at: bursts, lasts: SECOND, kind: Kind::Burst { by: Some(node) } });
    let alone = bursts + dice.between(30 * MILLI, 250 * MILLI);
    faults.push(Fault { at: alone, lasts: 6 * SECOND, kind: Kind::Isolate { node } });
    7 * SECOND
}
