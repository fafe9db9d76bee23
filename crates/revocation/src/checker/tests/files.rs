//! CRLs in files.

use testbed::crl::OpensslCa;

use super::*;

/// A lab with a folder of CRLs by `openssl ca`.
fn lab() -> (Lab, OpensslCa, TempDir) {
    let (files, home) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let path = files.path().to_owned();
    let mut lab = Lab::with(|options| options.crl_path = Some(path));
    let openssl = OpensslCa::new(home.path(), &lab.ca);
    let ocsp = std::mem::replace(&mut lab.dir, files);
    lab.keep = vec![ocsp];
    (lab, openssl, home)
}

impl Lab {
    fn write(&self, name: &str, crl: impl AsRef<[u8]>) {
        std::fs::write(self.dir.path().join(name), crl).unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_crl_in_a_file_answers_for_certificates_that_name_nobody() {
    let (lab, openssl, _home) = lab();
    let (_, link) = lab.leaf(&[], &[]);
    assert_eq!(lab.codes(&link).await, [] as [&str; 0]);
    lab.write("ca.pem", openssl.list(Some(1), "", &["-crldays", "1"]));
    lab.checker.read_local_crls().unwrap();
    assert_eq!(lab.codes(&link).await, ["good"]);
    assert_eq!(lab.checker.counts().local_crls, 1);
    // Also of another CA of the same name, whose CRL this is not.
    let namesake = Ca::root("CA");
    let stranger = namesake.issue(Subject::client("alice"));
    assert_eq!(lab.codes(&super::link(&namesake, &stranger.der)).await, ["bad_signature"]);
}

#[tokio::test(start_paused = true)]
async fn revoked_in_a_file_counts_whatever_a_responder_says() {
    let (lab, openssl, _home) = lab();
    lab.respond(OCSP, Duration::ZERO, &["-ndays", "1"]);
    let (_, link) = lab.leaf(&[OCSP], &[]);
    assert_eq!(lab.codes(&link).await, ["good"]);
    openssl.revoke(&link.serial, SystemTime::now(), None);
    lab.write("ca.pem", openssl.list(Some(1), "", &["-crldays", "1"]));
    lab.checker.read_local_crls().unwrap();
    let finding = lab.check(&link).await;
    assert_eq!((codes(&finding), finding.said[0].source), (vec!["revoked"], Source::LocalCrl));
}

#[tokio::test(start_paused = true)]
async fn of_a_file_that_cannot_be_used_the_last_good_version_stays_and_others_count() {
    let (lab, openssl, _home) = lab();
    let (_, link) = lab.leaf(&[], &[]);
    lab.write("ca.pem", openssl.list(Some(1), "", &["-crldays", "1"]));
    lab.checker.read_local_crls().unwrap();
    assert_eq!(lab.codes(&link).await, ["good"]);
    lab.write("ca.pem", "no CRL");
    openssl.revoke(&link.serial, SystemTime::now(), None);
    let problem = lab.checker.read_local_crls().unwrap_err();
    assert!(problem.contains("ca.pem"), "{problem}");
    assert_eq!(lab.codes(&link).await, ["good"]);
    lab.write("other.pem", openssl.list(Some(2), "", &["-crldays", "1"]));
    assert!(lab.checker.read_local_crls().is_err());
    assert_eq!(lab.codes(&link).await, ["revoked"]);
    // One that is gone counts no longer.
    std::fs::remove_file(lab.dir.path().join("other.pem")).unwrap();
    std::fs::remove_file(lab.dir.path().join("ca.pem")).unwrap();
    lab.checker.read_local_crls().unwrap();
    assert_eq!(lab.codes(&link).await, [] as [&str; 0]);
}

#[tokio::test]
async fn files_that_are_missing_broken_or_too_large_are_told_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ca.crl");
    let start = |memory| {
        let options = Options { crl_path: Some(file.clone()), memory, ..Options::default() };
        let outside = Outside::made_up(Answers::default(), SystemTime::now);
        Checker::with(outside, options).map(drop)
    };
    assert!(start(1 << 20).unwrap_err().contains("ca.crl"));
    std::fs::write(&file, "no CRL").unwrap();
    assert!(start(1 << 20).unwrap_err().contains("ca.crl"));
    std::fs::write(&file, testbed::crl::Forged::of(&Ca::root("CA")).sign(&Ca::root("CA"))).unwrap();
    start(1 << 20).unwrap();
    assert!(start(64).unwrap_err().contains("--revocation-memory"));
}
