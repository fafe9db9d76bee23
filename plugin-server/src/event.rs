//! This knows running events: each is a future that waits for what Kong answers to its PDK calls.
//!
//! In MsgPack:1 the steps of one event arrive on different connections, between those of others, so an event belongs to
//! its id and to no connection. Whichever connection brings the next step resumes the future there: no task, no switch.
//! In ProtoBuf:1 an event has its connection to itself, which resumes it and keeps it nowhere else.

use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant};

use serde_json::Value as Json;
use tokio_util::sync::ReusableBoxFuture;

use crate::access::{FAULT, Verdict};
use crate::ids::{Ids, Run};
use crate::wire::value::Value;

/// For how many events that have ended the memory is kept: as many as mostly run at once.
const SPARES: usize = 64;

/// How long an event may wait for Kong's next step. Kong answers a PDK call at once or, where the call throws, never.
pub(crate) const ABANDONED: Duration = Duration::from_secs(60);

/// A call that an event wants Kong to run, in MsgPack:1.
#[derive(Debug, PartialEq)]
pub(crate) struct PdkCall {
    pub(crate) method: &'static str,
    pub(crate) args: Vec<Json>,
}

/// How far an event got.
#[derive(Debug, PartialEq)]
pub(crate) enum Progress<C = PdkCall> {
    /// It waits for the answer to this.
    Calls(C),
    /// It has ended.
    Ended(Verdict),
}

/// An event's end of the exchange with Kong: calls of one protocol, and what it answers.
pub(crate) struct Exchange<C = PdkCall, A = Value>(Arc<Mutex<Slots<C, A>>>);

struct Slots<C, A> {
    call: Option<C>,
    answer: Option<A>,
    spent: Spent,
}

/// What an event has cost so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Spent {
    /// How many PDK calls it had Kong run.
    pub(crate) calls: u32,
    /// How long it waited for Kong's answers.
    pub(crate) waited: Duration,
}

impl<C, A> Exchange<C, A> {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(Slots { call: None, answer: None, spent: Spent::default() })))
    }

    /// Has Kong run a call and waits for what it gives.
    pub(crate) async fn call(&self, call: C) -> A {
        self.slots().call = Some(call);
        let _waiting = Waiting { exchange: self, since: Instant::now() };
        // Woken by nobody: the next step polls again.
        poll_fn(|_| self.slots().answer.take().map_or(Poll::Pending, Poll::Ready)).await
    }

    /// What the event has cost so far.
    pub(crate) fn spent(&self) -> Spent {
        self.slots().spent
    }

    fn slots(&self) -> std::sync::MutexGuard<'_, Slots<C, A>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<C, A> Clone for Exchange<C, A> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

/// A wait for Kong, which ends with the answer or where the event gives up.
struct Waiting<'a, C, A> {
    exchange: &'a Exchange<C, A>,
    since: Instant,
}

impl<C, A> Drop for Waiting<'_, C, A> {
    fn drop(&mut self) {
        let spent = &mut self.exchange.slots().spent;
        spent.calls += 1;
        spent.waited += self.since.elapsed();
    }
}

type Running = ReusableBoxFuture<'static, Verdict>;

/// The memory of events that have ended, for others: they are of one size, and large.
#[derive(Default)]
pub(crate) struct Spares(Mutex<Vec<Running>>);

impl Spares {
    fn hold(&self, run: impl Future<Output = Verdict> + Send + 'static) -> Running {
        let spare = self.all().pop();
        match spare {
            Some(mut spare) => {
                spare.set(run);
                spare
            }
            None => Running::new(run),
        }
    }

    /// Takes back the memory of an event that has ended: what it held has gone with its last step.
    pub(crate) fn keep<C, A>(&self, ended: Event<C, A>) {
        let mut all = self.all();
        if all.len() < SPARES {
            all.push(ended.run);
        }
    }

    fn all(&self) -> std::sync::MutexGuard<'_, Vec<Running>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One running event.
pub(crate) struct Event<C = PdkCall, A = Value> {
    run: Running,
    exchange: Exchange<C, A>,
}

impl<C, A> Event<C, A> {
    /// An event that has not begun to run.
    pub(crate) fn new<F>(spares: &Spares, run: impl FnOnce(Exchange<C, A>) -> F) -> Self
    where
        F: Future<Output = Verdict> + Send + 'static,
    {
        let exchange = Exchange::new();
        Self { run: spares.hold(run(exchange.clone())), exchange }
    }

    /// Gives the event the answer to its call.
    pub(crate) fn answer(&self, answer: A) {
        self.exchange.slots().answer = Some(answer);
    }

    /// Runs on until the next call or the end. The future may wait for other things in between; the connection that
    /// resumed it then waits with it.
    pub(crate) async fn advance(&mut self) -> Progress<C> {
        poll_fn(|context| {
            // A panic is an error of ours in one event: it ends as a fault and harms no other.
            let polled = catch_unwind(AssertUnwindSafe(|| self.run.poll(context)));
            match polled {
                Ok(Poll::Ready(verdict)) => Poll::Ready(Progress::Ended(verdict)),
                Ok(Poll::Pending) => self
                    .exchange
                    .slots()
                    .call
                    .take()
                    .map_or(Poll::Pending, |call| Poll::Ready(Progress::Calls(call))),
                Err(_) => Poll::Ready(Progress::Ended(FAULT)),
            }
        })
        .await
    }
}

/// The events of MsgPack:1 that wait for Kong, by id.
pub(crate) struct Events {
    waiting: Mutex<HashMap<u64, (Event, Instant)>>,
    ids: Ids,
    /// Also for those of ProtoBuf:1.
    pub(crate) spares: Spares,
}

impl Events {
    pub(crate) fn new(run: Run) -> Self {
        Self { waiting: Mutex::default(), ids: Ids::of(run), spares: Spares::default() }
    }

    /// Begins an event and runs it to its first call, or its end.
    pub(crate) async fn begin<F>(&self, run: impl FnOnce(Exchange) -> F) -> (u64, Progress)
    where
        F: Future<Output = Verdict> + Send + 'static,
    {
        let id = self.ids.next();
        (id, self.advance(id, Event::new(&self.spares, run)).await)
    }

    /// Gives an event the answer to its call and runs it on. None if no such event waits: it has ended, was abandoned,
    /// or was begun by another server.
    pub(crate) async fn resume(&self, id: u64, answer: Value) -> Option<Progress> {
        // Taken out while it runs, so that two steps at once cannot both resume it.
        let (event, _) = self.waiting().remove(&id)?;
        event.answer(answer);
        Some(self.advance(id, event).await)
    }

    async fn advance(&self, id: u64, mut event: Event) -> Progress {
        let progress = event.advance().await;
        match progress {
            Progress::Calls(_) => drop(self.waiting().insert(id, (event, Instant::now()))),
            Progress::Ended(_) => self.spares.keep(event),
        }
        progress
    }

    /// How many events wait.
    pub(crate) fn count(&self) -> usize {
        self.waiting().len()
    }

    /// Drops the events whose next step will not come.
    pub(crate) fn expire(&self, now: Instant) {
        self.waiting().retain(|_, (_, since)| now.saturating_duration_since(*since) < ABANDONED);
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, HashMap<u64, (Event, Instant)>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
