//! A connection that becomes a tunnel.
//!
//! While the handler is asked nothing is read, so what a client sends behind its request lies in
//! the read buffer and in its socket. It goes to the origin once that has confirmed; where it has
//! not, the connection ends with the answer and nobody ever takes those bytes for a request.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{Connection, Flow};
use crate::http1::encode_switching;
use crate::listener::Response;
use crate::listener::tunnel::{End, Near, Tunnel};
use crate::telemetry::DoorMetrics;

impl<IO: AsyncRead + AsyncWrite + Unpin + Send> Connection<IO> {
    /// Confirms the upgrade and carries the tunnel to its end.
    pub(super) async fn tunnel(&mut self, mut response: Response, tunnel: Tunnel) -> Flow {
        response.join_fields();
        // Interim responses that have not been taken yet stand before it.
        let mut head = std::mem::take(&mut self.output.head);
        encode_switching(&response.headers, &tunnel.protocol, &mut head);
        let mut near = ClientEnd {
            io: &mut self.io,
            first: std::mem::take(&mut self.read),
            doors: &self.context.metrics.doors,
        };
        match tunnel.carry(&mut near, head, response.record, &self.context).await {
            End::Closed | End::Over => Flow::Close,
            End::NearBroke | End::FarBroke => Flow::Reset,
        }
    }
}

/// The client's connection, and what has been read of it already.
struct ClientEnd<'a, IO> {
    io: &'a mut IO,
    first: BytesMut,
    doors: &'a DoorMetrics,
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Near for ClientEnd<'_, IO> {}

impl<IO: AsyncRead + Unpin> AsyncRead for ClientEnd<'_, IO> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.first.is_empty() {
            let take = this.first.len().min(buffer.remaining());
            buffer.put_slice(this.first.get(..take).unwrap_or_default());
            this.first.advance(take);
            return Poll::Ready(Ok(()));
        }
        this.first = BytesMut::new();
        let before = buffer.filled().len();
        ready!(Pin::new(&mut *this.io).poll_read(context, buffer))?;
        this.doors.bytes_received.inc_by((buffer.filled().len() - before) as u64);
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for ClientEnd<'_, IO> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = ready!(Pin::new(&mut *this.io).poll_write(context, bytes))?;
        this.doors.bytes_sent.inc_by(written as u64);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.get_mut().io).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.get_mut().io).poll_shutdown(context)
    }
}
