//! A running `mtls-auth`, and a connection to it as Kong would have.

#![allow(dead_code, reason = "each test file uses its own part")]

pub(crate) mod played;
pub(crate) mod protobuf;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value as Json, json};
use tempfile::TempDir;
use testbed::pki::Ca;
use testbed::process::{PATIENCE, Process};

pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_mtls-auth");

/// A folder that stands for Kong's prefix, with what servers in it need.
pub(crate) struct Prefix {
    pub(crate) dir: TempDir,
}

impl Prefix {
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.path("mtls-auth.socket")
    }

    /// The names at the socket's path and of the servers' own.
    pub(crate) fn sockets(&self) -> Vec<String> {
        let names = std::fs::read_dir(self.dir.path()).unwrap().map(|entry| entry.unwrap().file_name());
        names.map(|name| name.into_string().unwrap()).filter(|name| name.contains(".socket")).collect()
    }

    pub(crate) fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    /// A command of the binary with this prefix.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(BINARY);
        command.arg("-kong-prefix").arg(self.dir.path()).args(args);
        command
    }

    /// A server that serves.
    pub(crate) fn serve(&self, args: &[&str]) -> Process {
        let process = Process::start(&mut self.command(args));
        process.wait_for("serving");
        process
    }

    pub(crate) fn connect(&self) -> Connection {
        self.connect_to(&self.socket())
    }

    /// A connection by a server's own name.
    pub(crate) fn connect_to(&self, socket: &Path) -> Connection {
        Connection { stream: stream(socket), received: Vec::new(), next_id: 0 }
    }

    pub(crate) fn connect_protobuf(&self) -> protobuf::Connection {
        protobuf::Connection::new(stream(&self.socket()))
    }
}

fn stream(socket: &Path) -> UnixStream {
    let stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// One of Kong's connections.
pub(crate) struct Connection {
    pub(crate) stream: UnixStream,
    received: Vec<u8>,
    next_id: u64,
}

impl Connection {
    /// Calls a method and gives the error and the result of the reply.
    pub(crate) fn call(&mut self, method: &str, arg: Json) -> (Json, Json) {
        self.next_id += 1;
        let request = rmp_serde::to_vec(&json!([0, self.next_id, method, [arg]])).unwrap();
        self.stream.write_all(&request).unwrap();
        let reply = self.reply();
        assert_eq!((&reply[0], &reply[1]), (&json!(1), &json!(self.next_id)), "{reply}");
        (reply[2].clone(), reply[3].clone())
    }

    /// Calls a method that must succeed.
    pub(crate) fn ok(&mut self, method: &str, arg: Json) -> Json {
        let (error, result) = self.call(method, arg);
        assert_eq!(error, Json::Null, "{method}");
        result
    }

    /// Has the server start an instance that trusts this CA, and gives its id.
    pub(crate) fn start_instance(&mut self, ca: &Ca) -> Json {
        let config = json!({
            "certificate_source": "shim", "ca_certificates": [ca.pem()], "skip_consumer_lookup": true, "__seq__": 1,
        });
        let arg = json!({"Name": "mtls-auth", "Config": config.to_string()});
        self.ok("plugin.StartInstance", arg)["Id"].clone()
    }

    /// The process that answers.
    pub(crate) fn pid(&mut self) -> Json {
        self.ok("plugin.GetStatus", json!({}))["Pid"].clone()
    }

    /// Begins an event of this instance; gives its id, and what it wants.
    pub(crate) fn begin_event(&mut self, instance: &Json) -> (Json, Json) {
        let begun = self.ok("plugin.HandleEvent", json!({"InstanceId": instance, "EventName": "access"}));
        (begun["EventId"].clone(), begun["Data"].clone())
    }

    /// The next reply, whatever it answers.
    pub(crate) fn reply(&mut self) -> Json {
        loop {
            let mut rest = &self.received[..];
            let mut deserializer = rmp_serde::Deserializer::new(&mut rest);
            if let Ok(reply) = <Json as serde::Deserialize>::deserialize(&mut deserializer) {
                let taken = self.received.len() - rest.len();
                self.received.drain(..taken);
                return reply;
            }
            let mut piece = [0; 4096];
            let read = self.stream.read(&mut piece).unwrap();
            assert!(read > 0, "the server closed the connection");
            self.received.extend_from_slice(&piece[..read]);
        }
    }

    /// Whether the server closes the connection without another word.
    pub(crate) fn is_closed(&mut self) -> bool {
        matches!(self.stream.read(&mut [0; 64]), Ok(0))
            || self.stream.take_error().is_ok_and(|error| error.is_some())
    }
}
