//! Fetching through a forward proxy. The names are the proxy's to resolve, so they need not exist.

use revocation::Trouble;
use revocation::fetch::{Fetcher, Options, Settings};
use testbed::pki::{Ca, Subject};

use crate::server::{Reply, Server, ok, redirect, with_status};
use crate::{fetch, get, post, settings};

fn through(server: &Server) -> Settings {
    let proxy = Some(("localhost".to_owned(), server.address.port()));
    Settings { http_proxy: proxy.clone(), https_proxy: proxy, ..settings() }
}

/// The proxy is on loopback, and yet no URL may lead there.
fn strict() -> Fetcher {
    Fetcher::new(Options::default()).unwrap()
}

#[tokio::test]
async fn an_http_url_is_asked_for_in_absolute_form() {
    let proxy = Server::start(|seen| ok(seen.head.split(' ').next().unwrap().as_bytes())).await;
    for (url, line, host) in [
        ("http://ocsp.example/a?b", "http://ocsp.example/a?b", "ocsp.example"),
        ("http://OCSP.example:8080", "http://ocsp.example:8080/", "ocsp.example:8080"),
        ("http://8.8.8.8/", "http://8.8.8.8/", "8.8.8.8"),
    ] {
        assert_eq!(fetch(&strict(), get(url), &through(&proxy)).await.unwrap(), "GET");
        let head = proxy.take_seen().remove(0).head;
        assert!(head.starts_with(&format!("GET {line} HTTP/1.1\r\nhost: {host}\r\n")), "{head}");
        assert_eq!(fetch(&strict(), post(url), &through(&proxy)).await.unwrap(), "POST");
        assert_eq!(proxy.take_seen()[0].body, b"question");
    }
}

#[tokio::test]
async fn an_https_url_is_asked_for_through_a_tunnel() {
    let ca = Ca::root("ca");
    let dir = tempfile::tempdir().unwrap();
    let ca_file = Some(dir.path().join("ca.pem"));
    std::fs::write(dir.path().join("ca.pem"), ca.pem()).unwrap();
    let strict = Fetcher::new(Options { ca_file, ..Options::default() }).unwrap();
    let leaf = ca.issue(Subject::server(&["crl.example"]));
    let origin = Server::start_tls(&leaf, |seen| ok(&seen.body)).await;
    let address = origin.address;
    let proxy = Server::start(move |_| Reply::Tunnel(address)).await;
    let found = fetch(&strict, post("https://crl.example/a?b"), &through(&proxy)).await;
    assert_eq!(found.unwrap(), "question");
    let asked = proxy.take_seen().remove(0).head;
    assert_eq!(asked, "CONNECT crl.example:443 HTTP/1.1\r\nhost: crl.example:443\r\n\r\n");
    let seen = origin.take_seen().remove(0);
    assert!(seen.head.starts_with("POST /a?b HTTP/1.1\r\nhost: crl.example\r\n"), "{}", seen.head);
    assert_eq!(seen.sni.as_deref(), Some("crl.example"));

    let trouble = fetch(&strict, get("https://other.example/"), &through(&proxy)).await.unwrap_err();
    assert!(trouble.to_string().contains("hostname mismatch"), "{trouble}");
    assert!(origin.take_seen().is_empty());
}

#[tokio::test]
async fn each_scheme_has_its_own_proxy() {
    let proxy = Server::start(|_| with_status("403 Forbidden", "", b"")).await;
    let only_https = Settings { http_proxy: None, ..through(&proxy) };
    let only_http = Settings { https_proxy: None, ..through(&proxy) };
    for (url, settings) in [("http://localhost:1/", only_https), ("https://localhost:1/", only_http)] {
        let trouble = fetch(&crate::fetcher(), get(url), &settings).await.unwrap_err();
        assert!(trouble.to_string().contains("Connection refused"), "{url}: {trouble}");
    }
    assert_eq!(proxy.connections(), 0);
}

#[tokio::test]
async fn a_proxy_that_does_not_connect_is_trouble() {
    for (script, says) in [
        ("HTTP/1.1 403 Forbidden\r\n\r\n", "status 403"),
        ("HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 3\r\n\r\nabc", "status 407"),
        ("HTTP/1.1 302 Found\r\nLocation: https://other.example/\r\n\r\n", "status 302"),
        ("", "proxy"),
        ("SSH-2.0-OpenSSH\r\n", "proxy"),
        ("HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", "TLS"),
    ] {
        let proxy = Server::start(|_| Reply::Raw(script.into())).await;
        let trouble = fetch(&strict(), get("https://crl.example/"), &through(&proxy)).await.unwrap_err();
        assert_eq!(trouble.code(), "unreachable");
        assert!(trouble.to_string().contains(says), "{script:?}: {trouble}");
    }
}

#[tokio::test]
async fn a_proxy_that_hangs_is_not_waited_for() {
    // Names of proxies are looked up by threads, during which a clock that is paused stands still.
    tokio::time::pause();
    for reply in ["", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\n\r\n"] {
        let proxy = Server::start(|_| Reply::Hang(reply.into())).await;
        let found = fetch(&strict(), get("https://crl.example/"), &through(&proxy)).await;
        assert_eq!(found, Err(Trouble::TimedOut(settings().timeout)), "{reply:?}");
    }
}

#[tokio::test]
async fn a_proxy_is_not_asked_for_inner_hosts() {
    let proxy = Server::start(|_| ok(b"secret")).await;
    for host in [
        "127.0.0.1",
        "169.254.169.254",
        "[::1]",
        "localhost",
        "a.localhost",
        "kong",
        "metadata.google.internal",
    ] {
        for scheme in ["http", "https"] {
            let url = format!("{scheme}://{host}/");
            let trouble = fetch(&strict(), get(&url), &through(&proxy)).await.unwrap_err();
            assert_eq!(trouble.code(), "url_refused", "{url}: {trouble}");
        }
    }
    assert_eq!(proxy.connections(), 0);
    let found = fetch(&crate::fetcher(), get("http://kong/"), &through(&proxy)).await;
    assert_eq!(found.unwrap(), "secret", "where that is allowed");
}

#[tokio::test]
async fn a_redirect_to_another_server_is_refused() {
    for (location, followed) in [
        ("http://crl.example/b", true),
        ("/b", true),
        ("http://other.example/b", false),
        ("http://crl.example:81/b", false),
        ("https://crl.example/b", false),
        ("http://127.0.0.1/b", false),
    ] {
        let proxy = Server::start(move |seen| match seen.head.contains("/b ") {
            true => ok(b"crl"),
            false => redirect(302, location),
        })
        .await;
        let found = fetch(&strict(), get("http://crl.example/a"), &through(&proxy)).await;
        match followed {
            true => assert_eq!(found.unwrap(), "crl", "{location}"),
            false => assert_eq!(found.unwrap_err().code(), "url_refused", "{location}"),
        }
        assert_eq!(proxy.take_seen().len(), 1 + usize::from(followed), "{location}");
    }
}
