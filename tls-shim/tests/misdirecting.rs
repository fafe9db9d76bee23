//! Requests for a name that needs a certificate, on a connection whose client was not asked for one.

mod common;

use std::io::{Read, Write};

use common::h2::{Client, get};
use common::{ONE_ROUTE, OPEN, Rig, SECURED, write_entities};
use testbed::tls_client::{TlsClient, TlsConnection};

/// Sends a request for a host and gives the status of the answer; the connection goes on.
fn status(connection: &mut TlsConnection, host: &str, connection_header: &str) -> u16 {
    let request = format!("HEAD / HTTP/1.1\r\nHost: {host}\r\n{connection_header}\r\n");
    connection.write_all(request.as_bytes()).unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        connection.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()[9..12].parse().unwrap()
}

const NAMES: &str = "
routes:
- {name: secured, snis: [secured.example, '*.wild.example', 'prefix.*'], plugins: [{name: mtls-auth}]}
- {name: open, snis: [open.example]}
";

#[test]
fn who_was_not_asked_is_sent_back_to_the_right_name() {
    let rig = Rig::new(NAMES);
    let mut connection = rig.client(OPEN).connect(rig.address).unwrap();
    assert!(!connection.asked());
    for (host, expected) in [
        (OPEN, 200),
        (SECURED, 421),
        // The connection goes on, and each of its requests counts for itself.
        (OPEN, 200),
        ("SECURED.Example", 421),
        ("secured.example:8443", 421),
        ("secured.example.", 421),
        ("secured.example.:443", 421),
        ("a.wild.example", 421),
        ("a.b.WILD.example:1", 421),
        ("prefix.example", 421),
        ("wild.example", 200),
        ("xsecured.example", 200),
        ("secured.example.org", 200),
        ("unknown.example", 200),
        ("127.0.0.1", 200),
        ("[::1]:8443", 200),
        ("*", 200),
    ] {
        assert_eq!(status(&mut connection, host, ""), expected, "{host}");
    }
    let passed = rig.upstream.requests().len();
    assert_eq!(passed, 9);
    // A WebSocket is a request as any other.
    let upgrade = "Connection: upgrade\r\nUpgrade: websocket\r\n";
    assert_eq!(status(&mut connection, SECURED, upgrade), 421);

    // A client that names no server is not asked either.
    let mut connection = TlsClient::new(None).connect(rig.address).unwrap();
    assert_eq!(status(&mut connection, SECURED, ""), 421);
    assert_eq!(rig.upstream.requests().len(), passed);
}

#[test]
fn who_was_asked_may_ask_for_anything() {
    let rig = Rig::new(NAMES);
    for presents in [false, true] {
        let mut client = rig.client(SECURED);
        if presents {
            client = client.certificate(&rig.client, &[]);
        }
        let mut connection = client.connect(rig.address).unwrap();
        for host in [SECURED, OPEN, "a.wild.example", "unknown.example"] {
            assert_eq!(status(&mut connection, host, ""), 200, "{host}");
        }
    }
}

#[tokio::test]
async fn another_authority_over_http2_is_sent_back() {
    let rig = Rig::new(ONE_ROUTE);
    let mut client = Client::connect(rig.address, OPEN).await;
    for (authority, expected) in [(OPEN, 200), (SECURED, 421), ("Secured.example:443", 421), (OPEN, 200)] {
        let answer = client.send(get(&format!("https://{authority}/"))).await.unwrap();
        assert_eq!(answer.status(), expected, "{authority}");
    }
    let mut client = Client::connect_with(rig.address, SECURED, Some(&rig.client)).await;
    for authority in [OPEN, SECURED] {
        assert_eq!(client.send(get(&format!("https://{authority}/"))).await.unwrap().status(), 200);
    }
}

#[test]
fn a_connection_from_before_a_change_is_sent_back_after_it() {
    let rig = Rig::new(ONE_ROUTE);
    let mut connection = rig.client(OPEN).connect(rig.address).unwrap();
    let mut unnamed = TlsClient::new(None).connect(rig.address).unwrap();
    assert_eq!((status(&mut connection, OPEN, ""), status(&mut unnamed, "127.0.0.1", "")), (200, 200));
    // A global plugin asks everybody.
    write_entities(rig.dir.path(), "plugins: [{name: mtls-auth}]");
    rig.shim.wait_for("\"everybody\":true");
    assert_eq!((status(&mut connection, OPEN, ""), status(&mut unnamed, "127.0.0.1", "")), (421, 421));
    let mut again = rig.client(OPEN).connect(rig.address).unwrap();
    assert!(again.asked());
    assert_eq!(status(&mut again, OPEN, ""), 200);
}

#[test]
fn an_answer_of_the_shims_own_to_head_has_no_body() {
    let rig = Rig::new(ONE_ROUTE);
    for version in ["--http1.1", "--http2"] {
        let host = format!("Host: {SECURED}");
        // curl fails over a body that comes all the same.
        let head = rig.curl(OPEN, "/", &["--head", version, "--header", &host]).to_ascii_lowercase();
        assert!(head.contains(" 421") && head.contains("content-length: 67"), "{version}: {head}");
    }
}
