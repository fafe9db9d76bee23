//! This knows why a double cannot start or reload.

use std::io;

use crate::schema::SchemaViolation;

/// Why a double cannot start or reload.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The listener.
    #[error("cannot listen: {0}")]
    Listen(#[source] io::Error),
    /// `plugin_info` is not what a plugin server prints on `-dump`.
    #[error("plugin info: {0}")]
    PluginInfo(&'static str),
    /// The plugin wants a phase that the double does not have.
    #[error("the double has no phase {0:?}, only certificate, access, response and log")]
    Phase(String),
    /// A config uses another plugin than the one of `plugin_info`.
    #[error("plugin '{0}' not enabled; add it to the 'plugins' configuration property")]
    UnknownPlugin(String),
    /// A plugin's config violates its schema; Kong refuses such a configuration.
    #[error("plugin {plugin} of {}: {violation}", route.as_deref().map_or("all routes".into(), |r| format!("route {r}")))]
    Config {
        /// The plugin.
        plugin: String,
        /// The route it is on; none for a global plugin.
        route: Option<String>,
        /// What is wrong.
        #[source]
        violation: SchemaViolation,
    },
    /// A route's path is no prefix.
    #[error("route {route}: path {path:?} does not start with a slash")]
    RoutePath {
        /// The route's name.
        route: String,
        /// Its path.
        path: String,
    },
    /// No address and no CIDR block.
    #[error("trusted_ips: {0:?} is neither an address nor a CIDR block")]
    TrustedIp(String),
    /// A double without workers answers nobody.
    #[error("a double needs at least one worker")]
    NoWorkers,
}
