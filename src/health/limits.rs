//! What may be taken out of use, and what is used when little is left.
//!
//! Health is a belief; an origin without endpoints is a fact. So: passive ejection takes out at
//! most a share of the set and never the last usable endpoint, and when nearly all look down at
//! once the fault is more likely ours than theirs: then all are used (panic), since sending
//! everything to the last one that looks well would only take it down too.
//!
//! ```text
//! primaries up                     used
//! a fifth or more                  the primaries that are up
//! some, but fewer                  all primaries               panic
//! none, backups up as above        the backups that are up (or all backups: panic)
//! none of those either             the next tier in the same way, and so on
//! nothing at all                   everything                  panic
//! ```
//!
//! What an operator has taken out is not there at all: it is neither counted nor used, in panic
//! either.

/// Whether one more endpoint may be ejected from a set of `total` of which `ejected` are out
/// already and `usable` still take traffic.
#[must_use]
pub fn may_eject(total: usize, ejected: usize, usable: usize, at_most_percent: u32) -> bool {
    let share = usize::try_from(at_most_percent).unwrap_or(100);
    usable > 1 && (ejected + 1).saturating_mul(100) <= total.saturating_mul(share)
}

/// An endpoint of a set, as far as the choice of a tier needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Tiers with higher numbers are used only when nothing in the lower ones is up.
    pub tier: u16,
    /// Believed to be well.
    pub up: bool,
    /// Taken out by an operator.
    pub out: bool,
}

/// Which members take traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tier {
    /// `None`: all of them.
    number: Option<u16>,
    /// Those that look down are used as well.
    pub panic: bool,
}

impl Tier {
    /// Whether it is the tier of `member`.
    #[must_use]
    pub fn holds(&self, member: Member) -> bool {
        self.number.is_none_or(|number| number == member.tier)
    }

    /// Whether `member` takes traffic.
    #[must_use]
    pub fn uses(&self, member: Member) -> bool {
        !member.out && self.holds(member) && (self.panic || member.up)
    }
}

/// One of so many must be up for the others' being down to be believed.
const BELIEVED: usize = 5;

/// Chooses the tier that takes traffic: the first one with a member that is up.
#[must_use]
pub fn usable(members: impl Iterator<Item = Member> + Clone) -> Tier {
    let members = members.filter(|member| !member.out);
    let up = members.clone().filter(|member| member.up);
    let Some(number) = up.map(|member| member.tier).min() else {
        return Tier { number: None, panic: members.count() > 0 };
    };
    let (mut count, mut well) = (0_usize, 0_usize);
    for member in members.filter(|member| member.tier == number) {
        count += 1;
        well += usize::from(member.up);
    }
    Tier { number: Some(number), panic: well * BELIEVED < count }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_most_the_share_and_never_the_last() {
        let cases = [
            ("the only one", 1, 0, 1, false),
            ("one of two", 2, 0, 2, true),
            ("the second of two", 2, 1, 1, false),
            ("one of three", 3, 0, 3, true),
            ("two of three", 3, 1, 2, false),
            ("five of ten", 10, 4, 6, true),
            ("six of ten", 10, 5, 5, false),
            ("the last usable, others down by their probes", 10, 0, 1, false),
        ];
        for (case, total, ejected, usable, expected) in cases {
            assert_eq!(may_eject(total, ejected, usable, 50), expected, "{case}");
        }
    }

    #[test]
    fn the_tier_that_is_used() {
        // (case, primaries up of all, backups up of all, primaries used, backups used, panic)
        let cases = [
            ("all well", (3, 3), (1, 1), 3, 0, false),
            ("one down", (2, 3), (1, 1), 2, 0, false),
            ("a fifth up is believed", (1, 5), (1, 1), 1, 0, false),
            ("one of six is not", (1, 6), (1, 1), 6, 0, true),
            ("backups step in", (0, 3), (1, 2), 0, 1, false),
            ("nearly all backups down as well", (0, 3), (1, 6), 0, 6, true),
            ("everything down", (0, 3), (0, 2), 3, 2, true),
            ("one alone down", (0, 1), (0, 0), 1, 0, true),
        ];
        for (case, primaries, backups, primaries_used, backups_used, panic) in cases {
            let tier_of = |(up, all): (usize, usize), tier| {
                (0..all).map(move |index| Member { tier, up: index < up, out: false })
            };
            let members: Vec<_> = tier_of(primaries, 0).chain(tier_of(backups, 1)).collect();
            let tier = usable(members.iter().copied());
            let used = |number| {
                let of = |member: &&Member| member.tier == number && tier.uses(**member);
                members.iter().filter(of).count()
            };
            assert_eq!(
                (used(0), used(1), tier.panic),
                (primaries_used, backups_used, panic),
                "{case}"
            );
        }
    }

    #[test]
    fn what_an_operator_takes_out_is_not_there() {
        let member = |tier, up, out| Member { tier, up, out };
        let (out, up, down) =
            (member(0, true, true), member(0, true, false), member(0, false, false));
        let (spare, gone) = (member(1, true, false), member(1, true, true));
        for (case, members, used, panic) in [
            ("one of two", &[out, up][..], &[false, true][..], false),
            ("the other is down", &[out, down], &[false, true], true),
            (
                "it alone is believed",
                &[out, out, out, out, out, up],
                &[false, false, false, false, false, true],
                false,
            ),
            ("all of them: the backup", &[out, out, spare], &[false, false, true], false),
            ("everything", &[out, gone], &[false, false], false),
            ("nothing there", &[], &[], false),
        ] {
            let tier = usable(members.iter().copied());
            let taken: Vec<bool> = members.iter().map(|member| tier.uses(*member)).collect();
            assert_eq!((&*taken, tier.panic), (used, panic), "{case}");
        }
    }

    #[test]
    fn a_later_tier_waits_for_all_before_it() {
        let member = |tier, up| Member { tier, up, out: false };
        let used = |members: &[Member]| -> Vec<u16> {
            let tier = usable(members.iter().copied());
            let used = members.iter().filter(|member| tier.uses(**member));
            used.map(|member| member.tier).collect()
        };
        let (down, up) = (|tier| member(tier, false), |tier| member(tier, true));
        assert_eq!(used(&[up(7), down(0), up(3), down(3)]), [3]);
        assert_eq!(used(&[up(7), down(0), down(3)]), [7]);
        assert_eq!(used(&[down(7), down(0), down(3)]), [7, 0, 3]);
    }
}
