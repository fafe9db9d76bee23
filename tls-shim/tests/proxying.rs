//! Requests to Kong and answers from it.

mod common;

use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;

use bytes::Bytes;
use common::h2::{self, get};
use common::{ONE_ROUTE, OPEN, Rig};
use http::StatusCode;
use http_body_util::BodyExt;
use testbed::upstream::Upstream;

const MEBIBYTE: usize = 1024 * 1024;

/// Sends bytes over HTTP/1.1 and gives the whole answer.
fn exchange(rig: &Rig, request: &str) -> String {
    rig.client(OPEN).connect(rig.address).unwrap().exchange(request.as_bytes()).unwrap()
}

fn write_megabytes(dir: &Path, count: usize) -> Vec<u8> {
    let content: Vec<u8> = (0..count * MEBIBYTE).map(|at| (at / 7 % 251) as u8).collect();
    std::fs::write(dir.join("body"), &content).unwrap();
    content
}

#[test]
fn large_bodies_go_both_ways() {
    let rig = Rig::new(ONE_ROUTE);
    let content = write_megabytes(rig.dir.path(), 20);
    for arguments in [
        vec!["--http1.1"],
        vec!["--http1.1", "-H", "Transfer-Encoding: chunked"],
        vec!["--http1.1", "-H", "Expect: 100-continue"],
        vec!["--http2"],
    ] {
        let upload = ["--request", "POST", "--upload-file", "body", "--output", "echoed"];
        rig.curl(OPEN, "/echo", &[&arguments[..], &upload].concat());
        let echoed = std::fs::read(rig.dir.path().join("echoed")).unwrap();
        assert!(echoed == content, "{arguments:?}: {} bytes came back", echoed.len());
        let down = rig.curl(OPEN, &format!("/bytes/{}", 20 * MEBIBYTE), &arguments[..1]);
        assert_eq!(down.len(), 20 * MEBIBYTE);
    }
}

#[test]
fn an_answer_begins_before_the_request_ends() {
    let rig = Rig::new(ONE_ROUTE);
    let mut connection = rig.client(OPEN).connect(rig.address).unwrap();
    let head = "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n";
    connection.write_all(head.as_bytes()).unwrap();
    let mut answer = Vec::new();
    for part in ["first", "second", "third"] {
        connection.write_all(format!("{:x}\r\n{part}\r\n", part.len()).as_bytes()).unwrap();
        // Nothing more is sent until this is back.
        while !answer.ends_with(format!("{part}\r\n").as_bytes()) {
            let mut buffer = [0; 1024];
            let count = connection.read(&mut buffer).unwrap();
            assert!(count > 0, "{}", String::from_utf8_lossy(&answer));
            answer.extend(&buffer[..count]);
        }
    }
    connection.write_all(b"0\r\n\r\n").unwrap();
    connection.read_to_end(&mut answer).unwrap();
    assert!(answer.ends_with(b"0\r\n\r\n"));
}

#[tokio::test]
async fn an_answer_begins_before_the_request_ends_over_http2() {
    let rig = Rig::new(ONE_ROUTE);
    let mut client = h2::Client::connect(rig.address, OPEN).await;
    let (mut body, response) = client.stream(get("https://open.example/echo").method("POST"));
    body.send_data(Bytes::from_static(b"first")).await.unwrap();
    let mut response = response.await.unwrap();
    for part in ["first", "second"] {
        let mut echoed = Vec::new();
        while echoed.len() < part.len() {
            let frame = response.body_mut().frame().await.unwrap().unwrap();
            echoed.extend(frame.into_data().unwrap());
        }
        assert_eq!(echoed, part.as_bytes());
        if part == "first" {
            body.send_data(Bytes::from_static(b"second")).await.unwrap();
        }
    }
    drop(body);
    assert!(
        response
            .body_mut()
            .frame()
            .await
            .is_none_or(|frame| frame.unwrap().data_ref().is_none_or(Bytes::is_empty))
    );
}

#[test]
fn an_answer_may_come_before_the_body() {
    let rig = Rig::new(ONE_ROUTE);
    write_megabytes(rig.dir.path(), 20);
    for version in ["--http1.1", "--http2"] {
        let upload = [version, "--upload-file", "body", "--write-out", "%{http_code}", "--output", "answer"];
        // curl ends its upload short of the length that it had said, and may still hear what is wrong with that.
        let output = rig.try_curl(OPEN, "/early", &upload);
        assert_eq!(String::from_utf8_lossy(&output.stdout), "401", "{output:?}");
        assert_eq!(std::fs::read_to_string(rig.dir.path().join("answer")).unwrap(), "early");
        rig.curl(OPEN, "/after", &[version]);
    }
}

#[test]
fn an_answer_without_body_keeps_its_length() {
    let rig = Rig::new(ONE_ROUTE);
    for version in ["--http1.1", "--http2"] {
        let answer = rig.curl(OPEN, "/bytes/12345", &[version, "--head"]);
        assert!(answer.contains("content-length: 12345"), "{answer}");
    }
}

#[test]
fn answers_reach_those_who_asked() {
    let rig = Rig::new(ONE_ROUTE);
    for version in ["--http1.1", "--http2"] {
        let url = format!("https://{OPEN}:{}/{version}/[1-300]", rig.address.port());
        let arguments = [
            version,
            "--parallel",
            "--parallel-max",
            "50",
            "--output",
            "answer-#1",
            &url,
            "--output",
            "last",
        ];
        rig.curl(OPEN, "/last", &arguments);
        for number in 1..=300 {
            let answer = std::fs::read_to_string(rig.dir.path().join(format!("answer-{number}"))).unwrap();
            let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
            assert_eq!(answer["path"], format!("/{version}/{number}"));
        }
    }
    let paths: HashSet<_> = rig.upstream.requests().into_iter().map(|request| request.path).collect();
    assert_eq!(paths.len(), 601);
    assert!(rig.upstream.connections() < 300, "{} connections to Kong", rig.upstream.connections());
}

#[test]
fn connections_to_kong_are_kept() {
    let rig = Rig::new(ONE_ROUTE);
    for at in 0..5 {
        rig.curl(OPEN, &format!("/{at}"), &[if at % 2 == 0 { "--http2" } else { "--http1.1" }]);
    }
    assert_eq!(rig.upstream.connections(), 1);
}

#[test]
fn what_kong_closed_is_not_used_again() {
    let rig = Rig::new(ONE_ROUTE);
    for path in ["/a", "/close", "/b"] {
        let status = rig.curl(OPEN, path, &["--output", "answer", "--write-out", "%{http_code}"]);
        assert_eq!(status, if path == "/close" { "502" } else { "200" }, "{path}");
    }
}

#[test]
fn what_a_kept_connection_lost_is_sent_again_once_if_it_may_be_done_twice() {
    let rig = Rig::new(ONE_ROUTE);
    let seen = |path: &str| rig.upstream.requests().iter().filter(|request| request.path == path).count();
    let has_body = ["--data", "body"];
    let idempotent = ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"].map(|method| (method, &[][..], 2));
    let other = [("POST", &[][..], 1), ("PATCH", &[], 1), ("PUT", &has_body, 1), ("GET", &has_body, 1)];
    for version in ["--http1.1", "--http2"] {
        for (method, body, times) in idempotent.into_iter().chain(other) {
            // Answers, and leaves a connection.
            rig.curl(OPEN, "/", &[]);
            let (before, connections) = (seen("/close-kept"), rig.upstream.connections());
            let how = if method == "HEAD" { ["--head", version] } else { ["--request", method] };
            let status = ["--output", "answer", "--write-out", "%{http_code}", version];
            let status = rig.curl(OPEN, "/close-kept", &[&how[..], body, &status].concat());
            let expected = if times == 2 { "200" } else { "502" };
            assert_eq!(
                (status.as_str(), seen("/close-kept") - before),
                (expected, times),
                "{version} {method} {body:?}"
            );
            assert_eq!(rig.upstream.connections() - connections, times - 1, "{version} {method}");
        }
    }
    // The same request as a whole.
    let requests = rig.upstream.requests();
    let twice: Vec<_> = requests.iter().filter(|request| request.path == "/close-kept").take(2).collect();
    assert_eq!((&twice[0].method, &twice[0].headers), (&twice[1].method, &twice[1].headers));
    assert!(twice[0].headers.len() > 5, "{twice:?}");

    // Not for ever, nor where nothing was lost by a kept connection.
    for times in [2, 1] {
        rig.curl(OPEN, "/", &[]);
        if times == 1 {
            // Takes what was kept away.
            rig.curl(OPEN, "/close", &["--request", "POST"]);
        }
        let before = seen("/close");
        rig.curl(OPEN, "/close", &[]);
        assert_eq!(seen("/close") - before, times);
    }
}

#[test]
fn trailers_of_an_answer_come_through() {
    let rig = Rig::new(ONE_ROUTE);
    let answer = rig.curl(OPEN, "/trailers", &["--http2", "--include"]);
    assert!(answer.contains("body") && answer.contains("x-sum: 1"), "{answer}");
    let answer =
        exchange(&rig, "GET /trailers HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: te, close\r\n\r\n");
    assert!(answer.ends_with("0\r\nx-sum: 1\r\n\r\n"), "{answer}");
    assert_eq!(rig.upstream.requests()[1].values("te"), ["trailers"]);
}

#[test]
fn kong_out_of_reach_is_a_bad_gateway() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let rig = Rig::with_upstream(ONE_ROUTE, Upstream::start(), nobody);
    for version in ["--http1.1", "--http2"] {
        let answer = rig.curl(OPEN, "/", &[version, "--include"]);
        assert!(answer.contains(" 502 ") && answer.contains("content-type: application/json"), "{answer}");
        let message = r#"{"message":"An invalid response was received from the upstream server"}"#;
        assert!(answer.ends_with(message), "{answer}");
    }
    rig.shim.wait_for("Kong did not answer");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_ends_his_request_to_kong() {
    let rig = Rig::new(ONE_ROUTE);
    let mut connection = rig.client(OPEN).connect(rig.address).unwrap();
    connection.write_all(b"GET /hold HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    rig.upstream.wait_for("/hold");
    drop(connection);
    rig.upstream.wait_for_aborted(1);

    // One stream of many, while the connection stays.
    let mut client = h2::Client::connect(rig.address, OPEN).await;
    let again = rig.upstream.requests().len();
    let held = tokio::spawn(client.stream(get("https://open.example/hold").method("POST")).1);
    while rig.upstream.requests().len() == again {
        tokio::task::yield_now().await;
    }
    held.abort();
    let upstream = &rig.upstream;
    tokio::task::block_in_place(|| upstream.wait_for_aborted(2));
    assert_eq!(client.send(get("https://open.example/other")).await.unwrap().status(), 200);

    // In the middle of a body.
    let mut connection = rig.client(OPEN).connect(rig.address).unwrap();
    connection.write_all(b"POST /echo/cut HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc").unwrap();
    rig.upstream.wait_for("/echo/cut");
    drop(connection);
    rig.upstream.wait_for_aborted(3);
}

#[test]
fn requests_that_are_not_clear_are_refused() {
    let rig = Rig::new(ONE_ROUTE);
    let many = "X-Many: 1\r\n".repeat(200);
    for (request, status) in [
        ("CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n", 405),
        ("GET / HTTP/1.1\r\n", 400),
        ("GET / HTTP/1.0\r\n", 400),
        ("GET / HTTP/1.1\r\nHost:\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n", 400),
        ("GET https://b/ HTTP/1.1\r\nHost: a\r\n", 400),
        ("GET * HTTP/1.1\r\nHost: a\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n", 400),
        ("GET / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, gzip\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nX-A: 1\rX-B: 2\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nX-A : 1\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nX-A: 1\r\n folded\r\n", 400),
        (&format!("GET / HTTP/1.1\r\nHost: a\r\n{many}"), 431),
    ] {
        let answer = exchange(&rig, &format!("{request}Connection: close\r\n\r\n"));
        let start = answer.lines().next().unwrap_or_default();
        assert!(
            start.contains(&format!(" {status} ")),
            "{start:?} for {}",
            &request[..request.len().min(200)]
        );
    }
    // The shim has stopped reading by the time it answers, so a reset may overtake the answer.
    let large = format!("GET / HTTP/1.1\r\nHost: a\r\nX-Large: {}\r\n\r\n", "a".repeat(70 * 1024));
    let answer = rig.client(OPEN).connect(rig.address).unwrap().exchange(large.as_bytes());
    assert!(answer.as_ref().is_ok_and(|answer| answer.contains(" 431 ")) || answer.is_err(), "{answer:?}");
    assert!(rig.upstream.requests().is_empty(), "{:?}", rig.upstream.requests());
}

#[test]
fn a_message_with_two_lengths_has_one_behind_the_shim() {
    let rig = Rig::new(ONE_ROUTE);
    for lengths in [
        "Content-Length: 40\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 40\r\n",
    ] {
        // By its Content-Length the second request would be part of the first one's body.
        let answer = exchange(
            &rig,
            &format!(
                "POST /first HTTP/1.1\r\nHost: a\r\n{lengths}\r\n0\r\n\r\nGET /second HTTP/1.1\r\nHost: a\r\n\r\n"
            ),
        );
        assert_eq!(answer.matches("HTTP/1.1 200 OK").count(), 1, "{answer}");
        let request = rig.upstream.requests().pop().unwrap();
        assert_eq!(request.path, "/first");
        assert!(
            request.values("content-length").is_empty() && request.values("transfer-encoding") == ["chunked"]
        );
    }
}

#[test]
fn old_requests_are_passed_on_as_new_ones() {
    let rig = Rig::new(ONE_ROUTE);
    let answer = exchange(&rig, "GET /old HTTP/1.0\r\nHost: a\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.0 200 ") || answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(!answer.contains("chunked"), "{answer}");
    let answer = exchange(
        &rig,
        "GET https://A.example/abs?q HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n",
    );
    assert!(answer.contains("\"path\":\"/abs?q\""), "{answer}");
    assert_eq!(rig.upstream.requests()[1].values("host"), ["a.example"]);
}

#[tokio::test]
async fn requests_that_are_not_clear_are_refused_over_http2() {
    let rig = Rig::new(ONE_ROUTE);
    let mut client = h2::Client::connect(rig.address, OPEN).await;
    let mut many = get("https://open.example/");
    for _ in 0..201 {
        many = many.header("x-many", "1");
    }
    for (request, status) in [
        (get("https://open.example/").header("host", "other.example"), StatusCode::BAD_REQUEST),
        (
            get("https://open.example/").header("host", "open.example").header("host", "open.example"),
            StatusCode::BAD_REQUEST,
        ),
        (get("open.example:443").method("CONNECT"), StatusCode::METHOD_NOT_ALLOWED),
        (many, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE),
        (
            get("https://open.example/").header("x-large", "a".repeat(70 * 1024)),
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        ),
    ] {
        let said = format!("{request:?}").chars().take(200).collect::<String>();
        assert_eq!(client.send(request).await.unwrap().status(), status, "{said}");
    }
    assert!(rig.upstream.requests().is_empty());
    let same = get("https://Open.example/same").header("host", "open.Example");
    assert_eq!(client.send(same).await.unwrap().status(), 200);
}

#[test]
fn clients_that_stall_or_talk_nonsense_harm_nobody() {
    let rig = Rig::new(ONE_ROUTE);
    let stalled: Vec<_> = (0..50).map(|_| TcpStream::connect(rig.address).unwrap()).collect();
    let mut half = TcpStream::connect(rig.address).unwrap();
    half.write_all(&[22, 3, 1, 2, 0, 1, 0]).unwrap();
    let mut plain = TcpStream::connect(rig.address).unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    // The end, by an alert or a reset.
    let _ = plain.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP"));
    let mut slow = rig.client(OPEN).connect(rig.address).unwrap();
    slow.write_all(b"GET / HT").unwrap();
    rig.curl(OPEN, "/", &[]);
    drop((stalled, half, slow));
}
