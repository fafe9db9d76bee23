mod exhausting;

use std::sync::Arc;
use std::time::Duration;

use kong_entities::CaCertificate;
use openssl::bn::BigNum;
use openssl::hash::MessageDigest;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::x509::X509Name;
use openssl::x509::extension::BasicConstraints;
use testbed::pki::{Ca, Leaf, Subject, rcgen::ExtendedKeyUsagePurpose, rcgen::KeyUsagePurpose};

use super::*;
use crate::config::Config;

const HOUR: Duration = Duration::from_secs(3600);

fn config(ca_certificates: &[&str], partial_chain: bool) -> Config {
    let config = serde_json::json!({
        "certificate_source": "shim", "ca_certificates": ca_certificates, "allow_partial_chain": partial_chain,
    });
    Config::from_json(&config.to_string()).unwrap()
}

fn trust(cas: &[&Ca]) -> Trust {
    resolve(cas, false)
}

fn resolve(cas: &[&Ca], partial_chain: bool) -> Trust {
    let pem: Vec<_> = cas.iter().map(|ca| ca.pem()).collect();
    let pem: Vec<_> = pem.iter().map(String::as_str).collect();
    Trust::resolve(&config(&pem, partial_chain), &[]).unwrap()
}

fn presented(leaf: &Leaf, chain: &[&Ca]) -> Presented {
    Presented { leaf: leaf.der.clone(), chain: chain.iter().map(|ca| ca.der()).collect() }
}

fn verify_at(trust: &Trust, presented: &Presented, now: SystemTime) -> Result<Verified, Reason> {
    let certificate = Certificate::from_der(&presented.leaf).ok_or(Reason::Malformed)?;
    verify(trust, presented, certificate, &Issuers::default(), now)
}

fn outcome(trust: &Trust, presented: &Presented) -> Result<String, Reason> {
    verify_at(trust, presented, SystemTime::now()).map(|verified| verified.certificate().subject.clone())
}

#[test]
fn a_leaf_of_a_trusted_root_is_verified_for_as_long_as_it_is_valid() {
    let root = Ca::root("root");
    let presented = presented(&root.issue(Subject::client("alice")), &[]);
    let now = SystemTime::now();
    let verified = verify_at(&trust(&[&root]), &presented, now).unwrap();
    assert_eq!(verified.certificate().subject, "CN=alice");
    assert!(verified.is_valid_at(now + HOUR - Duration::from_secs(60)));
    assert!(!verified.is_valid_at(now + HOUR + Duration::from_secs(60)));
    assert!(!verified.is_valid_at(now - HOUR - Duration::from_secs(60)));
}

#[test]
fn what_has_ended_or_not_begun_is_refused_with_its_reason() {
    let root = Ca::root("root");
    let trust = trust(&[&root]);
    let expired = presented(&root.issue(Subject::client("alice").expired()), &[]);
    assert_eq!(outcome(&trust, &expired), Err(Reason::Expired));
    let early = presented(&root.issue(Subject::client("alice").not_yet_valid()), &[]);
    assert_eq!(outcome(&trust, &early), Err(Reason::NotYetValid));

    // The root lasts a day. A leaf that outlives it is no longer worth anything either.
    let now = SystemTime::now();
    let long = presented(&root.issue(Subject::client("alice").not_after(now + 72 * HOUR)), &[]);
    let verified = verify_at(&trust, &long, now).unwrap();
    assert!(!verified.is_valid_at(now + 48 * HOUR));
    assert_eq!(verify_at(&trust, &long, now + 48 * HOUR).unwrap_err(), Reason::Expired);
}

#[test]
fn a_renewed_root_takes_the_place_of_the_one_that_ended() {
    // The same name, another key: which of the two it is must be found out by the signature.
    let (old, new) = (Ca::root("root"), Ca::root("root"));
    let presented = presented(&new.issue(Subject::client("alice")), &[]);
    assert!(outcome(&trust(&[&old, &new]), &presented).is_ok());
    assert_eq!(outcome(&trust(&[&old]), &presented), Err(Reason::Untrusted));
}

#[test]
fn a_chain_must_be_whole_and_lead_to_an_anchor() {
    let root = Ca::root("root");
    let issuing = root.intermediate("issuing");
    let leaf = issuing.issue(Subject::client("alice"));
    let trust_root = trust(&[&root]);
    assert!(outcome(&trust_root, &presented(&leaf, &[&issuing])).is_ok());
    assert!(outcome(&trust_root, &presented(&leaf, &[&root, &issuing])).is_ok(), "in any order");
    assert_eq!(outcome(&trust_root, &presented(&leaf, &[])), Err(Reason::Untrusted));
    assert!(outcome(&trust(&[&root, &issuing]), &presented(&leaf, &[])).is_ok(), "CAs help to build it");

    // What the client itself sends anchors nothing.
    let stranger = Ca::root("stranger");
    let other = stranger.issue(Subject::client("alice"));
    assert_eq!(outcome(&trust_root, &presented(&other, &[&stranger])), Err(Reason::Untrusted));
}

#[test]
fn an_intermediate_anchors_only_where_partial_chains_are_allowed() {
    let root = Ca::root("root");
    let issuing = root.intermediate("issuing");
    let leaf = presented(&issuing.issue(Subject::client("alice")), &[]);
    let resolve = |partial| resolve(&[&issuing], partial);
    assert_eq!(outcome(&resolve(false), &leaf), Err(Reason::Untrusted));
    assert!(outcome(&resolve(true), &leaf).is_ok());
    // And then only for what it issued.
    let beside = presented(&root.intermediate("beside").issue(Subject::client("alice")), &[]);
    assert_eq!(outcome(&resolve(true), &beside), Err(Reason::Untrusted));
    assert_ne!(cache_key(&resolve(false), &leaf), cache_key(&resolve(true), &leaf));
}

#[test]
fn only_a_ca_issues() {
    let root = Ca::root("root");
    let impostor = root.impostor("impostor");
    let leaf = impostor.issue(Subject::client("alice"));
    assert_eq!(outcome(&trust(&[&root]), &presented(&leaf, &[&impostor])), Err(Reason::Untrusted));
}

#[test]
fn a_leaf_must_be_for_tls_clients_or_for_anything() {
    use ExtendedKeyUsagePurpose::{ClientAuth, CodeSigning, ServerAuth};
    let root = Ca::root("root");
    let trust = trust(&[&root]);
    for (usages, expected) in [
        (vec![], None),
        (vec![ClientAuth], None),
        (vec![ServerAuth, ClientAuth], None),
        (vec![ServerAuth], Some(Reason::WrongPurpose)),
        (vec![CodeSigning], Some(Reason::WrongPurpose)),
    ] {
        let leaf = root.issue(Subject::client("alice").usages(usages.clone()));
        assert_eq!(outcome(&trust, &presented(&leaf, &[])).err(), expected, "{usages:?}");
    }
}

#[test]
fn what_is_only_for_tls_servers_passes_where_the_instance_says_so_and_nothing_else_does() {
    use ExtendedKeyUsagePurpose::{ClientAuth, CodeSigning, EmailProtection, ServerAuth};
    let root = Ca::root("root");
    let allowing = |cas: &[&Ca]| {
        let pem: Vec<_> = cas.iter().map(|ca| ca.pem()).collect();
        let config = serde_json::json!({"certificate_source": "shim", "ca_certificates": pem, "allow_server_auth_usage": true});
        Trust::resolve(&Config::from_json(&config.to_string()).unwrap(), &[]).unwrap()
    };
    let (refusing, allowing) = (trust(&[&root]), allowing(&[&root]));
    let wrong = Some(Reason::WrongPurpose);
    for (usages, refused, allowed) in [
        (vec![], None, None),
        (vec![ClientAuth], None, None),
        (vec![ServerAuth], wrong, None),
        (vec![ServerAuth, EmailProtection], wrong, None),
        (vec![CodeSigning], wrong, wrong),
        (vec![EmailProtection], wrong, wrong),
    ] {
        let leaf = presented(&root.issue(Subject::client("alice").usages(usages.clone())), &[]);
        assert_eq!(outcome(&refusing, &leaf).err(), refused, "{usages:?}");
        assert_eq!(outcome(&allowing, &leaf).err(), allowed, "{usages:?}");
        assert_ne!(cache_key(&refusing, &leaf), cache_key(&allowing, &leaf));
    }

    // A server's key may be for encipherment only; a client's signs.
    let servers = Subject::client("alice").usages(vec![ServerAuth]);
    let enciphers = servers.clone().key_usages(vec![KeyUsagePurpose::KeyEncipherment]);
    assert_eq!(outcome(&allowing, &presented(&root.issue(enciphers), &[])).err(), wrong);

    // It is no leave for anything else to be wrong.
    let stranger = Ca::root("stranger");
    let foreign = presented(&stranger.issue(servers.clone()), &[]);
    assert_eq!(outcome(&allowing, &foreign).err(), Some(Reason::Untrusted));
    let ended = servers.expired();
    assert_eq!(outcome(&allowing, &presented(&root.issue(ended), &[])).err(), Some(Reason::Expired));
}

#[test]
fn identity_is_that_of_the_leaf_whatever_comes_with_it() {
    let root = Ca::root("root");
    let stranger = Ca::root("stranger");
    let alice = root.issue(Subject::client("alice"));
    let mallory = stranger.issue(Subject::client("mallory"));
    let trust = trust(&[&root]);
    let with = |leaf: &Leaf, chain: &[&Leaf]| Presented {
        leaf: leaf.der.clone(),
        chain: chain.iter().map(|leaf| leaf.der.clone()).collect(),
    };
    assert_eq!(outcome(&trust, &with(&alice, &[&mallory, &mallory])), Ok("CN=alice".into()));
    assert_eq!(outcome(&trust, &with(&mallory, &[&alice])), Err(Reason::Untrusted));
}

#[test]
fn a_chain_that_is_too_long_is_refused() {
    let root = Ca::root("root");
    let mut issuers = vec![root.intermediate("1")];
    for depth in 2..=MAX_CERTIFICATES + 1 {
        let next = issuers.last().unwrap().intermediate(&depth.to_string());
        issuers.push(next);
    }
    let leaf = issuers.last().unwrap().issue(Subject::client("alice"));
    let chain: Vec<_> = issuers.iter().collect();
    assert_eq!(outcome(&trust(&[&root]), &presented(&leaf, &chain)), Err(Reason::Untrusted));
}

/// Signs a client certificate with OpenSSL, for what rcgen rightly does not offer.
fn signed_with(ca_key_bits: u32, leaf_key_bits: u32, digest: MessageDigest) -> (String, Vec<u8>) {
    let key = |bits| PKey::from_rsa(Rsa::generate(bits).unwrap()).unwrap();
    let (ca_key, leaf_key) = (key(ca_key_bits), key(leaf_key_bits));
    let name = |cn| {
        let mut name = X509Name::builder().unwrap();
        name.append_entry_by_text("CN", cn).unwrap();
        name.build()
    };
    let build = |subject, public: &PKey<Private>, is_ca: bool, digest| {
        let mut builder = X509::builder().unwrap();
        builder.set_version(2).unwrap();
        builder.set_serial_number(&BigNum::from_u32(1).unwrap().to_asn1_integer().unwrap()).unwrap();
        builder.set_subject_name(&name(subject)).unwrap();
        builder.set_issuer_name(&name("old root")).unwrap();
        builder.set_pubkey(public).unwrap();
        builder.set_not_before(&Asn1Time::days_from_now(0).unwrap()).unwrap();
        builder.set_not_after(&Asn1Time::days_from_now(1).unwrap()).unwrap();
        if is_ca {
            builder.append_extension(BasicConstraints::new().critical().ca().build().unwrap()).unwrap();
        }
        builder.sign(&ca_key, digest).unwrap();
        builder.build()
    };
    let ca = build("old root", &ca_key, true, MessageDigest::sha256());
    let leaf = build("alice", &leaf_key, false, digest);
    (String::from_utf8(ca.to_pem().unwrap()).unwrap(), leaf.to_der().unwrap())
}

#[test]
fn signatures_and_keys_that_can_be_forged_are_refused() {
    for (ca_bits, leaf_bits, digest, trusted) in [
        (2048, 2048, MessageDigest::sha256(), true),
        (2048, 2048, MessageDigest::sha1(), false),
        (2048, 2048, MessageDigest::md5(), false),
        (512, 2048, MessageDigest::sha256(), false),
        (2048, 512, MessageDigest::sha256(), false),
    ] {
        let (ca, leaf) = signed_with(ca_bits, leaf_bits, digest);
        let trust = Trust::resolve(&config(&[&ca], false), &[]).unwrap();
        // OpenSSL's clock has whole seconds, and `not_before` was now.
        let now = SystemTime::now() + Duration::from_secs(1);
        let verified = verify_at(&trust, &Presented { leaf, chain: vec![] }, now).map(drop);
        let expected = if trusted { Ok(()) } else { Err(Reason::Untrusted) };
        assert_eq!(verified, expected, "{ca_bits} {leaf_bits} {:?}", digest.type_());
    }
}

#[test]
fn what_is_no_certificate_is_malformed() {
    let root = Ca::root("root");
    let trust = trust(&[&root]);
    let leaf = root.issue(Subject::client("alice"));
    let mut trailing = leaf.der.clone();
    trailing.push(0);
    let cut = leaf.der[..leaf.der.len() - 1].to_vec();
    for der in [b"x".to_vec(), trailing, cut] {
        assert_eq!(outcome(&trust, &Presented { leaf: der, chain: vec![] }), Err(Reason::Malformed));
    }
    let chain = Presented { leaf: leaf.der, chain: vec![b"x".to_vec()] };
    assert_eq!(outcome(&trust, &chain), Err(Reason::Malformed));
}

#[test]
fn what_is_no_ca_is_refused_as_anchor_and_named() {
    let root = Ca::root("root");
    let leaf = root.issue(Subject::client("alice"));
    let id = "6ae7a1a4-0cf0-4b6a-9d3f-3f7c5a0b1c2d";
    for (entry, says) in [
        (leaf.cert.as_str(), "not a CA"),
        ("-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n", "not a certificate"),
        ("-----BEGIN CERTIFICATE-----\nAA==\n", "PEM"),
        (leaf.key.as_str(), "no certificate"),
    ] {
        let problem = Trust::resolve(&config(&[&root.pem(), entry], false), &[]).unwrap_err();
        assert!(problem.starts_with("config.ca_certificates[1]: ") && problem.contains(says), "{problem}");
    }
    // An entity in the place of an id is no better.
    let entity = Arc::new(CaCertificate { cert: leaf.cert.clone() });
    let problem = Trust::resolve(&config(&[&root.pem(), id], false), &[entity]).unwrap_err();
    assert!(problem.starts_with("config.ca_certificates[1]: not a CA"), "{problem}");
    assert!(Trust::resolve(&config(&[id], false), &[]).is_err());
}
