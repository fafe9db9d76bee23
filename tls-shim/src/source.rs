//! This knows how Kong's configuration comes to the shim: from a declarative file or the Admin API, once or for as long as
//! it runs.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use kong_entities::{
    AdminClient, AdminSettings, AdminSettingsError, AdminToken, DeclarativeError, Entities, Followed,
    SourceError, SourceStatus,
};

use tokio::task::block_in_place;

use crate::settings::{AdminApi, Settings, Source};

/// Why a source cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SourceUnusable {
    #[error(transparent)]
    File(#[from] DeclarativeError),
    #[error(transparent)]
    Admin(#[from] AdminSettingsError),
    /// At a start that is no reason: it may pass.
    #[error("the Admin API cannot be read: {0}")]
    Away(String),
}

/// Follows the configuration from now on.
///
/// # Errors
/// See [`SourceUnusable`].
pub(crate) async fn follow(settings: &Settings) -> Result<Followed, SourceUnusable> {
    match &settings.kong {
        Source::DeclarativeFile(file) => {
            Ok(block_in_place(|| kong_entities::follow_file(&file.path, file.poll_interval))?)
        }
        Source::AdminApi(api) => {
            let snapshot_file = api.snapshot_file(&settings.proof_key_file);
            let client = client(api)?;
            Ok(kong_entities::follow_admin(client, api.poll_interval, snapshot_file.as_deref()).await)
        }
    }
}

/// The same, once a configuration has been read from the source itself: one from a snapshot file is not newer than what
/// was read before.
///
/// # Errors
/// See [`SourceUnusable`].
pub(crate) async fn follow_known(settings: &Settings) -> Result<Followed, SourceUnusable> {
    let away = |error: SourceError| SourceUnusable::Away(error.to_string());
    if let Source::AdminApi(api) = &settings.kong {
        // Whoever follows it would say of one that is away that nothing is known, which is not so.
        kong_entities::snapshot(&client(api)?).await.map_err(away)?;
    }
    let mut followed = follow(settings).await?;
    let answered = |status: &SourceStatus| {
        let is_own =
            !matches!(status.origin, kong_entities::Origin::NoSnapshot | kong_entities::Origin::SnapshotFile);
        is_own || status.last_error.is_some()
    };
    let status = followed.status.wait_for(answered).await.map(|status| status.clone());
    match status {
        Ok(SourceStatus { last_error: None, .. }) => Ok(followed),
        Ok(SourceStatus { last_error: Some(error), .. }) => Err(SourceUnusable::Away(error)),
        Err(ended) => Err(SourceUnusable::Away(ended.to_string())),
    }
}

/// The configuration as it is now.
pub(crate) struct Reading {
    pub(crate) entities: Arc<Entities>,
    pub(crate) origin: Origin,
}

/// Where a reading comes from.
pub(crate) enum Origin {
    DeclarativeFile(PathBuf),
    /// The Admin API at this URL.
    AdminApi(String),
    /// The Admin API cannot be read.
    SnapshotFile {
        path: PathBuf,
        age: Duration,
        because: SourceError,
    },
    /// Nor is there a snapshot that can be used.
    Nowhere {
        because: SourceError,
        snapshot_file: String,
    },
}

/// Reads the configuration once, with what a start would do where the Admin API cannot be read. Writes nothing.
///
/// # Errors
/// See [`SourceUnusable`].
pub(crate) async fn read(settings: &Settings) -> Result<Reading, SourceUnusable> {
    let api = match &settings.kong {
        Source::DeclarativeFile(file) => {
            let entities = kong_entities::load(&file.path)?.into();
            return Ok(Reading { entities, origin: Origin::DeclarativeFile(file.path.clone()) });
        }
        Source::AdminApi(api) => api,
    };
    let client = client(api)?;
    let because = match kong_entities::snapshot(&client).await {
        Ok(entities) => {
            return Ok(Reading { entities: entities.into(), origin: Origin::AdminApi(client.url()) });
        }
        Err(error) => error,
    };
    let path = api.snapshot_file(&settings.proof_key_file);
    Ok(without_admin(because, path.as_deref(), &client))
}

fn without_admin(because: SourceError, path: Option<&Path>, client: &AdminClient) -> Reading {
    let stored = path.map(|path| (path, kong_entities::read_snapshot_file(path, client)));
    let snapshot_file = match stored {
        Some((path, Ok(Some((entities, age))))) => {
            let origin = Origin::SnapshotFile { path: path.to_owned(), age, because };
            return Reading { entities: entities.into(), origin };
        }
        Some((path, Ok(None))) => format!("there is no snapshot file {}", path.display()),
        Some((path, Err(error))) => format!("the snapshot file {} is not used: {error}", path.display()),
        None => "snapshot_file is off".to_owned(),
    };
    Reading { entities: Entities::unknown().into(), origin: Origin::Nowhere { because, snapshot_file } }
}

/// A client of the Admin API that the settings name.
///
/// # Errors
/// Its token or CA file cannot be used.
pub(crate) fn client(api: &AdminApi) -> Result<AdminClient, AdminSettingsError> {
    block_in_place(|| {
        let token = api.token_file.as_deref().map(AdminToken::read).transpose()?;
        AdminClient::new(AdminSettings {
            token,
            ca_file: api.ca_file.clone(),
            ..AdminSettings::new(&api.url)
        })
    })
}

impl Origin {
    /// What keeps the source itself from being read, where that is so and waiting is not going to help, or where nothing
    /// stands in for it.
    pub(crate) fn fault(&self) -> Option<String> {
        match self {
            Self::DeclarativeFile(_) | Self::AdminApi(_) => None,
            Self::SnapshotFile { because, .. } => (!because.is_outage()).then(|| because.to_string()),
            Self::Nowhere { because, .. } => Some(because.to_string()),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DeclarativeFile(path) => write!(f, "from the declarative file {}", path.display()),
            Self::AdminApi(url) => write!(f, "from the Admin API {url}"),
            Self::SnapshotFile { path, age, because } => write!(
                f,
                "from the snapshot file {}, written {} ago, since the Admin API cannot be read: {because}",
                path.display(),
                Age(*age)
            ),
            Self::Nowhere { because, snapshot_file } => write!(
                f,
                "none is known, since the Admin API cannot be read: {because}; {snapshot_file}; the shim would ask \
                 everybody until it can"
            ),
        }
    }
}

/// A length of time, for people to read.
struct Age(Duration);

impl fmt::Display for Age {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        match seconds {
            0..120 => write!(f, "{seconds} s"),
            120..7200 => write!(f, "{} min", seconds / 60),
            7200..172_800 => write!(f, "{} h", seconds / 3600),
            _ => write!(f, "{} days", seconds / 86_400),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_is_rounded_down() {
        for (seconds, shown) in [
            (0, "0 s"),
            (119, "119 s"),
            (120, "2 min"),
            (7199, "119 min"),
            (7200, "2 h"),
            (200_000, "2 days"),
        ] {
            assert_eq!(Age(Duration::from_secs(seconds)).to_string(), shown);
        }
    }
}
