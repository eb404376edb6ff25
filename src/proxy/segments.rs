//! Large bodies in segments: what begins one, what answers from one, what fetches more of it.
//!
//! A response in segments is stored as a head alone. Its bytes are pieces in the store, each
//! fetched when a reader comes to it, through a fill of its own, so that a thousand readers of one
//! block cost the origin one request:
//!
//! ```text
//! key ---> head (etag "a", 2 GiB)
//!            block 0     stored
//!            block 1..7  under way: one request, a fill for each block
//!            block 8     nobody has asked for it
//! ```
//!
//! All blocks of a head bear its validator. An answer that does not is proof that the body has
//! changed: the head goes, readers that had begun are cut off, readers that had not begin anew.
//! A purge that kills the head leaves its blocks without anyone who could find them; an answer that
//! was begun before may run on, and what it still fetches is not stored.

mod arrive;
mod body;
mod fetch;

use std::sync::Arc;

use http::{HeaderMap, StatusCode};

use super::answer::assemble;
use super::fill::Step;
use super::{Ask, Edge, Worker};
use crate::clock::{self, Now};
use crate::message::Body;
use crate::semantics::{
    CacheStatus, Forward, Grid, NotStored, Outcome, Part, Policy, Segments, Span, shape,
};
use crate::store::{Arrived, Head, PieceName, Stored};
use crate::telemetry::Record;
use body::SegmentBody;

/// A head in segments and what it takes to read it for one request.
pub(super) struct Reading {
    worker: Arc<Worker>,
    ask: Arc<Ask>,
    head: Arc<Head>,
    segments: Segments,
}

/// Why bytes of a body are not to be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// The body is no longer what its head says.
    Changed,
    /// The origin gives them to others, not to this request.
    Refused,
    /// The origin gave no usable answer.
    Failed(StatusCode, &'static str),
}

impl Trouble {
    /// As those who wait for a fill are told.
    fn arrived(self) -> Arrived {
        match self {
            Self::Changed => Arrived::Failed(StatusCode::PRECONDITION_FAILED, "body_changed"),
            Self::Refused => Arrived::Private(NotStored::Partial),
            Self::Failed(status, word) => Arrived::Failed(status, word),
        }
    }

    /// From what a fill of a block came to.
    fn of(status: StatusCode, word: &'static str) -> Self {
        match status {
            StatusCode::PRECONDITION_FAILED => Self::Changed,
            status => Self::Failed(status, word),
        }
    }
}

impl Reading {
    pub(super) fn new(
        worker: &Arc<Worker>,
        ask: &Arc<Ask>,
        head: &Arc<Head>,
        segments: Segments,
    ) -> Arc<Self> {
        Arc::new(Self {
            worker: Arc::clone(worker),
            ask: Arc::clone(ask),
            head: Arc::clone(head),
            segments,
        })
    }

    /// The body of a part; `begun` is where it begins.
    pub(super) fn part(self: &Arc<Self>, part: &Part, begun: Option<SegmentBody>) -> Body {
        let mut begun = begun;
        let mut read = |start, length| {
            let body = begun.take().unwrap_or_else(|| SegmentBody::new(self, start, length));
            Body::stream(body)
        };
        match part {
            Part::Whole => read(0, self.segments.total()),
            part => assemble(part, || Body::Empty, read),
        }
    }
}

/// First byte and length of each stretch of the body that a part is made of.
fn stretches(part: &Part, total: u64) -> Vec<(u64, u64)> {
    match part {
        Part::None => Vec::new(),
        Part::Whole => vec![(0, total)],
        Part::Range { start, length } => vec![(*start, *length)],
        Part::Multipart { pieces, .. } => {
            pieces.iter().map(|(_, start, length)| (*start, *length)).collect()
        }
    }
}

impl Edge {
    /// How the bodies under a policy are cut.
    pub(super) fn grid(&self, policy: &Policy) -> Option<Grid> {
        Grid::of(policy, self.store.largest_body())
    }
}

impl Worker {
    /// What a fill asks the origin for, where it is not the whole.
    pub(super) fn opening(&self, ask: &Ask) -> Option<Span> {
        self.edge.grid(&ask.policy).map(|grid| grid.opening(&ask.request))
    }

    /// Answers from a stored head in segments.
    pub(super) async fn hit_in_segments(
        self: &Arc<Self>,
        ask: &Arc<Ask>,
        stored: &Stored,
        outcome: Outcome,
        record: Box<Record>,
    ) -> Step {
        let Some(segments) = stored.body().segments() else { return Step::Again(record) };
        let now = clock::now();
        // The head is fresh, but bytes that are not there would have to be asked for.
        if ask.request.forbids_forwarding() && !self.slices_at_hand(ask, stored, now, usize::MAX) {
            return Step::Answer(self.only_if_cached(record, now));
        }
        stored.note_use(now);
        let status = CacheStatus::hit(stored.head().ttl(now));
        let reading = Reading::new(self, ask, stored.head(), segments);
        self.answer_in_segments(&reading, None, status, outcome, record).await
    }

    /// Answers with a body in segments, once its first bytes are to be had: as long as nothing has
    /// been said to the client, a body that has changed costs it nothing. `own` has all fields of
    /// the answer that the request itself brought.
    pub(super) async fn answer_in_segments(
        self: &Arc<Self>,
        reading: &Arc<Reading>,
        own: Option<&HeaderMap>,
        status: CacheStatus,
        outcome: Outcome,
        mut record: Box<Record>,
    ) -> Step {
        let Reading { ask, head, segments, .. } = &**reading;
        let now = clock::now();
        let shape = shape(
            &ask.request,
            head.status,
            own.cloned().unwrap_or_else(|| head.fields.map()),
            Some(segments.total()),
            own.is_none().then_some(&head.terms),
            &ask.policy,
            now,
        );
        let mut status = CacheStatus { ttl: Some(head.ttl(now)), ..status };
        let mut outcome = outcome;
        let mut begun = stretches(&shape.part, segments.total())
            .first()
            .map(|(start, length)| SegmentBody::new(reading, *start, *length));
        if let Some(body) = &mut begun {
            match body.begin().await {
                Ok(true) => {}
                Ok(false) if status.hit => {
                    status = CacheStatus { hit: false, forward: Some(Forward::Partial), ..status };
                    outcome = Outcome::Miss;
                }
                Ok(false) => {}
                Err(trouble) => return self.no_beginning(ask, trouble, record).await,
            }
        }
        let body = reading.part(&shape.part, begun);
        record.tagged = head.tagged();
        Step::Answer(self.finish(ask, shape, body, &status, outcome, now, record))
    }

    /// The first bytes are not to be had, and nothing has been said to the client yet.
    async fn no_beginning(
        self: &Arc<Self>,
        ask: &Arc<Ask>,
        trouble: Trouble,
        record: Box<Record>,
    ) -> Step {
        match trouble {
            Trouble::Changed => Step::Again(record),
            Trouble::Refused => {
                let status = CacheStatus::forward(Forward::Partial);
                Step::Answer(self.pass(ask, Body::Empty, status, record).await)
            }
            Trouble::Failed(status, word) => {
                let now = clock::now();
                Step::Answer(self.origin_failed(status, word, Forward::Partial, record, now))
            }
        }
    }

    /// Whether a stored response could begin to answer without its origin.
    pub(super) fn is_at_hand(&self, ask: &Ask, stored: &Stored, now: Now) -> bool {
        self.slices_at_hand(ask, stored, now, 1)
    }

    /// Whether the first slices of what it would answer are in the store.
    fn slices_at_hand(&self, ask: &Ask, stored: &Stored, now: Now, most: usize) -> bool {
        let Some(segments) = stored.body().segments() else { return true };
        let head = stored.head();
        let total = segments.total();
        let shape = shape(
            &ask.request,
            head.status,
            head.fields.map(),
            Some(total),
            Some(&head.terms),
            &ask.policy,
            now,
        );
        let slices = stretches(&shape.part, total);
        let mut slices = slices.into_iter().flat_map(|(start, length)| {
            let next = move |(at, left): &mut (u64, u64)| {
                let slice = segments.slice(*at, *left)?;
                (*at, *left) = (*at + slice.length, *left - slice.length);
                Some(slice)
            };
            let mut rest = (start, length);
            std::iter::from_fn(move || next(&mut rest))
        });
        slices
            .by_ref()
            .take(most)
            .all(|slice| self.edge.store.piece(head, PieceName::Segment(slice.block)).is_some())
    }
}
