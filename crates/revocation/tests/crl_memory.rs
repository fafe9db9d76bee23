//! How much memory CRLs take. In a program of its own, as it is the program's memory that is looked at.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use revocation::crl::{Crl, Source, status};
use revocation::{Issuer, Link, Status};
use testbed::crl::Forged;
use testbed::pki::{Ca, Subject};

const MIB: usize = 1024 * 1024;

/// The number of an entry: 20 octets that look as if they were random, the first of which is not negative.
fn serial(number: u64) -> [u8; 20] {
    let mut serial = [0x55; 20];
    let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    serial[1..9].copy_from_slice(&mixed.to_be_bytes());
    serial
}

fn forged(ca: &Ca, entries: u64) -> Vec<u8> {
    let mut forged = Forged::of(ca).entry_for(&[0x55; 20], 1);
    let entry = std::mem::take(&mut forged.entries);
    for number in 0..entries {
        // After the identifiers and lengths of the entry and of its number.
        let start = forged.entries.len() + 4;
        forged.entries.extend_from_slice(&entry);
        forged.entries[start..start + 20].copy_from_slice(&serial(number));
    }
    forged.sign(ca)
}

/// A line of `/proc/self/status`, in bytes.
fn memory(line: &str) -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let value = status.lines().find_map(|found| found.strip_prefix(line)).unwrap();
    let kib: usize = value.trim_start_matches(':').trim().trim_end_matches(" kB").parse().unwrap();
    kib * 1024
}

#[test]
fn a_hundred_thousand_entries_take_4_mib_a_million_ten_times_that_and_reading_not_much_more() {
    let ca = Ca::root("CRL memory");
    let issuer = Arc::new(Issuer::from_der(&ca.der()).unwrap());
    let certificate = |serial: &[u8]| {
        Link::from_der(&ca.issue(Subject::client("x").serial(serial)).der, issuer.clone()).unwrap()
    };
    for (entries, most) in [(100_000, 4 * MIB), (1_000_000, 26 * MIB)] {
        let bytes = forged(&ca, entries);
        // The most that the program has had begins anew (Linux, proc_pid_clear_refs(5)).
        std::fs::write("/proc/self/clear_refs", "5").unwrap();
        let before = memory("VmRSS");
        let crl = Crl::read(&bytes, &issuer).unwrap();
        let peak = memory("VmHWM").saturating_sub(before);
        assert_eq!(crl.entries(), entries as usize);
        assert!(crl.size() <= most, "{} for {entries} entries", crl.size());
        // What is kept, and no copy of it, of the input or of the entries.
        assert!(peak <= crl.size() + 2 * MIB, "{peak} while reading {}", bytes.len());

        for (serial, revoked) in [
            (serial(0), true),
            (serial(entries - 1), true),
            (serial(entries / 2), true),
            (serial(entries), false),
        ] {
            let sources = [Source { point: None, complete: &crl, deltas: &[] }];
            let answer = status(&certificate(&serial), &sources, SystemTime::now(), Duration::ZERO).answer;
            assert_eq!(matches!(answer.unwrap().status, Status::Revoked { .. }), revoked);
        }
    }
}
