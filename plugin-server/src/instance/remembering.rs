//! However many certificates clients come with, memory has a bound.

use serde_json::json;
use testbed::forged::{Forged, public_key};
use testbed::pki::{Ca, Subject};

use super::*;
use crate::entity_source::KongConsumers;

/// An instance that trusts a CA, with room for so many certificates.
async fn instance(root: &Ca, most: u32) -> Instance {
    let source = EntitySource::Kong(KongConsumers::new());
    let key = ProofKey::from_bytes([9; 32]);
    let shared = Shared::new(source, key, Revocation::Untold, Duration::from_secs(5));
    let config = json!({
        "certificate_source": "shim", "ca_certificates": [root.pem()], "skip_consumer_lookup": true,
    });
    let shared = Arc::new(shared.with_verified_certificates(most));
    Instance::start(&config.to_string(), shared).await.unwrap()
}

fn remembered(instance: &Instance) -> (u64, u64) {
    let verified = &instance.shared.verified;
    verified.run_pending_tasks();
    (verified.entry_count(), instance.shared.issuers.count())
}

#[tokio::test]
async fn of_bad_certificates_nothing_is_remembered_however_many_come() {
    let root = Ca::root("root");
    let instance = instance(&root, VERIFIED_CERTIFICATES).await;
    let trust = instance.trust().await.unwrap();
    let now = SystemTime::now();
    let issuing = root.intermediate("issuing");
    let alice = issuing.issue(Subject::client("alice"));
    let good = Presented { leaf: alice.der.clone(), chain: vec![issuing.der()] };
    assert!(instance.verify(&trust, &good, now).is_ok());
    assert_eq!(remembered(&instance), (1, 2));

    // Each time, leaf and issuer are others: the last bytes are those of their signatures.
    let theirs = public_key(&Ca::root("stranger").der());
    let hostile = Forged::of(&issuing.der()).public_key(&theirs).signed_by(&root);
    for at in 0..20_000_u32 {
        let changed = |der: &[u8]| {
            let mut der = der.to_vec();
            let end = der.len() - 4;
            der[end..].iter_mut().zip(at.to_be_bytes()).for_each(|(byte, change)| *byte ^= change);
            der
        };
        let leaf = changed(&alice.der);
        let bad = match at % 2 {
            0 => Presented { leaf, chain: vec![changed(&hostile)] },
            _ => Presented { leaf, chain: vec![issuing.der()] },
        };
        assert_eq!(instance.verify(&trust, &bad, now).unwrap_err().reason, Reason::Untrusted);
    }
    assert_eq!(remembered(&instance), (1, 2));
}

#[tokio::test]
async fn of_good_certificates_no_more_are_remembered_than_there_is_room_for() {
    let root = Ca::root("root");
    let instance = instance(&root, 20).await;
    let trust = instance.trust().await.unwrap();
    for _ in 0..200 {
        let leaf = root.issue(Subject::client("alice")).der;
        assert!(instance.verify(&trust, &Presented { leaf, chain: vec![] }, SystemTime::now()).is_ok());
        assert!(remembered(&instance).0 <= 20);
    }
    assert_eq!(remembered(&instance), (20, 1));
}
