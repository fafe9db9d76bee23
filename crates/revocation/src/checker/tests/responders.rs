//! What responders say, and for how long it counts.

use super::*;

const IN_A_DAY: &[&str] = &["-ndays", "1"];

#[tokio::test(start_paused = true)]
async fn many_at_once_ask_once_and_an_answer_counts_for_its_time() {
    let lab = Lab::new();
    lab.respond(OCSP, SECOND, IN_A_DAY);
    let (leaf, link) = lab.leaf(&[OCSP], &[]);
    let deadline = Instant::now() + 4 * SECOND;
    let links = vec![&link; 50];
    let findings = lab.checker.check(&links, &lab.terms, deadline).await;
    assert!(findings.iter().all(|finding| codes(finding) == ["good"]));
    assert_eq!(lab.servers.asked(), [format!("POST {OCSP}")]);

    // Until the instance wants to know it anew; another instance may be content with it for longer.
    lab.set(&leaf, State::Revoked);
    tokio::time::advance(HOUR / 2).await;
    assert_eq!(lab.codes(&link).await, ["good"]);
    assert_eq!(lab.servers.asked(), [] as [&str; 0]);
    let patient = terms(30 * SECOND, 10 * HOUR);
    tokio::time::advance(HOUR / 2).await;
    assert_eq!(codes(&lab.check_within(&link, &patient, 4 * SECOND).await), ["good"]);
    assert_eq!(lab.codes(&link).await, ["revoked"]);
    assert_eq!(lab.servers.asked(), [format!("POST {OCSP}")]);
    assert_eq!(
        codes(&lab.check_within(&link, &patient, 4 * SECOND).await),
        ["revoked"],
        "they remember together"
    );

    // It counts whatever happens to the responder, and however short the memory of the instance is.
    lab.servers.fail(OCSP);
    tokio::time::advance(10 * HOUR).await;
    let forgetful = terms(30 * SECOND, Duration::ZERO);
    assert_eq!(codes(&lab.check_within(&link, &forgetful, 4 * SECOND).await), ["revoked"]);
    tokio::time::advance(14 * HOUR).await;
    assert_eq!(lab.codes(&link).await, ["http_status"]);
}

#[tokio::test(start_paused = true)]
async fn trouble_is_not_remembered() {
    let lab = Lab::new();
    let (_, link) = lab.leaf(&[OCSP], &[]);
    let page = b"<html>".to_vec();
    for (answer, code) in [
        (Err(Trouble::HttpStatus(500)), "http_status"),
        (Err(Trouble::Unreachable(String::new())), "unreachable"),
        (Ok(Vec::new()), "malformed"),
        (Ok(page), "malformed"),
    ] {
        lab.servers.set(OCSP, move |_| (Duration::ZERO, answer.clone()));
        assert_eq!(lab.codes(&link).await, [code]);
    }
    lab.respond(OCSP, Duration::ZERO, IN_A_DAY);
    assert_eq!(lab.codes(&link).await, ["good"]);
    assert_eq!(lab.servers.asked().len(), 5);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_comes_too_late_is_there_for_the_next() {
    let lab = Lab::new();
    lab.respond(OCSP, 10 * SECOND, IN_A_DAY);
    let (_, link) = lab.leaf(&[OCSP], &[]);
    let finding = lab.check(&link).await;
    assert_eq!(codes(&finding), ["timed_out"]);
    assert_eq!(lab.begun.elapsed(), 4 * SECOND);
    // Whoever asks meanwhile waits for the same.
    let finding = lab.check_within(&link, &lab.terms, 10 * SECOND).await;
    assert_eq!((codes(&finding), lab.begun.elapsed()), (vec!["good"], 10 * SECOND));
    assert_eq!(lab.servers.asked().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_fetch_ends_after_its_own_time_though_nobody_waits() {
    let lab = Lab::new();
    lab.servers.hang(OCSP);
    let (_, link) = lab.leaf(&[OCSP], &[]);
    let finding = lab.check_within(&link, &lab.terms, HOUR).await;
    assert_eq!(finding.said[0].result, Err(Trouble::TimedOut(30 * SECOND)));
    assert_eq!(lab.begun.elapsed(), 30 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_renewed_before_its_time_is_over_and_nobody_waits_for_that() {
    let lab = Lab::new();
    lab.respond(OCSP, SECOND, IN_A_DAY);
    let (_, link) = lab.leaf(&[OCSP], &[]);
    assert_eq!(lab.codes(&link).await, ["good"]);
    lab.servers.asked();
    tokio::time::advance(50 * MINUTE).await;
    let begun = Instant::now();
    for _ in 0..10 {
        assert_eq!(lab.codes(&link).await, ["good"]);
    }
    assert_eq!(begun.elapsed(), Duration::ZERO);
    tokio::time::sleep(2 * SECOND).await;
    assert_eq!(lab.servers.asked().len(), 1);
    tokio::time::advance(20 * MINUTE).await;
    assert_eq!((lab.codes(&link).await, lab.servers.asked().len()), (vec!["good"], 0));

    // While that fails, the one that is there goes on to count, and it is not tried with each request.
    lab.servers.fail(OCSP);
    tokio::time::advance(30 * MINUTE).await;
    for _ in 0..10 {
        assert_eq!(lab.codes(&link).await, ["good"]);
        lab.settle().await;
    }
    assert_eq!(lab.servers.asked().len(), 1);
    tokio::time::advance(RETRY).await;
    assert_eq!(lab.codes(&link).await, ["good"]);
    lab.settle().await;
    assert_eq!(lab.servers.asked().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_responder_that_takes_no_post_is_asked_by_get() {
    for refusal in [
        Err(Trouble::HttpStatus(405)),
        Err(Trouble::HttpStatus(404)),
        Err(Trouble::HttpStatus(501)),
        Err(Trouble::HttpStatus(411)),
        // malformedRequest
        Ok(vec![0x30, 3, 0x0a, 1, 1]),
    ] {
        let lab = Lab::new();
        let (_, link) = lab.leaf(&[OCSP], &[]);
        let question = crate::ocsp::Question::about(&link, None);
        let answer = lab.authority.lock().unwrap().answer(question.der(), IN_A_DAY);
        lab.servers.set(OCSP, move |query| {
            let is_right = query.url == question.url(OCSP);
            (
                Duration::ZERO,
                if query.post.is_some() {
                    refusal.clone()
                } else {
                    assert!(is_right);
                    Ok(answer.clone())
                },
            )
        });
        assert_eq!(lab.codes(&link).await, ["good"]);
        assert_eq!(lab.servers.asked(), [format!("POST {OCSP}"), format!("GET {OCSP}")]);
    }
    let lab = Lab::new();
    let (_, link) = lab.leaf(&[OCSP], &[]);
    lab.servers.fail(OCSP);
    assert_eq!((lab.codes(&link).await, lab.servers.asked().len()), (vec!["http_status"], 1));
}

#[tokio::test(start_paused = true)]
async fn one_responder_after_the_other_is_asked_until_one_knows_it() {
    let lab = Lab::new();
    let urls = ["http://a.example/", "http://b.example/", "http://c.example/"];
    let (leaf, link) = lab.leaf(&urls, &[]);
    lab.servers.fail(urls[0]);
    lab.respond(urls[1], Duration::ZERO, IN_A_DAY);
    lab.respond(urls[2], Duration::ZERO, IN_A_DAY);
    assert_eq!(lab.codes(&link).await, ["http_status", "good"]);
    lab.set(&leaf, State::Revoked);
    tokio::time::advance(HOUR).await;
    assert_eq!(lab.codes(&link).await, ["http_status", "revoked"]);
    assert_eq!(lab.servers.asked().len(), 4);
}

#[tokio::test(start_paused = true)]
async fn who_is_unknown_is_asked_about_again_soon() {
    let lab = Lab::new();
    lab.respond(OCSP, Duration::ZERO, IN_A_DAY);
    let stranger = lab.ca.issue(naming(Subject::client("bob"), &[OCSP], &[]));
    let link = link(&lab.ca, &stranger.der);
    assert_eq!(lab.codes(&link).await, ["unknown"]);
    tokio::time::advance(20 * SECOND).await;
    assert_eq!((lab.codes(&link).await, lab.servers.asked().len()), (vec!["unknown"], 1));
    lab.set(&stranger, State::Valid);
    tokio::time::advance(MINUTE).await;
    assert_eq!(lab.codes(&link).await, ["good"]);
}

#[tokio::test(start_paused = true)]
async fn what_one_instance_sets_makes_no_others_fetch_fail() {
    let lab = Lab::new();
    let (_, link) = lab.leaf(&[OCSP], &[]);
    lab.servers.hang(OCSP);
    let (hasty, patient) = (terms(SECOND, HOUR), terms(30 * SECOND, HOUR));
    let own = lab.check_within(&link, &hasty, 4 * SECOND).await;
    assert_eq!(own.said[0].result, Err(Trouble::TimedOut(SECOND)));
    let (checker, also) = (lab.checker.clone(), Arc::clone(&link));
    let deadline = Instant::now() + 20 * SECOND;
    lab.respond(OCSP, 5 * SECOND, IN_A_DAY);
    let waiting = tokio::spawn(async move { checker.check(&[&also], &patient, deadline).await.remove(0) });
    lab.settle().await;
    let own = lab.check_within(&link, &hasty, 4 * SECOND).await;
    assert_eq!(own.said[0].result, Err(Trouble::TimedOut(SECOND)));
    assert_eq!(codes(&waiting.await.unwrap()), ["good"]);
    assert_eq!(codes(&lab.check_within(&link, &hasty, 4 * SECOND).await), ["good"]);
}
