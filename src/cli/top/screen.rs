//! The terminal: a screen of its own while the view is up, keys as they are pressed, and everything
//! as it was afterwards. Modes are set by `stty`, which every system with a terminal has; without it
//! the view works all the same, and ends by Ctrl-C.

use std::io::{self, Read as _, Write as _};
use std::process::{Command, Stdio};

use tokio::sync::mpsc;

/// Size that is assumed where nobody says.
const USUAL: (usize, usize) = (80, 24);

/// The terminal in the mode of the view; dropping it gives it back.
pub(super) struct Screen {
    /// The modes as they were.
    modes: Option<String>,
}

impl Screen {
    pub(super) fn open() -> Self {
        let modes = stty(&["-g"]).map(|modes| modes.trim().to_owned());
        let modes = modes.filter(|_| stty(&["-icanon", "-echo", "-isig", "min", "1"]).is_some());
        print!("\u{1b}[?1049h\u{1b}[?25l");
        Self { modes }
    }

    /// Columns and lines.
    pub(super) fn size() -> (usize, usize) {
        let told = stty(&["size"]).and_then(|text| parse_size(&text));
        told.unwrap_or(USUAL)
    }

    pub(super) fn draw(&self, lines: &[String]) {
        let mut out = String::from("\u{1b}[H");
        let last = lines.len().saturating_sub(1);
        for (at, line) in lines.iter().enumerate() {
            out.push_str(line);
            out.push_str("\u{1b}[K");
            // A line feed behind the last line would scroll.
            if at < last {
                out.push_str("\r\n");
            }
        }
        out.push_str("\u{1b}[J");
        let mut terminal = io::stdout().lock();
        // A terminal that is gone ends the view by its signal.
        let _ = terminal.write_all(out.as_bytes()).and_then(|()| terminal.flush());
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        print!("\u{1b}[?25h\u{1b}[?1049l");
        let _ = io::stdout().flush();
        if let Some(modes) = &self.modes {
            let _ = stty(&[modes.as_str()]);
        }
    }
}

/// `24 80` as columns and lines; a terminal without a size says `0 0`.
fn parse_size(text: &str) -> Option<(usize, usize)> {
    let mut numbers = text.split_whitespace().map(|number| number.parse().ok());
    let (lines, columns): (usize, usize) = (numbers.next()??, numbers.next()??);
    (lines > 0 && columns > 0).then_some((columns, lines))
}

fn stty(arguments: &[&str]) -> Option<String> {
    let mut command = Command::new("stty");
    command.args(arguments).stdin(Stdio::inherit()).stderr(Stdio::null());
    let done = command.output().ok().filter(|done| done.status.success())?;
    String::from_utf8(done.stdout).ok()
}

/// Keys as they are pressed. The thread that reads ends with the process.
pub(super) fn keys() -> mpsc::Receiver<u8> {
    let (send, keys) = mpsc::channel(8);
    std::thread::spawn(move || {
        let mut key = [0];
        while io::stdin().read_exact(&mut key).is_ok() {
            let [byte] = key;
            if send.blocking_send(byte).is_err() {
                break;
            }
        }
    });
    keys
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_read_or_assumed() {
        for (text, expected) in
            [("24 80\n", Some((80, 24))), ("0 0\n", None), ("24", None), ("x 80", None), ("", None)]
        {
            assert_eq!(parse_size(text), expected, "{text:?}");
        }
    }
}
