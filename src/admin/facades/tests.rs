use super::super::tests::{Answer, Bench, bench, bench_of};
use super::*;
use crate::purge::{Glob, Selector};
use crate::telemetry::test_config;

/// Fields of a request.
type Fields<'a> = &'a [(&'a str, &'a str)];

/// A node with a service for each site, and a zone for one and one for both.
fn facades() -> Bench {
    let mut config = test_config();
    let service = |id: &str, sites: &[&str]| Service {
        id: id.to_owned(),
        sites: sites.iter().map(ToString::to_string).collect(),
    };
    config.facades.fastly = vec![service("s-shop", &["shop"]), service("s-blog", &["blog"])];
    config.facades.cloudflare = vec![service("z-blog", &["blog"]), service("z", &["shop", "blog"])];
    config.admin.purges_per_second = 1000;
    bench_of(config)
}

impl Bench {
    async fn fastly(&self, path: &str, token: &str, more: Fields<'_>, body: &str) -> Answer {
        let mut fields = vec![("fastly-key", token)];
        fields.extend(more);
        self.ask_with("POST", path, "", &fields, body).await
    }

    async fn cloudflare(&self, zone: &str, token: &str, body: &str) -> Answer {
        let path = format!("/client/v4/zones/{zone}/purge_cache");
        self.ask("POST", &path, token, body).await
    }

    /// The purges since the last look, as selectors in words.
    fn purged(&self) -> Vec<(Vec<String>, Strength)> {
        let purges = std::mem::take(&mut *self.control.purges.lock().unwrap());
        let words = |selectors: Vec<Selector>| selectors.iter().map(word).collect();
        purges.into_iter().map(|(selectors, strength)| (words(selectors), strength)).collect()
    }
}

fn word(selector: &Selector) -> String {
    match selector {
        Selector::Url { site, host, target } => format!("{site} url {host}{target}"),
        Selector::Tag { site, tag } => format!("{site} tag {tag}"),
        Selector::Prefix { site, host, path } => format!("{site} prefix {host}{path}"),
        Selector::Host { site, host } => format!("{site} host {host}"),
        Selector::Glob { site, glob } => format!("{site} glob {}", Glob::as_str(glob)),
        Selector::Site { site } => format!("{site} all"),
        Selector::All => "all".to_owned(),
    }
}

fn one(selectors: &[&str], strength: Strength) -> Vec<(Vec<String>, Strength)> {
    vec![(selectors.iter().map(ToString::to_string).collect(), strength)]
}

#[tokio::test]
async fn fastly_paths_and_fields_say_what_is_purged() {
    use Strength::{Hard, Soft};
    let soft: Fields<'_> = &[("fastly-soft-purge", "1")];
    let keys: Fields<'_> = &[("surrogate-key", "a B")];
    let rows: [(&str, Fields<'_>, &str, &[&str], Strength); 11] = [
        ("/service/s-shop/purge/News", &[], "", &["shop tag news"], Hard),
        ("/service/s-shop/purge/a%2Fb", soft, "", &["shop tag a/b"], Soft),
        ("/service/s-shop/purge/a/b", &[], "", &["shop tag a/b"], Hard),
        ("/service/s-blog/purge", keys, "", &["blog tag a", "blog tag b"], Hard),
        (
            "/service/s-blog/purge",
            keys,
            "{\"surrogate_keys\":[\"c\"]}",
            &["blog tag a", "blog tag b", "blog tag c"],
            Hard,
        ),
        ("/service/s-shop/purge", soft, "{\"surrogate_keys\":[\"c\"]}", &["shop tag c"], Soft),
        ("/service/s-shop/purge_all", &[], "", &["shop all"], Hard),
        ("/service/s-shop/purge_all", soft, "", &["shop all"], Soft),
        ("/purge/shop.example/a?b=1", &[], "", &["shop url shop.example/a?b=1"], Hard),
        ("/purge/https://blog.example/a", soft, "", &["blog url blog.example/a"], Soft),
        ("/purge/blog.example%2Fa%2Fb", &[], "", &["blog url blog.example/a/b"], Hard),
    ];
    let bench = facades();
    for (path, fields, body, selectors, strength) in rows {
        let answer = bench.fastly(path, "purge", fields, body).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        assert_eq!(bench.purged(), one(selectors, strength), "{path}");
    }
}

#[tokio::test]
async fn fastly_answers_and_errors_have_their_shape() {
    let bench = facades();
    let answer = bench.fastly("/service/s-shop/purge/a", "purge", &[], "").await.json();
    assert_eq!(answer, serde_json::json!({ "status": "ok", "id": "n1.00000000000000ff.1" }));
    let keys = &[("surrogate-key", "a b")];
    let answer = bench.fastly("/service/s-shop/purge", "purge", keys, "").await.json();
    assert_eq!(
        answer,
        serde_json::json!({ "a": "n1.00000000000000ff.2", "b": "n1.00000000000000ff.2" })
    );
    let answer = bench.fastly("/service/s-shop/purge_all", "purge", &[], "").await.json();
    assert_eq!(answer, serde_json::json!({ "status": "ok" }));
    let refused = bench.fastly("/service/s-shop/purge_all", "nobody", &[], "").await;
    assert_eq!(refused.status, 401);
    assert_eq!(refused.json()["msg"], "Provided credentials are missing or invalid");
    assert!(refused.json()["detail"].is_string());
}

#[tokio::test]
async fn fastly_refuses_what_it_must() {
    let bench = facades();
    let staging: Fields<'_> = &[("fastly-purge-environment", "staging")];
    let blank: Fields<'_> = &[("surrogate-key", " ")];
    let rows: [(&str, &str, Fields<'_>, &str, u16); 21] = [
        ("/service/s-shop/purge_all", "", &[], "", 401),
        ("/service/s-shop/purge_all", "read", &[], "", 403),
        ("/service/s-shop/purge_all", "blogger", &[], "", 403),
        ("/service/gone/purge_all", "blogger", &[], "", 403),
        ("/service/gone/purge_all", "purge", &[], "", 404),
        ("/service/z-blog/purge_all", "purge", &[], "", 404),
        ("/service//purge_all", "purge", &[], "", 404),
        ("/service/s-shop/purge_all", "purge", staging, "", 400),
        ("/service/s-shop/purge", "purge", &[], "", 400),
        ("/service/s-shop/purge", "purge", blank, "", 400),
        ("/service/s-shop/purge", "purge", &[], "{}", 400),
        ("/service/s-shop/purge", "purge", &[], "{\"surrogate_keys\":[]}", 400),
        ("/service/s-shop/purge", "purge", &[], "{\"surrogate_keys\":[\"\"]}", 400),
        ("/service/s-shop/purge", "purge", &[], "{\"surrogate_keys\":null}", 400),
        ("/service/s-shop/purge", "purge", &[], "[[\"a\"]]", 400),
        ("/service/s-shop/purge/", "purge", &[], "", 404),
        ("/service/s-shop/purge/*", "purge", &[], "", 400),
        ("/service/s-shop/purge/a?b", "purge", &[], "", 400),
        ("/purge/", "purge", &[], "", 404),
        ("/purge/else.example/a", "purge", &[], "", 400),
        ("/purge/shop.example/a", "blogger", &[], "", 403),
    ];
    for (path, token, fields, body, status) in rows {
        let answer = bench.fastly(path, token, fields, body).await;
        assert_eq!(answer.status, status, "{path} {body}: {}", answer.body);
        assert!(answer.json()["msg"].is_string(), "{path}");
    }
    let twice = &[("fastly-key", "purge")];
    assert_eq!(bench.fastly("/service/s-shop/purge_all", "purge", twice, "").await.status, 401);
    let bearer = bench.ask("POST", "/service/s-shop/purge_all", "purge", "").await;
    assert_eq!(bearer.status, 401, "a bearer token is not what this format has");
    let read = bench.ask_with("GET", "/service/s-shop/purge_all", "", twice, "").await;
    assert_eq!((read.status, read.header("allow")), (405, "POST, PUT"));
    assert_eq!(bench.purged(), [], "what was refused purged nothing");
}

#[tokio::test]
async fn cloudflare_bodies_say_what_is_purged() {
    let rows: [(&str, &str, &[&str]); 9] = [
        ("z-blog", "{\"purge_everything\":true}", &["blog all"]),
        ("z", "{\"purge_everything\":true}", &["shop all", "blog all"]),
        ("z", "{\"tags\":[\"A\"]}", &["shop tag a", "blog tag a"]),
        ("z-blog", "{\"hosts\":[\"blog.example\"]}", &["blog host blog.example"]),
        (
            "z",
            "{\"files\":[\"https://shop.example/a\",{\"url\":\"http://blog.example/b\",\
             \"headers\":{\"Origin\":\"https://x.example\"}}]}",
            &["shop url shop.example/a", "blog url blog.example/b"],
        ),
        ("z", "{\"prefixes\":[\"blog.example/a/\"]}", &["blog prefix blog.example/a/"]),
        ("z", "{\"prefixes\":[\"blog.example/a\"]}", &["blog glob blog.example/a*"]),
        ("z", "{\"prefixes\":[\"blog.example\"]}", &["blog host blog.example"]),
        (
            "z-blog",
            "{\"tags\":[\"a\"],\"files\":[],\"hosts\":[\"blog.example\"]}",
            &["blog host blog.example", "blog tag a"],
        ),
    ];
    let bench = facades();
    for (zone, body, selectors) in rows {
        let answer = bench.cloudflare(zone, "purge", body).await;
        assert_eq!(answer.status, 200, "{body}: {}", answer.body);
        assert_eq!(bench.purged(), one(selectors, Strength::Hard), "{body}");
    }
    let path = "/client/v4/zones/z-blog/invalidate_cache";
    assert_eq!(bench.ask("POST", path, "purge", "{\"tags\":[\"a\"]}").await.status, 200);
    assert_eq!(bench.purged(), one(&["blog tag a"], Strength::Soft));
    let path = "/client/v4/zones/z-blog/purge_cache";
    let key = &[("x-auth-key", "purge"), ("x-auth-email", "a@b.example")];
    let answer = bench.ask_with("DELETE", path, "", key, "{\"tags\":[\"a\"]}").await.json();
    let id = answer["result"]["id"].clone();
    let whole = serde_json::json!(
        { "success": true, "errors": [], "messages": [], "result": { "id": id } });
    assert_eq!(answer, whole);
    assert_eq!(bench.purged(), one(&["blog tag a"], Strength::Hard));
}

#[tokio::test]
async fn cloudflare_refuses_what_it_must() {
    let bench = facades();
    let all = "{\"purge_everything\":true}";
    let rows = [
        ("z-blog", "", all, 401, 10000),
        ("z-blog", "nobody", all, 401, 10000),
        ("z-blog", "read", all, 403, 10000),
        ("z-blog", "stranger", all, 403, 10000),
        // A part of the zone is not the zone.
        ("z", "blogger", all, 403, 10000),
        ("z", "blogger", "{\"tags\":[\"a\"]}", 403, 10000),
        ("gone", "blogger", all, 403, 10000),
        ("gone", "purge", all, 404, 7003),
        ("s-shop", "purge", all, 404, 7003),
        ("z", "purge", "", 400, 6007),
        ("z", "purge", "[]", 400, 6007),
        ("z", "purge", "{\"purge_everything\":null}", 400, 6007),
        ("z", "purge", "{\"purge_everything\":\"true\"}", 400, 6007),
        ("z", "purge", "{\"tags\":\"a\"}", 400, 6007),
        ("z", "purge", "{\"everything\":true}", 400, 6007),
        ("z", "purge", "{}", 400, 1012),
        ("z", "purge", "{\"purge_everything\":false}", 400, 1012),
        ("z", "purge", "{\"files\":[],\"tags\":[],\"hosts\":[],\"prefixes\":[]}", 400, 1012),
        ("z", "purge", "{\"purge_everything\":true,\"tags\":[\"a\"]}", 400, 1094),
        ("z", "purge", "{\"tags\":[\"\"]}", 400, 1094),
        ("z", "purge", "{\"tags\":[\"*\"]}", 400, 1094),
        ("z", "purge", "{\"files\":[\"/a\"]}", 400, 1094),
        ("z", "purge", "{\"files\":[\"https://else.example/a\"]}", 400, 1094),
        ("z-blog", "purge", "{\"files\":[\"https://shop.example/a\"]}", 400, 1094),
        ("z-blog", "purge", "{\"hosts\":[\"shop.example\"]}", 400, 1094),
        ("z-blog", "purge", "{\"prefixes\":[\"shop.example/a\"]}", 400, 1094),
        ("z-blog", "purge", "{\"prefixes\":[\"shop.example\"]}", 400, 1094),
        ("z-blog", "purge", "{\"prefixes\":[\"\"]}", 400, 1094),
    ];
    for (zone, token, body, status, code) in rows {
        let answer = bench.cloudflare(zone, token, body).await;
        assert_eq!(answer.status, status, "{zone} {token} {body}: {}", answer.body);
        let told = answer.json();
        assert_eq!((&told["success"], &told["result"]), (&false.into(), &().into()), "{body}");
        assert_eq!(told["errors"][0]["code"], code, "{zone} {token} {body}");
    }
    assert_eq!(bench.purged(), [], "what was refused purged nothing");
}

#[tokio::test]
async fn what_is_not_configured_is_not_there() {
    for bench in [bench(), facades()] {
        let on = bench.ask("GET", "/client/v4/user/tokens/verify", "purge", "").await.status == 200;
        for (method, path) in ROUTES {
            let path = path.replace("{id}", "s-shop").replace("{zone}", "z-blog");
            let path = path.replace("{key}", "a").replace("{url}", "shop.example/a");
            let key = &[("fastly-key", "purge")];
            let answer = bench.ask_with(method, &path, "purge", key, "").await;
            // Here is a route: a purge without a body may be told what is missing.
            assert_eq!(answer.status == 404, !on, "{path}: {}", answer.body);
        }
    }
    let bench = facades();
    let verify = "/client/v4/user/tokens/verify";
    assert_eq!(bench.ask("GET", verify, "purge", "").await.json()["result"]["status"], "active");
    assert_eq!(bench.ask("GET", verify, "nobody", "").await.status, 401);
    assert_eq!(bench.ask("GET", "/client/v4/zones/z", "purge", "").await.status, 404);
}

#[tokio::test]
async fn a_zone_is_found_by_a_name_of_its_sites() {
    let bench = facades();
    let find = async |token: &str, query: &str| {
        let answer = bench.ask("GET", &format!("/client/v4/zones?{query}"), token, "").await;
        assert_eq!(answer.status, 200, "{query}: {}", answer.body);
        let told = answer.json();
        let rows = told["result"].as_array().unwrap().clone();
        assert_eq!(told["result_info"]["count"], rows.len(), "{told}");
        let id = |zone: &serde_json::Value| zone["id"].as_str().unwrap().to_owned();
        rows.iter().map(id).collect::<Vec<_>>()
    };
    for (token, query, expected) in [
        // The narrowest first.
        ("purge", "name=blog.example", &["z-blog", "z"][..]),
        ("purge", "name=BLOG.example.", &["z-blog", "z"]),
        ("purge", "name=shop.example", &["z"]),
        ("purge", "name=blog.example&page=2&per_page=1", &["z"]),
        ("purge", "name=blog.example&page=2", &[]),
        ("purge", "name=else.example.org", &[]),
        ("purge", "name=example", &[]),
        ("purge", "name=", &[]),
        ("purge", "", &["z-blog", "z"]),
        // A part of the zone is not the zone.
        ("blogger", "name=blog.example", &["z-blog"]),
        ("blogger", "name=shop.example", &[]),
        ("blogger", "", &["z-blog"]),
        ("stranger", "", &[]),
    ] {
        assert_eq!(find(token, query).await, expected, "{token} {query}");
    }
    for (method, query, token, status) in [
        ("GET", "account.id=1", "purge", 400),
        ("GET", "per_page=51", "purge", 400),
        ("POST", "", "purge", 405),
        ("GET", "", "read", 403),
        ("GET", "", "nobody", 401),
    ] {
        let answer = bench.ask(method, &format!("/client/v4/zones?{query}"), token, "").await;
        assert_eq!(answer.status, status, "{method} {query}: {}", answer.body);
        assert_eq!(answer.json()["success"], false);
    }
    assert_eq!(bench.purged(), []);
}

#[tokio::test]
async fn a_purge_in_another_format_is_remembered_limited_and_not_repeated() {
    let mut config = test_config();
    config.facades.fastly = vec![Service { id: "s".to_owned(), sites: vec!["shop".to_owned()] }];
    config.admin.purges_per_second = 3;
    let bench = bench_of(config);
    let key = &[("idempotency-key", "k")];
    let first = bench.fastly("/service/s/purge/a", "purge", key, "").await.json();
    let again = bench.fastly("/service/s/purge/a", "purge", key, "").await.json();
    assert_eq!(first, again);
    assert_eq!(bench.fastly("/service/s/purge/b", "purge", key, "").await.status, 422);
    assert_eq!(bench.purged(), one(&["shop tag a"], Strength::Hard));
    let past = bench.ask("GET", "/v1/purges", "read", "").await.json();
    assert_eq!(past["purges"][0]["id"], first["id"], "{past}");
    let statuses: Vec<u16> = {
        let mut statuses = Vec::new();
        for _ in 0..5 {
            statuses.push(bench.fastly("/service/s/purge/a", "purge", &[], "").await.status);
        }
        statuses
    };
    assert!(statuses.contains(&429), "{statuses:?}");
}

#[tokio::test]
async fn guessing_is_slowed_down_here_too() {
    let bench = facades();
    let mut statuses = Vec::new();
    for _ in 0..25 {
        statuses.push(bench.cloudflare("z", "wrong", "{}").await.status);
    }
    assert_eq!((statuses[0], statuses[24]), (401, 429));
    assert_eq!(bench.fastly("/service/s-shop/purge_all", "purge", &[], "").await.status, 429);
}

#[test]
fn encoded_texts_are_read_or_refused() {
    let rows = [
        ("a", Some("a")),
        ("a%2fb", Some("a/b")),
        ("%C3%A4", Some("ä")),
        ("%", None),
        ("%2", None),
        ("%zz", None),
        ("%FF", None),
    ];
    for (text, expected) in rows {
        assert_eq!(decoded(text).as_deref(), expected, "{text}");
    }
}
