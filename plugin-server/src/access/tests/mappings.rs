//! Which consumer a mapping gives.

use super::*;

#[tokio::test]
async fn a_manual_mapping_comes_before_all_names_and_one_with_the_right_ca_before_one_without() {
    let (root, other) = (Ca::root("root"), Ca::root("other"));
    let issuing = root.intermediate("issuing");
    let world = World { root, ..World::new() };
    let record = |name: &str, consumer: &str, ca: Option<&Ca>, id: Option<&str>| {
        let mut record = json!({"subject_name": name, "consumer": consumer});
        if let Some(ca) = ca {
            record["ca_certificate"] = json!(ca.pem());
        }
        if let Some(id) = id {
            record["id"] = json!(id);
        }
        record
    };
    let with = |credentials: Json| {
        let cas = [world.root.pem(), issuing.pem(), other.pem()];
        world.instance(json!({"ca_certificates": cas, "credentials": credentials}))
    };
    let both = Subject::client("cn").dns("alice").dns("svc");
    let leaf = handed_on(&world.root.issue(both.clone()));
    let under_issuing = handed_on(&issuing.issue(both));
    let (root, issuing, other) = (Some(&world.root), Some(&issuing), Some(&other));
    for (credentials, headers, consumer, credential) in [
        // The first name is a consumer's, and the second is mapped.
        (json!([record("svc", "bob@example.com", None, None)]), &leaf, "bob@example.com", "svc"),
        (
            json!([record("svc", "anon", None, None), record("svc", "bob@example.com", root, Some("m-1"))]),
            &leaf,
            "bob@example.com",
            "m-1",
        ),
        // A mapping for another CA is none.
        (json!([record("svc", "bob@example.com", other, None)]), &leaf, "alice", "alice"),
        (json!([record("svc", "bob@example.com", issuing, None)]), &leaf, "alice", "alice"),
        (
            json!([record("svc", "bob@example.com", other, None), record("svc", "anon", None, None)]),
            &leaf,
            "anon",
            "svc",
        ),
        // A CA anywhere in the chain is one under which the certificate was issued.
        (json!([record("svc", "bob@example.com", issuing, None)]), &under_issuing, "bob@example.com", "svc"),
        (json!([record("svc", "bob@example.com", root, None)]), &under_issuing, "bob@example.com", "svc"),
        // Names compare exactly.
        (
            json!([record("SVC", "anon", None, None), record("sv", "anon", None, None)]),
            &leaf,
            "alice",
            "alice",
        ),
    ] {
        let (verdict, kong) = run(&with(credentials.clone()), headers.clone()).await;
        assert_eq!(verdict, Verdict::Proceed, "{credentials} {:?}", kong.log);
        assert_eq!(kong.consumer.unwrap().username.as_deref(), Some(consumer), "{credentials}");
        assert_eq!(kong.credential.unwrap().id, credential, "{credentials}");
    }
    // A mapping to a consumer that is gone is our fault, not leave to try the next.
    let (verdict, _) = run(&with(json!([record("svc", "nobody", None, None)])), leaf).await;
    assert_eq!(verdict, FAULT);
}

/// As the commercial edition dumps them.
#[tokio::test]
async fn mappings_of_the_declarative_file_count_after_those_of_the_plugin() {
    let world = World::new();
    let file = |ca: Json| {
        let mapping = json!({"id": "0c6f28a5-4f4b-4f3e-8b7e-3a1f4b5c6d7e", "subject_name": "svc", "ca_certificate": ca});
        let file = json!({
            "_format_version": "3.0",
            "ca_certificates": [
                {"id": CA_ID, "cert": world.root.pem()},
                {"id": "11111111-2222-4333-8444-555555555555", "cert": Ca::root("other").pem()},
            ],
            "consumers": [{"username": "alice"}, {"username": "bob", "mtls_auth_credentials": [mapping]}],
        });
        world.entities.send_replace(Arc::new(kong_entities::parse_json(&file.to_string()).unwrap()));
    };
    let leaf = || world.leaf(Subject::client("svc"));
    let username = |kong: &FakeKong| kong.consumer.as_ref().and_then(|consumer| consumer.username.clone());
    let instance = world.instance(json!({}));
    for ca in [json!(null), json!(CA_ID), json!({"id": CA_ID})] {
        file(ca);
        let (_, kong) = run(&instance, leaf()).await;
        assert_eq!(username(&kong).as_deref(), Some("bob"));
        assert_eq!(kong.credential.unwrap().id, "0c6f28a5-4f4b-4f3e-8b7e-3a1f4b5c6d7e");
    }
    // One of a CA that is not the certificate's.
    file(json!("11111111-2222-4333-8444-555555555555"));
    assert_eq!(run(&instance, leaf()).await.0, NOT_VERIFIED);

    // With a CA comes before without, wherever it stands; otherwise the plugin's own comes first.
    let own = world.instance(json!({"credentials": [{"subject_name": "svc", "consumer": "alice"}]}));
    for (ca, expected) in [(json!(null), "alice"), (json!(CA_ID), "bob")] {
        file(ca);
        assert_eq!(username(&run(&own, leaf()).await.1).as_deref(), Some(expected));
    }
}

#[tokio::test]
async fn mappings_are_enough_without_any_consumer_by() {
    let world = World::new();
    let credentials = json!([{"subject_name": "svc", "consumer": "11111111-1111-4111-8111-111111111111"}]);
    let instance = world.instance(json!({"consumer_by": {}, "credentials": credentials}));
    let (_, kong) = run(&instance, world.leaf(Subject::client("svc"))).await;
    assert_eq!(kong.consumer.unwrap().custom_id.as_deref(), Some("carol"));
    let (verdict, _) = run(&instance, world.leaf(Subject::client("alice"))).await;
    assert_eq!(verdict, NOT_VERIFIED);
}
