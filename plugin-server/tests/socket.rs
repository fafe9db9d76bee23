//! Built servers whose socket somebody removes.

mod common;

use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::Command;

use common::{Connection, Prefix};
use serde_json::{Value as Json, json};
use testbed::pki::Ca;
use testbed::process::Process;

const PATH_IS_BACK: &str = "somebody removed the socket: it is bound anew";
const OWN_IS_BACK: &str = "somebody removed this server's own socket: it is back";
const OWN_IS_NEW: &str = "somebody removed this server's own socket: another one is bound";

/// The sockets of the servers' own; with one server, its own.
fn own(prefix: &Prefix) -> Vec<PathBuf> {
    let names = prefix.sockets().into_iter().filter(|name| name != "mtls-auth.socket");
    names.map(|name| prefix.path(&name)).collect()
}

/// Does several things of which the server sees only what comes of all.
fn at_once(server: &Process, several: impl FnOnce()) {
    server.signal("STOP");
    several();
    server.signal("CONT");
}

/// Whether the server that has an event is found for its next step.
fn goes_on(kong: &mut Connection, event: &Json) -> bool {
    let step = kong.ok("plugin.StepMultiMap", json!({"EventId": event, "Data": {"host": ["x"]}}));
    step["Data"]["Method"] == "kong.log.notice"
}

/// Has the server look at its names so often and see what is there.
struct Looks {
    own: PathBuf,
    seen: usize,
}

impl Looks {
    /// A look begins with the server's own socket, of which it says something, and goes on to the path. So the one before
    /// is over when the second has begun.
    fn happen(&mut self, server: &Process) {
        for _ in 0..2 {
            std::fs::remove_file(&self.own).unwrap();
            self.seen += 1;
            server.wait_for_count("somebody removed this server's own socket", self.seen);
        }
    }
}

#[test]
fn a_socket_that_somebody_removed_is_bound_anew_and_nothing_is_lost() {
    let prefix = Prefix::new();
    let server = prefix.serve(&[]);
    let mut kept = prefix.connect();
    let instance = kept.start_instance(&Ca::root("root"));
    for count in 1..=2 {
        std::fs::remove_file(prefix.socket()).unwrap();
        let line: Json = serde_json::from_str(&server.wait_for_count(PATH_IS_BACK, count)).unwrap();
        assert_eq!((&line["level"], &line["socket"]), (&json!("WARN"), &json!(prefix.socket())));
        assert_eq!(prefix.connect().ok("plugin.InstanceStatus", instance.clone())["Id"], instance);
        kept.ok("plugin.InstanceStatus", instance.clone());
    }
    assert_eq!(prefix.sockets().len(), 2, "{:?}", prefix.sockets());
    assert!(!server.output().iter().any(|line| line.contains("own socket")), "it had that all the time");
}

#[test]
fn a_server_whose_folder_was_emptied_binds_another_socket_under_the_same_names() {
    let prefix = Prefix::new();
    let old = prefix.serve(&[]);
    let mut kept = prefix.connect();
    let instance = kept.start_instance(&Ca::root("root"));
    let before = own(&prefix);
    for count in 1..=2 {
        at_once(&old, || {
            std::fs::remove_file(prefix.socket()).unwrap();
            std::fs::remove_file(&before[0]).unwrap();
        });
        old.wait_for_count(OWN_IS_NEW, count);
        old.wait_for_count(PATH_IS_BACK, count);
        assert_eq!(own(&prefix), before);
        let mode = std::fs::metadata(prefix.socket()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o660, "Kong may run as another user of the group");
        prefix.connect().ok("plugin.InstanceStatus", instance.clone());
        kept.ok("plugin.InstanceStatus", instance.clone());
    }
    // Another server asks it by its own.
    let (event, _) = kept.begin_event(&instance);
    let new = prefix.serve(&[]);
    let mut kong = prefix.connect();
    assert_eq!(kong.pid(), new.id());
    assert!(goes_on(&mut kong, &event));
}

#[test]
fn a_server_whose_own_socket_was_removed_can_be_asked_by_another_again() {
    let prefix = Prefix::new();
    let old = prefix.serve(&[]);
    let mut kong = prefix.connect();
    let instance = kong.start_instance(&Ca::root("root"));
    let events = [0, 1].map(|_| kong.begin_event(&instance).0);
    std::fs::remove_file(&own(&prefix)[0]).unwrap();
    old.wait_for(OWN_IS_BACK);
    prefix.connect().ok("plugin.InstanceStatus", instance);
    let _new = prefix.serve(&[]);
    assert!(goes_on(&mut prefix.connect(), &events[0]));
    // Also while the path is the other one's.
    for own in own(&prefix) {
        std::fs::remove_file(own).unwrap();
    }
    old.wait_for(OWN_IS_NEW);
    assert!(goes_on(&mut prefix.connect(), &events[1]));
}

/// As where the file system has no hard links.
#[test]
fn a_path_that_is_a_pointer_leads_to_the_socket_that_is_bound_anew() {
    let prefix = Prefix::new();
    let server = prefix.serve(&[]);
    let own = own(&prefix).remove(0);
    let pointer = prefix.path("pointer");
    symlink(own.file_name().unwrap(), &pointer).unwrap();
    std::fs::rename(&pointer, prefix.socket()).unwrap();
    let mut looks = Looks { own, seen: 0 };
    looks.happen(&server);
    assert_eq!(prefix.connect().pid(), server.id());
    assert!(prefix.socket().is_symlink());
    // It has not been taken for another server's.
    std::fs::remove_file(prefix.socket()).unwrap();
    server.wait_for(PATH_IS_BACK);
    assert_eq!(prefix.connect().pid(), server.id());
}

#[test]
fn what_another_server_has_put_at_the_path_is_left_alone_and_the_path_is_that_ones_from_then_on() {
    let prefix = Prefix::new();
    let old = prefix.serve(&[]);
    let mut looks = Looks { own: own(&prefix).remove(0), seen: 0 };
    let other = prefix.path("other");
    let listener = UnixListener::bind(&other).unwrap();
    std::fs::rename(&other, prefix.socket()).unwrap();
    looks.happen(&old);
    let _client = UnixStream::connect(prefix.socket()).unwrap();
    listener.set_nonblocking(true).unwrap();
    listener.accept().expect("the client came to who has the path");
    // It is dead, and then removed.
    drop(listener);
    looks.happen(&old);
    assert!(UnixStream::connect(prefix.socket()).is_err());
    std::fs::remove_file(prefix.socket()).unwrap();
    looks.happen(&old);
    assert!(!prefix.socket().exists());
    assert!(!old.output().iter().any(|line| line.contains(PATH_IS_BACK)));
    let new = prefix.serve(&[]);
    assert_eq!(prefix.connect().pid(), new.id());
}

#[test]
fn what_is_no_socket_is_left_alone_and_the_path_taken_once_that_is_gone() {
    let prefix = Prefix::new();
    let server = prefix.serve(&[]);
    let mut looks = Looks { own: own(&prefix).remove(0), seen: 0 };
    let file = prefix.write("file", "content");
    std::fs::rename(&file, prefix.socket()).unwrap();
    looks.happen(&server);
    assert_eq!(std::fs::read_to_string(prefix.socket()).unwrap(), "content");
    std::fs::remove_file(prefix.socket()).unwrap();
    server.wait_for(PATH_IS_BACK);
    assert_eq!(prefix.connect().pid(), server.id());
}

#[test]
fn a_leaving_server_binds_nothing_anew() {
    let prefix = Prefix::new();
    let mut server = prefix.serve(&[]);
    let own = own(&prefix).remove(0);
    // It stays for some seconds for the sake of this.
    let mut kept = prefix.connect();
    kept.pid();
    server.signal("TERM");
    server.wait_for("leaving");
    std::fs::remove_file(prefix.socket()).unwrap();
    std::fs::remove_file(own).unwrap();
    assert!(server.wait().success());
    assert_eq!(prefix.sockets(), [""; 0]);
}

const CANNOT: &str = "the socket was removed and cannot be bound anew";

#[test]
fn a_folder_that_is_gone_is_said_once_and_bound_in_when_it_is_there_again() {
    let prefix = Prefix::new();
    let folder = prefix.path("folder");
    let path = folder.join("socket");
    std::fs::create_dir(&folder).unwrap();
    let server = prefix.serve(&["--socket", path.to_str().unwrap()]);
    at_once(&server, || std::fs::remove_dir_all(&folder).unwrap());
    server.wait_for(CANNOT);
    // The looks of another server tell the time, for it is not told what happens in a folder that is not the one of
    // before: meanwhile this one looks, too.
    let clock = Prefix::new();
    let other = clock.serve(&[]);
    at_once(&other, || {
        std::fs::remove_dir_all(clock.dir.path()).unwrap();
        std::fs::create_dir(clock.dir.path()).unwrap();
    });
    other.wait_for(OWN_IS_NEW);
    Looks { own: own(&clock).remove(0), seen: 1 }.happen(&other);
    std::fs::create_dir(&folder).unwrap();
    server.wait_for(PATH_IS_BACK);
    UnixStream::connect(path).unwrap();
    assert_eq!(server.output().iter().filter(|line| line.contains(CANNOT)).count(), 1);
}

#[test]
fn a_path_never_leads_to_what_could_not_be_bound() {
    let prefix = Prefix::new();
    let server = prefix.serve(&[]);
    let descriptors = |limit: &str| {
        let pid = server.id().to_string();
        let set = Command::new("prlimit").args(["--pid", &pid, &format!("--nofile={limit}:")]).status();
        assert!(set.unwrap().success());
    };
    descriptors("1");
    at_once(&server, || {
        for name in prefix.sockets() {
            std::fs::remove_file(prefix.path(&name)).unwrap();
        }
    });
    server.wait_for(CANNOT);
    assert_eq!(prefix.sockets(), [""; 0]);
    descriptors("64");
    server.wait_for(PATH_IS_BACK);
    assert_eq!(prefix.connect().pid(), server.id());
}
