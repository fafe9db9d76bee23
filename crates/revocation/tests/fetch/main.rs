//! Fetching, from servers on loopback that misbehave in every way.

#![allow(missing_docs, unreachable_pub, reason = "tests")]

mod breaker;
mod proxies;
mod redirects;
mod server;
mod tls;

use std::future::ready;
use std::net::TcpListener;
use std::time::Duration;

use bytes::Bytes;
use revocation::Trouble;
use revocation::fetch::{Fetcher, Options, Query, Settings};

use self::server::{Reply, Server, ok, with_status};

/// The most that an answer may have in these tests.
const MAX: usize = 1000;

fn settings() -> Settings {
    Settings { timeout: Duration::from_secs(20), http_proxy: None, https_proxy: None, ssl_verify: true }
}

/// One that may go to loopback.
fn fetcher() -> Fetcher {
    Fetcher::new(Options { allow_private: true, ca_file: None }).unwrap()
}

fn get(url: &str) -> Query<'_> {
    Query { url, post: None, max_bytes: MAX }
}

fn post(url: &str) -> Query<'_> {
    Query { post: Some((Bytes::from_static(b"question"), "application/ocsp-request")), ..get(url) }
}

/// Takes any answer.
async fn fetch(fetcher: &Fetcher, query: Query<'_>, settings: &Settings) -> Result<Bytes, Trouble> {
    fetcher.fetch(query, settings, |bytes| ready(Ok(bytes))).await
}

#[tokio::test]
async fn a_get_and_a_post_are_answered() {
    let server = Server::start(|seen| match seen.head.starts_with("POST") {
        true => ok(&seen.body),
        false => ok(b"crl"),
    })
    .await;
    let url = server.url("/a%20b?c=d");
    assert_eq!(fetch(&fetcher(), get(&url), &settings()).await.unwrap(), "crl");
    assert_eq!(fetch(&fetcher(), post(&url), &settings()).await.unwrap(), "question");
    let seen = server.take_seen();
    let authority = server.address;
    let common =
        format!("host: {authority}\r\nuser-agent: kong-mtls-auth\r\naccept: */*\r\nconnection: close\r\n");
    assert_eq!(seen[0].head, format!("GET /a%20b?c=d HTTP/1.1\r\n{common}\r\n"));
    let media_type = "content-type: application/ocsp-request\r\ncontent-length: 8\r\n";
    assert_eq!(seen[1].head, format!("POST /a%20b?c=d HTTP/1.1\r\n{common}{media_type}\r\n"));
}

#[tokio::test]
async fn a_body_is_taken_in_every_framing_up_to_its_limit() {
    let bodies: [(&str, Vec<u8>); 6] = [
        ("", format!("Content-Length: {MAX}\r\n\r\n{}", "a".repeat(MAX)).into()),
        ("", format!("\r\n{}", "a".repeat(MAX)).into()),
        ("", format!("Transfer-Encoding: chunked\r\n\r\n{}0\r\n\r\n", "1\r\na\r\n".repeat(MAX)).into()),
        ("too_long", format!("Content-Length: {0}\r\n\r\n{1}", MAX + 1, "a".repeat(MAX + 1)).into()),
        ("too_long", format!("\r\n{}", "a".repeat(MAX + 1)).into()),
        (
            "too_long",
            format!("Transfer-Encoding: chunked\r\n\r\n{}0\r\n\r\n", "1\r\na\r\n".repeat(MAX + 1)).into(),
        ),
    ];
    for (trouble, body) in bodies {
        let answer = [b"HTTP/1.1 200 OK\r\n".as_slice(), &body].concat();
        let server = Server::start(move |_| Reply::Raw(answer.clone())).await;
        let found = fetch(&fetcher(), get(&server.url("/")), &settings()).await;
        match trouble {
            "" => assert_eq!(found.unwrap(), "a".repeat(MAX)),
            _ => assert_eq!(found, Err(Trouble::TooLong(MAX))),
        }
    }
}

#[tokio::test]
async fn what_is_no_whole_answer_is_trouble() {
    let forever = |head: &str, more: &str| {
        let (head, more) = (head.as_bytes().to_vec(), more.as_bytes().to_vec());
        move || Reply::Forever(head.clone(), more.clone(), Duration::ZERO)
    };
    let raw = |text: &'static str| move || Reply::Raw(text.into());
    type Script = Box<dyn Fn() -> Reply + Send + Sync>;
    let scripts: Vec<(&str, Script)> = vec![
        ("unreachable", Box::new(raw(""))),
        ("unreachable", Box::new(raw("<html>a page without a head</html>"))),
        ("unreachable", Box::new(raw("HTTP/1.1 200 OK\r\nContent-Len"))),
        ("unreachable", Box::new(raw("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n123456789"))),
        ("unreachable", Box::new(raw("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n12"))),
        ("unreachable", Box::new(raw("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n"))),
        ("unreachable", Box::new(raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n12"))),
        ("unreachable", Box::new(raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n1234\r\n"))),
        ("unreachable", Box::new(raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n"))),
        ("http_status", Box::new(|| with_status("204 No Content", "", b""))),
        ("http_status", Box::new(|| with_status("206 Partial Content", "", b"abc"))),
        ("http_status", Box::new(|| with_status("304 Not Modified", "", b""))),
        ("http_status", Box::new(|| with_status("404 Not Found", "", b"<html>"))),
        ("http_status", Box::new(|| with_status("407 Proxy Authentication Required", "", b""))),
        ("http_status", Box::new(|| with_status("503 Service Unavailable", "", b""))),
        ("malformed", Box::new(|| with_status("200 OK", "Content-Encoding: gzip\r\n", b"abc"))),
        // Without an end.
        ("too_long", Box::new(forever("HTTP/1.1 200 OK\r\n\r\n", "a"))),
        (
            "too_long",
            Box::new(forever("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "1\r\na\r\n")),
        ),
        (
            "too_long",
            Box::new(|| Reply::Hang(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999\r\n\r\n".into())),
        ),
        ("unreachable", Box::new(forever("HTTP/1.1 200 OK\r\n", "A: b\r\n"))),
        ("unreachable", Box::new(forever("HTTP/1.1 200 OK\r\nA: ", "bbbbbbbbbbbbbbbbbbbbbbbb"))),
        ("unreachable", Box::new(forever("", "\0"))),
    ];
    for (nth, (code, script)) in scripts.into_iter().enumerate() {
        let server = Server::start(move |_| script()).await;
        let trouble = fetch(&fetcher(), get(&server.url("/")), &settings()).await.unwrap_err();
        assert_eq!(trouble.code(), code, "script {nth}: {trouble}");
    }
}

#[tokio::test(start_paused = true)]
async fn time_is_limited_as_a_whole() {
    let second = Duration::from_secs(1);
    type Script = Box<dyn Fn() -> Reply + Send + Sync>;
    let ok = "HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n";
    let scripts: Vec<Script> = vec![
        Box::new(|| Reply::Hang(Vec::new())),
        Box::new(|| Reply::Hang(b"HTTP/1.1 200 OK\r\n".into())),
        Box::new(move || Reply::Hang(ok.into())),
        // Each byte comes in time.
        Box::new(move || Reply::Forever(ok.into(), b"a".into(), second)),
        Box::new(move || Reply::Forever(b"HTTP/1.1 200 OK\r\nA: ".into(), b"b".into(), second)),
        Box::new(move || Reply::Forever(Vec::new(), b"HTTP/1.1 100 Continue\r\n\r\n".into(), second)),
    ];
    for (nth, script) in scripts.into_iter().enumerate() {
        let server = Server::start(move |_| script()).await;
        let begun = tokio::time::Instant::now();
        let found = fetch(&fetcher(), get(&server.url("/")), &settings()).await;
        assert_eq!(found, Err(Trouble::TimedOut(settings().timeout)), "script {nth}");
        assert_eq!(begun.elapsed().as_secs(), 20, "script {nth}");
    }
}

#[tokio::test]
async fn a_port_without_a_server_is_trouble() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let trouble = fetch(&fetcher(), get(&format!("http://{address}/")), &settings()).await.unwrap_err();
    assert!(matches!(&trouble, Trouble::Unreachable(why) if why.contains("refused")), "{trouble}");
}

#[tokio::test]
async fn a_name_is_resolved() {
    let server = Server::start(|_| ok(b"crl")).await;
    let url = format!("http://LocalHost:{}/", server.address.port());
    assert_eq!(fetch(&fetcher(), get(&url), &settings()).await.unwrap(), "crl");
    assert!(server.take_seen()[0].head.contains(&format!("host: localhost:{}\r\n", server.address.port())));
}

#[tokio::test]
async fn no_connection_is_made_to_where_no_url_may_lead() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let strict = Fetcher::new(Options::default()).unwrap();
    for host in ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "0.0.0.0", "2130706433", "0177.0.0.1"] {
        let url = format!("http://{host}:{port}/");
        for query in [get(&url), post(&url)] {
            let trouble = fetch(&strict, query, &settings()).await.unwrap_err();
            assert_eq!(trouble.code(), "url_refused", "{url}: {trouble}");
        }
    }
    // The kernel completes connections before anybody accepts them.
    listener.set_nonblocking(true).unwrap();
    assert_eq!(listener.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
}

#[test]
fn a_ca_file_that_is_none_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ca.pem");
    let whole = testbed::pki::Ca::root("ca").pem();
    let broken = whole.replace("MII", "!!!");
    for (content, says) in [
        (None, "No such file"),
        (Some(""), "no certificate"),
        (Some("words"), "no certificate"),
        (Some(broken.as_str()), "not PEM"),
        (Some(&format!("{whole}{broken}")), "not PEM"),
    ] {
        if let Some(content) = content {
            std::fs::write(&path, content).unwrap();
        }
        let options = Options { ca_file: Some(path.clone()), ..Options::default() };
        let error = Fetcher::new(options).unwrap_err();
        assert!(error.contains("ca.pem") && error.contains(says), "{content:?}: {error}");
    }
}
