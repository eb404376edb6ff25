//! Policy keys of content codings made at the edge.

use crate::semantics::{Coding, Compression, TypePattern};

use super::super::error::Problem;
use super::super::reader::{Entry, Found, Read, Table};

/// Largest body that one job may take: while it is coded it is in memory about twice.
const MOST_BYTES: u64 = 64 * 1024 * 1024;

impl Read for Coding {
    fn read(entry: &Entry<'_>) -> Option<Self> {
        entry.one_of(&Self::ALL.map(|coding| (coding.name(), coding)))
    }
}

impl Read for TypePattern {
    fn read(entry: &Entry<'_>) -> Option<Self> {
        entry.parsed("a media type in quotes", |text| {
            Self::parse(text).ok_or_else(|| {
                "expected a media type, all of a kind, or all with a suffix: \"application/json\", \
                 \"text/*\", \"+xml\""
                    .to_owned()
            })
        })
    }
}

/// Reads the keys over what `into` has.
pub(super) fn read(table: &mut Table<'_>, into: &mut Compression) {
    let Compression { codings, types, from_bytes, up_to_bytes } = into;
    if let Some(found) = table.optional::<Vec<Found<Coding>>>("compress") {
        codings.clear();
        for coding in found.value {
            if codings.contains(&coding.value) {
                let problem = Problem::new(format!("`{}` is there twice", coding.value.name()));
                table.sink.push(problem.at(coding.place.span).help("name each coding once"));
                continue;
            }
            codings.push(coding.value);
        }
    }
    table.set("compress_types", types);
    table.size("compress_from", from_bytes, 0..=MOST_BYTES);
    table.size("compress_up_to", up_to_bytes, 0..=MOST_BYTES);
    // What is inherited was judged where it is written.
    let span = table.span_of("compress_from").or_else(|| table.span_of("compress_up_to"));
    if from_bytes > up_to_bytes && span.is_some() {
        table.sink.push(
            Problem::new("`compress_from` is larger than `compress_up_to`")
                .at(span)
                .help("lower the one or raise the other: as it is, nothing is coded"),
        );
    }
}
