//! A request body from the socket to its reader.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

use super::Connection;
use super::upload::{Demand, Upload};
use crate::http1::Chunk;
use crate::listener::TooSlow;
use crate::message::{BodyError, Refusal};

/// Room in the buffer with which another read is worth while. A new buffer for every read would
/// be kept whole by the few bytes of each that wait in the queue.
const READ_LEAST: usize = 4096;

impl<IO: AsyncRead + AsyncWrite + Unpin + Send> Connection<IO> {
    /// Moves what there is of a request body to its reader, as long as it has room.
    pub(super) fn move_upload(&mut self, upload: &mut Upload, context: &mut Context<'_>) {
        while !upload.is_finished() {
            if upload.demand(context) != Demand::More {
                upload.pace.idle();
                return;
            }
            if std::mem::take(&mut upload.expects) && self.read.is_empty() {
                self.output.head.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
            }
            match upload.decode(&mut self.read) {
                Ok(Chunk::Data(data)) => upload.push(data, context),
                Ok(Chunk::End) => upload.finish(Ok(()), context),
                Err(error) => self.break_upload(upload, error.refusal(), error.into(), context),
                Ok(Chunk::More) if self.ended => {
                    let refusal = Refusal::BodyIncomplete;
                    self.break_upload(upload, refusal, BodyError::Incomplete, context);
                }
                Ok(Chunk::More) => match self.poll_body_bytes(upload, context) {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(_slow)) => {
                        self.context.metrics.doors.timeouts.inc();
                        let refusal = Refusal::BodyTimeout;
                        self.break_upload(upload, refusal, BodyError::TooSlow, context);
                    }
                    Poll::Pending => return,
                },
            }
        }
    }

    fn break_upload(
        &mut self,
        upload: &mut Upload,
        refusal: Refusal,
        error: BodyError,
        context: &Context<'_>,
    ) {
        self.context.metrics.doors.refused(refusal);
        upload.finish(Err(error), context);
    }

    /// Reads some of a body, or notes that there will be no more.
    fn poll_body_bytes(
        &mut self,
        upload: &mut Upload,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), TooSlow>> {
        loop {
            if let Poll::Ready(read) = self.poll_read_more(upload.read_bytes(), context) {
                upload.pace.moved(read, crate::clock::now());
                return Poll::Ready(Ok(()));
            }
            let now = crate::clock::now();
            let left = upload.pace.wait(now)?;
            ready!(self.timer.poll(context, now.boot.saturating_add(left)));
        }
    }

    /// Reads up to about `most` bytes into the buffer; 0: the client has sent everything.
    pub(super) fn poll_read_more(&mut self, most: usize, context: &mut Context<'_>) -> Poll<usize> {
        if self.read.capacity() - self.read.len() < READ_LEAST.min(most) {
            self.read.reserve(most);
        }
        let read = ready!(pin!(self.io.read_buf(&mut self.read)).poll(context)).unwrap_or(0);
        self.ended |= read == 0;
        self.context.metrics.doors.bytes_received.inc_by(read as u64);
        Poll::Ready(read)
    }
}
