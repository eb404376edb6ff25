//! The files in `config/` say what is so.

use std::collections::BTreeMap;

use super::*;
use crate::config::error::Problems;
use crate::config::reader::{Sink, Table};

const REFERENCE: &str = include_str!("../../../config/reference.toml");
const ATOLL: &str = include_str!("../../../config/atoll.toml");

/// The reference with its commented keys made active.
fn uncommented() -> String {
    let mut out = String::new();
    for line in REFERENCE.lines() {
        let key = line.strip_prefix('#').filter(|rest| {
            rest.starts_with(|c: char| c.is_ascii_lowercase() || c == '[')
                && (rest.contains('=') || rest.ends_with(']'))
        });
        out.push_str(key.unwrap_or(line));
        out.push('\n');
    }
    out.replace("example.org.pem", "example.pem")
        .replace("example.org.key", "example.key")
        .replace("origin-ca.pem", "example.pem")
        .replace("hook.secret", "admin.token")
}

#[test]
fn what_the_reference_says_is_the_default() {
    let loaded = load_text(REFERENCE).unwrap_or_else(|problems| panic!("{problems}"));
    let config = loaded.config;
    let built_in = load_text(SMALL).expect("fine").config;
    assert_eq!(format!("{:#?}", config.limits), format!("{:#?}", Limits::default()));
    assert_eq!(format!("{:#?}", config.log), format!("{:#?}", Log::default()));
    assert_eq!(format!("{:#?}", config.admin), format!("{:#?}", built_in.admin));
    assert_eq!(format!("{:#?}", config.facades), format!("{:#?}", built_in.facades));
    assert_eq!(config.node.pop, built_in.node.pop);
    assert_eq!(config.memory.budget_bytes / 50, built_in.memory.budget_bytes / 50);
    let listeners = flags::built_in_listeners().into_iter().map(|found| found.value);
    assert_eq!(format!("{:?}", config.listeners), format!("{:?}", listeners.collect::<Vec<_>>()));
    for rule in &config.sites[0].rules {
        assert_eq!(*rule.policy, Policy::default());
    }
    let (origin, small) = (&config.origins[0], &built_in.origins[0]);
    assert_eq!(origin.resolvers, small.resolvers);
    assert_eq!(origin.balance, small.balance);
    assert_eq!(origin.near_in_flight, small.near_in_flight);
    assert_eq!(origin.allow_internal_addresses, small.allow_internal_addresses);
    assert_eq!(origin.proxy_protocol, small.proxy_protocol);
    assert_eq!((origin.http, &origin.tls_name), (small.http, &small.tls_name));
    assert!(config.watch.is_none());
    let silent: Vec<String> = asked(REFERENCE)
        .into_iter()
        .filter(|(key, there)| !there && key.starts_with("limits."))
        .map(|(key, _)| key)
        .collect();
    assert_eq!(silent, [""; 0], "a limit has no default in config/reference.toml");
}

#[test]
fn the_reference_has_every_key_and_all_of_them_can_be_used() {
    let text = uncommented();
    let loaded = load_text(&text).unwrap_or_else(|problems| panic!("{problems}"));
    let probe = loaded.config.origins[0].probe.clone().expect("a probe");
    let written = Probe {
        host: probe.host.clone(),
        status: probe.status.clone(),
        body: probe.body.clone(),
        ..Probe::default()
    };
    assert_eq!(format!("{probe:?}"), format!("{written:?}"));
    let mesh = loaded.config.mesh.expect("a mesh");
    let written = Mesh {
        advertise: mesh.advertise,
        seeds: mesh.seeds.clone(),
        directory: mesh.directory.clone(),
        canary: mesh.canary.clone(),
        ..Mesh::new(
            mesh.listen,
            mesh.identity.clone(),
            mesh.authorities.clone(),
            mesh.nodes.clone(),
            mesh.witnesses.clone(),
        )
    };
    assert_eq!(format!("{mesh:?}"), format!("{written:?}"));
    let Canary { path, interval, timeout, .. } = mesh.canary.expect("a canary");
    assert_eq!(CanaryPaces { path, interval, timeout }, CanaryPaces::default());
    let missing: Vec<String> =
        asked(&text).into_iter().filter(|(_, there)| !there).map(|(key, _)| key).collect();
    // Policy keys are shown once, on the site.
    let policy_of_rules = |key: &String| {
        key.strip_prefix("site.rule.").is_some_and(|key| text.contains(&format!("\n{key} = ")))
    };
    let missing: Vec<_> = missing.into_iter().filter(|key| !policy_of_rules(key)).collect();
    assert_eq!(missing, [""; 0], "not in config/reference.toml");
}

/// Every key that the loader looks for, and whether the text has it.
fn asked(text: &str) -> BTreeMap<String, bool> {
    let document = toml::de::DeTable::parse(text).expect("TOML");
    let sink = Sink::new(Problems::new("", text), false);
    let _ = file::read(Table::root(&sink, &document), folder());
    sink.asked.take()
}

#[test]
fn the_file_of_the_conformance_suite_can_be_used() {
    let text = include_str!("../../../config/conformance.toml");
    load_text(text).unwrap_or_else(|problems| panic!("{problems}"));
}

#[test]
fn the_small_file_runs() {
    let loaded = load_text(ATOLL).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(loaded.config.listeners.len(), 2);
    assert_eq!(loaded.warnings.counts(), (0, 1), "{}", loaded.warnings);
}

#[test]
fn the_file_with_every_facade_runs_and_says_its_names_first() {
    let text = include_str!("../../../config/facades.toml");
    let loaded = load_text(text).unwrap_or_else(|problems| panic!("{problems}"));
    let config = loaded.config;
    let said = |what: &str| {
        let line = text
            .lines()
            .take_while(|line| line.starts_with('#'))
            .find_map(|line| line.strip_prefix("# ")?.strip_prefix(what)?.strip_prefix(" = "));
        line.expect(what).trim_matches('"').to_owned()
    };
    assert!(config.facades.purge_method);
    assert_eq!(config.facades.fastly[0].id, said("service id"));
    assert_eq!(config.facades.cloudflare[0].id, said("zone"));
    let [token] = &*config.admin.tokens else { panic!("one token") };
    assert_eq!(token.hash, hash_token(said("token")));
    assert_eq!((&*token.scopes, &*token.sites), (&[Scope::Purge][..], &["main".to_owned()][..]));
}
