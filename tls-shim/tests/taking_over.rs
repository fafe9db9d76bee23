//! How a new binary takes over from a running one, and how the shim takes sockets that others have made.

mod common;

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use command_fds::{CommandFdExt, FdMapping};
use common::{
    ONE_ROUTE, OPEN, SECURED, asked, listening, until, until_said_again, write_entities, write_settings,
};
use testbed::process::{Process, keeps_to_itself};
use testbed::tls_client::TlsClient;
use testbed::upstream::Upstream;

const TAKEN_OVER: &str = "a new process has taken over";
const NOT_TAKEN_OVER: &str = "no new process has taken over";

/// A shim whose binary can be replaced, and all that take over from it.
struct Rig {
    dir: tempfile::TempDir,
    upstream: Upstream,
    shim: Process,
    address: SocketAddr,
}

impl Rig {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let upstream = Upstream::start();
        write_settings(dir.path(), "[\"127.0.0.1:0\", \"[::1]:0\"]", upstream.address());
        write_entities(dir.path(), ONE_ROUTE);
        replace_binary(dir.path());
        let shim =
            Process::start(Command::new(binary(dir.path())).arg("--config").arg(dir.path().join("shim.yml")));
        let address = listening(&shim);
        Self { dir, upstream, shim, address }
    }

    /// The processes that were started to take over.
    fn successors(&self) -> Vec<u32> {
        let output = self.shim.output();
        let lines = output.iter().filter(|line| line.contains("a new process starts"));
        lines
            .map(|line| {
                line.split_once("\"pid\":").unwrap().1.split(['}', ',']).next().unwrap().parse().unwrap()
            })
            .collect()
    }

    fn answers(&self) {
        let answer = get(self.address, "/").unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
}

impl Drop for Rig {
    /// Those that took over are nobody's children.
    fn drop(&mut self) {
        let ours = self.dir.path().as_os_str().as_encoded_bytes();
        for pid in self.successors() {
            // The id may be another's by now.
            let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            if command.windows(ours.len()).any(|part| part == ours) {
                signal(pid, "KILL");
            }
        }
    }
}

fn signal(pid: u32, name: &str) {
    assert!(Command::new("kill").args(["-s", name, &pid.to_string()]).status().unwrap().success());
}

fn is_there(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

fn binary(dir: &Path) -> PathBuf {
    dir.join("tls-shim")
}

/// Puts another file with the same program in place of the binary, as an upgrade does.
fn replace_binary(dir: &Path) {
    // By another process: a file that any thread here has open for writing while another one forks cannot be run.
    let new = dir.join("tls-shim.new");
    assert!(Command::new("cp").arg(env!("CARGO_BIN_EXE_tls-shim")).arg(&new).status().unwrap().success());
    fs::rename(new, binary(dir)).unwrap();
}

/// Puts a shell script in place of the binary.
fn replace_by_script(dir: &Path, script: &str) {
    let new = dir.join("tls-shim.new");
    let write = "printf '#!/bin/sh\\n%s\\n' \"$1\" >\"$0\" && chmod 700 \"$0\"";
    let written = Command::new("/bin/sh").args(["-c", write]).arg(&new).arg(script).status();
    assert!(written.unwrap().success());
    fs::rename(new, binary(dir)).unwrap();
}

fn get(address: SocketAddr, path: &str) -> Result<String, String> {
    let connection = TlsClient::new(Some(OPEN)).connect(address)?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    connection.exchange(request.as_bytes()).map_err(|error| error.to_string())
}

#[test]
fn no_request_is_lost_while_a_new_binary_takes_over() {
    let mut rig = Rig::new();
    let mut held = TlsClient::new(Some(OPEN)).connect(rig.address).unwrap();
    held.write_all(b"GET /hold HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
    rig.upstream.wait_for("/hold");

    let (done, enough) = (AtomicUsize::new(0), AtomicBool::new(false));
    let more = |count| {
        let before = done.load(Ordering::Relaxed);
        until(|| done.load(Ordering::Relaxed) >= before + count);
    };
    let first = rig.shim.id();
    std::thread::scope(|scope| {
        // Whoever panics here must not keep the others going.
        let stop = Stop(&enough);
        for _ in 0..4 {
            scope.spawn(|| {
                while !enough.load(Ordering::Relaxed) {
                    let answer = get(rig.address, "/");
                    assert!(
                        answer.as_ref().is_ok_and(|answer| answer.starts_with("HTTP/1.1 200 ")),
                        "{answer:?}"
                    );
                    done.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let mut running = first;
        for count in 1..=3 {
            more(20);
            replace_binary(rig.dir.path());
            signal(running, "USR2");
            rig.shim.wait_for_count(TAKEN_OVER, count);
            running = rig.successors()[count - 1];
            // Only root may ask a process that cannot be dumped which file it runs. But nobody may write to one that runs.
            let written = fs::File::options().write(true).open(binary(rig.dir.path()));
            assert_eq!(written.unwrap_err().kind(), ErrorKind::ExecutableFileBusy);
            keeps_to_itself(running);
            more(20);
        }
        drop(stop);
    });

    // The request that began with the first process ends there.
    assert!(is_there(first));
    rig.upstream.release();
    let mut answer = String::new();
    held.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert_eq!(rig.shim.wait().code(), Some(0));
    rig.answers();
    assert!(asked(rig.address, Some(SECURED)) && !asked(rig.address, Some(OPEN)));
    // Each process had both listeners.
    rig.shim.wait_for_count("\"listening\"", 8);
    assert!(!rig.shim.output().concat().contains("LISTEN_FDS"));
}

/// Says that it is enough, in a panic too.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_program_that_cannot_take_over_leaves_the_old_one_serving() {
    type Break = fn(&Path);
    let table: &[(Break, &str)] = &[
        (|dir| fs::remove_file(binary(dir)).unwrap(), "it cannot be started"),
        (|dir| replace_by_script(dir, "exit 7"), "exit status: 7"),
        (|dir| replace_by_script(dir, "exec sleep 120 </dev/null"), "signal: 9"),
        (
            |dir| {
                replace_binary(dir);
                fs::write(dir.join("shim.yml"), "listen: [").unwrap();
            },
            "exit status: 1",
        ),
    ];
    let rig = Rig::new();
    let config = rig.dir.path().join("shim.yml");
    let good = fs::read(&config).unwrap();
    for (broken, wrong) in table {
        broken(rig.dir.path());
        until_said_again(&rig.shim, NOT_TAKEN_OVER, || rig.shim.signal("USR2"));
        let lines = rig.shim.output();
        let said = lines.iter().rfind(|line| line.contains(NOT_TAKEN_OVER)).unwrap();
        assert!(said.contains(wrong), "{said}");
        rig.answers();
    }
    for pid in rig.successors() {
        assert!(!is_there(pid), "{pid}");
    }
    fs::write(config, good).unwrap();
    rig.shim.signal("USR2");
    rig.shim.wait_for(TAKEN_OVER);
    rig.answers();
}

#[test]
fn who_ends_the_shim_ends_the_one_that_is_to_take_over() {
    let mut rig = Rig::new();
    replace_by_script(rig.dir.path(), "exec sleep 120");
    rig.shim.signal("USR2");
    rig.shim.wait_for("a new process starts");
    rig.shim.signal("TERM");
    assert_eq!(rig.shim.wait().code(), Some(0));
    assert!(!is_there(rig.successors()[0]));
    TcpStream::connect(rig.address).unwrap_err();
}

/// A shim that is given a socket as systemd gives it, with this `LISTEN_PID`.
fn activated(dir: &Path, listener: &TcpListener, pid: &str) -> Process {
    let script = format!("LISTEN_FDS=1 LISTEN_PID={pid} exec \"$0\" --config \"$1\"");
    let mut command = Command::new("/bin/sh");
    let descriptor = FdMapping { parent_fd: listener.try_clone().unwrap().into(), child_fd: 3 };
    command.args(["-c", &script, env!("CARGO_BIN_EXE_tls-shim")]).arg(dir.join("shim.yml"));
    Process::start(command.fd_mappings(vec![descriptor]).unwrap())
}

#[test]
fn a_socket_of_systemd_is_used_for_its_address_only() {
    let dir = tempfile::tempdir().unwrap();
    let upstream = Upstream::start();
    write_entities(dir.path(), ONE_ROUTE);
    let listen_on =
        |address: SocketAddr| write_settings(dir.path(), &format!("[\"{address}\"]"), upstream.address());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();

    // Who came before there was a shim is answered by it, and by the next one.
    listen_on(address);
    for _ in 0..2 {
        let early = TcpStream::connect(address).unwrap();
        let mut shim = activated(dir.path(), &listener, "$$");
        assert_eq!(listening(&shim), address);
        let early = TlsClient::new(Some(OPEN)).connect_over(early).unwrap();
        let answer = early.exchange(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        shim.signal("TERM");
        assert_eq!(shim.wait().code(), Some(0));
    }

    // The variables of another process.
    let mut shim = activated(dir.path(), &listener, "1");
    shim.wait_for(&format!("cannot listen on {address}"));
    assert_eq!(shim.wait().code(), Some(1));

    listen_on("127.0.0.1:0".parse().unwrap());
    let other = TcpListener::bind("127.0.0.2:0").unwrap();
    let shim = activated(dir.path(), &other, "$$");
    assert_eq!(listening(&shim).ip(), address.ip());
    let closed = other.local_addr().unwrap();
    shim.wait_for(&format!("does not stand in listen\",\"address\":\"{closed}\""));
    drop(other);
    // A process that another test starts at this moment has the socket, too, for as long as it is not yet another program.
    until(|| TcpStream::connect(closed).is_err());

    let both = TcpListener::bind("[::]:0").unwrap();
    listen_on(both.local_addr().unwrap());
    let mut shim = activated(dir.path(), &both, "$$");
    shim.wait_for("takes IPv4 too");
    assert_eq!(shim.wait().code(), Some(1));
}
