//! Which tags a stored response has, for those who count what is sent.

use std::sync::Arc;

use super::Head;
use crate::semantics::{TagLimits, first_tags};
use crate::telemetry::Tagged;

/// What is counted of one response: beyond that its tags say little of what is asked for.
const COUNTED: TagLimits = TagLimits { tags: 8, tag_bytes: 256, tags_bytes: 2048 };

impl Head {
    /// This head for the record of a request, where it has tags. Reading them is left to who asks.
    #[must_use]
    pub fn tagged(self: &Arc<Self>) -> Option<Arc<dyn Tagged>> {
        self.selectors.has_tags().then(|| Arc::clone(self) as _)
    }
}

impl Tagged for Head {
    fn first_tags(&self) -> Vec<Box<str>> {
        first_tags(&self.fields.map(), COUNTED)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::World;

    #[test]
    fn only_a_head_with_tags_is_asked_for_them() {
        let world = World::new();
        assert!(world.head("/plain", &[], None).tagged().is_none());
        assert!(world.head("/tagged", &["a"], None).tagged().is_some());
    }
}
