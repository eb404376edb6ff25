//! Which of two connections between the same two nodes is kept.
//!
//! Both may dial at once, since either may be the only one that can reach the other. Of two that
//! crossed, the one dialled by the smaller name stays; both ends see that for themselves. But
//! what looks like a crossing may be the other end dialling anew because it has lost the
//! connection that still stands here. It says so: a greeting names the newest connection of the receiver
//! that its sender has seen.
//!
//! ```text
//! small -- dial 7 --> large         large has not seen 7 when it dials:    they crossed, 7 stays
//! small <-- seen 6 -- large
//!
//! small <-- seen 7 -- large         it has seen 7, and dials all the same: 7 is lost, the new one stays
//! ```

/// A connection that stands, or comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Dialled {
    /// Life of the process at the other end.
    pub(super) life: u64,
    /// Whether this end dialled.
    pub(super) by_me: bool,
    /// Its number among those that its dialler dialled.
    pub(super) dial: u64,
}

/// Which of the two is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keep {
    /// The one that stands.
    Standing,
    /// The one that comes.
    Coming,
}

/// Chooses between a connection that stands and one that comes. `smaller` says whether this end has
/// the smaller name, `seen` which of this end's dials the other end had seen when it greeted.
pub(super) fn keep(smaller: bool, standing: Dialled, coming: Dialled, seen: u64) -> Keep {
    if standing.life != coming.life {
        // The other process has gone, and its connection with it.
        return Keep::Coming;
    }
    match (standing.by_me, coming.by_me) {
        // Who dials twice has lost the first.
        (true, true) | (false, false) if coming.dial > standing.dial => Keep::Coming,
        (true, true) | (false, false) => Keep::Standing,
        (true, false) if smaller && seen >= standing.dial => Keep::Coming,
        (true, false) if smaller => Keep::Standing,
        (true, false) => Keep::Coming,
        (false, true) if smaller => Keep::Coming,
        (false, true) => Keep::Standing,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Two ends of connections, as far as the rule needs them.
    #[derive(Debug, Default)]
    struct End {
        current: Option<Dialled>,
        /// Newest dial of the other end that was taken.
        seen: u64,
        dials: u64,
    }

    /// A greeting under way, to end `to`, on the connection `dial` of end `by`.
    #[derive(Clone, Copy, Debug)]
    struct Greeting {
        to: usize,
        by: usize,
        dial: u64,
        seen: u64,
    }

    /// End 0 has the smaller name. Connections are named (by, dial).
    #[derive(Debug, Default)]
    struct World {
        ends: [End; 2],
        under_way: Vec<Greeting>,
        closed: Vec<(usize, u64)>,
    }

    impl World {
        fn name(end: usize, dialled: Dialled) -> (usize, u64) {
            (if dialled.by_me { end } else { 1 - end }, dialled.dial)
        }

        fn dial(&mut self, end: usize) {
            if self.ends[end].current.is_none() {
                self.ends[end].dials += 1;
                let (dial, seen) = (self.ends[end].dials, self.ends[end].seen);
                self.under_way.push(Greeting { to: 1 - end, by: end, dial, seen });
            }
        }

        fn deliver(&mut self, at: usize) {
            let Greeting { to, by, dial, seen } = self.under_way.remove(at);
            if self.closed.contains(&(by, dial)) {
                return;
            }
            let coming = Dialled { life: 1, by_me: to == by, dial };
            let kept = match self.ends[to].current {
                None => Keep::Coming,
                Some(standing) => keep(to == 0, standing, coming, seen),
            };
            if kept == Keep::Standing {
                self.closed.push((by, dial));
                return;
            }
            if let Some(former) = self.ends[to].current.replace(coming) {
                self.closed.push(Self::name(to, former));
            }
            if to != by {
                self.ends[to].seen = self.ends[to].seen.max(dial);
                self.under_way.push(Greeting { to: by, by, dial, seen: self.ends[to].seen });
            }
        }

        /// An end notices that its connection was closed by the other one.
        fn notice(&mut self, end: usize) {
            let gone = |dialled: Dialled| self.closed.contains(&Self::name(end, dialled));
            if self.ends[end].current.is_some_and(gone) {
                self.ends[end].current = None;
            }
        }

        /// An end loses its connection, which the other end has not noticed.
        fn lose(&mut self, end: usize) {
            if let Some(former) = self.ends[end].current.take() {
                self.closed.push(Self::name(end, former));
            }
        }
    }

    proptest! {
        #[test]
        fn whatever_crosses_and_breaks_both_end_on_one_connection(
            steps in prop::collection::vec((0_u8..5, any::<usize>()), 0..60),
        ) {
            let mut world = World::default();
            for (what, which) in steps {
                match what {
                    0 | 1 => world.dial(which % 2),
                    2 | 3 if !world.under_way.is_empty() => world.deliver(which % world.under_way.len()),
                    4 if which % 8 < 2 => world.lose(which % 2),
                    _ => world.notice(which % 2),
                }
            }
            for _ in 0..20 {
                while !world.under_way.is_empty() {
                    world.deliver(0);
                }
                world.notice(0);
                world.notice(1);
                world.dial(1);
                world.dial(0);
            }
            while !world.under_way.is_empty() {
                world.deliver(0);
            }
            let names = [0, 1].map(|end| world.ends[end].current.map(|c| World::name(end, c)));
            prop_assert!(names[0].is_some());
            prop_assert_eq!(names[0], names[1]);
            prop_assert!(!world.closed.contains(&names[0].unwrap()));
        }
    }

    #[test]
    fn two_that_cross_keep_the_one_of_the_smaller_name() {
        let mut world = World::default();
        world.dial(0);
        world.dial(1);
        while !world.under_way.is_empty() {
            world.deliver(0);
        }
        let names = [0, 1].map(|end| world.ends[end].current.map(|c| World::name(end, c)));
        assert_eq!(names, [Some((0, 1)); 2]);
    }

    #[test]
    fn who_lost_the_connection_is_not_turned_away() {
        let mut world = World::default();
        world.dial(0);
        world.deliver(0);
        world.deliver(0);
        world.lose(1);
        world.dial(1);
        while !world.under_way.is_empty() {
            world.deliver(0);
        }
        assert_eq!(world.ends[0].current, Some(Dialled { life: 1, by_me: false, dial: 1 }));
        assert_eq!(world.ends[1].current, Some(Dialled { life: 1, by_me: true, dial: 1 }));
    }

    #[test]
    fn another_process_takes_the_place_of_its_former_self() {
        let standing = Dialled { life: 1, by_me: true, dial: 9 };
        let coming = Dialled { life: 2, by_me: false, dial: 1 };
        assert_eq!(keep(true, standing, coming, 0), Keep::Coming);
    }
}
