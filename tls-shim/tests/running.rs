//! How the shim starts, refuses to start, and ends.

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use common::{
    ONE_ROUTE, OPEN, Rig, SECURED, command, folder, listening, start, write_entities, write_settings,
};
use testbed::disk::Disk;
use testbed::pki::Ca;
use testbed::process::{Process, keeps_to_itself, laxly, on_one_core};
use testbed::tls_client::TlsClient;
use testbed::upstream::Upstream;

fn tls_shim(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tls-shim")).args(arguments).output().unwrap()
}

#[test]
fn its_version_says_which_commit_and_library_it_is_built_from() {
    let said = String::from_utf8(tls_shim(&["--version"]).stdout).unwrap();
    assert_eq!(said, format!("tls-shim {}\n", command_line::version(openssl::version::version())));
}

#[test]
fn it_keeps_its_memory_and_its_files_to_itself_however_it_is_started() {
    let upstream = Upstream::start();
    let dir = folder(&upstream);
    let config = dir.path().join("shim.yml");
    let log = dir.path().join("access.log");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, format!("{text}access_log: {}\n", log.display())).unwrap();
    std::fs::set_permissions(dir.path().join("server.key"), PermissionsExt::from_mode(0o604)).unwrap();
    let shim = Process::start(&mut laxly(&command(&config)));
    shim.wait_for("\"listening\"");
    keeps_to_itself(shim.id());
    assert_eq!(log.metadata().unwrap().permissions().mode() & 0o777, 0o640);
    let said = shim.wait_for("other users may read or write the private key");
    assert!(said.contains("/server.key\"") && said.contains("\"0604\""), "{said}");
}

#[test]
fn no_client_waits_for_a_disk_that_hangs_nor_does_the_end() {
    let upstream = Upstream::start();
    let dir = folder(&upstream);
    let disk = Disk::new(dir.path());
    let mut shim = Process::start(&mut on_one_core(&disk.on(&command(&dir.path().join("shim.yml")))));
    let address = listening(&shim);
    let kept = TlsClient::new(Some(OPEN)).connect(address).unwrap();

    // The looks at Kong's file and at the settings.
    disk.hang(2);
    for client in [kept, TlsClient::new(Some(SECURED)).connect(address).unwrap()] {
        let answer = client.exchange(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
    shim.signal("TERM");
    assert!(shim.wait().success());
}

#[test]
fn running_requests_end_before_the_shim_does() {
    let mut rig = Rig::new(ONE_ROUTE);
    let hold = "GET /hold HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut held = rig.client(OPEN).connect(rig.address).unwrap();
    held.write_all(hold.as_bytes()).unwrap();
    let mut idle = rig.client(OPEN).connect(rig.address).unwrap();
    idle.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    idle.read_exact(&mut [0]).unwrap();
    let http2 = Command::new("curl")
        .args(["--silent", "--insecure", "--http2", "--resolve"])
        .arg(format!("{OPEN}:{}:127.0.0.1", rig.address.port()))
        .arg(format!("https://{OPEN}:{}/hold", rig.address.port()))
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    while rig.upstream.requests().iter().filter(|request| request.path == "/hold").count() < 2 {
        std::thread::yield_now();
    }

    rig.shim.signal("TERM");
    rig.shim.wait_for("draining");
    // What is idle ends at once, and nobody new comes in.
    idle.read_to_end(&mut Vec::new()).unwrap();
    while TcpStream::connect(rig.address).is_ok() {
        std::thread::yield_now();
    }
    rig.upstream.release();

    let mut answer = String::new();
    held.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("\"path\":\"/hold\""), "{answer}");
    let output = http2.wait_with_output().unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains("\"path\":\"/hold\""), "{output:?}");
    assert_eq!(rig.shim.wait().code(), Some(0));
    rig.shim.wait_for("\"drained\"");
}

#[test]
fn who_was_accepted_is_answered_before_the_shim_ends() {
    let mut rig = Rig::new(ONE_ROUTE);
    let silent = TcpStream::connect(rig.address).unwrap();
    let greeted = rig.client(OPEN).connect(rig.address).unwrap();
    rig.shim.signal("TERM");
    rig.shim.wait_for("draining");
    // It was before the others in the queue, so it was accepted, too.
    let silent = rig.client(OPEN).connect_over(silent).unwrap();
    for connection in [silent, greeted] {
        let answer = connection.exchange(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        assert!(answer.to_lowercase().contains("connection: close"), "{answer}");
    }
    assert_eq!(rig.shim.wait().code(), Some(0));
    rig.shim.wait_for("\"drained\"");
}

#[test]
fn a_second_signal_ends_the_shim_at_once() {
    let mut rig = Rig::new(ONE_ROUTE);
    let mut held = rig.client(OPEN).connect(rig.address).unwrap();
    held.write_all(b"GET /hold HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    rig.upstream.wait_for("/hold");
    rig.shim.signal("INT");
    rig.shim.wait_for("draining");
    rig.shim.signal("INT");
    assert_eq!(rig.shim.wait().code(), Some(0));
    rig.shim.wait_for("cut off");
}

#[test]
fn the_shim_outlives_a_want_of_file_descriptors() {
    let dir = tempfile::tempdir().unwrap();
    let upstream = Upstream::start();
    write_settings(dir.path(), "[\"127.0.0.1:0\"]", upstream.address());
    let settings = std::fs::read_to_string(dir.path().join("shim.yml")).unwrap();
    // More than there are descriptors for.
    std::fs::write(dir.path().join("shim.yml"), settings + "limits: {connections: 1000}\n").unwrap();
    write_entities(dir.path(), ONE_ROUTE);
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "ulimit -n 40; exec \"$0\" --config \"$1\"", env!("CARGO_BIN_EXE_tls-shim")]);
    let shim = Process::start(command.arg(dir.path().join("shim.yml")));
    let address = listening(&shim);
    shim.wait_for("than the file descriptors are good for");
    let many: Vec<_> = (0..60).map(|_| TcpStream::connect(address).unwrap()).collect();
    shim.wait_for("no connection can be accepted");
    drop(many);
    let connection = TlsClient::new(Some(SECURED)).connect(address).unwrap();
    let answer = connection.exchange(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

#[test]
fn several_addresses_are_listened_on() {
    let dir = tempfile::tempdir().unwrap();
    let upstream = Upstream::start();
    write_settings(dir.path(), "[\"127.0.0.1:0\", \"[::1]:0\"]", upstream.address());
    write_entities(dir.path(), ONE_ROUTE);
    let shim = start(dir.path());
    shim.wait_for("\"addr\":\"[::1]");
    let second =
        shim.output().iter().find_map(|line| line.split_once("[::1]:")?.1.split('"').next()?.parse().ok());
    let second = std::net::SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, second.unwrap()));
    for address in [listening(&shim), second] {
        let connection = TlsClient::new(Some(SECURED)).connect(address).unwrap();
        assert!(connection.asked());
        let answer = connection.exchange(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
        assert!(answer.contains(&format!("[\"x-real-ip\",\"{}\"]", address.ip())), "{answer}");
        assert!(answer.contains(&format!("[\"x-forwarded-port\",\"{}\"]", address.port())), "{answer}");
    }
}

/// Settings whose every part is good, to be broken.
fn good(dir: &Path) {
    write_settings(dir, "[\"127.0.0.1:0\"]", "127.0.0.1:8000".parse().unwrap());
    write_entities(dir, ONE_ROUTE);
}

#[test]
fn whatever_is_wrong_is_named_and_nothing_starts() {
    type Break = fn(&Path);
    fn replace(dir: &Path, from: &str, to: &str) {
        let path = dir.join("shim.yml");
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{text}");
        std::fs::write(path, text.replace(from, to)).unwrap();
    }
    let table: &[(Break, &str, &str)] = &[
        (|dir| std::fs::remove_file(dir.join("shim.yml")).unwrap(), "shim.yml", "No such file"),
        (|dir| std::fs::write(dir.join("shim.yml"), "").unwrap(), "shim.yml", "empty"),
        (|dir| std::fs::write(dir.join("shim.yml"), "listen: [").unwrap(), "shim.yml", "line 1"),
        (
            |dir| replace(dir, "proof_key_file", "status_listen: localhost\nproof_key_file"),
            "shim.yml",
            "status_listen",
        ),
        (
            |dir| replace(dir, "declarative_config", "admin_url: http://a, declarative_config"),
            "shim.yml",
            "admin_url",
        ),
        (|dir| replace(dir, "declarative_config: ", "admin_url: "), "shim.yml", "Admin API URL"),
        (
            |dir| replace(dir, "declarative_config: ", "admin_url: http://a, admin_ca_file: "),
            "kong.yml",
            "no use with an http:// URL",
        ),
        (
            |dir| replace(dir, "declarative_config: ", "admin_url: http://a, admin_token_file: /nowhere"),
            "/nowhere",
            "No such file",
        ),
        (|dir| replace(dir, "http://", "ftp://"), "shim.yml", "upstream"),
        (|dir| replace(dir, "kong:", "tls: {ciphers: [aNULL]}\nkong:"), "shim.yml", "tls.ciphers"),
        (|dir| replace(dir, "kong:", "limits: {header_bytes: 1}\nkong:"), "shim.yml", "limits.header_bytes"),
        (|dir| replace(dir, "kong:", "time_limits: {idle: 0s}\nkong:"), "shim.yml", "time_limits.idle"),
        (|dir| replace(dir, "kong:", "upstream_tls: {verify_sni: true}\nkong:"), "shim.yml", "upstream_tls"),
        (
            |dir| {
                replace(dir, "http://", "https://");
                replace(dir, "kong:", "upstream_tls: {ca: /nowhere/ca.crt}\nkong:");
            },
            "ca.crt",
            "No such file",
        ),
        (|dir| replace(dir, "kong:", "access_log: /nowhere/access.log\nkong:"), "access.log", "No such file"),
        (|dir| replace(dir, "kong:", "access_log: /\nkong:"), "/", "directory"),
        (|dir| std::fs::remove_file(dir.join("server.crt")).unwrap(), "server.crt", "No such file"),
        (|dir| std::fs::write(dir.join("server.crt"), "").unwrap(), "server.crt", "empty"),
        (|dir| std::fs::write(dir.join("server.crt"), "x").unwrap(), "server.crt", "no certificate"),
        (
            |dir| drop(std::fs::copy(dir.join("server.key"), dir.join("server.crt"))),
            "server.crt",
            "no certificate",
        ),
        (|dir| std::fs::remove_file(dir.join("server.key")).unwrap(), "server.key", "No such file"),
        (|dir| std::fs::write(dir.join("server.key"), " \n").unwrap(), "server.key", "empty"),
        (
            |dir| drop(std::fs::copy(dir.join("server.crt"), dir.join("server.key"))),
            "server.key",
            "no private key",
        ),
        (
            |dir| {
                let other = testbed::pki::Ca::root("x").issue(testbed::pki::Subject::client("x"));
                std::fs::write(dir.join("server.key"), other.key).unwrap();
            },
            "server.key",
            "does not belong",
        ),
        (|dir| std::fs::remove_file(dir.join("mtls-auth.key")).unwrap(), "mtls-auth.key", "No such file"),
        (|dir| std::fs::write(dir.join("mtls-auth.key"), "").unwrap(), "mtls-auth.key", "empty"),
        (|dir| std::fs::write(dir.join("mtls-auth.key"), "short").unwrap(), "mtls-auth.key", "base64"),
        (|dir| std::fs::remove_file(dir.join("kong.yml")).unwrap(), "kong.yml", "No such file"),
        (|dir| std::fs::write(dir.join("kong.yml"), "").unwrap(), "kong.yml", "empty"),
        (|dir| std::fs::write(dir.join("kong.yml"), "services: []").unwrap(), "kong.yml", "_format_version"),
        (|dir| replace(dir, "127.0.0.1:0", "192.0.2.1:443"), "192.0.2.1:443", "cannot listen"),
    ];
    for (broken, file, wrong) in table {
        let dir = tempfile::tempdir().unwrap();
        good(dir.path());
        broken(dir.path());
        let config = dir.path().join("shim.yml");
        let output = tls_shim(&["--config", config.to_str().unwrap()]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{file}, {wrong}: {said}");
        assert!(said.contains(file) && said.contains(wrong), "{file}, {wrong}: {said}");
        assert!(!said.contains("listening"), "{said}");
        if *wrong != "cannot listen" {
            let output = tls_shim(&["check", "--config", config.to_str().unwrap()]);
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "check: {file}, {wrong}: {said}");
            assert!(said.contains(file) && said.contains(wrong), "check: {file}, {wrong}: {said}");
        }
    }
}

#[test]
fn check_says_who_is_asked_and_why() {
    let dir = tempfile::tempdir().unwrap();
    good(dir.path());
    write_entities(
        dir.path(),
        "services: [{name: orders, plugins: [{name: mtls-auth}], routes: [{name: list, snis: ['*.b.example']}]}]
routes: [{name: secured, snis: [secured.example], plugins: [{name: mtls-auth}]}]
plugins: [{name: mtls-auth, enabled: false}]",
    );
    let config = dir.path().join("shim.yml");
    let output = tls_shim(&["check", "--config", config.to_str().unwrap()]);
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0));
    for row in [
        "*.b.example          yes: plugin on service orders, route list",
        "secured.example      yes: plugin on route secured",
        "(none or any other)  no",
        "mtls-auth plugins: 3, of which enabled: 2; services: 1; routes: 2; SNIs in the map: 2",
        "configuration: from the declarative file ",
        "server certificate: \"CN=secured.example\", valid until ",
    ] {
        assert!(said.contains(row), "{said}");
    }
    write_entities(dir.path(), "routes: [{name: r, plugins: [{name: mtls-auth}]}]");
    let output = tls_shim(&["check", "--config", config.to_str().unwrap()]);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("yes: plugin on route r, which names no SNI"), "{said}");
    assert!(said.contains("(none or any other)  yes, as *"), "{said}");
    assert!(!said.contains("nobody reaches"), "{said}");

    // What Kong never sees over plain HTTP.
    let route =
        |name, says| format!("{{name: {name}, expression: '{says}', plugins: [{{name: mtls-auth}}]}}");
    let routes = [
        route("sni", "tls.sni == \"a\""),
        route("both", "http.host == \"a\" && tls.sni == \"a\""),
        route("either", "http.host == \"a\" || tls.sni == \"a\""),
    ];
    write_entities(dir.path(), &format!("routes: [{}]", routes.join(", ")));
    let says = "WARN  routes: nobody reaches those whose expression demands tls.sni: sni, both; ";
    for (settings, warns) in [("http:", true), ("https:", false)] {
        let text = std::fs::read_to_string(&config).unwrap();
        std::fs::write(&config, text.replace("upstream: http:", &format!("upstream: {settings}"))).unwrap();
        let output = tls_shim(&["check", "--config", config.to_str().unwrap()]);
        let said = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        assert_eq!(said.contains(says), warns, "{settings}: {said}");
    }
}

#[test]
fn check_says_which_ca_names_are_sent() {
    let dir = tempfile::tempdir().unwrap();
    good(dir.path());
    let [a, b, long] =
        ["a, b", "b", &"c".repeat(70_000)].map(|cn| serde_json::to_string(&Ca::root(cn).pem()).unwrap());
    let plugin = |cas: &str| {
        format!("plugins: [{{name: mtls-auth, config: {{send_ca_dn: true, ca_certificates: [{cas}]}}}}]")
    };
    write_entities(
        dir.path(),
        &format!(
            "routes:
- {{name: one, snis: [one.example], {}}}
- {{name: two, snis: [two.example], {}}}
- {{name: quiet, snis: [quiet.example, two.example], plugins: [{{name: mtls-auth}}]}}
- {{name: unknown, snis: [unknown.example], {}}}
- {{name: long, snis: [long.example], {}}}",
            plugin(&format!("{b}, {a}")),
            plugin(&a),
            plugin("nowhere"),
            plugin(&long)
        ),
    );
    let output = tls_shim(&["check", "--config", dir.path().join("shim.yml").to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let said = String::from_utf8_lossy(&output.stdout);
    let rows: Vec<&str> = said.lines().map(str::trim_end).collect();
    let names = |sni: &str| {
        let row = rows.iter().position(|row| row.starts_with(&format!("{sni} "))).unwrap();
        rows[row + 1].trim_start()
    };
    assert_eq!(names("one.example"), r#"CA names: "CN=b", "CN=a\, b""#);
    assert_eq!(
        names("two.example"),
        r#"CA names: "CN=a\, b"; not named are the CAs of: plugin on route quiet"#
    );
    assert_eq!(names("quiet.example"), "CA names: none");
    assert_eq!(
        names("unknown.example"),
        "CA names: none, since not all are known: plugin on route unknown: ca_certificates[0]: \
         there is no CA certificate with the id \"nowhere\""
    );
    assert_eq!(names("long.example"), "CA names: none, since they are too many: 70027 bytes, 64512 at most");
}

#[test]
fn the_log_says_which_library_tls_comes_from() {
    let rig = Rig::new(ONE_ROUTE);
    let library = if cfg!(feature = "aws-lc") { "AWS-LC 1." } else { "OpenSSL 3." };
    rig.shim.wait_for(&format!("\"library\":\"{library}"));
}

#[test]
fn a_wrong_command_line_is_2() {
    for arguments in [&[][..], &["check"], &["--config"], &["--nonsense"], &["serve", "--config", "x"]] {
        assert_eq!(tls_shim(arguments).status.code(), Some(2), "{arguments:?}");
    }
}
