//! A request body that arrives over HTTP/2: gives the window back as it is read, and gives up on
//! a client that does not keep pace.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use h2::RecvStream;
use http::StatusCode;
use http_body::{Frame, SizeHint};
use tokio::time::Sleep;

use crate::clock;
use crate::config::Limits;
use crate::listener::{Interim, Pace};
use crate::message::{BodyError, ResponseHead};

/// What has arrived is handed on together up to this many bytes: a client may cut its body into
/// single bytes, and everybody behind us would work for each piece.
const GATHERED: usize = 16 * 1024;

/// Set once the client was given up for slowness; the stream is reset then.
pub(super) type TooLate = Arc<AtomicBool>;

/// The body of one request.
pub(super) struct RequestBody {
    stream: RecvStream,
    left: Option<u64>,
    /// Whether the client waits for 100 (Continue), which goes out with the first wait.
    expects: bool,
    door: Interim,
    pace: Pace,
    timer: Option<Pin<Box<Sleep>>>,
    late: TooLate,
    /// Whether the stream broke off behind what was last handed on.
    broken: bool,
    ended: bool,
}

impl RequestBody {
    pub(super) fn new(
        stream: RecvStream,
        length: Option<u64>,
        (door, expects): (Interim, bool),
        limits: &Limits,
        late: TooLate,
    ) -> Self {
        let mut pace = Pace::of_request(limits);
        pace.cap_gap(limits.stream_idle);
        Self {
            stream,
            left: length,
            expects,
            door,
            pace,
            timer: None,
            late,
            broken: false,
            ended: false,
        }
    }

    /// Takes what else has arrived. What comes behind it, an end or an error, is left for later.
    fn gather(&mut self, first: Bytes, context: &mut Context<'_>) -> Bytes {
        let mut only = first;
        let mut more = BytesMut::new();
        while only.len().max(more.len()) < GATHERED {
            match self.stream.poll_data(context) {
                Poll::Ready(Some(Ok(bytes))) => {
                    if more.is_empty() {
                        more.extend_from_slice(&std::mem::take(&mut only));
                    }
                    more.extend_from_slice(&bytes);
                }
                Poll::Ready(Some(Err(_reset_or_gone))) => {
                    self.broken = true;
                    break;
                }
                // The end, or trailers: asked for with the next frame.
                Poll::Ready(None) | Poll::Pending => break,
            }
        }
        if more.is_empty() { only } else { more.freeze() }
    }

    /// Nothing has come: asks the client to go on where it waits for that, and judges its pace.
    fn poll_slow(&mut self, context: &mut Context<'_>) -> Poll<BodyError> {
        if std::mem::take(&mut self.expects) {
            self.door.send(ResponseHead::new(StatusCode::CONTINUE));
        }
        if self.door.allows_silence() {
            return Poll::Pending;
        }
        loop {
            let Ok(patience) = self.pace.wait(clock::now()) else {
                self.late.store(true, Ordering::Relaxed);
                return Poll::Ready(BodyError::TooSlow);
            };
            let due = tokio::time::Instant::now() + patience;
            match &mut self.timer {
                Some(timer) => timer.as_mut().reset(due),
                None => self.timer = Some(Box::pin(tokio::time::sleep_until(due))),
            }
            if let Some(timer) = &mut self.timer {
                ready!(timer.as_mut().poll(context));
            }
        }
    }
}

impl http_body::Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        if this.ended {
            return Poll::Ready(None);
        }
        if this.broken {
            this.ended = true;
            return Poll::Ready(Some(Err(BodyError::Incomplete)));
        }
        let outcome = match this.stream.poll_data(context) {
            Poll::Pending => Err(ready!(this.poll_slow(context))),
            Poll::Ready(None) => {
                let trailers = ready!(this.stream.poll_trailers(context));
                this.ended = true;
                return match trailers {
                    Ok(None) => Poll::Ready(None),
                    Ok(Some(trailers)) => Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
                    Err(_reset_or_gone) => Poll::Ready(Some(Err(BodyError::Incomplete))),
                };
            }
            Poll::Ready(Some(Ok(first))) => {
                let bytes = this.gather(first, context);
                // The window goes back as the handler takes the bytes: never more than one window
                // of a body is ours to keep.
                let _ = this.stream.flow_control().release_capacity(bytes.len());
                this.pace.moved(bytes.len(), clock::now());
                this.left = this.left.map(|left| left.saturating_sub(bytes.len() as u64));
                Ok(Frame::data(bytes))
            }
            Poll::Ready(Some(Err(_reset_or_gone))) => Err(BodyError::Incomplete),
        };
        this.ended |= outcome.is_err();
        Poll::Ready(Some(outcome))
    }

    fn is_end_stream(&self) -> bool {
        self.ended || (!self.broken && self.stream.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

#[cfg(test)]
mod tests {
    use http_body::Body as _;
    use tokio::io::AsyncWriteExt;

    use super::*;
    use crate::listener::http2::PREFACE;

    /// What a body gives of frames that have all arrived: the sizes of its pieces, and its end.
    async fn pieces(frames: &[u8]) -> (Vec<usize>, Option<BodyError>) {
        const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
        // POST http /a
        const HEADERS: [u8; 14] = *b"\0\0\x05\x01\x04\0\0\0\x01\x83\x86\x04\x01/";
        let (mut near, far) = tokio::io::duplex(1 << 20);
        near.write_all(&[PREFACE, &SETTINGS[..], &HEADERS, frames].concat()).await.unwrap();
        let mut server = h2::server::Builder::new()
            .initial_connection_window_size(1 << 20)
            .handshake::<_, Bytes>(far)
            .await
            .unwrap();
        let (request, _respond) = server.accept().await.unwrap().unwrap();
        let driver = tokio::spawn(async move { while server.accept().await.is_some() {} });
        for _ in 0..1000 {
            tokio::task::yield_now().await;
        }
        let late = TooLate::default();
        let mut body = RequestBody::new(
            request.into_body(),
            None,
            (Interim::default(), false),
            &Limits::default(),
            late,
        );
        let mut sizes = Vec::new();
        let mut end = None;
        while let Some(frame) =
            std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await
        {
            match frame {
                Ok(frame) => sizes.push(frame.into_data().unwrap().len()),
                Err(error) => end = Some(error),
            }
        }
        assert!(body.is_end_stream());
        driver.abort();
        (sizes, end)
    }

    fn data(size: u16, last: bool) -> Vec<u8> {
        let [high, low] = size.to_be_bytes();
        [&[0, high, low, 0, u8::from(last), 0, 0, 0, 1][..], &vec![b'a'; usize::from(size)]]
            .concat()
    }

    #[tokio::test]
    async fn what_has_arrived_is_handed_on_together() {
        const RESET: [u8; 13] = [0, 0, 4, 3, 0, 0, 0, 0, 1, 0, 0, 0, 8];
        let single = data(1, false);
        let rows = [
            (data(0, true), vec![0], None),
            (data(5, true), vec![5], None),
            ([single.repeat(2000), data(0, true)].concat(), vec![2000], None),
            ([data(300, false).repeat(99), data(300, true)].concat(), vec![16_500, 13_500], None),
            ([data(16_384, false), data(16_384, true)].concat(), vec![16_384, 16_384], None),
            ([single.repeat(10), RESET.to_vec()].concat(), vec![10], Some(BodyError::Incomplete)),
        ];
        for (frames, sizes, end) in rows {
            assert_eq!(pieces(&frames).await, (sizes, end));
        }
    }
}
