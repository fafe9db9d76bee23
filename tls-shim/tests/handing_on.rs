//! What Kong learns of a client's certificate, and of nothing else that a client says.

mod common;

use std::io::{Read, Write};
use std::net::Shutdown;
use std::process::{Command, Stdio};

use client_cert::{Presented, field};
use common::handed_on::{handed_on, is_handed_on};
use common::raw_hello::{self, CERTIFICATE_REQUEST, host_name};
use common::{ONE_ROUTE, OPEN, Rig, SECURED, as_written};
use testbed::forged::{Forged, ec_without_prime, public_key, rsa_of};
use testbed::pki::{Ca, Subject};
use testbed::tls_client::{TlsClient, Version};

const VERSIONS: [Version; 2] = [Version::TLS1_2, Version::TLS1_3];

fn get(path: &str, headers: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n{headers}\r\n")
}

#[test]
fn a_certificate_is_handed_on_with_proof() {
    let rig = Rig::new(ONE_ROUTE);
    let issuer = rig.ca.intermediate("issuing");
    let leaf = issuer.issue(Subject::client("alice"));
    for (at, version) in VERSIONS.into_iter().enumerate() {
        let path = format!("/{at}");
        let client = rig.client("Secured.Example.").version(version).certificate(&leaf, &[&issuer, &rig.ca]);
        let connection = client.connect(rig.address).unwrap();
        assert!(connection.asked());
        connection.exchange(get(&path, "").as_bytes()).unwrap();
        let (presented, sni) = handed_on(&rig.upstream.wait_for(&path));
        assert_eq!(presented, Presented { leaf: leaf.der.clone(), chain: vec![issuer.der(), rig.ca.der()] });
        assert_eq!(sni, SECURED);
    }
    assert!(!rig.shim.output().iter().any(|line| line.contains("BwcH")), "the key is in the log");
}

#[test]
fn what_does_not_verify_is_handed_on_all_the_same() {
    let rig = Rig::new("plugins: [{name: mtls-auth}]");
    for (at, subject) in [
        Subject::client("expired").expired(),
        Subject::client("early").not_yet_valid(),
        Subject::server(&["a.example"]),
        Subject::client("x").without_cn(),
    ]
    .into_iter()
    .enumerate()
    {
        let leaf = Ca::root("unknown").issue(subject);
        for version in VERSIONS {
            let path = format!("/{at}/{}", version == Version::TLS1_3);
            let client = TlsClient::new(None).version(version).certificate(&leaf, &[]);
            client.connect(rig.address).unwrap().exchange(get(&path, "").as_bytes()).unwrap();
            let (presented, sni) = handed_on(&rig.upstream.wait_for(&path));
            assert_eq!((presented.leaf, sni.as_str()), (leaf.der.clone(), ""));
        }
    }
}

#[test]
fn http2_hands_on_the_same() {
    let rig = Rig::new(ONE_ROUTE);
    let arguments =
        ["--http2", Rig::CERTIFICATE[0], Rig::CERTIFICATE[1], Rig::CERTIFICATE[2], Rig::CERTIFICATE[3]];
    rig.curl(SECURED, "/h2", &arguments);
    let (presented, sni) = handed_on(&rig.upstream.wait_for("/h2"));
    assert_eq!((presented.leaf, sni.as_str()), (rig.client.der.clone(), SECURED));
}

#[test]
fn without_certificate_nothing_is_handed_on() {
    let rig = Rig::new(ONE_ROUTE);
    rig.curl(SECURED, "/asked", &[]);
    rig.curl(OPEN, "/not-asked", &Rig::CERTIFICATE);
    for path in ["/asked", "/not-asked"] {
        assert!(!is_handed_on(&rig.upstream.wait_for(path)), "{path}");
    }
}

#[test]
fn a_certificate_without_its_key_gets_nowhere() {
    let rig = Rig::new(ONE_ROUTE);
    for version in VERSIONS {
        let client = rig.client(SECURED).version(version).stolen_certificate(&rig.client);
        let answer = client
            .connect(rig.address)
            .and_then(|connection| connection.exchange(get("/", "").as_bytes()).map_err(|e| e.to_string()));
        assert!(answer.is_err(), "{answer:?}");
    }
    rig.shim.wait_for(&as_written("bad signature"));
    assert!(rig.upstream.requests().is_empty());
}

#[test]
fn more_certificates_than_fit_end_the_connection() {
    let rig = Rig::new(ONE_ROUTE);
    let issuer = rig.ca.intermediate("issuing");
    // Some 50 KiB and some 70 KiB in DER: over what headers can carry, and over what OpenSSL is told to take, which would
    // take 100 KiB by itself.
    for (count, version) in
        [120, 160, 1000].into_iter().flat_map(|count| VERSIONS.map(|version| (count, version)))
    {
        let count = count * 450 / issuer.der().len();
        let client = rig.client(SECURED).version(version).certificate(&rig.client, &vec![&issuer; count]);
        let answer = client
            .connect(rig.address)
            .and_then(|connection| connection.exchange(get("/", "").as_bytes()).map_err(|e| e.to_string()));
        assert!(
            answer.as_ref().is_err() || answer.as_ref().is_ok_and(String::is_empty),
            "{count}: {answer:?}"
        );
    }
    rig.shim.wait_for("the client's certificates take");
    rig.shim.wait_for(&as_written("excessive message size"));
    assert!(rig.upstream.requests().is_empty());
}

/// AWS-LC takes none over 8192 bits, neither of a client nor as one.
#[cfg(not(feature = "aws-lc"))]
mod huge_keys {
    use openssl::bn::{BigNum, BigNumContext};
    use openssl::pkey::{PKey, Private};
    use openssl::rsa::{Rsa, RsaPrivateKeyBuilder};
    use testbed::forged::rsa;

    use super::*;

    /// An RSA key of 16384 bits, with more primes than anybody should have, for those are found soon.
    fn huge_key() -> Rsa<Private> {
        let mut context = BigNumContext::new().unwrap();
        let (mut modulus, mut phi) = (BigNum::from_u32(1).unwrap(), BigNum::from_u32(1).unwrap());
        let exponent = BigNum::from_u32(65_537).unwrap();
        for _ in 0..16_384 / 256 {
            let mut prime = BigNum::new().unwrap();
            prime.generate_prime(256, false, None, None).unwrap();
            modulus = &modulus * &prime;
            prime.sub_word(1).unwrap();
            phi = &phi * &prime;
        }
        let mut private = BigNum::new().unwrap();
        private.mod_inverse(&exponent, &phi, &mut context).unwrap();
        RsaPrivateKeyBuilder::new(modulus, exponent, private).unwrap().build()
    }

    #[test]
    fn a_huge_key_is_handed_on_as_any_other() {
        let rig = Rig::new(ONE_ROUTE);
        let key = huge_key();
        let info = rsa(&key.n().to_vec(), &key.e().to_vec());
        let leaf = Forged::of(&rig.client.der).public_key(&info).signed_by(&rig.ca);
        for (at, version) in VERSIONS.into_iter().enumerate() {
            let path = format!("/{at}");
            let client = rig
                .client(SECURED)
                .version(version)
                .certificate_of(&leaf, PKey::from_rsa(key.clone()).unwrap());
            client.connect(rig.address).unwrap().exchange(get(&path, "").as_bytes()).unwrap();
            assert_eq!(handed_on(&rig.upstream.wait_for(&path)).0.leaf, leaf);
        }
    }
}

/// Of TLS 1.2, for there a client's certificate comes in the clear; what reads it is the same in TLS 1.3.
#[test]
fn a_key_that_is_none_ends_the_handshake() {
    let rig = Rig::new(ONE_ROUTE);
    let unknown = b"\x30\x0b\x30\x06\x06\x04\x2a\x03\x04\x05\x03\x01\x00";
    for (key, is_refused) in [
        (public_key(&rig.client.der), false),
        // A key, but over the limit of AWS-LC.
        (rsa_of(16_384, &[0x7f; 2048]), cfg!(feature = "aws-lc")),
        (unknown.to_vec(), true),
        (ec_without_prime(), true),
    ] {
        let leaf = Forged::of(&rig.client.der).public_key(&key).signed_by(&rig.ca);
        let mut stream = raw_hello::hello(rig.address, VERSIONS[0], &host_name(SECURED.as_bytes()));
        assert!(raw_hello::server_part(&mut stream).unwrap().contains(&CERTIFICATE_REQUEST));
        let list = [&three(leaf.len())[..], &leaf].concat();
        raw_hello::send(&mut stream, raw_hello::CERTIFICATE, &[&three(list.len())[..], &list].concat());
        stream.shutdown(Shutdown::Write).unwrap();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).unwrap();
        // Without one, it waits for the rest of the handshake, which does not come.
        assert_eq!(rest.first() == Some(&raw_hello::ALERT), is_refused, "{rest:?}");
        rig.curl(SECURED, "/alive", &Rig::CERTIFICATE);
    }
    assert!(rig.upstream.requests().iter().all(|request| request.path == "/alive"));
}

/// A length in three bytes.
fn three(length: usize) -> [u8; 3] {
    let [_, length @ ..] = u32::try_from(length).unwrap().to_be_bytes();
    length
}

#[test]
fn forged_headers_go_no_further() {
    let rig = Rig::new(ONE_ROUTE);
    let mut forged = String::new();
    for name in field::HANDOFF.iter().chain(&field::IDENTITY).chain(&field::OTHER_IDENTITY) {
        let (upper, underscored) = (name.to_uppercase(), name.replace('-', "_"));
        let mixed = name.replacen('-', "_", 1);
        for spelling in [name, upper.as_str(), &underscored, &mixed, &underscored.to_uppercase()] {
            forged += &format!("{spelling}: forged\r\n");
        }
    }
    forged += "Client-Cert:\r\nclient_cert:\r\nClient-Cert: :AA==:\r\n";
    forged +=
        "Connection: client-cert, Client-Cert-Chain, client-cert-proof, x-real-ip, x-forwarded-proto\r\n";
    for (at, presents) in [(0, true), (1, false)] {
        for sni in [SECURED, OPEN] {
            let path = format!("/{at}/{sni}");
            let mut client = rig.client(sni);
            if presents {
                client = client.certificate(&rig.client, &[]);
            }
            let answer =
                client.connect(rig.address).unwrap().exchange(get(&path, &forged).as_bytes()).unwrap();
            assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
            let request = rig.upstream.wait_for(&path);
            let forged =
                request.headers.iter().find(|(_, value)| ["forged", "", ":AA==:"].contains(&value.as_str()));
            assert_eq!(forged, None);
            assert_eq!(is_handed_on(&request), presents && sni == SECURED);
            assert_eq!(request.values("x-real-ip"), ["127.0.0.1"]);
            assert_eq!(request.values("x-forwarded-proto"), ["https"]);
            if is_handed_on(&request) {
                assert_eq!(handed_on(&request).0.leaf, rig.client.der);
            }
        }
    }
}

#[test]
fn forged_headers_go_no_further_over_http2() {
    let rig = Rig::new(ONE_ROUTE);
    let forged = [
        "client-cert: forged",
        "client-cert: :AA==:",
        "Client_Cert: forged",
        "CLIENT_CERT-PROOF: forged",
        "x_consumer_id: forged",
    ];
    let mut arguments = vec!["--http2"];
    for header in forged.iter().chain(&[
        "X-Consumer-Username: forged",
        "Client-Cert-Chain;",
        "Client-Cert;",
        "client_cert_proof;",
    ]) {
        arguments.extend(["-H", header]);
    }
    rig.curl(SECURED, "/none", &arguments);
    arguments.extend(Rig::CERTIFICATE);
    rig.curl(SECURED, "/one", &arguments);
    let without = rig.upstream.wait_for("/none");
    assert!(!is_handed_on(&without));
    let with = rig.upstream.wait_for("/one");
    assert_eq!(handed_on(&with).0.leaf, rig.client.der);
    for request in [without, with] {
        let is_forged = |value: &str| ["forged", ":AA==:", ""].contains(&value);
        assert!(!request.headers.iter().any(|(_, value)| is_forged(value)), "{request:?}");
    }
}

#[test]
fn a_forged_header_after_a_hundred_others_goes_no_further_over_http2() {
    let rig = Rig::new(ONE_ROUTE);
    let mut headers: Vec<String> = (0..150).map(|at| format!("X-Many-{at}: 1")).collect();
    for name in
        ["client-cert", "CLIENT_CERT_CHAIN", "Client-Cert_Proof", "X_Consumer-ID", "x-consumer-username"]
    {
        headers.extend([format!("{name}: forged"), format!("{name}: forged"), format!("{name};")]);
    }
    let mut arguments = vec!["--http2"];
    headers.iter().for_each(|header| arguments.extend(["-H", header]));
    rig.curl(SECURED, "/none", &arguments);
    arguments.extend(Rig::CERTIFICATE);
    rig.curl(SECURED, "/one", &arguments);
    for (path, presents) in [("/none", false), ("/one", true)] {
        let request = rig.upstream.wait_for(path);
        assert!(!request.headers.iter().any(|(_, value)| value == "forged"), "{request:?}");
        assert_eq!(request.values("x-many-149"), ["1"]);
        assert_eq!(is_handed_on(&request), presents);
        if presents {
            assert_eq!(handed_on(&request).0.leaf, rig.client.der);
        }
    }
}

#[test]
fn forged_trailers_go_no_further() {
    let rig = Rig::new(ONE_ROUTE);
    let request = "POST / HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\
                   Trailer: Client-Cert\r\n\r\n3\r\nabc\r\n0\r\nClient-Cert: forged\r\nX-Any: 1\r\n\r\n";
    let answer = rig.client(SECURED).connect(rig.address).unwrap().exchange(request.as_bytes()).unwrap();
    assert!(answer.contains("\"length\":3") && answer.contains("\"trailers\":[]"), "{answer}");
    assert!(!answer.contains("forged") && !answer.contains("[\"trailer\""), "{answer}");
}

#[test]
fn kong_learns_where_a_request_comes_from() {
    let rig = Rig::new(ONE_ROUTE);
    for version in ["--http1.1", "--http2"] {
        let said = [
            version,
            "-H",
            "X-Forwarded-For: 10.0.0.1",
            "-H",
            "X_Forwarded_For: 10.9.9.9",
            "-H",
            "X-Forwarded-Proto: http",
            "-H",
            "X_Forwarded_Port: 1",
            "-H",
            "X-Forwarded-Host: evil.example",
            "-H",
            "X-Forwarded-Path: /admin",
            "-H",
            "X-Forwarded-Prefix: /admin",
            "-H",
            "X-Real-IP: 10.9.9.9",
            "-H",
            "Forwarded: for=10.0.0.1",
        ];
        let path = format!("/{version}");
        rig.curl("Open.example", &path, &said);
        let request = rig.upstream.wait_for(&path);
        let port = rig.address.port().to_string();
        for (name, expected) in [
            ("host", vec![format!("Open.example:{port}")]),
            ("x-forwarded-for", vec!["10.0.0.1, 127.0.0.1".into()]),
            ("x-forwarded-proto", vec!["https".into()]),
            ("x-forwarded-host", vec!["open.example".into()]),
            ("x-forwarded-port", vec![port]),
            ("x-real-ip", vec!["127.0.0.1".into()]),
            ("x-forwarded-path", vec![]),
            ("x-forwarded-prefix", vec![]),
            ("x_forwarded_for", vec![]),
            ("x_forwarded_port", vec![]),
            ("forwarded", vec!["for=10.0.0.1".into()]),
        ] {
            let mut values = request.values(name).into_iter().map(str::to_owned).collect::<Vec<_>>();
            if name == "host" {
                values.iter_mut().for_each(|value| value.make_ascii_lowercase());
                assert_eq!(values, [expected[0].to_lowercase()], "{version}");
                continue;
            }
            assert_eq!(values, expected, "{version}: {name}");
        }
    }
}

#[test]
fn weak_certificates_are_no_missing_ones() {
    let rig = Rig::new(ONE_ROUTE);
    for (at, key) in [["rsa:1024", "-sha1"], ["rsa:2048", "-md5"]].into_iter().enumerate() {
        let made = openssl(&rig)
            .args(["req", "-x509", "-nodes", "-newkey", key[0], key[1], "-subj", "/CN=weak", "-days", "1"])
            .args(["-keyout", "weak.key", "-out", "weak.crt"])
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
        for version in ["-tls1_2", "-tls1_3"] {
            let path = format!("/{at}/{version}");
            let said = present(&rig, version, &path, "weak");
            match rig.upstream.requests().iter().find(|request| request.path == path) {
                Some(request) => drop(handed_on(request)),
                None => assert!(!said.contains("HTTP/1.1 "), "{said}"),
            }
        }
    }
    assert!(!rig.upstream.requests().is_empty(), "some are handed on");
}

/// Where the two libraries differ, a client presents nothing, since it is told that its kind of key is not taken, or does not
/// get through its handshake.
#[test]
fn keys_and_certificates_of_many_kinds_are_handed_on() {
    let is_openssl = !cfg!(feature = "aws-lc");
    let rig = Rig::new(ONE_ROUTE);
    for (at, (arguments, is_taken)) in [
        (&["-newkey", "rsa:2048"][..], [true; 2]),
        (&["-newkey", "rsa:4096"], [true; 2]),
        (&["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"], [true; 2]),
        (&["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-384"], [true; 2]),
        // OpenSSL goes by the groups of TLS 1.2 here, too (RFC 8422, section 5.1.1).
        (&["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-521"], [!is_openssl, true]),
        (&["-newkey", "ed25519"], [true; 2]),
        // AWS-LC has no handshakes with these.
        (&["-newkey", "ed448"], [is_openssl; 2]),
        (&["-newkey", "rsa-pss", "-pkeyopt", "rsa_keygen_bits:2048"], [is_openssl; 2]),
        (&["-newkey", "rsa:2048", "-addext", "keyUsage=critical,digitalSignature"], [true; 2]),
        // AWS-LC holds a client to what its key may be used for (RFC 5280, section 4.2.1.3).
        (&["-newkey", "rsa:2048", "-addext", "keyUsage=critical,keyEncipherment"], [is_openssl; 2]),
    ]
    .into_iter()
    .enumerate()
    {
        let made = openssl(&rig)
            .args(["req", "-x509", "-nodes", "-subj", "/CN=kind", "-days", "1"])
            .args(["-keyout", "kind.key", "-out", "kind.crt"])
            .args(arguments)
            .output()
            .unwrap();
        assert!(made.status.success(), "{arguments:?}: {made:?}");
        for (version, is_taken) in ["-tls1_2", "-tls1_3"].into_iter().zip(is_taken) {
            let path = format!("/{at}/{version}");
            let said = present(&rig, version, &path, "kind");
            let requests = rig.upstream.requests();
            let request = requests.iter().find(|request| request.path == path);
            let presented = request.filter(|request| is_handed_on(request));
            assert_eq!(presented.is_some(), is_taken, "{arguments:?} {version}: {said}");
            if let Some(request) = presented {
                let pem = std::fs::read_to_string(rig.dir.path().join("kind.crt")).unwrap();
                let leaf = openssl::x509::X509::from_pem(pem.as_bytes()).unwrap().to_der().unwrap();
                assert_eq!(handed_on(request).0.leaf, leaf, "{arguments:?} {version}");
            }
        }
    }
}

/// What `openssl s_client` says that presents `name`.crt and asks for a path.
fn present(rig: &Rig, version: &str, path: &str, name: &str) -> String {
    let [certificate, key] = ["crt", "key"].map(|kind| format!("{name}.{kind}"));
    let mut client = openssl(rig)
        .args(["s_client", "-ign_eof", version, "-servername", SECURED, "-cipher", "DEFAULT@SECLEVEL=0"])
        .args(["-connect", &rig.address.to_string(), "-cert", &certificate, "-key", &key])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // It may be gone before it has read this.
    let _ = client.stdin.as_mut().unwrap().write_all(get(path, "").as_bytes());
    String::from_utf8_lossy(&client.wait_with_output().unwrap().stdout).into_owned()
}

fn openssl(rig: &Rig) -> Command {
    let mut openssl = Command::new("openssl");
    openssl.current_dir(rig.dir.path());
    openssl
}
