//! This node's canary, where it has one: its origin and its rounds run on the control runtime, and its
//! purges go the way of everybody's.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener as Socket};
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::runtime::Runtime;

use super::{Shared, StartError, random, supervise};
use crate::admin::Control as _;
use crate::canary::{Canary, Purged, Purging};
use crate::clock;
use crate::config::{self, Config};
use crate::listener::{self, Context, Inherited, OpenSocket, Purpose};
use crate::mesh::{Busy, Until};
use crate::purge::{Selector, Strength};
use crate::store::{Author, Events};
use crate::telemetry::Metrics;

/// Who asks for its purges, in the history.
const AUTHOR: &str = "(canary)";

/// The canary before its first round.
pub(super) struct Caged {
    pub(super) canary: Arc<Canary>,
    settings: config::Canary,
    door: Socket,
}

/// Makes the canary that the configuration names, and binds its origin.
pub(super) fn open(
    config: &Config,
    (context, inherited): (&Context, &mut Inherited),
    metrics: &Arc<Metrics>,
    events: &Arc<Events>,
) -> Result<Option<Caged>, StartError> {
    let Some(settings) = config.mesh.as_ref().and_then(|mesh| mesh.canary.clone()) else {
        return Ok(None);
    };
    let canary = Canary::new(
        &settings,
        u64::from_be_bytes(random()),
        Arc::clone(metrics),
        Arc::clone(events),
    )
    .map_err(|why| StartError::Tls(format!("the canary: {why}")))?;
    let address = settings.listen;
    let fail = |error| StartError::Admin { address, error };
    let door = match inherited.take(Purpose::Canary, address).into_iter().next() {
        Some(door) => door,
        None => listener::bind_alone(address).map_err(fail)?,
    };
    context.keep(vec![OpenSocket::of(Purpose::Canary, address, &door).map_err(fail)?]);
    Ok(Some(Caged { canary, settings, door }))
}

impl Caged {
    /// Where the nodes fetch its object.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        self.door.local_addr().ok()
    }

    /// Begins its rounds. They end, and its object is no longer served, when the node drains: then it
    /// may be another process's turn.
    pub(super) fn start(self, shared: &Arc<Shared>, control: &Runtime) -> Result<(), StartError> {
        let Self { canary, settings, door } = self;
        let _inside = control.enter();
        let door = Arc::new(TcpListener::from_std(door).map_err(StartError::System)?);
        let (own, state) = (Arc::clone(&canary), Arc::clone(shared));
        supervise::task(control.handle(), "canary", &shared.metrics, move || {
            let served = Arc::clone(&own).serve(Arc::clone(&door), state.stop.subscribe());
            let mut drain = state.drain.subscribe();
            async move {
                tokio::select! {
                    () = served => {}
                    _ = drain.wait_for(|drain| *drain != super::Drain::Open) => {}
                }
            }
        });
        let purging = purging(Arc::clone(shared), settings);
        let state = Arc::clone(shared);
        supervise::task(control.handle(), "canary", &shared.metrics, move || {
            let (canary, purging) = (Arc::clone(&canary), Arc::clone(&purging));
            let mut drain = state.drain.subscribe();
            async move {
                tokio::select! {
                    () = canary.probe(purging) => {}
                    _ = drain.wait_for(|drain| *drain != super::Drain::Open) => {}
                }
            }
        });
        Ok(())
    }
}

/// Purges the object hard by its URL, as an operator would.
fn purging(shared: Arc<Shared>, settings: config::Canary) -> Purging {
    let settings = Arc::new(settings);
    Arc::new(move || {
        let (shared, settings) = (Arc::clone(&shared), Arc::clone(&settings));
        Box::pin(async move { purge(&shared, &settings).await })
    })
}

async fn purge(shared: &Shared, settings: &config::Canary) -> Purged {
    let mesh = shared.mesh.as_ref().ok_or("the node is in no mesh")?;
    let host = settings.host.clone();
    let site = shared.site_of(&host).ok_or("no site answers for its host any more")?;
    let url = Selector::Url { site, host, target: settings.path.clone() };
    let by = Author { token: AUTHOR.into(), address: IpAddr::V4(Ipv4Addr::LOCALHOST) };
    let issued = shared.purge(by, &[url], Strength::Hard, clock::now());
    let identity = issued.map_err(told)?.identity;
    let waited = mesh.wait(&identity, Until::Acknowledged, settings.timeout).await;
    if waited.reached { Ok(identity) } else { Err("the witnesses did not acknowledge it in time") }
}

fn told(busy: Busy) -> &'static str {
    match busy {
        Busy::TooMany { .. } => "purges come too fast",
        Busy::Elsewhere { .. } => "another process is taking this node's place",
        Busy::Barred => "this node may not purge",
        Busy::TooLong => "its URL is too long",
    }
}
