//! What is read of a CRL, and what makes it unusable.

use std::time::{Duration, SystemTime};

use revocation::crl::Crl;
use revocation::{Status, Trouble};
use testbed::crl::{extension, generalized_time, integer, sign, tlv, utc_time};
use testbed::pki::Ca;
use testbed::pki::rcgen::{
    CertificateRevocationListParams, KeyIdMethod, RevocationReason, RevokedCertParams, SerialNumber,
};

use crate::common::{HOUR, SERIAL, World, assert_good, assert_revoked, assert_trouble, says};

const REASON_CODE: u8 = 21;

#[track_caller]
fn assert_unusable(read: Result<Crl, Trouble>, code: &str) {
    match read {
        Ok(crl) => panic!("{crl:?}"),
        Err(trouble) => assert_eq!(trouble.code(), code, "{trouble}"),
    }
}

#[test]
fn a_certificate_that_does_not_stand_in_it_is_good_until_its_end_and_one_that_does_is_revoked() {
    let world = World::new();
    let now = SystemTime::now();
    let forged = world.forged().time(now - HOUR, Some(now + HOUR));
    let good = world.says(&forged).unwrap();
    assert_eq!(good.status, Status::Good);
    let seconds = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    assert_eq!(seconds(good.this_update), seconds(now - HOUR));
    assert_eq!(good.next_update.map(seconds), Some(seconds(now + HOUR)));

    let revoked = world.says(&forged.entry(SERIAL, now - 5 * HOUR, &[])).unwrap();
    let Status::Revoked { since: Some(since) } = revoked.status else { panic!("{revoked:?}") };
    assert_eq!(seconds(since), seconds(now - 5 * HOUR));
}

#[test]
fn every_reason_revokes_also_hold_and_also_one_that_is_not_known() {
    let world = World::new();
    for reason in 0..=12 {
        assert_revoked(&world.says(&world.forged().entry_for(SERIAL, reason)));
    }
}

#[test]
fn rcgens_crl_is_read() {
    let world = World::new();
    let now = SystemTime::now();
    let revoked = RevokedCertParams {
        serial_number: SerialNumber::from_slice(SERIAL),
        revocation_time: (now - HOUR).into(),
        reason_code: Some(RevocationReason::KeyCompromise),
        invalidity_date: Some((now - 2 * HOUR).into()),
    };
    let params = CertificateRevocationListParams {
        this_update: (now - HOUR).into(),
        next_update: (now + HOUR).into(),
        crl_number: SerialNumber::from(7),
        issuing_distribution_point: None,
        revoked_certs: vec![revoked],
        key_identifier_method: KeyIdMethod::Sha256,
    };
    let crl = params.signed_by(world.ca.issuer()).unwrap();
    for bytes in [crl.der().to_vec(), crl.pem().unwrap().into_bytes()] {
        let crl = Crl::read(&bytes, &world.issuer).unwrap();
        assert_eq!((crl.entries(), crl.is_delta()), (1, false));
        assert_revoked(&says(&world.link(World::subject()), None, &crl));
        assert_good(&says(&world.link(World::subject().serial(&[0x40, 0xff, 0xee])), None, &crl));
    }
}

#[test]
fn a_crl_that_another_key_signed_is_none() {
    let world = World::new();
    let namesake = Ca::root("CRL test");
    assert_unusable(Crl::read(&world.forged().sign(&namesake), &world.issuer), "bad_signature");
    let other = World::of(Ca::root("another"));
    assert_unusable(Crl::read(&other.forged().sign(&other.ca), &world.issuer), "something_else");
    // The name is this CA's, by the key of another.
    assert_unusable(Crl::read(&world.forged().sign(&other.ca), &world.issuer), "bad_signature");
    // The key is this CA's, in the name of another.
    assert_unusable(Crl::read(&other.forged().sign(&world.ca), &world.issuer), "something_else");
}

#[test]
fn a_ca_whose_key_usage_has_no_crl_sign_signs_none() {
    let world = World::of(Ca::without_crl_sign("CRL test"));
    assert_unusable(world.read(&world.forged()), "wrong_signer");
}

#[test]
fn a_crl_says_nothing_of_a_certificate_that_a_namesake_issued() {
    let (world, namesake) = (World::new(), World::new());
    let crl = world.crl(&world.forged());
    assert_trouble(&says(&namesake.link(World::subject()), None, &crl), "something_else");
}

#[test]
fn versions_are_1_without_extensions_and_2() {
    let world = World::new();
    let mut v1 = world.forged().entry(SERIAL, SystemTime::now(), &[]);
    v1.version = Vec::new();
    assert_revoked(&world.says(&v1));
    assert_unusable(world.read(&v1.clone().number(1)), "malformed");
    assert_unusable(world.read(&v1.entry_for(&[1], 1)), "malformed");
    for version in [integer(&[0]), integer(&[2]), integer(&[0, 1]), integer(&[])] {
        let mut forged = world.forged();
        forged.version = version;
        assert_unusable(world.read(&forged), "malformed");
    }
}

#[test]
fn the_algorithm_outside_of_what_is_signed_is_the_one_inside() {
    let world = World::new();
    let mut forged = world.forged();
    // ecdsa-with-SHA384
    forged.outer_algorithm = tlv(0x30, &[&tlv(0x06, &[&[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x03]])]);
    assert_unusable(world.read(&forged), "malformed");
    // The same with parameters, which nothing would check.
    forged.outer_algorithm =
        tlv(0x30, &[&tlv(0x06, &[&[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02]]), &[0x05, 0x00]]);
    assert_unusable(world.read(&forged), "malformed");
}

#[test]
fn nothing_follows_a_crl_nor_anything_in_it() {
    let world = World::new();
    let forged = world.forged().entry(SERIAL, SystemTime::now(), &[]);
    let der = forged.sign(&world.ca);
    assert_unusable(Crl::read(&[&der[..], &[0]].concat(), &world.issuer), "malformed");
    assert_unusable(Crl::read(&[&der[..], &der[..]].concat(), &world.issuer), "malformed");
    assert_unusable(Crl::read(&der[..der.len() - 1], &world.issuer), "malformed");
    assert_unusable(Crl::read(&[], &world.issuer), "malformed");
    assert_unusable(Crl::read(b"<html>", &world.issuer), "malformed");
    let mut longer = forged.clone();
    longer.rest = vec![0x05, 0x00];
    assert_unusable(world.read(&longer), "malformed");
    let mut extended = world.forged();
    extended.entries = tlv(0x30, &[&integer(SERIAL), &utc_time(SystemTime::now()), &[0x05, 0x00]]);
    assert_unusable(world.read(&extended), "malformed");
    // A signature that is no whole octets.
    let mut bits = der;
    let header = if bits[1] == 0x82 { 4 } else { 3 };
    let signature = header + forged.signed_part().len() + forged.outer_algorithm.len();
    assert_eq!((bits[signature], bits[signature + 2]), (0x03, 0));
    bits[signature + 2] = 1;
    assert_unusable(Crl::read(&bits, &world.issuer), "malformed");
}

#[test]
fn times_are_in_either_form_and_may_lack_an_end_but_do_not_end_before_they_begin() {
    let world = World::new();
    let now = SystemTime::now();
    let mut forged = world.forged();
    forged.this_update = generalized_time(now - HOUR);
    forged.next_update = generalized_time(now + HOUR);
    forged.entries = tlv(0x30, &[&integer(&[1]), &generalized_time(now)]);
    assert_good(&world.says(&forged));
    forged.next_update = Vec::new();
    let good = world.says(&forged).unwrap();
    assert_eq!((good.status, good.next_update), (Status::Good, None));
    assert_unusable(world.read(&world.forged().time(now, Some(now - HOUR))), "malformed");
    for time in ["", "2301", "230101000000", "239901000000Z", "2301010000000Z"] {
        forged.this_update = tlv(0x17, &[time.as_bytes()]);
        assert_unusable(world.read(&forged), "malformed");
    }
    forged.this_update = tlv(0x04, &[b"230101000000Z"]);
    assert_unusable(world.read(&forged), "malformed");
    // The end of time, and its beginning.
    forged.this_update = tlv(0x18, &[b"00000101000000Z"]);
    forged.next_update = tlv(0x18, &[b"99991231235959Z"]);
    assert_good(&world.says(&forged));
}

#[test]
fn entries_may_stand_in_any_order_and_twice() {
    let world = World::new();
    let now = SystemTime::now();
    let numbers: [&[u8]; 7] = [&[9], SERIAL, &[0x7f; 20], &[5], &[0x11; 9], SERIAL, &[1]];
    let forged = numbers.iter().fold(world.forged(), |forged, serial| forged.entry(serial, now, &[]));
    let crl = world.crl(&forged);
    for serial in numbers {
        assert_revoked(&says(&world.link(World::subject().serial(serial)), None, &crl));
        let mut other = serial.to_vec();
        *other.last_mut().unwrap() ^= 0x20;
        assert_good(&says(&world.link(World::subject().serial(&other)), None, &crl));
    }
    // Neither with a zero octet behind, nor with one octet less.
    for serial in [&[0x00, 0xc0, 0xff, 0xee, 0x00][..], &[0x00, 0xc0, 0xff], &[0x7f; 19], &[0x11; 8]] {
        assert_good(&says(&world.link(World::subject().serial(serial)), None, &crl));
    }
}

#[test]
fn of_one_number_with_two_dates_the_earlier_counts() {
    let world = World::new();
    let now = SystemTime::now();
    let early = now - 100 * HOUR;
    let forged = world.forged().entry(SERIAL, now, &[]).entry(SERIAL, early, &[]).entry(SERIAL, now, &[]);
    let Status::Revoked { since: Some(since) } = world.says(&forged).unwrap().status else { panic!() };
    assert!(since <= early);
}

#[test]
fn an_entry_revokes_whatever_its_date() {
    let world = World::new();
    let now = SystemTime::now();
    let epoch = SystemTime::UNIX_EPOCH;
    for date in [utc_time(epoch), utc_time(epoch - 24 * HOUR), utc_time(now + 24 * HOUR)] {
        let mut forged = world.forged();
        forged.entries = tlv(0x30, &[&integer(SERIAL), &date]);
        assert_revoked(&world.says(&forged));
    }
    for date in ["00000101000000Z", "19500101000000Z", "99991231235959Z"] {
        let mut forged = world.forged();
        forged.entries = tlv(0x30, &[&integer(SERIAL), &tlv(0x18, &[date.as_bytes()])]);
        assert_revoked(&world.says(&forged));
    }
}

#[test]
fn serial_numbers_are_found_whatever_their_length_and_sign() {
    let world = World::new();
    let lengths = [1, 2, 7, 8, 9, 15, 16, 17, 19, 20, 21, 22, 63, 64];
    let positive: Vec<_> = lengths.iter().map(|length| vec![0x5a; *length]).collect();
    // 20 octets and one for the sign: RFC 5280 says 20 together, and authorities do not count it.
    let with_sign = [vec![0x00], vec![0x9c; 20]].concat();
    let negative = vec![0xf6, 0x01];
    let zero = vec![0x00];
    for serial in positive.iter().chain([&with_sign, &negative, &zero]) {
        let forged = world.forged().entry(serial, SystemTime::now(), &[]);
        let link = world.link(World::subject().serial(serial));
        assert_revoked(&says(&link, None, &world.crl(&forged)));
        for other in &positive {
            if other != serial {
                assert_good(&says(&world.link(World::subject().serial(other)), None, &world.crl(&forged)));
            }
        }
    }
    assert_unusable(world.read(&world.forged().entry(&[1; 65], SystemTime::now(), &[])), "malformed");
    assert_unusable(world.read(&world.forged().entry(&[], SystemTime::now(), &[])), "malformed");
}

#[test]
fn a_critical_extension_that_is_not_known_makes_it_unusable_also_that_of_another_entry() {
    let world = World::new();
    let null = [0x05, 0x00];
    assert_good(&world.says(&world.forged().extension(99, false, &null)));
    assert_unusable(world.read(&world.forged().extension(99, true, &null)), "malformed");
    let now = SystemTime::now();
    let entry = |critical| world.forged().entry(&[1], now, &[extension(99, critical, &null)]);
    assert_good(&world.says(&entry(false)));
    assert_unusable(world.read(&entry(true)), "malformed");
    // Known ones may be critical.
    let reason = extension(REASON_CODE, true, &[0x0a, 0x01, 0x01]);
    assert_revoked(&world.says(&world.forged().entry(SERIAL, now, &[reason])));
}

#[test]
fn no_extension_stands_twice_and_none_is_broken() {
    let world = World::new();
    let now = SystemTime::now();
    assert_unusable(world.read(&world.forged().number(1).number(1)), "malformed");
    let reason = |value: &[u8]| extension(REASON_CODE, false, value);
    let entry = |extensions: &[Vec<u8>]| world.read(&world.forged().entry(&[1], now, extensions));
    assert_unusable(entry(&[reason(&[0x0a, 0x01, 0x01]), reason(&[0x0a, 0x01, 0x08])]), "malformed");
    for broken in
        [&[0x0a, 0x00][..], &[0x0a, 0x02, 0x00, 0x08], &[0x02, 0x01, 0x08], &[0x0a, 0x01, 0x08, 0x00], &[]]
    {
        assert_unusable(entry(&[reason(broken)]), "malformed");
    }
    for number in [&[][..], &[0x80], &[0xff, 0xff], &[0x01; 21]] {
        assert_unusable(world.read(&world.forged().extension(20, false, &integer(number))), "malformed");
        assert_unusable(world.read(&world.forged().extension(27, true, &integer(number))), "malformed");
    }
    for broken in [&[][..], &[0x30], &[0x30, 0x01], &[0x05, 0x00], &[0x30, 0x02, 0x05, 0x00]] {
        for number in [28, 46] {
            assert_unusable(world.read(&world.forged().extension(number, true, broken)), "malformed");
        }
    }
    let many = (0..17).fold(world.forged(), |forged, number| forged.extension(100 + number, false, &[]));
    assert_unusable(world.read(&many), "malformed");
}

#[test]
fn lengths_that_claim_more_than_there_is_are_not_believed() {
    let world = World::new();
    let mut forged = world.forged();
    forged.entries = vec![0x30, 0x84, 0xff, 0xff, 0xff, 0xff];
    assert_unusable(world.read(&forged), "malformed");
    forged.entries = vec![0x30, 0x80, 0x00, 0x00];
    assert_unusable(world.read(&forged), "malformed");
    forged.entries = vec![0x30, 0x88, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
    assert_unusable(world.read(&forged), "malformed");
    let algorithm = world.forged().algorithm;
    for signed in [&[0x30, 0x00][..], &[0x30, 0x03, 0x02, 0x01, 0x01]] {
        assert_unusable(Crl::read(&sign(signed, &algorithm, &world.ca), &world.issuer), "malformed");
    }
}

#[test]
fn pem_has_one_crl_and_what_else_stands_there_is_passed_over() {
    let world = World::new();
    let der = world.forged().sign(&world.ca);
    let pem = pem(&der);
    let read = |text: String| Crl::read(text.as_bytes(), &world.issuer);
    assert!(read(format!("some words\n{}{pem}", world.ca.pem())).is_ok());
    assert_unusable(read(format!("{pem}{pem}")), "malformed");
    assert_unusable(read(world.ca.pem()), "malformed");
    assert_unusable(read(pem.replace("\nM", "\n!")), "malformed");
    assert_unusable(read(pem[..pem.len() / 2].to_owned()), "malformed");
}

pub(crate) fn pem(der: &[u8]) -> String {
    let base64 = ::openssl::base64::encode_block(der);
    let lines: Vec<_> = base64.as_bytes().chunks(64).map(|line| str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN X509 CRL-----\n{}\n-----END X509 CRL-----\n", lines.join("\n"))
}

#[test]
fn a_crl_of_the_future_and_one_whose_time_is_over_say_nothing() {
    let world = World::new();
    let now = SystemTime::now();
    let second = Duration::from_secs(1);
    for entry in [&[1], SERIAL] {
        let listed = |this, next| world.says(&world.forged().time(this, next).entry(entry, now, &[]));
        assert_trouble(&listed(now + 70 * second, Some(now + HOUR)), "from_the_future");
        assert!(listed(now + 50 * second, Some(now + HOUR)).is_ok());
        assert_trouble(&listed(now - HOUR, Some(now - 2 * second)), "stale");
        assert!(listed(now - HOUR, Some(now + 30 * second)).is_ok());
    }
}
