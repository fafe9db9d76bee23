//! Several built servers on one socket, as while Kong reloads.

mod common;

use common::Prefix;
use serde_json::json;
use testbed::pki::Ca;
use testbed::process::Process;

#[test]
fn a_new_server_takes_the_socket_over_and_the_old_one_leaves_it_alone() {
    let prefix = Prefix::new();
    let mut old = prefix.serve(&[]);
    let mut kept = prefix.connect();
    let new = prefix.serve(&[]);
    let pid =
        |connection: &mut common::Connection| connection.ok("plugin.GetStatus", json!({}))["Pid"].clone();
    assert_eq!(pid(&mut kept), old.id(), "a connection stays where it is");
    drop(kept);
    assert_eq!(pid(&mut prefix.connect()), new.id());
    old.signal("TERM");
    assert!(old.wait().success());
    assert_eq!(pid(&mut prefix.connect()), new.id(), "the path is still the new server's");
    assert_eq!(prefix.sockets().len(), 2, "the path's and the new server's own: {:?}", prefix.sockets());
}

#[test]
fn a_leaving_server_finishes_the_events_that_run() {
    let prefix = Prefix::new();
    let mut server: Process = prefix.serve(&["--log-level", "debug"]);
    let mut kong = prefix.connect();
    let id = kong.start_instance(&Ca::root("root"));
    let begun = kong.ok("plugin.HandleEvent", json!({"InstanceId": id, "EventName": "access"}));
    let event = begun["EventId"].clone();
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
    let _new = prefix.serve(&[]);
    let mut to_new = prefix.connect();
    let of_old = to_old.start_instance(&ca);
    let of_new = to_new.start_instance(&ca);
    let mut connections = [to_old, to_new];
    for (instance, owner) in [(&of_old, 0), (&of_new, 1)] {
        // Begun here and gone on with there, and the other way round.
        for first in [owner, 1 - owner] {
            let arg = json!({"InstanceId": instance, "EventName": "access"});
            let begun = connections[first].ok("plugin.HandleEvent", arg);
            assert_eq!(begun["Data"], json!({"Method": "kong.request.get_headers", "Args": [1000]}));
            let headers = json!({"host": ["x"], "x-bytes": ["a\u{e9}"], "x-empty": []});
            let step = json!({"EventId": begun["EventId"], "Data": headers});
            let logged = connections[1 - first].ok("plugin.StepMultiMap", step);
            assert_eq!(
                logged["Data"],
                json!({"Method": "kong.log.notice", "Args": ["refused: no_certificate"]})
            );
            let refused = connections[first].ok("plugin.Step", json!({"EventId": begun["EventId"]}));
            assert_eq!(refused["Data"]["Args"][0], 401);
        }
        assert_eq!(connections[1 - owner].ok("plugin.InstanceStatus", instance.clone())["Id"], *instance);
    }
    let [mut to_old, mut to_new] = connections;
    assert_eq!(to_new.ok("plugin.CloseInstance", of_old.clone())["Id"], of_old);
    let (error, _) = to_old.call("plugin.InstanceStatus", of_old);
    assert!(error.as_str().unwrap().starts_with("no plugin instance"), "{error}");

    // Of a server that has left nothing is known, and Kong starts anew what it needs.
    let of_old = to_old.start_instance(&ca);
    let begun = to_old.ok("plugin.HandleEvent", json!({"InstanceId": of_old, "EventName": "access"}));
    drop(to_old);
    old.signal("KILL");
    old.wait();
    let (error, _) = to_new.call("plugin.HandleEvent", json!({"InstanceId": of_old, "EventName": "access"}));
    assert_eq!(error, json!(format!("no plugin instance #{of_old}")));
    let refused = to_new.ok("plugin.Step", json!({"EventId": begun["EventId"]}));
    assert_eq!(refused["Data"]["Args"][0], 500);
    // What a killed server leaves is removed by the next one, and nothing else.
    let beside = prefix.write("mtls-auth.socket.7", "no socket");
    assert_eq!(prefix.sockets().len(), 4);
    let _next = prefix.serve(&[]);
    assert_eq!(prefix.sockets().len(), 4);
    assert!(beside.exists());
    to_new.ok("plugin.GetStatus", json!({}));
}

/// A server that hangs does not take the other one's requests with it.
#[test]
fn a_server_that_does_not_answer_is_as_good_as_gone() {
    let prefix = Prefix::new();
    let old = prefix.serve(&[]);
    let of_old = prefix.connect().start_instance(&Ca::root("root"));
    let _new = prefix.serve(&["--event-timeout", "0.2"]);
    let mut kong = prefix.connect();
    kong.ok("plugin.InstanceStatus", of_old.clone());
    old.signal("STOP");
    let (error, _) = kong.call("plugin.HandleEvent", json!({"InstanceId": of_old, "EventName": "access"}));
    assert!(error.as_str().unwrap().starts_with("no plugin instance"), "{error}");
    old.signal("CONT");
}
