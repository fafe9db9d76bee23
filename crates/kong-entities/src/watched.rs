//! This knows how to follow a declarative file as it changes.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use crate::followed::{Followed, Origin, SourceStatus};
use crate::looks::{Looks, Stamp, look};
use crate::{DeclarativeError, Entities, load};

/// How often the file is looked at. A change counts once two looks in a row have seen the same file, so that a file
/// that is being written is not read half-way: cut at a line it may well parse, with plugins missing.
pub const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// The newest entities that could be read.
pub type Watched = watch::Receiver<Arc<Entities>>;

/// Reads the file and then follows it for as long as the runtime lives. A new version that cannot be read is logged
/// and the old one stays.
///
/// # Errors
/// Those of [`load`], for the first version.
///
/// # Panics
/// Outside a tokio runtime.
pub fn watch(path: &Path, every: Duration) -> Result<Watched, DeclarativeError> {
    follow_file(path, every).map(|followed| followed.entities)
}

/// The same, and how the file fares.
///
/// # Errors
/// Those of [`load`], for the first version.
///
/// # Panics
/// Outside a tokio runtime.
pub fn follow_file(path: &Path, every: Duration) -> Result<Followed, DeclarativeError> {
    let path = path.to_owned();
    // Before it is read: a change in between is then noticed.
    let loaded = Stamp::of(&path);
    let entities = watch::Sender::new(Arc::new(load(&path)?));
    let mut first = SourceStatus::new(Origin::DeclarativeFile);
    first.generation = 1;
    first.confirm(Duration::ZERO);
    let status = watch::Sender::new(first);
    let followed = Followed { entities: entities.subscribe(), status: status.subscribe() };
    tokio::spawn(follow(path, every, loaded, entities, status));
    Ok(followed)
}

async fn follow(
    path: PathBuf,
    every: Duration,
    loaded: Option<Stamp>,
    entities: watch::Sender<Arc<Entities>>,
    status: watch::Sender<SourceStatus>,
) {
    let mut ticks = tokio::time::interval(every);
    // Two looks right after one another, to make up for time lost, would see nothing of somebody who writes.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut looks = Looks::new(loaded);
    loop {
        ticks.tick().await;
        if entities.is_closed() {
            return;
        }
        let looked = path.clone();
        let Some(now) = look(move || Stamp::of(&looked)).await else { continue };
        if !looks.is_settled_change(now) {
            status.send_if_modified(|status| {
                // It is the version in use, or else one that could not be read.
                if now == *looks.loaded() && status.last_error.is_none() {
                    status.confirm(Duration::ZERO);
                }
                false
            });
            continue;
        }
        let reading = path.clone();
        let read = tokio::task::spawn_blocking(move || load(&reading)).await;
        let problem = match read {
            Ok(Ok(read)) => {
                entities.send_replace(Arc::new(read));
                status.send_modify(|status| {
                    status.generation += 1;
                    status.last_error = None;
                    status.confirm(Duration::ZERO);
                });
                // Said once it counts: whoever waits for this line may rely on it.
                tracing::info!(file = %path.display(), "the declarative configuration was read again");
                continue;
            }
            Ok(Err(error)) => error.to_string(),
            Err(panic) => panic.to_string(),
        };
        tracing::error!(
            error = problem,
            "the changed declarative configuration cannot be used: the last good one stays"
        );
        status.send_modify(|status| {
            status.failures += 1;
            status.last_error = Some(problem);
        });
    }
}
