//! Bodies that are larger than memory, and what is said before and after them.

mod common;

use std::io::{Read, Write};

use bytes::Bytes;
use common::h2::{Client, get};
use common::{ONE_ROUTE, OPEN, Rig};
use testbed::tls_client::TlsConnection;
use testbed::upstream::Upstream;

const MEBIBYTE: usize = 1024 * 1024;

/// What the buffers of two connections, the shim and its peers may hold together.
const ON_THE_WAY: usize = 64 * MEBIBYTE;

fn connect(rig: &Rig) -> TlsConnection {
    rig.client(OPEN).connect(rig.address).unwrap()
}

fn exchange(rig: &Rig, request: &str) -> String {
    connect(rig).exchange(request.as_bytes()).unwrap()
}

/// Reads until `end` has come.
fn read_until(connection: &mut TlsConnection, end: &str) -> String {
    let mut said = String::new();
    while !said.ends_with(end) {
        let mut byte = [0];
        connection.read_exact(&mut byte).unwrap_or_else(|error| panic!("{error}: {said}"));
        said.push(char::from(byte[0]));
    }
    said
}

#[test]
fn what_kong_does_not_read_stays_with_the_client() {
    let rig = Rig::new(ONE_ROUTE);
    for length in ["Content-Length: 1073741824", "Transfer-Encoding: chunked"] {
        let mut connection = connect(&rig);
        connection.limit_writes();
        let head = format!("POST /unread HTTP/1.1\r\nHost: a\r\n{length}\r\n\r\n");
        connection.write_all(head.as_bytes()).unwrap();
        let part =
            [format!("{MEBIBYTE:x}\r\n").into_bytes(), vec![b'x'; MEBIBYTE], b"\r\n".to_vec()].concat();
        let sent = (0..1000).take_while(|_| connection.write_all(&part).is_ok()).count() * MEBIBYTE;
        assert!(sent < ON_THE_WAY, "{sent} bytes of {length}");
    }
}

#[tokio::test]
async fn what_kong_does_not_read_stays_with_the_client_over_http2() {
    let rig = Rig::new(ONE_ROUTE);
    let mut client = Client::connect(rig.address, OPEN).await;
    let (mut body, _response) = client.stream(get("https://open.example/unread").method("POST"));
    let part = Bytes::from(vec![b'x'; MEBIBYTE]);
    let mut sent = 0;
    // It comes to a halt, and nothing but time can tell that it did.
    while let Ok(Ok(())) =
        tokio::time::timeout(std::time::Duration::from_secs(1), body.send_data(part.clone())).await
    {
        sent += MEBIBYTE;
        assert!(sent < ON_THE_WAY, "{sent} bytes");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_client_does_not_read_stays_with_kong() {
    let rig = Rig::new(ONE_ROUTE);
    let mut connection = connect(&rig);
    connection.write_all(b"GET /endless HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let mut client = Client::connect(rig.address, OPEN).await;
    let _unread = client.send(get("https://open.example/endless")).await.unwrap();
    let sent = tokio::task::block_in_place(|| rig.upstream.wait_for_stalled(2));
    assert!(sent.iter().all(|&sent| sent < ON_THE_WAY), "{sent:?}");
}

#[test]
fn a_body_is_asked_for_once_kong_is_there_to_take_it() {
    let rig = Rig::new(ONE_ROUTE);
    let head = "POST /expected HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\nContent-Length: 4\r\n\r\n";
    let mut connection = connect(&rig);
    connection.write_all(head.as_bytes()).unwrap();
    assert_eq!(read_until(&mut connection, "\r\n\r\n"), "HTTP/1.1 100 Continue\r\n\r\n");
    connection.write_all(b"body").unwrap();
    let answer = read_until(&mut connection, "\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let request = rig.upstream.wait_for("/expected");
    assert!(request.values("expect").is_empty());
    assert_eq!(request.values("content-length"), ["4"]);

    // Whoever waits for leave to send a body that nobody wants is told so at once.
    for refused in [head.replace("POST", "CONNECT"), head.replace("Host: a\r\n", "")] {
        let mut connection = connect(&rig);
        connection.write_all(refused.as_bytes()).unwrap();
        let answer = read_until(&mut connection, "\r\n\r\n");
        assert!(answer.starts_with("HTTP/1.1 4"), "{answer}");
    }
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let rig = Rig::with_upstream(ONE_ROUTE, Upstream::start(), nobody);
    let mut connection = connect(&rig);
    connection.write_all(head.as_bytes()).unwrap();
    let answer = read_until(&mut connection, "\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
}

#[test]
fn hints_come_before_no_answer() {
    let rig = Rig::new(ONE_ROUTE);
    let answer = exchange(&rig, "GET /hints HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("\"path\":\"/hints\""), "{answer}");
    let answer = rig.curl(OPEN, "/hints", &["--http2", "--include"]);
    assert!(answer.starts_with("HTTP/2 200 ") && answer.contains("\"path\":\"/hints\""), "{answer}");
}

#[test]
fn options_are_of_a_path_or_of_the_server_itself() {
    let rig = Rig::new(ONE_ROUTE);
    for target in ["*", "/path"] {
        let request = format!("OPTIONS {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        let answer = exchange(&rig, &request);
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        assert_eq!(rig.upstream.wait_for(target).method, "OPTIONS");
    }
    rig.curl(OPEN, "/", &["--http2", "--request", "OPTIONS", "--request-target", "*"]);
    assert_eq!(rig.upstream.requests().iter().filter(|request| request.path == "*").count(), 2);
}

#[test]
fn trailers_come_only_to_those_who_take_them() {
    let rig = Rig::new(ONE_ROUTE);
    for (said, end) in [("TE: trailers\r\n", "0\r\nx-sum: 1\r\n\r\n"), ("", "body\r\n0\r\n\r\n")] {
        let request = format!("GET /trailers HTTP/1.1\r\nHost: a\r\n{said}Connection: te, close\r\n\r\n");
        let answer = exchange(&rig, &request);
        assert!(answer.ends_with(end), "{answer}");
    }
}

#[test]
fn an_answer_that_is_cut_does_not_pass_for_a_whole_one() {
    let rig = Rig::new(ONE_ROUTE);
    let mut connection = connect(&rig);
    connection.write_all(b"GET /cut HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    let _ = connection.read_to_end(&mut answer);
    assert!(answer.ends_with(b"4\r\npart\r\n"), "{}", String::from_utf8_lossy(&answer));
    for version in ["--http1.1", "--http2"] {
        let output = rig.try_curl(OPEN, "/cut", &[version]);
        assert!(!output.status.success(), "{output:?}");
    }
}
