//! This knows when a file that others write is to be read again.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// A file, or several that belong together, as it was when it was read, and at the last look.
#[derive(Debug)]
pub struct Looks<S> {
    loaded: S,
    last: S,
}

impl<S: Clone + PartialEq> Looks<S> {
    /// The file was like this right before it was read for the first time.
    pub fn new(loaded: S) -> Self {
        Self { last: loaded.clone(), loaded }
    }

    /// As it was when it was read last.
    pub(crate) fn loaded(&self) -> &S {
        &self.loaded
    }

    /// Whether to read the file: it is not what was read before, and nobody is writing it.
    pub fn is_settled_change(&mut self, now: S) -> bool {
        let settled = now == self.last;
        self.last = now.clone();
        if now == self.loaded || !settled {
            return false;
        }
        self.loaded = now;
        true
    }
}

/// What tells one version of a file from another without reading it. The inode is in it because a file that is
/// replaced as a whole, as Kubernetes does with its volumes, may keep size and time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// That of the file which is there now, behind symbolic links. None: it cannot be looked at.
    pub fn of(path: &Path) -> Option<Self> {
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

/// What there is to see on a disk, which may take its time: no request waits for it. None: it could not be looked at now.
///
/// # Panics
/// Outside a tokio runtime.
pub async fn look<S: Send + 'static>(look: impl FnOnce() -> S + Send + 'static) -> Option<S> {
    tokio::task::spawn_blocking(look).await.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_once_it_has_stopped_changing() {
        let mut looks = Looks::new(0);
        let seen = [0, 1, 2, 2, 2, 0, 0, 3, 0, 3, 3];
        let read = seen.map(|stamp| looks.is_settled_change(stamp));
        let expected = [false, false, false, true, false, false, true, false, false, false, true];
        assert_eq!(read, expected);
    }
}
