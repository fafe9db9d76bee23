//! Who may sign: CVE-2022-1343 (a bad signer was accepted) and its kin.

use std::time::{Duration, SystemTime};

use revocation::{Status, Trouble};
use testbed::pki::rcgen::{ExtendedKeyUsagePurpose, KeyUsagePurpose};
use testbed::pki::{Ca, Leaf, Subject};

use crate::forge::{ECDSA_SHA256, Forged, der, oid};
use crate::lab::{Lab, delegate};

fn refusal(lab: Lab, signer: &Leaf) -> &'static str {
    let lab = lab.signed_by(signer);
    for arguments in [&["-ndays", "1"][..], &["-ndays", "1", "-resp_key_id"]] {
        match lab.ask(arguments) {
            Err(Trouble::WrongSigner(_)) => {}
            other => panic!("{arguments:?}: {other:?}"),
        }
    }
    match lab.ask(&["-ndays", "1"]) {
        Err(Trouble::WrongSigner(why)) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_certificate_of_the_ca_without_ocsp_signing_does_not_answer() {
    for usages in [
        vec![],
        vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth],
        vec![ExtendedKeyUsagePurpose::Any],
    ] {
        let lab = Lab::new();
        let signer = lab.ca.issue(Subject::client("OCSP").usages(usages));
        assert_eq!(refusal(lab, &signer), "its certificate is not for OCSPSigning");
    }
}

#[test]
fn the_certificate_itself_does_not_answer_for_itself() {
    let lab = Lab::new();
    let leaf = lab.leaf.clone();
    assert_eq!(refusal(lab, &leaf), "its certificate is not for OCSPSigning");
}

#[test]
fn a_delegate_of_another_ca_with_the_same_name_does_not_answer() {
    let lab = Lab::new();
    let signer = Ca::root("CA").issue(delegate());
    assert_eq!(refusal(lab, &signer), "its certificate is not signed by this CA's key");
}

#[test]
fn a_delegate_of_another_ca_or_of_one_below_does_not_answer() {
    for below in [false, true] {
        let lab = Lab::new();
        let other = if below { lab.ca.intermediate("below") } else { Ca::root("other CA") };
        let signer = other.issue(delegate());
        assert_eq!(refusal(lab, &signer), "its certificate is another CA's");
    }
}

#[test]
fn a_delegate_answers_only_while_its_certificate_is_valid() {
    for subject in [delegate().expired(), delegate().not_yet_valid()] {
        let lab = Lab::new();
        let signer = lab.ca.issue(subject);
        assert_eq!(refusal(lab, &signer), "its certificate is not valid now");
    }
}

#[test]
fn a_delegate_with_an_unknown_critical_extension_does_not_answer() {
    let lab = Lab::new();
    let signer = lab.ca.issue(delegate().critical_extension(&[1, 3, 6, 1, 4, 1, 99999, 1], &[5, 0]));
    assert_eq!(
        refusal(lab, &signer),
        "its certificate has a critical extension that is not known, or one twice"
    );
}

#[test]
fn a_delegate_with_an_extension_twice_does_not_answer() {
    let lab = Lab::new();
    // One reader finds that it is for OCSPSigning, another one that it is for TLS clients.
    let client = der(0x30, &[&oid(&[0x2b, 6, 1, 5, 5, 7, 3, 2])]);
    let signer = lab.ca.issue(delegate().extension(&[2, 5, 29, 37], &client));
    assert_eq!(
        refusal(lab, &signer),
        "its certificate has a critical extension that is not known, or one twice"
    );
}

#[test]
fn a_delegate_whose_key_is_not_for_signatures_does_not_answer() {
    for (usages, answers) in [
        (vec![KeyUsagePurpose::KeyEncipherment], false),
        (vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign], false),
        (vec![KeyUsagePurpose::ContentCommitment], true),
        (vec![], true),
    ] {
        let lab = Lab::new();
        let signer = lab.ca.issue(delegate().key_usages(usages));
        if answers {
            assert_eq!(lab.signed_by(&signer).ask(&["-ndays", "1"]), Ok(Status::Good));
        } else {
            assert_eq!(refusal(lab, &signer), "its certificate is not for signatures");
        }
    }
}

/// RFC 5280, section 4.1.1.2: one form, and not one for each reader.
#[test]
fn a_delegate_whose_certificate_names_two_algorithms_does_not_answer() {
    let lab = Lab::new();
    let signer = lab.delegate();
    let mut forged = Forged::good(&lab.link, lab.now);
    forged.responder = der(0xa1, &[&revocation::Issuer::from_der(&signer.der).unwrap().name]);
    // ECDSA with SHA-256, without parameters, before the signature.
    let algorithm = der(0x30, &[&oid(ECDSA_SHA256)]);
    let at = signer.der.windows(algorithm.len()).rposition(|bytes| bytes == algorithm).unwrap();
    let (tbs, signature) = (&signer.der[4..at], &signer.der[at + algorithm.len()..]);
    let with_null = der(0x30, &[&oid(ECDSA_SHA256), &[0x05, 0]]);
    for (outside, is_read) in [(&algorithm, true), (&with_null, false)] {
        forged.certificates = vec![der(0x30, &[tbs, outside, signature])];
        let read = lab.read(&forged.sign(&signer.key));
        assert_eq!(read.is_ok(), is_read, "{read:?}");
    }
}

#[test]
fn a_twin_of_the_issuer_does_not_answer() {
    let lab = Lab::new();
    let twin = Ca::root("CA");
    let mut forged = Forged::good(&lab.link, lab.now);
    let outsider = forged.sign(&twin.key());
    assert_eq!(lab.read(&outsider).unwrap_err(), Trouble::BadSignature);
    // With its certificate, which has the right name, too.
    forged.certificates = vec![twin.der()];
    let trouble = lab.read(&forged.sign(&twin.key())).unwrap_err();
    assert_eq!(trouble, Trouble::WrongSigner("its certificate is not for OCSPSigning"));
}

#[test]
fn the_issuers_own_certificate_in_the_response_changes_nothing() {
    let lab = Lab::new();
    let mut forged = Forged::good(&lab.link, lab.now);
    forged.certificates = vec![lab.ca.der()];
    assert_eq!(lab.read(&forged.sign(&lab.ca.key())).unwrap().status, Status::Good);
    assert_eq!(lab.read(&forged.sign(&Ca::root("CA").key())).unwrap_err(), Trouble::BadSignature);
}

#[test]
fn a_delegate_must_be_the_one_that_the_responder_id_names() {
    let lab = Lab::new();
    let signer = lab.delegate();
    let mut forged = Forged::good(&lab.link, lab.now);
    forged.certificates = vec![signer.der.clone()];
    // The issuer is named, and it is the delegate that has signed.
    assert_eq!(lab.read(&forged.sign(&signer.key)).unwrap_err(), Trouble::BadSignature);
    for responder in [der(0xa1, &[&der(0x30, &[])]), der(0xa2, &[&der(0x04, &[&[1; 20]])])] {
        forged.responder = responder;
        let nobody = Trouble::WrongSigner("nobody is known by its ResponderID");
        for key in [&signer.key, &lab.ca.key()] {
            assert_eq!(lab.read(&forged.sign(key)).unwrap_err(), nobody);
        }
    }
}

#[test]
fn another_delegate_of_the_same_name_does_no_harm() {
    let lab = Lab::new();
    let (signer, former) = (lab.delegate(), lab.delegate());
    let lab = lab.signed_by(&signer);
    let mut forged = Forged::good(&lab.link, lab.now);
    // The subject is the same: rcgen puts one CN.
    let name = revocation::Issuer::from_der(&signer.der).unwrap().name;
    forged.responder = der(0xa1, &[&name]);
    let stranger = Ca::root("CA").issue(delegate());
    forged.certificates = vec![stranger.der.clone(), former.der, signer.der, lab.ca.der()];
    assert_eq!(lab.read(&forged.sign(&signer.key)).unwrap().status, Status::Good);
    lab.read(&forged.sign(&stranger.key)).unwrap_err();
}

#[test]
fn only_so_many_certificates_are_looked_at() {
    let lab = Lab::new();
    let mut forged = Forged::good(&lab.link, lab.now);
    forged.certificates = vec![lab.ca.der(); 10];
    lab.read(&forged.sign(&lab.ca.key())).unwrap();
    forged.certificates.push(lab.ca.der());
    let trouble = lab.read(&forged.sign(&lab.ca.key())).unwrap_err();
    assert_eq!(trouble, Trouble::Malformed("too many certificates".to_owned()));
}

#[test]
fn a_delegates_end_is_looked_at_with_our_clock() {
    let lab = Lab::new();
    let end = SystemTime::now() + Duration::from_secs(600);
    let signer = lab.ca.issue(delegate().not_after(end));
    let mut lab = lab.signed_by(&signer);
    let response = lab.answer(&["-ndays", "1"]);
    lab.now = end - Duration::from_secs(1);
    assert_eq!(lab.read(&response).unwrap().status, Status::Good);
    lab.now = end + Duration::from_secs(1);
    assert_eq!(lab.read(&response).unwrap_err(), Trouble::WrongSigner("its certificate is not valid now"));
}
