//! Notices workers that do not move: one that is stuck in a computation or in the kernel answers
//! nobody, and nobody within it could say so.
//!
//! Every worker beats once a round, by a task of its runtime. A thread of its own counts the rounds
//! that passed without a beat. Rounds are counted and not time: after the whole process was
//! suspended all have missed the same time, and the first round finds them at work again.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::telemetry::Metrics;

/// Time between two beats, and between two looks at them.
const ROUND: Duration = Duration::from_millis(250);

/// The pulse of one worker.
#[derive(Debug, Default)]
pub(super) struct Pulse {
    beats: AtomicU64,
    /// The kernel's folder about the worker's thread, once it runs.
    thread: std::sync::OnceLock<PathBuf>,
}

impl Pulse {
    /// Beats for as long as it is polled. To be run on the worker.
    pub(super) async fn beat(&self) {
        if let Ok(thread) = fs::read_link("/proc/thread-self") {
            let _ = self.thread.set(PathBuf::from("/proc").join(thread));
        }
        loop {
            self.beats.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(ROUND).await;
        }
    }

    /// What the kernel knows of the thread: whether it computes or waits, and for what.
    fn whereabouts(&self) -> String {
        let Some(folder) = self.thread.get() else { return "not begun".to_owned() };
        let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap_or_default();
        let stat = read("stat");
        let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
        format!(
            "state {}, waits in {:?}, system call {:?}",
            state.unwrap_or('?'),
            read("wchan").trim(),
            read("syscall").split_whitespace().next().unwrap_or_default(),
        )
    }
}

/// Looks at the pulses of all workers.
pub(super) struct Watchdog {
    workers: Vec<Watched>,
    /// Rounds without a beat after which a worker counts as stuck; 0: never.
    patience: u64,
    /// How to end the process where it is to end.
    end: Option<fn()>,
    metrics: Arc<Metrics>,
}

struct Watched {
    pulse: Arc<Pulse>,
    seen: u64,
    missed: u64,
}

impl Watchdog {
    /// One that is alarmed after `patience`, and then ends the process if it is to `abort`.
    pub(super) fn new(
        pulses: &[Arc<Pulse>],
        patience: Duration,
        abort: bool,
        metrics: &Arc<Metrics>,
    ) -> Self {
        let workers = pulses
            .iter()
            .map(|pulse| Watched { pulse: Arc::clone(pulse), seen: 0, missed: 0 })
            .collect();
        let rounds = patience.as_millis().div_ceil(ROUND.as_millis());
        let patience = u64::try_from(rounds).unwrap_or(u64::MAX);
        let end: Option<fn()> = if abort { Some(|| std::process::abort()) } else { None };
        Self { workers, patience, end, metrics: Arc::clone(metrics) }
    }

    /// Watches until `stop` says so.
    pub(super) fn watch(&mut self, stop: impl Fn() -> bool) {
        while self.patience > 0 && !stop() {
            std::thread::sleep(ROUND);
            if self.look() > 0
                && let Some(end) = self.end
            {
                // Whoever starts us again serves sooner than this process would. The log has a
                // thread of its own and needs a moment.
                std::thread::sleep(ROUND);
                end();
            }
        }
    }

    /// Counts the workers that are stuck.
    fn look(&mut self) -> usize {
        let mut stuck = 0;
        for (worker, watched) in self.workers.iter_mut().enumerate() {
            let beats = watched.pulse.beats.load(Ordering::Relaxed);
            if beats != watched.seen {
                if watched.missed >= self.patience {
                    tracing::warn!(worker, "a worker moves again");
                }
                watched.seen = beats;
                watched.missed = 0;
                continue;
            }
            watched.missed += 1;
            if watched.missed == self.patience {
                let whereabouts = watched.pulse.whereabouts();
                tracing::error!(worker, whereabouts, "a worker does not move");
                self.metrics.strain.stalls.inc();
            }
            stuck += usize::from(watched.missed >= self.patience);
        }
        self.metrics.strain.workers_stuck.set(i64::try_from(stuck).unwrap_or(i64::MAX));
        stuck
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::test_config;

    /// A worker that blocks whenever it is sent something, until it is sent more.
    fn worker(pulse: Arc<Pulse>) -> std::sync::mpsc::SyncSender<()> {
        let (block, blocked) = std::sync::mpsc::sync_channel::<()>(0);
        std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let blocker = async {
                    loop {
                        match blocked.try_recv() {
                            Ok(()) => drop(blocked.recv()),
                            Err(std::sync::mpsc::TryRecvError::Disconnected) => return,
                            Err(std::sync::mpsc::TryRecvError::Empty) => {
                                tokio::time::sleep(Duration::from_millis(5)).await;
                            }
                        }
                    }
                };
                tokio::select! {
                    () = pulse.beat() => {}
                    () = blocker => {}
                }
            });
        });
        block
    }

    #[test]
    fn a_blocked_worker_is_noticed_while_others_beat_and_when_it_moves_again() {
        let metrics = Metrics::new(&test_config());
        let pulses = [Arc::<Pulse>::default(), Arc::<Pulse>::default()];
        let workers = [worker(Arc::clone(&pulses[0])), worker(Arc::clone(&pulses[1]))];
        let mut watchdog = Watchdog::new(&pulses, ROUND * 8, false, &metrics);
        let stuck = |watchdog: &mut Watchdog, expected: usize| {
            (0..200).any(|_| {
                std::thread::sleep(ROUND / 2);
                watchdog.look() == expected
            })
        };
        assert!(stuck(&mut watchdog, 0));
        workers[1].send(()).unwrap();
        assert!(stuck(&mut watchdog, 1));
        assert_eq!(metrics.strain.workers_stuck.get(), 1);
        assert_eq!(metrics.strain.stalls.get(), 1);
        assert!(pulses[1].whereabouts().starts_with("state S"), "{}", pulses[1].whereabouts());
        workers[1].send(()).unwrap();
        assert!(stuck(&mut watchdog, 0));
        assert_eq!(metrics.strain.workers_stuck.get(), 0);
    }

    #[test]
    fn time_that_nobody_was_looking_is_no_time_without_a_beat() {
        let metrics = Metrics::new(&test_config());
        let pulse = Arc::<Pulse>::default();
        let mut watchdog = Watchdog::new(&[Arc::clone(&pulse)], ROUND * 3, false, &metrics);
        pulse.beats.store(1, Ordering::Relaxed);
        assert_eq!([watchdog.look(), watchdog.look(), watchdog.look()], [0, 0, 0]);
        pulse.beats.store(2, Ordering::Relaxed);
        assert_eq!([watchdog.look(), watchdog.look(), watchdog.look()], [0, 0, 0]);
        assert_eq!(watchdog.look(), 1);
    }

    #[test]
    fn whoever_is_to_abort_does() {
        let metrics = Metrics::new(&test_config());
        let pulse = Arc::<Pulse>::default();
        let mut watchdog = Watchdog::new(&[Arc::clone(&pulse)], ROUND * 2, true, &metrics);
        watchdog.end = Some(|| panic!("ended"));
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            watchdog.watch(|| false);
        }));
        assert!(ended.is_err());
        assert_eq!(metrics.strain.stalls.get(), 1);
    }

    #[test]
    fn without_patience_nobody_watches() {
        let metrics = Metrics::new(&test_config());
        let pulse = Arc::<Pulse>::default();
        Watchdog::new(&[pulse], Duration::ZERO, true, &metrics).watch(|| panic!("it looks"));
    }
}
