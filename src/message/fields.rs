//! Header fields at rest: those of a stored response, in one block of memory of exactly their size.
//!
//! A header map is made for being changed and asked; it takes a hundred bytes for a field and as
//! much again for room to grow. What only lies there, to be sent some day, is a row of names and
//! values, in which a usual name is a number:
//!
//! ```text
//! block    count  field ...
//! field    number + 1              length value       a usual name
//!          0  length name          length value       any other
//! ```
//!
//! Numbers and lengths take seven bits a byte, the lowest first, so nearly all of them one.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};

/// Names that are written as numbers, sorted.
static NAMES: [HeaderName; 64] = {
    const fn usual(name: &'static str) -> HeaderName {
        HeaderName::from_static(name)
    }
    [
        usual("accept-ch"),
        usual("accept-ranges"),
        usual("access-control-allow-credentials"),
        usual("access-control-allow-headers"),
        usual("access-control-allow-methods"),
        usual("access-control-allow-origin"),
        usual("access-control-expose-headers"),
        usual("access-control-max-age"),
        usual("age"),
        usual("allow"),
        usual("alt-svc"),
        usual("atoll-cache-control"),
        usual("cache-control"),
        usual("cache-groups"),
        usual("cache-tag"),
        usual("cdn-cache-control"),
        usual("content-digest"),
        usual("content-disposition"),
        usual("content-encoding"),
        usual("content-language"),
        usual("content-length"),
        usual("content-location"),
        usual("content-range"),
        usual("content-security-policy"),
        usual("content-security-policy-report-only"),
        usual("content-type"),
        usual("cross-origin-embedder-policy"),
        usual("cross-origin-opener-policy"),
        usual("cross-origin-resource-policy"),
        usual("date"),
        usual("edge-cache-tag"),
        usual("etag"),
        usual("expires"),
        usual("last-modified"),
        usual("link"),
        usual("location"),
        usual("nel"),
        usual("no-vary-search"),
        usual("origin-agent-cluster"),
        usual("p3p"),
        usual("permissions-policy"),
        usual("pragma"),
        usual("referrer-policy"),
        usual("report-to"),
        usual("reporting-endpoints"),
        usual("repr-digest"),
        usual("retry-after"),
        usual("server"),
        usual("server-timing"),
        usual("set-cookie"),
        usual("strict-transport-security"),
        usual("surrogate-control"),
        usual("surrogate-key"),
        usual("timing-allow-origin"),
        usual("vary"),
        usual("www-authenticate"),
        usual("x-content-type-options"),
        usual("x-dns-prefetch-control"),
        usual("x-frame-options"),
        usual("x-permitted-cross-domain-policies"),
        usual("x-powered-by"),
        usual("x-robots-tag"),
        usual("x-xss-protection"),
        usual("xkey"),
    ]
};

/// Header fields in a block of their own; immutable, and cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fields {
    block: Bytes,
}

impl Fields {
    /// A copy of `headers`, in their order, in memory of exactly its size.
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Self {
        let mut block = Vec::with_capacity(headers.len() * 40);
        put_number(headers.len(), &mut block);
        for (name, value) in headers {
            match NAMES.binary_search_by(|usual| usual.as_str().cmp(name.as_str())) {
                Ok(number) => put_number(number + 1, &mut block),
                Err(_) => {
                    put_number(0, &mut block);
                    put_bytes(name.as_str().as_bytes(), &mut block);
                }
            }
            put_bytes(value.as_bytes(), &mut block);
        }
        Self { block: Bytes::from(block.into_boxed_slice()) }
    }

    /// One after the other. Values are slices of the block.
    #[must_use]
    pub fn iter(&self) -> Iter<'_> {
        let mut iter = Iter { block: &self.block, at: 0, left: 0 };
        iter.left = iter.number().unwrap_or_default();
        iter
    }

    /// The bytes of each name and value, one after the other.
    #[must_use]
    pub fn lines(&self) -> Lines<'_> {
        Lines(self.iter())
    }

    /// As a map. Values are slices of the block, so nothing of them is copied.
    #[must_use]
    pub fn map(&self) -> HeaderMap {
        let fields = self.iter();
        // One more is usually added.
        let mut map = HeaderMap::with_capacity(fields.left + 4);
        for (name, value) in fields {
            map.append(name, value);
        }
        map
    }

    /// The first value of a field.
    #[must_use]
    pub fn get(&self, name: &HeaderName) -> Option<HeaderValue> {
        self.iter().find(|(other, _)| other == name).map(|(_, value)| value)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.iter().left
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The block as it lies there.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.block
    }

    /// Bytes that it takes besides itself.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.block.len()
    }
}

/// See [`Fields::lines`].
#[derive(Debug)]
pub struct Lines<'a>(Iter<'a>);

impl<'a> Iterator for Lines<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let fields = &mut self.0;
        let block = fields.block;
        fields.left = fields.left.checked_sub(1)?;
        let name = match fields.number()? {
            0 => block.get(fields.stretch()?)?,
            number => NAMES.get(number - 1)?.as_str().as_bytes(),
        };
        Some((name, block.get(fields.stretch()?)?))
    }
}

/// See [`Fields::iter`].
#[derive(Debug)]
pub struct Iter<'a> {
    block: &'a Bytes,
    at: usize,
    left: usize,
}

impl Iter<'_> {
    fn number(&mut self) -> Option<usize> {
        let mut number = 0_usize;
        for shift in (0..usize::BITS).step_by(7) {
            let byte = *self.block.get(self.at)?;
            self.at += 1;
            number |= usize::from(byte & 0x7f).checked_shl(shift)?;
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }

    /// Where the bytes lie that come next, behind their length.
    fn stretch(&mut self) -> Option<std::ops::Range<usize>> {
        let length = self.number()?;
        let start = self.at;
        self.at = start.checked_add(length).filter(|end| *end <= self.block.len())?;
        Some(start..self.at)
    }

    fn name(&mut self) -> Option<HeaderName> {
        match self.number()? {
            0 => {
                let stretch = self.stretch()?;
                HeaderName::from_lowercase(self.block.get(stretch)?).ok()
            }
            number => NAMES.get(number - 1).cloned(),
        }
    }
}

impl Iterator for Iter<'_> {
    type Item = (HeaderName, HeaderValue);

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let name = self.name()?;
        let stretch = self.stretch()?;
        // It was a field value before, so it is one again.
        let value = HeaderValue::from_maybe_shared(self.block.slice(stretch)).ok()?;
        Some((name, value))
    }
}

fn put_number(mut number: usize, out: &mut Vec<u8>) {
    while let Ok(low) = u8::try_from(number & 0x7f) {
        number >>= 7;
        if number == 0 {
            return out.push(low);
        }
        out.push(low | 0x80);
    }
}

fn put_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    put_number(bytes.len(), out);
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn map(fields: &[(String, Vec<u8>)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            map.append(name, HeaderValue::from_bytes(value).unwrap());
        }
        map
    }

    #[test]
    fn usual_names_are_sorted_and_each_is_there_once() {
        assert!(NAMES.windows(2).all(|two| two[0].as_str() < two[1].as_str()));
    }

    #[test]
    fn a_usual_response_takes_few_bytes_beside_its_values() {
        let names = ["server", "date", "content-type", "etag", "cache-control", "accept-ranges"];
        let fields: Vec<_> = names.map(|name| (name.to_owned(), vec![b'a'; 20])).into();
        let fields = Fields::of(&map(&fields));
        assert_eq!(fields.bytes(), 1 + names.len() * 22);
    }

    #[test]
    fn values_are_not_copied() {
        let fields = Fields::of(&map(&[("etag".to_owned(), b"\"abc\"".to_vec())]));
        let value = fields.get(&http::header::ETAG).unwrap();
        assert!(fields.block.as_ptr_range().contains(&value.as_bytes().as_ptr()));
        assert_eq!(fields.get(&http::header::DATE), None);
    }

    #[test]
    fn a_broken_block_ends_early() {
        let whole = Fields::of(&map(&[("x-a".to_owned(), vec![b'a'; 300])]));
        for length in 0..whole.block.len() {
            let broken = Fields { block: whole.block.slice(..length) };
            assert_eq!(broken.iter().count(), 0, "{length}");
        }
        let number = Fields { block: Bytes::from_static(&[0xff; 20]) };
        assert_eq!(number.iter().count(), 0);
    }

    proptest! {
        #[test]
        fn what_is_put_in_comes_out(
            fields in proptest::collection::vec(
                (
                    prop_oneof![
                        (0..NAMES.len()).prop_map(|at| NAMES[at].as_str().to_owned()),
                        "[a-z][a-z0-9-]{0,160}",
                    ],
                    proptest::collection::vec(
                        prop_oneof![Just(b'\t'), 32..127_u8, 128..=255_u8],
                        0..300,
                    ),
                ),
                0..30,
            ),
        ) {
            let map = map(&fields);
            let fields = Fields::of(&map);
            prop_assert_eq!(&fields.map(), &map);
            let row = |map: &HeaderMap| -> Vec<_> {
                map.iter().map(|(name, value)| (name.clone(), value.clone())).collect()
            };
            prop_assert_eq!(fields.iter().collect::<Vec<_>>(), row(&map));
            prop_assert_eq!(row(&fields.map()), row(&map), "in the same order");
            let lines: Vec<_> = fields.lines().collect();
            let own: Vec<_> =
                map.iter().map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes())).collect();
            prop_assert_eq!(lines, own);
            for name in map.keys() {
                prop_assert_eq!(fields.get(name), map.get(name).cloned());
            }
        }
    }
}
