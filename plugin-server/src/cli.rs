//! This knows the command line, and the options file that may stand in for it.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::LazyLock;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use command_line::{CompletionsOptions, ManOptions};
use kong_entities::{AdminSettings, AdminSettingsError, AdminToken};
use serde::Deserialize;
use tracing_subscriber::filter::LevelFilter;

use crate::doctor::DoctorOptions;
use crate::explain::ExplainOptions;
use crate::guard::GuardOptions;
use crate::instance::VERIFIED_CERTIFICATES;
use crate::wire::protocol::Protocol;

/// What `--version` says.
static VERSION: LazyLock<String> = LazyLock::new(|| command_line::version(openssl::version::version()));

/// Mutual-TLS authentication for open-source Kong: the external plugin server.
#[derive(Debug, Parser)]
#[command(name = "mtls-auth", version = VERSION.as_str(), args_conflicts_with_subcommands = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,

    /// Prints the plugin info that Kong asks for with its query command, and ends.
    #[arg(long)]
    pub(crate) dump: bool,

    /// With --dump: the protocol that Kong is told to speak. The server itself speaks both
    #[arg(long, value_name = "PROTOCOL", default_value = "msgpack", requires = "dump")]
    pub(crate) protocol: Protocol,

    #[command(flatten)]
    pub(crate) options: Options,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serves Kong on the socket, as without any command.
    Serve(Options),
    /// Prints what is missing in Kong's configuration so that no request passes while the server does not answer.
    Guard(GuardOptions),
    /// Prints what the plugin would decide about a certificate, step by step, and why.
    Explain(ExplainOptions),
    /// Looks at all that has to be in order around the server, and says what to do where it is not.
    Doctor(DoctorOptions),
    /// Prints completions for a shell, such as for /etc/bash_completion.d/mtls-auth.
    Completions(CompletionsOptions),
    /// Prints the man page, or writes those of all commands into a folder.
    Man(ManOptions),
}

/// The options of `serve`, each of which may also stand in the file of `--config`, with `_` for `-`.
#[derive(Clone, Debug, Default, Args, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Options {
    /// Kong's prefix: where the socket and the key live [default: /usr/local/kong]
    #[arg(long, value_name = "DIR")]
    pub(crate) kong_prefix: Option<PathBuf>,

    /// The socket to serve on [default: <prefix>/mtls-auth.socket]
    #[arg(long, value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,

    /// How many verified certificates are remembered, over all routes: about 1 KiB each. One that is not is verified
    /// again [default: 10000]
    #[arg(long, value_name = "COUNT")]
    pub(crate) verified_certificates: Option<u32>,

    /// Kong's Admin API, for CA certificates and consumers. With neither this nor --declarative-config, consumers are
    /// found by username through Kong itself, and CAs stand in the plugin's configuration
    #[arg(long, value_name = "URL", conflicts_with = "declarative_config")]
    pub(crate) admin_url: Option<String>,

    /// File with the token that the Admin API asks for, sent as Kong-Admin-Token
    #[arg(long, value_name = "FILE")]
    pub(crate) admin_token_file: Option<PathBuf>,

    /// PEM file of the only CAs that the Admin API's own certificate may come from [default: those of the system]
    #[arg(long, value_name = "FILE")]
    pub(crate) admin_ca_file: Option<PathBuf>,

    /// Kong's declarative file (YAML or JSON) with CA certificates and consumers, watched for changes
    #[arg(long, value_name = "FILE")]
    pub(crate) declarative_config: Option<PathBuf>,

    /// The key shared with the shim, made where absent [default: <prefix>/mtls-auth.key]
    #[arg(long, value_name = "FILE")]
    pub(crate) proof_key_file: Option<PathBuf>,

    /// How long the plugin may take for a request, from 0.1 to 30 seconds; it is answered with 503 then [default: 5]
    #[arg(long, value_name = "SECONDS")]
    pub(crate) event_timeout: Option<EventTimeout>,

    /// Lets URLs of OCSP responders and CRLs lead to loopback, link-local and private addresses, and redirect to other hosts
    #[arg(long)]
    pub(crate) allow_private_revocation_urls: bool,

    /// PEM file of the only CAs that certificates of https servers of OCSP responses and CRLs may come from [default:
    /// those of the system]
    #[arg(long, value_name = "FILE")]
    pub(crate) revocation_ca_file: Option<PathBuf>,

    /// A file of CRLs (PEM or DER), or a folder of such files, watched for changes; they count beside those that
    /// certificates name
    #[arg(long, value_name = "PATH")]
    pub(crate) crl_path: Option<PathBuf>,

    /// For how long after its nextUpdate a CRL still counts while no newer one can be had [default: 3600]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32))]
    pub(crate) crl_max_stale: Option<u32>,

    /// How much memory CRLs and OCSP answers may take, in MiB, from 8 [default: 256]
    #[arg(long, value_name = "MIB")]
    pub(crate) revocation_memory: Option<Mebibytes>,

    /// Where /metrics, /healthz and /readyz are served, such as 127.0.0.1:9542 [default: nowhere]
    #[arg(long, value_name = "ADDR")]
    pub(crate) status_listen: Option<SocketAddr>,

    /// What to log: error, warn, info, debug or trace [default: info]
    #[arg(long, value_name = "LEVEL")]
    pub(crate) log_level: Option<LogLevel>,

    /// These options in YAML; the command line wins
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    pub(crate) config: Option<PathBuf>,
}

/// How a command asks about revocation.
#[derive(Clone, Debug, Args)]
pub(crate) struct OnlineOptions {
    /// Asks whether the certificate has been revoked, as the server would; without it, only who would be asked is told
    #[arg(long)]
    online: bool,

    /// As with `serve`
    #[arg(long, requires = "online")]
    allow_private_revocation_urls: bool,

    /// As with `serve`
    #[arg(long, value_name = "FILE", requires = "online")]
    revocation_ca_file: Option<PathBuf>,

    /// As with `serve`
    #[arg(long, value_name = "PATH", requires = "online")]
    crl_path: Option<PathBuf>,

    /// As with `serve`
    #[arg(long, value_name = "SECONDS", requires = "online")]
    crl_max_stale: Option<u32>,
}

impl OnlineOptions {
    /// What they say together, where anybody is to be asked.
    pub(crate) fn settle(self) -> Option<revocation::Options> {
        self.online.then(|| {
            revocation_options(
                self.allow_private_revocation_urls,
                self.revocation_ca_file,
                self.crl_path,
                self.crl_max_stale,
                None,
            )
        })
    }
}

/// Where a command reads Kong's configuration.
#[derive(Clone, Debug, Args)]
pub(crate) struct SourceOptions {
    /// Kong's Admin API, whose configuration is looked at
    #[arg(long, value_name = "URL", conflicts_with = "declarative_config")]
    pub(crate) admin_url: Option<String>,

    /// File with the token that the Admin API asks for, sent as Kong-Admin-Token
    #[arg(long, value_name = "FILE")]
    pub(crate) admin_token_file: Option<PathBuf>,

    /// PEM file of the only CAs that the Admin API's own certificate may come from [default: those of the system]
    #[arg(long, value_name = "FILE")]
    pub(crate) admin_ca_file: Option<PathBuf>,

    /// Kong's declarative file (YAML or JSON), which is looked at
    #[arg(long, value_name = "FILE")]
    pub(crate) declarative_config: Option<PathBuf>,
}

impl SourceOptions {
    /// What they say together.
    ///
    /// # Errors
    /// The options do not go together, or the token's file cannot be used.
    pub(crate) fn settle(&self) -> Result<EntitySettings, OptionsError> {
        EntitySettings::settle(
            self.admin_url.clone(),
            self.admin_token_file.clone(),
            self.admin_ca_file.clone(),
            self.declarative_config.clone(),
        )
    }
}

#[derive(Clone, Copy, Debug, clap::ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl From<LogLevel> for LevelFilter {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Error => Self::ERROR,
            LogLevel::Warn => Self::WARN,
            LogLevel::Info => Self::INFO,
            LogLevel::Debug => Self::DEBUG,
            LogLevel::Trace => Self::TRACE,
        }
    }
}

/// A time limit. The most is half of what Kong waits for an answer before it lets the request pass.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(try_from = "f64")]
pub(crate) struct EventTimeout(Duration);

impl TryFrom<f64> for EventTimeout {
    type Error = &'static str;

    fn try_from(seconds: f64) -> Result<Self, Self::Error> {
        if (0.1..=30.0).contains(&seconds) {
            Ok(Self(Duration::from_secs_f64(seconds)))
        } else {
            Err("expected 0.1 to 30 seconds")
        }
    }
}

impl FromStr for EventTimeout {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse::<f64>().map_err(|_| "expected a number of seconds")?.try_into()
    }
}

/// A size of memory.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(try_from = "u64")]
pub(crate) struct Mebibytes(u64);

impl TryFrom<u64> for Mebibytes {
    type Error = &'static str;

    fn try_from(mebibytes: u64) -> Result<Self, Self::Error> {
        if (8..=1 << 20).contains(&mebibytes) {
            Ok(Self(mebibytes))
        } else {
            Err("expected 8 to 1048576 MiB")
        }
    }
}

impl FromStr for Mebibytes {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse::<u64>().map_err(|_| "expected a number of MiB")?.try_into()
    }
}

impl Mebibytes {
    fn bytes(self) -> u64 {
        self.0 << 20
    }
}

/// Where Kong's entities come from.
#[derive(Debug)]
pub(crate) enum EntitySettings {
    Kong,
    Declarative(PathBuf),
    Admin(AdminSettings),
}

/// The options as they count.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) kong_prefix: PathBuf,
    pub(crate) socket: PathBuf,
    pub(crate) verified_certificates: u32,
    pub(crate) entities: EntitySettings,
    pub(crate) proof_key_file: PathBuf,
    pub(crate) event_timeout: Duration,
    pub(crate) revocation: revocation::Options,
    pub(crate) status_listen: Option<SocketAddr>,
    pub(crate) log_level: LogLevel,
}

/// The options file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OptionsError {
    #[error("{}: {error}", path.display())]
    Io { path: PathBuf, error: std::io::Error },
    #[error("{}: it is empty", path.display())]
    Empty { path: PathBuf },
    #[error("{}: {problem}", path.display())]
    Content { path: PathBuf, problem: String },
    #[error("--admin-url and --declarative-config: only one of them")]
    TwoSources,
    #[error("{0}: only with --admin-url")]
    NoAdmin(&'static str),
    #[error(transparent)]
    Admin(#[from] AdminSettingsError),
}

impl OptionsError {
    /// Whether the options themselves cannot be followed, and not what they name.
    pub(crate) fn is_usage(&self) -> bool {
        matches!(self, Self::NoAdmin(_) | Self::TwoSources)
    }
}

/// The command line in the form that the parser knows: Kong and its other servers write these two with one hyphen.
pub(crate) fn with_double_hyphens(args: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    args.into_iter()
        .map(|arg| match arg.to_str() {
            Some("-dump") => "--dump".into(),
            Some("-kong-prefix") => "--kong-prefix".into(),
            Some(text) if text.starts_with("-kong-prefix=") => format!("-{text}").into(),
            _ => arg,
        })
        .collect()
}

impl Options {
    /// Reads the options file, if one is named, and fills in the defaults.
    ///
    /// # Errors
    /// Names the file and what is wrong with it.
    pub(crate) fn settle(self) -> Result<Settings, OptionsError> {
        const KONG_PREFIX: &str = "/usr/local/kong";
        const EVENT_TIMEOUT: Duration = Duration::from_secs(5);
        let file = self.config.as_deref().map(read).transpose()?.unwrap_or_default();
        let prefix = self.kong_prefix.or(file.kong_prefix).unwrap_or_else(|| KONG_PREFIX.into());
        Ok(Settings {
            socket: self.socket.or(file.socket).unwrap_or_else(|| prefix.join("mtls-auth.socket")),
            verified_certificates: self
                .verified_certificates
                .or(file.verified_certificates)
                .unwrap_or(VERIFIED_CERTIFICATES),
            entities: EntitySettings::settle(
                self.admin_url.or(file.admin_url),
                self.admin_token_file.or(file.admin_token_file),
                self.admin_ca_file.or(file.admin_ca_file),
                self.declarative_config.or(file.declarative_config),
            )?,
            proof_key_file: self
                .proof_key_file
                .or(file.proof_key_file)
                .unwrap_or_else(|| prefix.join("mtls-auth.key")),
            event_timeout: self
                .event_timeout
                .or(file.event_timeout)
                .map_or(EVENT_TIMEOUT, |EventTimeout(timeout)| timeout),
            revocation: revocation_options(
                self.allow_private_revocation_urls || file.allow_private_revocation_urls,
                self.revocation_ca_file.or(file.revocation_ca_file),
                self.crl_path.or(file.crl_path),
                self.crl_max_stale.or(file.crl_max_stale),
                self.revocation_memory.or(file.revocation_memory),
            ),
            status_listen: self.status_listen.or(file.status_listen),
            log_level: self.log_level.or(file.log_level).unwrap_or(LogLevel::Info),
            kong_prefix: prefix,
        })
    }
}

/// What the options about revocation say, with the defaults of those that are left out.
fn revocation_options(
    allow_private: bool,
    ca_file: Option<PathBuf>,
    crl_path: Option<PathBuf>,
    max_stale: Option<u32>,
    memory: Option<Mebibytes>,
) -> revocation::Options {
    let default = revocation::Options::default();
    revocation::Options {
        fetch: revocation::fetch::Options { allow_private, ca_file },
        crl_path,
        max_stale: max_stale.map_or(default.max_stale, |seconds| Duration::from_secs(seconds.into())),
        memory: memory.map_or(default.memory, Mebibytes::bytes),
    }
}

impl EntitySettings {
    /// What the options for it say together.
    ///
    /// # Errors
    /// They contradict each other, or a file of theirs cannot be used.
    fn settle(
        admin_url: Option<String>,
        token_file: Option<PathBuf>,
        ca_file: Option<PathBuf>,
        declarative_config: Option<PathBuf>,
    ) -> Result<Self, OptionsError> {
        let Some(url) = admin_url else {
            // They protect a connection that would never be made.
            for (option, value) in [("--admin-token-file", token_file), ("--admin-ca-file", ca_file)] {
                if value.is_some() {
                    return Err(OptionsError::NoAdmin(option));
                }
            }
            return Ok(declarative_config.map_or(Self::Kong, Self::Declarative));
        };
        if declarative_config.is_some() {
            return Err(OptionsError::TwoSources);
        }
        let token = token_file.as_deref().map(AdminToken::read).transpose()?;
        Ok(Self::Admin(AdminSettings { token, ca_file, ..AdminSettings::new(url) }))
    }
}

fn read(path: &Path) -> Result<Options, OptionsError> {
    let text =
        std::fs::read_to_string(path).map_err(|error| OptionsError::Io { path: path.to_owned(), error })?;
    if text.trim().is_empty() {
        return Err(OptionsError::Empty { path: path.to_owned() });
    }
    serde_saphyr::from_str(&text)
        .map_err(|error| OptionsError::Content { path: path.to_owned(), problem: error.to_string() })
}
