//! What an operator has said of an endpoint.

/// An operator's word, which no measurement overrules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// Health decides.
    #[default]
    Auto,
    /// What runs is finished, nothing new is sent. Probes go on, so that its return can be judged.
    Drain,
    /// The same, and no probes either: nothing at all is sent there.
    Down,
}

impl Order {
    /// Every one.
    pub const ALL: [Self; 3] = [Self::Auto, Self::Drain, Self::Down];

    /// Its word, in the API and on the command line.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Drain => "drain",
            Self::Down => "down",
        }
    }

    /// The one that a word stands for.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|order| order.label() == word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_stand_for_one_order_each() {
        for order in Order::ALL {
            assert_eq!(Order::parse(order.label()), Some(order));
        }
        assert_eq!(Order::parse("up"), None);
        assert_eq!(Order::parse("Drain"), None);
    }
}
