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

/// What becomes of a client's connection after its last message.
#[derive(Default)]
pub(crate) struct After(Mutex<Ends>);

#[derive(Default)]
struct Ends {
    client: Option<OnUpgrade>,
    kong: Option<OnUpgrade>,
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

    /// Kong has agreed to it.
    pub(crate) fn agreed(&self, kong: OnUpgrade) {
        self.ends().kong = Some(kong);
    }

    /// Passes bytes until both sides have said that they end; where nothing was agreed to, says to the client that there
    /// is nothing more to come.
    ///
    /// # Errors
    /// See [`TunnelError`].
    pub(crate) async fn run(&self, idle: Duration) -> Result<(), TunnelError> {
        let Ends { client, kong } = std::mem::take(&mut *self.ends());
        match (client, kong) {
            (Some(client), Some(kong)) => {
                let (client, kong) = (client.await?, kong.await?);
                pass(TokioIo::new(client), TokioIo::new(kong), idle).await
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
async fn pass<A, B>(client: A, kong: B, idle: Duration) -> Result<(), TunnelError>
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let heard = Heard(Arc::new(Mutex::new(Instant::now())));
    let mut client = Watched { stream: client, heard: heard.clone() };
    let mut kong = Watched { stream: kong, heard: heard.clone() };
    tokio::select! {
        ended = copy_bidirectional(&mut client, &mut kong) => Ok(ended.map(drop)?),
        () = heard.nothing_for(idle) => Err(TunnelError::Idle(idle)),
    }
}

/// When either side was last heard of.
#[derive(Clone)]
struct Heard(Arc<Mutex<Instant>>);

impl Heard {
    fn now(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    async fn nothing_for(&self, limit: Duration) {
        loop {
            let end = *self.0.lock().unwrap_or_else(PoisonError::into_inner) + limit;
            if end <= Instant::now() {
                return;
            }
            sleep_until(end).await;
        }
    }
}

/// A stream whose reads are noted.
struct Watched<S> {
    stream: S,
    heard: Heard,
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
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
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
        let passing = tokio::spawn(pass(client, kong, LIMIT));
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
        let passing = tokio::spawn(pass(client, kong, LIMIT));
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
