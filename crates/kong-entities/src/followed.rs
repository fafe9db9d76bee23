//! This knows what a source of Kong's configuration that is followed gives: the newest entities, and how it fares.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::Watched;

/// A source that is followed. Dropping `entities` ends it.
#[derive(Debug)]
pub struct Followed {
    /// The newest configuration that could be read. It is replaced as a whole, and only where something has changed; where
    /// none could be read yet it is [`Entities::unknown`](crate::Entities::unknown).
    pub entities: Watched,
    /// How the source fares. It follows the configuration: what it says may be of the one before for a moment, so whether
    /// anything is known is to be asked of the entities themselves ([`Entities::is_known`](crate::Entities::is_known)).
    pub status: watch::Receiver<SourceStatus>,
}

/// Entities that nobody reads anew: the version of now.
impl From<Watched> for Followed {
    fn from(entities: Watched) -> Self {
        let mut status = SourceStatus::new(Origin::DeclarativeFile);
        status.confirm(Duration::ZERO);
        Self { entities, status: watch::Sender::new(status).subscribe() }
    }
}

/// How a source fares. Whoever waits for a change of it is not woken where only its age has changed.
#[derive(Clone, Debug)]
pub struct SourceStatus {
    /// Where the configuration in use comes from.
    pub origin: Origin,
    /// How many configurations have been given so far, the first one included. One that is not known does not count.
    pub generation: u64,
    /// How often the source could not be read since it is followed.
    pub failures: u64,
    /// Why it could not be read the last time. None: it could.
    pub last_error: Option<String>,
    /// How often the snapshot file was written since the source is followed.
    pub snapshots_written: u64,
    /// Why the snapshot file could not be written the last time. None: it could, or there is none to write.
    pub snapshot_file_error: Option<String>,
    confirmed: Option<Confirmed>,
}

/// Where a configuration comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nothing could be read yet, and there is no snapshot that can be used: who asks for certificates asks everybody.
    NoSnapshot,
    /// The snapshot file: the Admin API has not answered yet.
    SnapshotFile,
    /// The Admin API.
    AdminApi,
    /// A declarative file.
    DeclarativeFile,
}

#[derive(Clone, Copy, Debug)]
struct Confirmed {
    at: Instant,
    /// How old it was then.
    age: Duration,
}

impl SourceStatus {
    pub(crate) fn new(origin: Origin) -> Self {
        Self {
            origin,
            generation: 0,
            failures: 0,
            last_error: None,
            snapshots_written: 0,
            snapshot_file_error: None,
            confirmed: None,
        }
    }

    /// For how long nobody knows whether the configuration is still Kong's: the time since the source last said so. Of a
    /// snapshot file: since it was written, which may be [`REWRITE`](crate::REWRITE) earlier. None: there is none.
    pub fn age(&self) -> Option<Duration> {
        self.confirmed.map(|confirmed| confirmed.age + confirmed.at.elapsed())
    }

    /// It is Kong's as of this long ago.
    pub(crate) fn confirm(&mut self, age: Duration) {
        self.confirmed = Some(Confirmed { at: Instant::now(), age });
    }
}
