//! Both binaries with Kong's double between them, driven by curl.

use std::process::Command;

use quickstart::stack::{OPEN, PROTECTED, Stack};
use serde_json::Value as Json;
use testbed::forged::{Forged, pem, public_key};
use testbed::pki::{Ca, Subject};
use testbed::process::PATIENCE;

struct Answer {
    status: u16,
    version: String,
    body: Json,
}

impl Answer {
    /// The values of a header that the upstream saw.
    fn seen(&self, name: &str) -> Vec<String> {
        let headers: Vec<(String, String)> =
            serde_json::from_value(self.body["headers"].clone()).unwrap_or_default();
        headers.into_iter().filter(|pair| pair.0.eq_ignore_ascii_case(name)).map(|pair| pair.1).collect()
    }
}

fn curl(stack: &Stack, server: &str, args: &[&str]) -> Answer {
    let port = stack.address().port();
    let output = Command::new("curl")
        .args(["--silent", "--show-error", "--max-time", &PATIENCE.as_secs().to_string()])
        .args(["--write-out", "\n%{http_code} %{http_version}", "--cacert"])
        .arg(stack.file("server-ca.crt"))
        .args(["--resolve", &format!("{server}:{port}:127.0.0.1")])
        .args(args)
        .arg(format!("https://{server}:{port}/path?query=1"))
        .output()
        .expect("curl runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let (body, end) = text.rsplit_once('\n').unwrap();
    let (status, version) = end.split_once(' ').unwrap();
    Answer {
        status: status.parse().unwrap(),
        version: version.to_owned(),
        body: serde_json::from_str(body).unwrap_or_else(|_| panic!("{body}")),
    }
}

/// curl's arguments for a client's certificate.
fn certificate(stack: &Stack, name: &str) -> [String; 4] {
    let file = |extension: &str| stack.file(&format!("{name}.{extension}")).display().to_string();
    ["--cert".into(), file("crt"), "--key".into(), file("key")]
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_come_through_on_each_version_of_tls_and_http() {
    let stack = Stack::start().await;
    bad_chains(&stack);
    for (tls, http, version) in [
        (["--tlsv1.2", "--tls-max", "1.2"], "--http1.1", "1.1"),
        (["--tlsv1.2", "--tls-max", "1.2"], "--http2", "2"),
        (["--tlsv1.3", "--tls-max", "1.3"], "--http1.1", "1.1"),
        (["--tlsv1.3", "--tls-max", "1.3"], "--http2", "2"),
    ] {
        let with = |more: &[&str]| {
            let mut args = tls.to_vec();
            args.push(http);
            args.extend(more);
            curl(&stack, PROTECTED, &args)
        };
        let none = with(&[]);
        assert_eq!((none.status, none.version.as_str()), (401, version));
        assert_eq!(none.body["message"], "No required TLS certificate was sent");
        for (name, status) in [
            ("alice", 200),
            ("mallory", 401),
            ("expired", 401),
            ("stranger", 401),
            ("impostor", 401),
            ("only-a-server", 401),
            ("beside", 401),
            ("twin", 401),
        ] {
            let args = certificate(&stack, name);
            let answer = with(&args.each_ref().map(String::as_str));
            assert_eq!(answer.status, status, "{tls:?} {http} {name}: {}", answer.body);
            if status == 200 {
                assert_eq!(answer.seen("x-consumer-username"), ["alice"]);
                assert_eq!(answer.seen("x-forwarded-proto"), ["https"]);
                assert_eq!(answer.seen("x-forwarded-port"), [stack.address().port().to_string()]);
                assert_eq!(answer.seen("x-real-ip"), ["127.0.0.1"]);
                assert!(answer.seen("client-cert").is_empty() && answer.seen("client-cert-proof").is_empty());
            } else {
                assert_eq!(answer.body["message"], "TLS certificate failed verification");
            }
        }
    }
    assert_eq!(stack.upstream.requests().len(), 4, "only alice reached it");
}

/// Certificates with the name of a consumer, and keys that belong to them, that are nobody's.
fn bad_chains(stack: &Stack) {
    let (ca, alice) = (&stack.clients.ca, &stack.clients.alice);
    let write = |name: &str, certificates: &str, key: &str| {
        std::fs::write(stack.file(&format!("{name}.crt")), certificates).unwrap();
        std::fs::write(stack.file(&format!("{name}.key")), key).unwrap();
    };
    let impostor = ca.impostor("impostor");
    let below = impostor.issue(Subject::client("alice"));
    write("impostor", &(below.cert.clone() + &impostor.pem()), &below.key);
    let server = ca.issue(Subject::server(&["alice"]));
    write("only-a-server", &server.cert, &server.key);
    // Possession is proven of the first, and the second would pass.
    let mallory = &stack.clients.mallory;
    write("beside", &(mallory.cert.clone() + &alice.cert + &ca.pem()), &mallory.key);
    // What alice's says, of another key.
    let theirs = Ca::root("theirs");
    let twin = Forged::of(&alice.der).public_key(&public_key(&mallory.der)).signed_by(&theirs);
    write("twin", &pem(&twin), &mallory.key);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_a_client_says_of_itself_is_believed() {
    let stack = Stack::start().await;
    // The genuine headers of a genuine request, as somebody might have seen them, and every way to write them.
    let alice = certificate(&stack, "alice");
    let alice = alice.each_ref().map(String::as_str);
    for name in
        ["Client-Cert", "client_cert", "CLIENT_CERT_CHAIN", "Client-Cert-Proof", "X-Consumer-Username"]
    {
        let ways = [format!("{name}: forged"), format!("{name};")];
        for (http, forged) in
            ["--http1.1", "--http2"].iter().flat_map(|http| ways.iter().map(move |way| (*http, way)))
        {
            // Twice.
            let refused = curl(&stack, PROTECTED, &[http, "--header", forged, "--header", forged]);
            assert_eq!(
                (refused.status, &refused.body["message"]),
                (401, &"No required TLS certificate was sent".into())
            );
            let remove = "Connection: X-Consumer-Username, Client-Cert, Client-Cert-Proof";
            let mut args = vec![http, "--header", forged];
            args.extend(alice);
            if http == "--http1.1" {
                args.extend(["--header", remove]);
            }
            let passed = curl(&stack, PROTECTED, &args);
            assert_eq!(passed.status, 200, "{name} {http}: {}", passed.body);
            assert_eq!(passed.seen("x-consumer-username"), ["alice"]);
            let open = curl(&stack, OPEN, &[http, "--header", forged]);
            assert_eq!((open.status, open.seen(name)), (200, vec![]), "{name} {http}");
        }
    }
    // Asked for under one name, used under another: without a certificate nobody gets in.
    let host = format!("Host: {PROTECTED}");
    let switched =
        curl(&stack, OPEN, &["--http1.1", "--header", &host, alice[0], alice[1], alice[2], alice[3]]);
    assert_eq!(switched.status, 421);
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_plugin_server_is_dead_or_hangs_nobody_gets_past_the_shim() {
    let mut stack = Stack::start().await;
    let alice = certificate(&stack, "alice");
    let alice = alice.each_ref().map(String::as_str);
    assert_eq!(curl(&stack, PROTECTED, &alice).status, 200);
    for signal in ["STOP", "KILL"] {
        stack.server().signal(signal);
        stack.shim().wait_for("the plugin server does not answer");
        let seen = stack.upstream.requests().len();
        // Kong, in MsgPack:1, would let them pass.
        assert_eq!(curl(&stack, PROTECTED, &[]).status, 503, "{signal}");
        assert_eq!(curl(&stack, PROTECTED, &alice).status, 503, "{signal}");
        assert_eq!(stack.upstream.requests().len(), seen, "{signal}");
        assert_eq!(curl(&stack, OPEN, &[]).status, 200, "{signal}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_that_gets_the_plugin_is_asked_from_the_next_handshake_on() {
    let mut stack = Stack::start().await;
    let asked = |stack: &Stack| {
        testbed::tls_client::TlsClient::new(Some(OPEN)).connect(stack.address()).unwrap().asked()
    };
    assert!(!asked(&stack));
    let path = stack.file("kong.yml");
    let mut config: Json = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    config["plugins"] = serde_json::json!([{"name": "mtls-auth", "route": "open"}]);
    std::fs::write(&path, config.to_string()).unwrap();
    // Said once at the start, and once more for the change.
    stack.shim().wait_for("\"names\":2");
    assert!(asked(&stack));
}
