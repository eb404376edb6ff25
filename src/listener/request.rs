//! What passes between a door and its handler.

use std::collections::VecDeque;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use http::{HeaderMap, StatusCode};

use super::tunnel::{Tunnel, Upgrade};
use crate::clock::Now;
use crate::message::{Added, Body, Fields, Refusal, RequestHead, ResponseHead};
use crate::semantics::ToldBy;
use crate::telemetry::Record;

/// Answers requests. One value serves all connections of a worker at once.
pub trait Handler: Send + Sync + 'static {
    /// Answers one request. The future may be dropped when the client goes away.
    fn serve(&self, request: Request) -> impl Future<Output = Response> + Send;

    /// Answer for a message that was refused before it became a request; `head` is there as far
    /// as it could be read. The door sends the answer and closes.
    fn refuse(
        &self,
        refusal: Refusal,
        head: Option<&RequestHead>,
        client: &Client,
        now: Now,
    ) -> Response;

    /// Whether any request could be granted a tunnel, so that HTTP/2 clients are told that they
    /// may ask (RFC 8441 section 3).
    fn offers_tunnels(&self) -> bool {
        false
    }
}

/// One request with its connection.
#[derive(Debug)]
pub struct Request {
    /// Method, target and fields, syntax and framing already judged.
    pub head: RequestHead,
    /// Body; its exact size is known where the client announced one.
    pub body: Body,
    /// Who asks.
    pub client: Arc<Client>,
    /// Way to send interim responses before the answer.
    pub interim: Interim,
    /// When the head was complete.
    pub arrived: Now,
    /// Another protocol that the client asks for; there is no body then.
    pub upgrade: Option<Box<Upgrade>>,
}

/// One client connection, as every request on it sees it.
#[derive(Clone, Debug)]
pub struct Client {
    /// Address of the client: the socket's, or what a trusted PROXY header says.
    pub address: SocketAddr,
    /// Address it connected to.
    pub local: SocketAddr,
    /// What TLS found out; `None` in plain.
    pub tls: Option<TlsInfo>,
    /// Whether the one who speaks HTTP here is a proxy that the listener trusts, so that what it
    /// says of earlier hops (`Forwarded`, `X-Forwarded-*`) may be believed. Behind the PROXY
    /// protocol that is judged by the address that the header names: the balancer only carries
    /// what this one says.
    pub trusted_hop: bool,
    /// The fields by which it does.
    pub told_by: ToldBy,
}

/// What a TLS handshake found out.
#[derive(Clone, Debug)]
pub struct TlsInfo {
    /// Server name that the client asked for, in lower case.
    pub server_name: Option<String>,
    /// `TLSv1.2` or `TLSv1.3`.
    pub version: &'static str,
    /// Whether an earlier session was resumed.
    pub resumed: bool,
}

/// Interim responses that may wait for their door; more are dropped, as interim responses may be.
const WAITING_INTERIMS: usize = 8;

/// Sends interim responses (1xx, RFC 9110 section 15.2) of one request; does nothing where the
/// client could not read them (HTTP/1.0) or once the answer has begun.
///
/// The default one leads nowhere; [`Interim::channel`] makes one that leads to a door.
#[derive(Clone, Debug, Default)]
pub struct Interim {
    queue: Option<Arc<Mutex<InterimQueue>>>,
}

/// The door's end of [`Interim::channel`].
#[derive(Debug)]
pub struct Interims {
    queue: Arc<Mutex<InterimQueue>>,
}

#[derive(Debug, Default)]
struct InterimQueue {
    waiting: VecDeque<ResponseHead>,
    silence: bool,
    door: Option<Waker>,
}

impl Interim {
    /// Both ends of a way from a handler to its door. It costs one small allocation, since every
    /// request has one and few use it.
    #[must_use]
    pub fn channel() -> (Self, Interims) {
        let queue = Arc::<Mutex<InterimQueue>>::default();
        (Self { queue: Some(Arc::clone(&queue)) }, Interims { queue })
    }

    /// Lets the request's body be silent and slow: whoever reads it judges both directions at once.
    pub fn allow_silence(&self) {
        if let Some(queue) = &self.queue {
            queue.lock().unwrap_or_else(PoisonError::into_inner).silence = true;
        }
    }

    /// Whether the request's body may be silent.
    pub(super) fn allows_silence(&self) -> bool {
        let lock = |queue: &Arc<Mutex<InterimQueue>>| {
            queue.lock().unwrap_or_else(PoisonError::into_inner).silence
        };
        self.queue.as_ref().is_some_and(lock)
    }

    /// Sends `head` on. Never waits: where the client does not keep up it is dropped, as interim
    /// responses may be.
    pub fn send(&self, head: ResponseHead) {
        let Some(queue) = &self.queue else { return };
        let door = {
            let mut queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
            if queue.waiting.len() < WAITING_INTERIMS {
                queue.waiting.push_back(head);
            }
            queue.door.take()
        };
        if let Some(door) = door {
            door.wake();
        }
    }
}

impl Interims {
    /// The next interim response. Pending while there is none, and for good once the handler has
    /// let go of its end.
    pub fn poll_next(&self, context: &mut Context<'_>) -> Poll<ResponseHead> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(head) = queue.waiting.pop_front() {
            return Poll::Ready(head);
        }
        if !queue.door.as_ref().is_some_and(|door| door.will_wake(context.waker())) {
            queue.door = Some(context.waker().clone());
        }
        Poll::Pending
    }

    /// The next interim response that is there already: asked for once no more is waited for.
    pub fn take(&self) -> Option<ResponseHead> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).waiting.pop_front()
    }

    /// Waits for the next interim response; dropping the future loses nothing.
    pub async fn next(&self) -> ResponseHead {
        std::future::poll_fn(|context| self.poll_next(context)).await
    }
}

/// The answer to one request.
#[derive(Debug)]
pub struct Response {
    /// Status code, never 1xx but 101 with a tunnel.
    pub status: StatusCode,
    /// Fields as they lie in the store, and those that are added to them; both come before `headers`,
    /// and none of them is there, too.
    pub stored: Option<(Fields, Added)>,
    /// End-to-end fields only: the door adds framing and connection fields of its own.
    pub headers: HeaderMap,
    /// Body; the door derives the framing from its size and sends none where the request or the
    /// status allows none (HEAD, 204, 304).
    pub body: Body,
    /// Length to announce where no body is sent (HEAD), if it is known.
    pub head_length: Option<u64>,
    /// Close the connection after this answer.
    pub close: bool,
    /// Line of the access log; the door completes it when the last byte is sent or lost.
    pub record: Option<Box<Record>>,
    /// What the client's connection or stream becomes. Only for a request that asked for it.
    pub tunnel: Option<Box<Tunnel>>,
}

impl Response {
    /// An answer with a body and nothing else.
    #[must_use]
    pub fn new(status: StatusCode, body: Body) -> Self {
        Self {
            status,
            stored: None,
            headers: HeaderMap::new(),
            body,
            head_length: None,
            close: false,
            record: None,
            tunnel: None,
        }
    }

    /// All fields in one map, for whoever changes them or needs them so.
    pub fn join_fields(&mut self) {
        let Some((stored, added)) = self.stored.take() else { return };
        let own = std::mem::replace(&mut self.headers, stored.map());
        for (name, value) in added.fields() {
            self.headers.append(name, value);
        }
        for (name, value) in &own {
            self.headers.append(name.clone(), value.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn interim_responses_arrive_in_order_and_beyond_the_cap_are_dropped() {
        let (interim, interims) = Interim::channel();
        let waiting = tokio::spawn(async move {
            let first = interims.next().await.status;
            (first, interims)
        });
        tokio::task::yield_now().await;
        interim.send(ResponseHead::new(StatusCode::from_u16(103).unwrap()));
        let (first, interims) = waiting.await.unwrap();
        assert_eq!(first, 103);
        for code in 104..124 {
            interim.send(ResponseHead::new(StatusCode::from_u16(code).unwrap()));
        }
        for code in 104..104 + u16::try_from(WAITING_INTERIMS).unwrap() {
            assert_eq!(interims.next().await.status, code);
        }
        let empty =
            std::future::poll_fn(|context| Poll::Ready(interims.poll_next(context).is_pending()));
        assert!(empty.await);
    }
}
