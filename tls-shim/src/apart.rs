//! This knows how to wait for something rare beside something that is woken all the time, without looking at it each time.
//!
//! A connection is woken several times for each request. To look each time whether the shim is told to end would be to take
//! a lock that all connections share.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

/// A future that is polled only when it was woken itself.
pub(crate) struct Apart<F> {
    future: F,
    woken: Option<Arc<Woken>>,
}

struct Woken {
    task: Waker,
    is: AtomicBool,
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.is.store(true, Ordering::Release);
        self.task.wake_by_ref();
    }
}

impl<F> Apart<F> {
    pub(crate) fn new(future: F) -> Self {
        Self { future, woken: None }
    }
}

impl<F: Future + Unpin> Future for Apart<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let known = self.woken.take().filter(|woken| woken.task.will_wake(cx.waker()));
        // At first, and in another task, it has to be polled to know whom to wake.
        let woken =
            known.unwrap_or_else(|| Arc::new(Woken { task: cx.waker().clone(), is: AtomicBool::new(true) }));
        let polled = if woken.is.swap(false, Ordering::AcqRel) {
            let waker = Waker::from(Arc::clone(&woken));
            Pin::new(&mut self.future).poll(&mut Context::from_waker(&waker))
        } else {
            Poll::Pending
        };
        self.woken = Some(woken);
        polled
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::pin::pin;
    use std::sync::atomic::AtomicUsize;

    use tokio::sync::Notify;

    #[tokio::test]
    async fn what_was_not_woken_is_not_looked_at() {
        let (looks, beside, rare) = (AtomicUsize::new(0), Notify::new(), Notify::new());
        let mut waiting = pin!(rare.notified());
        let mut apart = Apart::new(poll_fn(|cx| {
            looks.fetch_add(1, Ordering::Relaxed);
            waiting.as_mut().poll(cx)
        }));
        for _ in 0..3 {
            beside.notify_one();
            tokio::select! {
                biased;
                () = &mut apart => panic!("nobody woke it"),
                () = beside.notified() => {}
            }
        }
        assert_eq!(looks.load(Ordering::Relaxed), 1);
        // In another task it has another waker.
        std::thread::scope(|scope| {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let (apart, rare) = (&mut apart, &rare);
            scope.spawn(move || {
                runtime.block_on(async {
                    tokio::select! {
                        biased;
                        () = &mut *apart => panic!("nobody woke it"),
                        () = tokio::task::yield_now() => {}
                    }
                    rare.notify_one();
                    apart.await;
                });
            });
        });
        assert_eq!(looks.load(Ordering::Relaxed), 3);
    }
}
