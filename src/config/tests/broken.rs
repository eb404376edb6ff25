//! What is said of broken files, word for word: `broken.txt` holds for each a name, the file and
//! what a person is told. `SMALL` stands for the smallest file that can be used.

use super::*;

const CASES: &str = include_str!("broken.txt");

#[test]
fn broken_files_are_told_what_is_wrong_and_what_would_be_right() {
    let mut wrong = String::new();
    let cases: Vec<&str> = CASES.split("==== ").skip(1).collect();
    for case in &cases {
        let (name, rest) = case.split_once('\n').expect("a name");
        let (text, expected) = rest.split_once("----\n").expect("a file");
        let said = said(&text.replace("SMALL\n", SMALL));
        if said.trim_end() != expected.trim_end() {
            wrong.push_str(&format!("==== {name}\n{text}----\n{said}\n\n"));
        }
    }
    assert!(wrong.is_empty(), "told differently now:\n{wrong}");
    assert!(cases.len() >= 60);
}
