//! This knows what must hold of the names that are read from any bytes in place of a certificate. The fuzz target and the
//! run of its seeds call the same function, which panics where it does not.
//!
//! OpenSSL, which verifies chains, judges what we read: a certificate must not be verified as one name and mapped as
//! another.

use openssl::nid::Nid;
use openssl::x509::{GeneralNameRef, X509, X509NameRef};

use super::Certificate;
use crate::names::AlternativeName;

/// Ed25519 (RFC 8410): as the algorithm of the key and of the signature, which nobody looks at here.
const ED25519: [u8; 7] = [0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70];

/// Version 3, and 1 as the serial number.
const BEGINNING: [u8; 8] = [0xa0, 0x03, 0x02, 0x01, 0x02, 0x02, 0x01, 0x01];

/// CN=alice.
const ALICE: [u8; 18] = *b"\x30\x10\x31\x0e\x30\x0c\x06\x03\x55\x04\x03\x0c\x05alice";

/// From 2000 to 2049.
const VALIDITY: [u8; 32] = *b"\x30\x1e\x17\x0d000101000000Z\x17\x0d491231235959Z";

/// An extension `subjectAltName`, up to its value.
const SUBJECT_ALTERNATIVE_NAME: [u8; 5] = [0x06, 0x03, 0x55, 0x1d, 0x11];

/// Reads bytes as what their first one says: a subject (`n`), the value of a SAN extension (`s`), all extensions (`e`), or
/// a whole certificate.
///
/// # Panics
/// Where what must hold does not.
pub fn certificate_names(bytes: &[u8]) {
    let der = certificate(bytes);
    let Some(read) = Certificate::from_der(&der) else { return };
    assert!(Certificate::from_der(&[&der[..], &[0]].concat()).is_none(), "more than a certificate");

    // These go into headers and lines of a log.
    for text in [&read.subject, &read.issuer] {
        assert!(text.bytes().all(|byte| matches!(byte, b' '..=b'~')), "{text:?}");
    }
    let listed = read.alternative_names_text();
    if let Some(listed) = &listed {
        assert!(listed.bytes().all(|byte| matches!(byte, b' '..=b'~')), "{listed:?}");
    }
    let names = read.subject_names(&[]);
    for name in &names {
        assert!(!name.is_empty() && !name.contains(char::is_control), "{name:?}");
    }
    for text in read.alternative_names.as_deref().unwrap_or_default().iter().flat_map(values) {
        // What is not its bytes in text, such as an address, is compared with OpenSSL's below.
        assert!(stands_whole(&der, text), "{text:?} is no value of the certificate");
    }
    if let Some(listed) = listed {
        let names = read.alternative_names.as_deref().unwrap_or_default();
        assert_eq!(pieces(&listed, ","), names.len(), "{listed:?}");
    }
    if let Ok(theirs) = X509::from_der(&der) {
        as_openssl(&read, &theirs);
    }
}

/// Compares with what OpenSSL reads.
fn as_openssl(read: &Certificate, theirs: &X509) {
    for (ours, theirs) in [(&read.subject, theirs.subject_name()), (&read.issuer, theirs.issuer_name())] {
        let attributes = if ours.is_empty() { 0 } else { pieces(ours, ",+") };
        assert_eq!(attributes, theirs.entries().count(), "{ours:?}");
    }
    let common_names: Vec<_> = theirs.subject_name().entries_by_nid(Nid::COMMONNAME).collect();
    if let Some(ours) = &read.common_name {
        let [theirs] = common_names.as_slice() else { panic!("{ours:?} is one of several") };
        assert!(is_text_of(ours, theirs.data().as_slice()));
    }
    // None where there is no such extension, and where OpenSSL refuses it: then it verifies no such certificate.
    let Some(names) = theirs.subject_alt_names() else { return };
    let ours = read.alternative_names.as_deref().expect("names that OpenSSL has");
    let mut ours = ours.iter();
    for theirs in &names {
        if let Some(text) = text(theirs) {
            let (kind, ours) = match ours.next() {
                Some(AlternativeName::Dns(text)) => (theirs.dnsname(), text),
                Some(AlternativeName::Email(text)) => (theirs.email(), text),
                Some(AlternativeName::Uri(text)) => (theirs.uri(), text),
                other => panic!("{other:?} is {text:?}"),
            };
            assert_eq!((kind, ours.as_str()), (Some(text), text));
        } else if let Some(address) = theirs.ipaddress() {
            let text = match address.len() {
                4 => std::net::IpAddr::from(<[u8; 4]>::try_from(address).unwrap()).to_string(),
                16 => std::net::IpAddr::from(<[u8; 16]>::try_from(address).unwrap()).to_string(),
                _ => continue,
            };
            assert_eq!(ours.next(), Some(&AlternativeName::Ip(text)));
        } else if let Some(name) = theirs.directory_name() {
            let Some(AlternativeName::Directory { attributes, .. }) = ours.next() else {
                panic!("no directory name")
            };
            in_order(attributes.iter().map(|(_, text)| text.as_str()), name);
        }
    }
    assert_eq!(ours.next(), None, "a name that OpenSSL does not have");
}

/// The text of a name that has one that may be compared.
fn text(name: &GeneralNameRef) -> Option<&str> {
    let text = name.dnsname().or_else(|| name.email()).or_else(|| name.uri())?;
    let is_plain = !text.is_empty() && text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    is_plain.then_some(text)
}

/// Whether all of these are values of a name, in its order.
fn in_order<'a>(ours: impl Iterator<Item = &'a str>, theirs: &X509NameRef) {
    let mut theirs = theirs.entries();
    for text in ours {
        assert!(theirs.any(|entry| is_text_of(text, entry.data().as_slice())), "{text:?}");
    }
}

/// The texts of a name that stand in a certificate as they are.
fn values(name: &AlternativeName) -> Vec<&str> {
    match name {
        AlternativeName::Ip(_) => Vec::new(),
        name => name.subject_names(&[]),
    }
}

/// Whether a text is the whole of these bytes, in UTF-8 or UCS-2.
fn is_text_of(text: &str, bytes: &[u8]) -> bool {
    bytes == text.as_bytes() || bytes == ucs2(text)
}

fn ucs2(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_be_bytes).collect()
}

/// Whether a text is the whole content of something in the certificate: its length stands before it.
fn stands_whole(der: &[u8], text: &str) -> bool {
    [text.as_bytes().to_vec(), ucs2(text)].iter().any(|content| {
        let whole = [&length(content.len())[..], content].concat();
        der.windows(whole.len()).any(|bytes| bytes == whole)
    })
}

/// How many pieces there are between these characters, where no backslash stands before them.
fn pieces(text: &str, between: &str) -> usize {
    let mut pieces = 1;
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        if character == '\\' {
            characters.next();
        } else if between.contains(character) {
            pieces += 1;
        }
    }
    pieces
}

/// The certificate that these bytes are, or are a part of.
fn certificate(bytes: &[u8]) -> Vec<u8> {
    match bytes {
        [b'n', subject @ ..] => around(subject, &[]),
        [b'e', extensions @ ..] => around(&ALICE, extensions),
        [b's', value @ ..] => {
            let value = tlv(0x04, &[value]);
            around(&ALICE, &tlv(0x30, &[&SUBJECT_ALTERNATIVE_NAME, &value]))
        }
        whole => whole.to_vec(),
    }
}

fn around(subject: &[u8], extensions: &[u8]) -> Vec<u8> {
    let key = tlv(0x30, &[&ED25519, &tlv(0x03, &[&[0; 33]])]);
    let extensions = match extensions {
        [] => Vec::new(),
        some => tlv(0xa3, &[&tlv(0x30, &[some])]),
    };
    let signed = tlv(0x30, &[&BEGINNING, &ED25519, &ALICE, &VALIDITY, subject, &key, &extensions]);
    tlv(0x30, &[&signed, &ED25519, &tlv(0x03, &[&[0; 65]])])
}

fn tlv(identifier: u8, contents: &[&[u8]]) -> Vec<u8> {
    let content = contents.concat();
    [&[identifier][..], &length(content.len()), &content].concat()
}

/// As short as DER wants it.
fn length(of: usize) -> Vec<u8> {
    match of {
        short @ 0..0x80 => vec![short as u8],
        long => {
            let octets = long.to_be_bytes();
            let octets = &octets[long.leading_zeros() as usize / 8..];
            [&[0x80 | octets.len() as u8][..], octets].concat()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::*;
    use crate::wire::fuzzing::seeds::replay;

    fn folder() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/certificate_names")
    }

    #[test]
    fn what_must_hold_does_for_certificates_and_their_mutations() {
        replay::replay(&folder(), 4000, certificate_names);
    }

    #[test]
    fn seeds_are_read_as_certificates_with_names() {
        let names = |seed: &str| {
            let der = certificate(&std::fs::read(folder().join(seed)).unwrap());
            assert!(X509::from_der(&der).is_ok(), "{seed}");
            let read = Certificate::from_der(&der)?;
            Some(read.subject_names(&[]).into_iter().map(str::to_owned).collect::<Vec<_>>())
        };
        for (seed, expected) in [
            ("san-all-kinds", &["a.example", "a@example.com", "spiffe://a", "10.0.0.1", "2001:db8::1"][..]),
            ("san-directory-name", &["Acme, Inc.", "bob"]),
            ("san-none-exact", &[]),
            ("name-utf8", &["bob"]),
            ("name-bmp", &["a\u{20ac}"]),
            ("name-two-cns", &[]),
            ("extensions-usages-and-san", &["a.example"]),
        ] {
            assert_eq!(names(seed).unwrap(), expected, "{seed}");
        }
        assert_eq!(names("extensions-san-twice"), None);
    }
}
