//! Bearer tokens on the admin listener (RFC 6750): which line counts, and how a refusal is said.
//! [`Guard`] compares and slows down guessing.

use std::net::IpAddr;

use http::{HeaderMap, header};

use super::problem::Problem;
use crate::clock::Now;
use crate::config::Token;
use crate::guard::{Denied, Guard};

/// The token that a request presents, with its position.
pub(super) fn judge<'a>(
    guard: &Guard,
    tokens: &'a [Token],
    headers: &HeaderMap,
    client: IpAddr,
    now: Now,
) -> Result<(usize, &'a Token), Problem> {
    judge_presented(guard, tokens, bearer(headers), client, now)
}

/// The same of a token that stood elsewhere.
pub(super) fn judge_presented<'a>(
    guard: &Guard,
    tokens: &'a [Token],
    presented: Option<&[u8]>,
    client: IpAddr,
    now: Now,
) -> Result<(usize, &'a Token), Problem> {
    guard.judge(tokens, presented, client, now).map_err(|denied| match denied {
        Denied::TooMany(wait) => {
            let detail = "too many unknown tokens came from this address";
            Problem::wait("too-many-failures", detail, wait)
        }
        Denied::Missing => Problem::no_token(),
        Denied::Unknown => {
            tracing::warn!(%client, "an unknown token was presented to the admin listener");
            Problem::no_token()
        }
    })
}

/// The token of the one `Authorization: Bearer` line (RFC 6750 section 2.1).
pub(super) fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let mut lines = headers.get_all(header::AUTHORIZATION).iter();
    let line = lines.next()?.as_bytes();
    let (scheme, token) = line.split_at_checked("Bearer ".len())?;
    let alone = lines.next().is_none();
    let token = token.trim_ascii();
    (alone && scheme.eq_ignore_ascii_case(b"Bearer ") && !token.is_empty()).then_some(token)
}

/// Refuses a token that is bound to sites, for what concerns the whole node.
pub(super) fn whole_node(token: &Token) -> Result<(), Problem> {
    if token.sites.is_empty() {
        return Ok(());
    }
    Err(Problem::forbidden("site", "this concerns the whole node, and the token is bound to sites"))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn presenting(lines: &[&'static str]) -> HeaderMap {
        let lines =
            lines.iter().map(|line| (header::AUTHORIZATION, HeaderValue::from_static(line)));
        lines.collect()
    }

    #[test]
    fn only_one_well_formed_line_with_a_known_token_passes() {
        let tokens = [Token::full("a", "first"), Token::full("b", "second")];
        let rows: [(&[&'static str], Option<&str>); 9] = [
            (&["Bearer first"], Some("a")),
            (&["bearer  second "], Some("b")),
            (&["Bearer second", "Bearer second"], None),
            (&["Bearer third"], None),
            (&["Bearer "], None),
            (&["Bearer"], None),
            (&["Basic first"], None),
            (&["first"], None),
            (&[], None),
        ];
        for (lines, expected) in rows {
            let client = IpAddr::from([192, 0, 2, 1]);
            let guard = Guard::default();
            let found = judge(&guard, &tokens, &presenting(lines), client, Now::at(1)).ok();
            assert_eq!(found.map(|(_, token)| &*token.name), expected, "{lines:?}");
        }
    }

    #[test]
    fn guessing_is_answered_with_429() {
        let tokens = [Token::full("a", "first")];
        let guard = Guard::default();
        let ask = |line| {
            let client = IpAddr::from([192, 0, 2, 1]);
            let answer = judge(&guard, &tokens, &presenting(&[line]), client, Now::at(10));
            answer.err().map(|problem| problem.status().as_u16())
        };
        let refused: Vec<_> = (0..25).filter_map(|_| ask("Bearer wrong")).collect();
        assert_eq!(refused.iter().filter(|status| **status == 401).count(), 20);
        assert_eq!(refused.last(), Some(&429));
        assert_eq!(ask("Bearer first"), Some(429));
    }
}
