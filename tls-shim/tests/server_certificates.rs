//! Which certificate the shim shows, as `openssl s_client` sees it.

mod common;

use std::process::Command;

use common::s_client::{s_client, try_s_client};
use common::sessions::clients;
use common::{ONE_ROUTE, OPEN, Rig, SECURED, write_entities, write_settings};
use openssl::pkey::PKey;
use openssl::symm::Cipher;
use serde_json::{Value as Json, json};
use testbed::pki::{Ca, Leaf, Subject};
use testbed::tls_client::TlsClient;

/// What [`Rig`] has for a default certificate.
const DEFAULT: &str = "CN=secured.example";

/// A certificate whose CN is `cn`, so that it can be told from others.
fn leaf(cn: &str) -> Leaf {
    Ca::root("servers").issue(Subject::server(&[cn]))
}

fn rsa(ca: &Ca, cn: &str) -> Leaf {
    ca.issue_rsa(Subject::server(&[cn]), 2048)
}

/// A `certificates` entity.
fn entity(id: u8, leaf: &Leaf, snis: &[&str]) -> Json {
    let snis: Vec<_> = snis.iter().map(|name| json!({"name": name})).collect();
    json!({"id": uuid(id), "cert": leaf.cert, "key": leaf.key, "snis": snis})
}

fn uuid(id: u8) -> String {
    format!("cccccccc-0000-4000-8000-0000000000{id:02}")
}

/// The declarative configuration with these certificates and nothing else, or something else.
fn entities(certificates: &[Json]) -> String {
    format!("certificates: {}\n", json!(certificates))
}

/// The subjects of the certificates that a client is shown, its own first.
fn chain(rig: &Rig, sni: Option<&str>, arguments: &[&str]) -> Vec<String> {
    let said = s_client(rig, sni, arguments);
    let subjects = said.lines().filter_map(|line| Some(line.trim_start().split_once(" s:")?.1.to_owned()));
    subjects.collect()
}

/// The subject that a client is shown, on either version, and on the newer one also after a HelloRetryRequest.
fn subject(rig: &Rig, sni: Option<&str>) -> String {
    let shown = chain(rig, sni, &["-tls1_3"]);
    assert_eq!(shown.len(), 1, "{sni:?}: {shown:?}");
    assert_eq!(chain(rig, sni, &["-tls1_2"]), shown, "{sni:?}");
    assert_eq!(chain(rig, sni, &["-tls1_3", "-groups", "P-521:P-256"]), shown, "{sni:?}");
    shown[0].clone()
}

/// Writes other entities and waits until they count.
fn change(rig: &Rig, text: &str, generation: usize) {
    write_entities(rig.dir.path(), text);
    rig.shim.wait_for_count("server certificates by name", generation);
}

#[test]
fn a_name_gets_the_certificate_that_kong_would_show() {
    let patterns = [
        "www.example.com",
        "*.example.com",
        "www.example.*",
        "api.example.*",
        "example.*",
        "*.deep.example.com",
        "Upper.Case.Example.",
        "*.com",
    ];
    let of_patterns = patterns
        .iter()
        .zip(1..)
        .map(|(pattern, id)| entity(id, &leaf(&pattern.to_lowercase().replace('*', "any")), &[pattern]));
    let of_patterns: Vec<_> = of_patterns.collect();
    let rig = Rig::new(&entities(&of_patterns));
    let table = [
        ("www.example.com", "www.example.com"),
        ("WWW.Example.COM", "www.example.com"),
        ("www.example.com.", "www.example.com"),
        ("api.example.com", "any.example.com"),
        ("API.example.com.", "any.example.com"),
        ("api.example.org", "api.example.any"),
        ("www.example.org", "www.example.any"),
        ("example.com", "example.any"),
        ("a.deep.example.com", "any.deep.example.com"),
        ("upper.case.example", "upper.case.example."),
    ];
    for (sni, cn) in table {
        assert_eq!(subject(&rig, Some(sni)), format!("CN={cn}"), "{sni}");
    }
    // A `*` stands for one label, and not for none.
    let others =
        ["a.b.example.com", "deep.example.org", "a.example.co.uk", "other.com", "localhost", "127.0.0.1"];
    for sni in others {
        assert_eq!(subject(&rig, Some(sni)), DEFAULT, "{sni}");
    }
    assert_eq!(subject(&rig, None), DEFAULT);
    rig.shim.wait_for("no client can send a name that matches it");

    // A `*` is for all that name a server.
    change(&rig, &entities(&[&of_patterns[..], &[entity(20, &leaf("star"), &["*"])]].concat()), 2);
    for sni in others {
        assert_eq!(subject(&rig, Some(sni)), "CN=star", "{sni}");
    }
    assert_eq!(subject(&rig, Some("api.example.com")), "CN=any.example.com");
    assert_eq!(subject(&rig, None), DEFAULT);
}

#[test]
fn of_two_names_that_are_one_that_counts_which_is_as_names_are_written() {
    let rig = Rig::new(&entities(&[
        entity(1, &leaf("upper"), &["A.example"]),
        entity(2, &leaf("plain"), &["a.example"]),
        entity(3, &leaf("dot"), &["a.example."]),
    ]));
    assert_eq!(subject(&rig, Some("A.example.")), "CN=plain");
    for (id, name) in [(1, "A.example"), (3, "a.example.")] {
        let line = rig.shim.wait_for(&uuid(id));
        assert!(
            line.contains(&format!("\"names\":\"{name}\"")) && line.contains("a.example is the same"),
            "{line}"
        );
    }
}

#[test]
fn a_client_is_shown_rsa_or_ecdsa_by_what_it_can_do() {
    let root = Ca::root("root");
    let [for_rsa, for_ec] = ["rsa ca", "ec ca"].map(|cn| root.intermediate(cn));
    let with_chain = |leaf: Leaf, ca: &Ca| Leaf { cert: leaf.cert + &ca.pem() + &root.pem(), ..leaf };
    let r = with_chain(rsa(&for_rsa, "rsa"), &for_rsa);
    let e = with_chain(for_ec.issue(Subject::server(&["ec"])), &for_ec);
    let both = |id, first: &Leaf, second: &Leaf, sni: &str| {
        let mut entity = entity(id, first, &[sni]);
        entity["cert_alt"] = second.cert.clone().into();
        entity["key_alt"] = second.key.clone().into();
        entity
    };
    let rig = Rig::new(&entities(&[
        both(1, &r, &e, "rsa-first.example"),
        both(2, &e, &r, "ec-first.example"),
        entity(3, &r, &["rsa.example"]),
        entity(4, &e, &["ec.example"]),
    ]));
    // The second of each has a HelloRetryRequest.
    let can = |kind| match kind {
        "rsa" => [
            &["-tls1_3", "-sigalgs", "rsa_pss_rsae_sha256"][..],
            &["-tls1_3", "-sigalgs", "rsa_pss_rsae_sha256", "-groups", "P-521:P-256"],
            &["-tls1_2", "-cipher", "ECDHE-RSA-AES128-GCM-SHA256"],
            &["-tls1_2", "-sigalgs", "RSA+SHA256"],
        ],
        _ => [
            &["-tls1_3", "-sigalgs", "ecdsa_secp256r1_sha256"][..],
            &["-tls1_3", "-sigalgs", "ecdsa_secp256r1_sha256", "-groups", "P-521:P-256"],
            &["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"],
            &["-tls1_2", "-sigalgs", "ECDSA+SHA256"],
        ],
    };
    for kind in ["rsa", "ec"] {
        let expected = [format!("CN={kind}"), format!("CN={kind} ca"), "CN=root".to_owned()];
        for arguments in can(kind) {
            for sni in ["rsa-first.example", "ec-first.example", &format!("{kind}.example")] {
                assert_eq!(chain(&rig, Some(sni), arguments), expected, "{sni} {arguments:?}");
            }
        }
        // Never the default certificate in its place, because that is of the right kind.
        let other = if kind == "rsa" { "ec.example" } else { "rsa.example" };
        for arguments in can(kind) {
            assert!(!try_s_client(&rig, Some(other), arguments).status.success(), "{other} {arguments:?}");
        }
    }
}

#[test]
fn a_new_certificate_counts_for_the_next_handshake() {
    let rig = Rig::new(&entities(&[entity(1, &leaf("old"), &["a.example", "b.example"])]));
    assert_eq!(subject(&rig, Some("a.example")), "CN=old");
    let held = rig.client("a.example").connect(rig.address).unwrap();

    change(&rig, &entities(&[entity(1, &leaf("new"), &["a.example", "c.example"])]), 2);
    for (sni, cn) in [("a.example", "CN=new"), ("b.example", DEFAULT), ("c.example", "CN=new")] {
        assert_eq!(subject(&rig, Some(sni)), cn, "{sni}");
    }
    change(&rig, ONE_ROUTE, 3);
    assert_eq!(subject(&rig, Some("a.example")), DEFAULT);
    // Who was there before is served on.
    let answer = held.exchange(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

/// How an entity that was good is broken.
type Break = fn(&mut Json);

/// Ways to break one, and what is said of it.
fn broken() -> Vec<(Break, &'static str)> {
    vec![
        (|entity| entity["cert"] = "nonsense".into(), "cert: it holds no certificate in PEM"),
        (
            |entity| {
                let cut = entity["cert"].as_str().unwrap()[..300].to_owned();
                entity["cert"] = (leaf("first").cert + &cut).into();
            },
            "cert: a certificate in it cannot be read",
        ),
        (|entity| entity["key"] = "nonsense".into(), "key: it holds no private key in PEM"),
        (|entity| entity["key"] = "other nonsense".into(), "key: it holds no private key in PEM"),
        (|entity| entity["key"] = leaf("x").key.into(), "key: the key does not belong to the certificate"),
        (|entity| entity["cert"] = "{vault://env/cert}".into(), "cert: it is a reference into a vault"),
        (|entity| entity["key"] = "{vault://env/key}".into(), "key: it is a reference into a vault"),
        (
            |entity| {
                let key = PKey::private_key_from_pem(entity["key"].as_str().unwrap().as_bytes()).unwrap();
                let key = key.private_key_to_pem_pkcs8_passphrase(Cipher::aes_128_cbc(), b"secret").unwrap();
                entity["key"] = String::from_utf8(key).unwrap().into();
            },
            "key: its private key needs a passphrase",
        ),
        (
            |entity| {
                let weak = Ca::root("servers").issue_rsa(Subject::server(&["weak"]), 512);
                entity["cert"] = weak.cert.into();
                entity["key"] = weak.key.into();
            },
            // OpenSSL says so by itself; for AWS-LC, which would take it, the shim does.
            if cfg!(feature = "aws-lc") {
                "cert: AWS-LC does not take it: KEY_SIZE_TOO_SMALL"
            } else {
                "cert: OpenSSL does not take it: ee key too small"
            },
        ),
        (
            |entity| {
                let same = leaf("same kind");
                entity["cert_alt"] = same.cert.into();
                entity["key_alt"] = same.key.into();
            },
            "cert_alt: its key is of the same kind as that of cert",
        ),
        (
            |entity| {
                let other = rsa(&Ca::root("servers"), "other kind");
                entity["cert_alt"] = other.cert.into();
                entity["key_alt"] = leaf("x").key.into();
            },
            "key_alt: the key does not belong to the certificate",
        ),
    ]
}

#[test]
fn a_broken_certificate_leaves_the_last_good_one_in_place() {
    let good = entity(1, &leaf("good"), &["a.example"]);
    let other = entity(2, &leaf("other"), &["*.example.com"]);
    let rig = Rig::new(&entities(&[good.clone(), other.clone()]));
    let mut generation = 1;
    for (count, (break_it, reason)) in (1..).zip(broken()) {
        let mut bad = good.clone();
        break_it(&mut bad);
        // The name that is new has no last good one.
        bad["snis"].as_array_mut().unwrap().push(json!({"name": "x.example.com"}));
        generation += 1;
        change(&rig, &entities(&[bad.clone(), other.clone()]), generation);
        assert_eq!(subject(&rig, Some("a.example")), "CN=good", "{reason}");
        assert_eq!(subject(&rig, Some("x.example.com")), "CN=other", "{reason}");
        // What it is and was is not said again because something else changes, and the name keeps what it has.
        generation += 1;
        let another = entity(3, &leaf("another"), &["b.example"]);
        change(&rig, &entities(&[bad, other.clone(), another]), generation);
        assert_eq!(subject(&rig, Some("a.example")), "CN=good", "{reason}");
        assert_eq!(subject(&rig, Some("b.example")), "CN=another", "{reason}");

        let said: Vec<_> =
            rig.shim.output().into_iter().filter(|line| line.contains("cannot be used")).collect();
        assert_eq!(said.len(), count, "{reason}: {said:?}");
        let line = said.last().unwrap();
        for part in [reason, &uuid(1), "a.example, x.example.com", "\"level\":\"ERROR\""] {
            assert!(line.contains(part), "{part}: {line}");
        }
        rig.shim.wait_for(&format!("\"broken\":1,\"refused\":{count}"));
    }
    change(&rig, &entities(&[entity(1, &leaf("better"), &["a.example"])]), generation + 1);
    assert_eq!(subject(&rig, Some("a.example")), "CN=better");
    let log = rig.shim.output().join("\n");
    assert!(log.contains("\"broken\":0,\"refused\":11"), "{log}");
    assert!(!log.contains("PRIVATE") && !log.contains("nonsense") && !log.contains("vault://"), "{log}");
}

#[test]
fn a_certificate_that_is_broken_from_the_start_leaves_its_name_to_the_next() {
    let mut exact = entity(1, &leaf("exact"), &["a.example.com", "b.example.org"]);
    exact["key"] = "{vault://env/key}".into();
    let mut pattern = entity(2, &leaf("pattern"), &["*.example.com"]);
    pattern["cert"] = "x".into();
    let rest = [entity(3, &leaf("next"), &["a.example.*"]), entity(4, &leaf("star"), &["*"])];
    let rig = Rig::new(&entities(&[&[exact.clone(), pattern.clone()], &rest[..]].concat()));
    assert_eq!(subject(&rig, Some("a.example.com")), "CN=next");
    assert_eq!(subject(&rig, Some("b.example.org")), "CN=star");
    change(&rig, &entities(&[exact, pattern]), 2);
    assert_eq!(subject(&rig, Some("a.example.com")), DEFAULT);
}

#[test]
fn an_expired_certificate_is_shown_and_warned_of() {
    let expired = Ca::root("servers").issue(Subject::server(&["expired"]).expired());
    let soon = Ca::root("servers").issue(Subject::server(&["soon"]).not_yet_valid());
    let rig = Rig::new(&entities(&[
        entity(1, &expired, &["expired.example"]),
        entity(2, &soon, &["soon.example"]),
    ]));
    for (id, name, reason) in [(1, "expired", "it was valid until "), (2, "soon", "it is not valid before ")]
    {
        assert_eq!(subject(&rig, Some(&format!("{name}.example"))), format!("CN={name}"));
        let line = rig.shim.wait_for(reason);
        assert!(line.contains(&uuid(id)) && line.contains("\"level\":\"WARN\""), "{line}");
    }
    rig.shim.wait_for("\"broken\":0,\"refused\":0");
}

#[test]
fn the_certificate_that_is_shown_changes_nobody_who_is_asked() {
    let shared = entity(1, &leaf("shared"), &[SECURED, OPEN, "*.example", "*"]);
    let rig = Rig::new(&(ONE_ROUTE.to_owned() + &entities(&[shared])));
    for (sni, asked) in [
        (Some(SECURED), true),
        (Some("Secured.Example."), true),
        (Some(OPEN), false),
        (Some("other.example"), false),
        (Some("x.secured.example"), false),
        (Some("127.0.0.1"), true),
        (None, false),
    ] {
        assert_eq!(TlsClient::new(sni).connect(rig.address).unwrap().asked(), asked, "{sni:?}");
        assert_eq!(subject(&rig, sni), if sni.is_some() { "CN=shared" } else { DEFAULT }, "{sni:?}");
    }
    rig.curl(SECURED, "/", &Rig::CERTIFICATE);
    let presented = |rig: &Rig| {
        rig.upstream.requests().pop().unwrap().headers.iter().any(|(name, _)| name == "client-cert")
    };
    assert!(presented(&rig));
    rig.curl(OPEN, "/", &Rig::CERTIFICATE);
    assert!(!presented(&rig));
    for client in clients(&rig) {
        client.begin(rig.address, Some(SECURED), "client", "session");
        assert!(client.resumes(rig.address, Some(SECURED), "session"));
        assert!(presented(&rig));
        assert!(!client.resumes(rig.address, Some(OPEN), "session"));
        assert!(!presented(&rig));
    }
}

#[test]
fn check_says_which_certificate_is_shown() {
    let dir = tempfile::tempdir().unwrap();
    write_settings(dir.path(), "[\"127.0.0.1:0\"]", "127.0.0.1:8000".parse().unwrap());
    let mut broken = entity(4, &leaf("broken"), &["broken.example"]);
    broken["key"] = "x".into();
    let expired = Ca::root("servers").issue(Subject::server(&["expired"]).expired());
    let text = entities(&[
        entity(1, &leaf("one"), &["one.asked.example", "b.example"]),
        entity(2, &leaf("two"), &["*.asked.example", "*.x.asked.example"]),
        entity(3, &expired, &["expired.example"]),
        broken,
    ]);
    let routes = "routes:
- {name: r, snis: ['*.asked.example', secured.example], plugins: [{name: mtls-auth}]}
- {name: s, snis: [one.asked.example], plugins: [{name: mtls-auth}]}\n";
    write_entities(dir.path(), &(text + routes));
    let check = |code| {
        let output = Command::new(env!("CARGO_BIN_EXE_tls-shim"))
            .args(["check", "--config", dir.path().join("shim.yml").to_str().unwrap()])
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    // For the one that has ended.
    let said = check(1);
    let lines: Vec<&str> = said.lines().map(str::trim).collect();
    let row = |sni: &str, asked: &str, shown: &str, id: Option<u8>| {
        let is_row = |line: &&str| {
            line.split_once("  ").is_some_and(|(name, rest)| name == sni && rest.trim().starts_with(asked))
        };
        let start = lines.iter().position(is_row).unwrap_or_else(|| panic!("{sni}: {said}"));
        let line = lines[start..].iter().find(|line| line.starts_with("server certificate: ")).unwrap();
        assert!(
            line.starts_with(&format!("server certificate: \"CN={shown}\", valid until ")),
            "{sni}: {line}"
        );
        assert_eq!(line.contains("; id "), id.is_some(), "{sni}: {line}");
        assert!(id.is_none_or(|id| line.contains(&format!("; id {}", uuid(id)))), "{sni}: {line}");
        assert_eq!(line.ends_with(", where * is one label"), sni.starts_with("*."), "{sni}: {line}");
    };
    row("*.asked.example", "yes: plugin on route r", "two", Some(2));
    row("secured.example", "yes: plugin on route r", "secured.example", None);
    row("one.asked.example", "yes: plugin on route s", "one", Some(1));
    row("b.example", "no", "one", Some(1));
    row("*.x.asked.example", "yes, as *.asked.example", "two", Some(2));
    row("(none or any other)", "no", "secured.example", None);
    let warned = format!(
        "WARN  server certificates: the one with the id {} for expired.example: it was valid",
        uuid(3)
    );
    let refused = format!(
        "WARN  server certificates: the one with the id {} for broken.example: key: it holds no",
        uuid(4)
    );
    assert!(said.contains(&warned) && said.contains(&refused), "{said}");
    assert!(!said.contains("\nbroken.example"), "{said}");

    write_entities(dir.path(), &entities(&[entity(1, &leaf("star"), &["*"])]));
    let said = check(0);
    assert!(said.contains("\n*                    no\n"), "{said}");
    assert!(said.contains(" for none, that of * for any other\n"), "{said}");
}
