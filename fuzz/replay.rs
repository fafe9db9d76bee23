//! This knows how a fuzz target runs without a fuzzer: its seeds, and a fixed number of mutations of them that are the
//! same in each run. For ordinary tests, which take this file in by its path.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

/// Lengths and numbers at the edges of what formats can say.
const EDGES: [&[u8]; 12] = [
    &[0x00],
    &[0x7f],
    &[0x80],
    &[0xff],
    &[0x00, 0x00, 0x00, 0x00],
    &[0xff, 0xff, 0xff, 0xff],
    &[0x00, 0x00, 0x80, 0x00],
    &[0x7f, 0xff, 0xff, 0xff],
    &[0x01, 0x00, 0x00, 0x00],
    &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
    &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f],
    &[0x91, 0x91, 0x91, 0x91],
];

/// Runs every seed in a folder, and so many mutations of them.
///
/// # Panics
/// Where `body` does, with the bytes that it got.
pub(crate) fn replay(folder: &Path, mutations: usize, body: fn(&[u8])) {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let seeds: Vec<_> = paths.iter().map(|path| std::fs::read(path).unwrap()).collect();
    assert!(seeds.len() >= 10, "only {} seeds in {}", seeds.len(), folder.display());
    let run = |what: &str, bytes: &[u8]| {
        if catch_unwind(AssertUnwindSafe(|| body(bytes))).is_err() {
            panic!("{what}: {}", bytes.escape_ascii());
        }
    };
    for (path, seed) in paths.iter().zip(&seeds) {
        run(&path.display().to_string(), seed);
    }
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    for number in 0..mutations {
        let at = number % seeds.len();
        let mut bytes = seeds[at].clone();
        for _ in 0..=dice.below(4) {
            mutate(&mut bytes, &seeds, &mut dice);
        }
        run(&format!("mutation {number} of {}", paths[at].display()), &bytes);
    }
}

fn mutate(bytes: &mut Vec<u8>, seeds: &[Vec<u8>], dice: &mut Dice) {
    let length = bytes.len();
    let at = dice.below(length + 1);
    let end = (at + 1 + dice.below(8)).min(length);
    match dice.below(8) {
        0 if at < length => bytes[at] ^= 1 << dice.below(8),
        1 if at < length => bytes[at] = dice.below(256) as u8,
        2 => bytes.truncate(at),
        3 => drop(bytes.drain(at..end)),
        4 => {
            let again = bytes[at..end].to_vec();
            bytes.splice(at..at, again);
        }
        5 => {
            let edge = EDGES[dice.below(EDGES.len())];
            // In place of as many bytes, or between them.
            let end = if dice.below(2) == 0 { (at + edge.len()).min(length) } else { at };
            bytes.splice(at..end, edge.iter().copied());
        }
        6 => {
            let other = &seeds[dice.below(seeds.len())];
            bytes.extend(&other[dice.below(other.len() + 1)..]);
        }
        _ => bytes.insert(at, dice.below(256) as u8),
    }
}

/// Xorshift: enough to spread over the seeds, and the same everywhere.
struct Dice(u64);

impl Dice {
    /// From 0 to less than `limit`, which is not 0.
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }
}
