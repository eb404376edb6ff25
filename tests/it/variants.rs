//! Several answers under one URL: who may have which, and what becomes of them as `Vary` changes.

use crate::support::{Connection, Edge, Gate, Origin, Reply, until};

/// Fresh, in this language, chosen by `Accept-Language`.
fn spoken(language: &str, body: &str) -> Reply {
    Reply::fresh(body).field("Vary", "Accept-Language").field("Content-Language", language)
}

fn prefers(language: &str) -> [(&str, &str); 1] {
    [("Accept-Language", language)]
}

#[tokio::test]
async fn a_variant_in_the_language_preferred_to_all_others_answers() {
    let origin = Origin::start(|seen| match seen.field("accept-language") {
        Some("fr, de;q=0.5") => spoken("fr", "salut"),
        _ => spoken("de", "hallo"),
    });
    let edge = Edge::start(&origin);
    edge.fill_with("/a", &prefers("en, de")).await.expect(200, "hallo", "fwd=uri-miss");
    for preference in ["de", "DE;q=0.9", "fr;q=0.5, de;q=1.0", "de, en;q=0.8, *;q=0.1"] {
        edge.get_with("/a", &prefers(preference)).await.expect(200, "hallo", "hit");
    }
    assert_eq!(origin.requests(), 1);
    // Who likes another language better, or two alike, may get something else from the origin.
    edge.fill_with("/a", &prefers("fr, de;q=0.5")).await.expect(200, "salut", "fwd=vary-miss");
    edge.fill_with("/a", &prefers("de, nl")).await.expect(200, "hallo", "fwd=vary-miss");
    edge.get_with("/a", &prefers("fr")).await.expect(200, "salut", "hit");
    assert_eq!(origin.requests(), 3);
}

#[tokio::test]
async fn a_language_does_not_open_another_users_answer_nor_a_purged_one() {
    let origin = Origin::start(|seen| {
        let user = seen.field("x-user").unwrap_or("nobody");
        spoken("de", &format!("{user} {}", seen.nth))
            .without("Vary")
            .field("Vary", "Accept-Language, X-User")
    });
    let edge = Edge::start(&origin);
    let as_user = |user, preference| [("X-User", user), ("Accept-Language", preference)];
    edge.fill_with("/a", &as_user("one", "en, de")).await.expect(200, "one 1", "fwd=uri-miss");
    edge.fill_with("/a", &as_user("two", "de")).await.expect(200, "two 2", "fwd=vary-miss");
    edge.fill_with("/a", &prefers("de")).await.expect(200, "nobody 3", "fwd=vary-miss");
    edge.get_with("/a", &as_user("one", "de")).await.expect(200, "one 1", "hit");
    edge.purge_path("/a").await;
    edge.fill_with("/a", &as_user("one", "de")).await.expect(200, "one 4", "fwd=vary-miss");
}

#[tokio::test]
async fn a_stale_variant_found_by_its_language_is_confirmed_for_who_asks() {
    let origin = Origin::start(|seen| match seen.field("if-none-match") {
        None => spoken("de", "hallo").field("Age", "100").field("ETag", "\"1\""),
        Some(_) => Reply::not_modified(),
    });
    let edge = Edge::start(&origin);
    edge.fill_with("/a", &prefers("en, de")).await;
    edge.fill_with("/a", &prefers("de")).await.expect(200, "hallo", "fwd-status=304");
    edge.get_with("/a", &prefers("de")).await.expect(200, "hallo", "hit");
    let seen = origin.seen("/a", 2).await;
    assert_eq!(seen[1].field("accept-language"), Some("de"), "the origin judges for this client");
    assert_eq!(seen[1].field("if-none-match"), Some("\"1\""));
}

#[tokio::test]
async fn who_joins_a_fill_gets_only_what_it_selects() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::start(move |seen| match seen.field("accept-language") {
        Some("de") => spoken("de", "hallo").gate(&held),
        other => spoken("en", &format!("hello {}", other.unwrap_or("-"))),
    });
    let edge = Edge::start(&origin);
    let ask = async |preference| -> Connection {
        let mut client = edge.connect().await;
        client.ask(crate::support::edge::HOST, "/a", &prefers(preference)).await;
        client
    };
    let mut german = ask("de").await;
    gate.reached(1).await;
    let mut english = ask("en").await;
    until("the second request", || async {
        edge.metric("atoll_client_requests_total{version=\"1\"}").await >= 2.0
    })
    .await;
    gate.open();
    assert_eq!(german.response("GET").await.text(), "hallo");
    assert_eq!(english.response("GET").await.text(), "hello en");
}

/// RFC 9111 section 4.1: a stored response answers where the fields match that its own `Vary`
/// names; what must not be shared any more is not stored, and what is stored of before runs out.
#[tokio::test]
async fn an_origin_may_change_what_selects_and_in_the_end_share_nothing() {
    let origin = Origin::start(|seen| {
        let reply = Reply::fresh(format!("v{}", seen.nth));
        match seen.nth {
            1 => reply.field("Age", "100").field("ETag", "\"1\""),
            2 => reply.field("Vary", "A"),
            3 => reply.field("Vary", "A, B"),
            _ => reply.field("Vary", "*"),
        }
    });
    let edge = Edge::start(&origin);
    let with = |a, b| [("A", a), ("B", b)];
    edge.fill_with("/a", &with("1", "1")).await.expect(200, "v1", "fwd=uri-miss");
    edge.fill_with("/a", &with("1", "1")).await.expect(200, "v2", "fwd=stale");
    edge.get_with("/a", &with("1", "2")).await.expect(200, "v2", "hit");
    edge.fill_with("/a", &with("2", "1")).await.expect(200, "v3", "fwd=vary-miss");
    edge.get_with("/a", &with("2", "1")).await.expect(200, "v3", "hit");
    edge.fill_with("/a", &with("2", "2")).await.expect(200, "v4", "fwd=vary-miss");
    edge.fill_with("/a", &with("2", "2")).await.expect(200, "v5", "fwd=vary-miss");
    edge.get_with("/a", &with("1", "2")).await.expect(200, "v2", "hit");
}
