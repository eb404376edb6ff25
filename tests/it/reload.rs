//! Another configuration while the edge runs: what changes, what stays, and what is refused.

mod certificates;
mod load;
mod naming;

use serde_json::{Value, json};

use crate::support::client::request;
use crate::support::edge::{HOST, Plan, TOKEN};
use crate::support::{Connection, Edge, Ended, Gate, Origin, Piece, Reply, until};

/// Before one origin, with room for changes.
fn plan(origin: &Origin) -> Plan {
    Edge::before(origin)
}

fn json_of(body: &[u8]) -> Value {
    serde_json::from_slice(body).unwrap()
}

/// The keys of what changed, those that wait marked.
fn keys(done: &Value) -> Vec<String> {
    let changes = done["changes"].as_array().expect("changes");
    let key = |change: &Value| {
        let mark = if change["waits_for_restart"] == json!(true) { " waits" } else { "" };
        format!("{}{mark}", change["key"].as_str().unwrap())
    };
    changes.iter().map(key).collect()
}

#[tokio::test]
async fn a_configuration_that_is_broken_leaves_the_one_before_untouched() {
    let origin = Origin::serving(Reply::fresh("stored"));
    let edge = plan(&origin).start_from_file();
    edge.fill("/a").await;
    let good = plan(&origin).toml();
    let file = |name: &str, text: &str| {
        let path = edge.home().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let torn = file("torn.pem", "-----BEGIN CERTIFICATE-----\nMIIB");
    let tls = format!(
        "[[listener]]\naddress = \"127.0.0.1:0\"\ntls = true\n\
         [[certificate]]\nchain = {torn:?}\nkey = {torn:?}\n"
    );
    let secure = format!("servers = [\"https://127.0.0.1:1\"]\nca = {torn:?}");
    let servers = format!("servers = [\"http://{}\"]", origin.address);
    for (case, text, expected) in [
        ("syntax", format!("{good}\n[["), "TOML"),
        ("an unknown key", good.replace("jitter =", "jiter ="), "jiter"),
        ("an unknown origin", good.replace("origin = \"main\"", "origin = \"other\""), "other"),
        ("a wrong value", good.replace("workers = 2", "workers = \"two\""), "node.workers"),
        ("a torn certificate", format!("{good}\n{tls}"), "certificate"),
        ("torn authorities", good.replace(&servers, &secure), "PEM"),
        ("an empty file", String::new(), "origin"),
    ] {
        edge.rewrite(&text);
        let answer = edge.reload().await;
        assert_eq!(answer.status(), 422, "{case}: {}", answer.text());
        let told = json_of(&answer.body);
        assert_eq!(told["code"], "configuration", "{case}");
        let problems = told["problems"].as_array().unwrap();
        assert!(!problems.is_empty(), "{case}");
        assert!(told["text"].as_str().unwrap().contains(expected), "{case}: {}", answer.text());
        edge.get("/a").await.expect(200, "stored", "hit");
    }
    edge.rewrite(&good.replace("workers = 2", "workers = \"two\""));
    let told = json_of(&edge.reload().await.body);
    let line = good.lines().position(|line| line.starts_with("workers")).unwrap() + 1;
    assert_eq!(told["problems"][0]["line"], json!(line));
    std::fs::remove_file(edge.home().join("edge.toml")).unwrap();
    assert_eq!(edge.reload().await.status(), 422);
    assert!((edge.metric("atoll_reloads_total{outcome=\"refused\"}").await - 9.0).abs() < 0.1);
    edge.rewrite(&good);
    assert_eq!(edge.reload().await.status(), 200);
    edge.get("/a").await.expect(200, "stored", "hit");
}

#[tokio::test]
async fn what_changed_is_told_and_secrets_are_not() {
    let origin = Origin::serving(Reply::ok("x"));
    let edge = plan(&origin).token("first-token-of-sixteen", &["read"], &[]).start_from_file();
    let next = plan(&origin)
        .token("other-token-of-sixteen", &["read"], &[])
        .budget("2GiB")
        .site("default_lifetime = \"60s\"")
        .limits("keep_alive = \"20s\"\nfills = 500");
    let done = edge.becomes(&next).await;
    let expected = [
        "admin.token[t0].hash",
        "limits.fills waits",
        "limits.keep_alive",
        "memory.budget waits",
        "site[main].default_lifetime",
    ];
    assert_eq!(keys(&done), expected);
    let change = |key: &str| {
        let all = done["changes"].as_array().unwrap();
        all.iter().find(|change| change["key"] == *key).unwrap().clone()
    };
    let site = change("site[main].default_lifetime");
    assert_eq!((&site["old"], &site["new"]), (&Value::Null, &json!("\"60s\"")));
    assert_eq!(change("admin.token[t0].hash")["new"], "(not shown)");
    assert_eq!(change("memory.budget")["old"], "\"1GiB\"");
    let before = edge.metric("atoll_store_budget_bytes").await;
    assert!(before < 1e9, "the memory is divided once");
    // The next one is compared with what is in force now, and with nothing before it.
    assert_eq!(keys(&edge.becomes(&next).await), Vec::<String>::new());
    let digest = done["config"].as_str().unwrap();
    let info = format!("atoll_config_info{{digest=\"{digest}\"}}");
    assert!((edge.metric(&info).await - 1.0).abs() < 0.1);
    assert!((edge.metric("atoll_reloads_total{outcome=\"applied\"}").await - 2.0).abs() < 0.1);
    edge.fill("/a").await;
    edge.get("/a").await.expect(200, "x", "hit");
}

#[tokio::test]
async fn what_is_stored_stays_and_what_was_purged_stays_dead() {
    let origin = Origin::start(|seen| {
        Reply::fresh(format!("{} {}", seen.target, seen.nth)).field("Cache-Tag", "t")
    });
    let edge = plan(&origin).start_from_file();
    for target in ["/a", "/b"] {
        edge.fill(target).await;
    }
    edge.purge_path("/b").await;
    let epoch = edge.metric("atoll_epoch").await;
    let answered = "atoll_requests_total{site=\"main\",cache=\"hit\",status=\"2xx\"}";
    edge.get("/a").await.expect(200, "/a 1", "hit");
    edge.metric_becomes(answered, 1.0).await;
    edge.becomes(&plan(&origin).limits("keep_alive = \"20s\"")).await;
    edge.get("/a").await.expect(200, "/a 1", "hit");
    assert_eq!(edge.get("/b").await.text(), "/b 2");
    assert!((edge.metric("atoll_epoch").await - epoch).abs() < 0.1);
    edge.metric_becomes(answered, 2.0).await;
    // A purge by tag finds what was stored under the configuration before.
    edge.purge_tag("t").await;
    assert_eq!(edge.get("/a").await.text(), "/a 2");
}

#[tokio::test]
async fn a_purge_of_a_url_hits_what_is_stored_under_the_keys_of_another_configuration() {
    let origin = Origin::start(|seen| Reply::fresh(format!("v{}", seen.nth)));
    let whole = || plan(&origin).site("key_query = \"all\"");
    let without = plan(&origin).site("key_query = { without = [\"utm_*\"] }");
    let edge = whole().start_from_file();
    edge.fill("/a?utm_source=x").await.expect(200, "v1", "fwd=uri-miss");
    edge.becomes(&without).await;
    edge.fill("/a").await;
    let url = format!("http://{HOST}/a?utm_source=x");
    let preview = edge.purge(json!({ "urls": [url], "dry_run": true })).await;
    assert_eq!(preview["matched"], 2, "{preview}");
    edge.purge_path("/a?utm_source=x").await;
    let answer = edge.fill("/a?utm_source=y").await;
    assert!(answer.cache().contains("fwd=uri-miss"), "{answer:?}");
    edge.becomes(&whole()).await;
    let answer = edge.get("/a?utm_source=x").await;
    assert!(answer.text() != "v1" && answer.cache().contains("fwd=uri-miss"), "{answer:?}");
}

/// A site of this name for this host, with an origin of the same name.
fn tenant(plan: Plan, name: &str) -> Plan {
    plan.another_site(&format!("name = \"{name}\"\nhosts = [\"{name}.test\"]\norigin = \"{name}\""))
}

#[tokio::test]
async fn sites_that_change_places_never_answer_for_each_other() {
    let [one, two, three] = ["one", "two", "three"].map(|name| {
        Origin::start(move |seen| match seen.target.as_str() {
            "/private" => Reply::new(200).field("Cache-Control", "private").body(name),
            _ => Reply::fresh(format!("{name} {}", seen.nth)),
        })
    });
    let none = Origin::serving(Reply::ok("main"));
    let base = |names: &[&str]| {
        let mut plan =
            plan(&none).first_site("name = \"main\"\nhosts = [\"main.test\"]\norigin = \"main\"");
        // Origins change places with their sites.
        for name in names {
            let origin = match *name {
                "one" => &one,
                "two" => &two,
                _ => &three,
            };
            plan = plan.origin(name, &[origin.address]);
        }
        names.iter().fold(plan, |plan, name| tenant(plan, name))
    };
    let edge = base(&["one", "two"]).start_from_file();
    let ask = async |name: &str, target: &str| {
        edge.ask("GET", &format!("{name}.test"), target, &[]).await
    };
    for name in ["one", "two"] {
        for target in ["/a", "/private"] {
            assert!(ask(name, target).await.text().starts_with(name));
            edge.settled().await;
        }
    }
    assert_eq!(ask("three", "/a").await.status(), 421);
    for names in
        [&["two", "one"][..], &["three", "two", "one"], &["three", "two"], &["one", "three", "two"]]
    {
        edge.becomes(&base(names)).await;
        for name in ["one", "two", "three"] {
            if !names.contains(&name) {
                assert_eq!(ask(name, "/a").await.status(), 421, "{name} of {names:?}");
                continue;
            }
            // Stored once, by its own origin, whatever its place; but while it was away no purge could
            // name what it had stored, so that the origin is asked again when it is back.
            let times = if name == "one" && names[0] == "one" { 2 } else { 1 };
            ask(name, "/a").await;
            edge.settled().await;
            ask(name, "/a").await.expect(200, &format!("{name} {times}"), "hit");
            assert_eq!(ask(name, "/private").await.text(), name);
            edge.purge(json!({ "site": name, "tags": ["nothing"] })).await;
        }
    }
    // What is told of each is its own: /a three times or more, by its name.
    let told = async || json_of(&edge.manage("GET", "/v1/cache/top", None).await.body);
    until("the hottest", || async {
        let top = told().await;
        let rows = top["keys"].as_array().unwrap();
        let of = |row: &Value| {
            (row["site"].as_str().unwrap().to_owned(), row["url"].as_str().unwrap().to_owned())
        };
        let all: Vec<_> = rows.iter().map(of).collect();
        assert!(all.iter().all(|(site, url)| url.contains(&format!("//{site}.test/"))), "{all:?}");
        ["one", "two", "three"].iter().all(|name| all.iter().any(|(site, _)| site == name))
    })
    .await;
    for name in ["one", "two", "three"] {
        let metric =
            format!("atoll_requests_total{{site=\"{name}\",cache=\"hit\",status=\"2xx\"}}");
        assert!(edge.metric(&metric).await >= 2.0, "{name}");
    }
}

#[tokio::test]
async fn a_site_that_is_removed_finishes_what_it_began_and_is_gone() {
    let gate = Gate::new();
    let pieces = vec![Piece::data("begun "), Piece::gate(&gate), Piece::data("ended")];
    let slow = Origin::serving(Reply::new(200).chunked(pieces));
    let origin = Origin::serving(Reply::fresh("main"));
    let with = tenant(
        plan(&origin)
            .first_site("name = \"main\"\nhosts = [\"site.test\"]\norigin = \"main\"")
            .origin("shop", &[slow.address]),
        "shop",
    );
    let without =
        plan(&origin).first_site("name = \"main\"\nhosts = [\"site.test\"]\norigin = \"main\"");
    let edge = with.start_from_file();
    let mut client = edge.connect().await;
    client.ask("shop.test", "/long", &[]).await;
    client.head("GET").await;
    client.body_bytes(6).await;
    edge.becomes(&without).await;
    assert_eq!(edge.ask("GET", "shop.test", "/other", &[]).await.status(), 421);
    gate.open();
    assert_eq!(client.rest().await, ("ended".into(), Ended::Clean));
    // The same connection asks for it again, under the new configuration.
    client.ask("shop.test", "/long", &[]).await;
    assert_eq!(client.response("GET").await.status(), 421);
    edge.get("/a").await.expect(200, "main", "fwd=uri-miss");
}

#[tokio::test]
async fn health_orders_and_connections_of_origins_stay() {
    let row = Origin::row(3, |last, _| Reply::ok(last.to_string()));
    let addresses: Vec<_> = row.iter().map(|origin| origin.address).collect();
    let plan = |more: &str| {
        Plan::before(&addresses).limits("eject_failures = 1\neject_time = \"5m\"").site(more)
    };
    let edge = plan("").start_from_file();
    let order = format!("/v1/origins/main/endpoints/{}", addresses[0]);
    let down = json!({ "state": "down" });
    assert_eq!(edge.manage("PUT", &order, Some(down)).await.status(), 200);
    row[1].stop().await;
    until("the ejection", || async {
        edge.get("/x").await;
        edge.metric("atoll_origin_ejections_total{origin=\"main\"}").await > 0.5
    })
    .await;
    let states = async || {
        let all = json_of(&edge.manage("GET", "/v1/origins", None).await.body);
        let endpoints = all["origins"][0]["endpoints"].as_array().unwrap().clone();
        endpoints.iter().map(|one| one["state"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(states().await, ["down", "ejected", "up"]);
    // Connections to origins belong to the worker that a client has come to.
    let mut client = edge.connect().await;
    assert_eq!(client.get(HOST, "/x", &[]).await.text(), "3");
    let connections = row[2].connections();
    // Nothing of the origin changes: it is the same, with its connections.
    edge.becomes(&plan("keep_tags = true")).await;
    assert_eq!(states().await, ["down", "ejected", "up"]);
    assert_eq!(client.get(HOST, "/x", &[]).await.text(), "3");
    assert_eq!(row[2].connections(), connections, "a kept connection was used");
    // The origin changes: what is known of its servers is handed on.
    edge.becomes(&plan("").origin_too("balance = \"round-robin\"")).await;
    assert_eq!(states().await, ["down", "ejected", "up"]);
    for _ in 0..6 {
        assert_eq!(edge.get("/x").await.text(), "3");
    }
    assert!(edge.metric("atoll_origin_requests_total{origin=\"main\"}").await >= 8.0);
    edge.metric_becomes("atoll_origin_endpoints_up{origin=\"main\"}", 1.0).await;
}

#[tokio::test]
async fn tokens_that_are_gone_open_nothing_and_hear_nothing() {
    let origin = Origin::serving(Reply::ok("x"));
    let (old, new) = ("an-old-token-of-sixteen", "a-new-token-of-sixteen");
    let edge = plan(&origin).token(old, &["read"], &[]).start_from_file();
    let status =
        async |token: &str| edge.manage_as(Some(token), "GET", "/v1/status", None).await.status();
    let follow = async |token: &str| {
        let bearer = format!("Bearer {token}");
        let mut connection = Connection::open(edge.admin()).await;
        connection.send(request("GET", "a", "/v1/events", &[("Authorization", &bearer)])).await;
        assert_eq!(connection.head("GET").await.status, 200);
        connection
    };
    assert_eq!((status(old).await, status(new).await), (200, 401));
    // While tokens and sites are as they were, who follows goes on following.
    let mut follower = follow(old).await;
    edge.becomes(&plan(&origin).token(old, &["read"], &[]).limits("keep_alive = \"20s\"")).await;
    edge.purge(json!({ "all": true })).await;
    let mut text = String::new();
    while !text.contains("event: purge") {
        let piece = follower.piece().await.unwrap().expect("it goes on");
        text.push_str(std::str::from_utf8(&piece).unwrap());
    }
    assert!(text.contains("event: reload"), "{text}");
    edge.becomes(&plan(&origin).token(new, &["read"], &[])).await;
    assert_eq!((status(old).await, status(new).await, status(TOKEN).await), (401, 200, 200));
    let (rest, ended) = follower.rest().await;
    assert_eq!(ended, Ended::Clean, "{rest:?}");
    edge.purge(json!({ "all": true })).await;
    assert!(!String::from_utf8_lossy(&rest).contains("event: purge"));
}

#[tokio::test]
async fn a_purge_that_is_sent_again_over_a_reload_is_not_done_again() {
    let origin = Origin::serving(Reply::ok("x"));
    let other = "an-other-token-of-sixteen";
    let edge = plan(&origin).start_from_file();
    let purge = async |token: &str| {
        let (body, key) = (json!({ "tags": ["a"] }), [("Idempotency-Key", "k")]);
        let answer = edge.manage_with(Some(token), "POST", "/v1/purge", &key, Some(body)).await;
        json_of(&answer.body)["id"].as_str().expect("an id").to_owned()
    };
    let first = purge(TOKEN).await;
    // Another token comes before it in the file's tail: the key is still the first token's.
    edge.becomes(&plan(&origin).token(other, &["purge"], &[])).await;
    assert_eq!(purge(TOKEN).await, first);
    assert_ne!(purge(other).await, first);
}

#[tokio::test]
async fn rates_count_on_by_name_and_are_gone_with_their_limit() {
    let origin = Origin::serving(Reply::ok("x"));
    let limited = |requests: u32, before: bool| {
        let limit = format!(
            "rate_limit_total = {{ requests = {requests}, per = \"1h\", burst = {requests} }}"
        );
        let own = format!("name = \"main\"\nhosts = [\"site.test\"]\norigin = \"main\"\n{limit}");
        let other =
            format!("name = \"other\"\nhosts = [\"other.test\"]\norigin = \"main\"\n{limit}");
        let (first, second) = if before { (other, own) } else { (own, other) };
        plan(&origin).first_site(&first).another_site(&second)
    };
    let edge = limited(3, false).start_from_file();
    for expected in [200, 200] {
        assert_eq!(edge.get("/a").await.status(), expected);
    }
    // The sites change places: each has spent what it has spent.
    edge.becomes(&limited(3, true)).await;
    for expected in [200, 429] {
        assert_eq!(edge.get("/a").await.status(), expected);
    }
    for expected in [200, 200, 200, 429] {
        assert_eq!(edge.ask("GET", "other.test", "/a", &[]).await.status(), expected);
    }
    // Without the limit nothing is left of it.
    edge.becomes(&plan(&origin)).await;
    assert_eq!(edge.ask("GET", HOST, "/a", &[]).await.status(), 200);
}

#[tokio::test]
async fn limits_hold_for_connections_from_now_on() {
    let origin = Origin::serving(Reply::ok("x"));
    let edge = plan(&origin).start_from_file();
    let long = format!("/{}", "a".repeat(3000));
    let mut before = edge.connect().await;
    assert_eq!(before.get(HOST, &long, &[]).await.status(), 200);
    edge.becomes(&plan(&origin).limits("target_bytes = \"2KiB\"")).await;
    assert_eq!(edge.get(&long).await.status(), 414);
    assert_eq!(before.get(HOST, &long, &[]).await.status(), 200);
}

#[tokio::test]
async fn it_is_in_the_audit_log_and_needs_the_scope_and_a_file() {
    let origin = Origin::serving(Reply::ok("x"));
    let folder = crate::support::certificate::Folder::new();
    let path = folder.path().join("audit.log");
    let reader = "a-reader-of-sixteen-bytes";
    let same = || plan(&origin).audit_log(&path).token(reader, &["read"], &[]);
    let edge = same().start_from_file();
    assert_eq!(edge.manage_as(Some(reader), "POST", "/v1/reload", None).await.status(), 403);
    edge.becomes(&same().site("default_lifetime = \"9s\"")).await;
    edge.rewrite("broken");
    assert_eq!(edge.reload().await.status(), 422);
    let log = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let reloads: Vec<&Value> = lines.iter().filter(|line| log_of(line) == "reload").collect();
    assert_eq!(reloads.len(), 2, "{log}");
    assert_eq!(
        (&reloads[0]["outcome"], &reloads[1]["outcome"]),
        (&json!("done"), &json!("refused"))
    );
    assert!(reloads[0].to_string().contains("site[main].default_lifetime"), "{log}");
    let alone = plan(&origin).start();
    let answer = alone.reload().await;
    assert_eq!((answer.status(), &json_of(&answer.body)["code"]), (409, &json!("no-file")));
}

fn log_of(line: &Value) -> &str {
    line["act"].as_str().or_else(|| line["what"].as_str()).unwrap_or_default()
}
