//! Any change of a good response, and any bytes.

use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use revocation::Status;

use crate::any_response;
use crate::forge::{self, Forged, der};
use crate::lab::Lab;

/// Nothing is kept between runs: the keys are others each time.
fn config(cases: u32) -> Config {
    Config { failure_persistence: None, ..Config::with_cases(cases) }
}

/// Changes any byte of these to any other one, and has a look at what is read.
fn change_any_byte(lab: &Lab, good: &[u8], unsigned: std::ops::Range<usize>) {
    assert_eq!(lab.read(good).unwrap().status, Status::Good);
    let held = |at: usize, difference: u8| {
        let mut bytes = good.to_vec();
        bytes[at] ^= difference;
        let read = lab.read(&bytes);
        assert!(read.is_err() || unsigned.contains(&at), "byte {at} ^ {difference:#x}: {read:?}");
    };
    // Each byte by its lowest bit, and by those that say what kind of tag it is; and more at random.
    for at in 0..good.len() {
        [0x01, 0x20, 0x40, 0x80].into_iter().for_each(|difference| held(at, difference));
    }
    let mut runner = TestRunner::new(config(1000));
    let changes = (0..good.len(), 1..=0xffu8);
    runner
        .run(&changes, |(at, difference)| {
            held(at, difference);
            Ok(())
        })
        .unwrap();
}

/// Of a response that the issuer signed, every byte counts: also those around what is signed, of which there is one form.
#[test]
fn no_byte_of_a_response_by_the_issuer_can_be_changed() {
    let lab = Lab::new();
    change_any_byte(&lab, &lab.answer(&["-ndays", "1", "-resp_no_certs"]), 0..0);
}

/// Nor of one by a delegate, for the issuer signed the certificate.
#[test]
fn no_byte_of_a_response_by_a_delegate_can_be_changed() {
    let lab = Lab::new();
    let (ec, rsa) = (lab.delegate(), lab.ca.issue_rsa(crate::lab::delegate(), 2048));
    let pss = ["-ndays", "1", "-rsigopt", "rsa_padding_mode:pss"];
    let mut lab = lab;
    for (signer, arguments) in [(ec, &["-ndays", "1"][..]), (rsa.clone(), &["-ndays", "1"]), (rsa, &pss)] {
        lab = lab.signed_by(&signer);
        change_any_byte(&lab, &lab.answer(arguments), 0..0);
    }
}

/// The only bytes that nobody signs are those of certificates that are not the signer's; whatever is there, it says the same.
#[test]
fn certificates_that_nobody_needs_are_not_signed_and_change_nothing() {
    let lab = Lab::new();
    let mut forged = Forged::good(&lab.link, lab.now);
    forged.certificates = vec![lab.leaf.der.clone()];
    let good = forged.sign(&lab.ca.key());
    // The certificate is at the end, in two elements.
    change_any_byte(&lab, &good, good.len() - lab.leaf.der.len()..good.len());
}

#[test]
fn what_is_signed_in_pieces_of_der_is_read_or_refused() {
    let lab = Lab::new();
    let mut runner = TestRunner::new(config(500));
    let piece = (any::<u8>(), prop::collection::vec(any::<u8>(), 0..40))
        .prop_map(|(tag, content)| der(tag, &[&content]));
    let pieces = (0..6usize, piece);
    runner
        .run(&pieces, |(part, piece)| {
            let mut forged = Forged::good(&lab.link, lab.now);
            match part {
                0 => forged.version = piece,
                1 => forged.responder = piece,
                2 => forged.extensions = vec![piece],
                3 => forged.entries[0].status = piece,
                4 => forged.entries[0].next_update = piece,
                _ => forged.algorithm = piece,
            }
            let read = lab.read(&forged.sign(&lab.ca.key()));
            let known = match part {
                3 => forged.entries[0].status == forge::GOOD || forged.entries[0].status == forge::UNKNOWN,
                _ => false,
            };
            prop_assert!(read.is_err() || known, "{read:?}");
            Ok(())
        })
        .unwrap();
}

proptest! {
    #![proptest_config(config(2000))]

    #[test]
    fn any_bytes_are_refused_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        any_response::ocsp_response(&bytes);
        prop_assert_eq!(any_response::read(&bytes, any_response::now()), [None; 2]);
    }

    #[test]
    fn any_time_is_looked_at_without_a_panic(seconds in 0..253_402_300_800u64) {
        let seed = include_bytes!("../../../../fuzz/corpus/ocsp_response/good");
        let _ = any_response::read(seed, std::time::UNIX_EPOCH + Duration::from_secs(seconds));
    }
}
