//! This knows Kong's entities, as far as the plugin server and the shim need them: CA certificates, consumers,
//! services, routes and plugins. They come from one of Kong's declarative files, which is watched for changes.

#![forbid(unsafe_code)]

mod declarative;
mod ids;
mod mapping;
mod model;
mod watched;

pub use declarative::{DeclarativeError, load, parse_json, parse_yaml};
pub use mapping::Mapping;
pub use model::{CaCertificate, Consumer, Entities, Plugin, Route, Scope, Service};
pub use watched::{POLL_INTERVAL, Watched, watch};
