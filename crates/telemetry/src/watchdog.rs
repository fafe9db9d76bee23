//! This knows whether the runtime still runs, and ends the process where it does not: whoever started it starts it anew,
//! where one that hangs would be waited for.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::{Notify, log};

/// After how many looks without a beat the process is said to be ill.
const ILL: u32 = 3;

/// How long the last words may take: what has stalled may hold the lock of standard error, or the pipe behind it may be
/// full.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// The beats of a runtime, and for how long there were none.
#[derive(Debug, Default)]
pub struct Pulse {
    beats: AtomicU64,
    /// How many looks in a row have seen no beat.
    silent: AtomicU32,
}

impl Pulse {
    /// Whether the runtime ran within the last few looks of the watchdog.
    pub fn is_beating(&self) -> bool {
        self.silent.load(Ordering::Relaxed) < ILL
    }

    fn beat(&self) {
        self.beats.fetch_add(1, Ordering::Relaxed);
    }
}

/// How a runtime is watched. Looks are counted, not time: a process that was stopped, or a machine that slept, has not
/// looked either and finds the runtime no worse than it was.
#[derive(Clone, Copy, Debug)]
pub struct Watchdog {
    /// How often the watchdog looks for a beat.
    pub look_every: Duration,
    /// After how many looks in a row without one the process is ended.
    pub end_after: u32,
}

impl Default for Watchdog {
    fn default() -> Self {
        Self { look_every: Duration::from_secs(1), end_after: 10 }
    }
}

impl Watchdog {
    /// Watches the runtime that this is called in, from a thread of its own and for as long as the process lives. The
    /// same beats tell a service manager that wants to know.
    ///
    /// # Panics
    /// Outside a tokio runtime, or where the system gives no more threads.
    pub fn watch(self, notify: Option<Arc<Notify>>) -> Arc<Pulse> {
        let pulse = Arc::<Pulse>::default();
        let rhythm = Rhythm::new(self.look_every, notify.as_ref().and_then(|notify| notify.watchdog()));
        tokio::spawn(beat(Arc::clone(&pulse), rhythm, notify));
        let watched = Arc::clone(&pulse);
        thread::Builder::new()
            .name("watchdog".into())
            .spawn(move || self.look(&watched))
            .expect("a thread at the start");
        pulse
    }

    fn look(self, pulse: &Pulse) {
        let mut looks = Looks::default();
        loop {
            thread::sleep(self.look_every);
            let silent = looks.look(pulse.beats.load(Ordering::Relaxed));
            pulse.silent.store(silent, Ordering::Relaxed);
            if silent >= self.end_after {
                end(self.look_every * silent);
            }
        }
    }
}

/// What the watchdog has seen.
#[derive(Debug, Default)]
struct Looks {
    beats: u64,
    silent: u32,
}

impl Looks {
    /// How many looks in a row, with this one, have seen no beat.
    fn look(&mut self, beats: u64) -> u32 {
        self.silent = if beats == self.beats { self.silent + 1 } else { 0 };
        self.beats = beats;
        self.silent
    }
}

/// How often the runtime beats, and after how many beats the service manager is told.
#[derive(Debug, PartialEq)]
struct Rhythm {
    beat: Duration,
    tell_after: u32,
}

impl Rhythm {
    /// One beat for each look. The service manager is told at half of its time, as `sd_watchdog_enabled(3)` wants it.
    fn new(look_every: Duration, watchdog: Option<Duration>) -> Self {
        let Some(half) = watchdog.map(|time| time / 2) else {
            return Self { beat: look_every, tell_after: 1 };
        };
        let beat = look_every.min(half).max(Duration::from_micros(1));
        Self { beat, tell_after: (half.as_micros() / beat.as_micros()).try_into().unwrap_or(u32::MAX) }
    }
}

async fn beat(pulse: Arc<Pulse>, rhythm: Rhythm, notify: Option<Arc<Notify>>) {
    // A runtime that was held up does not make up for the beats that it missed.
    let mut ticks = tokio::time::interval(rhythm.beat);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let notify = notify.filter(|notify| notify.watchdog().is_some());
    let mut beats = 0;
    loop {
        ticks.tick().await;
        pulse.beat();
        if let Some(notify) = &notify {
            beats += 1;
            if beats >= rhythm.tell_after {
                notify.alive();
                beats = 0;
            }
        }
    }
}

/// Ends the process at once. Not by `exit`, which runs what other libraries want run at the end and may wait for what
/// has stalled; and not by `abort` first, which leaves a copy of the memory, keys and all, where the system keeps those.
fn end(silent: Duration) -> ! {
    let (said, is_said) = mpsc::channel();
    thread::spawn(move || {
        tracing::error!(?silent, "this is a bug: the main loop has stalled, so the process ends itself");
        log::finish();
        let _ = said.send(());
    });
    let _ = is_said.recv_timeout(LAST_WORDS);
    let _ = kill(Pid::this(), Signal::SIGKILL);
    // The first process of a container is sent no signal that it does not handle. This ends it by a trap.
    std::process::abort()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_without_a_beat_are_counted_up_to_the_next_beat() {
        let mut looks = Looks::default();
        let beats = [0, 0, 1, 1, 1, 5, 6, 6, 7];
        assert_eq!(beats.map(|beats| looks.look(beats)), [1, 2, 0, 1, 2, 0, 0, 1, 0]);
    }

    #[test]
    fn the_service_manager_is_told_at_half_of_its_time() {
        let (second, ms) = (Duration::from_secs(1), Duration::from_millis);
        for (watchdog, beat, tell_after) in [
            (None, second, 1),
            (Some(ms(30_000)), second, 15),
            (Some(ms(3_000)), second, 1),
            (Some(ms(2_000)), second, 1),
            (Some(ms(500)), ms(250), 1),
        ] {
            assert_eq!(Rhythm::new(second, watchdog), Rhythm { beat, tell_after }, "{watchdog:?}");
        }
    }
}
