//! Stories of links over loopback: who finds whom, who is turned away, what a slow or broken peer costs.

mod strangers;
mod support;

use std::time::Duration;

use support::{Meshwork, message, number, until};

use super::{MemberState, PeerState};
use crate::replication::Name;
use crate::telemetry::LinkClosed;

#[tokio::test]
async fn three_nodes_find_one_another_from_one_seed() {
    let mut mesh = Meshwork::new(&["a", "b", "c"]);
    mesh.open("a", &[]).await;
    mesh.open("b", &["a"]).await;
    mesh.open("c", &["a"]).await;
    mesh.linked(&["a", "b", "c"]).await;
    // b and c were not each other's seeds: a's word has brought them together.
    let view = mesh.peer("b", "c");
    assert_eq!(view.address, Some(mesh.address("c")));
    assert_eq!(view.pop, Name::from("pop"));
    until("membership believes in all", || {
        ["a", "b", "c"].iter().all(|node| {
            mesh.links(node).peers().iter().all(|peer| peer.member == MemberState::Alive)
        })
    })
    .await;
    for (from, to) in [("a", "b"), ("b", "c"), ("c", "a"), ("c", "b")] {
        mesh.links(from).say(&to.into(), &message(7, 100));
        assert_eq!(mesh.hears(to).await, (from.into(), 7));
    }
    until("the way there and back is measured", || mesh.peer("a", "b").round_trip.is_some()).await;
}

#[tokio::test]
async fn a_node_that_leaves_and_comes_back_is_linked_again() {
    let mut mesh = Meshwork::new(&["a", "b"]);
    mesh.open("a", &[]).await;
    mesh.open("b", &["a"]).await;
    mesh.linked(&["a", "b"]).await;
    mesh.close("b").await;
    until("the link is down", || mesh.peer("a", "b").state != PeerState::Up).await;
    until("membership knows", || mesh.peer("a", "b").member == MemberState::Down).await;
    // It comes back at another address.
    mesh.open("b", &["a"]).await;
    mesh.linked(&["a", "b"]).await;
    until("membership takes it back", || mesh.peer("a", "b").member == MemberState::Alive).await;
    mesh.links("a").say(&"b".into(), &message(3, 10));
    assert_eq!(mesh.hears("b").await, ("a".into(), 3));
    let text = mesh.metrics("a").render();
    assert!(number(&text, "atoll_mesh_reconnects_total") >= 1, "{text}");
}

#[tokio::test]
async fn a_node_that_dies_is_noticed_and_dialled_when_it_is_back() {
    let mut mesh = Meshwork::new(&["a", "b"]);
    mesh.open("a", &[]).await;
    let first = mesh.open_apart("b", &["a"]);
    mesh.linked_one("a", "b").await;
    let address = mesh.peer("a", "b").address.expect("told by b");
    // The runtime goes with everything on it, and nobody says goodbye.
    first.shutdown_background();
    until("the link is down", || mesh.peer("a", "b").state != PeerState::Up).await;
    mesh.open_at("b", address, &[]).await;
    mesh.linked(&["a", "b"]).await;
}

#[tokio::test]
async fn nodes_that_dial_at_the_same_time_agree_on_one_link() {
    for round in 0..5 {
        let mut mesh = Meshwork::new(&["a", "b"]);
        mesh.reserve("a");
        mesh.reserve("b");
        mesh.open_reserved("a", &["b"]).await;
        mesh.open_reserved("b", &["a"]).await;
        mesh.linked(&["a", "b"]).await;
        for count in 1..=50 {
            mesh.links("a").say(&"b".into(), &message(count, 50));
            mesh.links("b").say(&"a".into(), &message(count, 50));
        }
        // Whatever connection they were written to, and whichever stays: none is lost.
        for node in ["a", "b"] {
            let mut heard = Vec::new();
            for _ in 0..50 {
                heard.push(mesh.hears(node).await.1);
            }
            heard.sort_unstable();
            assert_eq!(heard, (1..=50).collect::<Vec<_>>(), "round {round}");
        }
        until("one link each", || {
            ["a", "b"]
                .iter()
                .all(|node| number(&mesh.metrics(node).render(), "atoll_mesh_links_up") == 1)
        })
        .await;
    }
}

#[tokio::test]
async fn a_node_that_takes_nothing_holds_nobody_up() {
    let mut mesh = Meshwork::new(&["a", "b", "slow"]);
    mesh.limits.queue_bytes = 4 << 20;
    mesh.limits.idle = Duration::from_secs(2);
    mesh.open("a", &[]).await;
    mesh.open("b", &["a"]).await;
    mesh.open_deaf("slow", &["a"]).await;
    mesh.linked_one("a", "slow").await;
    mesh.linked_one("a", "b").await;
    let drops =
        || number(&mesh.metrics("a").render(), "atoll_mesh_dropped_total{class=\"urgent\"}");
    let mut said = 1;
    while drops() == 0 {
        mesh.links("a").say(&"slow".into(), &message(said, 60_000));
        said += 1;
        assert!(said < 2_000, "more waits for it than may");
        assert!(mesh.peer("a", "slow").queued_bytes <= 4 << 20);
        tokio::task::yield_now().await;
    }
    mesh.links("a").say(&"b".into(), &message(1, 100));
    assert_eq!(mesh.hears("b").await, ("a".into(), 1));
    until("it is given up", || {
        number(&mesh.metrics("a").render(), "atoll_mesh_links_closed_total{reason=\"stalled\"}") > 0
    })
    .await;
}

#[tokio::test]
async fn authorities_change_node_by_node_while_messages_flow() {
    let mut mesh = Meshwork::new(&["a", "b", "c"]);
    mesh.open("a", &[]).await;
    mesh.open("b", &["a"]).await;
    mesh.open("c", &["a"]).await;
    mesh.linked(&["a", "b", "c"]).await;
    let mut sent = 0;
    // First all trust both, then each shows the new certificate, then nobody trusts the old authority.
    for step in 0..3 {
        for node in ["a", "b", "c"] {
            mesh.rotate(node, step);
            mesh.links(node).reload_identity().expect("what was written can be used");
            for (from, to) in [("a", "b"), ("b", "c"), ("c", "a")] {
                sent += 1;
                mesh.links(from).say(&to.into(), &message(sent, 100));
                assert_eq!(mesh.hears(to).await, (from.into(), sent));
            }
        }
        // New connections work at every step: each node comes back under what is in force then.
        for node in ["a", "b", "c"] {
            let seeds: Vec<&str> =
                ["a", "b", "c"].into_iter().filter(|seed| seed != &node).collect();
            mesh.close(node).await;
            mesh.open(node, &seeds).await;
            mesh.linked(&["a", "b", "c"]).await;
        }
    }
    let refused = number(
        &mesh.metrics("a").render(),
        "atoll_mesh_handshakes_refused_total{reason=\"certificate\"}",
    );
    assert_eq!(refused, 0);
}

#[tokio::test]
async fn links_end_with_the_authority_that_let_them_in_and_come_back_under_the_next() {
    let names = ["a", "b", "c"];
    let mut mesh = Meshwork::new(&names);
    mesh.open("a", &[]).await;
    mesh.open("b", &["a"]).await;
    mesh.open("c", &["a"]).await;
    mesh.linked(&names).await;
    let ended = |mesh: &Meshwork| -> u64 {
        names.iter().map(|node| mesh.closed(node, LinkClosed::Certificate)).sum()
    };
    for (step, node) in (0..2).flat_map(|step| names.map(|node| (step, node))) {
        mesh.rotate(node, step);
        mesh.links(node).reload_identity().expect("what was written can be used");
    }
    assert_eq!(ended(&mesh), 0, "both authorities are trusted");
    for node in names {
        mesh.rotate(node, 2);
        mesh.links(node).reload_identity().expect("what was written can be used");
        mesh.linked(&names).await;
    }
    until("no link of the first authority is left", || ended(&mesh) >= 3).await;
    mesh.linked(&names).await;
    for (from, to) in [("a", "b"), ("b", "c"), ("c", "a")] {
        mesh.links(from).say(&to.into(), &message(7, 100));
        assert_eq!(mesh.hears(to).await, (from.into(), 7));
    }
}

#[tokio::test]
async fn a_node_whose_authority_is_taken_out_is_cut_without_being_told() {
    let mut mesh = Meshwork::new(&["a", "b"]);
    mesh.open("a", &[]).await;
    mesh.open("b", &["a"]).await;
    mesh.linked(&["a", "b"]).await;
    // b has slept through it.
    mesh.rotate("a", 1);
    mesh.rotate("a", 2);
    until("the link ends", || mesh.closed("a", LinkClosed::Certificate) == 1).await;
    let refused = "atoll_mesh_handshakes_refused_total{reason=\"certificate\"}";
    until("it is turned away", || number(&mesh.metrics("a").render(), refused) > 0).await;
    assert_ne!(mesh.peer("a", "b").state, PeerState::Up);
}

#[tokio::test]
async fn a_link_ends_with_the_certificate_of_its_peer() {
    let mut mesh = Meshwork::new(&["a", "b"]);
    mesh.write_ending("b", Duration::from_secs(4));
    mesh.open("a", &[]).await;
    mesh.open("b", &["a"]).await;
    mesh.linked(&["a", "b"]).await;
    until("the link ends", || mesh.closed("a", LinkClosed::Certificate) == 1).await;
    assert_ne!(mesh.peer("a", "b").state, PeerState::Up);
}

#[tokio::test]
async fn changed_files_are_noticed_without_being_told() {
    let mut mesh = Meshwork::new(&["a", "b"]);
    mesh.open("a", &[]).await;
    for node in ["a", "b"] {
        mesh.rotate(node, 1);
        mesh.rotate(node, 2);
    }
    mesh.open("b", &["a"]).await;
    mesh.linked(&["a", "b"]).await;
}

#[tokio::test]
async fn files_that_cannot_be_used_change_nothing() {
    let mut mesh = Meshwork::new(&["a", "b"]);
    mesh.open("a", &[]).await;
    mesh.break_certificate("a");
    assert!(mesh.links("a").reload_identity().is_err(), "half a certificate is none");
    mesh.open("b", &["a"]).await;
    mesh.linked(&["a", "b"]).await;
}

#[tokio::test]
async fn large_messages_arrive_whole_and_urgent_ones_between_their_parts() {
    let mut mesh = Meshwork::new(&["a", "b"]);
    mesh.open("a", &[]).await;
    mesh.open("b", &["a"]).await;
    mesh.linked(&["a", "b"]).await;
    mesh.links("a").say(&"b".into(), &support::batch(40, 50_000));
    mesh.links("a").say(&"b".into(), &message(5, 10));
    assert_eq!(mesh.hears("b").await, ("a".into(), 5));
    assert_eq!(mesh.hears("b").await, ("a".into(), 40), "counted by its records");
}

#[tokio::test]
async fn what_is_said_to_nobody_is_dropped_and_counted() {
    let mut mesh = Meshwork::new(&["a", "b"]);
    mesh.limits.redial_most = Duration::from_millis(100);
    mesh.open("a", &[]).await;
    let dropped =
        || number(&mesh.metrics("a").render(), "atoll_mesh_dropped_total{class=\"urgent\"}");
    mesh.links("a").say(&"stranger".into(), &message(1, 10));
    assert_eq!(dropped(), 1);
    mesh.links("a").say(&"b".into(), &message(1, 10));
    until("what waits for a node that nobody knows is dropped", || dropped() >= 2).await;
    assert_eq!(mesh.peer("a", "b").queued_bytes, 0);
    assert!(mesh.peer("a", "b").dropped > 0);
}

#[tokio::test]
async fn what_membership_believes_holds_no_purge_back() {
    let mut mesh = Meshwork::new(&["a", "b"]);
    mesh.open("a", &[]).await;
    mesh.open("b", &["a"]).await;
    mesh.linked(&["a", "b"]).await;
    for (number, state) in [(1, MemberState::Suspect), (2, MemberState::Down)] {
        mesh.links("a").believe(&"b".into(), state);
        assert_eq!(mesh.peer("a", "b").member, state);
        mesh.links("a").say(&"b".into(), &message(number, 10));
        assert_eq!(mesh.hears("b").await, ("a".into(), number));
    }
}

#[tokio::test]
async fn garbage_closes_its_link_and_no_other() {
    let mut mesh = Meshwork::new(&["a", "b", "c"]);
    mesh.open("a", &[]).await;
    mesh.open("b", &["a"]).await;
    mesh.linked_one("a", "b").await;
    let since = mesh.peer("a", "b").up_since;
    for garbage in [
        &[0, 0, 0, 0][..],
        &[0xff; 40],
        &[0, 0, 0, 3, 2, 9, 9],
        &[0, 0, 0, 1, 1],
        &[0, 0, 0, 2, 6, 1],
    ] {
        let before = mesh.closed("a", LinkClosed::Malformed);
        let mut stranger =
            strangers::Node::new(&mesh, "c").greet(&mesh, "a").await.expect("a link");
        stranger.write(garbage).await;
        stranger.ended().await;
        until("it is counted", || mesh.closed("a", LinkClosed::Malformed) > before).await;
    }
    // Frames and messages of later versions are passed over.
    let mut later = strangers::Node::new(&mesh, "c").greet(&mesh, "a").await.expect("a link");
    later.write(&[0, 0, 0, 2, 200, 1]).await;
    later.write(&[0, 0, 0, 3, 2, 1, 200]).await;
    until("they are counted", || {
        number(&mesh.metrics("a").render(), "atoll_mesh_unknown_total") == 2
    })
    .await;
    assert_eq!(mesh.peer("a", "c").state, PeerState::Up);
    assert_eq!(mesh.peer("a", "b").up_since, since, "nothing of it touched b");
}
