//! This knows Kong's declarative file: how it is read, and what is wrong with it where it cannot be.
//!
//! Only what we need is read; the rest is Kong's to check, which it does before it runs with such a file.

use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::Entities;
use crate::json_problem::json_problem;

pub(crate) mod build;
pub(crate) mod file;

use build::build;
use file::File;

/// Why a declarative file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DeclarativeError {
    /// The file cannot be read.
    #[error("{}: {error}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
    /// The file is not a declarative configuration.
    #[error("{}: {problem}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong, with line and column where it has one.
        problem: String,
    },
}

/// Reads a declarative file: JSON where its name ends in `.json`, else YAML, as Kong does.
///
/// # Errors
/// Names the file and what is wrong with it. An empty file is wrong: an editor that is about to write the rest must
/// not unprotect anything.
pub fn load(path: &Path) -> Result<Entities, DeclarativeError> {
    // It may hold private keys.
    let text = std::fs::read_to_string(path)
        .map(Zeroizing::new)
        .map_err(|error| DeclarativeError::Io { path: path.to_owned(), error })?;
    let is_json = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json"));
    let parsed = if is_json { parse_json(&text) } else { parse_yaml(&text) };
    parsed.map_err(|problem| DeclarativeError::Content { path: path.to_owned(), problem })
}

/// Reads a declarative configuration in JSON.
///
/// # Errors
/// What is wrong with it. The text itself is not quoted, since it may hold private keys.
pub fn parse_json(text: &str) -> Result<Entities, String> {
    if text.trim().is_empty() {
        return Err("it is empty".into());
    }
    serde_json::from_str::<File>(text).map_err(|error| json_problem(&error)).and_then(build)
}

/// Reads a declarative configuration in YAML.
///
/// # Errors
/// What is wrong with it. The text itself is not quoted, since it may hold private keys.
pub fn parse_yaml(text: &str) -> Result<Entities, String> {
    if text.trim().is_empty() {
        return Err("it is empty".into());
    }
    // Kong's operator wrote the file, so it may be large; what stays bounded is what a small text can be blown up to.
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_events: 100_000_000,
            max_nodes: 50_000_000,
            max_total_scalar_bytes: 1 << 30,
        },
        with_snippet: false,
    };
    serde_saphyr::from_str_with_options::<File>(text, options)
        .map_err(|error| error.to_string())
        .and_then(build)
}
