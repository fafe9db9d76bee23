//! This knows how to be woken by a descriptor that tokio has no type of its own for.

use std::io;
use std::os::fd::AsRawFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Registers a descriptor that does not block, and stays the same for as long as its owner lives.
///
/// # Errors
/// What the system says.
#[allow(
    deprecated,
    reason = "what replaces it is unsafe, for types whose descriptor may change; those of a stream and of inotify do not"
)]
pub(crate) fn woken_by<T: AsRawFd>(owner: T, interest: Interest) -> io::Result<AsyncFd<T>> {
    AsyncFd::with_interest(owner, interest)
}
