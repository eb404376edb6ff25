//! Answers as they should be: every framing, interim responses, what is removed.

use http::{Method, StatusCode};
use tokio::io::AsyncWriteExt;

use super::support::*;
use crate::message::Body;
use crate::origin::Framing;

#[tokio::test]
async fn every_framing_gives_its_body() {
    let cases: [(&[u8], Framing, &str); 6] = [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", Framing::Length(5), "hello"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", Framing::Length(0), ""),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n",
            Framing::Chunked,
            "hello",
        ),
        (b"HTTP/1.1 200 OK\r\n\r\nhello", Framing::Close, "hello"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", Framing::None, ""),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 10\r\n\r\n", Framing::None, ""),
    ];
    for (bytes, framing, expected) in cases {
        let origin = Script::once(bytes).await;
        let side = side(&[origin.url()]);
        let answer = side.get().await.unwrap();
        assert_eq!(answer.framing, framing);
        assert_eq!(answer.endpoint, origin.address);
        assert_eq!(collect(answer.body).await.unwrap(), expected.as_bytes());
    }
}

#[tokio::test]
async fn an_answer_byte_by_byte_is_the_same() {
    let origin = Script::new(|_, mut stream| async move {
        read_head(&mut stream).await;
        let all = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n";
        for byte in all {
            stream.write_all(&[*byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(side(&[origin.url()]).text().await.unwrap(), "hello");
}

#[tokio::test]
async fn head_has_no_body_and_the_connection_is_kept() {
    let origin = Script::always(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n").await;
    let side = side(&[origin.url()]);
    for _ in 0..3 {
        let answer = side.send(request(Method::HEAD, "/", Body::Empty)).await.unwrap();
        assert_eq!(answer.framing, Framing::None);
        assert_eq!(answer.head.headers["content-length"], "1000");
        assert!(collect(answer.body).await.unwrap().is_empty());
    }
    assert_eq!(origin.seen(), 1);
}

#[tokio::test]
async fn what_concerns_the_connection_alone_is_removed() {
    let origin = Script::once(
        b"HTTP/1.1 200 OK\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\n\
          X-End: 2\r\nContent-Length: 0\r\n\r\n",
    )
    .await;
    let answer = side(&[origin.url()]).get().await.unwrap();
    let names: Vec<_> = answer.head.headers.keys().map(http::HeaderName::as_str).collect();
    assert_eq!(names, ["x-end", "content-length"]);
}

#[tokio::test]
async fn interim_responses_are_handed_on_before_the_answer() {
    let origin = Script::once(
        b"HTTP/1.1 100 Continue\r\n\r\n\
          HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\nConnection: x-hop\r\nX-Hop: 1\r\n\r\n\
          HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    )
    .await;
    let side = side(&[origin.url()]);
    let (outcome, interims) = side.with_interims(get("/")).await;
    assert_eq!(status(&outcome), Some(StatusCode::OK));
    assert_eq!(interims.len(), 1, "100 is for the door alone");
    assert_eq!(interims[0].status, StatusCode::EARLY_HINTS);
    assert_eq!(interims[0].headers["link"], "</a.css>");
    assert!(!interims[0].headers.contains_key("x-hop"));
}

#[tokio::test]
async fn a_large_body_arrives_whole() {
    let origin = Script::new(|_, mut stream| async move {
        while read_head(&mut stream).await.is_some() {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 3 << 20);
            stream.write_all(head.as_bytes()).await.unwrap();
            for index in 0..3_u32 << 10 {
                let block = [u8::try_from(index % 251).unwrap(); 1024];
                stream.write_all(&block).await.unwrap();
            }
        }
    })
    .await;
    let side = side(&[origin.url()]);
    for _ in 0..2 {
        let body = collect(side.get().await.unwrap().body).await.unwrap();
        assert_eq!(body.len(), 3 << 20);
        for (index, block) in body.chunks(1024).enumerate() {
            assert!(block.iter().all(|&byte| usize::from(byte) == index % 251));
        }
    }
    assert_eq!(origin.seen(), 1, "the connection was kept");
}
