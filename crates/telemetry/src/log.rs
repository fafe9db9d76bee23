//! This knows how the binaries speak of what they do: to people on a terminal, in JSON to whatever else reads it.
//!
//! A thread of its own writes, so that a disk, a journal or a reader of a pipe that takes nothing holds up no request.

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// How many lines may wait to be written; those that come then are lost.
const QUEUE: usize = 10_000;

/// How long the end of a process waits for the last lines.
const LAST_LINES: Duration = Duration::from_secs(1);

/// That of this process.
static LOG: OnceLock<Arc<Queue>> = OnceLock::new();

/// Begins to log to standard error what the crate `program` and those that it shares with others say, from this level on. It
/// begins a thread.
///
/// # Panics
/// Where it is called twice, or the system gives no more threads.
pub fn start(level: LevelFilter, program: &'static str) {
    // Libraries below us would log header fields at their lower levels, and with them what clients keep secret.
    let targets = Targets::new()
        .with_default(level.min(LevelFilter::WARN))
        .with_targets([program, "kong_entities", "telemetry"].map(|target| (target, level)));
    let registry = tracing_subscriber::registry().with(targets);
    // A line that cannot be written, on a full disk or to a worker of Kong that has gone, is lost and no more: to complain
    // of it on the same standard error would be to panic.
    let (queue, lines) = Queue::new(QUEUE);
    let queue = Arc::new(queue);
    let written = Arc::clone(&queue);
    thread::Builder::new()
        .name("log".into())
        .spawn(move || written.write(&lines, &mut io::stderr()))
        .expect("a thread at the start");
    assert!(LOG.set(Arc::clone(&queue)).is_ok(), "there is one log");
    let layer = tracing_subscriber::fmt::layer().with_writer(queue).log_internal_errors(false);
    if io::stderr().is_terminal() {
        registry.with(layer.with_target(false)).init();
    } else {
        registry.with(layer.json().flatten_event(true)).init();
    }
    // A panic ends one task; it must not break the form of the log. Where it is the main one, the process ends.
    std::panic::set_hook(Box::new(|panic| {
        tracing::error!(%panic, "this is a bug: a task ended half-way");
        finish();
    }));
}

/// Waits until what was logged so far is written, but not for a disk that hangs. To be called before the process ends.
pub fn finish() {
    let Some(log) = LOG.get() else { return };
    let (done, is_done) = mpsc::channel();
    if log.queue.try_send(Queued::Done(done)).is_ok() {
        let _ = is_done.recv_timeout(LAST_LINES);
    }
}

/// Takes lines, and makes nobody wait who has one.
#[derive(Debug)]
struct Queue {
    queue: SyncSender<Queued>,
    /// The lines that it had no room for, and that nobody has been told of.
    lost: AtomicU64,
}

#[derive(Debug)]
enum Queued {
    Line(Vec<u8>),
    /// Whoever sends this wants to know when it has its turn.
    Done(mpsc::Sender<()>),
}

impl Queue {
    fn new(room: usize) -> (Self, Receiver<Queued>) {
        let (queue, lines) = mpsc::sync_channel(room);
        (Self { queue, lost: AtomicU64::new(0) }, lines)
    }

    /// Writes what comes.
    fn write(&self, lines: &Receiver<Queued>, output: &mut impl Write) {
        while let Ok(next) = lines.recv() {
            match next {
                Queued::Line(line) => {
                    let _ = output.write_all(&line);
                }
                Queued::Done(done) => {
                    let _ = done.send(());
                }
            }
            let lost = self.lost.swap(0, Ordering::Relaxed);
            if lost > 0 {
                // Into the queue, too.
                tracing::error!(
                    lost,
                    "lines of this log are lost: they are not written as fast as they come"
                );
            }
        }
    }
}

impl Write for &Queue {
    /// A whole line, as the layer gives it.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.queue.try_send(Queued::Line(line.to_vec())).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_that_is_full_makes_nobody_wait_and_counts_what_is_lost() {
        let (queue, lines) = Queue::new(2);
        for line in [b"1", b"2", b"3", b"4", b"5"] {
            (&queue).write_all(line).unwrap();
        }
        let Queue { queue, lost } = queue;
        drop(queue);
        let kept = lines.iter().map(|queued| match queued {
            Queued::Line(line) => line,
            Queued::Done(_) => panic!("nobody has finished"),
        });
        assert_eq!((kept.collect::<Vec<_>>(), lost.into_inner()), (vec![b"1".to_vec(), b"2".to_vec()], 3));
    }
}
