//! What holds of any CRL.

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::SystemTime;

use proptest::prelude::*;
use revocation::Link;
use revocation::crl::Crl;
use testbed::crl::{full_name, tlv};

use crate::common::{HOUR, SERIAL, World, is_good, is_revoked, with_deltas};
use crate::{any_bytes, reading};

static WORLD: LazyLock<World> = LazyLock::new(World::new);

static LINK: LazyLock<Link> = LazyLock::new(|| WORLD.link(World::subject()));

/// A CRL with all that there may be in it, and where its signed part begins and ends.
static CRL: LazyLock<(Vec<u8>, usize, usize)> = LazyLock::new(|| {
    let forged = WORLD.forged().entry_for(SERIAL, 1).entry_for(&[2; 20], 6).entry_for(&[3; 9], 4);
    let forged = forged.number(7).extension(28, true, &tlv(0x30, &[&full_name(&["http://crl.test/a"])]));
    let der = forged.sign(&WORLD.ca);
    let signed = forged.signed_part();
    let start = der.windows(signed.len()).position(|window| window == signed).unwrap();
    (der, start, start + signed.len())
});

#[test]
fn a_change_of_any_octet_that_is_signed_makes_it_none() {
    let (der, start, end) = &*CRL;
    assert!(Crl::read(der, &WORLD.issuer).is_ok());
    for at in *start..*end {
        for change in [0x01, 0x80, 0xff] {
            let mut changed = der.clone();
            changed[at] ^= change;
            assert!(Crl::read(&changed, &WORLD.issuer).is_err(), "octet {at} with {change:02x}");
        }
    }
    // Nor is the rest of it as good with another octet: neither what tells the lengths, nor the algorithm, nor the signature.
    for at in (0..*start).chain(*end..der.len()) {
        let mut changed = der.clone();
        changed[at] ^= 0x01;
        assert!(Crl::read(&changed, &WORLD.issuer).is_err(), "octet {at}");
    }
}

#[test]
fn a_crl_that_breaks_off_anywhere_is_none() {
    let (der, ..) = &*CRL;
    for length in 0..der.len() {
        assert!(Crl::read(&der[..length], &WORLD.issuer).is_err(), "{length} octets");
    }
}

/// A serial number that is positive without a zero before it, of few values, so that some of them meet.
fn serial() -> impl Strategy<Value = Vec<u8>> {
    let lengths =
        prop_oneof![Just(1_usize), Just(8), Just(9), Just(16), Just(17), Just(20), Just(21), 1..40_usize];
    (lengths, 1..4_u8, 0..3_u8).prop_map(|(length, first, last)| {
        let mut serial = vec![first; length];
        *serial.last_mut().unwrap() = last + 1;
        serial
    })
}

fn entries() -> impl Strategy<Value = Vec<(Vec<u8>, u8)>> {
    proptest::collection::vec((serial(), prop_oneof![Just(1_u8), Just(6), Just(8)]), 0..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_bytes_are_read_within_bounds_and_without_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..600),
    ) {
        any_bytes::crl(&bytes);
    }

    #[test]
    fn changed_signed_parts_under_a_good_signature_are_read_within_bounds_and_without_panic(
        at in any::<prop::sample::Index>(),
        with in proptest::collection::vec(any::<u8>(), 1..5),
    ) {
        let mut forged = WORLD.forged().entry_for(SERIAL, 1).number(7);
        forged.algorithm = tlv(0x30, &[&[0x06, 0x03, 0x2b, 0x65, 0x70]]);
        let mut signed = forged.signed_part();
        let at = at.index(signed.len());
        let end = (at + with.len()).min(signed.len());
        signed[at..end].copy_from_slice(&with[..end - at]);
        any_bytes::crl(&signed);
    }

    #[test]
    fn any_text_in_pem_is_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        any_bytes::crl(reading::pem(&bytes).as_bytes());
    }

    #[test]
    fn entries_are_found_as_in_a_map_with_a_delta_and_without(
        complete in entries(), delta in entries(), asked in proptest::collection::vec(serial(), 1..6),
    ) {
        let world = &*WORLD;
        let now = SystemTime::now();
        let forge = |forged, entries: &[(Vec<u8>, u8)]| {
            entries.iter().fold(forged, |forged: testbed::crl::Forged, (serial, reason)| {
                forged.entry_for(serial, *reason)
            })
        };
        let of_complete = world.crl(&forge(world.forged().number(1), &complete));
        let base = world.forged().time(now - HOUR, Some(now + HOUR)).number(2).delta_from(1);
        let of_delta = world.crl(&forge(base, &delta));
        prop_assert_eq!(of_complete.entries(), complete.len());
        // Whether a number stands in the delta otherwise than to be taken out.
        let mut in_delta = BTreeMap::new();
        for (serial, reason) in &delta {
            *in_delta.entry(serial).or_insert(false) |= *reason != 8;
        }
        for serial in asked.iter().chain(complete.iter().chain(&delta).map(|(serial, _)| serial).take(4)) {
            let link = Link { serial: serial.clone(), ..LINK.clone() };
            let in_complete = complete.iter().any(|(other, _)| other == serial);
            let alone = with_deltas(&link, None, &of_complete, &[]).answer;
            prop_assert_eq!((is_good(&alone), is_revoked(&alone)), (!in_complete, in_complete));
            let revoked = in_delta.get(serial).copied().unwrap_or(in_complete);
            let both = with_deltas(&link, None, &of_complete, &[&of_delta]).answer;
            prop_assert_eq!((is_good(&both), is_revoked(&both)), (!revoked, revoked));
        }
    }
}
