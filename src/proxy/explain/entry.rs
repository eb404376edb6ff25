//! What is stored under a URL, all of it: every variant, incomplete responses, and the pieces that
//! hang on each. Made of the same facts as an explanation.

use super::Subject;
use super::facts;
use crate::clock::Now;
use crate::message::{Refusal, RequestHead};
use crate::proxy::Edge;
use crate::semantics::{CacheKey, Coding, Explanation, Facts, apply_key_policy, normalise};
use crate::store::{Head, Kept, PieceName, PieceSum, Stored};

/// Segments of one body that are looked for. More of them are not counted.
const SEGMENTS: u64 = 4096;
/// Header fields of a stored response that are told.
const TOLD: [(&str, &str); 4] = [
    ("content_type", "content-type"),
    ("content_encoding", "content-encoding"),
    ("etag", "etag"),
    ("last_modified", "last-modified"),
];

impl Edge {
    /// What is stored under the URL of a request, with the fields that are in the key. Changes
    /// nothing.
    ///
    /// # Errors
    /// Why no client could ask for it.
    pub fn entry(&self, head: RequestHead, now: Now) -> Result<Explanation, Refusal> {
        let mut request = normalise(head)?;
        let site = self.routes.site(&request.host).ok_or(Refusal::UnknownHost)?;
        let policy = self.routes.policy(site, &request.path);
        apply_key_policy(&mut request, policy);
        let key = CacheKey::of(self.store.secret(), self.site_name(site), &request, policy);
        let subject = Subject { request: &request, site, policy, key: &key, body: false };
        let epoch = self.purges.epoch();
        let fields = &request.headers;
        let peek = self.store.peek(&key, fields, &self.purges, epoch);
        let parts = self.store.peek_parts(&key, fields, &self.purges, epoch);
        let fill_key = self.store.fill_key(&key, fields);
        let mut told = Explanation::default();
        told.add("site", self.site_facts(site, policy));
        told.add("key", facts::key(self.site_name(site), &subject, &peek));
        let rows = |kept: &[Kept]| kept.iter().map(|kept| self.whole_facts(kept, now)).collect();
        told.add_all("stored", rows(&peek.kept));
        told.add_all("parts", rows(&parts));
        if let Some(remembered) = self.store.uncacheable(fill_key, now.boot) {
            told.add("uncacheable", facts::uncacheable(&remembered, now));
        }
        if let Some(fill) = self.fills.peek(fill_key) {
            told.add("fill", facts::fill(&fill));
        }
        Ok(told)
    }

    /// One response with all that belongs to it.
    fn whole_facts(&self, kept: &Kept, now: Now) -> Facts {
        let stored = &*kept.stored;
        let head = stored.head();
        let terms = &head.terms;
        let tags = self.tags_of(stored);
        let told = self
            .kept_facts(kept, now)
            .with_some("tag_names", (!tags.is_empty()).then(|| tags.join(", ")))
            .with("source", terms.source.label())
            .with("lifetime_seconds", terms.lifetime)
            .with("stale_while_revalidate_seconds", terms.stale_while_revalidate)
            .with("stale_if_error_seconds", terms.stale_if_error);
        let fields = head.fields.map();
        let told = TOLD.iter().fold(told, |told, (name, field)| {
            let value = fields.get(*field);
            told.with_some(name, value.map(|v| String::from_utf8_lossy(v.as_bytes()).into_owned()))
        });
        with_extent(self.with_pieces(told, head), stored)
    }

    /// Adds what lies beside a response in pieces of its own.
    fn with_pieces(&self, told: Facts, head: &Head) -> Facts {
        let sum = |names: &mut dyn Iterator<Item = PieceName>| self.store.piece_sum(head, names);
        let coded = |coding: &Coding| sum(&mut std::iter::once(PieceName::Coding(coding.number())));
        let codings: Vec<String> = Coding::ALL
            .iter()
            .map(|coding| (coding, coded(coding)))
            .filter(|(_, sum)| sum.count > 0)
            .map(|(coding, sum)| format!("{} ({} bytes)", coding.name(), sum.bytes))
            .collect();
        let PieceSum { count, bytes } = sum(&mut (0..SEGMENTS).map(PieceName::Segment));
        told.with_some("codings", (!codings.is_empty()).then(|| codings.join(", ")))
            .with_some("segments", (count > 0).then_some(count))
            .with_some("segment_bytes", (count > 0).then_some(bytes))
    }
}

/// Adds which bytes of the whole an incomplete response has.
fn with_extent(told: Facts, stored: &Stored) -> Facts {
    let Some(extent) = stored.extent() else { return told };
    let ranges = extent.ranges();
    told.with_some("ranges", (!ranges.is_empty()).then_some(ranges))
        .with_some("total_bytes", extent.total())
}
