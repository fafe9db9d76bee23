//! TLS towards Kong.

mod common;

use common::h2::{Client, get};
use common::tls_front::TlsFront;
use common::{ONE_ROUTE, OPEN, Rig, SECURED, grpc};
use testbed::pki::{Ca, Subject};
use testbed::tls_client::TlsClient;
use testbed::upstream::Upstream;

const HTTP1: &[u8] = b"\x08http/1.1";
const HTTP2: &[u8] = b"\x02h2";

/// A Kong whose certificate has these names, and a shim that trusts its CA.
async fn rig(names: &[&str], settings: &str) -> (TlsFront, Rig) {
    let ca = Ca::root("kong");
    let upstream = Upstream::start();
    let front = TlsFront::start(&ca.issue(Subject::server(names)), upstream.address(), HTTP1).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), ca.pem()).unwrap();
    let settings =
        settings.replace("PORT", &front.port.to_string()).replace("CA", &file.path().display().to_string());
    (front, Rig::with_kong(ONE_ROUTE, upstream, &settings))
}

/// The status of a request by a client that names this server, on a connection of its own.
async fn status(rig: &Rig, name: Option<&'static str>, path: &str) -> String {
    let (address, request) =
        (rig.address, format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"));
    let answer = tokio::task::spawn_blocking(move || {
        TlsClient::new(name).connect(address).unwrap().exchange(request.as_bytes()).unwrap()
    });
    answer.await.unwrap()[9..12].to_owned()
}

#[tokio::test]
async fn kong_learns_the_servers_name_and_no_two_names_share_a_connection() {
    let (kong, rig) = rig(&["127.0.0.1"], "upstream: https://127.0.0.1:PORT\nupstream_tls: {ca: CA}").await;
    let long: &'static str = "a..example";
    for (at, name) in
        [Some(SECURED), Some(OPEN), None, Some("Secured.Example."), Some(OPEN), Some(long), None]
            .into_iter()
            .enumerate()
    {
        let path = format!("/{at}");
        assert_eq!(status(&rig, name, &path).await, "200", "{name:?}");
        let request = rig.upstream.wait_for(&path);
        assert_eq!(request.values("host"), ["a"]);
        assert_eq!(request.values("x-forwarded-proto"), ["https"]);
    }
    assert_eq!(kong.names(), [Some(SECURED.to_owned()), Some(OPEN.to_owned()), None]);
    assert_eq!(rig.upstream.connections(), 3);
}

#[tokio::test]
async fn kong_may_take_so_long_for_a_handshake() {
    // Connections come, and nobody says anything on them.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let settings = format!(
        "upstream: https://{}\ntime_limits: {{upstream_handshake: 1s}}\n",
        silent.local_addr().unwrap()
    );
    let rig = Rig::with_kong(ONE_ROUTE, Upstream::start(), &settings);
    assert_eq!(status(&rig, Some(OPEN), "/").await, "502");
    rig.shim.wait_for("Kong did not answer");
}

#[tokio::test]
async fn somebody_else_is_not_kong() {
    for (names, settings, name, expected) in [
        (&["kong.example"][..], "upstream_tls: {ca: CA}", OPEN, "502"),
        (&["kong.example"], "upstream_tls: {ca: CA, verify_name: kong.example}", OPEN, "200"),
        (&["open.example"], "upstream_tls: {ca: CA, verify_name: kong.example}", OPEN, "502"),
        (&["127.0.0.1"], "upstream_tls: {ca: CA}", OPEN, "200"),
        // By another CA than the system's.
        (&["127.0.0.1"], "", OPEN, "502"),
        (&["127.0.0.1"], "upstream_tls: {verify_name: 127.0.0.1}", OPEN, "502"),
        // One certificate for each name.
        (&["open.example"], "upstream_tls: {ca: CA, verify_sni: true}", OPEN, "200"),
        (&["open.example"], "upstream_tls: {ca: CA, verify_sni: true}", SECURED, "502"),
        (&["127.0.0.1"], "upstream_tls: {ca: CA, verify_sni: true}", OPEN, "502"),
    ] {
        let settings = format!("upstream: https://127.0.0.1:PORT\n{settings}");
        let (_kong, rig) = rig(names, &settings).await;
        assert_eq!(status(&rig, Some(name), "/").await, expected, "{names:?} {settings}");
        assert_eq!(rig.upstream.requests().len(), usize::from(expected == "200"));
        if expected == "502" {
            rig.shim.wait_for("no TLS: the certificate of");
        }
    }
    // Who names no server is verified by the host in any case.
    let settings = "upstream: https://localhost:PORT\nupstream_tls: {ca: CA, verify_sni: true}";
    let (_kong, rig) = rig(&["localhost"], settings).await;
    assert_eq!(status(&rig, None, "/").await, "200");
}

#[tokio::test]
async fn who_speaks_no_tls_is_not_kong() {
    let upstream = Upstream::start();
    let settings = format!("upstream: https://{}", upstream.address());
    let rig = Rig::with_kong(ONE_ROUTE, upstream, &settings);
    assert_eq!(status(&rig, Some(OPEN), "/").await, "502");
    rig.shim.wait_for("no TLS: ");
}

#[tokio::test]
async fn grpc_goes_by_tls_as_well() {
    let ca = Ca::root("kong");
    let upstream = grpc::Upstream::start().await;
    let certificate = ca.issue(Subject::server(&["127.0.0.1"]));
    let kong = TlsFront::start(&certificate, upstream.address, HTTP2).await;
    let old = TlsFront::start(&certificate, upstream.address, HTTP1).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), ca.pem()).unwrap();
    for (port, expected) in [(kong.port, 200), (old.port, 502)] {
        let settings = format!(
            "grpc_upstream: https://127.0.0.1:{port}\nupstream_tls: {{ca: {}}}",
            file.path().display()
        );
        let rig = Rig::with_settings(ONE_ROUTE, &settings);
        let mut client = Client::connect(rig.address, OPEN).await;
        let call =
            get(&format!("https://{OPEN}/refuse")).method("POST").header("content-type", "application/grpc");
        assert_eq!(client.send(call).await.unwrap().status(), expected);
    }
    assert_eq!(kong.names(), [Some(OPEN.to_owned())]);
    assert_eq!(upstream.heads().len(), 1);
    assert_eq!(upstream.heads()[0].uri, format!("https://{OPEN}/refuse").as_str());
}
