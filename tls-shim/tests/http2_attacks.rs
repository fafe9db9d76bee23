//! What a client of HTTP/2 could do to Kong or to others, frame by frame.

mod common;

use common::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, Frames, GOAWAY, HEADERS, PING, RST_STREAM, SETTINGS, block,
    frame, get,
};
use common::{ONE_ROUTE, OPEN, Rig};

const CANCEL: [u8; 4] = [0, 0, 0, 8];

/// ENHANCE_YOUR_CALM (RFC 9113, section 7).
const CALM: u32 = 11;

fn request(fields: &[(&str, &[u8])]) -> Vec<u8> {
    let mut request = get("/attack");
    request.extend(fields.iter().map(|(name, value)| ((*name).to_owned(), value.to_vec())));
    block(&request)
}

/// Whether the shim still serves others, and what Kong got of the attack is nothing.
fn is_well(rig: &Rig) {
    rig.curl(OPEN, "/other", &["--http2"]);
    let seen = rig.upstream.requests();
    assert!(seen.iter().all(|request| request.path == "/other"), "{seen:?}");
}

#[test]
fn rapid_resets_end_the_connection() {
    let rig = Rig::new(ONE_ROUTE);
    let mut client = Frames::connect(rig.address, OPEN);
    let request = request(&[]);
    let all = (0..10_000).all(|at| {
        let stream = 2 * at + 1;
        let headers = frame(HEADERS, END_HEADERS | END_STREAM, stream, &request);
        client.send_all(&[headers, frame(RST_STREAM, 0, stream, &CANCEL)].concat())
    });
    assert!(!all);
    assert_eq!(client.goaway().unwrap_or(CALM), CALM);
    // A few may have begun before they were given up, but not more than run at a time.
    rig.curl(OPEN, "/other", &["--http2"]);
    assert!(rig.upstream.requests().len() < 300, "{}", rig.upstream.requests().len());
}

#[test]
fn a_header_without_end_ends_the_connection() {
    let rig = Rig::new(ONE_ROUTE);
    for part in [&b""[..], &block(&[("x-more", vec![b'a'; 8000])])] {
        let mut client = Frames::connect(rig.address, OPEN);
        client.send(HEADERS, END_STREAM, 1, &request(&[]));
        let all = (0..100_000).all(|_| client.send(CONTINUATION, 0, 1, part));
        assert!(!all, "100,000 frames of {} bytes", part.len());
    }
    is_well(&rig);
}

#[test]
fn more_header_than_there_may_be_is_refused() {
    let rig = Rig::new(ONE_ROUTE);
    // One of 80 KiB, and one of a few bytes that stand for 4 MiB by a table.
    let mut client = Frames::connect(rig.address, OPEN);
    let large = request(&[("x-large", &[b'a'; 80 * 1024])]);
    let (first, rest) = large.split_at(16_000);
    client.send(HEADERS, END_STREAM, 1, first);
    let parts: Vec<_> = rest.chunks(16_000).collect();
    for (at, part) in parts.iter().enumerate() {
        let flags = if at + 1 == parts.len() { END_HEADERS } else { 0 };
        client.send(CONTINUATION, flags, 1, part);
    }
    let outcome = client.outcome(1);
    assert!(outcome.is_none_or(|frame| frame.kind != HEADERS || frame.payload[0] != OK));

    let mut client = Frames::connect(rig.address, OPEN);
    let mut bomb = request(&[]);
    // A field of 4,000 bytes that goes into the table as its first (RFC 7541, section 6.2.1), and then 1,000 times.
    bomb.extend([&[0x40, 1, b'x', 127, 0xa1, 0x1e][..], &[b'a'; 4000]].concat());
    bomb.extend([0xbe; 1000]);
    client.send(HEADERS, END_STREAM | END_HEADERS, 1, &bomb);
    let outcome = client.outcome(1).expect("an answer");
    assert!(outcome.kind != HEADERS || outcome.payload[0] != OK);
    is_well(&rig);
}

/// `:status: 200` in a header block (RFC 7541, appendix A).
const OK: u8 = 0x88;

#[test]
fn pings_and_settings_without_end_take_no_memory() {
    let rig = Rig::new(ONE_ROUTE);
    for (kind, payload) in [(PING, &[0; 8][..]), (SETTINGS, &[0, 4, 0, 1, 0, 0])] {
        let mut client = Frames::connect(rig.address, OPEN);
        // Answers that nobody reads: either the connection ends, or nothing more is read from it.
        let flood: Vec<u8> = (0..10_000).flat_map(|_| frame(kind, 0, 0, payload)).collect();
        let all = (0..500).all(|_| client.send_all(&flood));
        assert!(!all, "five million frames of type {kind}");
    }
    is_well(&rig);
}

#[test]
fn what_would_be_another_request_over_http1_is_refused() {
    let rig = Rig::new(ONE_ROUTE);
    let smuggled = b"x\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\nClient-Cert: forged\r\n\r\n";
    let mut fields: Vec<Vec<(String, Vec<u8>)>> = Vec::new();
    let mut add = |name: &str, value: &[u8]| {
        let mut request = get("/attack");
        request.retain(|(other, _)| other != name);
        let at = if name.starts_with(':') { 0 } else { request.len() };
        request.insert(at, (name.to_owned(), value.to_vec()));
        fields.push(request);
    };
    for name in ["x-any", ":path", ":method", ":authority", "host"] {
        add(name, smuggled);
        add(name, b"/\nx");
        add(name, b"/\0x");
    }
    add("x-a\r\nclient-cert", b"forged");
    add("x-a: 1\r\nclient-cert", b"forged");
    add("Client-Cert", b"forged");
    add("x a", b"1");
    add("", b"1");
    add(":path", b"/ HTTP/1.1\r\nClient-Cert:");
    add(":path", b"/ x");
    add(":path", b"");
    add("connection", b"keep-alive");
    add("transfer-encoding", b"chunked");
    add("upgrade", b"websocket");
    add("te", b"gzip");
    add(":unknown", b"1");
    for request in fields {
        let mut client = Frames::connect(rig.address, OPEN);
        client.send(HEADERS, END_STREAM | END_HEADERS, 1, &block(&request));
        let outcome = client.outcome(1);
        assert!(outcome.is_none_or(|frame| frame.kind != HEADERS || frame.payload[0] != OK), "{request:?}");
    }
    is_well(&rig);
}

#[test]
fn a_body_has_the_length_that_was_said() {
    let rig = Rig::new(ONE_ROUTE);
    let rest = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    for (length, body) in
        [("0", &rest[..]), ("5", rest), ("1000", rest), ("5, 5", rest), ("+5", b"12345"), ("-1", b"")]
    {
        let mut client = Frames::connect(rig.address, OPEN);
        let mut request = get("/length");
        request[0].1 = b"POST".to_vec();
        request.push(("content-length".to_owned(), length.as_bytes().to_vec()));
        client.send(HEADERS, END_HEADERS, 1, &block(&request));
        client.send(DATA, END_STREAM, 1, body);
        let outcome = client.outcome(1);
        // Kong may have answered a request without body before there was one.
        assert!(
            length == "0" || outcome.is_none_or(|frame| frame.kind != HEADERS || frame.payload[0] != OK),
            "{length}"
        );
    }
    rig.curl(OPEN, "/other", &["--http2"]);
    let seen = rig.upstream.requests();
    assert!(!seen.iter().any(|request| request.path == "/smuggled"), "{seen:?}");
}

#[test]
fn forged_trailers_go_no_further_over_http2() {
    let rig = Rig::new(ONE_ROUTE);
    let mut client = Frames::connect(rig.address, OPEN);
    let mut request = get("/trailers-of-a-request");
    request[0].1 = b"POST".to_vec();
    client.send(HEADERS, END_HEADERS, 1, &block(&request));
    client.send(DATA, 0, 1, b"body");
    let trailers = block(&[("client-cert", "forged"), ("client_cert_proof", "forged"), ("x-any", "forged")]);
    client.send(HEADERS, END_STREAM | END_HEADERS, 1, &trailers);
    assert_eq!(client.outcome(1).unwrap().payload[0], OK);
    let answer = loop {
        let frame = client.next().unwrap();
        if frame.kind == DATA {
            break String::from_utf8(frame.payload).unwrap();
        }
    };
    assert!(answer.contains("\"length\":4") && answer.contains("\"trailers\":[]"), "{answer}");
    assert!(!answer.contains("forged"), "{answer}");
}

#[test]
fn a_stream_that_ends_in_the_middle_ends_its_request_only() {
    let rig = Rig::new(ONE_ROUTE);
    let mut client = Frames::connect(rig.address, OPEN);
    let mut request = get("/echo");
    request[0].1 = b"POST".to_vec();
    for stream in [1, 3] {
        client.send(HEADERS, END_HEADERS, stream, &block(&request));
        client.send(DATA, 0, stream, b"body");
        assert_eq!(client.outcome(stream).unwrap().payload[0], OK);
    }
    client.send(RST_STREAM, 0, 1, &CANCEL);
    rig.upstream.wait_for_aborted(1);
    client.send(DATA, END_STREAM, 3, b"rest");
    let mut said = Vec::new();
    loop {
        let frame = client.next().unwrap();
        assert_ne!(frame.kind, GOAWAY);
        if frame.kind == DATA && frame.stream == 3 {
            said.extend(frame.payload);
            if frame.flags & END_STREAM != 0 {
                break;
            }
        }
    }
    assert_eq!(said, b"bodyrest");
}
