//! This knows the settings file: what stands in `shim.yml`, and what it means.
//!
//! A key that is not known, or not supported, is an error: nobody shall believe in a setting that does nothing.

mod access_log;
mod bounds;
mod length_of_time;
mod network;
mod session_tickets;
mod source;
mod tls;
mod upstream;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::file::{self, FileError};
use crate::proxy_protocol;

pub(crate) use self::access_log::AccessLog;
pub(crate) use self::bounds::{Limits, TimeLimits};
use self::network::Network;
pub(crate) use self::session_tickets::{SessionTickets, TicketSettings};
pub(crate) use self::source::{AdminApi, Source};
pub(crate) use self::tls::TlsSettings;
pub(crate) use self::upstream::{Upstream, UpstreamTls};

/// All that the shim is told, valid.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    /// Where clients connect to. At least one.
    pub(crate) listen: Listen,
    /// Kong's proxy listener.
    pub(crate) upstream: Upstream,
    /// Kong's proxy listener for gRPC, which speaks HTTP/2. Without it a request of gRPC goes on as any other.
    #[serde(default)]
    pub(crate) grpc_upstream: Option<Upstream>,
    /// How Kong is known, where one of its listeners speaks TLS.
    #[serde(default)]
    pub(crate) upstream_tls: Option<UpstreamTls>,
    /// Whether Kong is told of a client's addresses by the PROXY protocol, and in which version.
    #[serde(default)]
    pub(crate) send_proxy_protocol: Option<proxy_protocol::Version>,
    /// Whether clients come by fronts that speak the PROXY protocol, and from where. Then nobody else can connect.
    #[serde(default)]
    pub(crate) accept_proxy_protocol: Option<Fronts>,
    /// Where Kong's configuration is read.
    pub(crate) kong: Source,
    /// What the shim shows to clients.
    pub(crate) default_certificate: CertificateFiles,
    /// The key that the plugin server has too.
    pub(crate) proof_key_file: PathBuf,
    /// The socket of the plugin server. Where it is told, what needs a certificate is refused while nobody answers there.
    #[serde(default)]
    pub(crate) plugin_server: Option<PathBuf>,
    /// Where the shim tells how it fares.
    #[serde(default)]
    pub(crate) status_listen: Option<SocketAddr>,
    /// Whether sessions of clients may be resumed.
    #[serde(default)]
    pub(crate) session_tickets: SessionTickets,
    /// Where a line for each request goes.
    #[serde(default)]
    pub(crate) access_log: AccessLog,
    /// What clients may choose from in a handshake.
    #[serde(default)]
    pub(crate) tls: TlsSettings,
    #[serde(default)]
    pub(crate) time_limits: TimeLimits,
    #[serde(default)]
    pub(crate) limits: Limits,
}

/// A certificate with its chain, and its private key, both in PEM.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CertificateFiles {
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
}

/// Addresses to listen on.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Vec<String>")]
pub(crate) struct Listen(pub(crate) Vec<SocketAddr>);

/// From where fronts connect. At least one network.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Vec<Network>")]
pub(crate) struct Fronts(Vec<Network>);

impl Fronts {
    /// Whether a connection from this address is one of them.
    pub(crate) fn contain(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(address))
    }
}

impl TryFrom<Vec<Network>> for Fronts {
    type Error = String;

    fn try_from(networks: Vec<Network>) -> Result<Self, String> {
        if networks.is_empty() { Err("expected at least one network".into()) } else { Ok(Self(networks)) }
    }
}

impl Settings {
    /// Reads the settings from a file. Paths in it are relative to the working directory.
    ///
    /// # Errors
    /// Names the file, the line and the key.
    pub(crate) fn read(path: &Path) -> Result<Self, FileError> {
        file::read(path, |text| Self::parse(text)?.consistent())
    }

    /// The keys of what differs from settings that the shim has begun with, and counts after a restart only.
    pub(crate) fn fixed_that_differ(&self, begun_with: &Self) -> impl Iterator<Item = &'static str> {
        let old = begun_with;
        let (times, old_times) = (&self.time_limits, &old.time_limits);
        let differ = [
            ("listen", self.listen != old.listen),
            ("upstream", self.upstream != old.upstream),
            ("grpc_upstream", self.grpc_upstream != old.grpc_upstream),
            ("upstream_tls", self.upstream_tls != old.upstream_tls),
            ("send_proxy_protocol", self.send_proxy_protocol != old.send_proxy_protocol),
            ("accept_proxy_protocol", self.accept_proxy_protocol != old.accept_proxy_protocol),
            ("status_listen", self.status_listen != old.status_listen),
            ("plugin_server", self.plugin_server != old.plugin_server),
            ("access_log", self.access_log != old.access_log),
            ("time_limits.upstream_connect", times.upstream_connect != old_times.upstream_connect),
            ("time_limits.upstream_handshake", times.upstream_handshake != old_times.upstream_handshake),
            ("time_limits.drain", times.drain != old_times.drain),
            ("limits.connections", self.limits.connections != old.limits.connections),
        ];
        differ.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key)
    }

    /// What single keys cannot show.
    fn consistent(self) -> Result<Self, String> {
        let tls = self.upstream.tls || self.grpc_upstream.as_ref().is_some_and(|upstream| upstream.tls);
        if self.upstream_tls.is_some() && !tls {
            return Err("upstream_tls: no upstream is an https:// one".to_owned());
        }
        Ok(self)
    }

    fn parse(text: &str) -> Result<Self, String> {
        let options = serde_saphyr::options! { with_snippet: false };
        let mut path = None;
        serde_saphyr::with_deserializer_from_str_with_options(text, options, |deserializer| {
            serde_path_to_error::deserialize(deserializer).map_err(|error| {
                path = Some(error.path().to_string());
                error.into_inner()
            })
        })
        .map_err(|error| match path.as_deref() {
            None | Some(".") => error.to_string(),
            Some(path) => format!("{path}: {error}"),
        })
    }
}

impl TryFrom<Vec<String>> for Listen {
    type Error = String;

    fn try_from(addresses: Vec<String>) -> Result<Self, String> {
        if addresses.is_empty() {
            return Err("expected at least one address".into());
        }
        let parse = |text: &String| {
            text.parse()
                .map_err(|_| format!("{text:?} is not an address such as \"0.0.0.0:8443\" or \"[::]:8443\""))
        };
        addresses.iter().map(parse).collect::<Result<_, _>>().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
listen: ["0.0.0.0:8443", "[::1]:0"]
upstream: http://127.0.0.1:8000
kong:
  declarative_config: /etc/kong/kong.yml
  poll_interval: 5s
default_certificate: {cert: /etc/tls/default.crt, key: /etc/tls/default.key}
proof_key_file: /usr/local/kong/mtls-auth.key
"#;

    #[test]
    fn what_stands_there_is_read() {
        let settings = Settings::parse(GOOD).unwrap();
        assert_eq!(settings.listen.0, ["0.0.0.0:8443".parse().unwrap(), "[::1]:0".parse().unwrap()]);
        assert_eq!(settings.upstream.address(), "127.0.0.1:8000");
        let Source::DeclarativeFile(file) = settings.kong else { panic!("{:?}", settings.kong) };
        assert_eq!((file.path.to_str(), file.poll_interval.as_secs()), (Some("/etc/kong/kong.yml"), 5));
        assert!(settings.grpc_upstream.is_none());
        let settings = Settings::parse(&format!("{GOOD}\ngrpc_upstream: http://127.0.0.1:9080")).unwrap();
        assert_eq!(settings.grpc_upstream.unwrap().address(), "127.0.0.1:9080");
    }

    #[test]
    fn tls_towards_kong_is_only_of_matter_where_there_is_some() {
        let consistent = |text: String| Settings::parse(&text).unwrap().consistent();
        let plain = format!("{GOOD}\nupstream_tls: {{verify_name: kong}}");
        assert!(consistent(plain.clone()).unwrap_err().contains("upstream_tls"));
        for text in
            [plain.replace("upstream: http:", "upstream: https:"), plain + "\ngrpc_upstream: https://a"]
        {
            let tls = consistent(text).unwrap().upstream_tls.unwrap();
            assert_eq!((tls.ca, tls.verify_name.as_deref(), tls.verify_sni), (None, Some("kong"), false));
        }
    }

    #[test]
    fn what_needs_a_restart_is_named() {
        let begun_with = Settings::parse(GOOD).unwrap();
        for (from, to, keys) in [
            ("declarative_config: /etc/kong/kong.yml", "admin_url: http://kong", &[][..]),
            ("mtls-auth.key", "other.key", &[]),
            ("0.0.0.0:8443", "0.0.0.0:443", &["listen"]),
            ("http://127.0.0.1:8000", "http://127.0.0.1:9000", &["upstream"]),
            ("default.key", "other.key", &[]),
            (
                "proof_key_file",
                "upstream_tls: {}\ngrpc_upstream: http://a\nsend_proxy_protocol: v1\naccept_proxy_protocol: [::1]\n\
                 plugin_server: /a\naccess_log: stdout\nproof_key_file",
                &[
                    "grpc_upstream",
                    "upstream_tls",
                    "send_proxy_protocol",
                    "accept_proxy_protocol",
                    "plugin_server",
                    "access_log",
                ],
            ),
            (
                "proof_key_file",
                "time_limits: {header: 1s, upstream_connect: 1s, upstream_handshake: 1s, drain: 1s}\n\
                 limits: {connections: 1, streams: 1}\ntls: {min_version: '1.3'}\nproof_key_file",
                &[
                    "time_limits.upstream_connect",
                    "time_limits.upstream_handshake",
                    "time_limits.drain",
                    "limits.connections",
                ],
            ),
        ] {
            let settings = Settings::parse(&GOOD.replace(from, to)).unwrap();
            assert_eq!(settings.fixed_that_differ(&begun_with).collect::<Vec<_>>(), keys, "{to}");
        }
    }

    #[test]
    fn what_is_wrong_is_named_with_key_and_line() {
        for (from, to, key, line) in [
            ("proof_key_file:", "proof_key:", "proof_key", "line 8"),
            (
                "  poll_interval: 5s",
                "  admin_url: http://a",
                "kong: admin_url and declarative_config",
                "line",
            ),
            (
                "  poll_interval: 5s",
                "  admin_token_file: /a",
                "kong: admin_token_file: only with admin_url",
                "line",
            ),
            (
                "  poll_interval: 5s",
                "  admin_ca_file: /a",
                "kong: admin_ca_file: only with admin_url",
                "line",
            ),
            (
                "  poll_interval: 5s",
                "  snapshot_file: /a",
                "kong: snapshot_file: only with admin_url",
                "line",
            ),
            (
                "  poll_interval: 5s",
                "  admin_url: ftp://a",
                "kong.admin_url: Admin API URL \"ftp://a\"",
                "line 6",
            ),
            ("  poll_interval: 5s", "  admin_url: http://a:b@c", "kong.admin_url: ", "line 6"),
            ("  poll_interval: 5s", "  admin_token: a", "kong.admin_token", "line 6"),
            ("upstream:", "status_listen: localhost\nupstream:", "status_listen", "line 3"),
            ("upstream:", "plugin_server: [/a]\nupstream:", "plugin_server", "line 3"),
            ("cert: /etc", "certificate: /etc", "certificate", "line 7"),
            ("upstream: http:", "upstream: ftp:", "upstream", "line 3"),
            ("proof_key_file:", "upstream_tls: {cert: /a}\nproof_key_file:", "cert", "line 8"),
            ("proof_key_file:", "upstream_tls: {verify_sni: 1}\nproof_key_file:", "verify_sni", "line 8"),
            ("http://127.0.0.1:8000", "127.0.0.1:8000", "upstream", "line 3"),
            ("http://127.0.0.1:8000", "http://127.0.0.1:8000/path", "upstream", "line 3"),
            ("http://127.0.0.1:8000", "http://user@127.0.0.1:8000", "upstream", "line 3"),
            ("http://127.0.0.1:8000", "http://127.0.0.1:0", "upstream", "line 3"),
            ("http://127.0.0.1:8000", "http://127.0.0.1:99999", "upstream", "line 3"),
            ("http://127.0.0.1:8000", "'http://'", "upstream", "line 3"),
            ("poll_interval: 5s", "poll_interval: 5", "poll_interval", "line 6"),
            ("poll_interval: 5s", "poll_interval: 0s", "poll_interval", "line 6"),
            ("poll_interval: 5s", "poll_interval: 5 h", "poll_interval", "line 6"),
            ("poll_interval: 5s", "poll_interval: 99999999999s", "poll_interval", "line 6"),
            ("0.0.0.0:8443", "localhost:8443", "listen", "line 2"),
            ("[\"0.0.0.0:8443\", \"[::1]:0\"]", "[]", "listen", "line 2"),
            ("proof_key_file:", "send_proxy_protocol: v3\nproof_key_file:", "send_proxy_protocol", "line 8"),
            (
                "proof_key_file:",
                "send_proxy_protocol: true\nproof_key_file:",
                "send_proxy_protocol",
                "line 8",
            ),
            (
                "proof_key_file:",
                "accept_proxy_protocol: []\nproof_key_file:",
                "accept_proxy_protocol",
                "line 8",
            ),
            (
                "proof_key_file:",
                "accept_proxy_protocol: [a]\nproof_key_file:",
                "accept_proxy_protocol",
                "line 8",
            ),
            ("proof_key_file:", "access_log: syslog\nproof_key_file:", "access_log", "line 8"),
            ("proof_key_file:", "grpc_upstream: h2c://a\nproof_key_file:", "grpc_upstream", "line 8"),
            ("proof_key_file:", "upstream: http://a\nproof_key_file:", "upstream", "line 8"),
            (
                "proof_key_file:",
                "tls: {ciphers: [aNULL]}\nproof_key_file:",
                "tls.ciphers: \"aNULL\" is not a cipher",
                "line 8",
            ),
            ("proof_key_file:", "tls: {groups: []}\nproof_key_file:", "tls.groups: ", "line 8"),
            ("proof_key_file:", "tls: {min_version: 1}\nproof_key_file:", "tls.min_version: ", "line 8"),
            (
                "proof_key_file:",
                "time_limits:\n  header: 0s\nproof_key_file:",
                "time_limits.header: ",
                "line 9",
            ),
            ("proof_key_file:", "time_limits: {head: 1s}\nproof_key_file:", "head", "line 8"),
            (
                "proof_key_file:",
                "limits:\n  streams: 0\nproof_key_file:",
                "limits.streams: it is not between 1 and 1000",
                "line 9",
            ),
            ("listen: [\"0.0.0.0:8443\", \"[::1]:0\"]\n", "", "listen", "line"),
            ("proof_key_file: /usr/local/kong/mtls-auth.key\n", "", "proof_key_file", "line"),
            ("  declarative_config: /etc/kong/kong.yml\n", "", "declarative_config", "line"),
        ] {
            let text = GOOD.replace(from, to);
            assert_ne!(text, GOOD, "{from}");
            let error = Settings::parse(&text).unwrap_err();
            assert!(error.contains(key) && error.contains(line), "{to}: {error}");
        }
    }
}
