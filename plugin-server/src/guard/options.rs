//! This knows the options of `mtls-auth guard`.

use std::path::PathBuf;

use clap::{ArgGroup, Args, ValueEnum};

use crate::cli::{EntitySettings, OptionsError};

/// The options of `guard`.
#[derive(Clone, Debug, Args)]
#[command(group(ArgGroup::new("source").args(["admin_url", "declarative_config"]).required(true)))]
pub(crate) struct GuardOptions {
    /// Kong's Admin API, whose configuration is looked at
    #[arg(long, value_name = "URL")]
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

    /// Says of each mtls-auth whether it is guarded, and fails where one is not
    #[arg(long)]
    pub(crate) check: bool,

    /// The form of what is printed [default: commands for the Admin API where Kong has a database, else entries for its
    /// declarative file]
    #[arg(long, value_name = "FORM", conflicts_with = "check")]
    pub(crate) format: Option<Form>,
}

/// How what is missing is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Form {
    /// Entries for `plugins` of a declarative file.
    Declarative,
    /// Commands that change Kong by its Admin API.
    Admin,
}

impl GuardOptions {
    /// Where the configuration is read.
    ///
    /// # Errors
    /// The options do not go together, or the token's file cannot be used.
    pub(crate) fn source(&self) -> Result<EntitySettings, OptionsError> {
        EntitySettings::settle(
            self.admin_url.clone(),
            self.admin_token_file.clone(),
            self.admin_ca_file.clone(),
            self.declarative_config.clone(),
        )
    }
}
