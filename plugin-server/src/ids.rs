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
