//! This knows whether the CRLs in files have changed.

use std::path::{Path, PathBuf};

use kong_entities::{Looks, POLL_INTERVAL, Stamp};
use revocation::Checker;
use tokio::time::MissedTickBehavior;

/// Has the CRLs in these files read again whenever they have changed and nobody writes them any more, for as long as the
/// runtime lives. `seen` is how they were right before they were read for the first time.
pub(crate) async fn follow(checker: Checker, path: PathBuf, seen: Seen) {
    let mut ticks = tokio::time::interval(POLL_INTERVAL);
    // Two looks right after one another would see nothing of somebody who writes.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut looks = Looks::new(seen);
    loop {
        ticks.tick().await;
        let looked = path.clone();
        let Some(now) = kong_entities::look(move || look(&looked)).await else { continue };
        if !looks.is_settled_change(now) {
            continue;
        }
        let checker = checker.clone();
        let problem = match tokio::task::spawn_blocking(move || checker.read_local_crls()).await {
            Ok(Ok(())) => {
                // Said once it counts: whoever waits for this line may rely on it.
                tracing::info!(path = %path.display(), "the CRLs were read again");
                continue;
            }
            Ok(Err(problem)) => problem,
            Err(panic) => panic.to_string(),
        };
        tracing::error!(
            error = problem,
            "of a file of CRLs that cannot be used, the last good version stays"
        );
    }
}

/// What there is to see of the files: none where the path cannot be looked at.
pub(crate) type Seen = Option<Vec<(PathBuf, Option<Stamp>)>>;

/// Looks at the files.
pub(crate) fn look(path: &Path) -> Seen {
    let paths = revocation::crl_files(path).ok()?;
    Some(paths.into_iter().map(|path| (path.clone(), Stamp::of(&path))).collect())
}
