//! This knows how to run a whole server on a thread of its own, and what can be done to it that Kong cannot do.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ::revocation::{Checker, Options};
use client_cert::ProofKey;
use kong_entities::Directory;
use telemetry::prometheus_client::encoding::text::encode;
use telemetry::prometheus_client::registry::Registry;
use testbed::process::PATIENCE;
use tokio::sync::{mpsc, oneshot, watch};

use super::model::KEY;
use crate::entity_source::EntitySource;
use crate::event::ABANDONED;
use crate::instance::Shared;
use crate::revocation::Revocation;
use crate::rpc::Server;
use crate::serve::serve;
use crate::siblings::Siblings;
use crate::socket::Socket;

/// How long an event may take: more than any case does.
const TIME_LIMIT: Duration = Duration::from_secs(3600);

/// How long a connection may wait for an event's next step, once another server has taken over: for ever.
const LINGER: Duration = Duration::from_secs(1_000_000_000);

/// A running server.
pub(super) struct Running {
    pub(super) server: Arc<Server>,
    leave: oneshot::Sender<()>,
    kill: oneshot::Sender<()>,
    /// Lets an event's time go by, and answers.
    advance: mpsc::UnboundedSender<std::sync::mpsc::Sender<()>>,
    thread: JoinHandle<()>,
}

impl Running {
    /// Starts a server that takes over the path.
    pub(super) fn start(path: &Path) -> Self {
        let (leave, left) = oneshot::channel::<()>();
        let (kill, killed) = oneshot::channel::<()>();
        let (advance, mut advances) = mpsc::unbounded_channel::<std::sync::mpsc::Sender<()>>();
        let (sender, started) = std::sync::mpsc::channel();
        let path = path.to_owned();
        let run = async move {
            let consumers = r#"{"_format_version": "3.0", "consumers": [
                {"username": "alice"}, {"username": "bob"}, {"username": "anon"}]}"#;
            let entities = Arc::new(kong_entities::parse_json(consumers).unwrap());
            let (_entities, watched) = watch::channel(entities);
            let source = EntitySource::Directory(Directory::declarative(watched));
            let revocation = Revocation::Checked(Checker::new(Options::default()).unwrap());
            let shared = Shared::new(source, ProofKey::from_bytes(KEY), revocation, TIME_LIMIT);
            let (listener, socket) = Socket::bind(&path).unwrap();
            let siblings = Siblings::of(&socket, TIME_LIMIT).lingering(LINGER);
            let server = Arc::new(Server::new(shared, siblings));
            sender.send(Arc::clone(&server)).unwrap();
            let control = async {
                while let Some(done) = advances.recv().await {
                    tokio::time::pause();
                    tokio::time::advance(TIME_LIMIT).await;
                    tokio::time::resume();
                    done.send(()).unwrap();
                }
                std::future::pending::<()>().await;
            };
            tokio::select! {
                () = serve(listener, socket, server, async { drop(left.await) }) => {}
                _ = killed => {}
                () = control => {}
            }
        };
        // Paused time needs a runtime of one thread. All that it runs ends with it.
        let thread = std::thread::spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(run);
        });
        let server = started.recv().expect("a server starts");
        Self { server, leave, kill, advance, thread }
    }

    /// Lets the time go by that an event may take.
    pub(super) fn advance(&self) {
        let (done, is_done) = std::sync::mpsc::channel();
        self.advance.send(done).unwrap();
        is_done.recv_timeout(PATIENCE).expect("the server runs");
    }

    /// Drops the events that have waited since then or longer, as after a minute.
    pub(super) fn expire(&self, since: Instant) {
        self.server.expire(since + ABANDONED);
    }

    pub(super) fn kill(self) {
        drop(self.leave);
        self.kill.send(()).unwrap();
        self.thread.join().unwrap();
    }

    /// Tells it to leave, which it does once nothing runs and no connection is open.
    pub(super) fn leave(self) {
        self.leave.send(()).unwrap();
        self.thread.join().unwrap();
        drop(self.kill);
    }

    /// Waits until so many connections are open: what came before one of them was closed has been answered then.
    pub(super) fn wait_for_connections(&self, count: usize) {
        wait_until(|| self.server.connections.load(Ordering::Acquire) == count);
    }

    /// Waits until so much runs, and nothing is being answered besides.
    pub(super) fn wait_for_unfinished(&self, count: usize) {
        wait_until(|| self.server.unfinished() == count);
    }

    /// What `/metrics` tells: decisions by outcome and reason, and requests that run and that Kong gave up.
    pub(super) fn counted(&self) -> (BTreeMap<(String, String), u64>, u64, u64) {
        let mut registry = Registry::default();
        self.server.instances.metrics().register(&mut registry);
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        let label = |line: &str, name| {
            let (_, rest) = line.split_once(name).unwrap();
            rest.split('"').nth(1).unwrap().to_owned()
        };
        let mut decisions = BTreeMap::new();
        let (mut running, mut abandoned) = (0, 0);
        for line in text.lines() {
            let Some((what, value)) = line.rsplit_once(' ') else { continue };
            let value = || value.parse().unwrap();
            if what.starts_with("decisions_total") && value() > 0 {
                decisions.insert((label(what, "outcome="), label(what, "reason=")), value());
            } else if what == "events_in_flight" {
                running = value();
            } else if what == "events_abandoned_total" {
                abandoned = value();
            }
        }
        (decisions, running, abandoned)
    }
}

/// For what another thread does at once, and says nowhere.
pub(super) fn wait_until(is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "it does not happen");
        std::thread::yield_now();
    }
}
