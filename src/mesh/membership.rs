//! Who is there and where, by SWIM (`foca`): it finds nodes that are no seeds, and tells who seems to
//! be down. No promise rests on it.
//!
//! Its datagrams travel in frames of the links. What has come is sifted first (`gossip`): membership never
//! sees a datagram that could surprise it, and hears of no node outside the roster. Should it
//! come to grief all the same, it begins anew.

use std::collections::BTreeMap;
use std::num::{NonZeroU8, NonZeroUsize};
use std::sync::Arc;
use std::time::Duration;

use foca::{AccumulatingRuntime, Config, Foca, NoCustomBroadcast, PeriodicParams, State, Timer};
use rand::SeedableRng as _;
use rand::rngs::SmallRng;
use tokio::sync::{Mutex, mpsc};
use tokio::time::{Instant, sleep_until};

use super::frame::{Kind, SMALL_BYTES};
use super::gossip::{Id, Wire, sift};
use super::peers::MemberState;
use super::queue::Class;
use super::shared::{Phase, Shared, Word};
use crate::config::Membership;
use crate::replication::Name;
use crate::telemetry::Traffic;

/// How often what is believed is written to the peers.
const SHOW_EVERY: Duration = Duration::from_millis(500);

/// What links say to membership, which may have to begin anew.
pub(super) type Words = Arc<Mutex<mpsc::Receiver<Word>>>;

/// Keeps membership until the links close; then the others are told that this node leaves.
pub(super) async fn keep(shared: Arc<Shared>, paces: Membership, words: Words) {
    loop {
        let run = run(Arc::clone(&shared), paces.clone(), Arc::clone(&words));
        match tokio::spawn(run).await {
            Ok(()) => break,
            Err(error) => {
                tracing::error!(%error, "membership begins anew");
                tokio::time::sleep(paces.probe).await;
            }
        }
    }
    shared.advance(Phase::Closed);
}

async fn run(shared: Arc<Shared>, paces: Membership, words: Words) {
    let mut words = words.lock().await;
    let mut swim = Swim::new(Arc::clone(&shared), &paces);
    for peer in shared.peers.values().filter(|peer| peer.is_linked()) {
        swim.up(&peer.name);
    }
    let mut show_at = Instant::now();
    loop {
        let next = swim.timers.first_key_value().map_or(show_at, |(key, _)| key.0.min(show_at));
        tokio::select! {
            word = words.recv() => match word {
                Some(Word::Up(name)) => swim.up(&name),
                Some(Word::Datagram(from, datagram)) => swim.datagram(&from, &datagram),
                None => return,
            },
            () = sleep_until(next) => swim.time(),
            () = shared.reached(Phase::Leaving) => break,
        }
        if show_at <= Instant::now() {
            swim.show();
            show_at = Instant::now() + SHOW_EVERY;
        }
    }
    swim.leave();
}

/// Membership with its timers.
struct Swim {
    shared: Arc<Shared>,
    foca: Foca<Id, Wire, SmallRng, NoCustomBroadcast>,
    runtime: AccumulatingRuntime<Id>,
    timers: BTreeMap<(Instant, u64), Timer<Id>>,
    timer_number: u64,
}

impl Swim {
    fn new(shared: Arc<Shared>, paces: &Membership) -> Self {
        let me = Id {
            name: shared.me.name.clone(),
            pop: shared.me.pop.clone(),
            address: shared.advertise,
            bump: shared.bump(),
        };
        let dice = SmallRng::seed_from_u64(shared.draw());
        Self {
            foca: Foca::new(me, settings(paces), dice, Wire),
            runtime: AccumulatingRuntime::new(),
            timers: BTreeMap::new(),
            timer_number: 0,
            shared,
        }
    }

    /// A link is up: whoever is there tells of the others.
    fn up(&mut self, name: &Name) {
        let Some(peer) = self.shared.peer(name) else { return };
        let address = peer.address().unwrap_or(self.shared.advertise);
        let there = Id { name: peer.name.clone(), pop: peer.pop.clone(), address, bump: 0 };
        let result = self.foca.announce(there, &mut self.runtime);
        self.after(result);
    }

    fn datagram(&mut self, from: &Name, datagram: &[u8]) {
        let known = |name: &Name| self.shared.is_known(name);
        let Some(sifted) = sift(datagram, from, &self.shared.me.name, known) else {
            tracing::debug!(peer = %from, "a datagram of membership is not believed");
            return;
        };
        if let Some(bump) = sifted.own.filter(|bump| *bump > self.foca.identity().bump) {
            self.outgrow(bump);
        }
        let result = self.foca.handle_data(&sifted.bytes, &mut self.runtime);
        self.after(result);
    }

    /// Others know a former process of this node under a higher number: a newer one is taken.
    fn outgrow(&mut self, bump: u64) {
        let Some(bump) = bump.checked_add(1) else { return };
        self.shared.raise_bump(bump);
        let me = Id { bump, ..self.foca.identity().clone() };
        let result = self.foca.change_identity(me, &mut self.runtime);
        self.after(result);
    }

    fn time(&mut self) {
        let now = Instant::now();
        while let Some(entry) = self.timers.first_entry().filter(|entry| entry.key().0 <= now) {
            let timer = entry.remove();
            let result = self.foca.handle_timer(timer, &mut self.runtime);
            self.after(result);
        }
    }

    fn leave(&mut self) {
        let result = self.foca.leave_cluster(&mut self.runtime);
        self.after(result);
    }

    /// Does what membership wants done.
    fn after(&mut self, result: Result<(), foca::Error>) {
        if let Err(error) = result {
            tracing::debug!(%error, "membership did not take it");
        }
        while let Some((to, datagram)) = self.runtime.to_send() {
            let Some(peer) = self.shared.peer(&to.name) else { continue };
            if peer.is_linked() {
                self.shared.say(peer, Class::Urgent, Kind::Datagram, Traffic::Membership, datagram);
            }
        }
        while let Some((after, timer)) = self.runtime.to_schedule() {
            self.timer_number += 1;
            self.timers.insert((Instant::now() + after, self.timer_number), timer);
        }
        // What has changed is seen when the members are looked at.
        let mut changed = false;
        while self.runtime.to_notify().is_some() {
            changed = true;
        }
        if changed {
            self.shared.raise_bump(self.foca.identity().bump);
            self.show();
        }
    }

    /// Tells the peers what is believed of them, and where they are.
    fn show(&self) {
        let mut counts = [0; 4];
        let members: BTreeMap<&Name, _> =
            self.foca.iter_membership_state().map(|member| (&member.id().name, member)).collect();
        for peer in self.shared.peers.values() {
            let state = match members.get(&peer.name).map(|member| member.state()) {
                Some(State::Alive) => MemberState::Alive,
                Some(State::Suspect) => MemberState::Suspect,
                Some(State::Down) => MemberState::Down,
                None => MemberState::Unknown,
            };
            peer.believed(state);
            if let Some(count) = counts.get_mut(state as usize) {
                *count += 1;
            }
            // An announcement is addressed before the node has told its own number.
            if let Some(member) = members.get(&peer.name).filter(|member| member.id().bump > 0) {
                peer.learn(member.id().bump, member.id().address);
            }
        }
        self.shared.metrics().members(counts);
    }
}

fn settings(paces: &Membership) -> Config {
    const FEW: NonZeroUsize = NonZeroUsize::MIN.saturating_add(2);
    const TRANSMISSIONS: NonZeroU8 = NonZeroU8::MIN.saturating_add(9);
    const DATAGRAM: NonZeroUsize = NonZeroUsize::MIN.saturating_add(SMALL_BYTES - 1);
    let every = |frequency, num_members| Some(PeriodicParams { frequency, num_members });
    Config {
        probe_period: paces.probe,
        probe_rtt: paces.probe_answer,
        num_indirect_probes: FEW,
        max_transmissions: TRANSMISSIONS,
        suspect_to_down_after: paces.suspect,
        // Names are those of the roster: what is remembered cannot grow.
        remove_down_after: None,
        max_packet_size: DATAGRAM,
        notify_down_members: true,
        periodic_announce: every(Duration::from_secs(30), NonZeroUsize::MIN),
        periodic_announce_to_down_members: every(paces.probe * 5, FEW),
        periodic_gossip: every(Duration::from_millis(500), FEW),
    }
}
