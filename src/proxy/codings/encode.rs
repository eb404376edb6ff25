//! From a stored body to its coded bytes.
//!
//! Each is made once and sent many times, so a level well above what a server codes at while a
//! client waits pays. But one thread makes all of them, and what waits is sent uncoded meanwhile:
//! hence the bound on level times size. The best levels (zstd 19, br 11) cost ten times as much
//! again for a few percent.
//!
//! | coding | up to 1 MiB | beyond |
//! |---|---|---|
//! | zstd | 12 | 6 |
//! | br | 9 | 5 |
//! | gzip | 9 | 6 |
//!
//! Windows stay below what every client must take: 8 MiB for zstd (RFC 9659), 16 MiB for br.

use std::io::{self, Read};

use bytes::Bytes;

use crate::semantics::{Coding, KeySecret, Print};
use crate::store::StoredBody;

/// Bodies up to this size are coded at the higher level.
const SMALL_BYTES: u64 = 1024 * 1024;
/// A coding that saves less than the rest of a hundred is not kept: it would cost memory, and the
/// client time.
const WORTH_PERCENT: u64 = 95;
/// Bytes between two looks at whether to go on.
const STEP_BYTES: usize = 64 * 1024;
/// Logarithm of the window of br: 4 MiB.
const BR_WINDOW: u32 = 22;

/// What came of coding a body.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Encoded {
    /// A print of the coded bytes, then the bytes.
    Smaller(Bytes),
    /// Not worth it.
    NotSmaller,
    /// Told to stop.
    Stopped,
}

/// Codes `body`. Asks `go_on` now and then; stops as soon as the coding cannot be worth it.
pub(super) fn encode(
    body: &StoredBody,
    coding: Coding,
    go_on: impl Fn() -> bool,
) -> io::Result<Encoded> {
    let blocks = blocks(body);
    // Nothing is coded of which not every byte is here.
    if blocks.iter().map(|block| block.len() as u64).sum::<u64>() != body.len() {
        return Ok(Encoded::Stopped);
    }
    let most = usize::try_from(body.len() * WORTH_PERCENT / 100).unwrap_or(usize::MAX);
    let head = size_of::<Print>();
    let mut out = vec![0; head];
    let mut encoder = encoder(blocks, body.len(), coding)?;
    loop {
        if !go_on() {
            return Ok(Encoded::Stopped);
        }
        let read = encoder.by_ref().take(STEP_BYTES as u64).read_to_end(&mut out)?;
        if out.len() - head >= most {
            return Ok(Encoded::NotSmaller);
        }
        if read == 0 {
            break;
        }
    }
    let (place, coded) = out.split_at_mut(head);
    place.copy_from_slice(&print(coded));
    Ok(Encoded::Smaller(Bytes::from(out.into_boxed_slice())))
}

/// Print and bytes of what [`encode`] made, as it lies in the store.
pub(super) fn apart(kept: &StoredBody) -> Option<(Print, StoredBody)> {
    let StoredBody::One(bytes) = kept else { return None };
    let (print, _) = bytes.split_first_chunk()?;
    Some((*print, StoredBody::One(bytes.slice(size_of::<Print>()..))))
}

fn print(coded: &[u8]) -> Print {
    // The same on every node, hence without a secret: whoever can choose the bytes of a response
    // can choose its tag as well.
    let hash = KeySecret([0, 0]).hash(&[coded]).to_be_bytes();
    hash.first_chunk().copied().unwrap_or_default()
}

fn blocks(body: &StoredBody) -> &[Bytes] {
    match body {
        StoredBody::One(bytes) => std::slice::from_ref(bytes),
        StoredBody::Many(blocks, _) => blocks,
        // Never offered: it is not there as a whole.
        StoredBody::Segmented(_) => &[],
    }
}

fn encoder(blocks: &[Bytes], length: u64, coding: Coding) -> io::Result<Box<dyn Read + '_>> {
    let small = length <= SMALL_BYTES;
    let reader = Reader { now: &[], later: blocks.iter() };
    Ok(match coding {
        Coding::Zstd => {
            let level = if small { 12 } else { 6 };
            let mut encoder = zstd::stream::read::Encoder::with_buffer(reader, level)?;
            encoder.set_pledged_src_size(Some(length))?;
            Box::new(encoder)
        }
        Coding::Br => {
            let quality = if small { 9 } else { 5 };
            Box::new(brotli::CompressorReader::new(reader, STEP_BYTES, quality, BR_WINDOW))
        }
        Coding::Gzip => {
            let level = flate2::Compression::new(if small { 9 } else { 6 });
            Box::new(flate2::bufread::GzEncoder::new(reader, level))
        }
    })
}

/// The bytes of a stored body, one block after the other.
struct Reader<'a> {
    now: &'a [u8],
    later: std::slice::Iter<'a, Bytes>,
}

impl io::BufRead for Reader<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.now.is_empty() {
            match self.later.next() {
                Some(block) => self.now = block,
                None => break,
            }
        }
        Ok(self.now)
    }

    fn consume(&mut self, count: usize) {
        self.now = self.now.get(count..).unwrap_or_default();
    }
}

impl Read for Reader<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let read = io::BufRead::fill_buf(self)?.read(out)?;
        io::BufRead::consume(self, read);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;

    fn text(length: usize) -> Vec<u8> {
        (0..length / 8 + 1).flat_map(|n| format!("{n:07} ").into_bytes()).take(length).collect()
    }

    fn decode(coding: Coding, coded: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        match coding {
            Coding::Zstd => out = zstd::decode_all(coded).unwrap(),
            Coding::Br => {
                brotli::Decompressor::new(coded, 4096).read_to_end(&mut out).map(drop).unwrap();
            }
            Coding::Gzip => {
                flate2::read::GzDecoder::new(coded).read_to_end(&mut out).map(drop).unwrap();
            }
        }
        out
    }

    fn whole(body: &StoredBody) -> Vec<u8> {
        let mut out = Vec::new();
        Reader { now: &[], later: blocks(body).iter() }.read_to_end(&mut out).unwrap();
        out
    }

    #[test]
    fn every_coding_of_every_body_decodes_to_it() {
        let blocks: Vec<Bytes> = text(300_000).chunks(70_001).map(Bytes::copy_from_slice).collect();
        let bodies = [
            StoredBody::One(Bytes::from(text(1000))),
            StoredBody::Many(Arc::from(blocks), 300_000),
        ];
        for body in bodies {
            for coding in Coding::ALL {
                let Encoded::Smaller(kept) = encode(&body, coding, || true).unwrap() else {
                    panic!("{coding:?} should be smaller");
                };
                let (print, coded) = apart(&StoredBody::One(kept.clone())).unwrap();
                assert!(coded.len() < body.len() / 2, "{coding:?}");
                assert_eq!(decode(coding, &whole(&coded)), whole(&body), "{coding:?}");
                assert_eq!(print, super::print(&whole(&coded)));
                let again = encode(&body, coding, || true).unwrap();
                assert_eq!(again, Encoded::Smaller(kept), "{coding:?}: the same bytes each time");
            }
        }
    }

    #[test]
    fn what_does_not_shrink_is_not_coded() {
        let mut state = 7_u64;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            state.to_be_bytes()[0]
        })
        .take(200_000)
        .collect();
        for coding in Coding::ALL {
            let body = StoredBody::One(Bytes::from(noise.clone()));
            assert_eq!(encode(&body, coding, || true).unwrap(), Encoded::NotSmaller, "{coding:?}");
        }
        let empty = StoredBody::One(Bytes::new());
        assert_eq!(encode(&empty, Coding::Br, || true).unwrap(), Encoded::NotSmaller);
        assert!(apart(&empty).is_none(), "what is kept of it is no sibling");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn what_is_coded_decodes_to_what_was_stored(
            blocks in proptest::collection::vec("[ab ]{0,700}", 0..5),
        ) {
            let blocks: Vec<Bytes> = blocks.into_iter().map(Bytes::from).collect();
            let length = blocks.iter().map(|block| block.len() as u64).sum();
            let body = StoredBody::Many(Arc::from(blocks), length);
            for coding in Coding::ALL {
                if let Encoded::Smaller(kept) = encode(&body, coding, || true).unwrap() {
                    let (_, coded) = apart(&StoredBody::One(kept)).unwrap();
                    prop_assert!(coded.len() < length);
                    prop_assert_eq!(decode(coding, &whole(&coded)), whole(&body));
                }
            }
        }
    }

    #[test]
    fn a_body_that_is_not_all_here_is_not_coded() {
        let short = StoredBody::Many(Arc::from([Bytes::from(text(5000))]), 5001);
        for coding in Coding::ALL {
            assert_eq!(encode(&short, coding, || true).unwrap(), Encoded::Stopped, "{coding:?}");
        }
    }

    #[test]
    fn a_job_ends_when_it_is_told_to() {
        let body = StoredBody::One(Bytes::from(text(100_000)));
        for coding in Coding::ALL {
            let looks = Cell::new(0);
            let go_on = || looks.replace(looks.get() + 1) < 1;
            assert_eq!(encode(&body, coding, go_on).unwrap(), Encoded::Stopped, "{coding:?}");
        }
    }
}
