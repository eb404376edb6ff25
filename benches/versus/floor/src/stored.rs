//! What the floor stores, and how it comes by it.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Response};
use moka::sync::Cache;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::Failure;

/// A response, ready to be sent over HTTP/1.1 and over HTTP/2.
pub struct Stored {
    /// Status line and fields, with the empty line.
    pub head: Bytes,
    /// The same fields for HTTP/2.
    pub fields: HeaderMap,
    pub body: Bytes,
}

/// All of them by path, and the server that has the others.
#[derive(Clone)]
pub struct Shelf {
    stored: Cache<Box<str>, Arc<Stored>>,
    origin: SocketAddr,
}

impl Shelf {
    pub fn before(origin: SocketAddr) -> Self {
        Self { stored: Cache::new(4_000_000), origin }
    }

    /// What is stored under a path.
    pub fn lookup(&self, path: &str) -> Option<Arc<Stored>> {
        self.stored.get(path)
    }

    /// Fetches what is not stored, and stores it.
    pub async fn fill(&self, path: &str) -> Result<Arc<Stored>, Failure> {
        let stored = Arc::new(fetch(self.origin, path).await?);
        self.stored.insert(path.into(), stored.clone());
        Ok(stored)
    }
}

async fn fetch(origin: SocketAddr, path: &str) -> Result<Stored, Failure> {
    let mut stream = TcpStream::connect(origin).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: bench.test\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut bytes = BytesMut::with_capacity(4096);
    while stream.read_buf(&mut bytes).await? > 0 {}
    store(bytes.freeze())
}

fn store(bytes: Bytes) -> Result<Stored, Failure> {
    let mut lines = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut lines);
    let httparse::Status::Complete(end) = response.parse(&bytes)? else {
        return Err("the origin's answer has no end".into());
    };
    let mut head = b"HTTP/1.1 200 OK\r\n".to_vec();
    let mut fields = HeaderMap::new();
    for line in response.headers.iter().filter(|line| !line.name.eq_ignore_ascii_case("connection"))
    {
        head.extend_from_slice(line.name.as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(line.value);
        head.extend_from_slice(b"\r\n");
        fields.insert(HeaderName::try_from(line.name)?, HeaderValue::from_bytes(line.value)?);
    }
    head.extend_from_slice(b"\r\n");
    // A copy of its own: no stored response keeps the buffer of its fetch.
    let body = Bytes::copy_from_slice(bytes.get(end..).unwrap_or_default());
    Ok(Stored { head: head.into(), fields, body })
}

impl Stored {
    /// Its head over HTTP/2.
    pub fn response(&self) -> Response<()> {
        let mut response = Response::new(());
        *response.headers_mut() = self.fields.clone();
        response
    }
}
