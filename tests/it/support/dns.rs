//! A DNS server on loopback that says what its story tells it.

use std::collections::HashMap;
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hickory_server::Server;
use hickory_server::net::runtime::Time;
use hickory_server::proto::op::{Header, HeaderCounts, Metadata};
use hickory_server::proto::rr::rdata::{CNAME, SRV};
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use hickory_server::zone_handler::MessageResponseBuilder;
use tokio::net::{TcpListener, UdpSocket};

pub(crate) use hickory_server::proto::op::ResponseCode;
pub(crate) use hickory_server::proto::rr::{Name, RData, Record, RecordType};

use super::origin::runtime;
use super::until;

/// What is said about one question.
#[derive(Clone, Debug)]
pub(crate) enum Said {
    /// These records of the answer; those of another type than was asked for are left out, but for
    /// aliases.
    Records(Vec<Record>),
    /// A failure.
    Code(ResponseCode),
    /// Nothing at all.
    Silence,
}

impl Said {
    /// A records of one name.
    pub(crate) fn addresses(name: &str, last: &[u8], ttl: u32) -> Self {
        Self::Records(last.iter().map(|&last| a(name, local(last), ttl)).collect())
    }
}

type Script = dyn Fn(&str, RecordType) -> Said + Send;

struct Shared {
    script: Mutex<Box<Script>>,
    asked: Mutex<HashMap<(String, RecordType), usize>>,
}

/// The server, over UDP and TCP at one address.
pub(crate) struct Dns {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    _server: Server<Player>,
}

impl Dns {
    /// Starts one; the script gets the name, without its last dot, and what is asked for.
    pub(crate) async fn start(script: impl Fn(&str, RecordType) -> Said + Send + 'static) -> Self {
        let shared =
            Arc::new(Shared { script: Mutex::new(Box::new(script)), asked: Mutex::default() });
        let player = Player(Arc::clone(&shared));
        // It lives where the origins do, so that a busy story does not slow it.
        let start = runtime().spawn(async move {
            // A port that is free for both.
            let (socket, listener) = loop {
                let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
                if let Ok(listener) = TcpListener::bind(socket.local_addr().unwrap()).await {
                    break (socket, listener);
                }
            };
            let address = socket.local_addr().unwrap();
            let mut server = Server::new(player);
            server.register_socket(socket);
            server.register_listener(listener, Duration::from_secs(5), 64);
            (address, server)
        });
        let (address, server) = start.await.unwrap();
        Self { address, shared, _server: server }
    }

    /// One that knows the A records of one name, and nothing else of it.
    pub(crate) async fn of(name: &'static str, last: &'static [u8]) -> Self {
        Self::start(says(name, Said::addresses(name, last, 0))).await
    }

    /// From now on it says something else.
    pub(crate) fn say(&self, script: impl Fn(&str, RecordType) -> Said + Send + 'static) {
        *self.shared.script.lock().unwrap() = Box::new(script);
    }

    /// How often this was asked for.
    pub(crate) fn asked(&self, name: &str, kind: RecordType) -> usize {
        let asked = self.shared.asked.lock().unwrap();
        asked.get(&(name.to_owned(), kind)).copied().unwrap_or_default()
    }

    /// Waits until what is said now about a name has been heard by whoever asks again and again.
    pub(crate) async fn heard(&self, name: &str) {
        let before = self.asked(name, RecordType::A);
        until("DNS to be asked twice", || async { self.asked(name, RecordType::A) >= before + 2 })
            .await;
    }

    /// Keys of an origin that asks here, and may use loopback addresses.
    pub(crate) fn keys(&self, servers: &[String]) -> String {
        format!(
            "name = \"main\"\nservers = {servers:?}\nresolvers = [\"{}\"]\n\
             allow_internal_addresses = true",
            self.address
        )
    }
}

/// A script that says one thing about one name, and of others that they do not exist.
pub(crate) fn says(name: &'static str, said: Said) -> impl Fn(&str, RecordType) -> Said + Send {
    move |asked, _| if asked == name { said.clone() } else { Said::Code(ResponseCode::NXDomain) }
}

/// 127.0.0.`last`.
pub(crate) fn local(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 0, last)
}

fn name(text: &str) -> Name {
    Name::from_ascii(format!("{text}.")).unwrap()
}

/// An address record.
pub(crate) fn a(of: &str, address: impl Into<IpAddr>, ttl: u32) -> Record {
    let data = match address.into() {
        IpAddr::V4(address) => RData::A(address.into()),
        IpAddr::V6(address) => RData::AAAA(address.into()),
    };
    Record::from_rdata(name(of), ttl, data)
}

/// An alias.
pub(crate) fn cname(of: &str, target: &str) -> Record {
    Record::from_rdata(name(of), 0, RData::CNAME(CNAME(name(target))))
}

/// A service: priority, weight and port, and the host.
pub(crate) fn srv(of: &str, (priority, weight, port): (u16, u16, u16), host: &str) -> Record {
    Record::from_rdata(name(of), 0, RData::SRV(SRV::new(priority, weight, port, name(host))))
}

struct Player(Arc<Shared>);

impl Player {
    fn said(&self, name: &str, kind: RecordType) -> Said {
        *self.0.asked.lock().unwrap().entry((name.to_owned(), kind)).or_default() += 1;
        (self.0.script.lock().unwrap())(name, kind)
    }

    async fn play<R: ResponseHandler>(&self, request: &Request, mut out: R) -> ResponseInfo {
        let question = request.request_info().unwrap().query;
        let kind = question.query_type();
        let name = Name::from(question.name()).to_ascii().to_ascii_lowercase();
        let mut metadata = Metadata::response_from_request(&request.metadata);
        let fits = |record: &Record| {
            record.record_type() == kind || record.record_type() == RecordType::CNAME
        };
        let answers = match self.said(name.trim_end_matches('.'), kind) {
            Said::Records(records) => records.into_iter().filter(fits).collect(),
            Said::Code(code) => {
                metadata.response_code = code;
                Vec::new()
            }
            Said::Silence => return Header { metadata, counts: HeaderCounts::default() }.into(),
        };
        let response = MessageResponseBuilder::from_message_request(request).build(
            metadata,
            &answers,
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
