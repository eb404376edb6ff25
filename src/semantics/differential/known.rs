//! Where we differ from the second opinion, and why.

use super::super::test_support::{ARRIVAL, date};
use super::super::*;
use super::Question::{Age, Conditions, Confirms, Reuse, Storable, TimeToLive};
use super::{Case, Known, find};

/// Every difference that we mean.
pub(super) const KNOWN: &[Known] = &[
    Known {
        question: Storable,
        name: "other statuses",
        reason: "RFC 9111 section 3 demands to understand a status only where must-understand \
                 stands; with explicit freshness any final status may be stored",
        applies: |case| {
            ![200, 203, 204, 300, 301, 302, 303, 307, 308, 404, 405, 410, 414, 501]
                .contains(&case.status)
        },
    },
    Known {
        question: Storable,
        name: "of no use",
        reason: "what can never answer anybody, being neither fresh nor confirmable, is not stored",
        applies: |case| {
            matches!(
                case.ours().err(),
                Some(NotStored::NoFreshness | NotStored::Expired | NotStored::NoValidator)
            )
        },
    },
    Known {
        question: Storable,
        name: "must-understand",
        reason: "no-store beside must-understand is for caches that do not know the latter (RFC \
                 9111 section 5.2.2.3)",
        applies: |case| case.says("must-understand") && case.says("no-store"),
    },
    Known {
        question: Storable,
        name: "private fields",
        reason: "private with field names speaks of those fields only (RFC 9111 section 5.2.2.7)",
        applies: |case| case.has_directive("private=\"foo\""),
    },
    Known {
        question: Storable,
        name: "case of names",
        reason: "directives are compared without case (RFC 9111 section 5.2)",
        applies: Case::has_capitals,
    },
    Known {
        question: Storable,
        name: "repeated directives",
        reason: "contradictory directives are no leave to share what Authorization brought (RFC \
                 9111 section 3.5)",
        applies: |case| find(&case.first, "authorization").is_some() && case.repeats(),
    },
    Known {
        question: Age,
        name: "Date",
        reason: "a response is at least as old as its Date says (RFC 9111 section 4.2.3)",
        applies: |case| case.row("date").is_some_and(|own| own == date(ARRIVAL - 30)),
    },
    Known {
        question: Age,
        name: "Age as a list",
        reason: "the first member counts (RFC 9111 section 5.1)",
        applies: |case| case.row("age").is_some_and(|own| own.contains(',')),
    },
    Known {
        question: TimeToLive,
        name: "Set-Cookie",
        reason: "with store_set_cookie the operator has decided; without it nothing is stored",
        applies: |case| case.row("set-cookie").is_some(),
    },
    Known {
        question: TimeToLive,
        name: "proxy-revalidate",
        reason: "it forbids stale answers, not fresh ones (RFC 9111 section 5.2.2.8)",
        applies: |case| case.says("proxy-revalidate"),
    },
    Known {
        question: TimeToLive,
        name: "immutable",
        reason: "it lends no lifetime to what names none or a shorter one (RFC 8246 section 2)",
        applies: |case| case.says("immutable"),
    },
    Known {
        question: TimeToLive,
        name: "heuristic beyond a day",
        reason: "an estimate stays for a day at most",
        applies: |case| {
            case.row("last-modified").is_some_and(|own| own == date(ARRIVAL - 10_000_000))
        },
    },
    Known {
        question: TimeToLive,
        name: "no-cache fields",
        reason: "no-cache with field names speaks of those fields only (RFC 9111 section 5.2.2.4)",
        applies: |case| case.has_directive("no-cache=\"foo\""),
    },
    Known {
        question: TimeToLive,
        name: "Pragma in responses",
        reason: "it means nothing there (RFC 9111 section 5.4)",
        applies: |case| case.row("pragma").is_some(),
    },
    Known {
        question: TimeToLive,
        name: "old dates",
        reason: "all three forms of dates are read (RFC 9110 section 5.6.7)",
        applies: |case| {
            let is_old = |own: &str| own.starts_with("Sunday") || own.starts_with("Sun Sep");
            case.row("expires").is_some_and(is_old)
        },
    },
    Known {
        question: TimeToLive,
        name: "repeated directives",
        reason: "of two values the lesser counts, not the first (RFC 9111 section 4.2.1)",
        applies: Case::repeats,
    },
    Known {
        question: TimeToLive,
        name: "max-age without a value",
        reason: "a lifetime that cannot be read is none (RFC 9111 section 4.2.1)",
        applies: |case| case.has_directive("max-age"),
    },
    Known {
        question: TimeToLive,
        name: "endless",
        reason: "numbers end at 2^31 (RFC 9111 section 1.2.2)",
        applies: |case| case.has_directive("max-age=99999999999"),
    },
    Known {
        question: TimeToLive,
        name: "case of names",
        reason: "directives are compared without case (RFC 9111 section 5.2)",
        applies: Case::has_capitals,
    },
    Known {
        question: Reuse,
        name: "Authorization",
        reason: "what strangers were shown is not shown to a user without the origin's leave",
        applies: |case| {
            case.second_row("authorization").is_some() && case.row("authorization").is_none()
        },
    },
    Known {
        question: Reuse,
        name: "max-stale against the origin",
        reason: "no-cache, proxy-revalidate and s-maxage forbid stale answers, whatever the client \
                 accepts (RFC 9111 section 4.2.4)",
        applies: |case| {
            case.wants("max-stale")
                && ["no-cache", "proxy-revalidate", "s-maxage"].iter().any(|own| case.says(own))
        },
    },
    Known {
        question: Reuse,
        name: "max-stale to the second",
        reason: "exceeded by no more than that many seconds (RFC 9111 section 5.2.1.2)",
        applies: |case| case.wants("max-stale=10"),
    },
    Known {
        question: Reuse,
        name: "max-age=0",
        reason: "who asks for it wants the origin's word, also within the first second",
        applies: |case| case.wants("max-age=0") && case.seconds == 0,
    },
    Known {
        question: Reuse,
        name: "reload of what is immutable",
        reason: "it would bring the same (RFC 8246 section 2)",
        applies: |case| case.says("immutable") && case.wants("max-age"),
    },
    Known {
        question: Reuse,
        name: "blanks in selecting fields",
        reason: "they mean nothing in lists (RFC 9111 section 4.1)",
        applies: |case| {
            let spaced = [&case.first, &case.second].map(|rows| find(rows, "foo") == Some("1 ,2"));
            case.row("vary").is_some() && spaced.contains(&true)
        },
    },
    Known {
        question: Reuse,
        name: "Pragma beside Cache-Control",
        reason: "Cache-Control counts alone where it is there (RFC 9111 section 5.4)",
        applies: |case| {
            case.second_row("pragma").is_some() && case.second_row("cache-control").is_some()
        },
    },
    Known {
        question: Reuse,
        name: "repeated directives",
        reason: "they are read for the least, not made must-revalidate",
        applies: |case| case.repeats() && case.wants("max-stale"),
    },
    Known {
        question: Conditions,
        name: "Last-Modified that is no date",
        reason: "a recipient ignores If-Modified-Since without one (RFC 9110 section 13.1.3)",
        applies: |case| case.row("last-modified") == Some("foo"),
    },
    Known {
        question: Confirms,
        name: "nothing to compare",
        reason: "a 304 that shares no kind of validator with what was asked about confirms that: \
                 there is nothing else that it could mean",
        applies: |case| {
            let both = |name| case.row(name).is_some() && case.confirming(name).is_some();
            !both("etag") && !both("last-modified")
        },
    },
    Known {
        question: Confirms,
        name: "a date beside a new strong tag",
        reason: "one validator that both have and that is equal suffices (RFC 9111 section 4.3.4)",
        applies: |case| {
            case.row("etag").is_none()
                && case.confirming("last-modified") == case.row("last-modified")
        },
    },
];
