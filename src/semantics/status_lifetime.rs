//! Freshness lifetimes by status, as policy sets them: above all how long errors are remembered.
//!
//! A stored error is denied service for everybody, none stored is load on an origin that is sick
//! already: how many seconds of the one for how much of the other only the operator can say, so
//! nothing of this is on by default.

use std::time::Duration;

use http::StatusCode;

/// Lifetimes by status: exact ones, and by class.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StatusLifetimes {
    exact: Vec<(u16, Duration)>,
    /// 2xx, 3xx, 4xx, 5xx.
    classes: [Option<Duration>; 4],
}

impl StatusLifetimes {
    /// Statuses for which no lifetime can be set: an answer to a condition or a range of one
    /// client, or one that must not be stored (RFC 6585 sections 3 to 6).
    pub const NEVER: [u16; 8] = [206, 304, 412, 416, 428, 429, 431, 511];

    /// Sets the lifetime of one status.
    pub fn set_status(&mut self, status: u16, lifetime: Duration) {
        self.exact.retain(|(own, _)| *own != status);
        self.exact.push((status, lifetime));
    }

    /// Sets the lifetime of the statuses of a class that have none of their own: 4 for 4xx.
    pub fn set_class(&mut self, class: u16, lifetime: Duration) {
        if let Some(own) = usize::from(class).checked_sub(2).and_then(|at| self.classes.get_mut(at))
        {
            *own = Some(lifetime);
        }
    }

    /// The lifetime that is set for a status; the exact one wins over its class.
    #[must_use]
    pub fn of(&self, status: StatusCode) -> Option<Duration> {
        let status = status.as_u16();
        if Self::NEVER.contains(&status) {
            return None;
        }
        let exact =
            self.exact.iter().find(|(own, _)| *own == status).map(|(_, lifetime)| *lifetime);
        let class = usize::from(status / 100).checked_sub(2).and_then(|at| self.classes.get(at));
        exact.or(class.copied().flatten())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exact_status_wins_over_its_class_and_some_have_none() {
        let mut lifetimes = StatusLifetimes::default();
        lifetimes.set_class(4, Duration::from_secs(40));
        lifetimes.set_class(2, Duration::from_secs(20));
        lifetimes.set_class(9, Duration::from_secs(90));
        lifetimes.set_status(404, Duration::from_secs(1));
        lifetimes.set_status(404, Duration::ZERO);
        lifetimes.set_status(503, Duration::from_secs(3));
        lifetimes.set_status(429, Duration::from_secs(3));
        let rows = [
            (200, Some(20)),
            (206, None),
            (301, None),
            (403, Some(40)),
            (404, Some(0)),
            (412, None),
            (429, None),
            (500, None),
            (503, Some(3)),
            (999, None),
        ];
        for (status, expected) in rows {
            let found = lifetimes.of(StatusCode::from_u16(status).unwrap());
            assert_eq!(found.map(|found| found.as_secs()), expected, "{status}");
        }
    }
}
