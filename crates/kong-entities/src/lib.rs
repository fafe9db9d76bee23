//! This knows Kong's entities, as far as the plugin server and the shim need them: CA certificates, server
//! certificates with their names, consumers, services, routes and plugins. They come from one of Kong's declarative files, which is watched for changes, or from
//! its Admin API.

#![forbid(unsafe_code)]

mod admin;
mod declarative;
mod directory;
mod follow_admin;
mod followed;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod ids;
mod json_problem;
mod looks;
mod lookups;
mod mapping;
mod model;
mod node;
mod snapshot;
mod snapshot_file;
mod source_error;
mod watched;

pub use admin::{AdminClient, AdminSettings, AdminSettingsError, AdminToken, can_be_asked};
pub use declarative::{DeclarativeError, load, parse_json, parse_yaml};
pub use directory::{ConsumerKey, Directory, SourceHealth};
pub use follow_admin::{REWRITE, follow_admin};
pub use followed::{Followed, Origin, SourceStatus};
pub use looks::{Looks, Stamp, look};
pub use lookups::{CacheCounts, FAILURE_PAUSE, Lookups};
pub use mapping::Mapping;
pub use model::{
    CaCertificate, Certificate, CertificateAndKey, Consumer, Entities, Plugin, PrivateKey, Route, Scope,
    Service, is_pem,
};
pub use node::{Node, NodeSettings, PluginServer};
pub use snapshot::{applied_plugins, snapshot};
pub use snapshot_file::{SnapshotFileError, read_snapshot_file};
pub use source_error::{SourceError, SourceFault};
pub use watched::{POLL_INTERVAL, Watched, follow_file, watch};
