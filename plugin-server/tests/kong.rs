//! The built server with Kong's side of the protocol: as recorded, and as played by Kong's double.

mod common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::SystemTime;

use client_cert::{Presented, Proof, ProofKey};
use common::{BINARY, Prefix};
use kong_double::recording::Recording;
use kong_double::wire::Wire;
use kong_double::{Consumer, Double, DoubleConfig, EarlierAuth, KongVersion, PluginConfig, Protocol, Route};
use serde_json::{Value as Json, json};
use testbed::pki::{Ca, Leaf, Subject};
use testbed::process::Process;
use testbed::upstream::Upstream;

fn entry(array: &Wire, position: usize) -> Wire {
    let Wire::Array(_, entries) = array else { panic!("{array:?} is no array") };
    entries[position].clone()
}

fn field_of(map: &Wire, name: &str) -> Wire {
    let Wire::Map(_, entries) = map else { panic!("{map:?} is no map") };
    entries.iter().find(|(key, _)| key.text() == Some(name)).unwrap().1.clone()
}

fn number_of(leaf: &Wire) -> u64 {
    match leaf {
        Wire::Leaf("float64", bytes) => f64::from_be_bytes(bytes[..].try_into().unwrap()) as u64,
        Wire::Leaf(_, bytes) => bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)),
        other => panic!("{other:?} is no number"),
    }
}

/// Kong's recorded bytes, as they came, to our server: each call gets one answer with its id, whatever the event or
/// instance is that it names, for all of them are of another server's. None gets an answer that lets a request pass.
#[test]
fn recorded_calls_are_all_understood_and_none_is_let_pass() {
    for number in ["01", "02", "03", "04", "05", "11", "12", "13"] {
        let prefix = Prefix::new();
        let _server = prefix.serve(&[]);
        let mut kong = prefix.connect();
        let exchanges = Recording::load(number).exchanges();
        assert!(!exchanges.is_empty());
        for exchange in exchanges {
            let call = Wire::parse(&exchange.call).unwrap();
            let arg = entry(&entry(&call, 3), 0);
            kong.stream.write_all(&exchange.call).unwrap();
            let reply = kong.reply();
            assert_eq!(reply[1], number_of(&entry(&call, 1)), "{number}: {call:?}");
            match entry(&call, 2).text().unwrap() {
                "plugin.StartInstance" => {
                    assert!(
                        reply[2].as_str().unwrap().contains("this server has no plugin"),
                        "{number}: {reply}"
                    );
                }
                "plugin.HandleEvent"
                    if !matches!(field_of(&arg, "EventName").text(), Some("access" | "certificate")) =>
                {
                    assert!(reply[2].is_object(), "{number}: {reply}");
                }
                "plugin.HandleEvent" | "plugin.CloseInstance" => {
                    assert!(
                        reply[2].as_str().unwrap().starts_with("no plugin instance"),
                        "{number}: {reply}"
                    );
                }
                step => {
                    assert!(step.starts_with("plugin.Step"), "{number}: {step}");
                    assert_eq!(reply[3]["EventId"], number_of(&field_of(&arg, "EventId")), "{number}");
                    assert_eq!(reply[3]["Data"]["Method"], "kong.response.error", "{number}: {reply}");
                }
            }
        }
    }
}

const CA_ID: &str = "6ae7a1a4-0cf0-4b6a-9d3f-3f7c5a0b1c2d";

/// The Kong that a test runs on: which version, and what it is told to speak.
#[derive(Clone, Copy, Debug)]
struct Played {
    version: KongVersion,
    protocol: Protocol,
}

impl Played {
    /// The oldest and the newest Kong in both protocols.
    fn all() -> impl Iterator<Item = Self> {
        let both = |version| Protocol::ALL.into_iter().map(move |protocol| Self { version, protocol });
        KongVersion::ALL.into_iter().flat_map(both)
    }

    /// What the server prints when Kong asks for the plugin.
    fn plugin_info(self) -> Json {
        let protocol = match self.protocol {
            Protocol::MsgPack => "msgpack",
            Protocol::ProtoBuf => "protobuf",
        };
        let info = Command::new(BINARY).args(["-dump", "--protocol", protocol]).output().unwrap().stdout;
        serde_json::from_slice(&info).unwrap()
    }
}

/// The server, Kong's double and an upstream. The test plays the shim.
struct Setup {
    prefix: Prefix,
    server: Process,
    kong: Double,
    upstream: Upstream,
    ca: Ca,
}

fn declarative(ca: &Ca) -> String {
    json!({
        "_format_version": "3.0",
        "ca_certificates": [{"id": CA_ID, "cert": ca.pem()}],
        "consumers": [{"username": "alice"}, {"username": "bob"}, {"username": "anon"}],
    })
    .to_string()
}

/// One route for each way to configure the plugin.
fn routes(played: Played, socket: &Path, upstream: SocketAddr) -> DoubleConfig {
    let mut config = DoubleConfig::new(socket, played.plugin_info());
    config.version = played.version;
    config.workers = 2;
    let route = |path: &str, extra: Json| {
        let mut plugin = json!({"ca_certificates": [CA_ID]});
        plugin.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        Route::new(path, upstream).paths([format!("/{path}")]).plugin(PluginConfig::new("mtls-auth", plugin))
    };
    let mut earlier = route("earlier", json!({"anonymous": "anon"}));
    earlier.already_authenticated =
        Some(EarlierAuth { consumer: None, credential: Some(json!({"id": "somebody"})) });
    config.routes = vec![
        route("mapped", json!({})),
        route("anonymous", json!({"anonymous": "anon"})),
        route("skip", json!({"skip_consumer_lookup": true})),
        route("default", json!({"default_consumer": "bob", "consumer_by": []})),
        earlier,
    ];
    config
}

impl Setup {
    async fn start(played: Played, change: impl Fn(&mut DoubleConfig)) -> Self {
        let (prefix, ca) = (Prefix::new(), Ca::root("root"));
        let file = prefix.write("kong.json", &declarative(&ca));
        let server = prefix.serve(&["--declarative-config", file.to_str().unwrap()]);
        Self::with(played, prefix, ca, server, change).await
    }

    /// Of a server that has no source of consumers but Kong.
    async fn without_options(played: Played) -> Self {
        let (prefix, ca) = (Prefix::new(), Ca::root("root"));
        let server = prefix.serve(&[]);
        let pem = ca.pem();
        Self::with(played, prefix, ca, server, |config| {
            let consumer = |id: u8, name: &str| Consumer {
                id: format!("{id}1111111-1111-4111-8111-111111111111"),
                username: Some(name.into()),
                custom_id: None,
            };
            config.consumers = vec![consumer(1, "alice"), consumer(2, "anon")];
            config.routes.truncate(2);
            for (route, extra) in config.routes.iter_mut().zip([json!({}), json!({"anonymous": "anon"})]) {
                let mut plugin = json!({"ca_certificates": [pem], "consumer_by": ["username"]});
                plugin.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
                route.plugins = vec![PluginConfig::new("mtls-auth", plugin)];
            }
        })
        .await
    }

    async fn with(
        played: Played,
        prefix: Prefix,
        ca: Ca,
        server: Process,
        change: impl Fn(&mut DoubleConfig),
    ) -> Self {
        let upstream = Upstream::start();
        let mut config = routes(played, &prefix.socket(), upstream.address());
        change(&mut config);
        let kong = Double::start(config).await.unwrap();
        Self { prefix, server, kong, upstream, ca }
    }

    fn get(&self, path: &str, headers: &[(&str, &str)]) -> (u16, Json) {
        get(self.kong.addr(), path, headers)
    }

    fn hand_off(&self, leaf: &Leaf) -> Vec<(&'static str, String)> {
        hand_off(&self.prefix.path("mtls-auth.key"), leaf)
    }
}

fn hand_off(key: &Path, leaf: &Leaf) -> Vec<(&'static str, String)> {
    let key = ProofKey::read(key).unwrap();
    let presented = Presented { leaf: leaf.der.clone(), chain: vec![] };
    let proof = Proof::write(&key, &presented, "a.example", SystemTime::now());
    vec![("Client-Cert", presented.leaf_header()), ("Client-Cert-Proof", proof)]
}

fn get(kong: SocketAddr, path: &str, headers: &[(&str, &str)]) -> (u16, Json) {
    let mut stream = TcpStream::connect(kong).unwrap();
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    let body = answer.split_once("\r\n\r\n").unwrap().1;
    (status, serde_json::from_str(body).unwrap_or_default())
}

fn as_pairs<'a>(headers: &'a [(&'static str, String)]) -> Vec<(&'a str, &'a str)> {
    headers.iter().map(|(name, value)| (*name, value.as_str())).collect()
}

/// The values of a header that the upstream saw.
fn seen(answer: &Json, name: &str) -> Vec<String> {
    let headers: Vec<(String, String)> =
        serde_json::from_value(answer["headers"].clone()).unwrap_or_default();
    let same = headers.into_iter().filter(|(other, _)| other.eq_ignore_ascii_case(name));
    same.map(|(_, value)| value).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_outcome_is_told_to_the_upstream_or_the_client_in_as_few_calls_as_there_can_be() {
    for played in Played::all() {
        let setup = Setup::start(played, |_| {}).await;
        let alice = setup.hand_off(&setup.ca.issue(Subject::client("alice")));
        let nobody = setup.hand_off(&setup.ca.issue(Subject::client("nobody")));
        let mallory = setup.hand_off(&Ca::root("root").issue(Subject::client("alice")));
        let consumer = "x-consumer-username";
        let protobuf = usize::from(matches!(played.protocol, Protocol::ProtoBuf));
        for (path, certificate, status, header, value, calls) in [
            ("/mapped", Some(&alice), 200, consumer, Some("alice"), 4),
            ("/mapped", Some(&nobody), 401, consumer, None, 3),
            ("/mapped", Some(&mallory), 401, consumer, None, 3),
            ("/mapped", None, 401, consumer, None, 3),
            ("/anonymous", Some(&alice), 200, consumer, Some("alice"), 5),
            ("/anonymous", None, 200, "x-anonymous-consumer", Some("true"), 5),
            // A group and a credential, which ProtoBuf:1 needs a second call for.
            ("/skip", Some(&nobody), 200, "x-client-cert-dn", Some("CN=nobody"), 5 + protobuf),
            ("/default", Some(&nobody), 200, consumer, Some("bob"), 4),
            // Whom somebody else authenticated stays; one call takes away what must not go on.
            ("/earlier", Some(&alice), 200, consumer, None, 4),
            ("/earlier", None, 200, consumer, None, 4),
        ] {
            let headers = certificate.map(|headers| as_pairs(headers)).unwrap_or_default();
            // What a client would have liked the upstream to believe, to be removed in the same call.
            let forged = [("X_Consumer_Username", "forged"), ("x-client-cert_dn", "forged")];
            let (got, answer) = setup.get(path, &[&headers[..], &forged[..]].concat());
            assert_eq!(got, status, "{played:?} {path}: {answer} {:?}", setup.kong.error_log());
            assert_eq!(seen(&answer, header), value.into_iter().collect::<Vec<_>>(), "{path}");
            for name in ["client-cert", "client-cert-proof", "x_consumer_username", "x-client-cert_dn"] {
                assert!(seen(&answer, name).is_empty(), "{path}: {answer}");
            }
            let made = setup.kong.rpc_calls().requests.last().unwrap().clone();
            assert_eq!(made.event_calls(), calls, "{played:?} {path}: {:?}", made.methods);
        }
        assert!(
            setup.kong.error_log().iter().all(|line| !line.contains("[error]")),
            "{:?}",
            setup.kong.error_log()
        );
        // Nor does the server find anything wrong with how Kong uses its connections.
        let said = setup.server.output();
        assert!(said.len() == 1 && said[0].contains("serving"), "{played:?}: {said:?}");
    }
}

/// A consumer that is found costs one call the first time; one that is not two, of which the second tells that Kong finds
/// consumers at all.
#[tokio::test(flavor = "multi_thread")]
async fn kong_itself_is_asked_for_a_consumer_the_first_time() {
    for played in Played::all() {
        let setup = Setup::without_options(played).await;
        let hand_off = |name| setup.hand_off(&setup.ca.issue(Subject::client(name)));
        let (alice, nobody, other) = (hand_off("alice"), hand_off("nobody"), hand_off("other"));
        for (path, headers, database, status, username, calls) in [
            ("/mapped", &alice, true, 200, Some("alice"), 5),
            ("/mapped", &alice, true, 200, Some("alice"), 4),
            ("/mapped", &alice, false, 200, Some("alice"), 4),
            ("/mapped", &nobody, true, 401, None, 5),
            ("/mapped", &nobody, true, 401, None, 3),
            ("/mapped", &other, false, 503, None, 5),
            ("/anonymous", &other, false, 503, None, 6),
            ("/anonymous", &other, true, 200, Some("anon"), 8),
            ("/anonymous", &other, false, 200, Some("anon"), 6),
        ] {
            setup.kong.set_consumer_store(database);
            let (got, answer) = setup.get(path, &as_pairs(headers));
            let made = setup.kong.rpc_calls().requests.last().unwrap().clone();
            let context = format!("{played:?} {path} {database}: {answer} {:?}", made.methods);
            assert_eq!(got, status, "{context}");
            assert_eq!(seen(&answer, "x-consumer-username"), username.into_iter().collect::<Vec<_>>());
            assert_eq!(made.event_calls(), calls, "{context}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_of_another_front_counts_from_trusted_addresses_only() {
    for played in Played::all() {
        for (trusted_ips, status) in
            [(vec!["127.0.0.1".to_owned()], 200), (vec!["10.0.0.0/8".to_owned()], 401)]
        {
            let setup = Setup::start(played, |config| {
                config.trusted_ips = trusted_ips.clone();
                let source = json!({
                    "ca_certificates": [CA_ID], "certificate_source": "header",
                    "certificate_header_name": "X-Front", "certificate_header_format": "base64_encoded",
                });
                config.routes[0].plugins = vec![PluginConfig::new("mtls-auth", source)];
            })
            .await;
            let leaf = setup.ca.issue(Subject::client("alice"));
            let header = openssl::base64::encode_block(&leaf.der);
            let (got, answer) = setup.get("/mapped", &[("X-Front", &header)]);
            assert_eq!(got, status, "{played:?} {answer} {:?}", setup.kong.error_log());
            assert!(seen(&answer, "x-front").is_empty());
            assert_eq!(setup.get("/mapped", &[]).0, 401);
        }
    }
}

/// The steps of one event come on different connections, among those of others.
#[tokio::test(flavor = "multi_thread")]
async fn many_at_once_get_their_own_answers() {
    for played in Played::all() {
        let setup = Setup::start(played, |config| config.scatter = 8).await;
        let callers: Vec<_> = ["alice", "bob", "nobody"]
            .map(|cn| (cn, setup.hand_off(&setup.ca.issue(Subject::client(cn)))))
            .into_iter()
            .collect();
        std::thread::scope(|scope| {
            for worker in 0..12 {
                let (cn, headers) = &callers[worker % callers.len()];
                let setup = &setup;
                scope.spawn(move || {
                    for _ in 0..25 {
                        let (status, answer) = setup.get("/mapped", &as_pairs(headers));
                        if *cn == "nobody" {
                            assert_eq!(
                                (status, &answer["message"]),
                                (401, &json!("TLS certificate failed verification"))
                            );
                        } else {
                            assert_eq!(
                                (status, seen(&answer, "x-consumer-username")),
                                (200, vec![(*cn).to_owned()])
                            );
                        }
                    }
                });
            }
        });
        // What was refused did not reach the upstream.
        assert_eq!(setup.upstream.requests().len(), 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_of_kong_and_a_new_server_lose_no_request() {
    for played in Played::all() {
        let mut setup = Setup::start(played, |_| {}).await;
        let alice = setup.hand_off(&setup.ca.issue(Subject::client("alice")));
        let all_well = |setup: &Setup| {
            for _ in 0..4 {
                assert_eq!(setup.get("/mapped", &as_pairs(&alice)).0, 200, "{:?}", setup.kong.error_log());
                assert_eq!(setup.get("/mapped", &[]).0, 401);
            }
        };
        all_well(&setup);
        setup.kong.reload(routes(played, &setup.prefix.socket(), setup.upstream.address())).unwrap();
        all_well(&setup);

        // Killed and started again, as Kong does it: the ids of the old one are nobody's.
        setup.server.signal("KILL");
        setup.server.wait();
        let file = setup.prefix.path("kong.json");
        setup.server = setup.prefix.serve(&["--declarative-config", file.to_str().unwrap()]);
        all_well(&setup);
        assert!(setup.kong.error_log().iter().any(|line| line.contains("no plugin instance")));
    }
}

/// The guard in Kong is for this (docs/configuration.md); only ProtoBuf:1 on a newer Kong does without.
#[tokio::test(flavor = "multi_thread")]
async fn while_the_server_is_dead_nobody_passes_where_kong_fails_closed() {
    for played in Played::all() {
        let mut setup = Setup::start(played, |config| config.workers = 1).await;
        assert_eq!(setup.get("/mapped", &[]).0, 401, "{played:?}");
        setup.server.signal("KILL");
        setup.server.wait();
        let closed = played.protocol == Protocol::ProtoBuf && played.version == KongVersion::V3_9;
        let expected = if closed { 500 } else { 200 };
        assert_eq!(setup.get("/mapped", &[]).0, expected, "{played:?}: {:?}", setup.kong.error_log());
        assert_eq!(setup.upstream.requests().len(), usize::from(!closed), "{played:?}");
        // Where the instance was not running yet, nobody passes on any Kong.
        assert_eq!(setup.get("/skip", &[]).0, 500, "{played:?}: {:?}", setup.kong.error_log());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_ca_counts_without_a_restart() {
    for played in Played::all() {
        let setup = Setup::start(played, |_| {}).await;
        let old = setup.hand_off(&setup.ca.issue(Subject::client("alice")));
        assert_eq!(setup.get("/mapped", &as_pairs(&old)).0, 200);
        let ca = Ca::root("root");
        let new = setup.hand_off(&ca.issue(Subject::client("alice")));
        assert_eq!(setup.get("/mapped", &as_pairs(&new)).0, 401);

        setup.prefix.write("kong.json", &declarative(&ca));
        setup.server.wait_for("read again");
        assert_eq!(setup.get("/mapped", &as_pairs(&new)).0, 200);
        assert_eq!(setup.get("/mapped", &as_pairs(&old)).0, 401, "verified before, and no longer trusted");

        // Without any CA nobody passes, and it is no client's fault.
        setup.prefix.write("kong.json", &json!({"_format_version": "3.0"}).to_string());
        let (_, answer) =
            (0..).map(|_| setup.get("/mapped", &as_pairs(&new))).find(|(status, _)| *status != 200).unwrap();
        assert_eq!(answer["message"], "An unexpected error occurred");
        assert!(setup.kong.error_log().iter().any(|line| line.contains("ca_unavailable")));
    }
}
