//! The built server by itself: how it starts, what it refuses, how it leaves.

mod common;

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use common::{BINARY, Prefix};
use serde_json::{Value as Json, json};
use testbed::crl::OpensslCa;
use testbed::disk::Disk;
use testbed::pki::Ca;
use testbed::process::{PATIENCE, Process, fill, keeps_to_itself, laxly, on_one_core};

const DECLARATIVE: &str = "_format_version: '3.0'\nconsumers: [{username: alice}]\n";

fn config(ca: &Ca, extra: Json) -> Json {
    let mut config = json!({
        "certificate_source": "shim", "ca_certificates": [ca.pem()], "skip_consumer_lookup": true, "__seq__": 1,
    });
    config.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    json!({"Name": "mtls-auth", "Config": config.to_string()})
}

#[test]
fn the_info_is_printed_for_kongs_query_command_and_its_cousins() {
    let dump = |args: &[&str]| Command::new(BINARY).args(args).env_clear().output().unwrap();
    let output = dump(&["-dump"]);
    assert!(output.status.success() && output.stderr.is_empty());
    let info: Json = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(info["Protocol"], "MsgPack:1");
    let plugin = &info["Plugins"][0];
    assert_eq!(
        (&plugin["Name"], &plugin["Priority"], &plugin["Phases"]),
        (&json!("mtls-auth"), &json!(1600), &json!(["certificate", "access"]))
    );
    assert_eq!(plugin["Schema"]["name"], "mtls-auth");
    for args in [&["--dump"][..], &["-kong-prefix", "/nowhere", "-dump"]] {
        assert_eq!(dump(args).stdout, output.stdout, "{args:?}");
    }
}

#[test]
fn its_version_says_which_commit_and_library_it_is_built_from() {
    let said = Command::new(env!("CARGO_BIN_EXE_mtls-auth")).arg("--version").output().unwrap();
    let expected = format!("mtls-auth {}\n", command_line::version(openssl::version::version()));
    assert_eq!(String::from_utf8(said.stdout).unwrap(), expected);
}

#[test]
fn it_serves_from_an_empty_environment_and_makes_its_key() {
    let prefix = Prefix::new();
    let mut server = prefix.serve(&[]);
    let status = prefix.connect().ok("plugin.GetStatus", json!({}));
    assert_eq!(status["Pid"], server.id());
    let mode = |name| std::fs::metadata(prefix.path(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("mtls-auth.key"), mode("mtls-auth.socket")), (0o600, 0o660));
    server.signal("TERM");
    assert!(server.wait().success());
}

#[test]
fn it_keeps_its_memory_and_its_files_to_itself_however_it_is_started() {
    let prefix = Prefix::new();
    let server = Process::start(&mut laxly(&prefix.command(&[])));
    server.wait_for("serving");
    keeps_to_itself(server.id());
    let mode = |name| std::fs::metadata(prefix.path(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("mtls-auth.key"), mode("mtls-auth.socket")), (0o600, 0o660));
}

#[test]
fn a_log_that_cannot_be_written_ends_nothing() {
    let prefix = Prefix::new();
    let leaves = |mut server: Child| {
        prefix.connect().ok("plugin.GetStatus", json!({}));
        let sent = Command::new("kill").arg(server.id().to_string()).status().unwrap();
        assert!(sent.success());
        assert!(server.wait().unwrap().success());
    };
    // Whoever read it has gone, as a worker of Kong does on reload.
    let mut server = prefix.command(&[]).env_clear().stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(server.stderr.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.contains("\"serving\""), "{line}");
    leaves(server);
    let leaves_once_it_serves = |stderr: Stdio| {
        std::fs::remove_file(prefix.socket()).unwrap();
        let server = prefix.command(&[]).env_clear().stdout(Stdio::null()).stderr(stderr).spawn().unwrap();
        let begun = Instant::now();
        while UnixStream::connect(prefix.socket()).is_err() {
            assert!(begun.elapsed() < PATIENCE, "it does not serve");
            std::thread::yield_now();
        }
        leaves(server);
    };
    // The disk is full.
    leaves_once_it_serves(File::options().write(true).open("/dev/full").unwrap().into());
    // Nobody reads it.
    let (log, _reader) = UnixStream::pair().unwrap();
    fill(&log);
    leaves_once_it_serves(OwnedFd::from(log).into());
}

#[test]
fn no_request_waits_for_a_disk_that_hangs() {
    let prefix = Prefix::new();
    let ca = Ca::root("root");
    let disk = Disk::new(prefix.dir.path());
    let kong = prefix.write("kong.yml", DECLARATIVE);
    let crls = prefix
        .write("crls.pem", &OpensslCa::new(prefix.dir.path(), &ca).list(Some(1), "", &["-crldays", "1"]));
    let args = ["--declarative-config", kong.to_str().unwrap(), "--crl-path", crls.to_str().unwrap()];
    let server = Process::start(&mut on_one_core(&disk.on(&prefix.command(&args))));
    server.wait_for("serving");
    let mut kept = prefix.connect();
    let instance = kept.start_instance(&ca);

    // The looks at the socket's names, at Kong's file and at the CRLs.
    disk.hang(3);
    kept.begin_event(&instance);
    prefix.connect().begin_event(&instance);
    disk.recover();
    std::fs::remove_file(prefix.socket()).unwrap();
    server.wait_for("somebody removed the socket: it is bound anew");
}

#[test]
fn the_options_file_stands_in_for_the_command_line_which_wins() {
    let prefix = Prefix::new();
    let key = prefix.path("other.key");
    let text = format!("socket: /nowhere/socket\nproof_key_file: {}\nlog_level: warn\n", key.display());
    let file = prefix.write("mtls-auth.yml", &text);
    let socket = prefix.socket();
    let args =
        ["--config", file.to_str().unwrap(), "--socket", socket.to_str().unwrap(), "--log-level", "info"];
    let _server = prefix.serve(&args);
    prefix.connect().ok("plugin.GetStatus", json!({}));
    assert!(key.exists() && !prefix.path("mtls-auth.key").exists());
}

#[test]
fn what_is_missing_or_wrong_at_start_is_named_and_nothing_is_served() {
    let prefix = Prefix::new();
    let empty = prefix.write("empty", "");
    let broken = prefix.write("broken.yml", "_format_version: '3.0'\nconsumers: 7\n");
    let options = prefix.write("options.yml", "sockets: /tmp/x\n");
    let readable = prefix.write("readable.key", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=");
    std::fs::set_permissions(&readable, std::fs::Permissions::from_mode(0o644)).unwrap();
    let absent = prefix.path("absent/file");
    for (option, file, says) in [
        ("--declarative-config", &absent, "No such file"),
        ("--declarative-config", &empty, "empty"),
        ("--declarative-config", &broken, "line 2"),
        ("--proof-key-file", &empty, "empty"),
        ("--proof-key-file", &broken, "base64"),
        ("--proof-key-file", &readable, "0644"),
        ("--proof-key-file", &absent, "No such file"),
        ("--config", &absent, "No such file"),
        ("--config", &empty, "empty"),
        ("--config", &options, "sockets"),
        ("--socket", &absent, "No such file"),
    ] {
        // An empty key that others may read is both; the test is about what is in it.
        if file == &empty || file == &broken {
            std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o600)).unwrap();
        }
        let output = prefix.command(&[option, file.to_str().unwrap()]).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success(), "{option} {}", file.display());
        assert!(said.contains(file.to_str().unwrap()) && said.contains(says), "{option}: {said}");
        assert!(!prefix.socket().exists(), "{option} {}", file.display());
    }
}

#[test]
fn an_instance_is_started_asked_for_and_closed() {
    let prefix = Prefix::new();
    let _server = prefix.serve(&[]);
    let mut kong = prefix.connect();
    let ca = Ca::root("root");
    let started = kong.ok("plugin.StartInstance", config(&ca, json!({})));
    let id = started["Id"].clone();
    assert_eq!(kong.ok("plugin.InstanceStatus", id.clone())["Id"], id);
    // On any connection: instances belong to none.
    let mut other = prefix.connect();
    assert_eq!(other.ok("plugin.CloseInstance", id.clone())["Id"], id);
    for (method, arg) in [
        ("plugin.InstanceStatus", id.clone()),
        ("plugin.CloseInstance", id.clone()),
        ("plugin.HandleEvent", json!({"InstanceId": id, "EventName": "access"})),
    ] {
        let (error, result) = other.call(method, arg);
        assert_eq!((error, result), (json!(format!("no plugin instance #{id}")), Json::Null), "{method}");
    }
}

#[test]
fn a_configuration_that_is_wrong_does_not_start_and_the_field_is_named() {
    let prefix = Prefix::new();
    let file = prefix.write("kong.yml", DECLARATIVE);
    let _server = prefix.serve(&["--declarative-config", file.to_str().unwrap()]);
    let mut kong = prefix.connect();
    let ca = Ca::root("root");
    for (extra, says) in [
        (json!({"ca_certificates": []}), "config.ca_certificates: at least one"),
        (
            json!({"ca_certificates": ["6ae7a1a4-0cf0-4b6a-9d3f-3f7c5a0b1c2d"]}),
            "config.ca_certificates[0]: there is no",
        ),
        (json!({"bogus": 1}), "unknown field `bogus`"),
    ] {
        let (error, result) = kong.call("plugin.StartInstance", config(&ca, extra));
        assert!(error.as_str().unwrap().contains(says), "{error}");
        assert_eq!(result, Json::Null);
    }
    let (error, _) = kong.call("plugin.StartInstance", json!({"Name": "key-auth", "Config": "{}"}));
    assert!(error.as_str().unwrap().contains("key-auth"), "{error}");
}

/// Kong proxies a request whose event is answered with a string or with nothing.
#[test]
fn an_event_is_never_answered_with_what_kong_takes_for_leave_to_pass() {
    let prefix = Prefix::new();
    let _server = prefix.serve(&[]);
    let mut kong = prefix.connect();
    let id = kong.ok("plugin.StartInstance", config(&Ca::root("root"), json!({})))["Id"].clone();
    let refused = |result: &Json, status: u16| {
        assert_eq!(result["Data"]["Method"], "kong.response.error", "{result}");
        assert_eq!(result["Data"]["Args"][0], status, "{result}");
    };

    // A step for an event that there is not.
    refused(&kong.ok("plugin.Step", json!({"EventId": 12345, "Data": "x"})), 500);

    // Answers that Kong never gives to the call for headers.
    for nonsense in [json!(null), json!(7), json!("x"), json!({"host": 7}), json!([["a"]])] {
        let (event, wants) = kong.begin_event(&id);
        assert_eq!(wants, json!({"Method": "kong.request.get_headers", "Args": [1000]}));
        let logged = kong.ok("plugin.StepMultiMap", json!({"EventId": event, "Data": nonsense}));
        assert_eq!(logged["Data"]["Method"], "kong.log.err");
        refused(&kong.ok("plugin.Step", json!({"EventId": event})), 500);
        // Nothing is left of it.
        refused(&kong.ok("plugin.Step", json!({"EventId": event})), 500);
    }

    // A phase that the plugin does not have.
    let (error, result) = kong.call("plugin.HandleEvent", json!({"InstanceId": id, "EventName": "log"}));
    assert!(error.is_object() && result.is_null(), "{error}");

    // No instance, as some versions of Kong ask when they could not start one.
    let (error, result) = kong.call("plugin.HandleEvent", json!({"EventName": "access"}));
    assert!(error.is_object() && result.is_null(), "{error}");

    // No headers at all: an empty Lua table may come as a list.
    let (event, _) = kong.begin_event(&id);
    let logged = kong.ok("plugin.StepMultiMap", json!({"EventId": event, "Data": []}));
    assert_eq!(logged["Data"], json!({"Method": "kong.log.notice", "Args": ["refused: no_certificate"]}));
    refused(&kong.ok("plugin.Step", json!({"EventId": event})), 401);
}

/// Kong runs this phase for each handshake of its own listener.
#[test]
fn a_handshake_asks_for_a_certificate_where_kong_itself_is_its_source() {
    let prefix = Prefix::new();
    let _server = prefix.serve(&[]);
    let mut kong = prefix.connect();
    let ca = Ca::root("root");
    let mut calls_of = |source: &str| {
        let id =
            kong.ok("plugin.StartInstance", config(&ca, json!({"certificate_source": source})))["Id"].clone();
        let mut calls = Vec::new();
        let mut step = kong.ok("plugin.HandleEvent", json!({"InstanceId": id, "EventName": "certificate"}));
        while step["Data"] != "ret" {
            assert_eq!(step["Data"]["Args"], json!([]));
            calls.push(step["Data"]["Method"].as_str().unwrap().to_owned());
            step = kong.ok("plugin.Step", json!({"EventId": step["EventId"], "Data": true}));
        }
        calls
    };
    assert_eq!(
        calls_of("tls"),
        ["kong.client.tls.request_client_certificate", "kong.client.tls.disable_session_reuse"]
    );
    assert!(calls_of("shim").is_empty());
}

#[test]
fn what_is_malformed_closes_its_connection_and_no_other() {
    let prefix = Prefix::new();
    let server = prefix.serve(&[]);
    let mut healthy = prefix.connect();
    let bad: [(&[u8], &str); 6] = [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "not an array"),
        (b"\xc1\xc1\xc1\xc1", "0xc1"),
        (b"\x94\x00\x01\xabplugin.Step\x91\x80", "without EventId"),
        (b"\x94\x00\x01\xdb\xff\xff\xff\xff", "a message of more than"),
        (b"\x94\x00\x01\xdd\xff\xff\xff\xff", "a message of more than"),
        (b"\x94\x00\x01\xa1x\xdd\x00\x01\x00\x00", "values"),
    ];
    for (bytes, says) in bad {
        let mut connection = prefix.connect();
        connection.stream.write_all(bytes).unwrap();
        server.wait_for(says);
        assert!(connection.is_closed(), "{says}");
        healthy.ok("plugin.GetStatus", json!({}));
    }
    // Cut off in the middle.
    let mut connection = prefix.connect();
    connection.stream.write_all(b"\x94\x00\x01").unwrap();
    drop(connection);
    server.wait_for("ends in the middle");
    healthy.ok("plugin.GetStatus", json!({}));
}
