//! Large bodies in both directions, at flat memory: what waits for the slower side waits there and
//! not here.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::support::h2_origin::{give, take};
use crate::support::{Edge, Gate, H2, H2Origin, within};

const MIB: u64 = 1 << 20;

/// Size of the pieces that these clients and origins hand over.
const PIECE: usize = 16 * 1024;

/// Most that may wait of one stream at the door to an origin.
const MOST: f64 = 65_536.0;

/// A version of HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Http {
    One,
    Two,
}

/// An origin that counts what it is sent and sends as much as it is asked for.
enum Sink {
    One(SocketAddr),
    Two(H2Origin),
}

impl Sink {
    async fn new(http: Http) -> Self {
        match http {
            Http::One => Self::One(sink_one().await),
            Http::Two => Self::Two(H2Origin::start(None, |mut call| async move {
                let wanted: u64 = call.path()[1..].parse().unwrap();
                let mut count = 0;
                while let Some(piece) = take(&mut call.body).await {
                    count += piece.len() as u64;
                }
                let last = count.to_string();
                let size = (wanted + last.len() as u64).to_string();
                let (_, mut stream) = call.begin(&[("content-length", &size)]);
                let mut left = wanted;
                while left > 0 {
                    let size = PIECE.min(usize::try_from(left).unwrap());
                    if !give(&mut stream, Bytes::from(vec![b'a'; size])).await {
                        return;
                    }
                    left -= size as u64;
                }
                give(&mut stream, last.into()).await;
                let _ = stream.send_data(Bytes::new(), true);
            })),
        }
    }

    fn keys(&self) -> String {
        let (address, http) = match self {
            Self::One(address) => (*address, "1.1"),
            Self::Two(origin) => (origin.address, "2"),
        };
        format!("name = \"main\"\nservers = [\"http://{address}\"]\nhttp = \"{http}\"")
    }
}

/// The same over HTTP/1.1: the body of a request is as long as announced.
async fn sink_one() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut buffer = vec![0; PIECE];
                loop {
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        match stream.read_u8().await {
                            Ok(byte) => head.push(byte),
                            Err(_) => return,
                        }
                    }
                    let head = String::from_utf8(head).unwrap().to_lowercase();
                    let wanted: u64 = head.split_whitespace().nth(1).unwrap()[1..].parse().unwrap();
                    let length =
                        head.lines().find_map(|line| line.strip_prefix("content-length: "));
                    let length: u64 = length.map_or(0, |digits| digits.parse().unwrap());
                    let mut count = 0;
                    while count < length {
                        let read = stream.read(&mut buffer).await.unwrap();
                        assert!(read > 0, "the body is whole");
                        count += read as u64;
                    }
                    let last = count.to_string();
                    let size = wanted + last.len() as u64;
                    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n");
                    stream.write_all(head.as_bytes()).await.unwrap();
                    let mut left = wanted;
                    while left > 0 {
                        let size = PIECE.min(usize::try_from(left).unwrap());
                        if stream.write_all(&vec![b'a'; size]).await.is_err() {
                            return;
                        }
                        left -= size as u64;
                    }
                    stream.write_all(last.as_bytes()).await.unwrap();
                }
            });
        }
    });
    address
}

/// Sends `up` bytes and reads the answer of `down` bytes and a count; gives that count.
async fn carry(edge: &Edge, client: Http, up: u64, down: u64) -> u64 {
    match client {
        Http::One => carry_one(edge.plain(), up, down).await,
        Http::Two => carry_two(edge.plain(), up, down).await,
    }
}

async fn carry_one(edge: SocketAddr, up: u64, down: u64) -> u64 {
    let mut stream = tokio::net::TcpStream::connect(edge).await.unwrap();
    let head = format!(
        "POST /{down} HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: {up}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut left = up;
    while left > 0 {
        let size = PIECE.min(usize::try_from(left).unwrap());
        stream.write_all(&vec![b'a'; size]).await.unwrap();
        left -= size as u64;
    }
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&head));
    let mut tail = Tail::default();
    let mut buffer = vec![0; PIECE];
    loop {
        match stream.read(&mut buffer).await.unwrap() {
            0 => return tail.count(down),
            read => tail.push(&buffer[..read]),
        }
    }
}

async fn carry_two(edge: SocketAddr, up: u64, down: u64) -> u64 {
    let mut client = H2::plain(edge, "h").await;
    let length = up.to_string();
    let request = client.head("POST", &format!("/{down}"), &[("content-length", &length)]);
    let mut asked = client.ask(request, true).await;
    let mut left = up;
    while left > 0 {
        let size = PIECE.min(usize::try_from(left).unwrap());
        assert!(give(&mut asked.body, Bytes::from(vec![b'a'; size])).await);
        left -= size as u64;
    }
    asked.body.send_data(Bytes::new(), true).unwrap();
    let answer = asked.response().await.unwrap();
    assert_eq!(answer.status(), 200);
    let mut body = answer.into_body();
    let mut tail = Tail::default();
    while let Some(piece) = take(&mut body).await {
        tail.push(&piece);
    }
    tail.count(down)
}

/// An answer of which only the size and the last bytes are kept.
#[derive(Default)]
struct Tail {
    size: u64,
    last: Vec<u8>,
}

impl Tail {
    fn push(&mut self, piece: &[u8]) {
        self.size += piece.len() as u64;
        self.last.extend_from_slice(&piece[piece.len().saturating_sub(20)..]);
        let surplus = self.last.len().saturating_sub(20);
        self.last.drain(..surplus);
    }

    /// The number behind `down` bytes.
    fn count(&self, down: u64) -> u64 {
        let digits = usize::try_from(self.size - down).unwrap();
        let count = &self.last[self.last.len() - digits..];
        std::str::from_utf8(count).unwrap().parse().unwrap()
    }
}

async fn edge(sink: &Sink) -> Edge {
    Edge::before_servers(&[])
        .no_origins()
        .origin_keys(&sink.keys())
        .site("pass = true\nbody_bytes = \"4GiB\"")
        .plain_h2()
        .start()
}

async fn waited(edge: &Edge) -> f64 {
    edge.metric("atoll_origin_stream_queued_bytes_max{origin=\"main\"}").await
}

/// Carries `size` bytes up, then down.
async fn both_ways(client: Http, origin: Http, size: u64) {
    let sink = Sink::new(origin).await;
    let edge = edge(&sink).await;
    assert_eq!(carry(&edge, client, size, 0).await, size, "{client:?} {origin:?}");
    assert_eq!(carry(&edge, client, 0, size).await, 0, "{client:?} {origin:?}");
    let most = waited(&edge).await;
    assert!((1.0..=MOST).contains(&most), "{client:?} {origin:?}: {most} bytes waited");
}

#[tokio::test]
async fn large_bodies_over_http1_wait_where_they_come_from() {
    both_ways(Http::One, Http::One, 64 * MIB).await;
}

#[tokio::test]
async fn large_bodies_over_http2_wait_where_they_come_from() {
    both_ways(Http::Two, Http::Two, 64 * MIB).await;
}

#[tokio::test]
async fn large_bodies_from_one_version_to_the_other() {
    both_ways(Http::One, Http::Two, 8 * MIB).await;
    both_ways(Http::Two, Http::One, 8 * MIB).await;
}

/// Sends until nobody takes more; what went out.
async fn push_until_it_stalls(asked: &mut crate::support::h2::Asked, counted: &AtomicU64) {
    loop {
        let piece = Bytes::from(vec![b'a'; PIECE]);
        let sent = tokio::time::timeout(Duration::from_millis(500), give(&mut asked.body, piece));
        match sent.await {
            Ok(true) => counted.fetch_add(PIECE as u64, Ordering::SeqCst),
            Ok(false) => panic!("the edge gave the upload up"),
            Err(_stalled) => return,
        };
    }
}

#[tokio::test]
async fn an_origin_that_does_not_read_holds_its_client_back() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = H2Origin::start(None, move |mut call| {
        let gate = held.clone();
        async move {
            gate.pass().await;
            let mut count = 0;
            while let Some(piece) = take(&mut call.body).await {
                count += piece.len();
            }
            call.text(&count.to_string());
        }
    });
    let sink = Sink::Two(origin);
    let edge = edge(&sink).await;
    let mut client = H2::plain(edge.plain(), "h").await;
    let request = client.head("POST", "/0", &[]);
    let mut asked = client.ask(request, true).await;
    let sent = Arc::new(AtomicU64::new(0));
    push_until_it_stalls(&mut asked, &sent).await;
    // The origin's window of 1 MiB, and what may wait on the way.
    let stalled = sent.load(Ordering::SeqCst);
    assert!(stalled <= MIB + 256 * 1024, "{stalled} bytes");
    assert!(waited(&edge).await <= MOST);
    gate.open();
    asked.body.send_data(Bytes::new(), true).unwrap();
    let whole = asked.outcome().await.unwrap();
    assert!(whole.text().parse::<u64>().unwrap() >= stalled);
}

/// Resident memory of this process, and the most since it was last asked, in bytes.
fn resident() -> (u64, u64) {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let of = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    };
    let found = (of("VmRSS:"), of("VmHWM:"));
    let _ = std::fs::write("/proc/self/clear_refs", "5");
    found
}

#[tokio::test]
#[ignore = "takes minutes; part of .ci/long"]
async fn a_gibibyte_each_way_leaves_memory_flat() {
    for (client, origin) in [
        (Http::One, Http::One),
        (Http::Two, Http::Two),
        (Http::One, Http::Two),
        (Http::Two, Http::One),
    ] {
        let sink = Sink::new(origin).await;
        let edge = edge(&sink).await;
        // What every run needs once: stacks, buffers, the allocator's own.
        carry(&edge, client, MIB, MIB).await;
        let (idle, _) = resident();
        let one = 1024 * MIB;
        assert_eq!(carry(&edge, client, one, 0).await, one);
        assert_eq!(carry(&edge, client, 0, one).await, 0);
        let (_, most) = resident();
        let grown = most.saturating_sub(idle);
        println!(
            "{client:?} to {origin:?}: {} KiB above idle, client and origin included",
            grown / 1024
        );
        assert!(grown <= 8 * MIB, "{client:?} {origin:?}: {grown} bytes above idle");
        assert!(waited(&edge).await <= MOST);
    }
}

#[tokio::test]
async fn a_download_that_nobody_reads_stalls_at_the_origin() {
    let sent = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&sent);
    let origin = H2Origin::start(None, move |call| {
        let sent = Arc::clone(&counted);
        async move {
            let (_, mut stream) = call.begin(&[]);
            while give(&mut stream, Bytes::from(vec![b'a'; PIECE])).await {
                sent.fetch_add(PIECE as u64, Ordering::SeqCst);
            }
        }
    });
    let sink = Sink::Two(origin);
    let edge = edge(&sink).await;
    let mut client = H2::plain(edge.plain(), "h").await;
    let request = client.head("GET", "/0", &[]);
    let answer = client.ask(request, false).await.response().await.unwrap();
    // The client's window of 1 MiB is full; a window of ours, and what is on the way.
    let mut last = 0;
    within("the origin to stall", async {
        loop {
            tokio::time::sleep(Duration::from_millis(200)).await;
            let now = sent.load(Ordering::SeqCst);
            if now == last && now > 0 {
                return;
            }
            last = now;
        }
    })
    .await;
    assert!(last <= MIB + 256 * 1024, "{last} bytes");
    assert!(waited(&edge).await <= MOST);
    drop(answer);
}
