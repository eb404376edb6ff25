//! The published table, and whether it is true.

use std::fmt::Write as _;
use std::path::Path;

use crate::data::{Category, Kind};
use crate::edge::Profile;
use crate::{Verdict, Verdicts};

const BEGIN: &str = "<!-- outcomes: written by `UPDATE=1 cargo test --test conformance` -->\n";
const END: &str = "<!-- end of outcomes -->";

/// Holds `docs/conformance.md` against what was seen, or writes it.
pub(crate) fn hold(categories: &[Category], columns: &[(Profile, Verdicts)]) {
    for (profile, verdicts) in columns {
        print(profile.title(), categories, verdicts);
    }
    if std::env::var("ONLY").is_ok() {
        return;
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/conformance.md");
    let text = std::fs::read_to_string(&path).expect("docs/conformance.md is there");
    let (before, rest) = text.split_once(BEGIN).expect("the page has a place for the outcomes");
    let (_, after) = rest.split_once(END).expect("the place for the outcomes ends");
    let table = table(categories, columns);
    let fresh = format!("{before}{BEGIN}{table}{END}{after}");
    if std::env::var("UPDATE").is_ok() {
        std::fs::write(&path, fresh).expect("docs/conformance.md can be written");
    } else {
        assert!(fresh == text, "docs/conformance.md is not true; the outcomes are:\n{table}");
    }
}

fn count(categories: &[Category], verdicts: &Verdicts, kind: Kind) -> (usize, usize) {
    let of_kind = categories.iter().flat_map(|c| &c.tests).filter(|test| test.kind == kind);
    let judged: Vec<Verdict> =
        of_kind.filter_map(|test| verdicts.get(&test.id)).map(|(verdict, _)| *verdict).collect();
    (judged.iter().filter(|verdict| verdict.succeeded()).count(), judged.len())
}

/// Says how many tests passed, and why others did not.
pub(crate) fn print(title: &str, categories: &[Category], verdicts: &Verdicts) {
    println!("{title}: {}", summary(categories, verdicts));
    for (id, (verdict, why)) in verdicts {
        if !verdict.succeeded() {
            println!("  {verdict:?} {id}: {why}");
        }
    }
}

fn summary(categories: &[Category], verdicts: &Verdicts) -> String {
    let cell = |kind| {
        let (good, all) = count(categories, verdicts, kind);
        format!("{good} of {all}")
    };
    format!(
        "required {}, optimal {}, checks answered yes {}",
        cell(Kind::Required),
        cell(Kind::Optimal),
        cell(Kind::Check)
    )
}

fn table(categories: &[Category], columns: &[(Profile, Verdicts)]) -> String {
    let mut out = String::from(
        "\n| profile | required | optimal | checks answered yes |\n|---|---|---|---|\n",
    );
    for (profile, verdicts) in columns {
        let cell = |kind| {
            let (good, all) = count(categories, verdicts, kind);
            format!("{good} of {all}")
        };
        let (required, optimal, check) =
            (cell(Kind::Required), cell(Kind::Optimal), cell(Kind::Check));
        let _ = writeln!(out, "| {} | {required} | {optimal} | {check} |", profile.title());
    }
    for category in categories {
        let _ = write!(out, "\n### {} (`{}`)\n\n| test | kind |", category.name, category.id);
        for (profile, _) in columns {
            let _ = write!(out, " {} |", profile.title());
        }
        out.push_str("\n|---|---|");
        out.push_str(&"---|".repeat(columns.len()));
        out.push('\n');
        for test in &category.tests {
            let kind = match test.kind {
                Kind::Required => "required",
                Kind::Optimal => "optimal",
                Kind::Check => "check",
            };
            let _ = write!(out, "| `{}` | {kind} |", test.id);
            for (_, verdicts) in columns {
                let word = verdicts.get(&test.id).map_or("", |(verdict, _)| match verdict {
                    Verdict::Pass => "pass",
                    Verdict::Fail => "**fail**",
                    Verdict::Yes => "yes",
                    Verdict::No => "no",
                    Verdict::Setup => "not set up",
                    Verdict::Dependency => "dependency",
                    Verdict::Timeout => "**timeout**",
                });
                let _ = write!(out, " {word} |");
            }
            out.push('\n');
        }
    }
    out.push('\n');
    out
}
