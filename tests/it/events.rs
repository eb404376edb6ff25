//! Following what happens on the node.

use serde_json::{Value, json};

use crate::support::client::request;
use crate::support::edge::{Plan, TOKEN};
use crate::support::{Connection, Edge, Ended, Origin, Reply, Response, until};

/// Somebody who follows the node.
struct Follower {
    connection: Connection,
    text: String,
    /// Id of the newest block.
    last: String,
}

/// An event: its name, its id and its data.
#[derive(Clone, Debug)]
struct Told {
    name: String,
    id: String,
    data: Value,
}

fn head(token: &str, last: Option<&str>) -> String {
    let bearer = format!("Bearer {token}");
    let mut fields = vec![("Authorization", bearer.as_str())];
    fields.extend(last.map(|last| ("Last-Event-ID", last)));
    request("GET", "admin.test", "/v1/events", &fields)
}

impl Follower {
    async fn of(edge: &Edge) -> Self {
        Self::as_token(edge, TOKEN, None).await
    }

    /// Goes on after an id.
    async fn after(edge: &Edge, last: &str) -> Self {
        Self::as_token(edge, TOKEN, Some(last)).await
    }

    async fn as_token(edge: &Edge, token: &str, last: Option<&str>) -> Self {
        Self::over(Connection::open(edge.admin()).await, token, last).await
    }

    /// Follows, and waits until the stream has begun.
    async fn over(mut connection: Connection, token: &str, last: Option<&str>) -> Self {
        connection.send(head(token, last)).await;
        let head = connection.head("GET").await;
        assert_eq!(head.status, 200, "{head:?}");
        let kind = head.fields.iter().find(|(name, _)| name.eq_ignore_ascii_case("content-type"));
        assert_eq!(kind.map(|(_, value)| value.as_str()), Some("text/event-stream"));
        let mut follower = Self { connection, text: String::new(), last: String::new() };
        let first = follower.block().await.expect("a beginning");
        assert!(first.starts_with("retry: 1000\nid: "), "{first}");
        follower
    }

    /// The next block of lines; `None` at the clean end.
    async fn block(&mut self) -> Option<String> {
        loop {
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let (block, rest) = (block.to_owned(), rest.to_owned());
                self.text = rest;
                let id = block.lines().find_map(|line| line.strip_prefix("id: "));
                id.expect("an id in every block").clone_into(&mut self.last);
                return Some(block);
            }
            match self.connection.piece().await.expect("a clean end") {
                Some(piece) => self.text.push_str(std::str::from_utf8(&piece).unwrap()),
                None => {
                    assert_eq!(self.text, "", "half an event");
                    return None;
                }
            }
        }
    }

    /// The next event; `None` at the end.
    async fn next(&mut self) -> Option<Told> {
        loop {
            let block = self.block().await?;
            let line = |name: &str| block.lines().find_map(|line| line.strip_prefix(name));
            let (Some(name), Some(data)) = (line("event: "), line("data: ")) else { continue };
            let data = serde_json::from_str(data).unwrap();
            return Some(Told { name: name.to_owned(), id: self.last.clone(), data });
        }
    }

    /// The next event, which has this name.
    async fn expect(&mut self, name: &str) -> Told {
        let told = self.next().await.unwrap_or_else(|| panic!("the stream ended before {name}"));
        assert_eq!(told.name, name, "{told:?}");
        told
    }
}

fn values(told: &Told) -> Vec<&str> {
    let selectors = told.data["selectors"].as_array();
    selectors
        .into_iter()
        .flatten()
        .map(|selector| selector["value"].as_str().unwrap_or_default())
        .collect()
}

/// Asks to follow, and is refused.
async fn refused(edge: &Edge, token: &str) -> Response {
    let mut connection = Connection::open(edge.admin()).await;
    connection.send(head(token, None)).await;
    connection.response("GET").await
}

fn plan() -> Plan {
    let origin = Origin::serving(Reply::fresh("x").field("Cache-Tag", "t"));
    let address = origin.address;
    // The story needs the edge only.
    std::mem::forget(origin);
    Plan::before(&[address])
}

#[tokio::test]
async fn a_purge_is_told_once_it_is_in_force() {
    let edge = plan().start();
    edge.fill("/a").await;
    let mut follower = Follower::of(&edge).await;
    let receipt = edge.purge(json!({ "tags": ["T"], "mode": "soft" })).await;
    let told = follower.expect("purge").await;
    assert_eq!((&told.data["id"], &told.data["epoch"]), (&receipt["id"], &receipt["epoch"]));
    assert_eq!((&told.data["mode"], &told.data["token"]), (&json!("soft"), &json!("all")));
    assert_eq!(told.data["selectors"], json!([{ "kind": "tag", "site": "main", "value": "t" }]));
    assert_eq!((&told.data["from"], &told.data["count"]), (&json!("127.0.0.1"), &json!(1)));
    assert_eq!(edge.post("/a", "changed").await.status(), 200);
    assert_eq!(edge.manage("POST", "/v1/reset", None).await.status(), 200);
    follower.expect("reset").await;
    edge.purge(json!({ "all": true })).await;
    assert_eq!(follower.expect("purge").await.data["selectors"], json!([{ "kind": "all" }]));
}

#[tokio::test]
async fn who_comes_back_goes_on_where_it_was() {
    let edge = plan().start();
    edge.purge_tag("before").await;
    let mut follower = Follower::of(&edge).await;
    edge.purge_tag("one").await;
    let one = follower.expect("purge").await;
    assert_eq!(values(&one), ["one"], "what came before is not told");
    drop(follower);
    edge.purge_tag("two").await;
    edge.purge_tag("three").await;
    let mut follower = Follower::after(&edge, &one.id).await;
    assert_eq!(values(&follower.expect("purge").await), ["two"]);
    let three = follower.expect("purge").await;
    assert_eq!(values(&three), ["three"]);
    // One that heard nothing has a position, too.
    let idle = Follower::of(&edge).await;
    assert_eq!(idle.last, three.id);
    edge.purge_tag("four").await;
    let mut idle = Follower::after(&edge, &idle.last).await;
    assert_eq!(values(&idle.expect("purge").await), ["four"]);
}

#[tokio::test]
async fn what_cannot_be_told_any_more_is_told_as_lost() {
    let edge = plan().admin("events = 16").start();
    let follower = Follower::of(&edge).await;
    let early = follower.last.clone();
    drop(follower);
    for number in 0..20 {
        edge.purge_tag(&number.to_string()).await;
    }
    for id in [early.as_str(), "0123456789abcdef.7", "nonsense", ""] {
        let mut follower = Follower::after(&edge, id).await;
        let lost = follower.expect("lost").await;
        assert!(lost.data["why"].is_string());
        assert_eq!(values(&follower.expect("purge").await), ["4"], "{id}: what is kept follows");
        // The gap is told once: after it the follower has a position again.
        let mut again = Follower::after(&edge, &lost.id).await;
        assert_eq!(values(&again.expect("purge").await), ["4"]);
    }
}

#[tokio::test]
async fn a_follower_that_reads_too_slowly_is_cut_with_a_word() {
    let edge = plan().admin("events = 16\npurges_per_second = 1_000_000").start();
    let narrow = Connection::open_narrow(edge.admin()).await;
    let mut follower = Follower::over(narrow, TOKEN, None).await;
    for round in 0..30 {
        let tag = |number: i32| format!("{round}-{number}-{}", "x".repeat(200));
        let tags: Vec<String> = (0..1000).map(tag).collect();
        edge.purge(json!({ "tags": tags })).await;
    }
    let mut told = Vec::new();
    while let Some(event) = follower.next().await {
        told.push(event);
    }
    let last = told.pop().expect("some events");
    assert_eq!(last.name, "lost");
    assert!(told.iter().all(|event| event.name == "purge") && told.len() < 30 * 32);
    // It may have missed more since then, is told so, and goes on.
    let mut follower = Follower::after(&edge, &last.id).await;
    edge.purge_tag("new").await;
    while values(&follower.next().await.expect("more events")) != ["new"] {}
}

#[tokio::test]
async fn a_token_bound_to_sites_is_told_what_concerns_them() {
    let edge = plan()
        .first_site("name = \"main\"\nhosts = [\"site.test\"]\norigin = \"main\"")
        .another_site("name = \"blog\"\nhosts = [\"blog.test\"]\norigin = \"main\"")
        .token("blogger-token-012345", &["read"], &["blog"])
        .start();
    let mut follower = Follower::as_token(&edge, "blogger-token-012345", None).await;
    edge.purge(json!({ "site": "main", "tags": ["secret"] })).await;
    edge.purge(json!({ "site": "blog", "tags": ["a"] })).await;
    edge.purge(json!({ "urls": ["http://site.test/x", "http://blog.test/y"] })).await;
    edge.purge(json!({ "all": true })).await;
    let own = follower.expect("purge").await;
    assert_eq!((values(&own), &own.data["token"]), (vec!["a"], &json!("all")));
    let share = follower.expect("purge").await;
    assert_eq!(values(&share), ["blog.test/y"]);
    assert_eq!((&share.data["token"], &share.data["count"]), (&json!(null), &json!(null)));
    let all = follower.expect("purge").await;
    assert_eq!(all.data["selectors"], json!([{ "kind": "site", "value": "blog" }]));
}

#[tokio::test]
async fn endpoints_are_told_when_they_go_and_come() {
    let origin = Origin::serving(Reply::ok("x"));
    let other = Origin::serving(Reply::ok("y"));
    let edge = Plan::before(&[origin.address, other.address])
        .origin_too(
            "probe = { path = \"/\", interval = \"500ms\", timeout = \"500ms\", rise = 1, fall = 1 }",
        )
        .start();
    let mut follower = Follower::of(&edge).await;
    origin.stop().await;
    let address = json!(origin.address.to_string());
    let down = loop {
        // Connections that were open may fail first.
        let told = follower.expect("health").await;
        assert_eq!((&told.data["origin"], &told.data["address"]), (&json!("main"), &address));
        if told.data["state"] == "down" {
            break told;
        }
    };
    assert_eq!(down.data["up"], false);
    assert!(down.data["why"].as_str().is_some_and(|why| why.starts_with("probe: ")), "{down:?}");
    origin.start_again();
    let up = follower.expect("health").await;
    assert_eq!((&up.data["up"], &up.data["why"]), (&json!(true), &json!(null)));
}

#[tokio::test]
async fn draining_is_told_and_ends_the_stream() {
    let edge = plan().drain_notice("500ms").start();
    let mut follower = Follower::of(&edge).await;
    edge.purge_tag("last").await;
    edge.drain();
    follower.expect("purge").await;
    follower.expect("drain").await;
    assert!(follower.next().await.is_none(), "a clean end");
    let answer = refused(&edge, TOKEN).await;
    assert_eq!((answer.status(), answer.ended), (503, Ended::Clean));
    drop(follower);
    edge.drained().await;
}

#[tokio::test]
async fn followers_are_as_many_as_the_operator_says() {
    let edge =
        plan().admin("event_followers = 1").token("purger-token-0123456", &["purge"], &[]).start();
    assert_eq!(refused(&edge, "purger-token-0123456").await.status(), 403);
    assert_eq!(refused(&edge, "no-token").await.status(), 401);
    let follower = Follower::of(&edge).await;
    let answer = refused(&edge, TOKEN).await;
    assert_eq!(answer.status(), 429);
    assert!(answer.field("retry-after").is_some());
    drop(follower);
    until("the place to be free", || async {
        let mut connection = Connection::open(edge.admin()).await;
        connection.send(head(TOKEN, None)).await;
        connection.head("GET").await.status == 200
    })
    .await;
}

#[tokio::test]
async fn what_a_purge_has_fetched_again_is_told_from_beginning_to_end() {
    let origin = Origin::serving(Reply::fresh("x").field("Cache-Tag", "t"));
    let warmer = "a-token-that-purges-and-warms";
    let edge = Plan::before(&[origin.address]).token(warmer, &["purge", "warm"], &[]).start();
    for _ in 0..2 {
        edge.get("/a").await;
    }
    let mut follower = Follower::of(&edge).await;
    let body = json!({ "tags": ["t"], "refetch": 5 });
    let answer = edge.manage_as(Some(warmer), "POST", "/v1/purge", Some(body)).await;
    assert_eq!(answer.status(), 200, "{answer:?}");
    let purge = follower.expect("purge").await.data["id"].clone();
    let begun = follower.expect("warm-up").await.data;
    assert_eq!((&begun["purge"], &begun["state"]), (&purge, &json!("running")), "{begun}");
    let ended = follower.expect("warm-up").await.data;
    assert_eq!(
        (&ended["state"], &ended["done"], &ended["stored"]),
        (&json!("done"), &json!(1), &json!(1))
    );
    edge.get("/a").await.expect(200, "x", "hit");
}
