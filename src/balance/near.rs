//! Near servers first: those that stand where this node stands.
//!
//! While the near ones of the tier in use are mostly up, by weight, only they are asked; one that
//! has enough under way is left out, and when all of them have, the far ones are asked as well. So a
//! place that fails, or has more visitors than its servers, is helped by the others, and nobody
//! crosses the sea for what is next door. It is all or nothing on purpose: a share that follows the
//! number of servers lost is more even, and nobody can tell from outside what it will do.
//!
//! ```text
//! near, by weight           asked
//! half or more up           the near ones that have room
//! the same, none has room   all of the tier
//! less than half up         all of the tier
//! ```

/// The near endpoints of the tier in use, as far as it matters that they are near.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Nearness {
    all: u64,
    up: u64,
    room: bool,
}

impl Nearness {
    /// Counts a near one: whether it is up, and whether it may take one request more.
    pub fn count(&mut self, weight: u32, up: bool, room: bool) {
        self.all += u64::from(weight);
        self.up += if up { u64::from(weight) } else { 0 };
        self.room |= room;
    }

    /// Whether only near ones with room are asked.
    #[must_use]
    pub fn is_enough(&self) -> bool {
        self.room && self.up * 2 >= self.all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_ones_are_enough_while_most_are_up_and_one_has_room() {
        for (case, near, expected) in [
            ("none near", &[][..], false),
            ("all up", &[(1, true, true), (1, true, true)], true),
            ("one has room", &[(1, true, false), (1, true, true)], true),
            ("none has room", &[(1, true, false), (1, true, false)], false),
            ("half up", &[(1, true, true), (1, false, false)], true),
            ("the heavy one down", &[(1, true, true), (3, false, false)], false),
            ("the light one down", &[(3, true, true), (1, false, false)], true),
        ] {
            let mut nearness = Nearness::default();
            near.iter().for_each(|&(weight, up, room)| nearness.count(weight, up, room));
            assert_eq!(nearness.is_enough(), expected, "{case}");
        }
    }
}
