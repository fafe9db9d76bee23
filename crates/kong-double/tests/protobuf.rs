//! ProtoBuf:1: a recording of a real Kong replayed, and what becomes of requests when the plugin server does what it
//! should not.

mod support;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use kong_double::{
    Consumer, Double, DoubleConfig, PluginConfig, Protocol, Route,
    recording::{Direction, Recording},
};
use serde_json::{Value as Json, json};
use support::{
    PATIENCE, Upstream, get, plugin_info_of,
    protobuf::{CLOSE, Command, EVENT, Field, Kong, START, Server, bytes, content, fields, number},
    send, shape,
};

fn config(server: &Server, upstream: &Upstream) -> DoubleConfig {
    let mut config = DoubleConfig::new(&server.socket, plugin_info_of(Protocol::ProtoBuf, "p", &["access"]));
    config.routes = vec![Route::new("r", upstream.addr).plugin(PluginConfig::new("p", json!({})))];
    config
}

async fn start(server: &Server, upstream: &Upstream) -> Double {
    Double::start(config(server, upstream)).await.unwrap()
}

/// Whole frames of a recording, in the order in which they were complete: never do both sides speak at once.
fn frames(recording: &Recording) -> Vec<(Direction, Vec<u8>)> {
    let mut frames = Vec::new();
    let mut received = [Vec::new(), Vec::new()];
    for chunk in &recording.chunks {
        assert_eq!(chunk.conn, 1);
        let received = &mut received[usize::from(chunk.dir == Direction::ServerToKong)];
        received.extend(&chunk.bytes);
        while let Some((length, behind)) = received.split_first_chunk() {
            let Some(frame) = behind.get(..u32::from_le_bytes(*length) as usize) else { break };
            let frame = frame.to_vec();
            received.drain(..4 + frame.len());
            frames.push((chunk.dir, frame));
        }
    }
    assert!(received.iter().all(Vec::is_empty));
    frames
}

/// A frame of Kong's without what depends on machine and time.
fn normal(frame: &[u8]) -> Vec<Field> {
    let json = |text: &[u8]| serde_json::from_slice::<Json>(text).unwrap();
    fields(frame)
        .into_iter()
        .map(|field| match field {
            // KONG_ACCESS_START.
            Field::Double(2, time) => {
                assert!(f64::from_le_bytes(time) > 1e12 && f64::from_le_bytes(time).fract() == 0.0);
                Field::Double(2, [0; 8])
            }
            Field::Bytes(START, message) => {
                let mut config = json(&content(&message, 2));
                for (key, value) in config.as_object_mut().unwrap() {
                    if key.starts_with("__") || key == "route_id" {
                        *value = Json::Null;
                    }
                }
                let message = [bytes(1, content(&message, 1)), bytes(2, config.to_string())].concat();
                Field::Bytes(START, message)
            }
            Field::Bytes(1, text) if text.starts_with(b"{\"") => {
                Field::Bytes(1, shape(&json(&text)).to_string().into())
            }
            other => other,
        })
        .collect()
}

#[tokio::test]
async fn recording_08_access_response_and_log_and_another_config() {
    let recorded = frames(&Recording::load("08"));
    let dir = tempfile::tempdir().unwrap();
    let upstream = Upstream::start(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nServer: BaseHTTP/0.6 Python/3.11.7\r\n\
         Date: Mon, 23 Nov 2026 20:51:18 GMT\r\nx-upstream: py\r\nContent-Length: 2\r\n\r\n{}",
    )
    .await;
    let written = Arc::new(Mutex::new(Vec::new()));
    let (script, frames) = (recorded.clone(), Arc::clone(&written));
    let server = Server::start(dir.path(), move |kong| {
        for (side, frame) in &script {
            match side {
                Direction::ServerToKong => kong.write(frame)?,
                Direction::KongToServer => {
                    let frame = kong.frame()?;
                    frames.lock().unwrap().push(frame);
                }
            }
        }
        assert_eq!(kong.frame(), None, "not a word more");
        None
    });
    let go = |message: &str| {
        let phases = ["access", "response", "log"];
        let info = plugin_info_of(Protocol::ProtoBuf, "go-hello", &phases);
        let mut config = DoubleConfig::new(&server.socket, info);
        let plugin = PluginConfig::new("go-hello", json!({"message": message}));
        config.routes = vec![Route::new("go", upstream.addr).paths(["/go"]).plugin(plugin)];
        config
    };
    // The log phase comes after the response: by then Kong has answered so many frames.
    let expected: Vec<_> = recorded.iter().filter(|(side, _)| *side == Direction::KongToServer).collect();
    let ends = expected.iter().enumerate().filter(|(_, (_, frame))| frame.windows(3).any(|w| w == b"log"));
    let ends: Vec<_> = ends.map(|(at, _)| at + 11).collect();
    assert_eq!((ends.len(), ends.last()), (3, Some(&expected.len())));

    let double = Double::start(go("v3")).await.unwrap();
    for (n, message) in ["v3", "v3", "v4"].into_iter().enumerate() {
        if n == 2 {
            double.reload(go("v4")).unwrap();
        }
        let request =
            "GET /go HTTP/1.1\r\nHost: 127.0.0.1:8000\r\nUser-Agent: curl/7.88.1\r\nAccept: */*\r\n\r\n";
        let response = send(double.addr(), request).await;
        assert_eq!((response.status, response.text()), (200, "{}".into()), "{:?}", double.error_log());
        assert_eq!(response.headers("x-hello-from-go"), [format!("Go says {message} to 127.0.0.1:8000")]);
        let at_response = "got from server 'BaseHTTP/0.6 Python/3.11.7'";
        assert_eq!(response.headers("x-hello-from-go-at-response"), [at_response]);
        let all = async {
            while written.lock().unwrap().len() < ends[n] {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, all).await.expect("the log phase runs");
    }
    let written = written.lock().unwrap();
    for (n, ((_, expected), sent)) in expected.iter().zip(&*written).enumerate() {
        assert_eq!(normal(sent), normal(expected), "frame {} of Kong's", n + 1);
    }
    assert_eq!(written.len(), expected.len());
    let counted = double.rpc_calls();
    let first = &counted.requests[0];
    // Access and response; the log phase does not count.
    assert_eq!((first.event_calls(), first.methods.len()), (7, 8), "{:?}", first.methods);
    assert_eq!(counted.total, expected.len() as u64);
    assert_eq!(double.error_log().len(), 1, "{:?}", double.error_log());
}

#[tokio::test]
async fn a_lost_event_begins_anew_with_another_instance() {
    for (what, says) in [
        ("no plugin instance #1", "[p] method \"no plugin instance #1\" not found"),
        ("", "pb_rpc.lua:378 [p] closed"),
    ] {
        let (dir, upstream) = (tempfile::tempdir().unwrap(), Upstream::ok().await);
        let server = Server::with_events(dir.path(), move |kong, event| match (event.instance(), what) {
            (1, "") => None,
            (1, method) => {
                assert_eq!(kong.call(method, b""), None, "Kong leaves the connection");
                None
            }
            _ => kong.pass(event),
        });
        let double = start(&server, &upstream).await;
        let response = send(double.addr(), get("/", &[])).await;
        assert_eq!(response.status, 200, "{:?}", double.error_log());
        assert_eq!(server.numbers(), [START, EVENT, START, EVENT], "nothing is closed");
        let connections: Vec<_> = server.commands().iter().map(|command| command.conn).collect();
        assert_eq!(connections, [1, 1, 2, 2], "{what:?}");
        let instances: Vec<_> =
            server.commands().iter().filter(|c| c.number == EVENT).map(Command::instance).collect();
        assert_eq!(instances, [1, 2]);
        let line = double.error_log().into_iter().find(|line| line.ends_with(says));
        assert!(line.is_some_and(|line| line.starts_with("[warn]")), "{:?}", double.error_log());
        assert_eq!(upstream.seen().len(), 1);
    }
}

/// What Kong says about a request that it answers with a 500 because of the plugin server.
async fn refused(
    script: impl Fn(&mut Kong, &Command) -> Option<()> + Send + Sync + 'static,
    change: impl Fn(&mut DoubleConfig),
) -> String {
    let (dir, upstream) = (tempfile::tempdir().unwrap(), Upstream::ok().await);
    let server = Server::with_events(dir.path(), script);
    let mut config = config(&server, &upstream);
    change(&mut config);
    let double = Double::start(config).await.unwrap();
    let response = send(double.addr(), get("/", &[])).await;
    assert_eq!(response.status, 500, "{:?}", double.error_log());
    assert!(response.text().contains("\"message\":\"An unexpected error occurred\""), "{}", response.text());
    assert_eq!(upstream.seen(), []);
    assert_eq!(server.numbers(), [START, EVENT], "once");
    double.error_log().pop().unwrap()
}

#[tokio::test]
async fn whatever_else_goes_wrong_is_a_500() {
    let call = |method: &'static str, message: &'static [u8]| {
        move |kong: &mut Kong, _: &Command| {
            assert_eq!(kong.call(method, message), None, "Kong leaves the connection");
            None
        }
    };
    for (method, message, says) in [
        (
            "kong.response.error",
            &b""[..],
            "pb_rpc.lua:382 [p] pluginserver error: method \"kong.response.error\" not found",
        ),
        ("kong.no.such", b"", "[p] pluginserver error: method \"kong.no.such\" not found"),
        // Errors of Lua, in a PDK function and in the decoder.
        ("kong.client.authenticate", b"", "pb_rpc.lua:233: either credential or consumer must be provided"),
        (
            "kong.client.load_consumer",
            b"\x0a\x03bob",
            "pb_rpc.lua:233: cannot load a consumer with an id that is not a uuid",
        ),
        ("kong.request.get_headers", b"\x08\xe9\x07", "pb_rpc.lua:233: max_headers must be <= 1000"),
        (
            "kong.response.get_status",
            b"",
            "pb_rpc.lua:233: function cannot be called in access phase (only in: response, log)",
        ),
        ("kong.request.get_headers", b"\x0a\x00", "pb_rpc.lua:229: type mismatch for field 'v'"),
    ] {
        let line = refused(call(method, message), |_| {}).await;
        assert!(line.starts_with("[error]") && line.ends_with(says), "{line}");
    }
    let line = refused(
        |kong, event| {
            kong.write(b"")?;
            kong.write(&number(1, event.sequence + 1))
        },
        |_| {},
    )
    .await;
    assert!(line.ends_with("pb_rpc.lua:325: assertion failed!"), "{line}");
    // Silence, and half a frame before it.
    for half in [&b""[..], b"\x05\x00", b"\x05\x00\x00\x00ab"] {
        let silence = move |kong: &mut Kong, _: &Command| {
            kong.raw(half)?;
            assert_eq!(kong.frame(), None, "Kong leaves the connection");
            None
        };
        let line = refused(silence, |config| config.read_timeout = Duration::from_millis(50)).await;
        assert!(line.ends_with("[p] pluginserver error: timeout"), "{line}");
    }
}

#[tokio::test]
async fn a_connection_is_used_again_only_after_the_server_returned() {
    let (dir, upstream) = (tempfile::tempdir().unwrap(), Upstream::ok().await);
    let events = AtomicUsize::new(0);
    let server = Server::with_events(dir.path(), move |kong, event| {
        if events.fetch_add(1, Ordering::SeqCst) < 2 {
            return kong.pass(event);
        }
        let headers = bytes(1, [bytes(1, "X-A"), bytes(2, bytes(3, "b"))].concat());
        let exit = [number(1, 401), bytes(2, "no"), bytes(3, headers)].concat();
        assert_eq!(kong.call("kong.response.exit", &exit), None, "Kong leaves the connection");
        None
    });
    let double = start(&server, &upstream).await;
    let mut statuses = Vec::new();
    for _ in 0..4 {
        let response = send(double.addr(), get("/", &[])).await;
        if response.status == 401 {
            assert_eq!((response.text(), response.headers("x-a")), ("no".into(), vec!["b".into()]));
        }
        statuses.push(response.status);
    }
    assert_eq!(statuses, [200, 200, 401, 401]);
    server.wait_for_ended(2).await;
    let connections: Vec<_> =
        server.commands().iter().map(|command| (command.number, command.conn)).collect();
    assert_eq!(connections, [(START, 1), (EVENT, 1), (EVENT, 1), (EVENT, 1), (EVENT, 2)]);
    let sequences: Vec<_> = server.commands().iter().map(|command| command.sequence).collect();
    assert_eq!(sequences, [2, 3, 4, 5, 6]);
    let methods = double.rpc_calls().requests[3].methods.clone();
    assert_eq!(methods, ["cmd_handle_event"], "Kong does not answer an exit");
}

#[tokio::test]
async fn an_instance_that_was_not_started_is_a_500() {
    let (dir, upstream) = (tempfile::tempdir().unwrap(), Upstream::ok().await);
    let starts = AtomicUsize::new(0);
    let server = Server::start(dir.path(), move |kong| {
        loop {
            let command = kong.command()?;
            match (command.number, starts.load(Ordering::SeqCst)) {
                // Closed: the next request may try. No status: nobody may, until the claim is old.
                (START, n) => {
                    starts.fetch_add(1, Ordering::SeqCst);
                    match n {
                        0 => return None,
                        1 => kong.write(&number(1, command.sequence))?,
                        _ => kong.started(&command, 7)?,
                    }
                }
                _ => kong.pass(&command)?,
            }
        }
    });
    let mut config = config(&server, &upstream);
    config.claim_timeout = Duration::from_millis(50);
    let double = Double::start(config).await.unwrap();
    for (status, says) in [
        (500, "plugin.lua:286: closed"),
        (500, "pb_rpc.lua:342: attempt to index field 'instance_status' (a nil value)"),
        (500, "pluginserver error: Could not claim instance_id for p"),
    ] {
        assert_eq!(send(double.addr(), get("/", &[])).await.status, status);
        let line = double.error_log().pop().unwrap();
        assert!(line.contains(says), "{line}");
    }
    assert_eq!(send(double.addr(), get("/", &[])).await.status, 200);
    assert_eq!(server.numbers(), [START, START, START, EVENT]);
    assert_eq!(server.commands()[3].instance(), 7);
}

#[tokio::test]
async fn another_config_closes_the_old_instance_and_the_pdk_logs_in_nobodys_name() {
    let (dir, upstream) = (tempfile::tempdir().unwrap(), Upstream::ok().await);
    let server = Server::with_events(dir.path(), |kong, event| {
        let text = bytes(1, bytes(3, "[p] here"));
        assert_eq!(kong.call("kong.log.notice", &text)?, b"");
        kong.pass(event)
    });
    let double = start(&server, &upstream).await;
    send(double.addr(), get("/", &[])).await;
    double.reload(config(&server, &upstream)).unwrap();
    send(double.addr(), get("/", &[])).await;
    assert_eq!(server.numbers(), [START, EVENT, START, CLOSE, EVENT]);
    assert_eq!(server.commands()[3].instance(), 1);
    let line = double.error_log().pop().unwrap();
    assert!(line.ends_with("[kong] pb_rpc.lua:233 [p] here"), "{line}");
}

#[tokio::test]
async fn workers_write_their_fields_in_different_orders() {
    let (dir, upstream) = (tempfile::tempdir().unwrap(), Upstream::ok().await);
    let server = Server::with_events(dir.path(), |kong, event| kong.pass(event));
    let mut config = config(&server, &upstream);
    config.workers = 2;
    let double = Double::start(config).await.unwrap();
    for _ in 0..2 {
        assert_eq!(send(double.addr(), get("/", &[])).await.status, 200);
    }
    let events: Vec<_> = server.commands().into_iter().filter(|c| c.number == EVENT).collect();
    assert_eq!(events[0].message, [bytes(2, "access"), number(1, 1)].concat());
    assert_eq!(events[1].message, [number(1, 2), bytes(2, "access")].concat());
    assert_eq!(
        events.iter().map(|event| event.sequence).collect::<Vec<_>>(),
        [3, 3],
        "each counts for itself"
    );
}

#[tokio::test]
async fn what_a_plugin_sets_reaches_the_upstream() {
    let (dir, upstream) = (tempfile::tempdir().unwrap(), Upstream::ok().await);
    let alice = Consumer::named("alice");
    let id = alice.id.clone();
    let server = Server::with_events(dir.path(), move |kong, event| {
        let by_name = [bytes(1, "alice"), number(2, 1)].concat();
        let loaded = kong.call("kong.client.load_consumer", &by_name)?;
        assert_eq!((content(&loaded, 1), content(&loaded, 3)), (id.clone().into_bytes(), b"alice".to_vec()));
        assert_eq!(kong.call("kong.client.get_credential", b"")?, b"");
        let credential = [bytes(1, "c"), bytes(2, &id)].concat();
        let who = [bytes(1, &loaded), bytes(2, &credential)].concat();
        assert_eq!(kong.call("kong.client.authenticate", &who)?, b"");
        assert_eq!(kong.call("kong.client.get_credential", b"")?, credential);
        let entry = |name: &str, value: Vec<u8>| bytes(1, [bytes(1, name), bytes(2, value)].concat());
        let headers = kong.call("kong.request.get_headers", &number(1, 1000))?;
        let twice = bytes(6, [bytes(1, bytes(3, "1")), bytes(1, bytes(3, "2"))].concat());
        for line in [entry("x-gone", bytes(3, "1")), entry("x-two", twice)] {
            assert!(fields(&headers).contains(&fields(&line)[0]), "{headers:02x?}");
        }
        // An empty list clears.
        let set = [entry("x-gone", bytes(6, b"")), entry("x-set", bytes(3, "yes"))].concat();
        assert_eq!(kong.call("kong.service.request.set_headers", &set)?, b"");
        assert_eq!(kong.call("kong.ip.is_trusted", &bytes(1, "10.0.0.1"))?, number(1, 0));
        assert_eq!(kong.call("kong.client.get_ip", b"")?, bytes(1, "127.0.0.1"));
        assert_eq!(kong.call("kong.nginx.get_var", &bytes(1, "ssl_client_raw_cert"))?, b"");
        kong.pass(event)
    });
    let mut config = config(&server, &upstream);
    config.consumers = vec![alice];
    let double = Double::start(config).await.unwrap();
    let response = send(double.addr(), get("/", &["X-Gone: 1", "X-Two: 1", "X-Two: 2"])).await;
    assert_eq!(response.status, 200, "{:?}", double.error_log());
    let seen = &upstream.seen()[0];
    assert_eq!((seen.header("x-gone"), seen.header("x-set").as_deref()), (None, Some("yes")));
    assert_eq!(seen.header("x-two").as_deref(), Some("1, 2"));
}
