//! `[facades]`: what is refused, and what is off.

use super::*;

/// A file with these lines before its origin and site.
fn with(lines: &str) -> String {
    format!("{lines}\n{SMALL}")
}

#[test]
fn nothing_is_on_by_itself() {
    let facades = load_text(SMALL).expect("fine").config.facades;
    assert!(!facades.purge_method && facades.fastly.is_empty() && facades.cloudflare.is_empty());
    assert!(!facades.purges_from([127, 0, 0, 1].into()));
}

#[test]
fn what_cannot_be_meant_is_refused() {
    let rows = [
        ("[[facades.fastly]]\nservice = \"s\"\nsite = \"gone\"", "there is no site"),
        ("[[facades.fastly]]\nservice = \"s\"", "site"),
        ("[[facades.fastly]]\nservice = \"\"\nsite = \"main\"", "service"),
        ("[[facades.fastly]]\nservice = \"a/b\"\nsite = \"main\"", "service"),
        (
            "[[facades.fastly]]\nservice = \"s\"\nsite = \"main\"\n\
             [[facades.fastly]]\nservice = \"s\"\nsite = \"main\"",
            "two Fastly services have the name",
        ),
        ("[[facades.cloudflare]]\nzone = \"z\"\nsites = []", "is empty"),
        ("[[facades.cloudflare]]\nzone = \"z\"", "sites"),
        ("[[facades.cloudflare]]\nzone = \"z\"\nsites = [\"main\", \"gone\"]", "there is no site"),
        ("[facades]\npurge_networks = [\"everywhere\"]", "purge_networks"),
        ("[facades]\npurge_methods = true", "unknown key"),
    ];
    for (lines, expected) in rows {
        let problems = load_text(&with(lines)).map(|_| ()).expect_err(lines).to_string();
        assert!(problems.contains(expected), "{lines}\n{problems}");
    }
}

#[test]
fn purge_is_answered_here_or_forwarded_and_not_both() {
    let forwarding = |on: bool| {
        let text = format!("[facades]\npurge_method = {on}\n{SMALL}");
        text + "\n[[site.rule]]\npath = \"/a\"\nmethods = [\"GET\", \"PURGE\"]\n"
    };
    load_text(&forwarding(false)).unwrap_or_else(|problems| panic!("{problems}"));
    let problems = load_text(&forwarding(true)).map(|_| ()).expect_err("both").to_string();
    assert!(problems.contains("forwards PURGE"), "{problems}");
}

#[test]
fn what_has_no_effect_is_warned_of() {
    let rows = [
        "[facades]\npurge_method = true\npurge_networks = []",
        "[admin]\naddress = \"none\"\n[[facades.fastly]]\nservice = \"s\"\nsite = \"main\"",
    ];
    for lines in rows {
        let loaded = load_text(&with(lines)).unwrap_or_else(|problems| panic!("{problems}"));
        assert_eq!(loaded.warnings.counts(), (0, 1), "{lines}\n{}", loaded.warnings);
    }
}
