//! This knows one server certificate: how it is read, what it says, and how a connection is given it.

use std::time::SystemTime;

use kong_entities::{Certificate, CertificateAndKey};
use openssl::asn1::Asn1Time;
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::pkey::{PKey, Private};
use openssl::ssl::SslRef;
use openssl::x509::X509;
use sha2::{Digest, Sha256};

use crate::distinguished_name::DistinguishedName;
use crate::file::{self, FileError};
use crate::settings::CertificateFiles;
use crate::tls::decision::end;
use crate::tls::raw;

/// How a value of Kong's begins that is a reference into a vault.
const VAULT: &str = "{vault://";

/// What the shim shows to clients: a certificate with its key, or two of them with keys of different kinds.
pub(crate) struct ServerCertificate {
    /// Kong's id of it, where it has one.
    id: Option<String>,
    /// At least one.
    pairs: Vec<Pair>,
    digest: [u8; 32],
}

/// A certificate with the chain that leads up to its CA, and its key.
struct Pair {
    leaf: X509,
    chain: Vec<X509>,
    key: PKey<Private>,
}

/// Why a certificate of Kong's cannot be used: which field, and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {flaw}")]
pub(crate) struct Broken {
    field: &'static str,
    flaw: Flaw,
}

/// What is wrong with a certificate or its key. It never shows any of the key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
enum Flaw {
    #[error("it is a reference into a vault, which only Kong can read")]
    Vault,
    #[error("it holds no certificate in PEM")]
    NoCertificate,
    #[error("a certificate in it cannot be read")]
    Unreadable,
    #[error("it holds no private key in PEM")]
    NoKey,
    #[error("its private key needs a passphrase, and nobody is there to give it")]
    Passphrase,
    #[error("the key does not belong to the certificate")]
    OtherKey,
    #[error("no handshake can use a key of this kind")]
    Kind,
    #[error("its key is of the same kind as that of cert")]
    SameKind,
    #[error("{NAME} does not take it: {0}", NAME = raw::NAME)]
    Refused(String),
}

impl ServerCertificate {
    /// Reads certificate, chain and key from files.
    ///
    /// # Errors
    /// Names the file and what is wrong with it.
    pub(crate) fn read(files: &CertificateFiles) -> Result<Self, FileError> {
        let (leaf, chain) = file::read(&files.cert, certificates)?;
        let key = file::read(&files.key, |pem| private_key(pem, &leaf))?;
        if let Some(mode) = hardening::open_to_others(&files.key) {
            let (file, mode) = (files.key.display(), format_args!("{mode:04o}"));
            tracing::warn!(%file, %mode, "other users may read or write the private key: chmod o= it");
        }
        Ok(Self::new(None, vec![Pair { leaf, chain, key }]))
    }

    /// Reads one of Kong's. `is_taken` says whether OpenSSL takes what was read: it has its own mind about keys.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub(super) fn parse(
        certificate: &Certificate,
        is_taken: impl FnOnce(&Self) -> Result<(), ErrorStack>,
    ) -> Result<Self, Broken> {
        let mut pairs = vec![Pair::parse(&certificate.primary, ["cert", "key"])?];
        if let Some(alternative) = &certificate.alternative {
            let alternative = Pair::parse(alternative, ["cert_alt", "key_alt"])?;
            // OpenSSL keeps one of a kind: the second would silently take the place of the first.
            if alternative.key.id() == pairs[0].key.id() {
                return Err(Broken { field: "cert_alt", flaw: Flaw::SameKind });
            }
            pairs.push(alternative);
        }
        let read = Self::new(certificate.id.clone(), pairs);
        is_taken(&read).map_err(|error| Broken { field: "cert", flaw: Flaw::Refused(reasons(&error)) })?;
        Ok(read)
    }

    fn new(id: Option<String>, pairs: Vec<Pair>) -> Self {
        let mut digest = Sha256::new();
        for Pair { leaf, chain, .. } in &pairs {
            for certificate in [leaf].into_iter().chain(chain) {
                // Without one it is another certificate than any that has one.
                digest.update(certificate.digest(MessageDigest::sha256()).as_deref().unwrap_or_default());
            }
        }
        Self { id, pairs, digest: digest.finalize().into() }
    }

    /// Tells it from others: a digest of all its certificates.
    pub(super) fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    /// Gives it to a connection that has none. Which of two is shown is then decided by OpenSSL, by what the client can
    /// do with them.
    ///
    /// # Errors
    /// OpenSSL does not want it, for a key that is too weak for example.
    pub(super) fn give(&self, ssl: &mut SslRef) -> Result<(), ErrorStack> {
        for Pair { leaf, chain, key } in &self.pairs {
            raw::is_strong(key)?;
            ssl.set_certificate(leaf)?;
            // These go with the certificate that was set last.
            for issuer in chain {
                raw::add_chain_cert(ssl, issuer)?;
            }
            ssl.set_private_key(key)?;
        }
        Ok(())
    }

    /// Its subject, its end and its id, for people to read; of both where there are two.
    pub(crate) fn summary(&self) -> String {
        let pair =
            |pair: &Pair| format!("\"{}\", valid until {}", subject(&pair.leaf), pair.leaf.not_after());
        let pairs = self.pairs.iter().map(pair).collect::<Vec<_>>().join("; ");
        match &self.id {
            Some(id) => format!("{pairs}; id {id}"),
            None => pairs,
        }
    }

    /// Kong's id of it, where it has one.
    pub(crate) fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// Of each of its certificates: the subject, the SHA-256 in hexadecimal, and the end.
    pub(crate) fn ends(&self) -> impl Iterator<Item = (String, String, SystemTime)> {
        self.pairs.iter().filter_map(|Pair { leaf, .. }| {
            let digest = leaf.digest(MessageDigest::sha256()).ok()?;
            let digest = digest.iter().map(|byte| format!("{byte:02x}")).collect();
            Some((subject(leaf), digest, end(leaf).ok()?))
        })
    }

    /// Why clients will not take it at this time, if that is so. It is shown all the same: that is what they expect to
    /// be told.
    pub(crate) fn untimely(&self) -> Option<String> {
        let now = Asn1Time::days_from_now(0).ok()?;
        self.pairs.iter().find_map(|Pair { leaf, .. }| {
            if leaf.not_after() < now {
                Some(format!("it was valid until {}", leaf.not_after()))
            } else if leaf.not_before() > now {
                Some(format!("it is not valid before {}", leaf.not_before()))
            } else {
                None
            }
        })
    }
}

impl Pair {
    fn parse(texts: &CertificateAndKey, [cert, key]: [&'static str; 2]) -> Result<Self, Broken> {
        let (leaf, chain) = certificates(&texts.cert).map_err(|flaw| Broken { field: cert, flaw })?;
        let key = private_key(texts.key.text(), &leaf).map_err(|flaw| Broken { field: key, flaw })?;
        Ok(Self { leaf, chain, key })
    }
}

fn subject(leaf: &X509) -> String {
    DistinguishedName::new(leaf.subject_name()).map(|name| name.to_string()).unwrap_or_default()
}

/// A certificate and those that follow it.
fn certificates(pem: &str) -> Result<(X509, Vec<X509>), Flaw> {
    if pem.starts_with(VAULT) {
        return Err(Flaw::Vault);
    }
    let mut certificates = X509::stack_from_pem(pem.as_bytes()).map_err(|_| Flaw::Unreadable)?.into_iter();
    let leaf = certificates.next().ok_or(Flaw::NoCertificate)?;
    Ok((leaf, certificates.collect()))
}

/// The private key of a certificate.
fn private_key(pem: &str, leaf: &X509) -> Result<PKey<Private>, Flaw> {
    if pem.starts_with(VAULT) {
        return Err(Flaw::Vault);
    }
    let mut passphrase = false;
    // Without the callback OpenSSL would ask for a passphrase on the terminal.
    let key = PKey::private_key_from_pem_callback(pem.as_bytes(), |_| {
        passphrase = true;
        Err(ErrorStack::get())
    });
    let key = key.map_err(|_| if passphrase { Flaw::Passphrase } else { Flaw::NoKey })?;
    if !leaf.public_key().is_ok_and(|public| public.public_eq(&key)) {
        return Err(Flaw::OtherKey);
    }
    if raw::SERVER_KEYS.contains(&key.id()) { Ok(key) } else { Err(Flaw::Kind) }
}

/// What OpenSSL has against something, without its own places in the source.
fn reasons(error: &ErrorStack) -> String {
    let reasons: Vec<_> = error.errors().iter().filter_map(openssl::error::Error::reason).collect();
    reasons.join(", ")
}
