//! Whose turn it is: an origin's places, and the queue before them, shared out among clients.
//!
//! ```text
//! half of the places are for who holds none; of the other half
//! a client may take one while what it holds is to what is free there at most as 40 is to 60
//!   alone:                          21 of 100, and 79 stay for others
//!   three that want all they get:   11 each, and 66 stay
//!   thirty, one after the other:    the first 21, the last 1, and 27 stay
//! a place that comes free: to who holds fewest, among those to who has waited for longest
//! ```
//!
//! So clients who ask for what hangs, or take slowly what may not be stored, do not have all places until they
//! come from half as many networks as there are: who holds none finds one. A share of what is free alone would
//! leave one in five to each that comes, and after some twenty of them nothing but single places, which the
//! next twenty take. The room of the queue is shared out by the same rule. Clients without a name,
//! which are the exempt ones, hold nothing by this account.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::IpAddr;

/// Who holds or waits for a place: a network, or `None` for those whom no cap is for.
pub(super) type Holder = Option<IpAddr>;

/// Who holds a place and who waits for one. `T` is how one who waits is told.
#[derive(Debug)]
pub(super) struct Turns<T> {
    free: usize,
    /// How many more may wait.
    room: usize,
    share: Share,
    /// Places, and room in the queue, for those who have none.
    kept: (usize, usize),
    holders: HashMap<Holder, Account<T>>,
    /// Those who have somebody waiting, the next first.
    order: BTreeSet<Rank>,
    next: u64,
}

/// What one alone may have, as what is kept for those who have none, and a share of the rest; both in percent.
#[derive(Clone, Copy, Debug)]
struct Share {
    kept: u32,
    of_rest: u32,
}

impl Share {
    /// So much of all for one alone.
    fn of(percent: u32) -> Self {
        let percent = percent.min(100);
        let kept = (100 - percent).min(50);
        Self { kept, of_rest: percent * 100 / (100 - kept) }
    }

    /// What is kept of so many.
    fn kept(self, all: usize) -> usize {
        usize::try_from(all as u128 * u128::from(self.kept) / 100).unwrap_or(all)
    }
}

/// What one holder has.
#[derive(Debug)]
struct Account<T> {
    held: usize,
    waiting: VecDeque<(Number, T)>,
}

/// Of one who waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Number(u64);

/// Places held, number of who has waited for longest, and whose they are.
type Rank = (usize, Number, Holder);

impl<T> Default for Account<T> {
    fn default() -> Self {
        Self { held: 0, waiting: VecDeque::new() }
    }
}

impl<T> Account<T> {
    /// What it holds as far as that counts.
    fn weight(&self, holder: Holder) -> usize {
        holder.map_or(0, |_| self.held)
    }

    fn rank(&self, holder: Holder) -> Option<Rank> {
        self.waiting.front().map(|(number, _)| (self.weight(holder), *number, holder))
    }
}

impl<T> Turns<T> {
    /// So many places, all free, and room for so many who wait; of either `share` percent for one alone.
    pub(super) fn new(places: usize, room: usize, share: u32) -> Self {
        let share = Share::of(share);
        let kept = (share.kept(places), share.kept(room));
        let (holders, order) = (HashMap::new(), BTreeSet::new());
        Self { free: places, room, share, kept, holders, order, next: 0 }
    }

    /// Places that nobody holds.
    pub(super) fn free(&self) -> usize {
        self.free
    }

    /// Takes a place if there is one for this holder.
    pub(super) fn take(&mut self, holder: Holder) -> bool {
        let held = self.holders.get(&holder).map_or(0, |account| account.weight(holder));
        let may = self.may_hold(held);
        if may {
            self.free -= 1;
            self.change(holder, |account| account.held += 1);
        }
        may
    }

    /// Joins the queue if it has room for this holder.
    pub(super) fn wait(&mut self, holder: Holder, tell: T) -> Option<Number> {
        let own = |account: &Account<T>| holder.map_or(0, |_| account.waiting.len());
        let own = self.holders.get(&holder).map_or(0, own);
        if !self.may(own, self.room, self.kept.1) {
            return None;
        }
        self.room -= 1;
        self.next += 1;
        let number = Number(self.next);
        self.change(holder, |account| account.waiting.push_back((number, tell)));
        Some(number)
    }

    /// Leaves the queue, where it has not come to its turn.
    pub(super) fn leave(&mut self, holder: Holder, number: Number) {
        let mut left = false;
        self.change(holder, |account| {
            let before = account.waiting.len();
            account.waiting.retain(|(other, _)| *other != number);
            left = account.waiting.len() < before;
        });
        self.room += usize::from(left);
    }

    /// Gives a place back: those whose turn has come, each of whom now holds one.
    pub(super) fn give_back(&mut self, holder: Holder) -> Vec<(Holder, T)> {
        self.free += 1;
        self.change(holder, |account| account.held = account.held.saturating_sub(1));
        std::iter::from_fn(|| self.next()).collect()
    }

    fn next(&mut self) -> Option<(Holder, T)> {
        let (held, _, holder) = *self.order.first()?;
        if !self.may_hold(held) {
            return None;
        }
        let mut told = None;
        self.change(holder, |account| {
            told = account.waiting.pop_front();
            account.held += usize::from(told.is_some());
        });
        let (_, tell) = told?;
        self.free -= 1;
        self.room += 1;
        Some((holder, tell))
    }

    /// Whether one who holds so many places may have one more.
    fn may_hold(&self, held: usize) -> bool {
        self.may(held, self.free, self.kept.0)
    }

    /// Whether one who has so many of something may have one more of those that are left, of which some
    /// are kept for those who have none.
    fn may(&self, own: usize, left: usize, kept: usize) -> bool {
        let (rest, share) = (left.saturating_sub(kept), u128::from(self.share.of_rest));
        match own {
            0 => left > 0,
            _ => rest > 0 && own as u128 * (100 - share) <= rest as u128 * share,
        }
    }

    /// Changes a holder's account, and its place in the order with it.
    fn change(&mut self, holder: Holder, act: impl FnOnce(&mut Account<T>)) {
        let account = self.holders.entry(holder).or_default();
        let before = account.rank(holder);
        act(account);
        let after = account.rank(holder);
        let gone = account.held == 0 && after.is_none();
        if before != after {
            before.map(|rank| self.order.remove(&rank));
            after.map(|rank| self.order.insert(rank));
        }
        if gone {
            self.holders.remove(&holder);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn client(number: u8) -> Holder {
        Some(IpAddr::from([192, 0, 2, number]))
    }

    fn take_all(turns: &mut Turns<u8>, holder: Holder) -> usize {
        (0..1000).take_while(|_| turns.take(holder)).count()
    }

    #[test]
    fn one_alone_gets_its_share_and_who_comes_next_finds_places() {
        let mut turns = Turns::new(256, 512, 20);
        assert_eq!(take_all(&mut turns, client(1)), 52);
        assert_eq!(take_all(&mut turns, client(2)), 31);
        // Seventy-two want all they can get, one after the other, or turn by turn.
        let takers =
            (3..=72).map(|number| take_all(&mut turns, client(number))).filter(|got| *got > 0);
        assert_eq!(takers.count(), 70, "each gets one at least");
        assert!(turns.free() > 50, "{} free", turns.free());
        let mut turns = Turns::<u8>::new(256, 512, 20);
        for _ in 0..256 {
            let _takers = (1..=72).filter(|number| turns.take(client(*number))).count();
        }
        assert!((128..140).contains(&turns.free()), "{} free", turns.free());
        assert!(turns.take(client(200)), "who comes next");
        assert!(!turns.take(client(200)), "one of those that are kept");
        let left = turns.free();
        assert_eq!(take_all(&mut turns, None), left, "the exempt ones get all");
    }

    #[test]
    fn a_share_of_all_is_no_share() {
        let mut turns = Turns::new(7, 3, 100);
        assert_eq!(take_all(&mut turns, client(1)), 7);
        assert_eq!((0..9).map_while(|_| turns.wait(client(1), 0)).count(), 3);
    }

    #[test]
    fn a_place_goes_to_who_holds_fewest_then_to_who_came_first() {
        let mut turns = Turns::new(4, 10, 50);
        assert!((0..2).all(|_| turns.take(client(1))));
        assert!((0..2).all(|_| turns.take(None)));
        for (name, holder) in [(1, client(1)), (2, client(2)), (3, client(3)), (4, client(2))] {
            assert!(!turns.take(holder));
            assert!(turns.wait(holder, name).is_some());
        }
        let next = |turns: &mut Turns<u8>, holder| -> Vec<u8> {
            turns.give_back(holder).into_iter().map(|(_, name)| name).collect()
        };
        assert_eq!(next(&mut turns, None), [2], "held none, and came before the third");
        assert_eq!(next(&mut turns, None), [3]);
        let nobody = Vec::<u8>::new();
        assert_eq!(
            next(&mut turns, client(3)),
            nobody,
            "all have some, and half is for who has none"
        );
        assert_eq!(next(&mut turns, client(2)), [4], "holds none, the first client two");
        assert_eq!(next(&mut turns, client(2)), nobody);
        assert_eq!(next(&mut turns, client(1)), [1], "holds one now, and more than half is free");
        assert!(turns.order.is_empty());
    }

    #[test]
    fn the_queue_is_shared_out_too_and_who_leaves_gives_its_room_back() {
        let mut turns = Turns::new(1, 8, 50);
        assert!(turns.take(None));
        let numbers: Vec<_> = (0..20).map_while(|_| turns.wait(client(1), 0)).collect();
        assert_eq!(numbers.len(), 4);
        assert!(turns.wait(client(2), 0).is_some());
        turns.leave(client(1), numbers[0]);
        turns.leave(client(1), numbers[0]);
        assert_eq!(turns.room, 4, "once");
        assert_eq!(turns.give_back(None).len(), 1);
    }

    #[test]
    fn few_places_are_for_use() {
        for places in 1..4 {
            let mut turns = Turns::<u8>::new(places, 0, 50);
            assert!(turns.take(client(1)));
            assert_eq!(turns.take(client(2)), places > 1);
            assert_eq!(turns.wait(client(1), 0), None, "no room");
        }
    }

    proptest! {
        /// Whatever comes: places and room are never more nor fewer than there were, nobody waits whose
        /// turn it is, and accounts go with those who have them.
        #[test]
        fn nothing_is_lost_or_made(
            places in 1_usize..9,
            room in 0_usize..9,
            share in 1_u32..=100,
            steps in prop::collection::vec((0_u8..4, 0_u8..5), 1..200),
        ) {
            let mut turns = Turns::new(places, room, share);
            let (mut held, mut waiting) = (Vec::new(), Vec::new());
            for (step, who) in steps {
                let holder = (who > 0).then(|| client(who)).flatten();
                match step {
                    0 => held.extend(turns.take(holder).then_some(holder)),
                    1 if turns.take(holder) => held.push(holder),
                    1 => waiting.extend(turns.wait(holder, who).map(|number| (holder, number))),
                    2 if !held.is_empty() => {
                        let back = held.remove(usize::from(who) % held.len());
                        for (holder, _) in turns.give_back(back) {
                            let first = waiting.iter().position(|(other, _)| *other == holder);
                            waiting.remove(first.unwrap());
                            held.push(holder);
                        }
                    }
                    3 if !waiting.is_empty() => {
                        let (holder, number) = waiting.remove(usize::from(who) % waiting.len());
                        turns.leave(holder, number);
                    }
                    _ => {}
                }
                prop_assert_eq!(turns.free + held.len(), places);
                prop_assert_eq!(turns.room + waiting.len(), room);
                let accounts = turns.holders.values();
                prop_assert!(accounts.clone().all(|one| one.held + one.waiting.len() > 0));
                prop_assert_eq!(accounts.map(|one| one.held).sum::<usize>(), held.len());
                let first = turns.order.first().map(|(weight, ..)| *weight);
                let with = turns.holders.values().filter(|one| !one.waiting.is_empty()).count();
                prop_assert_eq!(turns.order.len(), with);
                prop_assert!(first.is_none_or(|weight| !turns.may_hold(weight)));
            }
        }
    }
}
