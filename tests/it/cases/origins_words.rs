//! What an origin may say in fields that steer the cache (E22, E35, E38, E39).

use crate::support::{Edge, Origin, Reply};

/// Case, what it is about, and the tests that prove it: file and name.
pub(super) const PROOFS: [(&str, &str, &[&str]); 4] = [
    (
        "E22",
        "redirects",
        &[
            "it/cases/origins_words e22_",
            "it/warm a_sitemap_is_read_through_the_edge_and_leads_nowhere_else",
        ],
    ),
    (
        "E35",
        "answers to conditions",
        &[
            "it/cases/origins_words e35_",
            "it/revalidation a_304_freshens_what_is_stored",
            "it/revalidation a_200_takes_the_place_of_what_is_stored",
            "it/revalidation a_304_for_something_else_is_asked_again_without_conditions",
            "it/revalidation a_304_that_nobody_asked_for_is_a_bad_answer",
            "src/semantics/conditional not_modified_confirms_only_what_it_names",
        ],
    ),
    (
        "E38",
        "Cache-Control in excess and in conflict",
        &[
            "it/cases/origins_words e38_",
            "src/semantics/cache_control/tests endless_lists_count_as_no_store",
            "src/semantics/cache_control/tests max_age_is_read_with_doubt",
            "src/semantics/cache_control/tests any_field_is_read_without_panic",
        ],
    ),
    (
        "E39",
        "tags in excess",
        &[
            "it/cases/origins_words e39_",
            "it/purge what_bears_more_tags_than_can_be_kept_is_not_stored",
            "src/semantics/tags five_fields_fill_one_namespace",
            "src/semantics/tags any_line_is_read_without_panic",
        ],
    ),
];

#[tokio::test]
async fn e22_redirects_are_handed_on_and_not_followed() {
    let inside = Origin::serving(Reply::ok("secret"));
    let internal = format!("http://{}/", inside.address);
    let to = internal.clone();
    // To itself, to an address inside, and to one that nobody should ask.
    let origin = Origin::start(move |seen| {
        let (status, place) = seen.target[1..].split_once('/').unwrap();
        let place = match place {
            "loop" => seen.target.clone(),
            "inside" => to.clone(),
            _ => "http://169.254.169.254/latest/".to_owned(),
        };
        Reply::new(status.parse().unwrap()).field("Location", &place)
    });
    let edge = Edge::start(&origin);
    for status in [301, 302, 303, 307, 308] {
        for place in ["loop", "inside", "metadata"] {
            let target = format!("/{status}/{place}");
            let answer = edge.get(&target).await;
            assert_eq!(answer.status(), status);
            let expected = match place {
                "loop" => &*target,
                "inside" => &*internal,
                _ => "http://169.254.169.254/latest/",
            };
            assert_eq!(answer.field("location"), Some(expected));
            assert_eq!(edge.post(&target, "x").await.status(), status);
            assert_eq!(origin.count(&target), 2, "{target}: once for each who asked");
        }
    }
    assert_eq!(inside.connections(), 0);
}

#[tokio::test]
async fn e35_a_304_is_believed_only_about_what_it_was_asked() {
    let origin =
        Origin::start(|seen| match (&*seen.target, seen.nth, seen.field("if-none-match")) {
            // It goes on to confirm what nobody has.
            ("/never", 1, _) => Reply::stale("v1", "\"1\""),
            ("/never", ..) => Reply::not_modified().field("ETag", "\"2\""),
            // It confirms what is stored without naming it.
            (_, _, Some("\"1\"")) => Reply::not_modified(),
            _ => Reply::stale("v1", "\"1\""),
        });
    let edge = Edge::start(&origin);
    for target in ["/never", "/silent"] {
        edge.fill(target).await.expect(200, "v1", "fwd=uri-miss");
    }
    edge.fill("/silent").await.expect(200, "v1", "fwd-status=304");
    assert_eq!(origin.count("/silent"), 2);
    assert_eq!(edge.fill("/never").await.status(), 502);
    let seen = origin.seen("/never", 3).await;
    assert_eq!(seen.len(), 3, "it is asked once more, and no oftener");
    assert_eq!(seen[2].field("if-none-match"), None);
}

/// What the origin says at `/0`, `/1` and so on.
fn saying(name: &'static str, lines: Vec<Vec<String>>) -> Origin {
    Origin::start(move |seen| {
        let number: usize = seen.target[1..].parse().unwrap();
        lines[number].iter().fold(Reply::ok("x"), |reply, line| reply.field(name, line))
    })
}

#[tokio::test]
async fn e38_cache_control_in_excess_or_in_conflict_never_lengthens_a_life() {
    let one = |line: &str| vec![line.to_owned()];
    let rows: Vec<(Vec<String>, Option<i64>)> = vec![
        (one("max-age=60"), Some(60)),
        (one("max-age=60, max-age=5, max-age=30"), Some(5)),
        (vec!["max-age=60".to_owned(), "max-age=7".to_owned()], Some(7)),
        (one("max-age=60, s-maxage=30, s-maxage=6"), Some(6)),
        (one("max-age=60, a=\"no-store\""), Some(60)),
        (one("max-age=60, max-age=x"), None),
        (one("a=\"unclosed, max-age=60"), None),
        (one("\"max-age=60\""), None),
        (one("a=\"\\\", max-age=60, no-store"), None),
        (one(&format!("max-age=60, {}", vec!["a"; 1000].join(","))), None),
        (one(&vec!["max-age=60"; 1000].join(",")), Some(60)),
        (one(&format!("max-age=60, a=\"{}\"", "y".repeat(20_000))), Some(60)),
    ];
    let origin = saying("Cache-Control", rows.iter().map(|(lines, _)| lines.clone()).collect());
    let edge = Edge::start(&origin);
    for (number, (lines, life)) in rows.iter().enumerate() {
        let (what, target) = (format!("{:.60}", lines[0]), format!("/{number}"));
        edge.fill(&target).await.expect(200, "x", "fwd=uri-miss");
        let again = edge.fill(&target).await;
        assert_eq!(again.says("hit"), life.is_some(), "{what}: {}", again.cache());
        if let Some(life) = *life {
            assert!((life - 3..=life).contains(&again.ttl()), "{what}: {}", again.ttl());
        }
    }
    let endless = "max-age=60, ".repeat(64 * 1024 / 12);
    let origin = Origin::serving(Reply::fresh("x").field("Cache-Control", &endless));
    assert_eq!(Edge::start(&origin).get("/a").await.status(), 502, "beyond any head");
}

#[tokio::test]
async fn e39_what_bears_tags_that_cannot_be_kept_is_not_stored() {
    let many = |count: usize| (0..count).map(|i| format!("t{i}")).collect::<Vec<_>>().join(",");
    // Tags, and those by which a purge must find it; none where it must not be stored.
    let rows: Vec<(String, &[&str])> = vec![
        ("a,,b, , c,".to_owned(), &["a", "b", "c"]),
        (",, ,".to_owned(), &[]),
        ("a b,c".to_owned(), &["a b", "c"]),
        (many(128), &["t0", "t127"]),
        (many(129), &[]),
        (many(5000), &[]),
        ("t".repeat(8192), &[]),
        ("a\tb".to_owned(), &[]),
        ("a, b\tc".to_owned(), &[]),
    ];
    let said: Vec<_> = rows.iter().map(|(tags, _)| tags.clone()).collect();
    let origin = Origin::start(move |seen| {
        let number: usize = seen.target[1..].parse().unwrap();
        Reply::fresh("x").field("Cache-Tag", &said[number])
    });
    let edge = Edge::start(&origin);
    for (number, (line, found_by)) in rows.iter().enumerate() {
        let (what, target) = (format!("{line:.40}"), format!("/{number}"));
        assert_eq!(edge.fill(&target).await.status(), 200, "{what}");
        // Without a tag there is nothing that a purge by tag could miss.
        let stored = !found_by.is_empty() || line.split(',').all(|tag| tag.trim().is_empty());
        assert_eq!(edge.fill(&target).await.says("hit"), stored, "{what}");
        for tag in *found_by {
            edge.fill(&target).await;
            edge.purge_tag(tag).await;
            assert!(!edge.fill(&target).await.says("hit"), "{what} by {tag}");
        }
    }
    let control = b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nCache-Tag: a\x01b\r\nContent-Length: 1\r\n\r\nx";
    let endless = Reply::fresh("x").field("Cache-Tag", &many(100_000));
    for reply in [Reply::raw(control), endless] {
        let origin = Origin::serving(reply);
        let edge = Edge::start(&origin);
        assert_eq!(edge.fill("/a").await.status(), 502);
        assert_eq!(edge.fill("/a").await.status(), 502, "nothing is stored");
    }
}
