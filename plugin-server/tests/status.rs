//! What the built server tells of itself: metrics, health and readiness over HTTP, and its life to a service manager.

mod common;

use std::collections::BTreeMap;
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use client_cert::{Presented, Proof, ProofKey};
use common::{BINARY, Prefix};
use kong_double::{Double, DoubleConfig, EarlierAuth, PluginConfig, Protocol, Route};
use openssl::asn1::Asn1Time;
use openssl::x509::X509;
use serde_json::{Value as Json, json};
use testbed::fake_admin::{FakeAdmin, Reply, kong_with};
use testbed::pki::{Ca, Leaf, Subject};
use testbed::process::{PATIENCE, Process};
use testbed::upstream::Upstream;

const STATUS: [&str; 2] = ["--status-listen", "127.0.0.1:0"];

/// The address that a server has its status on.
fn address(server: &Process) -> String {
    let line: Json = serde_json::from_str(&server.wait_for("status is served")).unwrap();
    line["address"].as_str().unwrap().to_owned()
}

fn curl(args: &[&str]) -> (u16, String) {
    let output = Command::new("curl").args(["-sS", "-w", "%{http_code}"]).args(args).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let (body, status) = text.split_at(text.len() - 3);
    (status.parse().unwrap(), body.to_owned())
}

fn get(address: &str, path: &str) -> (u16, String) {
    curl(&[&format!("http://{address}{path}")])
}

/// Asks until the answer is this, or as good as never comes.
fn wait_for(address: &str, path: &str, is_right: impl Fn(u16, &str) -> bool) {
    let begun = Instant::now();
    loop {
        let (status, body) = get(address, path);
        if is_right(status, &body) {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "{path}: {status} {body}");
    }
}

/// All samples by name and labels.
fn scrape(address: &str) -> BTreeMap<String, f64> {
    let (status, text) = get(address, "/metrics");
    assert_eq!(status, 200);
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    samples
        .map(|line| line.rsplit_once(' ').unwrap())
        .map(|(name, value)| (name.into(), value.parse().unwrap()))
        .collect()
}

fn hand_off(prefix: &Prefix, leaf: &Leaf) -> Vec<String> {
    let key = ProofKey::read(&prefix.path("mtls-auth.key")).unwrap();
    let presented = Presented { leaf: leaf.der.clone(), chain: vec![] };
    let proof = Proof::write(&key, &presented, "", SystemTime::now());
    vec![
        "-H".into(),
        format!("Client-Cert: {}", presented.leaf_header()),
        "-H".into(),
        format!("Client-Cert-Proof: {proof}"),
    ]
}

/// The server with its status, behind a Kong that speaks this protocol.
struct Setup {
    prefix: Prefix,
    status: String,
    kong: Double,
    ca: Ca,
    _server: Process,
    _upstream: Upstream,
}

impl Setup {
    async fn start(protocol: Protocol) -> Self {
        Self::start_with(protocol, &[]).await
    }

    async fn start_with(protocol: Protocol, options: &[&str]) -> Self {
        let (prefix, ca) = (Prefix::new(), Ca::root("root"));
        let entities =
            json!({"_format_version": "3.0", "consumers": [{"username": "alice"}, {"username": "anon"}]});
        let file = prefix.write("kong.json", &entities.to_string());
        let source = ["--declarative-config", file.to_str().unwrap()];
        let server = prefix.serve(&[&source[..], &STATUS, options].concat());
        let name = match protocol {
            Protocol::MsgPack => "msgpack",
            Protocol::ProtoBuf => "protobuf",
        };
        let info = Command::new(BINARY).args(["-dump", "--protocol", name]).output().unwrap().stdout;
        let upstream = Upstream::start();
        let mut config = DoubleConfig::new(prefix.socket(), serde_json::from_slice(&info).unwrap());
        let route = |path: &str, extra: Json| {
            let mut plugin = json!({"ca_certificates": [ca.pem()]});
            plugin.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
            let plugin = PluginConfig::new("mtls-auth", plugin);
            Route::new(path, upstream.address()).paths([format!("/{path}")]).plugin(plugin)
        };
        let mut earlier = route("earlier", json!({"anonymous": "anon"}));
        earlier.already_authenticated =
            Some(EarlierAuth { consumer: None, credential: Some(json!({"id": "somebody"})) });
        config.routes = vec![
            route("mapped", json!({})),
            route("anonymous", json!({"anonymous": "anon"})),
            route("gone", json!({"default_consumer": "gone", "consumer_by": []})),
            earlier,
        ];
        let kong = Double::start(config).await.unwrap();
        Self { status: address(&server), prefix, kong, ca, _server: server, _upstream: upstream }
    }

    fn request(&self, path: &str, leaf: Option<&Leaf>) -> u16 {
        let url = format!("http://{}/{path}", self.kong.addr());
        let headers = leaf.map(|leaf| hand_off(&self.prefix, leaf)).unwrap_or_default();
        let args: Vec<&str> = headers.iter().map(String::as_str).chain([url.as_str()]).collect();
        curl(&args).0
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_decided_is_counted_in_either_protocol() {
    for protocol in Protocol::ALL {
        let setup = Setup::start(protocol).await;
        let alice = setup.ca.issue(Subject::client("alice"));
        let soon = SystemTime::now() + Duration::from_secs(60);
        let mallory = Ca::root("root").issue(Subject::client("alice").not_after(soon));
        for (path, leaf, status) in [
            ("mapped", Some(&alice), 200),
            ("mapped", Some(&alice), 200),
            ("mapped", Some(&mallory), 401),
            ("mapped", None, 401),
            ("anonymous", None, 200),
            ("anonymous", Some(&mallory), 200),
            ("earlier", None, 200),
            ("gone", Some(&alice), 500),
        ] {
            assert_eq!(setup.request(path, leaf), status, "{protocol:?} {path}");
        }
        let samples = scrape(&setup.status);
        let decisions = |name: &str| name.starts_with("mtls_auth_decisions_total");
        let counted: Vec<_> =
            samples.iter().filter(|(name, count)| decisions(name) && **count > 0.0).collect();
        let expected = [
            ("anonymous", "no_certificate", 1.0),
            ("anonymous", "untrusted", 1.0),
            ("fault", "consumer_unavailable", 1.0),
            ("left_alone", "", 1.0),
            ("passed", "", 2.0),
            ("refused", "no_certificate", 1.0),
            ("refused", "untrusted", 1.0),
        ]
        .map(|(outcome, reason, count)| {
            (format!("mtls_auth_decisions_total{{outcome=\"{outcome}\",reason=\"{reason}\"}}"), count)
        });
        assert_eq!(counted, expected.iter().map(|(name, count)| (name, count)).collect::<Vec<_>>());
        assert!(
            samples.contains_key("mtls_auth_decisions_total{outcome=\"refused\",reason=\"expired\"}"),
            "what has not happened yet is there, too: {samples:?}"
        );
        let whole =
            |phase: &str| samples[&format!("mtls_auth_access_duration_seconds_sum{{phase=\"{phase}\"}}")];
        let (total, kong, own) = (whole("total"), whole("kong"), whole("own"));
        assert!(kong > 0.0 && own > 0.0 && (total - kong - own).abs() < 1e-6, "{total} = {kong} + {own}");
        for (name, value) in [
            ("access_duration_seconds_count{phase=\"total\"}", 8.0),
            // Alice is verified once, mallory as often as he comes.
            ("access_duration_seconds_count{phase=\"verify\"}", 3.0),
            ("verified_cache_hits_total", 2.0),
            ("verified_cache_misses_total", 3.0),
            // Four calls where it passes, three where it is refused, one more where `anonymous` is set; who passes as
            // anonymous for more than no certificate is logged; who was left alone had nothing to remove.
            ("rpc_calls_count", 8.0),
            ("rpc_calls_sum", 4.0 + 4.0 + 3.0 + 3.0 + 5.0 + 6.0 + 3.0 + 3.0),
            ("events_in_flight", 0.0),
            ("events_abandoned_total", 0.0),
            ("entity_source_errors_total", 0.0),
            ("instances{state=\"not_started\"}", 0.0),
        ] {
            assert_eq!(samples[&format!("mtls_auth_{name}")], value, "{protocol:?} {name}");
        }
        assert!(samples["mtls_auth_instances{state=\"running\"}"] >= 4.0);
        let ends = |certificate: X509, name: &str| {
            let (_, seconds) = samples.iter().find(|(sample, _)| sample.starts_with(name)).unwrap();
            assert_eq!(*certificate.not_after(), *Asn1Time::from_unix(*seconds as i64).unwrap(), "{name}");
        };
        ends(
            X509::from_pem(setup.ca.pem().as_bytes()).unwrap(),
            "mtls_auth_ca_expiry_timestamp_seconds{subject=\"CN=root\",sha256=\"",
        );
        // Mallory's ends first, but is not trusted.
        let nearest = "mtls_auth_client_certificate_nearest_expiry_timestamp_seconds";
        ends(X509::from_der(&alice.der).unwrap(), nearest);
        the_dashboard_asks_for_nothing_else(&samples);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_no_room_to_be_remembered_is_verified_again() {
    let setup = Setup::start_with(Protocol::MsgPack, &["--verified-certificates", "0"]).await;
    let alice = setup.ca.issue(Subject::client("alice"));
    for _ in 0..3 {
        assert_eq!(setup.request("mapped", Some(&alice)), 200);
    }
    let samples = scrape(&setup.status);
    let counted = |name: &str| samples[&format!("mtls_auth_verified_cache_{name}_total")];
    assert_eq!((counted("hits"), counted("misses")), (0.0, 3.0));
}

/// Each name in the dashboard's queries is one of a sample.
fn the_dashboard_asks_for_nothing_else(samples: &BTreeMap<String, f64>) {
    let exported: Vec<&str> = samples.keys().map(|name| name.split('{').next().unwrap()).collect();
    let asked = testbed::dashboard::asked_for("mtls_auth_");
    assert!(asked.len() > 15, "{asked:?}");
    for name in asked {
        assert!(exported.contains(&name.as_str()), "{name} is asked for, but there are only {exported:?}");
    }
}

#[test]
fn a_server_is_ready_once_all_that_it_needs_is_there() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let admin = runtime.block_on(FakeAdmin::start(|_| Reply::Raw(vec![])));
    let prefix = Prefix::new();
    let server = prefix.serve(&[&["--admin-url", &admin.url][..], &STATUS].concat());
    let status = address(&server);
    let (code, body) = get(&status, "/readyz");
    let expected = "loop: ok\nentities: the Admin API has not answered yet\nproof_key: ok\nsocket: ok\n";
    assert_eq!((code, body.as_str()), (503, expected));
    assert_eq!(get(&status, "/healthz"), (200, "loop: ok\n".into()), "it lives all the same");
    wait_for(&status, "/metrics", |_, metrics| !metrics.contains("mtls_auth_entity_source_errors_total 0"));

    // It asks by itself: nobody sends requests to who is not ready.
    admin.becomes(|seen| kong_with(&[], seen));
    wait_for(&status, "/readyz", |code, _| code == 200);

    let key = prefix.path("mtls-auth.key");
    let content = std::fs::read(&key).unwrap();
    std::fs::remove_file(&key).unwrap();
    let problem = |says: &str| {
        let (code, body) = get(&status, "/readyz");
        assert!(code == 503 && body.lines().any(|line| line.contains(says)), "{code} {body}");
    };
    problem("proof_key: ");
    ProofKey::read_or_create(&key).unwrap();
    problem("holds another key");
    std::fs::write(&key, content).unwrap();
    assert_eq!(get(&status, "/readyz").0, 200);

    let _next = prefix.serve(&["--admin-url", &admin.url]);
    problem("socket: another server has taken its place");
}

#[test]
fn a_status_address_that_is_in_use_is_taken_once_it_is_free_and_a_wrong_one_is_refused() {
    let (prefix, other) = (Prefix::new(), Prefix::new());
    let mut first = prefix.serve(&STATUS);
    let status = address(&first);
    let second = other.serve(&["--status-listen", &status]);
    second.wait_for("the status address is in use");
    other.connect().ok("plugin.GetStatus", json!({}));
    first.signal("TERM");
    assert_eq!(address(&second), status);
    assert!(first.wait().success());
    assert_eq!(get(&status, "/readyz").0, 200);

    // TEST-NET-1 (RFC 5737), which is nobody's.
    let refused = Prefix::new();
    let output = refused.command(&["--status-listen", "192.0.2.1:9"]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && said.contains("status address 192.0.2.1:9"), "{said}");
    assert!(!refused.socket().exists());
}

#[test]
fn only_what_there_is_can_be_asked_for_and_only_read() {
    let prefix = Prefix::new();
    let server = prefix.serve(&STATUS);
    let status = address(&server);
    let url = |path: &str| format!("http://{status}{path}");
    let (code, head) = curl(&["--head", &url("/metrics")]);
    assert!(code == 200 && head.contains("content-type: text/plain; version=0.0.4"), "{head}");
    assert_eq!(curl(&["-X", "POST", &url("/metrics")]).0, 405);
    assert_eq!(get(&status, "/").0, 404);
    let header = format!("X: {}", "x".repeat(20_000));
    assert_eq!(curl(&["-H", &header, &url("/metrics")]).0, 431);
    assert_eq!(get(&status, "/metrics").0, 200);
}

#[test]
fn a_service_manager_hears_of_the_start_and_the_end() {
    let prefix = Prefix::new();
    let path = prefix.path("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let heard = || {
        let mut datagram = [0; 64];
        let length = manager.recv(&mut datagram).unwrap();
        String::from_utf8_lossy(&datagram[..length]).into_owned()
    };
    let mut command = Command::new("env");
    command.arg(format!("NOTIFY_SOCKET={}", path.display())).arg("WATCHDOG_USEC=200000").arg(BINARY);
    let mut server = Process::start(command.arg("--kong-prefix").arg(prefix.dir.path()));
    let mut first = [heard(), heard(), heard()];
    first.sort();
    assert_eq!(first, ["READY=1", "WATCHDOG=1", "WATCHDOG=1"]);
    prefix.connect().ok("plugin.GetStatus", json!({}));
    server.signal("TERM");
    while heard() != "STOPPING=1" {}
    assert!(server.wait().success());
}
