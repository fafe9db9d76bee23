//! Responses by `openssl ocsp`.

use std::time::{Duration, UNIX_EPOCH};

use openssl::base64::decode_block;
use revocation::ocsp::Question;
use revocation::{Status, Trouble};
use testbed::ocsp::State;
use testbed::pki::rcgen::{KeyPair, PKCS_ECDSA_P384_SHA384};
use testbed::pki::{Ca, Subject};

use crate::lab::{Lab, NONCE, delegate, link};

#[test]
fn openssl_says_good_revoked_and_unknown_and_is_believed() {
    let mut lab = Lab::new();
    assert_eq!(lab.ask(&["-ndays", "1"]), Ok(Status::Good));
    lab.authority.set(&lab.leaf, State::Revoked);
    let since = Some(UNIX_EPOCH + Duration::from_secs(1_767_225_600));
    assert_eq!(lab.ask(&["-ndays", "1"]), Ok(Status::Revoked { since }));
    let stranger = lab.ca.issue(Subject::client("bob"));
    let link = link(&lab.ca, &stranger);
    let question = Question::about(&link, Some(NONCE));
    let response = lab.authority.answer(question.der(), &["-ndays", "1"]);
    assert_eq!(question.read(&response, &link, lab.now).unwrap().status, Status::Unknown);
}

#[test]
fn next_update_is_what_openssl_was_told() {
    let lab = Lab::new();
    let answer = lab.read(&lab.answer(&["-nmin", "10"])).unwrap();
    assert_eq!(answer.next_update, Some(answer.this_update + Duration::from_secs(600)));
    assert_eq!(lab.read(&lab.answer(&[])).unwrap().next_update, None);
}

#[test]
fn a_request_is_what_openssl_would_ask() {
    let lab = Lab::new();
    let question = Question::about(&lab.link, None);
    assert_eq!(question.der(), lab.authority.request(&lab.leaf, &["-no_nonce"]));
    assert!(lab.authority.answer(question.der(), &["-ndays", "1"]).len() > 100);
}

#[test]
fn an_answer_by_sha_256_cert_ids_is_believed() {
    let lab = Lab::new();
    let request = lab.authority.request(&lab.leaf, &["-no_nonce", "-sha256"]);
    assert_ne!(request, lab.authority.request(&lab.leaf, &["-no_nonce"]));
    let response = lab.authority.answer(&request, &["-ndays", "1"]);
    assert_eq!(lab.read(&response).unwrap().status, Status::Good);
}

#[test]
fn a_signer_is_found_by_name_and_by_key_hash_with_and_without_certificates() {
    let lab = Lab::new();
    for arguments in [&["-resp_no_certs"][..], &["-resp_key_id"], &["-resp_key_id", "-resp_no_certs"]] {
        let arguments = [&["-ndays", "1"], arguments].concat();
        assert_eq!(lab.ask(&arguments), Ok(Status::Good), "{arguments:?}");
    }
    let signer = lab.delegate();
    let lab = lab.signed_by(&signer);
    for arguments in [&["-ndays", "1"][..], &["-ndays", "1", "-resp_key_id"]] {
        assert_eq!(lab.ask(arguments), Ok(Status::Good), "{arguments:?}");
    }
    let trouble = lab.ask(&["-ndays", "1", "-resp_no_certs"]).unwrap_err();
    assert!(matches!(trouble, Trouble::WrongSigner(_)), "{trouble}");
}

#[test]
fn a_corrupt_signature_is_refused() {
    let lab = Lab::new();
    assert_eq!(lab.ask(&["-ndays", "1", "-badsig"]), Err(Trouble::BadSignature));
    let signer = lab.delegate();
    let lab = lab.signed_by(&signer);
    assert_eq!(lab.ask(&["-ndays", "1", "-badsig"]), Err(Trouble::BadSignature));
}

#[test]
fn each_kind_of_signature_by_openssl_is_verified() {
    let lab = Lab::new();
    let rsa = lab.ca.issue_rsa(delegate(), 2048);
    let p384 = lab.ca.issue_for(delegate(), &KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap());
    let ed25519 = lab.ca.issue_ed25519(delegate());
    let p256 = lab.delegate();
    let mut lab = lab;
    let pss = ["-rsigopt", "rsa_padding_mode:pss"];
    for (name, signer, arguments) in [
        ("RSA, SHA-256", &rsa, &["-rmd", "sha256"][..]),
        ("RSA, SHA-384", &rsa, &["-rmd", "sha384"]),
        ("RSA, SHA-512", &rsa, &["-rmd", "sha512"]),
        ("PSS, SHA-256", &rsa, &[&["-rmd", "sha256"], &pss[..]].concat()),
        ("PSS, SHA-384", &rsa, &[&["-rmd", "sha384"], &pss[..]].concat()),
        (
            "PSS, SHA-512",
            &rsa,
            &[&["-rmd", "sha512"], &pss[..], &["-rsigopt", "rsa_pss_saltlen:20"]].concat(),
        ),
        ("P-256, SHA-256", &p256, &["-rmd", "sha256"]),
        ("P-256, SHA-512", &p256, &["-rmd", "sha512"]),
        ("P-384, SHA-384", &p384, &["-rmd", "sha384"]),
        ("Ed25519", &ed25519, &[]),
    ] {
        lab = lab.signed_by(signer);
        let mut response = lab.answer(&[&["-ndays", "1"], arguments].concat());
        assert_eq!(lab.read(&response).map(|answer| answer.status), Ok(Status::Good), "{name}");
        let certificate = signer.der.len();
        let last = response.len() - certificate - 12;
        response[last] ^= 1;
        assert_eq!(lab.read(&response).unwrap_err(), Trouble::BadSignature, "{name}");
    }
}

#[test]
fn signatures_with_sha_1_and_keys_that_are_too_short_are_refused() {
    let lab = Lab::new();
    let (rsa, short) = (lab.ca.issue_rsa(delegate(), 2048), lab.ca.issue_rsa(delegate(), 1016));
    let lab = lab.signed_by(&rsa);
    for arguments in [
        &["-rmd", "sha1"][..],
        &["-rmd", "md5"],
        &["-rmd", "sha224"],
        &["-rmd", "sha1", "-rsigopt", "rsa_padding_mode:pss"],
        &["-rmd", "sha256", "-rsigopt", "rsa_padding_mode:pss", "-rsigopt", "rsa_mgf1_md:sha1"],
    ] {
        let trouble = lab.ask(&[&["-ndays", "1"], arguments].concat()).unwrap_err();
        assert_eq!(trouble, Trouble::WrongSigner("its algorithm is not taken"), "{arguments:?}");
    }
    let lab = lab.signed_by(&short);
    assert_eq!(lab.ask(&["-ndays", "1"]), Err(Trouble::WrongSigner("its key is too short")));
}

#[test]
fn openssl_echoes_the_nonce_and_another_one_is_refused() {
    let lab = Lab::new();
    let response = lab.answer(&["-ndays", "1"]);
    assert!(response.windows(32).any(|bytes| bytes == NONCE), "it is not echoed");
    let other = Trouble::SomethingElse("its nonce is not the one that was sent");
    for question in [Question::about(&lab.link, Some([8; 32])), Question::about(&lab.link, None)] {
        assert_eq!(question.read(&response, &lab.link, lab.now).unwrap_err(), other);
    }
    let unasked = lab.authority.answer(Question::about(&lab.link, None).der(), &["-ndays", "1"]);
    assert_eq!(lab.read(&unasked).unwrap().status, Status::Good, "not echoed");
}

#[test]
fn a_get_has_the_request_in_its_path() {
    let lab = Lab::new();
    // Until every character that must not be there as it is was there.
    let mut escaped = String::new();
    // Without a nonce it is shorter by a number of bytes that is no multiple of 3: whatever the length of the serial number, one of
    // the two needs padding.
    for nonce in (0..=255).map(|first| Some([first; 32])).chain([None]) {
        let question = Question::about(&lab.link, nonce);
        for responder in ["http://ocsp.example/ca", "http://ocsp.example/ca/"] {
            let url = question.url(responder);
            let path = url.strip_prefix("http://ocsp.example/ca/").unwrap();
            assert!(path.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'%'), "{path}");
            let base64 = path.replace("%2B", "+").replace("%2F", "/").replace("%3D", "=");
            // It counts padding as zeros.
            assert!(decode_block(&base64).unwrap().starts_with(question.der()));
            escaped.push_str(path);
        }
    }
    assert!(["%2B", "%2F", "%3D"].iter().all(|escape| escaped.contains(escape)));
}

#[test]
fn openssl_as_a_server_takes_the_get() {
    let lab = Lab::new();
    let responder = lab.authority.serve(&["-ndays", "1", "-nrequest", "1"]);
    let question = Question::about(&lab.link, None);
    let output = std::process::Command::new("curl")
        .args(["--silent", "--show-error", "--fail", "--noproxy", "*", &question.url(&responder.url())])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(question.read(&output.stdout, &lab.link, lab.now).unwrap().status, Status::Good);
}

#[test]
fn what_another_authority_says_is_refused() {
    let lab = Lab::new();
    let other = Ca::root("other CA");
    let dir = tempfile::tempdir().unwrap();
    let mut authority = testbed::ocsp::Authority::new(dir.path(), &other);
    authority.set(&lab.leaf, State::Valid);
    let request = authority.request(&lab.leaf, &["-no_nonce"]);
    let trouble = lab.read(&authority.answer(&request, &["-ndays", "1"])).unwrap_err();
    assert_eq!(trouble, Trouble::WrongSigner("its certificate is another CA's"));
    let trouble = lab.read(&authority.answer(&request, &["-ndays", "1", "-resp_no_certs"])).unwrap_err();
    assert_eq!(trouble, Trouble::WrongSigner("nobody is known by its ResponderID"));
}
