//! The bounds that the settings set: how long the shim waits, and how much it takes.

mod common;

use std::io::{Read, Write};
use std::sync::Arc;

use common::frames::{Frames, SETTINGS};
use common::h2::{Client, get};
use common::{ONE_ROUTE, OPEN, RELOADED, Rig, hang_up};
use http_body_util::BodyExt;

/// Further settings for a shim that runs, which are read again.
fn set(rig: &Rig, more: &str) {
    let path = rig.dir.path().join("shim.yml");
    let settings = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, settings + more).unwrap();
    hang_up(&rig.shim, RELOADED);
}

/// The status of an answer.
fn status(rig: &Rig, path: &str, arguments: &[&str]) -> String {
    let arguments = [&["--output", "/dev/null", "--write-out", "%{http_code}"][..], arguments].concat();
    rig.curl(OPEN, path, &arguments)
}

#[test]
fn a_header_over_its_limits_is_431_and_goes_no_further() {
    let rig = Rig::new(ONE_ROUTE);
    let large = format!("X-Large: {}", "a".repeat(10_000));
    let many: Vec<String> = (0..50).flat_map(|at| ["-H".to_owned(), format!("X-{at}: 1")]).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let requests = [("/large", vec!["-H", &large]), ("/many", many)];
    for protocol in ["--http1.1", "--http2"] {
        for (path, fields) in &requests {
            assert_eq!(status(&rig, path, &[&[protocol][..], fields].concat()), "200", "{protocol} {path}");
        }
    }
    let before = rig.upstream.requests().len();
    // It counts for connections to come.
    set(&rig, "limits: {header_bytes: 8192, header_fields: 40}\n");
    for protocol in ["--http1.1", "--http2"] {
        for (path, fields) in &requests {
            assert_eq!(status(&rig, path, &[&[protocol][..], fields].concat()), "431", "{protocol} {path}");
        }
        assert_eq!(rig.upstream.requests().len(), before);
    }
    assert_eq!(status(&rig, "/", &[]), "200");
}

/// `SETTINGS_MAX_CONCURRENT_STREAMS` (RFC 9113, section 6.5.2) as the shim says it.
fn streams(rig: &Rig) -> Option<u32> {
    let mut client = Frames::connect(rig.address, OPEN);
    let settings = client.next().unwrap();
    assert_eq!(settings.kind, SETTINGS);
    let values = settings.payload.chunks(6).map(|one| (one[1], &one[2..]));
    let value = values.into_iter().find(|(id, _)| *id == 3)?.1;
    Some(u32::from_be_bytes(value.try_into().unwrap()))
}

#[test]
fn a_client_is_told_how_many_streams_there_may_be() {
    let rig = Rig::new(ONE_ROUTE);
    assert_eq!(streams(&rig), Some(200));
    set(&rig, "limits: {streams: 7}\n");
    assert_eq!(streams(&rig), Some(7));
}

#[test]
fn over_the_limit_connections_wait_and_none_is_lost() {
    let rig = Rig::with_settings(ONE_ROUTE, "limits: {connections: 2}\n");
    let request = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    let held: Vec<_> = ["/hold?1", "/hold?2"]
        .map(|path| {
            let mut connection = rig.client(OPEN).connect(rig.address).unwrap();
            connection.write_all(request(path).as_bytes()).unwrap();
            rig.upstream.wait_for(path);
            connection
        })
        .into();
    std::thread::scope(|scope| {
        let waiting: Vec<_> = (0..10)
            .map(|_| {
                scope.spawn(|| {
                    let connection = rig.client(OPEN).connect(rig.address).unwrap();
                    connection.exchange(request("/waited").as_bytes()).unwrap()
                })
            })
            .collect();
        rig.shim.wait_for("as many connections of clients as there may be");
        // No handshake of theirs has ended, nor will one before these two end.
        assert!(waiting.iter().all(|thread| !thread.is_finished()));
        assert_eq!(rig.upstream.requests().len(), 2);
        rig.upstream.release();
        for mut connection in held {
            let mut answer = String::new();
            connection.read_to_string(&mut answer).unwrap();
            assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        }
        for thread in waiting {
            let answer = thread.join().unwrap();
            assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        }
    });
    let said = rig.shim.output().iter().filter(|line| line.contains("as there may be")).count();
    assert_eq!(said, 1);
}

#[test]
fn kong_may_take_so_long_for_an_answer() {
    let rig = Rig::with_settings(ONE_ROUTE, "time_limits: {upstream_answer: 1s}\n");
    let grpc = ["-H", "Content-Type: application/grpc"];
    for arguments in [&["--http1.1"][..], &["--http2"], &["--http2", "--data", "body"], &grpc] {
        assert_eq!(status(&rig, "/hold", arguments), "504", "{arguments:?}");
    }
    // Kong is told that nobody waits any more.
    rig.upstream.wait_for_aborted(4);
    rig.shim.wait_for("Kong took too long for an answer");
    // A body that goes on for longer than that is no answer that is late.
    assert_eq!(status(&rig, "/bytes/5", &["--http1.1"]), "200");
}

#[test]
fn a_client_may_take_so_long_for_a_handshake_and_a_header() {
    let rig = Rig::with_settings(ONE_ROUTE, "time_limits: {handshake: 1s, header: 1s, idle: 1s}\n");
    let mut silent = std::net::TcpStream::connect(rig.address).unwrap();
    silent.set_read_timeout(Some(testbed::process::PATIENCE)).unwrap();
    silent.read_to_end(&mut Vec::new()).unwrap();
    rig.shim.wait_for("a handshake took too long");

    let mut slow = rig.client(OPEN).connect(rig.address).unwrap();
    slow.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n").unwrap();
    let mut answer = Vec::new();
    slow.read_to_end(&mut answer).unwrap();
    assert!(answer.is_empty(), "{}", String::from_utf8_lossy(&answer));

    // On HTTP/2 it is told that the connection ends.
    let mut quiet = Frames::connect(rig.address, OPEN);
    assert_eq!(quiet.goaway(), Some(0));
    assert!(rig.upstream.requests().is_empty());
}

#[test]
fn a_client_that_takes_nothing_for_so_long_is_left() {
    let rig = Rig::with_settings(ONE_ROUTE, "time_limits: {stall: 1s}\n");
    let mut client = rig.client(OPEN).connect(rig.address).unwrap();
    client.write_all(b"GET /bytes/100000000 HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    rig.upstream.wait_for_aborted(1);
}

#[tokio::test]
async fn over_http2_only_the_answer_that_is_not_taken_ends() {
    let rig = Arc::new(Rig::with_settings(ONE_ROUTE, "time_limits: {stall: 1s}\n"));
    let mut client = Client::connect(rig.address, OPEN).await;
    // More than there is room for at the client; for the second, little more.
    let mut answers = Vec::new();
    for path in ["bytes/100000000", "bytes/2200000"] {
        answers.push(client.send(get(&format!("https://a/{path}"))).await.unwrap().into_body());
    }
    let waiting = Arc::clone(&rig);
    let left = move || {
        waiting.shim.wait_for_count("its stream is reset", 2);
        waiting.upstream.wait_for_aborted(1);
    };
    tokio::task::spawn_blocking(left).await.unwrap();
    for answer in answers {
        assert!(answer.collect().await.is_err_and(|error| !error.is_timeout()));
    }
    // On the same connection.
    let answer = client.send(get("https://a/bytes/1000000")).await.unwrap();
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes().len(), 1_000_000);
    assert_eq!(rig.shim.output().iter().filter(|line| line.contains("\"connected\"")).count(), 1);
}
