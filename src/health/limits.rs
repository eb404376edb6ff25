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
    /// Belongs to the tier that is used only when every other server is down.
    pub backup: bool,
    /// Believed to be well.
    pub up: bool,
    /// Taken out by an operator.
    pub out: bool,
}

/// Which members take traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tier {
    backup: Option<bool>,
    /// Those that look down are used as well.
    pub panic: bool,
}

impl Tier {
    /// Whether `member` takes traffic.
    #[must_use]
    pub fn uses(&self, member: Member) -> bool {
        !member.out
            && self.backup.is_none_or(|backup| backup == member.backup)
            && (self.panic || member.up)
    }
}

/// One of so many must be up for the others' being down to be believed.
const BELIEVED: usize = 5;

/// Chooses the tier that takes traffic.
#[must_use]
pub fn usable(members: impl Iterator<Item = Member>) -> Tier {
    let (mut all, mut up) = ([0_usize; 2], [0_usize; 2]);
    let [primaries, backups] = &mut all;
    let [primaries_up, backups_up] = &mut up;
    for member in members.filter(|member| !member.out) {
        let (count, well) = if member.backup {
            (&mut *backups, &mut *backups_up)
        } else {
            (&mut *primaries, &mut *primaries_up)
        };
        *count += 1;
        *well += usize::from(member.up);
    }
    for (backup, count, well) in [(false, *primaries, *primaries_up), (true, *backups, *backups_up)]
    {
        if well > 0 {
            return Tier { backup: Some(backup), panic: well * BELIEVED < count };
        }
    }
    Tier { backup: None, panic: *primaries + *backups > 0 }
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
            let tier_of = |(up, all): (usize, usize), backup| {
                (0..all).map(move |index| Member { backup, up: index < up, out: false })
            };
            let members: Vec<_> = tier_of(primaries, false).chain(tier_of(backups, true)).collect();
            let tier = usable(members.iter().copied());
            let used = |backup| {
                let of = |member: &&Member| member.backup == backup && tier.uses(**member);
                members.iter().filter(of).count()
            };
            assert_eq!(
                (used(false), used(true), tier.panic),
                (primaries_used, backups_used, panic),
                "{case}"
            );
        }
    }

    #[test]
    fn what_an_operator_takes_out_is_not_there() {
        let member = |backup, up, out| Member { backup, up, out };
        let (out, up, down) =
            (member(false, true, true), member(false, true, false), member(false, false, false));
        let (spare, gone) = (member(true, true, false), member(true, true, true));
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
}
