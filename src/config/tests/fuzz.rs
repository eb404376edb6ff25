//! The loader is total: any text gives a configuration or problems, in bounded time.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::clock;

/// Pieces that make a text look like a configuration.
const PIECES: [&str; 44] = [
    "[",
    "]",
    "[[",
    "]]",
    "\n",
    "\n",
    " = ",
    "=",
    ".",
    ",",
    "\"",
    "'",
    "{",
    "}",
    "#",
    "\"\"\"",
    "0",
    "-1",
    "1.5",
    "true",
    "\"30s\"",
    "\"*\"",
    "99999999999999999999",
    "node",
    "listener",
    "limits",
    "site",
    "site.rule",
    "origin",
    "origin.probe",
    "admin.token",
    "name",
    "hosts",
    "servers",
    "address",
    "path",
    "url",
    "workers",
    "\"http://a\"",
    "[\"a\"]",
    "\u{0}",
    "\u{1b}[31m",
    "ä",
    "\r",
];

proptest! {
    #[test]
    fn any_text_gives_a_configuration_or_problems(text in any::<String>()) {
        total(&text);
    }

    #[test]
    fn any_likely_text_does(pieces in prop::collection::vec(prop::sample::select(&PIECES[..]), 0..200)) {
        total(&pieces.concat());
    }

    #[test]
    fn a_good_file_with_a_piece_in_it_does(at in 0..SMALL.len(), cut in 0..8_usize, piece in prop::sample::select(&PIECES[..])) {
        let rest = SMALL.get((at + cut).min(SMALL.len())..).unwrap_or("");
        total(&format!("{}{piece}{rest}", &SMALL[..at]));
    }
}

/// Loads a text and shows what is said of it.
fn total(text: &str) {
    if let Err(problems) = load_text(text) {
        assert!(problems.has_errors());
        assert!(!problems.render(false).is_empty());
    }
}

#[test]
fn bytes_that_are_no_text_are_told_by_line() {
    let file = folder().join("bytes.toml");
    std::fs::write(&file, b"[node]\nname = \"\xff\"\n").expect("a test file");
    let problems = read(&file, &Flags::default()).expect_err("no text");
    assert!(problems.render(false).contains("line 2 is not UTF-8 text"));
    assert!(read(folder(), &Flags::default()).is_err());
    assert!(read(&folder().join("none.toml"), &Flags::default()).is_err());
}

#[test]
fn large_nonsense_takes_bounded_time() {
    let size = usize::try_from(LARGEST_FILE_BYTES).expect("fits");
    for piece in [
        "[",
        "[a]\n",
        "[[a]]\n",
        "=",
        "a",
        "\"",
        "\n",
        "a.",
        "{",
        "a=[",
        "#",
        "\"\"\"",
        "[[site]]\n",
        "\u{1b}",
    ] {
        let text = piece.repeat(size / piece.len());
        let begun = clock::now();
        total(&text);
        let took = clock::now().since(begun);
        // Unoptimised and beside other tests; optimised it is some fiftieth of that.
        assert!(took < Duration::from_secs(10), "{piece}: {took:?}");
    }
    let lines: String = (0..size / 12).map(|i| format!("k{i:07} = 1\n")).collect();
    total(&lines);
    let site = |i: usize| {
        format!("[[site]]\nname = \"s{i}\"\nhosts = [\"s{i}.test\"]\norigin = \"main\"\n")
    };
    let sites: String = (0..10_000).map(site).collect();
    let begun = clock::now();
    let sound =
        load_text(&format!("{sites}[[origin]]\nname = \"main\"\nservers = [\"http://a.test\"]\n"));
    assert_eq!(sound.map(|loaded| loaded.config.sites.len()).ok(), Some(10_000));
    assert!(clock::now().since(begun) < Duration::from_secs(10));
    let long_line = format!("nam = \"{}\"", "x".repeat(size - 20));
    assert!(load_text(&long_line).expect_err("unknown key").render(false).len() < 10_000);
    assert!(load_text(&" ".repeat(size + 1)).is_err());
}
