//! This knows the serial numbers in a CRL, a million of them where need be, and finds one of them.

use std::time::{Duration, SystemTime};

use crate::Trouble;
use crate::der::malformed;

/// One entry of a CRL.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry<'a> {
    /// The magnitude of its serial number, see [`crate::Link::serial`].
    pub(super) serial: &'a [u8],
    /// The revocation date, in seconds since 1970.
    pub(super) since: i64,
    /// Whether its reason is `removeFromCRL`.
    pub(super) removed: bool,
}

/// What is said of a serial number that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) since: SystemTime,
    pub(super) removed: bool,
}

/// The revocation date behind each number: 39 bits, up to the year 19391, below a bit for `removeFromCRL`.
const DATE: usize = 5;
const REMOVED: u64 = 1 << 39;

/// Sorted arrays of numbers of about the same length, each with zeros before it that fill it up, and the date after it: no
/// pointers, and nothing lost to alignment. RFC 5280 (section 4.1.2.2) knows no numbers of more than 20 octets; some
/// authorities do.
#[derive(Debug)]
pub(super) struct Serials {
    up_to_8: Shelf<{ 8 + DATE }>,
    up_to_16: Shelf<{ 16 + DATE }>,
    up_to_20: Shelf<{ 20 + DATE }>,
    up_to_64: Shelf<{ 64 + DATE }>,
}

#[derive(Debug)]
struct Shelf<const N: usize>(Vec<[u8; N]>);

impl Serials {
    /// Takes these entries in. They are asked for twice, first to see how much room they need: no more is taken than that.
    pub(super) fn collect<'a, I>(entries: impl Fn() -> I) -> Result<Self, Trouble>
    where
        I: Iterator<Item = Result<Entry<'a>, Trouble>>,
    {
        let mut counts = [0_usize; 4];
        for entry in entries() {
            let count = match entry?.serial.len() {
                0..=8 => &mut counts[0],
                9..=16 => &mut counts[1],
                17..=20 => &mut counts[2],
                21..=64 => &mut counts[3],
                _ => return Err(malformed("a serial number of more than 64 octets")),
            };
            *count += 1;
        }
        let mut serials = Self {
            up_to_8: Shelf(Vec::with_capacity(counts[0])),
            up_to_16: Shelf(Vec::with_capacity(counts[1])),
            up_to_20: Shelf(Vec::with_capacity(counts[2])),
            up_to_64: Shelf(Vec::with_capacity(counts[3])),
        };
        for entry in entries() {
            let entry = entry?;
            match entry.serial.len() {
                0..=8 => serials.up_to_8.push(&entry),
                9..=16 => serials.up_to_16.push(&entry),
                17..=20 => serials.up_to_20.push(&entry),
                _ => serials.up_to_64.push(&entry),
            }
        }
        serials.up_to_8.0.sort_unstable();
        serials.up_to_16.0.sort_unstable();
        serials.up_to_20.0.sort_unstable();
        serials.up_to_64.0.sort_unstable();
        Ok(serials)
    }

    /// What is said of a number. Where it stands there twice, revoked goes before removed, and the earlier date before the
    /// later one.
    pub(super) fn find(&self, serial: &[u8]) -> Option<Found> {
        match serial.len() {
            0..=8 => self.up_to_8.find(serial),
            9..=16 => self.up_to_16.find(serial),
            17..=20 => self.up_to_20.find(serial),
            21..=64 => self.up_to_64.find(serial),
            _ => None,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.up_to_8.0.len() + self.up_to_16.0.len() + self.up_to_20.0.len() + self.up_to_64.0.len()
    }

    /// How many bytes they take.
    pub(super) fn size(&self) -> usize {
        self.up_to_8.size() + self.up_to_16.size() + self.up_to_20.size() + self.up_to_64.size()
    }
}

impl<const N: usize> Shelf<N> {
    fn push(&mut self, entry: &Entry<'_>) {
        // Dates before 1970 are only told, so that 1970 does as well.
        let since = u64::try_from(entry.since).unwrap_or(0).min(REMOVED - 1);
        let date = since | if entry.removed { REMOVED } else { 0 };
        let mut slot = Self::slot(entry.serial);
        slot[N - DATE..].copy_from_slice(&date.to_be_bytes()[8 - DATE..]);
        self.0.push(slot);
    }

    /// A number with a date of zeros, which is before all others.
    fn slot(serial: &[u8]) -> [u8; N] {
        let mut slot = [0; N];
        slot[N - DATE - serial.len()..N - DATE].copy_from_slice(serial);
        slot
    }

    fn find(&self, serial: &[u8]) -> Option<Found> {
        let wanted = Self::slot(serial);
        let at = self.0.partition_point(|slot| *slot < wanted);
        let (number, date) = self.0.get(at)?.split_at(N - DATE);
        if *number != wanted[..N - DATE] {
            return None;
        }
        let date = date.iter().fold(0, |date, octet| date << 8 | u64::from(*octet));
        let since = SystemTime::UNIX_EPOCH + Duration::from_secs(date & !REMOVED);
        Some(Found { since, removed: date & REMOVED != 0 })
    }

    fn size(&self) -> usize {
        self.0.capacity() * N
    }
}
