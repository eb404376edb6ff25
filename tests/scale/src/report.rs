//! Figures as a table for a page, and what they follow.

use std::fmt::Write as _;

use crate::figures::{Figures, Times};

/// The figures as tables.
#[must_use]
pub fn tables(figures: &[Figures]) -> String {
    let mut text = String::from(
        "| PoPs x nodes | loss | in force p50 | p99 | beyond the way p50 | p99 | last node | acknowledged p50 | p99 | \
         receipt complete |\n|---|---|---|---|---|---|---|---|---|---|\n",
    );
    for figure in figures {
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
            size(figure),
            figure.run.loss.told(),
            millis(figure.in_force.p50),
            millis(figure.in_force.p99),
            millis(figure.beyond.p50),
            millis(figure.beyond.p99),
            millis(figure.in_force.max),
            millis(figure.acknowledged.p50),
            millis(figure.acknowledged.p99),
            millis(figure.receipts.max),
        );
    }
    text.push_str(
        "\n| PoPs x nodes | loss | messages per node and purge | of that spread | repair | \
         acknowledgements | bytes per node and purge | receipt: messages | bytes |\n\
         |---|---|---|---|---|---|---|---|---|\n",
    );
    for figure in figures {
        let _ = writeln!(
            text,
            "| {} | {} | {:.2} | {:.2} | {:.2} | {:.3} | {:.0} | {:.2} | {:.0} |",
            size(figure),
            figure.run.loss.told(),
            figure.purge.messages,
            figure.spread.messages,
            figure.repair.messages,
            figure.acknowledge.messages,
            figure.purge.bytes,
            figure.receipt.messages,
            figure.receipt.bytes,
        );
    }
    text.push_str(
        "\n| PoPs x nodes | loss | beats: messages/s | bytes/s | leases: messages/s | bytes/s | \
         busiest node: messages/s | events | seconds |\n\
         |---|---|---|---|---|---|---|---|---|\n",
    );
    for figure in figures {
        let _ = writeln!(
            text,
            "| {} | {} | {:.1} | {:.0} | {:.1} | {:.0} | {:.0} | {} | {:.0} |",
            size(figure),
            figure.run.loss.told(),
            figure.beats.messages,
            figure.beats.bytes,
            figure.questions.messages,
            figure.questions.bytes,
            figure.busiest,
            figure.events,
            figure.seconds,
        );
    }
    text
}

/// A line that is closest to some points: slope and height at 0.
#[derive(Clone, Copy, Debug)]
pub struct Line {
    /// Per step to the right.
    pub slope: f64,
    /// At 0.
    pub height: f64,
}

/// The line closest to the points, by least squares.
#[must_use]
pub fn fit(points: &[(f64, f64)]) -> Line {
    let count = points.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (x, y) = (mean(|point| point.0), mean(|point| point.1));
    let spread: f64 = points.iter().map(|point| (point.0 - x).powi(2)).sum();
    let common: f64 = points.iter().map(|point| (point.0 - x) * (point.1 - y)).sum();
    let slope = if spread > 0.0 { common / spread } else { 0.0 };
    Line { slope, height: y - slope * x }
}

/// What the figures follow, over those of one kind of loss.
#[must_use]
pub fn fits(figures: &[Figures]) -> String {
    let messages: Vec<(f64, f64)> = figures
        .iter()
        .map(|figure| {
            let nodes = figure.run.size.all() as f64;
            (nodes, figure.purge.messages * nodes)
        })
        .collect();
    let last: Vec<(f64, f64)> = figures
        .iter()
        .map(|figure| ((figure.run.size.all() as f64).ln(), figure.last.p50))
        .collect();
    let (messages, last) = (fit(&messages), fit(&last));
    format!(
        "messages per purge = {:.2} N {:+.0}; time to the last node = {:.0} ms {:+.1} ms ln N",
        messages.slope, messages.height, last.height, last.slope
    )
}

/// Whether the figures of the largest size are what is wanted there, one line each.
#[must_use]
pub fn goals(figure: &Figures) -> Vec<(String, bool)> {
    let Times { p50, p99, .. } = figure.in_force;
    let messages = figure.purge.messages;
    vec![
        (format!("p50 {p50:.1} ms, wanted under 100"), p50 < 100.0),
        (format!("p99 {p99:.1} ms, wanted under 250"), p99 < 250.0),
        (format!("{messages:.2} messages per node and purge, wanted 4 at most"), messages <= 4.0),
    ]
}

/// As `PoPs x nodes`.
#[must_use]
pub fn size(figure: &Figures) -> String {
    format!("{} x {}", figure.run.size.pops, figure.run.size.nodes)
}

fn millis(millis: f64) -> String {
    if millis.is_finite() { format!("{millis:.1} ms") } else { "not all".to_owned() }
}
