//! A video player: random seeks over a long film, each a closed range of a few megabytes.

use super::{KIB, MIB, Story};
use crate::support::Version;

/// Numbers that look random and are the same each time.
struct Draw(u64);

impl Draw {
    fn below(&mut self, end: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

/// Bytes that lie in at least one of the ranges.
fn union(mut ranges: Vec<(u64, u64)>) -> u64 {
    ranges.sort_unstable();
    let (mut sum, mut end) = (0, 0);
    for (first, last) in ranges {
        let from = first.max(end);
        sum += (last + 1).saturating_sub(from);
        end = end.max(last + 1);
    }
    sum
}

#[tokio::test]
async fn random_seeks_cost_the_origin_little_more_than_was_asked_for() {
    let total = 64 * MIB;
    let story = Story::new(Version::new(total, 1));
    let (mut draw, mut asked) = (Draw(1), Vec::new());
    for _ in 0..12 {
        let size = MIB + draw.below(3 * MIB);
        let first = draw.below(total - size);
        story.reads(first, first + size - 1).await;
        asked.push((first, first + size - 1));
    }
    story.edge.settled().await;
    let (once, sent) = (union(asked), story.file.sent());
    assert!(sent >= once && sent * 10 <= once * 11, "{sent} for {once}");
    let most = once / (512 * KIB) + 3 * 12;
    assert!((story.origin.requests() as u64) < most, "{} requests", story.origin.requests());
}
