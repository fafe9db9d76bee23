//! This knows how to follow a declarative file as it changes.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::followed::{Followed, Origin, SourceStatus};
use crate::{DeclarativeError, Entities, load};

/// How often the file is looked at. A change counts once two looks in a row have seen the same file, so that a file
/// that is being written is not read half-way: cut at a line it may well parse, with plugins missing.
pub const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// The newest entities that could be read.
pub type Watched = watch::Receiver<Arc<Entities>>;

/// Reads the file and then follows it for as long as the runtime lives. A new version that cannot be read is logged
/// and the old one stays.
///
/// # Errors
/// Those of [`load`], for the first version.
///
/// # Panics
/// Outside a tokio runtime.
pub fn watch(path: &Path, every: Duration) -> Result<Watched, DeclarativeError> {
    follow_file(path, every).map(|followed| followed.entities)
}

/// The same, and how the file fares.
///
/// # Errors
/// Those of [`load`], for the first version.
///
/// # Panics
/// Outside a tokio runtime.
pub fn follow_file(path: &Path, every: Duration) -> Result<Followed, DeclarativeError> {
    let path = path.to_owned();
    // Before it is read: a change in between is then noticed.
    let loaded = Stamp::of(&path);
    let entities = watch::Sender::new(Arc::new(load(&path)?));
    let mut first = SourceStatus::new(Origin::DeclarativeFile);
    first.generation = 1;
    first.confirm(Duration::ZERO);
    let status = watch::Sender::new(first);
    let followed = Followed { entities: entities.subscribe(), status: status.subscribe() };
    tokio::spawn(follow(path, every, loaded, entities, status));
    Ok(followed)
}

async fn follow(
    path: PathBuf,
    every: Duration,
    loaded: Option<Stamp>,
    entities: watch::Sender<Arc<Entities>>,
    status: watch::Sender<SourceStatus>,
) {
    let mut ticks = tokio::time::interval(every);
    let mut looks = Looks { loaded, last: loaded };
    loop {
        ticks.tick().await;
        if entities.is_closed() {
            return;
        }
        let now = Stamp::of(&path);
        if !looks.is_settled_change(now) {
            status.send_if_modified(|status| {
                // It is the version in use, or else one that could not be read.
                if now == looks.loaded && status.last_error.is_none() {
                    status.confirm(Duration::ZERO);
                }
                false
            });
            continue;
        }
        let reading = path.clone();
        let read = tokio::task::spawn_blocking(move || load(&reading)).await;
        let problem = match read {
            Ok(Ok(read)) => {
                entities.send_replace(Arc::new(read));
                status.send_modify(|status| {
                    status.generation += 1;
                    status.last_error = None;
                    status.confirm(Duration::ZERO);
                });
                // Said once it counts: whoever waits for this line may rely on it.
                tracing::info!(file = %path.display(), "the declarative configuration was read again");
                continue;
            }
            Ok(Err(error)) => error.to_string(),
            Err(panic) => panic.to_string(),
        };
        tracing::error!(
            error = problem,
            "the changed declarative configuration cannot be used: the last good one stays"
        );
        status.send_modify(|status| {
            status.failures += 1;
            status.last_error = Some(problem);
        });
    }
}

/// The file as it was when it was read, and at the last look.
struct Looks<S> {
    loaded: S,
    last: S,
}

impl<S: Copy + PartialEq> Looks<S> {
    /// Whether to read the file: it is not what was read before, and nobody is writing it.
    fn is_settled_change(&mut self, now: S) -> bool {
        let settled = now == self.last;
        self.last = now;
        if now == self.loaded || !settled {
            return false;
        }
        self.loaded = now;
        true
    }
}

/// What tells one version of a file from another without reading it. The inode is in it because a file that is
/// replaced as a whole, as Kubernetes does with its volumes, may keep size and time.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let meta = std::fs::metadata(path).ok()?;
        Some(Self {
            device: meta.dev(),
            inode: meta.ino(),
            size: meta.size(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_once_it_has_stopped_changing() {
        let mut looks = Looks { loaded: 0, last: 0 };
        let seen = [0, 1, 2, 2, 2, 0, 0, 3, 0, 3, 3];
        let read = seen.map(|stamp| looks.is_settled_change(stamp));
        let expected = [false, false, false, true, false, false, true, false, false, false, true];
        assert_eq!(read, expected);
    }
}
