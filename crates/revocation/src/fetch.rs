//! This knows how to fetch what a URL in a certificate leads to, and where such a URL must not lead.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;

use crate::Trouble;

/// How one plugin instance fetches (`mtls-auth.md`: `http_timeout`, `http_proxy_*`, `https_proxy_*`, `ssl_verify`).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Settings {
    /// For one fetch as a whole.
    pub timeout: Duration,
    /// Host and port of the forward proxy for `http` URLs.
    pub http_proxy: Option<(String, u16)>,
    /// The same for `https` URLs.
    pub https_proxy: Option<(String, u16)>,
    /// Whether the server's own certificate must verify.
    pub ssl_verify: bool,
}

/// What holds for all.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Whether URLs may lead to loopback, link-local and private addresses, and redirects to other hosts.
    pub allow_private: bool,
    /// PEM file of the only CAs that servers' own certificates may come from; without it those of the system.
    pub ca_file: Option<PathBuf>,
}

/// One request.
#[derive(Clone, Debug)]
pub struct Query<'a> {
    /// Whom to ask.
    pub url: &'a str,
    /// The body of a POST and its media type; without it, a GET.
    pub post: Option<(Bytes, &'static str)>,
    /// The most bytes that the answer may have.
    pub max_bytes: usize,
}

/// Fetches.
#[derive(Debug)]
pub struct Fetcher {}

impl Fetcher {
    /// Prepares; nothing is asked yet.
    ///
    /// # Errors
    /// The file of CAs cannot be used.
    pub fn new(_options: Options) -> Result<Self, String> {
        todo!()
    }

    /// Asks, and reads all of the answer.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn fetch(&self, _query: Query<'_>, _settings: &Settings) -> Result<Bytes, Trouble> {
        todo!()
    }
}
