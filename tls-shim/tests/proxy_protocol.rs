//! The PROXY protocol, from a front and towards Kong.

mod common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use common::announced::Announced;
use common::h2::{Client, get};
use common::{ONE_ROUTE, OPEN, Rig, SECURED, grpc};
use testbed::tls_client::{TlsClient, TlsConnection};
use testbed::upstream::Upstream;

const LOOPBACK: &str = "accept_proxy_protocol: [10.0.0.0/8, 127.0.0.0/8]";
const V1: &[u8] = b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\n";

fn v2(kind: u8, client: [u8; 4], rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(12 + rest.len()).unwrap().to_be_bytes();
    let head = [kind, 0x11, length[0], length[1]];
    let ports = [220, 4, 1, 187];
    [&b"\r\n\r\n\0\r\nQUIT\n"[..], &head, &client, &[198, 51, 100, 1], &ports, rest].concat()
}

fn get_once(path: &str, more: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{more}\r\n")
}

#[test]
fn a_front_says_where_a_client_comes_from() {
    let rig = Rig::with_settings(ONE_ROUTE, LOOPBACK);
    let port = rig.address.port().to_string();
    for (at, header, client, server_port) in [
        (0, V1.to_vec(), "192.0.2.7", "443"),
        (1, v2(0x21, [192, 0, 2, 7], &[]), "192.0.2.7", "443"),
        // What may follow the addresses is passed over.
        (
            2,
            v2(0x21, [192, 0, 2, 8], &[4, 0, 200].iter().chain(&[0; 200]).copied().collect::<Vec<_>>()),
            "192.0.2.8",
            "443",
        ),
        (3, b"PROXY TCP6 2001:db8::7 2001:db8::1 1 8443\r\n".to_vec(), "2001:db8::7", "8443"),
        // The front itself.
        (4, v2(0x20, [192, 0, 2, 7], &[]), "127.0.0.1", &port),
        (5, b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.1", &port),
    ] {
        let path = format!("/{at}");
        let client_of_front = rig.client(SECURED).preface(&header).certificate(&rig.client, &[]);
        let connection = client_of_front.connect(rig.address).unwrap();
        assert!(connection.asked());
        let said = get_once(&path, "X-Forwarded-For: 203.0.113.9\r\nX-Real-IP: 203.0.113.9\r\n");
        connection.exchange(said.as_bytes()).unwrap();
        let request = rig.upstream.wait_for(&path);
        assert_eq!(request.values("x-real-ip"), [client]);
        assert_eq!(request.values("x-forwarded-for"), [format!("203.0.113.9, {client}")]);
        assert_eq!(request.values("x-forwarded-port"), [server_port]);
        assert_eq!(request.values("client-cert").len(), 1);
    }
}

/// What a connection gets that begins with these bytes.
fn answer(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).unwrap();
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    answer
}

#[test]
fn without_a_good_header_there_is_no_handshake() {
    let rig = Rig::with_settings(ONE_ROUTE, LOOPBACK);
    assert!(TlsClient::new(Some(OPEN)).connect(rig.address).is_err());
    rig.shim.wait_for("does not begin with a PROXY header");
    for wrong in [
        &b"PROXY TCP4 192.0.2.7 198.51.100.1 1\r\n"[..],
        b"PROXY UDP4 192.0.2.7 198.51.100.1 1 2\r\n",
        &[b"PROXY TCP4 ".to_vec(), vec![b'1'; 200]].concat(),
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff",
        b"\r\n\r\n\0\r\nQUIT\n\x11\x11\0\x0c",
        b"GET / HTTP/1.1\r\n\r\n",
    ] {
        assert_eq!(answer(rig.address, &[wrong, &[0; 20]].concat()), b"", "{wrong:?}");
    }
    // A second header is none any more.
    let twice = [V1, V1].concat();
    assert!(TlsClient::new(Some(OPEN)).preface(&twice).connect(rig.address).is_err());
    assert!(rig.upstream.requests().is_empty());
}

#[test]
fn nobody_connects_past_the_front() {
    let rig = Rig::with_settings(ONE_ROUTE, "accept_proxy_protocol: [192.0.2.0/24]");
    for preface in [&b""[..], V1] {
        assert!(TlsClient::new(Some(OPEN)).preface(preface).connect(rig.address).is_err());
    }
    rig.shim.wait_for("nobody may connect from there");
    // Nor does anybody say where he comes from who is not asked to.
    let rig = Rig::new(ONE_ROUTE);
    assert!(TlsClient::new(Some(OPEN)).preface(V1).connect(rig.address).is_err());
    assert!(rig.upstream.requests().is_empty());
}

/// The status of a request; the connection goes on.
fn status(connection: &mut TlsConnection, path: &str) -> String {
    connection.write_all(format!("HEAD {path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        connection.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    String::from_utf8_lossy(&head[9..12]).into_owned()
}

fn announced(version: &str, more: &str) -> (Announced, Rig) {
    let upstream = Upstream::start();
    let kong = Announced::start(upstream.address());
    let settings = format!("upstream: http://{}\nsend_proxy_protocol: {version}\n{more}", kong.address);
    let rig = Rig::with_kong(ONE_ROUTE, upstream, &settings);
    (kong, rig)
}

#[test]
fn kong_is_told_whose_a_connection_is_and_nobody_else_gets_it() {
    for version in ["v1", "v2"] {
        let (kong, rig) = announced(version, LOOPBACK);
        let connect = |last: u8| {
            rig.client(OPEN).preface(&v2(0x21, [192, 0, 2, last], &[])).connect(rig.address).unwrap()
        };
        let (mut first, mut second) = (connect(1), connect(2));
        for _ in 0..3 {
            assert_eq!(
                (status(&mut first, "/first"), status(&mut second, "/second")),
                ("200".into(), "200".into())
            );
        }
        // A connection for each of both, which it keeps.
        let expected = [1, 2].map(|last: u8| match version {
            "v1" => format!("PROXY TCP4 192.0.2.{last} 198.51.100.1 56324 443\r\n").into_bytes(),
            _ => v2(0x21, [192, 0, 2, last], &[]),
        });
        assert_eq!(kong.headers(), expected);
    }
}

#[test]
fn without_a_front_kong_is_told_of_the_connection_itself() {
    let (kong, rig) = announced("v1", "");
    let mut connection = rig.client(OPEN).connect(rig.address).unwrap();
    assert_eq!(status(&mut connection, "/"), "200");
    let header = String::from_utf8(kong.headers().remove(0)).unwrap();
    assert!(header.starts_with("PROXY TCP4 127.0.0.1 127.0.0.1 "), "{header}");
    assert!(header.ends_with(&format!(" {}\r\n", rig.address.port())), "{header}");
}

#[tokio::test]
async fn grpc_is_announced_as_well() {
    let upstream = grpc::Upstream::start().await;
    let kong = Announced::start(upstream.address);
    let settings = format!("grpc_upstream: http://{}\nsend_proxy_protocol: v2", kong.address);
    let rig = Rig::with_settings(ONE_ROUTE, &settings);
    let mut client = Client::connect(rig.address, OPEN).await;
    for _ in 0..2 {
        let call =
            get(&format!("https://{OPEN}/refuse")).method("POST").header("content-type", "application/grpc");
        assert_eq!(client.send(call).await.unwrap().status(), 200);
    }
    assert_eq!(kong.headers().len(), 1);
    assert!(kong.headers()[0].starts_with(b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x7f\0\0\x01"));
}
