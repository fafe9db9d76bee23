//! This knows the ids of instances and events: where they begin, and which server gave one.

use std::sync::atomic::{AtomicU32, Ordering};

/// One run of the server among all that Kong may have ids of: in MsgPack:1 it stands in the upper half of each id.
///
/// Kong keeps the ids that it was given when a server dies, and tries them on the next one. If both counted from 0, a
/// worker that missed the death would have its requests judged by the configuration of another route, or send the
/// answer to a PDK call into another request. So each run has a random number of its own, and counts from a random
/// place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run(u32);

impl Run {
    /// Kong's numbers are floats, exact up to 2^53: above the 32 bits of a count there is room for these.
    const END: u32 = 1 << 21;

    /// A run that is most likely no other's.
    pub(crate) fn random() -> Self {
        // 0 is left out, so that no id is small: other plugin servers, whose ids Kong may still have, count from 0.
        Self(1 + random() % (Self::END - 1))
    }

    /// The run that gave an id; none for what no run gives.
    pub(crate) fn of(id: u64) -> Option<Self> {
        u32::try_from(id >> 32).ok().filter(|run| (1..Self::END).contains(run)).map(Self)
    }
}

/// The number, as it stands in the name of the run's own socket.
impl std::fmt::Display for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl std::str::FromStr for Run {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        text.parse().ok().filter(|run| (1..Self::END).contains(run)).map(Self).ok_or(())
    }
}

/// The ids that a run gives to one kind of thing.
#[derive(Debug)]
pub(crate) struct Ids {
    run: Run,
    next: AtomicU32,
}

impl Ids {
    pub(crate) fn of(run: Run) -> Self {
        Self { run, next: AtomicU32::new(random()) }
    }

    /// Another id. The count comes around after 2^32, when whatever had the same id is long gone.
    pub(crate) fn next(&self) -> u64 {
        u64::from(self.run.0) << 32 | u64::from(self.next.fetch_add(1, Ordering::Relaxed))
    }
}

fn random() -> u32 {
    getrandom::u32().unwrap_or_else(|_| {
        // Without randomness the time still tells runs apart.
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        // Truncated on purpose: the lower bits differ most.
        now.as_micros() as u32
    })
}

/// The largest id in ProtoBuf:1, an int32.
pub(crate) const MAX_INT32: u32 = i32::MAX as u32;

/// The same for ids that must fit an int32, where one random place in 2^31 would meet the ids of a run before now and
/// then. So each run counts from where the clock is, in milliseconds, and counts slower than the clock runs: as long
/// as a run starts fewer than 1,000 instances a second from its beginning to its end, the next one begins beyond all
/// of them, with no chance involved. The clock comes around after 25 days, and may be set back; then the chance is
/// that of a random place.
pub(crate) fn first_int32() -> u32 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    // Truncated on purpose: what is left comes around.
    now.as_millis() as u32 & MAX_INT32
}

/// The id after this one.
pub(crate) fn next_int32(id: u32) -> u32 {
    // 0 is left out: on the wire it is the same as none.
    if id < MAX_INT32 { id + 1 } else { 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_says_which_run_gave_it_and_is_exact_as_a_float() {
        for _ in 0..100 {
            let run = Run::random();
            let ids = Ids::of(run);
            let (one, other) = (ids.next(), ids.next());
            assert!(one != other && [one, other].iter().all(|id| (1 << 32..1 << 53).contains(id)));
            assert_eq!((Run::of(one), Run::of(other)), (Some(run), Some(run)));
            assert_eq!(run.to_string().parse(), Ok(run));
        }
        assert_ne!(Run::random(), Run::random());
        for id in [0, 7, u64::from(u32::MAX), 1 << 53, u64::MAX] {
            assert_eq!(Run::of(id), None, "{id}");
        }
        let ids = Ids { run: Run(1), next: AtomicU32::new(u32::MAX) };
        assert_eq!([ids.next(), ids.next()], [(2 << 32) - 1, 1 << 32]);
        assert!(["0", "2097152", "-1", "x", ""].iter().all(|text| text.parse::<Run>().is_err()));
    }

    #[test]
    fn small_ids_follow_the_clock_and_come_around_without_zero() {
        let (early, late) = (first_int32(), first_int32());
        // Also if the clock came around just now.
        assert!(late.wrapping_sub(early) & MAX_INT32 < 60_000, "{early} {late}");
        assert_eq!((next_int32(7), next_int32(MAX_INT32 - 1), next_int32(MAX_INT32)), (8, MAX_INT32, 1));
    }
}
