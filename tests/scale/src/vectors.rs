//! How long a vector is when many nodes have issued purges: what a comparison, and an answer about a
//! lease to who lags behind, takes on the wire and to read.

use std::fmt::Write as _;
use std::time::Instant;

use crate::paths::pop_name;
use crate::replication::{
    Holding, Incarnation, Mark, Message, Mutation, Name, Source, Vector, decode, encode,
};

/// A table for vectors of so many sources.
#[must_use]
pub fn told() -> String {
    let mut text = String::from(
        "| sources | bytes on the wire | write | read | compare |\n|---|---|---|---|---|\n",
    );
    for sources in [1, 30, 1_024, 10_000, 30_000] {
        let vector = of(sources);
        let message = Message::Vector(Holding { vector: vector.clone(), step: None });
        let (frame, write) = timed(|| encode(&message));
        let (read, reading) = timed(|| decode(&frame));
        assert_eq!(read.as_ref(), Ok(&message));
        let (covers, compare) = timed(|| vector.covers(&vector.clone(), Mutation::None));
        assert!(covers);
        let _ = writeln!(
            text,
            "| {sources} | {} | {write:.2} ms | {reading:.2} ms | {compare:.2} ms |",
            frame.len()
        );
    }
    text
}

/// One source on each of so many nodes.
fn of(sources: usize) -> Vector {
    let sources = (0..sources as u64).map(|number| {
        let name = format!("{}-{:03}", pop_name((number / 100) as usize), number % 100);
        let incarnation = Incarnation(number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let source = Source { incarnation, node: Name::from(name.as_str()) };
        (source, Mark { sequence: number + 1, chain: u128::from(number) })
    });
    sources.collect()
}

/// What came out, and how many milliseconds it took.
fn timed<T>(work: impl FnOnce() -> T) -> (T, f64) {
    let begun = Instant::now();
    let result = work();
    (result, begun.elapsed().as_secs_f64() * 1_000.0)
}
