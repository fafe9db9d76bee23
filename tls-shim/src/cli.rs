//! This knows the command line.

use std::path::PathBuf;
use std::sync::LazyLock;

use clap::{Parser, Subcommand};
use command_line::{CompletionsOptions, ManOptions};
use tracing_subscriber::filter::LevelFilter;

/// What `--version` says.
static VERSION: LazyLock<String> = LazyLock::new(|| command_line::version(openssl::version::version()));

/// A TLS terminator beside Kong that asks for client certificates per SNI and hands them on with proof.
#[derive(Debug, Parser)]
#[command(name = "tls-shim", version = VERSION.as_str(), subcommand_negates_reqs = true, args_conflicts_with_subcommands = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,

    /// The settings of the shim, in YAML.
    #[arg(long, value_name = "FILE", required = true)]
    pub(crate) config: Option<PathBuf>,

    /// What is logged: error, warn, info, debug (every request) or trace.
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    pub(crate) log_level: LevelFilter,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Validates the settings and all files they name, and prints who is asked for a client certificate, and why.
    Check {
        /// The settings of the shim, in YAML.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Asks the running shim whether it is ready, as its /readyz says.
    ///
    /// It asks at the status_listen of the settings, prints what does and does not work, and fails where anything does not. For
    /// health checks of containers, in which there is no other client.
    Ready {
        /// The settings of the shim, in YAML.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Prints completions for a shell, such as for /etc/bash_completion.d/tls-shim.
    Completions(CompletionsOptions),
    /// Prints the man page, or writes those of all commands into a folder.
    Man(ManOptions),
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_holds_together() {
        Cli::command().debug_assert();
        assert!(Cli::try_parse_from(["tls-shim"]).is_err());
        assert!(Cli::try_parse_from(["tls-shim", "check"]).is_err());
        let check = Cli::try_parse_from(["tls-shim", "check", "--config", "a"]).unwrap();
        assert!(matches!(check.command, Some(Command::Check { .. })));
    }
}
