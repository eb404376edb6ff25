//! Sending a request more than once, as far as its method and the policy of its path decide it.

use http::{Method, StatusCode};

/// Statuses after which a request may be sent again, to another server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RetryOn(u8);

impl RetryOn {
    /// Those that it may hold: the server, or one behind it, did not do what it was asked. A plain
    /// 500 is the answer of a program that has run, and would run again.
    pub const ALLOWED: [u16; 3] = [502, 503, 504];

    /// A set of statuses; `Err` names the first that is not allowed.
    ///
    /// # Errors
    /// When one is none of [`Self::ALLOWED`].
    pub fn of(statuses: &[u16]) -> Result<Self, u16> {
        statuses.iter().try_fold(Self::default(), |set, &status| {
            Self::bit(status).map(|bit| Self(set.0 | bit)).ok_or(status)
        })
    }

    /// Whether it holds any.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether it holds `status`.
    #[must_use]
    pub fn covers(self, status: StatusCode) -> bool {
        Self::bit(status.as_u16()).is_some_and(|bit| self.0 & bit != 0)
    }

    fn bit(status: u16) -> Option<u8> {
        let position = Self::ALLOWED.iter().position(|allowed| *allowed == status)?;
        Some(1 << position)
    }
}

/// Whether two of the same leave what one leaves: RFC 9110 section 9.2.2, and the safe methods of
/// the registry.
#[must_use]
pub fn is_idempotent(method: &Method) -> bool {
    method.is_idempotent() || matches!(method.as_str(), "PROPFIND" | "REPORT" | "SEARCH" | "QUERY")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_holds_what_it_was_given() {
        let set = RetryOn::of(&[503, 502, 503]).unwrap();
        let held = |status: u16| set.covers(StatusCode::from_u16(status).unwrap());
        assert_eq!(
            [500, 501, 502, 503, 504, 505].map(held),
            [false, false, true, true, false, false]
        );
        assert!(RetryOn::of(&[]).unwrap().is_empty() && !set.is_empty());
        assert_eq!(RetryOn::of(&[503, 500]), Err(500));
    }

    #[test]
    fn what_may_be_done_twice() {
        for (method, expected) in [
            ("GET", true),
            ("HEAD", true),
            ("PUT", true),
            ("DELETE", true),
            ("OPTIONS", true),
            ("QUERY", true),
            ("POST", false),
            ("PATCH", false),
            ("LOCK", false),
            ("UNHEARD", false),
        ] {
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            assert_eq!(is_idempotent(&method), expected, "{method}");
        }
    }
}
