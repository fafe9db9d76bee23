use testbed::pki::{Ca, Leaf, Subject};
use tokio::io::duplex;

use super::*;
use crate::settings::CertificateFiles;

fn read(leaf: &Leaf, chain: &[&Ca]) -> ServerCertificate {
    let dir = tempfile::tempdir().unwrap();
    leaf.write(dir.path(), "server", chain);
    let file = |name: &str| dir.path().join(name);
    ServerCertificate::read(&CertificateFiles { cert: file("server.crt"), key: file("server.key") }).unwrap()
}

fn leaf(name: &str) -> Leaf {
    Ca::root("servers").issue(Subject::server(&[name]))
}

fn client() -> SslContextBuilder {
    SslContext::builder(SslMethod::tls_client()).unwrap()
}

/// The certificates that a client is shown that names this server, in DER, or None where the handshake fails.
async fn shown(tls: &Tls, client: SslContextBuilder, name: &str) -> Option<Vec<Vec<u8>>> {
    let (ours, theirs) = duplex(64 * 1024);
    let mut ssl = Ssl::new(&client.build()).unwrap();
    ssl.set_hostname(name).unwrap();
    let mut client = SslStream::new(ssl, ours).unwrap();
    let connect = async {
        let connected = Pin::new(&mut client).connect().await;
        connected.ok()?;
        let chain = client.ssl().peer_cert_chain().unwrap();
        Some(chain.iter().map(|certificate| certificate.to_der().unwrap()).collect())
    };
    let (accepted, shown) = tokio::join!(tls.accept(theirs), connect);
    assert_eq!(accepted.is_ok(), shown.is_some());
    shown
}

/// A client that has to say hello again: the shim has no P-521.
fn that_says_hello_twice() -> SslContextBuilder {
    let mut client = client();
    client.set_groups_list("P-521:P-256").unwrap();
    client
}

#[tokio::test]
async fn the_default_is_replaced_while_handshakes_go_on_and_stays_where_the_new_one_is_refused() {
    let (first, second, named) = (leaf("first"), leaf("second"), leaf("named"));
    let certificate =
        serde_json::json!({"cert": named.cert, "key": named.key, "snis": [{"name": "named.example"}]});
    let text = serde_json::json!({"_format_version": "3.0", "certificates": [certificate]}).to_string();
    let entities = kong_entities::parse_json(&text).unwrap();
    let issuer = Ca::root("issuer");
    let tls =
        Tls::new(&TlsSettings::default(), read(&first, &[&issuer]), None, Arc::default(), &entities).unwrap();
    assert_eq!(shown(&tls, client(), "a.example").await.unwrap(), [first.der, issuer.der()]);

    tls.replace_default(read(&second, &[])).unwrap();
    assert_eq!(shown(&tls, client(), "a.example").await.unwrap(), std::slice::from_ref(&second.der));
    assert_eq!(shown(&tls, client(), "named.example").await.unwrap(), [named.der]);

    let weak = Ca::root("servers").issue_rsa(Subject::server(&["weak"]), 512);
    assert!(tls.replace_default(read(&weak, &[])).is_err());
    assert_eq!(shown(&tls, client(), "a.example").await.unwrap(), std::slice::from_ref(&second.der));
    // A change of Kong's configuration leaves it alone.
    tls.follow(Arc::default(), &Entities::default());
    assert_eq!(shown(&tls, client(), "named.example").await.unwrap(), [second.der]);
    assert!(Tls::new(&TlsSettings::default(), read(&weak, &[]), None, Arc::default(), &entities).is_err());
}

/// OpenSSL reads the name of the second ClientHello too, and goes by it.
#[cfg(not(feature = "aws-lc"))]
#[tokio::test]
async fn a_client_that_names_another_server_in_its_second_hello_is_refused() {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use openssl::ssl::ExtensionContext;

    let client = |second: &'static str| {
        let mut client = that_says_hello_twice();
        let hellos = AtomicUsize::new(0);
        let add = move |ssl: &mut SslRef, _, _: Option<(usize, &openssl::x509::X509Ref)>| {
            if hellos.fetch_add(1, Ordering::Relaxed) == 1 {
                ssl.set_hostname(second).unwrap();
            }
            Ok(Some(b"x"))
        };
        client.add_custom_ext(65_000, ExtensionContext::CLIENT_HELLO, add, |_, _, _, _| Ok(())).unwrap();
        client
    };
    let server = leaf("a.example");
    let tls =
        Tls::new(&TlsSettings::default(), read(&server, &[]), None, Arc::default(), &Entities::default())
            .unwrap();
    for (second, is_served) in
        [("a.example", true), ("A.example.", true), ("b.example", false), ("127.0.0.1", false)]
    {
        let shown = shown(&tls, client(second), "a.example").await;
        assert_eq!(shown, is_served.then(|| vec![server.der.clone()]), "{second}");
    }
}

/// AWS-LC goes by the first ClientHello in everything, and looks for no name in the second.
#[cfg(feature = "aws-lc")]
#[tokio::test]
async fn the_name_of_a_second_hello_changes_nothing() {
    let [first, second] = [leaf("a.example"), leaf("b.example")];
    let certificate =
        serde_json::json!({"cert": second.cert, "key": second.key, "snis": [{"name": "b.example"}]});
    let text = serde_json::json!({"_format_version": "3.0", "certificates": [certificate]}).to_string();
    let entities = kong_entities::parse_json(&text).unwrap();
    let tls = Tls::new(&TlsSettings::default(), read(&first, &[]), None, Arc::default(), &entities).unwrap();
    for (name, changed, expected) in [
        ("a.example", c"b.example", &first),
        ("b.example", c"a.example", &second),
        ("b.example", c"b.example", &second),
    ] {
        let mut client = that_says_hello_twice();
        let hellos = raw::rename_after_server_hello(&mut client, changed);
        let (ours, theirs) = duplex(64 * 1024);
        let mut ssl = Ssl::new(&client.build()).unwrap();
        ssl.set_hostname(name).unwrap();
        let mut client = SslStream::new(ssl, ours).unwrap();
        let (accepted, connected) = tokio::join!(tls.accept(theirs), Pin::new(&mut client).connect());
        connected.unwrap();
        let (_, handshake) = accepted.unwrap();
        assert_eq!(handshake.server_name.as_str(), name);
        let shown = client.ssl().peer_certificate().unwrap().to_der().unwrap();
        assert!(shown == expected.der, "{name} {changed:?}");
        // It has said both.
        assert_eq!(client.ssl().servername(NameType::HOST_NAME), changed.to_str().ok());
        assert_eq!(hellos.load(std::sync::atomic::Ordering::Relaxed), 2);
    }
}
