//! Certificates that look like somebody else's.

use testbed::forged::{Forged, public_key};

use super::*;

/// The headers that the shim sends for these certificates.
fn handed_on_with(leaf: Vec<u8>, chain: Vec<Vec<u8>>) -> Headers {
    let presented = Presented { leaf, chain };
    let proof = Proof::write(&ProofKey::from_bytes(KEY), &presented, "", SystemTime::now());
    let mut headers = headers(&[("client-cert", &presented.leaf_header()), ("client-cert-proof", &proof)]);
    if let Some(chain) = presented.chain_header() {
        headers.push((b"client-cert-chain".to_vec(), vec![chain.into_bytes()]));
    }
    headers
}

/// A twin says what the original says, names, serial numbers and key identifiers included, of another key.
#[tokio::test]
async fn a_twin_of_a_certificate_or_of_its_ca_is_another_one() {
    let world = World::new();
    let subject = Subject::client("svc").serial(&[1, 2, 3]);
    let leaf = world.root.issue(subject.clone());
    let theirs = Ca::root("theirs");
    let twin_of = |der: &[u8], key: &[u8]| Forged::of(der).public_key(key).signed_by(&theirs);
    let twin_ca = twin_of(&world.root.der(), &public_key(&theirs.der()));
    let twin = twin_of(&leaf.der, &public_key(&Ca::root("any").der()));
    let pinned = |cas: Json| {
        let credentials =
            json!([{"subject_name": "svc", "consumer": "alice", "ca_certificate": world.root.pem()}]);
        world.instance(json!({"ca_certificates": cas, "credentials": credentials}))
    };
    let original = || handed_on_with(leaf.der.clone(), vec![]);
    let instance = pinned(json!([world.root.pem()]));
    // Before and after the original is remembered, and with all that the twin's owner has.
    for _ in 0..2 {
        for chain in
            [vec![], vec![twin_ca.clone()], vec![leaf.der.clone()], vec![leaf.der.clone(), twin_ca.clone()]]
        {
            let (verdict, kong) = run(&instance, handed_on_with(twin.clone(), chain)).await;
            assert_eq!(verdict, NOT_VERIFIED);
            assert!(kong.log[0].1.starts_with("refused: untrusted"), "{:?}", kong.log);
        }
        let (verdict, kong) = run(&instance, original()).await;
        assert_eq!((verdict, kong.credential.unwrap().id.as_str()), (Verdict::Proceed, "svc"));
    }
    // Where another CA of the same name is trusted too, a mapping still is that of one of the two.
    let other = Ca::root("root");
    let both = pinned(json!([world.root.pem(), other.pem()]));
    let (verdict, kong) = run(&both, handed_on(&other.issue(subject))).await;
    assert_eq!(verdict, NOT_VERIFIED);
    assert!(kong.log[0].1.starts_with("refused: no_consumer"), "{:?}", kong.log);
    assert_eq!(run(&both, original()).await.0, Verdict::Proceed);
}

#[tokio::test]
async fn what_only_looks_like_a_name_is_another_one() {
    let world = World::new();
    let credentials = json!([{"subject_name": "service", "consumer": "alice"}]);
    let instance = world.instance(json!({"credentials": credentials}));
    for (name, passes) in [
        ("alice", true),
        ("service", true),
        ("Alice", false),
        ("ALICE", false),
        (" alice", false),
        ("alice ", false),
        ("alice.", false),
        // Cyrillic, full width, a ligature's worth of accents, soft hyphen, zero width, right to left.
        ("\u{430}lice", false),
        ("\u{ff41}lice", false),
        ("alic\u{e9}", false),
        ("alice\u{301}", false),
        ("al\u{ad}ice", false),
        ("ali\u{200b}ce", false),
        ("\u{202e}ecila", false),
        ("\u{feff}alice", false),
        ("servi\u{441}e", false),
        ("al\u{131}ce", false),
        ("*", false),
        ("alice@", false),
        ("al%69ce", false),
    ] {
        let (verdict, kong) = run(&instance, world.leaf(Subject::client(name))).await;
        assert_eq!(verdict == Verdict::Proceed, passes, "{name:?}: {:?}", kong.log);
    }
}

/// Kong cuts a line that is longer than some 2000 bytes.
#[tokio::test]
async fn a_name_makes_the_log_neither_long_nor_another_line() {
    let world = World::new();
    let instance = world.instance(json!({}));
    let skipping = world.instance(json!({"skip_consumer_lookup": true}));
    for name in [
        "a\r\nrefused: no_certificate",
        "\u{1b}[2J\u{1b}[31m",
        "a\", issuer: \"CN=root\", sha256: 00",
        "\u{7}\u{8}\u{9b}\u{2028}\u{85}",
        &"a".repeat(40_000),
        &"\u{1b}".repeat(40_000),
        &"\u{20ac}".repeat(13_000),
        &"\"".repeat(40_000),
    ] {
        // The serial number is as long as its CA likes, too.
        let leaf = world.root.issue(Subject::client(name).serial(&[0x55; 4000]));
        let digest = crate::certificate::Certificate::from_der(&leaf.der).unwrap().fingerprint;
        let (verdict, kong) = run(&instance, handed_on(&leaf)).await;
        assert_eq!(verdict, NOT_VERIFIED);
        let line = &kong.log[0].1;
        assert!(line.len() < 1500, "{} bytes", line.len());
        assert!(line.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{line}");
        assert!(line.starts_with("refused: no_consumer, subject: \"CN="), "{line}");
        // What comes after the name is ours, and there, and stands once.
        let end = line.rsplit_once(", issuer: \"CN=root\", serial: ").unwrap().1;
        assert!(end.ends_with(&format!(", sha256: {digest}")), "{line}");
        assert_eq!(line.matches("\", issuer: \"").count(), usize::from(name.len() < 400), "{line}");
        // Where it is an identity, it is whole.
        let (_, kong) = run(&skipping, handed_on(&leaf)).await;
        let certificate = crate::certificate::Certificate::from_der(&leaf.der).unwrap();
        assert_eq!(kong.credential.unwrap().id, certificate.subject);
    }
}

/// A chain that goes on below what is no CA, in all that carries chains.
#[tokio::test]
async fn who_is_no_ca_issues_for_nobody_by_whichever_source() {
    let world = World::new();
    let impostor = world.root.impostor("impostor");
    let leaf = impostor.issue(Subject::client("alice"));
    let base64 = |der: &[u8]| openssl::base64::encode_block(der);
    let list = [&leaf.der, &impostor.der(), &world.root.der()].map(|der| base64(der)).join(",");
    let pem = leaf.cert.clone() + &impostor.pem() + &world.root.pem();
    let header = |format: &str| {
        world.instance(json!({
            "certificate_source": "header", "certificate_header_name": "X-Front",
            "certificate_header_format": format, "secure_source": false,
        }))
    };
    let shim = handed_on_with(leaf.der.clone(), vec![impostor.der(), world.root.der()]);
    let escaped = crate::details::escaped_pem(&leaf.der) + &crate::details::escaped_pem(&impostor.der());
    for (instance, headers, tls_chain) in [
        (world.instance(json!({})), shim, None),
        (header("base64_encoded"), headers(&[("x-front", &list)]), None),
        (header("url_encoded"), headers(&[("x-front", &escaped)]), None),
        (world.instance(json!({"certificate_source": "tls"})), headers(&[("host", "x")]), Some(pem)),
    ] {
        let mut kong = FakeKong { headers, tls_chain, ..FakeKong::default() };
        assert_eq!(access(&mut kong, &instance, SystemTime::now()).await.verdict(), NOT_VERIFIED);
        assert!(kong.log[0].1.starts_with("refused: untrusted"), "{:?}", kong.log);
    }
}

/// The first certificate is the leaf, in whatever carries several: a certificate that is put before it is who it is about.
#[tokio::test]
async fn the_first_certificate_is_the_only_identity_by_whichever_source() {
    let world = World::new();
    let alice = world.root.issue(Subject::client("alice"));
    let theirs = Ca::root("theirs").issue(Subject::client("alice"));
    let stranger = world.root.issue(Subject::client("stranger"));
    let base64 = |der: &[u8]| openssl::base64::encode_block(der);
    for (first, passes, reason) in [
        (&theirs, false, "refused: untrusted"),
        (&stranger, false, "refused: no_consumer"),
        (&alice, true, ""),
    ] {
        let others = [&theirs, &alice, &stranger, &alice];
        let all = || std::iter::once(first).chain(others);
        let list = all().map(|leaf| base64(&leaf.der)).collect::<Vec<_>>().join(",");
        // HAProxy has the others in one piece.
        let pieces =
            format!("{},{}", base64(&first.der), base64(&others.map(|leaf| leaf.der.clone()).concat()));
        let escaped: String = all().map(|leaf| crate::details::escaped_pem(&leaf.der)).collect();
        let pem: String = all().map(|leaf| leaf.cert.clone()).collect();
        let header = |format: &str| {
            world.instance(json!({
                "certificate_source": "header", "certificate_header_name": "X-Front",
                "certificate_header_format": format, "secure_source": false,
            }))
        };
        let shim = handed_on_with(first.der.clone(), others.map(|leaf| leaf.der.clone()).to_vec());
        for (instance, headers, tls_chain) in [
            (world.instance(json!({})), shim, None),
            (header("base64_encoded"), headers(&[("x-front", &list)]), None),
            (header("base64_encoded"), headers(&[("x-front", &pieces)]), None),
            (header("url_encoded"), headers(&[("x-front", &escaped)]), None),
            (world.instance(json!({"certificate_source": "tls"})), headers(&[("host", "x")]), Some(pem)),
        ] {
            let mut kong = FakeKong { headers, tls_chain, ..FakeKong::default() };
            let verdict = access(&mut kong, &instance, SystemTime::now()).await.verdict();
            assert_eq!(verdict == Verdict::Proceed, passes, "{:?}", kong.log);
            assert!(passes || kong.log[0].1.starts_with(reason), "{:?}", kong.log);
        }
    }
}
