//! This knows what goes to Kong of a client's certificate: three header values, of which the proof is renewed.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use client_cert::{Digests, MAX_HEADER_BYTES, Presented, Proof, ProofKey};
use http::HeaderValue;

/// How old a proof may become on a connection before the next request gets a new one. A third of
/// [`client_cert::LIFETIME`], which leaves the rest for the way to the plugin.
const RENEWED_AFTER: Duration = Duration::from_secs(10);

/// The hand-off of one connection.
pub(crate) struct HandOff {
    digests: Digests,
    server_name: Box<str>,
    key: Arc<ProofKey>,
    leaf: HeaderValue,
    chain: Option<HeaderValue>,
    proof: Mutex<Option<(SystemTime, HeaderValue)>>,
}

/// The header values of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Values {
    /// `Client-Cert`.
    pub(crate) leaf: HeaderValue,
    /// `Client-Cert-Chain`.
    pub(crate) chain: Option<HeaderValue>,
    /// `Client-Cert-Proof`.
    pub(crate) proof: HeaderValue,
}

/// What a client presented does not fit into a hand-off.
#[derive(Debug, thiserror::Error)]
#[error(
    "the client's certificates take {0} bytes as headers, and {MAX_HEADER_BYTES} is the most there may be"
)]
pub(crate) struct TooLarge(usize);

impl HandOff {
    /// Prepares what stays the same for all requests of a connection.
    ///
    /// # Errors
    /// The certificates are too large; such a client must not go on as one that has none.
    pub(crate) fn new(
        presented: &Presented,
        server_name: &str,
        key: Arc<ProofKey>,
    ) -> Result<Self, TooLarge> {
        let (leaf, chain) = (presented.leaf_header(), presented.chain_header());
        let bytes = leaf.len() + chain.as_ref().map_or(0, String::len);
        if bytes > MAX_HEADER_BYTES {
            return Err(TooLarge(bytes));
        }
        Ok(Self {
            digests: presented.digests(),
            server_name: server_name.into(),
            key,
            leaf: value(&leaf),
            chain: chain.as_deref().map(value),
            proof: Mutex::new(None),
        })
    }

    /// The values for a request that comes now.
    pub(crate) fn values(&self, now: SystemTime) -> Values {
        Values { leaf: self.leaf.clone(), chain: self.chain.clone(), proof: self.proof(now) }
    }

    fn proof(&self, now: SystemTime) -> HeaderValue {
        let mut kept = self.proof.lock().unwrap_or_else(PoisonError::into_inner);
        match &*kept {
            // A clock that was set back gives an error here, and a new proof.
            Some((written, proof)) if now.duration_since(*written).is_ok_and(|age| age < RENEWED_AFTER) => {
                proof.clone()
            }
            _ => {
                let proof = value(&Proof::write_over(&self.key, &self.digests, &self.server_name, now));
                *kept = Some((now, proof.clone()));
                proof
            }
        }
    }
}

/// A copy, which takes no more room than there are bytes: it stays for as long as the connection.
fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).expect("base64 and punctuation")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn presented(leaf: usize) -> Presented {
        Presented { leaf: vec![1; leaf], chain: vec![vec![2; 10]] }
    }

    fn hand_off(leaf: usize) -> Result<HandOff, TooLarge> {
        HandOff::new(&presented(leaf), "a.example", Arc::new(ProofKey::from_bytes([7; 32])))
    }

    #[test]
    fn a_proof_is_kept_for_ten_seconds() {
        let hand_off = hand_off(10).unwrap();
        let start = SystemTime::now();
        let at = |seconds| hand_off.values(start + Duration::from_secs(seconds)).proof;
        let first = at(0);
        assert_eq!(at(9), first);
        let second = at(10);
        assert_ne!(second, first);
        assert_eq!(at(19), second);
        assert_eq!(at(0), first, "a clock that was set back gets a proof of its own time");
    }

    #[test]
    fn values_are_those_that_the_plugin_server_checks() {
        let hand_off = hand_off(10).unwrap();
        let now = SystemTime::now();
        let values = hand_off.values(now);
        let chain = values.chain.as_ref().map(HeaderValue::as_bytes);
        let read = Presented::from_headers(values.leaf.as_bytes(), chain).unwrap();
        assert_eq!(read, presented(10));
        let key = ProofKey::from_bytes([7; 32]);
        let proof = Proof::check(&key, &read, values.proof.as_bytes(), now).unwrap();
        assert_eq!(proof.sni, "a.example");
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        assert!(hand_off(48 * 1024 - 50).is_ok());
        assert!(hand_off(48 * 1024).is_err());
    }
}
