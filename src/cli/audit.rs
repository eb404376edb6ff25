//! `atoll audit verify`: whether an audit log is as it was written.

use std::fs::File;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use crate::audit::{Chain, read_lines};

use super::{DONE, REFUSED, USAGE, complain, counted};

/// Breaks of one file that are told.
const TOLD: usize = 20;

const ABOUT: &str = "Checks the audit log";

const VERIFY: &str = "Checks whether an audit log is as it was written, and says where it is not";

const MORE: &str = "\
Exit codes:
  0  every line is as it was written
  1  lines were altered, removed or added
  2  wrong flags, or a file that cannot be read";

const VERIFY_MORE: &str = "\
Name the files of one log in any order. Every line bears the hash of the one before, so that a line
that was altered, removed or added shows, except at the end: whoever can write the file can cut
lines off there, or write all of it anew. Against that, keep a hash that was printed once elsewhere,
and ask for it with --anchor.

Examples:
  atoll audit verify /var/log/atoll/audit.log*
  atoll audit verify audit.log --anchor 3fa4...

Exit codes:
  0  every line is as it was written
  1  lines were altered, removed or added, or the anchor is not among them
  2  wrong flags, or a file that cannot be read";

#[derive(Args, Debug)]
#[command(about = ABOUT, after_help = MORE)]
pub(super) struct Audit {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Verify(Verify),
}

#[derive(Args, Debug)]
#[command(about = VERIFY, after_help = VERIFY_MORE)]
struct Verify {
    /// Files of the log.
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// A hash that has to be in the chain: the last one that was printed earlier.
    #[arg(long, value_name = "HASH", value_parser = hash)]
    anchor: Option<String>,
}

/// Reads a SHA-256 in hexadecimal.
fn hash(text: &str) -> Result<String, String> {
    let sound = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if sound { Ok(text.to_ascii_lowercase()) } else { Err("expected 64 hexadecimal digits".into()) }
}

impl Audit {
    pub(super) fn run(self) -> u8 {
        let Command::Verify(verify) = self.command;
        match verify.read() {
            Ok(report) => {
                print!("{}", report.text);
                if report.sound { DONE } else { REFUSED }
            }
            Err(error) => {
                complain(&error);
                USAGE
            }
        }
    }
}

/// What became of a check.
#[derive(Debug)]
struct Report {
    text: String,
    sound: bool,
}

impl Verify {
    fn read(&self) -> Result<Report, String> {
        let mut found = self.anchor.is_none();
        let mut report = Report { text: String::new(), sound: true };
        let mut tell = |text: String| report.text += &format!("{text}\n");
        let log = read_log(&self.files, |hash, _| found |= Some(hash) == self.anchor.as_deref())?;
        for (path, broken) in &log.breaks {
            tell(format!("{}: {broken}", path.display()));
        }
        let chain = &log.chain;
        let (first, prev) = chain.first().unwrap_or((0, ""));
        let (last, hash) = chain.last().unwrap_or((0, ""));
        tell(format!("{}, numbers {first} to {last}", counted(log.lines(), "line")));
        if first > 1 {
            tell(format!("the lines before number {first} are not here: it follows {prev}"));
        }
        if chain.missing() > 0 {
            tell(format!("acts that could not be written: {}", chain.missing()));
        }
        if chain.torn() > 0 {
            tell(format!("writes that broke off, as later lines tell: {}", chain.torn()));
        }
        if chain.loose() > 0 {
            tell(format!("the last line is torn, or being written: {} bytes", chain.loose()));
        }
        tell(format!("last hash {hash}"));
        if !found {
            tell("the anchor is not the hash of any line".to_owned());
        }
        report.sound = found && log.breaks.is_empty();
        Ok(report)
    }
}

/// What the files of a log hold.
pub(super) struct Log {
    pub(super) chain: Chain,
    /// Where the chain breaks.
    pub(super) breaks: Vec<(PathBuf, String)>,
}

impl Log {
    fn lines(&self) -> usize {
        usize::try_from(self.chain.lines()).unwrap_or(usize::MAX)
    }
}

/// Reads the files of one log, the oldest first, and hands each sound line on with its hash.
pub(super) fn read_log(
    files: &[PathBuf],
    mut take: impl FnMut(&str, &[u8]),
) -> Result<Log, String> {
    let mut log = Log { chain: Chain::default(), breaks: Vec::new() };
    let mut last: Option<PathBuf> = None;
    for path in in_order(files)? {
        let file = open(&path)?;
        // What is loose at the end of a file belongs to that one.
        if let (Err(broken), Some(last)) = (log.chain.next_file(), &last) {
            log.breaks.push((last.clone(), broken.to_string()));
        }
        let mut told = 0;
        read_lines(&file, |raw, ended| {
            let lines = log.chain.lines();
            if let Err(broken) = log.chain.take(raw, ended) {
                told += 1;
                if told <= TOLD {
                    log.breaks.push((path.clone(), broken.to_string()));
                }
            }
            if log.chain.lines() > lines
                && let Some((_, hash)) = log.chain.last()
            {
                take(hash, raw);
            }
        })
        .map_err(|error| format!("{}: {error}", path.display()))?;
        last = Some(path);
    }
    // A whole line that is none can't be a write that broke off.
    if log.chain.loose_ended()
        && let (Err(broken), Some(last)) = (log.chain.next_file(), last)
    {
        log.breaks.push((last, broken.to_string()));
    }
    Ok(log)
}

/// The files by the number of their first line; what has none comes last.
fn in_order(files: &[PathBuf]) -> Result<Vec<PathBuf>, String> {
    let mut order = Vec::new();
    for path in files {
        let mut chain = Chain::default();
        read_lines(&open(path)?, |raw, ended| {
            if chain.lines() == 0 {
                let _ = chain.take(raw, ended);
            }
        })
        .map_err(|error| format!("{}: {error}", path.display()))?;
        order.push((chain.first().map_or(u64::MAX, |(seq, _)| seq), path.clone()));
    }
    order.sort();
    Ok(order.into_iter().map(|(_, path)| path).collect())
}

fn open(path: &Path) -> Result<File, String> {
    File::open(path).map_err(|error| format!("{}: {error}", path.display()))
}
