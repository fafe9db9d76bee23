//! This knows the options of `mtls-auth guard`.

use clap::{ArgGroup, Args, ValueEnum};

use crate::cli::SourceOptions;

/// The options of `guard`.
#[derive(Clone, Debug, Args)]
#[command(group(ArgGroup::new("source").args(["admin_url", "declarative_config"]).required(true)))]
pub(crate) struct GuardOptions {
    #[command(flatten)]
    pub(crate) source: SourceOptions,

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
