//! This knows the options of `mtls-auth doctor`, and what they name.

use std::path::PathBuf;

use clap::Args;

use crate::cli::{EntitySettings, Options, OptionsError, Settings, SourceOptions};

/// The options of `doctor`. Those that the server has too mean the same.
#[derive(Debug, Args)]
pub(crate) struct DoctorOptions {
    /// Kong's prefix: where the socket and the key live [default: /usr/local/kong]
    #[arg(long, value_name = "DIR")]
    kong_prefix: Option<PathBuf>,

    /// The socket that the server serves on [default: <prefix>/mtls-auth.socket]
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,

    /// The key shared with the shim [default: <prefix>/mtls-auth.key]
    #[arg(long, value_name = "FILE")]
    proof_key_file: Option<PathBuf>,

    #[command(flatten)]
    source: SourceOptions,

    /// The server's file of options
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Kong's own configuration [default: what the Admin API says of it, or else <prefix>/.kong_env, which Kong writes when
    /// it starts]
    #[arg(long, value_name = "FILE")]
    kong_conf: Option<PathBuf>,

    /// The settings of the shim, whose key and socket have to be the server's
    #[arg(long, value_name = "FILE")]
    shim_config: Option<PathBuf>,

    /// Prints JSON
    #[arg(long)]
    pub(super) json: bool,
}

/// What is to be looked at.
pub(super) struct Named {
    pub(super) socket: PathBuf,
    pub(super) proof_key_file: PathBuf,
    pub(super) entities: EntitySettings,
    pub(super) kong_conf: Option<PathBuf>,
    /// Where Kong writes down with what it started.
    pub(super) kong_env: PathBuf,
    pub(super) shim_config: Option<PathBuf>,
}

impl DoctorOptions {
    /// What they say together, with the server's own defaults.
    ///
    /// # Errors
    /// See [`OptionsError`].
    pub(super) fn settle(self) -> Result<Named, OptionsError> {
        let Self { kong_prefix, socket, proof_key_file, source, config, .. } = self;
        let SourceOptions { admin_url, admin_token_file, admin_ca_file, declarative_config } = source;
        let options = Options {
            kong_prefix,
            socket,
            proof_key_file,
            admin_url,
            admin_token_file,
            admin_ca_file,
            declarative_config,
            config,
            ..Options::default()
        };
        let Settings { kong_prefix, socket, proof_key_file, entities, .. } = options.settle()?;
        let (kong_conf, shim_config) = (self.kong_conf, self.shim_config);
        let kong_env = kong_prefix.join(".kong_env");
        Ok(Named { socket, proof_key_file, entities, kong_conf, kong_env, shim_config })
    }
}
