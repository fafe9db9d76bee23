//! What a client of HTTP/1.1 could do to Kong or to others, byte by byte.

mod common;

use std::io::{Read, Write};
use std::sync::Barrier;

use common::{ONE_ROUTE, OPEN, Rig, SECURED};
use testbed::tls_client::TlsConnection;

fn connect(rig: &Rig) -> TlsConnection {
    rig.client(OPEN).connect(rig.address).unwrap()
}

/// All that comes back, until the end or a reset.
fn answer(rig: &Rig, request: &[u8]) -> String {
    let mut connection = connect(rig);
    // The shim may have stopped to read before the end.
    let _ = connection.write_all(request);
    let mut answer = Vec::new();
    let _ = connection.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

const SMUGGLED: &str =
    "GET /smuggled HTTP/1.1\r\nHost: a\r\nClient-Cert: forged\r\nConnection: close\r\n\r\n";

#[test]
fn what_two_readers_could_read_in_two_ways_is_refused() {
    let rig = Rig::new(ONE_ROUTE);
    for head in [
        // Two lengths.
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Length: 90\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0, 90\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x5\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n",
        // Chunks that some would not see.
        "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n",
        "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \"chunked\"\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n chunked\r\n",
        // Lines that end in two places.
        "GET / HTTP/1.1\r\nHost: a\r\nX-A: 1\rClient-Cert: forged\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX-A: 1\r\r\nClient-Cert: forged\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX-A: 1\r\n folded\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX-A: 1\r\n\tfolded\r\n",
        "GET / HTTP/1.1\r\n Host: a\r\nHost: a\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX-A: 1\0\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX-\0A: 1\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n: 1\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nNo colon\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX A: 1\r\n",
        "GET /\0 HTTP/1.1\r\nHost: a\r\n",
        "GET /\r HTTP/1.1\r\nHost: a\r\n",
        "GET / HTTP/1.1 \r\nHost: a\r\n",
        "GET / x HTTP/1.1\r\nHost: a\r\n",
        "GET / HTTP/1.2\r\nHost: a\r\n",
        "GET / HTTP/2.0\r\nHost: a\r\n",
        "GET /\r\n",
        // A host of two readings.
        "GET / HTTP/1.1\r\nHost: a b\r\n",
        "GET / HTTP/1.1\r\nHost: user@a\r\n",
        "GET //b@a/ HTTP/1.1\r\nHost: a\r\nHost: b\r\n",
        "GET http://b/ HTTP/1.1\r\nHost: a\r\n",
        "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n",
        "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\nUpgrade: websocket\r\nConnection: upgrade\r\n",
    ] {
        let answer = answer(&rig, format!("{head}\r\n{SMUGGLED}").as_bytes());
        let first = answer.lines().next().unwrap_or_default();
        assert!(first.is_empty() || first.starts_with("HTTP/1.1 4"), "{head:?}: {answer}");
        // Not even what comes after it is believed, but where its border is beyond doubt.
        let clear =
            head.contains("a b") || head.contains("@a") || head.contains("CONNECT") || head.contains("http:");
        assert!(clear || answer.matches("HTTP/1.1").count() < 2, "{head:?}: {answer}");
    }
    let seen = rig.upstream.requests();
    assert!(seen.iter().all(|request| request.path == "/smuggled"), "{seen:?}");
    assert!(seen.iter().all(|request| request.values("client-cert").is_empty()), "{seen:?}");
}

#[test]
fn chunks_that_can_be_read_in_two_ways_end_the_request() {
    let rig = Rig::new(ONE_ROUTE);
    for body in [
        "x\r\n",
        "\r\n",
        "-1\r\nx\r\n",
        "+1\r\nx\r\n",
        "0x1\r\nx\r\n",
        "1 1\r\nx\r\n",
        "1\nx\r\n",
        "1\rx\r\n",
        "1\r\nxy\r\n",
        "1\r\nx\n0\r\n\r\n",
        "1;a=\n\r\nx\r\n",
        "1;a=\rb\r\nx\r\n",
        "10000000000000000\r\nx\r\n",
        "0\r\nX-A : 1\r\n\r\n",
        "0\r\nX-A\0: 1\r\n\r\n",
    ] {
        let request = format!(
            "POST /chunks HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}0\r\n\r\n{SMUGGLED}"
        );
        let answer = answer(&rig, request.as_bytes());
        assert!(!answer.contains("200 OK"), "{body:?}: {answer}");
    }
    let seen = rig.upstream.requests();
    assert!(!seen.iter().any(|request| request.path == "/smuggled"), "{seen:?}");
}

#[test]
fn a_body_is_as_long_as_its_last_reader_says() {
    let rig = Rig::new(ONE_ROUTE);
    // What is left over once a body has ended is the next request, with a header of its own.
    for (said, body) in
        [("Content-Length: 4", "body"), ("Transfer-Encoding: chunked", "4;x=y\r\nbody\r\n0\r\n\r\n")]
    {
        let answer = answer(
            &rig,
            format!("POST /first HTTP/1.1\r\nHost: a\r\n{said}\r\n\r\n{body}{SMUGGLED}").as_bytes(),
        );
        assert_eq!(answer.matches("HTTP/1.1 200 OK").count(), 2, "{answer}");
        assert!(answer.contains("\"length\":4") && !answer.contains("forged"), "{answer}");
    }
    // Nor is the rest of a body that is answered early ever a request.
    for said in ["Content-Length: 1000", "Transfer-Encoding: chunked"] {
        let before = rig.upstream.requests().len();
        let mut connection = connect(&rig);
        connection
            .write_all(format!("POST /early HTTP/1.1\r\nHost: a\r\n{said}\r\n\r\n").as_bytes())
            .unwrap();
        let mut head = vec![0; 12];
        connection.read_exact(&mut head).unwrap();
        assert_eq!(head, b"HTTP/1.1 401");
        let _ = connection.write_all(SMUGGLED.as_bytes());
        connection.end();
        let mut rest = Vec::new();
        let _ = connection.read_to_end(&mut rest);
        assert!(!String::from_utf8_lossy(&rest).contains("200 OK"));
        assert_eq!(rig.upstream.requests().len(), before + 1);
    }
}

#[test]
fn a_forged_header_after_a_hundred_others_goes_no_further() {
    let rig = Rig::new(ONE_ROUTE);
    for (at, presents) in [(0, false), (1, true)] {
        let many: String = (0..150).map(|at| format!("X-Many-{at}: 1\r\n")).collect();
        let forged = "client-cert: forged\r\nCLIENT_CERT_CHAIN: forged\r\nClient-Cert_Proof: forged\r\n\
                      X_Consumer-ID: forged\r\nConnection: client-cert-proof, client-cert\r\nConnection: close\r\n";
        let mut client = rig.client(SECURED);
        if presents {
            client = client.certificate(&rig.client, &[]);
        }
        let request = format!("GET /{at} HTTP/1.1\r\nHost: a\r\n{many}{forged}\r\n");
        let answer = client.connect(rig.address).unwrap().exchange(request.as_bytes()).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        let request = rig.upstream.wait_for(&format!("/{at}"));
        assert!(!request.headers.iter().any(|(_, value)| value == "forged"), "{request:?}");
        assert_eq!(request.values("x-many-149"), ["1"]);
        for name in ["client-cert", "client-cert-proof"] {
            assert_eq!(request.values(name).len(), usize::from(presents), "{name}");
        }
    }
}

#[test]
fn no_answer_reaches_another_client() {
    let rig = Rig::new(ONE_ROUTE);
    let clients = 12;
    let start = Barrier::new(clients);
    std::thread::scope(|scope| {
        for client in 0..clients {
            let (rig, start) = (&rig, &start);
            scope.spawn(move || {
                start.wait();
                for round in 0..20 {
                    match (client + round) % 4 {
                        // Leaves in the middle of an answer, or of its own request.
                        0 => {
                            let mut connection = connect(rig);
                            connection.write_all(b"GET /bytes/1000000 HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
                            connection.read_exact(&mut [0; 1000]).unwrap();
                        }
                        1 => {
                            let head = "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nleft";
                            let mut connection = connect(rig);
                            connection.write_all(head.as_bytes()).unwrap();
                            connection.read_exact(&mut [0; 12]).unwrap();
                        }
                        _ => {
                            let path = format!("/mine/{client}/{round}");
                            let request =
                                format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
                            let answer = connect(rig).exchange(request.as_bytes()).unwrap();
                            assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
                            assert_eq!(answer.matches("\"path\":").count(), 1, "{answer}");
                            assert!(answer.contains(&format!("\"path\":\"{path}\"")), "{path}: {answer}");
                        }
                    }
                }
            });
        }
    });
}

#[test]
fn an_answer_that_kong_sends_unasked_reaches_nobody() {
    let rig = Rig::new(ONE_ROUTE);
    for _ in 0..20 {
        assert!(
            answer(&rig, b"GET /twice HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").ends_with("first")
        );
        let next = answer(&rig, b"GET /next HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        assert!(next.contains("\"path\":\"/next\"") && !next.contains("second"), "{next}");
    }
}
