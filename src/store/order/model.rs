//! The steps of `order` under a model checker: every interleaving of a few threads, and every value
//! that the memory model lets a load see.
//!
//! The scenes are small, since what goes wrong here goes wrong with one row, one response and one
//! of each thread. Each of them is played with the steps as they are, and with mistakes planted in
//! them one at a time; a scene that would not notice its mistake proves nothing.

use std::sync::atomic::Ordering;

use loom::sync::atomic::{AtomicBool, AtomicU64};
use loom::sync::{Arc, Mutex};
use loom::thread;

use super::{Cell, Judged, Reading, Term, grant, holds, judge, let_go, publish};

impl Cell for AtomicU64 {
    fn see(&self) -> u64 {
        self.load(Ordering::Acquire)
    }

    fn tell(&self, number: u64) {
        self.store(number, Ordering::Release);
    }

    fn raise(&self, number: u64) -> u64 {
        self.fetch_max(number, Ordering::AcqRel)
    }
}

/// A node with one row.
#[derive(Default)]
struct Node {
    epoch: AtomicU64,
    floor: AtomicU64,
    until: AtomicU64,
    limit: AtomicU64,
    /// What the origin answers: it changes before it is purged.
    origin: AtomicU64,
    /// The purge was answered.
    answered: AtomicBool,
    lately: AtomicU64,
    row: Mutex<Row>,
}

#[derive(Clone, Copy, Default)]
struct Row {
    hard: u64,
    soft: u64,
}

/// A stored response.
#[derive(Default)]
struct Stored {
    checked: AtomicU64,
    /// The soft purge is noted on it.
    mark: AtomicU64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Dead,
    Soft,
    Alive,
}

/// The steps, each of which a test may replace with a wrong one.
#[derive(Clone, Copy)]
struct Steps {
    publish: fn(&Node, Row),
    judge: fn(&Node, &Stored, u64) -> bool,
    let_go: fn(&Node, u64),
    moment: fn(&Node) -> (bool, u64),
    catch_up: fn(&Node, Row),
    renew: fn(&Node, u64, Term),
    /// Epoch before the origin was asked, and what it answered.
    fill: fn(&Node) -> (u64, u64),
}

impl Steps {
    fn right() -> Self {
        Self {
            publish: |node, row| {
                publish(&node.epoch, |epoch| node.write(row, epoch));
            },
            judge: |node, stored, epoch| {
                let mark = |soft| stored.note(soft);
                let judged = judge(&stored.checked, &node.floor, epoch, |at| node.look(at), mark);
                matches!(judged, Judged::Alive { .. })
            },
            let_go: |node, epoch| let_go(&node.floor, epoch, || node.drop_row(epoch)),
            moment: |node| (node.lease(CAME), node.epoch.see()),
            catch_up: |node, row| {
                publish(&node.epoch, |epoch| node.write(row, epoch));
                grant(&node.until, &node.limit, 0, TERM);
            },
            renew: |node, furthest, term| grant(&node.until, &node.limit, furthest, term),
            fill: |node| {
                let born = node.epoch.see();
                (born, node.origin.see())
            },
        }
    }

    fn verdict(&self, node: &Node, stored: &Stored, epoch: u64) -> Verdict {
        if stored.checked.see() < epoch && !(self.judge)(node, stored, epoch) {
            return Verdict::Dead;
        }
        if stored.mark.see() > 0 { Verdict::Soft } else { Verdict::Alive }
    }
}

/// A lease, and a request that comes while it runs.
const TERM: Term = Term { until: 18, limit: 5 };
const CAME: Reading = Reading { boot: 10, ahead: 4 };

impl Node {
    /// Whether the lease holds for a request that read the clocks.
    fn lease(&self, now: Reading) -> bool {
        holds(&self.until, &self.limit, || now)
    }

    /// Rows under the table's lock, and the cell that says that there are some, as `Purges::write`.
    fn write(&self, row: Row, epoch: u64) {
        *self.row.lock().unwrap() = Row { hard: row.hard * epoch, soft: row.soft * epoch };
        self.lately.tell(epoch);
    }

    /// As `Purges::look`.
    fn look(&self, since: u64) -> Result<bool, ()> {
        if self.lately.see() <= since {
            return Ok(false);
        }
        let row = *self.row.lock().unwrap();
        if row.hard > since { Err(()) } else { Ok(row.soft > since) }
    }

    fn drop_row(&self, epoch: u64) {
        let mut row = self.row.lock().unwrap();
        if row.hard.max(row.soft) <= epoch {
            *row = Row::default();
        }
    }

    fn purge(&self, steps: Steps, row: Row) {
        self.origin.tell(1);
        (steps.publish)(self, row);
        self.answered.store(true, Ordering::Release);
    }

    /// As `sweep`, which meets what is in the store.
    fn sweep(&self, steps: Steps, store: &[&Stored]) {
        let epoch = self.epoch.see();
        for stored in store {
            steps.verdict(self, stored, epoch);
        }
        (steps.let_go)(self, epoch);
    }
}

impl Stored {
    fn note(&self, soft: bool) {
        if soft {
            self.mark.raise(1);
        }
    }
}

const HARD: Row = Row { hard: 1, soft: 0 };
const SOFT: Row = Row { hard: 0, soft: 1 };

/// A response that is stored while it is purged: whoever asks after the answer gets none of it, and
/// nobody who asked before has made it look alive.
fn purged_while_it_is_used(steps: Steps) {
    loom::model(move || {
        let (node, stored) = (Arc::new(Node::default()), Arc::new(Stored::default()));
        // Something else was purged before, so that there is something to look for.
        node.epoch.tell(1);
        let purger = {
            let node = Arc::clone(&node);
            thread::spawn(move || node.purge(steps, HARD))
        };
        let answered = node.answered.load(Ordering::Acquire);
        let (_, epoch) = (steps.moment)(&node);
        let found = steps.verdict(&node, &stored, epoch);
        assert!(!answered || found == Verdict::Dead, "served after the purge was answered");
        purger.join().unwrap();
        let found = steps.verdict(&node, &stored, node.epoch.see());
        assert_eq!(found, Verdict::Dead, "somebody made it look alive");
    });
}

/// A fill that is under way while its answer is purged.
fn purged_while_it_is_filled(steps: Steps) {
    loom::model(move || {
        let node = Arc::new(Node::default());
        let purger = {
            let node = Arc::clone(&node);
            thread::spawn(move || node.purge(steps, HARD))
        };
        let (born, body) = (steps.fill)(&node);
        purger.join().unwrap();
        let stored = Stored { checked: AtomicU64::new(born), ..Stored::default() };
        let found = steps.verdict(&node, &stored, node.epoch.see());
        assert!(body == 1 || found == Verdict::Dead, "the old answer is stored as new");
    });
}

/// A copy that the sweep does not meet is judged while the rows go.
fn swept_while_a_copy_is_used(steps: Steps) {
    loom::model(move || {
        let (node, copy) = (Arc::new(Node::default()), Stored::default());
        (steps.publish)(&node, HARD);
        let sweeper = {
            let node = Arc::clone(&node);
            thread::spawn(move || node.sweep(steps, &[]))
        };
        let found = steps.verdict(&node, &copy, node.epoch.see());
        assert_eq!(found, Verdict::Dead, "its row was gone and nobody noticed");
        sweeper.join().unwrap();
    });
}

/// A response that is purged softly, judged by the sweep and by a request at once: what the row said
/// outlives the row.
fn marked_while_it_is_used(steps: Steps) {
    loom::model(move || {
        let (node, stored) = (Arc::new(Node::default()), Arc::new(Stored::default()));
        (steps.publish)(&node, SOFT);
        let request = {
            let (node, stored) = (Arc::clone(&node), Arc::clone(&stored));
            thread::spawn(move || steps.verdict(&node, &stored, node.epoch.see()))
        };
        node.sweep(steps, &[&stored]);
        assert_eq!(request.join().unwrap(), Verdict::Soft, "fresh after a soft purge");
    });
}

/// A node that was away catches up and takes its lease, while a request comes.
fn leased_while_it_is_used(steps: Steps) {
    loom::model(move || {
        let (node, stored) = (Arc::new(Node::default()), Stored::default());
        let mesh = {
            let node = Arc::clone(&node);
            thread::spawn(move || (steps.catch_up)(&node, HARD))
        };
        let (lease, epoch) = (steps.moment)(&node);
        let found = steps.verdict(&node, &stored, epoch);
        assert!(!lease || found == Verdict::Dead, "the lease is older than what it vouches for");
        mesh.join().unwrap();
    });
}

/// One lease follows another while requests come: what they read of both is no more than one of
/// them said.
fn renewed_while_it_is_read(steps: Steps) {
    /// A reading between the two.
    type Between = (u64, u64);
    const PAIRS: [(Term, Term, Between); 4] = [
        // The wall clock was set back in between: whoever is ahead of that has lost time.
        (Term { until: 18, limit: 9 }, Term { until: 23, limit: 5 }, (20, 7)),
        // It was set ahead.
        (Term { until: 18, limit: 5 }, Term { until: 23, limit: 9 }, (20, 9)),
        // A lease from older questions.
        (Term { until: 23, limit: 5 }, Term { until: 18, limit: 9 }, (20, 7)),
        (Term { until: 23, limit: 9 }, Term { until: 18, limit: 5 }, (17, 7)),
    ];
    for (old, new, (boot, ahead)) in PAIRS {
        loom::model(move || {
            let node = Arc::new(Node::default());
            node.until.tell(old.until);
            node.limit.tell(old.limit);
            let mesh = {
                let node = Arc::clone(&node);
                thread::spawn(move || {
                    publish(&node.epoch, |_| {});
                    (steps.renew)(&node, old.until, new);
                })
            };
            let held = node.lease(Reading { boot, ahead });
            let epoch = node.epoch.see();
            let within = |term: Term| boot < term.until && ahead <= term.limit;
            assert!(!held || within(old) || within(new), "no lease ever said so");
            assert!(!held || within(old) || epoch == 1, "the new lease without its epoch");
            mesh.join().unwrap();
        });
    }
}

type Scene = fn(Steps);

const SCENES: [(&str, Scene); 6] = [
    ("renewed", renewed_while_it_is_read),
    ("used", purged_while_it_is_used),
    ("filled", purged_while_it_is_filled),
    ("copied", swept_while_a_copy_is_used),
    ("marked", marked_while_it_is_used),
    ("leased", leased_while_it_is_used),
];

#[test]
fn no_order_of_events_serves_what_is_purged() {
    for (_, scene) in SCENES {
        scene(Steps::right());
    }
}

/// Each mistake with the scene that must notice it.
fn mistakes() -> Vec<(&'static str, &'static str, Steps)> {
    let right = Steps::right();
    vec![
        (
            "the epoch is published before its rows",
            "used",
            Steps {
                publish: |node, row| {
                    let next = node.epoch.see() + 1;
                    node.epoch.tell(next);
                    node.write(row, next);
                },
                ..right
            },
        ),
        (
            "the cell is written after the epoch",
            "used",
            Steps {
                publish: |node, row| {
                    let next = node.epoch.see() + 1;
                    *node.row.lock().unwrap() =
                        Row { hard: row.hard * next, soft: row.soft * next };
                    node.epoch.tell(next);
                    node.lately.tell(next);
                },
                ..right
            },
        ),
        (
            "the epoch is published without a release",
            "used",
            Steps {
                publish: |node, row| {
                    let next = node.epoch.see() + 1;
                    node.write(row, next);
                    node.epoch.store(next, Ordering::Relaxed);
                },
                ..right
            },
        ),
        (
            "the epoch is read without an acquire",
            "used",
            Steps {
                moment: |node| (node.lease(CAME), node.epoch.load(Ordering::Relaxed)),
                ..right
            },
        ),
        (
            "the epoch is read after the rows",
            "used",
            Steps {
                judge: |node, stored, _| {
                    let Ok(soft) = node.look(stored.checked.see()) else { return false };
                    stored.note(soft);
                    let floor = node.floor.see();
                    if stored.checked.see() < floor {
                        return false;
                    }
                    stored.checked.raise(node.epoch.see());
                    true
                },
                ..right
            },
        ),
        (
            "`born` is read after the origin has answered",
            "filled",
            Steps {
                fill: |node| {
                    let body = node.origin.see();
                    (node.epoch.see(), body)
                },
                ..right
            },
        ),
        (
            "the floor is read before the rows",
            "copied",
            Steps {
                judge: |node, stored, epoch| {
                    let floor = node.floor.see();
                    let Ok(soft) = node.look(stored.checked.see()) else { return false };
                    stored.note(soft);
                    if stored.checked.see() < floor {
                        return false;
                    }
                    stored.checked.raise(epoch);
                    true
                },
                ..right
            },
        ),
        (
            "the floor is not read at all",
            "copied",
            Steps {
                judge: |node, stored, epoch| {
                    let Ok(soft) = node.look(stored.checked.see()) else { return false };
                    stored.note(soft);
                    stored.checked.raise(epoch);
                    true
                },
                ..right
            },
        ),
        (
            "the floor is raised after the rows went",
            "copied",
            Steps {
                let_go: |node, epoch| {
                    node.drop_row(epoch);
                    node.floor.raise(epoch);
                },
                ..right
            },
        ),
        (
            "`checked` moves before the mark is made",
            "marked",
            Steps {
                judge: |node, stored, epoch| {
                    let Ok(soft) = node.look(stored.checked.see()) else { return false };
                    let floor = node.floor.see();
                    if stored.checked.see() < floor {
                        return false;
                    }
                    stored.checked.raise(epoch);
                    stored.note(soft);
                    true
                },
                ..right
            },
        ),
        (
            "the lease is told before the epoch",
            "leased",
            Steps {
                catch_up: |node, row| {
                    grant(&node.until, &node.limit, 0, TERM);
                    publish(&node.epoch, |epoch| node.write(row, epoch));
                },
                ..right
            },
        ),
        (
            "the wider half of a lease is told first",
            "renewed",
            Steps {
                renew: |node, _, term| {
                    node.until.tell(term.until);
                    node.limit.tell(term.limit);
                },
                ..right
            },
        ),
        (
            "a lease is told without a release",
            "renewed",
            Steps {
                renew: |node, _, term| {
                    node.limit.store(term.limit, Ordering::Relaxed);
                    node.until.store(term.until, Ordering::Relaxed);
                },
                ..right
            },
        ),
        (
            "the lease is read after the epoch",
            "leased",
            Steps {
                moment: |node| {
                    let epoch = node.epoch.see();
                    (node.lease(CAME), epoch)
                },
                ..right
            },
        ),
    ]
}

#[test]
fn every_planted_mistake_is_noticed() {
    for (what, where_, steps) in mistakes() {
        let scene = SCENES.iter().find(|(name, _)| *name == where_).unwrap().1;
        let played = std::panic::catch_unwind(|| scene(steps));
        assert!(played.is_err(), "nobody noticed that {what}");
    }
}
