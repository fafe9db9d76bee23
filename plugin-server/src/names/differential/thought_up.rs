//! This knows how to think up names, as strategies of `proptest`, and what they are meant to say.

use std::collections::HashSet;
use std::net::IpAddr;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use testbed::crl::{integer, tlv};

/// Types of attributes, as the content of their OID: those of RFC 4514, others that OpenSSL has a name for, and some
/// that it has none for.
const TYPES: [&[u8]; 18] = [
    COMMON_NAME,
    COUNTRY,
    &[0x55, 4, 7],
    &[0x55, 4, 8],
    &[0x55, 4, 9],
    &[0x55, 4, 10],
    &[0x55, 4, 11],
    &[0x55, 4, 5],
    &[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 25],
    &[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 1],
    &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 1],
    // title, SN, GN, businessCategory, organizationIdentifier
    &[0x55, 4, 12],
    &[0x55, 4, 4],
    &[0x55, 4, 42],
    &[0x55, 4, 15],
    &[0x55, 4, 97],
    // 1.2.3.4.5, 2.999.1
    &[0x2a, 3, 4, 5],
    &[0x88, 0x37, 1],
];

const COMMON_NAME: &[u8] = &[0x55, 4, 3];
const COUNTRY: &[u8] = &[0x55, 4, 6];

const UTF8: u8 = 0x0c;
const NUMERIC: u8 = 0x12;
const PRINTABLE: u8 = 0x13;
const T61: u8 = 0x14;
const IA5: u8 = 0x16;
const VISIBLE: u8 = 0x1a;
const UNIVERSAL: u8 = 0x1c;
const BMP: u8 = 0x1e;

/// RDNs in the order of the certificate.
#[derive(Clone, Debug)]
pub(super) struct Name(pub(super) Vec<Vec<Attribute>>);

#[derive(Clone, Debug)]
pub(super) struct Attribute {
    kind: &'static [u8],
    tag: u8,
    content: Vec<u8>,
    /// What the content was made of, unless it is just some octets.
    said: Option<String>,
}

impl Attribute {
    /// The text that it has for us.
    pub(super) fn text(&self) -> Option<String> {
        let is_exact = matches!(self.tag, UTF8 | NUMERIC | PRINTABLE | IA5 | BMP);
        let said = self.said.clone().filter(|_| is_exact)?;
        (!said.is_empty() && !said.chars().any(char::is_control)).then_some(said)
    }

    /// Whether its text stands in a DN. OpenSSL shows the DER of what it knows no name of, and so does RFC 4514.
    pub(super) fn has_text(&self) -> bool {
        self.text().is_some() || self.is_nameless()
    }

    /// Whether OpenSSL has no name for its type.
    pub(super) fn is_nameless(&self) -> bool {
        matches!(self.kind, [0x2a, 3, 4, 5] | [0x88, 0x37, 1])
    }

    /// Whether OpenSSL cannot print it.
    fn is_broken(&self) -> bool {
        self.said.is_none()
    }

    pub(super) fn is_common_name(&self) -> bool {
        self.kind == COMMON_NAME
    }

    /// Whether another reader may refuse the whole name for it: what has no text for us, a country of another length than
    /// two, and characters that the type does not have.
    pub(super) fn may_be_refused(&self) -> bool {
        let Some(text) = self.text() else { return true };
        let is_printable =
            |character: char| character.is_ascii_alphanumeric() || " '()+,-./:=?".contains(character);
        let is_numeric = |character: char| character.is_ascii_digit() || character == ' ';
        match self.tag {
            PRINTABLE if !text.chars().all(is_printable) => true,
            NUMERIC if !text.chars().all(is_numeric) => true,
            _ => self.kind == COUNTRY && text.chars().count() != 2,
        }
    }

    fn der(&self) -> Vec<u8> {
        tlv(0x30, &[&tlv(0x06, &[self.kind]), &self.value()])
    }

    fn value(&self) -> Vec<u8> {
        tlv(self.tag, &[&self.content])
    }

    pub(super) fn value_in_hexadecimal(&self) -> String {
        crate::certificate::hex(&self.value()).to_ascii_uppercase()
    }
}

impl Name {
    pub(super) fn is_broken(&self) -> bool {
        self.0.iter().flatten().any(Attribute::is_broken)
    }

    /// Whether an RDN has the same text twice, in two types of strings.
    pub(super) fn has_one_twice(&self) -> bool {
        let is_twice = |rdn: &Vec<Attribute>| {
            let said: HashSet<_> = rdn.iter().map(|attribute| (attribute.kind, &attribute.said)).collect();
            said.len() < rdn.len()
        };
        self.0.iter().any(is_twice)
    }

    fn der(&self) -> Vec<u8> {
        let rdn =
            |rdn: &Vec<Attribute>| tlv(0x31, &[&rdn.iter().flat_map(Attribute::der).collect::<Vec<_>>()]);
        tlv(0x30, &[&self.0.iter().flat_map(rdn).collect::<Vec<_>>()])
    }
}

/// A name in a SAN extension.
#[derive(Clone, Debug)]
pub(super) enum San {
    Dns(Vec<u8>),
    Email(Vec<u8>),
    Uri(Vec<u8>),
    Ip(Vec<u8>),
    /// 1.2.3
    RegisteredId,
    /// `CN=alice`
    Directory,
}

impl San {
    fn der(&self) -> Vec<u8> {
        match self {
            Self::Email(content) => tlv(0x81, &[content]),
            Self::Dns(content) => tlv(0x82, &[content]),
            Self::Uri(content) => tlv(0x86, &[content]),
            Self::Ip(octets) => tlv(0x87, &[octets]),
            Self::RegisteredId => tlv(0x88, &[&[0x2a, 3]]),
            Self::Directory => tlv(0xa4, &[&directory_name()]),
        }
    }

    /// The text that it has for us.
    pub(super) fn text(&self) -> Option<String> {
        match self {
            Self::Dns(content) | Self::Email(content) | Self::Uri(content) => {
                let is_exact =
                    !content.is_empty() && content.iter().all(|octet| matches!(octet, b' '..=b'~'));
                is_exact.then(|| String::from_utf8(content.clone()).unwrap())
            }
            Self::Ip(octets) => address(octets).map(|address| address.to_string()),
            Self::RegisteredId => None,
            Self::Directory => Some("alice".into()),
        }
    }

    pub(super) fn is_directory_name(&self) -> bool {
        matches!(self, Self::Directory)
    }

    pub(super) fn may_be_refused(&self) -> bool {
        self.text().is_none() && !matches!(self, Self::RegisteredId) || matches!(self, Self::Email(_))
    }

    pub(super) fn has_nul(&self) -> bool {
        matches!(self, Self::Dns(content) | Self::Email(content) | Self::Uri(content) if content.contains(&0))
    }

    pub(super) fn as_openssl_prints_it(&self) -> String {
        let printed = |kind, content: &[u8]| format!("{kind}:{}", String::from_utf8_lossy(content));
        match self {
            Self::Dns(content) => printed("DNS", content),
            Self::Email(content) => printed("email", content),
            Self::Uri(content) => printed("URI", content),
            Self::Ip(octets) => format!(
                "IP Address:{}",
                match address(octets) {
                    Some(IpAddr::V6(address)) =>
                        address.segments().map(|segment| format!("{segment:X}")).join(":"),
                    Some(address) => address.to_string(),
                    None => "<invalid>".into(),
                }
            ),
            Self::RegisteredId => "Registered ID:1.2.3".into(),
            Self::Directory => "DirName:/CN=alice".into(),
        }
    }
}

fn address(octets: &[u8]) -> Option<IpAddr> {
    let four = || <[u8; 4]>::try_from(octets).ok().map(IpAddr::from);
    four().or_else(|| <[u8; 16]>::try_from(octets).ok().map(IpAddr::from))
}

fn directory_name() -> Vec<u8> {
    let alice = Attribute { kind: COMMON_NAME, tag: UTF8, content: b"alice".into(), said: None };
    Name(vec![vec![alice]]).der()
}

/// A certificate with these names and nothing else that counts, least of all its signature.
pub(super) fn certificate(subject: &Name, issuer: &Name, sans: &[San]) -> Vec<u8> {
    let algorithm = tlv(0x30, &[&[0x06, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2]]);
    let times = tlv(0x30, &[&tlv(0x17, &[b"260101000000Z"]), &tlv(0x17, &[b"360101000000Z"])]);
    let mut fields =
        [tlv(0xa0, &[&[2, 1, 2]]), integer(&[1]), algorithm.clone(), issuer.der(), times, subject.der()]
            .concat();
    fields.extend_from_slice(PUBLIC_KEY);
    if !sans.is_empty() {
        let names = tlv(0x30, &[&sans.iter().flat_map(San::der).collect::<Vec<_>>()]);
        fields.extend(tlv(0xa3, &[&tlv(0x30, &[&testbed::crl::extension(17, false, &names)])]));
    }
    tlv(0x30, &[&tlv(0x30, &[&fields]), &algorithm, &tlv(0x03, &[&[0, 1]])])
}

/// An Ed25519 key: any octets are one.
const PUBLIC_KEY: &[u8] = &[
    0x30, 42, 0x30, 5, 0x06, 3, 0x2b, 0x65, 0x70, 0x03, 33, 0, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
];

pub(super) fn name() -> impl Strategy<Value = Name> {
    let rdn = prop_oneof![8 => vec(attribute(), 1..=1), 1 => vec(attribute(), 2..=3)];
    // A set has one order in DER, and no element twice.
    let sorted = rdn.prop_map(|mut rdn| {
        rdn.sort_by_key(Attribute::der);
        rdn.dedup_by_key(|attribute| attribute.der());
        rdn
    });
    vec(sorted, 0..5).prop_map(Name)
}

fn attribute() -> impl Strategy<Value = Attribute> {
    let value = prop_oneof![12 => clean(), 2 => unclean(), 1 => broken()];
    (prop_oneof![1 => Just(COMMON_NAME), 3 => select(&TYPES[..])], value)
        .prop_map(|(kind, (tag, content, said))| Attribute { kind, tag, content, said })
}

type Value = (u8, Vec<u8>, Option<String>);

fn encoded(tag: u8, text: String) -> Value {
    let content = match tag {
        BMP => text.encode_utf16().flat_map(u16::to_be_bytes).collect(),
        UNIVERSAL => text.chars().flat_map(|character| u32::from(character).to_be_bytes()).collect(),
        T61 => text.chars().map(|character| character as u8).collect(),
        _ => text.clone().into_bytes(),
    };
    (tag, content, Some(text))
}

/// Texts in which each character that DNs escape stands at each place now and then.
fn clean() -> impl Strategy<Value = Value> {
    let special = || prop_oneof![3 => "[a-z]", 2 => "[ #,+\"\\\\<>;=]", 1 => "[!-~]"];
    let ascii = vec(special(), 1..6).prop_map(|pieces| pieces.concat());
    let wide = vec(prop_oneof![3 => special(), 1 => select(vec!["ë".to_owned(), "аЖ".into(), "€".into(), "\u{a0}".into()])], 1..6)
        .prop_map(|pieces| pieces.concat());
    prop_oneof![
        3 => wide.clone().prop_map(|text| encoded(UTF8, text)),
        1 => (wide, select(vec!["\u{1f511}", "\u{10ffff}"])).prop_map(|(text, end)| encoded(UTF8, text + end)),
        3 => (select(vec![PRINTABLE, IA5, UTF8]), ascii.clone()).prop_map(|(tag, text)| encoded(tag, text)),
        1 => "[A-Za-z0-9 '()+,./:=?-]{1,8}".prop_map(|text| encoded(PRINTABLE, text)),
        1 => "[A-Z]{2}".prop_map(|text| encoded(PRINTABLE, text)),
        1 => "[0-9 ]{1,6}".prop_map(|text| encoded(NUMERIC, text)),
        2 => vec(prop_oneof![special(), Just("ë€".to_owned())], 1..5).prop_map(|pieces| encoded(BMP, pieces.concat())),
    ]
}

/// What OpenSSL prints as a text, and is none for us.
fn unclean() -> impl Strategy<Value = Value> {
    let control = select(vec!["\0", "a\0b", "\n", "a\u{7f}", "\u{1b}[0m"]);
    prop_oneof![
        (select(vec![T61, UNIVERSAL]), "[a-z ,]{1,5}").prop_map(|(tag, text)| encoded(tag, text)),
        (select(vec![UTF8, PRINTABLE, IA5, BMP]), control).prop_map(|(tag, text)| encoded(tag, text.into())),
        select(vec![UTF8, PRINTABLE, IA5, BMP]).prop_map(|tag| encoded(tag, String::new())),
    ]
}

/// What is no string of its type, or of no type of strings.
fn broken() -> impl Strategy<Value = Value> {
    select(vec![
        (UTF8, vec![0xff]),
        (UTF8, vec![b'a', 0xc3]),
        (UTF8, vec![0xc0, 0x80]),
        (UTF8, vec![0xed, 0xa0, 0x80]),
        (BMP, vec![0, b'a', 0]),
        (BMP, vec![0xd8, 0, 0xdc, 0]),
        (UNIVERSAL, vec![0, 0, b'a']),
        (IA5, vec![0xe9]),
        (PRINTABLE, vec![0xe9]),
        (VISIBLE, b"alice".to_vec()),
        (0x04, b"alice".to_vec()),
        (0x02, vec![7]),
    ])
    .prop_map(|(tag, content)| (tag, content, None))
}

pub(super) fn sans() -> impl Strategy<Value = Vec<San>> {
    let text = || {
        prop_oneof![
            6 => "[a-z*._-]{1,8}".prop_map(String::into_bytes),
            2 => "[ -~]{1,8}".prop_map(String::into_bytes),
            1 => select(vec![&b""[..], b"a\0b", b"\xc3\xab", b"a\x7f", b"a\tb"]).prop_map(<[u8]>::to_vec),
        ]
    };
    let email = prop_oneof![3 => "[a-z]{1,5}@[a-z]{1,5}".prop_map(String::into_bytes), 1 => text()];
    let octets = prop_oneof![
        4 => vec(any::<u8>(), 4),
        4 => vec(any::<u8>(), 16),
        1 => select(vec![vec![0; 16], vec![]]),
        1 => (select(vec![0, 1, 3, 5, 8, 32]), any::<u8>()).prop_map(|(length, octet)| vec![octet; length]),
    ];
    let san = prop_oneof![
        6 => text().prop_map(San::Dns),
        3 => email.prop_map(San::Email),
        3 => text().prop_map(San::Uri),
        3 => octets.prop_map(San::Ip),
        1 => Just(San::RegisteredId),
        1 => Just(San::Directory),
    ];
    vec(san, 0..5)
}
