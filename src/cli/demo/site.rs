//! What the demo site consists of: a row per path.

use bytes::Bytes;
use http::HeaderValue;
use serde_json::{Value, json};

pub(super) const HTML: &str = "text/html; charset=utf-8";
const JSON: &str = "application/json";
const SVG: &str = "image/svg+xml";

/// A page may be a minute old, and a little older while it is fetched anew or the origin is down.
const PAGE: &str = "public, max-age=60, stale-while-revalidate=30, stale-if-error=86400";
/// Pictures and styles change with a release.
const ASSET: &str = "public, max-age=86400, stale-while-revalidate=3600, stale-if-error=604800";
/// The edge keeps what only a purge will change; browsers ask it each time.
const TAGGED: &str = "public, max-age=0, s-maxage=3600, stale-if-error=86400";

const HINT: &str = "</style.css>; rel=preload; as=style";

/// One path of the site.
#[derive(Debug)]
pub(super) struct Route {
    /// Path, compared as it is.
    pub(super) path: &'static str,
    /// `Content-Type`.
    pub(super) media: &'static str,
    /// `Cache-Control` of good answers.
    pub(super) caching: &'static str,
    /// Name and value of the field that bears the tags.
    pub(super) tags: Option<(&'static str, &'static str)>,
    /// `Link` of an early hint (RFC 8297).
    pub(super) hint: Option<&'static str>,
    /// Where the content comes from.
    pub(super) answer: Answer,
}

/// Where the content of a route comes from.
#[derive(Clone, Copy, Debug)]
pub(super) enum Answer {
    /// A file.
    File(&'static [u8]),
    /// An article as a page.
    Story(&'static Article),
    /// An article as data.
    Article(&'static Article),
    /// All articles as data.
    Articles,
    /// One of several files, by language; the first is for everybody else.
    Languages(&'static [(&'static str, &'static [u8])]),
    /// Something that belongs to one visitor.
    Account,
    /// Something that takes its time.
    Slow,
    /// Something that fails on demand.
    Fail,
    /// What the origin was asked.
    Hits,
}

impl Answer {
    /// Whether it was edited at a known time.
    pub(super) fn is_file(self) -> bool {
        matches!(self, Self::File(_) | Self::Story(_) | Self::Languages(_))
    }
}

/// A row with a file in it.
macro_rules! file {
    ($path:literal, $name:literal, $media:expr, $caching:expr, $tags:literal) => {
        Route {
            path: $path,
            media: $media,
            caching: $caching,
            tags: Some(("surrogate-key", $tags)),
            hint: None,
            answer: Answer::File(include_bytes!(concat!("assets/", $name))),
        }
    };
}

/// The rows of an article: its page and its data. They share tags, so that one purge reaches both.
macro_rules! article {
    ($page:literal, $data:literal, $tags:literal, $article:expr) => {
        [
            Route {
                path: $page,
                media: HTML,
                caching: TAGGED,
                tags: Some(("surrogate-key", $tags)),
                hint: Some(HINT),
                answer: Answer::Story(&$article),
            },
            Route {
                path: $data,
                media: JSON,
                caching: TAGGED,
                tags: Some(("surrogate-key", $tags)),
                hint: None,
                answer: Answer::Article(&$article),
            },
        ]
    };
}

/// Every path of the site.
pub(super) static ROUTES: [Route; 26] = {
    let [story1, data1] =
        article!("/articles/1", "/api/articles/1", "articles article-1 turtles", TURTLES);
    let [story2, data2] =
        article!("/articles/2", "/api/articles/2", "articles article-2 pass", PASS);
    let [story3, data3] =
        article!("/articles/3", "/api/articles/3", "articles article-3 coral", CORAL);
    let [story4, data4] =
        article!("/articles/4", "/api/articles/4", "articles article-4 water", WELL);
    [
        Route {
            path: "/",
            media: HTML,
            caching: PAGE,
            tags: Some(("surrogate-key", "pages page-index articles")),
            hint: Some(HINT),
            answer: Answer::File(include_bytes!("assets/index.html")),
        },
        file!("/reefs", "reefs.html", HTML, PAGE, "pages page-reefs"),
        file!("/visit", "visit.html", HTML, PAGE, "pages page-visit"),
        Route {
            path: "/welcome",
            media: HTML,
            caching: PAGE,
            tags: Some(("cache-tag", "pages, page-welcome")),
            hint: None,
            answer: Answer::Languages(&[
                ("en", include_bytes!("assets/welcome.en.html")),
                ("de", include_bytes!("assets/welcome.de.html")),
                ("fr", include_bytes!("assets/welcome.fr.html")),
            ]),
        },
        story1,
        story2,
        story3,
        story4,
        file!("/style.css", "style.css", "text/css; charset=utf-8", ASSET, "assets styles"),
        file!("/edge.js", "edge.js", "text/javascript; charset=utf-8", ASSET, "assets scripts"),
        file!("/mark.svg", "mark.svg", SVG, ASSET, "assets pictures"),
        file!("/crest.svg", "crest.svg", SVG, ASSET, "assets pictures"),
        file!("/coral.svg", "coral.svg", SVG, ASSET, "assets pictures"),
        file!("/turtle.svg", "turtle.svg", SVG, ASSET, "assets pictures"),
        file!("/section.svg", "section.svg", SVG, ASSET, "assets pictures"),
        file!("/lagoon.png", "lagoon.png", "image/png", ASSET, "assets pictures big"),
        file!("/robots.txt", "robots.txt", "text/plain", ASSET, "assets"),
        Route {
            path: "/api/articles",
            media: JSON,
            caching: TAGGED,
            tags: Some(("cache-tag", "articles,article-1,article-2,article-3,article-4")),
            hint: None,
            answer: Answer::Articles,
        },
        data1,
        data2,
        data3,
        data4,
        Route {
            path: "/account",
            media: JSON,
            caching: "private, max-age=60",
            tags: None,
            hint: None,
            answer: Answer::Account,
        },
        Route {
            path: "/slow",
            media: JSON,
            caching: "public, max-age=5",
            tags: Some(("surrogate-key", "slow")),
            hint: None,
            answer: Answer::Slow,
        },
        Route {
            path: "/fail",
            media: JSON,
            caching: "public, max-age=2, stale-if-error=600",
            tags: Some(("surrogate-key", "fail")),
            hint: None,
            answer: Answer::Fail,
        },
        Route {
            path: "/demo/hits",
            media: JSON,
            caching: "no-store",
            tags: None,
            hint: None,
            answer: Answer::Hits,
        },
    ]
};

/// An entry of the rangers' log.
#[derive(Debug)]
pub(super) struct Article {
    id: u32,
    title: &'static str,
    lead: &'static str,
    text: &'static str,
    tags: &'static [&'static str],
}

static TURTLES: Article = Article {
    id: 1,
    title: "The turtles are back",
    lead: "Eleven days early, and one of them new to us.",
    text: "The first track lay across the leeward beach at half past four, as wide as a door and \
           as straight as one could wish. By sunrise there were three. Eight of the nine we know by \
           the scars on their shells; the ninth has no scar and no hurry, and walked back into the \
           water past two rangers and their coffee as if neither had been there.",
    tags: &["articles", "article-1", "turtles"],
};

static PASS: Article = Article {
    id: 2,
    title: "A night in the pass",
    lead: "What comes in with the tide when nobody looks.",
    text: "Everything that the lagoon eats comes through one gap, forty metres wide. We hung a \
           lamp under the mooring and counted: in the first hour of the flood, four thousand larvae \
           in a bucket's worth of water; in the second, the fish that had noticed; in the third, \
           the sharks that had noticed the fish. At slack water everyone went to bed.",
    tags: &["articles", "article-2", "pass"],
};

static CORAL: Article = Article {
    id: 3,
    title: "Counting coral by hand",
    lead: "Forty squares, a pencil, and a good pair of lungs.",
    text: "A camera sees the surface and a satellite sees the colour, but someone has to say what \
           it is. So we lay the same forty frames on the same forty places each June, hold our \
           breath and draw. It takes nine days. This year thirty-one squares gained, six stayed as \
           they were, and three lost a corner to an anchor that should not have been there.",
    tags: &["articles", "article-3", "coral"],
};

static WELL: Article = Article {
    id: 4,
    title: "The well on the long islet",
    lead: "Why rain floats on the sea, and who drinks it.",
    text: "Dig two metres into the long islet and the water is sweet. Rain is lighter than the \
           sea and lies on it like a lens, thickest in the middle, held together by nothing but sand. \
           Draw too much and the salt comes up from below. So there is one bucket, one rope, and a \
           notch on the wall that says when to wait for the next squall.",
    tags: &["articles", "article-4", "water"],
};

static ARTICLES: [&Article; 4] = [&TURTLES, &PASS, &CORAL, &WELL];

impl Article {
    /// As a page. The texts are ours and hold nothing that HTML would mistake.
    pub(super) fn page(&self) -> String {
        let tags: String = self.tags.iter().map(|tag| format!("<li>{tag}</li>")).collect();
        include_str!("assets/article.html")
            .replace("{title}", self.title)
            .replace("{lead}", self.lead)
            .replace("{text}", self.text)
            .replace("{tags}", &tags)
    }

    /// As data; `version` is the number of this answer.
    pub(super) fn json(&self, version: u64) -> Value {
        json!({
            "id": self.id,
            "version": version,
            "title": self.title,
            "lead": self.lead,
            "text": self.text,
            "tags": self.tags,
        })
    }
}

/// All articles in short; `version` is the number of this answer.
pub(super) fn articles(version: u64) -> Value {
    let list: Vec<Value> = ARTICLES
        .iter()
        .map(|article| {
            let link = format!("/api/articles/{}", article.id);
            json!({"id": article.id, "title": article.title, "href": link, "tags": article.tags})
        })
        .collect();
    json!({"version": version, "articles": list})
}

pub(super) fn account(version: u64) -> Value {
    json!({"version": version, "hut": 7, "note": "this is yours alone: never stored at the edge"})
}

pub(super) fn slow(version: u64) -> Value {
    json!({"version": version, "note": "the origin took one second for this"})
}

pub(super) fn well(version: u64) -> Value {
    json!({"version": version, "note": "all is well"})
}

pub(super) fn failed(version: u64) -> Value {
    json!({"version": version, "note": "the origin fails, as it was told to"})
}

pub(super) fn lost() -> Bytes {
    Bytes::from_static(include_bytes!("assets/lost.html"))
}

/// The page whose language the visitor likes best; the first of `pages` where none fits.
pub(super) fn choose(
    pages: &'static [(&'static str, &'static [u8])],
    wish: Option<&HeaderValue>,
) -> (&'static str, &'static [u8]) {
    let wish = wish.and_then(|value| value.to_str().ok()).unwrap_or("");
    let mut best: Option<((&'static str, &'static [u8]), f32)> = None;
    for range in wish.split(',') {
        let mut parts = range.split(';');
        let name = parts.next().unwrap_or("").trim().to_ascii_lowercase();
        let weight = parts
            .find_map(|part| part.trim().strip_prefix("q="))
            .map_or(1.0, |quality| quality.parse().unwrap_or(0.0));
        let primary = name.split('-').next().unwrap_or("");
        let found = pages.iter().find(|(language, _)| *language == primary);
        if let Some(page) = found
            && weight > best.map_or(0.0, |(_, most)| most)
        {
            best = Some((*page, weight));
        }
    }
    best.map(|(page, _)| page).or(pages.first().copied()).unwrap_or(("en", b""))
}
