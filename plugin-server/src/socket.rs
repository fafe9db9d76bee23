//! This knows the socket: the path that Kong connects to, and beside it a name of this server's own.
//!
//! Who removes the socket of a server that runs cuts it off from Kong, which would say so only where it needs another
//! connection. So the names are looked for, and put back where nothing is.

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::UnixListener;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::ids::Run;
use crate::woken_by::woken_by;

/// How often the names are looked for, should nobody tell that something has happened to one of them.
const LOOK: Duration = Duration::from_secs(1);

/// This server's socket.
#[derive(Debug)]
pub(crate) struct Socket {
    run: Run,
    names: Names,
    /// What the names lead to.
    inode: Inode,
    /// Tells of changes in the folder, where the system can.
    changes: Option<Changes>,
    /// How often the names are looked for all the same.
    look: Duration,
}

/// Its two names.
#[derive(Clone, Debug)]
struct Names {
    path: PathBuf,
    own: PathBuf,
    /// Whether another server has taken the path. It is that one's to keep: this one leaves soon, and a path to it would
    /// lead nowhere.
    succeeded: CancellationToken,
}

/// A file by whichever name: its device and number there, which are no other's while the socket is bound.
type Inode = (u64, u64);

/// The socket cannot be bound.
#[derive(Debug, thiserror::Error)]
#[error("socket {}: {error}", path.display())]
pub(crate) struct BindError {
    path: PathBuf,
    error: io::Error,
}

impl Socket {
    /// Binds a socket of this server's own, and then also in place of whatever is at the path.
    ///
    /// The new socket takes the path in one step, so that a connection finds one of them at any time; nobody ever unlinks
    /// the path, so a leaving server cannot take away its successor's.
    ///
    /// # Errors
    /// What the system says, with the path.
    pub(crate) fn bind(path: &Path) -> Result<(UnixListener, Self), BindError> {
        let failed = |error| BindError { path: path.to_owned(), error };
        remove_dead(path).map_err(failed)?;
        let changes = Changes::in_folder_of(path).inspect_err(|error| {
            tracing::debug!(%error, "changes of the socket's folder are not told");
        });
        loop {
            let run = Run::random();
            let own = own(path, run);
            match listen(&own) {
                // Somebody else's run.
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
                Err(error) => return Err(failed(error)),
                Ok((listener, inode)) => {
                    let names = Names { path: path.to_owned(), own, succeeded: CancellationToken::new() };
                    names.take_path().map_err(failed)?;
                    return Ok((listener, Self { run, names, inode, changes: changes.ok(), look: LOOK }));
                }
            }
        }
    }

    /// Puts the names back whenever somebody has removed them, and returns once nothing leads to the listener that there
    /// was, with another one.
    ///
    /// A disk that takes its time keeps nobody waiting. To be dropped in the middle of a look loses what that look has bound.
    pub(crate) async fn keep(&mut self) -> UnixListener {
        let mut looks = tokio::time::interval_at(Instant::now() + self.look, self.look);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut said = None;
        loop {
            tokio::select! {
                _ = looks.tick() => {}
                () = happens(self.changes.as_ref()) => {}
            }
            let (names, inode) = (self.names.clone(), self.inode);
            let looked = tokio::task::spawn_blocking(move || names.put_back(inode)).await;
            let bound = looked.unwrap_or_else(|panic| Err(panic.into()));
            let problem = bound.as_ref().err().map(io::Error::to_string);
            if let Some(error) = problem.as_ref().filter(|_| problem != said) {
                let socket = self.path().display();
                tracing::error!(%socket, error, "the socket was removed and cannot be bound anew");
            }
            said = problem;
            if let Ok(Some((anew, inode))) = bound {
                self.inode = inode;
                return anew;
            }
        }
    }

    /// Is cancelled as soon as another server has taken the path.
    pub(crate) fn succeeded(&self) -> CancellationToken {
        self.names.succeeded.clone()
    }

    /// The path that Kong connects to.
    pub(crate) fn path(&self) -> &Path {
        &self.names.path
    }

    /// The run in the name of this server's own.
    pub(crate) fn run(&self) -> Run {
        self.run
    }

    /// Takes this server's own name away; the path stays.
    pub(crate) fn leave(&self) {
        // Who is left over is removed by the next server.
        let _ = std::fs::remove_file(&self.names.own);
    }
}

impl Names {
    fn take_path(&self) -> io::Result<()> {
        let mut second = self.own.clone().into_os_string();
        second.push(".new");
        add_name(&self.own, second.as_ref())?;
        std::fs::rename(&second, &self.path)
    }

    /// Looks for both names of the socket, and puts back what is gone. None: they lead to the listener that there is.
    fn put_back(&self, socket: Inode) -> io::Result<Option<(UnixListener, Inode)>> {
        let bound = self.put_own_back(socket)?;
        // Only now is there something to lead to.
        let path = self.put_path_back(bound.as_ref().map_or(socket, |(_, inode)| *inode));
        // What is bound is to be served, whatever becomes of the path: the next look tells of that.
        if bound.is_some() { Ok(bound) } else { path.map(|()| None) }
    }

    /// Where nothing has this server's own name: the socket from the path, or a new one where that is not there either.
    fn put_own_back(&self, socket: Inode) -> io::Result<Option<(UnixListener, Inode)>> {
        if found(&self.own)?.is_some() {
            return Ok(None);
        }
        let own = self.own.display().to_string();
        if found(&self.path)?.is_some_and(|found| inode(&found) == socket) {
            std::fs::hard_link(&self.path, &self.own)?;
            if found(&self.own)?.is_some_and(|found| inode(&found) == socket) {
                tracing::warn!(own, "somebody removed this server's own socket: it is back");
                return Ok(None);
            }
            // A successor took the path in between.
            std::fs::remove_file(&self.own)?;
        }
        let bound = listen(&self.own)?;
        tracing::warn!(own, "somebody removed this server's own socket: another one is bound");
        Ok(Some(bound))
    }

    /// Where nothing is at the path, and nothing of another server's has been.
    fn put_path_back(&self, socket: Inode) -> io::Result<()> {
        match found(&self.path)? {
            Some(found) if self.is_anothers(&found, socket) => self.succeeded.cancel(),
            Some(_) => {}
            None if self.succeeded.is_cancelled() => {}
            None => self.fill_path()?,
        }
        Ok(())
    }

    /// A successor that comes at the same time keeps the path: no name is added in place of one.
    fn fill_path(&self) -> io::Result<()> {
        match add_name(&self.own, &self.path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            added => {
                added?;
                let socket = self.path.display();
                tracing::warn!(%socket, "somebody removed the socket: it is bound anew, Kong can connect again");
                Ok(())
            }
        }
    }

    /// Whether another server has put this there.
    fn is_anothers(&self, found: &std::fs::Metadata, socket: Inode) -> bool {
        let leads_here =
            || std::fs::read_link(&self.path).is_ok_and(|to| Some(to.as_os_str()) == self.own.file_name());
        let is_a_way = found.file_type().is_socket() || found.file_type().is_symlink();
        is_a_way && inode(found) != socket && !leads_here()
    }
}

/// What happens to the names in a folder (inotify(7)).
#[derive(Debug)]
struct Changes(AsyncFd<Watch>);

#[derive(Debug)]
struct Watch(Inotify);

impl AsRawFd for Watch {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl Changes {
    fn in_folder_of(path: &Path) -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        let kinds = AddWatchFlags::IN_DELETE | AddWatchFlags::IN_MOVED_FROM | AddWatchFlags::IN_MOVED_TO;
        inotify.add_watch(folder(path), kinds)?;
        Ok(Self(woken_by(Watch(inotify), Interest::READABLE)?))
    }

    /// Waits until something has happened that was not told before.
    async fn next(&self) -> io::Result<()> {
        loop {
            let mut ready = self.0.readable().await?;
            match ready.get_inner().0.read_events() {
                Err(Errno::EAGAIN) => ready.clear_ready(),
                read => return Ok(read.map(drop)?),
            }
        }
    }
}

/// Waits until something happens in the folder. Where that is not told, somebody has to look now and then.
async fn happens(changes: Option<&Changes>) {
    if let Some(changes) = changes
        && changes.next().await.is_ok()
    {
        return;
    }
    std::future::pending().await
}

/// The socket of a run's own.
pub(crate) fn own(path: &Path, run: Run) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{run}"));
    path.with_file_name(name)
}

/// A socket that listens, and what file it is.
fn listen(own: &Path) -> io::Result<(UnixListener, Inode)> {
    let listener = UnixListener::bind(own)?;
    let settled = || {
        // Kong's workers may run as another user of the same group.
        std::fs::set_permissions(own, std::fs::Permissions::from_mode(0o660))?;
        std::fs::symlink_metadata(own)
    };
    match settled() {
        Ok(found) => Ok((listener, inode(&found))),
        Err(error) => {
            // Nobody would listen on it.
            let _ = std::fs::remove_file(own);
            Err(error)
        }
    }
}

/// A second name for the same socket; where the file system has none, a pointer to it. Either fails where the name is
/// there.
fn add_name(own: &Path, second: &Path) -> io::Result<()> {
    std::fs::hard_link(own, second)
        .or_else(|_| std::os::unix::fs::symlink(own.file_name().unwrap_or_default(), second))
}

/// What has a name.
fn found(name: &Path) -> io::Result<Option<std::fs::Metadata>> {
    match std::fs::symlink_metadata(name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        found => found.map(Some),
    }
}

fn inode(found: &std::fs::Metadata) -> Inode {
    (found.dev(), found.ino())
}

/// The folder that a path leads into.
fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Removes the sockets that servers which were killed have left.
fn remove_dead(path: &Path) -> io::Result<()> {
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else { return Ok(()) };
    for entry in std::fs::read_dir(folder(path))? {
        let entry = entry?;
        let file_name = entry.file_name();
        let suffix = file_name.to_str().and_then(|other| other.strip_prefix(name)?.strip_prefix('.'));
        let run = suffix.map(|suffix| suffix.strip_suffix(".new").unwrap_or(suffix).parse::<Run>());
        if matches!(run, Some(Ok(_))) && entry.file_type()?.is_socket() {
            let dead = std::os::unix::net::UnixStream::connect(entry.path());
            if dead.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused) {
                std::fs::remove_file(entry.path())?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_added_in_place_of_nothing_only() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let content = |name: &str| std::fs::read_to_string(at(name)).unwrap();
        std::fs::write(at("own"), "own").unwrap();
        std::fs::write(at("anothers"), "another's").unwrap();
        let error = add_name(&at("own"), &at("anothers")).unwrap_err();
        assert_eq!((error.kind(), content("anothers")), (io::ErrorKind::AlreadyExists, "another's".into()));
        add_name(&at("own"), &at("second")).unwrap();
        assert_eq!(content("second"), "own");

        // Folders have no second names, as nothing has where the file system knows none.
        std::fs::create_dir(at("folder")).unwrap();
        let error = add_name(&at("folder"), &at("anothers")).unwrap_err();
        assert_eq!((error.kind(), content("anothers")), (io::ErrorKind::AlreadyExists, "another's".into()));
        add_name(&at("folder"), &at("pointer")).unwrap();
        assert_eq!(std::fs::read_link(at("pointer")).unwrap(), Path::new("folder"));
    }

    #[tokio::test]
    async fn what_happens_to_the_path_is_seen_without_looking_for_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let (_listener, mut socket) = Socket::bind(&path).unwrap();
        socket.look = Duration::from_secs(1_000_000_000);
        let succeeded = socket.succeeded();
        let seen = async {
            for _ in 0..2 {
                std::fs::remove_file(&path).unwrap();
                while !path.exists() {
                    tokio::task::yield_now().await;
                }
            }
            let _successor = Socket::bind(&path).unwrap();
            succeeded.cancelled().await;
        };
        let kept = async {
            tokio::select! {
                _ = socket.keep() => panic!("its own name was there all the time"),
                () = seen => {}
            }
        };
        tokio::time::timeout(testbed::process::PATIENCE, kept).await.unwrap();
    }

    #[tokio::test]
    async fn a_successor_that_comes_in_the_middle_of_a_look_keeps_the_path() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let (_listener, Socket { names, inode: socket, .. }) = Socket::bind(&path).unwrap();
        // Between the two steps of a look: nothing was there, and is put there.
        let (_successor, other) = Socket::bind(&path).unwrap();
        names.fill_path().unwrap();
        assert_eq!(inode(&found(&path).unwrap().unwrap()), other.inode);
        // From the next look on it is that one's, also where it is removed.
        names.put_path_back(socket).unwrap();
        std::fs::remove_file(&path).unwrap();
        names.put_path_back(socket).unwrap();
        assert!(found(&path).unwrap().is_none());
    }
}
