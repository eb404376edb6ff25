use proptest::prelude::*;

use super::*;
use crate::semantics::test_support::fields;

const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 8));

fn trusted() -> Networks {
    Networks::listed(&["192.0.2.0/24".parse().unwrap(), "2001:db8:f::/48".parse().unwrap()])
}

fn told(told: ToldBy, lines: &[(&str, &str)]) -> Result<Option<Believed>, Misled> {
    believe(&fields(lines), told, PEER, &trusted())
}

fn x(line: &str) -> Result<Option<String>, Misled> {
    told(ToldBy::XForwarded, &[("x-forwarded-for", line)]).map(|found| found.as_ref().map(way))
}

fn forwarded(line: &str) -> Result<Option<String>, Misled> {
    told(ToldBy::Forwarded, &[("forwarded", line)]).map(|found| found.as_ref().map(way))
}

fn way(believed: &Believed) -> String {
    assert_eq!(believed.client.ip(), believed.hops.0[0]);
    listed(&believed.hops.0, IpAddr::to_string)
}

#[test]
fn the_last_address_that_is_no_proxy_is_the_client() {
    let rows = [
        ("203.0.113.9", "203.0.113.9, 192.0.2.8"),
        ("10.0.0.1, 203.0.113.9", "203.0.113.9, 192.0.2.8"),
        ("10.0.0.1, 203.0.113.9, 192.0.2.7", "203.0.113.9, 192.0.2.7, 192.0.2.8"),
        ("anything \" at all,203.0.113.9", "203.0.113.9, 192.0.2.8"),
        ("192.0.2.5,192.0.2.7", "192.0.2.5, 192.0.2.7, 192.0.2.8"),
        ("unknown, 192.0.2.7", "192.0.2.7, 192.0.2.8"),
        ("203.0.113.9:4711", "203.0.113.9, 192.0.2.8"),
        ("2001:db8::1", "2001:db8::1, 192.0.2.8"),
        ("[2001:db8::1]:99, [2001:db8:f::2]", "2001:db8::1, 2001:db8:f::2, 192.0.2.8"),
        ("::ffff:203.0.113.9", "203.0.113.9, 192.0.2.8"),
    ];
    for (line, expected) in rows {
        assert_eq!(x(line), Ok(Some(expected.to_owned())), "{line}");
    }
    assert_eq!(x("unknown"), Ok(None));
    assert_eq!(told(ToldBy::XForwarded, &[]), Ok(None));
    let lines = [("x-forwarded-for", "1.1.1.1, 203.0.113.9"), ("x-forwarded-for", "192.0.2.7")];
    let found = told(ToldBy::XForwarded, &lines).map(|found| found.as_ref().map(way));
    assert_eq!(found, Ok(Some("203.0.113.9, 192.0.2.7, 192.0.2.8".to_owned())));
}

#[test]
fn an_end_that_cannot_be_read_is_refused() {
    for line in ["", "x", "1.2.3", "1.2.3.4,", "1.2.3.4:x", "[::1", "1.2.3.4 5", "fe80::1%eth0"] {
        assert_eq!(x(line), Err(Misled), "{line}");
    }
    let row = vec!["192.0.2.7"; MOST + 1].join(",");
    assert_eq!(x(&row), Err(Misled), "too many proxies");
    for line in [
        "",
        "for",
        "for=",
        "for=1.2.3",
        "for=1.2.3.4;for=1.2.3.5",
        "for=[::1]",
        "for=1.2.3.4:80",
        "for=\"1.2.3.4",
        "for=\"1.2.3.\\4\"",
        "for=\"1.2.3.4\"x",
        "for=1.2.3.4,",
    ] {
        assert_eq!(forwarded(line), Err(Misled), "{line}");
    }
}

#[test]
fn elements_of_forwarded_are_read_from_the_end() {
    let rows = [
        ("for=203.0.113.9", "203.0.113.9, 192.0.2.8"),
        ("FOR=\"203.0.113.9:80\";proto=https", "203.0.113.9, 192.0.2.8"),
        ("for=\"[2001:db8::1]:_x\" ; by=_me", "2001:db8::1, 192.0.2.8"),
        ("for=10.0.0.1, for=203.0.113.9;ext=\"a,b\"", "203.0.113.9, 192.0.2.8"),
        // A quote that a client left open swallows nothing of what the proxy wrote.
        ("for=\"10.0.0.1, for=203.0.113.9", "203.0.113.9, 192.0.2.8"),
        ("for=_hidden, for=192.0.2.7", "192.0.2.7, 192.0.2.8"),
    ];
    for (line, expected) in rows {
        assert_eq!(forwarded(line), Ok(Some(expected.to_owned())), "{line}");
    }
    for line in ["for=unknown", "for=_x", "for=\"_x:_y\"", "proto=https"] {
        assert_eq!(forwarded(line), Ok(None), "{line}");
    }
}

#[test]
fn only_the_field_that_proxies_write_is_read() {
    let both = [("x-forwarded-for", "203.0.113.9"), ("forwarded", "for=198.51.100.1")];
    let found = |by| told(by, &both).unwrap().unwrap().client.ip().to_string();
    assert_eq!(found(ToldBy::XForwarded), "203.0.113.9");
    assert_eq!(found(ToldBy::Forwarded), "198.51.100.1");
}

#[test]
fn the_scheme_is_taken_where_it_is_told_plainly() {
    let rows = [
        ("https", Some(Scheme::Https)),
        ("HTTP", Some(Scheme::Http)),
        ("https, https", Some(Scheme::Https)),
        ("http, https", None),
        ("ftp", None),
    ];
    for (proto, expected) in rows {
        let lines = [("x-forwarded-for", "203.0.113.9"), ("x-forwarded-proto", proto)];
        let found = told(ToldBy::XForwarded, &lines).unwrap().unwrap();
        assert_eq!(found.scheme, expected, "{proto}");
    }
    let line = "for=203.0.113.9;proto=http, for=192.0.2.7;proto=https";
    let found = told(ToldBy::Forwarded, &[("forwarded", line)]).unwrap().unwrap();
    assert_eq!(found.scheme, Some(Scheme::Http), "that of the client's own connection");
}

#[test]
fn the_origin_is_told_the_way() {
    let lines = [("x-forwarded-for", "10.9.9.9, 2001:db8::1, 192.0.2.7")];
    let hops = told(ToldBy::XForwarded, &lines).unwrap().unwrap().hops;
    let mut headers = HeaderMap::new();
    let (scheme, host) = (Scheme::Https, "h.example:444");
    write_forwarded(&mut headers, ForwardedFields::Both, Some(&hops), PEER, scheme, host);
    let expected = [
        ("x-forwarded-host", host),
        ("x-forwarded-for", "2001:db8::1, 192.0.2.7, 192.0.2.8"),
        ("x-forwarded-proto", "https"),
        (
            "forwarded",
            "for=\"[2001:db8::1]\", for=192.0.2.7, for=192.0.2.8;host=\"h.example:444\";proto=https",
        ),
    ];
    assert_eq!(headers, fields(&expected));
    let mut headers = HeaderMap::new();
    write_forwarded(&mut headers, ForwardedFields::None, None, PEER, Scheme::Http, "h");
    assert!(headers.is_empty());
    write_forwarded(&mut headers, ForwardedFields::Forwarded, None, PEER, Scheme::Http, "h");
    assert_eq!(headers, fields(&[("forwarded", "for=192.0.2.8;host=\"h\";proto=http")]));
}

proptest! {
    /// Whatever a client sends, what the proxy behind it appends names the client.
    #[test]
    fn nobody_can_pass_for_another(invented in "[ -~]{0,40}", by_line: bool) {
        for (told, name, own) in [
            (ToldBy::XForwarded, "x-forwarded-for", "203.0.113.9"),
            (ToldBy::Forwarded, "forwarded", "for=203.0.113.9;proto=http"),
            (ToldBy::Forwarded, "forwarded", "for=\"203.0.113.9:80\""),
        ] {
            let joined = format!("{invented}, {own}");
            let lines = match by_line {
                true => vec![(name, &*invented), (name, own)],
                false => vec![(name, &*joined)],
            };
            let found = believe(&fields(&lines), told, PEER, &trusted());
            prop_assert_eq!(found.unwrap().unwrap().client.ip().to_string(), "203.0.113.9");
        }
    }

    #[test]
    fn any_line_is_read_without_panic(line in "[ -~]{0,60}", nodes in "[0-9a-f.:,;=\"\\[\\]for _]{0,40}") {
        for text in [line, nodes] {
            let _ = (x(&text), forwarded(&text));
        }
    }

    /// What is written is read back as it was.
    #[test]
    fn the_way_comes_through_an_edge_that_trusts_us(address: [u8; 16], v4: bool) {
        let client = match v4 {
            true => IpAddr::from([203, 0, 113, address[0]]),
            false => IpAddr::V6(Ipv6Addr::from(address)).to_canonical(),
        };
        let mut headers = HeaderMap::new();
        write_forwarded(&mut headers, ForwardedFields::Both, None, client, Scheme::Https, "h");
        for told in [ToldBy::XForwarded, ToldBy::Forwarded] {
            let found = believe(&headers, told, PEER, &trusted()).unwrap().unwrap();
            prop_assert_eq!(found.client.ip(), client);
            prop_assert_eq!(found.scheme, Some(Scheme::Https));
        }
    }
}
