//! This knows when two clocks are too far apart: the proof of a hand-off says when it was made.

use std::time::{Duration, SystemTime};

use client_cert::{LIFETIME, MAX_CLOCK_SKEW};

use crate::Finding;

const CLOCK: &str = "clock";

/// What is worth a word though no proof fails for it yet: clocks that drift do not stop there.
const NOTICEABLE: Duration = Duration::from_secs(2);

/// What is to be said of another host's clock that showed `date`, in whole seconds, at some time between `before` and
/// `after` of this one's.
pub fn clock(date: SystemTime, before: SystemTime, after: SystemTime) -> Finding {
    let remedy = "have both hosts ask the same time servers (timedatectl, chronyc tracking)";
    let (ahead, apart) = match apart(date, before, after) {
        Apart::No => return Finding::ok(CLOCK, "the same as Kong's, as far as whole seconds show"),
        Apart::Ahead(by) => ("ahead of", by),
        Apart::Behind(by) => ("behind", by),
    };
    let finding = format!("at least {:.1} s {ahead} Kong's", apart.as_secs_f64());
    if apart > MAX_CLOCK_SKEW {
        let (skew, lifetime) = (MAX_CLOCK_SKEW.as_secs(), LIFETIME.as_secs());
        let finding = format!(
            "{finding}: certificates that the shim hands on are refused where its clock is {skew} s ahead of the plugin \
             server's, or {lifetime} s behind"
        );
        Finding::fail(CLOCK, finding, remedy)
    } else if apart > NOTICEABLE {
        Finding::warn(CLOCK, finding, remedy)
    } else {
        Finding::ok(CLOCK, finding)
    }
}

/// How this clock stands to the other one, at least.
#[derive(Debug, PartialEq, Eq)]
enum Apart {
    No,
    Ahead(Duration),
    Behind(Duration),
}

fn apart(date: SystemTime, before: SystemTime, after: SystemTime) -> Apart {
    // It showed anything from `date` up to the next second.
    match (before.duration_since(date + Duration::from_secs(1)), date.duration_since(after)) {
        (Ok(ahead), _) if !ahead.is_zero() => Apart::Ahead(ahead),
        (_, Ok(behind)) if !behind.is_zero() => Apart::Behind(behind),
        _ => Apart::No,
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::Verdict::{Fail, Ok, Warn};

    #[test]
    fn clocks_are_as_far_apart_as_whole_seconds_prove() {
        let at = |millis: u64| UNIX_EPOCH + Duration::from_millis(1_800_000_000_000 + millis);
        for (date, before, after, verdict, says) in [
            (0, 0, 10, Ok, "the same"),
            (0, 999, 1000, Ok, "the same"),
            // A slow answer proves nothing.
            (10_000, 0, 10_000, Ok, "the same"),
            (0, 1_500, 1_510, Ok, "at least 0.5 s ahead"),
            (0, 3_000, 3_010, Ok, "at least 2.0 s ahead"),
            (0, 3_100, 3_110, Warn, "at least 2.1 s ahead"),
            (3_000, 0, 900, Warn, "at least 2.1 s behind"),
            (0, 6_000, 6_000, Warn, "at least 5.0 s ahead"),
            (0, 6_001, 6_001, Fail, "at least 5.0 s ahead of Kong's: certificates"),
            (5_000, 0, 0, Warn, "at least 5.0 s behind"),
            (5_001, 0, 0, Fail, "at least 5.0 s behind"),
        ] {
            let found = clock(at(date), at(before), at(after));
            assert!(found.verdict == verdict && found.finding.contains(says), "{date} {before}: {found}");
            assert_eq!(found.remedy.is_some(), verdict != Ok, "{found}");
        }
    }
}
