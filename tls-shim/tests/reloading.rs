//! What SIGHUP reads again, what it leaves as it was, and that no connection notices.

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::SystemTime;

use client_cert::{Presented, Proof, ProofKey, field};
use common::admin::{down, kong, set};
use common::{
    KEY, ONE_ROUTE, OPEN, RELOADED, Rig, SECURED, asked, hang_up, listening, shown, start, until,
    write_entities, write_settings,
};
use testbed::fake_admin::FakeAdmin;
use testbed::pki::{Ca, Subject};
use testbed::upstream::Recorded;

const SOURCE_STAYS: &str = "SIGHUP: Kong's configuration is followed as before";

/// Changes the settings; what is replaced must be there.
fn change(dir: &Path, from: &str, to: &str) {
    let path = dir.join("shim.yml");
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{text}");
    std::fs::write(path, text.replace(from, to)).unwrap();
}

/// A shim that looks at its file once in a while that no test lasts.
fn rarely_looking() -> Rig {
    let rig = Rig::new(ONE_ROUTE);
    change(rig.dir.path(), "poll_interval: 10ms", "poll_interval: 60m");
    hang_up(&rig.shim, RELOADED);
    rig
}

fn with_plugin_on(name: &str) -> String {
    format!("routes: [{{name: r, snis: [{name}], plugins: [{{name: mtls-auth}}]}}]")
}

#[test]
fn the_declarative_file_is_read_at_once() {
    let rig = rarely_looking();
    let dir = rig.dir.path();
    write_entities(dir, &with_plugin_on(OPEN));
    hang_up(&rig.shim, RELOADED);
    assert!(!asked(rig.address, Some(SECURED)) && asked(rig.address, Some(OPEN)));

    for broken in ["plugins: [", "plugins: [{name: mtls-auth, route: nowhere}]"] {
        write_entities(dir, broken);
        hang_up(&rig.shim, SOURCE_STAYS);
        assert!(!asked(rig.address, Some(SECURED)) && asked(rig.address, Some(OPEN)), "{broken}");
    }
    std::fs::remove_file(dir.join("kong.yml")).unwrap();
    hang_up(&rig.shim, SOURCE_STAYS);
    assert!(!asked(rig.address, Some(SECURED)) && asked(rig.address, Some(OPEN)));

    write_entities(dir, ONE_ROUTE);
    hang_up(&rig.shim, RELOADED);
    assert!(asked(rig.address, Some(SECURED)) && !asked(rig.address, Some(OPEN)));
}

#[test]
fn a_source_that_is_read_again_is_followed_alone() {
    let rig = Rig::new(&with_plugin_on(SECURED));
    let other = tempfile::tempdir().unwrap();
    write_entities(other.path(), &with_plugin_on(OPEN));
    let [old, new] = [rig.dir.path(), other.path()].map(|dir| dir.join("kong.yml").display().to_string());
    change(rig.dir.path(), &old, &new);
    hang_up(&rig.shim, RELOADED);
    assert!(!asked(rig.address, Some(SECURED)) && asked(rig.address, Some(OPEN)));

    write_entities(rig.dir.path(), "plugins: [{name: mtls-auth}]");
    write_entities(
        other.path(),
        "routes: [{name: r, snis: [a.example, b.example], plugins: [{name: mtls-auth}]}]",
    );
    rig.shim.wait_for("\"names\":2");
    assert!(asked(rig.address, Some("a.example")) && !asked(rig.address, None));
    assert!(!rig.shim.output().concat().contains("\"everybody\":true"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_admin_api_is_read_at_once() {
    let server = FakeAdmin::start(kong(&[SECURED])).await;
    let dir = tempfile::tempdir().unwrap();
    write_settings(dir.path(), "[\"127.0.0.1:0\"]", "127.0.0.1:8000".parse().unwrap());
    set(dir.path(), &server.url, "");
    change(dir.path(), "poll_interval: 10ms", "poll_interval: 60m");
    let shim = start(dir.path());
    let address = listening(&shim);
    assert!(asked(address, Some(SECURED)) && !asked(address, Some(OPEN)));

    server.becomes(kong(&[OPEN]));
    hang_up(&shim, RELOADED);
    assert!(!asked(address, Some(SECURED)) && asked(address, Some(OPEN)));

    server.becomes(down);
    hang_up(&shim, SOURCE_STAYS);
    assert!(!asked(address, Some(SECURED)) && asked(address, Some(OPEN)) && !asked(address, None));

    // Another Kong, of which there is no snapshot, is away: this one counts on.
    let other = FakeAdmin::start(down).await;
    change(dir.path(), &server.url, &other.url);
    hang_up(&shim, SOURCE_STAYS);
    assert!(asked(address, Some(OPEN)) && !asked(address, None));
    assert!(!shim.output().concat().contains("nothing is known"));
    other.becomes(kong(&["a.example"]));
    hang_up(&shim, RELOADED);
    assert!(asked(address, Some("a.example")) && !asked(address, Some(OPEN)));

    // From an Admin API to a file.
    write_entities(dir.path(), ONE_ROUTE);
    let file = dir.path().join("kong.yml").display().to_string();
    change(dir.path(), &format!("admin_url: {}", other.url), &format!("declarative_config: {file}"));
    hang_up(&shim, RELOADED);
    assert!(asked(address, Some(SECURED)) && !asked(address, Some("a.example")));
}

#[test]
fn broken_settings_change_nothing() {
    let rig = rarely_looking();
    write_entities(rig.dir.path(), &with_plugin_on(OPEN));
    let path = rig.dir.path().join("shim.yml");
    let good = std::fs::read_to_string(&path).unwrap();
    for broken in [String::new(), "listen: [".into(), good.replace("proof_key_file", "unknown")] {
        std::fs::write(&path, broken).unwrap();
        hang_up(&rig.shim, "SIGHUP: everything stays as it was");
        assert!(asked(rig.address, Some(SECURED)) && !asked(rig.address, Some(OPEN)));
    }
    std::fs::write(&path, good).unwrap();
    hang_up(&rig.shim, RELOADED);
    assert!(!asked(rig.address, Some(SECURED)) && asked(rig.address, Some(OPEN)));
}

#[test]
fn what_needs_a_restart_is_said_and_stays() {
    let rig = rarely_looking();
    let upstream = format!("upstream: http://{}", rig.upstream.address());
    change(rig.dir.path(), &upstream, "upstream: http://127.0.0.1:1");
    change(rig.dir.path(), "127.0.0.1:0", "127.0.0.1:1");
    hang_up(&rig.shim, RELOADED);
    for key in ["listen", "upstream"] {
        rig.shim.wait_for(&format!("counts after a restart only\",\"key\":\"{key}\""));
    }
    assert!(rig.curl(OPEN, "/", &[]).contains("\"path\":\"/\""));
}

/// Whether a request came with a proof under this key.
fn is_proven(request: &Recorded, key: [u8; 32]) -> bool {
    let one = |name| request.values(name)[0].as_bytes().to_vec();
    let presented = Presented::from_headers(&one(field::CLIENT_CERT), None).unwrap();
    let proof = one(field::CLIENT_CERT_PROOF);
    Proof::check(&ProofKey::from_bytes(key), &presented, &proof, SystemTime::now()).is_ok()
}

#[test]
fn the_proof_key_counts_for_the_next_connection() {
    let rig = rarely_looking();
    let path = rig.dir.path().join("mtls-auth.key");
    let ask = |path: &str, key| {
        rig.curl(SECURED, path, &Rig::CERTIFICATE);
        is_proven(&rig.upstream.wait_for(path), key)
    };
    assert!(ask("/before", KEY));
    // [8; 32] in base64, over the old one, so that the mode stays.
    std::fs::write(&path, "CAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAg=\n").unwrap();
    hang_up(&rig.shim, RELOADED);
    assert!(ask("/after", [8; 32]));

    std::fs::write(&path, "CAgI").unwrap();
    // The other parts are reloaded all the same.
    write_entities(rig.dir.path(), &with_plugin_on("a.example, secured.example"));
    hang_up(&rig.shim, "SIGHUP: the proof key stays as it was");
    rig.shim.wait_for("\"names\":2");
    assert!(ask("/broken", [8; 32]));
}

#[test]
fn the_default_certificate_counts_for_the_next_handshake() {
    let rig = rarely_looking();
    let dir = rig.dir.path();
    let issue = || Ca::root("servers").issue(Subject::server(&[OPEN]));
    let (second, third) = (issue(), issue());
    second.write(dir, "server", &[]);
    hang_up(&rig.shim, RELOADED);
    assert_eq!(shown(&rig), second.der);

    let stays = "SIGHUP: the default certificate stays as it was";
    for (file, text) in [("server.crt", ""), ("server.crt", &*third.cert), ("server.key", "no key")] {
        second.write(dir, "server", &[]);
        std::fs::write(dir.join(file), text).unwrap();
        hang_up(&rig.shim, stays);
        assert_eq!(shown(&rig), second.der, "{file}");
    }
    third.write(dir, "other", &[]);
    change(dir, "server.crt", "other.crt");
    change(dir, "server.key", "other.key");
    hang_up(&rig.shim, RELOADED);
    assert_eq!(shown(&rig), third.der);
}

#[test]
fn no_connection_is_dropped() {
    let rig = rarely_looking();
    let mut held = rig.client(OPEN).connect(rig.address).unwrap();
    held.write_all(b"GET /hold HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
    rig.upstream.wait_for("/hold");
    let kept = rig.client(OPEN).connect(rig.address).unwrap();
    let in_handshake = TcpStream::connect(rig.address).unwrap();
    for entities in [with_plugin_on(OPEN), ONE_ROUTE.to_owned()] {
        write_entities(rig.dir.path(), &entities);
        hang_up(&rig.shim, RELOADED);
    }
    rig.upstream.release();
    let mut answer = String::new();
    held.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let answer = kept.exchange(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    in_handshake.set_nonblocking(true).unwrap();
    let waits = (&in_handshake).read(&mut [0]).unwrap_err();
    assert_eq!(waits.kind(), std::io::ErrorKind::WouldBlock, "it is still open");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hangup_during_the_start_does_not_end_it() {
    let server = FakeAdmin::start(|_| testbed::fake_admin::Reply::Hang).await;
    let dir = tempfile::tempdir().unwrap();
    write_settings(dir.path(), "[\"127.0.0.1:0\"]", "127.0.0.1:8000".parse().unwrap());
    set(dir.path(), &server.url, "");
    let shim = start(dir.path());
    until(|| !server.take_seen().is_empty());
    shim.signal("HUP");
    server.becomes(kong(&[SECURED]));
    let address = listening(&shim);
    shim.wait_for(RELOADED);
    assert!(asked(address, Some(SECURED)) && !asked(address, Some(OPEN)));
}
