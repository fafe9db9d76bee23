//! This knows what the command lines of both binaries have in common: what `--version` says, and the commands that print
//! completions for shells and man pages, made from the same definitions that the command line is read by.

#![forbid(unsafe_code)]

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Command};
use clap_mangen::Man;

pub use clap_complete::Shell;

/// The version of both programs.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit that this was built from, where that is known.
pub const COMMIT: Option<&str> = {
    let commit = env!("KONG_MTLS_AUTH_COMMIT");
    if commit.is_empty() { None } else { Some(commit) }
};

/// What `--version` says after the name: `0.1.0 (abcdef123456, OpenSSL 3.6.0 1 Oct 2025)`. The library that does the
/// cryptography is part of it, for that is where updates are called for.
pub fn version(library: &str) -> String {
    version_of(COMMIT, library)
}

fn version_of(commit: Option<&str>, library: &str) -> String {
    match commit {
        Some(commit) => format!("{VERSION} ({commit}, {library})"),
        None => format!("{VERSION} ({library})"),
    }
}

/// The options of the command `completions`.
#[derive(Clone, Debug, Args)]
pub struct CompletionsOptions {
    /// Whose completions
    shell: Shell,
}

/// The options of the command `man`.
#[derive(Clone, Debug, Args)]
pub struct ManOptions {
    /// The folder into which pages are written, one for the program and one for each command. Without it, the program's own
    /// goes to standard output
    dir: Option<PathBuf>,
}

impl CompletionsOptions {
    /// Prints what the shell completes `command` by.
    pub fn run(self, mut command: Command) -> ExitCode {
        let name = command.get_name().to_owned();
        let mut text = Vec::new();
        clap_complete::generate(self.shell, &mut command, &name, &mut text);
        ended(&name, print(&text))
    }
}

impl ManOptions {
    /// Writes the man pages of `command`.
    pub fn run(self, command: Command) -> ExitCode {
        let name = command.get_name().to_owned();
        // A page is about a version, whatever it was built from. The command `help` has none.
        let command = command.version(VERSION).disable_help_subcommand(true);
        ended(
            &name,
            match self.dir {
                Some(dir) => write_pages(command, &dir),
                None => page(command).and_then(|page| print(&page)),
            },
        )
    }
}

fn page(mut command: Command) -> io::Result<Vec<u8>> {
    command.build();
    let mut page = Vec::new();
    Man::new(command).render(&mut page)?;
    Ok(page)
}

fn write_pages(command: Command, dir: &Path) -> io::Result<()> {
    let in_dir = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", dir.display()));
    std::fs::create_dir_all(dir).and_then(|()| clap_mangen::generate_to(command, dir)).map_err(in_dir)
}

fn print(text: &[u8]) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text).and_then(|()| stdout.flush()) {
        // As of a pager that was left.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

#[allow(clippy::print_stderr, reason = "a command's own complaint")]
fn ended(name: &str, result: io::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{name}: {error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_names_the_commit_where_there_is_one() {
        let version = env!("CARGO_PKG_VERSION");
        assert_eq!(
            version_of(Some("abcdef123456"), "OpenSSL 3"),
            format!("{version} (abcdef123456, OpenSSL 3)")
        );
        assert_eq!(version_of(None, "OpenSSL 3"), format!("{version} (OpenSSL 3)"));
    }
}
