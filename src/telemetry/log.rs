//! The process log on standard error. A reader that stopped reading never stops the process: lines
//! go through a bounded queue to a thread of their own, and those that find no place are counted.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use tracing::subscriber::set_global_default;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::config::Log;

/// Lines that may wait for the writer.
const LINES: usize = 1024;

/// Time that the end of the process waits for the last lines.
const PATIENCE: Duration = Duration::from_secs(1);

/// Why there is no process log.
#[derive(Debug)]
pub enum LogError {
    /// The filter is not one that `tracing` understands.
    Filter(tracing_subscriber::filter::ParseError),
    /// There is a process log already.
    Twice,
    /// The writing thread could not be started.
    Thread(io::Error),
}

impl fmt::Display for LogError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Filter(why) => write!(out, "log level cannot be read: {why}"),
            Self::Twice => out.write_str("the process log was started twice"),
            Self::Thread(why) => write!(out, "the process log's thread did not start: {why}"),
        }
    }
}

impl std::error::Error for LogError {}

/// The process log. Dropping it waits a moment for the last lines; keep it until the end of `main`.
#[derive(Debug)]
pub struct ProcessLog {
    lines: Lines,
    done: Receiver<()>,
}

/// Starts the process log that `log` describes, for every thread of the process.
///
/// # Errors
/// The filter is malformed, the thread does not start, or there is a process log already.
pub fn init_log(log: &Log) -> Result<ProcessLog, LogError> {
    let filter = EnvFilter::try_new(&log.level).map_err(LogError::Filter)?;
    let (process_log, lines) = ProcessLog::start(io::stderr()).map_err(LogError::Thread)?;
    let colours = !log.json && io::IsTerminal::is_terminal(&io::stderr());
    let layer = tracing_subscriber::fmt().with_env_filter(filter).with_writer(lines);
    let set = if log.json {
        set_global_default(layer.json().flatten_event(true).finish())
    } else {
        set_global_default(layer.with_ansi(colours).finish())
    };
    set.map(|()| process_log).map_err(|_twice| LogError::Twice)
}

impl ProcessLog {
    fn start(target: impl io::Write + Send + 'static) -> io::Result<(Self, Lines)> {
        let (sender, receiver) = sync_channel(LINES);
        let (end, done) = sync_channel(1);
        let lines = Lines { sender, dropped: Arc::default() };
        let dropped = Arc::clone(&lines.dropped);
        thread::Builder::new().name("process-log".into()).spawn(move || {
            write_lines(&receiver, &dropped, target);
            drop(end);
        })?;
        Ok((Self { lines: lines.clone(), done }, lines))
    }
}

impl Drop for ProcessLog {
    fn drop(&mut self) {
        if self.lines.sender.try_send(Message::End).is_ok() {
            // The writer drops its end when it has written everything before this message.
            let _: Result<(), RecvTimeoutError> = self.done.recv_timeout(PATIENCE);
        }
    }
}

/// What goes to the writer.
#[derive(Debug)]
enum Message {
    Line(Vec<u8>),
    End,
}

/// Where the subscriber writes its lines.
#[derive(Clone, Debug)]
struct Lines {
    sender: SyncSender<Message>,
    dropped: Arc<AtomicU64>,
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line { lines: self, text: Vec::with_capacity(256) }
    }
}

/// One line in the making; sent when it is dropped.
struct Line<'a> {
    lines: &'a Lines,
    text: Vec<u8>,
}

impl io::Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        let mut text = std::mem::take(&mut self.text);
        one_line(&mut text);
        if !text.is_empty() && self.lines.sender.try_send(Message::Line(text)).is_err() {
            self.lines.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Takes out line breaks within a line: a text from elsewhere, shown as it is, must not look like
/// another line of ours. Escape sequences in values are made harmless by the subscriber.
fn one_line(text: &mut [u8]) {
    if let Some((_end, inside)) = text.split_last_mut() {
        let breaks = inside.iter_mut().filter(|byte| matches!(byte, b'\n' | b'\r'));
        breaks.for_each(|byte| *byte = b' ');
    }
}

/// Writes lines until the end is announced. A line that cannot be written is lost; there is
/// nowhere left to say so.
fn write_lines(lines: &Receiver<Message>, dropped: &AtomicU64, mut target: impl io::Write) {
    while let Ok(Message::Line(line)) = lines.recv() {
        let _ = target.write_all(&line);
        let lost = dropped.swap(0, Ordering::Relaxed);
        if lost > 0 {
            let _ = writeln!(target, "{lost} lines of the process log were dropped");
        }
    }
    let _ = target.flush();
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::sync::{Condvar, Mutex};

    use super::*;

    /// A target that blocks until it is opened.
    #[derive(Clone, Default)]
    struct Gate(Arc<(Mutex<State>, Condvar)>);

    /// Whether it is open, and what was written.
    type State = (bool, Vec<u8>);

    impl Gate {
        fn open(&self) {
            self.0.0.lock().unwrap().0 = true;
            self.0.1.notify_all();
        }

        fn text(&self) -> String {
            String::from_utf8(self.0.0.lock().unwrap().1.clone()).unwrap()
        }
    }

    impl io::Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut state =
                self.0.1.wait_while(self.0.0.lock().unwrap(), |state| !state.0).unwrap();
            state.1.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn blocked_reader_loses_lines_and_blocks_nobody() {
        let gate = Gate::default();
        let (log, lines) = ProcessLog::start(gate.clone()).unwrap();
        let sent = 3 * LINES;
        for number in 0..sent {
            writeln!(lines.make_writer(), "{number}").unwrap();
        }
        let lost = lines.dropped.load(Ordering::Relaxed);
        assert!(lost >= (sent - LINES - 1) as u64, "{lost}");
        gate.open();
        while lines.dropped.load(Ordering::Relaxed) > 0 {
            thread::yield_now();
        }
        // The queue may be full still, and the end would find no place in it.
        while !gate.text().contains(&format!("\n{}\n", LINES - 1)) {
            thread::yield_now();
        }
        drop(log);
        assert!(gate.text().starts_with("0\n"));
        assert!(gate.text().contains(&format!("{lost} lines of the process log were dropped\n")));
    }
    #[test]
    fn a_text_from_elsewhere_ends_no_line() {
        const NASTY: &str = "a\r\n2026-11-22 ERROR forged\u{1b}[2J\u{9b}1m";
        for json in [false, true] {
            let gate = Gate::default();
            gate.open();
            let (log, lines) = ProcessLog::start(gate.clone()).unwrap();
            let layer = tracing_subscriber::fmt().with_writer(lines).with_ansi(false);
            let say = || tracing::error!(shown = %NASTY, debug = ?NASTY, "{NASTY}");
            if json {
                tracing::subscriber::with_default(layer.json().flatten_event(true).finish(), say);
            } else {
                tracing::subscriber::with_default(layer.finish(), say);
            }
            drop(log);
            let text = gate.text();
            assert!(text.contains("forged") && text.ends_with('\n'), "{text:?}");
            let inside = text.trim_end_matches('\n');
            assert!(!inside.contains(['\r', '\n', '\u{1b}']), "{text:?}");
            assert!(json || !inside.contains('\u{9b}'), "{text:?}");
            if json {
                assert!(serde_json::from_str::<serde_json::Value>(inside).is_ok(), "{text}");
            }
        }
    }
}
