//! Fills under way: what is arriving from an origin, readable while it arrives.
//!
//! One fill per key at a time. The first request for a key starts it, everyone who asks meanwhile
//! reads along at their own pace: head first, then the chunks. The writer is a task of its own, so
//! the client that started it may leave.
//!
//! ```text
//! Open --head--> Streaming --complete--> Complete (and in the store)
//!   |                |
//!   |                '-----fail--------> Broken    readers are cut off visibly
//!   '--not storable / failed / void----> the waiters are told which
//! ```
//!
//! How a fill ends is a state that its writer sets. A writer that vanishes, by a panic or a
//! dropped task, sets `Broken`: an absent writer is never taken for a clean end.

mod passing;
mod peek;
mod read;
mod room;

use std::collections::HashMap;
use std::future::poll_fn;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Poll, Waker};

use bytes::Bytes;

pub use passing::Passing;
pub use peek::UnderWay;
pub use read::FillBody;
use read::Slot;
pub use room::Room;

use super::stored::{Head, Stored, StoredBody};
use crate::message::BodyError;

use crate::semantics::{NotStored, Segments};

/// Shards of the table: fills of different keys seldom meet on one lock.
const SHARDS: usize = 64;

/// Bytes kept of one body while all bodies together take too much.
const SHORT_BYTES: u64 = 1024 * 1024;

/// Bounds on what is arriving.
#[derive(Clone, Copy, Debug)]
pub struct FillLimits {
    /// Fills at once.
    pub fills: usize,
    /// Bytes of all arriving bodies together.
    pub bytes: u64,
    /// Bytes kept of one body.
    pub body_bytes: u64,
}

/// All fills under way, by the key under which they are shared.
#[derive(Debug)]
pub struct Fills {
    shards: Vec<Mutex<HashMap<u128, Arc<Fill>>>>,
    limits: FillLimits,
    open: AtomicUsize,
    bytes: AtomicU64,
    /// Those of `bytes` that are copied while they pass.
    copied: AtomicU64,
    /// Requests whose answers may be kept though they are not fills, by primary key.
    passing: Mutex<HashMap<u128, usize>>,
    started: AtomicU64,
    /// Readers of all fills.
    readers: Arc<AtomicUsize>,
}

/// What came of asking for a fill.
#[derive(Debug)]
pub enum Claim {
    /// A fill is under way; read along.
    Joined(Arc<Fill>),
    /// There was none; this is the writer of a new one.
    Started(FillWriter),
    /// The one that is under way began before the request came, and may not answer it: wait for
    /// what becomes of it, then share the next one.
    Early(Arc<Fill>),
    /// There is no room for another: go alone.
    Full,
}

/// What a request asks of the fill that it joins.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wish<'a> {
    /// One that it cannot use, or has waited for: if that is still the fill of the key, a new one
    /// takes its place.
    pub instead_of: Option<&'a Arc<Fill>>,
    /// The least number of a fill that may answer: that of the next one when the request had come,
    /// where only what left afterwards may.
    pub since: Option<u64>,
}

/// What waiters learn when the head of a fill is there.
#[derive(Clone, Debug)]
pub enum Arrived {
    /// A response that may be shared.
    Head(FillHead),
    /// The answer is not to be shared; it belongs to the request that started the fill.
    Private(NotStored),
    /// The origin gave no answer; status and word for everyone who waited.
    Failed(http::StatusCode, &'static str),
    /// The writer found an answer in the store, or is gone: look again.
    Void,
}

/// Head of an arriving response.
#[derive(Clone, Debug)]
pub struct FillHead {
    /// The head, with the terms and purge fate that the stored response will have.
    pub head: Arc<Head>,
    /// Length of the body, where it is known.
    pub length: Option<u64>,
    /// The origin confirmed what was stored (304) rather than sending it anew.
    pub confirmed: bool,
    /// How the body is cut, where its bytes come in fills of their own and not in this one.
    pub segments: Option<Segments>,
}

/// How a fill ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FillEnd {
    /// The whole body is there.
    Complete,
    /// It broke off.
    Broken(BodyError),
}

/// One fill under way, as its readers see it.
#[derive(Debug)]
pub struct Fill {
    key: u128,
    /// Key of its variant, once it is known.
    variant: OnceLock<u128>,
    /// Primary key of what it brings, before `Vary` and whatever else it is listed under.
    primary: OnceLock<u128>,
    /// Epoch before its request to the origin was sent.
    pub born: u64,
    /// Its number on this node.
    pub number: u64,
    /// Readers of all fills.
    readers: Arc<AtomicUsize>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    arrived: Option<Arrived>,
    chunks: Vec<Bytes>,
    /// Chunks dropped from the front because the body is too large to keep.
    dropped: usize,
    kept_bytes: u64,
    arrived_bytes: u64,
    read_bytes: u64,
    outgrown: bool,
    end: Option<FillEnd>,
    /// What it has brought into the store: accounted for as long as somebody reads along.
    stored: Option<Arc<Stored>>,
    readers: usize,
    wakers: Vec<Option<Waker>>,
    /// Places in `wakers` whose readers have left.
    free: Vec<usize>,
    writer: Option<Waker>,
}

impl State {
    fn wake_readers(&mut self) -> Vec<Waker> {
        self.wakers.iter_mut().filter_map(Option::take).collect()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change under these locks is complete in itself: a panic elsewhere leaves them usable.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Fills {
    /// An empty table.
    #[must_use]
    pub fn new(limits: FillLimits) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            limits,
            open: AtomicUsize::new(0),
            bytes: AtomicU64::new(0),
            copied: AtomicU64::new(0),
            passing: Mutex::default(),
            // What passes bears the number before that of the next one, and there must be one.
            started: AtomicU64::new(1),
            readers: Arc::default(),
        }
    }

    /// Fills under way.
    #[must_use]
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Readers of all fills, those that wait for a head included.
    #[must_use]
    pub fn readers(&self) -> usize {
        self.readers.load(Ordering::Acquire)
    }

    /// Bytes of all arriving bodies.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Joins the fill of a key, or starts one born at `born`.
    #[must_use]
    pub fn join_or_start(self: &Arc<Self>, key: u128, born: u64) -> Claim {
        self.claim(key, born, Wish::default())
    }

    /// Whether a fill of this key is under way.
    #[must_use]
    pub fn is_open(&self, key: u128) -> bool {
        self.shard(key).is_some_and(|shard| lock(shard).contains_key(&key))
    }

    /// Whether anything under way may bring something for this primary key, whichever variant or
    /// part. Looks at all fills: for changes, which are few.
    #[must_use]
    pub fn concern(&self, primary: u128) -> bool {
        let concerns = |fill: &Arc<Fill>| {
            fill.key == primary || fill.primary.get().is_some_and(|own| *own == primary)
        };
        self.is_passing(primary)
            || self.shards.iter().any(|shard| lock(shard).values().any(concerns))
    }

    /// Heads that have arrived, and the epoch of the oldest fill that has none yet; for the sweep.
    #[must_use]
    pub fn heads(&self) -> (Vec<Arc<Head>>, Option<u64>) {
        let (mut heads, mut oldest) = (Vec::new(), None);
        for shard in &self.shards {
            for fill in lock(shard).values() {
                match &lock(&fill.state).arrived {
                    Some(Arrived::Head(arrived)) => heads.push(Arc::clone(&arrived.head)),
                    Some(_) => {}
                    None => {
                        oldest = Some(oldest.map_or(fill.born, |born: u64| born.min(fill.born)))
                    }
                }
            }
        }
        (heads, oldest)
    }

    /// Number that the next fill will bear: a fill with this number or a later one began after
    /// this was asked.
    #[must_use]
    pub fn next_number(&self) -> u64 {
        self.started.load(Ordering::Acquire)
    }

    /// As [`Fills::join_or_start`], for one who cannot use every fill.
    #[must_use]
    pub fn claim(self: &Arc<Self>, key: u128, born: u64, wish: Wish<'_>) -> Claim {
        let Some(shard) = self.shard(key) else { return Claim::Full };
        let mut shard = lock(shard);
        if let Some(there) = shard.get(&key)
            && wish.instead_of.is_none_or(|unusable| !Arc::ptr_eq(unusable, there))
        {
            return match wish.since {
                Some(since) if there.number < since => Claim::Early(Arc::clone(there)),
                _ => Claim::Joined(Arc::clone(there)),
            };
        }
        if self.is_full() {
            return Claim::Full;
        }
        let number = self.started.fetch_add(1, Ordering::AcqRel);
        let fill = Arc::new(Fill {
            key,
            variant: OnceLock::new(),
            primary: OnceLock::new(),
            born,
            number,
            readers: Arc::clone(&self.readers),
            state: Mutex::default(),
        });
        shard.insert(key, Arc::clone(&fill));
        self.open.fetch_add(1, Ordering::Relaxed);
        Claim::Started(FillWriter { fill, fills: Arc::clone(self), done: false })
    }

    fn forget(&self, fill: &Arc<Fill>) {
        for key in [Some(&fill.key), fill.variant.get()].into_iter().flatten() {
            let Some(shard) = self.shard(*key) else { continue };
            let mut shard = lock(shard);
            if shard.get(key).is_some_and(|there| Arc::ptr_eq(there, fill)) {
                shard.remove(key);
            }
        }
    }

    fn shard(&self, key: u128) -> Option<&Mutex<HashMap<u128, Arc<Fill>>>> {
        self.shards.get(usize::try_from(key % SHARDS as u128).unwrap_or(0))
    }
}

impl Fill {
    /// Notes the primary key of what it brings. To be called before its request is sent.
    pub fn belongs_to(&self, primary: u128) {
        let _ = self.primary.set(primary);
    }

    /// Waits for the head.
    pub async fn arrived(self: &Arc<Self>) -> Arrived {
        let mut slot = Slot::new(Arc::clone(self));
        poll_fn(|context| {
            let mut state = lock(&self.state);
            match &state.arrived {
                Some(arrived) => Poll::Ready(arrived.clone()),
                None => {
                    slot.wait(&mut state, context);
                    Poll::Pending
                }
            }
        })
        .await
    }

    /// A body that reads along from byte `start` on, `length` bytes or to the end.
    #[must_use]
    pub fn read(self: &Arc<Self>, start: u64, length: Option<u64>) -> FillBody {
        FillBody::new(Arc::clone(self), start, length)
    }

    /// Waits until the whole body is there or has broken off.
    pub async fn ended(self: &Arc<Self>) -> FillEnd {
        let mut slot = Slot::new(Arc::clone(self));
        poll_fn(|context| {
            let mut state = lock(&self.state);
            match &state.end {
                Some(end) => Poll::Ready(end.clone()),
                None => {
                    slot.wait(&mut state, context);
                    Poll::Pending
                }
            }
        })
        .await
    }
}

/// The one that writes a fill. Dropped before its end, it breaks the fill off.
#[derive(Debug)]
pub struct FillWriter {
    fill: Arc<Fill>,
    fills: Arc<Fills>,
    done: bool,
}

impl FillWriter {
    /// The fill.
    #[must_use]
    pub fn fill(&self) -> &Arc<Fill> {
        &self.fill
    }

    /// Lists the fill under the key of its variant, too, so that requests which select it find it
    /// while those for other variants start fills of their own. To be called before the head is
    /// published. Where a fill of that variant is under way already, that one stays.
    pub fn varies(&self, variant: u128) {
        if let Some(shard) = self.fills.shard(variant)
            && self.fill.variant.set(variant).is_ok()
        {
            lock(shard).entry(variant).or_insert_with(|| Arc::clone(&self.fill));
        }
    }

    /// Publishes the head.
    pub fn head(&self, head: FillHead) {
        self.announce(Arrived::Head(head));
    }

    /// Tells the waiters that the answer is not theirs, or that there is none, and ends.
    pub fn dismiss(mut self, why: Arrived) {
        self.fills.forget(&self.fill);
        self.announce(why);
        self.end(FillEnd::Broken(BodyError::Cancelled));
    }

    /// Publishes a chunk, in memory of its own. A body that grows beyond what is kept goes on at
    /// the pace of its fastest reader; one that lags behind what is kept is cut off.
    ///
    /// # Errors
    /// When such a body has no reader left.
    pub async fn push(&self, chunk: &[u8]) -> Result<(), BodyError> {
        if chunk.is_empty() {
            return Ok(());
        }
        let limits = self.fills.limits;
        let short = self.fills.bytes() >= limits.bytes;
        let most = if short { limits.body_bytes.min(SHORT_BYTES) } else { limits.body_bytes };
        let size = chunk.len() as u64;
        poll_fn(|context| {
            let mut state = lock(&self.fill.state);
            if state.arrived_bytes + size <= most {
                return Poll::Ready(Ok(()));
            }
            if state.readers == 0 {
                return Poll::Ready(Err(BodyError::Cancelled));
            }
            if state.read_bytes + most >= state.arrived_bytes + size {
                return Poll::Ready(Ok(()));
            }
            state.writer = Some(context.waker().clone());
            Poll::Pending
        })
        .await?;
        self.append(Bytes::copy_from_slice(chunk), most);
        Ok(())
    }

    /// Whether the body has grown beyond what is kept.
    #[must_use]
    pub fn outgrown(&self) -> bool {
        lock(&self.fill.state).outgrown
    }

    /// The whole body, where all of it was kept.
    #[must_use]
    pub fn body(&self) -> Option<StoredBody> {
        let state = lock(&self.fill.state);
        (!state.outgrown).then(|| StoredBody::of(&state.chunks))
    }

    /// Takes over a body that is at rest already: the origin confirmed it.
    pub fn adopt(&self, body: &StoredBody) {
        match body {
            StoredBody::One(bytes) if bytes.is_empty() => {}
            StoredBody::One(bytes) => self.append(bytes.clone(), u64::MAX),
            StoredBody::Many(blocks, _) => {
                for block in blocks.iter() {
                    self.append(block.clone(), u64::MAX);
                }
            }
            // Its bytes have fills of their own.
            StoredBody::Segmented(_) => {}
        }
    }

    /// Notes what its bytes are part of now: whoever still reads along keeps that in memory, and on
    /// the account of the store.
    pub fn rests_in(&self, stored: &Arc<Stored>) {
        lock(&self.fill.state).stored = Some(Arc::clone(stored));
    }

    /// Ends cleanly. Call it after the response is in the store, so that nobody looks for it in
    /// between and finds neither.
    pub fn complete(mut self) {
        self.fills.forget(&self.fill);
        self.end(FillEnd::Complete);
    }

    /// Breaks off: readers are cut off.
    pub fn fail(mut self, why: BodyError) {
        self.fills.forget(&self.fill);
        self.end(FillEnd::Broken(why));
    }

    fn announce(&self, arrived: Arrived) {
        let wakers = {
            let mut state = lock(&self.fill.state);
            if state.arrived.is_none() {
                state.arrived = Some(arrived);
            }
            state.wake_readers()
        };
        wakers.into_iter().for_each(Waker::wake);
    }

    fn append(&self, chunk: Bytes, most: u64) {
        let size = chunk.len() as u64;
        if lock(&self.fill.state).kept_bytes.saturating_add(size) > most {
            // Late readers could not begin at the first byte any more. Before the state is locked:
            // whoever looks at all fills locks the table first and each state within.
            self.fills.forget(&self.fill);
        }
        let (wakers, freed) = {
            let mut state = lock(&self.fill.state);
            state.arrived_bytes += size;
            state.kept_bytes += size;
            state.chunks.push(chunk);
            let freed = shrink(&mut state, most);
            (state.wake_readers(), freed)
        };
        self.fills.bytes.fetch_add(size, Ordering::Relaxed);
        self.fills.bytes.fetch_sub(freed, Ordering::Relaxed);
        wakers.into_iter().for_each(Waker::wake);
    }

    fn end(&mut self, end: FillEnd) {
        if std::mem::replace(&mut self.done, true) {
            return;
        }
        let (wakers, kept) = {
            let mut state = lock(&self.fill.state);
            if state.arrived.is_none() {
                state.arrived = Some(Arrived::Void);
            }
            state.end = Some(end);
            (state.wake_readers(), state.kept_bytes)
        };
        self.fills.bytes.fetch_sub(kept, Ordering::Relaxed);
        self.fills.open.fetch_sub(1, Ordering::Relaxed);
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl Drop for FillWriter {
    fn drop(&mut self) {
        if !self.done {
            self.fills.forget(&self.fill);
            self.end(FillEnd::Broken(BodyError::Cancelled));
        }
    }
}

/// Drops the oldest chunks of a body that is too large to keep; gives the bytes dropped.
fn shrink(state: &mut State, most: u64) -> u64 {
    let mut freed = 0;
    let mut count = 0;
    while state.kept_bytes - freed > most {
        let Some(chunk) = state.chunks.get(count) else { break };
        freed += chunk.len() as u64;
        count += 1;
    }
    if count > 0 {
        state.outgrown = true;
        state.chunks.drain(..count);
        state.dropped += count;
        state.kept_bytes -= freed;
    }
    freed
}
