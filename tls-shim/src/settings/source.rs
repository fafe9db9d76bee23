//! This knows what the settings say of where Kong's configuration is read.

use std::path::{Path, PathBuf};
use std::time::Duration;

use kong_entities::AdminSettings;
use serde::Deserialize;

use super::length_of_time::LengthOfTime;

/// How often the Admin API is asked, unless set: Kong itself looks for changes in its database as often
/// (`db_update_frequency`).
const ADMIN_POLL_INTERVAL: Duration = Duration::from_secs(5);

/// The name of the snapshot file, unless set.
const SNAPSHOT_FILE: &str = "tls-shim.snapshot.json";

/// Where Kong's configuration is read.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Written")]
pub(crate) enum Source {
    /// Kong's declarative file.
    DeclarativeFile(DeclarativeFile),
    /// Kong's Admin API.
    AdminApi(AdminApi),
}

/// `declarative_config` and what goes with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DeclarativeFile {
    pub(crate) path: PathBuf,
    /// How often the file is looked at.
    pub(crate) poll_interval: Duration,
}

/// `admin_url` and what goes with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AdminApi {
    pub(crate) url: String,
    /// File with the token that is sent as `Kong-Admin-Token`.
    pub(crate) token_file: Option<PathBuf>,
    /// PEM file of the only CAs that the server's certificate may come from; those of the system where there is none.
    pub(crate) ca_file: Option<PathBuf>,
    /// How often it is asked whether anything has changed.
    pub(crate) poll_interval: Duration,
    snapshot_file: SnapshotFile,
}

/// Where the last good configuration is kept for a start at which the Admin API does not answer.
///
/// The private keys of Kong's `certificates` are in it: without them, such a start would show every client the default
/// certificate. It is made for its owner alone (mode 0600).
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "PathBuf")]
enum SnapshotFile {
    /// Where the other secret of the shim is.
    #[default]
    BesideTheProofKey,
    At(PathBuf),
    /// Written `off`.
    Nowhere,
}

impl AdminApi {
    /// The snapshot file. None: none is kept.
    pub(crate) fn snapshot_file(&self, proof_key_file: &Path) -> Option<PathBuf> {
        match &self.snapshot_file {
            SnapshotFile::BesideTheProofKey => Some(proof_key_file.with_file_name(SNAPSHOT_FILE)),
            SnapshotFile::At(path) => Some(path.clone()),
            SnapshotFile::Nowhere => None,
        }
    }
}

impl From<PathBuf> for SnapshotFile {
    fn from(path: PathBuf) -> Self {
        if path == Path::new("off") { Self::Nowhere } else { Self::At(path) }
    }
}

/// As it stands in the file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    declarative_config: Option<PathBuf>,
    admin_url: Option<AdminUrl>,
    admin_token_file: Option<PathBuf>,
    admin_ca_file: Option<PathBuf>,
    snapshot_file: Option<SnapshotFile>,
    poll_interval: Option<LengthOfTime>,
}

impl TryFrom<Written> for Source {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        let Written { declarative_config, admin_url, admin_token_file, admin_ca_file, .. } = written;
        let poll_interval = |otherwise| written.poll_interval.map_or(otherwise, |LengthOfTime(set)| set);
        match (declarative_config, admin_url) {
            (None, None) => Err("expected either admin_url or declarative_config".into()),
            (Some(_), Some(_)) => Err("admin_url and declarative_config: only one of them".into()),
            (None, Some(AdminUrl(url))) => Ok(Self::AdminApi(AdminApi {
                url,
                token_file: admin_token_file,
                ca_file: admin_ca_file,
                poll_interval: poll_interval(ADMIN_POLL_INTERVAL),
                snapshot_file: written.snapshot_file.unwrap_or_default(),
            })),
            (Some(path), None) => {
                for (key, is_set) in [
                    ("admin_token_file", admin_token_file.is_some()),
                    ("admin_ca_file", admin_ca_file.is_some()),
                    ("snapshot_file", written.snapshot_file.is_some()),
                ] {
                    if is_set {
                        return Err(format!("{key}: only with admin_url"));
                    }
                }
                let poll_interval = poll_interval(kong_entities::POLL_INTERVAL);
                Ok(Self::DeclarativeFile(DeclarativeFile { path, poll_interval }))
            }
        }
    }
}

/// A URL that can be one of an Admin API.
#[derive(Deserialize)]
#[serde(try_from = "String")]
struct AdminUrl(String);

impl TryFrom<String> for AdminUrl {
    type Error = String;

    fn try_from(url: String) -> Result<Self, String> {
        AdminSettings::check_url(&url).map_err(|error| error.to_string())?;
        Ok(Self(url))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Source, String> {
        serde_saphyr::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn a_source_is_a_file_or_an_admin_api() {
        let file = |poll_interval| {
            Source::DeclarativeFile(DeclarativeFile { path: "/etc/kong/kong.yml".into(), poll_interval })
        };
        let text = "declarative_config: /etc/kong/kong.yml";
        assert_eq!(parse(text).unwrap(), file(kong_entities::POLL_INTERVAL));
        assert_eq!(parse(&format!("{text}\npoll_interval: 20ms")).unwrap(), file(Duration::from_millis(20)));

        let api = |more: &str| match parse(&format!("admin_url: https://kong:8444/admin\n{more}")).unwrap() {
            Source::AdminApi(api) => api,
            other @ Source::DeclarativeFile(_) => panic!("{other:?}"),
        };
        let plain = api("");
        assert_eq!((plain.url.as_str(), plain.poll_interval.as_secs()), ("https://kong:8444/admin", 5));
        assert!(plain.token_file.is_none() && plain.ca_file.is_none());
        let all = api("admin_token_file: /t\nadmin_ca_file: /c\npoll_interval: 2m");
        assert_eq!(all.token_file.as_deref(), Some(Path::new("/t")));
        assert_eq!(all.ca_file.as_deref(), Some(Path::new("/c")));
        assert_eq!(all.poll_interval.as_secs(), 120);
    }

    #[test]
    fn the_snapshot_file_is_beside_the_key_unless_it_is_set() {
        for (more, expected) in [
            ("", Some("/usr/local/kong/tls-shim.snapshot.json")),
            ("snapshot_file: /var/lib/shim/kong.json", Some("/var/lib/shim/kong.json")),
            ("snapshot_file: ./off", Some("./off")),
            ("snapshot_file: off", None),
        ] {
            let Source::AdminApi(api) = parse(&format!("admin_url: http://kong\n{more}")).unwrap() else {
                panic!("{more}");
            };
            let file = api.snapshot_file(Path::new("/usr/local/kong/mtls-auth.key"));
            assert_eq!(file.as_deref(), expected.map(Path::new), "{more}");
        }
    }
}
