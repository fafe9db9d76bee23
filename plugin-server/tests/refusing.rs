//! The built server refuses what is bad, from each source of certificates and of CAs, in both of Kong's protocols.

mod common;

use std::process::Command;
use std::time::SystemTime;

use client_cert::{Presented, Proof, ProofKey};
use common::played::{Outcome, Request, Speaks};
use common::{BINARY, Prefix};
use serde_json::{Value as Json, json};
use testbed::fake_admin::{CA_ID, FakeAdmin, Reply, Seen, kong_with, not_found, ok};
use testbed::pki::{Ca, Leaf, Subject};
use testbed::process::Process;

const NONE: &str = "No required TLS certificate was sent";
const BAD: &str = "TLS certificate failed verification";

fn consumers() -> Json {
    json!([
        {"id": "11111111-1111-4111-8111-111111111111", "username": "alice"},
        {"id": "22222222-2222-4222-8222-222222222222", "username": "anon"},
    ])
}

fn declarative(ca_certificates: Json) -> String {
    let consumers = consumers();
    json!({"_format_version": "3.0", "ca_certificates": ca_certificates, "consumers": consumers}).to_string()
}

/// What the shim hands on.
fn handed_on(prefix: &Prefix, leaf: Vec<u8>, chain: Vec<Vec<u8>>) -> Request {
    let key = ProofKey::read(&prefix.path("mtls-auth.key")).unwrap();
    let presented = Presented { leaf, chain };
    let proof = Proof::write(&key, &presented, "", SystemTime::now());
    let mut request =
        with(&[("client-cert", &presented.leaf_header()), ("client-cert-proof", &proof), ("host", "x")]);
    request.headers.extend(presented.chain_header().map(|chain| ("client-cert-chain".to_owned(), chain)));
    request
}

fn with(headers: &[(&str, &str)]) -> Request {
    let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Request { headers, shown: None }
}

fn shown(pem: &str) -> Request {
    Request { shown: Some(pem.to_owned()), ..with(&[("host", "x")]) }
}

fn base64(der: &[u8]) -> String {
    openssl::base64::encode_block(der)
}

/// A request for each way to present this certificate, with the settings of its source.
fn sources(prefix: &Prefix, leaf: &Leaf) -> [(Json, Request); 3] {
    [
        (json!({"certificate_source": "shim"}), handed_on(prefix, leaf.der.clone(), vec![])),
        (
            json!({
                "certificate_source": "header", "certificate_header_name": "X-Front",
                "certificate_header_format": "base64_encoded",
            }),
            with(&[("x-front", &base64(&leaf.der))]),
        ),
        (json!({"certificate_source": "tls"}), shown(&leaf.cert)),
    ]
}

/// A configuration of these fields in which alice may pass.
fn config(fields: &[&Json]) -> Json {
    let mut config = json!({"ca_certificates": [CA_ID], "consumer_by": ["username"], "cache_ttl": 0});
    for more in fields {
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    }
    config
}

#[test]
fn presented_but_bad_is_not_none_by_any_source_in_either_protocol() {
    let (prefix, ca) = (Prefix::new(), Ca::root("root"));
    let file = prefix.write("kong.json", &declarative(json!([{"id": CA_ID, "cert": ca.pem()}])));
    let _server = prefix.serve(&["--declarative-config", file.to_str().unwrap()]);
    let alice = ca.issue(Subject::client("alice"));
    let impostor = ca.impostor("impostor");
    let leaves = [
        (Ca::root("root").issue(Subject::client("alice")), "untrusted"),
        (ca.issue(Subject::client("alice").expired()), "expired"),
        (ca.issue(Subject::client("alice").not_yet_valid()), "not_yet_valid"),
        (ca.issue(Subject::server(&["alice"])), "wrong_purpose"),
        (ca.issue(Subject::client("stranger")), "no_consumer"),
        (impostor.issue(Subject::client("alice")), "untrusted"),
    ];
    let genuine = handed_on(&prefix, alice.der.clone(), vec![]).headers;
    let (leaf, proof) = (genuine[0].1.as_str(), genuine[1].1.as_str());
    let of_impostor = leaves[5].0.der.clone();
    let of_each: [&[(Request, &str)]; 3] = [
        &[
            (with(&[("client-cert", "")]), "proof_missing"),
            (with(&[("client-cert", leaf)]), "proof_missing"),
            (with(&[("client-cert-proof", proof)]), "malformed"),
            (with(&[("client-cert-chain", leaf)]), "malformed"),
            (with(&[("client_cert", leaf), ("client_cert_proof", proof)]), "malformed"),
            (with(&[("client-cert", "x"), ("client-cert-proof", proof)]), "malformed"),
            (with(&[("client-cert", leaf), ("client-cert-proof", "v1.1.x.y")]), "proof_invalid"),
            (handed_on(&prefix, alice.cert.clone().into_bytes(), vec![]), "malformed"),
            (handed_on(&prefix, of_impostor, vec![impostor.der()]), "untrusted"),
        ],
        &[
            (with(&[("x-front", "x")]), "malformed"),
            (with(&[("x-front", &base64(b"x"))]), "malformed"),
            (with(&[("x-front", &alice.cert.replace('\n', " "))]), "malformed"),
            (with(&[("x_front", &base64(&alice.der))]), "malformed"),
            (with(&[("x-front", &format!("{0},{0}", base64(&alice.der[1..])))]), "malformed"),
        ],
        &[
            (shown("x"), "malformed"),
            (shown(&alice.key), "malformed"),
            (shown(&alice.cert[..200]), "malformed"),
        ],
    ];
    for speaks in Speaks::BOTH {
        for (at, (source, good)) in sources(&prefix, &alice).into_iter().enumerate() {
            let run =
                |more: Json, request: &Request| speaks.run(&prefix, &config(&[&source, &more]), request);
            let (refusing, anonymous) = (json!({}), json!({"anonymous": "anon"}));
            let context = |outcome: &Outcome| format!("{speaks:?} {source}: {outcome:?}");

            let outcome = run(refusing.clone(), &good);
            assert!(outcome.status.is_none() && outcome.said.contains("alice"), "{}", context(&outcome));
            let outcome = run(refusing.clone(), &with(&[("host", "x")]));
            assert_eq!((outcome.status, &*outcome.said), (Some(401), NONE), "{}", context(&outcome));
            let outcome = run(anonymous.clone(), &with(&[("host", "x")]));
            assert!(outcome.status.is_none() && outcome.log.is_empty(), "{}", context(&outcome));

            let leaves = leaves.iter().map(|(leaf, reason)| (sources(&prefix, leaf)[at].1.clone(), *reason));
            for (bad, reason) in leaves.chain(of_each[at].iter().cloned()) {
                let outcome = run(refusing.clone(), &bad);
                assert_eq!(
                    (outcome.status, &*outcome.said),
                    (Some(401), BAD),
                    "{bad:?} {}",
                    context(&outcome)
                );
                assert!(outcome.log.contains(&format!("refused: {reason}")), "{bad:?} {}", context(&outcome));
                // Whoever may pass anonymously passes as that, and it is told what was bad.
                let outcome = run(anonymous.clone(), &bad);
                assert!(outcome.status.is_none() && outcome.said.contains("anon"), "{}", context(&outcome));
                assert!(!outcome.said.contains("alice"), "{}", context(&outcome));
                let told = format!("passed as anonymous: {reason}");
                assert!(outcome.log.contains(&told), "{bad:?} {}", context(&outcome));
            }
        }
    }
}

/// The roots of the system are for servers that are asked, and even there only where nothing else is said.
#[test]
fn nobody_passes_whom_only_the_system_trusts() {
    let (prefix, ca, system) = (Prefix::new(), Ca::root("root"), Ca::root("system"));
    let file = prefix.write("kong.json", &declarative(json!([{"id": CA_ID, "cert": ca.pem()}])));
    let roots = prefix.write("roots.pem", &system.pem());
    std::fs::create_dir(prefix.path("roots")).unwrap();
    prefix.write("roots/system.pem", &system.pem());
    let hashed = Command::new("openssl").arg("rehash").arg(prefix.path("roots")).status().unwrap();
    assert!(hashed.success());
    let mut server = Command::new("env");
    server
        .arg(format!("SSL_CERT_FILE={}", roots.display()))
        .arg(format!("SSL_CERT_DIR={}", prefix.path("roots").display()))
        .args([BINARY, "-kong-prefix"])
        .arg(prefix.dir.path())
        .args(["--declarative-config", file.to_str().unwrap()]);
    let server = Process::start(&mut server);
    server.wait_for("serving");
    let issuing = system.intermediate("issuing");
    let (leaf, below) = (system.issue(Subject::client("alice")), issuing.issue(Subject::client("alice")));
    for speaks in Speaks::BOTH {
        for (source, request) in sources(&prefix, &leaf) {
            for more in [json!({}), json!({"allow_partial_chain": true})] {
                let outcome = speaks.run(&prefix, &config(&[&source, &more]), &request);
                assert_eq!(outcome.status, Some(401), "{speaks:?} {source}: {outcome:?}");
                assert!(outcome.log.contains("refused: untrusted"), "{speaks:?} {source}: {outcome:?}");
            }
        }
        let with_chain = handed_on(&prefix, below.der.clone(), vec![issuing.der(), system.der()]);
        let outcome = speaks.run(&prefix, &config(&[&json!({"certificate_source": "shim"})]), &with_chain);
        assert_eq!(outcome.status, Some(401), "{speaks:?}: {outcome:?}");
        // Where it is configured, it counts.
        let known = json!({"certificate_source": "shim", "ca_certificates": [system.pem()]});
        let outcome = speaks.run(&prefix, &config(&[&known]), &with_chain);
        assert!(outcome.status.is_none(), "{speaks:?}: {outcome:?}");
    }
}

/// Nobody passes: neither whoever would under the right CA, nor somebody else, nor anonymously.
fn nobody_passes(prefix: &Prefix, ca: &Ca, why: &str) {
    let stranger = Ca::root("stranger").issue(Subject::client("alice"));
    for speaks in Speaks::BOTH {
        for leaf in [&ca.issue(Subject::client("alice")), &stranger] {
            for (source, request) in sources(prefix, leaf) {
                for more in [json!({}), json!({"anonymous": "anon"}), json!({"skip_consumer_lookup": true})] {
                    let outcome = speaks.run(prefix, &config(&[&source, &more]), &request);
                    let context = format!("{why}: {speaks:?} {source} {more}: {outcome:?}");
                    assert!(outcome.status.is_some_and(|status| status >= 500), "{context}");
                    assert!(outcome.log.contains("config.ca_certificates[0]: "), "{context}");
                }
            }
        }
    }
}

/// Texts that are no CA.
fn no_cas(ca: &Ca) -> Vec<(&'static str, String)> {
    let pem = ca.pem();
    let half = pem[..pem.len() / 2].to_owned();
    let mended = format!("{half}\n-----END CERTIFICATE-----\n");
    let (begin, _) = pem.split_once('\n').unwrap();
    vec![
        ("empty", String::new()),
        ("white space", " \n".into()),
        ("text", "cert".into()),
        ("cut off", half),
        ("cut off between its markers", mended),
        ("markers alone", format!("{begin}\n-----END CERTIFICATE-----\n")),
        ("a key", ca.key_pem()),
        ("a leaf", ca.issue(Subject::client("alice")).cert),
    ]
}

#[test]
fn a_broken_ca_in_the_declarative_file_lets_nobody_pass() {
    let ca = Ca::root("root");
    let entry = |cert: Json| declarative(json!([{"id": CA_ID, "cert": cert}]));
    let other = json!([{"id": "6ae7a1a4-0cf0-4b6a-9d3f-000000000000", "cert": ca.pem()}]);
    // Files that are read, with CAs that are none.
    let mut broken: Vec<_> = no_cas(&ca).into_iter().map(|(why, text)| (why, entry(json!(text)))).collect();
    broken.push(("missing", declarative(json!([]))));
    broken.push(("under another id", declarative(other)));
    let good = entry(json!(ca.pem()));
    let alice = ca.issue(Subject::client("alice"));
    let passes = |prefix: &Prefix| {
        let (source, request) = sources(prefix, &alice)[0].clone();
        Speaks::MsgPack.run(prefix, &config(&[&source]), &request).status.is_none()
    };
    let nobody = |(why, text): (&str, String)| {
        let prefix = Prefix::new();
        let file = prefix.write("kong.json", &text);
        let server = prefix.serve(&["--declarative-config", file.to_str().unwrap()]);
        nobody_passes(&prefix, &ca, why);
        // The same of one that becomes so.
        prefix.write("kong.json", &good);
        server.wait_for_count("read again", 1);
        let (source, request) = sources(&prefix, &alice)[0].clone();
        let running = Speaks::BOTH.map(|speaks| speaks.start(&prefix, &config(&[&source])));
        assert!(running.iter().all(|instance| instance.ask(&request).status.is_none()), "{why}");
        prefix.write("kong.json", &text);
        server.wait_for_count("read again", 2);
        for instance in running {
            let outcome = instance.ask(&request);
            assert_eq!(outcome.status, Some(500), "{why}: {outcome:?}");
            assert!(outcome.log.contains("refused: ca_unavailable"), "{why}: {outcome:?}");
        }
        nobody_passes(&prefix, &ca, why);
    };
    // Each waits for a file to be looked at.
    std::thread::scope(|scope| {
        let nobody = &nobody;
        broken.into_iter().for_each(|broken| drop(scope.spawn(move || nobody(broken))));
    });
    // Files that are not.
    for (why, text) in [
        ("without a text", declarative(json!([{"id": CA_ID}]))),
        ("null", entry(json!(null))),
        ("cut off", good[..good.len() / 2].to_owned()),
        ("empty", String::new()),
    ] {
        let prefix = Prefix::new();
        let file = prefix.write("kong.json", &text);
        let arguments = ["--declarative-config", file.to_str().unwrap()];
        assert!(!prefix.command(&arguments).output().unwrap().status.success(), "{why}");
        prefix.write("kong.json", &good);
        let server = prefix.serve(&arguments);
        prefix.write("kong.json", &text);
        server.wait_for("stays");
        assert!(passes(&prefix), "{why}");
        let (source, request) =
            sources(&prefix, &Ca::root("root").issue(Subject::client("alice")))[0].clone();
        let stranger = Speaks::MsgPack.run(&prefix, &config(&[&source]), &request);
        assert_eq!(stranger.status, Some(401), "{why}: {stranger:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_ca_of_the_admin_api_lets_nobody_pass() {
    let ca = Ca::root("root");
    let of = |entity: Json| move |_: &Seen| ok(entity.clone());
    let prefix = Prefix::new();
    let knows = |reply: Box<dyn Fn(&Seen) -> Reply + Send>| {
        move |seen: &Seen| match seen.target.strip_prefix("/ca_certificates/") {
            Some(_) => reply(seen),
            None => kong_with(consumers().as_array().unwrap(), seen),
        }
    };
    let good = || knows(Box::new(of(json!({"id": CA_ID, "cert": ca.pem()}))));
    let admin = FakeAdmin::start(good()).await;
    let _server = prefix.serve(&["--admin-url", &admin.url]);
    let alice = ca.issue(Subject::client("alice"));
    let passes = || {
        let (source, request) = sources(&prefix, &alice)[0].clone();
        Speaks::BOTH.iter().all(|speaks| speaks.run(&prefix, &config(&[&source]), &request).status.is_none())
    };
    assert!(passes());
    for (why, text) in no_cas(&ca) {
        admin.becomes(knows(Box::new(of(json!({"id": CA_ID, "cert": text})))));
        nobody_passes(&prefix, &ca, why);
    }
    admin.becomes(knows(Box::new(|_| not_found())));
    nobody_passes(&prefix, &ca, "missing");
    admin.becomes(good());
    assert!(passes());
}
