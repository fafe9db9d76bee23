//! Each mode, and all that may come of asking.

use kong_double::Protocol;
use serde_json::json;
use testbed::crl::{Forged, tlv};
use testbed::ocsp::{Authority, State};
use testbed::pki::{Ca, Leaf, Subject, naming};
use testbed::web::{Answer, WebServer};

use crate::setup::{Outcome, PRIVATE, Responder, Setup};

/// Which status a request ends with in each mode, and what stands in Kong's log where it is not certain.
fn expect(setup: &Setup, about: &str, leaf: &Leaf, ignore: u16, strict: u16, says: &str) {
    let outcome: Outcome = setup.request("skip", leaf);
    assert!(outcome.status == 200 && outcome.log.is_empty(), "{about}: {outcome:?}");
    for (mode, status) in [("ignore", ignore), ("strict", strict)] {
        let outcome = setup.request(mode, leaf);
        let line: &[&str] = match (status, says) {
            (200, "") => &[],
            (200, _) => &["[mtls-auth] let pass: revocation_unknown", says, "CN=alice"],
            (_, "") => &["[mtls-auth] refused: revoked", "CN=alice"],
            _ => &["[mtls-auth] refused: revocation_unknown", says, "CN=alice"],
        };
        assert_eq!(outcome.status, status, "{about}, {mode}: {outcome:?}");
        assert_eq!(outcome.log.is_empty(), line.is_empty(), "{about}, {mode}: {outcome:?}");
        assert!(line.is_empty() || outcome.says(line), "{about}, {mode}: {outcome:?}");
    }
}

/// What goes wrong with any server, and the code of it.
fn faults() -> [(&'static str, Answer, &'static str); 7] {
    [
        ("a page", Answer::Body(b"<html><body>Welcome</body></html>".to_vec()), "malformed"),
        ("nothing", Answer::Body(Vec::new()), "malformed"),
        ("garbage", Answer::Body(vec![0x30, 0x82, 0xff, 0xff, 0x0a]), "malformed"),
        ("an endless answer", Answer::Endless, "too_long"),
        ("a closed connection", Answer::Closes, "unreachable"),
        ("an error", Answer::Status(500), "http_status"),
        ("a redirect to nowhere", Answer::Status(302), "http_status"),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn each_mode_decides_by_what_a_responder_says() {
    for protocol in Protocol::ALL {
        let options = [PRIVATE, "--revocation-memory", "8"];
        let setup = Setup::start(protocol, &options, json!({})).await;
        let responder = Responder::of(&setup.ca);
        expect(&setup, "good", &responder.leaf(&setup.ca), 200, 200, "");
        let revoked = responder.leaf(&setup.ca);
        responder.set(&revoked, State::Revoked);
        expect(&setup, "revoked", &revoked, 401, 401, "");
        let unknown = setup.ca.issue(naming(Subject::client("alice"), &[&responder.web.url()], &[]));
        expect(&setup, "unknown", &unknown, 200, 401, ": unknown");
        let none = setup.ca.issue(Subject::client("alice"));
        assert_eq!(setup.request("ignore", &none).status, 200);
        assert!(setup.request("strict", &none).says(&["revocation_unknown", "names nobody to ask"]));

        let faulty = |answer: Answer| {
            let web = WebServer::start(answer);
            let leaf = setup.ca.issue(naming(Subject::client("alice"), &[&web.url()], &[]));
            (web, leaf)
        };
        for (about, answer, code) in faults() {
            let (_web, leaf) = faulty(answer);
            expect(&setup, about, &leaf, 200, 401, code);
        }
        let url = responder.web.url_of_nobody();
        let leaf = setup.ca.issue(naming(Subject::client("alice"), &[&url], &[]));
        expect(&setup, "dead", &leaf, 200, 401, "unreachable");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_costs_kong_nothing_but_a_line_in_its_log_where_nobody_knows() {
    for protocol in Protocol::ALL {
        let setup = Setup::start(protocol, &[PRIVATE], json!({})).await;
        let responder = Responder::of(&setup.ca);
        let leaf = responder.leaf(&setup.ca);
        let calls = |mode| {
            assert_eq!(setup.request(mode, &leaf).status, 200);
            setup.kong.rpc_calls().requests.last().unwrap().event_calls()
        };
        let skipped = calls("skip");
        assert_eq!(responder.web.requests(), 0, "nobody is asked");
        responder.web.answer(Answer::Status(500));
        assert_eq!(calls("ignore"), skipped + 1);
        responder.works();
        for mode in ["ignore", "strict", "ignore"] {
            assert_eq!(calls(mode), skipped);
        }
        assert_eq!(responder.web.requests(), 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_mode_decides_by_what_a_crl_says() {
    let options = [PRIVATE, "--revocation-memory", "8"];
    let setup = Setup::start(Protocol::MsgPack, &options, json!({})).await;
    let with_crl = |answer: Answer| {
        let web = WebServer::start(answer);
        let leaf = setup.ca.issue(naming(Subject::client("alice"), &[], &[&web.url()]));
        (web, leaf)
    };
    let home = tempfile::tempdir().unwrap();
    let openssl = testbed::crl::OpensslCa::new(home.path(), &setup.ca);
    let list = || Answer::Body(openssl.list(Some(1), "", &["-crldays", "1"]).into_bytes());
    let (_web, good) = with_crl(list());
    expect(&setup, "good", &good, 200, 200, "");
    let (web, revoked) = with_crl(Answer::Closes);
    openssl.revoke(&serial(&revoked), std::time::SystemTime::now(), Some("keyCompromise"));
    web.answer(list());
    expect(&setup, "revoked", &revoked, 401, 401, "");
    let (_web, other) = with_crl(Answer::Body(Forged::of(&Ca::root("root")).sign(&Ca::root("root"))));
    expect(&setup, "another CA's", &other, 200, 401, "bad_signature");
    for (about, answer, code) in faults() {
        let (_web, leaf) = with_crl(answer);
        expect(&setup, about, &leaf, 200, 401, code);
    }
    let leaf = setup.ca.issue(naming(Subject::client("alice"), &[], &[&web.url_of_nobody()]));
    expect(&setup, "dead", &leaf, 200, 401, "unreachable");
}

/// In DER, without what only says its sign.
fn serial(leaf: &Leaf) -> Vec<u8> {
    let certificate = openssl::x509::X509::from_der(&leaf.der).unwrap();
    certificate.serial_number().to_bn().unwrap().to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_responder_of_openssls_own_is_asked_by_its_url() {
    let setup = Setup::start(Protocol::MsgPack, &[PRIVATE], json!({})).await;
    let dir = tempfile::tempdir().unwrap();
    let mut authority = Authority::new(dir.path(), &setup.ca);
    let responder = authority.serve(&["-ndays", "1"]);
    let issue = || setup.ca.issue(naming(Subject::client("alice"), &[&responder.url()], &[]));
    let (good, revoked) = (issue(), issue());
    authority.set(&good, State::Valid);
    authority.set(&revoked, State::Revoked);
    // It looks for changes after each request.
    setup.request("ignore", &issue());
    for (mode, leaf, status) in [("strict", &good, 200), ("ignore", &revoked, 401)] {
        let outcome = setup.request(mode, leaf);
        assert_eq!(outcome.status, status, "{outcome:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_refused_for_it_may_be_anonymous() {
    let setup = Setup::start(Protocol::MsgPack, &[PRIVATE], json!({})).await;
    let responder = Responder::of(&setup.ca);
    let leaf = responder.leaf(&setup.ca);
    responder.set(&leaf, State::Revoked);
    let outcome = setup.request("anonymous", &leaf);
    assert!(outcome.status == 200 && outcome.says(&["passed as anonymous: revoked"]), "{outcome:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_client_that_sends_its_certificate_alone_the_issuer_is_among_the_configured_cas() {
    let root = Ca::root("root");
    let issuing = root.intermediate("issuing");
    let setup = Setup::with(Protocol::MsgPack, root, &[&issuing], &[PRIVATE], json!({})).await;
    let responder = Responder::of(&issuing);
    let leaf = responder.leaf(&issuing);
    let outcome = setup.request("strict", &leaf);
    assert_eq!(outcome.status, 200, "{outcome:?}");
    let revoked = responder.leaf(&issuing);
    responder.set(&revoked, State::Revoked);
    assert!(setup.request("ignore", &revoked).says(&["revoked"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_a_revoked_intermediate_is_refused_though_it_is_good_itself() {
    let setup = Setup::start(Protocol::MsgPack, &[PRIVATE], json!({})).await;
    let crl = WebServer::start(Answer::Closes);
    let issue = || setup.ca.intermediate_naming("issuing", &[], &[&crl.url()]);
    let (good, bad) = (issue(), issue());
    let number = openssl::x509::X509::from_der(&bad.der()).unwrap();
    let number = number.serial_number().to_bn().unwrap().to_vec();
    let sign = number[0] & 0x80 != 0;
    let number = if sign { [&[0], &number[..]].concat() } else { number };
    let list = Forged::of(&setup.ca).number(1).entry(&number, std::time::SystemTime::now(), &[]);
    crl.answer(Answer::Body(list.sign(&setup.ca)));
    for (issuing, status) in [(&good, 200), (&bad, 401)] {
        let responder = Responder::of(issuing);
        let leaf = responder.leaf(issuing);
        for mode in ["ignore", "strict"] {
            let outcome = setup.request_with(mode, &leaf, &[issuing]);
            assert_eq!(outcome.status, status, "{mode}: {outcome:?}");
            assert_eq!(outcome.says(&["refused: revoked", "CA 1 above it"]), status == 401, "{outcome:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn urls_do_not_lead_to_our_own_neighbours_unless_the_operator_lets_them() {
    let setup = Setup::start(Protocol::MsgPack, &[], json!({})).await;
    let responder = Responder::of(&setup.ca);
    let leaf = responder.leaf(&setup.ca);
    expect(&setup, "loopback", &leaf, 200, 401, "url_refused");
    assert_eq!(responder.web.requests(), 0);
}

/// Whoever makes certificates up would have us ask whom they like. Nor are intermediates fetched that a client left out.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_asked_whom_a_chain_names_that_does_not_verify() {
    const AUTHORITY_INFO_ACCESS: &[u64] = &[1, 3, 6, 1, 5, 5, 7, 1, 1];
    const CA_ISSUERS: &[u8] = &[0x06, 8, 0x2b, 6, 1, 5, 5, 7, 0x30, 2];
    for protocol in Protocol::ALL {
        let setup = Setup::start(protocol, &[PRIVATE], json!({})).await;
        let responder = Responder::of(&setup.ca);
        let url = responder.web.url();
        let names_it = |subject: Subject| naming(subject, &[&url], &[&url]);
        let alice = || names_it(Subject::client("alice"));
        let (twin, impostor) = (Ca::root("root"), setup.ca.impostor("impostor"));
        let issuing = setup.ca.intermediate_naming("issuing", &[&url], &[&url]);
        let theirs = twin.intermediate_naming("theirs", &[&url], &[&url]);
        let place = tlv(0x30, &[&tlv(0x30, &[CA_ISSUERS, &tlv(0x86, &[url.as_bytes()])])]);
        let alone = issuing.issue(Subject::client("alice").extension(AUTHORITY_INFO_ACCESS, &place));
        for mode in ["skip", "ignore", "strict", "anonymous"] {
            for (leaf, chain) in [
                (twin.issue(alice()), vec![]),
                (theirs.issue(alice()), vec![&theirs, &twin]),
                (impostor.issue(alice()), vec![&impostor]),
                (issuing.issue(alice().expired()), vec![&issuing]),
                (issuing.issue(names_it(Subject::server(&["alice"]))), vec![&issuing]),
                (issuing.issue(alice()), vec![&theirs]),
                (alone.clone(), vec![]),
            ] {
                let outcome = setup.request_with(mode, &leaf, &chain);
                assert_eq!(outcome.status, if mode == "anonymous" { 200 } else { 401 }, "{outcome:?}");
            }
        }
        assert_eq!(responder.web.requests(), 0);
        // It would have been there.
        assert_eq!(setup.request("ignore", &responder.leaf(&setup.ca)).status, 200);
        assert!(responder.web.requests() > 0);
    }
}
