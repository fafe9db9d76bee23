use openssl::ssl::{Ssl, SslContext, SslMethod};
use serde_json::json;
use testbed::pki::{Ca, Leaf, Subject};

use super::*;

fn leaf(name: &str) -> Leaf {
    Ca::root("servers").issue(Subject::server(&[name]))
}

/// The entities of a declarative file with these names, each with its certificate.
fn entities(names: &[(&str, &Leaf)]) -> Entities {
    let certificates: Vec<_> = names
        .iter()
        .map(|(name, leaf)| json!({"cert": leaf.cert, "key": leaf.key, "snis": [{"name": name}]}))
        .collect();
    let text = json!({"_format_version": "3.0", "certificates": certificates}).to_string();
    kong_entities::parse_json(&text).unwrap()
}

fn is_taken(certificate: &ServerCertificate) -> Result<(), ErrorStack> {
    let context = SslContext::builder(SslMethod::tls_server()).unwrap().build();
    let mut ssl = Ssl::new(&context).unwrap();
    certificate.give(&mut ssl)
}

fn of<'a>(certificates: &'a Certificates, name: &str) -> &'a Arc<ServerCertificate> {
    certificates.choose(&ServerName::from_wire(Some(name.as_bytes()))).unwrap()
}

#[test]
fn a_certificate_is_read_once_for_as_long_as_it_stays_as_it_is() {
    let (a, b, c) = (leaf("a.example"), leaf("b.example"), leaf("c.example"));
    let reads = std::cell::Cell::new(0);
    let count = |certificate: &ServerCertificate| {
        reads.set(reads.get() + 1);
        is_taken(certificate)
    };
    let nothing = Certificates::default();
    let first = nothing.next(&entities(&[("a.example", &a), ("b.example", &b), ("x.a.example", &a)]), count);
    assert_eq!(reads.get(), 2, "one certificate that stands there twice is one");
    assert!(Arc::ptr_eq(of(&first, "a.example"), of(&first, "x.a.example")));

    let second = first.next(&entities(&[("c.example", &c), ("b.example", &a), ("a.example", &b)]), count);
    assert_eq!(reads.get(), 3, "only one is new");
    assert!(Arc::ptr_eq(of(&second, "b.example"), of(&first, "a.example")));
    assert!(Arc::ptr_eq(of(&second, "a.example"), of(&first, "b.example")));

    // Nothing is kept of what is no longer there.
    let third = second.next(&entities(&[("c.example", &c)]), count);
    assert_eq!((third.by_name.len(), third.read.len()), (1, 1));
    let fourth = third.next(&entities(&[("a.example", &a), ("c.example", &c)]), count);
    assert_eq!(reads.get(), 4);
    assert!(Arc::ptr_eq(of(&fourth, "c.example"), of(&second, "c.example")));
}

#[test]
fn what_is_wrong_is_news_once() {
    let (good, other) = (leaf("a.example"), leaf("b.example"));
    let broken = |wrong: &str| Leaf { key: wrong.to_owned(), ..good.clone() };
    let [x, y] = ["x", "y"].map(broken);
    let mut now = Certificates::default();
    // The certificate of a name, and the news and the number of refusals so far.
    for (certificate, news, refused) in
        [(&good, 0, 0), (&x, 1, 1), (&x, 0, 1), (&y, 1, 2), (&good, 0, 2), (&x, 1, 3), (&x, 0, 3)]
    {
        let next = now.next(&entities(&[("a.example", certificate), ("b.example", &other)]), is_taken);
        let counts = next.counts();
        assert_eq!((next.news().len(), counts.refused), (news, refused));
        assert_eq!((counts.names, counts.certificates), (2, 2));
        let is_broken = usize::from(!std::ptr::eq(certificate, &good));
        assert_eq!((counts.broken, next.troubles().count()), (is_broken, is_broken));
        now = next;
    }
}

#[test]
fn no_key_is_ever_said() {
    let (good, rsa) = (leaf("a.example"), Ca::root("servers").issue_rsa(Subject::server(&["weak"]), 512));
    let mangled = Leaf { key: good.key.replacen('M', "!", 1), ..good.clone() };
    let foreign = Leaf { cert: leaf("b.example").cert, ..good.clone() };
    let swapped = Leaf { cert: good.key.clone(), ..good.clone() };
    for bad in [mangled, foreign, rsa, swapped] {
        let certificates = Certificates::default().next(&entities(&[("a.example", &bad)]), is_taken);
        let said = format!("{:?}", certificates.troubles().collect::<Vec<_>>());
        assert_eq!(certificates.counts().broken, 1);
        for line in bad.key.lines().chain(good.key.lines()) {
            assert!(!said.contains(line), "{said}");
        }
    }
}
