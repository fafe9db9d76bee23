//! This knows the hand-off of `tls-shim`, for requests that come past it to Kong's plain port.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use client_cert::{Presented, Proof, ProofKey, field};
use http::{HeaderMap, HeaderValue};
use openssl::asn1::Asn1Time;
use openssl::bn::BigNum;
use openssl::hash::MessageDigest;
use openssl::pkey::{PKey, Private};
use openssl::x509::extension::ExtendedKeyUsage;
use openssl::x509::{X509, X509NameBuilder};

use crate::front::Error;

/// After how long a proof is made anew: it counts for [`client_cert::LIFETIME`].
const RENEWAL: Duration = Duration::from_secs(10);

/// Clients with a certificate each, who ask in turn.
pub(crate) struct Clients {
    key: ProofKey,
    sni: String,
    all: Vec<Client>,
    next: AtomicUsize,
}

struct Client {
    presented: Presented,
    leaf: HeaderValue,
    chain: Option<HeaderValue>,
    proof: Mutex<Option<(Instant, HeaderValue)>>,
}

impl Clients {
    /// One client with the leaf and the chain of a PEM file.
    pub(crate) fn one(key: &Path, cert: &Path, sni: &str) -> Result<Self, Error> {
        let mut certificates = X509::stack_from_pem(&std::fs::read(cert)?)?.into_iter();
        let leaf = certificates.next().ok_or("no certificate")?.to_der()?;
        let chain = certificates.map(|certificate| certificate.to_der()).collect::<Result<_, _>>()?;
        Self::new(key, sni, vec![Presented { leaf, chain }])
    }

    /// So many clients with certificates of their own, which differ in nothing but the serial number, by a CA whose
    /// certificate and key are in these PEM files.
    pub(crate) fn many(key: &Path, count: usize, ca: &Path, ca_key: &Path, sni: &str) -> Result<Self, Error> {
        let ca = X509::from_pem(&std::fs::read(ca)?)?;
        let ca_key = PKey::private_key_from_pem(&std::fs::read(ca_key)?)?;
        let leaf = |number: usize| leaf(number, &ca, &ca_key);
        let all = (1..=count)
            .map(|number| Ok(Presented { leaf: leaf(number)?, chain: Vec::new() }))
            .collect::<Result<_, Error>>()?;
        Self::new(key, sni, all)
    }

    fn new(key: &Path, sni: &str, all: Vec<Presented>) -> Result<Self, Error> {
        let client = |presented: Presented| {
            let leaf = presented.leaf_header().parse()?;
            let chain = presented.chain_header().map(|chain| chain.parse()).transpose()?;
            Ok(Client { presented, leaf, chain, proof: Mutex::default() })
        };
        let all = all.into_iter().map(client).collect::<Result<_, Error>>()?;
        Ok(Self { key: ProofKey::read(key)?, sni: sni.to_owned(), all, next: AtomicUsize::new(0) })
    }

    /// Writes the headers of the next client's hand-off.
    pub(crate) fn put(&self, headers: &mut HeaderMap) -> Result<(), Error> {
        let client = &self.all[self.next.fetch_add(1, Ordering::Relaxed) % self.all.len()];
        let mut proof = client.proof.lock().unwrap_or_else(PoisonError::into_inner);
        let value = match &*proof {
            Some((made, value)) if made.elapsed() < RENEWAL => value.clone(),
            _ => {
                let value = Proof::write(&self.key, &client.presented, &self.sni, SystemTime::now());
                let value = HeaderValue::try_from(value)?;
                *proof = Some((Instant::now(), value.clone()));
                value
            }
        };
        headers.insert(field::CLIENT_CERT, client.leaf.clone());
        headers.extend(
            client
                .chain
                .iter()
                .map(|chain| (http::HeaderName::from_static(field::CLIENT_CERT_CHAIN), chain.clone())),
        );
        headers.insert(field::CLIENT_CERT_PROOF, value);
        Ok(())
    }
}

fn leaf(number: usize, ca: &X509, ca_key: &PKey<Private>) -> Result<Vec<u8>, Error> {
    let mut name = X509NameBuilder::new()?;
    name.append_entry_by_text("CN", "alice")?;
    let mut leaf = X509::builder()?;
    leaf.set_version(2)?;
    leaf.set_serial_number(&*BigNum::from_dec_str(&number.to_string())?.to_asn1_integer()?)?;
    leaf.set_subject_name(&name.build())?;
    leaf.set_issuer_name(ca.subject_name())?;
    leaf.set_not_before(&*Asn1Time::days_from_now(0)?)?;
    leaf.set_not_after(&*Asn1Time::days_from_now(1)?)?;
    // Nobody proves here to have the key; any will do.
    leaf.set_pubkey(ca_key)?;
    leaf.append_extension(ExtendedKeyUsage::new().client_auth().build()?)?;
    leaf.sign(ca_key, MessageDigest::sha256())?;
    Ok(leaf.build().to_der()?)
}
