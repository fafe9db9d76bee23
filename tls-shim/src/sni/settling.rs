//! This knows which CA names go with each row of the map: what comes of all plugins that a client may meet there.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;

use super::{Row, SentIndex, SniMap, name};
use crate::ca_names::{Announcement, Sent};

/// How many lists of CA names are made for names between patterns of both kinds. Each is a context of OpenSSL.
const MAX_BETWEEN: usize = 4096;

/// A plugin that announces something, and what: positions in [`SniMap::plugins`] and [`SniMap::announcements`].
type Voice = (usize, usize);

impl SniMap {
    /// Works out what is sent where, now that all reasons are there: a handshake only looks it up.
    ///
    /// Thousands of plugins may meet on one pattern, and thousands of names match it. So what a row has to say is worked
    /// out once, and what comes of the same announcements in the same order too.
    pub(super) fn settle(&mut self) {
        let mut sent = Interned::default();
        // The first is what `nothing` stands for.
        sent.position(Sent::Nothing);
        let mut merged: HashMap<Vec<usize>, SentIndex> = HashMap::new();
        let (mut suffixes, mut prefixes) = (BTreeSet::new(), BTreeSet::new());
        let mut once = Once::new(self.announcements.len());
        let voices: HashMap<&str, Vec<Voice>> =
            self.rows.iter().map(|(key, row)| (key.as_str(), self.voices(row, &mut once))).collect();
        let mut settled = Vec::with_capacity(self.rows.len());
        for key in self.rows.keys() {
            let met = name::around(key).filter_map(|key| voices.get(key)).flatten().copied();
            let met = once.of(met.collect()).into_iter().map(|(_, announcement)| announcement).collect();
            let index = *merged.entry(met).or_insert_with_key(|met| {
                let met = met.iter().map(|&announcement| &self.announcements[announcement]);
                SentIndex(sent.position(Sent::merged(met)))
            });
            match key.as_bytes() {
                [b'.', ..] => _ = suffixes.insert(index.0),
                [.., b'.'] => _ = prefixes.insert(index.0),
                _ => {}
            }
            settled.push(index);
        }
        // In the same order, since nothing has been put in or taken out.
        for (row, index) in self.rows.values_mut().zip(settled) {
            row.sent = index;
        }
        self.between = if suffixes.len() * prefixes.len() > MAX_BETWEEN {
            Err((suffixes.len(), prefixes.len()))
        } else {
            let pairs =
                suffixes.iter().flat_map(|&suffix| prefixes.iter().map(move |&prefix| (suffix, prefix)));
            let between = pairs.map(|(suffix, prefix)| {
                let merged = sent.values[suffix].with(&sent.values[prefix]);
                ((SentIndex(suffix), SentIndex(prefix)), SentIndex(sent.position(merged)))
            });
            Ok(between.collect())
        };
        self.sent = sent.values;
    }

    /// What the plugins of one row announce, in their order. Of several that announce the same the first counts, and one
    /// that cannot say what it has to keeps the others from being heard (see [`Sent::merged`]).
    fn voices(&self, row: &Row, once: &mut Once) -> Vec<Voice> {
        let voices = row.plugins.iter().map(|&plugin| (plugin, self.plugins[plugin].announcement));
        let is = |announcement: &usize| &self.announcements[*announcement];
        let voices = voices.filter(|(_, announcement)| *is(announcement) != Announcement::Silent).collect();
        let voices = once.of(voices);
        match voices.iter().find(|(_, announcement)| matches!(is(announcement), Announcement::Broken(_))) {
            Some(&broken) => vec![broken],
            None => voices,
        }
    }
}

/// Keeps the first voice for each announcement.
struct Once {
    /// The last round in which each announcement came.
    came: Vec<usize>,
    round: usize,
}

impl Once {
    fn new(announcements: usize) -> Self {
        Self { came: vec![0; announcements], round: 0 }
    }

    /// Of these voices, in the order of the plugins.
    fn of(&mut self, mut voices: Vec<Voice>) -> Vec<Voice> {
        self.round += 1;
        voices.sort();
        voices.retain(|&(_, announcement)| {
            std::mem::replace(&mut self.came[announcement], self.round) != self.round
        });
        voices
    }
}

/// Gives every value one position.
pub(super) struct Interned<T> {
    pub(super) values: Vec<T>,
    positions: HashMap<T, usize>,
}

impl<T> Default for Interned<T> {
    fn default() -> Self {
        Self { values: Vec::new(), positions: HashMap::new() }
    }
}

impl<T: Clone + Eq + Hash> Interned<T> {
    pub(super) fn position(&mut self, value: T) -> usize {
        *self.positions.entry(value).or_insert_with_key(|value| {
            self.values.push(value.clone());
            self.values.len() - 1
        })
    }
}
