//! Replays recordings of a real Kong: a scripted plugin server answers with the recorded bytes, and what
//! the double sends must be what Kong sent, down to the MessagePack format of every element.

mod support;

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};

use kong_double::{
    Double, DoubleConfig, PluginConfig, Route, Value,
    pack::{MapOrder, pack, unpack},
    recording::{Exchange, Recording},
    wire::Wire,
};
use serde_json::{Value as Json, json};
use support::{Call, Reply, Response, Server, Upstream, exchange, plugin_info, send, shape};
use tokio::net::TcpStream;

/// The recorded bytes for a live call: only message ids differ.
fn reply(exchange: &Exchange, call: &Call) -> Reply {
    let recorded = Call::parse_id(&exchange.call);
    let mut rest = &exchange.replies.concat()[..];
    let mut bytes = Vec::new();
    while !rest.is_empty() {
        let len = unpack(rest).map_or(rest.len(), |(_, len)| len);
        let (message, after) = rest.split_at(len);
        rest = after;
        match message {
            [0x94, 0x01, tail @ ..] => {
                let (Value::Number(id), len) = unpack(tail).unwrap() else { panic!("id") };
                bytes.extend([0x94, 0x01]);
                bytes.extend(pack(&Value::Number(call.id + id - recorded), MapOrder::Given));
                bytes.extend(&tail[len..]);
            }
            notification => bytes.extend(notification),
        }
    }
    let pieces =
        if exchange.replies.len() > 2 { bytes.iter().map(|b| vec![*b]).collect() } else { vec![bytes] };
    Reply { pieces, close: exchange.closed }
}

/// A server that answers the n-th call with the n-th recorded answer.
fn in_order(dir: &std::path::Path, exchanges: Vec<Exchange>) -> Server {
    let mut rest: VecDeque<_> = exchanges.into();
    Server::start(dir, move |call| match rest.pop_front() {
        Some(exchange) => reply(&exchange, call),
        None => panic!("one call too many: {call:?}"),
    })
}

/// What differs between two runs of Kong: the ports and the text of `Config`.
struct Ports {
    kong: u16,
    upstream: u16,
}

impl Ports {
    /// A call with everything replaced that depends on machine, time and chance.
    fn normal(&self, bytes: &[u8]) -> Wire {
        let Wire::Array(format, mut parts) = Wire::parse(bytes).expect("one message") else {
            panic!("no array")
        };
        parts[1] = Wire::Leaf("msgid", Vec::new());
        Wire::Array(format, parts.into_iter().map(|part| self.element("", part)).collect())
    }

    fn element(&self, key: &str, element: Wire) -> Wire {
        let any = |what: &'static str| Wire::Leaf(what, Vec::new());
        if matches!(key, "pid" | "http_allocated_gc" | "x-kong-upstream-latency" | "x-kong-proxy-latency") {
            return any("volatile");
        }
        match element {
            Wire::Array(format, items) => {
                Wire::Array(format, items.into_iter().map(|item| self.element(key, item)).collect())
            }
            Wire::Map(format, entries) => {
                let entry = |(k, v): (Wire, Wire)| {
                    let v = self.element(k.text().unwrap_or_default(), v);
                    (k, v)
                };
                let mut entries: Vec<_> = entries.into_iter().map(entry).collect();
                entries.sort();
                Wire::Map(format, entries)
            }
            Wire::Leaf("uint16", bytes) => {
                let port = u16::from_be_bytes([bytes[0], bytes[1]]);
                if port == self.kong || port == 8000 {
                    any("kong's port as uint16")
                } else if port == self.upstream || port == 9001 {
                    any("the upstream's port as uint16")
                } else {
                    Wire::Leaf("uint16", bytes)
                }
            }
            Wire::Leaf("uint32", _) if matches!(key, "created_at" | "updated_at") => any("time as uint32"),
            // kong.nginx.req_start_time
            Wire::Leaf("float64", bytes) if f64::from_be_bytes(bytes[..].try_into().unwrap()) > 1e9 => {
                any("time as float64")
            }
            Wire::Leaf(format @ "str16", bytes) if key == "Config" => config(format, &bytes),
            Wire::Leaf(format, bytes) if format.contains("str") => string(format, bytes),
            leaf => leaf,
        }
    }
}

/// The JSON of `Config` without the values of Kong's own fields.
fn config(format: &'static str, bytes: &[u8]) -> Wire {
    let mut config: Json = serde_json::from_slice(bytes).unwrap();
    for (key, value) in config.as_object_mut().unwrap() {
        if key.starts_with("__") || key == "route_id" {
            *value = Json::Null;
        }
    }
    Wire::Leaf(format, config.to_string().into_bytes())
}

fn string(format: &'static str, bytes: Vec<u8>) -> Wire {
    let Ok(text) = std::str::from_utf8(&bytes) else { return Wire::Leaf(format, bytes) };
    let hex = |text: &str| text.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
    let text = match text.len() {
        36 if hex(text) => "<uuid>".to_owned(),
        32 if hex(text) => "<request id>".to_owned(),
        _ if text.starts_with("1.1 kong") => "<via>".to_owned(),
        _ if text.starts_with("{\"") && text.contains("\"latencies\"") => {
            shape(&serde_json::from_str(text).unwrap()).to_string()
        }
        _ => text.to_owned(),
    };
    let format = if text == "<via>" { "fixstr" } else { format };
    Wire::Leaf(format, text.into_bytes())
}

impl Call {
    fn parse_id(bytes: &[u8]) -> f64 {
        let (Value::List(parts), _) = unpack(bytes).unwrap() else { panic!("no array") };
        let Value::Number(id) = parts[1] else { panic!("no id") };
        id
    }
}

fn assert_same(ports: &Ports, exchanges: &[Exchange], calls: &[Call]) {
    for (n, (exchange, call)) in exchanges.iter().zip(calls).enumerate() {
        let (expected, sent) = (ports.normal(&exchange.call), ports.normal(&call.bytes));
        assert_eq!(sent, expected, "call {} of the recording, {}", n + 1, call.method);
    }
    assert_eq!(calls.len(), exchanges.len(), "number of calls");
}

/// As curl sends it in the recordings.
fn curl(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1:8000\r\nUser-Agent: curl/7.88.1\r\nAccept: */*\r\n\r\n")
}

fn hello(server: &Server, upstream: &Upstream, message: &str) -> DoubleConfig {
    let mut config = DoubleConfig::new(&server.socket, plugin_info("py-hello", &["access"]));
    let plugin = PluginConfig::new("py-hello", json!({"message": message}));
    config.routes = vec![Route::new("hello", upstream.addr).paths(["/hello"]).plugin(plugin)];
    config
}

/// One route for each mode of the recorded plugin `py-probe`.
fn probe(server: &Server, upstream: &Upstream, message: &str) -> DoubleConfig {
    let mut config =
        DoubleConfig::new(&server.socket, plugin_info("py-probe", &["access", "response", "log"]));
    for mode in ["steps", "exit", "exit-table", "error", "pdk-error", "phases", "raise"] {
        let fields = json!({"message": message, "mode": mode, "map": {"k": "v"}, "flag": true, "list": ["a"], "int": 7, "num": 1.5});
        let route = Route::new(format!("py-{mode}"), upstream.addr).paths([format!("/py-{mode}")]);
        config.routes.push(route.plugin(PluginConfig::new("py-probe", fields)));
    }
    let empty = PluginConfig::new("py-probe", json!({"mode": "exit", "map": {}, "list": []}));
    config.routes.push(Route::new("py-emptycfg", upstream.addr).paths(["/py-emptycfg"]).plugin(empty));
    config
}

#[tokio::test]
async fn recording_01_instances_start_and_close() {
    let (dir, upstream) = (tempfile::tempdir().unwrap(), Upstream::ok().await);
    let exchanges = Recording::load("01").exchanges();
    let server = in_order(dir.path(), exchanges.clone());
    let double = Double::start(hello(&server, &upstream, "v1")).await.unwrap();
    let ports = Ports { kong: double.addr().port(), upstream: upstream.addr.port() };

    for path in ["/hello?a=1", "/hello?a=2"] {
        let response = send(double.addr(), curl(path)).await;
        assert_eq!(response.status, 200);
        assert_eq!(response.headers("x-hello-from-python"), ["Python says v1 to 127.0.0.1:8000"]);
    }
    double.reload(hello(&server, &upstream, "v2")).unwrap();
    let response = send(double.addr(), curl("/hello?a=3")).await;
    assert_eq!(response.headers("x-hello-from-python"), ["Python says v2 to 127.0.0.1:8000"]);

    assert_same(&ports, &exchanges, &server.calls());
    assert!(server.calls().iter().all(|call| call.conn == 1), "without load one connection serves all");
    assert!(upstream.seen()[2].head.starts_with("GET /?a=3 "), "{:?}", upstream.seen()[2]);
    let counted = double.rpc_calls();
    assert_eq!(counted.total, exchanges.len() as u64);
    let event_calls: Vec<_> = counted.requests.iter().map(|r| r.event_calls()).collect();
    assert_eq!(event_calls, [4, 4, 4]);
}

#[tokio::test]
async fn recording_02_every_step() {
    let (dir, upstream) = (tempfile::tempdir().unwrap(), Upstream::ok().await);
    let exchanges = Recording::load("02").exchanges();
    let server = in_order(dir.path(), exchanges.clone());
    let double = Double::start(probe(&server, &upstream, "v2")).await.unwrap();
    let ports = Ports { kong: double.addr().port(), upstream: upstream.addr.port() };

    let request = [
        &b"POST /py-steps?a=1&a=2&b&c= HTTP/1.1\r\nHost: 127.0.0.1:8000\r\nUser-Agent: curl/7.88.1\r\nAccept: */*\r\n"[..],
        "x-multi: one\r\nx-multi: two\r\nx-bin: éÿ\r\n".as_bytes(),
        b"Content-Length: 10\r\nContent-Type: application/x-www-form-urlencoded\r\n\r\n\x01raw\xc3\x83body",
    ];
    let response = send(double.addr(), request.concat()).await;
    assert_eq!((response.status, response.headers("x-probe-resp")), (200, vec!["yes".into()]));
    server.wait_for_calls(exchanges.len()).await;
    assert_same(&ports, &exchanges, &server.calls());

    let seen = &upstream.seen()[0];
    assert!(seen.head.starts_with("POST /?q=1&q=2&z HTTP/1.1"), "{}", seen.head);
    assert_eq!(seen.body, b"\x01raw\xc3\x83body");
    for (name, value) in [("x-probe", "1"), ("x-multi", "one, two"), ("x-forwarded-prefix", "/py-steps")] {
        assert_eq!(seen.header(name).as_deref(), Some(value));
    }
    let logged: Vec<_> = double.error_log().into_iter().filter(|line| line.contains("[py-probe]")).collect();
    assert!(logged[0].starts_with("[notice]") && logged[0].contains("hello12.5table: 0x"), "{logged:?}");
    assert!(
        logged[1].starts_with("[error]")
            && logged[1].ends_with("could not find pdk method: kong.no.such_method")
    );
    assert_eq!(logged.len(), 2);
}

#[tokio::test]
async fn recording_03_exits() {
    let (dir, upstream) = (tempfile::tempdir().unwrap(), Upstream::ok().await);
    let exchanges = Recording::load("03").exchanges();
    let server = in_order(dir.path(), exchanges.clone());
    let double = Double::start(probe(&server, &upstream, "v2")).await.unwrap();
    let ports = Ports { kong: double.addr().port(), upstream: upstream.addr.port() };

    let mut answers = Vec::new();
    for (n, path) in ["/py-exit", "/py-exit-table", "/py-error", "/py-emptycfg"].into_iter().enumerate() {
        answers.push(send(double.addr(), curl(path)).await);
        // The log phase runs after the response.
        server.wait_for_calls(3 * (n + 1)).await;
    }
    let [exit, table, error, empty] = &answers[..] else { unreachable!() };
    assert_eq!((exit.status, exit.text()), (418, "I'm a teapot".into()));
    assert_eq!(exit.headers("content-type"), ["text/plain; charset=UTF-8"]);
    assert_eq!(exit.headers("x-exit"), ["py"]);
    assert_eq!(table.status, 403);
    let body: Json = serde_json::from_slice(&table.body).unwrap();
    assert_eq!(body, json!({"l": {}, "f": 1.5, "message": "no", "n": 1}));
    assert_eq!(table.headers("content-type"), ["application/json; charset=utf-8"]);
    let id = &error.headers("x-kong-request-id")[0];
    assert_eq!(
        (error.status, error.text()),
        (401, format!("{{\n  \"message\":\"denied\",\n  \"request_id\":\"{id}\"\n}}"))
    );
    assert_eq!(empty.status, 418);
    assert_same(&ports, &exchanges, &server.calls());
    assert_eq!(upstream.seen(), []);
}

#[tokio::test]
async fn recording_04_a_pdk_call_that_throws() {
    let (dir, upstream) = (tempfile::tempdir().unwrap(), Upstream::ok().await);
    let exchanges = Recording::load("04").exchanges();
    let server = in_order(dir.path(), exchanges.clone());
    let double = Double::start(probe(&server, &upstream, "v1")).await.unwrap();
    let ports = Ports { kong: double.addr().port(), upstream: upstream.addr.port() };

    let response = send(double.addr(), curl("/py-pdk-error")).await;
    assert_unexpected(&response);
    server.wait_for_calls(exchanges.len()).await;
    assert_same(&ports, &exchanges, &server.calls());
    assert_eq!(upstream.seen(), []);
    let line = double.wait_for_log(|line| line.contains("header name must be a string")).await;
    assert!(line.is_some_and(|line| line.starts_with("[error]")));
}

fn assert_unexpected(response: &Response) {
    let id = &response.headers("x-kong-request-id")[0];
    let body = format!("{{\n  \"message\":\"An unexpected error occurred\",\n  \"request_id\":\"{id}\"\n}}");
    assert_eq!((response.status, response.text()), (500, body));
}

#[tokio::test]
async fn recording_05_response_and_log_phases() {
    let exchanges = Recording::load("05").exchanges();
    let body = exchanges.iter().find_map(|exchange| {
        let (Value::List(parts), _) = unpack(&exchange.call).unwrap() else { return None };
        let Value::List(args) = &parts[3] else { return None };
        args[0].get("Data").as_bytes().filter(|data| data.starts_with(b"{\n \"method\"")).map(<[u8]>::to_vec)
    });
    let body = body.expect("the recording has the upstream's body");
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nServer: BaseHTTP/0.6 Python/3.11.7\r\n\
         Date: Mon, 23 Nov 2026 20:49:04 GMT\r\nx-upstream: py\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let (dir, upstream) =
        (tempfile::tempdir().unwrap(), Upstream::start([head.as_bytes(), &body].concat()).await);
    let server = in_order(dir.path(), exchanges.clone());
    let double = Double::start(probe(&server, &upstream, "v2")).await.unwrap();
    let ports = Ports { kong: double.addr().port(), upstream: upstream.addr.port() };

    let request = curl("/py-phases?q=1").replace("\r\n\r\n", "\r\nx-a: 1\r\n\r\n");
    let response = send(double.addr(), request).await;
    assert_eq!((response.status, response.headers("x-status-seen")), (200, vec!["(200, None)".into()]));
    assert_eq!(response.body, body);
    server.wait_for_calls(exchanges.len()).await;
    assert_same(&ports, &exchanges, &server.calls());
}

#[tokio::test]
async fn recording_10_a_server_that_never_answers() {
    let (dir, upstream) = (tempfile::tempdir().unwrap(), Upstream::ok().await);
    let exchanges = Recording::load("10").exchanges();
    let server = in_order(dir.path(), [&exchanges[..], &[silence(), silence()]].concat());
    let mut config = probe(&server, &upstream, "v4");
    config.read_timeout = Duration::from_millis(50);
    let double = Double::start(config).await.unwrap();
    let ports = Ports { kong: double.addr().port(), upstream: upstream.addr.port() };

    let response = send(double.addr(), curl("/py-raise")).await;
    assert_eq!(response.status, 200, "Kong waits, then proxies");
    assert_eq!(upstream.seen().len(), 1);
    assert_same(&ports, &exchanges, &server.calls()[..exchanges.len()]);
    assert!(server.calls().iter().all(|call| call.conn == 1), "the same connection is used again");
    assert!(double.error_log().iter().any(|line| line.ends_with("[py-probe] no data")));
}

fn silence() -> Exchange {
    Exchange { conn: 1, call: Vec::new(), replies: Vec::new(), closed: false }
}

#[tokio::test]
async fn recording_11_values_that_are_not_utf8() {
    let (dir, upstream) = (tempfile::tempdir().unwrap(), Upstream::ok().await);
    let mut exchanges = Recording::load("11").exchanges();
    // The recorded header value ends in the control character 01, which nginx takes and hyper refuses.
    for exchange in &mut exchanges {
        let at = exchange.call.windows(3).position(|w| w == b"\xff\xfe\x01");
        at.into_iter().for_each(|at| exchange.call[at + 2] = b'!');
    }
    // The recording starts in the middle of a conversation on connection 1; before it the probe's first
    // instance of another route was number 0.
    let server = in_order(dir.path(), exchanges.clone());
    let double = Double::start(probe(&server, &upstream, "v3")).await.unwrap();
    let ports = Ports { kong: double.addr().port(), upstream: upstream.addr.port() };

    let request =
        b"GET /py-steps?q=%FF%FE HTTP/1.1\r\nHost: x\r\nX-Bin: \xff\xfe!\r\nConnection: close\r\n\r\n";
    let response = send(double.addr(), request).await;
    assert_eq!(response.status, 200, "the server gave up in the middle, and Kong proxies");
    server.wait_for_calls(exchanges.len()).await;
    assert_same(&ports, &exchanges, &server.calls());
    let connections: Vec<_> = server.calls().iter().map(|call| call.conn).collect();
    let recorded: Vec<_> = exchanges.iter().map(|exchange| exchange.conn).collect();
    assert_eq!(connections, recorded, "a closed connection leaves the pool");
    assert_eq!(upstream.seen()[0].header("x-bin").as_deref(), Some("\u{ff}\u{fe}!"));
    assert!(
        double
            .error_log()
            .iter()
            .any(|line| line.starts_with("[error]") && line.ends_with("[py-probe] no data"))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recording_12_steps_arrive_on_different_connections() {
    let (dir, upstream) = (tempfile::tempdir().unwrap(), Upstream::ok().await);
    let exchanges = Recording::load("12").exchanges();
    let event_id = |bytes: &[u8]| {
        let (Value::List(parts), _) = unpack(bytes).unwrap() else { panic!("no array") };
        parts
            .iter()
            .map(|p| if let Value::List(args) = p { &args[0] } else { p }.get("EventId").clone())
            .next_back()
    };
    // Recorded answers by event: the one to HandleEvent says which event it is.
    let mut starts = VecDeque::new();
    let mut events: Vec<(Option<Value>, VecDeque<Exchange>)> = Vec::new();
    for exchange in exchanges.iter().cloned() {
        let id = event_id(&exchange.replies.concat());
        match events.iter_mut().find(|(known, _)| *known == id) {
            _ if exchange.call.windows(13).any(|w| w == b"StartInstance") => starts.push_back(exchange),
            Some((_, steps)) => steps.push_back(exchange),
            None => events.push((id, [exchange].into())),
        }
    }
    let asked = events.len();
    let answered = Arc::new(Mutex::new(Vec::new()));
    let pairs = Arc::clone(&answered);
    let server = Server::start(dir.path(), move |call| {
        let exchange = match call.method.as_str() {
            "plugin.StartInstance" => starts.pop_front(),
            "plugin.HandleEvent" => {
                events.iter_mut().find(|(_, steps)| steps.len() == 4).and_then(|e| e.1.pop_front())
            }
            _ => {
                let id = Some(call.arg.get("EventId").clone());
                events.iter_mut().find(|(known, _)| *known == id).and_then(|e| e.1.pop_front())
            }
        };
        let exchange = exchange.unwrap_or_else(|| panic!("unexpected {call:?}"));
        pairs.lock().unwrap().push((exchange.clone(), call.clone()));
        reply(&exchange, call)
    });
    let mut config = hello(&server, &upstream, "v3");
    config.scatter = 3;
    let double = Double::start(config).await.unwrap();
    let ports = Ports { kong: double.addr().port(), upstream: upstream.addr.port() };

    let clients = (0..8).map(|_| async {
        let mut stream = TcpStream::connect(double.addr()).await.unwrap();
        for _ in 0..asked / 8 {
            let response = exchange(&mut stream, curl("/hello")).await;
            assert_eq!(response.headers("x-hello-from-python"), ["Python says v3 to 127.0.0.1:8000"]);
        }
    });
    join_all(clients.collect()).await;
    // The recording ends with one more request.
    send(double.addr(), curl("/hello")).await;

    let (exchanges_in_order, calls): (Vec<_>, Vec<_>) = answered.lock().unwrap().iter().cloned().unzip();
    assert_eq!(calls.len(), exchanges.len());
    assert_same(&ports, &exchanges_in_order, &calls);
    let mut ids: Vec<_> = calls.iter().map(|call| call.id as u64).collect();
    ids.sort_unstable();
    assert_eq!(ids, (1..=calls.len() as u64).collect::<Vec<_>>(), "message ids count per worker");
    let connections = |id: &Value| {
        let mut on: Vec<_> = calls.iter().filter(|c| c.arg.get("EventId") == id).map(|c| c.conn).collect();
        on.dedup();
        on.len()
    };
    let scattered = (0..asked).filter(|id| connections(&Value::number(*id as f64)) > 1).count();
    assert_eq!(scattered, asked, "every event's steps came on several connections");
}

/// Runs futures together; small enough not to need another crate.
async fn join_all<F: Future>(futures: Vec<F>) {
    let mut futures: Vec<_> = futures.into_iter().map(|f| Some(Box::pin(f))).collect();
    std::future::poll_fn(|cx| {
        for slot in &mut futures {
            if slot.as_mut().is_some_and(|f| f.as_mut().poll(cx).is_ready()) {
                *slot = None;
            }
        }
        if futures.iter().all(Option::is_none) {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
}

#[tokio::test]
async fn recording_13_a_server_is_killed_and_respawned() {
    let (dir, upstream) = (tempfile::tempdir().unwrap(), Upstream::ok().await);
    let exchanges = Recording::load("13").exchanges();
    // The recording starts with instance 0 running: start it with the answer that restarts it later.
    let start = exchanges.iter().find(|e| e.call.windows(13).any(|w| w == b"StartInstance")).unwrap().clone();
    let killed_after = exchanges.iter().filter(|e| e.conn == 1).count();
    let before = [&[start], &exchanges[..killed_after]].concat();
    let first = in_order(dir.path(), before.clone());
    let double = Double::start(hello(&first, &upstream, "v3")).await.unwrap();
    let ports = Ports { kong: double.addr().port(), upstream: upstream.addr.port() };

    assert_eq!(send(double.addr(), curl("/hello")).await.headers("x-python-pid"), ["31709"]);
    assert_same(&ports, &before, &first.calls());
    first.kill().await;
    let second = in_order(dir.path(), exchanges[killed_after..].to_vec());
    for _ in 0..3 {
        let response = send(double.addr(), curl("/hello")).await;
        assert_eq!((response.status, response.headers("x-python-pid")), (200, vec!["31979".into()]));
    }
    assert_same(&ports, &exchanges[killed_after..], &second.calls());
    let warned =
        |line: &String| line.starts_with("[warn]") && line.ends_with("[py-hello] no plugin instance #0");
    assert_eq!(double.error_log().iter().filter(|line| warned(line)).count(), 1);
}

#[tokio::test]
async fn recording_18_what_kong_tolerates() {
    let rows: Vec<Json> =
        serde_json::from_str(include_str!("../recordings/18-fake-server.results.json")).unwrap();
    let (dir, upstream) = (tempfile::tempdir().unwrap(), Upstream::ok().await);
    let mut exchanges = Recording::load("18").exchanges();
    // One row sends the request to the recorded upstream's port, a uint16.
    for piece in exchanges.iter_mut().flat_map(|exchange| &mut exchange.replies) {
        let at = piece.windows(3).position(|w| w == b"\xcd\x23\x29");
        at.into_iter()
            .for_each(|at| piece[at + 1..at + 3].copy_from_slice(&upstream.addr.port().to_be_bytes()));
    }
    let server = in_order(dir.path(), exchanges.clone());
    let mut config = DoubleConfig::new(&server.socket, plugin_info("fake", &["access"]));
    let mode = |row: &Json| row["mode"].as_str().unwrap().to_owned();
    for mode in rows.iter().map(mode) {
        // As long as the recorded names: the length of Config decides the format of the string.
        let plugin = PluginConfig::new("fake", json!({"mode": mode}));
        config.routes.push(Route::new(&mode, upstream.addr).paths([format!("/{mode}")]).plugin(plugin));
    }
    let double = Double::start(config).await.unwrap();
    let ports = Ports { kong: double.addr().port(), upstream: upstream.addr.port() };

    for row in &rows {
        let (mode, proxied_before, logged_before) =
            (mode(row), upstream.seen().len(), double.error_log().len());
        let response = send(double.addr(), curl(&format!("/{mode}"))).await;

        let expected: u16 = row["status"].as_str().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        assert_eq!(response.status, expected, "{mode}");
        let proxied = row["body"] == "<proxied to upstream>";
        assert_eq!(upstream.seen().len() - proxied_before, usize::from(proxied), "{mode}: proxied?");
        if !proxied {
            // Bytes are written as latin-1 in the results, and long bodies are cut.
            let body: String = response.body.iter().map(|b| char::from(*b)).collect();
            let recorded = row["body"].as_str().unwrap();
            let constant = recorded.split("request_id").next().unwrap();
            assert!(
                body.starts_with(constant) && (constant != recorded || body == recorded),
                "{mode}: {body}"
            );
        }
        let x_fake: Vec<_> =
            response.headers("x-fake").iter().map(|value| format!("x-fake: {value}")).collect();
        assert_eq!(json!(x_fake).to_string(), row["x-fake"].to_string(), "{mode}");

        let logged = &double.error_log()[logged_before..];
        let recorded = row["kong_log"].as_array().unwrap();
        assert!(logged.len() >= recorded.len(), "{mode}: {logged:?}");
        assert_eq!(logged.is_empty(), recorded.is_empty(), "{mode}: {logged:?}");
        for (line, recorded) in logged.iter().zip(recorded) {
            assert!(same_log(line, recorded.as_str().unwrap()), "{mode}: {line}\nrecorded: {recorded}");
        }
    }
    assert_same(&ports, &exchanges, &server.calls());
}

/// The same level, plugin and text; places in Kong's Lua may differ.
fn same_log(line: &str, recorded: &str) -> bool {
    let parts = |line: &str| {
        let level = line.split(' ').next().unwrap_or_default().to_owned();
        let text = line.split_once("[fake] ").map_or("", |(_, text)| text);
        let place = text.find(".lua:").map(|at| at + text[at + 5..].find(": ").map_or(0, |end| end + 7));
        (level, text[place.unwrap_or(0)..].to_owned())
    };
    parts(line) == parts(recorded)
}
