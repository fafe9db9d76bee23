//! For how long answers count, and how long they are waited for.

use std::time::{Duration, Instant, SystemTime};

use kong_double::Protocol;
use serde_json::json;
use testbed::crl::Forged;
use testbed::ocsp::State;
use testbed::pki::{Subject, naming};
use testbed::process::PATIENCE;
use testbed::web::{Answer, WebServer};

use crate::setup::{PRIVATE, Responder, Setup};

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_is_revoked_is_refused_once_the_answers_time_is_over() {
    let setup = Setup::start(Protocol::MsgPack, &[PRIVATE], json!({"cert_cache_ttl": 1})).await;
    let responder = Responder::of(&setup.ca);
    let leaf = responder.leaf(&setup.ca);
    assert_eq!(setup.request("ignore", &leaf).status, 200);
    responder.set(&leaf, State::Revoked);
    setup.wait_for("ignore", &leaf, |outcome| outcome.says(&["refused: revoked"]));
    // And stays so while nobody answers.
    responder.web.answer(Answer::Status(500));
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(2) {
        assert_eq!(setup.request("ignore", &leaf).status, 401);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_is_not_remembered() {
    let setup = Setup::start(Protocol::MsgPack, &[PRIVATE], json!({})).await;
    let responder = Responder::of(&setup.ca);
    let leaf = responder.leaf(&setup.ca);
    responder.web.answer(Answer::Status(503));
    assert_eq!(setup.request("strict", &leaf).status, 401);
    responder.works();
    assert_eq!(setup.request("strict", &leaf).status, 200);
    // What was remembered meanwhile is what it said when it worked.
    responder.web.answer(Answer::Status(503));
    assert_eq!(setup.request("strict", &leaf).status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_good_crl_serves_while_refreshes_fail_up_to_the_operators_bound() {
    for (max_stale, goes_on) in [("3600", true), ("1", false)] {
        let options = [PRIVATE, "--crl-max-stale", max_stale];
        let setup = Setup::start(Protocol::MsgPack, &options, json!({})).await;
        let now = SystemTime::now();
        let end = now + Duration::from_secs(2);
        let list = Forged::of(&setup.ca).time(now - Duration::from_secs(60), Some(end)).number(1);
        let web = WebServer::start(Answer::Body(list.sign(&setup.ca)));
        let leaf = setup.ca.issue(naming(Subject::client("alice"), &[], &[&web.url()]));
        assert_eq!(setup.request("strict", &leaf).status, 200);
        web.answer(Answer::Status(500));
        if !goes_on {
            setup.wait_for("strict", &leaf, |outcome| outcome.says(&["refused: revocation_unknown"]));
            assert!(SystemTime::now() > end, "not before its time is over");
            continue;
        }
        while SystemTime::now() < end + Duration::from_secs(2) {
            let outcome = setup.request("strict", &leaf);
            assert_eq!(outcome.status, 200, "{outcome:?}");
        }
        assert!(web.requests() > 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_waits_well_below_its_time_and_the_next_one_has_the_answer() {
    let options = [PRIVATE, "--event-timeout", "2"];
    let setup = Setup::start(Protocol::MsgPack, &options, json!({})).await;
    for (mode, status, says) in
        [("strict", 401, "refused: revocation_unknown"), ("ignore", 200, "let pass: revocation_unknown")]
    {
        let responder = Responder::of(&setup.ca);
        let leaf = responder.leaf(&setup.ca);
        responder.web.answer(Answer::Hangs);
        let outcome = setup.request(mode, &leaf);
        assert_eq!(outcome.status, status, "{outcome:?}");
        assert!(outcome.says(&[says, "timed_out"]), "{outcome:?}");
        assert!(outcome.took > Duration::from_millis(1500), "{outcome:?}");
        // A request of a longer way has the rest of its time: with 503 it would be over.
        assert!(!outcome.says(&["deadline"]), "{outcome:?}");
        // Nobody waits a second time for what hangs; once it has brought its answer, that counts without another question.
        responder.works();
        let begun = Instant::now();
        let outcome = loop {
            let outcome = setup.request("strict", &leaf);
            assert!(outcome.took < Duration::from_millis(1500), "{outcome:?}");
            if outcome.status == 200 || begun.elapsed() > PATIENCE {
                break outcome;
            }
        };
        assert_eq!((outcome.status, responder.web.requests()), (200, 1), "{outcome:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_waits_no_longer_than_its_http_timeout() {
    let options = [PRIVATE, "--event-timeout", "30"];
    let setup = Setup::start(Protocol::MsgPack, &options, json!({"http_timeout": 300})).await;
    let responder = Responder::of(&setup.ca);
    let leaf = responder.leaf(&setup.ca);
    responder.web.answer(Answer::Hangs);
    let outcome = setup.request("strict", &leaf);
    assert!(outcome.status == 401 && outcome.took < Duration::from_secs(20), "{outcome:?}");
}
