//! This knows the CRLs that an operator has put into files.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use super::crls::read_apart;
use crate::crl::{self, Crl, Unverified};
use crate::{Issuer, Trouble};

/// The CRLs of a file, or of all files of a folder.
#[derive(Debug)]
pub(super) struct LocalCrls {
    path: PathBuf,
    /// How many bytes they may take together.
    memory: u64,
    files: RwLock<Arc<Files>>,
}

/// As they were read last.
#[derive(Debug, Default)]
struct Files {
    by_path: HashMap<PathBuf, Vec<Arc<LocalCrl>>>,
    /// By the name of their issuer, in DER.
    by_issuer: HashMap<Box<[u8]>, Vec<Arc<LocalCrl>>>,
}

/// A CRL from a file. Which CA has to have signed it is known once a certificate asks for it.
#[derive(Debug)]
pub(super) struct LocalCrl {
    pub(super) place: Arc<str>,
    unverified: Arc<Unverified>,
    /// By the SHA-256 of the issuer's certificate: a CA may have several, and another CA the same name.
    verified: RwLock<HashMap<[u8; 32], Verified>>,
}

type Verified = Result<Arc<Crl>, Trouble>;

/// So many CAs of one name are remembered for one CRL.
const NAMESAKES: usize = 16;

impl LocalCrls {
    /// Reads them for the first time.
    ///
    /// # Errors
    /// The path is not there, or a file holds something else.
    pub(super) fn read(path: PathBuf, memory: u64) -> Result<Self, String> {
        let local = Self { path, memory, files: RwLock::default() };
        local.read_again()?;
        Ok(local)
    }

    /// Reads them again. Of a file that cannot be used, what was read of it before stays.
    ///
    /// # Errors
    /// Which files cannot be used, and why.
    pub(super) fn read_again(&self) -> Result<(), String> {
        let old = self.files();
        let mut files = Files::default();
        let mut problems = Vec::new();
        let mut size = 0;
        for path in self.paths().map_err(|error| format!("{}: {error}", self.path.display()))? {
            let read = read_file(&path, self.memory - size);
            let crls = match read {
                Ok(crls) => crls,
                Err(problem) => {
                    problems.push(format!("{}: {problem}", path.display()));
                    old.by_path.get(&path).cloned().unwrap_or_default()
                }
            };
            // As they are, and as they are read once a certificate asks for them.
            let taken: usize = crls.iter().map(|crl| 2 * crl.unverified.size()).sum();
            size = self.memory.min(size + taken as u64);
            for crl in &crls {
                let name = crl.unverified.issuer_name().into();
                files.by_issuer.entry(name).or_default().push(Arc::clone(crl));
            }
            files.by_path.insert(path, crls);
        }
        *self.files.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(files);
        if problems.is_empty() { Ok(()) } else { Err(problems.join("; ")) }
    }

    /// The file, or those of the folder but hidden ones, in the order of their names.
    fn paths(&self) -> std::io::Result<Vec<PathBuf>> {
        paths(&self.path)
    }

    fn files(&self) -> Arc<Files> {
        Arc::clone(&self.files.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.files().by_path.values().map(Vec::len).sum()
    }

    /// Those of CAs of this issuer's name.
    pub(super) fn of(&self, issuer: &Issuer) -> Vec<Arc<LocalCrl>> {
        self.files().by_issuer.get(issuer.name.as_slice()).cloned().unwrap_or_default()
    }
}

/// The file at a path, or those in the folder there but hidden ones, in the order of their names.
///
/// # Errors
/// It is not there, or cannot be looked at.
pub fn paths(path: &Path) -> std::io::Result<Vec<PathBuf>> {
    if !fs::metadata(path)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut paths = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        // Kubernetes has links beside hidden folders, which lead into them.
        if !entry.file_name().as_encoded_bytes().starts_with(b".") && entry.path().is_file() {
            paths.push(entry.path());
        }
    }
    paths.sort();
    Ok(paths)
}

fn read_file(path: &Path, most: u64) -> Result<Vec<Arc<LocalCrl>>, String> {
    let length = fs::metadata(path).map_err(|error| error.to_string())?.len();
    if 2 * length > most {
        return Err(format!(
            "with it, CRLs would take more than --revocation-memory has for those in files: {length} bytes"
        ));
    }
    let bytes = fs::read(path).map_err(|error| error.to_string())?;
    let crls = crl::read_all(&bytes).map_err(|trouble| trouble.to_string())?;
    let place: Arc<str> = path.display().to_string().into();
    let local = |unverified| {
        Arc::new(LocalCrl {
            place: Arc::clone(&place),
            unverified: Arc::new(unverified),
            verified: RwLock::default(),
        })
    };
    Ok(crls.into_iter().map(local).collect())
}

impl LocalCrl {
    /// The CRL, if this CA signed it.
    ///
    /// # Errors
    /// Why it says nothing about certificates of this CA.
    pub(super) async fn of(&self, issuer: &Arc<Issuer>) -> Verified {
        let known = self.verified.read().unwrap_or_else(PoisonError::into_inner).get(&issuer.digest).cloned();
        if let Some(known) = known {
            return known;
        }
        let (unverified, signer) = (Arc::clone(&self.unverified), Arc::clone(issuer));
        let verified = read_apart(move || unverified.verify(&signer).map(Arc::new)).await;
        let mut all = self.verified.write().unwrap_or_else(PoisonError::into_inner);
        if all.len() < NAMESAKES {
            all.insert(issuer.digest, verified.clone());
        }
        verified
    }
}
