use std::time::{Duration, SystemTime};

use ::revocation::{Checker, Options};
use client_cert::{Presented, Proof, ProofKey};
use kong_entities::{Directory, Entities, Watched};
use serde_json::{Value as Json, json};
use testbed::pki::{Ca, Subject};
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::*;
use crate::conversation::ConversationError;
use crate::entity_source::EntitySource;
use crate::event::{Event, Spares};
use crate::instance::Shared;
use crate::revocation::Revocation;
use crate::siblings::Siblings;
use crate::socket::Socket;
use crate::wire::protobuf::messages::{
    AuthenticateArgs, AuthenticatedCredential, Bool, Command, Empty, ExitArgs, HandleEvent, InstanceId,
    InstanceStatus, Int, KeyValue, Kind, ListValue, Name, Returned, StartInstance, Struct, Text, Value,
};

const KEY: [u8; 32] = [9; 32];
const CA_ID: &str = "6ae7a1a4-0cf0-4b6a-9d3f-3f7c5a0b1c2d";

/// A server, and a root that it knows as [`CA_ID`].
struct World {
    root: Ca,
    server: Arc<Server>,
    /// Keeps the entities, and changes them.
    entities: watch::Sender<Arc<Entities>>,
}

fn entities(cas: Json) -> Arc<Entities> {
    let consumers = json!([{"username": "alice", "custom_id": "c-alice"}, {"username": "anon"}]);
    let file = json!({"_format_version": "3.0", "ca_certificates": cas, "consumers": consumers});
    Arc::new(kong_entities::parse_json(&file.to_string()).unwrap())
}

impl World {
    fn new() -> Self {
        let root = Ca::root("root");
        let (sender, receiver): (_, Watched) =
            watch::channel(entities(json!([{"id": CA_ID, "cert": root.pem()}])));
        let source = EntitySource::Directory(Directory::declarative(receiver));
        let revocation = Revocation::Checked(Checker::new(Options::default()).unwrap());
        let shared = Shared::new(source, ProofKey::from_bytes(KEY), revocation, Duration::from_secs(5));
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("socket");
        let siblings = Siblings::of(&Socket::bind(&socket).unwrap().1, Duration::from_secs(5));
        Self { root, server: Arc::new(Server::new(shared, siblings)), entities: sender }
    }

    /// A connection of Kong's, with an instance of this configuration.
    async fn kong(&self, extra: Json) -> Kong {
        let mut kong = self.connect();
        let mut config =
            json!({"certificate_source": "shim", "ca_certificates": [CA_ID], "consumer_by": ["username"]});
        config.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        let start = StartInstance { name: b"mtls-auth".into(), config: config.to_string().into() };
        let returned = kong.call(Command::StartInstance(start)).await;
        let Some(Returned::InstanceStatus(InstanceStatus { instance_id, .. })) = returned else {
            panic!("{returned:?}")
        };
        kong.instance = instance_id;
        kong
    }

    fn connect(&self) -> Kong {
        let (kong, ours) = UnixStream::pair().unwrap();
        let server = Arc::clone(&self.server);
        let served = tokio::spawn(async move { super::super::converse(ours, &server).await });
        let line =
            Line { stream: Stream::new(kong).unwrap(), received: BytesMut::new(), sending: BytesMut::new() };
        Kong { line, served, sequence: 0, instance: 0 }
    }

    /// The headers that the shim sends for a certificate of this subject, and some that a client forged.
    fn headers(&self, subject: Subject, forged: &[&'static str]) -> Vec<u8> {
        let presented = Presented { leaf: self.root.issue(subject).der, chain: vec![] };
        let proof = Proof::write(&ProofKey::from_bytes(KEY), &presented, "", SystemTime::now());
        let mut headers = vec![("client-cert", presented.leaf_header()), ("client-cert-proof", proof)];
        headers.extend(forged.iter().map(|name| (*name, "forged".to_owned())));
        table(headers)
    }
}

fn table<V: Into<Value>>(fields: impl IntoIterator<Item = (&'static str, V)>) -> Vec<u8> {
    Struct::new(fields.into_iter().map(|(name, value)| (name.to_owned(), value.into()))).encode_to_vec()
}

/// What never comes is a failure, not a wait.
async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(testbed::process::PATIENCE, future).await.expect("it has not come")
}

/// Kong's end of a connection.
struct Kong {
    line: Line,
    served: JoinHandle<Result<(), ConversationError>>,
    sequence: i64,
    instance: i32,
}

impl Kong {
    async fn send(&mut self, command: Option<Command>) {
        self.sequence += 1;
        let call = RpcCall { sequence: self.sequence, command };
        self.answer(&call.encode_to_vec()).await;
    }

    async fn call(&mut self, command: Command) -> Option<Returned> {
        self.send(Some(command)).await;
        self.reply().await
    }

    async fn reply(&mut self) -> Option<Returned> {
        let reply = RpcReturn::decode(self.frame().await).unwrap();
        assert_eq!(reply.sequence, self.sequence);
        reply.returned
    }

    async fn begin(&mut self, phase: &str) {
        let event = HandleEvent { instance_id: self.instance, event_name: phase.into() };
        self.send(Some(Command::HandleEvent(event))).await;
    }

    async fn frame(&mut self) -> Bytes {
        within(self.line.frame(usize::MAX)).await.unwrap().expect("the server closed the connection")
    }

    /// The next PDK call: its method and the message with its arguments.
    async fn asked<M: Message + Default>(&mut self, method: &str) -> M {
        assert_eq!(self.frame().await, method);
        M::decode(self.frame().await).unwrap()
    }

    async fn answer(&mut self, message: &[u8]) {
        frame::put(&mut self.line.sending, message);
        self.line.send().await.unwrap();
    }

    /// Begins the access phase and answers the first call.
    async fn access(&mut self, headers: &[u8]) {
        self.begin("access").await;
        let max: Int = self.asked("kong.request.get_headers").await;
        assert_eq!(max.v, 1000);
        self.answer(headers).await;
    }

    /// The event ends, and Kong goes on with the request.
    async fn goes_on(&mut self) {
        assert_eq!(self.frame().await, b""[..]);
        assert_eq!(self.reply().await, None);
    }

    async fn is_logged(&mut self, level: &str) -> String {
        let line: ListValue = self.asked(level).await;
        let [Value { kind: Some(Kind::String(line)) }] = &line.values[..] else { panic!("{line:?}") };
        self.answer(b"").await;
        line.clone()
    }

    async fn is_refused(&mut self, status: i32, message: &str) {
        let exit: ExitArgs = self.asked("kong.response.exit").await;
        assert_eq!(exit.status, status);
        assert_eq!(serde_json::from_slice::<Json>(&exit.body).unwrap(), json!({"message": message}));
        let json = ("Content-Type".to_owned(), Value::from("application/json; charset=utf-8"));
        assert_eq!(exit.headers.unwrap(), Struct::new([json]));
    }

    /// Kong closes the connection; gives how the conversation ended.
    async fn closes(self) -> Result<(), ConversationError> {
        drop(self.line);
        within(self.served).await.unwrap()
    }
}

const NOT_VERIFIED: &str = "TLS certificate failed verification";
const NO_CERTIFICATE: &str = "No required TLS certificate was sent";
const FAULT_TEXT: &str = "An unexpected error occurred";

#[tokio::test]
async fn a_certificate_passes_in_four_calls_and_the_connection_serves_on() {
    let world = World::new();
    let mut kong = world.kong(json!({})).await;
    let forged = ["x_consumer_id", "x-anonymous-consumer"];
    for _ in 0..2 {
        kong.access(&world.headers(Subject::client("alice"), &forged)).await;
        let changes: Struct = kong.asked("kong.service.request.set_headers").await;
        kong.answer(b"").await;
        let AuthenticateArgs { consumer, credential } = kong.asked("kong.client.authenticate").await;
        let consumer = consumer.unwrap();
        assert_eq!((&*consumer.username, &*consumer.custom_id), ("alice", "c-alice"));
        let expected = AuthenticatedCredential { id: "alice".into(), consumer_id: consumer.id.clone() };
        assert_eq!(credential, Some(expected));
        kong.answer(b"").await;
        let changes: Vec<_> =
            changes.fields.into_iter().map(|field| (field.key, field.value.unwrap())).collect();
        let removed = ["client-cert", "client-cert-proof", "x_consumer_id", "x-anonymous-consumer"];
        let set = [
            ("X-Consumer-ID", &*consumer.id),
            ("X-Consumer-Username", "alice"),
            ("X-Consumer-Custom-ID", "c-alice"),
            ("X-Credential-Identifier", "alice"),
        ];
        let removed = removed.map(|name| (name.to_owned(), Value::list([])));
        let set = set.map(|(name, value)| (name.to_owned(), Value::from(value)));
        assert_eq!(changes, [removed, set].concat());
        kong.goes_on().await;
    }
    assert_eq!(world.server.unfinished(), 0);
    kong.closes().await.unwrap();
}

#[tokio::test]
async fn a_group_is_set_and_an_earlier_plugin_is_asked_for() {
    let world = World::new();
    let mut kong = world.kong(json!({"skip_consumer_lookup": true, "authenticated_group_by": "CN"})).await;
    kong.access(&world.headers(Subject::client("ops"), &[])).await;
    let _: Struct = kong.asked("kong.service.request.set_headers").await;
    kong.answer(b"").await;
    let shared: KeyValue = kong.asked("kong.ctx.shared.set").await;
    assert_eq!(shared, KeyValue { k: "authenticated_groups".into(), v: Some(Value::list(["ops"])) });
    kong.answer(b"").await;
    let AuthenticateArgs { consumer, credential } = kong.asked("kong.client.authenticate").await;
    assert_eq!((consumer, &*credential.unwrap().id), (None, "CN=ops"));
    kong.answer(b"").await;
    let set: KeyValue = kong.asked("kong.nginx.set_ctx").await;
    let credential = Value::table(Struct::new([("id".to_owned(), Value::from("CN=ops"))]));
    assert_eq!(set, KeyValue { k: "authenticated_credential".into(), v: Some(credential) });
    kong.answer(b"").await;
    kong.goes_on().await;

    let mut kong = world.kong(json!({"anonymous": "anon"})).await;
    // Somebody else has authenticated the request, who is left alone.
    kong.access(&table([("host", "x")])).await;
    let Empty {} = kong.asked("kong.client.get_credential").await;
    let credential = AuthenticatedCredential { id: "k".into(), ..Default::default() };
    kong.answer(&credential.encode_to_vec()).await;
    kong.goes_on().await;
    // Nobody has. One value that is not UTF-8 breaks nothing.
    let mut headers = table([("x-latin", "??")]);
    headers.iter_mut().filter(|byte| **byte == b'?').for_each(|byte| *byte = 0xff);
    kong.access(&headers).await;
    let Empty {} = kong.asked("kong.client.get_credential").await;
    kong.answer(b"").await;
    let _: Struct = kong.asked("kong.service.request.set_headers").await;
    kong.answer(b"").await;
    let AuthenticateArgs { consumer, credential } = kong.asked("kong.client.authenticate").await;
    assert_eq!((&*consumer.unwrap().username, credential), ("anon", None));
    kong.answer(b"").await;
    kong.goes_on().await;
}

#[tokio::test]
async fn a_refusal_is_three_calls_of_which_the_last_is_the_answer_to_the_client() {
    let world = World::new();
    for (headers, reason, message) in [
        (table([("host", "x")]), "no_certificate", NO_CERTIFICATE),
        (Vec::new(), "no_certificate", NO_CERTIFICATE),
        (world.headers(Subject::client("alice").expired(), &[]), "expired", NOT_VERIFIED),
        (world.headers(Subject::client("alice"), &["client_cert"]), "malformed", NOT_VERIFIED),
    ] {
        let mut kong = world.kong(json!({})).await;
        kong.access(&headers).await;
        let line = kong.is_logged("kong.log.notice").await;
        assert!(line.starts_with(&format!("[mtls-auth] refused: {reason}")), "{line}");
        kong.is_refused(401, message).await;
        // A server that leaves does not wait for what Kong does with the connection.
        let finished = async {
            while world.server.unfinished() > 0 {
                tokio::task::yield_now().await;
            }
        };
        within(finished).await;
        // As Kong does: it leaves the connection to be closed with the request. That is no error.
        kong.closes().await.unwrap();
    }
}

#[tokio::test]
async fn a_kong_that_came_back_after_a_refusal_would_find_the_event_ended() {
    let world = World::new();
    let mut kong = world.kong(json!({})).await;
    for _ in 0..2 {
        kong.access(b"").await;
        kong.is_logged("kong.log.notice").await;
        kong.is_refused(401, NO_CERTIFICATE).await;
        kong.answer(b"").await;
        kong.goes_on().await;
    }
}

#[tokio::test]
async fn a_fault_of_ours_or_an_answer_that_kong_never_gives_is_500() {
    let world = World::new();
    let mut kong = world.kong(json!({"anonymous": "anon"})).await;
    let number = table([("host", Value { kind: None })]);
    for nonsense in [&b"\xff"[..], b"GET /", &number] {
        kong.access(nonsense).await;
        assert_eq!(kong.is_logged("kong.log.err").await, "[mtls-auth] refused: internal");
        kong.is_refused(500, FAULT_TEXT).await;
        kong.answer(b"").await;
        kong.goes_on().await;
    }
    // Longer than any can be: read over, for to close the connection would make Kong try again without end.
    kong.access(&vec![0; MAX_ANSWER + 1]).await;
    assert_eq!(kong.is_logged("kong.log.err").await, "[mtls-auth] refused: internal");
    kong.is_refused(500, FAULT_TEXT).await;
    kong.answer(b"").await;
    kong.goes_on().await;
    // A phase that the plugin does not have.
    kong.begin("log").await;
    assert_eq!(
        kong.is_logged("kong.log.err").await,
        "[mtls-auth] refused: internal, the plugin has no phase \"log\""
    );
    kong.is_refused(500, FAULT_TEXT).await;
    kong.closes().await.unwrap();
}

#[tokio::test]
async fn a_panic_is_500_on_its_own_connection() {
    let world = World::new();
    let (kong, ours) = UnixStream::pair().unwrap();
    let [kong, ours] = [kong, ours].map(|stream| Stream::new(stream).unwrap());
    let mut line = Line { stream: ours, received: BytesMut::new(), sending: BytesMut::new() };
    let mut kong = Line { stream: kong, received: BytesMut::new(), sending: BytesMut::new() };
    let event = Event::new(&Spares::default(), |exchange| async move {
        exchange.call(Call::exit(200, "not meant")).await;
        panic!("on purpose");
    });
    frame::put(&mut kong.sending, b"");
    kong.send().await.unwrap();
    let last_word = run(&mut line, ProtoBufEvent::Runs(event), &Spares::default()).await.unwrap();
    assert_eq!(last_word, Some(Call::exit(500, FAULT_TEXT)));
    world.kong(json!({})).await.closes().await.unwrap();
}

/// Kong has no ear for an error of StartInstance, so the instance is there and its events say it.
#[tokio::test]
async fn a_configuration_that_cannot_be_started_is_500_with_the_reason_and_is_tried_again() {
    let world = World::new();
    world.entities.send_replace(entities(json!([])));
    let mut kong = world.kong(json!({})).await;
    for _ in 0..2 {
        kong.begin("access").await;
        let line = kong.is_logged("kong.log.err").await;
        assert!(
            line.starts_with("[mtls-auth] refused: not_started, config.ca_certificates[0]: ")
                && line.contains(CA_ID),
            "{line}"
        );
        kong.is_refused(500, FAULT_TEXT).await;
        kong.answer(b"").await;
        kong.goes_on().await;
    }
    world.entities.send_replace(entities(json!([{"id": CA_ID, "cert": world.root.pem()}])));
    for _ in 0..2 {
        kong.access(&world.headers(Subject::client("alice"), &[])).await;
        let _: Struct = kong.asked("kong.service.request.set_headers").await;
        kong.answer(b"").await;
        let _: AuthenticateArgs = kong.asked("kong.client.authenticate").await;
        kong.answer(b"").await;
        kong.goes_on().await;
    }
}

#[tokio::test]
async fn kong_is_told_of_an_instance_that_there_is_not_in_the_only_words_it_knows() {
    let world = World::new();
    let mut kong = world.kong(json!({})).await;
    let instance_id = kong.instance;
    let closing = || InstanceId { instance_id };
    let status =
        Returned::InstanceStatus(InstanceStatus { name: "mtls-auth".into(), instance_id: kong.instance });
    assert_eq!(kong.call(Command::GetInstanceStatus(closing())).await, Some(status.clone()));
    assert_eq!(kong.call(Command::CloseInstance(closing())).await, Some(status));
    assert_eq!(kong.call(Command::GetInstanceStatus(closing())).await, None);
    assert_eq!(kong.call(Command::CloseInstance(closing())).await, None);
    for id in [instance_id, 0, -1, i32::MIN] {
        let mut kong = world.connect();
        kong.instance = id;
        kong.begin("access").await;
        let Empty {} = kong.asked(&format!("no plugin instance #{id}")).await;
        kong.closes().await.unwrap();
    }
}

#[tokio::test]
async fn instances_have_ids_of_their_own_that_fit() {
    let world = World::new();
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(world.kong(json!({})).await.instance);
    }
    ids.sort_unstable();
    ids.dedup();
    assert!(ids.len() == 3 && ids[0] > 0, "{ids:?}");
}

#[tokio::test]
async fn the_plugin_is_described_on_request() {
    let world = World::new();
    let mut kong = world.connect();
    let names = kong.call(Command::GetPluginNames(Empty {})).await;
    assert!(matches!(names, Some(Returned::PluginNames(names)) if names.names == ["mtls-auth"]));
    let info = kong.call(Command::GetPluginInfo(Name { name: b"mtls-auth".into() })).await;
    let Some(Returned::PluginInfo(info)) = info else { panic!("{info:?}") };
    assert_eq!((info.priority, &info.phases[..]), (1600, &["access".to_owned()][..]));
    assert_eq!(serde_json::from_str::<Json>(&info.schema).unwrap(), crate::schema::schema());
    assert_eq!(kong.call(Command::GetPluginInfo(Name { name: b"key-auth".into() })).await, None);
}

#[tokio::test]
async fn an_event_may_come_in_single_bytes() {
    let world = World::new();
    let mut kong = world.kong(json!({})).await;
    let event = HandleEvent { instance_id: kong.instance, event_name: b"access".into() };
    let call = RpcCall { sequence: 7, command: Some(Command::HandleEvent(event)) };
    let mut stream = BytesMut::new();
    // The answers to all calls at once behind it, as no Kong sends them.
    for frame in [&*call.encode_to_vec(), &*world.headers(Subject::client("alice"), &[]), b"", b""] {
        frame::put(&mut stream, frame);
    }
    for byte in stream {
        kong.line.stream.write_all(&[byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    kong.sequence = 7;
    for method in ["kong.request.get_headers", "kong.service.request.set_headers", "kong.client.authenticate"]
    {
        assert_eq!(kong.frame().await, method);
        kong.frame().await;
    }
    kong.goes_on().await;
}

#[tokio::test]
async fn what_is_not_of_the_protocol_ends_the_connection_with_what_is_wrong() {
    let world = World::new();
    let start = StartInstance { name: b"key-auth".into(), config: b"{}".into() };
    let start = RpcCall { sequence: 1, command: Some(Command::StartInstance(start)) }.encode_to_vec();
    let framed = |content: &[u8]| {
        let mut stream = BytesMut::new();
        frame::put(&mut stream, content);
        stream.to_vec()
    };
    for (bytes, says) in [
        (framed(b""), "no command"),
        (framed(b"\x08\x01"), "no command"),
        (framed(b"\x08\x01\xba\x02\x00"), "no command"),
        (framed(b"\x08"), "not a call"),
        (framed(b"\xff\xff\xff"), "not a call"),
        (framed(b"\xa2\x02\x05\x08"), "not a call"),
        (framed(&start), "this server has no plugin \"key-auth\""),
        (b"\x05\x00\x00\x00\x08".to_vec(), "in the middle of a frame"),
        (b"\x05\x00".to_vec(), "in the middle of its first"),
    ] {
        let mut kong = world.connect();
        kong.line.stream.write_all(&bytes).await.unwrap();
        kong.line.stream.shutdown();
        let problem = within(kong.served).await.unwrap().unwrap_err().to_string();
        assert!(problem.contains(says), "{bytes:02x?}: {problem}");
    }
    // A later call may not declare more than the first.
    let mut kong = world.kong(json!({})).await;
    kong.line.stream.write_all(&u32::try_from(MAX_CALL + 1).unwrap().to_le_bytes()).await.unwrap();
    let problem = within(kong.served).await.unwrap().unwrap_err().to_string();
    assert!(problem.contains("a frame of 8388609 bytes"), "{problem}");
}

#[tokio::test]
async fn a_header_of_another_front_counts_where_kong_trusts_the_address() {
    let world = World::new();
    let source = json!({
        "certificate_source": "header", "certificate_header_name": "X-Front",
        "certificate_header_format": "base64_encoded",
    });
    let leaf = world.root.issue(Subject::client("alice"));
    let headers = table([("x-front", openssl::base64::encode_block(&leaf.der))]);
    for (answer, passes) in [
        (Bool { v: true }.encode_to_vec(), true),
        (Bool { v: false }.encode_to_vec(), false),
        (Vec::new(), false),
        (b"nonsense".to_vec(), false),
    ] {
        let mut kong = world.kong(source.clone()).await;
        kong.access(&headers).await;
        let Empty {} = kong.asked("kong.client.get_ip").await;
        kong.answer(&Text { v: b"10.0.0.1".into() }.encode_to_vec()).await;
        let asked: Text = kong.asked("kong.ip.is_trusted").await;
        assert_eq!(asked.v, b"10.0.0.1");
        kong.answer(&answer).await;
        let next = kong.frame().await;
        assert_eq!(
            next,
            if passes { "kong.service.request.set_headers" } else { "kong.log.notice" },
            "{answer:?}"
        );
    }
}

#[tokio::test]
async fn of_kongs_own_listener_the_leaf_is_to_be_had() {
    let world = World::new();
    let leaf = world.root.issue(Subject::client("alice"));
    for (pem, next) in [(leaf.cert.as_str(), "kong.service.request.set_headers"), ("", "kong.log.notice")] {
        let mut kong = world.kong(json!({"certificate_source": "tls"})).await;
        kong.access(&[]).await;
        let asked: Text = kong.asked("kong.nginx.get_var").await;
        assert_eq!(asked.v, b"ssl_client_raw_cert");
        kong.answer(&Text { v: pem.into() }.encode_to_vec()).await;
        assert_eq!(kong.frame().await, next);
    }
}

#[tokio::test]
async fn an_event_that_kong_gives_up_is_over() {
    let world = World::new();
    let mut kong = world.kong(json!({})).await;
    kong.begin("access").await;
    let _: Int = kong.asked("kong.request.get_headers").await;
    assert_eq!(world.server.unfinished(), 1);
    let problem = kong.closes().await.unwrap_err().to_string();
    assert!(problem.contains("in the middle of an event"), "{problem}");
    assert_eq!(world.server.unfinished(), 0);
}
