//! `kong.client.load_consumer`, in both protocols.

mod support;

use std::sync::{Arc, Mutex};

use kong_double::{Consumer, Double, DoubleConfig, PluginConfig, Protocol, Route, Value};
use serde_json::json;
use support::{
    Server, Upstream, get, plugin_info_of,
    protobuf::{self, Field, bytes, content, fields, number},
    send,
};

/// What an event asks for.
type Asked = Arc<Mutex<(String, bool)>>;
/// What it got: the username, or none for nil.
type Got = Arc<Mutex<Option<Option<String>>>>;

/// A server whose events load a consumer.
#[expect(dead_code, reason = "held for its end")]
enum Loader {
    MsgPack(Server),
    ProtoBuf(protobuf::Server),
}

impl Loader {
    fn start(dir: &std::path::Path, protocol: Protocol, asked: &Asked, got: &Got) -> Self {
        let (asked, got) = (Arc::clone(asked), Arc::clone(got));
        match protocol {
            Protocol::MsgPack => Self::MsgPack(Server::start(dir, move |call| match call.method.as_str() {
                "plugin.StartInstance" => call.result(Value::record([("Id", Value::number(1))])),
                "plugin.HandleEvent" => {
                    let (id, by_username) = asked.lock().unwrap().clone();
                    call.pdk("kong.client.load_consumer", vec![Value::str(id), Value::Bool(by_username)])
                }
                "plugin.StepConsumer" => {
                    let consumer = call.arg.get("Data");
                    let name = consumer.get("username").as_bytes().map(<[u8]>::to_vec);
                    let has_data = call.bytes.windows(4).any(|w| w == b"Data");
                    assert_eq!(has_data, name.is_some(), "nil is a missing field");
                    *got.lock().unwrap() = Some(name.map(|name| String::from_utf8(name).unwrap()));
                    call.ret()
                }
                other => panic!("{other}"),
            })),
            Protocol::ProtoBuf => Self::ProtoBuf(protobuf::Server::with_events(dir, move |kong, event| {
                let (id, by_username) = asked.lock().unwrap().clone();
                let spec = [bytes(1, id), number(2, u64::from(by_username))].concat();
                let consumer = kong.call("kong.client.load_consumer", &spec)?;
                let name = (!consumer.is_empty()).then(|| {
                    assert!(fields(&consumer).contains(&Field::Number(2, 1_704_067_200)), "created_at");
                    String::from_utf8(content(&consumer, 3)).unwrap()
                });
                *got.lock().unwrap() = Some(name);
                kong.pass(event)
            })),
        }
    }
}

#[tokio::test]
async fn a_consumer_is_found_by_id_and_then_by_username() {
    for protocol in Protocol::ALL {
        let (dir, upstream) = (tempfile::tempdir().unwrap(), Upstream::ok().await);
        let (asked, got) = (Asked::default(), Got::default());
        let _server = Loader::start(dir.path(), protocol, &asked, &got);
        let alice = Consumer::named("alice");
        // One whose name is the id of another, and one whose name looks like an id.
        let (shadow, uuid) =
            (Consumer::named(&alice.id), Consumer::named("00000000-0000-4000-8000-000000000000"));
        let info = plugin_info_of(protocol, "p", &["access"]);
        let mut config = DoubleConfig::new(dir.path().join("plugin.socket"), info);
        config.consumers = vec![shadow.clone(), alice.clone(), uuid.clone()];
        config.routes = vec![Route::new("r", upstream.addr).plugin(PluginConfig::new("p", json!({})))];
        let double = Double::start(config).await.unwrap();
        let load = async |id: &str, by_username: bool| {
            *asked.lock().unwrap() = (id.to_owned(), by_username);
            *got.lock().unwrap() = None;
            let status = send(double.addr(), get("/", &[])).await.status;
            (status, got.lock().unwrap().clone())
        };
        let named = |name: &str| (200, Some(Some(name.to_owned())));
        let (nil, thrown) = ((200, Some(None)), (500, None));
        assert_eq!(load(&alice.id, false).await, named("alice"), "{protocol:?}");
        assert_eq!(load(&alice.id, true).await, named("alice"), "the id counts first");
        assert_eq!(load("alice", true).await, named("alice"));
        assert_eq!(
            load("00000000-0000-4000-8000-000000000000", true).await,
            named("00000000-0000-4000-8000-000000000000")
        );
        assert_eq!(load("00000000-0000-4000-8000-000000000000", false).await, nil);
        assert_eq!(load("nobody", true).await, nil);
        assert_eq!(load("alice", false).await, thrown);
        let thrown = "cannot load a consumer with an id that is not a uuid";
        assert!(double.error_log().pop().unwrap().ends_with(thrown));

        double.set_consumer_store(false);
        assert_eq!(load(&alice.id, false).await, nil);
        assert_eq!(load("alice", true).await, nil);
        double.set_consumer_store(true);
        assert_eq!(load("alice", true).await, named("alice"), "{protocol:?}");
    }
}
