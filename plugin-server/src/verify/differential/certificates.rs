//! This knows how to make certificates of which every part may be wrong, octet by octet: what signs certificates for a
//! living refuses to.

use std::sync::LazyLock;
use std::time::{Duration, UNIX_EPOCH};

use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::sign::Signer;
use testbed::crl::{integer, tlv, utc_time};

/// Around when certificates are valid that nothing is wrong with: in 2027, in seconds since 1970.
pub(super) const BASE: i64 = 1_800_000_000;
pub(super) const DAY: i64 = 86_400;

/// How many of the keys are of P-256, which are made and used fastest.
pub(super) const FAST_KEYS: usize = 6;
pub(super) const RSA: usize = 6;
pub(super) const ED25519: usize = 7;
/// Of 80 bits of security, which is just enough.
pub(super) const RSA_1024: usize = 8;
/// Of less.
pub(super) const RSA_512: usize = 9;

/// Making keys is what costs, so that all certificates share these.
static KEYS: LazyLock<Vec<PKey<Private>>> = LazyLock::new(|| {
    let p256 = || EcKey::generate(&EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap()).unwrap();
    let rsa = |bits| PKey::from_rsa(Rsa::generate(bits).unwrap()).unwrap();
    let mut keys: Vec<_> = (0..FAST_KEYS).map(|_| PKey::from_ec_key(p256()).unwrap()).collect();
    keys.extend([rsa(2048), PKey::generate_ed25519().unwrap(), rsa(1024), rsa(512)]);
    keys
});

/// `O=<organization>, CN=<common name>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Name {
    pub(super) organization: &'static str,
    pub(super) common_name: String,
}

/// When a certificate begins or ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    /// The first time that a certificate can say: 1950.
    First,
    /// In seconds since 1970; until 2050.
    At(i64),
    /// The last one, which stands for no end at all (RFC 5280, section 4.1.2.5).
    Last,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Digest {
    Md5,
    Sha1,
    Sha256,
}

/// What a key may be used for: bits of `keyUsage`.
pub(super) const DIGITAL_SIGNATURE: u8 = 0x80;
pub(super) const KEY_ENCIPHERMENT: u8 = 0x20;
pub(super) const KEY_AGREEMENT: u8 = 0x08;
pub(super) const KEY_CERT_SIGN: u8 = 0x04;
pub(super) const CRL_SIGN: u8 = 0x02;

/// Purposes in `extKeyUsage`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Usage {
    Server,
    Client,
    CodeSigning,
    Any,
}

/// A name in a SAN extension, or the base of a subtree in name constraints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum General {
    Email(&'static str),
    Dns(&'static str),
    Organization(&'static str),
    Uri(&'static str),
    /// With a mask in constraints.
    Ip(&'static [u8]),
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Constraints {
    pub(super) permitted: Vec<General>,
    pub(super) excluded: Vec<General>,
}

/// An extension that is rarely there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Oddity {
    /// A critical extension that nobody knows.
    UnknownCritical,
    /// Another one that nobody knows.
    Unknown,
    /// A SAN extension that cannot be read.
    NamesCannotBeRead,
    /// A SAN extension twice.
    NamesTwice,
    /// Name constraints that cannot be read.
    ConstraintsCannotBeRead,
    /// `basicConstraints` twice, of which the last says that it is a CA.
    BasicTwice,
}

/// All that a certificate says, and who signs it. Keys are numbers.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Plan {
    pub(super) serial: u8,
    pub(super) subject: Name,
    pub(super) issuer: Name,
    pub(super) key: usize,
    pub(super) signed_by: usize,
    pub(super) from: When,
    pub(super) until: When,
    /// `basicConstraints`: CA or not, and the path length.
    pub(super) basic: Option<(bool, Option<u8>)>,
    pub(super) key_usage: Option<u8>,
    pub(super) usages: Option<Vec<Usage>>,
    pub(super) names: Vec<General>,
    pub(super) constraints: Option<Constraints>,
    /// The key that the identifiers of the subject's and the issuer's key say.
    pub(super) key_id: Option<usize>,
    pub(super) authority_key_id: Option<usize>,
    pub(super) digest: Digest,
    pub(super) oddities: Vec<Oddity>,
    /// Version 1 knows no extensions.
    pub(super) is_version_1: bool,
}

impl Plan {
    /// The certificate, in DER (RFC 5280, section 4.1).
    pub(super) fn der(&self) -> Vec<u8> {
        let key = &KEYS[self.key];
        let signs = &KEYS[self.signed_by];
        let (algorithm, digest) = algorithm(self.signed_by, self.digest);
        let mut fields = vec![
            integer(&[self.serial]),
            algorithm.clone(),
            self.issuer.der(),
            tlv(0x30, &[&self.from.der(), &self.until.der()]),
            self.subject.der(),
            key.public_key_to_der().unwrap(),
        ];
        if !self.is_version_1 {
            fields.insert(0, tlv(0xa0, &[&[2, 1, 2]]));
            let extensions = self.extensions();
            if !extensions.is_empty() {
                fields.push(tlv(0xa3, &[&tlv(0x30, &[&extensions.concat()])]));
            }
        }
        let to_be_signed = tlv(0x30, &[&fields.concat()]);
        let mut signer = match digest {
            Some(digest) => Signer::new(digest, signs),
            None => Signer::new_without_digest(signs),
        }
        .unwrap();
        let signature = signer.sign_oneshot_to_vec(&to_be_signed).unwrap();
        tlv(0x30, &[&to_be_signed, &algorithm, &tlv(0x03, &[&[0], &signature])])
    }

    fn extensions(&self) -> Vec<Vec<u8>> {
        let mut extensions = Vec::new();
        let mut push = |number, is_critical, der: &[u8]| {
            extensions.push(testbed::crl::extension(number, is_critical, der));
        };
        if let Some((is_ca, path_length)) = self.basic {
            push(19, true, &basic_constraints(is_ca, path_length));
        }
        if let Some(bits) = self.key_usage {
            push(15, true, &tlv(0x03, &[&[bits.trailing_zeros() as u8, bits]]));
        }
        if let Some(usages) = &self.usages {
            let oids: Vec<u8> = usages.iter().flat_map(|usage| usage.oid()).collect();
            push(37, false, &tlv(0x30, &[&oids]));
        }
        if !self.names.is_empty() {
            push(17, false, &general_names(0x30, &self.names));
        }
        if let Some(constraints) = &self.constraints {
            push(30, true, &constraints.der());
        }
        if let Some(key) = self.key_id {
            push(14, false, &tlv(0x04, &[&key_id(key)]));
        }
        if let Some(key) = self.authority_key_id {
            push(35, false, &tlv(0x30, &[&tlv(0x80, &[&key_id(key)])]));
        }
        for oddity in &self.oddities {
            match oddity {
                // In the arc of certificate extensions, where nothing is 120 or 121.
                Oddity::UnknownCritical => push(120, true, &[5, 0]),
                Oddity::Unknown => push(121, false, &[5, 0]),
                Oddity::NamesCannotBeRead => push(17, false, &[0x30, 9, 0x82]),
                Oddity::NamesTwice => {
                    let names = general_names(0x30, &[General::Dns("b.example")]);
                    if self.names.is_empty() {
                        push(17, false, &names);
                    }
                    push(17, false, &names);
                }
                Oddity::ConstraintsCannotBeRead => push(30, true, &[0x30, 9, 0xa0]),
                Oddity::BasicTwice => {
                    if self.basic.is_none() {
                        push(19, true, &basic_constraints(true, None));
                    }
                    push(19, true, &basic_constraints(true, None));
                }
            }
        }
        extensions
    }
}

impl Name {
    fn der(&self) -> Vec<u8> {
        let organization = attribute(10, self.organization);
        tlv(0x30, &[&organization, &attribute(3, &self.common_name)])
    }
}

impl When {
    fn der(self) -> Vec<u8> {
        match self {
            Self::First => tlv(0x17, &[b"500101000000Z"]),
            Self::At(seconds) => utc_time(UNIX_EPOCH + Duration::from_secs(seconds as u64)),
            Self::Last => tlv(0x18, &[b"99991231235959Z"]),
        }
    }

    /// In seconds since 1970.
    pub(super) fn seconds(self) -> i64 {
        match self {
            Self::First => -631_152_000,
            Self::At(seconds) => seconds,
            Self::Last => 253_402_300_799,
        }
    }
}

impl Usage {
    fn oid(self) -> Vec<u8> {
        let purpose = |number| vec![0x06, 8, 0x2b, 6, 1, 5, 5, 7, 3, number];
        match self {
            Self::Server => purpose(1),
            Self::Client => purpose(2),
            Self::CodeSigning => purpose(3),
            Self::Any => vec![0x06, 4, 0x55, 0x1d, 0x25, 0],
        }
    }
}

impl General {
    fn der(&self) -> Vec<u8> {
        match self {
            Self::Email(text) => tlv(0x81, &[text.as_bytes()]),
            Self::Dns(text) => tlv(0x82, &[text.as_bytes()]),
            Self::Organization(text) => tlv(0xa4, &[&tlv(0x30, &[&attribute(10, text)])]),
            Self::Uri(text) => tlv(0x86, &[text.as_bytes()]),
            Self::Ip(bytes) => tlv(0x87, &[bytes]),
        }
    }
}

impl Constraints {
    fn der(&self) -> Vec<u8> {
        let subtrees = |tag, bases: &[General]| {
            let subtrees: Vec<u8> = bases.iter().flat_map(|base| tlv(0x30, &[&base.der()])).collect();
            if bases.is_empty() { Vec::new() } else { tlv(tag, &[&subtrees]) }
        };
        tlv(0x30, &[&subtrees(0xa0, &self.permitted), &subtrees(0xa1, &self.excluded)])
    }
}

fn general_names(tag: u8, names: &[General]) -> Vec<u8> {
    let names: Vec<u8> = names.iter().flat_map(General::der).collect();
    tlv(tag, &[&names])
}

/// An RDN of one attribute of X.520 in UTF-8.
fn attribute(number: u8, text: &str) -> Vec<u8> {
    tlv(0x31, &[&tlv(0x30, &[&[0x06, 3, 0x55, 4, number], &tlv(0x0c, &[text.as_bytes()])])])
}

fn basic_constraints(is_ca: bool, path_length: Option<u8>) -> Vec<u8> {
    let is_ca: &[u8] = if is_ca { &[1, 1, 0xff] } else { &[] };
    let path_length = path_length.map(|length| integer(&[length])).unwrap_or_default();
    tlv(0x30, &[is_ca, &path_length])
}

fn key_id(key: usize) -> [u8; 4] {
    [0x6b, 0x65, 0x79, key as u8]
}

/// The algorithm that a key signs with, in DER, and the digest. Keys have no choice that is not theirs: Ed25519 has a
/// digest of its own, and there is no ECDSA with MD5.
fn algorithm(key: usize, digest: Digest) -> (Vec<u8>, Option<MessageDigest>) {
    let null: &[u8] = &[5, 0];
    let rsa = |number| (vec![0x06, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, number], null);
    let (oid, parameters) = match (key, digest) {
        (ED25519, _) => return (tlv(0x30, &[&[0x06, 3, 0x2b, 0x65, 0x70]]), None),
        (RSA.., Digest::Md5) => rsa(4),
        (RSA.., Digest::Sha1) => rsa(5),
        (RSA.., Digest::Sha256) => rsa(11),
        (_, Digest::Md5 | Digest::Sha1) => (vec![0x06, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 1], &[][..]),
        (_, Digest::Sha256) => (vec![0x06, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2], &[][..]),
    };
    let digest = match digest {
        Digest::Md5 if key >= RSA => MessageDigest::md5(),
        Digest::Md5 | Digest::Sha1 => MessageDigest::sha1(),
        Digest::Sha256 => MessageDigest::sha256(),
    };
    (tlv(0x30, &[&oid, parameters]), Some(digest))
}
