//! This knows how to follow a declarative file as it changes.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

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
    let path = path.to_owned();
    // Before it is read: a change in between is then noticed.
    let loaded = Stamp::of(&path);
    let (sender, receiver) = watch::channel(Arc::new(load(&path)?));
    tokio::spawn(follow(path, every, loaded, sender));
    Ok(receiver)
}

async fn follow(path: PathBuf, every: Duration, loaded: Option<Stamp>, sender: watch::Sender<Arc<Entities>>) {
    let mut ticks = tokio::time::interval(every);
    let mut looks = Looks { loaded, last: loaded };
    loop {
        ticks.tick().await;
        if sender.is_closed() {
            return;
        }
        if !looks.is_settled_change(Stamp::of(&path)) {
            continue;
        }
        let reading = path.clone();
        let read = tokio::task::spawn_blocking(move || load(&reading)).await;
        match read {
            Ok(Ok(entities)) => {
                tracing::info!(file = %path.display(), "the declarative configuration was read again");
                sender.send_replace(Arc::new(entities));
            }
            Ok(Err(error)) => {
                tracing::error!(%error, "the changed declarative configuration cannot be used: the last good one stays");
            }
            Err(panic) => {
                tracing::error!(error = %panic, "reading the declarative configuration failed: the last good one stays");
            }
        }
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
