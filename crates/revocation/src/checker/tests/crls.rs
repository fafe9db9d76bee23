//! CRLs that certificates name.

use testbed::crl::{FRESHEST_CRL, Forged, ISSUING_DISTRIBUTION_POINT, reasons};

use super::*;

/// A CRL that counts for two hours from when the test begins.
pub(super) fn empty(lab: &Lab) -> Forged {
    let now = lab.now();
    Forged::of(&lab.ca).time(now, Some(now + 2 * HOUR)).number(1)
}

/// The same with a certificate in it.
fn revoking(lab: &Lab, link: &Link) -> Forged {
    empty(lab).entry(&serial(link), lab.now(), &[])
}

/// The content octets of the INTEGER.
fn serial(link: &Link) -> Vec<u8> {
    let zero: &[u8] = if link.serial[0] & 0x80 == 0 { &[] } else { &[0] };
    [zero, &link.serial].concat()
}

#[tokio::test(start_paused = true)]
async fn a_crl_answers_for_all_certificates_of_its_ca_and_comes_after_ocsp() {
    let lab = Lab::new();
    lab.servers.fail(OCSP);
    let (_, bad) = lab.leaf(&[OCSP], &[CRL]);
    let (_, good) = lab.leaf(&[], &[CRL]);
    lab.servers.give(CRL, revoking(&lab, &bad).sign(&lab.ca));
    assert_eq!(lab.codes(&bad).await, ["http_status", "revoked"]);
    assert_eq!(lab.codes(&good).await, ["good"]);
    assert_eq!(lab.servers.asked(), [format!("POST {OCSP}"), format!("GET {CRL}")]);
    // What is remembered and says "revoked" counts, whatever a responder would say.
    lab.respond(OCSP, Duration::ZERO, &["-ndays", "1"]);
    assert_eq!(lab.codes(&bad).await, ["revoked"]);
    assert_eq!(lab.servers.asked(), [] as [&str; 0]);
}

#[tokio::test(start_paused = true)]
async fn whom_a_responder_does_not_know_a_crl_may() {
    let lab = Lab::new();
    lab.respond(OCSP, Duration::ZERO, &["-ndays", "1"]);
    lab.servers.give(CRL, empty(&lab).sign(&lab.ca));
    let stranger = lab.ca.issue(naming(Subject::client("bob"), &[OCSP], &[CRL]));
    let link = link(&lab.ca, &stranger.der);
    assert_eq!(lab.codes(&link).await, ["unknown", "good"]);
}

#[tokio::test(start_paused = true)]
async fn what_is_no_crl_of_this_ca_is_not_remembered() {
    let lab = Lab::new();
    let (_, link) = lab.leaf(&[], &[CRL]);
    let future = lab.now() + HOUR;
    let past = lab.now() - 2 * HOUR;
    for (answer, code) in [
        (b"<html>".to_vec(), "malformed"),
        (Vec::new(), "malformed"),
        (Forged::of(&Ca::root("CA")).sign(&Ca::root("CA")), "bad_signature"),
        (Forged::of(&lab.ca).time(future, Some(future + HOUR)).sign(&lab.ca), "from_the_future"),
        (Forged::of(&lab.ca).time(past, Some(past + SECOND)).sign(&lab.ca), "stale"),
    ] {
        lab.servers.give(CRL, answer);
        assert_eq!(lab.codes(&link).await, [code]);
        assert_eq!(lab.checker.counts().crls, 0);
    }
    lab.servers.give(CRL, empty(&lab).sign(&lab.ca));
    assert_eq!(lab.codes(&link).await, ["good"]);
}

#[tokio::test(start_paused = true)]
async fn the_last_good_crl_counts_while_no_newer_one_can_be_had_and_no_longer_than_the_operator_says() {
    let lab = Lab::with(|options| options.max_stale = 30 * MINUTE);
    let terms = terms(30 * SECOND, 24 * HOUR);
    let code = async |link| codes(&lab.check_within(link, &terms, 4 * SECOND).await);
    let (_, link) = lab.leaf(&[], &[CRL]);
    lab.servers.give(CRL, empty(&lab).sign(&lab.ca));
    assert_eq!(code(&link).await, ["good"]);
    lab.servers.hang(CRL);
    tokio::time::advance(2 * HOUR + MINUTE).await;
    // The first one waits, as there may be a newer one; once it is known that there is none, nobody does.
    let begun = Instant::now();
    assert_eq!((code(&link).await, begun.elapsed()), (vec!["good"], 4 * SECOND));
    tokio::time::sleep(30 * SECOND).await;
    let begun = Instant::now();
    assert_eq!((code(&link).await, begun.elapsed()), (vec!["good"], Duration::ZERO));
    tokio::time::advance(30 * MINUTE).await;
    assert_eq!(code(&link).await, ["timed_out"]);
    lab.servers.give(CRL, empty(&lab).sign(&lab.ca));
    tokio::time::sleep(30 * SECOND).await;
    assert_eq!(code(&link).await, ["good"]);
}

#[tokio::test(start_paused = true)]
async fn a_crl_that_does_not_say_until_when_counts_as_long_as_the_instance_says() {
    let lab = Lab::new();
    let (_, link) = lab.leaf(&[], &[CRL]);
    lab.servers.give(CRL, Forged::of(&lab.ca).time(lab.now(), None).number(1).sign(&lab.ca));
    assert_eq!(lab.codes(&link).await, ["good"]);
    lab.servers.fail(CRL);
    tokio::time::advance(HOUR - SECOND).await;
    assert_eq!(lab.codes(&link).await, ["good"]);
    tokio::time::advance(SECOND).await;
    assert_eq!(lab.codes(&link).await, ["http_status"]);
}

#[tokio::test(start_paused = true)]
async fn a_crl_is_asked_for_anew_as_often_as_the_instance_says_though_it_is_good_for_longer() {
    let lab = Lab::new();
    let (_, link) = lab.leaf(&[], &[CRL]);
    lab.servers.give(CRL, empty(&lab).sign(&lab.ca));
    assert_eq!(lab.codes(&link).await, ["good"]);
    tokio::time::advance(MINUTE).await;
    lab.servers.give(CRL, revoking(&lab, &link).sign(&lab.ca));
    assert_eq!(lab.codes(&link).await, ["good"]);
    tokio::time::advance(HOUR).await;
    assert_eq!(lab.codes(&link).await, ["revoked"]);
}

#[tokio::test(start_paused = true)]
async fn an_older_crl_does_not_take_the_place_of_a_newer_one() {
    let lab = Lab::new();
    let (_, link) = lab.leaf(&[], &[CRL]);
    let recorded = empty(&lab).sign(&lab.ca);
    tokio::time::advance(MINUTE).await;
    lab.servers.give(CRL, revoking(&lab, &link).sign(&lab.ca));
    assert_eq!(lab.codes(&link).await, ["revoked"]);
    lab.servers.give(CRL, recorded);
    for _ in 0..2 {
        tokio::time::advance(50 * MINUTE).await;
        assert_eq!(lab.codes(&link).await, ["revoked"]);
        lab.settle().await;
    }
    assert!(lab.servers.asked().len() > 1);
}

#[tokio::test(start_paused = true)]
async fn crls_in_use_are_kept_fresh_without_any_request_and_others_are_not() {
    let lab = Lab::new();
    let (_, link) = lab.leaf(&[], &[CRL]);
    lab.servers.give(CRL, empty(&lab).sign(&lab.ca));
    assert_eq!(lab.codes(&link).await, ["good"]);
    lab.servers.asked();
    let long = Forged::of(&lab.ca).time(lab.now(), Some(lab.now() + 100 * HOUR)).number(2);
    lab.servers.give(CRL, long.sign(&lab.ca));
    tokio::time::sleep(46 * MINUTE).await;
    assert_eq!(lab.servers.asked().len(), 1);
    tokio::time::sleep(46 * MINUTE).await;
    assert_eq!(lab.servers.asked().len(), 1);
    tokio::time::sleep(24 * HOUR).await;
    lab.servers.asked();
    tokio::time::sleep(3 * HOUR).await;
    assert_eq!(lab.servers.asked().len(), 0, "nobody has needed it for a day");
}

#[tokio::test(start_paused = true)]
async fn a_place_that_fails_is_followed_by_the_next_and_directories_are_not_asked() {
    let lab = Lab::new();
    let urls = ["ldap://ca.example/cn=CA", "http://a.example/ca.crl", "http://b.example/ca.crl"];
    lab.servers.fail(urls[1]);
    lab.servers.give(urls[2], empty(&lab).sign(&lab.ca));
    let (_, link) = lab.leaf(&[], &urls);
    assert_eq!(lab.codes(&link).await, ["good"]);
    assert_eq!(lab.servers.asked(), [format!("GET {}", urls[1]), format!("GET {}", urls[2])]);
}

#[tokio::test(start_paused = true)]
async fn crls_about_some_reasons_count_together() {
    let lab = Lab::new();
    // One is about key compromise, the other about all other reasons.
    let about = |bits: &[u8]| {
        let scope = tlv(0x30, &[&reasons(3, bits)]);
        empty(&lab).extension(ISSUING_DISTRIBUTION_POINT, true, &scope).sign(&lab.ca)
    };
    let (one, other) = ("http://a.example/ca.crl", "http://b.example/ca.crl");
    lab.servers.give(one, about(&[1, 2]));
    lab.servers.give(other, about(&[3, 4, 5, 6, 7, 8]));
    let points = points(&[&[&full_name(&[one])], &[&full_name(&[other])]]);
    let both = lab.ca.issue(Subject::client("alice").extension(&[2, 5, 29, 31], &points));
    let link = link(&lab.ca, &both.der);
    assert_eq!(lab.codes(&link).await, ["not_covered", "not_covered", "good"]);
    lab.servers.fail(other);
    tokio::time::advance(4 * HOUR).await;
    lab.servers.give(one, about(&[1, 2]));
    let codes = lab.codes(&link).await;
    assert!(!codes.contains(&"good"), "{codes:?}");
}

#[tokio::test(start_paused = true)]
async fn a_delta_crl_adds_to_the_complete_one_and_is_not_waited_for_long() {
    let lab = Lab::new();
    let (_, link) = lab.leaf(&[], &[CRL]);
    let freshest = points(&[&[&full_name(&[DELTA])]]);
    lab.servers.give(CRL, empty(&lab).extension(FRESHEST_CRL, false, &freshest).sign(&lab.ca));
    lab.servers.hang(DELTA);
    let begun = Instant::now();
    assert_eq!((lab.codes(&link).await, begun.elapsed()), (vec!["good"], DELTA_PATIENCE));
    tokio::time::sleep(30 * SECOND).await;
    let now = lab.now();
    let delta = Forged::of(&lab.ca).time(now, Some(now + HOUR)).number(2).delta_from(1);
    lab.servers.give(DELTA, delta.entry(&serial(&link), now, &[]).sign(&lab.ca));
    assert_eq!(lab.codes(&link).await, ["revoked"]);
}

#[tokio::test(start_paused = true)]
async fn memory_has_a_bound() {
    let lab = Lab::with(|options| options.memory = 64 << 10);
    let entries = |count: u16| {
        let serials = (0..count).map(|serial| [&[1_u8][..], &serial.to_be_bytes()].concat());
        serials.fold(empty(&lab), |crl, serial| crl.entry(&serial, lab.now(), &[]))
    };
    let small = entries(100).sign(&lab.ca);
    for number in 0..100 {
        let url = format!("http://{number}.example/");
        lab.servers.give(&url, small.clone());
        let (_, link) = lab.leaf(&[], &[&url]);
        assert_eq!(lab.codes(&link).await, ["good"]);
    }
    lab.checker.0.crls.run_pending();
    let counts = lab.checker.counts();
    assert!(counts.crls > 1 && counts.crl_bytes <= 32 << 10, "{counts:?}");
    // One that alone would take too much is not remembered either.
    lab.servers.give(CRL, entries(6000).sign(&lab.ca));
    let (_, link) = lab.leaf(&[], &[CRL]);
    assert_eq!(lab.codes(&link).await, ["too_long"]);
}

#[tokio::test(start_paused = true)]
async fn a_crl_of_another_issuer_is_not_even_asked_for() {
    let lab = Lab::new();
    lab.servers.give(CRL, empty(&lab).sign(&lab.ca));
    // cRLIssuer: a directory name.
    let issuer = tlv(0xa2, &[&tlv(0xa4, &[&lab.ca_name()])]);
    let points = points(&[&[&full_name(&[CRL]), &issuer]]);
    let leaf = lab.ca.issue(Subject::client("alice").extension(&[2, 5, 29, 31], &points));
    let link = link(&lab.ca, &leaf.der);
    assert_eq!(lab.codes(&link).await, ["not_covered"]);
    assert_eq!(lab.servers.asked(), [] as [&str; 0]);
}
