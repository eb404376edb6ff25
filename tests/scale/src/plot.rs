//! The figures as two small drawings side by side, in SVG made by hand.

use std::fmt::Write as _;

use crate::figures::Figures;
use crate::paths::Loss;

const WIDTH: f64 = 420.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 52.0;
const BOTTOM: f64 = 44.0;
const TOP: f64 = 34.0;
const RIGHT: f64 = 16.0;

/// One line of a drawing.
struct Curve {
    name: String,
    colour: &'static str,
    dashes: &'static str,
    points: Vec<(f64, f64)>,
}

/// Times and messages over the number of nodes; whole lines without loss, broken ones with.
#[must_use]
pub fn draw(figures: &[Figures]) -> String {
    let kinds = [(Loss::None, ""), (Loss::Stream(0.01), "5 3")];
    let curves = |wanted: &[(&str, &'static str, fn(&Figures) -> f64)]| -> Vec<Curve> {
        let mut curves = Vec::new();
        for (loss, dashes) in kinds {
            for (name, colour, value) in wanted {
                let of_loss = figures.iter().filter(|figure| figure.run.loss == loss);
                let points: Vec<(f64, f64)> =
                    of_loss.map(|figure| (figure.run.size.all() as f64, value(figure))).collect();
                let name = if dashes.is_empty() { (*name).to_owned() } else { String::new() };
                curves.push(Curve { name, colour, dashes, points });
            }
        }
        curves
    };
    let times = curves(&[
        ("p50", "#1b7837", |figure| figure.in_force.p50),
        ("p99", "#2166ac", |figure| figure.in_force.p99),
        ("last node", "#b2182b", |figure| figure.in_force.max),
        ("acknowledged p50", "#999999", |figure| figure.acknowledged.p50),
    ]);
    let messages = curves(&[
        ("all", "#b2182b", |figure| figure.purge.messages),
        ("spread", "#2166ac", |figure| figure.spread.messages),
        ("repair", "#1b7837", |figure| figure.repair.messages),
    ]);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {} {}\" \
         font-family=\"sans-serif\" font-size=\"11\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
        2.0 * WIDTH,
        HEIGHT + 16.0
    );
    panel(
        &mut svg,
        0.0,
        "ms until a purge is in force",
        &times,
        &[(100.0, "p50 wanted"), (250.0, "p99 wanted")],
    );
    panel(&mut svg, WIDTH, "messages per node and purge", &messages, &[(4.0, "wanted")]);
    let _ = writeln!(
        svg,
        "<text x=\"{LEFT}\" y=\"{}\" fill=\"#555555\">whole lines: no loss; broken lines: 1 % lost, sent again by TCP</text>\n</svg>",
        HEIGHT + 8.0
    );
    svg
}

fn panel(svg: &mut String, left: f64, title: &str, curves: &[Curve], goals: &[(f64, &str)]) {
    let values = || curves.iter().flat_map(|curve| &curve.points).map(|point| point.1);
    let most = values().chain(goals.iter().map(|goal| goal.0)).filter(|value| value.is_finite());
    let most = most.fold(0.0, f64::max) * 1.1;
    // From 5 to 50,000 nodes, by powers of ten.
    let x = |nodes: f64| left + LEFT + (nodes.log10() - 0.7) / 4.0 * (WIDTH - LEFT - RIGHT);
    let y = |value: f64| HEIGHT - BOTTOM - value / most * (HEIGHT - BOTTOM - TOP);
    let _ = writeln!(svg, "<text x=\"{}\" y=\"18\" font-size=\"13\">{title}</text>", left + LEFT);
    let step = [0.5, 1.0, 50.0, 100.0, 200.0, 500.0].into_iter().find(|step| most / step <= 9.0);
    let step = step.unwrap_or(1_000.0);
    let mut value = 0.0;
    while value <= most {
        let _ = writeln!(
            svg,
            "<line x1=\"{0}\" y1=\"{1}\" x2=\"{2}\" y2=\"{1}\" stroke=\"#e5e5e5\"/><text x=\"{3}\" y=\"{4}\" text-anchor=\"end\">{value}</text>",
            left + LEFT,
            y(value),
            left + WIDTH - RIGHT,
            left + LEFT - 6.0,
            y(value) + 4.0
        );
        value += step;
    }
    for nodes in [10.0, 100.0, 1_000.0, 10_000.0] {
        let _ = writeln!(
            svg,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">{nodes}</text>",
            x(nodes),
            HEIGHT - BOTTOM + 16.0
        );
    }
    let _ = writeln!(
        svg,
        "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">nodes</text>",
        left + WIDTH - RIGHT,
        HEIGHT - BOTTOM + 32.0
    );
    for (value, name) in goals {
        let _ = writeln!(
            svg,
            "<line x1=\"{0}\" y1=\"{1}\" x2=\"{2}\" y2=\"{1}\" stroke=\"black\" stroke-dasharray=\"2 4\"/><text x=\"{2}\" y=\"{3}\" text-anchor=\"end\" fill=\"#555555\">{name}</text>",
            left + LEFT,
            y(*value),
            left + WIDTH - RIGHT,
            y(*value) - 4.0
        );
    }
    curves.iter().for_each(|curve| line(svg, curve, &x, &y));
    let named = curves.iter().filter(|curve| !curve.name.is_empty());
    for (number, curve) in named.enumerate() {
        let across = left + LEFT + 8.0 + number as f64 * 82.0;
        let _ = writeln!(
            svg,
            "<text x=\"{across}\" y=\"{}\" fill=\"{}\">{}</text>",
            TOP - 2.0,
            curve.colour,
            curve.name
        );
    }
}

fn line(svg: &mut String, curve: &Curve, x: &impl Fn(f64) -> f64, y: &impl Fn(f64) -> f64) {
    let points = curve.points.iter().filter(|point| point.1.is_finite());
    let points: Vec<(f64, f64)> = points.map(|point| (x(point.0), y(point.1))).collect();
    let path: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    let _ = writeln!(
        svg,
        "<polyline points=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"1.8\" stroke-dasharray=\"{}\"/>",
        path.join(" "),
        curve.colour,
        curve.dashes
    );
    for (x, y) in points {
        let _ = writeln!(
            svg,
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2.6\" fill=\"{}\"/>",
            curve.colour
        );
    }
}
