//! What must hold of any value of `Client-Cert-Proof`. The fuzz target and the run of its seeds call the same.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use client_cert::{LIFETIME, MAX_CLOCK_SKEW, Presented, Proof, ProofError, ProofKey};

/// The time of all runs, in seconds since the Unix epoch.
const NOW: u64 = 1_800_000_000;

/// Stands for the MAC in what is read: nobody finds one by trying.
const GENUINE: &str = "MAC";

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

fn key() -> ProofKey {
    ProofKey::from_bytes([7; 32])
}

fn presented() -> Presented {
    Presented { leaf: b"leaf".to_vec(), chain: vec![b"one".to_vec(), b"two".to_vec()] }
}

/// Reads a value, in which a genuine MAC stands wherever it says `MAC`. What counts was written by the shim, letter by
/// letter, for these certificates, under this key, and just now; and what the shim writes counts.
///
/// # Panics
/// Where what must hold does not.
pub(crate) fn proof(bytes: &[u8]) {
    let value = genuine(bytes);
    let checked = Proof::check(&key(), &presented(), &value, at(NOW));
    let written = said(&value).filter(|said| *write(said) == *value);
    match (&checked, written) {
        (Ok(proof), Some(said)) => assert!(*proof == said && is_fresh(said.issued_at)),
        (Err(ProofError::Expired), Some(said)) => assert!(said.issued_at < NOW - LIFETIME.as_secs()),
        (Err(ProofError::FromTheFuture), Some(said)) => {
            assert!(said.issued_at > NOW + MAX_CLOCK_SKEW.as_secs());
        }
        (Err(ProofError::Malformed | ProofError::Mismatch), None) => {}
        (checked, written) => panic!("{checked:?} of what the shim wrote: {written:?}"),
    }
    for other in [
        Presented { leaf: b"lea".to_vec(), ..presented() },
        Presented { chain: vec![b"two".to_vec(), b"one".to_vec()], ..presented() },
        Presented { chain: vec![b"onetwo".to_vec()], ..presented() },
        Presented { chain: Vec::new(), ..presented() },
    ] {
        assert_no_proof(Proof::check(&key(), &other, &value, at(NOW)));
    }
    let other = ProofKey::from_bytes([8; 32]);
    assert_no_proof(Proof::check(&other, &presented(), &value, at(NOW)));
    if let Ok(sni) = str::from_utf8(bytes) {
        let value = Proof::write(&key(), &presented(), sni, at(NOW));
        let proof = Proof { sni: sni.to_owned(), issued_at: NOW };
        assert_eq!(Proof::check(&key(), &presented(), value.as_bytes(), at(NOW)), Ok(proof));
    }
}

fn assert_no_proof(checked: Result<Proof, ProofError>) {
    assert!(matches!(checked, Err(ProofError::Malformed | ProofError::Mismatch)), "{checked:?}");
}

fn is_fresh(issued_at: u64) -> bool {
    (NOW - LIFETIME.as_secs()..=NOW + MAX_CLOCK_SKEW.as_secs()).contains(&issued_at)
}

fn write(said: &Proof) -> Vec<u8> {
    Proof::write(&key(), &presented(), &said.sni, at(said.issued_at)).into_bytes()
}

/// The time and the name that a value says, read as loosely as one can.
fn said(value: &[u8]) -> Option<Proof> {
    let mut parts = value.split(|&byte| byte == b'.').skip(1);
    let issued_at = str::from_utf8(parts.next()?).ok()?.trim().parse().ok()?;
    // What has no time in this is none of ours.
    UNIX_EPOCH.checked_add(Duration::from_secs(issued_at))?;
    let sni = BASE64URL.decode(parts.next()?).ok()?;
    Some(Proof { sni: String::from_utf8(sni).ok()?, issued_at })
}

/// The value with the MAC of what it says.
fn genuine(value: &[u8]) -> Vec<u8> {
    let Some(said) = said(value) else { return value.to_vec() };
    let written = write(&said);
    let mac = written.rsplit(|&byte| byte == b'.').next().unwrap_or_default();
    let mut genuine = Vec::new();
    let mut rest = value;
    while let Some(place) = rest.windows(GENUINE.len()).position(|bytes| bytes == GENUINE.as_bytes()) {
        genuine.extend_from_slice(&rest[..place]);
        genuine.extend_from_slice(mac);
        rest = &rest[place + GENUINE.len()..];
    }
    genuine.extend_from_slice(rest);
    genuine
}
