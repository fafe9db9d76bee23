//! What a response says, when, and about whom. All of these are signed by the issuer.

use std::time::Duration;

use openssl::hash::MessageDigest;
use revocation::ocsp::{MAX_AGE_WITHOUT_NEXT_UPDATE, MAX_RESPONSE};
use revocation::{Answer, CLOCK_SKEW, Link, Status, Trouble};

use crate::forge::{self, ECDSA_SHA1, Entry, Forged, der, extension, oid, seq, time};
use crate::lab::{Lab, NONCE};

const SECOND: Duration = Duration::from_secs(1);

/// What is read of a response that was changed so before the issuer signed it.
fn changed(lab: &Lab, change: impl FnOnce(&mut Forged)) -> Result<Status, Trouble> {
    let mut forged = Forged::good(&lab.link, lab.now);
    change(&mut forged);
    lab.read(&forged.sign(&lab.ca.key())).map(|answer| answer.status)
}

fn is_malformed<T: std::fmt::Debug>(read: Result<T, Trouble>) {
    assert!(matches!(read, Err(Trouble::Malformed(_))), "{read:?}");
}

#[test]
fn what_is_forged_well_is_believed() {
    let lab = Lab::new();
    let forged = Forged::good(&lab.link, lab.now);
    let Answer { status, this_update, next_update } = lab.read(&forged.sign(&lab.ca.key())).unwrap();
    assert_eq!(status, Status::Good);
    assert_eq!(next_update, Some(this_update + Duration::from_secs(3660)));
    assert!(lab.now.duration_since(this_update).unwrap() <= Duration::from_secs(61));
}

#[test]
fn an_entry_about_another_certificate_is_none() {
    type Change = fn(&mut Entry, &Lab);
    let lab = Lab::new();
    let none = Err(Trouble::SomethingElse("no entry is about this certificate"));
    let changes: [(&str, Change); 9] = [
        ("serial", |entry, _| *entry.serial.last_mut().unwrap() ^= 1),
        ("longer serial", |entry, _| entry.serial.push(0)),
        ("no serial", |entry, _| entry.serial.clear()),
        ("issuer's name", |entry, _| entry.issuer_name[0] ^= 1),
        ("issuer's key", |entry, _| entry.issuer_key[19] ^= 1),
        ("no hashes", |entry, _| (entry.issuer_name, entry.issuer_key) = (Vec::new(), Vec::new())),
        ("name and key mixed up", |entry, _| {
            std::mem::swap(&mut entry.issuer_name, &mut entry.issuer_key);
        }),
        ("another hash algorithm", |entry, lab| {
            entry.hash(forge::SHA512, MessageDigest::sha512(), &lab.link);
        }),
        ("hashes of another algorithm than is said", |entry, _| entry.hash = forge::SHA256.to_vec()),
    ];
    for (name, change) in changes {
        assert_eq!(changed(&lab, |forged| change(&mut forged.entries[0], &lab)), none, "{name}");
    }
    assert_eq!(changed(&lab, |forged| forged.entries.clear()), none);
    let sha256 = changed(&lab, |forged| {
        forged.entries[0].hash(forge::SHA256, MessageDigest::sha256(), &lab.link);
    });
    assert_eq!(sha256, Ok(Status::Good));
}

#[test]
fn a_serial_number_with_another_sign_is_another_one() {
    let mut lab = Lab::new();
    lab.link.serial = vec![0xff, 1];
    let none = Err(Trouble::SomethingElse("no entry is about this certificate"));
    assert_eq!(changed(&lab, |forged| assert_eq!(forged.entries[0].serial, [0, 0xff, 1])), Ok(Status::Good));
    assert_eq!(changed(&lab, |forged| assert_eq!(forged.entries[0].serial.remove(0), 0)), none);
}

/// It would be asked about as another one.
#[test]
fn a_certificate_with_a_negative_serial_number_is_not_read() {
    let lab = Lab::new();
    let issuer = || std::sync::Arc::clone(&lab.link.issuer);
    let read = |der: &[u8]| Link::from_der(der, issuer());
    // One that DER writes without a zero before it.
    let mut leaves = std::iter::repeat_with(|| lab.ca.issue(testbed::pki::Subject::client("bob")).der);
    let mut der = leaves.find(|der| read(der).unwrap().serial[0] < 0x80).unwrap();
    let serial = read(&der).unwrap().serial;
    let at = der.windows(serial.len()).position(|bytes| bytes == serial).unwrap();
    der[at] |= 0x80;
    read(&der).unwrap_err();
}

#[test]
fn of_several_entries_ours_counts() {
    let lab = Lab::new();
    let status = changed(&lab, |forged| {
        let mut other = forged.entries[0].clone();
        other.serial = vec![1];
        other.status = forge::revoked(lab.now, 1);
        forged.entries.insert(0, other.clone());
        forged.entries.push(other);
    });
    assert_eq!(status, Ok(Status::Good));
}

#[test]
fn of_contradictory_entries_revoked_wins_and_good_never_does() {
    let lab = Lab::new();
    let good = Entry::good(&lab.link, lab.now);
    let unknown = Entry { status: forge::UNKNOWN.to_vec(), ..good.clone() };
    let mut sha256 = Entry { status: forge::revoked(lab.now, 1), ..good.clone() };
    let revoked = sha256.clone();
    sha256.hash(forge::SHA256, MessageDigest::sha256(), &lab.link);
    let mut stale = good.clone();
    stale.this_update = time(lab.now - 3 * CLOCK_SKEW);
    stale.next_update(lab.now - 2 * CLOCK_SKEW);
    let is_revoked = |status: &Result<Status, Trouble>| matches!(status, Ok(Status::Revoked { .. }));
    for entries in [[&good, &unknown], [&unknown, &good]] {
        let said = changed(&lab, |forged| forged.entries = entries.map(Clone::clone).to_vec());
        assert_eq!(said, Ok(Status::Unknown));
    }
    for other in [&good, &unknown, &stale] {
        for entries in [[other, &revoked], [&revoked, other], [&sha256, other], [other, &sha256]] {
            let said = changed(&lab, |forged| forged.entries = entries.map(Clone::clone).to_vec());
            assert!(is_revoked(&said), "{said:?}");
        }
    }
    for entries in [[&good, &stale], [&stale, &good]] {
        let said = changed(&lab, |forged| forged.entries = entries.map(Clone::clone).to_vec());
        assert_eq!(said, Err(Trouble::Stale));
    }
}

#[test]
fn revoked_counts_for_any_reason_and_without_one() {
    let lab = Lab::new();
    for reason in [0, 1, 6, 8, 10, 99] {
        let said = changed(&lab, |forged| forged.entries[0].status = forge::revoked(lab.now, reason));
        assert!(matches!(said, Ok(Status::Revoked { since: Some(_) })), "{reason}: {said:?}");
    }
    // Also where it is to come.
    let tomorrow = time(lab.now + Duration::from_secs(86400));
    let said = changed(&lab, |forged| forged.entries[0].status = der(0xa1, &[&tomorrow]));
    assert!(matches!(said, Ok(Status::Revoked { .. })), "{said:?}");
}

#[test]
fn an_unknown_status_is_none() {
    let lab = Lab::new();
    for status in [
        &[0x83, 0][..],
        &[0x80, 1, 0],
        &[0x82, 1, 0],
        &[0xa0, 0],
        &[0x05, 0],
        &[0xa1, 0],
        &[0x81, 0],
        &[0x30, 0],
    ] {
        is_malformed(changed(&lab, |forged| forged.entries[0].status = status.to_vec()));
    }
}

#[test]
fn an_answer_counts_from_this_update_to_next_update_and_a_skew_around() {
    let mut lab = Lab::new();
    let (begin, end) = (lab.now, lab.now + Duration::from_secs(600));
    let mut forged = Forged::good(&lab.link, lab.now);
    forged.produced_at = time(begin);
    forged.entries[0].this_update = time(begin);
    forged.entries[0].next_update(end);
    let response = forged.sign(&lab.ca.key());
    let mut at = |now| {
        lab.now = now;
        lab.read(&response).map(|answer| answer.status)
    };
    assert_eq!(at(begin - CLOCK_SKEW + SECOND), Ok(Status::Good));
    assert_eq!(at(begin - CLOCK_SKEW - SECOND), Err(Trouble::FromTheFuture));
    assert_eq!(at(end + CLOCK_SKEW - SECOND), Ok(Status::Good));
    assert_eq!(at(end + CLOCK_SKEW + SECOND), Err(Trouble::Stale));
}

#[test]
fn an_answer_that_is_made_or_holds_in_the_future_is_none() {
    let lab = Lab::new();
    let produced = |at| changed(&lab, |forged| forged.produced_at = time(at));
    assert_eq!(produced(lab.now + CLOCK_SKEW - SECOND), Ok(Status::Good));
    assert_eq!(produced(lab.now + CLOCK_SKEW + SECOND), Err(Trouble::FromTheFuture));
    // Nor is one that is to hold only from then on.
    let holds = |from| changed(&lab, |forged| forged.entries[0].this_update = time(from));
    assert_eq!(holds(lab.now + CLOCK_SKEW - SECOND), Ok(Status::Good));
    assert_eq!(holds(lab.now + CLOCK_SKEW + SECOND), Err(Trouble::FromTheFuture));
}

#[test]
fn without_next_update_good_does_not_count_for_ever() {
    let lab = Lab::new();
    let said = |age, status: &[u8]| {
        changed(&lab, |forged| {
            forged.entries[0].this_update = time(lab.now - age);
            forged.entries[0].next_update.clear();
            forged.entries[0].status = status.to_vec();
        })
    };
    let limit = MAX_AGE_WITHOUT_NEXT_UPDATE + CLOCK_SKEW;
    for (status, read) in [(forge::GOOD, Status::Good), (forge::UNKNOWN, Status::Unknown)] {
        assert_eq!(said(limit - SECOND, status), Ok(read));
        assert_eq!(said(limit + SECOND, status), Err(Trouble::Stale));
    }
    let revoked = said(100 * limit, &forge::revoked(lab.now, 1));
    assert!(matches!(revoked, Ok(Status::Revoked { .. })), "{revoked:?}");
}

#[test]
fn next_update_before_this_update_is_malformed() {
    let lab = Lab::new();
    is_malformed(changed(&lab, |forged| forged.entries[0].this_update = time(lab.now + 7200 * SECOND)));
    is_malformed(changed(&lab, |forged| {
        forged.entries[0].this_update = time(lab.now);
        forged.entries[0].next_update(lab.now - SECOND);
    }));
}

#[test]
fn a_nonce_is_ours_or_not_there() {
    let lab = Lab::new();
    let nonce = |value: &[u8], critical| {
        changed(&lab, |forged| forged.extensions = vec![extension(forge::NONCE, critical, value)])
    };
    let other = Err(Trouble::SomethingElse("its nonce is not the one that was sent"));
    let ours = der(0x04, &[&NONCE]);
    for critical in [false, true] {
        assert_eq!(nonce(&ours, critical), Ok(Status::Good));
        assert_eq!(nonce(&der(0x04, &[&[8; 32]]), critical), other);
        assert_eq!(nonce(&der(0x04, &[&NONCE[1..]]), critical), other);
        assert_eq!(nonce(&[], critical), other);
    }
    let twice = |first: &[u8], second: &[u8]| {
        changed(&lab, |forged| {
            forged.extensions = [first, second].map(|value| extension(forge::NONCE, false, value)).to_vec();
        })
    };
    is_malformed(twice(&ours, &ours));
    is_malformed(twice(&ours, &[]));
}

#[test]
fn an_extension_that_is_not_known_is_not_critical_and_stands_once() {
    let lab = Lab::new();
    let strange = |critical| extension(&[0x2a, 3, 4], critical, &[5, 0]);
    assert_eq!(changed(&lab, |forged| forged.extensions = vec![strange(false)]), Ok(Status::Good));
    is_malformed(changed(&lab, |forged| forged.extensions = vec![strange(true)]));
    is_malformed(changed(&lab, |forged| forged.extensions = vec![strange(false); 2]));
    let of_entry = |extensions: &[&[u8]]| {
        changed(&lab, |forged| forged.entries[0].extensions = der(0xa1, &[&seq(extensions)]))
    };
    assert_eq!(of_entry(&[&strange(false)]), Ok(Status::Good));
    is_malformed(of_entry(&[&strange(true)]));
    is_malformed(of_entry(&[&strange(false), &strange(false)]));
    // FALSE in full, and another form of TRUE.
    for boolean in [0, 1] {
        let odd = seq(&[&oid(&[0x2a, 3, 4]), &[1, 1, boolean], &der(0x04, &[])]);
        is_malformed(of_entry(&[&odd]));
    }
}

#[test]
fn only_so_many_extensions_are_read() {
    let lab = Lab::new();
    let many = |count: u8| {
        changed(&lab, |forged| {
            forged.extensions = (0..count).map(|last| extension(&[0x2a, 3, last], false, &[])).collect();
        })
    };
    assert_eq!(many(20), Ok(Status::Good));
    is_malformed(many(21));
}

#[test]
fn another_version_or_type_is_malformed() {
    let lab = Lab::new();
    let version = |number| changed(&lab, |forged| forged.version = der(0xa0, &[&der(0x02, &[&[number]])]));
    assert_eq!(version(0), Ok(Status::Good), "the default, written out");
    is_malformed(version(1));
    is_malformed(version(2));
    is_malformed(changed(&lab, |forged| *forged.response_type.last_mut().unwrap() = 2));
}

#[test]
fn a_responder_that_does_not_answer_says_why() {
    let lab = Lab::new();
    for (status, name) in [
        (1, "malformedRequest"),
        (2, "internalError"),
        (3, "tryLater"),
        (5, "sigRequired"),
        (6, "unauthorized"),
    ] {
        assert_eq!(lab.read(&[0x30, 3, 0x0a, 1, status]), Err(Trouble::NotSuccessful(name)));
        // An answer that comes along is none.
        assert_eq!(changed(&lab, |forged| forged.status = status), Err(Trouble::NotSuccessful(name)));
    }
    for status in [0, 4, 7, 0xff] {
        is_malformed(lab.read(&[0x30, 3, 0x0a, 1, status]));
    }
    for status in [4, 7, 0xff] {
        is_malformed(changed(&lab, |forged| forged.status = status));
    }
}

#[test]
fn sha_1_is_not_taken_however_well_it_is_signed() {
    let lab = Lab::new();
    let said = changed(&lab, |forged| {
        (forged.algorithm, forged.digest) = (seq(&[&oid(ECDSA_SHA1)]), MessageDigest::sha1());
    });
    assert_eq!(said, Err(Trouble::WrongSigner("its algorithm is not taken")));
    // Nor is a name that goes with another signature.
    let said = changed(&lab, |forged| forged.digest = MessageDigest::sha384());
    assert_eq!(said, Err(Trouble::BadSignature));
}

#[test]
fn what_is_no_response_is_malformed() {
    let lab = Lab::new();
    let good = Forged::good(&lab.link, lab.now).sign(&lab.ca.key());
    for length in 0..good.len() {
        is_malformed(lab.read(&good[..length]));
    }
    for more in [&[0][..], b"\r\n", &good] {
        is_malformed(lab.read(&[&good, more].concat()));
    }
    for bytes in [
        &b""[..],
        b"<html><body>It works!</body></html>",
        b"0",
        &[0x30, 0],
        lab.question.der(),
        &lab.ca.der(),
    ] {
        is_malformed(lab.read(bytes));
    }
}

#[test]
fn indefinite_lengths_are_malformed() {
    let lab = Lab::new();
    let good = Forged::good(&lab.link, lab.now).sign(&lab.ca.key());
    // The outer one: a tag, and a length of three bytes.
    assert_eq!(good[..2], [0x30, 0x82]);
    let content = &good[4..];
    is_malformed(lab.read(&[&[0x30, 0x80], content, &[0, 0]].concat()));
    is_malformed(lab.read(&[&[0x30, 0x83, 0], &good[2..4], content].concat()));
}

#[test]
fn a_huge_response_is_not_read() {
    let lab = Lab::new();
    let padded = |bytes: usize| {
        let mut forged = Forged::good(&lab.link, lab.now);
        forged.extensions = vec![extension(&[0x2a, 3, 4], false, &vec![0; bytes])];
        forged.sign(&lab.ca.key())
    };
    let largest = padded(MAX_RESPONSE - 1024);
    assert!(largest.len() <= MAX_RESPONSE);
    lab.read(&largest).unwrap();
    assert_eq!(lab.read(&padded(MAX_RESPONSE)), Err(Trouble::TooLong(MAX_RESPONSE)));
}
