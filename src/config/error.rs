//! What is wrong with a configuration, said so that a person can mend it: file, line, column, key,
//! the line itself, what is allowed there and the nearest valid name.
//!
//! Problems are collected, not thrown: a file with five mistakes is told five things at once.

use std::fmt::{self, Display, Formatter};
use std::ops::Range;
use std::sync::Arc;

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};

/// Problems that are kept of one file; more are only counted.
const KEPT: usize = 200;
/// Problems that are printed of one file.
const PRINTED: usize = 50;
/// A source line longer than this is named but not shown.
const SHOWN_LINE_BYTES: usize = 400;

/// How much a [`Problem`] matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The configuration cannot be used.
    Error,
    /// It can, but probably does not do what is wanted.
    Warning,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// How much it matters.
    pub severity: Severity,
    /// What is wrong, with the key in it.
    pub message: String,
    /// Where, in bytes of the text; `None` where no line of it is to blame.
    pub span: Option<Range<usize>>,
    /// A word at the marked place.
    pub label: String,
    /// Another place that belongs to it, and a word there.
    pub other: Option<(Range<usize>, String)>,
    /// What would be right.
    pub help: Vec<String>,
}

impl Problem {
    /// An error without a place.
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            message: message.into(),
            span: None,
            label: String::new(),
            other: None,
            help: Vec::new(),
        }
    }

    /// The same as a warning.
    pub(super) fn warning(self) -> Self {
        Self { severity: Severity::Warning, ..self }
    }

    /// The same at a place of the text.
    pub(super) fn at(self, span: Option<Range<usize>>) -> Self {
        Self { span, ..self }
    }

    /// The same with a word at the place.
    pub(super) fn label(self, label: impl Into<String>) -> Self {
        Self { label: label.into(), ..self }
    }

    /// The same with a second place.
    pub(super) fn other(self, span: Option<Range<usize>>, label: impl Into<String>) -> Self {
        Self { other: span.map(|span| (span, label.into())), ..self }
    }

    /// The same with one more line of advice.
    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help.push(help.into());
        self
    }
}

/// Everything that is wrong with one configuration, in the order of its lines.
#[derive(Clone, Debug)]
pub struct Problems {
    /// Name of the file, as the operator wrote it.
    name: String,
    /// Its text.
    text: Arc<str>,
    list: Vec<Problem>,
    /// Problems beyond those kept.
    more: usize,
}

impl Problems {
    /// No problems yet of the file `name` with this `text`.
    pub(super) fn new(name: impl Into<String>, text: impl Into<Arc<str>>) -> Self {
        Self { name: name.into(), text: text.into(), list: Vec::new(), more: 0 }
    }

    /// One problem that keeps the file from being read at all.
    pub(super) fn only(name: impl Into<String>, problem: Problem) -> Self {
        let mut problems = Self::new(name, "");
        problems.push(problem);
        problems
    }

    /// A problem that no line is to blame for.
    #[must_use]
    pub fn of_the_whole(name: &str, what: String) -> Self {
        Self::only(name, Problem::new(what))
    }

    /// Adds one. Beyond a bound errors push warnings out, and further ones are counted.
    pub(super) fn push(&mut self, problem: Problem) {
        if self.list.len() < KEPT {
            self.list.push(problem);
            return;
        }
        self.more += 1;
        let warning = self.list.iter_mut().find(|kept| kept.severity == Severity::Warning);
        if let Some(warning) = warning.filter(|_| problem.severity == Severity::Error) {
            *warning = problem;
        }
    }

    /// Whether no more errors are kept: what is read on would only be counted.
    pub(super) fn is_full(&self) -> bool {
        self.list.len() >= KEPT && self.list.iter().all(|kept| kept.severity == Severity::Error)
    }

    /// Keeps the first of the problems on each line that `first` of them touch: a value that is
    /// broken TOML need not be told to be of the wrong type as well.
    pub(super) fn drop_followers(&mut self, first: usize) {
        let lines = Lines::of(&self.text);
        let line = |problem: &Problem| problem.span.as_ref().map(|span| lines.at(span).number);
        let broken: Vec<_> = self.list.iter().take(first).filter_map(line).collect();
        let follows = |i: usize, problem: &Problem| {
            i >= first && line(problem).is_some_and(|line| broken.contains(&line))
        };
        let kept = self.list.iter().enumerate().filter(|(i, problem)| !follows(*i, problem));
        let kept = kept.map(|(_, problem)| problem.clone()).collect();
        self.list = kept;
    }

    /// Puts them into the order of the lines.
    pub(super) fn sort(&mut self) {
        self.list.sort_by_key(|problem| problem.span.as_ref().map_or(usize::MAX, |at| at.start));
    }

    /// Name of the file.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Line and column of a place, from 1.
    pub(super) fn place_of(&self, span: &Range<usize>) -> (usize, usize) {
        let lines = Lines::of(&self.text);
        let line = lines.at(span);
        (line.number, line.column())
    }

    /// All of them that were kept.
    #[must_use]
    pub fn list(&self) -> &[Problem] {
        &self.list
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Whether one of them keeps the configuration from being used.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.list.iter().any(|problem| problem.severity == Severity::Error)
    }

    /// How many errors, and how many warnings.
    #[must_use]
    pub fn counts(&self) -> (usize, usize) {
        let errors = self.list.iter().filter(|problem| problem.severity == Severity::Error).count();
        (errors + self.more, self.list.len() - errors)
    }

    /// Text for a person, in colours where `styled`.
    #[must_use]
    pub fn render(&self, styled: bool) -> String {
        let renderer = if styled { Renderer::styled() } else { Renderer::plain() };
        let lines = Lines::of(&self.text);
        let mut out = String::new();
        for problem in self.list.iter().take(PRINTED) {
            out.push_str(&renderer.render(&[self.group(problem, &lines)]));
            out.push_str("\n\n");
        }
        let hidden = self.list.len().saturating_sub(PRINTED) + self.more;
        if hidden > 0 {
            out.push_str(&format!("... and {hidden} more\n\n"));
        }
        out.truncate(out.trim_end().len());
        out
    }

    fn group<'a>(&'a self, problem: &'a Problem, lines: &Lines<'a>) -> Group<'a> {
        let level = match problem.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let mut group = Group::with_title(level.primary_title(problem.message.as_str()));
        match &problem.span {
            None => group = group.element(Origin::path(self.name.as_str())),
            Some(span) => {
                group = self.place(group, lines, span, &problem.label, AnnotationKind::Primary);
            }
        }
        if let Some((span, label)) = &problem.other {
            group = self.place(group, lines, span, label, AnnotationKind::Context);
        }
        problem.help.iter().fold(group, |group, help| group.element(Level::HELP.message(help)))
    }

    /// Adds the line of a place, or only its number where the line is too long to be shown.
    fn place<'a>(
        &'a self,
        group: Group<'a>,
        lines: &Lines<'a>,
        span: &Range<usize>,
        label: &'a str,
        kind: AnnotationKind,
    ) -> Group<'a> {
        let line = lines.at(span);
        if line.text.len() > SHOWN_LINE_BYTES {
            let origin =
                Origin::path(self.name.as_str()).line(line.number).char_column(line.column());
            return group.element(origin);
        }
        let annotation = kind.span(line.within).label((!label.is_empty()).then_some(label));
        group.element(
            Snippet::source(line.text)
                .line_start(line.number)
                .path(self.name.as_str())
                .annotation(annotation),
        )
    }
}

impl Display for Problems {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for Problems {}

/// A text cut into lines once, so that a place is found by bisection.
struct Lines<'a> {
    text: &'a str,
    starts: Vec<usize>,
}

/// One line and the part of it that a place covers.
struct Line<'a> {
    number: usize,
    text: &'a str,
    within: Range<usize>,
}

impl<'a> Lines<'a> {
    fn of(text: &'a str) -> Self {
        let starts = memchr::memchr_iter(b'\n', text.as_bytes()).map(|at| at + 1);
        Self { text, starts: std::iter::once(0).chain(starts).collect() }
    }

    /// The line where `span` begins; what of `span` lies on other lines is cut off.
    fn at(&self, span: &Range<usize>) -> Line<'a> {
        let number = self.starts.partition_point(|start| *start <= span.start);
        let start = number.checked_sub(1).and_then(|i| self.starts.get(i)).copied().unwrap_or(0);
        let rest = self.text.get(start..).unwrap_or("");
        let text = rest.split('\n').next().unwrap_or("");
        let text = text.strip_suffix('\r').unwrap_or(text);
        let from = boundary(text, span.start.saturating_sub(start));
        let to = boundary(text, span.end.saturating_sub(start)).max(from);
        Line { number, text, within: from..to }
    }
}

impl Line<'_> {
    /// Column in characters, counted from 1.
    fn column(&self) -> usize {
        self.text.get(..self.within.start).map_or(0, |before| before.chars().count()) + 1
    }
}

/// The nearest character boundary of `text` at or before `at`.
fn boundary(text: &str, at: usize) -> usize {
    (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

/// A name or value as it is shown in a message: quoted, escaped, and not too long.
pub(super) fn shown(text: &str) -> String {
    const MOST: usize = 60;
    let short: String = text.chars().take(MOST).collect();
    let dots = if short.len() < text.len() { "..." } else { "" };
    format!("\"{}{dots}\"", short.escape_debug())
}

/// The name among `names` that `wrong` was probably meant to be.
pub(super) fn nearest<'n>(
    wrong: &str,
    names: impl IntoIterator<Item = &'n str>,
) -> Option<&'n str> {
    /// Similarity from which a name is offered, between 0 and 1.
    const ENOUGH: f64 = 0.85;
    let (alike, name) = similar(wrong, names).into_iter().next()?;
    (alike >= ENOUGH).then_some(name)
}

/// The names with their similarity to `wrong`, the most similar first.
pub(super) fn similar<'n>(
    wrong: &str,
    names: impl IntoIterator<Item = &'n str>,
) -> Vec<(f64, &'n str)> {
    const LONGEST: usize = 64;
    if wrong.len() > LONGEST {
        return Vec::new();
    }
    let wrong = wrong.to_ascii_lowercase().replace('-', "_");
    // Jaro and Winkler's measure forgives what follows a common beginning, so that `head_size` is
    // near `head_bytes`; among those, fewer edits are nearer.
    let alike = |name: &'n str| {
        let plain = name.replace('-', "_");
        let alike = strsim::jaro_winkler(&wrong, &plain);
        (alike + strsim::normalized_damerau_levenshtein(&wrong, &plain), alike, name)
    };
    let mut all: Vec<_> = names.into_iter().take(1000).map(alike).collect();
    all.sort_by(|one, other| other.0.total_cmp(&one.0));
    all.into_iter().map(|(_, alike, name)| (alike, name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_found_on_its_line() {
        let lines = Lines::of("ab\ncdé\r\n\nx");
        for (span, number, text, within, column) in [
            (0..1, 1, "ab", 0..1, 1),
            (1..9, 1, "ab", 1..2, 2),
            (5..7, 2, "cdé", 2..4, 3),
            (9..9, 3, "", 0..0, 1),
            (10..11, 4, "x", 0..1, 1),
            (99..100, 4, "x", 1..1, 2),
        ] {
            let line = lines.at(&span);
            assert_eq!((line.number, line.text), (number, text), "{span:?}");
            assert_eq!(line.within, within, "{span:?}");
            assert_eq!(line.column(), column, "{span:?}");
        }
    }

    #[test]
    fn only_a_similar_name_is_offered() {
        let names = ["address", "tls", "http2", "proxy_protocol"];
        for (wrong, expected) in [
            ("adress", Some("address")),
            ("Address", Some("address")),
            ("proxy-protocol", Some("proxy_protocol")),
            ("http", Some("http2")),
            ("colour", None),
            ("", None),
        ] {
            assert_eq!(nearest(wrong, names), expected, "{wrong}");
        }
        assert_eq!(nearest(&"a".repeat(1 << 20), names), None);
    }

    #[test]
    fn problems_beyond_the_bound_are_counted_and_errors_come_first() {
        let mut problems = Problems::new("x.toml", "a\n");
        for _ in 0..300 {
            problems.push(Problem::new("odd").warning());
        }
        problems.push(Problem::new("wrong"));
        assert!(problems.has_errors());
        assert_eq!(problems.list().len(), KEPT);
        assert!(problems.render(false).ends_with("... and 251 more"));
    }
}
