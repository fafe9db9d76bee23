//! This knows the proof: a header that shows that our shim wrote the hand-off, for these certificates, just now.
//!
//! The value is `v1.<unix seconds>.<SNI, base64url>.<MAC, base64url>`; the MAC is HMAC-SHA256 under the key that shim
//! and plugin server share, over all of these and the digests of leaf and chain (`interfaces.md`, "From the shim to
//! Kong"). Whoever can reach Kong's plain port without the key can write `Client-Cert`, but no proof.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

use crate::{Presented, ProofKey};

/// How long a proof counts after it was written. A request is sent as soon as its headers are written, so this covers
/// a slow hop and some difference of clocks between hosts, not more.
pub const LIFETIME: Duration = Duration::from_secs(30);

/// How far the shim's clock may be ahead of the plugin server's.
pub const MAX_CLOCK_SKEW: Duration = Duration::from_secs(5);

const VERSION: &str = "v1";
/// Keeps this MAC from being taken for one over anything else under the same key.
const CONTEXT: &[u8] = b"kong-mtls-auth Client-Cert-Proof v1";

/// All of a client's certificates that a proof depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digests {
    leaf: [u8; 32],
    chain: [u8; 32],
}

/// What is proven about a hand-off: everything that goes under the MAC but the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// The server name that the client asked for in its ClientHello (RFC 6066), empty where it sent none.
    pub sni: String,
    /// When the shim wrote the proof, in whole seconds since the Unix epoch.
    pub issued_at: u64,
}

/// Why a proof does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// Not of the form that the shim writes.
    #[error("not of the form v1.time.sni.mac")]
    Malformed,
    /// Made with another key, for other certificates, or changed on the way.
    #[error("made with another key or for other certificates")]
    Mismatch,
    /// Genuine, but older than [`LIFETIME`].
    #[error("older than {} s", LIFETIME.as_secs())]
    Expired,
    /// Genuine, but from further ahead than [`MAX_CLOCK_SKEW`]: the clocks of the two hosts differ.
    #[error("from more than {} s in the future", MAX_CLOCK_SKEW.as_secs())]
    FromTheFuture,
}

impl Proof {
    /// Writes the value of `Client-Cert-Proof`.
    pub fn write(key: &ProofKey, presented: &Presented, sni: &str, now: SystemTime) -> String {
        Self::write_over(key, &presented.digests(), sni, now)
    }

    /// The same for certificates of which only the digests were kept.
    pub fn write_over(key: &ProofKey, presented: &Digests, sni: &str, now: SystemTime) -> String {
        let proof = Self { sni: sni.to_owned(), issued_at: unix_seconds(now) };
        let mac = proof.mac(key, presented).finalize().into_bytes();
        format!(
            "{VERSION}.{}.{}.{}",
            proof.issued_at,
            BASE64URL.encode(&proof.sni),
            BASE64URL.encode(mac.as_slice())
        )
    }

    /// Reads and checks the value of `Client-Cert-Proof` for what came in the other two headers.
    ///
    /// # Errors
    /// See [`ProofError`]. The time is looked at only after the MAC, which is compared in constant time, so that
    /// "expired" is never said of a forgery.
    pub fn check(
        key: &ProofKey,
        presented: &Presented,
        value: &[u8],
        now: SystemTime,
    ) -> Result<Self, ProofError> {
        let (proof, mac) = Self::parse(value).ok_or(ProofError::Malformed)?;
        proof.mac(key, &presented.digests()).verify_slice(&mac).map_err(|_| ProofError::Mismatch)?;
        let now = unix_seconds(now);
        if proof.issued_at > now.saturating_add(MAX_CLOCK_SKEW.as_secs()) {
            return Err(ProofError::FromTheFuture);
        }
        if now.saturating_sub(proof.issued_at) > LIFETIME.as_secs() {
            return Err(ProofError::Expired);
        }
        Ok(proof)
    }

    fn parse(value: &[u8]) -> Option<(Self, Vec<u8>)> {
        let mut parts = std::str::from_utf8(value).ok()?.split('.');
        let (version, time, sni, mac) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        // A number is written in one way.
        let is_number =
            time.bytes().all(|byte| byte.is_ascii_digit()) && (time == "0" || !time.starts_with('0'));
        if version != VERSION || parts.next().is_some() || !is_number {
            return None;
        }
        let issued_at = time.parse().ok()?;
        let sni = String::from_utf8(BASE64URL.decode(sni).ok()?).ok()?;
        Some((Self { sni, issued_at }, BASE64URL.decode(mac).ok()?))
    }

    /// Every variable part has a length or is of fixed size, so that no two hand-offs give the same input.
    fn mac(&self, key: &ProofKey, presented: &Digests) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(key.bytes()).expect("HMAC takes keys of any length");
        mac.update(CONTEXT);
        mac.update(&self.issued_at.to_be_bytes());
        mac.update(&(self.sni.len() as u64).to_be_bytes());
        mac.update(self.sni.as_bytes());
        mac.update(&presented.leaf);
        mac.update(&presented.chain);
        mac
    }
}

impl Presented {
    /// What a proof goes over.
    pub fn digests(&self) -> Digests {
        Digests { leaf: Sha256::digest(&self.leaf).into(), chain: chain_digest(&self.chain) }
    }
}

fn chain_digest(chain: &[Vec<u8>]) -> [u8; 32] {
    let mut digest = Sha256::new();
    for der in chain {
        digest.update((der.len() as u64).to_be_bytes());
        digest.update(der);
    }
    digest.finalize().into()
}

fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn key() -> ProofKey {
        ProofKey::from_bytes([7; 32])
    }

    fn presented() -> Presented {
        Presented { leaf: b"leaf".to_vec(), chain: vec![b"one".to_vec(), b"two".to_vec()] }
    }

    fn check(value: &str, presented: &Presented, now: u64) -> Result<Proof, ProofError> {
        Proof::check(&key(), presented, value.as_bytes(), at(now))
    }

    #[test]
    fn what_the_shim_writes_counts_for_as_long_as_it_is_fresh() {
        let value = Proof::write(&key(), &presented(), "api.example.com", at(NOW));
        let proof = Proof { sni: "api.example.com".into(), issued_at: NOW };
        for now in [NOW - 5, NOW, NOW + 30] {
            assert_eq!(check(&value, &presented(), now), Ok(proof.clone()));
        }
        assert_eq!(check(&value, &presented(), NOW + 31), Err(ProofError::Expired));
        assert_eq!(check(&value, &presented(), NOW - 6), Err(ProofError::FromTheFuture));
    }

    #[test]
    fn it_counts_for_these_certificates_only() {
        let value = Proof::write(&key(), &presented(), "", at(NOW));
        let others = [
            Presented { leaf: b"Leaf".to_vec(), ..presented() },
            Presented { chain: vec![], ..presented() },
            Presented { chain: vec![b"two".to_vec(), b"one".to_vec()], ..presented() },
            // The same bytes, cut elsewhere.
            Presented { chain: vec![b"onet".to_vec(), b"wo".to_vec()], ..presented() },
            Presented { chain: vec![b"onetwo".to_vec()], ..presented() },
        ];
        for other in others {
            assert_eq!(check(&value, &other, NOW), Err(ProofError::Mismatch), "{other:?}");
        }
    }

    #[test]
    fn it_counts_for_this_key_time_and_name_only() {
        let value = Proof::write(&key(), &presented(), "a.example", at(NOW));
        let other_key = ProofKey::from_bytes([8; 32]);
        assert_eq!(
            Proof::check(&other_key, &presented(), value.as_bytes(), at(NOW)),
            Err(ProofError::Mismatch)
        );
        let parts: Vec<_> = value.split('.').map(str::to_owned).collect();
        let later = (NOW + 1).to_string();
        let renamed = BASE64URL.encode("b.example");
        for (part, changed) in [(1, later.as_str()), (2, renamed.as_str()), (2, "")] {
            let mut parts = parts.clone();
            parts[part] = changed.to_owned();
            assert_eq!(check(&parts.join("."), &presented(), NOW), Err(ProofError::Mismatch), "{changed}");
        }
    }

    #[test]
    fn anything_else_is_malformed() {
        let value = Proof::write(&key(), &presented(), "", at(NOW));
        let mac = value.rsplit('.').next().unwrap();
        for bad in [
            String::new(),
            "v1".into(),
            value.replace("v1.", "v2."),
            format!("{value}."),
            format!(" {value}"),
            format!("v1.+{NOW}..{mac}"),
            format!("v1.0{NOW}..{mac}"),
            format!("v1.99999999999999999999999..{mac}"),
            format!("v1.{NOW}.!.{mac}"),
            format!("v1.{NOW}..{mac}="),
        ] {
            assert_eq!(check(&bad, &presented(), NOW), Err(ProofError::Malformed), "{bad:?}");
        }
        // A MAC cut short is no MAC.
        assert_eq!(check(&value[..value.len() - 3], &presented(), NOW), Err(ProofError::Mismatch));
        assert_eq!(check(&format!("v1.{NOW}.."), &presented(), NOW), Err(ProofError::Mismatch));
    }
}
