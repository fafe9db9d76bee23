//! No connection begins with what an earlier one has proven.

mod common;

use std::io::Write;
use std::process::{Command, Stdio};

use common::{ONE_ROUTE, Rig, SECURED};

/// Runs `openssl s_client` with the client's certificate: a handshake, a request and its answer.
fn s_client(rig: &Rig, sni: &str, arguments: &[&str]) -> String {
    let mut client = Command::new("openssl")
        .args(["s_client", "-ign_eof", "-connect", &rig.address.to_string(), "-servername", sni])
        .args(Rig::CERTIFICATE.map(|argument| argument.strip_prefix('-').unwrap_or(argument)))
        .args(arguments)
        .current_dir(rig.dir.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("openssl runs");
    let request = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    client.stdin.as_mut().unwrap().write_all(request).unwrap();
    let output = client.wait_with_output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn nothing_is_resumed() {
    let rig = Rig::new(ONE_ROUTE);
    for version in ["-tls1_2", "-tls1_3"] {
        let said = s_client(&rig, SECURED, &[version, "-reconnect"]);
        let handshakes = said.lines().filter(|line| line.starts_with("New, TLSv1")).count();
        assert_eq!(handshakes, 6, "{version}: {said}");
        assert!(!said.contains("Reused"), "{version}: {said}");

        // There is not even anything that a client could keep.
        let said = s_client(&rig, SECURED, &[version, "-sess_out", "session", "-msg"]);
        assert!(said.contains("HTTP/1.1 200 OK") && said.contains("Finished"), "{version}: {said}");
        assert!(!said.contains("NewSessionTicket"), "{version}: {said}");
        assert!(!rig.dir.path().join("session").exists(), "{version}");
    }
}

#[test]
fn there_is_no_renegotiation() {
    let rig = Rig::new(ONE_ROUTE);
    let mut client = Command::new("openssl")
        .args(["s_client", "-tls1_2", "-connect", &rig.address.to_string(), "-servername", SECURED])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("openssl runs");
    // `R` asks for a renegotiation.
    client.stdin.as_mut().unwrap().write_all(b"R\nR\n").unwrap();
    let output = client.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("no renegotiation"), "{said}");
}
