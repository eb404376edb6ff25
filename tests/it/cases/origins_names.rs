//! What DNS may do to an origin (E25 to E30).

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hickory_server::proto::op::{Message, ResponseCode};
use hickory_server::proto::rr::Record;
use tokio::net::UdpSocket;
use tokio::time::Instant;

use crate::names::{addresses, named, uses};
use crate::support::dns::{RecordType, Said, a, cname, local, says};
use crate::support::edge::Plan;
use crate::support::{Dns, Edge, Gate, Origin, Reply, until};

/// Case, what it is about, and the tests that prove it: file and name.
pub(super) const PROOFS: [(&str, &str, &[&str]); 6] = [
    (
        "E25",
        "an empty answer",
        &[
            "it/cases/origins_names e25_",
            "it/names a_day_of_dns_in_ten_seconds",
            "src/origin/kept the_last_good_answer_survives_every_failure",
        ],
    ),
    (
        "E26",
        "odd times to live",
        &[
            "it/cases/origins_names e26_",
            "src/origin/kept times_to_live_are_kept_within_bounds",
            "src/origin/tests/names a_time_to_live_of_nothing_is_no_question_per_request",
        ],
    ),
    (
        "E27",
        "too much of an answer",
        &[
            "it/cases/origins_names e27_a_thousand",
            "it/cases/origins_names e27_chains",
            "src/origin/kept a_flood_of_addresses_is_cut_without_changing_those_in_use",
            "src/origin/services a_flood_of_records_is_cut_and_those_in_force_stay",
            "src/origin/dns a_chain_has_eight_links_and_no_more",
        ],
    ),
    (
        "E28",
        "answers that flap",
        &["it/cases/origins_names e28_", "it/names a_request_under_way_outlives_its_address"],
    ),
    (
        "E29",
        "addresses inside",
        &[
            "it/cases/origins_names e29_",
            "src/origin/address internal_addresses_in_every_wrapping",
            "src/origin/address our_own_addresses_are_known_as_such",
        ],
    ),
    (
        "E30",
        "answers from others",
        &["it/cases/origins_names e30_", "src/origin/dns what_was_not_asked_for_does_not_count"],
    ),
];

const APP: &str = "app.test";

/// Origins in a row that answer with their number, and the URL of the name.
fn row(count: u8) -> (Vec<Origin>, String) {
    let origins = Origin::row(count, |last, _| Reply::ok(last.to_string()));
    let url = format!("http://{APP}:{}", origins[0].address.port());
    (origins, url)
}

#[tokio::test]
async fn e25_an_empty_answer_takes_nothing_away() {
    let (_origins, url) = row(1);
    let dns = Dns::of(APP, &[1]).await;
    let edge = named(&dns, &[url]).start();
    assert_eq!(edge.get("/a").await.text(), "1");
    dns.say(|_, _| Said::Records(Vec::new()));
    dns.heard(APP).await;
    assert_eq!(edge.get("/b").await.text(), "1");
    assert_eq!(addresses(&edge).await, [1]);
}

#[tokio::test]
async fn e26_no_time_to_live_means_a_question_per_request_or_never_again() {
    for ttl in [0, 1 << 31, u32::MAX] {
        let (_origins, url) = row(2);
        let dns = Dns::start(says(APP, Said::addresses(APP, &[1], ttl))).await;
        let edge = named(&dns, &[url]).start();
        let begun = Instant::now();
        for number in 0..50 {
            assert_eq!(edge.get(&format!("/{number}")).await.text(), "1");
        }
        let asked = dns.asked(APP, RecordType::A) as u64;
        // The least time between two questions is a second here, the most as well.
        assert!(asked <= 2 + begun.elapsed().as_secs(), "{ttl}: {asked}");
        dns.say(says(APP, Said::addresses(APP, &[2], ttl)));
        uses(&edge, &[2]).await;
    }
}

#[tokio::test]
async fn e27_a_thousand_addresses_are_too_many_and_the_choice_among_them_stays() {
    let many: Vec<Record> = (0..1000_u16).map(|index| a(APP, address_of(index), 0)).collect();
    let dns = Dns::start(says(APP, Said::Records(many.clone()))).await;
    let edge = named(&dns, &[format!("http://{APP}:1")]).limits("dns_addresses = 16").start();
    let endpoints = "atoll_origin_endpoints{origin=\"main\"}";
    // They do not fit into a datagram: what came is cut off, and asked for again over TCP.
    edge.metric_becomes(endpoints, 16.0).await;
    let first = edge.manage("GET", "/v1/origins", None).await;
    let mut turned = many;
    turned.rotate_left(700);
    dns.say(says(APP, Said::Records(turned)));
    dns.heard(APP).await;
    let later = edge.manage("GET", "/v1/origins", None).await;
    assert_eq!(listed(first.text()), listed(later.text()));
    assert_eq!(listed(later.text()).len(), 16);
}

fn address_of(index: u16) -> IpAddr {
    let [high, low] = index.to_be_bytes();
    IpAddr::from([127, 1, high, low])
}

/// Addresses in what the admin API says of origins.
fn listed(text: &str) -> Vec<String> {
    let all: serde_json::Value = serde_json::from_str(text).unwrap();
    let endpoints = all["origins"][0]["endpoints"].as_array().unwrap();
    let address = |endpoint: &serde_json::Value| endpoint["address"].as_str().unwrap().to_owned();
    let mut all: Vec<_> = endpoints.iter().map(address).collect();
    all.sort();
    all
}

/// `links` aliases from the name to `n.test` with address 127.0.0.`last`.
fn chain(links: usize, last: u8) -> Vec<Record> {
    let hop = |index: usize| match index {
        0 => APP.to_owned(),
        index => format!("n{index}.test"),
    };
    let mut all: Vec<_> = (0..links).map(|index| cname(&hop(index), &hop(index + 1))).collect();
    all.push(a(&hop(links), local(last), 0));
    all
}

#[tokio::test]
async fn e27_chains_of_aliases_have_an_end() {
    let (_origins, url) = row(2);
    let dns = Dns::start(says(APP, Said::Records(chain(8, 1)))).await;
    let edge = named(&dns, &[url]).start();
    assert_eq!(edge.get("/eight").await.text(), "1");
    let round = vec![cname(APP, "b.test"), cname("b.test", APP)];
    let step_by_step = |name: &str, _: RecordType| match name.split_once('.') {
        Some((label, _)) => {
            let index: usize =
                label.trim_start_matches("app").trim_start_matches('n').parse().unwrap_or(0);
            Said::Records(vec![cname(name, &format!("n{}.test", index + 1))])
        }
        None => Said::Silence,
    };
    for kind in ["fifty in one answer", "fifty one by one", "a loop"] {
        let before = dns.asked("n10.test", RecordType::A);
        match kind {
            "fifty in one answer" => dns.say(says(APP, Said::Records(chain(50, 2)))),
            "fifty one by one" => dns.say(step_by_step),
            _ => {
                let round = round.clone();
                dns.say(move |_, _| Said::Records(round.clone()));
            }
        }
        dns.heard(APP).await;
        assert_eq!(addresses(&edge).await, [1], "{kind}: the last good answer is kept");
        assert_eq!(dns.asked("n10.test", RecordType::A), before, "{kind}");
    }
    assert_eq!(edge.get("/after").await.text(), "1");
}

#[tokio::test]
async fn e28_flapping_answers_drain_and_cut_nobody_off() {
    let gate = Gate::new();
    let held = gate.clone();
    let origins = Origin::row(4, move |last, seen| {
        let reply = Reply::ok(last.to_string());
        if seen.target.starts_with("/slow") { reply.gate(&held) } else { reply }
    });
    let url = format!("http://{APP}:{}", origins[0].address.port());
    let dns = Dns::of(APP, &[1, 2]).await;
    let edge = Arc::new(named(&dns, &[url]).start());
    let mut slow = Vec::new();
    for (number, set) in [[1, 2], [3, 4], [1, 2], [3, 4]].into_iter().enumerate() {
        dns.say(says(APP, Said::addresses(APP, &set, 0)));
        uses(&edge, &set).await;
        let client = Arc::clone(&edge);
        slow.push((
            set,
            tokio::spawn(
                async move { client.get(&format!("/slow/{number}")).await.text().to_owned() },
            ),
        ));
        gate.reached(number + 1).await;
        for quick in 0..10 {
            let answer = edge.get(&format!("/{number}/{quick}")).await;
            assert!(set.contains(&answer.text().parse().unwrap()), "{answer:?}");
        }
    }
    gate.open();
    for (set, answer) in slow {
        let answer = answer.await.unwrap();
        assert!(set.contains(&answer.parse().unwrap()), "{answer} of {set:?}");
    }
    let open = "atoll_origin_connections_open{origin=\"main\"}";
    until("those of the retired addresses to be closed", || async {
        edge.metric(open).await <= 4.0
    })
    .await;
}

/// Addresses of this machine as it is seen from outside, and of others that nobody may be led to.
fn inside() -> Vec<IpAddr> {
    let mut all: Vec<IpAddr> = ["127.0.0.1", "169.254.169.254", "0.0.0.0", "224.0.0.1", "::1"]
        .map(|text| text.parse().unwrap())
        .into();
    all.push("::ffff:127.0.0.1".parse().unwrap());
    let way_out = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    if way_out.connect("198.51.100.1:9").is_ok() {
        all.push(way_out.local_addr().unwrap().ip());
    }
    all
}

#[tokio::test]
async fn e29_a_name_leads_neither_inside_nor_to_ourselves() {
    let listener = tokio::net::TcpListener::bind("0.0.0.0:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    for address in inside() {
        let dns = Dns::start(says(APP, Said::Records(vec![a(APP, address, 0)]))).await;
        let keys = dns
            .keys(&[format!("http://{APP}:{port}")])
            .replace("allow_internal_addresses = true", "");
        let edge = Plan::before(&[])
            .no_origins()
            .origin_keys(&keys)
            .limits("dns_ttl_least = \"1s\"\norigin_dns = \"2s\"")
            .start();
        assert_eq!(edge.get("/a").await.status(), 502, "{address}");
        let counted = "atoll_origin_dns_failures_total{kind=\"forbidden\",origin=\"main\"}";
        assert!(edge.metric(counted).await >= 1.0, "{address}");
        assert_eq!(listed(edge.manage("GET", "/v1/origins", None).await.text()), [""; 0]);
    }
    let accepted = tokio::time::timeout(Duration::ZERO, listener.accept()).await;
    assert!(accepted.is_err(), "nobody came");
}

/// A name server that answers each question about A records in four false ways before it tells
/// the truth: 127.0.0.1.
async fn besieged() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let stranger = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut bytes = [0; 1500];
        while let Ok((count, client)) = socket.recv_from(&mut bytes).await {
            let question = Message::from_vec(&bytes[..count]).unwrap();
            let about_a = question.queries[0].query_type() == RecordType::A;
            let answer = |records: Vec<Record>| {
                let mut message =
                    Message::response(question.metadata.id, question.metadata.op_code);
                message.add_query(question.queries[0].clone());
                message.add_answers(if about_a { records } else { Vec::new() });
                message
            };
            let lie = || vec![a(APP, local(66), 60)];
            let mut wrong_number = answer(lie());
            wrong_number.metadata.id ^= 1;
            let mut wrong_question = answer(lie());
            let name = hickory_server::proto::rr::Name::from_ascii("other.test.").unwrap();
            wrong_question.queries[0].set_name(name);
            // The truth, and beside it what nobody has asked for.
            let mut truth = answer(vec![a("other.test", local(66), 1), a(APP, local(1), 60)]);
            truth.add_additionals(lie());
            truth.add_authorities([cname(APP, "evil.test"), a("evil.test", local(66), 1)]);
            truth.metadata.response_code = ResponseCode::NoError;
            let _ = stranger.send_to(&answer(lie()).to_vec().unwrap(), client).await;
            for message in [wrong_number, wrong_question, truth] {
                let _ = socket.send_to(&message.to_vec().unwrap(), client).await;
            }
        }
    });
    address
}

#[tokio::test]
async fn e30_what_does_not_answer_our_question_is_dropped() {
    let (_origins, url) = row(1);
    let server = besieged().await;
    let keys = format!(
        "name = \"main\"\nservers = [\"{url}\"]\nresolvers = [\"{server}\"]\n\
         allow_internal_addresses = true"
    );
    let edge: Edge = Plan::before(&[]).no_origins().origin_keys(&keys).start();
    assert_eq!(edge.get("/a").await.text(), "1");
    assert_eq!(addresses(&edge).await, [1]);
}
