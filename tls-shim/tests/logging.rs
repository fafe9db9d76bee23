//! The access log: what stands in it, that nobody else writes it, and that no request waits for it.

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::h2::{Client, get};
use common::sessions::clients;
use common::{ONE_ROUTE, OPEN, RELOADED, Rig, SECURED, hang_up, until};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use testbed::process::{fill, on_one_core};
use testbed::upstream::Upstream;

/// A shim that logs, and where.
struct Logging {
    rig: Rig,
    _dir: tempfile::TempDir,
    path: PathBuf,
}

impl Logging {
    fn start() -> Self {
        Self::with(|upstream, settings| Rig::with_kong(ONE_ROUTE, upstream, settings))
    }

    /// One whose Kong is not there.
    fn without_kong() -> Self {
        let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        Self::with(|upstream, settings| {
            Rig::with_kong(ONE_ROUTE, upstream, &format!("upstream: http://{nobody}\n{settings}"))
        })
    }

    fn with(rig: impl FnOnce(Upstream, &str) -> Rig) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("access.log");
        let rig = rig(Upstream::start(), &format!("access_log: {}\n", path.display()));
        Self { rig, _dir: dir, path }
    }

    /// The only line so far for this path, once it is there.
    fn line(&self, path: &str) -> Value {
        let mut found = Vec::new();
        until(|| {
            found = lines(&self.path).into_iter().filter(|line| line["path"] == path).collect();
            !found.is_empty()
        });
        assert_eq!(found.len(), 1, "{path}");
        found.remove(0)
    }

    fn exchange(&self, sni: &str, request: &[u8]) -> String {
        self.rig.client(sni).connect(self.rig.address).unwrap().exchange(request).unwrap()
    }
}

/// All lines that are there; of one that is just being written, a part may be.
fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    text.split_inclusive('\n')
        .filter(|line| line.ends_with('\n'))
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}

fn assert_has(line: &Value, expected: &Value) {
    for (key, value) in expected.as_object().unwrap() {
        assert_eq!(&line[key], value, "{key}: {line}");
    }
}

/// As `openssl` tells it.
fn fingerprint(rig: &Rig) -> String {
    let output = Command::new("openssl")
        .args(["x509", "-in", "client.crt", "-noout", "-fingerprint", "-sha256"])
        .current_dir(rig.dir.path())
        .output()
        .expect("openssl runs");
    let said = String::from_utf8(output.stdout).unwrap();
    said.split_once('=').unwrap().1.trim().replace(':', "").to_lowercase()
}

#[test]
fn each_request_has_a_line_with_what_was_proven_and_no_secret() {
    let logging = Logging::start();
    let fingerprint = fingerprint(&logging.rig);
    let secrets =
        ["--header", "Authorization: Bearer secret", "--cookie", "session=secret", "--data", "hello"];
    for (tls, version) in [("1.2", "TLSv1.2"), ("1.3", "TLSv1.3")] {
        for (http, protocol) in [("--http1.1", "HTTP/1.1"), ("--http2", "HTTP/2")] {
            for presents in [false, true] {
                let path = format!("/echo/{tls}{http}/{presents}");
                let certificate = if presents { &Rig::CERTIFICATE[..] } else { &[] };
                let tls = [&format!("--tlsv{tls}"), "--tls-max", tls, http];
                let arguments = [&tls, &secrets[..], certificate].concat();
                let sni = if presents { SECURED } else { OPEN };
                logging.rig.curl(sni, &format!("{path}?token=secret"), &arguments);
                let line = logging.line(&path);
                let host = format!("{sni}:{}", logging.rig.address.port());
                assert_has(
                    &line,
                    &json!({
                        "client": "127.0.0.1", "server": "127.0.0.1", "server_port": logging.rig.address.port(),
                        "tls": version, "sni": sni, "asked": presents, "presented": presents, "resumed": false,
                        "certificate_sha256": presents.then_some(&fingerprint), "protocol": protocol,
                        "method": "POST", "host": host, "status": 200, "answered_by": "kong", "reason": null,
                        "bytes_up": 5, "bytes_down": 5, "broken_off_by": null,
                    }),
                );
                assert!(line["cipher"].as_str().unwrap().contains("AES"), "{line}");
                let [handshake, answer, total] =
                    ["handshake_ms", "answer_ms", "total_ms"].map(|key| line[key].as_f64().unwrap());
                assert!(handshake > 0.0 && answer > 0.0 && answer <= total, "{line}");
                assert!(
                    line["client_port"].as_u64().unwrap() > 0
                        && line["time"].as_str().unwrap().ends_with('Z')
                );
            }
        }
    }
    let text = std::fs::read_to_string(&logging.path).unwrap();
    assert!(!text.contains("secret"), "{text}");
    assert_eq!(std::fs::metadata(&logging.path).unwrap().permissions().mode() & 0o777 & !0o640, 0);
}

#[test]
fn answers_without_a_body_are_whole() {
    let logging = Logging::start();
    for version in ["--http1.1", "--http2"] {
        for (at, arguments) in
            [&["--head"][..], &["--request", "OPTIONS"], &["--get"]].into_iter().enumerate()
        {
            let path = format!("/bytes/{at}{version}");
            logging.rig.curl(OPEN, &path, &[&[version], arguments].concat());
            assert_has(&logging.line(&path), &json!({"status": 200, "broken_off_by": null}));
        }
    }
    let head = format!("HEAD /refused HTTP/1.1\r\nHost: {SECURED}\r\nConnection: close\r\n\r\n");
    logging.exchange(OPEN, head.as_bytes());
    assert_has(&logging.line("/refused"), &json!({"status": 421, "bytes_down": 0, "broken_off_by": null}));
}

#[test]
fn a_resumed_session_shows_the_certificate_of_its_beginning() {
    let logging = Logging::start();
    let fingerprint = fingerprint(&logging.rig);
    for client in clients(&logging.rig) {
        client.begin(logging.rig.address, Some(SECURED), "client", "session");
        assert!(client.resumes(logging.rig.address, Some("SECURED.example."), "session"));
    }
    until(|| lines(&logging.path).len() == 4);
    for line in lines(&logging.path) {
        let resumed = line["path"] == "/resume";
        let expected = json!({
            "sni": SECURED, "asked": true, "presented": true, "resumed": resumed, "certificate_sha256": fingerprint,
        });
        assert_has(&line, &expected);
    }
}

#[test]
fn what_the_shim_answers_itself_has_its_reason() {
    let logging = Logging::start();
    for (path, head, host, status, reason) in [
        ("/misdirected", "", SECURED, 421, "misdirected"),
        ("/host", "Host: b\r\n", "a", 400, "host"),
        ("/forged", "", "a\"},{\"status\":200,\"\té", 400, "host"),
    ] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{head}Connection: close\r\n\r\n");
        let answer = logging.exchange(OPEN, request.as_bytes());
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        let expected = json!({
            "status": status, "answered_by": "shim", "reason": reason, "host": host, "asked": false,
            "answer_ms": null, "broken_off_by": null,
        });
        assert_has(&logging.line(path), &expected);
    }
    let switched = "GET /tunnel HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    logging.exchange(OPEN, switched.as_bytes());
    assert_has(
        &logging.line("/tunnel"),
        &json!({"status": 502, "answered_by": "shim", "reason": "kong_switched"}),
    );
    logging.exchange(OPEN, b"GET /close HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert_has(
        &logging.line("/close"),
        &json!({"status": 502, "answered_by": "shim", "reason": "kong_broke_off"}),
    );

    let logging = Logging::without_kong();
    logging.rig.curl(OPEN, "/", &["--http2"]);
    let expected =
        json!({"status": 502, "answered_by": "shim", "reason": "kong_unreachable", "answer_ms": null});
    assert_has(&logging.line("/"), &expected);
}

#[test]
fn nobody_but_the_shim_writes_a_line() {
    let logging = Logging::start();
    let path = "/a\"},{\"status\":200}é";
    logging.exchange(OPEN, format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").as_bytes());
    assert_has(&logging.line(path), &json!({"status": 200, "answered_by": "kong"}));
    let long = "x".repeat(30_000);
    logging
        .exchange(OPEN, format!("GET /{long} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").as_bytes());
    logging.line(&format!("/{}…", &long[..1023]));
    let text = std::fs::read_to_string(&logging.path).unwrap();
    assert!(
        text.is_ascii() && text.lines().count() == 2 && text.lines().all(|line| line.len() < 2000),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn who_broke_it_off_is_told() {
    let mut logging = Logging::start();
    let rig = &logging.rig;
    let begin = |request: &str| {
        let mut connection = rig.client(OPEN).connect(rig.address).unwrap();
        connection.write_all(format!("{request}\r\nHost: a\r\n\r\n").as_bytes()).unwrap();
        connection
    };
    // In the middle of an answer.
    let mut connection = begin("GET /endless HTTP/1.1");
    connection.read_exact(&mut [0; 100_000]).unwrap();
    drop(connection);
    let line = logging.line("/endless");
    assert_has(&line, &json!({"status": 200, "answered_by": "kong", "broken_off_by": "client"}));
    assert!(line["bytes_down"].as_u64().unwrap() >= 90_000, "{line}");

    // Before there is one.
    let connection = begin("GET /hold HTTP/1.1");
    rig.upstream.wait_for("/hold");
    drop(connection);
    assert_has(
        &logging.line("/hold"),
        &json!({"status": null, "answered_by": null, "answer_ms": null, "broken_off_by": "client"}),
    );

    // In the middle of a request's body, whose answer has begun or not.
    for path in ["/echo", "/unread"] {
        let mut connection = begin(&format!("POST {path} HTTP/1.1\r\nContent-Length: 100"));
        connection.write_all(b"part").unwrap();
        rig.upstream.wait_for(path);
        if path == "/echo" {
            connection.read_exact(&mut [0; 40]).unwrap();
        }
        drop(connection);
        let line = logging.line(path);
        assert_has(&line, &json!({"broken_off_by": "client"}));
        assert!(path != "/echo" || line["bytes_up"] == 4, "{line}");
    }

    // Kong, in both protocols.
    for version in ["--http1.1", "--http2"] {
        assert!(!rig.try_curl(OPEN, "/cut", &[version]).status.success());
    }
    until(|| lines(&logging.path).iter().filter(|line| line["path"] == "/cut").count() == 2);
    for line in lines(&logging.path).iter().filter(|line| line["path"] == "/cut") {
        assert_has(line, &json!({"status": 200, "bytes_down": 4, "broken_off_by": "upstream"}));
    }

    // A client of HTTP/2 that gives up one request.
    let mut client = Client::connect(rig.address, OPEN).await;
    let mut answer = client.send(get(&format!("https://{OPEN}/endless"))).await.unwrap();
    answer.body_mut().frame().await.unwrap().unwrap();
    drop(answer);
    let ours = |line: &Value| line["path"] == "/endless" && line["protocol"] == "HTTP/2";
    until(|| lines(&logging.path).iter().any(ours));
    assert_has(
        lines(&logging.path).iter().find(|line| ours(line)).unwrap(),
        &json!({"broken_off_by": "client"}),
    );

    // The shim, at its end: the lines of what it cuts off are written before it goes.
    let _http1 = begin("GET /hold HTTP/1.1");
    let _http2 = client.stream(get(&format!("https://{OPEN}/hold")));
    until(|| rig.upstream.requests().iter().filter(|request| request.path == "/hold").count() == 3);
    rig.shim.signal("TERM");
    rig.shim.wait_for("draining");
    rig.shim.signal("TERM");
    assert_eq!(logging.rig.shim.wait().code(), Some(0));
    let cut: Vec<_> =
        lines(&logging.path).into_iter().filter(|line| line["broken_off_by"] == "shim").collect();
    assert!(cut.len() == 2 && cut.iter().all(|line| line["path"] == "/hold"), "{cut:?}");
}

const HANDSHAKE: &str = "GET /tunnel HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

#[test]
fn a_websocket_has_one_line_at_its_end() {
    for leaves in [false, true] {
        let logging = Logging::start();
        let mut connection = logging.rig.client(OPEN).connect(logging.rig.address).unwrap();
        connection.write_all(HANDSHAKE.as_bytes()).unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            connection.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        connection.write_all(b"hello").unwrap();
        connection.read_exact(&mut [0; 5]).unwrap();
        // Others go on, and have their lines.
        logging.rig.curl(OPEN, "/other", &[]);
        logging.line("/other");
        assert_eq!(lines(&logging.path).len(), 1);
        if leaves {
            drop(connection);
            let expected = json!({"status": 101, "bytes_up": 5, "broken_off_by": "client"});
            assert_has(&logging.line("/tunnel"), &expected);
        } else {
            connection.end();
            connection.read_to_end(&mut Vec::new()).unwrap();
            let expected = json!({
                "status": 101, "answered_by": "kong", "bytes_up": 5, "bytes_down": 8, "broken_off_by": null,
            });
            assert_has(&logging.line("/tunnel"), &expected);
        }
    }
}

#[test]
fn a_file_that_was_renamed_is_made_anew_at_a_signal() {
    let logging = Logging::start();
    let renamed = logging.path.with_extension("log.1");
    logging.rig.curl(OPEN, "/first", &[]);
    logging.line("/first");
    std::fs::rename(&logging.path, &renamed).unwrap();
    // Until then all goes where it was.
    logging.rig.curl(OPEN, "/second", &[]);
    until(|| lines(&renamed).len() == 2);
    hang_up(&logging.rig.shim, RELOADED);
    logging.rig.curl(OPEN, "/third", &[]);
    logging.line("/third");
    assert_eq!((lines(&renamed).len(), lines(&logging.path).len()), (2, 1));

    // A file that cannot be made leaves the old one, and keeps nothing else from being reloaded.
    std::fs::rename(&logging.path, &renamed).unwrap();
    std::fs::create_dir(&logging.path).unwrap();
    hang_up(&logging.rig.shim, "SIGHUP: the access log goes on where it was");
    logging.rig.curl(OPEN, "/fourth", &[]);
    until(|| lines(&renamed).len() == 2);

    // Broken settings do not keep it from being made anew.
    std::fs::remove_dir(&logging.path).unwrap();
    std::fs::write(logging.rig.dir.path().join("shim.yml"), "listen: [").unwrap();
    hang_up(&logging.rig.shim, "SIGHUP: everything stays as it was");
    logging.rig.curl(OPEN, "/fifth", &[]);
    logging.line("/fifth");
}

#[test]
fn a_disk_that_is_full_stops_no_request_and_what_is_missing_is_told() {
    let logging = Logging::with(|upstream, settings| {
        let path = settings.trim_start_matches("access_log: ").trim();
        symlink("/dev/full", path).unwrap();
        Rig::with_kong(ONE_ROUTE, upstream, settings)
    });
    for _ in 0..20 {
        logging.rig.curl(OPEN, "/lost", &[]);
    }
    let complaint = "lines of the access log are lost";
    logging.rig.shim.wait_for(complaint);
    assert_eq!(logging.rig.shim.output().iter().filter(|line| line.contains(complaint)).count(), 1);
    std::fs::remove_file(&logging.path).unwrap();
    hang_up(&logging.rig.shim, RELOADED);
    logging.rig.curl(OPEN, "/kept", &[]);
    logging.line("/kept");
    let lines = lines(&logging.path);
    let lost: u64 = lines.iter().filter_map(|line| line["dropped"].as_u64()).sum();
    let written = lines.iter().filter(|line| line["status"] == 200).count() as u64;
    assert_eq!(lost + written, 21, "{lines:?}");
}

#[test]
fn standard_error_that_takes_nothing_stops_no_request_and_keeps_the_shim_from_no_end() {
    let rig = Rig::new(ONE_ROUTE);
    let (log, reader) = UnixStream::pair().unwrap();
    let mut shim = on_one_core(&common::command(&rig.dir.path().join("shim.yml")))
        .stdout(Stdio::null())
        .stderr(OwnedFd::from(log.try_clone().unwrap()))
        .spawn()
        .unwrap();
    let mut said = BufReader::new(reader).lines().map(Result::unwrap);
    let listening = said.find(|line| line.contains("\"listening\"")).unwrap();
    let listening: Value = serde_json::from_str(&listening).unwrap();
    let address = listening["addr"].as_str().unwrap().parse().unwrap();
    fill(&log);
    let send = |signal: &str| {
        let sent = Command::new("kill").args(["-s", signal, &shim.id().to_string()]).status().unwrap();
        assert!(sent.success());
    };
    // Each of them is worth a line.
    for _ in 0..3 {
        send("HUP");
        let client = rig.client(OPEN).connect(address).unwrap();
        let answer = client.exchange(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
    send("TERM");
    assert!(shim.wait().unwrap().success());
}

#[test]
fn a_file_that_takes_nothing_stops_no_request_and_all_lines_are_written_before_the_shim_ends() {
    let rig = Rig::with_settings(ONE_ROUTE, "access_log: stdout\n");
    // A second one, whose standard output is not read yet. A pipe holds a fraction of the lines.
    let mut shim = Command::new(env!("CARGO_BIN_EXE_tls-shim"))
        .arg("--config")
        .arg(rig.dir.path().join("shim.yml"))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(shim.stderr.take().unwrap()).lines().map(Result::unwrap);
    let listening = said.find(|line| line.contains("\"listening\"")).unwrap();
    let listening: Value = serde_json::from_str(&listening).unwrap();
    let mut client = rig.client(OPEN).connect(listening["addr"].as_str().unwrap().parse().unwrap()).unwrap();
    // Refused, since that is quick.
    let request = |rest: &str| format!("HEAD / HTTP/1.1\r\nHost: {SECURED}\r\n{rest}\r\n");
    client.write_all((request("").repeat(500) + &request("Connection: close\r\n")).as_bytes()).unwrap();
    client.read_to_end(&mut Vec::new()).unwrap();
    assert!(Command::new("kill").arg(shim.id().to_string()).status().unwrap().success());
    said.find(|line| line.contains("\"drained\"")).unwrap();
    let mut lines = String::new();
    shim.stdout.take().unwrap().read_to_string(&mut lines).unwrap();
    assert_eq!(lines.lines().filter(|line| line.contains("\"broken_off_by\":null}")).count(), 501);
    assert_eq!(shim.wait().unwrap().code(), Some(0));
}

#[test]
fn lines_go_to_standard_output_where_that_is_wanted() {
    let rig = Rig::with_settings(ONE_ROUTE, "access_log: stdout\n");
    rig.curl(OPEN, "/said", &[]);
    let line: Value = serde_json::from_str(&rig.shim.wait_for("\"path\":\"/said\",\"status\":200")).unwrap();
    assert_eq!(line["answered_by"], "kong");
}
