//! A connection begins with what an earlier one has proven under the same policy only, and then with all of it.
//!
//! The client is `openssl s_client`, which keeps a session in a file.

mod common;

use std::io::Write;
use std::process::{Command, Stdio};

use common::handed_on::{handed_on, is_handed_on};
use common::sessions::{CERTIFICATE, Client, clients};
use common::{
    OPEN, RELOADED, Rig, SECURED, hang_up, listening, start, start_with, until, until_said_again,
    write_entities,
};
use testbed::pki::{Ca, Leaf, Subject};

/// Two names with a plugin each, and one without. They have the same server certificate, the default.
const TWO_PLUGINS: &str = "
ca_certificates:
- {id: 6f1d39a0-9b0e-4c0e-8d4c-0a8f0f7f0001, cert: one}
- {id: 6f1d39a0-9b0e-4c0e-8d4c-0a8f0f7f0002, cert: two}
routes:
- name: secured
  snis: [secured.example, also.secured.example]
  plugins: [{name: mtls-auth, config: {ca_certificates: [6f1d39a0-9b0e-4c0e-8d4c-0a8f0f7f0001]}}]
- name: other
  snis: [other.example]
  plugins: [{name: mtls-auth, config: {ca_certificates: [6f1d39a0-9b0e-4c0e-8d4c-0a8f0f7f0002]}}]
- {name: open, snis: [open.example]}
";
const OTHER: &str = "other.example";

/// What the shim says of a configuration that counts from now on.
const FOLLOWED: &str = "who is asked for a client certificate";

#[test]
fn a_session_is_resumed_with_the_whole_chain() {
    let rig = Rig::new(TWO_PLUGINS);
    let issuer = rig.ca.intermediate("issuing");
    let leaf = issuer.issue(Subject::client("bob"));
    leaf.write(rig.dir.path(), "bob", &[&issuer, &rig.ca]);
    for client in clients(&rig) {
        client.begin(rig.address, Some(SECURED), "bob", "session-0");
        let (original, _) = handed_on(&rig.upstream.wait_for("/begin"));
        assert_eq!((&original.leaf, original.chain.len()), (&leaf.der, 2));
        // Each resumed connection is resumed again.
        for at in 0..3 {
            let (kept, next) = (format!("session-{at}"), format!("session-{}", at + 1));
            let path = format!("/resume/{at}{}", client.version);
            let said = client.get(rig.address, Some("SECURED.example."), &path, &next, &["-sess_in", &kept]);
            assert!(said.resumed() && said.has_passed(), "{}", said.0);
            assert!(!said.0.contains("CertificateRequest"), "{}", said.0);
            let (resumed, sni) = handed_on(&rig.upstream.wait_for(&path));
            assert_eq!((resumed, sni.as_str()), (original.clone(), SECURED));
            if client.version == "-tls1_2" {
                // There is no new ticket; the old one stays.
                assert!(!said.got_a_ticket());
                std::fs::copy(rig.dir.path().join(&kept), rig.dir.path().join(&next)).unwrap();
            }
        }
    }
}

#[test]
fn under_another_name_there_is_a_full_handshake() {
    let rig = Rig::new(TWO_PLUGINS);
    let undecidable = Some("127.0.0.1");
    let names =
        [Some(SECURED), Some("also.secured.example"), Some(OTHER), Some(OPEN), Some("x.example"), None];
    let names = [&names[..], &[undecidable]].concat();
    for client in clients(&rig) {
        for (at, &from) in names.iter().enumerate() {
            client.begin(rig.address, from, "client", "from");
            assert!(client.resumes(rig.address, from, "from"), "{from:?}");
            for &to in names.iter().filter(|&&to| to != from) {
                let path = format!("/{at}/{}{}", to.unwrap_or_default(), client.version);
                let said = client.get(rig.address, to, &path, "to", &["-sess_in", "from"]);
                assert!(!said.resumed() && said.has_passed(), "{from:?} {to:?}: {}", said.0);
                // All is as if the client had come for the first time, and has no certificate.
                let asks =
                    [Some(SECURED), Some("also.secured.example"), Some(OTHER), undecidable].contains(&to);
                assert_eq!(said.0.contains("CertificateRequest"), asks, "{to:?}: {}", said.0);
                assert!(!is_handed_on(&rig.upstream.wait_for(&path)), "{from:?} {to:?}");
                assert_eq!(said.got_a_ticket(), !asks, "{to:?}: {}", said.0);
            }
        }
    }
}

#[test]
fn a_session_from_before_a_change_is_not_resumed() {
    for (from, to) in [
        // Another CA under the same id, another CA, another configuration of the plugin.
        ("cert: one", "cert: other"),
        ("[6f1d39a0-9b0e-4c0e-8d4c-0a8f0f7f0001]", "[6f1d39a0-9b0e-4c0e-8d4c-0a8f0f7f0002]"),
        (
            "[6f1d39a0-9b0e-4c0e-8d4c-0a8f0f7f0001]}",
            "[6f1d39a0-9b0e-4c0e-8d4c-0a8f0f7f0001], anonymous: guest}",
        ),
        // A name that has nothing to do with it: it is another generation of the map.
        ("snis: [other.example]", "snis: [new.example]"),
        // Nobody is asked any more, or everybody.
        (
            "plugins: [{name: mtls-auth, config: {ca_certificates: [6f1d39a0-9b0e-4c0e-8d4c-0a8f0f7f0001]}}]",
            "",
        ),
        ("routes:", "plugins: [{name: mtls-auth}]\nroutes:"),
    ] {
        let rig = Rig::new(TWO_PLUGINS);
        for client in clients(&rig) {
            for (name, kept) in [(SECURED, "secured"), (OPEN, "open")] {
                let kept = format!("{kept}{}", client.version);
                client.begin(rig.address, Some(name), "client", &kept);
                assert!(client.resumes(rig.address, Some(name), &kept));
            }
        }
        let changed = TWO_PLUGINS.replacen(from, to, 1);
        assert_ne!(changed, TWO_PLUGINS);
        until_said_again(&rig.shim, FOLLOWED, || write_entities(rig.dir.path(), &changed));
        for client in clients(&rig) {
            for (name, kept) in [(SECURED, "secured"), (OPEN, "open")] {
                let kept = format!("{kept}{}", client.version);
                assert!(!client.resumes(rig.address, Some(name), &kept), "{name}: {to}");
            }
        }
    }
}

#[test]
fn a_session_outlives_what_changes_nothing_about_it() {
    let rig = Rig::new(TWO_PLUGINS);
    for client in clients(&rig) {
        client.begin(rig.address, Some(SECURED), "client", client.version);
    }
    let more = format!("{TWO_PLUGINS}- {{name: more, snis: [more.example]}}\n");
    until_said_again(&rig.shim, FOLLOWED, || write_entities(rig.dir.path(), &more));
    hang_up(&rig.shim, RELOADED);
    for client in clients(&rig) {
        assert!(client.resumes(rig.address, Some(SECURED), client.version));
    }
}

#[test]
fn however_often_it_is_resumed_a_session_ends() {
    let rig = Rig::with_settings(TWO_PLUGINS, "session_tickets: {lifetime: 3s}\n");
    // Only in TLS 1.3 does a resumed connection get a new ticket.
    let client = Client::new(&rig, "-tls1_3");
    client.begin(rig.address, Some(SECURED), "client", "session");
    until(|| {
        let said = client.get(rig.address, Some(SECURED), "/", "next", &["-sess_in", "session"]);
        if said.got_a_ticket() {
            std::fs::rename(rig.dir.path().join("next"), rig.dir.path().join("session")).unwrap();
        }
        !said.resumed()
    });
}

#[test]
fn a_client_is_told_how_long_its_ticket_lives() {
    let rig = Rig::with_settings(TWO_PLUGINS, "session_tickets: {lifetime: 10m}\n");
    let now = std::time::SystemTime::now();
    let soon = now + std::time::Duration::from_secs(300);
    rig.ca.issue(Subject::client("soon").not_after(soon)).write(rig.dir.path(), "soon", &[]);
    for client in clients(&rig) {
        for (name, lifetime) in [("client", 600), ("soon", 300)] {
            let [cert, key] = ["crt", "key"].map(|kind| format!("{name}.{kind}"));
            let said = client.get(rig.address, Some(SECURED), "/", "kept", &["-cert", &cert, "-key", &key]);
            let [of_full, of_resumed] = [
                said.lifetime(),
                client.get(rig.address, Some(SECURED), "/", "next", &["-sess_in", "kept"]).lifetime(),
            ];
            // Handshakes on a busy machine take their time, but not minutes.
            assert!((lifetime - 60..=lifetime).contains(&of_full), "{}", said.0);
            // A resumed session does not live for longer.
            assert!((lifetime - 60..=of_full).contains(&of_resumed), "{of_resumed} after {of_full}");
        }
    }
}

#[test]
fn a_full_handshake_and_a_resumed_one_end_with_one_ticket_each() {
    let rig = Rig::new(TWO_PLUGINS);
    let [full, resumed] = ["full", "resumed"].map(|name| {
        let proof = match name {
            "full" => &["-cert", "client.crt", "-key", "client.key"][..],
            _ => &["-sess_in", "full"],
        };
        let client = clients(&rig).into_iter().find(|client| client.version == "-tls1_3").unwrap();
        client.get(rig.address, Some(SECURED), "/", name, proof).tickets()
    });
    assert_eq!((full, resumed), (1, 1));
}

#[test]
fn another_server_certificate_is_shown_in_a_full_handshake() {
    let rig = Rig::new(TWO_PLUGINS);
    for client in clients(&rig) {
        client.begin(rig.address, Some(SECURED), "client", client.version);
    }
    Ca::root("servers").issue(Subject::server(&[SECURED])).write(rig.dir.path(), "server", &[]);
    hang_up(&rig.shim, RELOADED);
    for client in clients(&rig) {
        assert!(!client.resumes(rig.address, Some(SECURED), client.version));
    }
}

#[test]
fn who_may_be_asked_again_gets_no_ticket() {
    let rig = Rig::new(TWO_PLUGINS);
    let present = |leaf: &Leaf, name: &str| leaf.write(rig.dir.path(), name, &[]);
    present(&rig.ca.issue(Subject::client("past").expired()), "past");
    for client in clients(&rig) {
        // One that has shown no certificate may have one next time.
        let said = client.get(rig.address, Some(SECURED), "/", "none", &[]);
        assert!(said.has_passed() && !said.got_a_ticket(), "{}", said.0);
        // One whose certificate has ended shall show another.
        let past = ["-cert", "past.crt", "-key", "past.key"];
        let said = client.get(rig.address, Some(SECURED), "/", "past", &past);
        assert!(said.has_passed() && !said.got_a_ticket(), "{}", said.0);
    }
    // Without an extended master secret, a session can be passed off as another.
    let conf = rig.dir.path().join("no_ems.cnf");
    let options = "openssl_conf = a\n[a]\nssl_conf = b\n[b]\nsystem_default = c\n[c]\nOptions = -ExtendedMasterSecret\n";
    std::fs::write(&conf, options).unwrap();
    let client = Client { conf: Some(&conf), ..Client::new(&rig, "-tls1_2") };
    let said = client.get(rig.address, Some(SECURED), "/", "without", &CERTIFICATE);
    assert!(said.0.contains("Extended master secret: no"), "{}", said.0);
    assert!(said.has_passed() && !said.got_a_ticket(), "{}", said.0);
}

#[test]
fn certificates_that_fit_in_no_ticket_are_handed_on_without_one() {
    let rig = Rig::new(TWO_PLUGINS);
    let big = |names: usize| {
        let names: Vec<String> = (0..names).map(|at| format!("{at:060}.example")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        rig.ca.issue(Subject::server(&names))
    };
    big(200).write(rig.dir.path(), "fits", &[]);
    big(300).write(rig.dir.path(), "big", &[]);
    for client in clients(&rig) {
        client.begin(rig.address, Some(SECURED), "fits", "fits");
        let arguments = ["-cert", "big.crt", "-key", "big.key"];
        let path = format!("/big{}", client.version);
        let said = client.get(rig.address, Some(SECURED), &path, "big", &arguments);
        assert!(said.has_passed() && !said.got_a_ticket(), "{}", said.0);
        assert!(is_handed_on(&rig.upstream.wait_for(&path)));
    }
}

#[test]
fn a_resumed_session_is_bound_to_its_name_in_requests_too() {
    let rig = Rig::new(TWO_PLUGINS);
    for client in clients(&rig) {
        client.begin(rig.address, Some(OPEN), "client", "open");
        let said = client.get(rig.address, Some(OPEN), "/", "open", &["-sess_in", "open"]);
        assert!(said.resumed() && said.has_passed());
        let mut client = Command::new("openssl")
            .args(["s_client", "-ign_eof", "-connect", &rig.address.to_string(), client.version])
            .args(["-servername", OPEN, "-sess_in", "open"])
            .current_dir(rig.dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("openssl runs");
        let request = format!("GET / HTTP/1.1\r\nHost: {SECURED}\r\nConnection: close\r\n\r\n");
        client.stdin.as_mut().unwrap().write_all(request.as_bytes()).unwrap();
        let said = String::from_utf8_lossy(&client.wait_with_output().unwrap().stdout).into_owned();
        assert!(said.contains("Reused, TLSv1") && said.contains("HTTP/1.1 421"), "{said}");
    }
}

#[test]
fn shims_that_share_a_key_file_resume_each_others_sessions() {
    // Each shim has files of its own, for it would notice that they change.
    let secrets = |rig: &Rig, name: &str, lines: &[&str]| {
        use std::os::unix::fs::PermissionsExt;
        let path = rig.dir.path().join(name);
        std::fs::write(&path, lines.join("\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    };
    let [old, new] =
        ["AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=", "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI="];
    let mut rig = Rig::new(TWO_PLUGINS);
    let [settings, of_alone, of_second] =
        ["shim.yml", "alone.yml", "second.yml"].map(|name| rig.dir.path().join(name));
    let own = std::fs::read_to_string(&settings).unwrap();
    let shared = |name: &str| {
        let file = rig.dir.path().join(name);
        format!("{own}session_tickets: {{key_file: {}, lifetime: 10m}}\n", file.display())
    };

    // Each its own, as long as nothing is said.
    std::fs::write(&of_alone, &own).unwrap();
    let alone = start_with(&of_alone);
    let alone_at = listening(&alone);
    for client in clients(&rig) {
        client.begin(rig.address, Some(SECURED), "client", "own");
        assert!(!client.resumes(alone_at, Some(SECURED), "own"));
    }

    secrets(&rig, "tickets.key", &[old]);
    secrets(&rig, "second.key", &[old]);
    std::fs::write(&of_second, shared("second.key")).unwrap();
    std::fs::write(&settings, shared("tickets.key")).unwrap();
    hang_up(&rig.shim, RELOADED);
    let second = start_with(&of_second);
    let second_at = listening(&second);
    for client in clients(&rig) {
        client.begin(rig.address, Some(SECURED), "client", &format!("old{}", client.version));
        assert!(client.resumes(second_at, Some(SECURED), &format!("old{}", client.version)));
        assert!(!client.resumes(alone_at, Some(SECURED), &format!("old{}", client.version)));
    }
    // A new secret is known to all before it is used.
    secrets(&rig, "second.key", &[new, old]);
    hang_up(&second, RELOADED);
    for client in clients(&rig) {
        assert!(client.resumes(second_at, Some(SECURED), &format!("old{}", client.version)));
        client.begin(second_at, Some(SECURED), "client", &format!("new{}", client.version));
        assert!(!client.resumes(rig.address, Some(SECURED), &format!("new{}", client.version)));
    }
    // What cannot be read leaves those that were there.
    secrets(&rig, "second.key", &["nonsense"]);
    hang_up(&second, "session tickets stay as they were");
    for client in clients(&rig) {
        assert!(client.resumes(second_at, Some(SECURED), &format!("new{}", client.version)));
    }
    // Over a restart, too.
    secrets(&rig, "tickets.key", &[new]);
    rig.shim = start(rig.dir.path());
    rig.address = listening(&rig.shim);
    for client in clients(&rig) {
        assert!(client.resumes(rig.address, Some(SECURED), &format!("new{}", client.version)));
        assert!(!client.resumes(rig.address, Some(SECURED), &format!("old{}", client.version)));
    }
}

#[test]
fn nothing_is_resumed_where_it_is_off() {
    let rig = Rig::with_settings(TWO_PLUGINS, "session_tickets: off\n");
    for client in clients(&rig) {
        for sni in [SECURED, OPEN] {
            let said = client.get(rig.address, Some(sni), "/", "session", &CERTIFICATE);
            assert!(said.has_passed() && !said.got_a_ticket(), "{}", said.0);
        }
    }
    // Nor what was resumed before it was turned off.
    let rig = Rig::new(TWO_PLUGINS);
    for client in clients(&rig) {
        client.begin(rig.address, Some(SECURED), "client", client.version);
    }
    let settings = rig.dir.path().join("shim.yml");
    let off = std::fs::read_to_string(&settings).unwrap() + "session_tickets: off\n";
    std::fs::write(&settings, off).unwrap();
    hang_up(&rig.shim, RELOADED);
    for client in clients(&rig) {
        assert!(!client.resumes(rig.address, Some(SECURED), client.version));
    }
}

#[test]
fn a_session_without_a_ticket_is_not_kept() {
    let rig = Rig::new(TWO_PLUGINS);
    let client = Client::new(&rig, "-tls1_2");
    for sni in [SECURED, OPEN] {
        let arguments = [&CERTIFICATE[..], &["-no_ticket"]].concat();
        let said = client.get(rig.address, Some(sni), "/", "session", &arguments);
        assert!(said.has_passed() && !said.resumed(), "{}", said.0);
        // Had the server one, it would have an id, by which the client could name it.
        assert!(!rig.dir.path().join("session").exists(), "{}", said.0);
    }
}

#[test]
fn there_is_no_renegotiation() {
    let rig = Rig::new(TWO_PLUGINS);
    let mut client = Command::new("openssl")
        .args(["s_client", "-tls1_2", "-connect", &rig.address.to_string(), "-servername", SECURED])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("openssl runs");
    // `R` asks for a renegotiation.
    client.stdin.as_mut().unwrap().write_all(b"R\nR\n").unwrap();
    let output = client.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("no renegotiation"), "{said}");
}
