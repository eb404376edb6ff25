//! A stream that becomes a tunnel (RFC 8441): DATA frames carry its bytes, END_STREAM is the end
//! of one side, RST_STREAM with CANCEL a connection that broke.
//!
//! What a client sends before it has its 200 stays within the stream's window.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::StatusCode;
use http::header::{HeaderName, SEC_WEBSOCKET_ACCEPT};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::stream::Shared;
use crate::listener::Response;
use crate::listener::tunnel::{End, Near, Tunnel};

/// Longest DATA frame that is made of what an origin sends.
const MOST_SENT: usize = 16 * 1024;

/// Fields of the 101 that have no meaning here (RFC 8441 section 5).
const NOT_HERE: [HeaderName; 1] = [SEC_WEBSOCKET_ACCEPT];

/// Confirms the upgrade and carries the tunnel to its end.
pub(super) async fn serve<H>(
    shared: &Shared<H>,
    mut response: Response,
    tunnel: Tunnel,
    receive: RecvStream,
    mut respond: SendResponse<Bytes>,
) {
    response.join_fields();
    for name in &NOT_HERE {
        response.headers.remove(name);
    }
    if let Some(record) = &mut response.record {
        record.status = StatusCode::OK.as_u16();
    }
    let mut head = http::Response::new(());
    *head.headers_mut() = response.headers;
    let Ok(send) = respond.send_response(head, false) else {
        return respond.send_reset(Reason::INTERNAL_ERROR);
    };
    let mut near = ClientEnd { receive, send, rest: Bytes::new() };
    let context = &shared.context;
    match tunnel.carry(&mut near, BytesMut::new(), response.record, context).await {
        End::Closed | End::NearBroke => {}
        // h2 ends the client's side, too, once nobody reads it.
        End::Over => drop(near.send.send_data(Bytes::new(), true)),
        End::FarBroke => near.send.send_reset(Reason::CANCEL),
    }
}

/// The client's stream.
struct ClientEnd {
    receive: RecvStream,
    send: SendStream<Bytes>,
    /// Of the last DATA frame.
    rest: Bytes,
}

impl Near for ClientEnd {
    fn poll_gone(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.send.poll_reset(context).map(drop)
    }
}

impl AsyncRead for ClientEnd {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.rest.is_empty() {
            match ready!(this.receive.poll_data(context)) {
                None => return Poll::Ready(Ok(())),
                Some(data) => this.rest = data.map_err(io::Error::other)?,
            }
        }
        let piece = this.rest.split_to(this.rest.len().min(buffer.remaining()));
        buffer.put_slice(&piece);
        // The window goes back as the bytes go on: never more than one window of them is kept.
        let given = this.receive.flow_control().release_capacity(piece.len());
        Poll::Ready(given.map_err(io::Error::other))
    }
}

impl AsyncWrite for ClientEnd {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let most = bytes.len().min(MOST_SENT);
        this.send.reserve_capacity(most);
        let mut room = this.send.capacity();
        while room == 0 {
            room = match ready!(this.send.poll_capacity(context)) {
                Some(room) => room.map_err(io::Error::other)?,
                None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            };
        }
        let piece = bytes.get(..room.min(most)).unwrap_or_default();
        let sent = this.send.send_data(Bytes::copy_from_slice(piece), false);
        Poll::Ready(sent.map(|()| piece.len()).map_err(io::Error::other))
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let ended = self.get_mut().send.send_data(Bytes::new(), true);
        Poll::Ready(ended.map_err(io::Error::other))
    }
}
