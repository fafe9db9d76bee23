//! Servers of `https` URLs.

use std::process::Command;

use openssl::ssl::SslVersion;
use revocation::Trouble;
use revocation::fetch::{Fetcher, Options, Settings};
use testbed::pki::{Ca, Leaf, Subject};
use testbed::process::Process;

use crate::server::{Reply, Server, acceptor, ok, redirect};
use crate::{fetch, get, settings};

/// One that may go to loopback, and trusts this CA only.
fn trusting(ca: &Ca) -> Fetcher {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ca.pem");
    std::fs::write(&path, ca.pem()).unwrap();
    Fetcher::new(Options { allow_private: true, ca_file: Some(path) }).unwrap()
}

fn unverified() -> Settings {
    Settings { ssl_verify: false, ..settings() }
}

fn url(server: &Server, host: &str) -> String {
    format!("https://{host}:{}/crl", server.address.port())
}

#[tokio::test]
async fn the_servers_certificate_must_verify_unless_that_is_switched_off() {
    let (ca, other) = (Ca::root("ca"), Ca::root("other"));
    let named = |ca: &Ca, names: &[&str]| ca.issue(Subject::server(names));
    let cases: [(&str, Leaf, &str); 8] = [
        ("localhost", named(&ca, &["localhost"]), ""),
        ("127.0.0.1", named(&ca, &["127.0.0.1"]), ""),
        ("localhost", named(&ca, &["other.example"]), "hostname mismatch"),
        ("127.0.0.1", named(&ca, &["localhost"]), "IP address mismatch"),
        ("localhost", named(&other, &["localhost"]), "unable to get local issuer"),
        ("localhost", ca.issue(Subject::server(&["localhost"]).expired()), "expired"),
        ("localhost", ca.issue(Subject::server(&["localhost"]).not_yet_valid()), "not yet valid"),
        ("localhost", ca.issue(Subject::client("localhost").dns("localhost")), "purpose"),
    ];
    for (host, leaf, problem) in cases {
        let server = Server::start_tls(&leaf, |_| ok(b"crl")).await;
        let found = fetch(&trusting(&ca), get(&url(&server, host)), &settings()).await;
        let seen = server.take_seen();
        match found {
            Ok(bytes) => {
                assert_eq!((bytes.as_ref(), problem), (b"crl".as_slice(), ""));
                assert_eq!(seen[0].sni.as_deref(), Some(host).filter(|host| *host == "localhost"));
            }
            Err(Trouble::Unreachable(why)) => {
                assert!(!problem.is_empty() && why.contains(problem), "{problem}: {why}");
                assert_eq!(seen.len(), 0, "nothing is sent: {problem}");
            }
            Err(trouble) => panic!("{problem}: {trouble}"),
        }
        let found = fetch(&trusting(&ca), get(&url(&server, host)), &unverified()).await;
        assert_eq!(found.unwrap(), "crl", "without verification: {problem}");
    }
}

#[tokio::test]
async fn the_systems_cas_do_not_count_beside_a_file_nor_ours_without_it() {
    let ca = Ca::root("ca");
    let server = Server::start_tls(&ca.issue(Subject::server(&["localhost"])), |_| ok(b"crl")).await;
    let trouble = fetch(&crate::fetcher(), get(&url(&server, "localhost")), &settings()).await.unwrap_err();
    assert!(trouble.to_string().contains("not trusted"), "{trouble}");
}

#[tokio::test]
async fn tls_below_1_2_is_none() {
    let leaf = Ca::root("ca").issue(Subject::server(&["localhost"]));
    for (version, works) in
        [(SslVersion::TLS1_1, false), (SslVersion::TLS1_2, true), (SslVersion::TLS1_3, true)]
    {
        let server = Server::start_with(Some(acceptor(&leaf, version)), |_| ok(b"crl")).await;
        let found = fetch(&crate::fetcher(), get(&url(&server, "localhost")), &unverified()).await;
        assert_eq!(found.is_ok(), works, "{version:?}: {found:?}");
    }
}

#[tokio::test]
async fn a_redirect_does_not_leave_tls() {
    let plain = Server::start(|_| ok(b"crl")).await;
    let location = plain.url("/");
    let leaf = Ca::root("ca").issue(Subject::server(&["localhost"]));
    let server = Server::start_tls(&leaf, move |_| redirect(302, &location)).await;
    let trouble = fetch(&crate::fetcher(), get(&url(&server, "localhost")), &unverified()).await.unwrap_err();
    assert!(trouble.to_string().contains("from https to http"), "{trouble}");
    assert_eq!(plain.connections(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_handshake_without_end_is_ended() {
    // It waits for a request, which the handshake is not.
    let server = Server::start(|_| Reply::Hang(Vec::new())).await;
    let found = fetch(&crate::fetcher(), get(&url(&server, "127.0.0.1")), &settings()).await;
    assert_eq!(found, Err(Trouble::TimedOut(settings().timeout)));
}

#[tokio::test]
async fn openssls_own_server_is_understood() {
    let ca = Ca::root("ca");
    let dir = tempfile::tempdir().unwrap();
    ca.issue(Subject::server(&["localhost"])).write(dir.path(), "server", &[]);
    std::fs::write(dir.path().join("crl.der"), "a CRL").unwrap();
    let server = Process::start(
        Command::new("openssl")
            .args([
                "s_server",
                "-accept",
                "127.0.0.1:0",
                "-HTTP",
                "-cert",
                "server.crt",
                "-key",
                "server.key",
            ])
            .current_dir(&dir),
    );
    let accepts = server.wait_for("ACCEPT");
    let port = accepts.rsplit(':').next().unwrap();
    // It sends the answer that is in the file as it is.
    std::fs::write(
        dir.path().join("crl"),
        "HTTP/1.0 200 OK\r\nContent-Type: application/pkix-crl\r\n\r\na CRL",
    )
    .unwrap();
    let url = format!("https://localhost:{port}/crl");
    assert_eq!(fetch(&trusting(&ca), get(&url), &settings()).await.unwrap(), "a CRL");
    let trouble = fetch(&trusting(&Ca::root("ca")), get(&url), &settings()).await.unwrap_err();
    assert!(trouble.to_string().contains("not trusted"), "{trouble}");
}
