//! This knows when a client of HTTP/2 has stopped to take an answer: its own window is full, while the connection goes on for
//! the others (RFC 9113, section 5.2). What [`Stall`](crate::stall::Stall) sees is the connection alone.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use hyper::rt::Executor;
use tokio::time::{Sleep, sleep};

use crate::answer::Answer;

tokio::task_local! {
    static TAKING: Taking;
}

/// The part of its answer for which the client of a stream may have no room: one more than were handed out before; 0 while
/// it is Kong that is waited for.
#[derive(Clone, Default)]
struct Taking(Arc<AtomicU64>);

/// The bytes of a part: as many as there are in a frame. So a client that is slow is told from one that takes nothing.
const PART: usize = 16 * 1024;

/// An answer that goes out part by part. hyper asks for one when the client has taken the one before, or has room for more.
pub(crate) struct Parted {
    body: Answer,
    /// What is left of the last that came of it.
    left: Bytes,
    parts: u64,
    taking: Taking,
}

impl Parted {
    /// To be called in the stream that it is for.
    pub(crate) fn of(body: Answer) -> Self {
        let taking = TAKING.try_with(Taking::clone).unwrap_or_default();
        Self { body, left: Bytes::new(), parts: 0, taking }
    }

    fn hand_out(&mut self) -> Frame<Bytes> {
        self.parts += 1;
        self.taking.0.store(self.parts, Ordering::Relaxed);
        Frame::data(self.left.split_to(self.left.len().min(PART)))
    }
}

impl Body for Parted {
    type Data = Bytes;
    type Error = <Answer as Body>::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if !self.left.is_empty() {
            return Poll::Ready(Some(Ok(self.hand_out())));
        }
        self.taking.0.store(0, Ordering::Relaxed);
        match ready!(Pin::new(&mut self.body).poll_frame(cx)).transpose()?.map(Frame::into_data) {
            Some(Ok(data)) => {
                self.left = data;
                Poll::Ready(Some(Ok(self.hand_out())))
            }
            Some(Err(trailers)) => Poll::Ready(Some(Ok(trailers))),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.left.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (left, rest) = (self.left.len() as u64, self.body.size_hint());
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower() + left);
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper + left);
        }
        hint
    }
}

/// Runs the streams of a connection, and resets each whose client takes no part of its answer for so long.
#[derive(Clone)]
pub(crate) struct Streams {
    pub(crate) limit: Duration,
}

impl<F: Future + Send + 'static> Executor<F> for Streams {
    fn execute(&self, stream: F) {
        let taking = Taking::default();
        let watched =
            Watched { stream: Box::pin(stream), taking: taking.clone(), limit: self.limit, waiting: None };
        tokio::spawn(TAKING.scope(taking, watched));
    }
}

/// A stream, which ends early where its client takes nothing: to be dropped is to be reset.
struct Watched<F> {
    stream: Pin<Box<F>>,
    taking: Taking,
    limit: Duration,
    /// Runs while this part waits.
    waiting: Option<(u64, Pin<Box<Sleep>>)>,
}

impl<F: Future> Future for Watched<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.stream.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        let part = self.taking.0.load(Ordering::Relaxed);
        if part == 0 {
            self.waiting = None;
            return Poll::Pending;
        }
        let limit = self.limit;
        let waiting = self.waiting.take().filter(|(waited_for, _)| *waited_for == part);
        let (_, time) = self.waiting.insert(waiting.unwrap_or_else(|| (part, Box::pin(sleep(limit)))));
        ready!(time.as_mut().poll(cx));
        tracing::debug!("a client takes nothing of an answer: its stream is reset");
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::Full;
    use std::task::Waker;
    use tokio::time::Instant;

    const LIMIT: Duration = Duration::from_secs(60);

    /// After how long a stream has ended that hands out these parts, each so long after the one before, or waits for Kong (0), and
    /// would go on for ever.
    async fn ends_after(parts: &[(u64, Duration)]) -> Option<Duration> {
        let parts = parts.to_vec();
        let begun = Instant::now();
        let (ended, has_ended) = tokio::sync::oneshot::channel::<()>();
        Streams { limit: LIMIT }.execute(async move {
            let _ended = ended;
            for (part, time) in parts {
                TAKING.with(|taking| taking.0.store(part, Ordering::Relaxed));
                sleep(time).await;
            }
            std::future::pending::<()>().await;
        });
        let ended = tokio::time::timeout(Duration::from_secs(1_000_000), has_ended).await;
        ended.is_ok().then(|| begun.elapsed())
    }

    #[test]
    fn an_answer_goes_out_part_by_part_and_nothing_is_missing() {
        let whole = Bytes::from((0..100_000_u32).map(|at| at as u8).collect::<Vec<_>>());
        let mut body = Parted::of(Answer::Own(Full::new(whole.clone())));
        let (mut parts, mut cx) = (Vec::<Bytes>::new(), Context::from_waker(Waker::noop()));
        while !body.is_end_stream() {
            assert_eq!(body.size_hint().exact(), Some((whole.len() - parts.concat().len()) as u64));
            let Poll::Ready(Some(Ok(part))) = Pin::new(&mut body).poll_frame(&mut cx) else {
                panic!("a part")
            };
            parts.push(part.into_data().unwrap());
            assert_eq!(body.taking.0.load(Ordering::Relaxed), parts.len() as u64);
        }
        assert!(parts.iter().all(|part| part.len() <= PART));
        assert_eq!((parts.len(), parts.concat()), (7, whole.to_vec()));
        assert!(matches!(Pin::new(&mut body).poll_frame(&mut cx), Poll::Ready(None)));
        assert_eq!(body.taking.0.load(Ordering::Relaxed), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_ends_once_no_part_was_taken_for_so_long_and_kong_may_take_its_time() {
        let (long, short) = (Duration::from_secs(600), Duration::from_secs(59));
        assert_eq!(ends_after(&[]).await, None);
        assert_eq!(ends_after(&[(0, long)]).await, None);
        assert_eq!(ends_after(&[(1, long)]).await, Some(LIMIT));
        // Slow, but never for so long.
        assert_eq!(ends_after(&[(1, short), (2, short), (3, long)]).await, Some(2 * short + LIMIT));
        // Kong sends a part after a long time, twice.
        assert_eq!(ends_after(&[(1, short), (0, long), (2, short), (0, long)]).await, None);
        assert_eq!(
            ends_after(&[(0, long), (1, short), (0, short), (2, long)]).await,
            Some(long + 2 * short + LIMIT)
        );
    }
}
