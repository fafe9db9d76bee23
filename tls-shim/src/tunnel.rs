//! This knows a connection that has become a WebSocket: bytes both ways, until both sides have ended or nothing comes.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf, copy_bidirectional};
use tokio::time::{Instant, sleep_until};

use crate::record::{Counts, Record, Side};

/// What becomes of a client's connection after its last message.
#[derive(Default)]
pub(crate) struct After(Mutex<Ends>);

#[derive(Default)]
struct Ends {
    client: Option<OnUpgrade>,
    kong: Option<(OnUpgrade, Record)>,
}

/// Why a tunnel broke.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TunnelError {
    /// The connection ended before it became a tunnel.
    #[error(transparent)]
    Http(#[from] hyper::Error),
    /// One of both sides is gone.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Neither side has sent anything for too long.
    #[error("it was idle for {}s", .0.as_secs())]
    Idle(Duration),
}

impl After {
    /// A request has named a protocol to switch to.
    pub(crate) fn asked(&self, client: OnUpgrade) {
        *self.ends() = Ends { client: Some(client), kong: None };
    }

    /// Kong has agreed to it. The record ends with the tunnel.
    pub(crate) fn agreed(&self, kong: OnUpgrade, record: Record) {
        self.ends().kong = Some((kong, record));
    }

    /// Passes bytes until both sides have said that they end; where nothing was agreed to, says to the client that there
    /// is nothing more to come.
    ///
    /// # Errors
    /// See [`TunnelError`].
    pub(crate) async fn run(&self, idle: Duration) -> Result<(), TunnelError> {
        let Ends { client, kong } = std::mem::take(&mut *self.ends());
        match (client, kong) {
            (Some(client), Some((kong, mut record))) => {
                let client = client.await?;
                let kong = kong.await.inspect_err(|_| record.broke(Side::Upstream))?;
                pass(TokioIo::new(client), TokioIo::new(kong), idle, record).await
            }
            // hyper leaves such a connection to us without its end. A client must be able to tell an end from a cut
            // (close_notify; RFC 8446, section 6.1).
            (Some(client), None) => match client.await {
                Ok(client) => Ok(TokioIo::new(client).shutdown().await?),
                // It has ended in another way.
                Err(_) => Ok(()),
            },
            (None, _) => Ok(()),
        }
    }

    fn ends(&self) -> MutexGuard<'_, Ends> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A side that takes nothing stops the other one: there is a buffer of a few KiB in each direction. One that has ended
/// (half-close) may still receive.
async fn pass<A, B>(client: A, kong: B, idle: Duration, mut record: Record) -> Result<(), TunnelError>
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let heard = Heard::default();
    let (counts, hearing) = (record.counts(), heard.clone());
    let mut kong =
        Watched { stream: kong, side: Side::Upstream, heard: hearing.clone(), counts: counts.clone() };
    let mut client = Watched { stream: client, side: Side::Client, heard: hearing, counts };
    let passed = tokio::select! {
        ended = copy_bidirectional(&mut client, &mut kong) => ended.map(drop).map_err(TunnelError::from),
        () = heard.nothing_for(idle) => Err(TunnelError::Idle(idle)),
    };
    match passed {
        Ok(()) => record.whole(),
        Err(_) => record.broke(heard.gone().unwrap_or(Side::Shim)),
    }
    passed
}

/// What was heard of both sides.
#[derive(Clone)]
struct Heard(Arc<Mutex<State>>);

struct State {
    last: Instant,
    /// Who was gone first.
    gone: Option<Side>,
}

impl Default for Heard {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(State { last: Instant::now(), gone: None })))
    }
}

impl Heard {
    fn now(&self) {
        self.state().last = Instant::now();
    }

    fn gone_is(&self, side: Side) {
        self.state().gone.get_or_insert(side);
    }

    fn gone(&self) -> Option<Side> {
        self.state().gone
    }

    async fn nothing_for(&self, limit: Duration) {
        loop {
            let end = self.state().last + limit;
            if end <= Instant::now() {
                return;
            }
            sleep_until(end).await;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A stream whose reads are noted, what is written to it, and what it breaks with.
struct Watched<S> {
    stream: S,
    /// Whose it is.
    side: Side,
    heard: Heard,
    counts: Counts,
}

impl<S> Watched<S> {
    fn note<T>(&self, done: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if let Poll::Ready(Err(_)) = done {
            self.heard.gone_is(self.side);
        }
        done
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if read.is_ready() {
            self.heard.now();
        }
        self.note(read)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, data);
        if let Poll::Ready(Ok(bytes)) = written {
            match self.side {
                Side::Client => self.counts.down(bytes),
                Side::Upstream | Side::Shim => self.counts.up(bytes),
            }
        }
        self.note(written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.note(flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.note(shut)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, duplex};
    use tokio::time::sleep;

    const LIMIT: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn idle_is_counted_from_the_last_byte_of_either_side() {
        let (client, mut to_client) = duplex(16);
        let (kong, mut to_kong) = duplex(16);
        let start = Instant::now();
        let passing = tokio::spawn(pass(client, kong, LIMIT, Record::default()));
        for _ in 0..3 {
            sleep(Duration::from_secs(50)).await;
            to_client.write_u8(1).await.unwrap();
            assert_eq!(to_kong.read_u8().await.unwrap(), 1);
            sleep(Duration::from_secs(50)).await;
            to_kong.write_u8(2).await.unwrap();
            assert_eq!(to_client.read_u8().await.unwrap(), 2);
        }
        assert!(matches!(passing.await.unwrap(), Err(TunnelError::Idle(LIMIT))));
        assert_eq!(start.elapsed().as_secs(), 360);
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_ended_may_still_receive() {
        let (client, mut to_client) = duplex(16);
        let (kong, mut to_kong) = duplex(16);
        let passing = tokio::spawn(pass(client, kong, LIMIT, Record::default()));
        to_client.write_all(b"last").await.unwrap();
        to_client.shutdown().await.unwrap();
        let mut said = String::new();
        to_kong.read_to_string(&mut said).await.unwrap();
        assert_eq!(said, "last");
        to_kong.write_all(b"answer").await.unwrap();
        to_kong.shutdown().await.unwrap();
        let mut said = String::new();
        to_client.read_to_string(&mut said).await.unwrap();
        assert_eq!(said, "answer");
        passing.await.unwrap().unwrap();
    }
}
