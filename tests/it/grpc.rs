//! Calls as gRPC makes them, through the edge: messages both ways, as they come, with trailers.

use bytes::Bytes;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request, Response};

use crate::support::certificate::{Certificate, Folder};
use crate::support::edge::HOST;
use crate::support::h2_origin::{Call, give, take, trailers};
use crate::support::{Edge, H2, H2Origin, Origin, Reply, within};

const GRPC: (&str, &str) = ("content-type", "application/grpc");

/// A message with its prefix of five bytes.
fn message(text: &str) -> Bytes {
    let length = u32::try_from(text.len()).unwrap().to_be_bytes();
    Bytes::from([&[0][..], &length, text.as_bytes()].concat())
}

/// A service with each kind of call, told by its path.
async fn service(mut call: Call) {
    assert_eq!(call.request.headers["te"], "trailers", "servers ask for it");
    assert_eq!(call.request.headers["content-type"], "application/grpc");
    assert_eq!(call.request.headers["grpc-timeout"], "10S");
    match call.path() {
        "/echo.Echo/Refuse" => {
            return call.end(&[GRPC, ("grpc-status", "5"), ("grpc-message", "no such thing")]);
        }
        "/echo.Echo/Break" => {
            let (mut body, mut stream) = call.begin(&[GRPC]);
            give(&mut stream, message("part")).await;
            // Once the client has it.
            take(&mut body).await;
            return stream.send_reset(h2::Reason::NO_ERROR);
        }
        _ => {}
    }
    let all = call.path() != "/echo.Echo/Both";
    let parts = if call.path() == "/echo.Echo/ServerStreams" { 3 } else { 1 };
    let mut whole = Vec::new();
    if all {
        while let Some(piece) = take(&mut call.body).await {
            whole.extend_from_slice(&piece);
        }
    }
    let (mut body, mut stream) = call.begin(&[GRPC, ("x-initial", "yes")]);
    if all {
        for _ in 0..parts {
            give(&mut stream, Bytes::from(whole.clone())).await;
        }
    } else {
        while let Some(piece) = take(&mut body).await {
            give(&mut stream, piece).await;
        }
    }
    let theirs = body.trailers().await.ok().flatten().unwrap_or_default();
    let mut ours = trailers(&[("grpc-status", "0"), ("grpc-message", "fine")]);
    if let Some(value) = theirs.get("x-of-client") {
        ours.insert("x-of-client", value.clone());
    }
    let _ = stream.send_trailers(ours);
}

/// An edge before such a service, with the policy or without.
struct Stage {
    _origin: H2Origin,
    edge: Edge,
}

impl Stage {
    fn new(secure: bool, policy: &str) -> Self {
        Self::tuned(secure, policy, "")
    }

    fn tuned(secure: bool, policy: &str, limits: &str) -> Self {
        let folder = Folder::new();
        let own = Certificate::new(&folder, &["localhost"]);
        let origin = H2Origin::start(secure.then(|| own.server()), service);
        let (scheme, port) = (if secure { "https" } else { "http" }, origin.address.port());
        let ca = own.chain.display().to_string();
        let mut keys = format!("name = \"main\"\nservers = [\"{scheme}://localhost:{port}\"]");
        keys += "\nhttp = \"2\"";
        if secure {
            keys += &format!("\nca = {ca:?}");
        }
        let plan = Edge::before_servers(&[]).no_origins().origin_keys(&keys).site(policy);
        let edge = plan.limits(limits).tls(&[]).start();
        Self { _origin: origin, edge }
    }

    async fn client(&self) -> H2 {
        H2::tls(self.edge.tls(), HOST).await
    }
}

fn call(client: &H2, method: &str) -> Request<()> {
    let path = format!("/echo.Echo/{method}");
    client.head("POST", &path, &[GRPC, ("te", "trailers"), ("grpc-timeout", "10S")])
}

/// Begins a call; its head and the two directions.
async fn begin(client: &mut H2, method: &str) -> (SendStream<Bytes>, h2::client::ResponseFuture) {
    let request = call(client, method);
    let mut ready = within("room for a stream", client.send.clone().ready()).await.unwrap();
    let (response, stream) = ready.send_request(request, false).unwrap();
    (stream, response)
}

async fn answer(response: h2::client::ResponseFuture) -> Response<RecvStream> {
    within("the head of an answer", response).await.unwrap()
}

/// The messages of an answer in one piece, and its trailers.
async fn rest(mut body: RecvStream) -> (Vec<u8>, Option<HeaderMap>) {
    let mut all = Vec::new();
    while let Some(piece) = within("a message", take(&mut body)).await {
        all.extend_from_slice(&piece);
    }
    (all, within("trailers", body.trailers()).await.unwrap())
}

fn status(headers: &HeaderMap) -> &str {
    headers["grpc-status"].to_str().unwrap()
}

#[tokio::test]
async fn calls_of_each_kind_with_trailers_both_ways() {
    for secure in [false, true] {
        let stage = Stage::new(secure, "grpc = true");
        let mut client = stage.client().await;
        for (method, sent, times) in [
            ("Unary", &["hello"][..], 1),
            ("ServerStreams", &["a"], 3),
            ("ClientStreams", &["a", "b"], 1),
        ] {
            let (mut stream, response) = begin(&mut client, method).await;
            let mut expected = Vec::new();
            for text in sent {
                give(&mut stream, message(text)).await;
                expected.extend_from_slice(&message(text));
            }
            stream.send_trailers(trailers(&[("x-of-client", "1")])).unwrap();
            let answer = answer(response).await;
            assert_eq!(
                (answer.status().as_u16(), &answer.headers()["x-initial"]),
                (200, &"yes".parse().unwrap())
            );
            assert_eq!(answer.headers()["content-type"], "application/grpc");
            let (body, trailers) = rest(answer.into_body()).await;
            assert_eq!(body, expected.repeat(times), "{method}");
            let trailers = trailers.unwrap();
            assert_eq!((status(&trailers), &trailers["x-of-client"]), ("0", &"1".parse().unwrap()));
        }
        let passed = stage.edge.metric("atoll_origin_requests_total{origin=\"main\"}").await;
        assert!(passed >= 3.0);
    }
}

#[tokio::test]
async fn both_sides_stream_at_their_own_pace() {
    let stage = Stage::new(true, "grpc = true");
    let mut client = stage.client().await;
    let (mut stream, response) = begin(&mut client, "Both").await;
    // The head is there before the client has sent a byte.
    let mut body = answer(response).await.into_body();
    for text in ["one", "two", "three"] {
        give(&mut stream, message(text)).await;
        assert_eq!(within("the echo", take(&mut body)).await.unwrap(), message(text));
    }
    stream.send_data(Bytes::new(), true).unwrap();
    let (nothing, trailers) = rest(body).await;
    assert!(nothing.is_empty());
    assert_eq!(status(&trailers.unwrap()), "0");
}

#[tokio::test]
async fn silence_ends_a_body_but_not_a_call() {
    let limits = "body_gap = \"300ms\"\nstream_idle = \"300ms\"\norigin_gap = \"300ms\"\n\
                  origin_first_byte = \"300ms\"";
    let with = Stage::tuned(false, "grpc = true", limits);
    let without = Stage::tuned(false, "", limits);
    let mut client = with.client().await;
    let (mut stream, response) = begin(&mut client, "Both").await;
    let mut body = answer(response).await.into_body();
    let (mut waiting, late) = begin(&mut client, "ClientStreams").await;
    // A body elsewhere that is as silent is given up first.
    let mut other = without.client().await;
    let (_silent, cut) = begin(&mut other, "Unary").await;
    assert!(within("the silent one to be cut off", cut).await.is_err());
    give(&mut stream, message("still here")).await;
    assert_eq!(within("the echo", take(&mut body)).await.unwrap(), message("still here"));
    give(&mut waiting, message("so am I")).await;
    waiting.send_data(Bytes::new(), true).unwrap();
    let (text, trailers) = rest(answer(late).await.into_body()).await;
    assert_eq!((text, status(&trailers.unwrap())), (message("so am I").to_vec(), "0"));
}

#[tokio::test]
async fn a_call_that_is_silent_both_ways_ends_as_a_tunnel_does() {
    let stage = Stage::tuned(false, "grpc = true", "tunnel_idle = \"1s\"");
    let mut client = stage.client().await;
    let (_stream, response) = begin(&mut client, "Both").await;
    let mut body = answer(response).await.into_body();
    let end = within("the call to be cut off", body.data()).await;
    assert!(end.unwrap().is_err(), "never a clean end");
    let (_stream, response) = begin(&mut client, "ClientStreams").await;
    let answer = answer(response).await;
    assert_eq!((answer.status().as_u16(), status(answer.headers())), (200, "4"));
}

#[tokio::test]
async fn answers_of_a_head_alone_and_broken_ones_stay_what_they_are() {
    let stage = Stage::new(false, "grpc = true");
    let mut client = stage.client().await;
    let (_stream, response) = begin(&mut client, "Refuse").await;
    let refused = answer(response).await;
    assert_eq!(status(refused.headers()), "5");
    assert_eq!(refused.headers()["grpc-message"], "no such thing");
    assert!(refused.into_body().is_end_stream());
    let (mut stream, response) = begin(&mut client, "Break").await;
    let mut body = answer(response).await.into_body();
    assert_eq!(within("a message", take(&mut body)).await.unwrap(), message("part"));
    give(&mut stream, message("seen")).await;
    let end = within("its end", body.data()).await.unwrap();
    assert_eq!(end.unwrap_err().reason(), Some(h2::Reason::INTERNAL_ERROR), "never a clean end");
}

#[tokio::test]
async fn a_client_that_leaves_ends_the_call_at_the_origin() {
    let (sender, mut gone) = tokio::sync::mpsc::unbounded_channel();
    let origin = H2Origin::start(None, move |call| {
        let sender = sender.clone();
        async move {
            let (mut body, mut stream) = call.begin(&[GRPC]);
            let reason = std::future::poll_fn(|context| stream.poll_reset(context)).await;
            let _ = sender.send(reason.ok());
            let _ = body.data().await;
        }
    });
    let port = origin.address.port();
    let keys = format!("name = \"main\"\nservers = [\"http://127.0.0.1:{port}\"]\nhttp = \"2\"");
    let plan = Edge::before_servers(&[]).no_origins().origin_keys(&keys).site("grpc = true");
    let edge = plan.tls(&[]).start();
    let mut client = H2::tls(edge.tls(), HOST).await;
    let (mut stream, response) = begin(&mut client, "Both").await;
    let body = answer(response).await.into_body();
    stream.send_reset(h2::Reason::CANCEL);
    drop((stream, body));
    assert_eq!(
        within("the origin to hear of it", gone.recv()).await,
        Some(Some(h2::Reason::CANCEL))
    );
    edge.metric_becomes("atoll_origin_in_flight{origin=\"main\"}", 0.0).await;
}

#[tokio::test]
async fn errors_are_said_as_calls_expect_them() {
    let dead = Origin::dead().await;
    let plan = |policy: &str| {
        let keys = format!("name = \"main\"\nservers = [\"http://{dead}\"]\nhttp = \"2\"");
        Edge::before_servers(&[]).no_origins().origin_keys(&keys).site(policy).tls(&[]).start()
    };
    let edge = plan("grpc = true");
    let mut client = H2::tls(edge.tls(), HOST).await;
    let (_stream, response) = begin(&mut client, "Unary").await;
    let failed = answer(response).await;
    assert_eq!((failed.status().as_u16(), status(failed.headers())), (200, "14"));
    assert_eq!(failed.headers()["content-type"], "application/grpc");
    assert_eq!(failed.headers()["grpc-message"], "Service Unavailable: connection_refused");
    assert!(failed.into_body().is_end_stream());
    // Others, and all where the policy says nothing, get the plain error.
    let plain = client.whole("POST", "/a", &[], Some(Bytes::from_static(b"x"))).await.unwrap();
    assert_eq!((plain.status(), plain.field("grpc-status")), (503, None));
    let edge = plan("");
    let mut client = H2::tls(edge.tls(), HOST).await;
    let body = Some(Bytes::from_static(b"x"));
    let plain = client.whole("POST", "/a", &[GRPC], body).await.unwrap();
    assert_eq!((plain.status(), plain.field("grpc-status")), (503, None));
}

#[tokio::test]
async fn a_call_that_is_too_long_exhausts_what_it_may_have() {
    let stage = Stage::new(false, "grpc = true\nbody_bytes = \"1KiB\"");
    let mut client = stage.client().await;
    let (mut stream, response) = begin(&mut client, "ClientStreams").await;
    give(&mut stream, Bytes::from(vec![0; 4096])).await;
    let answer = answer(response).await;
    assert_eq!((answer.status().as_u16(), status(answer.headers())), (200, "8"));
}

#[tokio::test]
async fn without_the_policy_a_call_is_a_request_like_others() {
    let origin = H2Origin::start(None, |mut call| async move {
        assert!(call.request.headers.get("te").is_none());
        while take(&mut call.body).await.is_some() {}
        assert!(call.body.trailers().await.unwrap().is_none(), "dropped on the way");
        let (_, mut stream) = call.begin(&[GRPC]);
        give(&mut stream, message("x")).await;
        let _ = stream.send_trailers(trailers(&[("grpc-status", "0")]));
    });
    let port = origin.address.port();
    let keys = format!("name = \"main\"\nservers = [\"http://127.0.0.1:{port}\"]\nhttp = \"2\"");
    let edge = Edge::before_servers(&[]).no_origins().origin_keys(&keys).tls(&[]).start();
    let mut client = H2::tls(edge.tls(), HOST).await;
    let (mut stream, response) = begin(&mut client, "Unary").await;
    give(&mut stream, message("x")).await;
    stream.send_trailers(trailers(&[("x-of-client", "1")])).unwrap();
    let answer = answer(response).await;
    assert_eq!(answer.status().as_u16(), 200);
    let (body, trailers) = rest(answer.into_body()).await;
    assert_eq!((body, trailers), (message("x").to_vec(), None));
}

#[tokio::test]
async fn calls_are_never_stored_nor_joined() {
    let origin = Origin::serving(Reply::fresh("x").field("Content-Type", "application/grpc"));
    let edge = Edge::before(&origin).site("grpc = true").tls(&[]).start();
    let mut client = H2::tls(edge.tls(), HOST).await;
    for _ in 0..3 {
        let body = Some(Bytes::from_static(b"x"));
        let answer = client.whole("POST", "/a", &[GRPC], body).await.unwrap();
        assert_eq!(answer.status(), 200);
        assert!(answer.says("fwd=bypass"), "{}", answer.cache());
    }
    assert_eq!(origin.requests(), 3);
}
