//! Names of servers, asked for at a DNS server that plays a script.

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hickory_server::Server;
use hickory_server::net::runtime::Time;
use hickory_server::proto::op::{Header, HeaderCounts, Metadata, ResponseCode};
use hickory_server::proto::rr::{Name, RData, Record, RecordType};
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use hickory_server::zone_handler::MessageResponseBuilder;
use tokio::net::{TcpListener, UdpSocket};

use super::support::*;
use crate::config::{self, Limits};
use crate::origin::SendError;

/// What the DNS server says about every name.
#[derive(Clone, Debug)]
enum Line {
    /// These A records with this time to live; no AAAA.
    Addresses(Vec<Ipv4Addr>, u32),
    Code(ResponseCode),
    Silence,
}

/// A DNS server on loopback.
struct Dns {
    address: SocketAddr,
    line: Arc<Mutex<Line>>,
    /// Questions for A records.
    questions: Arc<AtomicUsize>,
    _server: Server<Player>,
}

struct Player {
    line: Arc<Mutex<Line>>,
    questions: Arc<AtomicUsize>,
}

impl Dns {
    async fn new(line: Line) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let line = Arc::new(Mutex::new(line));
        let questions = Arc::default();
        let player = Player { line: Arc::clone(&line), questions: Arc::clone(&questions) };
        let mut server = Server::new(player);
        server.register_socket(socket);
        Self { address, line, questions, _server: server }
    }

    fn say(&self, line: Line) {
        *self.line.lock().unwrap() = line;
    }

    fn asked(&self) -> usize {
        self.questions.load(Ordering::SeqCst)
    }

    /// Waits until what was said last has been heard.
    async fn heard(&self) {
        let before = self.asked();
        until(|| self.asked() >= before + 2).await;
    }
}

impl Player {
    async fn play<R: ResponseHandler>(&self, request: &Request, mut out: R) -> ResponseInfo {
        let question = request.request_info().unwrap().query;
        let (name, kind) = (Name::from(question.name()), question.query_type());
        if kind == RecordType::A {
            self.questions.fetch_add(1, Ordering::SeqCst);
        }
        let line = self.line.lock().unwrap().clone();
        let mut metadata = Metadata::response_from_request(&request.metadata);
        let mut records = Vec::new();
        match line {
            Line::Addresses(addresses, ttl) if kind == RecordType::A => {
                let record = |address: Ipv4Addr| {
                    Record::from_rdata(name.clone(), ttl, RData::A(address.into()))
                };
                records.extend(addresses.into_iter().map(record));
            }
            Line::Addresses(..) => {}
            Line::Code(code) => metadata.response_code = code,
            Line::Silence => return Header { metadata, counts: HeaderCounts::default() }.into(),
        }
        let response = MessageResponseBuilder::from_message_request(request).build(
            metadata,
            &records,
            [],
            [],
            [],
        );
        out.send_response(response).await.unwrap()
    }
}

impl RequestHandler for Player {
    fn handle_request<'a, 'b, 'c, R, T>(
        &'a self,
        request: &'b Request,
        out: R,
    ) -> Pin<Box<dyn Future<Output = ResponseInfo> + Send + 'c>>
    where
        R: ResponseHandler + 'c,
        T: Time + 'c,
        'a: 'c,
        'b: 'c,
        Self: 'c,
    {
        Box::pin(self.play(request, out))
    }
}

const fn local(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 0, last)
}

/// Origins on 127.0.0.1, 127.0.0.2 and so on, all at one port, that answer with their last byte.
async fn row(count: u8) -> (u16, Vec<Script>) {
    let mut origins = Vec::new();
    let mut port = 0;
    for last in 1..=count {
        let listener = TcpListener::bind((local(last), port)).await.unwrap();
        port = listener.local_addr().unwrap().port();
        origins.push(Script::on(listener, move |_, mut stream| async move {
            while read_head(&mut stream).await.is_some() {
                answer(&mut stream, &last.to_string()).await;
            }
        }));
    }
    (port, origins)
}

fn quick(dns: &Dns) -> impl FnOnce(&mut Limits, &mut config::Origin) + use<> {
    let address = dns.address;
    move |limits, origin| {
        limits.dns_ttl_least = Duration::from_millis(20);
        limits.origin_dns = Duration::from_millis(400);
        origin.resolvers = vec![address];
        origin.allow_internal_addresses = true;
    }
}

#[tokio::test]
async fn the_first_request_waits_for_the_first_answer() {
    let (port, _origins) = row(1).await;
    let dns = Dns::new(Line::Addresses(vec![local(1)], 300)).await;
    let side = tuned(&[format!("http://app.test:{port}")], quick(&dns)).in_background();
    assert_eq!(side.text().await.unwrap(), "1");
    let status = side.origins.status();
    assert!(status[0].servers[0].resolved_seconds_ago.is_some());
    assert_eq!(status[0].servers[0].url, format!("http://app.test:{port}"));
}

#[tokio::test]
async fn addresses_follow_dns_and_no_request_fails_while_they_do() {
    let (port, origins) = row(3).await;
    let dns = Dns::new(Line::Addresses(vec![local(1)], 0)).await;
    let side = Arc::new(tuned(&[format!("http://app.test:{port}")], quick(&dns)).in_background());
    let load = tokio::spawn({
        let side = Arc::clone(&side);
        async move {
            loop {
                side.text().await.unwrap();
                tokio::task::yield_now().await;
            }
        }
    });
    let metrics = side.measured();
    let says = [
        (Line::Addresses(vec![local(1), local(2)], 0), vec![1, 2], None),
        (Line::Code(ResponseCode::NXDomain), vec![1, 2], Some("no_name")),
        (Line::Addresses(vec![local(2)], 0), vec![2], None),
        (Line::Code(ResponseCode::ServFail), vec![2], Some("refused")),
        (Line::Addresses(Vec::new(), 0), vec![2], Some("no_records")),
        (Line::Addresses(vec![local(2), local(3)], 0), vec![2, 3], None),
        (Line::Silence, vec![2, 3], Some("timeout")),
        (Line::Addresses(vec![local(3)], 0), vec![3], None),
    ];
    for (line, expected, failure) in says {
        let failures = || failure.map(|kind| metrics.dns_failures(kind).get());
        let before = failures();
        dns.say(line.clone());
        match failure {
            Some(_) => until(|| failures() > before).await,
            None => dns.heard().await,
        }
        let addresses = || {
            let status = side.origins.status();
            let mut last: Vec<_> = status[0]
                .endpoints
                .iter()
                .filter_map(|endpoint| match endpoint.address.ip() {
                    std::net::IpAddr::V4(address) => Some(address.octets()[3]),
                    std::net::IpAddr::V6(_) => None,
                })
                .collect();
            last.sort_unstable();
            last
        };
        until(|| addresses() == expected).await;
        assert!(!load.is_finished(), "{line:?}");
    }
    // Connections to addresses that are gone are closed, and nothing new goes there.
    until(|| metrics.connections_open.get() <= 1).await;
    let before: usize = origins[..2].iter().map(Script::seen).sum();
    for _ in 0..50 {
        assert_eq!(side.text().await.unwrap(), "3");
    }
    assert_eq!(origins[..2].iter().map(Script::seen).sum::<usize>(), before);
    assert!(!load.is_finished());
    load.abort();
}

#[tokio::test]
async fn without_any_answer_yet_the_error_says_why() {
    let cases = [
        (Line::Code(ResponseCode::NXDomain), "dns_error"),
        (Line::Code(ResponseCode::ServFail), "dns_error"),
        (Line::Addresses(Vec::new(), 60), "dns_error"),
        (Line::Silence, "dns_timeout"),
    ];
    for (line, expected) in cases {
        let (port, _origins) = row(1).await;
        let dns = Dns::new(line.clone()).await;
        let side = tuned(&[format!("http://app.test:{port}")], quick(&dns)).in_background();
        let error = side.get().await.unwrap_err();
        assert_eq!(error.label(), expected, "{line:?}: {error}");
        dns.say(Line::Addresses(vec![local(1)], 60));
        soon(async {
            while side.text().await.is_err() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
    }
}

#[tokio::test]
async fn what_another_configuration_knew_stands_until_there_is_an_answer() {
    let (port, _origins) = row(2).await;
    let dns = Dns::new(Line::Addresses(vec![local(1)], 300)).await;
    let servers = [format!("http://app.test:{port}")];
    let old = tuned(&servers, quick(&dns)).in_background();
    assert_eq!(old.text().await.unwrap(), "1");
    for line in [Line::Code(ResponseCode::ServFail), Line::Addresses(Vec::new(), 0)] {
        dns.say(line);
        let new = tuned(&servers, quick(&dns));
        new.origins.adopt(&old.origins);
        let new = new.in_background();
        let failed = || new.origins.status()[0].servers[0].dns_error.is_some();
        until(failed).await;
        assert_eq!(new.text().await.unwrap(), "1");
        dns.say(Line::Addresses(vec![local(2)], 0));
        until(|| !failed()).await;
        assert_eq!(new.text().await.unwrap(), "2");
    }
}

#[tokio::test]
async fn a_name_may_not_point_inside_unless_allowed() {
    let (port, origins) = row(1).await;
    let dns = Dns::new(Line::Addresses(vec![local(1)], 60)).await;
    let side = tuned(&[format!("http://app.test:{port}")], |limits, origin| {
        quick(&dns)(limits, origin);
        origin.allow_internal_addresses = false;
    })
    .in_background();
    assert!(matches!(side.get().await, Err(SendError::DnsError(_))));
    assert_eq!(origins[0].seen(), 0);
}

#[tokio::test]
async fn a_time_to_live_of_nothing_is_no_question_per_request() {
    let (port, _origins) = row(1).await;
    let dns = Dns::new(Line::Addresses(vec![local(1)], 0)).await;
    let servers = [format!("http://app.test:{port}"), format!("http://app.test:{}", port ^ 1)];
    let side = tuned(&servers, |limits, origin| {
        quick(&dns)(limits, origin);
        limits.dns_ttl_least = Duration::from_secs(5);
        origin.servers[1].weight = 0;
    })
    .in_background();
    for _ in 0..100 {
        assert_eq!(side.text().await.unwrap(), "1");
    }
    assert_eq!(dns.asked(), 1, "and two servers of one name share the answer");
}

#[tokio::test]
async fn without_a_background_the_wait_for_a_name_has_an_end() {
    let dns = Dns::new(Line::Silence).await;
    let side = tuned(&["http://app.test:1".to_owned()], quick(&dns));
    assert_eq!(side.get().await.unwrap_err(), SendError::DnsTimeout);
}
