//! Who is asked for a client certificate.

mod common;

use common::raw_hello::{self, CERTIFICATE_REQUEST, host_name, long};
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
fn a_client_hello_in_records_of_one_byte_is_read_as_a_whole() {
    let rig = Rig::new(ONE_ROUTE);
    let cutting = raw_hello::cutting(rig.address);
    for (sni, expected) in [
        (Some(SECURED), true),
        (Some("SECURED.example."), true),
        (Some("127.0.0.1"), true),
        (Some(OPEN), false),
        (None, false),
    ] {
        assert_eq!(common::asked(cutting, sni), expected, "{sni:?}");
    }
}

/// What a client does with a name of another script before it sends it is its own affair: on the wire there are A-labels
/// (RFC 5890, section 2.3.2.1), or it cannot be decided.
#[test]
fn a_name_of_another_script_is_the_one_on_the_wire() {
    let rig = Rig::new(
        "routes: [{name: r, snis: [xn--bcher-kva.example, '*.xn--mnchen-3ya.example'], plugins: [{name: mtls-auth}]}]",
    );
    for name in [
        "xn--bcher-kva.example",
        "XN--BCHER-KVA.Example.",
        "a.xn--mnchen-3ya.example",
        // Not as they are registered.
        "b\u{fc}cher.example",
        "bu\u{308}cher.example",
        "B\u{dc}CHER.example",
        "xn--bcher-kva\u{3002}example",
        "any.example\u{ff0e}",
    ] {
        assert!(asked(&rig, Some(name)), "{name}");
    }
    for name in ["xn--bcher-kvb.example", "xn--mnchen-3ya.example", "bucher.example", "bcher.example"] {
        assert!(!asked(&rig, Some(name)), "{name}");
    }
}

/// In TLS 1.3 nobody but the client sees whether it is asked, and no client can be made to send these.
#[test]
fn a_server_name_that_names_no_server_gets_no_handshake_or_is_asked() {
    let rig = Rig::new(ONE_ROUTE);
    let secured = [&[0][..], &long(SECURED.as_bytes())].concat();
    let open = [&[0][..], &long(OPEN.as_bytes())].concat();
    let asked = |server_name: &[u8]| {
        let part = raw_hello::server_part(&mut raw_hello::hello(rig.address, Version::TLS1_2, server_name))?;
        Some(part.contains(&CERTIFICATE_REQUEST))
    };
    for (name, expected) in [(OPEN, false), (SECURED, true), ("SECURED.example.", true), ("127.0.0.1", true)]
    {
        assert_eq!(asked(&host_name(name.as_bytes())), Some(expected), "{name}");
    }
    for (what, server_name) in [
        ("a name without bytes", host_name(b"")),
        ("a list without names", long(b"")),
        ("no list", vec![]),
        ("two names", long(&[&open[..], &secured].concat())),
        ("twice the same", long(&[&open[..], &open].concat())),
        ("something behind the list", [&long(&open)[..], &secured].concat()),
        ("a name of another type", long(&[&[1][..], &long(OPEN.as_bytes())].concat())),
        ("a list that is longer than it is", [&[0, 200][..], &open].concat()),
        ("a NUL", host_name(b"open.example\0.secured.example")),
        ("a NUL at the end", host_name(b"open.example\0")),
    ] {
        assert_ne!(asked(&server_name), Some(false), "{what}");
        let mut stream = raw_hello::hello(rig.address, Version::TLS1_3, &server_name);
        let (kind, _) = raw_hello::record(&mut stream).unwrap();
        assert_eq!(kind == raw_hello::ALERT, asked(&server_name).is_none(), "{what}");
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
