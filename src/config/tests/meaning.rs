//! What right files and flags come to.

use super::*;
use crate::semantics::{Keep, KeyPolicy, Names, QueryKey};

fn config(text: &str) -> Config {
    load_text(text).unwrap_or_else(|problems| panic!("{problems}")).config
}

fn with(text: &str, flags: &Flags) -> Result<Config, String> {
    load_with_flags(text, flags)
        .map(|loaded| loaded.config)
        .map_err(|problems| problems.to_string())
}

fn addresses(config: &Config, tls: bool) -> Vec<String> {
    let of_kind = config.listeners.iter().filter(|listener| listener.tls == tls);
    of_kind.map(|listener| listener.address.to_string()).collect()
}

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

#[test]
fn policy_keys_of_a_site_are_defaults_for_its_rules() {
    let config = config(&format!(
        "{SMALL}default_lifetime = \"1m\"\njitter = 0\n
         [[site.rule]]\npath = \"/a\"\nlifetime = \"1h\"\n
         [[site.rule]]\npath = \"/b\"\ndefault_lifetime = \"none\"\npass = true\n"
    ));
    let seconds = |time: Option<Duration>| time.map(|time| time.as_secs());
    let rules: Vec<_> = config.sites[0]
        .rules
        .iter()
        .map(|rule| {
            let policy = &rule.policy;
            (
                rule.path.as_str(),
                seconds(policy.lifetime),
                seconds(policy.default_lifetime),
                policy.pass,
            )
        })
        .collect();
    assert_eq!(
        rules,
        [
            ("/a", Some(3600), Some(60), false),
            ("/b", None, None, true),
            ("/", None, Some(60), false)
        ]
    );
    assert!(config.sites[0].rules.iter().all(|rule| rule.policy.jitter_percent == 0));
}

#[test]
fn keys_of_the_cache_key_are_handed_down_and_taken_back() {
    let config = config(&format!(
        "{SMALL}key_query = {{ without = [\"utm_*\"], sorted = true }}\nkey_cookies = []\nkey_device = true\n
         status_lifetime = {{ 404 = \"1m\", 5xx = \"0s\" }}\n
         [[site.rule]]\npath = \"/a\"\nkey_cookies = \"untouched\"\nkey_headers = [\"X-Shop\"]\n
         key_languages = [\"en\", \"pt-BR\"]\nstatus_lifetime = {{ 410 = \"2m\" }}\n
         [[site.rule]]\npath = \"/b\"\nkey_query = \"all\"\nkey_cookies = \"untouched\"\n
         key_device = false\nstatus_lifetime = {{}}\n"
    ));
    let [a, b, site] = &config.sites[0].rules[..] else { panic!("three rules") };
    let query = QueryKey { keep: Keep::Without(Names::new(["utm_*"])), sorted: true };
    let expected = KeyPolicy {
        query: query.clone(),
        cookies: Some(Vec::new()),
        device: true,
        ..KeyPolicy::default()
    };
    assert_eq!(site.policy.key.as_deref(), Some(&expected));
    let expected = KeyPolicy {
        headers: vec![http::HeaderName::from_static("x-shop")],
        cookies: None,
        languages: vec![HeaderValue::from_static("en"), HeaderValue::from_static("pt-BR")],
        ..expected
    };
    assert_eq!(a.policy.key.as_deref(), Some(&expected));
    assert_eq!(b.policy.key, None, "all defaults: nothing to do for a request");
    let lifetimes = |rule: &Rule| {
        [404, 410, 503].map(|status| {
            let status = http::StatusCode::from_u16(status).expect("a status");
            rule.policy.status_lifetime.of(status).map(|lifetime| lifetime.as_secs())
        })
    };
    assert_eq!(lifetimes(site), [Some(60), None, Some(0)]);
    assert_eq!(lifetimes(a), [None, Some(120), None]);
    assert_eq!(lifetimes(b), [None; 3]);
}

#[test]
fn the_host_of_a_site_beats_that_of_its_origin() {
    let text = SMALL.replace("[[site]]", "host = \"Inner.Example\"\n[[site]]");
    let host = |text: &str| config(text).sites[0].host.clone();
    assert_eq!(host(SMALL), None);
    assert_eq!(host(&text), Some(HeaderValue::from_static("inner.example")));
    let both = format!("{text}host = \"shop.example:8080\"\n");
    assert_eq!(host(&both), Some(HeaderValue::from_static("shop.example:8080")));
}

#[test]
fn a_file_without_listeners_has_the_built_in_ones() {
    let text = SMALL.replace("[[listener]]\naddress = \"127.0.0.1:8080\"\n", "");
    let config = config(&text);
    assert_eq!(addresses(&config, false), ["127.0.0.1:8080"]);
    assert_eq!(addresses(&config, true), ["127.0.0.1:8443"]);
    assert!(config.listeners.iter().all(|listener| listener.http2 == listener.tls));
    assert_eq!(config.admin.address, Some(address("127.0.0.1:9080")));
}

#[test]
fn a_flag_replaces_the_listeners_of_its_kind() {
    let text = SMALL
        .replace("[[origin]]", "[[listener]]\naddress = \"127.0.0.1:9\"\ntls = true\n[[origin]]");
    let flags = Flags {
        listen: vec![address("127.0.0.1:1"), address("[::1]:1")],
        admin: Some(Some(address("127.0.0.1:2"))),
        seed: Some(7),
        workers: Some(3),
        memory: Some(64 << 20),
        default_lifetime: Some(Duration::from_secs(9)),
        ..Flags::default()
    };
    let config = with(&text, &flags).expect("fine");
    assert_eq!(addresses(&config, false), ["127.0.0.1:1", "[::1]:1"]);
    assert_eq!(addresses(&config, true), ["127.0.0.1:9"]);
    assert_eq!(config.admin.address, Some(address("127.0.0.1:2")));
    assert_eq!((config.node.seed, config.node.workers), (7, 3));
    assert_eq!(config.memory.budget_bytes, 64 << 20);
    assert_eq!(config.sites[0].rules[0].policy.default_lifetime, Some(Duration::from_secs(9)));

    let flags =
        Flags { admin: Some(None), listen_tls: vec![address("127.0.0.1:3")], ..Flags::default() };
    let config = with(&text, &flags).expect("fine");
    assert_eq!(addresses(&config, true), ["127.0.0.1:3"]);
    assert_eq!(addresses(&config, false), ["127.0.0.1:8080"]);
    assert_eq!(config.admin.address, None);
}

#[test]
fn the_origin_flag_replaces_the_servers_of_the_only_origin() {
    let server = parse_server("https://new.example").expect("a server");
    let flags = Flags { origin: vec![server.clone()], ..Flags::default() };
    let config = with(SMALL, &flags).expect("fine");
    assert_eq!(config.origins[0].servers, [server]);
    assert_eq!(config.origins[0].name, "main");
    let two = SMALL.replace(
        "[[site]]",
        "[[origin]]\nname = \"b\"\nservers = [\"http://b\"]\n[[site]]\norigin = \"main\"",
    );
    let error = with(&two, &flags).expect_err("two origins");
    assert!(error.contains("which of the file's 2 origins"), "{error}");
}

#[test]
fn a_start_without_a_file_serves_every_host() {
    let flags = Flags {
        origin: vec![parse_server("http://127.0.0.1:3000").expect("fine")],
        ..Flags::default()
    };
    let loaded = Config::built_in(&flags).expect("fine");
    let config = loaded.config;
    assert_eq!(config.sites[0].hosts, ["*"]);
    assert_eq!(config.sites[0].origin, 0);
    assert_eq!(config.sites[0].rules.len(), 1);
    assert_eq!(addresses(&config, false), ["127.0.0.1:8080"]);
    assert_eq!(addresses(&config, true), ["127.0.0.1:8443"]);
    assert!(loaded.warnings.is_empty(), "{}", loaded.warnings);
    let clash = Flags { listen: vec![address("127.0.0.1:9080")], ..flags };
    let error = Config::built_in(&clash).expect_err("taken twice").to_string();
    assert!(error.contains("two listeners want the address 127.0.0.1:9080"), "{error}");
}

#[test]
fn certificates_and_tokens_are_read_from_the_folder_of_the_file() {
    let text = format!(
        "{}\n[[certificate]]\nchain = \"example.pem\"\nkey = \"example.key\"\n
         [admin]\ntoken_file = \"admin.token\"\n
         [[admin.token]]\nname = \"deploy\"\nscopes = [\"purge\"]\nsites = [\"main\"]\n
         hash = \"sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\"\n",
        SMALL
            .replace(":8080\"", ":8443\"\ntls = true")
            .replace("\"*\"", "\"www.example.org\", \"*.example.org\", \"192.0.2.1\"")
    );
    let loaded = load_text(&text).unwrap_or_else(|problems| panic!("{problems}"));
    assert!(loaded.warnings.is_empty(), "{}", loaded.warnings);
    let config = loaded.config;
    assert_eq!(config.certificates[0].chain, folder().join("example.pem"));
    let tokens: Vec<_> =
        config.admin.tokens.iter().map(|token| (token.name.as_str(), token.hash)).collect();
    assert_eq!(
        tokens,
        [("deploy", hash_token("abc")), ("token_file", hash_token("atoll_0123456789abcdef"))]
    );
    assert_eq!(config.admin.tokens[0].scopes, [Scope::Purge]);
    assert_eq!(config.admin.tokens[1].scopes, Scope::ALL);
}

#[test]
fn servers_may_be_tables_and_probes_fill_up() {
    let text = SMALL.replace(
        "servers = [\"http://127.0.0.1:3000\"]",
        "servers = [\"https://a.example\", { url = \"https://b.example:8443\", weight = 3, backup = true }]\n\
         resolvers = [\"192.0.2.53\", \"[2001:db8::53]:5353\"]\n\
         probe = { path = \"/health?x\", status = 204 }",
    );
    let config = config(&text);
    let origin = &config.origins[0];
    let servers: Vec<_> =
        origin.servers.iter().map(|s| (s.host.as_str(), s.port, s.weight, s.backup)).collect();
    assert_eq!(servers, [("a.example", 443, 1, false), ("b.example", 8443, 3, true)]);
    assert_eq!(origin.resolvers, [address("192.0.2.53:53"), address("[2001:db8::53]:5353")]);
    let probe = origin.probe.as_ref().expect("a probe");
    assert_eq!((probe.path.as_str(), probe.rise), ("/health?x", 2));
    assert_eq!((&*probe.status, probe.tcp), (&[204..=204][..], false));
    for (written, expected) in [
        ("200", vec![200..=200]),
        ("\"200-299\"", vec![200..=299]),
        ("[200, \"204\", \"300-399\"]", vec![200..=200, 204..=204, 300..=399]),
    ] {
        let text = text.replace("status = 204", &format!("status = {written}, body = \"ready\""));
        let probe = self::config(&text).origins[0].probe.clone().expect("a probe");
        assert_eq!((probe.status, probe.body.as_deref()), (expected, Some("ready")), "{written}");
    }
    let text = text.replace("path = \"/health?x\", status = 204", "tcp = true");
    assert!(self::config(&text).origins[0].probe.as_ref().expect("a probe").tcp);
}
