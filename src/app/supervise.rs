//! Threads and tasks beside the requests are begun anew when they panic: a fault in one round must
//! not end the watching over memory, or the admin listener, for good.

use std::future::Future;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::Handle;

use crate::clock;
use crate::telemetry::Metrics;

/// Shortest and longest pause before a start anew; it doubles as long as panics follow each other.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));
/// Work that went well for this long has recovered.
const RECOVERED: Duration = Duration::from_secs(60);

/// The pauses between starts.
struct Backoff {
    pause: Duration,
    begun: Duration,
}

impl Backoff {
    fn new() -> Self {
        Self { pause: PAUSE.0, begun: clock::now().boot }
    }

    /// How long to wait after a panic at `boot`.
    fn next(&mut self, boot: Duration) -> Duration {
        if boot.saturating_sub(self.begun) >= RECOVERED {
            self.pause = PAUSE.0;
        }
        let pause = self.pause;
        self.pause = (pause * 2).min(PAUSE.1);
        self.begun = boot + pause;
        pause
    }
}

/// Runs `work` on a thread of this name until it returns, and anew as often as it panics.
pub(super) fn thread(
    name: &'static str,
    metrics: &Arc<Metrics>,
    mut work: impl FnMut() + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    let metrics = Arc::clone(metrics);
    std::thread::Builder::new().name(name.into()).spawn(move || {
        let mut backoff = Backoff::new();
        while catch_unwind(AssertUnwindSafe(&mut work)).is_err() {
            std::thread::sleep(failed(name, &metrics, &mut backoff));
        }
    })
}

/// Runs what `begin` makes until it ends, and anew as often as it panics.
pub(super) fn task<F>(
    runtime: &Handle,
    name: &'static str,
    metrics: &Arc<Metrics>,
    mut begin: impl FnMut() -> F + Send + 'static,
) -> tokio::task::JoinHandle<()>
where
    F: Future<Output = ()> + Send + 'static,
{
    let metrics = Arc::clone(metrics);
    runtime.spawn(async move {
        let mut backoff = Backoff::new();
        loop {
            let ended = tokio::spawn(begin()).await;
            if !ended.is_err_and(|error| error.is_panic()) {
                return;
            }
            tokio::time::sleep(failed(name, &metrics, &mut backoff)).await;
        }
    })
}

fn failed(name: &'static str, metrics: &Metrics, backoff: &mut Backoff) -> Duration {
    metrics.strain.panicked(name);
    let pause = backoff.next(clock::now().boot);
    tracing::error!(task = name, ?pause, "a task beside the requests panicked and is begun anew");
    pause
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::telemetry::test_config;

    fn panics(metrics: &Metrics, task: &str) -> bool {
        metrics.render().contains(&format!("atoll_background_panics_total{{task=\"{task}\"}} 2"))
    }

    #[test]
    fn a_thread_that_panics_goes_on_with_what_it_knew() {
        let metrics = Metrics::new(&test_config());
        let mut rounds = 0;
        let (told, hears) = std::sync::mpsc::channel();
        let thread = thread("sweep", &metrics, move || {
            rounds += 1;
            assert!(rounds > 2, "told to");
            told.send(rounds).unwrap();
        });
        assert_eq!(hears.recv_timeout(Duration::from_secs(20)), Ok(3));
        thread.unwrap().join().unwrap();
        assert!(panics(&metrics, "sweep"));
    }

    #[tokio::test]
    async fn a_task_that_panics_is_begun_anew_and_one_that_ends_is_not() {
        let metrics = Metrics::new(&test_config());
        let begun = Arc::new(AtomicU32::new(0));
        let (told, mut hears) = tokio::sync::mpsc::channel(1);
        let count = Arc::clone(&begun);
        task(&Handle::current(), "admin", &metrics, move || {
            let (number, told) = (count.fetch_add(1, Ordering::SeqCst), told.clone());
            async move {
                assert!(number >= 2, "told to");
                told.send(()).await.unwrap();
            }
        });
        hears.recv().await.unwrap();
        // The last sender is dropped with the task.
        assert_eq!(hears.recv().await, None);
        assert_eq!(begun.load(Ordering::SeqCst), 3);
        assert!(panics(&metrics, "admin"));
    }

    #[test]
    fn pauses_double_up_to_a_bound_and_shorten_after_good_times() {
        let mut backoff = Backoff { pause: PAUSE.0, begun: Duration::ZERO };
        let mut now = Duration::ZERO;
        let mut pauses = Vec::new();
        for _ in 0..12 {
            let pause = backoff.next(now);
            pauses.push(pause);
            now += pause;
        }
        assert!(pauses.is_sorted());
        assert_eq!((pauses[0], pauses[1], pauses[11]), (PAUSE.0, PAUSE.0 * 2, PAUSE.1));
        assert_eq!(backoff.next(now + RECOVERED * 2), PAUSE.0);
    }
}
