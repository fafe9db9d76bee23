//! The built server with CA certificates and consumers from an Admin API.

mod common;

use std::os::unix::fs::PermissionsExt;
use std::time::SystemTime;

use client_cert::{Presented, Proof, ProofKey};
use common::{Connection, Prefix};
use serde_json::{Value as Json, json};
use testbed::fake_admin::{CA_ID, FakeAdmin, Reply, Seen, kong_with, ok};
use testbed::pki::{Ca, Leaf, Subject};
use testbed::process::Process;

/// What an Admin API knows: this CA, and these consumers.
fn knows(ca: &Ca, consumers: Json) -> impl Fn(&Seen) -> Reply + Send + 'static {
    let pem = ca.pem();
    move |seen| match seen.target.strip_prefix("/ca_certificates/") {
        Some(CA_ID) => ok(json!({"id": CA_ID, "cert": pem})),
        _ => kong_with(consumers.as_array().unwrap(), seen),
    }
}

fn alice_and_anon() -> Json {
    json!([
        {"id": "11111111-1111-4111-8111-111111111111", "username": "alice", "custom_id": "c-alice"},
        {"id": "22222222-2222-4222-8222-222222222222", "username": "anon"},
    ])
}

/// A server that asks an Admin API.
struct Setup {
    prefix: Prefix,
    _server: Process,
    ca: Ca,
    admin: FakeAdmin,
}

/// What became of a request.
#[derive(Debug, PartialEq)]
enum Outcome {
    Passed { consumer: Json },
    Refused { status: u64, log: String },
}

fn refused(outcome: &Outcome, expected: u64, reason: &str) -> bool {
    matches!(outcome, Outcome::Refused { status, log } if *status == expected && log.contains(reason))
}

impl Setup {
    async fn start(args: &[&str]) -> Self {
        let ca = Ca::root("root");
        let admin = FakeAdmin::start(knows(&ca, alice_and_anon())).await;
        let prefix = Prefix::new();
        let server = prefix.serve(&[&["--admin-url", &admin.url], args].concat());
        Self { prefix, _server: server, ca, admin }
    }

    /// Starts an instance and gives the error, or else the id.
    fn instance(&self, extra: Json) -> (Json, Json) {
        let mut config = json!({
            "certificate_source": "shim", "ca_certificates": [CA_ID], "consumer_by": ["username", "custom_id"],
        });
        config.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        let arg = json!({"Name": "mtls-auth", "Config": config.to_string()});
        let (error, result) = self.prefix.connect().call("plugin.StartInstance", arg);
        (error, result["Id"].clone())
    }

    fn leaf(&self, name: &str) -> Leaf {
        self.ca.issue(Subject::client(name))
    }

    /// Plays Kong for a request of a client with this certificate.
    fn request(&self, instance: &Json, leaf: &Leaf) -> Outcome {
        let key = ProofKey::read_or_create(&self.prefix.path("mtls-auth.key")).unwrap();
        let presented = Presented { leaf: leaf.der.clone(), chain: vec![] };
        let proof = Proof::write(&key, &presented, "", SystemTime::now());
        let headers =
            json!({"client-cert": [presented.leaf_header()], "client-cert-proof": [proof], "host": ["x"]});
        request(&mut self.prefix.connect(), instance, &headers)
    }
}

fn request(kong: &mut Connection, instance: &Json, headers: &Json) -> Outcome {
    let (mut consumer, mut log) = (Json::Null, String::new());
    let mut step = kong.ok("plugin.HandleEvent", json!({"InstanceId": instance, "EventName": "access"}));
    loop {
        let (event, data) = (&step["EventId"], &step["Data"]);
        if data == "ret" {
            return Outcome::Passed { consumer };
        }
        let args = &data["Args"];
        let answer = match data["Method"].as_str().unwrap() {
            "kong.request.get_headers" => headers.clone(),
            "kong.response.error" => return Outcome::Refused { status: args[0].as_u64().unwrap(), log },
            "kong.client.authenticate" => {
                consumer = args[0]["username"].clone();
                Json::Null
            }
            "kong.log.notice" | "kong.log.err" => {
                log.push_str(args[0].as_str().unwrap());
                Json::Null
            }
            _ => Json::Null,
        };
        let mut arg = json!({"EventId": event});
        if !answer.is_null() {
            arg["Data"] = answer;
        }
        step = kong.ok("plugin.StepMultiMap", arg);
    }
}

fn passed_as(username: &str) -> Outcome {
    Outcome::Passed { consumer: json!(username) }
}

#[tokio::test(flavor = "multi_thread")]
async fn cas_and_consumers_are_asked_for_once_within_the_time() {
    let setup = Setup::start(&[]).await;
    let (error, instance) = setup.instance(json!({"cache_ttl": 3600}));
    assert_eq!(error, Json::Null);
    for _ in 0..3 {
        assert_eq!(setup.request(&instance, &setup.leaf("alice")), passed_as("alice"));
        assert_eq!(setup.request(&instance, &setup.leaf("c-alice")), passed_as("alice"));
        assert!(refused(&setup.request(&instance, &setup.leaf("nobody")), 401, "no_consumer"));
    }
    let mut asked = setup.admin.take_targets();
    // Beside it the server looks for the guard, once.
    asked.retain(|target| !target.starts_with("/status") && !target.starts_with("/plugins"));
    asked.sort();
    assert_eq!(
        asked,
        [
            &format!("/ca_certificates/{CA_ID}"),
            "/consumers/alice",
            "/consumers/c-alice",
            "/consumers/nobody",
            "/consumers?custom_id=c-alice",
            "/consumers?custom_id=nobody",
            "/consumers?size=1",
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_counts_without_a_restart() {
    let setup = Setup::start(&[]).await;
    let (_, instance) = setup.instance(json!({"cache_ttl": 0}));
    let alice = setup.leaf("alice");
    assert_eq!(setup.request(&instance, &alice), passed_as("alice"));
    setup.admin.becomes(knows(&setup.ca, json!([])));
    assert!(refused(&setup.request(&instance, &alice), 401, "no_consumer"));
    // Another CA under the same id.
    setup.admin.becomes(knows(&Ca::root("root"), alice_and_anon()));
    assert!(refused(&setup.request(&instance, &alice), 401, "untrusted"));
    // The CA is gone.
    setup
        .admin
        .becomes(|seen| kong_with(&[], &Seen { target: format!("/x{}", seen.target), ..seen.clone() }));
    assert!(refused(&setup.request(&instance, &alice), 500, "ca_unavailable"));
    setup.admin.becomes(knows(&setup.ca, alice_and_anon()));
    assert_eq!(setup.request(&instance, &alice), passed_as("alice"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_admin_api_that_is_down_lets_nobody_pass_who_is_not_remembered() {
    let setup = Setup::start(&[]).await;
    let down = |_: &Seen| Reply::Answer(503, "text/html", "<html>".into());
    let (_, remembering) = setup.instance(json!({"cache_ttl": 3600, "anonymous": "anon"}));
    let (_, asking) = setup.instance(json!({"cache_ttl": 0, "anonymous": "anon"}));
    let (alice, stranger) = (setup.leaf("alice"), setup.leaf("stranger"));
    assert_eq!(setup.request(&remembering, &alice), passed_as("alice"));
    setup.admin.becomes(down);
    assert_eq!(setup.request(&remembering, &alice), passed_as("alice"));
    let refusal = setup.request(&remembering, &stranger);
    assert!(refused(&refusal, 503, "refused: entity_source_down, http://127.0.0.1:"), "{refusal:?}");
    assert!(refused(&setup.request(&asking, &alice), 503, "entity_source_down"));
    // An instance starts all the same, so that the log says at each request why it is refused.
    let (error, started) = setup.instance(json!({"cache_ttl": 0}));
    assert_eq!(error, Json::Null);
    assert!(refused(&setup.request(&started, &alice), 503, "entity_source_down"));
    // What no waiting cures is no outage.
    setup.admin.becomes(|_| Reply::Answer(401, "application/json", "{}".into()));
    let (_, fresh) = setup.instance(json!({"cache_ttl": 0.5, "ca_certificates": [setup.ca.pem()]}));
    let refusal = setup.request(&fresh, &setup.leaf("another"));
    assert!(refused(&refusal, 500, "entity_source_invalid"), "{refusal:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_admin_api_that_hangs_does_not_let_a_request_wait() {
    let setup = Setup::start(&["--event-timeout", "0.3"]).await;
    let (_, instance) = setup.instance(json!({"cache_ttl": 3600}));
    setup.admin.becomes(|_| Reply::Hang);
    assert!(refused(&setup.request(&instance, &setup.leaf("alice")), 503, "refused: deadline"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_with_an_unknown_ca_does_not_start() {
    let setup = Setup::start(&[]).await;
    let (error, _) = setup.instance(json!({"ca_certificates": ["6ae7a1a4-0cf0-4b6a-9d3f-000000000000"]}));
    assert!(
        error.as_str().unwrap().contains("config.ca_certificates[0]: there is no CA certificate"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_token_goes_with_every_question() {
    let token = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&token, "secret\n").unwrap();
    std::fs::set_permissions(&token, std::fs::Permissions::from_mode(0o600)).unwrap();
    let setup = Setup::start(&["--admin-token-file", token.path().to_str().unwrap()]).await;
    let (_, instance) = setup.instance(json!({}));
    assert_eq!(setup.request(&instance, &setup.leaf("alice")), passed_as("alice"));
    let seen = setup.admin.take_seen();
    assert!(seen.len() >= 3);
    for seen in seen {
        assert!(seen.head.to_ascii_lowercase().contains("\r\nkong-admin-token: secret\r\n"), "{}", seen.head);
    }
}

#[test]
fn options_that_cannot_be_meant_are_refused() {
    let prefix = Prefix::new();
    let file = prefix.write("kong.yml", "_format_version: '3.0'\n");
    let token = prefix.write("token", "secret");
    let (file, token) = (file.to_str().unwrap(), token.to_str().unwrap());
    let options = prefix.write("options.yml", "admin_url: http://127.0.0.1:1\n");
    let options = options.to_str().unwrap();
    for (args, says) in [
        (&["--admin-url", "http://127.0.0.1:1", "--declarative-config", file][..], "cannot be used with"),
        (&["--config", options, "--declarative-config", file], "only one of them"),
        (&["--admin-token-file", token], "--admin-token-file: only with --admin-url"),
        (&["--admin-ca-file", token], "--admin-ca-file: only with --admin-url"),
        (&["--admin-url", "127.0.0.1:1"], "expected http"),
        (&["--admin-url", "https://127.0.0.1:1", "--admin-ca-file", token], "CA file"),
        (&["--admin-url", "http://127.0.0.1:1", "--admin-token-file", "/nowhere"], "token file /nowhere"),
        (&["--event-timeout", "0"], "0.1 to 30"),
        (&["--event-timeout", "60"], "0.1 to 30"),
        (&["--event-timeout", "nan"], "0.1 to 30"),
        (&["--event-timeout", "x"], "number of seconds"),
    ] {
        let output = prefix.command(args).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && stderr.contains(says), "{args:?}: {stderr}");
    }
}
