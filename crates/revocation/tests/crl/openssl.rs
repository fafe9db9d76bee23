//! CRLs by `openssl ca`, and what `openssl crl` and `openssl verify` make of the same CRLs.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use revocation::crl::{Crl, Source, read_all, status};
use revocation::{Answer, Link, Trouble};
use testbed::crl::{OpensslCa, full_name, points, reasons, relative_name, tlv};
use testbed::pki::Ca;

use crate::common::{
    HOUR, SERIAL, World, assert_good, assert_revoked, assert_trouble, is_good, is_revoked, says, with_deltas,
};
use crate::reading::pem;

fn openssl_ca(world: &World) -> (tempfile::TempDir, OpensslCa) {
    let dir = tempfile::tempdir().unwrap();
    let ca = OpensslCa::new(dir.path(), &world.ca);
    (dir, ca)
}

#[test]
fn crls_by_openssl_ca_are_read_with_every_reason_and_without_an_extension() {
    let world = World::new();
    let (_dir, ca) = openssl_ca(&world);
    let link = world.link(World::subject());
    let days = &["-crldays", "1"];
    for number in [None, Some(1)] {
        let crl = Crl::read(ca.list(number, "", days).as_bytes(), &world.issuer).unwrap();
        assert_good(&says(&link, None, &crl));
        assert_eq!(crl.entries(), 0);
    }
    let reasons = [
        None,
        Some("unspecified"),
        Some("keyCompromise"),
        Some("CACompromise"),
        Some("affiliationChanged"),
        Some("superseded"),
        Some("cessationOfOperation"),
        Some("certificateHold"),
        Some("holdInstruction,holdInstructionReject"),
        Some("keyTime,20240101000000Z"),
    ];
    let since = SystemTime::now() - HOUR;
    for (number, reason) in reasons.iter().enumerate() {
        ca.revoke(&[0x10, number as u8], since, *reason);
    }
    for number in [None, Some(0x1_0000)] {
        let crl = Crl::read(ca.list(number, "", days).as_bytes(), &world.issuer).unwrap();
        assert_eq!(crl.entries(), reasons.len());
        for number in 0..reasons.len() {
            let link = world.link(World::subject().serial(&[0x10, number as u8]));
            assert_revoked(&says(&link, None, &crl));
        }
        assert_good(&says(&link, None, &crl));
    }
}

#[test]
fn a_crl_by_openssl_ca_ends_when_it_says() {
    let world = World::new();
    let (_dir, ca) = openssl_ca(&world);
    let link = world.link(World::subject());
    let listed = |options: &[&str]| {
        says(&link, None, &Crl::read(ca.list(None, "", options).as_bytes(), &world.issuer).unwrap())
    };
    let answer = listed(&["-crlsec", "600"]).unwrap();
    assert_eq!(
        answer.next_update.unwrap().duration_since(answer.this_update).unwrap(),
        Duration::from_secs(600)
    );
    assert_trouble(
        &listed(&["-crl_lastupdate", "230101000000Z", "-crl_nextupdate", "230102000000Z"]),
        "stale",
    );
    assert_trouble(
        &listed(&["-crl_lastupdate", "20990101000000Z", "-crl_nextupdate", "20990102000000Z"]),
        "from_the_future",
    );
    assert_good(&listed(&["-crl_lastupdate", "230101000000Z", "-crl_nextupdate", "20990102000000Z"]));
}

#[test]
fn partitions_and_deltas_by_openssl_ca_are_understood() {
    let world = World::new();
    let (_dir, ca) = openssl_ca(&world);
    let (a, b) = ("http://crl.test/a", "http://crl.test/b");
    let link = world.link_with_points(&points(&[&[&full_name(&[a])]]));
    let point = Some(&link.distribution_points[0]);
    let read = |number, extensions: &str| {
        Crl::read(ca.list(Some(number), extensions, &["-crldays", "1"]).as_bytes(), &world.issuer)
    };
    let idp = |fields: &str| format!("issuingDistributionPoint=critical,@idp\n[idp]\n{fields}\n");
    let of_a = read(1, &idp(&format!("fullname=URI:{a}"))).unwrap();
    assert_good(&says(&link, point, &of_a));
    let of_b = read(1, &idp(&format!("fullname=URI:{b}"))).unwrap();
    assert_trouble(&says(&link, point, &of_b), "not_covered");
    assert_good(&says(&link, point, &read(1, &idp("onlyuser=TRUE")).unwrap()));
    assert_trouble(&says(&link, point, &read(1, &idp("onlyCA=TRUE")).unwrap()), "not_covered");
    assert_trouble(&says(&link, point, &read(1, &idp("onlyAA=TRUE")).unwrap()), "not_covered");
    assert_eq!(read(1, &idp("indirectCRL=TRUE")).unwrap_err().code(), "not_covered");
    let some = read(1, &idp("onlysomereasons=keyCompromise,CACompromise")).unwrap();
    let others =
        "affiliationChanged,superseded,cessationOfOperation,certificateHold,privilegeWithdrawn,AACompromise";
    let others = read(1, &idp(&format!("onlysomereasons={others}"))).unwrap();
    assert_trouble(&says(&link, point, &some), "not_covered");
    let both = [&some, &others].map(|complete| Source { point, complete, deltas: &[] });
    assert_good(&status(&link, &both, SystemTime::now(), Duration::ZERO).answer);
    let relative = read(1, &idp("relativename=name\n[name]\nCN=one")).unwrap();
    let below = world.link_with_points(&points(&[&[&relative_name("one")]]));
    // openssl's default string type is UTF8String as well.
    assert_good(&says(&below, Some(&below.distribution_points[0]), &relative));
    assert_trouble(&says(&link, point, &relative), "not_covered");
    let critical = read(1, "1.2.3.4=critical,DER:0500").unwrap_err();
    assert_eq!(
        critical.to_string(),
        "the answer cannot be read: the critical extension 1.2.3.4 is not known"
    );

    ca.revoke(SERIAL, SystemTime::now() - HOUR, Some("keyCompromise"));
    let delta = |number, base: u8, rest: &str| {
        read(number, &format!("2.5.29.27=critical,DER:0201{base:02x}\n{rest}")).unwrap()
    };
    let of_a_since = |number, base| delta(number, base, &idp(&format!("fullname=URI:{a}")));
    assert_revoked(&with_deltas(&link, point, &of_a, &[&of_a_since(2, 1)]).answer);
    for other in [of_a_since(3, 2), delta(2, 1, "")] {
        let verdict = with_deltas(&link, point, &of_a, &[&other]);
        assert_revoked(&verdict.answer);
        assert_eq!(verdict.deltas_left_out.len(), 1);
    }
}

#[test]
fn openssl_crl_sees_the_same_numbers() {
    let world = World::new();
    let dir = tempfile::tempdir().unwrap();
    let mut dice = Dice(7);
    for round in 0..20 {
        let mut forged = world.forged().number(1);
        for _ in 0..dice.below(60) {
            let mut serial: Vec<_> = (0..=dice.below(22)).map(|_| dice.below(256) as u8).collect();
            serial[0] = serial[0] & 0x7f | 1;
            forged = forged.entry_for(&serial, dice.below(11) as u8);
        }
        let file = dir.path().join(format!("{round}.crl"));
        std::fs::write(&file, forged.sign(&world.ca)).unwrap();
        let mut command = Command::new("openssl");
        command.args(["crl", "-inform", "DER", "-noout", "-text", "-in"]).arg(&file);
        let text = String::from_utf8(command.output().unwrap().stdout).unwrap();
        let listed: Vec<_> =
            text.lines().filter_map(|line| line.trim().strip_prefix("Serial Number: ")).collect();
        let crl = world.crl(&forged);
        assert_eq!(crl.entries(), listed.len());
        for hex in listed.iter().take(5) {
            let octet = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
            let serial: Vec<_> = (0..hex.len()).step_by(2).map(octet).collect();
            assert_revoked(&says(&world.link(World::subject().serial(&serial)), None, &crl));
        }
    }
}

/// One of the CRLs of a case.
fn random(dice: &mut Dice, world: &World, namesake: &Ca) -> Vec<u8> {
    let now = SystemTime::now();
    let mut forged = world.forged();
    let is_delta = dice.one_in(3);
    if is_delta {
        forged = forged.delta_from(2 + dice.below(4) as u8);
    }
    if !dice.one_in(8) {
        forged = forged.number(if is_delta { 3 + dice.below(4) as u8 } else { 4 });
    }
    if dice.one_in(6) {
        let times =
            [(now - 2 * HOUR, Some(now - HOUR)), (now + HOUR, Some(now + 2 * HOUR)), (now - HOUR, None)];
        let (this, next) = times[dice.below(3)];
        forged = forged.time(this, next);
    }
    if dice.one_in(2) {
        let (a, b) = (full_name(&["http://crl.test/a"]), full_name(&["http://crl.test/b"]));
        let mut fields: Vec<Vec<u8>> = vec![
            a.clone(),
            a.clone(),
            b,
            vec![0x81, 1, 0xff],
            vec![0x82, 1, 0xff],
            vec![0x85, 1, 0xff],
            [a.clone(), vec![0x81, 1, 0xff]].concat(),
            relative_name("one"),
        ];
        // A delta CRL about some reasons is a complete one to openssl 3.0.
        if !is_delta {
            fields.push(reasons(3, &[1, 2, 3, 4]));
            fields.push(reasons(3, &[5, 6, 7, 8]));
            fields.push([a, reasons(3, &[1, 2, 3, 4, 5, 6, 7, 8])].concat());
        }
        forged = forged.extension(28, true, &tlv(0x30, &[&fields[dice.below(fields.len())]]));
    }
    if dice.one_in(10) {
        forged = forged.extension(99, dice.one_in(2), &[0x05, 0x00]);
    }
    for _ in 0..dice.below(3) {
        forged = forged.entry_for(&[1 + dice.below(100) as u8], 1);
    }
    if dice.one_in(3) {
        forged = forged.entry_for(SERIAL, [0, 1, 6, 8, 8][dice.below(5)]);
    }
    forged.sign(if dice.one_in(12) { namesake } else { &world.ca })
}

/// What both make of a certificate and some CRLs: openssl's error numbers, and our answer.
fn both(
    dir: &Path,
    world: &World,
    leaf: &testbed::pki::Leaf,
    crls: &[Vec<u8>],
) -> (Vec<u32>, Result<Answer, Trouble>) {
    let write = |name: &str, text: &str| {
        let path = dir.join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let file: String = crls.iter().map(|crl| pem(crl)).collect();
    let output = Command::new("openssl")
        .args(["verify", "-crl_check", "-extended_crl", "-use_deltas", "-CAfile"])
        .arg(write("ca.pem", &world.ca.pem()))
        .arg("-CRLfile")
        .arg(write("crls.pem", &file))
        .arg(write("leaf.pem", &leaf.cert))
        .output()
        .unwrap();
    let told =
        String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    let errors: Vec<u32> = told
        .lines()
        .filter_map(|line| line.strip_prefix("error ")?.split_once(" at ")?.0.parse().ok())
        .collect();
    assert_eq!(errors.is_empty(), output.status.success(), "{told}");

    let link = Link::from_der(&leaf.der, world.issuer.clone()).unwrap();
    let read = read_all(file.as_bytes()).unwrap();
    let read: Vec<_> = read.iter().filter_map(|crl| crl.verify(&world.issuer).ok()).collect();
    let (deltas, complete): (Vec<_>, Vec<_>) = read.iter().partition(|crl| crl.is_delta());
    // Of a CRL without issuingDistributionPoint openssl always believes that it was had from the certificate's point.
    let point = match &link.distribution_points[..] {
        [point] => Some(point),
        _ => None,
    };
    let sources: Vec<_> =
        complete.iter().map(|complete| Source { point, complete, deltas: &deltas }).collect();
    (errors, status(&link, &sources, SystemTime::now(), Duration::ZERO).answer)
}

#[test]
fn openssl_verify_comes_to_the_same_or_is_less_strict() {
    // openssl-verify(1).
    const BAD_SIGNATURE: u32 = 8;
    const NOT_YET_VALID: u32 = 11;
    const EXPIRED: u32 = 12;
    const REVOKED: u32 = 23;
    let counts = |crl: &Result<Crl, Trouble>| {
        let now = SystemTime::now();
        crl.as_ref()
            .is_ok_and(|crl| crl.this_update() < now && crl.next_update().is_none_or(|next| next > now))
    };
    let world = World::new();
    let namesake = Ca::root("CRL test");
    let dir = tempfile::tempdir().unwrap();
    let a = full_name(&["http://crl.test/a"]);
    let freshest = points(&[&[&full_name(&["http://crl.test/delta"])]]);
    let subject = || World::subject().extension(&[2, 5, 29, 46], &freshest);
    let leaves = [
        world.ca.issue(subject()),
        world.ca.issue(subject().extension(&[2, 5, 29, 31], &points(&[&[&a]]))),
        world.ca.issue(subject().extension(&[2, 5, 29, 31], &points(&[&[&relative_name("one")], &[&a]]))),
        world.ca.issue(subject().extension(&[2, 5, 29, 31], &points(&[&[&a, &reasons(1, &[1, 2, 3, 4])]]))),
    ];
    let mut dice = Dice(42);
    let (mut good, mut revoked, mut trouble, mut stricter) = (0, 0, 0, 0);
    for case in 0..300 {
        let mut crls: Vec<_> = (0..=dice.below(3)).map(|_| random(&mut dice, &world, &namesake)).collect();
        let leaf = &leaves[dice.below(leaves.len())];
        let (errors, ours) = both(dir.path(), &world, leaf, &crls);
        let says_revoked = errors.contains(&REVOKED);
        let listed = || {
            // DER of the INTEGER.
            let entry = [&[0x02, 0x04], SERIAL].concat();
            crls.iter().any(|crl| crl.windows(entry.len()).any(|window| window == entry))
        };
        let told = format!("case {case}: openssl {errors:?}, we {ours:?}");
        if is_good(&ours) {
            // openssl takes one CRL, and fails where that is none or out of time; we go on to the next. With those only that
            // count, it comes to the same.
            if errors.iter().any(|error| [BAD_SIGNATURE, NOT_YET_VALID, EXPIRED].contains(error)) {
                crls.retain(|crl| counts(&Crl::read(crl, &world.issuer)));
                assert!(both(dir.path(), &world, leaf, &crls).0.is_empty(), "{told}");
            } else {
                assert!(errors.is_empty(), "{told}");
            }
            good += 1;
        } else if is_revoked(&ours) {
            assert!(says_revoked || listed(), "{told}");
            if says_revoked { revoked += 1 } else { stricter += 1 }
        } else {
            assert!(!errors.is_empty(), "{told}");
            trouble += 1;
        }
    }
    // Every kind was there, and what we are stricter about is the smaller part.
    assert!(
        good > 40 && revoked > 20 && trouble > 80 && stricter < 80,
        "{good} {revoked} {trouble} {stricter}"
    );
}

/// The same numbers in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % end
    }

    fn one_in(&mut self, number: usize) -> bool {
        self.below(number) == 0
    }
}
