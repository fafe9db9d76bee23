//! Kong's configuration from its Admin API: who is asked while it answers, while it does not, and at a start without it.

mod common;

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output};

use common::admin::{down, kong, set};
use common::{OPEN, SECURED, asked, listening, start, until, write_settings};
use openssl::pkey::PKey;
use openssl::ssl::{SslAcceptor, SslMethod};
use openssl::x509::X509;
use tempfile::TempDir;
use testbed::fake_admin::{FakeAdmin, Reply, Seen};
use testbed::pki::{Ca, Subject};
use testbed::process::Process;

/// What a front answers to a wrong token.
fn refusing(_: &Seen) -> Reply {
    Reply::Answer(401, "text/plain", "no".into())
}

/// Settings for an Admin API, with further lines below `kong`.
fn settings(url: &str, more: &str) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    write_settings(dir.path(), "[\"127.0.0.1:0\"]", "127.0.0.1:8000".parse().unwrap());
    set(dir.path(), url, more);
    dir
}

fn snapshot_file(dir: &TempDir) -> PathBuf {
    dir.path().join("tls-shim.snapshot.json")
}

fn started(dir: &TempDir) -> (Process, SocketAddr) {
    let shim = start(dir.path());
    let address = listening(&shim);
    (shim, address)
}

fn check(dir: &TempDir) -> Output {
    let mut check = Command::new(env!("CARGO_BIN_EXE_tls-shim"));
    check.args(["check", "--config"]).arg(dir.path().join("shim.yml")).output().unwrap()
}

/// Waits until the server was asked so often again.
fn until_asked(server: &FakeAdmin, times: usize) {
    let mut asked = 0;
    until(|| {
        asked += server.take_seen().len();
        asked >= times
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn everybody_is_asked_until_kong_is_known() {
    let server = FakeAdmin::start(down).await;
    let dir = settings(&server.url, "");
    let (shim, address) = started(&dir);
    for name in [Some(SECURED), Some(OPEN), None] {
        assert!(asked(address, name), "{name:?}");
    }
    let said = shim.wait_for("nothing is known of Kong's configuration: until it is, everybody is asked");
    assert!(said.contains(&server.url) && said.contains("\"reason\":"), "{said}");
    until_asked(&server, 5);
    for once in ["everybody is asked", "ERROR"] {
        assert_eq!(shim.output().iter().filter(|line| line.contains(once)).count(), 1, "{once}");
    }

    server.becomes(kong(&[SECURED]));
    shim.wait_for("\"names\":1,\"everybody\":false");
    assert!(asked(address, Some(SECURED)) && !asked(address, Some(OPEN)) && !asked(address, None));

    server.becomes(down);
    shim.wait_for("the last good one stays");
    assert!(asked(address, Some(SECURED)) && !asked(address, Some(OPEN)) && !asked(address, None));

    server.becomes(kong(&[OPEN, "b.example"]));
    shim.wait_for("\"names\":2,\"everybody\":false");
    assert!(!asked(address, Some(SECURED)) && asked(address, Some(OPEN)) && !asked(address, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_without_the_admin_api_goes_on_with_the_snapshot() {
    let server = FakeAdmin::start(kong(&[SECURED])).await;
    let dir = settings(&server.url, "");
    let (mut shim, address) = started(&dir);
    assert!(asked(address, Some(SECURED)) && !asked(address, Some(OPEN)));
    until(|| snapshot_file(&dir).exists());
    assert_eq!(snapshot_file(&dir).metadata().unwrap().permissions().mode() & 0o777, 0o600);
    shim.signal("TERM");
    assert_eq!(shim.wait().code(), Some(0));

    server.becomes(down);
    let (shim, address) = started(&dir);
    shim.wait_for("the last good one stays");
    assert!(asked(address, Some(SECURED)) && !asked(address, Some(OPEN)) && !asked(address, None));
    server.becomes(kong(&[OPEN, "b.example"]));
    shim.wait_for("\"names\":2,\"everybody\":false");
    assert!(!asked(address, Some(SECURED)) && asked(address, Some(OPEN)));
    drop(shim);

    // What others could have written counts for nothing, nor does what is of another Kong.
    server.becomes(down);
    let mode = |mode| std::fs::set_permissions(snapshot_file(&dir), PermissionsExt::from_mode(mode)).unwrap();
    mode(0o620);
    let (shim, address) = started(&dir);
    shim.wait_for("the snapshot file is not used");
    assert!(asked(address, Some(SECURED)) && asked(address, None));
    drop(shim);
    mode(0o600);
    let other = FakeAdmin::start(down).await;
    set(dir.path(), &other.url, "");
    let (shim, address) = started(&dir);
    shim.wait_for("it is of another Admin API");
    assert!(asked(address, Some(SECURED)) && asked(address, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_snapshot_file_is_where_it_is_said_or_nowhere() {
    let server = FakeAdmin::start(kong(&[SECURED])).await;
    let elsewhere = tempfile::tempdir().unwrap();
    let file = elsewhere.path().join("kong.json");
    let dir = settings(&server.url, &format!("  snapshot_file: {}\n", file.display()));
    let shim = started(&dir);
    until(|| file.exists());
    drop(shim);
    std::fs::remove_file(&file).unwrap();

    set(dir.path(), &server.url, "  snapshot_file: off\n");
    let (_shim, address) = started(&dir);
    assert!(!asked(address, Some(OPEN)));
    // It would be written before the next look.
    until_asked(&server, 20);
    let files = std::fs::read_dir(dir.path()).unwrap().map(|file| file.unwrap().file_name());
    let files: Vec<_> = files.filter(|file| file.to_string_lossy().contains("snapshot")).collect();
    assert!(files.is_empty() && !file.exists(), "{files:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_admin_api_under_tls_gets_the_token_if_it_is_the_right_one() {
    let dir = tempfile::tempdir().unwrap();
    let ca = Ca::root("admin");
    let certificate = ca.issue(Subject::server(&["127.0.0.1"]));
    let mut tls = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server()).unwrap();
    tls.set_certificate(&X509::from_pem(certificate.cert.as_bytes()).unwrap()).unwrap();
    tls.set_private_key(&PKey::private_key_from_pem(certificate.key.as_bytes()).unwrap()).unwrap();
    let answer = kong(&[SECURED]);
    let guarded = move |seen: &Seen| {
        if seen.head.contains("kong-admin-token: SECRET\r\n") { answer(seen) } else { refusing(seen) }
    };
    let server = FakeAdmin::start_tls(tls.build(), guarded).await;
    for (name, text) in [("token", "SECRET\n"), ("ca.crt", &ca.pem()), ("other.crt", &Ca::root("x").pem())] {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    std::fs::set_permissions(dir.path().join("token"), PermissionsExt::from_mode(0o600)).unwrap();
    let at = |key: &str, file: &str| format!("  {key}: {}\n", dir.path().join(file).display());
    let token = at("admin_token_file", "token");
    for (more, answers) in [
        (token.clone() + &at("admin_ca_file", "ca.crt"), true),
        (token.clone() + &at("admin_ca_file", "other.crt"), false),
        (token, false),
        (at("admin_ca_file", "ca.crt"), false),
    ] {
        let settings = settings(&server.url, &(more.clone() + "  snapshot_file: off\n"));
        let (shim, address) = started(&settings);
        assert_eq!(asked(address, Some(OPEN)), !answers, "{more}");
        assert!(asked(address, Some(SECURED)), "{more}");
        assert!(!shim.output().concat().contains("SECRET"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn check_says_where_the_configuration_comes_from() {
    let server = FakeAdmin::start(kong(&[SECURED])).await;
    let dir = settings(&server.url, "");
    let says = |code: i32, out: &[&str], err: &str| {
        let output = check(&dir);
        let [stdout, stderr] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
        assert_eq!(output.status.code(), Some(code), "{stdout}{stderr}");
        for line in out {
            assert!(stdout.contains(line), "{line}: {stdout}");
        }
        assert!(if err.is_empty() { stderr.is_empty() } else { stderr.contains(err) }, "{stderr}");
    };
    let table = "secured.example      yes: plugin on route r";
    let counts = "mtls-auth plugins: 1, of which enabled: 1; services: 0; routes: 1; SNIs in the map: 1";
    let admin = format!("configuration: from the Admin API {}\n", server.url);
    says(0, &[table, counts, &admin, "server certificate: "], "");
    assert!(!snapshot_file(&dir).exists(), "only a running shim writes it");

    server.becomes(down);
    let everybody = "*    yes: nothing is known of Kong's configuration";
    let none = "configuration: none is known, since the Admin API cannot be read: ";
    says(1, &[everybody, none, "there is no snapshot file"], "unreachable");

    server.becomes(kong(&[SECURED]));
    let shim = started(&dir);
    until(|| snapshot_file(&dir).exists());
    drop(shim);
    let old = std::time::SystemTime::now() - std::time::Duration::from_secs(3 * 3600);
    std::fs::File::options().write(true).open(snapshot_file(&dir)).unwrap().set_modified(old).unwrap();
    server.becomes(down);
    let file =
        format!("configuration: from the snapshot file {}, written 3 h ago", snapshot_file(&dir).display());
    says(0, &[table, &file, "unreachable"], "");

    // That does not pass by itself.
    server.becomes(refusing);
    says(1, &[table, &file, "is the token right?"], "is the token right?");
    std::fs::set_permissions(snapshot_file(&dir), PermissionsExt::from_mode(0o640)).unwrap();
    says(1, &[everybody, none, "is not used: others than its owner may read"], "is the token right?");
    set(dir.path(), &server.url, "  snapshot_file: off\n");
    says(1, &[everybody, none, "snapshot_file is off"], "is the token right?");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_waits_for_the_admin_api_can_be_ended() {
    let server = FakeAdmin::start(|_| Reply::Hang).await;
    let dir = settings(&server.url, "");
    let mut shim = start(dir.path());
    until_asked(&server, 1);
    shim.signal("TERM");
    assert_eq!(shim.wait().code(), Some(0));
    assert!(!shim.output().concat().contains("listening"));
}
