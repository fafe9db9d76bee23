//! This knows what Kong is told of a client's certificate.

use std::time::SystemTime;

use client_cert::{Presented, Proof, ProofKey, field};
use testbed::upstream::Recorded;

use super::KEY;

/// What the hand-off says, where it is one that the plugin server takes.
pub fn handed_on(request: &Recorded) -> (Presented, String) {
    let one = |name| {
        let values = request.values(name);
        assert!(values.len() < 2, "{name}: {values:?}");
        values.first().map(|value| value.as_bytes())
    };
    let leaf = one(field::CLIENT_CERT).expect("Client-Cert");
    let presented = Presented::from_headers(leaf, one(field::CLIENT_CERT_CHAIN)).unwrap();
    let proof = one(field::CLIENT_CERT_PROOF).expect("Client-Cert-Proof");
    let proof = Proof::check(&ProofKey::from_bytes(KEY), &presented, proof, SystemTime::now()).unwrap();
    (presented, proof.sni)
}

pub fn is_handed_on(request: &Recorded) -> bool {
    request.headers.iter().any(|(name, _)| field::spells_any(name.as_bytes(), &field::HANDOFF))
}
