//! `tls-shim check`: what around the shim is in order, and what is not.

mod common;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use client_cert::ProofKey;
use common::{KEY, ONE_ROUTE, OPEN, SECURED, admin, write_entities, write_settings};
use serde_json::json;
use testbed::fake_admin::{FakeAdmin, kong_of, node};
use testbed::pki::{Ca, Subject};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Settings for a Kong at an address, with further lines, and a server certificate that ends so many days from now.
fn settings(kong: &str, more: &str, days: u32) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    write_settings(dir.path(), "[\"127.0.0.1:0\"]", "127.0.0.1:1".parse().unwrap());
    let path = dir.path().join("shim.yml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("http://127.0.0.1:1\n", &format!("{kong}\n")) + more).unwrap();
    write_entities(dir.path(), ONE_ROUTE);
    certificate(dir.path(), SystemTime::now() + days * DAY + Duration::from_secs(3600));
    dir
}

fn certificate(dir: &Path, ends: SystemTime) {
    let subject = Subject::server(&[SECURED, OPEN]).not_before(SystemTime::now() - 2 * DAY).not_after(ends);
    Ca::root("servers").issue(subject).write(dir, "server", &[]);
}

fn check(dir: &Path) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tls-shim"));
    let output = command.args(["check", "--config"]).arg(dir.join("shim.yml")).output().unwrap();
    (
        output.status.code(),
        String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap(),
    )
}

/// A plugin server that answers one call so.
fn server(socket: &Path, answer: &[u8]) -> std::thread::JoinHandle<()> {
    let _ = std::fs::remove_file(socket);
    let listener = UnixListener::bind(socket).unwrap();
    let answer = answer.to_vec();
    std::thread::spawn(move || {
        let (mut connection, _) = listener.accept().unwrap();
        assert!(connection.read(&mut [0; 256]).unwrap() > 0);
        connection.write_all(&answer).unwrap();
        // Who says nothing ends the connection; else until the shim does.
        if !answer.is_empty() {
            let _ = connection.read(&mut [0; 256]);
        }
    })
}

/// What the plugin server answers that has this key.
fn status(key: [u8; 32]) -> Vec<u8> {
    let fingerprint = ProofKey::from_bytes(key).fingerprint();
    assert_eq!(fingerprint.len(), 16);
    [&b"\x94\x01\x00\xc0\x82\xa3Pid\x07\xa8ProofKey\xb0"[..], fingerprint.as_bytes()].concat()
}

#[test]
fn where_all_is_well_check_says_so_after_the_map() {
    let kong = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", kong.local_addr().unwrap());
    let dir = settings(&address, "", 400);
    let socket = dir.path().join("plugin.socket");
    let path = dir.path().join("shim.yml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(path, text + &format!("plugin_server: {}\n", socket.display())).unwrap();
    let answering = server(&socket, &status(KEY));
    let (code, said) = check(dir.path());
    assert_eq!(code, Some(0), "{said}");
    answering.join().unwrap();
    let (map, findings) = said.split_once("\n\n").unwrap();
    assert!(map.starts_with("SNI  ") && map.contains("\nsecured.example      yes: "), "{said}");
    let what: Vec<_> = findings.lines().map(|line| line.split_once(": ").unwrap().0).collect();
    let all = [
        "kong",
        "server certificates",
        "private keys",
        "proof key",
        "plugin server",
        "the server's proof key",
        "upstream",
    ];
    assert_eq!(what, all.map(|what| format!("OK    {what}")), "{said}");
    assert!(said.contains("OK    plugin server: process 7 answers at "), "{said}");
}

#[test]
fn what_is_not_there_on_another_host_is_no_failure_and_what_is_wrong_is() {
    let nobody = "127.0.0.1:1";
    let dir = settings(&format!("http://{nobody}"), "", 400);
    let says = |code: i32, lines: &[&str]| {
        let (found, said) = check(dir.path());
        assert_eq!(found, Some(code), "{lines:?}: {said}");
        for line in lines {
            assert!(said.contains(&format!("\n{line}")), "{line}: {said}");
        }
    };
    says(0, &["WARN  plugin server: plugin_server is not set", "WARN  upstream: "]);
    let socket = dir.path().join("plugin.socket");
    let path = dir.path().join("shim.yml");
    let text = std::fs::read_to_string(&path).unwrap();
    let named = text + &format!("plugin_server: {}\n", socket.display());
    std::fs::write(&path, &named).unwrap();
    says(0, &["WARN  plugin server: "]);
    // Left behind by one that was killed.
    drop(UnixListener::bind(&socket).unwrap());
    says(0, &["WARN  plugin server: "]);

    for (answer, code, line) in [
        (status([8; 32]), 1, "FAIL  the server's proof key: the plugin server that answers has another one"),
        (b"\x94\x01\x00\xc0\x81\xa3Pid\x07".to_vec(), 0, "WARN  the server's proof key: not looked at: "),
        (b"\x94\x01\x00\xa1x\xc0".to_vec(), 1, "FAIL  plugin server: "),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(), 1, "FAIL  plugin server: "),
        (b"".to_vec(), 1, "FAIL  plugin server: "),
    ] {
        let answering = server(&socket, &answer);
        says(code, &[line]);
        answering.join().unwrap();
    }
    std::fs::remove_file(&socket).unwrap();

    let set = |from: &str, to: &str| std::fs::write(&path, named.replace(from, to)).unwrap();
    // Not this host alone can be meant by it.
    set(&format!("http://{nobody}"), "http://0.0.0.0:1");
    says(0, &["WARN  upstream: 0.0.0.0:1: ", "WARN  upstream: http:// to 0.0.0.0:1: "]);
    set("proof_key_file", &format!("grpc_upstream: http://{nobody}\nproof_key_file"));
    says(0, &["WARN  grpc_upstream: "]);
    set(&format!("http://{nobody}"), "https://0.0.0.0:1");
    let (_, said) = check(dir.path());
    assert!(said.contains("WARN  upstream: 0.0.0.0:1: ") && !said.contains("http:// to "), "{said}");

    certificate(dir.path(), SystemTime::now() + 20 * DAY + Duration::from_secs(3600));
    says(0, &["WARN  server certificates: \"CN=secured.example\" (the default) ends in 20 days: "]);
    certificate(dir.path(), SystemTime::now() - Duration::from_secs(60));
    says(1, &["FAIL  server certificates: \"CN=secured.example\" (the default) has ended: "]);
}

#[test]
fn certificates_of_kong_that_end_are_named() {
    let dir = settings("http://127.0.0.1:1", "", 400);
    let soon =
        Subject::server(&["a.example"]).not_after(SystemTime::now() + 5 * DAY + Duration::from_secs(3600));
    let leaf = Ca::root("servers").issue(soon);
    let id = "5b2d7d8a-0000-4000-8000-000000000001";
    let certificates =
        json!([{"id": id, "cert": leaf.cert, "key": leaf.key, "snis": [{"name": "a.example"}]}]);
    write_entities(dir.path(), &format!("certificates: {certificates}"));
    let (code, said) = check(dir.path());
    assert_eq!(code, Some(0), "{said}");
    let line = format!("\nWARN  server certificates: \"CN=a.example\" (id {id}) ends in 5 days: ");
    assert!(said.contains(&line), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_admin_api_says_of_kong_is_looked_at() {
    let lists = json!({"routes": [], "plugins": []});
    for (version, ahead, configuration, code, lines) in [
        (
            "3.9.1",
            0,
            json!({
                "nginx_proxy_directives": [{"name": "large_client_header_buffers", "value": "8 64k"}],
                "trusted_ips": ["127.0.0.1"],
            }),
            0,
            &[
                "OK    kong: ",
                "OK    Kong's version: ",
                "OK    clock: ",
                "OK    header buffers: ",
                "OK    trusted_ips: ",
            ][..],
        ),
        (
            "3.5.0",
            0,
            json!({}),
            1,
            &["FAIL  Kong's version: ", "WARN  header buffers: ", "WARN  trusted_ips: "],
        ),
        ("3.9.1", 60, json!({}), 1, &["FAIL  clock: "]),
    ] {
        let (lists, configuration) = (lists.clone(), configuration.clone());
        let server = FakeAdmin::start(move |seen| {
            if seen.target != "/" {
                return kong_of(&lists, None, seen);
            }
            let date = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(ahead));
            node(200, version, &configuration, &date)
        })
        .await;
        let dir = settings("http://127.0.0.1:1", "", 400);
        admin::set(dir.path(), &server.url, "");
        let (found, said) = check(dir.path());
        assert_eq!(found, Some(code), "{said}");
        for line in lines {
            assert!(said.contains(&format!("\n{line}")), "{line}: {said}");
        }
    }
    // A front that lets through the lists alone.
    let server = FakeAdmin::start(admin::kong(&[SECURED])).await;
    let dir = settings("http://127.0.0.1:1", "", 400);
    admin::set(dir.path(), &server.url, "");
    let (found, said) = check(dir.path());
    assert!(found == Some(0) && said.contains("\nWARN  Kong's version: not looked at: "), "{said}");
    server.becomes(admin::down);
    let (found, said) = check(dir.path());
    assert!(found == Some(1) && said.contains("\nFAIL  kong: "), "{said}");
}

#[test]
fn a_file_of_private_keys_that_others_may_read_is_worth_a_warning() {
    let dir = settings("http://127.0.0.1:1", "", 400);
    let open = |name: &str, mode| {
        std::fs::set_permissions(dir.path().join(name), PermissionsExt::from_mode(mode)).unwrap();
    };
    let lines = || {
        let (code, said) = check(dir.path());
        assert_eq!(code, Some(0), "{said}");
        let lines: Vec<_> =
            said.lines().filter(|line| line.contains("private keys: ")).map(str::to_owned).collect();
        lines
    };
    // There is none in Kong's configuration: who may read that does not matter.
    open("kong.yml", 0o644);
    let [closed] = lines().try_into().unwrap();
    assert!(closed.starts_with("OK    private keys: ") && closed.contains("/server.key "), "{closed}");
    open("server.key", 0o644);
    let [warned] = lines().try_into().unwrap();
    assert!(
        warned.starts_with("WARN  private keys: ") && warned.contains("/server.key (mode 0644)"),
        "{warned}"
    );

    let key = std::fs::read_to_string(dir.path().join("server.key")).unwrap();
    let cert = std::fs::read_to_string(dir.path().join("server.crt")).unwrap();
    let certificates = json!([{"cert": cert, "key": key, "snis": [{"name": "own.example"}]}]);
    write_entities(dir.path(), &format!("{ONE_ROUTE}\ncertificates: {certificates}\n"));
    open("kong.yml", 0o604);
    let [_, warned] = lines().try_into().unwrap();
    assert!(
        warned.starts_with("WARN  private keys: ") && warned.contains("/kong.yml (mode 0604)"),
        "{warned}"
    );
    open("kong.yml", 0o640);
    let [_, closed] = lines().try_into().unwrap();
    assert!(closed.starts_with("OK    private keys: ") && closed.contains("/kong.yml "), "{closed}");
}
