//! This knows how the bytes of a connection come and go, and what wakes us for them.
//!
//! tokio's own stream is also woken where there is room to write again, and on a unix socket there is each time Kong has
//! read a reply: a switch to this process and back for nothing, with every call. This one is woken by what there is to
//! read, and asks about room only where a reply did not fit.

use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;

use bytes::BytesMut;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::woken_by::woken_by;

/// How much is read at once. Most answers with a request's headers are shorter.
const PIECE: usize = 8 * 1024;

/// A connection of Kong's.
#[derive(Debug)]
pub(crate) struct Stream {
    socket: AsyncFd<UnixStream>,
    /// Where each read goes first. To make room for it behind what has come would be to fill that room with zeros each time.
    piece: Box<[u8]>,
}

impl Stream {
    /// The same connection.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn new(stream: tokio::net::UnixStream) -> io::Result<Self> {
        let socket = woken_by(stream.into_std()?, Interest::READABLE)?;
        Ok(Self { socket, piece: vec![0; PIECE].into() })
    }

    /// Appends what has come, or waits until something comes, and gives its length: 0 at the end.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) async fn read(&mut self, received: &mut BytesMut) -> io::Result<usize> {
        loop {
            let mut ready = self.socket.readable_mut().await?;
            let read = read(ready.get_inner_mut(), &mut self.piece, received)?;
            // Less than there was room for is all that there is (epoll(7)); the end of the stream stays known.
            if read.is_none_or(|length| length < PIECE) {
                ready.clear_ready();
            }
            if let Some(length) = read {
                return Ok(length);
            }
        }
    }

    /// As [`Self::read`], of what has come already, whether or not that is known here yet; none where nothing has.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn read_now(&mut self, received: &mut BytesMut) -> io::Result<Option<usize>> {
        read(self.socket.get_mut(), &mut self.piece, received)
    }

    /// Writes all of it, in one call where there is room.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) async fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.socket.get_mut().write(bytes) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => bytes = &bytes[written..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.has_room().await?,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Waits for room to write. It is rare that there is none, so what waits is made for it.
    async fn has_room(&self) -> io::Result<()> {
        let room = woken_by(self.socket.get_ref().try_clone()?, Interest::WRITABLE)?;
        room.writable().await.map(|_| ())
    }

    /// Writes no more.
    #[cfg(test)]
    pub(crate) fn shutdown(&self) {
        self.socket.get_ref().shutdown(std::net::Shutdown::Write).unwrap();
    }
}

/// Appends what is there, up to a piece, and gives its length: 0 at the end, none where nothing is there yet.
fn read(stream: &mut UnixStream, piece: &mut [u8], received: &mut BytesMut) -> io::Result<Option<usize>> {
    loop {
        match stream.read(piece) {
            Ok(length) => {
                received.extend_from_slice(&piece[..length]);
                return Ok(Some(length));
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (Stream, Stream) {
        let (one, other) = tokio::net::UnixStream::pair().unwrap();
        (Stream::new(one).unwrap(), Stream::new(other).unwrap())
    }

    /// Reads until so many bytes have come, or the end.
    async fn read(stream: &mut Stream, length: usize) -> BytesMut {
        let mut received = BytesMut::new();
        while received.len() < length && stream.read(&mut received).await.unwrap() > 0 {}
        received
    }

    #[tokio::test]
    async fn what_does_not_fit_waits_for_room_and_arrives_whole() {
        let (mut ours, mut kong) = pair();
        let long: Vec<u8> = (0..4_000_000u32).map(|number| (number % 251) as u8).collect();
        let all = long.len();
        let written = async { ours.write_all(&long).await.unwrap() };
        let ((), received) = tokio::join!(written, read(&mut kong, all));
        assert!(received == long);
    }

    #[tokio::test]
    async fn what_comes_after_a_wait_and_what_came_before_the_end_is_read() {
        let (mut ours, mut kong) = pair();
        for length in [1, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE] {
            let bytes = vec![7; length];
            let (received, written) = tokio::join!(read(&mut ours, length), kong.write_all(&bytes));
            written.unwrap();
            assert!(received == bytes, "{length}");
        }
        kong.write_all(b"last").await.unwrap();
        drop(kong);
        assert_eq!(read(&mut ours, usize::MAX).await, b"last"[..]);
        assert!(ours.write_all(b"nobody reads").await.is_err());
    }
}
