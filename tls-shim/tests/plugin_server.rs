//! While nobody decides about certificates, nothing that needs one goes to Kong.

mod common;

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;

use common::{ONE_ROUTE, OPEN, Rig, SECURED, until};
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, listen, socket};

/// `[1, 0, nil, {"pid": 1}]`
const STATUS: &[u8] = b"\x94\x01\x00\xc0\x81\xa3pid\x01";

/// A plugin server that answers every call alike.
struct FakeServer {
    socket: PathBuf,
    /// None: it does not answer.
    answer: Arc<Mutex<Option<Vec<u8>>>>,
    connections: Arc<Mutex<Vec<UnixStream>>>,
}

impl FakeServer {
    fn start(socket: &Path, answer: Option<&[u8]>) -> Self {
        let _ = std::fs::remove_file(socket);
        let listener = UnixListener::bind(socket).unwrap();
        let answer = Arc::new(Mutex::new(answer.map(<[u8]>::to_vec)));
        let connections = Arc::new(Mutex::new(Vec::new()));
        let server = Self {
            socket: socket.to_owned(),
            answer: Arc::clone(&answer),
            connections: Arc::clone(&connections),
        };
        thread::spawn(move || {
            for mut connection in listener.incoming().map(Result::unwrap) {
                connections.lock().unwrap().push(connection.try_clone().unwrap());
                let answer = Arc::clone(&answer);
                thread::spawn(move || {
                    let mut call = [0; 256];
                    while connection.read(&mut call).is_ok_and(|bytes| bytes > 0) {
                        assert!(call.windows(16).any(|part| part == b"plugin.GetStatus"));
                        let answer = answer.lock().unwrap().clone();
                        if answer.is_some_and(|answer| connection.write_all(&answer).is_err()) {
                            return;
                        }
                    }
                });
            }
        });
        server
    }

    fn answers(&self, answer: Option<&[u8]>) {
        *self.answer.lock().unwrap() = answer.map(<[u8]>::to_vec);
    }

    /// As when it is killed: the path leads nowhere, and connections end.
    fn die(&self) {
        std::fs::remove_file(&self.socket).unwrap();
        for connection in self.connections.lock().unwrap().drain(..) {
            let _ = connection.shutdown(Shutdown::Both);
        }
    }
}

fn status(rig: &Rig, host: &str) -> String {
    rig.curl(host, "/", &["--output", "/dev/null", "--write-out", "%{http_code}"])
}

fn becomes(rig: &Rig, expected: &str) {
    until(|| status(rig, SECURED) == expected);
}

/// A shim that watches a socket where nobody listens yet, and the folder of that.
fn rig(entities: &str) -> (Rig, PathBuf, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("plugin.socket");
    let rig = Rig::with_settings(entities, &format!("plugin_server: {}\n", socket.display()));
    (rig, socket, dir)
}

#[test]
fn what_was_lost_is_not_sent_again_once_nobody_answers() {
    for (host, expected, times) in [(SECURED, "502", 1), (OPEN, "200", 2)] {
        let (rig, socket, _dir) = rig(ONE_ROUTE);
        let server = FakeServer::start(&socket, Some(STATUS));
        becomes(&rig, "200");
        let path = "/hold/close-kept";
        let arguments = ["--output", "/dev/null", "--write-out", "%{http_code}"];
        thread::scope(|scope| {
            let asking = scope.spawn(|| rig.curl(host, path, &arguments));
            rig.upstream.wait_for(path);
            server.die();
            becomes(&rig, "503");
            rig.upstream.release();
            assert_eq!(asking.join().unwrap(), expected, "{host}");
        });
        let seen = rig.upstream.requests().iter().filter(|request| request.path == path).count();
        assert_eq!(seen, times, "{host}");
    }
}

#[test]
fn what_needs_a_certificate_is_refused_while_nobody_answers() {
    let (rig, socket, _dir) = rig(ONE_ROUTE);
    // It does not wait for one at the start.
    assert_eq!(status(&rig, SECURED), "503");
    let body = rig.curl(SECURED, "/", &Rig::CERTIFICATE);
    assert_eq!(body, r#"{"message":"authentication is not available"}"#);
    assert_eq!(status(&rig, OPEN), "200");
    assert_eq!(rig.upstream.requests().len(), 1);

    let server = FakeServer::start(&socket, Some(STATUS));
    becomes(&rig, "200");
    assert_eq!(status(&rig, OPEN), "200");
    server.die();
    becomes(&rig, "503");
    rig.shim.wait_for("the plugin server does not answer: what needs a client certificate is refused");
    let seen = rig.upstream.requests().len();
    for arguments in [&["--http1.1"][..], &["--http2"], &Rig::CERTIFICATE] {
        rig.curl(SECURED, "/", arguments);
    }
    assert_eq!(rig.upstream.requests().len(), seen);
    // The next one on the same path.
    let _server = FakeServer::start(&socket, Some(STATUS));
    becomes(&rig, "200");
}

#[test]
fn one_that_hangs_or_says_something_else_is_away() {
    let (rig, socket, _dir) = rig(ONE_ROUTE);
    let server = FakeServer::start(&socket, Some(STATUS));
    becomes(&rig, "200");
    for answer in [
        None,
        // An error, no result, the reply to another call, a call, no MessagePack at all, what does not end.
        Some(&b"\x94\x01\x00\xa1x\x81\xa3pid\x01"[..]),
        Some(b"\x94\x01\x00\xc0\xc0"),
        Some(b"\x94\x01\x07\xc0\x81\xa3pid\x01"),
        Some(b"\x94\x00\x00\xc0\x81\xa3pid\x01"),
        Some(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
        Some(b"\xc1"),
        Some(&[&b"\x94\x01\x00\xc0\xc5\xff\xff"[..], &[b'x'; 4096]].concat()),
    ] {
        server.answers(answer);
        becomes(&rig, "503");
        server.answers(Some(STATUS));
        becomes(&rig, "200");
    }
}

/// The system takes no more connections for one that accepts none: not even one more that would wait.
#[test]
fn one_whose_socket_has_no_room_is_away() {
    let (rig, path, _dir) = rig(ONE_ROUTE);
    let server = FakeServer::start(&path, Some(STATUS));
    becomes(&rig, "200");
    // Another one in its place, before the old one ends: the path is never empty.
    let full = path.with_extension("full");
    let new = |flags| socket(AddressFamily::Unix, SockType::Stream, flags, None).unwrap();
    let listener = new(SockFlag::SOCK_CLOEXEC);
    let address = UnixAddr::new(&full).unwrap();
    bind(listener.as_raw_fd(), &address).unwrap();
    listen(&listener, Backlog::new(0).unwrap()).unwrap();
    let mut waiting = Vec::new();
    loop {
        let client = new(SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK);
        match connect(client.as_raw_fd(), &address) {
            Ok(()) => waiting.push(client),
            Err(error) => {
                assert_eq!(error, Errno::EAGAIN);
                break;
            }
        }
    }
    std::fs::rename(&full, &path).unwrap();
    for connection in server.connections.lock().unwrap().drain(..) {
        connection.shutdown(Shutdown::Both).unwrap();
    }
    becomes(&rig, "503");
    let seen = rig.upstream.requests().len();
    for arguments in [&["--http1.1"][..], &["--http2"], &Rig::CERTIFICATE] {
        rig.curl(SECURED, "/", arguments);
    }
    assert_eq!(rig.upstream.requests().len(), seen);
    assert_eq!(status(&rig, OPEN), "200");
    let _next = FakeServer::start(&path, Some(STATUS));
    becomes(&rig, "200");
}

#[test]
fn a_successor_on_the_same_path_is_found() {
    let (rig, socket, _dir) = rig(ONE_ROUTE);
    let old = FakeServer::start(&socket, Some(STATUS));
    becomes(&rig, "200");
    let answered = "the plugin server does not answer";
    let _new = FakeServer::start(&socket, Some(STATUS));
    for connection in old.connections.lock().unwrap().drain(..) {
        connection.shutdown(Shutdown::Both).unwrap();
    }
    for _ in 0..20 {
        assert_eq!(status(&rig, SECURED), "200");
    }
    assert_eq!(rig.shim.output().iter().filter(|line| line.contains(answered)).count(), 1, "at the start");
}

#[test]
fn one_that_only_old_connections_reach_is_away() {
    let (rig, socket, _dir) = rig(ONE_ROUTE);
    let _old = FakeServer::start(&socket, Some(STATUS));
    becomes(&rig, "200");
    // It lives on, and its connections with it, but Kong would not get to it by a new one.
    std::fs::remove_file(&socket).unwrap();
    becomes(&rig, "503");
    let _old = FakeServer::start(&socket, Some(STATUS));
    becomes(&rig, "200");
    let _other = FakeServer::start(&socket, Some(b"HTTP/1.1 400 Bad Request\r\n\r\n"));
    becomes(&rig, "503");
}

#[test]
fn where_everybody_is_asked_everything_is_refused() {
    let (rig, _, _dir) = rig("plugins: [{name: mtls-auth}]");
    assert_eq!([status(&rig, SECURED), status(&rig, OPEN)], ["503", "503"]);
    assert!(rig.upstream.requests().is_empty());
}
