//! A video player: random seeks over a long film, each a closed range of a few megabytes.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use atoll::clock;

use super::{KIB, MIB, Story};
use crate::support::edge::Plan;
use crate::support::{Edge, File, Origin, Piece, Version};

/// Numbers that look random and are the same each time.
struct Draw(u64);

impl Draw {
    fn within(&mut self, range: Range<u64>) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        range.start + (self.0 >> 24) % (range.end - range.start)
    }
}

/// Bytes that lie in at least one of the ranges.
fn union(mut ranges: Vec<(u64, u64)>) -> u64 {
    ranges.sort_unstable();
    let (mut sum, mut end) = (0, 0);
    for (first, last) in ranges {
        sum += (last + 1).saturating_sub(first.max(end));
        end = end.max(last + 1);
    }
    sum
}

/// Reads ranges of these sizes at random places and checks their bytes. Bytes asked for, each
/// counted once.
async fn play(story: &Story, seeks: u64, sizes: Range<u64>) -> u64 {
    let (mut draw, mut asked) = (Draw(7), Vec::new());
    let total = story.file.version().total;
    for _ in 0..seeks {
        let size = draw.within(sizes.clone());
        let first = draw.within(0..total - size);
        story.reads(first, first + size - 1).await;
        asked.push((first, first + size - 1));
    }
    story.edge.settled().await;
    union(asked)
}

#[tokio::test]
async fn random_seeks_cost_the_origin_little_more_than_was_asked_for() {
    let story = Story::new(Version::new(64 * MIB, 1));
    let once = play(&story, 12, MIB..4 * MIB).await;
    let sent = story.file.sent();
    assert!(sent >= once && sent * 10 <= once * 11, "{sent} for {once}");
    let most = once / (512 * KIB) + 3 * 12;
    assert!((story.origin.requests() as u64) < most, "{} requests", story.origin.requests());
}

/// A film as long as they are, an origin as far away. Says what it measured.
#[tokio::test]
#[ignore = "takes minutes; run by .ci/long"]
async fn random_seeks_over_a_gigabyte_far_away() {
    const FAR: Duration = Duration::from_millis(50);
    for (segment, sizes) in [
        ("256KiB", MIB..8 * MIB),
        ("1MiB", MIB..8 * MIB),
        ("1MiB", 512 * KIB..2 * MIB),
        ("4MiB", MIB..8 * MIB),
    ] {
        let file = Arc::new(File::new(Version::new(1024 * MIB, 1)));
        let answers = Arc::clone(&file);
        let origin = Origin::start(move |seen| answers.reply(seen).before(Piece::Pause(FAR)));
        let site = format!("segment = \"{segment}\"");
        let plan: Plan = Edge::before(&origin).budget("4GiB").site(&site);
        let story = Story { file, origin, edge: plan.start() };
        let begun = clock::now();
        let once = play(&story, 60, sizes.clone()).await;
        let time = clock::now().since(begun);
        let (sent, requests) = (story.file.sent(), story.origin.requests());
        println!(
            "segments of {segment}, ranges of {} to {} KiB: {sent} bytes for {once}, {:.3} times; \
             {requests} requests; {:.1} MiB/s",
            sizes.start / KIB,
            sizes.end / KIB,
            sent as f64 / once as f64,
            once as f64 / MIB as f64 / time.as_secs_f64(),
        );
        assert!(sent * 10 <= once * 11, "{sent} for {once}");
    }
}
