//! This knows whether a presented certificate is trusted. Only here can a [`Verified`] be made.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use client_cert::{MAX_CERTIFICATES, Presented};
use openssl::asn1::{Asn1Time, Asn1TimeRef};
use openssl::error::ErrorStack;
use openssl::stack::{Stack, StackRef};
use openssl::x509::store::{X509Store, X509StoreBuilder};
use openssl::x509::verify::{X509VerifyFlags, X509VerifyParam};
use openssl::x509::{X509, X509PurposeId, X509Ref, X509StoreContext, X509StoreContextRef, X509VerifyResult};
use revocation::{Issuers, Link};
use sha2::{Digest, Sha256};

use crate::certificate::Certificate;
use crate::reason::Reason;
use crate::step::step;
use crate::trust::Trust;

/// Refuses keys and signatures of less than 80 bits, which leaves out MD5, SHA-1 and RSA under 1024 bits: a collision
/// would be a second certificate under the same signature (SSL_CTX_set_security_level(3), level 1).
const AUTH_LEVEL: i32 = 1;

/// A certificate that was verified against the CAs of an instance, and until when that holds.
#[derive(Debug)]
pub(crate) struct Verified {
    certificate: Certificate,
    /// The SHA-256 of each certificate of the chain above the leaf.
    issuers: Vec<[u8; 32]>,
    links: Box<[ReadLink]>,
    not_before: SystemTime,
    not_after: SystemTime,
    leaf_not_after: SystemTime,
}

/// Where to ask whether a certificate has been revoked, or why that cannot be read.
pub(crate) type ReadLink = Result<Arc<Link>, String>;

impl Verified {
    /// What the leaf says of itself, which is now known to be true.
    pub(crate) fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// Whether a CA, named by the SHA-256 of its certificate, is in the verified chain above the leaf.
    pub(crate) fn is_issued_under(&self, ca: &[u8; 32]) -> bool {
        self.issuers.contains(ca)
    }

    /// The chain without its anchor, the leaf first: what may have been revoked.
    pub(crate) fn links(&self) -> &[ReadLink] {
        &self.links
    }

    /// When the client's own certificate ends.
    pub(crate) fn leaf_ends(&self) -> SystemTime {
        self.leaf_not_after
    }

    /// Whether every certificate of the chain is valid at this time.
    pub(crate) fn is_valid_at(&self, now: SystemTime) -> bool {
        self.not_before <= now && now <= self.not_after
    }
}

/// Under which a verification may be remembered: the CAs, how they are used, and all that was presented. Other CAs
/// make another key, so that nothing outlives a change of them.
pub(crate) fn cache_key(trust: &Trust, presented: &Presented) -> [u8; 32] {
    let mut digest = Sha256::new();
    digest.update(trust.digest);
    digest.update(Sha256::digest(&presented.leaf));
    for der in &presented.chain {
        digest.update(Sha256::digest(der));
    }
    digest.finalize().into()
}

/// Verifies the leaf against the CAs: a chain of at most [`MAX_CERTIFICATES`] leads to one of them, every certificate
/// in it is valid now, every issuer may issue, and the leaf may be used by TLS clients (RFC 5280, sections 4.2.1.3,
/// 4.2.1.12 and 6), or by TLS servers where the instance lets that be enough. The rest of what was presented serves to build the chain and for nothing else.
///
/// # Errors
/// The reason to refuse. What OpenSSL cannot even start to verify is malformed.
pub(crate) fn verify(
    trust: &Trust,
    presented: &Presented,
    certificate: Certificate,
    issuers: &Issuers,
    now: SystemTime,
) -> Result<Verified, Reason> {
    let malformed = |_: ErrorStack| Reason::Malformed;
    let leaf = X509::from_der(&presented.leaf).map_err(malformed)?;
    let mut helpers = Stack::new().map_err(|_| Reason::Internal)?;
    for der in &presented.chain {
        let helper = X509::from_der(der).map_err(malformed)?;
        helpers.push(helper).map_err(|_| Reason::Internal)?;
    }
    let attempt = |purpose| {
        let store = store(trust, purpose, now).map_err(|_| Reason::Internal)?;
        let mut context = X509StoreContext::new().map_err(|_| Reason::Internal)?;
        context
            .init(&store, &leaf, &helpers, |context| {
                let trusted = context.verify_cert()?;
                tell(context);
                // Both must agree before anything is believed. Of a chain that is not, nothing is read: its issuers are
                // whoever made it up, and would be remembered.
                Ok(match (trusted, context.error()) {
                    (true, X509VerifyResult::OK) => {
                        Ok(context.chain().map(|chain| Chain::read(chain, issuers)))
                    }
                    (_, error) => Err(refusal(error)),
                })
            })
            .map_err(|_| Reason::Internal)?
    };
    let chain = match attempt(X509PurposeId::SSL_CLIENT) {
        Err(Reason::WrongPurpose) if trust.server_auth_usage && certificate.may_sign => {
            attempt(X509PurposeId::SSL_SERVER)
        }
        result => result,
    }?;
    let Chain { issuers, links, not_before, not_after, leaf_not_after } =
        chain.ok_or(Reason::Internal)?.map_err(|_| Reason::Internal)?;
    let verified = Verified { certificate, issuers, links, not_before, not_after, leaf_not_after };
    if verified.is_valid_at(now) { Ok(verified) } else { Err(Reason::Internal) }
}

/// Tells of the chain that OpenSSL found, and what it has against it.
fn tell(context: &X509StoreContextRef) {
    let subject = |certificate: &X509Ref| {
        let der = certificate.to_der().unwrap_or_default();
        Certificate::from_der(&der).map(|certificate| certificate.subject).unwrap_or_default()
    };
    let shown = |certificate: &X509Ref| {
        let (from, to) = (certificate.not_before(), certificate.not_after());
        format!("\"{}\", valid from {from} to {to}", subject(certificate))
    };
    let chain = || context.chain().into_iter().flatten().map(shown).collect::<Vec<_>>();
    step!("chain", "{}", chain().join("; "));
    if context.error() != X509VerifyResult::OK {
        let position = context.error_depth();
        let culprit = || context.current_cert().map(subject).unwrap_or_default();
        step!("chain", "OpenSSL says at position {position}, \"{}\": {}", culprit(), context.error());
    }
}

fn store(trust: &Trust, purpose: X509PurposeId, now: SystemTime) -> Result<X509Store, ErrorStack> {
    let mut param = X509VerifyParam::new()?;
    param.set_purpose(purpose)?;
    param.set_auth_level(AUTH_LEVEL);
    // OpenSSL counts the certificates between leaf and anchor.
    param.set_depth(MAX_CERTIFICATES as i32);
    param.set_time(now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() as i64);
    if trust.partial_chain {
        param.set_flags(X509VerifyFlags::PARTIAL_CHAIN)?;
    }
    let mut store = X509StoreBuilder::new()?;
    for anchor in &trust.anchors {
        store.add_cert(anchor.clone())?;
    }
    store.set_param(&param)?;
    Ok(store.build())
}

/// The reason behind OpenSSL's code (x509_vfy.h), which the binding gives as a number.
fn refusal(error: X509VerifyResult) -> Reason {
    const CERT_NOT_YET_VALID: i32 = 9;
    const CERT_HAS_EXPIRED: i32 = 10;
    const INVALID_PURPOSE: i32 = 26;
    match error.as_raw() {
        CERT_NOT_YET_VALID => Reason::NotYetValid,
        CERT_HAS_EXPIRED => Reason::Expired,
        INVALID_PURPOSE => Reason::WrongPurpose,
        _ => Reason::Untrusted,
    }
}

/// What is kept of a chain: its CAs, where to ask about revocation, and the time in which every certificate in it is valid.
struct Chain {
    issuers: Vec<[u8; 32]>,
    links: Box<[ReadLink]>,
    not_before: SystemTime,
    not_after: SystemTime,
    leaf_not_after: SystemTime,
}

impl Chain {
    fn read(chain: &StackRef<X509>, known: &Issuers) -> Result<Self, ErrorStack> {
        let ders = chain.iter().map(|certificate| certificate.to_der()).collect::<Result<Vec<_>, _>>()?;
        let read = |pair: &[Vec<u8>]| Link::from_der(&pair[0], known.read(&pair[1])?).map(Arc::new);
        let links = ders.windows(2).map(read).collect();
        let mut issuers = Vec::new();
        let mut not_before = UNIX_EPOCH;
        let mut not_after = UNIX_EPOCH + Duration::from_secs(u64::from(u32::MAX) * 64);
        let mut leaf_not_after = UNIX_EPOCH;
        for (position, certificate) in chain.iter().enumerate() {
            if position > 0 {
                issuers.push(Sha256::digest(&ders[position]).into());
            } else {
                leaf_not_after = system_time(certificate.not_after())?;
            }
            not_before = not_before.max(system_time(certificate.not_before())?);
            not_after = not_after.min(system_time(certificate.not_after())?);
        }
        Ok(Self { issuers, links, not_before, not_after, leaf_not_after })
    }
}

/// A time in a certificate.
pub(crate) fn system_time(time: &Asn1TimeRef) -> Result<SystemTime, ErrorStack> {
    let since_epoch = Asn1Time::from_unix(0)?.diff(time)?;
    let seconds = i64::from(since_epoch.days) * 86_400 + i64::from(since_epoch.secs);
    Ok(UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
}

#[cfg(test)]
mod differential;
#[cfg(test)]
mod tests;
