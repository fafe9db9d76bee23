//! Connections that become WebSockets.

mod common;

use std::io::{Read, Write};

use common::{ONE_ROUTE, OPEN, Rig, SECURED};
use testbed::tls_client::TlsConnection;

const HANDSHAKE: &str = "GET /tunnel HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
                         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n";

/// Reads the header of an answer.
fn head(connection: &mut TlsConnection) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        connection.read_exact(&mut byte).unwrap_or_else(|error| panic!("{error}: {head:?}"));
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

fn echo(connection: &mut TlsConnection, text: &[u8]) {
    connection.write_all(text).unwrap();
    let mut back = vec![0; text.len()];
    connection.read_exact(&mut back).unwrap();
    assert!(back == text);
}

/// A WebSocket, with what is sent after the handshake before its answer.
fn open(rig: &Rig, early: &str) -> TlsConnection {
    let mut connection = rig.client(OPEN).connect(rig.address).unwrap();
    connection.write_all(format!("{HANDSHAKE}\r\n{early}").as_bytes()).unwrap();
    let head = head(&mut connection);
    assert!(head.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{head}");
    for line in ["connection: upgrade\r\n", "upgrade: websocket\r\n", "sec-websocket-accept: accepted\r\n"] {
        assert!(head.contains(line), "{head}");
    }
    connection
}

#[test]
fn bytes_go_both_ways_until_both_sides_have_ended() {
    let rig = Rig::new(ONE_ROUTE);
    let mut connection = open(&rig, "");
    for part in [&b"\x81\x05hello"[..], b"\0\r\n\r\n", &[b'x'; 100_000]] {
        // More than the buffers on the way hold would wait for its reader.
        for part in part.chunks(10_000) {
            echo(&mut connection, part);
        }
    }
    let request = rig.upstream.wait_for("/tunnel");
    for (name, value) in [
        ("connection", "upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("sec-websocket-version", "13"),
        ("x-forwarded-proto", "https"),
    ] {
        assert_eq!(request.values(name), [value]);
    }
    // It has ended, and still hears what Kong says upon it.
    connection.end();
    let mut last = String::new();
    connection.read_to_string(&mut last).unwrap();
    assert_eq!(last, "bye");
}

#[test]
fn the_handshake_hands_on_the_certificate_and_nothing_forged() {
    let rig = Rig::new(ONE_ROUTE);
    for presents in [false, true] {
        let mut client = rig.client(SECURED);
        if presents {
            client = client.certificate(&rig.client, &[]);
        }
        let mut connection = client.connect(rig.address).unwrap();
        let forged =
            "Client-Cert: forged\r\nclient_cert_proof: forged\r\nConnection: client-cert, upgrade\r\n";
        connection.write_all(format!("{HANDSHAKE}{forged}\r\n").as_bytes()).unwrap();
        assert!(head(&mut connection).starts_with("HTTP/1.1 101 "));
        let request = rig.upstream.requests().pop().unwrap();
        assert!(!request.headers.iter().any(|(_, value)| value == "forged"), "{request:?}");
        assert_eq!(request.values("client-cert").len(), usize::from(presents));
        assert_eq!(request.values("client-cert-proof").len(), usize::from(presents));
    }
}

#[test]
fn what_comes_before_the_answer_is_no_request() {
    let rig = Rig::new(ONE_ROUTE);
    // Kong agrees: it is the first that the other side of the tunnel gets.
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: a\r\nClient-Cert: forged\r\nConnection: close\r\n\r\n";
    let mut connection = open(&rig, smuggled);
    let mut back = vec![0; smuggled.len()];
    connection.read_exact(&mut back).unwrap();
    assert_eq!(back, smuggled.as_bytes());
    drop(connection);

    // Kong does not agree: it is a request like any other.
    let refused = HANDSHAKE.replace("/tunnel", "/refused");
    let answer = rig.client(OPEN).connect(rig.address).unwrap();
    let answer = answer.exchange(format!("{refused}\r\n{smuggled}").as_bytes()).unwrap();
    assert_eq!(answer.matches("HTTP/1.1 200 OK").count(), 2, "{answer}");
    let request = rig.upstream.wait_for("/smuggled");
    assert!(request.values("client-cert").is_empty(), "{request:?}");
    assert_eq!(request.values("host"), ["a"]);
}

#[test]
fn nothing_but_a_websocket_is_upgraded_to() {
    let rig = Rig::new(ONE_ROUTE);
    for (at, said) in [
        "Connection: Upgrade\r\nUpgrade: h2c\r\n",
        "Connection: Upgrade\r\nUpgrade: h2c, websocket\r\n",
        "Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 1\r\n",
        "Upgrade: websocket\r\n",
    ]
    .into_iter()
    .enumerate()
    {
        let path = format!("/plain/{at}");
        let body = if said.contains("Length") { "x" } else { "" };
        let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{said}\r\n{body}");
        let mut connection = rig.client(OPEN).connect(rig.address).unwrap();
        connection.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 ") && connection.has_ended(), "{answer}");
        let request = rig.upstream.wait_for(&path);
        assert!(
            request.values("upgrade").is_empty() && request.values("connection").is_empty(),
            "{request:?}"
        );
    }
}

#[test]
fn an_upgrade_that_nobody_asked_for_is_a_bad_gateway() {
    let rig = Rig::new(ONE_ROUTE);
    for said in ["", "Upgrade: h2c\r\nConnection: upgrade\r\n", "Upgrade: websocket\r\n"] {
        let request = format!("GET /tunnel HTTP/1.1\r\nHost: a\r\n{said}Connection: close\r\n\r\n");
        let answer = rig.client(OPEN).connect(rig.address).unwrap().exchange(request.as_bytes()).unwrap();
        assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
    }
    for arguments in [&["--http2"][..], &["--http1.1"]] {
        let arguments = [arguments, &["--output", "answer", "--write-out", "%{http_code}"]].concat();
        assert_eq!(rig.curl(OPEN, "/tunnel", &arguments), "502");
    }
}

#[test]
fn a_websocket_may_be_silent_for_so_long() {
    let rig = Rig::with_settings(ONE_ROUTE, "time_limits: {tunnel_idle: 1s}\n");
    let mut connection = open(&rig, "");
    echo(&mut connection, b"hello");
    connection.read_to_end(&mut Vec::new()).unwrap();
    rig.shim.wait_for("it was idle for 1s");
}

#[test]
fn who_takes_nothing_stops_the_other_side() {
    let rig = Rig::new(ONE_ROUTE);
    let mut connection = open(&rig, "");
    connection.limit_writes();
    // All of it comes back and nobody reads, so that writing comes to a halt once the buffers of the systems are full.
    let part = vec![b'x'; 1024 * 1024];
    let written = (0..512).take_while(|_| connection.write_all(&part).is_ok()).count();
    assert!(written < 512, "512 MiB are in nobody's hands");
}

#[test]
fn a_websocket_may_go_on_while_the_shim_drains() {
    let mut rig = Rig::new(ONE_ROUTE);
    let mut connection = open(&rig, "");
    echo(&mut connection, b"before");
    rig.shim.signal("TERM");
    rig.shim.wait_for("draining");
    echo(&mut connection, b"after");
    connection.end();
    connection.read_to_end(&mut Vec::new()).unwrap();
    drop(connection);
    assert_eq!(rig.shim.wait().code(), Some(0));
    rig.shim.wait_for("\"drained\"");
}

#[test]
fn who_breaks_off_ends_the_other_side() {
    let rig = Rig::new(ONE_ROUTE);
    let mut connection = open(&rig, "");
    echo(&mut connection, b"x");
    drop(connection);
    rig.shim.wait_for("a tunnel broke");
}
