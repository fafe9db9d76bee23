//! What counts without a signal once it has changed on disk, and what does not.

mod common;

use std::fs;
use std::path::Path;

use common::{ONE_ROUTE, OPEN, Rig, SECURED, asked, hang_up, shown, until_said_again, write_entities};
use testbed::pki::{Ca, Leaf, Subject};

const RELOADED: &str = "a file has changed: reloaded";
const CERTIFICATE_STAYS: &str = "a file has changed: the default certificate stays as it was";

fn other_certificate() -> Leaf {
    Ca::root("servers").issue(Subject::server(&[OPEN]))
}

/// Writes a file beside the old one and puts it in its place, as certbot and others do.
fn replace(path: &Path, text: &str) {
    let new = path.with_extension("new");
    fs::write(&new, text).unwrap();
    fs::set_permissions(&new, fs::metadata(path).unwrap().permissions()).unwrap();
    fs::rename(new, path).unwrap();
}

/// A shim that looks at Kong's file once in a while that no test lasts.
fn rarely_looking(settings: &str) -> Rig {
    let rig = Rig::with_settings(ONE_ROUTE, settings);
    let path = rig.dir.path().join("shim.yml");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(path, text.replace("poll_interval: 10ms", "poll_interval: 60m")).unwrap();
    hang_up(&rig.shim, common::RELOADED);
    rig
}

#[test]
fn a_certificate_counts_once_its_key_is_there() {
    let rig = rarely_looking("");
    let [cert, key] = ["server.crt", "server.key"].map(|name| rig.dir.path().join(name));
    let first = shown(&rig);
    let (second, third) = (other_certificate(), other_certificate());
    until_said_again(&rig.shim, RELOADED, || second.write(rig.dir.path(), "server", &[]));
    assert_eq!(shown(&rig), second.der);
    assert_ne!(shown(&rig), first);

    // Half a pair, for so long that it is looked at: the old one stays, and it is said once.
    let count = |says: &str| rig.shim.output().iter().filter(|line| line.contains(says)).count();
    until_said_again(&rig.shim, CERTIFICATE_STAYS, || replace(&cert, &third.cert));
    assert_eq!(shown(&rig), second.der);
    until_said_again(&rig.shim, "the proof key stays as it was", || {
        fs::write(rig.dir.path().join("mtls-auth.key"), "broken").unwrap();
    });
    assert_eq!(count(CERTIFICATE_STAYS), 1);
    until_said_again(&rig.shim, RELOADED, || replace(&key, &third.key));
    assert_eq!(shown(&rig), third.der);

    until_said_again(&rig.shim, CERTIFICATE_STAYS, || fs::remove_file(&key).unwrap());
    assert_eq!(shown(&rig), third.der);
}

#[test]
fn the_settings_and_what_they_name_now_are_looked_at() {
    let rig = rarely_looking("session_tickets: off\n");
    let dir = rig.dir.path();
    let config = dir.join("shim.yml");
    let good = fs::read_to_string(&config).unwrap();
    write_entities(dir, "plugins: [{name: mtls-auth}]");
    // A file that changes does not have Kong's configuration read again.
    let (second, third) = (other_certificate(), other_certificate());
    until_said_again(&rig.shim, RELOADED, || second.write(dir, "server", &[]));
    assert!(asked(rig.address, Some(SECURED)) && !asked(rig.address, Some(OPEN)));

    until_said_again(&rig.shim, "a file has changed: everything stays as it was", || {
        replace(&config, "listen: [");
    });
    // What the last good ones name is looked at all the same.
    until_said_again(&rig.shim, RELOADED, || third.write(dir, "server", &[]));
    assert_eq!(shown(&rig), third.der);

    second.write(dir, "other", &[]);
    until_said_again(&rig.shim, RELOADED, || replace(&config, &good.replace("server.", "other.")));
    assert_eq!(shown(&rig), second.der);
    assert!(asked(rig.address, Some(OPEN)), "Kong's configuration was read again");
    until_said_again(&rig.shim, RELOADED, || third.write(dir, "other", &[]));
    assert_eq!(shown(&rig), third.der);

    replace(
        &config,
        &(good.replace("session_tickets: off", "session_tickets: {key_file: TICKETS}"))
            .replace("TICKETS", &dir.join("tickets.key").display().to_string()),
    );
    rig.shim.wait_for("a file has changed: session tickets stay as they were");
    let tickets = dir.join("tickets.key");
    until_said_again(&rig.shim, RELOADED, || {
        let new = dir.join("tickets.new");
        fs::copy(dir.join("mtls-auth.key"), &new).unwrap();
        fs::rename(new, &tickets).unwrap();
    });
    until_said_again(&rig.shim, "session tickets stay", || replace(&tickets, "broken"));
    rig.shim.wait_for("reloaded\",\"key\":\"session_tickets\"");
}
