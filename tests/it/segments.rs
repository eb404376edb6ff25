//! Large bodies in segments: what is fetched, what is shared, and what becomes of a body that
//! changes while it is read.

mod changes;
mod player;

use std::sync::Arc;

use crate::support::edge::{HOST, Plan};
use crate::support::origin::Seen;
use crate::support::{
    Connection, Edge, Ended, File, Gate, H2, Origin, Reply, Response, Version, side_by_side, until,
};

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

/// An origin with one file, and an edge that takes its bodies in segments of 512 KiB, which are
/// blocks of 64 KiB.
struct Story {
    file: Arc<File>,
    origin: Origin,
    edge: Edge,
}

impl Story {
    fn new(version: Version) -> Self {
        Self::with(version, "")
    }

    /// With further keys of the site.
    fn with(version: Version, keys: &str) -> Self {
        Self::planned(version, |plan| plan.site(keys), File::reply)
    }

    /// With an origin that does not always answer as the file says.
    fn played(
        version: Version,
        script: impl Fn(&File, &Seen) -> Reply + Send + Sync + 'static,
    ) -> Self {
        Self::planned(version, |plan| plan, script)
    }

    fn planned(
        version: Version,
        change: impl FnOnce(Plan) -> Plan,
        script: impl Fn(&File, &Seen) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let file = Arc::new(File::new(version));
        let answers = Arc::clone(&file);
        let origin = Origin::start(move |seen| script(&answers, seen));
        let plan = Edge::before(&origin).plain_h2().site("segment = \"512KiB\"");
        Self { file, origin, edge: change(plan).start() }
    }

    async fn range(&self, range: &str) -> Response {
        self.edge.get_with("/f", &[("Range", range)]).await
    }

    /// Asks for a range and checks its bytes.
    async fn reads(&self, first: u64, last: u64) -> Response {
        let answer = self.range(&format!("bytes={first}-{last}")).await;
        self.is_range(&answer, first, last);
        answer
    }

    fn is_range(&self, answer: &Response, first: u64, last: u64) {
        let version = self.file.version();
        assert_eq!((answer.status(), answer.ended), (206, Ended::Clean), "{:?}", answer.head);
        let expected = format!("bytes {first}-{last}/{}", version.total);
        assert_eq!(answer.field("content-range"), Some(&*expected));
        assert!(answer.body == version.bytes(first..=last), "other bytes in {first}-{last}");
    }

    /// Asks for all and checks its bytes.
    async fn reads_all(&self) -> Response {
        let answer = self.edge.get("/f").await;
        assert_eq!((answer.status(), answer.ended), (200, Ended::Clean), "{:?}", answer.head);
        assert!(answer.body == self.file.version().all(), "{} bytes", answer.body.len());
        answer
    }

    /// Ranges that the origin was asked for, in order.
    async fn asked(&self) -> Vec<String> {
        let all = self.origin.seen("/f", self.origin.count("/f").max(1)).await;
        all.iter().map(|seen| seen.field("range").unwrap_or("all").to_owned()).collect()
    }
}

#[tokio::test]
async fn a_range_costs_what_it_touches_and_its_neighbours_nothing_more() {
    let story = Story::new(Version::new(64 * MIB, 1));
    let first = story.reads(40_000_000, 41_000_000).await;
    assert!(first.says("fwd=uri-miss") && first.says("stored"), "{}", first.cache());
    assert_eq!(first.field("etag"), Some("\"1\""));
    story.edge.settled().await;
    let fetched = story.file.sent();
    assert!((1_000_001..1_000_001 + 128 * KIB).contains(&fetched), "{fetched}");
    let again = story.reads(40_100_000, 40_900_000).await;
    assert!(again.says("hit"), "{}", again.cache());
    assert_eq!(story.file.sent(), fetched);
    let partly = story.reads(40_500_000, 41_500_000).await;
    assert!(partly.says("hit"), "its first bytes are there: {}", partly.cache());
    let elsewhere = story.reads(10_000_000, 10_600_000).await;
    assert!(elsewhere.says("fwd=partial"), "{}", elsewhere.cache());
}

#[tokio::test]
async fn a_few_bytes_bring_their_segment() {
    let story = Story::new(Version::new(64 * MIB, 1));
    story.reads(20_000_000, 20_000_099).await;
    story.edge.settled().await;
    // Segment 38 of 512 KiB.
    assert_eq!(story.asked().await, ["bytes=19922944-20447231"]);
    assert!(story.reads(19_922_944, 19_923_000).await.says("hit"));
    assert!(story.reads(20_447_231, 20_447_231).await.says("hit"));
    assert_eq!(story.origin.requests(), 1);
}

#[tokio::test]
async fn the_whole_is_fetched_once_however_large() {
    // Nothing larger than a megabyte is stored in one piece.
    let small = |plan: Plan| plan.limits("stored_bytes = \"1MiB\"");
    let story = Story::planned(Version::new(6 * MIB + 5, 1), small, File::reply);
    let first = story.reads_all().await;
    assert_eq!(first.field("content-length"), Some("6291461"));
    assert_eq!(first.field("content-range"), None);
    story.edge.settled().await;
    assert_eq!(story.file.sent(), 6 * MIB + 5);
    assert!(story.reads_all().await.says("hit"));
    story.reads(6 * MIB - 100, 6 * MIB + 4).await;
    assert_eq!(story.file.sent(), 6 * MIB + 5);
    assert_eq!(story.origin.requests(), 13);
}

#[tokio::test]
async fn many_clients_of_one_segment_cost_one_request() {
    const CLIENTS: usize = 50;
    let gates = [Gate::new(), Gate::new()];
    let held = gates.clone();
    let story = Story::played(Version::new(64 * MIB, 1), move |file, seen| {
        file.reply(seen).gate(&held[seen.nth - 1])
    });
    // Cold, and then in another segment of what is known.
    for (first, last, requests) in [(0, 99_999, 1), (30_000_000, 30_099_999, 2)] {
        let gate = &gates[requests - 1];
        let mut clients = Vec::new();
        for _ in 0..CLIENTS {
            let mut client = story.edge.connect().await;
            let range = format!("bytes={first}-{last}");
            client.ask(HOST, "/f", &[("Range", &range)]).await;
            clients.push(client);
        }
        let name = "atoll_client_requests_total{version=\"1\"}";
        until("all requests at the edge", || async {
            story.edge.metric(name).await >= (CLIENTS * requests) as f64
        })
        .await;
        gate.open();
        let answers =
            clients.into_iter().map(|mut client| async move { client.response("GET").await });
        for answer in side_by_side(answers).await {
            story.is_range(&answer, first, last);
        }
        assert_eq!(story.origin.requests(), requests);
    }
}

#[tokio::test]
async fn what_comes_first_may_be_a_suffix_several_ranges_or_beyond_the_end() {
    let total = 5 * MIB;
    let rows: [(&str, u16); 4] =
        [("bytes=-1000", 206), ("bytes=5242879-", 206), ("bytes=-0", 416), ("bytes=5242880-", 416)];
    for (range, status) in rows {
        let story = Story::new(Version::new(total, 1));
        let answer = story.range(range).await;
        assert_eq!(answer.status(), status, "{range}");
        if status == 416 {
            assert_eq!(answer.field("content-range"), Some("bytes */5242880"), "{range}");
        } else {
            let first = total - answer.body.len() as u64;
            story.is_range(&answer, first, total - 1);
        }
        story.edge.settled().await;
        assert!(story.file.sent() <= MIB, "{range} cost {} bytes", story.file.sent());
    }
    let story = Story::new(Version::new(total, 1));
    let answer = story.range("bytes=4000000-4099999, 100-199").await;
    assert_eq!(answer.status(), 206);
    let version = story.file.version();
    let holds = |part: &[u8]| memchr::memmem::find(&answer.body, part).is_some();
    assert!(holds(&version.bytes(4_000_000..=4_099_999)) && holds(&version.bytes(100..=199)));
    story.edge.settled().await;
    assert!(story.file.sent() <= MIB, "{}", story.file.sent());
}

#[tokio::test]
async fn head_conditions_and_broken_ranges_are_answered_from_a_head_in_segments() {
    let story = Story::new(Version::new(5 * MIB, 1));
    story.reads(0, 99).await;
    story.edge.settled().await;
    let head = story.edge.ask("HEAD", HOST, "/f", &[]).await;
    assert_eq!((head.status(), head.field("content-length")), (200, Some("5242880")));
    assert!(head.says("hit"), "{}", head.cache());
    let same = story.edge.get_with("/f", &[("If-None-Match", "\"1\"")]).await;
    assert_eq!(same.status(), 304);
    assert_eq!(story.range("bytes=9999999-").await.status(), 416);
    for (range, status) in [("bytes=0-99", 206), ("bytes=500000-600000", 504)] {
        let cached = [("Range", range), ("Cache-Control", "only-if-cached")];
        assert_eq!(story.edge.get_with("/f", &cached).await.status(), status, "{range}");
    }
    assert_eq!(story.origin.requests(), 1);
    let other = &[("Range", "bytes=0-9"), ("If-Range", "\"0\"")];
    let whole = story.edge.get_with("/f", other).await;
    assert_eq!((whole.status(), whole.body.len() as u64), (200, 5 * MIB));
}

#[tokio::test]
async fn a_small_file_is_an_ordinary_response() {
    let story = Story::new(Version::new(100_000, 1).field("ETag", "W/\"1\""));
    story.reads(10, 19).await;
    story.edge.settled().await;
    assert!(story.reads_all().await.says("hit"));
    assert!(story.reads(99_000, 99_999).await.says("hit"));
    assert_eq!(story.origin.requests(), 1);
    let empty = Story::new(Version::new(0, 1));
    empty.edge.fill("/f").await.expect(200, "", "fwd=uri-miss");
    empty.edge.get("/f").await.expect(200, "", "hit");
    assert_eq!(empty.asked().await, ["bytes=0-524287", "all"]);
}

#[tokio::test]
async fn an_origin_without_ranges_is_filled_from_as_ever() {
    let story = Story::new(Version::new(2 * MIB, 1).whole_only());
    story.reads(MIB, MIB + 9).await;
    story.edge.settled().await;
    assert!(story.reads_all().await.says("hit"));
    assert_eq!(story.origin.requests(), 1);
}

#[tokio::test]
async fn what_cannot_be_put_together_passes() {
    for version in [
        Version::new(5 * MIB, 1).field("ETag", "W/\"1\""),
        Version::new(5 * MIB, 1).without("ETag"),
        Version::new(5 * MIB, 1).field("Content-Range", "bytes 0-524287/*"),
    ] {
        let story = Story::new(version);
        let first = story.range("bytes=1000000-1000099").await;
        assert!(first.status() == 206 && !first.says("stored"), "{}", first.cache());
        assert!(first.body == story.file.version().bytes(1_000_000..=1_000_099));
        assert_eq!(story.origin.requests(), 2);
        let next = story.range("bytes=1000000-1000099").await;
        assert!(next.says("detail=uncacheable"), "{}", next.cache());
        assert!(next.body == story.file.version().bytes(1_000_000..=1_000_099));
        assert_eq!(story.origin.requests(), 3, "it is known by now");
        let asked = story.asked().await;
        assert_eq!(asked[1..], ["bytes=1000000-1000099", "bytes=1000000-1000099"]);
    }
}

#[tokio::test]
async fn one_users_bytes_are_nobody_elses() {
    for version in [
        Version::new(5 * MIB, 1).field("Cache-Control", "private, max-age=60"),
        Version::new(5 * MIB, 1).field("Set-Cookie", "user=1"),
    ] {
        let story = Story::new(version);
        story.reads(1_000_000, 1_000_099).await;
        // The same name and validator, but what another user is shown.
        story.file.becomes(Version { seed: 2, ..story.file.version() });
        story.reads(1_000_000, 1_000_099).await;
        let asked = story.asked().await;
        assert_eq!(asked[1..], ["bytes=1000000-1000099", "bytes=1000000-1000099"]);
    }
    let story = Story::new(Version::new(5 * MIB, 1));
    let user = |range| [("Authorization", "Basic b25l"), ("Range", range)];
    let own = story.edge.get_with("/f", &user("bytes=0-99")).await;
    story.is_range(&own, 0, 99);
    story.file.becomes(Version { seed: 2, ..story.file.version() });
    story.reads(0, 99).await;
}

#[tokio::test]
async fn an_origin_that_turns_private_is_believed_at_once() {
    let story = Story::new(Version::new(5 * MIB, 1));
    story.reads(0, 99).await;
    story.file.becomes(story.file.version().field("Cache-Control", "private"));
    story.reads(2_000_000, 2_000_099).await;
    story.file.becomes(Version { seed: 2, ..story.file.version() });
    story.reads(2_000_000, 2_000_099).await;
    story.reads(0, 99).await;
}

#[tokio::test]
async fn who_may_not_have_more_is_told_so_by_the_origin() {
    let story = Story::played(Version::new(5 * MIB, 1), |file, seen| {
        if seen.field("x-guest").is_some() { Reply::new(403) } else { file.reply(seen) }
    });
    story.reads(0, 99).await;
    let guest = [("X-Guest", "1"), ("Range", "bytes=2000000-2000099")];
    assert_eq!(story.edge.get_with("/f", &guest).await.status(), 403);
    story.reads(2_000_000, 2_000_099).await;
    assert!(story.reads(0, 99).await.says("hit"), "nothing has died of it");
}

#[tokio::test]
async fn variants_have_segments_of_their_own() {
    let of = |seed| Version::new(5 * MIB, seed).field("Vary", "X-Lang");
    let story = Story::played(of(0), move |_, seen| {
        let seed = if seen.field("x-lang") == Some("b") { 2 } else { 1 };
        File::new(of(seed)).reply(seen)
    });
    for _ in 0..2 {
        for (language, seed) in [("a", 1), ("b", 2)] {
            for first in [0, 3_000_000] {
                let range = format!("bytes={first}-{}", first + 99);
                let fields = [("X-Lang", language), ("Range", &*range)];
                let answer = story.edge.fill_with("/f", &fields).await;
                assert_eq!(answer.status(), 206);
                assert!(answer.body == of(seed).bytes(first..=first + 99));
            }
        }
    }
    assert_eq!(story.origin.requests(), 4);
}

#[tokio::test]
async fn a_client_that_leaves_lets_what_is_under_way_be_stored() {
    let gate = Gate::new();
    let held = gate.clone();
    let story = Story::played(Version::new(64 * MIB, 1), move |file, seen| {
        let reply = file.reply(seen);
        if seen.nth == 2 { reply.gate(&held) } else { reply }
    });
    story.reads(0, 99).await;
    story.edge.settled().await;
    let mut leaving = H2::plain(story.edge.plain(), HOST).await;
    let request = leaving.head("GET", "/f", &[("range", "bytes=10000000-")]);
    let asked = leaving.ask(request, false).await;
    gate.reached(1).await;
    asked.reset();
    story.edge.metric_becomes("atoll_http2_streams_reset_total", 1.0).await;
    gate.open();
    story.edge.settled().await;
    assert!(story.reads(10_000_000, 10_000_099).await.says("hit"));
    assert!(story.origin.requests() <= 4, "nobody read on: {:?}", story.asked().await);
}

#[tokio::test]
async fn a_client_that_takes_nothing_stops_the_origin() {
    let story = Story::new(Version::new(64 * MIB, 1));
    let mut narrow = Connection::open_narrow(story.edge.plain()).await;
    narrow.ask(HOST, "/f", &[]).await;
    assert_eq!(narrow.head("GET").await.status, 200);
    story.origin.seen("/f", 3).await;
    story.edge.settled().await;
    assert!(story.file.sent() < 16 * MIB, "{} bytes ahead of a client", story.file.sent());
}

#[tokio::test]
async fn nothing_is_fetched_ahead_where_policy_says_so() {
    let story = Story::with(Version::new(3 * MIB, 1), "segment_ahead = 0");
    story.reads_all().await;
    let starts: Vec<u64> = (0..6).map(|number| number * 512 * KIB).collect();
    let expected: Vec<String> =
        starts.iter().map(|start| format!("bytes={start}-{}", start + 512 * KIB - 1)).collect();
    assert_eq!(story.asked().await, expected);
}

#[tokio::test]
async fn what_is_not_there_as_a_whole_is_never_coded_here() {
    let version = Version::new(2 * MIB, 1).field("Content-Type", "text/plain");
    let story = Story::with(version, "compress = [\"gzip\"]");
    let coded = [("Accept-Encoding", "gzip")];
    for _ in 0..2 {
        let answer = story.edge.fill_with("/f", &coded).await;
        assert_eq!((answer.status(), answer.field("content-encoding")), (200, None));
        assert!(answer.body == story.file.version().all());
    }
    assert_eq!(story.file.sent(), 2 * MIB);
}

#[tokio::test]
async fn a_body_in_segments_answers_for_its_own_query_alone() {
    let version = Version::new(2 * MIB, 1).field("No-Vary-Search", "params=(\"u\")");
    let story = Story::new(version);
    for (target, requests) in [("/f?u=1", 1), ("/f?u=2", 1), ("/f?u=1", 1)] {
        let answer = story.edge.fill_with(target, &[("Range", "bytes=0-99")]).await;
        story.is_range(&answer, 0, 99);
        assert_eq!(story.origin.count(target), requests);
    }
}

#[tokio::test]
async fn over_http2_it_is_the_same() {
    let story = Story::new(Version::new(6 * MIB, 1));
    let mut client = H2::plain(story.edge.plain(), HOST).await;
    let answer = client.get("/f", &[("range", "bytes=1000000-3999999")]).await;
    story.is_range(&answer, 1_000_000, 3_999_999);
    let answer = client.get("/f", &[]).await;
    assert!(answer.body == story.file.version().all() && answer.ended == Ended::Clean);
    story.edge.settled().await;
    assert_eq!(story.file.sent(), 6 * MIB);
}
