use std::net::{IpAddr, SocketAddr};
use std::time::SystemTime;

use tokio::sync::Semaphore;

use super::super::tests::{Played, played};
use super::*;
use crate::clock::Now;
use crate::purge::{Secret, Selector, Strength};
use crate::store::{Author, Purges};

const QUICK: Pace =
    Pace { heartbeat: Duration::from_millis(20), patience: Duration::from_millis(50) };

fn view(sites: Option<&[&str]>) -> View {
    let identity = Identity { name: "n".into(), pop: "p".into(), incarnation: "0f".into() };
    let sites = sites.map(|sites| sites.iter().map(|site| Arc::from(*site)).collect());
    let origins = HashSet::from(["back".to_owned()]);
    let bound = Token { sites: vec!["blog".into()], ..Token::full("follower", "secret") };
    let control = Arc::new(Played::default());
    View { identity, token: "follower".into(), sites, origins, bound, control }
}

#[test]
fn of_the_mesh_a_bound_follower_is_told_what_concerns_its_sites() {
    let events = Events::new(16);
    let control = Arc::new(Played::default());
    let by = || Author { token: "deploy".into(), address: IpAddr::from([192, 0, 2, 1]) };
    for site in ["shop", "blog"] {
        let taken = control.purge(by(), &[tag(site, "a")], Strength::Hard, Now::at(1)).unwrap();
        let after = Duration::from_millis(3);
        let what = What::Acknowledged { identity: taken.identity, after };
        events.publish(what, SystemTime::UNIX_EPOCH);
    }
    events.publish(What::RefusedRecord { identity: played(9) }, SystemTime::UNIX_EPOCH);
    let lease = |held, without| What::Lease { held, without };
    events.publish(lease(false, None), SystemTime::UNIX_EPOCH);
    events.publish(lease(true, Some(Duration::from_millis(700))), SystemTime::UNIX_EPOCH);
    events.publish(What::Distrust { epoch: 4, why: "generation" }, SystemTime::UNIX_EPOCH);
    let (node, after) = ("b".into(), Duration::from_millis(2_100));
    let broken = What::BrokenPromise { node, purge: played(3), after };
    events.publish(broken, SystemTime::UNIX_EPOCH);

    let all = all_told(&View { control: control.clone(), ..view(None) }, &events);
    let names: Vec<&str> = all.iter().map(|(name, _)| *name).collect();
    let expected = ["acknowledged", "acknowledged", "refused-record", "lease", "lease", "distrust"];
    assert_eq!(names[..6], expected);
    let told = (names[6], &all[6].1["node"], &all[6].1["after_ms"]);
    assert_eq!(told, ("broken-promise", &json!("b"), &json!(2_100.0)));
    assert_eq!((&all[0].1["id"], &all[0].1["after_ms"]), (&played(1).dotted().into(), &json!(3.0)));
    assert_eq!((&all[4].1["held"], &all[4].1["without_ms"]), (&json!(true), &json!(700.0)));

    let bound = all_told(&View { control, ..view(Some(&["blog"])) }, &events);
    let names: Vec<&str> = bound.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ["acknowledged", "lease", "lease", "distrust"]);
    assert_eq!(bound[0].1["id"], played(2).dotted());
}

fn purge(events: &Arc<Events>, selectors: &[Selector]) {
    let purges = Purges::new(Secret(1, 2), 100).telling(Arc::clone(events));
    let by = Author { token: "deploy".into(), address: IpAddr::from([192, 0, 2, 1]) };
    purges.apply_for(by, selectors, Strength::Soft, Now::at(1));
}

fn tag(site: &str, tag: &str) -> Selector {
    Selector::Tag { site: site.into(), tag: tag.into() }
}

fn all_told(view: &View, events: &Events) -> Vec<(&'static str, serde_json::Value)> {
    let since = events.since(events.earliest(), 99);
    let parsed = |(name, data): (_, String)| (name, serde_json::from_str(&data).unwrap());
    since.events.iter().filter_map(|event| view.told(event)).map(parsed).collect()
}

#[test]
fn a_purge_is_told_as_far_as_it_concerns_the_follower() {
    let events = Events::new(16);
    purge(&events, &[tag("shop", "a"), tag("blog", "b")]);
    purge(&events, &[tag("shop", "c")]);
    purge(&events, &[Selector::All]);
    let whole = all_told(&view(None), &events);
    assert_eq!(whole.len(), 3);
    let first = &whole[0].1;
    assert_eq!((&first["id"], &first["count"]), (&"n.0f.1".into(), &2.into()));
    assert_eq!((&first["token"], &first["mode"]), (&"deploy".into(), &"soft".into()));
    assert_eq!(first["selectors"][1], json!({ "kind": "tag", "site": "blog", "value": "b" }));
    assert_eq!(whole[2].1["selectors"], json!([{ "kind": "all" }]));

    let blog = all_told(&view(Some(&["blog"])), &events);
    assert_eq!(blog.len(), 2, "{blog:?}");
    let (share, all) = (&blog[0].1, &blog[1].1);
    assert_eq!(share["selectors"], json!([{ "kind": "tag", "site": "blog", "value": "b" }]));
    assert_eq!((&share["token"], &share["count"]), (&json!(null), &json!(null)));
    assert_eq!(all["selectors"], json!([{ "kind": "site", "value": "blog" }]));
    let both = all_told(&view(Some(&["blog", "shop"])), &events);
    assert_eq!(both[0].1["token"], "deploy");
    assert!(all_told(&view(Some(&[])), &events).is_empty());
}

#[test]
fn health_is_told_to_whom_the_origin_serves() {
    let events = Events::new(16);
    for (origin, state) in [("back", "ejected"), ("other", "down"), ("back", "up")] {
        let address = SocketAddr::from(([127, 0, 0, 1], 80));
        let why = (state != "up").then(|| "refused".to_owned());
        let what = What::Health { origin: origin.to_owned(), address, state, why };
        events.publish(what, SystemTime::UNIX_EPOCH);
    }
    assert_eq!(all_told(&view(None), &events).len(), 3);
    let told = all_told(&view(Some(&["blog"])), &events);
    assert_eq!(told.len(), 2);
    assert_eq!((&told[0].1["up"], &told[0].1["why"]), (&json!(false), &json!("refused")));
    assert_eq!((&told[1].1["up"], &told[1].1["why"]), (&json!(true), &json!(null)));
}

#[test]
fn an_id_is_good_for_its_life_and_as_long_as_all_since_is_kept() {
    let events = Events::new(2);
    for _ in 0..5 {
        events.publish(What::Drain, SystemTime::UNIX_EPOCH);
    }
    let view = view(None);
    for (id, expected) in [
        ("0f.5", Some(5)),
        ("0f.3", Some(3)),
        ("0f.2", None),
        ("0f.6", None),
        ("1f.5", None),
        ("0f.x", None),
        ("5", None),
        ("", None),
    ] {
        let found = view.position(&HeaderValue::from_str(id).unwrap(), &events);
        assert_eq!(found, expected, "{id}");
    }
}

fn stream(events: &Arc<Events>) -> (Stream, mpsc::Receiver<Bytes>) {
    let (sender, pieces) = mpsc::channel(PIECES);
    let (judged, ended) = watch::channel(false);
    let stream = Stream {
        events: Arc::clone(events),
        view: view(None),
        sender,
        position: 0,
        pace: QUICK,
        ended,
    };
    std::mem::forget(judged);
    (stream, pieces)
}

async fn place() -> OwnedSemaphorePermit {
    Arc::new(Semaphore::new(1)).acquire_owned().await.unwrap()
}

#[tokio::test]
async fn silence_is_broken_by_a_sign_of_life_that_bears_the_position() {
    let events = Events::new(16);
    purge(&events, &[tag("shop", "a")]);
    let (stream, mut pieces) = stream(&events);
    let running = tokio::spawn(stream.run(None, place().await));
    assert_eq!(pieces.recv().await.unwrap(), "retry: 1000\nid: 0f.0\n\n");
    let first = pieces.recv().await.unwrap();
    assert!(first.starts_with(b"event: purge\nid: 0f.1\ndata: {"), "{first:?}");
    assert_eq!(pieces.recv().await.unwrap(), ": alive\nid: 0f.1\n\n");
    events.publish(What::Drain, SystemTime::UNIX_EPOCH);
    let mut last = Bytes::new();
    while let Some(piece) = pieces.recv().await {
        last = piece;
    }
    assert!(last.starts_with(b"event: drain\n"), "{last:?}");
    assert_eq!(running.await.unwrap(), Ok(()));
}

#[tokio::test]
async fn who_takes_nothing_is_cut_and_who_leaves_is_forgotten() {
    let events = Events::new(16);
    let (stuck, pieces) = stream(&events);
    assert_eq!(stuck.run(None, place().await).await, Err(Stuck));
    drop(pieces);
    let (left, pieces) = stream(&events);
    drop(pieces);
    assert_eq!(left.run(None, place().await).await, Ok(()));
}

#[test]
fn a_warm_up_is_told_to_its_own_token_and_to_those_without_sites() {
    let events = Events::new(16);
    for token in ["follower", "other"] {
        let warm_up = WarmUp {
            id: format!("n.0f.{token}"),
            token: token.to_owned(),
            purge: Some("n.0f.1".to_owned()),
            state: "running",
            total: Some(10),
            done: 3,
            failed: 1,
            stored: 2,
        };
        events.publish(What::WarmUp(warm_up), SystemTime::UNIX_EPOCH);
    }
    assert_eq!(all_told(&view(None), &events).len(), 2);
    let own = all_told(&view(Some(&["blog"])), &events);
    assert_eq!(own.len(), 1, "{own:?}");
    let (name, data) = &own[0];
    assert_eq!(
        (*name, &data["id"], &data["done"]),
        ("warm-up", &json!("n.0f.follower"), &json!(3))
    );
}
