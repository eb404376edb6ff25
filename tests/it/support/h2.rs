//! An HTTP/2 client on the `h2` crate: over TLS by ALPN, or in plain by prior knowledge.

use std::net::SocketAddr;
use std::task::Poll;

use bytes::{Bytes, BytesMut};
use h2::client::{ResponseFuture, SendRequest};
use h2::{Reason, SendStream};
use http::Request;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::client::{Head, Response, Wire, tls};
use super::{Ended, within};

/// One HTTP/2 connection.
pub(crate) struct H2 {
    pub(crate) send: SendRequest<Bytes>,
    driver: JoinHandle<Result<(), h2::Error>>,
    /// Scheme and authority of its requests.
    base: String,
}

/// An answer that is awaited, with the sender of its request body.
pub(crate) struct Asked {
    response: ResponseFuture,
    pub(crate) body: SendStream<Bytes>,
}

/// What came of a request.
pub(crate) type Outcome = Result<Response, Option<Reason>>;

impl H2 {
    /// Connects over TLS; requests are for `host`.
    pub(crate) async fn tls(address: SocketAddr, host: &str) -> Self {
        let stream = tls(address, Some(host), &["h2"]).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(b"h2".as_slice()));
        Self::over(stream, format!("https://{host}")).await
    }

    /// Connects in plain by prior knowledge.
    pub(crate) async fn plain(address: SocketAddr, host: &str) -> Self {
        let stream = within("a connection", TcpStream::connect(address)).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self::over(stream, format!("http://{host}")).await
    }

    async fn over(wire: impl Wire + 'static, base: String) -> Self {
        let mut builder = h2::client::Builder::new();
        builder.initial_window_size(1 << 20).initial_connection_window_size(4 << 20);
        let (send, connection) =
            within("an HTTP/2 handshake", builder.handshake(wire)).await.unwrap();
        Self { send, driver: tokio::spawn(connection), base }
    }

    /// A second sender on the same connection.
    pub(crate) fn sender(&self) -> SendRequest<Bytes> {
        self.send.clone()
    }

    pub(crate) fn head(&self, method: &str, path: &str, fields: &[(&str, &str)]) -> Request<()> {
        let uri = format!("{}{path}", self.base);
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap()
    }

    /// Sends a request; `body` says whether one follows.
    pub(crate) async fn ask(&mut self, request: Request<()>, body: bool) -> Asked {
        let mut ready = within("room for a stream", self.send.clone().ready()).await.unwrap();
        let (response, sender) = ready.send_request(request, !body).unwrap();
        Asked { response, body: sender }
    }

    /// GET, to the end of the answer.
    pub(crate) async fn get(&mut self, path: &str, fields: &[(&str, &str)]) -> Response {
        self.whole("GET", path, fields, None).await.expect("an answer")
    }

    /// A request with an optional body, to the end of the answer.
    pub(crate) async fn whole(
        &mut self,
        method: &str,
        path: &str,
        fields: &[(&str, &str)],
        body: Option<Bytes>,
    ) -> Outcome {
        let request = self.head(method, path, fields);
        let mut asked = self.ask(request, body.is_some()).await;
        if let Some(body) = body {
            let _ = asked.body.send_data(body, true);
        }
        asked.outcome().await
    }

    /// Waits for the connection to end; why it did, by its GOAWAY. `None`: for no bad reason.
    pub(crate) async fn ended(self) -> Option<Reason> {
        // A client that holds a sender keeps the connection.
        drop(self.send);
        match within("the HTTP/2 connection to end", self.driver).await.unwrap() {
            Ok(()) => None,
            Err(error) => error.reason(),
        }
    }

    /// Waits for the edge to end the connection while the client would go on.
    pub(crate) async fn ended_by_edge(&mut self) -> Option<Reason> {
        match within("the edge to end the HTTP/2 connection", &mut self.driver).await.unwrap() {
            Ok(()) => None,
            Err(error) => error.reason(),
        }
    }
}

impl Asked {
    /// Waits for the whole answer, or for what ended it.
    pub(crate) async fn outcome(mut self) -> Outcome {
        within("an HTTP/2 answer", self.whole()).await
    }

    /// Waits for the head; the body is read by the caller.
    pub(crate) async fn response(self) -> Result<http::Response<h2::RecvStream>, h2::Error> {
        within("an HTTP/2 response head", self.response).await
    }

    /// Resets the stream.
    pub(crate) fn reset(mut self) {
        self.body.send_reset(Reason::CANCEL);
    }

    async fn whole(&mut self) -> Outcome {
        let mut interim = Vec::new();
        let answer = std::future::poll_fn(|context| {
            while let Poll::Ready(Some(Ok(head))) = self.response.poll_informational(context) {
                interim.push(plain(&head.into_parts().0));
            }
            std::pin::Pin::new(&mut self.response).poll(context)
        });
        let (head, mut stream) = answer.await.map_err(|error| error.reason())?.into_parts();
        let mut body = BytesMut::new();
        let mut ended = Ended::Clean;
        while let Some(data) = stream.data().await {
            let Ok(data) = data else {
                ended = Ended::CutOff;
                break;
            };
            let _ = stream.flow_control().release_capacity(data.len());
            body.extend_from_slice(&data);
        }
        Ok(Response { head: plain(&head), interim, body: body.freeze(), ended })
    }
}

fn plain(head: &http::response::Parts) -> Head {
    let fields = head.headers.iter().map(|(name, value)| {
        (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
    });
    Head { version: "HTTP/2".to_owned(), status: head.status.as_u16(), fields: fields.collect() }
}
