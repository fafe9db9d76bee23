//! The built server with Kong's side of ProtoBuf:1: as recorded, and as played by the test.

mod common;

use std::io::Write;
use std::process::Command;
use std::time::SystemTime;

use client_cert::{Presented, Proof, ProofKey};
use common::protobuf::{self, CLOSE_INSTANCE, Connection, Field, HANDLE_EVENT, bytes, number, table};
use common::{BINARY, Prefix};
use kong_double::recording::{Direction, Recording};
use serde_json::{Value as Json, json};
use testbed::pki::{Ca, Subject};

const CA_ID: &str = "6ae7a1a4-0cf0-4b6a-9d3f-3f7c5a0b1c2d";
const CONFIG: &str = r#"{"certificate_source": "shim", "consumer_by": ["username"], "ca_certificates":
    ["6ae7a1a4-0cf0-4b6a-9d3f-3f7c5a0b1c2d"], "__seq__": 1, "__plugin_id": "x"}"#;

/// A prefix with a declarative file that has this CA and the consumer `alice`.
fn prefix(ca: &Ca) -> (Prefix, [String; 2]) {
    let prefix = Prefix::new();
    let file = json!({
        "_format_version": "3.0",
        "ca_certificates": [{"id": CA_ID, "cert": ca.pem()}],
        "consumers": [{"username": "alice"}],
    });
    let path = prefix.write("kong.json", &file.to_string());
    (prefix, ["--declarative-config".into(), path.to_str().unwrap().into()])
}

/// Runs the access phase with a certificate of `alice`, which passes.
fn passes(kong: &mut Connection, instance: u64, prefix: &Prefix, ca: &Ca) {
    let key = ProofKey::read_or_create(&prefix.path("mtls-auth.key")).unwrap();
    let presented = Presented { leaf: ca.issue(Subject::client("alice")).der, chain: vec![] };
    let proof = Proof::write(&key, &presented, "", SystemTime::now());
    let headers = [("client-cert", &*presented.leaf_header()), ("client-cert-proof", &proof), ("host", "x")];
    kong.begin(instance);
    kong.answers("kong.request.get_headers", &table(&headers));
    kong.answers("kong.service.request.set_headers", b"");
    kong.answers("kong.client.authenticate", b"");
    assert_eq!(kong.read(), b"");
    assert_eq!(protobuf::fields(&kong.reply()).unwrap().len(), 1, "the sequence and nothing else");
}

#[test]
fn the_info_names_the_protocol_that_was_asked_for_and_is_the_same_otherwise() {
    let dump = |args: &[&str]| Command::new(BINARY).args(args).env_clear().output().unwrap();
    let info = |args: &[&str]| -> Json { serde_json::from_slice(&dump(args).stdout).unwrap() };
    let mut protobuf = info(&["-dump", "--protocol", "protobuf"]);
    assert_eq!(protobuf["Protocol"], "ProtoBuf:1");
    assert_eq!(info(&["--protocol=protobuf", "--dump"]), protobuf);
    let msgpack = info(&["-dump", "--protocol", "msgpack"]);
    assert_eq!(info(&["-dump"]), msgpack);
    assert_eq!(protobuf["Plugins"][0]["Phases"], json!(["access"]));
    protobuf["Protocol"] = json!("MsgPack:1");
    // What there is to do in a handshake, ProtoBuf:1 has no calls for.
    protobuf["Plugins"][0]["Phases"] = json!(["certificate", "access"]);
    assert_eq!(protobuf, msgpack);
    // The server itself speaks both, so without -dump the option would do nothing.
    let nowhere = ["-kong-prefix", "/nowhere", "--protocol", "protobuf"];
    for (args, says) in [(&["-dump", "--protocol", "json"][..], "msgpack, protobuf"), (&nowhere, "--dump")] {
        let output = dump(args);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && output.stdout.is_empty() && said.contains(says), "{said}");
    }
}

/// Kong's recorded calls, as they came: each is understood, and none lets a request pass, for they are all of another
/// server's plugin and instances.
#[test]
fn recorded_calls_are_all_understood_and_none_is_let_pass() {
    let prefix = Prefix::new();
    let server = prefix.serve(&[]);
    let mut stream = Vec::new();
    for chunk in Recording::load("08").chunks {
        if chunk.dir == Direction::KongToServer {
            stream.extend(chunk.bytes);
        }
    }
    let (mut starts, mut closes, mut events, mut answers) = (0, 0, 0, 0);
    let mut rest = &stream[..];
    while let Some((length, behind)) = rest.split_first_chunk() {
        let (frame, behind) = behind.split_at(u32::from_le_bytes(*length) as usize);
        rest = behind;
        // Between the calls are the answers to the PDK calls of the recorded server.
        let call = protobuf::fields(frame).unwrap_or_default();
        let [Field::Number(1, sequence), Field::Bytes(command, _)] = &call[..] else {
            answers += 1;
            continue;
        };
        let mut kong = prefix.connect_protobuf();
        kong.write(frame);
        match *command {
            protobuf::START_INSTANCE => {
                server.wait_for("this server has no plugin \\\"go-hello\\\"");
                assert!(kong.is_closed());
                starts += 1;
            }
            CLOSE_INSTANCE => {
                assert_eq!(kong.read(), number(1, *sequence));
                closes += 1;
            }
            HANDLE_EVENT => {
                let (method, argument) = kong.call();
                assert!(method.starts_with("no plugin instance #") && argument.is_empty(), "{method}");
                events += 1;
            }
            other => panic!("a recorded call with the number {other}"),
        }
    }
    assert!(rest.is_empty());
    assert_eq!((starts, closes, events), (2, 1, 9));
    assert!(answers > 30, "{answers}");
}

#[test]
fn a_certificate_passes_with_four_writes_of_kongs() {
    let ca = Ca::root("root");
    let (prefix, args) = prefix(&ca);
    let _server = prefix.serve(&args.each_ref().map(String::as_str));
    let mut kong = prefix.connect_protobuf();
    let instance = kong.start(CONFIG);
    assert!((1..1 << 31).contains(&instance), "{instance} is no id for an int32");
    for _ in 0..3 {
        kong.writes = 0;
        passes(&mut kong, instance, &prefix, &ca);
        assert_eq!(kong.writes, 4);
    }
    // A refusal is three: the call, the headers, the line in the log. The answer to the client is the end.
    kong.writes = 0;
    kong.begin(instance);
    kong.answers("kong.request.get_headers", b"");
    let line = kong.answers("kong.log.notice", b"");
    assert_eq!(line, bytes(1, bytes(3, "[mtls-auth] refused: no_certificate")));
    let (method, argument) = kong.call();
    assert_eq!((method.as_str(), &argument[..3]), ("kong.response.exit", &[0x08, 0x91, 0x03][..]), "a 401");
    assert_eq!(kong.writes, 3);
}

#[test]
fn one_socket_serves_both_protocols_and_what_is_wrong_on_one_connection_harms_no_other() {
    let ca = Ca::root("root");
    let (prefix, args) = prefix(&ca);
    let server = prefix.serve(&args.each_ref().map(String::as_str));
    let mut msgpack = prefix.connect();
    let mut kong = prefix.connect_protobuf();
    let instance = kong.start(CONFIG);
    // An event that waits for its answer all the while.
    let mut waiting = prefix.connect_protobuf();
    waiting.begin(instance);
    let (method, _) = waiting.call();
    assert_eq!(method, "kong.request.get_headers");
    let bad: [(&[u8], &str); 4] = [
        (b"\x01\x00\x00\x00\xff", "not a call"),
        (b"\x02\x00\x00\x00\x08\x01", "no command"),
        (b"\x94\x00\x00\x00\x08\x01", "in the middle of a frame"),
        (b"\xff\xff\xff\xff\x08\x01", "not an array"),
    ];
    for (content, says) in bad {
        let mut connection = prefix.connect_protobuf();
        connection.stream.write_all(content).unwrap();
        connection.stream.shutdown(std::net::Shutdown::Write).unwrap();
        server.wait_for(says);
        assert!(connection.is_closed(), "{says}");
        msgpack.ok("plugin.GetStatus", json!({}));
        passes(&mut kong, instance, &prefix, &ca);
    }
    // On a connection that is used already, more than any call may have.
    let mut connection = prefix.connect_protobuf();
    passes(&mut connection, instance, &prefix, &ca);
    connection.stream.write_all(b"\xff\xff\xff\xff").unwrap();
    server.wait_for("a frame of 4294967295 bytes");
    assert!(connection.is_closed());
    waiting.write(b"");
    waiting.answers("kong.log.notice", b"");
    assert_eq!(waiting.call().0, "kong.response.exit");
}

#[test]
fn an_instance_of_a_server_that_died_is_not_known_to_the_next() {
    let ca = Ca::root("root");
    let (prefix, args) = prefix(&ca);
    let args = args.each_ref().map(String::as_str);
    let mut server = prefix.serve(&args);
    let first = prefix.connect_protobuf().start(CONFIG);
    server.signal("KILL");
    server.wait();
    let _server = prefix.serve(&args);
    let mut kong = prefix.connect_protobuf();
    let second = kong.start(CONFIG);
    assert_ne!(first, second);
    kong.begin(first);
    assert_eq!(kong.call(), (format!("no plugin instance #{first}"), Vec::new()));
    // What Kong does then: all of it again, on another connection.
    let mut kong = prefix.connect_protobuf();
    let third = kong.start(CONFIG);
    passes(&mut kong, third, &prefix, &ca);
    assert_eq!(kong.instance(CLOSE_INSTANCE, &number(1, second)), Some(second));
    assert_eq!(kong.instance(CLOSE_INSTANCE, &number(1, second)), None);
}

#[test]
fn a_leaving_server_finishes_the_event_that_runs() {
    let prefix = Prefix::new();
    let mut server = prefix.serve(&["--log-level", "debug"]);
    let mut kong = prefix.connect_protobuf();
    let instance = kong.start(
        &CONFIG
            .replace(CA_ID, &Ca::root("root").pem().replace('\n', "\\n"))
            .replace("\"__seq__\"", "\"skip_consumer_lookup\": true, \"__seq__\""),
    );
    kong.begin(instance);
    let (method, _) = kong.call();
    assert_eq!(method, "kong.request.get_headers");
    server.signal("TERM");
    server.wait_for("leaving");
    kong.write(b"");
    kong.answers("kong.log.notice", b"");
    assert_eq!(kong.call().0, "kong.response.exit");
    // Kong leaves the connection, and the server waits for that, for a while.
    drop(kong);
    assert!(server.wait().success());
}
