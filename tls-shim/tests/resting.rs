//! HTTP/1.1 connections whose clients ask for nothing for a while: they give back their buffers, and nobody sees it.

mod common;

use std::io::{Read, Write};

use common::{ONE_ROUTE, OPEN, Rig, SECURED};
use testbed::tls_client::{TlsConnection, Version};

/// One answer, of which the length is known.
fn answer(connection: &mut TlsConnection) -> String {
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        connection.read_exact(&mut byte).unwrap_or_else(|error| panic!("{error}: {answer:?}"));
        answer.push(byte[0]);
    }
    let head = String::from_utf8(answer).unwrap();
    let length = head.to_lowercase();
    let length = length.split_once("content-length: ").expect("a length").1;
    let mut body = vec![0; length.split("\r\n").next().unwrap().parse().unwrap()];
    connection.read_exact(&mut body).unwrap();
    head + &String::from_utf8(body).unwrap()
}

fn ask(connection: &mut TlsConnection, path: &str) {
    connection.write_all(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).unwrap();
    let answer = answer(connection);
    assert!(answer.contains(&format!("\"path\":\"{path}\"")), "{answer}");
}

/// Waits until connections have been taken apart so many times.
fn wait_for_rests(rig: &Rig, count: usize) {
    rig.shim.wait_for_count("a connection rests", count);
}

/// A connection that rests after a request.
fn resting(rig: &Rig) -> TlsConnection {
    let mut connection = rig.client(OPEN).connect(rig.address).unwrap();
    ask(&mut connection, "/before");
    wait_for_rests(rig, 1);
    connection
}

#[test]
fn requests_after_a_rest_are_answered_as_those_before() {
    let rig = Rig::new(ONE_ROUTE);
    let mut rests = 0;
    let mut rest = || {
        rests += 1;
        wait_for_rests(&rig, rests);
    };
    for version in [Version::TLS1_2, Version::TLS1_3] {
        let client = rig.client(SECURED).version(version).certificate(&rig.client, &[]);
        let mut connection = client.connect(rig.address).unwrap();
        // Before the first request, too.
        rest();
        ask(&mut connection, "/first");
        rest();
        // Several at once, of which one has a body.
        let body = "x".repeat(100_000);
        let many = format!(
            "GET /second HTTP/1.1\r\nHost: a\r\n\r\nPOST /third HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}\
             GET /fourth HTTP/1.1\r\nHost: a\r\n\r\n",
            body.len()
        );
        connection.write_all(many.as_bytes()).unwrap();
        for path in ["/second", "/third", "/fourth"] {
            let answer = answer(&mut connection);
            assert!(answer.contains(&format!("\"path\":\"{path}\"")), "{answer}");
        }
        rest();
        ask(&mut connection, "/last");
        // All on the same connection, by the same client.
        for path in ["/first", "/second", "/third", "/fourth", "/last"] {
            let request = rig.upstream.wait_for(path);
            assert_eq!(request.values("client-cert").len(), 1, "{path}");
        }
        connection.end();
        connection.read_to_end(&mut Vec::new()).unwrap();
        assert!(connection.has_ended());
    }
    assert_eq!(rig.upstream.requests().len(), 10);
}

#[test]
fn a_header_that_comes_in_parts_is_one_however_long_it_takes() {
    let rig = Rig::new(ONE_ROUTE);
    let mut connection = resting(&rig);
    connection.write_all(b"GET /in-parts HTTP/1.1\r\nHo").unwrap();
    // It is in the middle of a header, which hyper gets again.
    rig.shim.wait_for("\"read\":26");
    connection.write_all(b"st: a\r\n").unwrap();
    connection.write_all(b"\r\n").unwrap();
    let said = answer(&mut connection);
    assert!(said.contains("\"path\":\"/in-parts\""), "{said}");
    assert_eq!(rig.upstream.wait_for("/in-parts").values("host"), ["a"]);
    // The end of one and the beginning of the next.
    connection.write_all(b"GET /whole HTTP/1.1\r\nHost: a\r\n\r\nGET /be").unwrap();
    answer(&mut connection);
    rig.shim.wait_for("\"read\":7");
    connection.write_all(b"gun HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
    let said = answer(&mut connection);
    assert!(said.contains("\"path\":\"/begun\""), "{said}");
    connection.read_to_end(&mut Vec::new()).unwrap();
    assert!(connection.has_ended());
}

#[test]
fn a_request_that_runs_does_not_rest() {
    let rig = Rig::new(ONE_ROUTE);
    // As long as Kong says nothing, as the client takes nothing, and as a body is not whole.
    let mut held = rig.client(OPEN).connect(rig.address).unwrap();
    held.write_all(b"GET /hold HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let mut unread = rig.client(OPEN).connect(rig.address).unwrap();
    unread.write_all(b"GET /endless HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let mut sending = rig.client(OPEN).connect(rig.address).unwrap();
    sending.write_all(b"POST /echo/part HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc").unwrap();
    for path in ["/hold", "/endless", "/echo/part"] {
        rig.upstream.wait_for(path);
    }
    // That takes a second.
    rig.upstream.wait_for_stalled(1);
    // Others rest meanwhile.
    let _other = resting(&rig);
    assert_eq!(rig.shim.output().iter().filter(|line| line.contains("a connection rests")).count(), 1);
    rig.upstream.release();
    assert!(answer(&mut held).contains("\"path\":\"/hold\""));
    sending.write_all(b"defghij").unwrap();
    let mut echoed = Vec::new();
    while !echoed.ends_with(b"0\r\n\r\n") {
        let mut byte = [0];
        sending.read_exact(&mut byte).unwrap();
        echoed.push(byte[0]);
    }
    // Now both do, and go on after it.
    wait_for_rests(&rig, 3);
    ask(&mut held, "/after-hold");
    ask(&mut sending, "/after-body");
}

#[test]
fn a_connection_that_rests_ends_by_the_limits_of_one_that_does_not() {
    for limits in ["{idle: 3s}", "{header: 3s}"] {
        let rig = Rig::with_settings(ONE_ROUTE, &format!("time_limits: {limits}\n"));
        let mut connection = resting(&rig);
        let read = connection.read_to_end(&mut Vec::new());
        // In place of an end, the client may have waited in vain.
        let is_in_time = |error: &std::io::Error| error.kind() != std::io::ErrorKind::WouldBlock;
        assert!(read.as_ref().err().is_none_or(is_in_time), "{limits}: {read:?}");
        // Of a header that is late nobody is told, of a client that is idle it is.
        assert_eq!(connection.has_ended(), limits == "{idle: 3s}", "{limits}");
    }
}

#[test]
fn a_connection_that_rests_ends_as_soon_as_the_shim_is_told_to() {
    let mut rig = Rig::new(ONE_ROUTE);
    let mut connection = resting(&rig);
    rig.shim.signal("TERM");
    connection.read_to_end(&mut Vec::new()).unwrap();
    assert!(connection.has_ended());
    assert_eq!(rig.shim.wait().code(), Some(0));
    rig.shim.wait_for("\"drained\"");
}

#[test]
fn a_client_may_leave_while_its_connection_rests() {
    let rig = Rig::new(ONE_ROUTE);
    let mut connection = resting(&rig);
    connection.end();
    connection.read_to_end(&mut Vec::new()).unwrap();
    assert!(connection.has_ended());
    rig.shim.wait_for_count("a connection ended", 1);
    // Without a word, too.
    let mut connection = rig.client(OPEN).connect(rig.address).unwrap();
    ask(&mut connection, "/again");
    wait_for_rests(&rig, 2);
    drop(connection);
    rig.shim.wait_for_count("a connection ended", 2);
}

#[test]
fn a_websocket_may_begin_after_a_rest_and_does_not_rest() {
    let rig = Rig::new(ONE_ROUTE);
    let mut connection = resting(&rig);
    connection
        .write_all(b"GET /tunnel HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        .unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        connection.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
    let mut other = rig.client(OPEN).connect(rig.address).unwrap();
    ask(&mut other, "/other");
    wait_for_rests(&rig, 2);
    connection.write_all(b"said").unwrap();
    let mut back = [0; 4];
    connection.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"said");
}
