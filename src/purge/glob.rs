//! Patterns with `*`: the slow selector, for what no other one names.
//!
//! A pattern is compared with host, path and query together, as in `www.example.org/news/1?page=2`:
//! no scheme, no port. `*` stands for any run of characters, none and `/` included; every other
//! character stands for itself, `?` too, since it begins the query. All of the text must match, and
//! ASCII case does not count: hosts have none, percent-encoding has two spellings, and where a path
//! differs by case only, too much is purged rather than too little.
//!
//! ```text
//! *.jpg                      whatever ends in .jpg, without a query
//! www.example.org/news/*     as the prefix www.example.org/news/
//! *.example.org/*?preview=*  a query that begins with preview=, on every host of the domain
//! ```
//!
//! The pieces between the stars are searched from left to right, each once, by the standard
//! library's linear search: the time is bounded by the length of text and pattern together, whoever
//! wrote them. Other signs, such as classes and alternatives, were left out: two patterns say the
//! same, and every sign more is one that somebody forgets to escape.

/// Longest pattern in bytes.
const GLOB_BYTES: usize = 2048;

/// A pattern over host, path and query, in lower case and without doubled stars.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Glob(Box<str>);

/// Why a text is no pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GlobError {
    /// There is nothing in it.
    Empty,
    /// It is longer than 2,048 bytes.
    TooLong,
    /// It has a blank, a control character, a fragment or one beyond ASCII.
    Character,
    /// It names a port.
    Port,
    /// It matches whatever there is.
    Everything,
}

impl GlobError {
    /// What is wrong, to stand behind the pattern.
    #[must_use]
    pub fn detail(self) -> &'static str {
        match self {
            Self::Empty => "is empty",
            Self::TooLong => "is longer than 2048 bytes",
            Self::Character => {
                "has a character that no URL has: percent-encode what is not ASCII, and leave \
                 fragments out"
            }
            Self::Port => {
                "names a port: a pattern is compared with host, path and query, without scheme and port"
            }
            Self::Everything => "matches everything: to purge all of a site say `\"all\": true`",
        }
    }
}

impl Glob {
    /// Reads a pattern. A scheme before it is taken off.
    ///
    /// # Errors
    /// Says why it can't be one.
    pub fn parse(text: &str) -> Result<Self, GlobError> {
        if text.len() > GLOB_BYTES {
            return Err(GlobError::TooLong);
        }
        if text.bytes().any(|byte| !(0x21..=0x7e).contains(&byte) || b"\"#<>\\".contains(&byte)) {
            return Err(GlobError::Character);
        }
        let mut pattern = text.to_ascii_lowercase();
        for scheme in ["http://", "https://"] {
            if let Some(rest) = pattern.strip_prefix(scheme) {
                pattern = rest.to_owned();
                break;
            }
        }
        while pattern.contains("**") {
            pattern = pattern.replace("**", "*");
        }
        if pattern.is_empty() {
            return Err(GlobError::Empty);
        }
        if names_port(host_part(&pattern)) {
            return Err(GlobError::Port);
        }
        // Every host and every path: the first `/` of a text stands right behind its host.
        if matches!(&*pattern, "*" | "*/*") {
            return Err(GlobError::Everything);
        }
        Ok(Self(pattern.into_boxed_str()))
    }

    /// The pattern.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The one host whose URLs it can match, where it says which: no star stands in it.
    #[must_use]
    pub fn host(&self) -> Option<&str> {
        let host = host_part(&self.0);
        (host.len() < self.0.len() && !host.contains('*')).then_some(host)
    }

    /// Whether it matches `text`, which is in lower case.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        let Some((first, rest)) = self.0.split_once('*') else { return *self.0 == *text };
        let Some(mut text) = text.strip_prefix(first) else { return false };
        let (middle, last) = rest.rsplit_once('*').unwrap_or(("", rest));
        // The leftmost place of each piece leaves the most for those behind it.
        for piece in middle.split('*') {
            match text.find(piece).and_then(|at| text.get(at + piece.len()..)) {
                Some(rest) => text = rest,
                None => return false,
            }
        }
        text.ends_with(last)
    }
}

/// What stands before the first `/`, where the host is.
fn host_part(pattern: &str) -> &str {
    pattern.split('/').next().unwrap_or_default()
}

fn names_port(host: &str) -> bool {
    let after = host.rsplit_once(']').map_or(host, |(_, after)| after);
    after.contains(':')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn patterns_match_all_of_host_path_and_query() {
        let rows = [
            ("h/a", "h/a", true),
            ("h/a", "h/ab", false),
            ("h/a", "h/a?", false),
            ("H/A%2f*", "h/a%2fb", true),
            ("*.jpg", "h/x/y.jpg", true),
            ("*.jpg", "h/x/y.jpg?v=1", false),
            ("*.jpg*", "h/x/y.jpg?v=1", true),
            ("h/*/z", "h/a/b/z", true),
            ("h/*/z", "h/z", false),
            ("h/*a*b*", "h/xaxbx", true),
            ("h/*a*b*", "h/xbxax", false),
            ("h/a*a", "h/a", false),
            ("h/a*a", "h/aa", true),
            ("https://h/*?x", "h/?x", true),
            ("*.example.org/*", "a.b.example.org/", true),
            ("*.example.org/*", "example.org/", false),
            ("h/a**b", "h/ab", true),
            ("[::1]/*", "[::1]/a", true),
            ("*/", "h/a/", true),
            ("*?*", "h/a?b", true),
            ("*?*", "h/a", false),
        ];
        for (pattern, text, expected) in rows {
            assert_eq!(Glob::parse(pattern).unwrap().matches(text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        let long = "a".repeat(GLOB_BYTES + 1);
        let rows = [
            ("", GlobError::Empty),
            ("http://", GlobError::Empty),
            ("*", GlobError::Everything),
            ("***", GlobError::Everything),
            ("**/**", GlobError::Everything),
            ("https://*/*", GlobError::Everything),
            ("h:80/*", GlobError::Port),
            ("*:80/*", GlobError::Port),
            ("[::1]:80/*", GlobError::Port),
            ("h/a b", GlobError::Character),
            ("h/a#b", GlobError::Character),
            ("h/caf\u{e9}*", GlobError::Character),
            (&long, GlobError::TooLong),
        ];
        for (pattern, expected) in rows {
            assert_eq!(Glob::parse(pattern), Err(expected), "{pattern}");
        }
    }

    #[test]
    fn a_host_is_known_only_where_no_star_can_be_in_it() {
        for (pattern, host) in
            [("h.a/*", Some("h.a")), ("*.a/x", None), ("*x", None), ("h", None), ("h*/x", None)]
        {
            assert_eq!(Glob::parse(pattern).unwrap().host(), host, "{pattern}");
        }
    }

    #[test]
    fn hostile_patterns_take_no_more_than_linear_time() {
        let pattern = format!("h/{}b", "a*".repeat(1000));
        let text = format!("h/{}", "a".repeat(8192));
        let glob = Glob::parse(&pattern).unwrap();
        // A backtracking matcher would not come to an end here.
        assert!(!glob.matches(&text));
    }

    /// The definition: a star takes nothing, or one character and stays.
    fn naive(pattern: &[u8], text: &[u8]) -> bool {
        match (pattern.split_first(), text.split_first()) {
            (None, None) => true,
            (Some((b'*', rest)), _) if naive(rest, text) => true,
            (Some((b'*', _)), Some((_, after))) => naive(pattern, after),
            (Some((sign, rest)), Some((letter, after))) => sign == letter && naive(rest, after),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn matcher_agrees_with_the_definition(pattern in "[ab*]{1,8}", text in "[ab]{0,10}") {
            if let Ok(glob) = Glob::parse(&pattern) {
                prop_assert_eq!(glob.matches(&text), naive(pattern.as_bytes(), text.as_bytes()));
            }
        }

        #[test]
        fn any_text_is_read_without_panic(pattern in ".{0,40}", text in ".{0,40}") {
            if let Ok(glob) = Glob::parse(&pattern) {
                let _ = (glob.matches(&text), glob.host());
            }
        }
    }
}
