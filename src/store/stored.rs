//! A stored response: its head with all that decides its fate, and its body.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, StatusCode};

use super::memory::{Accounted, allocated};
use super::pieces::{Piece, draw_lineage};
use super::uses::Uses;
use super::variants::Variants;
use crate::clock::Now;
use crate::message::{Blocks, Body, Fields};
use crate::purge::{Bearer, Found, Selectors};
use crate::semantics::{CacheKey, Extent, KeySecret, Segments, Terms, VaryFields, is_plain};

/// What the store's map itself takes for an entry, measured: two list nodes, bucket, counters.
pub(super) const ENTRY_BYTES: u64 = 320;

/// What a block of bytes takes besides itself once it has several holders.
const SHARED_BYTES: usize = 24;

/// Fields of a [`Head`] that its maker knows.
#[derive(Clone, Debug)]
pub struct NewHead {
    /// Full cache key.
    pub key: CacheKey,
    /// Fields that `Vary` names.
    pub vary: Option<Arc<VaryFields>>,
    /// Normalised values of those fields in the request that was answered.
    pub secondary: Box<[u8]>,
    /// Status.
    pub status: StatusCode,
    /// Fields to keep; they are copied.
    pub headers: HeaderMap,
    /// Terms of reuse.
    pub terms: Terms,
    /// Rows of the purge table that it answers to.
    pub selectors: Selectors,
    /// Epoch before its request to the origin was sent.
    pub born: u64,
    /// Number of the fill on this node, for jitter and logs.
    pub fill: u64,
    /// Lineage of the head that it confirms, whose body and pieces it takes over; `None` draws a
    /// new one.
    pub lineage: Option<u64>,
}

/// Head of a stored or arriving response. Immutable but for what purges have said of it.
#[derive(Debug)]
pub struct Head {
    /// Full cache key.
    pub key: CacheKey,
    /// Fields that `Vary` names.
    pub vary: Option<Arc<VaryFields>>,
    secondary: Box<[u8]>,
    /// Status.
    pub status: StatusCode,
    /// Fields.
    pub fields: Fields,
    /// Terms of reuse.
    pub terms: Terms,
    /// What it answers to in the purge table, with the key: see [`Head::bearer`].
    pub selectors: Selectors,
    /// Epoch before its request to the origin was sent.
    pub born: u64,
    /// Number of the fill on this node.
    pub fill: u64,
    /// Number of the representation's bytes: no other has it, a confirmed head keeps it. The pieces
    /// of a response are found by it.
    pub lineage: u64,
    /// An answer only adds to its fields: see [`is_plain`].
    pub is_plain: bool,
    has_pieces: AtomicBool,
    pub(super) checked: AtomicU64,
    must_check: AtomicBool,
    /// Moment of the newest soft purge on the boot clock in nanoseconds, plus one; 0 means none.
    soft_at: AtomicU64,
    /// Moment on the boot clock, in milliseconds, from which a background refresh may begin.
    refresh_from: AtomicU64,
}

impl Head {
    /// A head in memory of its own: what it was made from may be slices of large read buffers.
    #[must_use]
    pub fn new(new: NewHead) -> Self {
        let fields = Fields::of(&new.headers);
        let mut terms = new.terms;
        // As it came it is a slice of a read buffer, which it would keep alive.
        terms.etag = terms.etag.and_then(|etag| {
            let kept = fields.get(&http::header::ETAG);
            kept.filter(|kept| *kept == etag)
                .or_else(|| HeaderValue::from_bytes(etag.as_bytes()).ok())
        });
        Self {
            checked: AtomicU64::new(new.born),
            must_check: AtomicBool::new(false),
            soft_at: AtomicU64::new(0),
            refresh_from: AtomicU64::new(0),
            fields,
            is_plain: is_plain(new.status, &new.headers, &terms),
            selectors: new.selectors.beside(&new.key),
            key: new.key,
            vary: new.vary,
            secondary: new.secondary,
            status: new.status,
            terms,
            born: new.born,
            fill: new.fill,
            has_pieces: AtomicBool::new(new.lineage.is_some()),
            lineage: new.lineage.unwrap_or_else(draw_lineage),
        }
    }

    /// Hash under which this variant is stored.
    #[must_use]
    pub fn variant_hash(&self, secret: KeySecret) -> u128 {
        self.key.variant(secret, &self.secondary)
    }

    /// Whether a request with these fields selects this response (RFC 9111 section 4.1).
    #[must_use]
    pub fn is_selected_by(&self, request: &HeaderMap) -> bool {
        match &self.vary {
            None => true,
            Some(fields) => *fields.secondary(request) == *self.secondary,
        }
    }

    /// Normalised values of the fields that `Vary` names, in the request that it answered.
    #[must_use]
    pub fn secondary(&self) -> &[u8] {
        &self.secondary
    }

    /// Whether it is the variant with these values of these fields.
    #[must_use]
    pub(super) fn is_variant(&self, fields: &VaryFields, secondary: &[u8]) -> bool {
        self.vary.as_deref() == Some(fields) && *self.secondary == *secondary
    }

    /// What else it may be found under besides its exact values: see
    /// [`VaryFields::secondary_in_language`].
    #[must_use]
    pub(super) fn secondary_in_language(&self) -> Option<Vec<u8>> {
        self.vary.as_ref()?.secondary_in_language(&self.secondary, &self.fields.map())
    }

    /// Notes that a piece of it is stored.
    pub(super) fn note_pieces(&self) {
        self.has_pieces.store(true, Ordering::Release);
    }

    /// Whether pieces of it may be stored; one that confirms another may have those of that.
    pub(super) fn may_have_pieces(&self) -> bool {
        self.has_pieces.load(Ordering::Acquire)
    }

    /// Epoch up to which it is known to be alive.
    #[must_use]
    pub(super) fn checked(&self) -> u64 {
        self.checked.load(Ordering::Acquire)
    }

    /// What it answers to in the purge table.
    #[must_use]
    pub fn bearer(&self) -> Bearer<'_> {
        self.selectors.bearer(Some(&self.key))
    }

    /// Notes the verdict of rows that may be dropped later.
    pub(super) fn mark(&self, found: Found) {
        if found.check {
            self.must_check.store(true, Ordering::Release);
        }
        if let Some(at) = found.soft_at {
            let at = u64::try_from(at.as_nanos()).unwrap_or(u64::MAX - 1) + 1;
            self.soft_at.fetch_max(at, Ordering::AcqRel);
        }
    }

    pub(super) fn must_check(&self) -> bool {
        self.must_check.load(Ordering::Acquire)
    }

    pub(super) fn soft_at(&self) -> Option<Duration> {
        match self.soft_at.load(Ordering::Acquire) {
            0 => None,
            at => Some(Duration::from_nanos(at - 1)),
        }
    }

    /// Seconds of freshness left, negative when stale; a soft purge ends freshness at its moment.
    #[must_use]
    pub fn ttl(&self, now: Now) -> i64 {
        let by_age = self.terms.ttl(now);
        self.soft_at().map_or(by_age, |at| {
            let stale = now.boot.saturating_sub(at).as_secs();
            by_age.min(-i64::try_from(stale).unwrap_or(i64::MAX))
        })
    }

    /// Lets it be stale from `at` on: something else than a purge told that it is out of date.
    pub fn make_stale(&self, at: Duration) {
        self.mark(Found { soft_at: Some(at), ..Found::default() });
    }

    /// Claims the background refresh of this response; `false` if another has it or one failed
    /// a moment ago. A claim whose holder vanished ends by itself.
    pub fn claim_refresh(&self, now: Duration) -> bool {
        let from = self.refresh_from.load(Ordering::Acquire);
        let until = millis(now + CLAIM_TIME);
        millis(now) >= from
            && self
                .refresh_from
                .compare_exchange(from, until, Ordering::AcqRel, Ordering::Acquire)
                .is_ok()
    }

    /// Gives the claim back after a refresh that brought nothing; the next may begin soon.
    pub fn release_refresh(&self, now: Duration) {
        self.refresh_from.store(millis(now + RETRY_TIME), Ordering::Release);
    }
}

/// Longest time that a claim of the background refresh lasts.
const CLAIM_TIME: Duration = Duration::from_secs(60);
/// Time from a failed background refresh to the next.
const RETRY_TIME: Duration = Duration::from_secs(1);

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// A body at rest.
#[derive(Clone, Debug)]
pub enum StoredBody {
    /// In one exact-size piece.
    One(Bytes),
    /// In several.
    Many(Arc<[Bytes]>, u64),
    /// In pieces of their own, some of which may not be there: whoever reads it asks the store
    /// and the origin for one after the other.
    Segmented(Segments),
}

/// Chunks below this average size are joined when a body comes to rest.
const SMALL_CHUNK_BYTES: u64 = 16 * 1024;
/// Size of the blocks they are joined to.
const BLOCK_BYTES: usize = 64 * 1024;

impl StoredBody {
    /// A body of chunks that each have memory of their own.
    #[must_use]
    pub fn of(chunks: &[Bytes]) -> Self {
        let length: u64 = chunks.iter().map(|chunk| chunk.len() as u64).sum();
        match chunks {
            [] => Self::One(Bytes::new()),
            [only] => Self::One(only.clone()),
            _ if length <= BLOCK_BYTES as u64 => Self::One(join(chunks, length)),
            _ if length / chunks.len() as u64 >= SMALL_CHUNK_BYTES => {
                Self::Many(Arc::from(chunks), length)
            }
            _ => Self::Many(rejoin(chunks), length),
        }
    }

    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        match self {
            Self::One(bytes) => bytes.len() as u64,
            Self::Many(_, length) => *length,
            Self::Segmented(segments) => segments.total(),
        }
    }

    /// Whether there are no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How it is cut, where its bytes are pieces of their own.
    #[must_use]
    pub fn segments(&self) -> Option<Segments> {
        match self {
            Self::One(_) | Self::Many(..) => None,
            Self::Segmented(segments) => Some(*segments),
        }
    }

    /// Bytes that it holds itself: none of those that are pieces of their own.
    #[must_use]
    pub fn held_bytes(&self) -> u64 {
        if self.segments().is_some() { 0 } else { self.len() }
    }

    /// All of it, to be sent. One in segments has no bytes of its own and breaks off at once.
    #[must_use]
    pub fn whole(&self) -> Body {
        match self {
            Self::One(bytes) => Body::from(bytes.clone()),
            Self::Many(blocks, length) => Body::Blocks(Blocks::new(Arc::clone(blocks), 0, *length)),
            Self::Segmented(segments) => Body::broken(segments.total()),
        }
    }

    /// A range of it, to be sent. One in segments has no bytes of its own and breaks off at once.
    #[must_use]
    pub fn range(&self, start: u64, length: u64) -> Body {
        match self {
            Self::One(bytes) => {
                let from = usize::try_from(start).unwrap_or(usize::MAX).min(bytes.len());
                let most = bytes.len() - from;
                let length = usize::try_from(length).unwrap_or(usize::MAX).min(most);
                Body::from(bytes.slice(from..from + length))
            }
            Self::Many(blocks, _) => Body::Blocks(Blocks::new(Arc::clone(blocks), start, length)),
            Self::Segmented(_) => Body::broken(length),
        }
    }

    /// A range of it, each chunk in memory of its own: nothing of the rest is kept alive. Only what
    /// it holds itself.
    #[must_use]
    pub fn cut(&self, start: u64, length: u64) -> Vec<Bytes> {
        let blocks = match self {
            Self::One(bytes) => std::slice::from_ref(bytes),
            Self::Many(blocks, _) => blocks,
            Self::Segmented(_) => &[],
        };
        let (mut skip, mut left) = (start, length);
        let mut out = Vec::new();
        for block in blocks {
            let Ok(from) = usize::try_from(skip) else { break };
            if from >= block.len() {
                skip -= block.len() as u64;
                continue;
            }
            skip = 0;
            let rest = block.slice(from..);
            let take = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
            if take == 0 {
                break;
            }
            left -= take as u64;
            out.push(match take == block.len() {
                true => rest,
                false => Bytes::copy_from_slice(&rest.slice(..take)),
            });
        }
        out
    }

    pub(super) fn allocated(&self) -> u64 {
        match self {
            Self::One(bytes) if bytes.is_empty() => 0,
            Self::One(bytes) => allocated(bytes.len()) + allocated(SHARED_BYTES),
            Self::Many(blocks, _) => blocks.iter().map(|block| allocated(block.len()) + 32).sum(),
            Self::Segmented(_) => 0,
        }
    }
}

fn join(chunks: &[Bytes], length: u64) -> Bytes {
    let mut all = Vec::with_capacity(usize::try_from(length).unwrap_or(0));
    for chunk in chunks {
        all.extend_from_slice(chunk);
    }
    Bytes::from(all.into_boxed_slice())
}

fn rejoin(chunks: &[Bytes]) -> Arc<[Bytes]> {
    let mut blocks = Vec::new();
    let mut open = BytesMut::with_capacity(BLOCK_BYTES);
    for chunk in chunks {
        let mut rest = chunk.as_ref();
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rest.len().min(BLOCK_BYTES - open.len()));
            open.extend_from_slice(now);
            rest = later;
            if open.len() == BLOCK_BYTES {
                blocks.push(Bytes::copy_from_slice(&open));
                open.clear();
            }
        }
    }
    if !open.is_empty() {
        blocks.push(Bytes::copy_from_slice(&open));
    }
    Arc::from(blocks)
}

/// A response at rest in the store.
#[derive(Debug)]
pub struct Stored {
    head: Arc<Head>,
    body: StoredBody,
    /// What it has of the whole, where it is incomplete.
    extent: Option<Arc<Extent>>,
    uses: Uses,
    #[cfg(debug_assertions)]
    checksum: u128,
    accounted: Accounted,
}

impl Stored {
    pub(super) fn new(
        head: Arc<Head>,
        body: StoredBody,
        extent: Option<Arc<Extent>>,
        accounted: Accounted,
    ) -> Self {
        Self {
            #[cfg(debug_assertions)]
            checksum: super::checksum::checksum(&head, &body),
            head,
            body,
            extent,
            uses: Uses::default(),
            accounted,
        }
    }

    /// Whether it is what was stored; looked at in debug builds only.
    #[cfg(debug_assertions)]
    pub(super) fn is_intact(&self) -> bool {
        super::checksum::checksum(&self.head, &self.body) == self.checksum
    }

    /// The same response with another head, as if memory had changed.
    #[cfg(all(test, debug_assertions))]
    pub(super) fn changed(mut self, head: Arc<Head>) -> Self {
        self.head = head;
        self
    }

    /// What it has of the whole, where it is incomplete.
    #[must_use]
    pub fn extent(&self) -> Option<&Arc<Extent>> {
        self.extent.as_ref()
    }

    /// Its head.
    #[must_use]
    pub fn head(&self) -> &Arc<Head> {
        &self.head
    }

    /// All of its body, to be sent; its memory counts until that is done.
    #[must_use]
    pub fn whole(self: &Arc<Self>) -> Body {
        self.body.whole().held_by(self)
    }

    /// A range of its body, to be sent; its memory counts until that is done.
    #[must_use]
    pub fn range(self: &Arc<Self>, start: u64, length: u64) -> Body {
        self.body.range(start, length).held_by(self)
    }

    /// Its body.
    #[must_use]
    pub fn body(&self) -> &StoredBody {
        &self.body
    }

    /// Bytes that it takes in memory, bookkeeping included.
    #[must_use]
    pub fn weight(&self) -> u64 {
        self.accounted.bytes()
    }

    /// Counts one use by a request that came at `now`.
    #[inline]
    pub fn note_use(&self, now: Now) {
        self.uses.note(now.boot);
    }

    /// Requests per second that it served over the last minute.
    #[must_use]
    pub fn uses_per_second(&self, now: Now) -> f64 {
        self.uses.per_second(now.boot)
    }

    /// Notes that it is about to be put into the store.
    pub(super) fn shelve(self: &Arc<Self>) {
        self.accounted.shelve(self);
    }

    /// Notes that it was taken out of the store, or not let in.
    pub(super) fn unshelve(&self) {
        self.accounted.unshelve();
    }

    /// Whether it is in the store, unless it was evicted.
    pub(super) fn is_shelved(&self) -> bool {
        self.accounted.is_shelved()
    }

    /// Its size class, the one that alone can hold it.
    pub(super) fn class(&self) -> usize {
        self.accounted.class()
    }

    /// Takes the place of another under the same key, and goes on with its uses.
    pub(super) fn replace(&self, other: &Self) {
        self.uses.take_over(&other.uses);
        other.unshelve();
    }
}

/// What lies under a key of the store.
#[derive(Clone, Debug)]
pub(super) enum Slot {
    /// A response.
    Response(Arc<Stored>),
    /// The variants of a key.
    Variants(Arc<Variants>),
    /// A piece of a response.
    Piece(Arc<Piece>),
}

impl Slot {
    /// Notes that it was taken out of the store.
    pub(super) fn unshelve(&self) {
        match self {
            Self::Response(stored) => stored.unshelve(),
            Self::Piece(piece) => piece.unshelve(),
            Self::Variants(_) => {}
        }
    }

    pub(super) fn weight(&self) -> u32 {
        let bytes = match self {
            Self::Response(stored) => stored.weight(),
            Self::Variants(variants) => variants.bytes() + ENTRY_BYTES,
            Self::Piece(piece) => piece.weight(),
        };
        u32::try_from(bytes).unwrap_or(u32::MAX)
    }
}

/// Bytes that a response takes in memory, bookkeeping included.
pub(super) fn weight(head: &Head, body: &StoredBody) -> u64 {
    // A block that was handed out once has a count of its holders.
    let fields = allocated(head.fields.bytes()) + allocated(SHARED_BYTES);
    let parts = allocated(head.key.parts.len()) + allocated(head.secondary.len());
    let rows: u64 = head.selectors.sizes().into_iter().map(allocated).sum();
    allocated(size_of::<Head>() + 16)
        + allocated(size_of::<Stored>() + 16)
        + fields
        + parts
        + rows
        + body.allocated()
        + ENTRY_BYTES
}
