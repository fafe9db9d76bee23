mod deceiving;
mod entities;
mod mappings;
mod sources;

use std::time::Duration;

use ::revocation::{Checker, Options};
use client_cert::{Presented, Proof, ProofKey};
use kong_entities::{Directory, Entities, Watched};
use serde_json::{Value as Json, json};
use testbed::pki::{Ca, Leaf, Subject};
use tokio::sync::watch;

use super::*;
use crate::entity_source::{EntitySource, KongConsumers};
use crate::ids::Run;
use crate::instance::{Instances, Shared};
use crate::revocation::Revocation;

/// Kong, as far as the access phase can tell: answers, and writes down what it was asked.
#[derive(Default)]
struct FakeKong {
    headers: Headers,
    authenticated_before: bool,
    /// Where requests come from, and whether Kong trusts it.
    peer: Option<(&'static str, bool)>,
    /// The consumers that Kong's PDK finds; none while its database is down, of whom it was asked for.
    consumers: Vec<Consumer>,
    asked_for: Vec<String>,
    answers_after: Duration,
    /// A Kong that gives this consumer whoever is asked for.
    answers_anything: Option<Consumer>,
    /// What a client presented to Kong's own listener.
    tls_chain: Option<String>,
    calls: Vec<&'static str>,
    consumer: Option<Consumer>,
    credential: Option<Credential>,
    group: Option<String>,
    changes: Vec<(String, Option<String>)>,
    log: Vec<(LogLevel, String)>,
}

impl Pdk for FakeKong {
    async fn request_headers(&mut self) -> Result<Headers, PdkFault> {
        self.calls.push("get_headers");
        Ok(self.headers.clone())
    }
    async fn is_authenticated(&mut self) -> bool {
        self.calls.push("get_credential");
        self.authenticated_before
    }
    async fn client_ip(&mut self) -> Option<String> {
        self.calls.push("get_ip");
        self.peer.map(|(address, _)| address.to_owned())
    }
    async fn is_trusted_ip(&mut self, address: &str) -> bool {
        self.calls.push("is_trusted");
        self.peer.is_some_and(|(peer, trusted)| peer == address && trusted)
    }
    async fn client_certificate_chain(&mut self) -> Option<Vec<u8>> {
        self.calls.push("get_full_client_certificate_chain");
        self.tls_chain.clone().map(String::into_bytes)
    }
    async fn load_consumer(&mut self, id_or_username: &str) -> Result<Option<Consumer>, PdkFault> {
        self.calls.push("load_consumer");
        self.asked_for.push(id_or_username.to_owned());
        tokio::time::sleep(self.answers_after).await;
        if self.answers_anything.is_some() {
            return Ok(self.answers_anything.clone());
        }
        let by_id = self.consumers.iter().find(|consumer| consumer.id == id_or_username);
        let by_username =
            || self.consumers.iter().find(|consumer| consumer.username.as_deref() == Some(id_or_username));
        Ok(by_id.or_else(by_username).cloned())
    }
    async fn authenticate(&mut self, consumer: Option<&Consumer>, credential: Option<&Credential>) {
        assert!(consumer.is_some() || credential.is_some(), "Kong throws");
        self.calls.push("authenticate");
        self.consumer = consumer.cloned();
        self.credential = credential.cloned();
    }
    async fn set_authenticated_group(&mut self, group: &str) {
        self.calls.push("shared.set");
        self.group = Some(group.to_owned());
    }
    async fn set_request_headers(&mut self, headers: Vec<(String, Option<String>)>) {
        let is_settled = self.consumer.is_some() || self.credential.is_some();
        assert!(!is_settled, "were Kong to lose us now, the guard would let pass what the client has set");
        self.calls.push("set_headers");
        self.changes = headers;
    }
    async fn log(&mut self, level: LogLevel, text: String) {
        self.calls.push("log");
        self.log.push((level, text));
    }
}

impl FakeKong {
    /// What the upstream gets, by lower-case name as spelled.
    fn upstream(&self) -> Vec<(String, String)> {
        let changed = |name: &str| self.changes.iter().any(|(change, _)| change.eq_ignore_ascii_case(name));
        let kept = self.headers.iter().flat_map(|(name, values)| {
            let name = String::from_utf8(name.clone()).unwrap();
            values.iter().map(move |value| (name.clone(), String::from_utf8_lossy(value).into_owned()))
        });
        let set =
            self.changes.iter().filter_map(|(name, value)| Some((name.to_ascii_lowercase(), value.clone()?)));
        let mut upstream: Vec<_> = kept.filter(|(name, _)| !changed(name)).chain(set).collect();
        upstream.sort();
        upstream
    }
}

const KEY: [u8; 32] = [9; 32];
const CA_ID: &str = "6ae7a1a4-0cf0-4b6a-9d3f-3f7c5a0b1c2d";

/// A plugin server with a root that is trusted, and consumers `alice`, `bob@example.com` and `anon`.
struct World {
    root: Ca,
    instances: Instances,
    /// Keeps the entities, and changes them.
    entities: watch::Sender<Arc<Entities>>,
}

fn entities(ca: &Ca) -> Arc<Entities> {
    let file = json!({
        "_format_version": "3.0",
        "ca_certificates": [{"id": CA_ID, "cert": ca.pem()}],
        "consumers": [
            {"username": "alice", "custom_id": "c-alice"},
            {"username": "bob@example.com"},
            {"id": "11111111-1111-4111-8111-111111111111", "custom_id": "carol"},
            {"username": "anon"},
        ],
    });
    Arc::new(kong_entities::parse_json(&file.to_string()).unwrap())
}

impl World {
    fn new() -> Self {
        let root = Ca::root("root");
        let (sender, receiver): (_, Watched) = watch::channel(entities(&root));
        let source = EntitySource::Directory(Directory::declarative(receiver));
        Self { root, instances: instances(source), entities: sender }
    }

    fn instance(&self, extra: Json) -> Arc<Instance> {
        let mut config = json!({
            "certificate_source": "shim", "ca_certificates": [CA_ID],
            "consumer_by": ["username", "custom_id"], "authenticated_group_by": "CN",
        });
        config.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        let id = start(&self.instances, &config.to_string()).unwrap();
        self.instances.get(id).unwrap()
    }

    fn leaf(&self, subject: Subject) -> Headers {
        handed_on(&self.root.issue(subject))
    }
}

fn instances(source: EntitySource) -> Instances {
    let revocation = Revocation::Checked(Checker::new(Options::default()).unwrap());
    let shared = Shared::new(source, ProofKey::from_bytes(KEY), revocation, Duration::from_secs(5));
    Instances::new(Arc::new(shared), Run::random())
}

/// Starts an instance whose source answers at once.
fn start(instances: &Instances, config: &str) -> Result<u64, String> {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match std::pin::pin!(instances.start(config)).poll(&mut context) {
        std::task::Poll::Ready(started) => started,
        std::task::Poll::Pending => panic!("it waits"),
    }
}

/// The headers that the shim sends for a certificate.
fn handed_on(leaf: &Leaf) -> Headers {
    let presented = Presented { leaf: leaf.der.clone(), chain: vec![] };
    let proof = Proof::write(&ProofKey::from_bytes(KEY), &presented, "", SystemTime::now());
    headers(&[("host", "x"), ("client-cert", &presented.leaf_header()), ("client-cert-proof", &proof)])
}

fn headers(list: &[(&str, &str)]) -> Headers {
    list.iter().map(|(name, value)| (name.as_bytes().to_vec(), vec![value.as_bytes().to_vec()])).collect()
}

async fn run(instance: &Instance, headers: Headers) -> (Verdict, FakeKong) {
    let mut kong = FakeKong { headers, ..FakeKong::default() };
    let verdict = access(&mut kong, instance, SystemTime::now()).await.verdict();
    (verdict, kong)
}

fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[tokio::test]
async fn a_certificate_with_a_consumers_name_is_that_consumer_in_three_calls() {
    let world = World::new();
    let instance = world.instance(json!({}));
    let (verdict, kong) = run(&instance, world.leaf(Subject::client("alice"))).await;
    assert_eq!(verdict, Verdict::Proceed);
    // With HandleEvent before them, four RPC calls.
    assert_eq!(kong.calls, ["get_headers", "set_headers", "authenticate"]);
    let consumer = kong.consumer.as_ref().unwrap();
    assert_eq!(consumer.username.as_deref(), Some("alice"));
    assert_eq!(kong.credential.as_ref().unwrap().id, "alice");
    assert_eq!(
        kong.upstream(),
        pairs(&[
            ("host", "x"),
            ("x-consumer-custom-id", "c-alice"),
            ("x-consumer-id", &consumer.id),
            ("x-consumer-username", "alice"),
            ("x-credential-identifier", "alice"),
        ])
    );
}

#[tokio::test]
async fn each_name_is_tried_in_turn_and_each_as_username_first() {
    let world = World::new();
    let subject = Subject::client("alice")
        .dns("nobody")
        .san(testbed::pki::rcgen::SanType::Rfc822Name("bob@example.com".try_into().unwrap()))
        .dns("carol");
    let (_, kong) = run(&world.instance(json!({})), world.leaf(subject.clone())).await;
    assert_eq!(kong.credential.unwrap().id, "bob@example.com");
    let by_custom_id = world.instance(json!({"consumer_by": ["custom_id"]}));
    let (_, kong) = run(&by_custom_id, world.leaf(subject)).await;
    assert_eq!(kong.consumer.unwrap().custom_id.as_deref(), Some("carol"));
    // An id is no username, and no mapping is asked for here.
    for (extra, cn) in
        [(json!({}), "11111111-1111-4111-8111-111111111111"), (json!({"consumer_by": {}}), "alice")]
    {
        let (verdict, _) = run(&world.instance(extra), world.leaf(Subject::client(cn))).await;
        assert_eq!(verdict, NOT_VERIFIED, "{cn}");
    }
}

#[tokio::test]
async fn whoever_is_not_authenticated_is_refused_with_one_of_two_texts_and_a_reason_for_the_log() {
    let world = World::new();
    let instance = world.instance(json!({}));
    let good = world.leaf(Subject::client("alice"));
    let without = |name: &str| -> Headers {
        good.iter().filter(|(header, _)| header != name.as_bytes()).cloned().collect()
    };
    let with = |name: &str, value: &str| -> Headers {
        let mut headers = without(name);
        headers.push((name.into(), vec![value.into()]));
        headers
    };
    let doubled: Headers =
        good.iter().map(|(name, values)| (name.clone(), [values.clone(), values.clone()].concat())).collect();
    let twice: Headers = [good.clone(), good.clone()].concat();
    let too_many = [":AA==:"; client_cert::MAX_CERTIFICATES].join(", ");
    let too_large = format!(":{}:", "A".repeat(client_cert::MAX_HEADER_BYTES));
    let stale = {
        let leaf = world.root.issue(Subject::client("alice"));
        let presented = Presented { leaf: leaf.der, chain: vec![] };
        let an_hour_ago = SystemTime::now() - Duration::from_secs(3600);
        let proof = Proof::write(&ProofKey::from_bytes(KEY), &presented, "", an_hour_ago);
        headers(&[("client-cert", &presented.leaf_header()), ("client-cert-proof", &proof)])
    };
    for (headers, expected, reason) in [
        (headers(&[("host", "x")]), NO_CERTIFICATE, "no_certificate"),
        (Headers::new(), NO_CERTIFICATE, "no_certificate"),
        (handed_on(&Ca::root("root").issue(Subject::client("alice"))), NOT_VERIFIED, "untrusted"),
        (world.leaf(Subject::client("alice").expired()), NOT_VERIFIED, "expired"),
        (world.leaf(Subject::client("alice").not_yet_valid()), NOT_VERIFIED, "not_yet_valid"),
        (world.leaf(Subject::server(&["alice"])), NOT_VERIFIED, "wrong_purpose"),
        (world.leaf(Subject::client("stranger")), NOT_VERIFIED, "no_consumer"),
        (without("client-cert-proof"), NOT_VERIFIED, "proof_missing"),
        (without("client-cert"), NOT_VERIFIED, "malformed"),
        (with("client-cert-proof", "v1.1.x.y"), NOT_VERIFIED, "proof_invalid"),
        (with("client-cert-chain", ":AA==:"), NOT_VERIFIED, "proof_invalid"),
        (with("client-cert-chain", "x"), NOT_VERIFIED, "malformed"),
        (with("client-cert-chain", &too_many), NOT_VERIFIED, "malformed, more than 10 certificates"),
        (with("client-cert-chain", &too_large), NOT_VERIFIED, "malformed, more than 65536 bytes"),
        (with("client_cert", ":AA==:"), NOT_VERIFIED, "malformed"),
        (with("client_cert_proof", "x"), NOT_VERIFIED, "malformed"),
        (headers(&[("client_cert", "x")]), NOT_VERIFIED, "malformed"),
        (headers(&[("client-cert", "")]), NOT_VERIFIED, "proof_missing"),
        (doubled, NOT_VERIFIED, "malformed"),
        (twice, NOT_VERIFIED, "malformed"),
        (stale, NOT_VERIFIED, "proof_expired"),
    ] {
        let (verdict, kong) = run(&instance, headers).await;
        assert_eq!(verdict, expected, "{reason}");
        assert_eq!(kong.calls, ["get_headers", "log"], "{reason}");
        let (level, line) = &kong.log[0];
        assert_eq!(*level, LogLevel::Notice);
        assert!(line.starts_with(&format!("refused: {reason}")), "{line}");
    }
}

#[tokio::test]
async fn the_log_says_which_certificate_it_was() {
    let world = World::new();
    let (_, kong) = run(&world.instance(json!({})), world.leaf(Subject::client("a\nforged line"))).await;
    let line = &kong.log[0].1;
    assert!(
        line.contains("issuer: \"CN=root\"") && line.contains("sha256: ") && !line.contains('\n'),
        "{line}"
    );
}

#[tokio::test]
async fn anonymous_lets_everybody_in_as_that_consumer() {
    let world = World::new();
    let instance = world.instance(json!({"anonymous": "anon"}));
    for (headers, logged) in
        [(headers(&[("host", "x")]), 0), (world.leaf(Subject::client("alice").expired()), 1)]
    {
        let (verdict, kong) = run(&instance, headers).await;
        assert_eq!(verdict, Verdict::Proceed);
        assert_eq!(kong.log.len(), logged);
        assert_eq!(kong.credential, None);
        let id = kong.consumer.as_ref().unwrap().id.clone();
        let expected = [
            ("host", "x"),
            ("x-anonymous-consumer", "true"),
            ("x-consumer-id", &id),
            ("x-consumer-username", "anon"),
        ];
        assert_eq!(kong.upstream(), pairs(&expected));
    }
    let (_, kong) = run(&instance, world.leaf(Subject::client("alice"))).await;
    assert_eq!(kong.calls, ["get_headers", "get_credential", "set_headers", "authenticate"]);
    assert_eq!(kong.credential.unwrap().id, "alice");
}

#[tokio::test]
async fn with_anonymous_whom_an_earlier_plugin_authenticated_is_left_alone() {
    let world = World::new();
    let details = json!({"anonymous": "anon", "inject_client_cert_details": true, "client_serial_header_name": "X-Serial"});
    let instance = world.instance(details);
    let mut headers = world.leaf(Subject::client("alice"));
    let forged = [("x_consumer_username", "forged"), ("x-serial", "forged"), ("x_serial", "forged")];
    headers.extend(self::headers(&[&[("x-consumer-username", "early")], &forged[..]].concat()));
    let mut kong = FakeKong { headers, authenticated_before: true, ..FakeKong::default() };
    assert_eq!(access(&mut kong, &instance, SystemTime::now()).await.verdict(), Verdict::Proceed);
    assert_eq!(kong.calls, ["get_headers", "get_credential", "set_headers"]);
    assert_eq!(kong.upstream(), pairs(&[("host", "x"), ("x-consumer-username", "early")]));
}

#[tokio::test]
async fn skip_mode_gives_a_group_and_no_consumer() {
    let world = World::new();
    let leaf = || world.leaf(Subject::client("ops").dns("ops.example"));
    let identity = [("host", "x"), ("x-client-cert-dn", "CN=ops"), ("x-client-cert-san", "DNS:ops.example")];
    for (group_by, group) in [(json!("CN"), Some("ops")), (json!("DN"), Some("CN=ops")), (json!(null), None)]
    {
        let config = json!({"skip_consumer_lookup": true, "authenticated_group_by": group_by});
        let (verdict, kong) = run(&world.instance(config), leaf()).await;
        assert_eq!(verdict, Verdict::Proceed);
        assert_eq!(kong.group.as_deref(), group);
        assert_eq!(kong.consumer, None);
        assert_eq!(kong.credential.as_ref().unwrap().id, "CN=ops");
        assert_eq!(kong.calls.len(), 3 + usize::from(group.is_some()));
        assert_eq!(kong.upstream(), pairs(&identity));
    }
    let (verdict, _) = run(&world.instance(json!({"skip_consumer_lookup": true})), headers(&[])).await;
    assert_eq!(verdict, NO_CERTIFICATE);
}

/// Where Kong loses the plugin server in between, the guard beside it then finds nobody.
#[tokio::test]
async fn who_it_is_is_said_last() {
    let world = World::new();
    for (config, subject) in [
        (json!({}), "alice"),
        (json!({"default_consumer": "bob@example.com"}), "stranger"),
        (json!({"skip_consumer_lookup": true}), "alice"),
        (json!({"anonymous": "anon"}), "stranger"),
    ] {
        let (verdict, kong) = run(&world.instance(config), world.leaf(Subject::client(subject))).await;
        assert_eq!((verdict, kong.calls.last()), (Verdict::Proceed, Some(&"authenticate")));
    }
}

#[tokio::test]
async fn the_default_consumer_is_for_trusted_certificates_only() {
    let world = World::new();
    let instance = world.instance(json!({"default_consumer": "bob@example.com"}));
    let (verdict, kong) = run(&instance, world.leaf(Subject::client("stranger"))).await;
    assert_eq!((verdict, kong.credential.unwrap().id.as_str()), (Verdict::Proceed, "stranger"));
    assert_eq!(kong.consumer.unwrap().username.as_deref(), Some("bob@example.com"));
    let (verdict, _) = run(&instance, world.leaf(Subject::client("stranger").expired())).await;
    assert_eq!(verdict, NOT_VERIFIED);
    let (verdict, _) = run(&instance, headers(&[])).await;
    assert_eq!(verdict, NO_CERTIFICATE);
}

#[tokio::test]
async fn what_a_client_may_not_set_goes_in_every_spelling_and_nothing_else_does() {
    let world = World::new();
    let forged = [
        ("x_consumer_id", "f"),
        ("x-consumer_id", "f"),
        ("x-consumer-id", "f"),
        ("x-anonymous-consumer", "f"),
        ("x_credential_identifier", "f"),
        ("x-client-cert-dn", "f"),
        ("x_client-cert_san", "f"),
        ("x-consumer", "kept"),
    ];
    for extra in [json!({}), json!({"anonymous": "anon"}), json!({"skip_consumer_lookup": true})] {
        let mut headers = world.leaf(Subject::client("alice"));
        headers.extend(self::headers(&forged));
        let (_, kong) = run(&world.instance(extra.clone()), headers).await;
        let upstream = kong.upstream();
        assert!(!upstream.iter().any(|(name, value)| name.contains('_') || value == "f"), "{upstream:?}");
        assert!(upstream.contains(&("x-consumer".into(), "kept".into())));
        assert!(!upstream.iter().any(|(name, _)| name.starts_with("client-cert")), "{upstream:?}");
        assert!(kong.calls.len() <= 4, "whatever must be cleared: {:?}", kong.calls);
    }
}

#[tokio::test]
async fn details_of_a_verified_certificate_go_on_where_they_are_wanted_and_nobody_elses() {
    let world = World::new();
    let wanted = json!({
        "inject_client_cert_details": true, "anonymous": "anon",
        "client_cert_subject_dn_header_name": "X-Subject_DN", "client_serial_header_name": "X-Serial",
    });
    let forged = [("x-subject-dn", "f"), ("x_subject_dn", "f"), ("x_serial", "f"), ("x-serial", "f")];
    let instance = world.instance(wanted);
    let seen = |kong: &FakeKong| {
        let mut about: Vec<_> = kong.upstream();
        about.retain(|(name, _)| name.contains("subject") || name.contains("serial"));
        about
    };
    let mut headers = world.leaf(Subject::client("alice"));
    headers.extend(self::headers(&forged));
    let (_, kong) = run(&instance, headers).await;
    let about = seen(&kong);
    assert_eq!(
        (about.len(), &about[1]),
        (2, &("x-subject_dn".to_owned(), "CN=alice".to_owned())),
        "{about:?}"
    );

    // Neither for a certificate that is not trusted, nor from a client without any.
    let mut headers = world.leaf(Subject::client("alice").expired());
    headers.extend(self::headers(&forged));
    for headers in [headers, self::headers(&forged)] {
        let (verdict, kong) = run(&instance, headers).await;
        assert_eq!((verdict, seen(&kong)), (Verdict::Proceed, vec![]));
    }

    // Kong fills in the names where nobody wants details, too.
    let unwanted = world.instance(json!({"client_serial_header_name": "X-Serial"}));
    let (_, kong) = run(&unwanted, world.leaf(Subject::client("alice"))).await;
    assert_eq!(seen(&kong), []);

    let skip = json!({
        "inject_client_cert_details": true, "skip_consumer_lookup": true, "client_serial_header_name": "X-Serial",
    });
    let (_, kong) = run(&world.instance(skip), world.leaf(Subject::client("anybody"))).await;
    assert_eq!(seen(&kong).len(), 1);
}

#[tokio::test]
async fn a_request_with_more_headers_than_kong_shows_is_refused_even_where_anybody_may_pass() {
    let world = World::new();
    let many = |count: usize| {
        let mut headers = world.leaf(Subject::client("alice"));
        headers.extend((0..count - 3).map(|i| (format!("h{i}").into_bytes(), vec![b"v".to_vec()])));
        headers
    };
    for authenticated_before in [false, true] {
        let instance = world.instance(json!({"anonymous": "anon"}));
        let mut kong = FakeKong { headers: many(1000), authenticated_before, ..FakeKong::default() };
        assert_eq!(access(&mut kong, &instance, SystemTime::now()).await.verdict(), NOT_VERIFIED);
        assert!(kong.log[0].1.contains("too_many_headers"));
    }
    let (verdict, _) = run(&world.instance(json!({})), many(999)).await;
    assert_eq!(verdict, Verdict::Proceed);
}

#[tokio::test]
async fn what_is_remembered_lasts_no_longer_than_the_certificate_or_its_ca() {
    let world = World::new();
    let instance = world.instance(json!({}));
    let leaf = world.leaf(Subject::client("alice"));
    assert_eq!(run(&instance, leaf.clone()).await.0, Verdict::Proceed);
    assert_eq!(run(&instance, leaf.clone()).await.0, Verdict::Proceed);

    // Remembered, and over: the proof is made anew, the certificate is the same.
    let later = SystemTime::now() + Duration::from_secs(7200);
    let presented = crate::handoff::presented(&leaf, instance.proof_key(), SystemTime::now()).unwrap();
    let trust = instance.trust().await.unwrap();
    let refusal = instance.verify(&trust, &presented, later).unwrap_err();
    assert_eq!(refusal.reason, Reason::Expired);

    // Another CA under the same id, without a restart.
    world.entities.send_replace(entities(&Ca::root("root")));
    let (verdict, kong) = run(&instance, leaf.clone()).await;
    assert_eq!(verdict, NOT_VERIFIED);
    assert!(kong.log[0].1.contains("untrusted"));

    // And back.
    world.entities.send_replace(entities(&world.root));
    assert_eq!(run(&instance, leaf).await.0, Verdict::Proceed);
}

#[tokio::test]
async fn our_own_faults_are_500_whoever_may_pass() {
    let world = World::new();
    let instance = world.instance(json!({"anonymous": "anon", "default_consumer": "anon"}));
    let without_anything = kong_entities::parse_json(r#"{"_format_version": "3.0"}"#).unwrap();
    let without_consumers = {
        let file =
            json!({"_format_version": "3.0", "ca_certificates": [{"id": CA_ID, "cert": world.root.pem()}]});
        kong_entities::parse_json(&file.to_string()).unwrap()
    };
    for (entities, reason) in
        [(without_anything, "ca_unavailable"), (without_consumers, "consumer_unavailable")]
    {
        world.entities.send_replace(Arc::new(entities));
        let (verdict, kong) = run(&instance, world.leaf(Subject::client("stranger"))).await;
        assert_eq!(verdict, FAULT, "{reason}");
        assert_eq!(kong.log[0].0, LogLevel::Err);
        assert!(kong.log[0].1.contains(reason), "{:?}", kong.log);
    }
}

#[tokio::test]
async fn instances_that_nobody_uses_end() {
    let world = World::new();
    let config = json!({"certificate_source": "shim", "ca_certificates": [CA_ID]}).to_string();
    let id = world.instances.start(&config).await.unwrap();
    assert_ne!(world.instances.start(&config).await.unwrap(), id);
    world.instances.expire(std::time::Instant::now() + crate::instance::IDLE / 2);
    assert!(world.instances.get(id).is_some());
    world.instances.expire(std::time::Instant::now() + crate::instance::IDLE);
    assert!(world.instances.get(id).is_none());
}
