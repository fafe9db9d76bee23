//! This knows what the settings say of Kong's listeners.

use std::net::IpAddr;
use std::path::PathBuf;

use http::uri::Authority;
use serde::Deserialize;

/// One of Kong's listeners, by its URL.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Upstream {
    /// Whether it speaks TLS: `https://`.
    pub(crate) tls: bool,
    authority: Authority,
}

/// How Kong is known, where it speaks TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct UpstreamTls {
    /// The CAs that Kong's certificate may come from, in PEM; those of the system where there is none.
    pub(crate) ca: Option<PathBuf>,
    /// The name that it has to bear; the host of the URL where there is none.
    pub(crate) verify_name: Option<String>,
    /// Whether it has to bear the server name of the client instead, which Kong is told: for a Kong that has a
    /// certificate for each of them.
    #[serde(default)]
    pub(crate) verify_sni: bool,
}

impl Upstream {
    /// Without the brackets of an IPv6 address.
    pub(crate) fn host(&self) -> &str {
        self.authority.host().trim_start_matches('[').trim_end_matches(']')
    }

    /// As the URL has it, or the usual one.
    pub(crate) fn port(&self) -> u16 {
        self.authority.port_u16().unwrap_or(if self.tls { 443 } else { 80 })
    }

    /// Whether a connection to it stays on this host.
    pub(crate) fn is_local(&self) -> bool {
        let host = self.host();
        host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }

    /// Host and port.
    pub(crate) fn address(&self) -> Authority {
        match self.authority.port() {
            None if self.tls => format!("{}:443", self.authority).parse().expect("a host and a port"),
            _ => self.authority.clone(),
        }
    }
}

impl TryFrom<String> for Upstream {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not a URL such as \"http://127.0.0.1:8000\"");
        let (scheme, authority) = text.split_once("://").ok_or_else(wrong)?;
        let tls = match scheme {
            "http" => false,
            "https" => true,
            _ => return Err(wrong()),
        };
        let authority: Authority =
            authority.strip_suffix('/').unwrap_or(authority).parse().map_err(|_| wrong())?;
        // A user, an empty host or a port that is none would parse as an authority.
        let port = authority.as_str().strip_prefix(authority.host()).ok_or_else(wrong)?;
        let is_port = |port: &str| port.parse::<u16>().is_ok_and(|port| port > 0);
        if authority.host().is_empty() || !(port.is_empty() || port.strip_prefix(':').is_some_and(is_port)) {
            return Err(wrong());
        }
        Ok(Self { tls, authority })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_an_address_and_a_name() {
        for (url, tls, address, host, port, local) in [
            ("http://127.0.0.1:8000", false, "127.0.0.1:8000", "127.0.0.1", 8000, true),
            ("http://kong/", false, "kong", "kong", 80, false),
            ("http://LOCALHOST", false, "LOCALHOST", "LOCALHOST", 80, true),
            ("http://10.0.0.1", false, "10.0.0.1", "10.0.0.1", 80, false),
            ("https://kong", true, "kong:443", "kong", 443, false),
            ("https://kong:8443/", true, "kong:8443", "kong", 8443, false),
            ("https://[::1]:8443", true, "[::1]:8443", "::1", 8443, true),
            ("https://[::1]", true, "[::1]:443", "::1", 443, true),
        ] {
            let upstream = Upstream::try_from(url.to_owned()).unwrap();
            assert_eq!((upstream.tls, upstream.address().as_str(), upstream.host()), (tls, address, host));
            assert_eq!((upstream.port(), upstream.is_local()), (port, local), "{url}");
        }
    }
}
