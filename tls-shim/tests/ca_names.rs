//! Which CA names a client is sent, as `openssl s_client` sees them.

mod common;

use common::s_client::s_client;
use common::sessions::clients;
use common::{OPEN, Rig, SECURED, write_entities};
use testbed::pki::{Ca, Subject};
use testbed::tls_client::{TlsClient, Version};

const ID: &str = "aaaaaaaa-0000-4000-8000-00000000000a";

fn yaml(pem: &str) -> String {
    serde_json::to_string(pem).unwrap()
}

/// An entity with [`ID`].
fn entity(ca: &Ca) -> String {
    format!("ca_certificates: [{{id: {ID}, cert: {}}}]\n", yaml(&ca.pem()))
}

/// A route with a plugin that wants the names of these CAs sent.
fn route(sni: &str, ca_certificates: &str) -> String {
    format!(
        "- {{snis: ['{sni}'], plugins: [{{name: mtls-auth, config: {{send_ca_dn: true, ca_certificates: [{ca_certificates}]}}}}]}}\n"
    )
}

fn names_in(said: &str) -> Vec<String> {
    if said.contains("No client certificate CA names sent") {
        return Vec::new();
    }
    let (_, names) =
        said.split_once("Acceptable client certificate CA names\n").expect("names, or that there are none");
    let is_name = |line: &&str| {
        !["Client Certificate Types", "Requested Signature"].iter().any(|end| line.starts_with(end))
    };
    names.lines().take_while(is_name).map(str::to_owned).collect()
}

/// The names that a client of either version is sent, and of the newer one also after a HelloRetryRequest: the shim has
/// no P-521.
fn names(rig: &Rig, sni: Option<&str>) -> Vec<String> {
    let with = |arguments| names_in(&s_client(rig, sni, arguments));
    let names = with(&["-tls1_3"]);
    assert_eq!(with(&["-tls1_2"]), names, "{sni:?}");
    assert_eq!(with(&["-tls1_3", "-groups", "P-521:P-256"]), names, "{sni:?}");
    names
}

#[test]
fn names_are_sent_where_a_plugin_wants_them_sent() {
    let (a, b, c) = (Ca::root("a"), Ca::root("b"), Ca::root("c"));
    let bundle = yaml(&(c.pem() + &a.pem()));
    let rig = Rig::new(
        &(entity(&a)
            + "routes:\n"
            + &route(SECURED, &format!("{}, {bundle}", ID.to_uppercase()))
            + &route("*.secured.example", &yaml(&b.pem()))
            + &route("quiet.example", ID).replace("true", "false")
            + &format!("- {{snis: [{OPEN}]}}\n")),
    );
    for sni in [SECURED, "SECURED.Example", "secured.example.", "Secured.EXAMPLE."] {
        assert_eq!(names(&rig, Some(sni)), ["CN=a", "CN=c"], "{sni}");
    }
    for sni in ["x.secured.example", "X.y.Secured.example."] {
        assert_eq!(names(&rig, Some(sni)), ["CN=b"], "{sni}");
    }
    let none = [
        (Some("quiet.example"), true),
        (Some("127.0.0.1"), true),
        (Some("sécured.example"), true),
        (Some(OPEN), false),
        (Some("other.example"), false),
        (None, false),
    ];
    for (sni, asked) in none {
        assert_eq!(names(&rig, sni), [""; 0], "{sni:?}");
        assert_eq!(TlsClient::new(sni).connect(rig.address).unwrap().asked(), asked, "{sni:?}");
    }
}

#[test]
fn names_for_everybody_are_sent_to_everybody() {
    let (a, b) = (Ca::root("a"), Ca::root("b"));
    let rig = Rig::new(
        &(entity(&a)
            + "routes:\n"
            + &route(SECURED, &yaml(&b.pem()))
            + &format!(
                "plugins: [{{name: mtls-auth, config: {{send_ca_dn: true, ca_certificates: [{ID}]}}}}]"
            )),
    );
    for sni in [None, Some(OPEN), Some("127.0.0.1"), Some("other.example")] {
        assert_eq!(names(&rig, sni), ["CN=a"], "{sni:?}");
    }
    assert_eq!(names(&rig, Some(SECURED)), ["CN=b", "CN=a"]);
}

#[test]
fn a_changed_file_counts_for_the_next_handshake() {
    let (a, b) = (Ca::root("a"), Ca::root("b"));
    let routes = |first: &Ca, more: &str| entity(first) + "routes:\n" + &route(SECURED, ID) + more;
    let rig = Rig::new(&routes(&a, ""));
    assert_eq!(names(&rig, Some(SECURED)), ["CN=a"]);

    write_entities(rig.dir.path(), &routes(&b, &route("x.example", ID)));
    rig.shim.wait_for("\"names\":2");
    assert_eq!(names(&rig, Some(SECURED)), ["CN=b"]);

    let two = route("x.example", &yaml(&a.pem())) + &route("y.example", ID).replace("true", "false");
    write_entities(rig.dir.path(), &routes(&b, &two));
    rig.shim.wait_for("\"names\":3");
    assert_eq!(names(&rig, Some(SECURED)), ["CN=b"]);
    assert_eq!(names(&rig, Some("x.example")), ["CN=a"]);
    assert_eq!(names(&rig, Some("y.example")), [""; 0]);
}

#[test]
fn a_list_that_would_not_be_whole_is_not_sent() {
    let a = Ca::root("a");
    let cut = &a.pem()[..200];
    let rig = Rig::new(
        &(entity(&a)
            + "routes:\n"
            + &route(SECURED, &format!("{ID}, bbbbbbbb-0000-4000-8000-00000000000b"))
            + &route("cut.example", &format!("{ID}, {}", yaml(cut)))
            + &route("good.example", ID)),
    );
    for sni in [SECURED, "cut.example"] {
        assert_eq!(names(&rig, Some(sni)), [""; 0], "{sni}");
        assert!(TlsClient::new(Some(sni)).connect(rig.address).unwrap().asked(), "{sni}");
    }
    assert_eq!(names(&rig, Some("good.example")), ["CN=a"]);
    let warnings = rig.shim.output().into_iter().filter(|line| line.contains("CA names")).collect::<Vec<_>>();
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(
        warnings[0].contains("ca_certificates[1]: there is no CA certificate with the id"),
        "{warnings:?}"
    );
}

#[test]
fn as_many_names_are_sent_as_fit() {
    // A name, and its length before it, take 23 bytes beside its CN.
    let (half, other) = ("a".repeat(32_256 - 23), "b".repeat(32_256 - 23));
    let list = |cn: &str| format!("{}, {}", yaml(&Ca::root(&half).pem()), yaml(&Ca::root(cn).pem()));
    let rig = Rig::new(
        &("routes:\n".to_owned()
            + &route("fits.example", &list(&other))
            + &route("more.example", &list(&format!("{other}b")))),
    );
    assert_eq!(names(&rig, Some("fits.example")), [format!("CN={half}"), format!("CN={other}")]);
    assert_eq!(names(&rig, Some("more.example")), [""; 0]);
    assert!(TlsClient::new(Some("more.example")).connect(rig.address).unwrap().asked());
    rig.shim.wait_for("SNI more.example: 64513 bytes of CA names are too many");
}

#[test]
fn a_connection_with_names_is_like_any_other() {
    let rig = Rig::new(&("routes:\n".to_owned() + &route(SECURED, &yaml(&Ca::root("others").pem()))));
    assert_eq!(names(&rig, Some(SECURED)), ["CN=others"]);
    let was_presented =
        || rig.upstream.requests().pop().unwrap().headers.iter().any(|(name, _)| name == "client-cert");

    // Any certificate is taken, whoever has issued it, and none is, too.
    for version in ["--http1.1", "--http2"] {
        for tls in [["--tls-max", "1.2"], ["--tlsv1.3", "--silent"]] {
            let arguments = [&Rig::CERTIFICATE[..], &tls, &[version]].concat();
            rig.curl(SECURED, "/", &arguments);
            assert!(was_presented(), "{version} {tls:?}");
            rig.curl(SECURED, "/", &[&tls[..], &[version]].concat());
            assert!(!was_presented(), "{version} {tls:?}");
        }
    }
    let request = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    for version in [Version::TLS1_2, Version::TLS1_3] {
        let client = || rig.client(SECURED).version(version);
        let refused = |client: TlsClient| {
            client
                .connect(rig.address)
                .and_then(|connection| connection.exchange(request).map_err(|error| error.to_string()))
                .is_err()
        };
        assert!(refused(client().stolen_certificate(&rig.client)), "{version:?}");
        let many: Vec<_> = (0..200).map(|_| &rig.ca).collect();
        assert!(refused(client().certificate(&rig.client, &many)), "{version:?}: more than fits");
        assert!(refused(client().alpn(b"\x04smtp")), "{version:?}");
        // Its chain is as long as any.
        let issuers = (0..20).fold(vec![Ca::root("root")], |mut chain, _| {
            let next = chain.last().unwrap().intermediate("next");
            chain.push(next);
            chain
        });
        let leaf = issuers.last().unwrap().issue(Subject::client("deep").expired());
        let chain: Vec<_> = issuers.iter().rev().collect();
        assert!(!refused(client().certificate(&leaf, &chain)), "{version:?}: a long chain");
        assert!(was_presented(), "{version:?}");
    }
    assert!(rig.client(SECURED).version(Version::TLS1_1).connect(rig.address).is_err());

    for client in clients(&rig) {
        let said = client.get(rig.address, Some(SECURED), "/", "none", &["-showcerts"]);
        assert!(said.has_passed() && !said.resumed() && !said.got_a_ticket(), "{}", said.0);
        assert!(said.0.contains("subject=CN = secured.example"), "{}", said.0);
        client.begin(rig.address, Some(SECURED), "client", "session");
        assert!(client.resumes(rig.address, Some(SECURED), "session"));
        assert!(was_presented());
    }
}
