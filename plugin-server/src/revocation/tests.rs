use std::time::Duration;

use revocation::{Answer, Source, Status, Trouble};

use super::*;

const GOOD: Result<Status, Trouble> = Ok(Status::Good);
const UNKNOWN: Result<Status, Trouble> = Ok(Status::Unknown);
const TROUBLE: Result<Status, Trouble> = Err(Trouble::HttpStatus(503));

fn revoked() -> Result<Status, Trouble> {
    Ok(Status::Revoked { since: Some(UNIX_EPOCH + Duration::from_secs(1_700_000_000)) })
}

fn found(results: &[Result<Status, Trouble>]) -> Found {
    let said = results.iter().cloned().map(|result| Said {
        source: Source::Ocsp,
        place: "http://ocsp.example".into(),
        result: result.map(|status| Answer { status, this_update: UNIX_EPOCH, next_update: None }),
    });
    Ok(Finding { said: said.collect() })
}

/// What passes: "yes", "noted" or the code of the reason.
fn outcome(mode: RevocationMode, found: &[Found]) -> &'static str {
    match rule(mode, found) {
        Ruling::Pass => "yes",
        Ruling::PassWith(notice) => {
            assert_eq!(notice.reason, Reason::RevocationUnknown);
            "noted"
        }
        Ruling::Refuse(refusal) => refusal.reason.code(),
    }
}

/// `mtls-auth.md`, `revocation_check_mode`.
#[test]
fn each_mode_decides_by_what_was_found_out_about_each_certificate_of_the_chain() {
    let unreadable = || Err("an extension stands twice".to_owned());
    let good = || found(&[GOOD]);
    for (about, chain, ignore, strict) in [
        ("good", vec![good()], "yes", "yes"),
        ("revoked", vec![found(&[revoked()])], "revoked", "revoked"),
        ("unknown", vec![found(&[UNKNOWN])], "noted", "revocation_unknown"),
        ("trouble", vec![found(&[TROUBLE])], "noted", "revocation_unknown"),
        ("unreadable", vec![unreadable()], "noted", "revocation_unknown"),
        ("no source", vec![found(&[])], "yes", "revocation_unknown"),
        ("an anchor as leaf", vec![], "yes", "revocation_unknown"),
        ("one source knows", vec![found(&[TROUBLE, GOOD])], "yes", "yes"),
        ("revoked by the other", vec![found(&[GOOD, revoked()])], "revoked", "revoked"),
        ("CA: good", vec![good(), good()], "yes", "yes"),
        ("CA: no source", vec![good(), found(&[])], "yes", "yes"),
        ("CA: trouble", vec![good(), found(&[TROUBLE])], "noted", "revocation_unknown"),
        ("CA: unknown", vec![good(), found(&[UNKNOWN])], "noted", "revocation_unknown"),
        ("CA: unreadable", vec![good(), unreadable()], "noted", "revocation_unknown"),
        ("CA: revoked", vec![good(), found(&[revoked()])], "revoked", "revoked"),
        (
            "CA: revoked, rest unclear",
            vec![found(&[TROUBLE]), unreadable(), found(&[revoked()])],
            "revoked",
            "revoked",
        ),
        ("leaf without source, CA good", vec![found(&[]), good()], "yes", "revocation_unknown"),
    ] {
        assert_eq!(outcome(RevocationMode::Skip, &chain), "yes", "{about}");
        assert_eq!(outcome(RevocationMode::IgnoreCaError, &chain), ignore, "{about}");
        assert_eq!(outcome(RevocationMode::Strict, &chain), strict, "{about}");
    }
}

#[test]
fn operators_are_told_who_said_what_of_which_certificate_on_one_line() {
    let detail = |mode, chain: &[Found]| match rule(mode, chain) {
        Ruling::Refuse(refusal) | Ruling::PassWith(refusal) => refusal.detail.unwrap(),
        Ruling::Pass => panic!("it passes"),
    };
    let chain = [found(&[GOOD]), found(&[revoked()])];
    assert_eq!(
        detail(RevocationMode::Strict, &chain),
        "CA 1 above it is revoked since Nov 14 22:13:20 2023 GMT, says ocsp \"http://ocsp.example\""
    );
    let trouble = Err(Trouble::Malformed("\nforged".to_owned()));
    let chain = [found(&[UNKNOWN, trouble]), Err("\nforged".to_owned())];
    assert_eq!(
        detail(RevocationMode::IgnoreCaError, &chain),
        "the client's certificate: ocsp \"http://ocsp.example\": unknown, ocsp \"http://ocsp.example\": malformed \
         (the answer cannot be read: \\nforged); CA 1 above it: malformed, \\nforged"
    );
}
