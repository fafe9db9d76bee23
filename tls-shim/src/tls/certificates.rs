//! This knows which server certificate goes with which server name, by Kong's `certificates` and `snis`.
//!
//! The precedence is that of Kong 3.9: the exact name, then `*.` in place of its first label, then `.*` in place of its
//! last, then `*`, then the default. A `*` stands for one label here, where in the `snis` of a route it stands for any
//! number of them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use kong_entities::{Certificate, CertificateAndKey, Entities};
use openssl::error::ErrorStack;

use crate::sni::{EVERYBODY, ServerName, key, written};
use crate::tls::server_certificate::{Broken, ServerCertificate};

/// How many names of one certificate a line of the log has.
const NAMES_SAID: usize = 5;

/// The certificates of one state of Kong's configuration. They are replaced as a whole.
#[derive(Default)]
pub(crate) struct Certificates {
    /// By the keys of `sni/name.rs`, and [`EVERYBODY`] for `*`.
    by_name: HashMap<String, Arc<ServerCertificate>>,
    /// All that have a name, so that those that stay are not read again.
    read: HashMap<Source, Outcome>,
    troubles: BTreeSet<Trouble>,
    /// Those of them that are new.
    news: Vec<Trouble>,
    refused: u64,
}

/// Numbers for whoever watches the shim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Names and patterns that have a certificate of their own.
    pub(crate) names: usize,
    /// Certificates that have a name.
    pub(crate) certificates: usize,
    /// Those of them that cannot be used now.
    pub(crate) broken: usize,
    /// How often one came that cannot be used, since the shim started. One that stays as it is counts once.
    pub(crate) refused: u64,
}

/// What is wrong with a certificate of Kong's or with its names. It holds nothing of a key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Trouble {
    /// Whether it cannot be used; it is used all the same otherwise.
    pub(crate) broken: bool,
    /// Kong's id of the certificate.
    pub(crate) id: String,
    pub(crate) names: String,
    pub(crate) reason: String,
}

type Outcome = Result<Arc<ServerCertificate>, Broken>;

/// A certificate as it came, known by what stands in it: each state of the configuration comes with new ones.
#[derive(PartialEq, Eq)]
struct Source(Arc<Certificate>);

impl Hash for Source {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let mut pair = |pair: &CertificateAndKey| {
            pair.cert.hash(state);
            pair.key.text().hash(state);
        };
        pair(&self.0.primary);
        self.0.alternative.as_ref().map(&mut pair);
    }
}

impl Certificates {
    /// Those of the next state of Kong's configuration. A name whose certificate cannot be used keeps the one that it
    /// had; where it had none it goes without, and so by what comes next in the precedence. `is_taken` says whether
    /// OpenSSL takes one.
    pub(super) fn next(
        &self,
        entities: &Entities,
        is_taken: impl Fn(&ServerCertificate) -> Result<(), ErrorStack>,
    ) -> Self {
        let mut next = Self { refused: self.refused, ..Self::default() };
        let mut troubles = Vec::new();
        let wanted = wanted(entities, &mut troubles);
        let mut names_of: HashMap<Source, Vec<&str>> = HashMap::new();
        for (name, certificate) in wanted.values() {
            names_of.entry(Source(Arc::clone(certificate))).or_default().push(name);
        }
        for (source, names) in names_of {
            let known = self.read.get(&source).cloned();
            let is_new = known.is_none();
            let outcome =
                known.unwrap_or_else(|| ServerCertificate::parse(&source.0, &is_taken).map(Arc::new));
            let (broken, reason) = match &outcome {
                Ok(certificate) => (false, certificate.untimely()),
                Err(broken) => (true, Some(broken.to_string())),
            };
            if let Some(reason) = reason {
                troubles.push((is_new, Trouble::new(broken, &source.0, &names, reason)));
            }
            next.read.insert(source, outcome);
        }
        for (key, (_, certificate)) in wanted {
            let read =
                next.read.get(&Source(Arc::clone(certificate))).and_then(|outcome| outcome.as_ref().ok());
            if let Some(certificate) = read.or_else(|| self.by_name.get(&key)) {
                next.by_name.insert(key, Arc::clone(certificate));
            }
        }
        for (is_new, trouble) in troubles {
            if is_new || !self.troubles.contains(&trouble) {
                next.refused += u64::from(trouble.broken);
                next.news.push(trouble.clone());
            }
            next.troubles.insert(trouble);
        }
        next
    }

    /// The one for a client that names this server. None: the default. Kong has the certificate of `*` for those that
    /// name a server, be it an address, and the default for those that name none.
    pub(crate) fn choose(&self, name: &ServerName) -> Option<&Arc<ServerCertificate>> {
        match name {
            ServerName::None => None,
            ServerName::Name(name) => self.listed(name).or_else(|| self.by_name.get(EVERYBODY)),
            ServerName::Undecidable(_) => self.by_name.get(EVERYBODY),
        }
    }

    fn listed(&self, name: &str) -> Option<&Arc<ServerCertificate>> {
        let suffix = name.find('.').map(|dot| &name[dot..]);
        let prefix = name.rfind('.').map(|dot| &name[..=dot]);
        [Some(name), suffix, prefix].into_iter().flatten().find_map(|key| self.by_name.get(key))
    }

    /// The one for names that match this row and no other one, a row as people write it. None: the default.
    pub(crate) fn of_row(&self, row: &str) -> Option<&Arc<ServerCertificate>> {
        key(row).and_then(|key| self.listed(&key)).or_else(|| self.by_name.get(EVERYBODY))
    }

    /// The names and patterns that have one, as people write them.
    pub(crate) fn names(&self) -> impl Iterator<Item = String> {
        self.by_name.keys().map(|key| written(key))
    }

    /// Each that has a name and can be used.
    pub(crate) fn usable(&self) -> impl Iterator<Item = &Arc<ServerCertificate>> {
        self.read.values().filter_map(|outcome| outcome.as_ref().ok())
    }

    /// All that is wrong with them.
    pub(crate) fn troubles(&self) -> impl Iterator<Item = &Trouble> {
        self.troubles.iter()
    }

    /// Those of [`Self::troubles`] that came with this state of the configuration.
    pub(super) fn news(&self) -> &[Trouble] {
        &self.news
    }

    /// Numbers for whoever watches the shim.
    pub(crate) fn counts(&self) -> Counts {
        Counts {
            names: self.by_name.len(),
            certificates: self.read.len(),
            broken: self.read.values().filter(|outcome| outcome.is_err()).count(),
            refused: self.refused,
        }
    }
}

impl Trouble {
    fn new(broken: bool, certificate: &Certificate, names: &[&str], reason: String) -> Self {
        let id = certificate.id.clone().unwrap_or_else(|| "(none)".to_owned());
        let mut said = names.iter().take(NAMES_SAID).copied().collect::<Vec<_>>().join(", ");
        if names.len() > NAMES_SAID {
            said += &format!(" and {} more", names.len() - NAMES_SAID);
        }
        Self { broken, id, names: said, reason }
    }
}

/// By key, the name as written and its certificate. Names that nobody can send are left out, with a word about it.
fn wanted<'a>(
    entities: &'a Entities,
    troubles: &mut Vec<(bool, Trouble)>,
) -> BTreeMap<String, (&'a str, &'a Arc<Certificate>)> {
    let mut names: Vec<_> =
        entities.snis.iter().map(|(name, certificate)| (name.as_str(), certificate)).collect();
    // Of two that differ in case or a trailing dot only, the one counts that is as DNS names are written.
    names.sort_unstable_by_key(|(name, _)| {
        (name.ends_with('.'), name.contains(|c: char| c.is_ascii_uppercase()), *name)
    });
    let mut wanted: BTreeMap<String, (&str, &Arc<Certificate>)> = BTreeMap::new();
    for (name, certificate) in names {
        let key = if name == "*" { Some(EVERYBODY.to_owned()) } else { key(name) };
        // Kong looks for no pattern as wide as `*.com`.
        let key = key.filter(|key| key.rfind('.') != Some(0));
        let reason = match key {
            None => "no client can send a name that matches it".to_owned(),
            Some(key) => match wanted.get(&key) {
                None => {
                    wanted.insert(key, (name, certificate));
                    continue;
                }
                Some((other, _)) => format!("{other} is the same name, and its certificate is shown"),
            },
        };
        troubles.push((false, Trouble::new(false, certificate, &[name], reason)));
    }
    wanted
}

#[cfg(test)]
mod tests;
