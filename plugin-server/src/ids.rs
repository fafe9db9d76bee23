//! This knows where the ids of instances and events begin.

/// A first id that no other run of the server had.
///
/// Kong keeps the ids that it was given when a server dies, and tries them on the next one. If both counted from 0, a
/// worker that missed the death would have its requests judged by the configuration of another route, or send the
/// answer to a PDK call into another request. So each run counts from a random place; Kong's numbers are floats, exact
/// up to 2^53.
pub(crate) fn first() -> u64 {
    let mut random = [0u8; 8];
    // Without randomness the time still tells runs apart.
    if getrandom::fill(&mut random).is_err() {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        random = u64::try_from(now.as_micros()).unwrap_or_default().to_be_bytes();
    }
    (u64::from_be_bytes(random) % (1 << 52)) | (1 << 32)
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
    fn small_ids_follow_the_clock_and_come_around_without_zero() {
        let (early, late) = (first_int32(), first_int32());
        // Also if the clock came around just now.
        assert!(late.wrapping_sub(early) & MAX_INT32 < 60_000, "{early} {late}");
        assert_eq!((next_int32(7), next_int32(MAX_INT32 - 1), next_int32(MAX_INT32)), (8, MAX_INT32, 1));
    }
}
