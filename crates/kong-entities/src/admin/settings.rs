//! This knows how Kong's Admin API is reached: where, with which token, under which CA.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::uri::Authority;
use http::{HeaderValue, Uri};
use zeroize::Zeroizing;

/// How to reach the Admin API.
#[derive(Debug)]
pub struct AdminSettings {
    /// `http://` or `https://`, host, port and perhaps a path before Kong's own: of a front, or a workspace.
    pub url: String,
    /// Sent as `Kong-Admin-Token`. Open-source Kong asks for none; the commercial edition and fronts do.
    pub token: Option<AdminToken>,
    /// PEM file of the only CAs that the server's certificate may come from. None: those of the system.
    pub ca_file: Option<PathBuf>,
    /// How long one request may take, from connecting to the last byte.
    pub timeout: Duration,
}

impl AdminSettings {
    /// Without token, with the system's CAs, and 3 seconds for a request.
    pub fn new(url: impl Into<String>) -> Self {
        Self { url: url.into(), token: None, ca_file: None, timeout: Duration::from_secs(3) }
    }

    /// Whether a URL can be one of an Admin API, for who wants to say where it is written.
    ///
    /// # Errors
    /// [`AdminSettingsError::Url`].
    pub fn check_url(url: &str) -> Result<(), AdminSettingsError> {
        Endpoint::parse(url).map(drop)
    }
}

/// Why the settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AdminSettingsError {
    /// The URL leads nowhere.
    #[error("Admin API URL {url:?}: {problem}")]
    Url {
        /// As it was given, unless it holds a password.
        url: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// The CA file cannot be used.
    #[error("CA file {}: {problem}", path.display())]
    CaFile {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// OpenSSL cannot be set up.
    #[error("TLS towards the Admin API: {0}")]
    Tls(openssl::error::ErrorStack),
    /// The token file cannot be used.
    #[error("token file {}: {problem}", path.display())]
    TokenFile {
        /// The file.
        path: PathBuf,
        /// What is wrong; never the token.
        problem: String,
    },
}

/// A secret that the Admin API asks for. It is wiped from memory when the last copy goes, and never shown.
#[derive(Clone)]
pub struct AdminToken(HeaderValue);

impl AdminToken {
    /// Reads a token from a file; white space around it does not count.
    ///
    /// # Errors
    /// Names the file and what is wrong with it: missing, unreadable, empty, open to other users, too long (8 KiB), or
    /// not fit for a header.
    pub fn read(path: &Path) -> Result<Self, AdminSettingsError> {
        let wrong = |problem: String| AdminSettingsError::TokenFile { path: path.to_owned(), problem };
        let text = read_token(path).map_err(|error| wrong(error.to_string()))?;
        Self::new(text.trim()).map_err(|problem| wrong(problem.into()))
    }

    /// A token of this text.
    ///
    /// # Errors
    /// It is empty, or holds what no header may.
    pub fn new(text: &str) -> Result<Self, &'static str> {
        if text.is_empty() {
            return Err("it is empty");
        }
        // The header value shares these bytes instead of copying them, so that the last copy wipes them.
        let bytes = Bytes::from_owner(Zeroizing::new(text.as_bytes().to_vec()));
        let mut value =
            HeaderValue::from_maybe_shared(bytes).map_err(|_| "it holds characters that no header may")?;
        value.set_sensitive(true);
        Ok(Self(value))
    }

    pub(super) fn header(&self) -> HeaderValue {
        self.0.clone()
    }
}

impl std::fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AdminToken(..)")
    }
}

fn read_token(path: &Path) -> io::Result<Zeroizing<String>> {
    const MAX_BYTES: usize = 8192;
    let file = File::open(path)?;
    let mode = file.metadata()?.permissions().mode() & 0o7777;
    if mode & 0o007 != 0 {
        return Err(io::Error::other(format!(
            "other users may read or write it (mode {mode:04o}); chmod o= it"
        )));
    }
    // Never grown, for what is left behind by a move would not be wiped.
    let mut text = Zeroizing::new(String::with_capacity(MAX_BYTES + 1));
    file.take(MAX_BYTES as u64 + 1).read_to_string(&mut text)?;
    if text.len() > MAX_BYTES {
        return Err(io::Error::other(format!("it is longer than {MAX_BYTES} bytes")));
    }
    Ok(text)
}

/// Where the Admin API is.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Endpoint {
    pub(super) tls: bool,
    pub(super) authority: Authority,
    /// Without a `/` at its end, so that each of Kong's paths can follow; empty where there is none.
    pub(super) prefix: String,
}

impl Endpoint {
    pub(super) fn parse(text: &str) -> Result<Self, AdminSettingsError> {
        let wrong = |problem| {
            let url = if text.contains('@') { "(not shown)".into() } else { text.to_owned() };
            AdminSettingsError::Url { url, problem }
        };
        // The parser drops a fragment without a word.
        if text.contains(['?', '#']) {
            return Err(wrong("it must end with its path"));
        }
        let uri: Uri = text.parse().map_err(|_| wrong("not a URL"))?;
        let tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(wrong("expected http:// or https://")),
        };
        let authority = uri.authority().filter(|authority| !authority.host().is_empty());
        let authority = authority.ok_or_else(|| wrong("there is no host"))?.clone();
        if authority.as_str().contains('@') {
            return Err(wrong("it holds a user name: a secret belongs into the token file"));
        }
        // The parser takes any text after the colon, and a port that is none for none at all.
        let has_port = authority.as_str().len() > authority.host().len();
        if has_port && authority.port_u16().is_none() {
            return Err(wrong("the port is not a number"));
        }
        Ok(Self { tls, authority, prefix: uri.path().trim_end_matches('/').to_owned() })
    }

    /// Without the brackets of an IPv6 address.
    pub(super) fn host(&self) -> &str {
        self.authority.host().trim_start_matches('[').trim_end_matches(']')
    }

    pub(super) fn port(&self) -> u16 {
        self.authority.port_u16().unwrap_or(if self.tls { 443 } else { 80 })
    }

    /// The URL of a target, for people to read.
    pub(super) fn url(&self, target: &str) -> String {
        const MAX_CHARS: usize = 300;
        let scheme = if self.tls { "https" } else { "http" };
        // A target is percent-encoded, so that every byte of it is a character.
        let (shown, more) =
            if target.len() > MAX_CHARS { (&target[..MAX_CHARS], "…") } else { (target, "") };
        format!("{scheme}://{}{shown}{more}", self.authority)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_taken_apart() {
        for (url, tls, host, port, prefix) in [
            ("http://127.0.0.1:8001", false, "127.0.0.1", 8001, ""),
            ("http://kong/", false, "kong", 80, ""),
            ("https://kong.example.com/admin/", true, "kong.example.com", 443, "/admin"),
            ("https://[::1]:8444/admin/team", true, "::1", 8444, "/admin/team"),
        ] {
            let endpoint = Endpoint::parse(url).unwrap();
            let found = (endpoint.tls, endpoint.host(), endpoint.port(), endpoint.prefix.as_str());
            assert_eq!(found, (tls, host, port, prefix), "{url}");
        }
    }

    #[test]
    fn a_url_that_is_none_is_refused() {
        for (url, says) in [
            ("", "not a URL"),
            ("127.0.0.1:8001", "expected http"),
            ("kong", "expected http"),
            ("/admin", "expected http"),
            ("ftp://kong", "expected http"),
            ("http://", "URL"),
            ("http://:8001", "no host"),
            ("http://kong:port", "URL"),
            ("http://kong:99999", "port"),
            ("http://kong:/", "port"),
            ("http://kong/?a=b", "end with its path"),
            ("http://kong/#a", "end with its path"),
            ("http://user:SECRET@kong/", "token file"),
            ("http://a b/", "not a URL"),
        ] {
            let error = Endpoint::parse(url).unwrap_err().to_string();
            assert!(error.contains(says) && !error.contains("SECRET"), "{url}: {error}");
        }
    }

    #[test]
    fn a_token_is_read_trimmed_and_not_shown() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let write = |content: &str, mode: u32| {
            std::fs::write(&path, content).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            AdminToken::read(&path)
        };
        let token = write(" SECRET\n", 0o640).unwrap();
        assert_eq!(token.header(), "SECRET");
        assert!(!format!("{token:?} {:?}", token.header()).contains("SECRET"));
        for (content, mode, says) in [
            ("", 0o600, "empty"),
            (" \n", 0o600, "empty"),
            ("SECRET", 0o644, "0644"),
            ("SECRET\nmore", 0o600, "no header may"),
            (&"SECRET".repeat(2000), 0o600, "longer than 8192"),
        ] {
            let error = write(content, mode).unwrap_err().to_string();
            assert!(
                error.contains("token: ") && error.contains(says) && !error.contains("SECRET"),
                "{error}"
            );
        }
        let absent = AdminToken::read(&dir.path().join("absent")).unwrap_err().to_string();
        assert!(absent.contains("No such file"), "{absent}");
    }
}
