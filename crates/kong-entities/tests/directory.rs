//! What the access phase finds, how often the Admin API is asked for it, and for how long an answer counts.

use std::sync::Arc;
use std::time::Duration;

use kong_entities::{
    AdminClient, AdminSettings, ConsumerKey, Directory, FAILURE_PAUSE, SourceFault, parse_json,
};
use serde_json::{Value as Json, json};
use testbed::fake_admin::{CA_ID, ENTITIES, FakeAdmin, Reply, kong, kong_with};
use tokio::sync::watch;

const VICTIM: &str = "11111111-1111-4111-8111-111111111111";
const OTHER: &str = "22222222-2222-4222-8222-222222222222";
const LONG: Duration = Duration::from_secs(60);
/// Asked once before all else: is this Kong's Admin API?
const CHECK: &str = "/consumers?size=1";
const SHORT: Duration = Duration::from_secs(5);

fn admin(server: &FakeAdmin) -> Directory {
    Directory::admin(AdminClient::new(AdminSettings::new(&server.url)).unwrap())
}

fn username(name: &str) -> ConsumerKey {
    ConsumerKey::Username(name.into())
}

/// The id of who is found.
async fn found(directory: &Directory, key: ConsumerKey, max_age: Duration) -> Option<String> {
    directory.consumer(key, max_age).await.unwrap().map(|consumer| consumer.id.clone())
}

/// Lets time go by, for answers; a time limit of a request must not see it, so it stands still otherwise.
async fn pass(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

/// Both sources say the same of the same entities.
#[tokio::test]
async fn every_source_finds_the_same() {
    let server = FakeAdmin::start(kong).await;
    let mut file: Json = serde_json::from_str(ENTITIES).unwrap();
    file["ca_certificates"] = json!([{"id": CA_ID, "cert": "PEM"}]);
    let (_sender, watched) = watch::channel(Arc::new(parse_json(&file.to_string()).unwrap()));
    let keys = |name: &str| {
        let name = name.to_owned();
        [
            ConsumerKey::Id(name.clone()),
            ConsumerKey::Username(name.clone()),
            ConsumerKey::CustomId(name.clone()),
            ConsumerKey::IdOrUsername(name),
        ]
    };
    for directory in [admin(&server), Directory::declarative(watched)] {
        for (name, expected) in [
            ("victim", [None, Some(VICTIM), None, Some(VICTIM)]),
            ("c-victim", [None, None, Some(VICTIM), None]),
            // One's id and another's username.
            (VICTIM, [Some(VICTIM), Some(OTHER), None, Some(VICTIM)]),
            (OTHER, [Some(OTHER), None, None, Some(OTHER)]),
            ("99999999-9999-4999-8999-999999999999", {
                let found = Some("22222222-2222-4222-8222-222222222223");
                [None, found, None, found]
            }),
            ("only custom/ü+%&", [None, None, Some("33333333-3333-4333-8333-333333333333"), None]),
            ("", [None; 4]),
            ("victim\0", [None; 4]),
            ("Victim", [None; 4]),
        ] {
            for (key, expected) in keys(name).into_iter().zip(expected) {
                assert_eq!(found(&directory, key.clone(), LONG).await.as_deref(), expected, "{key:?}");
            }
        }
        let ca = directory.ca_certificate(CA_ID, LONG).await.unwrap().unwrap();
        assert_eq!(ca.cert, "PEM");
        assert_eq!(directory.ca_certificate("x", LONG).await, Ok(None));
    }
}

#[test]
fn mappings_come_from_a_declarative_file() {
    let mut file: Json = serde_json::from_str(ENTITIES).unwrap();
    file["mtls_auth_credentials"] = json!([{"subject_name": "a name", "consumer": "victim"}]);
    let (_sender, watched) = watch::channel(Arc::new(parse_json(&file.to_string()).unwrap()));
    let directory = Directory::declarative(watched);
    assert_eq!(directory.mappings("a name")[0].consumer.id, VICTIM);
    assert_eq!(directory.mappings("another"), []);
}

#[tokio::test]
async fn who_is_found_and_who_is_not_is_asked_for_once_within_the_time() {
    let server = FakeAdmin::start(kong).await;
    let directory = admin(&server);
    for _ in 0..3 {
        assert!(found(&directory, username("victim"), LONG).await.is_some());
        assert!(found(&directory, username("nobody"), LONG).await.is_none());
        assert!(found(&directory, ConsumerKey::CustomId("nobody".into()), LONG).await.is_none());
        // By another way, but the same question.
        assert!(found(&directory, ConsumerKey::IdOrUsername("victim".into()), LONG).await.is_some());
        let ca = directory.ca_certificate(CA_ID, LONG).await.unwrap().unwrap();
        // Another instance may want it newer; what has not changed is the same, then as well.
        pass(SHORT).await;
        assert!(Arc::ptr_eq(&ca, &directory.ca_certificate(CA_ID, SHORT).await.unwrap().unwrap()));
    }
    let ca = "/ca_certificates/6ae7a1a4-0cf0-4b6a-9d3f-3f7c5a0b1c2d";
    assert_eq!(
        server.take_targets(),
        [CHECK, "/consumers/victim", "/consumers/nobody", "/consumers?custom_id=nobody", ca, ca, ca, ca]
    );
}

#[tokio::test]
async fn a_change_counts_within_the_time() {
    let server = FakeAdmin::start(kong).await;
    let directory = admin(&server);
    assert_eq!(found(&directory, username("victim"), SHORT).await.as_deref(), Some(VICTIM));
    assert_eq!(found(&directory, username("nobody"), SHORT).await, None);
    server.becomes(|seen| kong_with(&[json!({"id": OTHER, "username": "nobody"})], seen));
    assert_eq!(found(&directory, username("victim"), SHORT).await.as_deref(), Some(VICTIM));
    pass(SHORT).await;
    assert_eq!(found(&directory, username("victim"), SHORT).await, None);
    assert_eq!(found(&directory, username("nobody"), SHORT).await.as_deref(), Some(OTHER));
}

#[tokio::test]
async fn a_server_that_is_down_lets_nobody_pass_who_is_not_remembered() {
    let server = FakeAdmin::start(kong).await;
    let directory = admin(&server);
    assert!(found(&directory, username("victim"), SHORT).await.is_some());
    directory.ca_certificate(CA_ID, SHORT).await.unwrap().unwrap();
    server.take_seen();
    server.becomes(|_| Reply::Answer(503, "text/html", String::new()));
    assert!(found(&directory, username("victim"), SHORT).await.is_some());
    for _ in 0..3 {
        assert!(directory.consumer(username("nobody"), LONG).await.unwrap_err().is_outage());
        assert!(
            directory.consumer(ConsumerKey::IdOrUsername(OTHER.into()), LONG).await.unwrap_err().is_outage()
        );
    }
    pass(SHORT).await;
    for _ in 0..3 {
        assert!(directory.consumer(username("victim"), SHORT).await.unwrap_err().is_outage());
        assert!(directory.ca_certificate(CA_ID, SHORT).await.unwrap_err().is_outage());
    }
    assert_eq!(server.take_targets().len(), 4, "each question is asked once in a moment");
    server.becomes(kong);
    pass(FAILURE_PAUSE).await;
    assert!(found(&directory, username("victim"), SHORT).await.is_some());
}

/// Under a wrong path, Kong says to everything that there is no such thing.
#[tokio::test]
async fn nothing_is_believed_before_it_is_known_to_be_kong() {
    let server = FakeAdmin::start(|_| testbed::fake_admin::not_found()).await;
    let directory = admin(&server);
    for _ in 0..3 {
        assert_eq!(directory.check().await.unwrap_err().fault, SourceFault::Status(404));
        let error = directory.consumer(username("victim"), LONG).await.unwrap_err();
        assert_eq!(error.fault, SourceFault::Status(404));
        assert!(directory.ca_certificate(CA_ID, LONG).await.is_err());
    }
    assert_eq!(server.take_targets(), [CHECK], "once in a moment");
    server.becomes(kong);
    pass(FAILURE_PAUSE).await;
    assert_eq!(found(&directory, username("victim"), LONG).await.as_deref(), Some(VICTIM));
    pass(LONG * 100).await;
    assert_eq!(found(&directory, username("victim"), LONG).await.as_deref(), Some(VICTIM));
    assert_eq!(server.take_targets(), [CHECK, "/consumers/victim", "/consumers/victim"]);
}

#[tokio::test]
async fn many_at_once_ask_once() {
    let server = FakeAdmin::start(kong).await;
    let directory = Arc::new(admin(&server));
    let callers: Vec<_> = (0..40)
        .map(|number| {
            let directory = Arc::clone(&directory);
            let key = username(if number % 2 == 0 { "victim" } else { VICTIM });
            tokio::spawn(async move { found(&directory, key, LONG).await })
        })
        .collect();
    for (number, caller) in callers.into_iter().enumerate() {
        let expected = if number % 2 == 0 { VICTIM } else { OTHER };
        assert_eq!(caller.await.unwrap().as_deref(), Some(expected));
    }
    let mut targets = server.take_targets();
    targets.sort();
    assert_eq!(targets, ["/consumers/victim", CHECK, "/consumers?size=1000"]);
}

/// Kong looks for such a name among the ids only, so all consumers are walked through: once for all such names.
#[tokio::test]
async fn usernames_like_ids_cost_one_walk() {
    let server = FakeAdmin::start(kong).await;
    let directory = admin(&server);
    for number in 0..50 {
        let name = format!("77777777-7777-4777-8777-{number:012}");
        assert_eq!(found(&directory, username(&name), LONG).await, None);
    }
    assert_eq!(found(&directory, username(VICTIM), LONG).await.as_deref(), Some(OTHER));
    assert_eq!(server.take_targets(), [CHECK, "/consumers?size=1000"]);
}

/// However many names are asked for: Kong's Admin API has other things to do.
#[tokio::test]
async fn a_flood_of_names_is_no_flood_of_requests() {
    let server = FakeAdmin::start(kong).await;
    let directory = Arc::new(admin(&server));
    directory.check().await.unwrap();
    server.take_seen();
    server.becomes(|_| Reply::Hang);
    tokio::time::pause();
    let callers: Vec<_> = (0..200)
        .map(|number| {
            let directory = Arc::clone(&directory);
            tokio::spawn(async move { directory.consumer(username(&format!("n{number}")), LONG).await })
        })
        .collect();
    for caller in callers {
        let error = caller.await.unwrap().unwrap_err();
        assert_eq!(error.fault, SourceFault::TimedOut(Duration::from_secs(3)));
    }
    let seen = server.take_seen().len();
    assert!((1..=16).contains(&seen), "{seen}");
}
