//! This knows files that the shim needs in order to start, and how to say which one is wrong.

use std::fmt::Display;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{}: {problem}", path.display())]
pub(crate) struct FileError {
    path: PathBuf,
    problem: Problem,
}

#[derive(Debug, thiserror::Error)]
enum Problem {
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error("it is empty")]
    Empty,
    #[error("{0}")]
    Content(String),
}

impl FileError {
    /// Its content is wrong in a way that shows only later.
    pub(crate) fn new(path: &Path, wrong: impl Display) -> Self {
        Self { path: path.to_owned(), problem: Problem::Content(wrong.to_string()) }
    }
}

/// Reads what `parse` makes of a file that must not be empty.
///
/// # Errors
/// Names the file and what is wrong with it.
pub(crate) fn read<T, E>(path: &Path, parse: impl FnOnce(&str) -> Result<T, E>) -> Result<T, FileError>
where
    E: Display,
{
    let content = || {
        // It may be a private key.
        let text = Zeroizing::new(std::fs::read_to_string(path)?);
        if text.trim().is_empty() {
            return Err(Problem::Empty);
        }
        parse(&text).map_err(|wrong| Problem::Content(wrong.to_string()))
    };
    content().map_err(|problem| FileError { path: path.to_owned(), problem })
}
