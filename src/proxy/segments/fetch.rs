//! Where a block comes from: the store, a fill that is under way, a fill of our own.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use http_body::Body as _;

use super::super::arrive::Moments;
use super::{Reading, Trouble};
use crate::clock;
use crate::message::{Body, BodyError};
use crate::origin::{Answer, Framing};
use crate::semantics::{
    Continuation, NotStored, Slice, Span, StrongValidator, continuation, make_whole, precondition,
    unconditional,
};
use crate::store::{Arrived, Claim, Fill, FillBody, FillHead, FillWriter, PieceName, StoredBody};

/// Times that a reader looks for a block whose fill came to nothing.
const LOOKS: usize = 3;

/// What a block is read from.
pub(super) enum Source {
    /// The store.
    Stored(StoredBody),
    /// A fill; this reader has its place in it already.
    Filling { fill: Arc<Fill>, body: FillBody, joined: bool },
    /// A request of its own, shared with nobody.
    Alone,
}

/// Blocks in a row that one request to the origin brings.
pub(super) struct Run {
    pub(super) first: u64,
    pub(super) writers: VecDeque<FillWriter>,
}

impl Run {
    fn last(&self) -> u64 {
        self.first + (self.writers.len() as u64).saturating_sub(1)
    }

    fn fail(self, why: &BodyError) {
        for writer in self.writers {
            writer.fail(why.clone());
        }
    }
}

impl Reading {
    /// Finds a block, or begins to fetch it, and the blocks beside it that are wanted.
    pub(super) fn source(self: &Arc<Self>, slice: Slice, wanted: (u64, u64)) -> Source {
        if let Some(body) = self.stored(slice.block) {
            return Source::Stored(body);
        }
        let read = |fill: &Arc<Fill>| fill.read(slice.offset, Some(slice.length));
        match self.claim(slice.block) {
            Claim::Full => Source::Alone,
            // Whenever it began: its bytes bear the validator of a head that may be used.
            Claim::Joined(fill) | Claim::Early(fill) => {
                self.worker.edge.metrics.store.segments_joined.inc();
                Source::Filling { body: read(&fill), fill, joined: true }
            }
            Claim::Started(writer) => {
                // Between the look-up and the claim another fill may have come to its end.
                if let Some(body) = self.stored(slice.block) {
                    writer.dismiss(Arrived::Void);
                    return Source::Stored(body);
                }
                let fill = Arc::clone(writer.fill());
                let body = read(&fill);
                let run = self.run(slice.block, writer, wanted);
                // A panic in there drops the writers, and their end breaks the fills off visibly.
                tokio::spawn(Arc::clone(self).fetch(run));
                Source::Filling { fill, body, joined: false }
            }
        }
    }

    /// Claims the missing neighbours of a block, within its segment and what is wanted.
    pub(super) fn run(&self, block: u64, writer: FillWriter, wanted: (u64, u64)) -> Run {
        let (first, last) = self.segments.neighbours(block);
        let (first, last) = (first.max(wanted.0), last.min(wanted.1));
        let mut run = Run { first: block, writers: VecDeque::from([writer]) };
        while run.first > first
            && let Some(writer) = self.claim_missing(run.first - 1)
        {
            run.writers.push_front(writer);
            run.first -= 1;
        }
        while run.last() < last
            && let Some(writer) = self.claim_missing(run.last() + 1)
        {
            run.writers.push_back(writer);
        }
        run
    }

    fn claim_missing(&self, block: u64) -> Option<FillWriter> {
        if self.stored(block).is_some() {
            return None;
        }
        let Claim::Started(writer) = self.claim(block) else { return None };
        if self.stored(block).is_some() {
            writer.dismiss(Arrived::Void);
            return None;
        }
        Some(writer)
    }

    fn stored(&self, block: u64) -> Option<StoredBody> {
        self.worker.edge.store.piece(&self.head, PieceName::Segment(block))
    }

    pub(super) fn claim(&self, block: u64) -> Claim {
        let edge = &self.worker.edge;
        let key = edge.store.piece_key(&self.head, PieceName::Segment(block));
        edge.fills.join_or_start(key, edge.purges.epoch())
    }

    /// Waits until the bytes of a slice are to be had.
    pub(super) async fn open(
        self: Arc<Self>,
        slice: Slice,
        mut source: Source,
    ) -> Result<Body, Trouble> {
        for _ in 0..LOOKS {
            let (fill, body, joined) = match source {
                Source::Stored(body) => return Ok(body.range(slice.offset, slice.length)),
                Source::Alone => return self.alone(slice).await,
                Source::Filling { fill, body, joined } => (fill, body, joined),
            };
            match self.arrived(&fill, joined).await {
                Arrived::Head(_) => return Ok(body.into_body()),
                Arrived::Failed(status, word) => return Err(Trouble::of(status, word)),
                // The reason lay in the other request: this one may fare better.
                Arrived::Private(_) if joined => source = Source::Alone,
                Arrived::Private(_) => return Err(Trouble::Refused),
                Arrived::Void => source = self.source(slice, (slice.block, slice.block)),
            }
        }
        Err(Trouble::Failed(StatusCode::SERVICE_UNAVAILABLE, "fill_void"))
    }

    async fn arrived(&self, fill: &Arc<Fill>, joined: bool) -> Arrived {
        if !joined {
            return fill.arrived().await;
        }
        let limit = self.worker.edge.config.limits.fill_wait;
        tokio::time::timeout(limit, fill.arrived())
            .await
            .unwrap_or(Arrived::Failed(StatusCode::GATEWAY_TIMEOUT, "fill_timeout"))
    }

    /// Fetches the bytes of a slice for this reader and nobody else.
    async fn alone(&self, slice: Slice) -> Result<Body, Trouble> {
        let first = self.segments.span(slice.block, slice.block).first + slice.offset;
        let span = Span { first, last: first + slice.length - 1 };
        self.ask(span).await.map(|answer| answer.body)
    }

    /// Fetches a run of blocks. However this ends, the writers' ends tell the readers.
    async fn fetch(self: Arc<Self>, run: Run) {
        let span = self.segments.span(run.first, run.last());
        match self.ask(span).await {
            Err(trouble) => {
                for writer in run.writers {
                    writer.dismiss(trouble.arrived());
                }
            }
            Ok(answer) => self.keep(run, answer.body).await,
        }
    }

    /// Copies the blocks of a run as they arrive, and stores each once it is complete.
    pub(super) async fn keep(&self, mut run: Run, mut body: Body) {
        for writer in &run.writers {
            writer.head(FillHead {
                head: Arc::clone(&self.head),
                length: None,
                confirmed: false,
                segments: Some(self.segments),
            });
        }
        let mut bytes = Bytes::new();
        while let Some(writer) = run.writers.pop_front() {
            let left = self.segments.block_bytes(run.first);
            if let Err(why) = copy(&writer, left, &mut bytes, &mut body).await {
                self.worker.edge.metrics.store.fills_failed.inc();
                writer.fail(why.clone());
                run.fail(&why);
                return;
            }
            if let Some(body) = writer.body() {
                let edge = &self.worker.edge;
                let name = PieceName::Segment(run.first);
                edge.store.put_piece(&self.head, name, body, &edge.purges);
            }
            writer.complete();
            run.first += 1;
        }
        // A connection can be used again once its end of the message has been seen.
        let _ = next(&mut body).await;
    }

    /// Asks the origin for a span, on condition that the body is still the same.
    async fn ask(&self, span: Span) -> Result<Answer, Trouble> {
        let (worker, ask) = (&self.worker, &self.ask);
        let requested = clock::now();
        let Some(validator) = StrongValidator::of(&self.head.headers, requested.wall) else {
            return Err(self.changed());
        };
        let outgoing = worker.outgoing(ask, self.fields(span, &validator), Body::Empty);
        let origin = worker.edge.origin_of(ask.site, &ask.policy);
        let site = worker.edge.number_of(ask.site);
        worker.edge.metrics.store.segments_fetched.inc();
        // Interim responses speak to a client that has its head already.
        let sent = worker.origins.send(origin, site, outgoing, |_interim| ()).await;
        let mut answer = sent.map_err(|error| {
            let (status, word) = super::super::error::status_of(&error);
            Trouble::Failed(status, word)
        })?;
        let received = clock::now();
        let length = framed_length(answer.framing);
        let judged =
            continuation(&self.segments, span, &validator, &answer.head, length, received.wall);
        match judged {
            Continuation::Fits => {
                make_whole(&mut answer.head);
                self.may_share(&answer, Moments { requested, received })?;
                Ok(answer)
            }
            // Chosen among variants by more than what `Vary` compares, this request may well bring
            // another one.
            Continuation::Changed if !self.head.is_selected_by(&ask.request.headers) => {
                Err(Trouble::Refused)
            }
            Continuation::Changed => Err(self.changed()),
            Continuation::Refused => Err(Trouble::Refused),
            Continuation::Failed => Err(failed(answer.head.status)),
        }
    }

    fn fields(&self, span: Span, validator: &StrongValidator) -> HeaderMap {
        let mut headers = self.ask.request.headers.clone();
        unconditional(&mut headers);
        headers.insert(header::RANGE, span.range());
        let (name, value) = precondition(validator);
        headers.insert(name, value);
        headers
    }

    /// Its bytes are the right ones, but they came for one request: may others have them? Whether
    /// and how long they are fresh is the stored head's matter.
    fn may_share(&self, answer: &Answer, moments: Moments) -> Result<(), Trouble> {
        let ask = &self.ask;
        let judged = self.worker.judge(ask, &ask.request, &answer.head, None, moments, 0);
        match judged.err() {
            None | Some(NotStored::NoFreshness | NotStored::NoValidator | NotStored::Expired) => {
                Ok(())
            }
            Some(why) if why.holds_for_key() => Err(self.changed()),
            Some(_) => Err(Trouble::Refused),
        }
    }

    /// The head tells of a body that is no more.
    fn changed(&self) -> Trouble {
        self.worker.edge.metrics.store.segments_changed.inc();
        self.worker.edge.store.forget(&self.head);
        Trouble::Changed
    }
}

fn failed(status: StatusCode) -> Trouble {
    let status = if status.is_server_error() { status } else { StatusCode::BAD_GATEWAY };
    Trouble::Failed(status, "http_upstream_status")
}

/// Length of an answer's body, where its framing tells.
pub(super) fn framed_length(framing: Framing) -> Option<u64> {
    match framing {
        Framing::None => Some(0),
        Framing::Length(length) => Some(length),
        Framing::Chunked | Framing::Close => None,
    }
}

/// Copies `left` bytes into a fill. What came with them and belongs to the next stays in `bytes`.
async fn copy(
    writer: &FillWriter,
    mut left: u64,
    bytes: &mut Bytes,
    body: &mut Body,
) -> Result<(), BodyError> {
    while left > 0 {
        if bytes.is_empty() {
            *bytes = next(body).await?.ok_or(BodyError::Incomplete)?;
        }
        let count = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
        writer.push(&bytes.split_to(count)).await?;
        left -= count as u64;
    }
    Ok(())
}

/// The next bytes of a body; trailers are dropped.
async fn next(body: &mut Body) -> Result<Option<Bytes>, BodyError> {
    loop {
        match poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await {
            None => return Ok(None),
            Some(frame) => {
                if let Ok(bytes) = frame?.into_data()
                    && !bytes.is_empty()
                {
                    return Ok(Some(bytes));
                }
            }
        }
    }
}
