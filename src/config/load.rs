//! From bytes to a [`Config`], or to all that is wrong with them.
//!
//! Total: any bytes end in one or the other, in bounded time and memory.

use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, Error};

use crate::clock;

use super::certificates::read_file;
use super::changes::Written;
use super::error::{Problem, Problems, shown};
use super::file::{self, Draft};
use super::flags::Flags;
use super::reader::{Sink, Table};
use super::{Config, check};

/// Largest configuration file. Ten thousand sites and as many certificates fit; parsing costs some fifty
/// times its size.
pub const LARGEST_FILE_BYTES: u64 = 4 << 20;

/// Largest text of which all syntax errors are told, rather than the first.
const RECOVERED_BYTES: usize = 64 << 10;

/// A configuration, and what is doubtful about it.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// Warnings; no errors.
    pub warnings: Problems,
    /// What was written in the file, if it is from one.
    pub written: Written,
}

/// Makes a configuration of a text. Relative paths in it are meant from the folder of `path`.
///
/// # Errors
/// All problems of the text, warnings among them.
pub fn load(text: &str, path: &Path) -> Result<Config, Problems> {
    load_with(text, path, &Flags::default()).map(|loaded| loaded.config)
}

/// Reads a configuration file and lays the flags of the command line over it.
///
/// # Errors
/// All problems of the file and the flags.
pub fn read(path: &Path, flags: &Flags) -> Result<Loaded, Problems> {
    let name = path.display().to_string();
    let bytes = match read_file(path, LARGEST_FILE_BYTES) {
        Ok(bytes) => bytes,
        Err(error) => return Err(Problems::only(name, Problem::new(error))),
    };
    match std::str::from_utf8(&bytes) {
        Ok(text) => load_with(text, path, flags),
        Err(error) => Err(Problems::only(name, not_text(&bytes, error.valid_up_to()))),
    }
}

impl Config {
    /// The configuration of a start without a file.
    ///
    /// # Errors
    /// Flags that cannot be used.
    pub fn built_in(flags: &Flags) -> Result<Loaded, Problems> {
        let sink = Sink::new(Problems::new("command line", ""), false);
        let mut draft = Draft::empty();
        flags.stand_alone(&mut draft);
        flags.apply(&mut draft, &sink);
        conclude(draft, sink, Written::default())
    }
}

pub(super) fn load_with(text: &str, path: &Path, flags: &Flags) -> Result<Loaded, Problems> {
    let mut problems = Problems::new(path.display().to_string(), text);
    if text.len() as u64 > LARGEST_FILE_BYTES {
        let message = format!("the file is larger than {LARGEST_FILE_BYTES} bytes");
        problems.push(Problem::new(message));
        return Err(problems);
    }
    let Some(document) = parse(text, &mut problems) else {
        problems.sort();
        return Err(problems);
    };
    let broken = problems.list().len();
    let torn = broken > 0;
    let sink = Sink::new(problems, torn);
    let folder = path.parent().unwrap_or(Path::new(""));
    let mut draft = file::read(Table::root(&sink, &document), folder);
    if torn {
        let mut problems = sink.into_problems();
        problems.drop_followers(broken);
        problems.sort();
        return Err(problems);
    }
    flags.apply(&mut draft, &sink);
    conclude(draft, sink, Written::of(text, folder))
}

/// Looks at how the draft hangs together.
fn conclude(draft: Draft, sink: Sink, written: Written) -> Result<Loaded, Problems> {
    let config = check::check(draft, &sink, clock::now());
    let problems = sorted(sink);
    match config {
        Some(config) if !problems.has_errors() => {
            Ok(Loaded { config, warnings: problems, written })
        }
        _ => Err(problems),
    }
}

fn sorted(sink: Sink) -> Problems {
    let mut problems = sink.into_problems();
    problems.sort();
    problems
}

/// Parses the syntax. Where single values are broken, the rest can still be looked at; where a
/// header is, everything below it would be misread, and `None` is returned.
fn parse<'t>(text: &'t str, problems: &mut Problems) -> Option<Spanned<DeTable<'t>>> {
    let first = match DeTable::parse(text) {
        Ok(document) => return Some(document),
        Err(error) => error,
    };
    if text.len() > RECOVERED_BYTES {
        problems.push(syntax(&first, text));
        return None;
    }
    let (document, errors) = DeTable::parse_recoverable(text);
    let headers_are_whole = errors.iter().all(|error| {
        let start = error.span().map_or(0, |span| span.start);
        let before = text.get(..start).unwrap_or("");
        let line = before.rfind('\n').map_or(0, |at| at + 1);
        text.get(line..).is_some_and(|line| !line.trim_start().starts_with('['))
    });
    let mut lines = std::collections::HashSet::new();
    for error in &errors {
        // One slip often raises several errors on its line: the first tells it best.
        let start = error.span().map_or(0, |span| span.start);
        let before = text.get(..start).unwrap_or("").as_bytes();
        if lines.insert(memchr::memchr_iter(b'\n', before).count()) {
            problems.push(syntax(error, text));
        }
    }
    headers_are_whole.then_some(document)
}

/// A syntax error in words; the parser's own where they are good.
fn syntax(error: &Error, text: &str) -> Problem {
    let value = error.span().and_then(|span| text.get(span)).unwrap_or("").trim();
    let mut lines = error.message().lines();
    let first = lines.next().unwrap_or("not valid");
    let (message, help) = match first {
        _ if !first.starts_with("string values must be quoted") => {
            (first.to_owned(), lines.collect::<Vec<_>>().join("; "))
        }
        _ if value.is_empty() => (
            "a value is missing".to_owned(),
            "write it behind the `=`, or take the key out".to_owned(),
        ),
        _ => ("a text stands in quotes".to_owned(), format!("write {}", shown(value))),
    };
    let help = match message.as_str() {
        _ if !help.is_empty() => help,
        "duplicate key" => "a key stands once in its table: take one of the two out".to_owned(),
        _ => "a line is `key = value`, `[table]` or `[[table]]`: config/reference.toml shows every key"
            .to_owned(),
    };
    Problem::new(format!("not TOML: {message}")).at(error.span()).label("here").help(help)
}

fn not_text(bytes: &[u8], at: usize) -> Problem {
    let before = bytes.get(..at).unwrap_or_default();
    let line = memchr::memchr_iter(b'\n', before).count() + 1;
    Problem::new(format!("line {line} is not UTF-8 text"))
}
