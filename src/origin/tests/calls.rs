//! Calls that stream over HTTP/2, and what others are spared.

use bytes::Bytes;
use http_body_util::BodyExt;

use super::frames::*;
use super::http2::{post, two};
use super::support::*;

#[tokio::test]
async fn a_call_goes_out_at_once_and_its_trailers_come_back() {
    let origin = Script::new(|_, stream| async move {
        let mut connection = h2::server::handshake(stream).await.unwrap();
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            tokio::spawn(async move {
                assert_eq!(request.headers()["te"], "trailers");
                let mut sender = respond.send_response(http::Response::new(()), false).unwrap();
                let mut body = request.into_body();
                while let Some(Ok(piece)) = body.data().await {
                    let _ = body.flow_control().release_capacity(piece.len());
                    sender.send_data(piece, false).unwrap();
                }
                let mut trailers = body.trailers().await.unwrap().unwrap_or_default();
                trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
                sender.send_trailers(trailers).unwrap();
            });
        }
    })
    .await;
    let side = two(&[origin.url()], |_, _| {});
    let (pieces, body) = by_hand();
    let mut call = post(body);
    call.streams = true;
    let answer = side.send(call).await.unwrap();
    let mut body = answer.body;
    for word in ["one", "two"] {
        pieces.send(Ok(Bytes::from(word))).await.unwrap();
        let frame = soon(body.frame()).await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), word);
    }
    drop(pieces);
    let trailers = soon(body.frame()).await.unwrap().unwrap().into_trailers().unwrap();
    assert_eq!(trailers["grpc-status"], "0");
    assert!(soon(body.frame()).await.is_none());
}

#[tokio::test]
async fn without_the_policy_trailers_are_dropped() {
    let origin = Script::new(|_, stream| async move {
        let mut raw = Raw::greet(stream, &[]).await;
        let stream = raw.request().await.unwrap();
        raw.write(HEADERS, END_HEADERS, stream, OK).await;
        raw.write(DATA, 0, stream, b"ok").await;
        raw.write(HEADERS, END_HEADERS | END_STREAM, stream, &[0x00, 0x01, b'a', 0x01, b'b']).await;
        raw.linger().await;
    })
    .await;
    let side = two(&[origin.url()], |_, _| {});
    let mut body = side.get().await.unwrap().body;
    assert_eq!(soon(body.frame()).await.unwrap().unwrap().into_data().unwrap(), "ok");
    assert!(soon(body.frame()).await.is_none());
}
