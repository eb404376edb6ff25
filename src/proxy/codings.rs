//! Coded copies of stored responses: who gets one, and how they come to be.
//!
//! ```text
//! hit by a client that ranks br highest
//!   no sibling   answer as stored, and ask for a job --> queue --> thread: code, store as a piece
//!   sibling      answer with it
//! ```
//!
//! A sibling is made when somebody asks for it, not when its response is stored: most of what is
//! stored is asked for by one kind of client only, and much of it never again. It is a piece of the
//! store, found only through the head that was just judged; so whatever a purge, `Vary`,
//! `Authorization` or age says of the response, it says of its siblings. What is still arriving is
//! answered as it arrives.

mod encode;
mod queue;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, StatusCode, header};

use super::{Ask, Edge, Worker};
use crate::clock::{self, Now};
use crate::listener::Pressure;
use crate::semantics::{
    Coding, Known, Negotiation, Request, coded_fields, conditions_of_origin, negotiate, relayed,
};
use crate::store::{PieceName, Stored, StoredBody};
use crate::telemetry::CodingOutcome;
use encode::{Encoded, apart, encode};
use queue::Job;

pub(super) use queue::Queue;

/// Time between two looks at whether the process ends.
const LOOK: Duration = Duration::from_millis(100);

/// What an answer is shaped from where answers differ by `Accept-Encoding`, as far as it is not
/// what is stored and what was asked.
#[derive(Debug, Default)]
pub(super) struct Offer {
    pub(super) fields: Option<HeaderMap>,
    pub(super) body: Option<StoredBody>,
    pub(super) request: Option<Request>,
}

impl Worker {
    /// What a hit is answered with; `None` where its response is never coded.
    pub(super) fn offer(&self, ask: &Ask, stored: &Arc<Stored>, now: Now) -> Option<Box<Offer>> {
        if ask.policy.compression.is_off() || stored.body().segments().is_some() {
            return None;
        }
        let head = stored.head();
        let length = Some(stored.body().len());
        let fields = head.fields.map();
        let (mut offer, negotiation) = begin(ask, head.status, &fields, length)?;
        // The known copy is confirmed; no body is needed.
        if negotiation.known == Known::Nothing
            && let Some((coding, sibling)) = self.sibling(stored, &negotiation.wanted, now)
            && let Some((print, body)) = apart(&sibling)
        {
            offer.fields = Some(coded_fields(&fields, coding, print));
            offer.body = Some(body);
        }
        Some(offer)
    }

    /// What an answer that is still arriving is shaped from; `None` where it is never coded.
    pub(super) fn offer_arriving(
        &self,
        ask: &Ask,
        status: StatusCode,
        fields: &HeaderMap,
        length: Option<u64>,
    ) -> Option<Box<Offer>> {
        if ask.policy.compression.is_off() {
            return None;
        }
        begin(ask, status, fields, length).map(|(offer, _)| offer)
    }

    /// The sibling that the client likes best of those that are there. Asks for the best that is
    /// not; but what one coding could not shrink is not worth another's time.
    fn sibling(
        &self,
        stored: &Arc<Stored>,
        wanted: &[Coding],
        now: Now,
    ) -> Option<(Coding, StoredBody)> {
        let mut may_ask = true;
        for coding in wanted {
            let name = PieceName::Coding(coding.number());
            match self.edge.store.piece(stored.head(), name) {
                Some(body) if !body.is_empty() => return Some((*coding, body)),
                Some(_not_worth_it) => may_ask = false,
                None if may_ask => {
                    may_ask = false;
                    self.edge.ask_for_coding(stored, *coding, now);
                }
                None => {}
            }
        }
        None
    }

    /// Fields of a request that is passed on, its conditions in the origin's own words.
    pub(super) fn passed_fields(&self, ask: &Ask) -> HeaderMap {
        let mut headers = ask.request.headers.clone();
        if !ask.policy.compression.is_off() {
            conditions_of_origin(&mut headers);
        }
        headers
    }

    /// Fields of an answer of the origin that is handed on, said in the client's words.
    pub(super) fn relayed_fields(
        &self,
        ask: &Ask,
        status: StatusCode,
        headers: &mut HeaderMap,
        length: Option<u64>,
    ) {
        if !ask.policy.compression.is_off() {
            relayed(&ask.request.headers, status, headers, length, &ask.policy.compression);
        }
    }
}

/// Negotiates, and answers from what the client has already.
fn begin(
    ask: &Ask,
    status: StatusCode,
    fields: &HeaderMap,
    length: Option<u64>,
) -> Option<(Box<Offer>, Negotiation)> {
    let negotiation = negotiate(&ask.request, status, fields, length, &ask.policy.compression)?;
    let mut offer = Box::<Offer>::default();
    if let Known::Coded(tag) = &negotiation.known {
        let mut fields = fields.clone();
        fields.insert(header::ETAG, tag.clone());
        offer.fields = Some(fields);
    }
    if negotiation.whole_only {
        let mut request = ask.request.clone();
        request.headers.remove(header::RANGE);
        offer.request = Some(request);
    }
    Some((offer, negotiation))
}

impl Edge {
    /// Whether any path is under a policy that codes: only then somebody must make the codings.
    #[must_use]
    pub fn codes(&self) -> bool {
        let sites = &self.config.sites;
        sites.iter().flat_map(|site| &site.rules).any(|rule| !rule.policy.compression.is_off())
    }

    /// Makes the codings that are asked for until `ended`, or another edge has been `replaced` for this
    /// one. Blocks; run it on a thread of its own.
    pub fn make_codings(&self, ended: impl Fn() -> bool, replaced: impl Fn() -> bool) {
        while !ended() && !replaced() {
            let Some(job) = self.codings.next(LOOK) else { continue };
            let made = catch_unwind(AssertUnwindSafe(|| self.make_coding(&job, &ended)));
            let outcome = made.unwrap_or_else(|_panic| {
                tracing::error!(coding = job.coding.name(), "a coding ended by a panic");
                Some(CodingOutcome::Failed)
            });
            if let Some(outcome) = outcome {
                self.metrics.codings.count(job.coding, outcome);
            }
            self.codings.done(&job, clock::now().boot);
        }
    }

    fn ask_for_coding(&self, stored: &Arc<Stored>, coding: Coding, now: Now) {
        let short = self.pressure.step() >= Pressure::Evict;
        let lineage = stored.head().lineage;
        if !short && !self.codings.ask(stored, lineage, coding, now.boot) {
            self.metrics.codings.count(coding, CodingOutcome::QueueFull);
        }
    }

    /// Makes one coding; `None` where it is there already.
    fn make_coding(&self, job: &Job, ended: impl Fn() -> bool) -> Option<CodingOutcome> {
        let Some(stored) = job.stored.upgrade() else { return Some(CodingOutcome::Gone) };
        let (head, name) = (stored.head(), PieceName::Coding(job.coding.number()));
        if self.store.piece(head, name).is_some() {
            return None;
        }
        let alive = || self.purges.verdict(head, self.purges.epoch()).is_some();
        let (body, outcome) = match encode(stored.body(), job.coding, || alive() && !ended()) {
            Ok(Encoded::Smaller(coded)) => (StoredBody::One(coded), CodingOutcome::Made),
            // An empty piece stands for it, so that it is not tried again.
            Ok(Encoded::NotSmaller) => (StoredBody::of(&[]), CodingOutcome::NotSmaller),
            Ok(Encoded::Stopped) => return Some(CodingOutcome::Gone),
            Err(error) => {
                tracing::error!(%error, coding = job.coding.name(), "a coding failed");
                return Some(CodingOutcome::Failed);
            }
        };
        // Judged once more: a purge may have come meanwhile, or another response.
        let stored = self.store.put_piece(head, name, body, &self.purges);
        Some(if stored { outcome } else { CodingOutcome::Gone })
    }
}
