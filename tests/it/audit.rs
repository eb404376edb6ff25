//! The audit log, through a whole edge: what is in it, that it can be checked and sent again, and
//! that strangers' bytes end no line of any log.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::support::certificate::Folder;
use crate::support::edge::{HOST, TOKEN};
use crate::support::{Edge, Origin, Reply, until};

/// The program, asked from a shell.
async fn atoll(edge: &Edge, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_atoll"));
    command.args(arguments).env("ATOLL_ADMIN_TOKEN", TOKEN);
    command.env("ATOLL_ADMIN", format!("http://{}", edge.admin()));
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).expect("a JSON object")).collect()
}

fn acts(path: &Path) -> Vec<String> {
    lines(path).iter().map(|line| line["act"].as_str().unwrap().to_owned()).collect()
}

fn written(folder: &Folder) -> PathBuf {
    folder.path().join("audit.log")
}

#[tokio::test]
async fn what_operators_do_is_in_the_log_before_they_have_the_answer() {
    let folder = Folder::new();
    let path = written(&folder);
    let origin = Origin::serving(Reply::fresh("x"));
    let edge = Edge::before(&origin)
        .audit_log(&path)
        .token("purger-token-0123456", &["purge"], &["main"])
        .start();
    assert_eq!(acts(&path), ["start"]);
    let receipt = edge.purge(json!({ "tags": ["News"] })).await;
    assert!(receipt.get("audit").is_none(), "it says so only where it failed: {receipt}");
    let line = lines(&path).pop().unwrap();
    assert_eq!((&line["act"], &line["what"]["id"]), (&json!("purge"), &receipt["id"]));
    assert_eq!((&line["token"], &line["from"]), (&json!("all"), &json!("127.0.0.1")));
    let told = json!([{ "sites": ["main"], "tags": ["news"] }]);
    assert_eq!((&line["what"]["selectors"], &line["outcome"]), (&told, &json!("done")));
    // Nothing was done here, so nothing is written.
    let purger = Some("purger-token-0123456");
    for (token, body, status) in [
        (purger, json!({ "all": true }), 403),
        (purger, json!({ "tags": [] }), 400),
        (purger, json!({ "tags": ["a"], "dry_run": true }), 200),
        (None, json!({ "tags": ["a"] }), 401),
    ] {
        assert_eq!(edge.manage_as(token, "POST", "/v1/purge", Some(body)).await.status(), status);
    }
    assert_eq!(edge.manage_as(purger, "POST", "/v1/reset", None).await.status(), 403);
    assert_eq!(acts(&path).len(), 2);
    assert_eq!(edge.manage("POST", "/v1/reset", None).await.status(), 200);
    assert_eq!(edge.manage("POST", "/v1/drain", None).await.status(), 202);
    assert_eq!(acts(&path), ["start", "purge", "reset", "drain"]);
    edge.drained().await;
    // The chain goes on when the node comes back.
    let edge = Edge::before(&origin).audit_log(&path).start();
    edge.purge_tag("again").await;
    let sound = atoll(&edge, &["audit", "verify", path.to_str().unwrap()]).await;
    assert_eq!(sound.status.code(), Some(0), "{sound:?}");
    let text = String::from_utf8(sound.stdout).unwrap();
    let last = lines(&path).pop().unwrap();
    assert!(text.contains("6 lines, numbers 1 to 6"), "{text}");
    assert!(text.contains(last["hash"].as_str().unwrap()), "{text}");
    let anchor = last["prev"].as_str().unwrap();
    let anchored = ["audit", "verify", path.to_str().unwrap(), "--anchor", anchor];
    assert_eq!(atoll(&edge, &anchored).await.status.code(), Some(0));
    // Whoever changes a line is found out.
    let altered = std::fs::read_to_string(&path).unwrap().replacen("news", "olds", 1);
    std::fs::write(&path, altered).unwrap();
    let broken = atoll(&edge, &["audit", "verify", path.to_str().unwrap()]).await;
    assert_eq!(broken.status.code(), Some(1));
    assert!(String::from_utf8(broken.stdout).unwrap().contains("line 2: "));
    let replay = atoll(&edge, &["purge", "--replay", path.to_str().unwrap()]).await;
    assert_eq!(replay.status.code(), Some(1), "an altered log is not sent again");
}

#[tokio::test]
async fn the_purges_of_a_log_are_sent_again_and_take_effect_once() {
    let folder = Folder::new();
    let path = written(&folder);
    let origin =
        Origin::start(|seen| Reply::fresh(format!("v{}", seen.nth)).field("Cache-Tag", "t"));
    let first = Edge::before(&origin).audit_log(&path).start();
    first.purge_tag("t").await;
    first.purge(json!({ "urls": [format!("http://{HOST}/a?b=c")], "mode": "soft" })).await;
    first.purge(json!({ "hosts": ["elsewhere.test"] })).await;
    // Another node has it still.
    let other = Edge::start(&origin);
    other.fill("/a").await.expect(200, "v1", "fwd=uri-miss");
    let before = other.metric("atoll_epoch").await;
    let replay = ["purge", "--replay", path.to_str().unwrap()];
    let sent = atoll(&other, &replay).await;
    assert_eq!(sent.status.code(), Some(0), "{sent:?}");
    let text = String::from_utf8(sent.stdout).unwrap();
    assert_eq!(text, "3 purges sent again in 3 requests, 0 refused\n");
    other.fill("/a").await.expect(200, "v2", "fwd=uri-miss");
    let after = other.metric("atoll_epoch").await;
    assert!((after - before - 3.0).abs() < 0.5, "{before} {after}");
    // Sent once more, each is known by its key, and what is stored meanwhile stays.
    assert_eq!(atoll(&other, &replay).await.status.code(), Some(0));
    other.get("/a").await.expect(200, "v2", "hit");
    let late = [&replay[..], &["--since", "2999-01-01", "--json"]].concat();
    let none: Value = serde_json::from_slice(&atoll(&other, &late).await.stdout).unwrap();
    assert_eq!(none, json!({ "purges": 0, "requests": 0, "refused": 0 }));
}

#[tokio::test]
async fn a_purge_is_carried_out_though_it_cannot_be_written_down() {
    let folder = Folder::new();
    let origin =
        Origin::start(|seen| Reply::fresh(format!("v{}", seen.nth)).field("Cache-Tag", "t"));
    let inside = folder.path().join("inside");
    std::fs::create_dir(&inside).unwrap();
    let path = inside.join("audit.log");
    let edge = Edge::before(&origin).audit_log(&path).start();
    edge.fill("/a").await;
    std::fs::remove_dir_all(&inside).unwrap();
    let receipt = edge.purge_tag("t").await;
    assert_eq!(receipt["audit"], json!(false));
    edge.fill("/a").await.expect(200, "v2", "fwd=uri-miss");
    assert!((edge.metric("atoll_audit_failures_total").await - 1.0).abs() < 0.5);
    let reset = edge.manage("POST", "/v1/reset", None).await;
    assert!(reset.text().contains("\"audit\":false"), "{reset:?}");
    // The next line that can be written tells of those.
    std::fs::create_dir(&inside).unwrap();
    assert!(edge.purge_tag("t").await.get("audit").is_none());
    assert_eq!(lines(&path)[0]["missing"], json!(2));
}

#[tokio::test]
async fn an_edge_does_not_start_without_the_audit_log_that_it_should_keep() {
    let folder = Folder::new();
    let config = folder.path().join("atoll.toml");
    std::fs::create_dir(written(&folder)).unwrap();
    let text = "[admin]\naddress = \"127.0.0.1:0\"\naudit_log = \"audit.log\"\n\
                [[listener]]\naddress = \"127.0.0.1:0\"\n\
                [[origin]]\nname = \"main\"\nservers = [\"http://127.0.0.1:9\"]\n\
                [[site]]\nname = \"main\"\nhosts = [\"*\"]\norigin = \"main\"\n";
    let refused = async |text: &str| {
        std::fs::write(&config, text).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_atoll"));
        command.args(["run", "--config"]).arg(&config);
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        assert!(!output.status.success(), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    let message = refused(text).await;
    assert!(message.contains("audit log") && message.contains("not a regular file"), "{message}");
    // Nor with an admin listener that other machines reach, since it speaks in plain.
    for address in ["0.0.0.0:0", "192.0.2.1:9080", "[::]:0", "[::ffff:192.0.2.1]:9080"] {
        let open = text.replacen("127.0.0.1:0", address, 1);
        let message = refused(&open).await;
        assert!(message.contains("the admin listener may not stand on"), "{address}: {message}");
    }
}

/// Bytes that would end a line or move a terminal's cursor.
const NASTY: &str = "a\r\n{\"forged\":1}\u{1b}[2J\u{7f}";

#[tokio::test]
async fn no_byte_of_a_stranger_ends_a_line_of_a_log() {
    let folder = Folder::new();
    let path = written(&folder);
    let origin = Origin::serving(Reply::fresh("x").field("Cache-Tag", "t"));
    let (plan, access) = Edge::before(&origin).audit_log(&path).access_log("json");
    let edge = plan.start();
    for (name, body) in [
        ("tag", json!({ "tags": [NASTY] })),
        ("url", json!({ "urls": [format!("http://{HOST}/{NASTY}")] })),
        ("prefix", json!({ "prefixes": [format!("{HOST}/{NASTY}/")] })),
        ("host", json!({ "hosts": [NASTY] })),
        ("glob", json!({ "globs": [format!("{HOST}/{NASTY}*")] })),
        ("site", json!({ "site": NASTY, "tags": ["t"] })),
        ("mode", json!({ "mode": NASTY, "tags": ["t"] })),
    ] {
        let answer = edge.manage("POST", "/v1/purge", Some(body)).await;
        assert_eq!(answer.status(), 400, "{name}: {answer:?}");
        assert!(!answer.body.contains(&0x1b), "{name}: {answer:?}");
    }
    assert_eq!(acts(&path), ["start"]);
    // On the side of the clients the same goes for path, query, fields and host.
    for raw in [
        "GET /a\u{1b}[2J HTTP/1.1\r\nHost: site.test\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: site\u{1b}.test\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: site.test\r\nUser-Agent: a\u{1b}[2J\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: site.test\r\nReferer: a\rb\r\n\r\n",
    ] {
        assert_eq!(edge.raw(raw, "GET").await.status(), 400, "{raw:?}");
    }
    let fine = edge.get_with("/%0d%0a%1b?q=%0a", &[("User-Agent", "a\"b\\c\u{e9}")]).await;
    assert_eq!(fine.status(), 200);
    let text = || std::fs::read_to_string(&access).unwrap_or_default();
    until("the request in the log", || async { text().contains("%0A") || text().contains("%0a") })
        .await;
    for line in text().lines() {
        assert!(serde_json::from_str::<Value>(line).is_ok_and(|line| line.is_object()), "{line}");
        assert!(!line.chars().any(char::is_control), "{line:?}");
    }
}

#[tokio::test]
async fn a_clients_request_finds_no_admin_handler_whatever_it_says() {
    let origin = Origin::serving(Reply::ok("from the origin"));
    let edge = Edge::start(&origin);
    let admin = edge.admin().to_string();
    let bearer = format!("Bearer {TOKEN}");
    let before = edge.metric("atoll_epoch").await;
    for host in [HOST, &*admin, "127.0.0.1", "localhost:9080", "admin.test"] {
        for path in ["/metrics", "/readyz", "/v1/status", "//v1/status", "/v1/purges"] {
            let fields = [("Authorization", &*bearer), ("X-Forwarded-Host", &*admin)];
            let answer = edge.ask("GET", host, path, &fields).await;
            assert!(matches!(answer.status(), 200 | 400), "{host} {path}: {answer:?}");
            assert!(!answer.text().contains("incarnation"), "{host} {path}");
            assert!(answer.status() == 400 || answer.text() == "from the origin", "{host} {path}");
        }
        // A whole URL in place of the path names the admin listener as little.
        let whole = format!("http://{admin}/v1/status");
        let answer = edge.ask("GET", host, &whole, &[("Authorization", &bearer)]).await;
        assert!(!answer.text().contains("incarnation"), "{host}: {answer:?}");
        // Purging by method is off unless it is switched on.
        for method in ["PURGE", "BAN"] {
            let fields = [("Authorization", &*bearer), ("X-Forwarded-For", "127.0.0.1")];
            assert_eq!(edge.ask(method, host, "/a", &fields).await.status(), 405, "{method}");
        }
    }
    assert!((edge.metric("atoll_epoch").await - before).abs() < 0.5, "nothing was purged");
}
