//! Every route, for every scope, bound to sites or not: who may, and who is told why not.

use super::*;

/// What a token needs beside the scope of the route.
#[derive(Clone, Copy, Debug)]
enum Needs {
    /// Nothing: what it may not see is left out of the answer.
    Scope,
    /// This site.
    Site(&'static str),
    /// This site, else there is no such thing.
    Seeing(&'static str),
    /// That it is not bound to sites.
    WholeNode,
    /// `purge-all`, and a site to do it to.
    PurgeAll,
    /// Nothing, but there is no such thing.
    Absent,
}

/// A request to a route, which succeeds for whom the route and `needs` let.
struct Case {
    /// Its path; behind its method where several have one path.
    route: &'static str,
    /// The body, or the query with its `?`.
    body: &'static str,
    needs: Needs,
}

const fn case(route: &'static str, body: &'static str, needs: Needs) -> Case {
    Case { route, body, needs }
}

/// At least one for every route that needs a token.
const CASES: [Case; 25] = [
    case("/v1/purge", r#"{"site":"shop","tags":["a"]}"#, Needs::Site("shop")),
    case("/v1/purge", r#"{"site":"blog","tags":["a"]}"#, Needs::Site("blog")),
    case("/v1/purge", r#"{"hosts":["shop.example"]}"#, Needs::Site("shop")),
    case("/v1/purge", r#"{"site":"blog","all":true}"#, Needs::Site("blog")),
    case("/v1/purge", r#"{"site":"shop","all":true,"dry_run":true}"#, Needs::Site("shop")),
    case("/v1/purge", r#"{"site":"shop","tags":["a"],"guard":100}"#, Needs::Site("shop")),
    case("/v1/purge", r#"{"all":true}"#, Needs::PurgeAll),
    case("/v1/purges", "", Needs::Scope),
    case("/v1/purges/{id}", "", Needs::Seeing("shop")),
    case("/v1/explain", r#"{"url":"https://shop.example/"}"#, Needs::Site("shop")),
    case("/v1/reset", "", Needs::WholeNode),
    case("/v1/drain", "", Needs::WholeNode),
    case("/v1/reload", "", Needs::WholeNode),
    case("/v1/upgrade", "", Needs::WholeNode),
    case("/v1/status", "", Needs::Scope),
    case("/v1/mesh", "", Needs::WholeNode),
    case("/v1/origins", "", Needs::Scope),
    case("/v1/origins/{origin}/endpoints/{address}", ORDER, Needs::WholeNode),
    case("/v1/cache/entry", "?url=https://shop.example/", Needs::Site("shop")),
    case("/v1/cache/top", "", Needs::Scope),
    case("/v1/events", "", Needs::Scope),
    case("POST /v1/warm", r#"{"urls":["https://shop.example/"]}"#, Needs::Site("shop")),
    case("GET /v1/warm", "", Needs::Scope),
    case("GET /v1/warm/{id}", "", Needs::Absent),
    case("DELETE /v1/warm/{id}", "", Needs::Absent),
];

/// The sites that tokens are bound to; `gone` is one that was taken out of the configuration.
const BOUND: [&[&str]; 4] = [&[], &["shop"], &["shop", "blog"], &["gone"]];

/// The status that a token with one scope gets.
fn expected(case: &Case, needed: Scope, scope: Scope, sites: &[&str]) -> &'static [u16] {
    const DONE: &[u16] = &[200, 202];
    let within = |site: &str| sites.is_empty() || sites.contains(&site);
    let may = scope == needed || (needed == Scope::Purge && scope == Scope::PurgeAll);
    match case.needs {
        _ if !may => &[403],
        Needs::Scope => DONE,
        Needs::Absent => &[404],
        Needs::Site(site) if within(site) => DONE,
        Needs::Seeing(site) if within(site) => DONE,
        Needs::Seeing(_) => &[404],
        Needs::WholeNode if sites.is_empty() => DONE,
        Needs::PurgeAll if scope != Scope::PurgeAll => &[403],
        Needs::PurgeAll if sites == ["gone"] => &[400],
        Needs::PurgeAll => DONE,
        Needs::Site(_) | Needs::WholeNode => &[403],
    }
}

#[tokio::test]
async fn every_route_opens_to_its_scope_and_sites_and_to_nobody_else() {
    let mut config = test_config();
    config.admin.tokens = vec![token("filler", &[Scope::Purge], &[])];
    for (name, scope) in SCOPES {
        for (position, sites) in BOUND.iter().enumerate() {
            config.admin.tokens.push(token(&format!("{name}-{position}"), &[scope], sites));
        }
    }
    for route in ROUTES.iter().filter(|route| route.access.scope().is_some()) {
        let needed = route.access.scope().unwrap();
        let named = format!("{} {}", route.method, route.path);
        let cases: Vec<&Case> =
            CASES.iter().filter(|case| case.route == route.path || case.route == named).collect();
        assert!(!cases.is_empty(), "{} has no row in CASES", route.path);
        for (case, (name, scope)) in cases.iter().flat_map(|case| SCOPES.map(|row| (case, row))) {
            for (position, sites) in BOUND.iter().enumerate() {
                let bench = bench_of_tokens(&config);
                let filled = r#"{"site":"shop","tags":["t"]}"#;
                assert_eq!(bench.ask("POST", "/v1/purge", "filler", filled).await.status, 200);
                let (query, body) = match case.body.starts_with('?') {
                    true => (case.body, ""),
                    false => ("", case.body),
                };
                let path =
                    route.path.replace("{id}", "n1.00000000000000ff.1").replace("{origin}", "back");
                let path = path.replace("{address}", "192.0.2.1:80") + query;
                let token = format!("{name}-{position}");
                let answer = bench.ask(route.method.as_str(), &path, &token, body).await;
                let expected = expected(case, needed, scope, sites);
                let row = format!("{name} {sites:?} {path} {}", case.body);
                assert!(expected.contains(&answer.status), "{row}: {}", answer.body);
                // Whoever is refused changed nothing.
                let changed = bench.control.purges.lock().unwrap().len() > 1
                    || !bench.control.told.lock().unwrap().iter().all(|told| *told == "try");
                assert!(!changed || answer.status < 300, "{row}");
            }
        }
    }
}
