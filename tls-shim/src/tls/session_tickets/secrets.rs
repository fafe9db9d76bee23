//! This knows the secrets that the keys of tickets are made from: the shim's own, or those of a file that several shims
//! share.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use client_cert::{KeyBytes, KeyFileError};

/// How many secrets a file may have. One seals; the others open what it sealed before it was replaced, and what other
/// shims seal that have the new one already.
const MAX: usize = 8;

pub(super) type Secret = KeyBytes;

/// Why the secrets of tickets cannot be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SecretsError {
    #[error("session_tickets.key_file: {0}")]
    File(#[from] KeyFileError),
}

/// Where the secret of a span of time comes from.
#[derive(Clone)]
pub(super) enum Secrets {
    /// A new one for each span, that nobody else has. None is kept for longer than its tickets live, so that whoever gets
    /// hold of the process cannot open what was said before.
    Own(Arc<Mutex<Vec<(u64, Secret)>>>),
    /// Those of a file, the same for each span: the keys that are made from them differ. The first seals.
    Shared(Vec<Secret>),
}

impl Secrets {
    /// Those of a file, or of the shim's own where there is none.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub(super) fn read(file: Option<&Path>) -> Result<Self, SecretsError> {
        let Some(path) = file else { return Ok(Self::Own(Arc::default())) };
        let secrets = client_cert::read_key_file(path, MAX)?;
        Ok(Self::Shared(secrets))
    }

    /// Those that take their place, where the file is another one or has changed.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub(super) fn next(&self, file: Option<&Path>) -> Result<Option<Self>, SecretsError> {
        let next = Self::read(file)?;
        let is_same = match (self, &next) {
            (Self::Own(_), Self::Own(_)) => true,
            (Self::Shared(before), Self::Shared(after)) => before == after,
            _ => false,
        };
        Ok((!is_same).then_some(next))
    }

    /// The one for tickets that are made in this span. None where the system has no random bytes: then none are made.
    pub(super) fn seals(&self, span: u64) -> Option<Secret> {
        let own = match self {
            Self::Shared(secrets) => return secrets.first().cloned(),
            Self::Own(own) => own,
        };
        let mut own = own.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, secret)) = own.iter().find(|(of, _)| *of == span) {
            return Some(secret.clone());
        }
        let mut secret = Secret::default();
        getrandom::fill(Arc::get_mut(&mut secret)?.as_mut_slice()).ok()?;
        // A clock that was set back leaves later ones behind; they are of no use either.
        own.retain(|(of, _)| of.abs_diff(span) <= 1);
        own.push((span, secret.clone()));
        Some(secret)
    }

    /// Those under which tickets of this span may be sealed, that which seals first.
    pub(super) fn opens(&self, span: u64) -> Vec<Secret> {
        match self {
            Self::Shared(secrets) => secrets.clone(),
            Self::Own(own) => {
                let own = own.lock().unwrap_or_else(PoisonError::into_inner);
                own.iter().filter(|(of, _)| *of == span).map(|(_, secret)| secret.clone()).collect()
            }
        }
    }
}
