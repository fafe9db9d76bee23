//! This knows one worker's pool of kept connections to the plugin server, as nginx's cosockets keep them.

use std::{
    collections::VecDeque,
    io,
    path::{Path, PathBuf},
    sync::Mutex,
    time::{Duration, Instant},
};

use tokio::net::UnixStream;

use crate::DoubleConfig;

/// Connections that wait for their next call, the one used last at the front.
pub(crate) struct Pool {
    socket: PathBuf,
    size: usize,
    idle_timeout: Duration,
    scatter: usize,
    idle: Mutex<VecDeque<Idle>>,
}

struct Idle {
    stream: UnixStream,
    since: Instant,
}

impl Pool {
    /// The pool that these settings ask for.
    pub(crate) fn of(settings: &DoubleConfig) -> Self {
        Self::new(&settings.plugin_socket, settings.pool_size, settings.idle_timeout, settings.scatter)
    }

    fn new(socket: &Path, size: usize, idle_timeout: Duration, scatter: usize) -> Self {
        Self { socket: socket.into(), size, idle_timeout, scatter, idle: Mutex::default() }
    }

    /// A connection for one call: the one used last, else a new one. With `scatter`, the one unused for
    /// longest, and a new one until so many wait.
    pub(crate) async fn connect(&self) -> io::Result<UnixStream> {
        let pooled = {
            let mut idle = self.idle.lock().expect("no panic while held");
            idle.retain(|kept| self.may_stay(kept));
            match self.scatter {
                0 => idle.pop_front(),
                scatter if idle.len() < scatter => None,
                _ => idle.pop_back(),
            }
        };
        match pooled {
            Some(kept) => Ok(kept.stream),
            None => UnixStream::connect(&self.socket).await,
        }
    }

    /// Takes a connection back. One that was closed, or on which bytes wait that nobody asked for, is
    /// closed instead; so is the one unused for longest when the pool is full.
    pub(crate) fn keep(&self, stream: UnixStream) {
        let kept = Idle { stream, since: Instant::now() };
        if !self.may_stay(&kept) {
            return;
        }
        let mut idle = self.idle.lock().expect("no panic while held");
        idle.push_front(kept);
        idle.truncate(self.size);
    }

    /// Closes what was idle too long or was closed by the peer, for as long as the worker lives.
    pub(crate) fn sweep(&self) {
        self.idle.lock().expect("no panic while held").retain(|kept| self.may_stay(kept));
    }

    /// How often to sweep, so that connections close about when they should.
    pub(crate) fn sweep_interval(&self) -> Duration {
        (self.idle_timeout / 8).clamp(Duration::from_millis(5), Duration::from_secs(1))
    }

    fn may_stay(&self, kept: &Idle) -> bool {
        // nginx watches pooled connections for reading: an end of file as well as a stray byte closes them.
        let quiet = matches!(kept.stream.try_read(&mut [0]), Err(e) if e.kind() == io::ErrorKind::WouldBlock);
        quiet && kept.since.elapsed() < self.idle_timeout
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use tokio::net::UnixListener;

    use super::*;

    #[tokio::test]
    async fn the_connection_used_last_is_used_next_and_a_full_pool_drops_the_oldest() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("socket");
        let listener = UnixListener::bind(&socket).unwrap();
        let pool = Pool::new(&socket, 2, Duration::from_secs(60), 0);
        let mut streams = Vec::new();
        let mut peers = Vec::new();
        for _ in 0..3 {
            streams.push(pool.connect().await.unwrap());
            peers.push(listener.accept().await.unwrap().0);
        }
        let fds: Vec<_> = streams.iter().map(AsRawFd::as_raw_fd).collect();
        streams.into_iter().for_each(|stream| pool.keep(stream));
        peers[0].readable().await.unwrap();
        assert_eq!(peers[0].try_read(&mut [0]).unwrap(), 0, "closed by the full pool");
        let (third, second) = (pool.connect().await.unwrap(), pool.connect().await.unwrap());
        assert_eq!([third.as_raw_fd(), second.as_raw_fd()], [fds[2], fds[1]]);
    }
}
