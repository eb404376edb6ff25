//! Never one user's answer to another: a hundred users ask for everything in every way, and the
//! origin puts the nonce of who asked into each answer and marks it as his in one of the ways that
//! the RFCs know. Each user looks for the nonces of others in all that he gets.
//!
//! `ISOLATION_REQUESTS` and `ISOLATION_SEED` choose how much and which; a failure prints its seed.

mod personal;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::support::client::{Head, request};
use crate::support::edge::HOST;
use crate::support::{Connection, Edge, Ended, H2, Response, side_by_side};
use personal::{Dice, Play, USERS, nonce, nonces};
use serde_json::json;

/// Clients at once; half of them speak HTTP/2.
const CLIENTS: usize = 24;
/// Requests over one connection.
const TURNS: usize = 200;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_answer_to_one_user_reaches_another() {
    let seen = run(Play::Fair, number("ISOLATION_REQUESTS", 5000)).await;
    assert_eq!(seen.leaks, [""; 0], "seed {}", seed());
    // Without these it would prove nothing.
    for (what, count) in [
        ("hits", seen.hits),
        ("stale answers", seen.stale),
        ("collapsed answers", seen.collapsed),
        ("confirmed answers", seen.confirmed),
        ("answers with a nonce", seen.personal),
    ] {
        assert!(count > seen.answers / 500, "{what}: {count} of {}", seen.answers);
    }
}

/// The checker itself: an origin that calls everything public is caught.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_origin_that_plays_false_is_caught() {
    let seen = run(Play::False, 600).await;
    assert!(!seen.leaks.is_empty(), "seed {}: {seen:?}", seed());
}

fn number(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |text| text.parse().expect(name))
}

fn seed() -> u64 {
    number("ISOLATION_SEED", 20_260) as u64
}

/// What all users saw.
#[derive(Debug, Default)]
struct Seen {
    answers: usize,
    hits: usize,
    stale: usize,
    collapsed: usize,
    confirmed: usize,
    personal: usize,
    leaks: Vec<String>,
}

async fn run(play: Play, requests: usize) -> Seen {
    let origin = personal::start(seed(), play);
    let edge = Edge::before_servers(&[origin])
        .plain_h2()
        .rule("/kept", "vary_on_cookie = true")
        .rule("/lent", "stale_while_revalidate = \"1h\"\nstale_if_error = \"1h\"")
        .rule("/asked", "honour_request_directives = true\nforward_conditions = true")
        .start();
    let edge = Arc::new(edge);
    let left = Arc::new(AtomicUsize::new(requests));
    let clients = (0..CLIENTS).map(|number| {
        let (edge, left) = (Arc::clone(&edge), Arc::clone(&left));
        async move { client(&edge, &left, number).await }
    });
    let mut all = Seen::default();
    for seen in side_by_side(clients).await {
        all.answers += seen.answers;
        all.hits += seen.hits;
        all.stale += seen.stale;
        all.collapsed += seen.collapsed;
        all.confirmed += seen.confirmed;
        all.personal += seen.personal;
        all.leaks.extend(seen.leaks);
    }
    all
}

/// One client: user after user over one connection after another.
async fn client(edge: &Edge, left: &AtomicUsize, number: usize) -> Seen {
    let mut dice = Dice::new(seed() ^ ((number as u64 + 1) << 32));
    let mut seen = Seen::default();
    loop {
        let mut wire = Wire::open(edge, number % 2 == 1).await;
        for _ in 0..TURNS {
            if left.fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| n.checked_sub(1)).is_err()
            {
                return seen;
            }
            if dice.one_in(150) {
                purge(edge, &mut dice).await;
            }
            let asked = Asked::draw(&mut dice);
            let Some(answer) = wire.ask(&asked).await else { break };
            seen.note(&asked, &answer);
            if answer.ended == Ended::CutOff || answer.field("connection") == Some("close") {
                break;
            }
        }
    }
}

async fn purge(edge: &Edge, dice: &mut Dice) {
    let path = dice.path();
    let mode = ["hard", "soft"][dice.below(2)];
    let body = match dice.below(3) {
        0 => json!({ "tags": ["t1"], "mode": mode }),
        _ => json!({ "urls": [format!("http://{HOST}{path}")], "mode": mode }),
    };
    edge.purge(body).await;
}

/// A request of one user.
struct Asked {
    user: usize,
    method: &'static str,
    path: String,
    fields: Vec<(&'static str, String)>,
}

impl Asked {
    fn draw(dice: &mut Dice) -> Self {
        let user = dice.below(USERS);
        let own = nonce(seed(), user);
        let mut fields = vec![("X-User", user.to_string())];
        if !dice.one_in(4) {
            fields.push(("Cookie", format!("session={own}")));
        }
        if dice.one_in(3) {
            fields.push(("Authorization", format!("Bearer {own}")));
        }
        let (first, last) = (dice.below(60), 20 + dice.below(100));
        match dice.below(12) {
            0 => fields.push(("Range", format!("bytes={first}-{}", first + last))),
            1 => fields.push(("Range", format!("bytes=-{last}"))),
            2 => fields.push(("Range", format!("bytes=0-9, {}-{}", 20 + first, 20 + first + last))),
            _ => {}
        }
        match dice.below(10) {
            0 => fields.push(("If-None-Match", "\"shared\"".to_owned())),
            1 => fields.push(("If-None-Match", format!("\"{own}\""))),
            2 => fields.push(("If-Modified-Since", personal::MODIFIED.to_owned())),
            3 => fields.push(("If-Range", "\"shared\"".to_owned())),
            _ => {}
        }
        match dice.below(12) {
            0 => fields.push(("Cache-Control", "no-cache".to_owned())),
            1 => fields.push(("Cache-Control", "max-age=0".to_owned())),
            2 => fields.push(("Cache-Control", "max-stale=9999".to_owned())),
            3 => fields.push(("Cache-Control", "no-store".to_owned())),
            _ => {}
        }
        let method = match dice.below(20) {
            0..=3 => "HEAD",
            4 => "POST",
            _ => "GET",
        };
        Self { user, method, path: dice.path(), fields }
    }

    fn rows(&self) -> Vec<(&str, &str)> {
        let mut rows: Vec<_> = self.fields.iter().map(|(name, value)| (*name, &**value)).collect();
        if self.method == "POST" {
            rows.push(("Content-Length", "0"));
        }
        rows
    }
}

/// A connection of either version.
enum Wire {
    One(Connection),
    Two(H2),
}

impl Wire {
    async fn open(edge: &Edge, second: bool) -> Self {
        match second {
            false => Self::One(edge.connect().await),
            true => Self::Two(H2::plain(edge.plain(), HOST).await),
        }
    }

    /// `None` where the connection is over.
    async fn ask(&mut self, asked: &Asked) -> Option<Response> {
        match self {
            Self::One(wire) => {
                let head = request(asked.method, HOST, &asked.path, &asked.rows());
                wire.try_send(head).await.ok()?;
                let mut interim = Vec::new();
                let head = loop {
                    let head = wire.try_head(asked.method).await?;
                    if head.status >= 200 {
                        break head;
                    }
                    interim.push(head);
                };
                let (body, ended) = wire.rest().await;
                Some(Response { head, interim, body, ended })
            }
            Self::Two(wire) => {
                wire.whole(asked.method, &asked.path, &asked.rows(), None).await.ok()
            }
        }
    }
}

impl Seen {
    fn note(&mut self, asked: &Asked, answer: &Response) {
        self.answers += 1;
        let status = answer.head.all("cache-status").join(", ");
        self.hits += usize::from(status.contains("; hit"));
        self.stale += usize::from(status.contains("; ttl=-"));
        self.collapsed += usize::from(status.contains("collapsed"));
        self.confirmed += usize::from(status.contains("fwd-status=304"));
        let own = nonce(seed(), asked.user);
        let mut found = nonces(&answer.body);
        for head in answer.interim.iter().chain([&answer.head]) {
            found.extend(values(head).flat_map(|text| nonces(text.as_bytes())));
        }
        self.personal += usize::from(found.contains(&own));
        if found.iter().any(|other| *other != own) {
            let fields = &asked.fields;
            let (user, method, path) = (asked.user, asked.method, &asked.path);
            self.leaks.push(format!("{user} ({own}): {method} {path} {fields:?} got {answer:?}"));
        }
    }
}

fn values(head: &Head) -> impl Iterator<Item = &str> {
    head.fields.iter().map(|(_, value)| &**value)
}
