//! `floor serve`: three doors on one thread.
//!
//! - `--canned`: reads whatever ends with an empty line and writes the same bytes each time.
//! - `--plain`: httparse, one lookup in moka, one writev.
//! - `--tls`: rustls, and then by ALPN bare h2 with a stored body, or the plain conversation.

use std::io::IoSlice;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::Failure;
use crate::arguments::Arguments;
use crate::stored::{Shelf, Stored};

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let doors = Doors {
        plain: arguments.need("plain")?,
        canned: arguments.need("canned")?,
        tls: arguments.need("tls")?,
        acceptor: acceptor(&arguments.need::<String>("chain")?, &arguments.need::<String>("key")?)?,
        shelf: Shelf::before(arguments.need("origin")?),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(doors.open())
}

struct Doors {
    plain: SocketAddr,
    canned: SocketAddr,
    tls: SocketAddr,
    acceptor: TlsAcceptor,
    shelf: Shelf,
}

impl Doors {
    async fn open(self) -> Result<(), Failure> {
        let plain = bind(self.plain)?;
        let canned = bind(self.canned)?;
        let tls = bind(self.tls)?;
        let (acceptor, shelf) = (self.acceptor, self.shelf.clone());
        tokio::try_join!(
            accept(plain, {
                let shelf = self.shelf;
                move |stream| converse(stream, shelf.clone())
            }),
            accept(canned, repeat),
            accept(tls, move |stream| secure(stream, acceptor.clone(), shelf.clone())),
        )?;
        Ok(())
    }
}

fn bind(address: SocketAddr) -> Result<TcpListener, Failure> {
    let socket = match address {
        SocketAddr::V4(_) => tokio::net::TcpSocket::new_v4()?,
        SocketAddr::V6(_) => tokio::net::TcpSocket::new_v6()?,
    };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket.listen(4096)?)
}

/// Gives each connection a task; what ends it early is the client's affair.
async fn accept<F>(listener: TcpListener, serve: impl Fn(TcpStream) -> F) -> Result<(), Failure>
where
    F: Future<Output = Result<(), Failure>> + Send + 'static,
{
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(serve(stream));
    }
}

/// The canned answer: as long as a stored one of 1 KiB with its fields.
fn canned() -> Vec<u8> {
    let mut answer = b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\n\
        Cache-Control: public, max-age=86400\r\nContent-Length: 1024\r\n\r\n"
        .to_vec();
    answer.resize(answer.len() + 1024, b'x');
    answer
}

async fn repeat(stream: TcpStream) -> Result<(), Failure> {
    let answer = canned();
    let mut bytes = [0; 4096];
    loop {
        stream.readable().await?;
        match stream.try_read(&mut bytes) {
            Ok(0) => return Ok(()),
            Ok(read) if bytes.get(..read).is_some_and(|bytes| bytes.ends_with(b"\r\n\r\n")) => {
                // It fits into the buffer of a socket whose client reads before it asks again.
                stream.try_write(&answer)?;
            }
            Ok(_) => return Err("a request in pieces".into()),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// HTTP/1.1, one request after another.
async fn converse<S>(mut stream: S, shelf: Shelf) -> Result<(), Failure>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut bytes = bytes::BytesMut::with_capacity(8192);
    loop {
        bytes.reserve(4096);
        if stream.read_buf(&mut bytes).await? == 0 {
            return Ok(());
        }
        while let Some((length, stored)) = asked(&bytes, &shelf)? {
            match stored {
                Ok(stored) => send(&mut stream, &stored).await?,
                Err(path) => send(&mut stream, &*shelf.fill(&path).await?).await?,
            }
            bytes.advance(length);
        }
    }
}

/// Length of the first request, with what is stored for it or else its path.
type Asked = (usize, Result<Arc<Stored>, Box<str>>);

fn asked(bytes: &[u8], shelf: &Shelf) -> Result<Option<Asked>, Failure> {
    let mut lines = [httparse::EMPTY_HEADER; 32];
    let mut request = httparse::Request::new(&mut lines);
    let httparse::Status::Complete(length) = request.parse(bytes)? else {
        return Ok(None);
    };
    let path = request.path.ok_or("a request without a path")?;
    Ok(Some((length, shelf.lookup(path).ok_or_else(|| path.into()))))
}

async fn send<S>(stream: &mut S, stored: &Stored) -> Result<(), Failure>
where
    S: AsyncWrite + Unpin,
{
    let (mut head, mut body) = (&stored.head[..], &stored.body[..]);
    while !head.is_empty() {
        let written = stream.write_vectored(&[IoSlice::new(head), IoSlice::new(body)]).await?;
        let of_head = written.min(head.len());
        head.advance(of_head);
        body.advance(written - of_head);
    }
    stream.write_all(body).await?;
    // Under TLS what was written may still be waiting.
    stream.flush().await?;
    Ok(())
}

fn acceptor(chain: &str, key: &str) -> Result<TlsAcceptor, Failure> {
    let chain = CertificateDer::pem_file_iter(chain)?.collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_file(key)?;
    let mut config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

async fn secure(stream: TcpStream, acceptor: TlsAcceptor, shelf: Shelf) -> Result<(), Failure> {
    let stream = acceptor.accept(stream).await?;
    if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
        streams(stream, shelf).await
    } else {
        converse(stream, shelf).await
    }
}

/// HTTP/2.
async fn streams<S>(stream: S, shelf: Shelf) -> Result<(), Failure>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut connection = h2::server::Builder::new()
        .max_concurrent_streams(256)
        .handshake::<_, Bytes>(stream)
        .await?;
    while let Some(request) = connection.accept().await {
        let (request, mut respond) = request?;
        if let Some(stored) = shelf.lookup(request.uri().path()) {
            answer(&mut respond, &stored)?;
            continue;
        }
        let shelf = shelf.clone();
        tokio::spawn(async move {
            let stored = shelf.fill(request.uri().path()).await?;
            answer(&mut respond, &stored)
        });
    }
    Ok(())
}

fn answer(respond: &mut h2::server::SendResponse<Bytes>, stored: &Stored) -> Result<(), Failure> {
    let mut body = respond.send_response(stored.response(), false)?;
    body.send_data(stored.body.clone(), true)?;
    Ok(())
}
