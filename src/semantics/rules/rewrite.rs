//! The path as the origin sees it: one prefix in the place of another.
//!
//! ```text
//! from "/shop"  to "/v2"      /shop -> /v2    /shop/a -> /v2/a    /shopping: as it is
//! from "/shop"  to "/"        /shop -> /      /shop/a -> /a
//! from "/"      to "/app"     /     -> /app/  /a      -> /app/a
//! ```
//!
//! What is replaced ends at a segment, and what replaces it is canonical and free of dot segments.
//! The rest of the path comes as it is, and it was judged segment by segment: so the result is
//! canonical, no dot segment can arise where the two meet, and one that hides behind `%2F` stays
//! one whole segment, for which the request has been marked.

use crate::semantics::normalise::canonical_target;

/// One prefix in the place of another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rewrite {
    /// Without a slash at its end; empty for the root.
    from: Box<str>,
    /// Whether only what lies below `from` is meant.
    below: bool,
    /// Without a slash at its end; empty for the root.
    to: Box<str>,
}

impl Rewrite {
    /// Both are paths in canonical form that begin with a slash. `from` covers what a rule with this
    /// path covers: `/a/` only what lies below.
    ///
    /// # Errors
    /// Which of the two is none, and why.
    pub fn new(from: &str, to: &str) -> Result<Self, String> {
        for (name, path) in [("from", from), ("to", to)] {
            let canonical = canonical_target(path.to_owned());
            let same = |target: &crate::semantics::Target| {
                target.path == path && target.query.is_none() && !target.ambiguous
            };
            if !canonical.as_ref().is_ok_and(same) || path.contains("//") {
                return Err(format!("`{name}` is not a plain path: \"/a/b\""));
            }
        }
        let cut = |path: &str| path.strip_suffix('/').unwrap_or(path).into();
        Ok(Self { below: from.ends_with('/'), from: cut(from), to: cut(to) })
    }

    /// The public path of one that the origin names, where it lies below `to`.
    #[must_use]
    pub fn undo(&self, path: &str) -> Option<String> {
        let rest = path.strip_prefix(&*self.to)?;
        (rest.starts_with('/') || rest.is_empty()).then(|| match (&*self.from, rest) {
            ("", "") => "/".to_owned(),
            (from, rest) => [from, rest].concat(),
        })
    }

    /// The path that the origin sees; `None` where `from` does not cover it.
    pub(super) fn apply(&self, path: &str) -> Option<String> {
        let rest = path.strip_prefix(&*self.from)?;
        let covered = rest.starts_with('/') || rest.is_empty() && !self.below;
        covered.then(|| match (&*self.to, rest) {
            ("", "") => "/".to_owned(),
            (to, rest) => [to, rest].concat(),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn prefixes_are_replaced_at_segments() {
        let rows = [
            ("/shop", "/v2", "/shop", Some("/v2")),
            ("/shop", "/v2", "/shop/", Some("/v2/")),
            ("/shop", "/v2/", "/shop/a/b", Some("/v2/a/b")),
            ("/shop", "/v2", "/shopping", None),
            ("/shop/", "/v2/", "/shop", None),
            ("/shop/", "/v2/", "/shop/x", Some("/v2/x")),
            ("/shop", "/", "/shop", Some("/")),
            ("/shop", "/", "/shop/a", Some("/a")),
            ("/", "/app", "/", Some("/app/")),
            ("/", "/app", "/a", Some("/app/a")),
            ("/", "/", "/a", Some("/a")),
            ("/a", "/b", "*", None),
            ("/a", "/b", "/b/a", None),
            ("/a%20b", "/c%2Fd", "/a%20b/e", Some("/c%2Fd/e")),
            ("/shop", "/", "/shop//x", Some("//x")),
        ];
        for (from, to, path, expected) in rows {
            let rewrite = Rewrite::new(from, to).unwrap();
            let found = rewrite.apply(path);
            assert_eq!(found.as_deref(), expected, "{from} {to} {path}");
            if let Some(sent) = found.filter(|_| path != from) {
                assert_eq!(rewrite.undo(&sent).as_deref(), Some(path), "{sent}");
            }
        }
    }

    #[test]
    fn only_plain_paths_are_taken() {
        for path in ["a", "", "/a/..", "/%2e%2E/", "/.", "/a//b", "/a?b", "/a%2f", "/ ", "/..%2F"] {
            assert!(Rewrite::new(path, "/").is_err(), "{path}");
            assert!(Rewrite::new("/", path).is_err(), "{path}");
        }
    }

    proptest! {
        /// Whatever a client asks for, the origin is asked for something canonical below `to`.
        #[test]
        fn the_result_is_canonical_and_stays_below_its_prefix(
            from in "(/[ab]{1,2}){0,2}/?",
            to in "(/[ab]{1,2}){0,2}/?",
            rest in "(/([ab.;]|%2e|%2F|%5c|%41){0,5}){0,4}",
        ) {
            let root = |path: String| if path.is_empty() { "/".to_owned() } else { path };
            let (from, to) = (root(from), root(to));
            let rewrite = Rewrite::new(&from, &to).unwrap();
            let asked = root(format!("{}{rest}", from.trim_end_matches('/')));
            let Ok(asked) = canonical_target(asked) else { return Ok(()) };
            let Some(sent) = rewrite.apply(&asked.path) else { return Ok(()) };
            let judged = canonical_target(sent.clone());
            prop_assert!(judged.is_ok(), "{sent}");
            let judged = judged.unwrap();
            prop_assert_eq!(&judged.path, &sent);
            prop_assert_eq!(judged.ambiguous, asked.ambiguous);
            let floor = to.trim_end_matches('/');
            prop_assert!(sent.strip_prefix(floor).is_some_and(|r| r.is_empty() || r.starts_with('/')));
        }
    }
}
