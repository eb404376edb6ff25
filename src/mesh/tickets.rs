//! Keys of session tickets on the links: whoever comes is told, whoever makes one tells all, and a few are
//! told again and again, so that what got lost is made good.
//!
//! Links stand with nodes of the roster only, which have shown certificates of the mesh; nobody else hears
//! of a key, and nobody else's is taken.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::frame::Kind;
use super::peers::Peer;
use super::queue::Class;
use super::shared::{Phase, Shared};
use crate::clock;
use crate::telemetry::Traffic;

/// Pause between two looks at whether a key is due.
const LOOK: Duration = Duration::from_millis(250);
/// How often some are told again.
const AGAIN: Duration = Duration::from_secs(10);
/// How many of them.
const FEW: usize = 2;

/// Keeps keys until the links close.
pub(super) async fn keep(shared: Arc<Shared>) {
    let mut again_at = Instant::now() + AGAIN;
    while *shared.phase.borrow() == Phase::Open {
        let up: Vec<&Arc<Peer>> = shared.peers.values().filter(|peer| peer.is_linked()).collect();
        let before_me = up.iter().filter(|peer| peer.name < shared.me.name).count();
        let rank = u32::try_from(before_me).unwrap_or(u32::MAX);
        if shared.me.tickets.turn(rank, clock::now()) {
            up.iter().for_each(|peer| tell(&shared, peer));
        } else if again_at <= Instant::now() {
            let from = usize::try_from(shared.draw()).unwrap_or(0) % up.len().max(1);
            up.iter()
                .cycle()
                .skip(from)
                .take(FEW.min(up.len()))
                .for_each(|peer| tell(&shared, peer));
            again_at = Instant::now() + AGAIN;
        }
        tokio::select! {
            () = sleep(LOOK) => {}
            () = shared.reached(Phase::Leaving) => {}
        }
    }
}

/// Tells a peer all keys of the mesh that are known here.
pub(super) fn tell(shared: &Shared, peer: &Peer) {
    if let Some(told) = shared.me.tickets.told(clock::now()) {
        shared.say(peer, Class::Urgent, Kind::Keys, Traffic::Keys, told.into());
    }
}
