use testbed::pki::rcgen::{self, DnValue, SanType};
use testbed::pki::{Ca, Subject};

use super::*;
use crate::certificate::Certificate;

fn certificate(subject: Subject) -> Certificate {
    Certificate::from_der(&Ca::root("root").issue(subject).der).unwrap()
}

fn subject_names(subject: Subject) -> Vec<String> {
    certificate(subject).subject_names(&[]).into_iter().map(str::to_owned).collect()
}

#[test]
fn alternative_names_count_in_their_order_and_then_the_cn_does_not() {
    let subject = Subject::client("cn")
        .dns("a.example")
        .san(SanType::Rfc822Name("bob@example.com".try_into().unwrap()))
        .san(SanType::URI("spiffe://example.com/bob".try_into().unwrap()))
        .san(SanType::IpAddress("10.0.0.1".parse().unwrap()))
        .san(SanType::IpAddress("2001:db8::1".parse().unwrap()));
    let names = ["a.example", "bob@example.com", "spiffe://example.com/bob", "10.0.0.1", "2001:db8::1"];
    assert_eq!(subject_names(subject.clone()), names);
    assert_eq!(
        certificate(subject).alternative_names_text().unwrap(),
        "DNS:a.example, email:bob@example.com, URI:spiffe://example.com/bob, IP:10.0.0.1, IP:2001:db8::1"
    );
    assert_eq!(subject_names(Subject::client("cn")), ["cn"]);
    assert_eq!(subject_names(Subject::client("cn").without_cn()), [""; 0]);
}

#[test]
fn a_name_without_exact_text_matches_nothing() {
    // A NUL, as in "alice.example\0.evil.example": neither the part before it nor the whole.
    for name in ["alice\0", "alice\0.evil.example", "\0", "a\nb", "a\u{7f}"] {
        assert_eq!(subject_names(Subject::client("cn").dns(name)), [""; 0], "{name:?}");
        assert_eq!(subject_names(Subject::client(name)), [""; 0], "{name:?}");
    }
    // The CN does not step in for names that cannot be read.
    assert_eq!(subject_names(Subject::client("alice").dns("b\0")), [""; 0]);
    let teletex = DnValue::TeletexString("alice".try_into().unwrap());
    assert_eq!(subject_names(Subject::client("").cn(teletex)), [""; 0]);
    let bmp = rcgen::string::BmpString::from_utf16be(vec![0, b'a', 0, 0]).unwrap();
    assert_eq!(subject_names(Subject::client("").cn(DnValue::BmpString(bmp))), [""; 0]);
}

#[test]
fn string_types_with_a_sure_meaning_give_their_text() {
    let bmp = rcgen::string::BmpString::from_utf16be(vec![0, b'a', 0x20, 0xac]).unwrap();
    assert_eq!(subject_names(Subject::client("").cn(DnValue::BmpString(bmp))), ["a\u{20ac}"]);
    let printable = DnValue::PrintableString("alice".try_into().unwrap());
    assert_eq!(subject_names(Subject::client("").cn(printable)), ["alice"]);
    // Looks the same, is not the same: Cyrillic.
    assert_ne!(subject_names(Subject::client("аlice")), ["alice"]);
}

#[test]
fn of_a_directory_name_those_attributes_count_that_the_matcher_lists() {
    let mut name = openssl::x509::X509Name::builder().unwrap();
    for (attribute, value) in [("O", "Acme, Inc."), ("CN", "alice"), ("OU", "b\0b")] {
        name.append_entry_by_text(attribute, value).unwrap();
    }
    let directory_name = tagged(0xa4, &name.build().to_der().unwrap());
    let names = tagged(0x30, &[tagged(0x82, b"a.example"), directory_name].concat());
    let certificate = certificate(Subject::client("cn").extension(&[2, 5, 29, 17], &names));
    let names = |matcher: &[&str]| {
        let matcher: Vec<_> = matcher.iter().map(|name| AttributeType::from_name(name).unwrap()).collect();
        certificate.subject_names(&matcher).into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(names(&[]), ["a.example", "Acme, Inc.", "alice"], "without what has no exact text");
    for matcher in [["CN"], ["commonName"], ["2.5.4.3"]] {
        assert_eq!(names(&matcher), ["a.example", "alice"]);
    }
    assert_eq!(names(&["O"]), ["a.example", "Acme, Inc."]);
    assert_eq!(names(&["OU", "L"]), ["a.example"]);
    let text = certificate.alternative_names_text().unwrap();
    assert!(text.starts_with("DNS:a.example, DirName:") && text.contains("O=Acme\\\\\\, Inc."), "{text}");
}

/// A DER value with this tag.
fn tagged(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = match u8::try_from(content.len()) {
        Ok(short @ 0..=127) => vec![short],
        _ => [&[0x82], &u16::try_from(content.len()).unwrap().to_be_bytes()[..]].concat(),
    };
    [&[tag], &length[..], content].concat()
}

/// No name is cut, split, decoded or taken for another kind.
#[test]
fn alternative_names_are_whole_or_nothing() {
    const DNS: u8 = 0x82;
    const EMAIL: u8 = 0x81;
    const IP: u8 = 0x87;
    let long = "a".repeat(10_000);
    for (tag, content, expected) in [
        (DNS, &b"alice,bob"[..], Some("alice,bob")),
        (DNS, b"CN=alice+O=x", Some("CN=alice+O=x")),
        (DNS, b"*.example.com", Some("*.example.com")),
        (DNS, b" alice ", Some(" alice ")),
        (EMAIL, b"Alice@Example.com", Some("Alice@Example.com")),
        (EMAIL, b"alice%40example.com", Some("alice%40example.com")),
        (DNS, long.as_bytes(), Some(&long)),
        (DNS, b"10.0.0.1", Some("10.0.0.1")),
        (DNS, b"", None),
        (DNS, b"alice\xff", None),
        (DNS, "\u{430}lice".as_bytes(), None),
        // An address with its mask, as name constraints have it, is no address.
        (IP, &[10, 0, 0, 1, 255, 255, 255, 0], None),
        (IP, b"alice", None),
        (IP, b"", None),
        // registeredID, and otherName with a UPN of alice: kinds that are never a consumer's name.
        (0x88, &[0x2a, 0x03], None),
        (0xa0, b"\x06\x0a+\x06\x01\x04\x01\x827\x14\x02\x03\xa0\x07\x0c\x05alice", None),
    ] {
        let subject =
            Subject::client("alice").extension(&[2, 5, 29, 17], &tagged(0x30, &tagged(tag, content)));
        let certificate = Certificate::from_der(&Ca::root("root").issue(subject).der);
        let names =
            certificate.as_ref().map(|certificate| certificate.subject_names(&[])).unwrap_or_default();
        assert_eq!(names, expected.into_iter().collect::<Vec<_>>(), "{tag:x} {content:?}");
    }
}

/// Several attributes in one RDN, in any order and of any kind: the same as in several.
#[test]
fn of_an_rdn_with_several_values_none_hides_another() {
    let attribute = |oid: u8, tag: u8, text: &[u8]| {
        tagged(0x30, &[tagged(0x06, &[0x55, 0x04, oid]), tagged(tag, text)].concat())
    };
    let (cn, o, utf8) = (3, 10, 0x0c);
    for (attributes, expected, text) in [
        (vec![attribute(cn, utf8, b"alice"), attribute(o, utf8, b"x")], Some("alice"), "O=x+CN=alice"),
        (vec![attribute(cn, utf8, b"alice"), attribute(cn, utf8, b"bob")], None, "CN=bob+CN=alice"),
        (vec![attribute(o, utf8, b"x,CN=alice")], None, "O=x\\,CN=alice"),
        (vec![attribute(cn, utf8, b"alice,O=x")], Some("alice,O=x"), "CN=alice\\,O=x"),
        (vec![attribute(cn, utf8, b"\xff")], None, "CN=#0C01FF"),
        // UniversalString, and a PrintableString that is not even ASCII.
        (vec![attribute(cn, 0x1c, b"\0\0\0a")], None, "CN=#1C0400000061"),
        (vec![attribute(cn, 0x13, b"\xff")], None, "CN=#1301FF"),
        // organizationIdentifier, and a type that nobody has a name for.
        (vec![attribute(97, utf8, b"PSDES-1")], None, "organizationIdentifier=PSDES-1"),
        (vec![attribute(127, utf8, b"alice")], None, "2.5.4.127=#0C05616C696365"),
        (vec![], None, ""),
    ] {
        let rdn = if attributes.is_empty() { Vec::new() } else { tagged(0x31, &attributes.concat()) };
        let der = tagged(0x30, &rdn);
        let (_, name) = x509_parser::prelude::FromDer::from_der(&der).unwrap();
        assert_eq!(common_name(&name).as_deref(), expected, "{text}");
        assert_eq!(distinguished_name(&name), text);
    }
}

/// Which of two extensions counts is a matter of taste, so such a certificate is none.
#[test]
fn alternative_names_that_stand_twice_are_malformed() {
    let twice =
        Subject::client("alice").dns("a.example").extension(&[2, 5, 29, 17], b"\x30\x0b\x82\x09b.example");
    assert_eq!(Certificate::from_der(&Ca::root("root").issue(twice).der), None);
    let once = Subject::client("alice").extension(&[2, 5, 29, 17], b"\x30\x0b\x82\x09b.example");
    assert_eq!(subject_names(once), ["b.example"]);
    let garbage = Subject::client("alice").extension(&[2, 5, 29, 17], b"\x30\x0b\x82");
    assert_eq!(Certificate::from_der(&Ca::root("root").issue(garbage).der), None);
}

#[test]
fn an_oid_without_a_name_is_written_in_numbers() {
    let long = [&[0x69][..], &[0x83], &[0xff; 17], &[0x7f]].concat();
    for (octets, expected) in [
        (&[0x2a, 3, 4][..], "1.2.3.4"),
        (&[0x27], "0.39"),
        (&[0x4f], "1.39"),
        (&[0x7f], "2.47"),
        (&[0x81, 0], "2.48"),
        (&[0x88, 0x37, 1], "2.999.1"),
        // A UUID, as long as they get.
        (&long, "2.25.340282366920938463463374607431768211455"),
    ] {
        assert_eq!(dotted(&Oid::new(octets.into())), expected);
    }
}

#[test]
fn of_several_cns_none_counts() {
    let mut name = openssl::x509::X509Name::builder().unwrap();
    for cn in ["alice", "bob"] {
        name.append_entry_by_text("CN", cn).unwrap();
    }
    let der = name.build().to_der().unwrap();
    let (_, name) = x509_parser::prelude::FromDer::from_der(&der).unwrap();
    assert_eq!(common_name(&name), None);
    assert_eq!(distinguished_name(&name), "CN=bob,CN=alice");
}

#[test]
fn a_list_keeps_names_apart() {
    let name = |text: &str| AlternativeName::Uri(text.to_owned());
    assert_eq!(list(&[name("a, URI:b")]), "URI:a\\, URI:b");
    assert_eq!(list(&[name("a"), name("b\\")]), "URI:a, URI:b\\\\");
}

/// Held to OpenSSL's own RFC 2253 form, which nginx shows as `$ssl_client_s_dn`.
#[test]
fn distinguished_names_are_those_of_openssl() {
    let root = Ca::root("root");
    for cn in [
        "alice",
        "a,b+c\"d\\e<f>g;h=i",
        " lead",
        "trail ",
        " ",
        "#hash",
        "in#side",
        "Zoë",
        "\u{1f511}",
        "line\u{1}",
    ] {
        let leaf = root.issue(Subject::client(cn));
        let dir = tempfile::tempdir().unwrap();
        leaf.write(dir.path(), "leaf", &[]);
        let output = std::process::Command::new("openssl")
            .args(["x509", "-noout", "-subject", "-nameopt", "RFC2253", "-in"])
            .arg(dir.path().join("leaf.crt"))
            .output()
            .unwrap();
        let openssl = String::from_utf8(output.stdout).unwrap();
        let ours = Certificate::from_der(&leaf.der).unwrap().subject;
        if cn == "line\u{1}" {
            // OpenSSL escapes what we do not take for a text at all.
            assert_eq!(ours, "CN=#0C056C696E6501");
        } else {
            assert_eq!(format!("subject={ours}"), openssl.trim_end_matches('\n'), "{cn:?}");
        }
    }
}
