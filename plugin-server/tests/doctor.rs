//! `mtls-auth doctor`: each line in order, and what makes it say otherwise.

mod common;

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, SystemTime};

use common::{BINARY, Prefix};
use serde_json::{Value as Json, json};
use testbed::fake_admin::{FakeAdmin, kong_of, node};
use testbed::pki::Ca;
use testbed::process::Process;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// What a Kong 3.9.1 says of itself, as far as it matters, where all is well.
fn configuration(prefix: &Prefix) -> Json {
    json!({
        "nginx_proxy_directives": [
            {"name": "large_client_header_buffers", "value": "8 64k"}, {"name": "real_ip_header", "value": "X-Real-IP"},
        ],
        "nginx_http_directives": [],
        "trusted_ips": ["127.0.0.1/32", "::1/128"],
        "proxy_listen": ["127.0.0.1:8000"],
        "pluginservers": [{
            "name": "mtls-auth", "protocol": "ProtoBuf:1", "socket": prefix.socket(),
            "query_command": "/usr/local/bin/mtls-auth -dump --protocol protobuf",
        }],
    })
}

fn ca(days: u32) -> Ca {
    Ca::root_until("clients", SystemTime::now() + days * DAY + Duration::from_secs(3600))
}

/// Lists of the Admin API: a route with our plugin, guarded.
fn lists(ca: &Ca) -> Json {
    let plugin = |number: u8, name: &str, config: Json| {
        json!({
            "id": format!("aaaaaaaa-0000-4000-8000-{number:012}"), "name": name, "enabled": true, "config": config,
            "consumer": null, "service": null, "route": {"id": "aaaaaaaa-0000-4000-8000-000000000001"},
            "protocols": ["grpc", "grpcs", "http", "https"],
        })
    };
    json!({
        "routes": [{
            "id": "aaaaaaaa-0000-4000-8000-000000000001", "name": "pay", "snis": null, "protocols": ["http", "https"],
            "service": null,
        }],
        "plugins": [
            plugin(2, "mtls-auth", json!({"ca_certificates": [ca.pem()]})),
            plugin(3, "post-function", json!({"access": [include_str!("../src/guard/guard.lua")]})),
        ],
    })
}

/// A Kong with this to say of itself.
struct Kong {
    status: u16,
    version: &'static str,
    configuration: Json,
    /// Seconds that its clock is ahead of ours.
    ahead: i64,
    lists: Json,
}

impl Kong {
    fn new(prefix: &Prefix) -> Self {
        let (version, configuration) = ("3.9.1", configuration(prefix));
        Self { status: 200, version, configuration, ahead: 0, lists: lists(&ca(400)) }
    }

    async fn start(self) -> FakeAdmin {
        FakeAdmin::start(move |seen| {
            if seen.target != "/" {
                return kong_of(&self.lists, None, seen);
            }
            let ahead = Duration::from_secs(self.ahead.unsigned_abs());
            let now = SystemTime::now();
            let shown = if self.ahead < 0 { now - ahead } else { now + ahead };
            node(self.status, self.version, &self.configuration, &httpdate::fmt_http_date(shown))
        })
        .await
    }
}

fn shim_config(prefix: &Prefix, key: &str, more: &str) -> std::path::PathBuf {
    let key = prefix.path(key).display().to_string();
    prefix.write("shim.yml", &format!("listen: [\"127.0.0.1:0\"]\nproof_key_file: {key}\n{more}\n"))
}

fn write_key(path: &Path, mode: u32) {
    std::fs::write(path, "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=\n").unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// Its status, and what it printed.
fn doctor(prefix: &Prefix, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(BINARY);
    command.args(["doctor", "--kong-prefix"]).arg(prefix.dir.path()).args(arguments);
    let Output { status, stdout, stderr } = command.output().unwrap();
    (status.code(), String::from_utf8(stdout).unwrap() + &String::from_utf8(stderr).unwrap())
}

/// The lines on one matter.
fn on<'a>(said: &'a str, what: &str) -> Vec<&'a str> {
    let is_on = |line: &&str| line.get(6..).is_some_and(|rest| rest.starts_with(&format!("{what}: ")));
    said.lines().filter(is_on).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn where_all_is_well_each_line_is_ok() {
    let prefix = Prefix::new();
    let server = prefix.serve(&[]);
    let admin = Kong::new(&prefix).start().await;
    let shim =
        shim_config(&prefix, "mtls-auth.key", &format!("plugin_server: {}", prefix.socket().display()));
    let arguments = ["--admin-url", &admin.url, "--shim-config", shim.to_str().unwrap()];
    let (code, said) = doctor(&prefix, &arguments);
    assert_eq!(code, Some(0), "{said}");
    let what: Vec<_> = said.lines().map(|line| line.split_once(": ").unwrap().0).collect();
    assert_eq!(
        what,
        [
            "OK    kong",
            "OK    Kong's version",
            "OK    clock",
            "OK    kong.conf",
            "OK    protocol",
            "OK    header buffers",
            "OK    trusted_ips",
            "OK    proxy_listen",
            "OK    socket",
            "OK    plugin server",
            "OK    proof key",
            "OK    the server's proof key",
            "OK    the shim's proof key",
            "OK    the shim's socket",
            "OK    guard",
            "OK    CAs",
        ],
        "{said}"
    );
    assert!(on(&said, "plugin server")[0].contains(&format!("process {} answers", server.id())), "{said}");
    assert!(on(&said, "CAs")[0].contains("\"CN=clients\""), "{said}");

    let (code, told) = doctor(&prefix, &[&arguments[..], &["--json"]].concat());
    let told: Json = serde_json::from_str(&told).unwrap();
    assert_eq!((code, &told["verdict"]), (Some(0), &json!("OK")));
    assert_eq!(told["findings"].as_array().unwrap().len(), what.len());
    assert_eq!(told["findings"][4]["what"], "protocol");
    // Nothing of the key but its fingerprint is told.
    let key = std::fs::read_to_string(prefix.path("mtls-auth.key")).unwrap();
    assert!(!said.contains(key.trim()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_in_order_with_kong_is_said_with_what_to_do() {
    let prefix = Prefix::new();
    let _server = prefix.serve(&[]);
    type Break = fn(&mut Kong);
    let table: &[(Break, &str, &str, i32)] = &[
        (|kong| kong.version = "3.6.1", "Kong's version", "FAIL  Kong's version: 3.6.1", 1),
        (|kong| kong.version = "3.8.0", "Kong's version", "WARN  Kong's version: 3.8.0", 0),
        (|kong| kong.ahead = -60, "clock", "FAIL  clock: at least ", 1),
        (|kong| kong.ahead = 60, "clock", "FAIL  clock: at least ", 1),
        (|kong| kong.ahead = 4, "clock", "WARN  clock: at least ", 0),
        (
            |kong| kong.configuration["nginx_proxy_directives"] = json!({}),
            "header buffers",
            "WARN  header buffers: 4 8k (nginx's default): ",
            0,
        ),
        (|kong| kong.configuration["trusted_ips"] = json!({}), "trusted_ips", "WARN  trusted_ips: empty", 0),
        (
            |kong| kong.configuration["proxy_listen"] = json!(["0.0.0.0:8000 reuseport"]),
            "proxy_listen",
            "WARN  proxy_listen: \"0.0.0.0:8000 reuseport\" is a plain port on every address",
            0,
        ),
        (|kong| kong.configuration["pluginservers"] = json!([]), "protocol", "FAIL  protocol: ", 1),
        (
            |kong| kong.configuration["pluginservers"][0]["protocol"] = "MsgPack:1".into(),
            "protocol",
            "WARN  protocol: Kong is told to speak MsgPack:1",
            0,
        ),
        (
            |kong| {
                kong.configuration["pluginservers"][0]["protocol"] = Json::Null;
                kong.configuration["pluginservers"][0]["query_command"] = "/opt/mtls-auth.sh".into();
            },
            "protocol",
            "WARN  protocol: not looked at: ",
            0,
        ),
        (
            |kong| kong.configuration["pluginservers"][0]["socket"] = "/nowhere/mtls-auth.socket".into(),
            "socket",
            "FAIL  socket: Kong looks for the server at /nowhere/mtls-auth.socket",
            1,
        ),
        // Unguarded: as bad as what Kong does then.
        (|kong| drop(plugins(kong).pop()), "guard", "WARN  guard: missing for mtls-auth on route pay", 0),
        (
            |kong| {
                plugins(kong).pop();
                kong.configuration["pluginservers"][0]["protocol"] = "MsgPack:1".into();
            },
            "guard",
            "FAIL  guard: missing for mtls-auth on route pay",
            1,
        ),
        (
            |kong| {
                plugins(kong).pop();
                kong.version = "3.7.1";
            },
            "guard",
            "FAIL  guard: missing for mtls-auth on route pay",
            1,
        ),
        (|kong| plugins(kong).clear(), "guard", "WARN  guard: no mtls-auth is enabled", 0),
        (|kong| kong.lists = lists(&ca(29)), "CAs", "WARN  CAs: \"CN=clients\" ends in 29 days: ", 0),
        (
            |kong| {
                kong.lists = lists(&Ca::root_until("clients", SystemTime::now() - Duration::from_secs(60)))
            },
            "CAs",
            "FAIL  CAs: \"CN=clients\" has ended: ",
            1,
        ),
        (
            |kong| plugins(kong)[0]["config"]["ca_certificates"] = json!(["-----BEGIN x"]),
            "configuration",
            "FAIL  configuration: of the mtls-auth on route pay: config.ca_certificates[0]: ",
            1,
        ),
    ];
    for (broken, what, says, code) in table {
        let mut kong = Kong::new(&prefix);
        broken(&mut kong);
        let admin = kong.start().await;
        let (found, said) = doctor(&prefix, &["--admin-url", &admin.url]);
        let lines = on(&said, what);
        let line = lines.last().unwrap_or_else(|| panic!("{says}: {said}"));
        assert!(line.starts_with(says) && line.contains("; "), "{says}: {said}");
        assert_eq!(found, Some(*code), "{says}: {said}");
    }
}

fn plugins(kong: &mut Kong) -> &mut Vec<Json> {
    kong.lists["plugins"].as_array_mut().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_looked_at_is_said_and_what_can_be_is() {
    let prefix = Prefix::new();
    let _server = prefix.serve(&[]);
    // An Admin API that is none: nothing behind it is taken for well.
    let none = FakeAdmin::start(|_| testbed::fake_admin::not_found()).await;
    let (code, said) = doctor(&prefix, &["--admin-url", &none.url]);
    assert_eq!(code, Some(1), "{said}");
    assert!(on(&said, "kong")[0].starts_with("FAIL  kong: ") && said.contains("404"), "{said}");
    for what in ["Kong's version", "clock", "kong.conf", "guard", "CAs"] {
        assert!(on(&said, what)[0].contains("not looked at: "), "{what}: {said}");
    }
    assert!(on(&said, "plugin server")[0].starts_with("OK "), "{said}");

    // Kong 3.9.1 cannot say how it is set up where it has started the server; it has written it down.
    let mut kong = Kong::new(&prefix);
    (kong.status, kong.version) = (500, "3.6.0");
    let admin = kong.start().await;
    let arguments = ["--admin-url", &admin.url];
    let (_, said) = doctor(&prefix, &arguments);
    assert!(on(&said, "Kong's version")[0].starts_with("FAIL  Kong's version: 3.6.0"), "{said}");
    assert!(on(&said, "clock")[0].starts_with("OK "), "{said}");
    assert!(on(&said, "kong.conf")[0].starts_with("WARN  kong.conf: not looked at: "), "{said}");
    assert!(on(&said, "header buffers").is_empty(), "{said}");
    let settings = "pluginserver_names = mtls-auth\npluginserver_mtls_auth_query_cmd = mtls-auth -dump\n";
    prefix.write(".kong_env", settings);
    let (_, said) = doctor(&prefix, &arguments);
    assert!(on(&said, "kong.conf")[0].starts_with("OK "), "{said}");
    assert_eq!(on(&said, "protocol"), ["OK    protocol: Kong is told to speak MsgPack:1"]);
    assert!(on(&said, "header buffers")[0].starts_with("WARN "), "{said}");

    // A file that is named counts more.
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("../kong-conf/kong.conf");
    let (code, said) = doctor(&prefix, &["--kong-conf", sample.to_str().unwrap()]);
    assert_eq!(code, Some(0), "{said}");
    for what in ["protocol", "header buffers", "trusted_ips", "proxy_listen"] {
        assert!(on(&said, what)[0].starts_with("OK "), "{said}");
    }
    for what in ["kong", "Kong's version", "clock", "guard", "CAs"] {
        assert!(on(&said, what)[0].starts_with(&format!("WARN  {what}: not looked at: ")), "{said}");
    }
    let (code, said) = doctor(&prefix, &["--kong-conf", "/nowhere"]);
    assert!(code == Some(1) && on(&said, "kong.conf")[0].starts_with("FAIL "), "{said}");
}

#[test]
fn a_declarative_file_is_looked_at_as_the_server_does() {
    let prefix = Prefix::new();
    let _server = prefix.serve(&[]);
    let id = "6ae7a1a4-0cf0-4b6a-9d3f-3f7c5a0b1c2d";
    let guard = include_str!("../src/guard/guard.lua");
    let file = |cas: Json| {
        let file = json!({
            "_format_version": "3.0",
            "ca_certificates": cas,
            "routes": [{"name": "pay", "paths": ["/"], "plugins": [
                {"name": "mtls-auth", "config": {"ca_certificates": [id]}},
                {"name": "post-function", "config": {"access": [guard]}},
            ]}],
        });
        prefix.write("kong.json", &file.to_string())
    };
    let path = file(json!([{"id": id, "cert": ca(3).pem()}]));
    let arguments = ["--declarative-config", path.to_str().unwrap()];
    let (code, said) = doctor(&prefix, &arguments);
    assert_eq!(code, Some(0), "{said}");
    assert!(on(&said, "kong")[0].starts_with("OK ") && on(&said, "guard")[0].starts_with("OK "), "{said}");
    assert!(on(&said, "CAs")[0].starts_with("WARN  CAs: \"CN=clients\" ends in 3 days"), "{said}");
    assert!(on(&said, "clock")[0].contains("not looked at"), "{said}");
    file(json!([]));
    let (code, said) = doctor(&prefix, &arguments);
    assert!(
        code == Some(1) && on(&said, "configuration")[0].contains("no CA certificate with the id"),
        "{said}"
    );
    // As the server's own file of options names it.
    let options = prefix.write("options.yml", &format!("declarative_config: {}", path.display()));
    assert_eq!(doctor(&prefix, &["--config", options.to_str().unwrap()]).1, said);
    prefix.write("kong.json", "{");
    let (code, said) = doctor(&prefix, &arguments);
    assert!(code == Some(1) && on(&said, "kong")[0].starts_with("FAIL "), "{said}");
    assert!(on(&said, "guard")[0].contains("not looked at"), "{said}");
}

#[test]
fn the_server_its_socket_and_its_key_are_looked_at() {
    let prefix = Prefix::new();
    let (code, said) = doctor(&prefix, &[]);
    assert_eq!(code, Some(1));
    for what in ["socket", "plugin server", "proof key"] {
        assert!(on(&said, what)[0].starts_with(&format!("FAIL  {what}: ")), "{said}");
    }
    prefix.write("mtls-auth.socket", "");
    assert!(on(&doctor(&prefix, &[]).1, "socket")[0].contains("is no socket"));
    std::fs::remove_file(prefix.socket()).unwrap();

    let server = prefix.serve(&[]);
    let key = prefix.path("mtls-auth.key");
    let says = |what: &str, starts: &str| {
        let (_, said) = doctor(&prefix, &[]);
        assert!(on(&said, what)[0].starts_with(starts), "{starts}: {said}");
    };
    let mode = |path: &Path, mode| std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    says("socket", "OK    socket: ");
    mode(&prefix.socket(), 0o666);
    says("socket", "WARN  socket: ");
    mode(&prefix.socket(), 0o660);
    mode(&key, 0o644);
    says("proof key", "FAIL  proof key: ");
    says("the server's proof key", "WARN  the server's proof key: not looked at");
    mode(&key, 0o640);
    says("proof key", "OK    proof key: ");
    says("the server's proof key", "OK    the server's proof key: ");
    // Another one than the server has begun with.
    write_key(&key, 0o600);
    says(
        "the server's proof key",
        "FAIL  the server's proof key: the plugin server that answers has another one",
    );
    drop(server);
    says("plugin server", "FAIL  plugin server: no answer");

    for (answer, what, starts) in [
        // An older server, of ours or another's.
        (
            &b"\x94\x01\x01\xc0\x81\xa3Pid\x07"[..],
            "plugin server",
            "WARN  plugin server: process 7 answers, version unknown",
        ),
        (
            b"\x94\x01\x01\xc0\x81\xa3Pid\x07",
            "the server's proof key",
            "WARN  the server's proof key: not looked at",
        ),
        (b"\x94\x01\x01\xa1x\xc0", "plugin server", "FAIL  plugin server: "),
        (b"\x94\x01\x01\xa1x\x81\xa3Pid\x07", "plugin server", "FAIL  plugin server: "),
        (b"\x94\x01\x02\xc0\x81\xa3Pid\x07", "plugin server", "FAIL  plugin server: "),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "plugin server", "FAIL  plugin server: "),
        (b"", "plugin server", "FAIL  plugin server: "),
    ] {
        let _ = std::fs::remove_file(prefix.socket());
        let listener = UnixListener::bind(prefix.socket()).unwrap();
        let answering = std::thread::spawn(move || {
            let (mut connection, _) = listener.accept().unwrap();
            assert!(connection.read(&mut [0; 256]).unwrap() > 0);
            connection.write_all(answer).unwrap();
        });
        says(what, starts);
        answering.join().unwrap();
    }
}

#[test]
fn the_shims_key_and_socket_have_to_be_the_servers() {
    let prefix = Prefix::new();
    let _server = prefix.serve(&[]);
    let says = |config: &Path, what: &str, starts: &str| {
        let (_, said) = doctor(&prefix, &["--shim-config", config.to_str().unwrap()]);
        let line = on(&said, what);
        assert!(line.first().is_some_and(|line| line.starts_with(starts)), "{starts}: {said}");
    };
    let socket = format!("plugin_server: {}", prefix.socket().display());
    write_key(&prefix.path("other.key"), 0o600);
    says(&shim_config(&prefix, "other.key", &socket), "the shim's proof key", "FAIL  the shim's proof key: ");
    write_key(&prefix.path("open.key"), 0o604);
    says(&shim_config(&prefix, "open.key", &socket), "the shim's proof key", "FAIL  the shim's proof key: ");
    // Another file with the same key.
    std::fs::copy(prefix.path("mtls-auth.key"), prefix.path("copy.key")).unwrap();
    says(&shim_config(&prefix, "copy.key", &socket), "the shim's proof key", "OK    the shim's proof key: ");

    says(
        &shim_config(&prefix, "copy.key", ""),
        "the shim's socket",
        "WARN  the shim's socket: plugin_server is not set",
    );
    let elsewhere = "plugin_server: /nowhere/mtls-auth.socket";
    says(&shim_config(&prefix, "copy.key", elsewhere), "the shim's socket", "FAIL  the shim's socket: ");
    // Another name for the same socket, and another server.
    std::os::unix::fs::symlink(prefix.socket(), prefix.path("link")).unwrap();
    std::fs::hard_link(prefix.socket(), prefix.path("second")).unwrap();
    for name in ["link", "second"] {
        let named = format!("plugin_server: {}", prefix.path(name).display());
        says(&shim_config(&prefix, "copy.key", &named), "the shim's socket", "OK    the shim's socket: ");
    }
    let other = Prefix::new();
    let _other: Process = other.serve(&[]);
    let named = format!("plugin_server: {}", other.socket().display());
    says(&shim_config(&prefix, "copy.key", &named), "the shim's socket", "FAIL  the shim's socket: ");

    says(&prefix.write("shim.yml", "listen: ["), "shim", "FAIL  shim: ");
    says(&prefix.path("absent.yml"), "shim", "FAIL  shim: ");
}

#[test]
fn a_command_line_that_contradicts_itself_is_2() {
    let prefix = Prefix::new();
    let options = prefix.write("options.yml", "declarative_config: a");
    let absent = prefix.path("absent");
    for (arguments, code) in [
        (&["--admin-url", "http://127.0.0.1:1", "--declarative-config", "a"][..], 2),
        (&["--admin-url", "http://127.0.0.1:1", "--config", options.to_str().unwrap()], 2),
        (&["--admin-ca-file", "a"], 2),
        (&["--nonsense"], 2),
        (&["--config", absent.to_str().unwrap()], 1),
        (&["--admin-url", "http://127.0.0.1:1", "--admin-token-file", absent.to_str().unwrap()], 1),
    ] {
        let (found, said) = doctor(&prefix, arguments);
        assert_eq!(found, Some(code), "{arguments:?}: {said}");
    }
}
