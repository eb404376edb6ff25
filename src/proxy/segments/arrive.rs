//! The first answer for a body: does it come in segments, as a whole, or not for others at all?

use std::sync::Arc;

use http::{HeaderMap, StatusCode};

use super::super::Worker;
use super::super::arrive::{Job, Moments, Own};
use super::super::fields::add_date;
use super::super::pass::is_conditional;
use super::Reading;
use super::fetch::{Run, framed_length};
use crate::message::Body;
use crate::origin::Answer;
use crate::semantics::{NotStored, Opening, Segments, Span, make_whole, opening, strip_set_cookie};
use crate::store::{Arrived, Claim, FillHead, FillWriter, StoredBody};

impl Worker {
    /// Judges the answer to a fill that asked for `span` where bodies are cut, or for the whole. A
    /// span beyond the end is asked for once more from the beginning.
    pub(in super::super) async fn opened(
        self: &Arc<Self>,
        writer: FillWriter,
        job: Job,
        mut span: Option<Span>,
        mut answer: Answer,
        mut moments: Moments,
    ) {
        while let (Some(asked), Some(grid)) = (span, self.edge.grid(&job.ask.policy)) {
            let (length, now) = (framed_length(answer.framing), moments.received.wall);
            span = match opening(grid, asked, &answer.head, length, now) {
                Opening::Ordinary => break,
                Opening::Whole => {
                    make_whole(&mut answer.head);
                    break;
                }
                Opening::Segmented(segments) => {
                    return self.keep_segments(writer, job, segments, asked, answer, moments).await;
                }
                Opening::Unfit if job.ask.request.has_range() => {
                    drop(answer);
                    // What the origin has now is not what is stored.
                    if let Some(stale) = &job.stale {
                        self.edge.store.remove(stale);
                    }
                    return self.as_asked(writer, job, NotStored::Partial).await;
                }
                Opening::Beyond if asked.first > 0 => Some(grid.start()),
                Opening::Beyond | Opening::Unfit => None,
            };
            let (sent, again) = self.ask_origin(&job, None, span).await;
            moments = again;
            answer = match sent {
                Err(error) => return self.no_answer(writer, &error),
                Ok(answer) if answer.head.status == StatusCode::NOT_MODIFIED => {
                    return self.bad_answer(writer, "unasked 304");
                }
                Ok(answer) => answer,
            };
        }
        self.arrived(writer, job, answer, moments).await;
    }

    /// The answer begins a body in segments: its head is what is stored, its bytes are the first
    /// blocks.
    async fn keep_segments(
        self: &Arc<Self>,
        writer: FillWriter,
        job: Job,
        segments: Segments,
        asked: Span,
        mut answer: Answer,
        moments: Moments,
    ) {
        make_whole(&mut answer.head);
        add_date(&mut answer.head.headers, moments.received);
        let (ask, born, number) = (&job.ask, writer.fill().born, writer.fill().number);
        let kept = match self.judge(ask, &ask.request, &answer.head, None, moments, number) {
            Ok(kept) => kept,
            Err(why) => {
                // What the origin has now is not what is stored.
                if let Some(stale) = &job.stale
                    && why.holds_for_key()
                {
                    self.edge.store.remove(stale);
                }
                drop(answer);
                return self.as_asked(writer, job, why).await;
            }
        };
        strip_set_cookie(&mut answer.head.headers, &ask.policy);
        let head = self.make_head(ask, &answer.head, kept, born, number, None);
        let reading = Reading::new(self, ask, &head, segments);
        let _ = job.own.send(Own::Fields(answer.head.headers));
        if let Some(variant) = self.edge.store.learn_variant(&head) {
            writer.varies(variant);
        }
        let body = StoredBody::Segmented(segments);
        let stored = self.edge.store.stored(Arc::clone(&head), body);
        if self.edge.store.insert(&stored, &self.edge.purges) {
            self.forget_part(ask);
        } else {
            self.edge.metrics.store.not_stored(NotStored::Purged.label());
        }
        // Readers must find these blocks under way, or each would fetch them.
        let run = reading.first_run(asked);
        let length = Some(segments.total());
        writer.head(FillHead { head, length, confirmed: false, segments: Some(segments) });
        writer.complete();
        if let Some(run) = run {
            reading.keep(run, answer.body).await;
        }
    }

    /// Has the request that started the fill answered as it asked, by an answer that is nobody
    /// else's; the next ones go to the origin themselves.
    async fn as_asked(self: &Arc<Self>, writer: FillWriter, job: Job, why: NotStored) {
        let ask = &job.ask;
        let outgoing = self.outgoing(ask, self.passed_fields(ask), Body::Empty);
        let origin = self.edge.origin_of(ask.site, &ask.policy);
        let site = self.edge.number_of(ask.site);
        let interim = job.interim.clone();
        let sent = self.origins.send(origin, site, outgoing, move |head| interim.send(head)).await;
        match sent {
            Err(error) => self.no_answer(writer, &error),
            Ok(answer)
                if answer.head.status == StatusCode::NOT_MODIFIED
                    && !is_conditional(&ask.request.headers) =>
            {
                self.bad_answer(writer, "unasked 304");
            }
            Ok(answer) => {
                if why == NotStored::Partial {
                    self.remember_uncacheable(ask, why);
                }
                self.hand_over(writer, job, answer, why, false);
            }
        }
    }

    /// A stored head in segments that the origin confirmed, on terms that do not allow to keep it:
    /// the request goes to the origin itself.
    pub(in super::super) fn give_up_segments(&self, writer: FillWriter, job: Job, why: NotStored) {
        self.edge.metrics.store.not_stored(why.label());
        if why.holds_for_key() {
            self.remember_uncacheable(&job.ask, why);
        }
        let _ = job.own.send(Own::Fields(HeaderMap::new()));
        writer.dismiss(Arrived::Private(why));
    }
}

impl Reading {
    /// Claims the blocks that the first answer brings; `None` where there is no room for fills.
    fn first_run(&self, asked: Span) -> Option<Run> {
        let (first, last) =
            (self.segments.block_of(asked.first), self.segments.block_of(asked.last));
        let Claim::Started(writer) = self.claim(first) else { return None };
        let run = self.run(first, writer, (first, last));
        (run.writers.len() as u64 == last - first + 1).then_some(run)
    }
}
