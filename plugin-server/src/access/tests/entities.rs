//! Where entities come from, and what happens while they do not.

use super::*;

fn consumer(id: &str, username: &str) -> Consumer {
    Consumer { id: id.into(), username: Some(username.into()), custom_id: None }
}

const ALICE: &str = "11111111-1111-4111-8111-111111111111";

/// A Kong that is asked for its own consumers.
fn kong() -> FakeKong {
    let consumers = vec![consumer(ALICE, "alice"), consumer("22222222-2222-4222-8222-222222222222", "anon")];
    FakeKong { consumers, ..FakeKong::default() }
}

/// A root that is trusted, and an instance that asks Kong itself.
fn asking_kong(extra: Json) -> (Ca, Arc<Instance>) {
    let root = Ca::root("root");
    let mut config =
        json!({"certificate_source": "shim", "ca_certificates": [root.pem()], "consumer_by": ["username"]});
    config.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    let instances = instances(EntitySource::Kong(KongConsumers::new()));
    let id = start(&instances, &config.to_string()).unwrap();
    (root, instances.get(id).unwrap())
}

async fn run_at(kong: FakeKong, instance: &Instance, headers: &Headers) -> (Verdict, FakeKong) {
    let mut kong = FakeKong { headers: headers.clone(), ..kong };
    let verdict = access(&mut kong, instance, SystemTime::now()).await.verdict();
    (verdict, kong)
}

/// Lets time go by for what is remembered.
async fn pass(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

#[tokio::test]
async fn kong_itself_is_asked_once_for_a_consumer_within_the_time() {
    let (root, instance) = asking_kong(json!({"cache_ttl": 30}));
    let alice = handed_on(&root.issue(Subject::client("alice")));
    let (verdict, first) = run_at(kong(), &instance, &alice).await;
    assert_eq!(verdict, Verdict::Proceed);
    // One call more than where the consumer is known.
    assert_eq!(first.calls, ["get_headers", "load_consumer", "set_headers", "authenticate"]);
    assert_eq!(first.consumer.unwrap().id, ALICE);
    // Also while Kong's database is down.
    let (verdict, then) = run_at(FakeKong::default(), &instance, &alice).await;
    assert_eq!((verdict, then.calls.len()), (Verdict::Proceed, 3));
    pass(Duration::from_secs(30)).await;
    let (verdict, later) = run_at(FakeKong::default(), &instance, &alice).await;
    assert_eq!(verdict, fault(503));
    assert_eq!(later.asked_for, ["alice", ALICE], "nobody is found, not even who was found last");
    let (verdict, _) = run_at(kong(), &instance, &alice).await;
    assert_eq!(verdict, Verdict::Proceed);
}

#[tokio::test]
async fn that_kong_finds_nobody_is_remembered_where_it_is_sure() {
    let (root, instance) = asking_kong(json!({}));
    let stranger = handed_on(&root.issue(Subject::client("stranger")));
    // Nobody has been found yet.
    for _ in 0..2 {
        let (verdict, asked) = run_at(FakeKong::default(), &instance, &stranger).await;
        assert_eq!((verdict, asked.asked_for), (NOT_VERIFIED, vec!["stranger".to_owned()]));
    }
    run_at(kong(), &instance, &handed_on(&root.issue(Subject::client("alice")))).await;
    for asked_for in [vec!["stranger", ALICE], vec![]] {
        let (verdict, asked) = run_at(kong(), &instance, &stranger).await;
        assert_eq!(verdict, NOT_VERIFIED);
        assert_eq!(asked.asked_for, asked_for);
    }
}

/// Kong says nothing both of a consumer that is not there and of a database that is not.
#[tokio::test]
async fn nobody_is_anonymous_because_kong_does_not_reach_its_database() {
    for extra in [json!({"anonymous": "anon"}), json!({"default_consumer": "anon"})] {
        let (root, instance) = asking_kong(extra.clone());
        let alice = handed_on(&root.issue(Subject::client("alice")));
        let stranger = handed_on(&root.issue(Subject::client("stranger")));
        // The consumer to fall back on is known, and was a moment ago.
        let (verdict, asked) = run_at(kong(), &instance, &stranger).await;
        assert_eq!(verdict, Verdict::Proceed, "{extra} {:?}", asked.log);
        assert_eq!(asked.asked_for, ["stranger", "anon"], "{extra}");
        let (verdict, again) = run_at(kong(), &instance, &stranger).await;
        assert_eq!((verdict, again.asked_for.len()), (Verdict::Proceed, 0), "{extra}");
        let (verdict, down) = run_at(FakeKong::default(), &instance, &alice).await;
        assert_eq!(verdict, fault(503), "{extra}");
        assert!(
            down.log[0].0 == LogLevel::Err && down.log[0].1.contains("entity_source_down"),
            "{:?}",
            down.log
        );
        let (verdict, up) = run_at(kong(), &instance, &alice).await;
        assert_eq!((verdict, up.consumer.unwrap().id.as_str()), (Verdict::Proceed, ALICE), "{extra}");
    }
}

#[tokio::test]
async fn kong_gives_who_was_asked_for_or_nobody_passes() {
    let (root, instance) = asking_kong(json!({"anonymous": "anon"}));
    // Kong looks for an id first: who has another's id for a name is not that other.
    let thief = handed_on(&root.issue(Subject::client(ALICE)));
    let (_, seen) = run_at(kong(), &instance, &thief).await;
    assert_eq!(seen.consumer.unwrap().username.as_deref(), Some("anon"));
    // And of a Kong that answers with anybody nothing is believed.
    let anybody = Some(consumer(ALICE, "alice"));
    let mallory = handed_on(&root.issue(Subject::client("mallory")));
    let (verdict, seen) = run_at(FakeKong { answers_anything: anybody, ..kong() }, &instance, &mallory).await;
    assert_eq!(verdict, FAULT);
    assert!(seen.log[0].1.contains("entity_source_invalid"), "{:?}", seen.log);
}

/// Nobody asks for what cannot be anybody's name.
#[tokio::test]
async fn a_name_that_nobody_can_have_is_not_asked_for() {
    let (root, instance) = asking_kong(json!({}));
    for name in ["a".repeat(2049), "alice\0".to_owned()] {
        let headers = handed_on(&root.issue(Subject::client(&name)));
        let (verdict, seen) = run_at(kong(), &instance, &headers).await;
        assert_eq!((verdict, seen.asked_for.len()), (NOT_VERIFIED, 0));
    }
}

#[tokio::test]
async fn an_instance_that_could_not_decide_does_not_start() {
    let pem = Ca::root("root").pem();
    let config = |extra: Json| {
        let mut config =
            json!({"certificate_source": "shim", "ca_certificates": [pem], "consumer_by": ["username"]});
        config.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        config.to_string()
    };
    let (_sender, receiver) = watch::channel(Arc::new(Entities::default()));
    let declarative = instances(EntitySource::Directory(Directory::declarative(receiver)));
    let kong = instances(EntitySource::Kong(KongConsumers::new()));
    let twice = json!([{"subject_name": "a", "consumer": "b"}, {"subject_name": "a", "consumer": "c"}]);
    let not_a_ca = Ca::root("root").issue(Subject::client("alice")).cert;
    for (instances, extra, field, says) in [
        (&declarative, json!({"credentials": twice}), "config.credentials[1]: ", "twice"),
        (&declarative, json!({"ca_certificates": [CA_ID]}), "config.ca_certificates[0]: ", CA_ID),
        (&declarative, json!({"ca_certificates": [not_a_ca]}), "config.ca_certificates[0]: ", "not a CA"),
        (&kong, json!({"ca_certificates": [pem, CA_ID]}), "config.ca_certificates[1]: ", "--admin-url"),
        (&kong, json!({"consumer_by": ["username", "custom_id"]}), "config.consumer_by: ", "--admin-url"),
    ] {
        let problem = start(instances, &config(extra)).unwrap_err();
        assert!(problem.starts_with(field) && problem.contains(says), "{problem}");
    }
    for extra in [json!({}), json!({"consumer_by": ["custom_id"], "skip_consumer_lookup": true})] {
        assert!(start(&kong, &config(extra)).is_ok());
    }
}

/// Kong lets a request pass for which the answer takes a minute.
#[tokio::test(start_paused = true)]
async fn a_request_that_takes_too_long_is_refused() {
    let (root, instance) = asking_kong(json!({"anonymous": "anon"}));
    let alice = handed_on(&root.issue(Subject::client("alice")));
    let slow = FakeKong { answers_after: Duration::from_secs(6), ..kong() };
    let (verdict, seen) = run_at(slow, &instance, &alice).await;
    assert_eq!(verdict, fault(503));
    assert_eq!(seen.calls, ["get_headers", "get_credential", "load_consumer", "log"]);
    assert!(seen.log[0].0 == LogLevel::Err && seen.log[0].1.contains("deadline"), "{:?}", seen.log);
    let (verdict, _) = run_at(kong(), &instance, &alice).await;
    assert_eq!(verdict, Verdict::Proceed);
}

/// A request does not wait for ever for one that Kong never comes back for.
#[tokio::test(start_paused = true)]
async fn many_requests_ask_for_a_consumer_one_after_the_other_and_for_themselves_at_last() {
    let (root, instance) = asking_kong(json!({}));
    let alice = handed_on(&root.issue(Subject::client("alice")));
    let quick = FakeKong { answers_after: Duration::from_millis(100), ..kong() };
    let (first, second) = tokio::join!(run_at(quick, &instance, &alice), run_at(kong(), &instance, &alice));
    assert_eq!((first.0, second.0), (Verdict::Proceed, Verdict::Proceed));
    assert_eq!((first.1.asked_for.len(), second.1.asked_for.len()), (1, 0));

    tokio::time::advance(Duration::from_secs(60)).await;
    let never = FakeKong { answers_after: Duration::from_secs(3600), ..kong() };
    let (first, second) = tokio::join!(run_at(never, &instance, &alice), run_at(kong(), &instance, &alice));
    assert_eq!((first.0, second.0), (fault(503), Verdict::Proceed));
    assert_eq!(second.1.asked_for, ["alice"]);
}
