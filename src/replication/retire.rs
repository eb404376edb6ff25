//! How sources leave the vector.
//!
//! Each life of a node that purges something adds a source, so dead ones must go. A source leaves
//! with a *step*: the number that vectors bear is raised, and the step lists who left and where it
//! ended. Vectors of different steps are not compared, so no lease spans one. Who is one step behind
//! and has everything that the leaving ones issued steps along; who lacks some of it resets first;
//! who is further behind can't know what left and forgets everything, as a node that has just begun.
//!
//! A source that has issued more than the step knew stays where that is known: nobody ever drops
//! what a purge's acknowledgement may rest on.

use super::identity::Source;
use super::vector::{Mark, Retired, Vector};

/// Sources in one step, at most.
pub(super) const SOURCES_PER_STEP: usize = 64;

/// One step of retirement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The number before.
    pub from: Retired,
    /// The number after.
    pub to: Retired,
    /// Who leaves, and where it ended.
    pub ended: Vec<(Source, Mark)>,
}

/// What a step that somebody else is at asks of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Catch {
    /// Both are at the same.
    Nothing,
    /// The other one is behind.
    Behind,
    /// Step along; everything that ended was there.
    Along,
    /// Reset, then step along.
    Reset,
    /// Reset and forget.
    Forget,
}

impl Step {
    /// The step that retires `ended` after `vector`'s.
    #[must_use]
    pub fn new(vector: &Vector, ended: Vec<(Source, Mark)>, draw: u64) -> Self {
        let from = vector.retired();
        Self { from, to: Retired { count: from.count + 1, draw }, ended }
    }

    /// Takes the step: drops those that ended where the step says.
    pub fn take(&self, vector: &mut Vector) {
        for (source, mark) in &self.ended {
            if vector.mark(source).sequence <= mark.sequence {
                vector.remove(source);
            }
        }
        vector.set_retired(self.to);
    }
}

/// What a node at `own` has to do about one that is at `theirs` by `step`.
#[must_use]
pub(super) fn catch(own: &Vector, theirs: Retired, step: Option<&Step>) -> Catch {
    if theirs == own.retired() {
        return Catch::Nothing;
    }
    if theirs < own.retired() {
        return Catch::Behind;
    }
    match step.filter(|step| step.from == own.retired() && step.to == theirs) {
        None => Catch::Forget,
        Some(step) => {
            let missed = |(source, mark): &(Source, Mark)| !own.mark(source).covers(mark);
            if step.ended.iter().any(missed) { Catch::Reset } else { Catch::Along }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replication::Incarnation;

    fn source(number: u64) -> Source {
        Source { incarnation: Incarnation(number), node: "n".into() }
    }

    fn mark(sequence: u64) -> Mark {
        Mark { sequence, chain: sequence.into() }
    }

    fn vector(marks: &[(u64, u64)]) -> Vector {
        marks.iter().map(|(number, sequence)| (source(*number), mark(*sequence))).collect()
    }

    #[test]
    fn who_missed_something_of_a_retired_source_resets() {
        let full = vector(&[(1, 3), (2, 5)]);
        let step = Step::new(&full, vec![(source(1), mark(3))], 7);
        let catch = |own: &Vector| super::catch(own, step.to, Some(&step));
        assert_eq!(catch(&full), Catch::Along);
        assert_eq!(catch(&vector(&[(1, 2), (2, 5)])), Catch::Reset);
        assert_eq!(catch(&vector(&[(2, 9)])), Catch::Reset);
        assert_eq!(catch(&Vector::new(Retired { count: 5, draw: 0 })), Catch::Behind);
        assert_eq!(super::catch(&full, Retired { count: 2, draw: 0 }, Some(&step)), Catch::Forget);
        assert_eq!(super::catch(&full, step.to, None), Catch::Forget);
    }

    #[test]
    fn a_source_that_went_on_stays() {
        let step = Step::new(&vector(&[(1, 3)]), vec![(source(1), mark(3))], 7);
        let mut ahead = vector(&[(1, 4), (2, 1)]);
        step.take(&mut ahead);
        assert_eq!(ahead.mark(&source(1)), mark(4));
        let mut level = vector(&[(1, 3), (2, 1)]);
        step.take(&mut level);
        assert_eq!((level.len(), level.retired()), (1, step.to));
    }
}
