//! A body that changes, is purged or is not to be had while it is read.

use bytes::{Bytes, BytesMut};

use super::{KIB, MIB, Story};
use crate::support::edge::HOST;
use crate::support::{Connection, Ended, Gate, H2, Reply, Version};

const TOTAL: u64 = 8 * MIB;

/// A client that reads all of it and has taken the first bytes.
async fn reader(story: &Story) -> (Connection, BytesMut) {
    let mut client = Connection::open_narrow(story.edge.plain()).await;
    client.ask(HOST, "/f", &[]).await;
    assert_eq!(client.head("GET").await.status, 200);
    let first = client.piece().await.unwrap().unwrap();
    // Nothing more is fetched until it reads on.
    story.origin.seen("/f", 3).await;
    story.edge.settled().await;
    (client, BytesMut::from(&*first))
}

/// What it got in the end.
async fn finish((mut client, mut got): (Connection, BytesMut)) -> (Bytes, Ended) {
    let (rest, ended) = client.rest().await;
    got.extend_from_slice(&rest);
    (got.freeze(), ended)
}

#[tokio::test]
async fn a_body_that_changes_is_cut_off_and_never_continued_with_other_bytes() {
    let story = Story::new(Version::new(TOTAL, 1));
    let old = story.file.version();
    let reading = reader(&story).await;
    story.file.becomes(Version::new(TOTAL, 2));
    let (got, ended) = finish(reading).await;
    assert_eq!(ended, Ended::CutOff);
    assert!((got.len() as u64) < TOTAL);
    assert!(got == old.bytes(0..=got.len() as u64 - 1), "bytes of two versions");
    story.edge.settled().await;
    let next = story.reads(0, 99).await;
    assert!(next.says("fwd=uri-miss"), "{}", next.cache());
    story.reads_all().await;
    assert!(story.edge.metric("atoll_segments_changed_total").await >= 1.0);
}

#[tokio::test]
async fn over_http2_a_body_that_changes_is_reset() {
    let gate = Gate::new();
    let held = gate.clone();
    let story = Story::played(Version::new(TOTAL, 1), move |file, seen| {
        let reply = file.reply(seen);
        if seen.nth == 4 { Reply::new(412).gate(&held) } else { reply }
    });
    let old = story.file.version();
    let mut client = H2::plain(story.edge.plain(), HOST).await;
    let request = client.head("GET", "/f", &[]);
    let asked = client.ask(request, false).await;
    gate.reached(1).await;
    story.file.becomes(Version::new(TOTAL, 2));
    gate.open();
    let answer = asked.outcome().await.unwrap();
    assert_eq!((answer.status(), answer.ended), (200, Ended::CutOff));
    assert!(answer.body == old.bytes(0..=answer.body.len() as u64 - 1));
    story.edge.settled().await;
    story.reads_all().await;
}

#[tokio::test]
async fn a_client_that_has_got_nothing_yet_begins_anew() {
    for changed in [
        Version::new(TOTAL, 2),
        Version::new(TOTAL - 1000, 2),
        Version::new(TOTAL, 2).field("ETag", "W/\"2\""),
        Version::new(2 * MIB, 2).whole_only(),
    ] {
        let story = Story::new(Version::new(TOTAL, 1));
        story.reads(0, 99).await;
        story.edge.settled().await;
        story.file.becomes(changed);
        story.reads(1_000_000, 1_000_099).await;
        story.reads(0, 99).await;
    }
    let story = Story::new(Version::new(TOTAL, 1));
    story.reads(0, 99).await;
    story.edge.settled().await;
    // Another length under the same name is another body.
    story.file.becomes(Version::new(TOTAL - 8, 2).field("ETag", "\"1\""));
    story.reads(1_000_000, 1_000_099).await;
    story.reads(0, 99).await;
}

#[tokio::test]
async fn a_body_that_is_gone_dies() {
    let gone = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let seen_gone = gone.clone();
    let story = Story::played(Version::new(TOTAL, 1), move |file, seen| {
        let gone = seen_gone.load(std::sync::atomic::Ordering::SeqCst);
        if gone { Reply::new(404) } else { file.reply(seen) }
    });
    story.reads(0, 99).await;
    story.edge.settled().await;
    gone.store(true, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(story.range("bytes=1000000-1000099").await.status(), 404);
    assert_eq!(story.range("bytes=0-99").await.status(), 404);
}

#[tokio::test]
async fn a_purge_while_it_is_read_lets_the_answer_run_on_and_the_next_begin_anew() {
    let story = Story::new(Version::new(TOTAL, 1).field("Surrogate-Key", "film"));
    let reading = reader(&story).await;
    let before = story.origin.requests();
    story.edge.purge_tag("film").await;
    let (got, ended) = finish(reading).await;
    assert!(ended == Ended::Clean && got == story.file.version().all());
    story.edge.settled().await;
    let asked = story.asked().await;
    let next = story.reads(0, 99).await;
    assert!(next.says("fwd=uri-miss"), "{}", next.cache());
    let far = story.reads(TOTAL - 100, TOTAL - 1).await;
    assert!(far.says("fwd=partial"), "what was read after the purge is not kept: {}", far.cache());
    // The answer that ran on took each byte once.
    let segments = usize::try_from(TOTAL / (512 * KIB)).unwrap();
    assert!(before < segments && asked.len() == segments, "{} requests", asked.len());
}

#[tokio::test]
async fn after_a_purge_no_byte_of_before_is_served_even_under_the_same_validator() {
    let story = Story::new(Version::new(TOTAL, 1).field("Surrogate-Key", "film"));
    let reading = reader(&story).await;
    story.reads(5_000_000, 6_000_000).await;
    story.edge.settled().await;
    // The origin changes the bytes and forgets to change the validator: a purge mends that.
    story.file.becomes(Version { seed: 2, ..story.file.version() });
    story.edge.purge_tag("film").await;
    story.reads(5_000_000, 6_000_000).await;
    let old = finish(reading);
    let (_, new) = tokio::join!(old, story.reads_all());
    assert!(!new.says("collapsed"));
    story.edge.settled().await;
    assert!(story.reads_all().await.says("hit"));
}

#[tokio::test]
async fn an_origin_that_fails_cuts_off_and_kills_nothing() {
    for reset in [false, true] {
        let story = Story::played(Version::new(TOTAL, 1), move |file, seen| {
            let reply = file.reply(seen);
            match (seen.nth, reset) {
                (5, false) => Reply::new(503),
                // A part of it comes, then nothing.
                (5, true) => reply.broken_after(1000),
                _ => reply,
            }
        });
        let first = story.edge.get("/f").await;
        assert_eq!((first.status(), first.ended), (200, Ended::CutOff));
        let version = story.file.version();
        assert!(first.body == version.bytes(0..=first.body.len() as u64 - 1));
        story.edge.settled().await;
        assert!(story.reads(0, 99).await.says("hit"));
        story.reads_all().await;
        story.edge.settled().await;
        assert!(story.reads_all().await.says("hit"), "what broke off was not stored");
    }
}

#[tokio::test]
async fn an_origin_that_fails_before_the_first_byte_is_said_to_have_failed() {
    let story = Story::played(Version::new(TOTAL, 1), |file, seen| {
        if seen.nth == 2 { Reply::new(503) } else { file.reply(seen) }
    });
    story.reads(0, 99).await;
    assert_eq!(story.range("bytes=4000000-4000099").await.status(), 503);
    story.reads(4_000_000, 4_000_099).await;
}

#[tokio::test]
async fn a_stale_head_that_is_confirmed_keeps_its_segments() {
    let story = Story::new(Version::new(TOTAL, 1).field("Age", "100"));
    story.reads(5_000_000, 6_000_000).await;
    story.edge.settled().await;
    let sent = story.file.sent();
    let again = story.reads(5_000_000, 6_000_000).await;
    assert!(again.says("fwd=stale") && again.says("fwd-status=304"), "{}", again.cache());
    story.edge.settled().await;
    assert_eq!(story.file.sent(), sent, "a 304 and nothing else");
    // What it confirms with asks for what a changed body begins with.
    let seen = story.origin.last("/f").await;
    assert_eq!(seen.field("if-none-match"), Some("\"1\""));
    assert_eq!(seen.field("range"), Some("bytes=4980736-5242879"));
    story.file.becomes(Version::new(TOTAL, 2));
    story.reads(5_000_000, 6_000_000).await;
    story.reads(0, 99).await;
}

#[tokio::test]
async fn a_soft_purge_has_the_head_confirmed_and_a_hard_one_kills() {
    let story = Story::new(Version::new(TOTAL, 1).field("Surrogate-Key", "film"));
    story.reads(5_000_000, 6_000_000).await;
    story.edge.settled().await;
    let sent = story.file.sent();
    story.edge.purge(serde_json::json!({ "tags": ["film"], "mode": "soft" })).await;
    assert!(story.reads(5_000_000, 6_000_000).await.says("fwd-status=304"));
    story.edge.settled().await;
    assert_eq!(story.file.sent(), sent);
    story.edge.purge_tag("film").await;
    assert!(story.reads(5_000_000, 6_000_000).await.says("fwd=uri-miss"));
    assert!(story.file.sent() > sent);
}

#[tokio::test]
async fn stale_segments_stand_in_for_an_origin_that_fails_where_they_are_there() {
    let version = Version::new(TOTAL, 1).field("Age", "100");
    let version = version.field("Cache-Control", "max-age=60, stale-if-error=600");
    let story =
        Story::played(
            version,
            |file, seen| {
                if seen.nth > 2 { Reply::new(503) } else { file.reply(seen) }
            },
        );
    story.reads(0, 999_999).await;
    story.edge.settled().await;
    let stale = story.reads(0, 999_999).await;
    assert!(stale.says("detail=stale-if-error"), "{}", stale.cache());
    assert_eq!(story.range("bytes=7000000-7000099").await.status(), 503);
}

#[tokio::test]
async fn a_head_that_is_read_from_many_places_at_once_is_right_everywhere() {
    let story = Story::new(Version::new(16 * MIB, 1));
    let ranges = (0..24_u64).map(|number| {
        let first = number * 641_234;
        (first, first + 1_200_000)
    });
    let mut clients = Vec::new();
    for (first, last) in ranges {
        let mut client = story.edge.connect().await;
        client.ask(HOST, "/f", &[("Range", &format!("bytes={first}-{last}"))]).await;
        clients.push((client, first, last));
    }
    for (mut client, first, last) in clients {
        let answer = client.response("GET").await;
        story.is_range(&answer, first, last);
    }
    story.edge.settled().await;
    assert!(story.file.sent() <= 16 * MIB, "no byte came twice: {}", story.file.sent());
}
