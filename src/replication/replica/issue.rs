//! This node's own purges: numbered, sent out, acknowledged, receipted.
//!
//! At once to every node of the own PoP, to every witness, and to a few relays in each other PoP,
//! which hand it on inside: one wide-area hop, one local hop. Witnesses that do not acknowledge are
//! told again; everyone else is reached by repair.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Now;
use crate::replication::identity::{Identity, Incarnation, Name, Source};
use crate::replication::message::Message;
use crate::replication::mutation::Mutation;
use crate::replication::quorum::{Count, Testimony};
use crate::replication::record::{Record, Scope};
use crate::replication::settings::{Action, Notice, Settings};
use crate::replication::vector::Mark;

use super::{Replica, is_due};

/// How often witnesses are told again.
const TELL_AGAIN: Duration = Duration::from_millis(200);

/// How long they are told again; afterwards repair has them.
const TELL_FOR: Duration = Duration::from_secs(30);

/// Purges told again at once.
const TOLD_AGAIN: usize = 64;

/// A purge may be this long, so that one frame holds many.
const PAYLOAD_BYTES: usize = 60 << 10;

/// Within T after the acknowledgement, every node that has not applied a purge is without a lease.
pub const T: Duration = Duration::from_secs(2);

/// Why a purge was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// More than the rate allows; worth trying again after this.
    TooMany {
        /// When there is room again.
        again: Duration,
    },
    /// Longer than a record may be.
    TooLong,
}

/// What is known of one purge.
#[derive(Clone, Debug)]
pub struct Receipt {
    /// Its name.
    pub identity: Identity,
    /// When it was issued, on the boot clock.
    pub issued: Duration,
    /// When a majority of the witnesses was known to hold it.
    pub acknowledged: Option<Duration>,
    /// Whether every node was to say that it has applied it.
    pub wanted: bool,
    /// Who has applied it, and when that was heard.
    pub applied: BTreeMap<Name, Duration>,
}

/// A node as a receipt shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeState {
    /// It said so, this long after the purge was issued.
    Applied(Duration),
    /// It has not said so, but uses its memory no more without asking the origin, where its sites
    /// revalidate without a lease: nobody can hold one that does not know this purge.
    Fenced,
    /// It has not said so, and the purge is not acknowledged or not for long enough.
    Unknown,
}

impl Receipt {
    /// How the purge stands on a node.
    #[must_use]
    pub fn state(&self, node: &Name, now: Now) -> NodeState {
        if let Some(at) = self.applied.get(node) {
            return NodeState::Applied(at.saturating_sub(self.issued));
        }
        match self.acknowledged {
            Some(at) if now.boot.saturating_sub(at) >= T => NodeState::Fenced,
            Some(_) | None => NodeState::Unknown,
        }
    }
}

/// What a node issues.
#[derive(Debug)]
pub(super) struct Issuer {
    pub(super) source: Source,
    last: Mark,
    acknowledgements: BTreeMap<(Name, Incarnation), (Mark, Testimony)>,
    receipts: VecDeque<Receipt>,
    /// Nodes that all receipts together name.
    named: usize,
    told: Option<Duration>,
    pace: Pace,
    /// Others' records as they spread, by issuer.
    paces: BTreeMap<Name, Pace>,
}

impl Issuer {
    pub(super) fn new(source: Source, settings: &Settings, now: Now) -> Self {
        Self {
            source,
            last: Mark::default(),
            acknowledgements: BTreeMap::new(),
            receipts: VecDeque::new(),
            named: 0,
            told: None,
            pace: Pace::new(settings, now),
            paces: BTreeMap::new(),
        }
    }

    pub(super) fn sequence(&self) -> u64 {
        self.last.sequence
    }

    pub(super) fn receipts(&self) -> usize {
        self.receipts.len()
    }

    /// Where the receipt of a purge is. They stand in the order of their sequences, those of former
    /// lives first.
    fn receipt(&self, identity: &Identity) -> Option<usize> {
        let newest = &self.receipts.back()?.identity.source;
        if identity.source != *newest {
            return self.receipts.iter().rposition(|receipt| receipt.identity == *identity);
        }
        let at = self.receipts.partition_point(|receipt| {
            receipt.identity.source != *newest || receipt.identity.sequence < identity.sequence
        });
        self.receipts.get(at).filter(|receipt| receipt.identity == *identity).map(|_| at)
    }

    fn keep_receipt(&mut self, receipt: Receipt, settings: &Settings) {
        self.named += receipt.applied.len();
        self.receipts.push_back(receipt);
        self.drop_oldest(settings);
    }

    /// A node has applied everything of a life of this one up to there. Where it has said so of some
    /// receipt, it has of all before.
    fn note_applied(&mut self, identity: &Identity, node: &Name, settings: &Settings, now: Now) {
        let Identity { source, sequence } = identity;
        let of = |receipt: &Receipt| receipt.identity.source == *source;
        let upto = |receipt: &Receipt| of(receipt) && receipt.identity.sequence <= *sequence;
        let newest = self.receipts.back().is_some_and(of);
        let end = if newest {
            let within = |receipt: &Receipt| !of(receipt) || upto(receipt);
            self.receipts.partition_point(within)
        } else {
            self.receipts.iter().rposition(upto).map_or(0, |last| last + 1)
        };
        for receipt in self.receipts.range_mut(..end).rev() {
            if !of(receipt) || receipt.applied.contains_key(node) {
                break;
            }
            receipt.applied.insert(node.clone(), now.boot);
            self.named += 1;
        }
        self.drop_oldest(settings);
    }

    /// The newest receipt of this life whose age is within these.
    pub(super) fn due(&self, least: Duration, most: Duration, now: Now) -> Option<&Receipt> {
        let age = |receipt: &Receipt| now.boot.saturating_sub(receipt.issued);
        let mut wanted = self.receipts.iter().rev().filter(|receipt| receipt.wanted);
        let newest = wanted.find(|receipt| age(receipt) >= least);
        newest.filter(|receipt| age(receipt) < most && receipt.identity.source == self.source)
    }

    /// The newest stays, however many it names: those are in the roster.
    fn drop_oldest(&mut self, settings: &Settings) {
        while self.receipts.len() > settings.receipts.max(1)
            || self.named > settings.receipt_nodes && self.receipts.len() > 1
        {
            let Some(oldest) = self.receipts.pop_front() else { return };
            self.named -= oldest.applied.len();
        }
    }

    /// Whether another record of this issuer may be applied as it comes.
    pub(super) fn admits(&mut self, issuer: &Name, now: Now) -> bool {
        let same = Pace { next: now.boot, ..self.pace };
        self.paces.entry(issuer.clone()).or_insert(same).take(now).is_ok()
    }
}

impl Replica {
    /// Issues a purge. The actions apply it here and send it out; the identity is its receipt.
    ///
    /// # Errors
    /// When it is too long, or purges come faster than the rate allows.
    pub fn submit(
        &mut self,
        scope: Scope,
        payload: Arc<[u8]>,
        receipt: bool,
        now: Now,
    ) -> Result<(Identity, Vec<Action>), Refusal> {
        self.submit_parts(Vec::new(), (scope, payload), receipt, now)
    }

    /// Issues a purge that is too long for one record as several: `before`, then `last`. All or none
    /// is issued, and it counts as one purge. Who has the last has all, so its identity stands for
    /// them.
    ///
    /// # Errors
    /// When one is too long, or purges come faster than the rate allows.
    pub fn submit_parts(
        &mut self,
        before: Vec<(Scope, Arc<[u8]>)>,
        last: (Scope, Arc<[u8]>),
        receipt: bool,
        now: Now,
    ) -> Result<(Identity, Vec<Action>), Refusal> {
        let long = |(_, payload): &(Scope, Arc<[u8]>)| payload.len() > PAYLOAD_BYTES;
        if before.iter().any(long) || long(&last) {
            return Err(Refusal::TooLong);
        }
        self.issuer.pace.take(now).map_err(|again| Refusal::TooMany { again })?;
        let mut records: Vec<Arc<Record>> =
            before.into_iter().map(|(scope, payload)| self.next(scope, payload, false)).collect();
        let last = self.next(last.0, last.1, receipt);
        let identity = last.identity.clone();
        self.keep_receipt(&identity, receipt, now);
        records.push(last);
        self.apply(&records, now);
        records.iter().for_each(|record| self.spread(record));
        self.hear_self(now);
        Ok((identity, std::mem::take(&mut self.out)))
    }

    /// What is known of a purge of this node, as long as it is remembered.
    #[must_use]
    pub fn receipt(&self, identity: &Identity) -> Option<&Receipt> {
        self.issuer.receipts.get(self.issuer.receipt(identity)?)
    }

    /// The purges of this node of which it heard just now that `node` has applied them, newest first, as
    /// long as they are remembered.
    pub fn heard_applied<'a>(
        &'a self,
        identity: &'a Identity,
        node: &'a Name,
        now: Now,
    ) -> impl Iterator<Item = &'a Receipt> {
        let of = self.issuer.receipts.iter().rev().skip_while(|receipt| {
            receipt.identity.source != identity.source
                || receipt.identity.sequence > identity.sequence
        });
        of.take_while(move |receipt| receipt.applied.get(node) == Some(&now.boot))
    }

    /// The life under which this node numbers its purges, and up to where it has.
    #[must_use]
    pub fn issued(&self) -> (&Source, u64) {
        (&self.issuer.source, self.issuer.sequence())
    }

    pub(super) fn hear_acknowledgement(
        &mut self,
        from: &Name,
        source: &Source,
        mark: Mark,
        testimony: Testimony,
        now: Now,
    ) {
        self.heed(from, &testimony, now);
        if *source != self.issuer.source || !self.is_own_history(mark) {
            return;
        }
        let voter = self.voter(from, &testimony);
        let newest = self.issuer.acknowledgements.get(&voter);
        let stale = newest.is_some_and(|(old, reply)| {
            let same = reply.generation == testimony.generation && reply.set == testimony.set;
            let dead =
                self.mutation != Mutation::DeadReplyCounted && testimony.standing < reply.standing;
            let older = dead || testimony.standing == reply.standing && mark < *old;
            (same && older) || testimony.set.number < reply.set.number
        });
        if !stale {
            self.issuer.acknowledgements.insert(voter, (mark, testimony));
            self.count_acknowledgements(now);
        }
    }

    pub(super) fn hear_applied(&mut self, from: &Name, identity: &Identity, now: Now) {
        if self.settings.roster.contains(from) {
            self.issuer.note_applied(identity, from, &self.settings, now);
        }
    }

    /// Another record is known under a name that this node gave.
    pub(super) fn hear_conflict(&mut self, identity: &Identity) {
        if identity.source == self.issuer.source {
            self.be_reborn();
        }
    }

    /// Numbers its records anew, under a new incarnation.
    pub(super) fn be_reborn(&mut self) {
        self.issuer.source.incarnation = Incarnation(self.dice.next());
        self.issuer.last = Mark::default();
        self.issuer.acknowledgements.clear();
        self.notice(Notice::Reborn);
    }

    pub(super) fn tick_issuer(&mut self, now: Now) {
        let paces = &mut self.issuer.paces;
        paces.retain(|_, pace| pace.next > now.boot);
        if !is_due(&mut self.issuer.told, TELL_AGAIN, now) {
            return;
        }
        let open = self.issuer.receipts.iter().filter(|receipt| {
            let age = now.boot.saturating_sub(receipt.issued);
            receipt.acknowledged.is_none()
                && age < TELL_FOR
                && age >= TELL_AGAIN
                && receipt.identity.source == self.issuer.source
        });
        let open: Vec<Identity> =
            open.take(TOLD_AGAIN).map(|receipt| receipt.identity.clone()).collect();
        for identity in open {
            let Some(record) = self.log.record(&identity).cloned() else { continue };
            for witness in self.silent_witnesses(&identity) {
                let record = record.clone();
                self.send(&witness, Message::Record { record, pass_on: false });
            }
        }
    }

    /// This node's next record, noted.
    fn next(&mut self, scope: Scope, payload: Arc<[u8]>, receipt: bool) -> Arc<Record> {
        let last = self.issuer.last;
        let sequence = last.sequence + 1;
        let identity = Identity { source: self.issuer.source.clone(), sequence };
        let record = Arc::new(Record { identity, before: last.chain, scope, receipt, payload });
        self.issuer.last = Mark { sequence, chain: record.after() };
        self.note_mark(&record);
        record
    }

    fn keep_receipt(&mut self, identity: &Identity, wanted: bool, now: Now) {
        let applied = BTreeMap::from([(self.settings.me.clone(), now.boot)]);
        let identity = identity.clone();
        let issued = now.boot;
        let receipt = Receipt { identity, issued, acknowledged: None, wanted, applied };
        self.issuer.keep_receipt(receipt, &self.settings);
    }

    /// Sends a record to whom it goes at once.
    fn spread(&mut self, record: &Arc<Record>) {
        let witnesses = self.sets.last_key_value().into_iter().flat_map(|(_, set)| set.everyone());
        let mut to: BTreeMap<Name, bool> = witnesses.map(|name| (name.clone(), false)).collect();
        let Settings { roster, me, relays, .. } = &self.settings;
        to.extend(roster.beside(me).map(|name| (name.clone(), false)));
        let relays = roster.relays(me, *relays, |left| self.dice.below(left));
        to.extend(relays.into_iter().map(|(name, inside)| (name.clone(), inside)));
        for (name, pass_on) in to {
            self.send(&name, Message::Record { record: record.clone(), pass_on });
        }
    }

    fn is_own_history(&self, mark: Mark) -> bool {
        let source = self.issuer.source.clone();
        let identity = Identity { source, sequence: mark.sequence };
        mark == self.issuer.last || self.log.chain(&identity) == Some(mark.chain)
    }

    fn count_acknowledgements(&mut self, now: Now) {
        let source = self.issuer.source.clone();
        // They are acknowledged in their order, so the open ones are the newest.
        let open = self.issuer.receipts.iter().rev().take_while(|receipt| {
            receipt.acknowledged.is_none() && receipt.identity.source == source
        });
        let first = self.issuer.receipts.len() - open.count();
        for place in first.. {
            let Some(receipt) = self.issuer.receipts.get(place) else { return };
            let identity = receipt.identity.clone();
            if !self.is_acknowledged(identity.sequence) {
                return;
            }
            if let Some(receipt) = self.issuer.receipts.get_mut(place) {
                receipt.acknowledged = Some(now.boot);
            }
            self.out.push(Action::Acknowledged(identity));
        }
    }

    /// Whether a majority whose replies count together holds this node's records up to here.
    fn is_acknowledged(&self, sequence: u64) -> bool {
        let replies = &self.issuer.acknowledgements;
        if self.mutation == Mutation::AcknowledgedBeforeMajority {
            return replies.values().any(|(mark, _)| mark.sequence >= sequence);
        }
        let generations: BTreeSet<u64> =
            replies.values().map(|(_, testimony)| testimony.generation).collect();
        let mut groups = self
            .sets
            .values()
            .flat_map(|set| generations.iter().map(move |generation| (set, *generation)));
        groups.any(|(set, generation)| {
            let testimonies = replies.iter().map(|((name, _), (_, reply))| (name, reply));
            let count = Count::new(set, generation, testimonies, self.mutation);
            let voters: Vec<&Name> = replies
                .iter()
                .filter(|(_, (mark, _))| mark.sequence >= sequence)
                .filter(|((name, _), (_, reply))| count.holds(name, reply))
                .map(|((name, _), _)| name)
                .collect();
            set.is_majority(&voters)
        })
    }

    fn silent_witnesses(&self, identity: &Identity) -> Vec<Name> {
        let replies = &self.issuer.acknowledgements;
        let told = |name: &Name| {
            let mut of = replies.iter().filter(|((other, _), _)| other == name);
            of.any(|(_, (mark, reply))| {
                mark.sequence >= identity.sequence && Some(reply.generation) == self.generation
            })
        };
        let silent = self.witnesses().everyone().filter(|name| !told(name));
        silent.cloned().collect()
    }
}

/// A rate with a burst, kept as the moment at which the burst is whole again.
#[derive(Clone, Copy, Debug)]
struct Pace {
    next: Duration,
    every: Duration,
    burst: Duration,
}

impl Pace {
    fn new(settings: &Settings, now: Now) -> Self {
        let every = Duration::from_secs(1) / settings.rate.max(1);
        Self { next: now.boot, every, burst: every * settings.burst.max(1) }
    }

    /// Takes one, or says when there is one.
    fn take(&mut self, now: Now) -> Result<(), Duration> {
        let next = self.next.max(now.boot) + self.every;
        let ahead = next.saturating_sub(now.boot);
        if ahead > self.burst {
            return Err(ahead.saturating_sub(self.burst));
        }
        self.next = next;
        Ok(())
    }
}
