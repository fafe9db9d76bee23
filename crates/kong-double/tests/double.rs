//! What must hold of the double beyond the recordings: routing, forwarding, fail-open behaviour, its pool of
//! connections, its configuration.

mod support;

use std::time::Duration;

use kong_double::{Consumer, Double, DoubleConfig, EarlierAuth, PluginConfig, Route, Value};
use serde_json::json;
use support::{Call, PATIENCE, Reply, Server, Upstream, exchange, get, plugin_info, send};
use tokio::{io::AsyncWriteExt, net::TcpStream};

/// A server that starts instances 1, 2, … and leaves events to the closure.
fn server(dir: &std::path::Path, mut event: impl FnMut(&Call) -> Reply + Send + 'static) -> Server {
    let mut instances = 0;
    Server::start(dir, move |call| match call.method.as_str() {
        "plugin.StartInstance" => {
            instances += 1;
            call.result(Value::record([("Id", Value::number(instances))]))
        }
        "plugin.CloseInstance" => call.result(Value::Bool(true)),
        _ => event(call),
    })
}

/// One PDK call per event, then `ret`.
fn one_call(method: &'static str, args: Vec<Value>) -> impl FnMut(&Call) -> Reply {
    move |call| if call.method == "plugin.HandleEvent" { call.pdk(method, args.clone()) } else { call.ret() }
}

fn config(server: &Server, upstream: &Upstream) -> DoubleConfig {
    let mut config = DoubleConfig::new(&server.socket, plugin_info("p", &["access"]));
    config.routes = vec![Route::new("r", upstream.addr).plugin(PluginConfig::new("p", json!({})))];
    config
}

async fn start(server: &Server, upstream: &Upstream) -> Double {
    Double::start(config(server, upstream)).await.unwrap()
}

#[tokio::test]
async fn requests_are_routed_and_forwarded_as_kong_does_it() {
    let (dir, upstream) = (tempfile::tempdir().unwrap(), Upstream::ok().await);
    let server = server(dir.path(), Call::ret);
    let mut config = DoubleConfig::new(&server.socket, plugin_info("p", &["access"]));
    config.routes = vec![
        Route::new("api", upstream.addr).hosts(["kong.test"]).paths(["/api"]),
        Route {
            preserve_host: true,
            strip_path: false,
            ..Route::new("kept", upstream.addr).paths(["/kept"])
        },
        Route::new("down", "127.0.0.1:1".parse().unwrap()).paths(["/down"]),
    ];
    let double = Double::start(config).await.unwrap();
    assert!(double.error_log()[0].contains("stand-in for Kong"), "{:?}", double.error_log());

    let lost = send(double.addr(), get("/none", &[])).await;
    assert_eq!(lost.status, 404);
    assert!(lost.text().contains("\"message\":\"no Route matched with those values\""), "{}", lost.text());
    let lost = send(double.addr(), get("/none", &["Accept: text/html"])).await;
    assert_eq!(lost.headers("content-type"), ["text/html; charset=utf-8"]);

    let down = send(double.addr(), get("/down", &[])).await;
    assert_eq!(down.status, 502);
    assert!(
        double.error_log().iter().any(|line| line.starts_with("[error]") && line.contains("127.0.0.1:1/"))
    );

    let lines = [
        "X-Forwarded-For: 10.1.1.1",
        "X-Forwarded-Proto: https",
        "X-Real-IP: 10.2.2.2",
        "X_Forwarded_Host: kept",
        "Connection: close, X-Gone",
        "X-Gone: 1",
        "TE: trailers",
        "Proxy-Connection: keep-alive",
        "Expect: 100-continue",
    ];
    let response = send(double.addr(), get("/api/users?x=1", &lines)).await;
    assert_eq!((response.status, response.text()), (200, "ok".into()));
    assert_eq!(response.headers("x-upstream"), ["here"]);
    assert_eq!(response.headers("via"), ["1.1 kong-double/3.9.1"]);
    let seen = &upstream.seen()[0];
    assert!(seen.head.starts_with("GET /users?x=1 HTTP/1.1"), "{}", seen.head);
    let port = double.addr().port().to_string();
    for (name, value) in [
        ("host", Some(upstream.addr.to_string())),
        ("x-forwarded-for", Some("10.1.1.1, 127.0.0.1".into())),
        ("x-forwarded-proto", Some("http".into())),
        ("x-forwarded-host", Some("kong.test".into())),
        ("x-forwarded-port", Some(port)),
        ("x-forwarded-path", Some("/api/users".into())),
        ("x-forwarded-prefix", Some("/api".into())),
        ("x-real-ip", Some("127.0.0.1".into())),
        ("x_forwarded_host", Some("kept".into())),
        ("x-gone", None),
        ("te", None),
        ("proxy-connection", None),
        ("expect", None),
    ] {
        assert_eq!(seen.header(name), value, "{name}");
    }

    send(double.addr(), get("/kept/x", &[])).await;
    let seen = &upstream.seen()[1];
    assert!(seen.head.starts_with("GET /kept/x HTTP/1.1"), "{}", seen.head);
    assert_eq!(seen.header("host").as_deref(), Some("kong.test"));
}

#[tokio::test]
async fn a_trusted_sender_is_believed() {
    let (dir, upstream) = (tempfile::tempdir().unwrap(), Upstream::ok().await);
    let server = server(dir.path(), one_call("kong.client.get_forwarded_ip", vec![]));
    let mut config = config(&server, &upstream);
    config.trusted_ips = vec!["127.0.0.0/8".into()];
    let double = Double::start(config).await.unwrap();
    let lines = ["X-Forwarded-Proto: https", "X-Forwarded-Port: 8443", "X-Real-IP: 10.2.2.2"];
    send(double.addr(), get("/", &lines)).await;
    let seen = &upstream.seen()[0];
    for (name, value) in [
        ("x-forwarded-proto", "https"),
        ("x-forwarded-port", "8443"),
        ("x-real-ip", "10.2.2.2"),
        ("x-forwarded-for", "10.2.2.2"),
    ] {
        assert_eq!(seen.header(name).as_deref(), Some(value), "{name}");
    }
    assert_eq!(server.calls()[2].arg.get("Data"), &Value::str("10.2.2.2"));
}

#[tokio::test]
async fn what_does_not_fit_kongs_header_buffers_is_refused() {
    let (dir, upstream) = (tempfile::tempdir().unwrap(), Upstream::ok().await);
    let server = server(dir.path(), Call::ret);
    let double = start(&server, &upstream).await;
    let status = async |request: String| send(double.addr(), request).await.status;
    let line = |name: &str, len: usize| format!("{name}: {}", "a".repeat(len));
    assert_eq!(status(get("/", &[&line("x", 8000)])).await, 200);
    assert_eq!(status(get("/", &[&line("x", 8200)])).await, 494);
    let lines: Vec<_> = (0..5).map(|n| line(&format!("x{n}"), 8000)).collect();
    assert_eq!(status(get("/", &lines.iter().map(String::as_str).collect::<Vec<_>>())).await, 494);
    assert_eq!(status(get(&format!("/{}", "a".repeat(9000)), &[])).await, 414);
    assert_eq!(status("GET / HTTP/1.1\r\n\r\n".into()).await, 400);
    assert_eq!(upstream.seen().len(), 1);
    // Many lines are no matter of number.
    let many: Vec<_> = (0..1000).map(|n| format!("a{n}: 1")).collect();
    assert_eq!(status(get("/", &many.iter().map(String::as_str).collect::<Vec<_>>())).await, 200);
}

#[tokio::test]
async fn a_consumer_goes_from_the_database_to_later_plugins() {
    let (dir, upstream) = (tempfile::tempdir().unwrap(), Upstream::ok().await);
    let consumer = Consumer { custom_id: Some("c-1".into()), ..Consumer::named("bob") };
    let id = consumer.id.clone();
    let mut loaded = Value::Nil;
    let server = server(dir.path(), move |call| {
        let data = call.arg.get("Data").clone();
        match (call.method.as_str(), &data) {
            ("plugin.HandleEvent", _) => call.pdk("kong.client.get_credential", vec![]),
            ("plugin.StepCredential", Value::Map(_)) => {
                // The route's earlier plugin has found this one.
                assert_eq!(data.get("id"), &Value::str("earlier"));
                call.pdk("kong.client.load_consumer", vec![Value::str("bob"), Value::Bool(true)])
            }
            ("plugin.StepConsumer", consumer) if loaded == Value::Nil => {
                assert_eq!(consumer.get("username"), &Value::str("bob"));
                assert_eq!(consumer.get("custom_id"), &Value::str("c-1"));
                loaded = consumer.clone();
                call.pdk("kong.client.load_consumer", vec![consumer.get("id").clone()])
            }
            ("plugin.StepConsumer", consumer) if *consumer == loaded => {
                call.pdk("kong.client.authenticate", vec![consumer.clone()])
            }
            ("plugin.StepCredential", Value::Nil) => call.ret(),
            other => panic!("{other:?}"),
        }
    });
    let mut config = config(&server, &upstream);
    config.consumers = vec![consumer];
    let earlier = EarlierAuth { credential: Some(json!({"id": "earlier"})), consumer: None };
    config.routes[0].already_authenticated = Some(earlier);
    let double = Double::start(config).await.unwrap();

    assert_eq!(send(double.addr(), get("/", &[])).await.status, 200);
    // Kong sets no header for a consumer by itself.
    assert!(!upstream.seen()[0].head.contains(&id));
    assert_eq!(double.rpc_calls().requests[0].event_calls(), 5);
}

#[tokio::test]
async fn headers_for_the_upstream_are_set_and_cleared_in_one_call() {
    let (dir, upstream) = (tempfile::tempdir().unwrap(), Upstream::ok().await);
    let headers = Value::record([
        ("X-Consumer-ID", Value::str("1")),
        ("X-Empty", Value::str("")),
        ("X-Two", Value::List(vec![Value::str("a"), Value::str("b")])),
        ("X-Gone", Value::List(vec![])),
    ]);
    let server = server(dir.path(), one_call("kong.service.request.set_headers", vec![headers]));
    let double = start(&server, &upstream).await;
    let lines =
        ["x-consumer-id: forged", "X-CONSUMER-ID: again", "X_Consumer_ID: other", "x-gone: 1", "X-Gone: 2"];
    send(double.addr(), get("/", &lines)).await;
    let seen = &upstream.seen()[0];
    assert_eq!(seen.header("x-consumer-id").as_deref(), Some("1"));
    assert_eq!(seen.header("x-two").as_deref(), Some("a, b"));
    assert_eq!(seen.header("x-gone"), None);
    assert_eq!(seen.header("x-empty").as_deref(), Some(" "), "Kong sends a space for an empty value");
    assert_eq!(seen.header("x_consumer_id").as_deref(), Some("other"), "another name to Kong");

    // What the client's Connection header names is removed after the plugins ran, as in Kong.
    send(double.addr(), get("/", &["Connection: close, X-Consumer-ID"])).await;
    assert_eq!(upstream.seen()[1].header("x-consumer-id"), None);
}

#[tokio::test]
async fn response_headers_of_plugins_stand_beside_the_upstreams() {
    let response = "HTTP/1.1 200 OK\r\nContent-Type: text/css\r\nX-A: up\r\nKeep-Alive: x\r\nContent-Length: 2\r\n\r\nok";
    let (dir, upstream) = (tempfile::tempdir().unwrap(), Upstream::start(response).await);
    let headers = Value::record([("X_A", Value::str("plugin")), ("Content-Type", Value::str("text/html"))]);
    let server = server(dir.path(), one_call("kong.response.set_headers", vec![headers]));
    let double = start(&server, &upstream).await;
    let response = send(double.addr(), get("/", &[])).await;
    assert_eq!(response.headers("x-a"), ["plugin", "up"]);
    assert_eq!(response.headers("content-type"), ["text/css"]);
    assert_eq!(response.headers("keep-alive"), [""; 0]);
}

#[tokio::test]
async fn wrong_arguments_throw_and_phases_are_kept() {
    for (method, args, text) in [
        ("kong.client.authenticate", vec![], "either credential or consumer must be provided"),
        ("kong.client.authenticate", vec![Value::str("bob")], "consumer must be a table or nil"),
        (
            "kong.client.load_consumer",
            vec![Value::str("bob")],
            "cannot load a consumer with an id that is not a uuid",
        ),
        ("kong.response.exit", vec![Value::str("401")], "code must be a number"),
        ("kong.response.error", vec![Value::number(200)], "code must be a number between 400 and 599"),
        ("kong.request.get_headers", vec![Value::number(1001)], "max_headers must be <= 1000"),
        (
            "kong.response.get_status",
            vec![],
            "function cannot be called in access phase (only in: response, log)",
        ),
        ("kong.client", vec![], "attempt to call local 'method' (a table value)"),
    ] {
        let (dir, upstream) = (tempfile::tempdir().unwrap(), Upstream::ok().await);
        let server = server(dir.path(), one_call(method, args));
        let double = start(&server, &upstream).await;
        let response = send(double.addr(), get("/", &[])).await;
        assert_eq!(response.status, 500, "{method}");
        assert_eq!(upstream.seen(), [], "{method}");
        assert!(
            double.error_log().last().is_some_and(|line| line.ends_with(text)),
            "{:?}",
            double.error_log()
        );
        assert_eq!(server.methods(), ["plugin.StartInstance", "plugin.HandleEvent"], "no step after a throw");
    }
}

#[tokio::test]
async fn a_dead_server_is_fail_open_only_once_the_instance_is_known() {
    let (dir, upstream) = (tempfile::tempdir().unwrap(), Upstream::ok().await);
    let live = server(dir.path(), Call::ret);
    let double = start(&live, &upstream).await;
    let known = double.addr();
    assert_eq!(send(known, get("/", &[])).await.status, 200);
    let unknown = start(&live, &upstream).await;
    live.kill().await;
    assert_eq!(send(known, get("/", &[])).await.status, 200, "proxied");
    let refused = |line: &String| {
        line.starts_with("[error]") && line.ends_with("trying to connect: connection refused")
    };
    assert!(double.error_log().iter().any(refused), "{:?}", double.error_log());

    assert_eq!(send(unknown.addr(), get("/", &[])).await.status, 500);
    let text = "starting instance: connection refused";
    assert!(unknown.error_log().iter().any(|line| line.ends_with(text)), "{:?}", unknown.error_log());
}

#[tokio::test]
async fn a_late_answer_hits_the_next_call_on_its_connection() {
    let (dir, upstream) = (tempfile::tempdir().unwrap(), Upstream::ok().await);
    let mut late: Option<Reply> = None;
    let server = server(dir.path(), move |call| match late.take() {
        None => {
            late = Some(call.ret());
            Reply::default()
        }
        Some(late) => late,
    });
    let mut config = config(&server, &upstream);
    config.read_timeout = Duration::from_millis(50);
    let double = Double::start(config).await.unwrap();
    assert_eq!(send(double.addr(), get("/", &[])).await.status, 200, "no answer: proxied");
    assert_eq!(send(double.addr(), get("/", &[])).await.status, 500, "somebody else's answer");
    assert!(double.error_log().last().is_some_and(|line| line.contains("unexpected RPC response ID")));
}

#[tokio::test]
async fn idle_connections_are_closed_and_stray_bytes_close_them_too() {
    let (dir, upstream) = (tempfile::tempdir().unwrap(), Upstream::ok().await);
    let plain = server(dir.path(), Call::ret);
    let mut idle = config(&plain, &upstream);
    idle.idle_timeout = Duration::from_millis(40);
    let double = Double::start(idle).await.unwrap();
    send(double.addr(), get("/", &[])).await;
    plain.wait_for_closed(1).await;
    assert_eq!(send(double.addr(), get("/", &[])).await.status, 200);
    assert_eq!(plain.calls().last().unwrap().conn, 2);

    let dir = tempfile::tempdir().unwrap();
    let stray = server(dir.path(), |call| {
        let mut reply = call.ret();
        // More than Kong reads at once: what is left behind the answer waits on the connection.
        reply.pieces[0].extend(vec![0xc0; 5000]);
        reply
    });
    let double = start(&stray, &upstream).await;
    assert_eq!(send(double.addr(), get("/", &[])).await.status, 200);
    stray.wait_for_closed(1).await;
    assert_eq!(send(double.addr(), get("/", &[])).await.status, 200);
}

#[tokio::test]
async fn scattered_calls_take_connections_in_turn() {
    let (dir, upstream) = (tempfile::tempdir().unwrap(), Upstream::ok().await);
    let server = server(dir.path(), one_call("kong.client.get_ip", vec![]));
    let mut config = config(&server, &upstream);
    config.scatter = 3;
    let double = Double::start(config).await.unwrap();
    for _ in 0..3 {
        send(double.addr(), get("/", &[])).await;
    }
    let connections: Vec<_> = server.calls().iter().map(|call| call.conn).collect();
    assert_eq!(connections, [1, 2, 3, 1, 2, 3, 1]);
}

#[tokio::test]
async fn workers_have_message_ids_and_instances_of_their_own() {
    let (dir, upstream) = (tempfile::tempdir().unwrap(), Upstream::ok().await);
    let server = server(dir.path(), Call::ret);
    let mut config = config(&server, &upstream);
    config.workers = 2;
    let double = Double::start(config).await.unwrap();
    // nginx gives a connection to one worker.
    let mut first = TcpStream::connect(double.addr()).await.unwrap();
    exchange(&mut first, get("/", &[])).await;
    let mut second = TcpStream::connect(double.addr()).await.unwrap();
    exchange(&mut second, get("/", &[])).await;
    exchange(&mut first, get("/", &[])).await;
    let calls: Vec<_> =
        server.calls().iter().map(|c| (c.conn, c.id, c.arg.get("InstanceId").clone())).collect();
    let (nil, n) = (|| Value::Nil, |n: i32| Value::number(n));
    assert_eq!(calls, [(1, 1.0, nil()), (1, 2.0, n(1)), (2, 1.0, nil()), (2, 2.0, n(2)), (1, 3.0, n(1))]);
    // Their maps are packed in different orders, as by different Kong processes.
    let at = |call: usize, key: &[u8]| server.calls()[call].bytes.windows(key.len()).position(|w| w == key);
    assert!(at(1, b"InstanceId") < at(1, b"EventName") && at(3, b"InstanceId") > at(3, b"EventName"));
}

#[tokio::test]
async fn one_request_starts_the_instance_for_all() {
    let (dir, upstream) = (tempfile::tempdir().unwrap(), Upstream::ok().await);
    let server = server(dir.path(), Call::ret);
    let double = start(&server, &upstream).await;
    let mut requests = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let addr = double.addr();
        requests.spawn(async move { send(addr, get("/", &[])).await.status });
    }
    assert_eq!(requests.join_all().await, [200; 8]);
    let events: Vec<_> = server.calls().into_iter().filter(|c| c.method == "plugin.HandleEvent").collect();
    assert_eq!((events.len(), server.calls().len()), (8, 9));
    assert!(events.iter().all(|event| event.arg.get("InstanceId") == &Value::number(1)));
}

#[tokio::test]
async fn an_event_runs_to_its_end_when_the_client_goes() {
    let (dir, upstream) = (tempfile::tempdir().unwrap(), Upstream::ok().await);
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let (dir2, up2) = (dir.path().to_owned(), upstream.addr);
    // The script blocks in the middle of the event, so it has a thread of its own.
    let (socket, sockets) = std::sync::mpsc::channel();
    let (calls, called) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let server = server(&dir2, move |call| {
                calls.send(call.method.clone()).unwrap();
                if call.method == "plugin.HandleEvent" {
                    wait.recv().unwrap();
                    return call.pdk("kong.client.get_ip", vec![]);
                }
                call.ret()
            });
            socket.send(server.socket.clone()).unwrap();
            std::future::pending::<()>().await;
        });
    });
    let socket = sockets.recv_timeout(PATIENCE).unwrap();
    let mut config = DoubleConfig::new(socket, plugin_info("p", &["access"]));
    config.routes = vec![Route::new("r", up2).plugin(PluginConfig::new("p", json!({})))];
    let double = Double::start(config).await.unwrap();
    let mut client = TcpStream::connect(double.addr()).await.unwrap();
    client.write_all(get("/", &[]).as_bytes()).await.unwrap();
    let called = std::sync::Arc::new(std::sync::Mutex::new(called));
    let next = async || {
        let called = std::sync::Arc::clone(&called);
        tokio::task::spawn_blocking(move || called.lock().unwrap().recv_timeout(PATIENCE)).await.unwrap()
    };
    assert_eq!(next().await.unwrap(), "plugin.HandleEvent");
    drop(client);
    go.send(()).unwrap();
    assert_eq!(next().await.unwrap(), "plugin.Step");
}

#[tokio::test]
async fn bodies_stream_both_ways() {
    let big = "x".repeat(300_000);
    let response =
        format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{big}\r\n0\r\n\r\n", big.len());
    let (dir, upstream) = (tempfile::tempdir().unwrap(), Upstream::start(response).await);
    let server = server(dir.path(), Call::ret);
    let double = start(&server, &upstream).await;
    let request = format!("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{big}", big.len());
    let response = send(double.addr(), request).await;
    assert_eq!(response.status, 200);
    assert_eq!(response.text().matches('x').count(), big.len());
    assert_eq!(upstream.seen()[0].body, big.as_bytes());
}

#[tokio::test]
async fn a_body_that_kong_would_put_on_disk_makes_get_raw_body_throw() {
    let (dir, upstream) = (tempfile::tempdir().unwrap(), Upstream::ok().await);
    let server = server(dir.path(), one_call("kong.request.get_raw_body", vec![]));
    let double = start(&server, &upstream).await;
    let post = |len: usize| {
        format!("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {len}\r\n\r\n{}", "b".repeat(len))
    };
    assert_eq!(send(double.addr(), post(5120)).await.status, 200);
    assert_eq!(upstream.seen()[0].body.len(), 5120);
    assert_eq!(send(double.addr(), post(9000)).await.status, 500);
}

#[tokio::test]
async fn configurations_that_kong_would_refuse_are_refused() {
    let (dir, upstream) = (tempfile::tempdir().unwrap(), Upstream::ok().await);
    let server = server(dir.path(), Call::ret);
    let mut info = plugin_info("p", &["access"]);
    let fields = json!([{"by": {"type": "string", "one_of": ["a"], "default": "a"}}]);
    info["Plugins"][0]["Schema"] =
        json!({"name": "p", "fields": [{"config": {"type": "record", "fields": fields}}]});
    let good = |config| {
        let mut settings = DoubleConfig::new(&server.socket, info.clone());
        settings.routes = vec![Route::new("r", upstream.addr).plugin(PluginConfig::new("p", config))];
        settings
    };
    let double = Double::start(good(json!({}))).await.unwrap();
    for (settings, expected) in [
        (good(json!({"b": 1})), "plugin p of route r: schema violation (config.b: unknown field)"),
        (good(json!({"by": "b"})), "plugin p of route r: schema violation (config.by: expected one of: a)"),
        (DoubleConfig { workers: 0, ..good(json!({})) }, "a double needs at least one worker"),
        (
            DoubleConfig { plugin_info: plugin_info("p", &["rewrite"]), ..good(json!({})) },
            "the double has no phase \"rewrite\", only certificate, access, response and log",
        ),
        (
            DoubleConfig { plugin_info: plugin_info("q", &["access"]), ..good(json!({})) },
            "plugin 'p' not enabled; add it to the 'plugins' configuration property",
        ),
        (
            DoubleConfig { trusted_ips: vec!["x".into()], ..good(json!({})) },
            "trusted_ips: \"x\" is neither an address nor a CIDR block",
        ),
    ] {
        assert_eq!(double.reload(settings.clone()).unwrap_err().to_string(), expected);
        assert_eq!(Double::start(settings).await.err().unwrap().to_string(), expected);
    }
    // The last good one stays, with the schema's default filled in.
    assert_eq!(send(double.addr(), get("/", &[])).await.status, 200);
    let sent = server.calls()[0].arg.get("Config").as_bytes().map(<[u8]>::to_vec).unwrap();
    let sent: serde_json::Value = serde_json::from_slice(&sent).unwrap();
    assert_eq!(sent["by"], "a");
    assert_eq!(sent["__seq__"], 1);
}

#[tokio::test]
async fn global_plugins_apply_where_a_route_has_none() {
    let (dir, upstream) = (tempfile::tempdir().unwrap(), Upstream::ok().await);
    let server = server(dir.path(), Call::ret);
    let mut config = config(&server, &upstream);
    config.routes[0].plugins[0].config = json!({"scope": "route", "path": "/a/b"});
    config.routes[0].paths = vec!["/own".into()];
    config.routes.push(Route::new("other", upstream.addr));
    config.global_plugins = vec![PluginConfig::new("p", json!({"scope": "global"}))];
    let double = Double::start(config).await.unwrap();
    send(double.addr(), get("/own", &[])).await;
    send(double.addr(), get("/", &[])).await;
    let configs: Vec<_> =
        server.calls().iter().filter_map(|c| c.arg.get("Config").as_bytes().map(<[u8]>::to_vec)).collect();
    assert!(String::from_utf8_lossy(&configs[0]).contains(r#""\/a\/b""#), "cjson escapes slashes");
    let configs: Vec<serde_json::Value> =
        configs.iter().map(|c| serde_json::from_slice(c).unwrap()).collect();
    assert_eq!((&configs[0]["scope"], &configs[1]["scope"]), (&json!("route"), &json!("global")));
    assert!(configs[0]["route_id"].is_string() && configs[1]["route_id"].is_null());
}

#[tokio::test]
async fn a_stopped_double_serves_nobody() {
    let (dir, upstream) = (tempfile::tempdir().unwrap(), Upstream::ok().await);
    let server = server(dir.path(), Call::ret);
    let double = start(&server, &upstream).await;
    let addr = double.addr();
    assert_eq!(send(addr, get("/", &[])).await.status, 200);
    double.shutdown().await;
    assert!(TcpStream::connect(addr).await.is_err());
    server.wait_for_closed(1).await;
}
