//! This knows how to follow Kong's configuration through its Admin API.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::followed::{Followed, Origin, SourceStatus};
use crate::snapshot::{self, Digest, Snapshot};
use crate::{AdminClient, Entities, SourceError, snapshot_file};

/// How long a start waits for the first answer before it goes on with the snapshot file, or with nothing.
const PATIENCE: Duration = Duration::from_secs(10);

/// After this time all is read again, even if Kong says that nothing has changed: it may have changed and changed back
/// while it was read.
const READ_AGAIN: Duration = Duration::from_secs(600);

/// After this time the snapshot file is written anew, even if nothing has changed: its age says when it was still true.
pub const REWRITE: Duration = Duration::from_secs(600);

/// The pause between two readings is so many times as long as a reading took, at least: the workers of the Admin API also
/// serve traffic.
const REST: u32 = 4;

/// Reads Kong's configuration and then follows it for as long as somebody holds the entities.
///
/// What is asked each time:
///
/// - of a Kong without a database, what it says of its configuration ([`AdminClient::configuration_hash`]): one cheap
///   request, and the lists only where that has changed, or after ten minutes;
/// - of a Kong with a database, every list by pages, for there is nothing cheap that stands for all of it (its caches have
///   versions of routes and plugins, `GET /cache/router:version`, which nobody promises, and none of certificates). Six
///   short lists take a Kong 3.9.1 with PostgreSQL 40 ms, a page of 1,000 routes 45 ms. So it rests four times as long as
///   the reading took, at least: 100,000 routes are read every 25 s or so, whatever the interval says.
///
/// A change counts once it has been read twice, or under one digest ([`snapshot`](crate::snapshot())). What cannot be read
/// leaves the last good configuration in place, for as long as it takes.
///
/// The last good configuration is kept in `snapshot_file`, with the private keys of the certificates, and is what counts at
/// a start at which the Admin API does not answer, however old it is. Where there is none either, nothing is known
/// ([`Entities::unknown`], [`Origin::NoSnapshot`]), and it goes on trying. It waits ten seconds at most for the first
/// answer.
///
/// # Panics
/// Outside a tokio runtime.
pub async fn follow_admin(client: AdminClient, interval: Duration, snapshot_file: Option<&Path>) -> Followed {
    let mut follower = Follower {
        url: client.url(),
        client,
        file: snapshot_file.map(Path::to_owned),
        known: None,
        last_read: None,
        last_write: None,
        entities: watch::Sender::new(Arc::new(Entities::unknown())),
        status: watch::Sender::new(SourceStatus::new(Origin::NoSnapshot)),
    };
    follower.read_file().await;
    let entities = follower.entities.subscribe();
    let mut status = follower.status.subscribe();
    tokio::spawn(follower.run(interval));
    let answered = status.wait_for(|status| status.origin == Origin::AdminApi || status.last_error.is_some());
    let answered = tokio::time::timeout(PATIENCE, answered).await.is_ok();
    if !answered {
        tracing::warn!("the Admin API takes its time: going on without it");
    }
    Followed { entities, status }
}

struct Follower {
    client: AdminClient,
    url: String,
    file: Option<PathBuf>,
    known: Option<Known>,
    /// When all lists were read.
    last_read: Option<Instant>,
    /// When the snapshot file was written, and what into it.
    last_write: Option<(Instant, Digest)>,
    entities: watch::Sender<Arc<Entities>>,
    status: watch::Sender<SourceStatus>,
}

/// The configuration that was given last.
struct Known {
    digest: Digest,
    configuration_hash: Option<String>,
}

impl Follower {
    async fn run(mut self, interval: Duration) {
        let entities = self.entities.clone();
        let poll = async {
            loop {
                let begun = Instant::now();
                match self.poll().await {
                    // As old as its first question: what changes afterwards may not be in it.
                    Ok(read) => self.succeeded(read, begun.elapsed()).await,
                    Err(error) => self.failed(&error),
                }
                tokio::time::sleep(interval.max(begun.elapsed() * REST)).await;
            }
        };
        tokio::select! {
            () = entities.closed() => {}
            () = poll => {}
        }
    }

    /// All of the configuration, or nothing where it has not changed.
    async fn poll(&self) -> Result<Option<Snapshot>, SourceError> {
        if let Some(Known { configuration_hash: Some(known), .. }) = &self.known
            && self.last_read.is_some_and(|at| at.elapsed() < READ_AGAIN)
            && self.client.configuration_hash().await?.as_ref() == Some(known)
        {
            return Ok(None);
        }
        let seen = self.known.as_ref().map(|known| known.digest);
        snapshot::read(&self.client, seen).await.map(Some)
    }

    async fn succeeded(&mut self, read: Option<Snapshot>, age: Duration) {
        let before = self.status.borrow().clone();
        if let (Some(_), Some(age)) = (&before.last_error, before.age()) {
            let seconds = age.as_secs();
            tracing::info!(url = self.url, seconds, "the Admin API can be read again, after this time");
        }
        let Some(Snapshot { entities, text, digest, configuration_hash }) = read else {
            self.confirm(false, age);
            return;
        };
        let changed = self.known.as_ref().is_none_or(|known| known.digest != digest);
        self.known = Some(Known { digest, configuration_hash });
        self.last_read = Some(Instant::now());
        if changed {
            let (routes, plugins) = (entities.routes.len(), entities.plugins.len());
            tracing::info!(url = self.url, routes, plugins, "Kong's configuration was read");
            self.entities.send_replace(Arc::new(entities));
        }
        self.confirm(changed, age);
        if self.last_write.is_none_or(|(at, written)| written != digest || at.elapsed() >= REWRITE) {
            self.write_file(text, digest).await;
        }
    }

    fn confirm(&self, changed: bool, age: Duration) {
        self.status.send_if_modified(|status| {
            let other_origin = std::mem::replace(&mut status.origin, Origin::AdminApi) != Origin::AdminApi;
            let recovered = status.last_error.take().is_some();
            status.generation += u64::from(changed);
            status.confirm(age);
            changed || recovered || other_origin
        });
    }

    fn failed(&self, error: &SourceError) {
        let before = self.status.borrow().clone();
        if before.last_error.is_none() {
            let (url, seconds) = (&self.url, before.age().map(|age| age.as_secs()));
            match seconds {
                Some(age) => tracing::error!(
                    url,
                    %error,
                    age,
                    "Kong's configuration cannot be read: the last good one stays, which was Kong's so many seconds ago"
                ),
                None => tracing::error!(
                    url,
                    %error,
                    "Kong's configuration cannot be read, and there is no snapshot of it: nothing is known"
                ),
            }
        } else {
            tracing::debug!(url = self.url, %error, "Kong's configuration still cannot be read");
        }
        self.status.send_modify(|status| {
            status.failures += 1;
            status.last_error = Some(error.to_string());
        });
    }

    /// Begins with what the snapshot file says.
    async fn read_file(&mut self) {
        let Some(path) = self.file.clone() else { return };
        let (file, url) = (path.display().to_string(), self.url.clone());
        match tokio::task::spawn_blocking(move || snapshot_file::read(&path, &url)).await {
            Ok(Ok(Some(stored))) => {
                self.known = Some(Known { digest: stored.digest, configuration_hash: None });
                self.entities.send_replace(Arc::new(stored.entities));
                self.status.send_modify(|status| {
                    status.origin = Origin::SnapshotFile;
                    status.generation += 1;
                    status.confirm(stored.age);
                });
            }
            Ok(Ok(None)) => {}
            Ok(Err(error)) => tracing::error!(file, %error, "the snapshot file is not used"),
            Err(panic) => tracing::error!(file, error = %panic, "the snapshot file is not used"),
        }
    }

    async fn write_file(&mut self, text: zeroize::Zeroizing<Vec<u8>>, digest: Digest) {
        let Some(path) = self.file.clone() else { return };
        let file = path.display().to_string();
        let written = tokio::task::spawn_blocking(move || snapshot_file::write(&path, &text)).await;
        let problem = match written {
            Ok(Ok(())) => {
                self.last_write = Some((Instant::now(), digest));
                None
            }
            Ok(Err(error)) => Some(error.to_string()),
            Err(panic) => Some(panic.to_string()),
        };
        let before = self.status.borrow().snapshot_file_error.clone();
        match (&before, &problem) {
            (None, Some(error)) => {
                tracing::error!(
                    file,
                    error,
                    "the snapshot file cannot be written: a start without the Admin API would find an older one"
                );
            }
            (Some(_), None) => tracing::info!(file, "the snapshot file can be written again"),
            _ => {}
        }
        self.status.send_modify(|status| {
            status.snapshots_written += u64::from(problem.is_none());
            status.snapshot_file_error = problem;
        });
    }
}
