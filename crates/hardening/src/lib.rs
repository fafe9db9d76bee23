//! This knows how a process keeps the keys in its memory, and the files that it makes, from other users of its host.

#![forbid(unsafe_code)]

use std::path::Path;

use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::stat::{Mode, umask};

/// What others never get of a file, whatever mode it is made with: all of it; and its group may not write. What the
/// group shall write, such as a socket, is given to it afterwards.
const NOT_FOR_OTHERS: Mode = Mode::from_bits_truncate(0o027);

/// The system does not let the process do so.
#[derive(Debug, thiserror::Error)]
#[error("core dumps cannot be prevented: {0}")]
pub struct HardeningError(#[from] Errno);

/// To be called at the start, before there are other threads.
///
/// From now on, nobody but root can read the memory of this process: it leaves no core dump, neither as a file nor to a
/// program that collects them, and no process of the same user can attach to it. And no umask that the process was
/// started with makes its files open to others; a stricter one stays. A program that this one executes can be dumped again
/// until it calls this, too; the other two go on to it.
///
/// # Errors
/// What keeps core dumps possible. The umask is set in any case.
pub fn harden() -> Result<(), HardeningError> {
    let inherited = umask(NOT_FOR_OTHERS);
    umask(inherited | NOT_FOR_OTHERS);
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    // The limit above does not count for programs that collect core dumps (core(5)).
    prctl::set_dumpable(false)?;
    Ok(())
}

/// The mode of a file that other users may read or write, for the word of warning that a file with keys is worth. None:
/// they may not, or nobody can tell.
pub fn open_to_others(path: &Path) -> Option<u32> {
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(path).ok()?.permissions().mode() & 0o7777;
    (mode & 0o007 != 0).then_some(mode)
}
