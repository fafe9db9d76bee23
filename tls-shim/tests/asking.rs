//! Who is asked for a client certificate.

mod common;

use common::s_client::s_client;
use common::{ONE_ROUTE, OPEN, Rig, SECURED, as_written, write_entities};
use testbed::tls_client::{TlsClient, Version};

fn asked(rig: &Rig, sni: Option<&str>) -> bool {
    common::asked(rig.address, sni)
}

#[test]
fn a_plugin_on_a_route_asks_for_the_names_of_the_route() {
    let rig = Rig::new(ONE_ROUTE);
    for name in [SECURED, "SECURED.Example", "secured.example.", "Secured.example."] {
        assert!(asked(&rig, Some(name)), "{name}");
    }
    for name in
        [OPEN, "OPEN.example", "open.example.", "other.example", "x.secured.example", "secured.example.org"]
    {
        assert!(!asked(&rig, Some(name)), "{name}");
    }
    assert!(!asked(&rig, None), "no server was named");
    for name in ["secured.example..", "sécured.example", "127.0.0.1", "secured example"] {
        assert!(asked(&rig, Some(name)), "{name} cannot be decided");
    }
}

#[test]
fn a_plugin_on_a_service_asks_for_the_names_of_its_routes() {
    let rig = Rig::new(
        "services: [{name: s, plugins: [{name: mtls-auth}],
           routes: [{name: a, snis: [a.example]}, {name: b, snis: ['*.b.example', 'c.*']}]}]",
    );
    for name in ["a.example", "x.b.example", "x.y.b.example", "c.example"] {
        assert!(asked(&rig, Some(name)), "{name}");
    }
    for name in [Some("b.example"), Some("x.a.example"), Some("x.c.example"), None] {
        assert!(!asked(&rig, name), "{name:?}");
    }
}

#[test]
fn a_plugin_on_everything_asks_everybody() {
    let rig = Rig::new("plugins: [{name: mtls-auth}]");
    assert!(asked(&rig, None) && asked(&rig, Some("any.example")));
}

#[test]
fn nobody_is_asked_without_a_plugin() {
    let rig = Rig::new("plugins: [{name: mtls-auth, enabled: false}, {name: key-auth}]");
    assert!(!asked(&rig, None) && !asked(&rig, Some(SECURED)) && !asked(&rig, Some("not a name")));
}

#[test]
fn a_changed_file_counts_for_the_next_handshake() {
    let rig = Rig::new(ONE_ROUTE);
    assert!(asked(&rig, Some(SECURED)) && !asked(&rig, Some(OPEN)));

    let both = "routes: [{name: r, snis: [open.example, b.example], plugins: [{name: mtls-auth}]}]";
    write_entities(rig.dir.path(), both);
    rig.shim.wait_for("\"names\":2");
    assert!(!asked(&rig, Some(SECURED)) && asked(&rig, Some(OPEN)));

    // What cannot be read leaves the last good one.
    std::fs::write(rig.dir.path().join("kong.yml"), "plugins: [").unwrap();
    rig.shim.wait_for("the last good one stays");
    assert!(!asked(&rig, Some(SECURED)) && asked(&rig, Some(OPEN)));

    write_entities(rig.dir.path(), "plugins: [{name: mtls-auth}]");
    rig.shim.wait_for("\"everybody\":true");
    assert!(asked(&rig, None));
}

#[test]
fn asking_does_not_require() {
    let rig = Rig::new(ONE_ROUTE);
    for version in ["--tls-max=1.2", "--tlsv1.3"] {
        let argument = if version.contains("max") { ["--tls-max", "1.2"] } else { ["--tlsv1.3", "--http2"] };
        assert!(rig.curl(SECURED, "/", &argument).contains("\"method\":\"GET\""), "{version}");
    }
}

#[test]
fn a_client_hello_in_several_records_is_read_as_a_whole() {
    let rig = Rig::new(ONE_ROUTE);
    let protocols = (0..20).map(|at| format!("{at:060}")).collect::<Vec<_>>().join(",") + ",http/1.1";
    for version in ["-tls1_2", "-tls1_3"] {
        for (sni, asked) in [(SECURED, true), (OPEN, false)] {
            let said =
                s_client(&rig, Some(sni), &[version, "-msg", "-max_send_frag", "512", "-alpn", &protocols]);
            let sent = said.lines().take_while(|line| !line.starts_with("<<<"));
            let records = sent.filter(|line| line.contains("RecordHeader")).count();
            assert!(records > 2, "{said}");
            assert_eq!(said.contains("CertificateRequest"), asked, "{version} {sni}: {said}");
        }
    }
}

#[test]
fn old_versions_and_other_protocols_are_refused() {
    let rig = Rig::new(ONE_ROUTE);
    let old = TlsClient::new(Some(SECURED)).version(Version::TLS1_1).connect(rig.address);
    assert!(old.is_err());
    let other = TlsClient::new(Some(SECURED)).alpn(b"\x04smtp").connect(rig.address);
    assert!(other.err().unwrap().contains(&as_written("no application protocol")));
    let some = TlsClient::new(Some(SECURED)).alpn(b"\x04smtp\x08http/1.1").connect(rig.address);
    assert!(some.is_ok());
}
