//! Several built servers on one socket, as while Kong reloads.

mod common;

use std::io::Read;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use common::Prefix;
use serde_json::{Value as Json, json};
use testbed::pki::Ca;
use testbed::process::Process;

const HANDED_OVER: &str = "another server has taken over";

/// The socket of a server's own, by the id of an instance there.
fn own_of(prefix: &Prefix, instance: &Json) -> PathBuf {
    prefix.path(&format!("mtls-auth.socket.{}", instance.as_u64().unwrap() >> 32))
}

#[test]
fn a_new_server_takes_the_socket_over_and_the_old_one_leaves_it_alone() {
    let prefix = Prefix::new();
    let mut old = prefix.serve(&[]);
    assert_eq!(prefix.connect().pid(), old.id());
    let new = prefix.serve(&[]);
    assert_eq!(prefix.connect().pid(), new.id());
    old.wait_for(HANDED_OVER);
    old.signal("TERM");
    assert!(old.wait().success());
    assert_eq!(prefix.connect().pid(), new.id(), "the path is still the new server's");
    assert_eq!(prefix.sockets().len(), 2, "the path's and the new server's own: {:?}", prefix.sockets());
}

/// Kong kills the old one, at whatever time. By then nobody may depend on it.
#[test]
fn a_server_that_was_succeeded_finishes_its_events_and_lets_go_of_its_connections() {
    let prefix = Prefix::new();
    let ca = Ca::root("root");
    let old = prefix.serve(&[]);
    let (mut idle, mut busy) = (prefix.connect(), prefix.connect());
    idle.pid();
    let of_old = busy.start_instance(&ca);
    let (event, _) = busy.begin_event(&of_old);
    let steps = [
        ("plugin.StepMultiMap", json!({"EventId": event, "Data": {"host": ["x"]}})),
        ("plugin.Step", json!({"EventId": event})),
    ];
    let new = prefix.serve(&[]);
    old.wait_for(HANDED_OVER);
    assert!(idle.is_closed(), "nothing was under way on it");
    // What has begun goes on, on whichever connection; here on one to the new server.
    let mut kong = prefix.connect();
    let [logged, refused] = steps.map(|(method, step)| kong.ok(method, step)["Data"].clone());
    assert_eq!(logged["Method"], "kong.log.notice");
    assert_eq!(refused["Args"][0], 401);
    assert!(busy.is_closed(), "its event went on elsewhere");
    assert_eq!(kong.pid(), new.id(), "one to the new server stays");

    // Nothing more begins there: Kong is told to start the instance, which happens at the new server from either side.
    let (error, _) = kong.call("plugin.HandleEvent", json!({"InstanceId": of_old, "EventName": "access"}));
    assert_eq!(error, json!(format!("no plugin instance #{of_old}")));
    let of_new = prefix.connect_to(&own_of(&prefix, &of_old)).start_instance(&ca);
    assert_eq!(kong.ok("plugin.InstanceStatus", of_new.clone())["Id"], of_new);
    drop(old);
    assert_eq!(kong.ok("plugin.InstanceStatus", of_new.clone())["Id"], of_new, "it is the new server's");
}

/// Something at the path that does not answer is no successor.
#[test]
fn a_server_keeps_its_instances_while_nobody_answers_in_its_place() {
    let prefix = Prefix::new();
    let old = prefix.serve(&["--log-level", "debug"]);
    let mut kong = prefix.connect();
    let instance = kong.start_instance(&Ca::root("root"));
    let other = prefix.path("other");
    let listener = UnixListener::bind(&other).unwrap();
    std::fs::rename(&other, prefix.socket()).unwrap();
    // It is asked, and hangs up.
    let mut asked = listener.accept().unwrap().0;
    let mut call = [0; 64];
    assert!(asked.read(&mut call).unwrap() > 0);
    drop(asked);
    old.wait_for("a successor does not answer yet");
    assert_eq!(kong.ok("plugin.InstanceStatus", instance.clone())["Id"], instance);
    let _new = prefix.serve(&[]);
    old.wait_for(HANDED_OVER);
}

#[test]
fn a_leaving_server_finishes_the_events_that_run() {
    let prefix = Prefix::new();
    let mut server: Process = prefix.serve(&["--log-level", "debug"]);
    let mut kong = prefix.connect();
    let id = kong.start_instance(&Ca::root("root"));
    let (event, _) = kong.begin_event(&id);
    server.signal("TERM");
    server.wait_for("leaving");
    // On a connection that is made only now.
    let mut other = prefix.connect();
    let logged = other.ok("plugin.StepMultiMap", json!({"EventId": event, "Data": {"host": ["x"]}}));
    assert_eq!(logged["Data"]["Method"], "kong.log.notice");
    other.ok("plugin.Step", json!({"EventId": event}));
    // It waits for Kong to close its connections, for a while.
    drop((kong, other));
    assert!(server.wait().success());
}

/// Kong may be about to use a connection of its pool, and takes one that is closed for leave to pass.
#[test]
fn a_leaving_server_stays_while_kong_keeps_connections() {
    let prefix = Prefix::new();
    let mut server: Process = prefix.serve(&[]);
    let mut kept = prefix.connect();
    kept.ok("plugin.GetStatus", json!({}));
    server.signal("TERM");
    server.wait_for("leaving");
    // As long as it takes for another server to start.
    let next = prefix.serve(&[]);
    kept.ok("plugin.GetStatus", json!({}));
    drop((kept, next));
    assert!(server.wait().success());
    assert_eq!(prefix.sockets().len(), 2, "the path's and the killed one's: {:?}", prefix.sockets());
}

/// Kong's pools keep connections to both and take any for any call.
#[test]
fn what_comes_to_the_wrong_server_is_asked_of_the_right_one() {
    let prefix = Prefix::new();
    let ca = Ca::root("root");
    let mut old = prefix.serve(&[]);
    let mut to_old = prefix.connect();
    let of_old = to_old.start_instance(&ca);
    let [(begun_there, wants), (lost, _)] = [0, 1].map(|_| to_old.begin_event(&of_old));
    assert_eq!(wants, json!({"Method": "kong.request.get_headers", "Args": [1000]}));
    let _new = prefix.serve(&[]);
    old.wait_for(HANDED_OVER);
    let mut to_new = prefix.connect();
    let of_new = to_new.start_instance(&ca);
    let (begun_here, _) = to_new.begin_event(&of_new);
    let to_old = || prefix.connect_to(&own_of(&prefix, &of_old));
    for (mut one, mut other, event) in
        [(to_new, to_old(), &begun_there), (to_old(), prefix.connect(), &begun_here)]
    {
        let headers = json!({"host": ["x"], "x-bytes": ["a\u{e9}"], "x-empty": []});
        let step = json!({"EventId": event, "Data": headers});
        let logged = one.ok("plugin.StepMultiMap", step);
        assert_eq!(logged["Data"], json!({"Method": "kong.log.notice", "Args": ["refused: no_certificate"]}));
        let refused = other.ok("plugin.Step", json!({"EventId": event}));
        assert_eq!(refused["Data"]["Args"][0], 401);
    }
    assert_eq!(to_old().ok("plugin.InstanceStatus", of_new.clone())["Id"], of_new);
    assert_eq!(to_old().ok("plugin.CloseInstance", of_new.clone())["Id"], of_new);
    let mut to_new = prefix.connect();
    let (error, _) = to_new.call("plugin.InstanceStatus", of_new);
    assert!(error.as_str().unwrap().starts_with("no plugin instance"), "{error}");

    // Of a server that has left nothing is known, and Kong starts anew what it needs.
    old.signal("KILL");
    old.wait();
    let (error, _) = to_new.call("plugin.HandleEvent", json!({"InstanceId": of_old, "EventName": "access"}));
    assert_eq!(error, json!(format!("no plugin instance #{of_old}")));
    let refused = to_new.ok("plugin.Step", json!({"EventId": lost}));
    assert_eq!(refused["Data"]["Args"][0], 500);
    // What a killed server leaves is removed by the next one, and nothing else.
    let beside = prefix.write("mtls-auth.socket.7", "no socket");
    assert_eq!(prefix.sockets().len(), 4);
    let next = prefix.serve(&[]);
    assert_eq!(prefix.sockets().len(), 4);
    assert!(beside.exists());
    assert_eq!(prefix.connect().pid(), next.id());
}

/// A server that hangs does not take the other one's requests with it.
#[test]
fn a_server_that_does_not_answer_is_as_good_as_gone() {
    let prefix = Prefix::new();
    let old = prefix.serve(&[]);
    let mut kong = prefix.connect();
    let instance = kong.start_instance(&Ca::root("root"));
    let (event, _) = kong.begin_event(&instance);
    let _new = prefix.serve(&["--event-timeout", "0.2"]);
    old.wait_for(HANDED_OVER);
    old.signal("STOP");
    let refused = prefix.connect().ok("plugin.Step", json!({"EventId": event}));
    assert_eq!(refused["Data"]["Args"][0], 500);
    old.signal("CONT");
}
