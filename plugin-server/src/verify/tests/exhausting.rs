//! What is made to be expensive is refused, or decided right, and either way soon.

use std::sync::mpsc;

use client_cert::MAX_HEADER_BYTES;
use testbed::crl::tlv;
use testbed::forged::{Forged, ec_without_prime, rsa, rsa_of};
use testbed::process::PATIENCE;

use super::*;

/// The same as [`outcome`] of what a hand-off can carry.
///
/// # Panics
/// Where it goes on for longer than any test would wait.
fn soon(trust: &Arc<Trust>, presented: Presented) -> Result<String, Reason> {
    let bytes = presented.leaf_header().len() + presented.chain_header().map_or(0, |chain| chain.len());
    assert!(bytes <= MAX_HEADER_BYTES && presented.chain.len() < MAX_CERTIFICATES, "{bytes} bytes");
    let (sender, receiver) = mpsc::channel();
    let trust = Arc::clone(trust);
    std::thread::spawn(move || sender.send(outcome(&trust, &presented)));
    receiver.recv_timeout(PATIENCE).expect("an end")
}

fn trusting(root: &Ca) -> Arc<Trust> {
    Arc::new(trust(&[root]))
}

const F4: &[u8] = &[1, 0, 1];

#[test]
fn keys_that_are_huge_or_no_keys_at_all_cost_no_more_than_others() {
    let root = Ca::root("root");
    let trust = trusting(&root);
    // All that may differ of a leaf is what its key costs who looks at it: possession was proven elsewhere.
    let leaf = root.issue(Subject::client("alice"));
    let with = |key: &[u8]| Presented {
        leaf: Forged::of(&leaf.der).public_key(key).signed_by(&root),
        chain: vec![],
    };
    assert_eq!(soon(&trust, with(&rsa_of(16_384, F4))), Ok("CN=alice".into()));
    assert_eq!(soon(&trust, with(&ec_without_prime())), Err(Reason::Untrusted));

    // As an issuer, a key that is what it should be is good for a certificate.
    let issuing = root.intermediate("issuing");
    let leaf = issuing.issue(Subject::client("alice"));
    let key = Rsa::generate(3072).unwrap();
    let honest = rsa(&key.n().to_vec(), &key.e().to_vec());
    let chain = vec![Forged::of(&issuing.der()).public_key(&honest).signed_by(&root)];
    let presented = Presented { leaf: Forged::of(&leaf.der).signed_by_rsa(&key), chain };
    assert_eq!(soon(&trust, presented), Ok("CN=alice".into()));

    // With each of these, a signature is looked at that is none.
    let signature = vec![0x55; 2048];
    for (name, key, bits) in [
        ("16384 bits", rsa_of(16_384, F4), 16_384),
        ("16384 bits, and an exponent of as many", rsa_of(16_384, &[0x7f; 2048]), 16_384),
        ("16384 bits, and an exponent of 64", rsa_of(16_384, &[0x7f; 8]), 16_384),
        ("3072 bits, and an exponent of as many", rsa_of(3072, &[0x7f; 384]), 3072),
        ("65536 bits", rsa_of(65_536, F4), 16_384),
        ("an even number", rsa_of(2048, &[2]), 2048),
        ("a field that is none", ec_without_prime(), 2048),
    ] {
        let issuing = root.intermediate("issuing");
        let leaf = issuing.issue(Subject::client("alice"));
        let hostile = Forged::of(&issuing.der()).public_key(&key).signed_by(&root);
        let forged = Forged::of(&leaf.der).with_rsa_signature(&signature[..bits / 8]);
        for leaf in [forged, leaf.der] {
            let presented = Presented { leaf, chain: vec![hostile.clone()] };
            assert_eq!(soon(&trust, presented), Err(Reason::Untrusted), "{name}");
        }
    }
}

#[test]
fn as_many_huge_keys_as_a_chain_may_have_are_decided_soon() {
    let root = Ca::root("root");
    let mut issuers = vec![root.intermediate("1")];
    for depth in 2..MAX_CERTIFICATES {
        let next = issuers.last().unwrap().intermediate(&depth.to_string());
        issuers.push(next);
    }
    let leaf = issuers.last().unwrap().issue(Subject::client("alice"));
    let key = rsa_of(16_384, &[0x7f; 8]);
    let signature = vec![0x55; 2048];
    let hostile = |der: &[u8]| Forged::of(der).public_key(&key).with_rsa_signature(&signature);
    let chain = issuers.iter().map(|issuer| hostile(&issuer.der())).collect();
    let presented = Presented { leaf: hostile(&leaf.der), chain };
    assert_eq!(soon(&trusting(&root), presented), Err(Reason::Untrusted));
}

const NAME_CONSTRAINTS: &[u64] = &[2, 5, 29, 30];
const SUBJECT_ALTERNATIVE_NAME: &[u64] = &[2, 5, 29, 17];
const PERMITTED: u8 = 0xa0;
const EXCLUDED: u8 = 0xa1;

/// `NameConstraints` of these DNS names (RFC 5280, section 4.2.1.10).
fn constraints<'a>(kind: u8, names: impl Iterator<Item = &'a str>) -> Vec<u8> {
    let subtrees: Vec<u8> = names.flat_map(|name| tlv(0x30, &[&tlv(0x82, &[name.as_bytes()])])).collect();
    tlv(0x30, &[&tlv(kind, &[&subtrees])])
}

fn alternative_names<'a>(names: impl Iterator<Item = &'a str>) -> Vec<u8> {
    let names: Vec<u8> = names.flat_map(|name| tlv(0x82, &[name.as_bytes()])).collect();
    tlv(0x30, &[&names])
}

/// OpenSSL looks at 2^20 pairs of a constraint and a name, and then refuses the chain.
#[test]
fn constraints_without_end_are_refused_and_many_are_decided_right() {
    use std::iter::repeat_n;
    let root = Ca::root("root");
    let trust = trusting(&root);
    let chain = |constraints: &[u8], names: &[u8]| {
        let issuing = root.intermediate_with("issuing", NAME_CONSTRAINTS, constraints);
        let leaf = Subject::client("alice").extension(SUBJECT_ALTERNATIVE_NAME, names);
        presented(&issuing.issue(leaf), &[&issuing])
    };
    let names = |count| alternative_names(repeat_n("x.b", count));
    // Each name is permitted by the last of the constraints.
    let permitted = |count| constraints(PERMITTED, repeat_n("a", count).chain(["b"]));
    let excluded = |count, last| constraints(EXCLUDED, repeat_n("a", count).chain([last]));
    assert_eq!(soon(&trust, chain(&permitted(900), &names(900))), Ok("CN=alice".into()));
    assert_eq!(soon(&trust, chain(&excluded(900, "c"), &names(900))), Ok("CN=alice".into()));
    assert_eq!(soon(&trust, chain(&excluded(900, "b"), &names(900))), Err(Reason::Untrusted));
    let one_more = alternative_names(repeat_n("x.b", 900).chain(["x.d"]));
    assert_eq!(soon(&trust, chain(&permitted(900), &one_more)), Err(Reason::Untrusted));

    // As many of each as there is room for; nothing is excluded, so only their number is against it.
    for (kind, name) in [(PERMITTED, "b"), (EXCLUDED, "a")] {
        let bomb = chain(&constraints(kind, repeat_n(name, 4000)), &names(4000));
        assert_eq!(soon(&trust, bomb), Err(Reason::Untrusted));
    }
    // A CA without constraints may name as many as it likes.
    let issuing = root.intermediate("issuing");
    let many = issuing.issue(Subject::client("alice").extension(SUBJECT_ALTERNATIVE_NAME, &names(8000)));
    assert_eq!(soon(&trust, presented(&many, &[&issuing])), Ok("CN=alice".into()));
}

/// A tree of policies doubles with each level where somebody walks it (CVE-2023-0464); nobody does who is not asked to.
#[test]
fn much_of_anything_else_that_a_certificate_may_have_is_decided_soon() {
    const POLICIES: &[u64] = &[2, 5, 29, 32];
    const POLICY_MAPPINGS: &[u64] = &[2, 5, 29, 33];
    let root = Ca::root("root");
    let trust = trusting(&root);
    let alice = || Subject::client("alice");
    let policy = |at: u16| tlv(0x06, &[&[0x2a, 0x03, 0x80 | (at >> 7) as u8, at as u8 & 0x7f]]);
    let policies: Vec<u8> = (0..60).flat_map(|at| tlv(0x30, &[&policy(at)])).collect();
    let mappings: Vec<u8> = (0..60)
        .flat_map(|from| (0..60).map(move |to| (from, to)))
        .take(250)
        .flat_map(|(from, to)| tlv(0x30, &[&policy(from), &policy(to)]))
        .collect();
    let mut issuers = vec![root.intermediate_with("1", POLICY_MAPPINGS, &tlv(0x30, &[&mappings]))];
    for depth in 2..MAX_CERTIFICATES {
        let above = issuers.last().unwrap();
        let next = above.intermediate_with(&depth.to_string(), POLICY_MAPPINGS, &tlv(0x30, &[&mappings]));
        issuers.push(next);
    }
    let leaf = issuers.last().unwrap().issue(alice().extension(POLICIES, &tlv(0x30, &[&policies])));
    assert_eq!(soon(&trust, presented(&leaf, &issuers.iter().collect::<Vec<_>>())), Ok("CN=alice".into()));

    let many = (0..2500).fold(alice(), |subject, at| subject.extension(&[1, 2, 3, at], b"\x05\x00"));
    assert_eq!(soon(&trust, presented(&root.issue(many), &[])), Ok("CN=alice".into()));
    let critical = alice().critical_extension(&[1, 2, 3], b"\x05\x00");
    assert_eq!(soon(&trust, presented(&root.issue(critical), &[])), Err(Reason::Untrusted));
}
