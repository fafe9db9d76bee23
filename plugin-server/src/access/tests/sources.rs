//! Certificates that do not come from our shim.

use super::*;

/// The header of another front: base64 of the leaf's DER.
fn in_header(leaf: &Leaf) -> Headers {
    let base64 = openssl::base64::encode_block(&leaf.der);
    headers(&[("host", "x"), ("x-front", &base64)])
}

async fn run_from(
    peer: Option<(&'static str, bool)>,
    instance: &Instance,
    headers: Headers,
) -> (Verdict, FakeKong) {
    let mut kong = FakeKong { headers, peer, ..FakeKong::default() };
    let verdict = access(&mut kong, instance, SystemTime::now()).await.verdict();
    (verdict, kong)
}

const HEADER_SOURCE: &str = r#"{
    "certificate_source": "header", "certificate_header_name": "X-Front", "certificate_header_format": "base64_encoded"
}"#;

#[tokio::test]
async fn a_header_of_another_front_counts_from_trusted_addresses_only() {
    let world = World::new();
    let secure = world.instance(serde_json::from_str(HEADER_SOURCE).unwrap());
    let alice = in_header(&world.root.issue(Subject::client("alice")));
    let trusted = Some(("10.0.0.1", true));
    let (verdict, kong) = run_from(trusted, &secure, alice.clone()).await;
    assert_eq!(verdict, Verdict::Proceed);
    assert_eq!(kong.calls, ["get_headers", "get_ip", "is_trusted", "set_headers", "authenticate"]);
    assert!(!kong.upstream().iter().any(|(name, _)| name == "x-front"), "it does not go on to the upstream");
    // Known from then on.
    let (_, kong) = run_from(trusted, &secure, alice.clone()).await;
    assert_eq!(kong.calls, ["get_headers", "get_ip", "set_headers", "authenticate"]);

    for peer in [Some(("10.0.0.2", false)), None] {
        let (verdict, kong) = run_from(peer, &secure, alice.clone()).await;
        assert_eq!(verdict, NOT_VERIFIED);
        assert!(kong.log[0].1.starts_with("refused: untrusted_source"), "{:?}", kong.log);
    }
    // Nobody is asked where nothing is claimed.
    for nothing in [headers(&[("host", "x")]), headers(&[("x-front", "")])] {
        let (verdict, kong) = run_from(Some(("10.0.0.2", false)), &secure, nothing).await;
        assert_eq!((verdict, kong.calls), (NO_CERTIFICATE, vec!["get_headers", "log"]));
    }

    let mut open: Json = serde_json::from_str(HEADER_SOURCE).unwrap();
    open["secure_source"] = json!(false);
    let (verdict, kong) = run_from(Some(("10.0.0.2", false)), &world.instance(open), alice).await;
    assert_eq!(verdict, Verdict::Proceed);
    assert_eq!(kong.calls, ["get_headers", "set_headers", "authenticate"]);
}

#[tokio::test]
async fn a_header_that_is_not_what_the_front_writes_is_refused() {
    let world = World::new();
    let instance = world.instance(serde_json::from_str(HEADER_SOURCE).unwrap());
    let alice = in_header(&world.root.issue(Subject::client("alice")));
    let with = |name: &str, values: &[&str]| {
        let mut headers = alice.clone();
        headers.push((name.into(), values.iter().map(|value| value.as_bytes().to_vec()).collect()));
        headers
    };
    let twice = [alice.clone(), alice.clone()].concat();
    let doubled = alice
        .iter()
        .map(|(name, values)| (name.clone(), [values.clone(), values.clone()].concat()))
        .collect();
    for headers in [
        with("x_front", &["x"]),
        // A good certificate, written by somebody who hopes that the front does not know the header for its own.
        alice
            .iter()
            .map(|(name, values)| {
                (name.iter().map(|b| if *b == b'-' { b'_' } else { *b }).collect(), values.clone())
            })
            .collect(),
        twice,
        doubled,
        headers(&[("x-front", "nonsense")]),
        // Our shim's hand-off is nothing to an instance that is told to look elsewhere; without it there is none.
        headers(&[("x-front", ":AA==:")]),
    ] {
        let (verdict, kong) = run_from(Some(("10.0.0.1", true)), &instance, headers).await;
        assert_eq!(verdict, NOT_VERIFIED);
        assert!(kong.log[0].1.starts_with("refused: malformed"), "{:?}", kong.log);
    }
    let (verdict, kong) =
        run_from(Some(("10.0.0.1", true)), &instance, world.leaf(Subject::client("alice"))).await;
    assert_eq!(verdict, NO_CERTIFICATE, "{:?}", kong.log);
}

#[tokio::test]
async fn what_kongs_own_listener_was_shown_counts_with_its_chain() {
    let world = World::new();
    let instance = world.instance(json!({"certificate_source": "tls"}));
    let issuing = world.root.intermediate("issuing");
    let leaf = issuing.issue(Subject::client("alice"));
    let shown = |chain: Option<String>| FakeKong {
        headers: self::headers(&[("host", "x"), ("client-cert", ":AA==:")]),
        tls_chain: chain,
        ..FakeKong::default()
    };
    let mut kong = shown(Some(leaf.cert.clone() + &issuing.pem()));
    assert_eq!(access(&mut kong, &instance, SystemTime::now()).await.verdict(), Verdict::Proceed);
    assert_eq!(
        kong.calls,
        ["get_headers", "get_full_client_certificate_chain", "set_headers", "authenticate"]
    );
    for (chain, verdict, reason) in [
        (None, NO_CERTIFICATE, "no_certificate"),
        (Some(leaf.cert.clone()), NOT_VERIFIED, "untrusted"),
        (Some("garbage".into()), NOT_VERIFIED, "malformed"),
        (Some(String::new()), NOT_VERIFIED, "malformed"),
        (Some(leaf.key.clone()), NOT_VERIFIED, "malformed"),
    ] {
        let mut kong = shown(chain);
        assert_eq!(access(&mut kong, &instance, SystemTime::now()).await.verdict(), verdict, "{reason}");
        assert!(kong.log[0].1.starts_with(&format!("refused: {reason}")), "{:?}", kong.log);
    }
}
