//! Asking others whether they hold the same set of witnesses, or know a newer one.
//!
//! A witness whose memory is lost goes by its configuration, which may name a set that others have taken
//! the place of: then it would answer as what it is no more. And those who have taken its place cannot
//! wait for it to hear of that. So what is known of a set is spread over the whole mesh, and looked for there:
//!
//! ```text
//!   joint set, left for the next one  <-- held by so many nodes that every majority has one of them
//!                                                             |
//!   new generation of an old set  <-- a majority of the nodes holds no newer one
//! ```
//!
//! The first before the second: whoever serves under the joint set after it is known that widely, and
//! forgets, asks later than that, and hears of it.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::clock::Now;
use crate::replication::identity::Name;
use crate::replication::message::Message;
use crate::replication::mutation::Mutation;
use crate::replication::quorum::{Count, SetMark, Testimony, WitnessSet};
use crate::replication::settings::Notice;

use super::attest::Phase;
use super::{Replica, is_due};

/// How often it is told that too few have answered.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// What is said of a joint set counts for so long: who said it may forget it since.
const COUNTS: Duration = Duration::from_secs(5);

/// A question to others, and what came of it.
#[derive(Debug)]
pub(super) struct Inquiry {
    question: u64,
    /// The set that it is about.
    set: SetMark,
    about: About,
    /// Who holds the set, and as what each answers under it.
    holders: BTreeMap<Name, Option<Testimony>>,
    /// When the first question about the set was put, of those that count together.
    since: Duration,
    /// When it was told last that they are too few.
    told: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum About {
    /// How many know of the set.
    Spread,
    /// Which of its witnesses serve under it, now that so many know of it.
    Service,
}

impl Replica {
    /// Asks those who did not say yet that they hold the newest set that is known here.
    pub(super) fn inquire(&mut self, now: Now) {
        let mark = self.witnesses().mark(self.mutation);
        let other = |inquiry: &Inquiry| inquiry.set != mark || self.is_outdated(inquiry, now);
        if self.inquiry.as_ref().is_none_or(other) {
            let hasty = self.mutation == Mutation::SetSpreadTooThin && self.is_serving();
            let about = if hasty { About::Service } else { About::Spread };
            self.begin_inquiry(about, mark, now.boot);
        }
        let Some(inquiry) = &self.inquiry else { return };
        let (question, set) = (inquiry.question, self.witnesses().clone());
        let to: Vec<Name> = match inquiry.about {
            About::Spread => {
                let silent = |name: &&Name| !inquiry.holders.contains_key(*name);
                self.settings.roster.panel().into_iter().filter(silent).cloned().collect()
            }
            // A life may end that has answered already.
            About::Service => set.everyone().cloned().collect(),
        };
        for name in to {
            if name == self.settings.me {
                self.hear_hold(&name, question, &set, now);
            } else {
                self.send(&name, Message::Hold { question, set: set.clone() });
            }
        }
    }

    /// Somebody asks whether this node holds a set. It answers once its disk has it.
    pub(super) fn hear_hold(&mut self, from: &Name, question: u64, set: &WitnessSet, now: Now) {
        self.hear_set(set, now);
        let own = self.witnesses();
        let mark = own.mark(self.mutation);
        if set.mark(self.mutation) == mark {
            let testimony = self.testimony();
            self.say(from, Message::Holds { question, set: mark, testimony });
        } else if set.number < own.number {
            let newer = own.clone();
            self.send(from, Message::Witnesses(newer));
        }
    }

    pub(super) fn hear_holds(
        &mut self,
        from: &Name,
        question: u64,
        set: SetMark,
        testimony: Option<Testimony>,
        now: Now,
    ) {
        let current = set == self.witnesses().mark(self.mutation);
        let inquiry = self.inquiry.as_mut().filter(|inquiry| inquiry.question == question);
        let Some(inquiry) = inquiry.filter(|inquiry| current && inquiry.set == set) else { return };
        let standing = |testimony: &Option<Testimony>| testimony.as_ref().map(|own| own.standing);
        let older =
            inquiry.holders.get(from).is_some_and(|old| standing(old) > standing(&testimony));
        if !older {
            inquiry.holders.insert(from.clone(), testimony);
        }
        match self.witness.phase {
            Phase::Recovering { .. } => self.begin(now),
            Phase::Serving => self.finish_change(now),
            Phase::Outside | Phase::Beginning { .. } => {}
        }
    }

    /// Whether a majority of all nodes has said, since this one is without memory, that it knows no
    /// set newer than this one's.
    pub(super) fn is_newest_set(&self) -> bool {
        let panel = self.settings.roster.panel();
        let holders = panel.iter().filter(|name| self.holds_set(name)).count();
        holders > panel.len() / 2 || self.mutation == Mutation::NewerSetNotAskedFor
    }

    /// Says now and then that too few have said so.
    pub(super) fn tell_unconfirmed(&mut self, now: Now) {
        let panel = self.settings.roster.panel();
        let (holders, asked) =
            (panel.iter().filter(|name| self.holds_set(name)).count(), panel.len());
        let Some(inquiry) = &mut self.inquiry else { return };
        if is_due(&mut inquiry.told, TELL_EVERY, now) {
            self.notice(Notice::Unconfirmed { holders, asked });
        }
    }

    /// The joint set is left for the next one once so many know of it that every majority of all nodes
    /// has one of them, whichever former witnesses forget, and after that a majority of both its halves
    /// answers under it.
    pub(super) fn finish_change(&mut self, now: Now) {
        let Some(after) = self.witnesses().after() else { return };
        let Some(inquiry) = &self.inquiry else { return };
        if self.is_outdated(inquiry, now) {
            return;
        }
        let (about, set, since) = (inquiry.about, inquiry.set, inquiry.since);
        let done = match about {
            About::Spread if !self.is_spread() => return self.tell_stuck(now),
            About::Spread => self.mutation == Mutation::ServiceHeardBefore && self.is_in_service(),
            About::Service => self.is_in_service(),
        };
        if done {
            self.inquiry = None;
            self.take_set(&after, now);
        } else if about == About::Spread {
            self.begin_inquiry(About::Service, set, since);
            self.inquire(now);
        }
    }

    fn begin_inquiry(&mut self, about: About, set: SetMark, since: Duration) {
        let (question, holders) = (self.dice.next(), BTreeMap::new());
        let told = self.inquiry.as_ref().and_then(|inquiry| inquiry.told);
        self.inquiry = Some(Inquiry { question, set, about, holders, since, told });
    }

    /// Whether what was said of a joint set may be true no more. A witness without memory asks once: what
    /// matters to it is that it asked after it forgot.
    fn is_outdated(&self, inquiry: &Inquiry, now: Now) -> bool {
        let old = now.boot.saturating_sub(inquiry.since) >= COUNTS;
        old && self.is_serving() && self.mutation != Mutation::HoldersCountForever
    }

    fn holds_set(&self, name: &Name) -> bool {
        let mark = self.witnesses().mark(self.mutation);
        let inquiry = self.inquiry.as_ref().filter(|inquiry| inquiry.set == mark);
        inquiry.is_some_and(|inquiry| inquiry.holders.contains_key(name))
    }

    fn is_spread(&self) -> bool {
        let (set, panel) = (self.witnesses(), self.settings.roster.panel());
        if self.mutation == Mutation::SetLeftForTooFew
            && set.spared(&panel, |name| self.holds_set(name)) >= set.spared(&panel, |_| true)
        {
            return true;
        }
        set.may_be_left(&panel, |name| self.holds_set(name))
    }

    /// Says now and then that the nodes have become too few for the change to end.
    fn tell_stuck(&mut self, now: Now) {
        let Some(too_few) = self.too_few_for(self.witnesses()) else { return };
        let Some(inquiry) = &mut self.inquiry else { return };
        if is_due(&mut inquiry.told, TELL_EVERY, now) {
            self.notice(Notice::ChangeStuck(too_few));
        }
    }

    fn is_in_service(&self) -> bool {
        let (Some(inquiry), Some(generation)) = (&self.inquiry, self.generation) else {
            return false;
        };
        let set = self.witnesses();
        let serving = || {
            let of = inquiry.holders.iter();
            of.filter_map(|(name, testimony)| Some((name, testimony.as_ref()?)))
        };
        let count = Count::new(set, generation, serving(), self.mutation);
        let counted = serving().filter(|(name, reply)| count.holds(name, reply));
        let voters: Vec<&Name> = counted.map(|(name, _)| name).collect();
        set.is_majority(&voters)
    }
}
