//! This knows when a client's connection of HTTP/1.1 rests: its next request is waited for, nothing of it has come, and the
//! answer to the one before is written.
//!
//! hyper keeps two buffers of 8 KiB and more for as long as it serves a connection. One that rests is taken from it, and
//! given to it anew as soon as there is something to read. hyper does not say when that can be done, but it asks for a
//! timer exactly when it begins to wait for the header of a request, with nothing else to do, and drops it when the
//! header is there: so the timer is ours.

use std::convert::Infallible;
use std::error::Error;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes};
use http::{Request, Response};
use hyper::body::{Body, Incoming};
use hyper::rt::{Read, Sleep as HyperSleep, Timer, Write};
use hyper::server::conn::http1::{Parts, UpgradeableConnection};
use hyper::service::Service;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::limits;

/// The lulls of one connection.
#[derive(Clone, Default)]
pub(crate) struct Lulls(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// The header that is waited for.
    awaited: Option<Awaited>,
    /// Whether there is something to be written, or may be.
    writes: bool,
    /// Whether the header is late.
    late: bool,
    /// What was waited for when the connection was taken apart.
    carried: Option<Awaited>,
}

#[derive(Clone, Copy)]
struct Awaited {
    since: Instant,
    /// When it is late.
    until: Instant,
    /// Whether some of it is there.
    has_begun: bool,
}

impl Lulls {
    /// The moment by which the next header has to be there, where one is waited for.
    pub(crate) fn until(&self) -> Option<Instant> {
        let state = self.state();
        state.awaited.or(state.carried).map(|awaited| awaited.until)
    }

    /// Takes a connection from hyper, and remembers what is waited for until it is given one anew; None where it has become
    /// something else.
    pub(crate) fn take_apart<I, S, B>(&self, connection: UpgradeableConnection<I, S>) -> Option<Parts<I, S>>
    where
        S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
        I: Read + Write + Unpin,
        B: Body<Error: Into<Box<dyn Error + Send + Sync>>> + 'static,
    {
        let awaited = self.state().awaited;
        let mut parts = connection.into_parts()?;
        let has_begun = !parts.read_buf.is_empty();
        // Without a byte in it, it is still a buffer.
        parts.read_buf = Bytes::copy_from_slice(&parts.read_buf);
        let carried = awaited.map(|awaited| Awaited { has_begun, ..awaited });
        *self.state() = State { carried, ..State::default() };
        Some(parts)
    }

    /// When there is something to be done if nothing comes: to say that a header is late, or that the connection rests.
    fn due(&self, may_rest: bool) -> Option<Instant> {
        let state = self.state();
        let awaited = state.awaited.filter(|_| !state.late)?;
        let rests = may_rest && !awaited.has_begun && !state.writes;
        Some(if rests { awaited.until.min(awaited.since + limits::REST_AFTER) } else { awaited.until })
    }

    /// Has hyper told that a header is late, if it is.
    fn is_late(&self, now: Instant) -> bool {
        let mut state = self.state();
        state.late = state.awaited.is_some_and(|awaited| awaited.until <= now);
        state.late
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// hyper has no other use for it than the time of a header.
impl Timer for Lulls {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn HyperSleep>> {
        self.sleep_until(self.now() + duration)
    }

    fn sleep_until(&self, until: std::time::Instant) -> Pin<Box<dyn HyperSleep>> {
        let mut state = self.state();
        let now = Instant::now();
        let new = Awaited { since: now, until: until.into(), has_begun: false };
        // A rest is part of the time that a client has.
        let awaited = state.carried.take().map_or(new, |carried| Awaited { since: now, ..carried });
        (state.awaited, state.late) = (Some(awaited), false);
        Box::pin(Header(self.clone()))
    }

    fn now(&self) -> std::time::Instant {
        Instant::now().into_std()
    }
}

/// hyper waits for a header until this is dropped. It wakes nobody: [`Attended`] does.
struct Header(Lulls);

impl HyperSleep for Header {}

impl Future for Header {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        if self.0.state().late { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl Drop for Header {
    fn drop(&mut self) {
        self.0.state().awaited = None;
    }
}

/// A connection that hyper serves. Its end, or None where it rests.
pub(crate) struct Attended<C> {
    connection: Pin<Box<C>>,
    /// None: it does not rest, and its headers have no time.
    lulls: Option<Lulls>,
    may_rest: bool,
    /// One for all that may be due. It is moved when it goes off too early, rather than with each request.
    alarm: Option<Pin<Box<Sleep>>>,
}

impl<C> Attended<C> {
    pub(crate) fn new(connection: C, lulls: Option<Lulls>) -> Self {
        let may_rest = lulls.is_some();
        Self { connection: Box::pin(connection), lulls, may_rest, alarm: None }
    }

    /// From now on it does not rest.
    pub(crate) fn stay(&mut self) {
        self.may_rest = false;
    }

    pub(crate) fn connection(&mut self) -> Pin<&mut C> {
        self.connection.as_mut()
    }

    pub(crate) fn into_connection(self) -> C
    where
        C: Unpin,
    {
        *Pin::into_inner(self.connection)
    }

    /// Whether it is this moment; the task is woken then.
    fn alarm(&mut self, due: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let alarm = self.alarm.get_or_insert_with(|| Box::pin(sleep_until(due)));
        if alarm.deadline() > due {
            alarm.as_mut().reset(due);
        }
        while alarm.as_mut().poll(cx).is_ready() {
            if alarm.deadline() >= due {
                return Poll::Ready(());
            }
            alarm.as_mut().reset(due);
        }
        Poll::Pending
    }
}

impl<C: Future> Future for Attended<C> {
    type Output = Option<C::Output>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            if let Poll::Ready(ended) = self.connection.as_mut().poll(cx) {
                return Poll::Ready(Some(ended));
            }
            let Some(due) = self.lulls.as_ref().and_then(|lulls| lulls.due(self.may_rest)) else {
                return Poll::Pending;
            };
            if self.alarm(due, cx).is_pending() {
                return Poll::Pending;
            }
            // hyper hears of it when it looks at its timer.
            if !self.lulls.as_ref().is_some_and(|lulls| lulls.is_late(due)) {
                return Poll::Ready(None);
            }
        }
    }
}

/// A stream that hyper reads and writes: first what it had read before it was taken apart.
pub(crate) struct Line<S> {
    read: Bytes,
    stream: S,
    lulls: Lulls,
}

impl<S> Line<S> {
    pub(crate) fn new(read: Bytes, stream: S, lulls: Lulls) -> Self {
        Self { read, stream, lulls }
    }

    pub(crate) fn into_stream(self) -> S {
        self.stream
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Line<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.read.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buffer);
        }
        let length = self.read.len().min(buffer.remaining());
        buffer.put_slice(&self.read[..length]);
        self.read.advance(length);
        Poll::Ready(Ok(()))
    }
}

/// hyper flushes when it has nothing left to write, and only then.
impl<S: AsyncWrite + Unpin> AsyncWrite for Line<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.lulls.state().writes = true;
        Pin::new(&mut self.stream).poll_write(cx, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.lulls.state().writes = !matches!(flushed, Poll::Ready(Ok(())));
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.lulls.state().writes = true;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::ready;

    use http_body_util::{BodyExt, Full};
    use hyper::server::conn::http1::Builder;
    use hyper::service::service_fn;
    use hyper_util::rt::TokioIo;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::time::sleep;

    const HEADER: Duration = Duration::from_secs(40);

    /// A connection, to be driven, whose requests are all answered with this.
    #[expect(clippy::type_complexity, reason = "it is named nowhere else")]
    fn begin(
        lulls: &Lulls,
        read: Bytes,
        stream: DuplexStream,
        answer: &'static [u8],
    ) -> Attended<
        UpgradeableConnection<
            TokioIo<Line<DuplexStream>>,
            impl Service<Request<Incoming>, Response = Response<Full<Bytes>>, Error = Infallible, Future: Send>
            + Send,
        >,
    > {
        let service = service_fn(move |request: Request<Incoming>| {
            // The answer does not wait for it.
            tokio::spawn(request.into_body().collect());
            ready(Ok(Response::new(Full::new(answer.into()))))
        });
        let line = TokioIo::new(Line::new(read, stream, lulls.clone()));
        let mut builder = Builder::new();
        builder.timer(lulls.clone()).header_read_timeout(HEADER);
        Attended::new(builder.serve_connection(line, service).with_upgrades(), Some(lulls.clone()))
    }

    #[tokio::test(start_paused = true)]
    async fn a_rest_is_part_of_the_time_of_a_header() {
        let (client, stream) = duplex(1024);
        let lulls = Lulls::default();
        let start = Instant::now();
        let mut attended = begin(&lulls, Bytes::new(), stream, b"");
        assert!((&mut attended).await.is_none());
        assert_eq!(start.elapsed(), limits::REST_AFTER);
        let parts = lulls.take_apart(attended.into_connection()).unwrap();
        assert!(parts.read_buf.is_empty());
        assert_eq!(lulls.until(), Some(start + HEADER));
        sleep(HEADER / 2).await;
        let mut attended = begin(&lulls, Bytes::new(), parts.io.into_inner().into_stream(), b"");
        attended.stay();
        assert!(attended.await.unwrap().unwrap_err().is_timeout());
        assert_eq!(start.elapsed(), HEADER);
        drop(client);
    }

    #[tokio::test(start_paused = true)]
    async fn half_a_header_is_read_again_and_neither_rests_nor_gets_more_time() {
        let (mut client, stream) = duplex(1024);
        let lulls = Lulls::default();
        client.write_all(b"GET / HT").await.unwrap();
        let mut attended = begin(&lulls, Bytes::new(), stream, b"");
        assert!((&mut attended).await.is_none());
        let parts = lulls.take_apart(attended.into_connection()).unwrap();
        assert_eq!(parts.read_buf, &b"GET / HT"[..]);
        let stream = parts.io.into_inner().into_stream();
        let mut attended = begin(&lulls, parts.read_buf, stream, b"here");
        tokio::select! {
            biased;
            _ = &mut attended => panic!("it has ended, or rests"),
            () = sleep(HEADER / 2) => {}
        }
        let sent = Instant::now();
        client.write_all(b"TP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        // From then on it may rest again.
        assert!((&mut attended).await.is_none());
        let mut answer = [0; 15];
        client.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200 OK");
        // And the next header has its own time.
        assert_eq!(lulls.until(), Some(sent + HEADER));

        let (mut client, stream) = duplex(1024);
        let lulls = Lulls::default();
        let start = Instant::now();
        client.write_all(b"GET / HT").await.unwrap();
        let mut attended = begin(&lulls, Bytes::new(), stream, b"");
        assert!((&mut attended).await.is_none());
        let parts = lulls.take_apart(attended.into_connection()).unwrap();
        let attended = begin(&lulls, parts.read_buf, parts.io.into_inner().into_stream(), b"");
        assert!(attended.await.unwrap().unwrap_err().is_timeout());
        assert_eq!(start.elapsed(), HEADER);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_does_not_rest_before_its_answer_is_written() {
        let (mut client, stream) = duplex(32);
        let lulls = Lulls::default();
        let mut attended = begin(&lulls, Bytes::new(), stream, b"the last");
        // The answer is there before the request is whole, and hyper waits for the next one once it is.
        let asking = client.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n");
        tokio::select! {
            biased;
            _ = &mut attended => panic!("it has ended, or rests"),
            asked = asking => asked.unwrap(),
        }
        tokio::select! {
            biased;
            _ = &mut attended => panic!("it has ended, or rests"),
            () = sleep(HEADER / 4) => {}
        }
        client.write_all(b"1").await.unwrap();
        // 32 bytes of the answer are written, and the client takes none.
        tokio::select! {
            biased;
            _ = &mut attended => panic!("it has ended, or rests"),
            () = sleep(HEADER / 4) => {}
        }
        assert!(lulls.until().is_some());
        let reading = async {
            let mut answer = Vec::new();
            while !answer.ends_with(b"the last") {
                answer.push(client.read_u8().await.unwrap());
            }
        };
        let (rests, ()) = tokio::join!(&mut attended, reading);
        assert!(rests.is_none());
    }
}
