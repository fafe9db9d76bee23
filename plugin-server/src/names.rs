//! This knows names in certificates: what they say exactly, or that they say nothing that may be compared.
//!
//! A name is authorization. One that cannot be put into text exactly (a NUL or other control character, a character
//! set without a sure meaning) matches nothing: to cut or guess is how one name becomes another
//! (`attacks-and-faults.md`, "names in certificates").

use std::net::IpAddr;

use x509_parser::asn1_rs::{Any, Oid, Tag, ToDer};
use x509_parser::extensions::{GeneralName, SubjectAlternativeName};
use x509_parser::x509::X509Name;

/// A subject alternative name that has an exact text (RFC 5280, section 4.2.1.6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum AlternativeName {
    Dns(String),
    Email(String),
    Uri(String),
    Ip(String),
    /// A distinguished name: RFC 4514, and the values of its attributes that have an exact text.
    Directory {
        text: String,
        attributes: Vec<(AttributeType, String)>,
    },
}

/// The type of an attribute in a distinguished name: its OID, in the bytes of its DER.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AttributeType(Vec<u8>);

impl AttributeType {
    /// The type that has this OID, long or short name: `2.5.4.3`, `commonName`, `CN`.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        // OpenSSL reads all three; its binding panics at a NUL.
        if name.contains('\0') {
            return None;
        }
        openssl::asn1::Asn1Object::from_str(name).ok().map(|object| Self(object.as_slice().to_vec()))
    }
}

impl<'de> serde::Deserialize<'de> for AttributeType {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        Self::from_name(&name)
            .ok_or_else(|| serde::de::Error::custom(format_args!("{name:?} is no attribute or OID")))
    }
}

/// The names of a SAN extension, in its order, without those that have no exact text.
pub(crate) fn alternative_names(extension: &SubjectAlternativeName<'_>) -> Vec<AlternativeName> {
    extension
        .general_names
        .iter()
        .filter_map(|general_name| match general_name {
            GeneralName::DNSName(text) => ia5(text).map(AlternativeName::Dns),
            GeneralName::RFC822Name(text) => ia5(text).map(AlternativeName::Email),
            GeneralName::URI(text) => ia5(text).map(AlternativeName::Uri),
            GeneralName::IPAddress(bytes) => address(bytes).map(AlternativeName::Ip),
            GeneralName::DirectoryName(name) => Some(AlternativeName::Directory {
                text: distinguished_name(name),
                attributes: name
                    .iter_attributes()
                    .filter_map(|attribute| {
                        let kind = AttributeType(attribute.attr_type().as_bytes().to_vec());
                        Some((kind, exact_text(attribute.attr_value())?))
                    })
                    .collect(),
            }),
            _ => None,
        })
        .collect()
}

impl AlternativeName {
    /// The texts by which it may map to a consumer: of a directory name the values of those attributes that `matcher`
    /// lists, all of them where it lists none (`mtls-auth.md`, `san_dirname_matcher`).
    pub(crate) fn subject_names<'a>(&'a self, matcher: &'a [AttributeType]) -> Vec<&'a str> {
        match self {
            Self::Dns(text) | Self::Email(text) | Self::Uri(text) | Self::Ip(text) => vec![text],
            Self::Directory { attributes, .. } => attributes
                .iter()
                .filter(|(kind, _)| matcher.is_empty() || matcher.contains(kind))
                .map(|(_, text)| text.as_str())
                .collect(),
        }
    }
}

/// The CN, where the subject has exactly one: of several, each CA and each reader means another.
pub(crate) fn common_name(subject: &X509Name<'_>) -> Option<String> {
    let mut names = subject.iter_common_name();
    let only = names.next()?;
    if names.next().is_some() {
        return None;
    }
    exact_text(only.attr_value())
}

/// A list of names for a header: `DNS:api.example.com, URI:spiffe://example.com/api`. A comma or backslash within a
/// name has a backslash before it, so that one name cannot look like two.
pub(crate) fn list(names: &[AlternativeName]) -> String {
    let mut list = String::new();
    for name in names {
        let (kind, text) = match name {
            AlternativeName::Dns(text) => ("DNS", text),
            AlternativeName::Email(text) => ("email", text),
            AlternativeName::Uri(text) => ("URI", text),
            AlternativeName::Ip(text) => ("IP", text),
            AlternativeName::Directory { text, .. } => ("DirName", text),
        };
        if !list.is_empty() {
            list.push_str(", ");
        }
        list.push_str(kind);
        list.push(':');
        for character in text.chars() {
            if matches!(character, ',' | '\\') {
                list.push('\\');
            }
            list.push(character);
        }
    }
    list
}

/// The string form of RFC 4514, as nginx's `$ssl_client_s_dn` has it: last attribute first, in ASCII, anything else escaped.
pub(crate) fn distinguished_name(name: &X509Name<'_>) -> String {
    let mut text = String::new();
    let rdns: Vec<_> = name.iter_rdn().collect();
    for rdn in rdns.iter().rev() {
        if !text.is_empty() {
            text.push(',');
        }
        let attributes: Vec<_> = rdn.iter().collect();
        for (position, attribute) in attributes.iter().rev().enumerate() {
            if position > 0 {
                text.push('+');
            }
            push_attribute(&mut text, attribute.attr_type(), attribute.attr_value());
        }
    }
    text
}

/// RFC 4514, section 2.4: what has no keyword, or no string form, is the hexadecimal form of its BER.
fn push_attribute(text: &mut String, kind: &Oid<'_>, value: &Any<'_>) {
    let dotted = dotted(kind);
    let keyword = keyword(&dotted);
    text.push_str(keyword.unwrap_or(&dotted));
    text.push('=');
    match exact_text(value).filter(|_| keyword.is_some()) {
        Some(value) => push_escaped(text, &value),
        None => {
            text.push('#');
            for byte in value.to_der_vec().unwrap_or_default() {
                text.push_str(&format!("{byte:02X}"));
            }
        }
    }
}

fn push_escaped(text: &mut String, value: &str) {
    let last = value.chars().count().saturating_sub(1);
    for (position, character) in value.chars().enumerate() {
        match character {
            '"' | '+' | ',' | ';' | '<' | '>' | '\\' => text.extend(['\\', character]),
            '#' if position == 0 => text.push_str("\\#"),
            ' ' if position == 0 || position == last => text.push_str("\\ "),
            ' '..='~' => text.push(character),
            _ => {
                for byte in character.encode_utf8(&mut [0; 4]).bytes() {
                    text.push_str(&format!("\\{byte:02X}"));
                }
            }
        }
    }
}

/// The short name that OpenSSL has for a type of attributes: those of RFC 4514, section 3, and many more, such as
/// `organizationIdentifier`.
fn keyword(dotted: &str) -> Option<&'static str> {
    let object = openssl::asn1::Asn1Object::from_str(dotted).ok()?;
    match object.nid() {
        openssl::nid::Nid::UNDEF => None,
        known => known.short_name().ok(),
    }
}

/// An OID as numbers. What reads certificates for us takes the first octet for two of them, which it is not under 2.48 and
/// above.
fn dotted(kind: &Oid<'_>) -> String {
    let mut text = String::new();
    let mut number = 0_u128;
    for octet in kind.as_bytes() {
        if number.leading_zeros() < 7 {
            return kind.to_id_string();
        }
        number = number << 7 | u128::from(octet & 0x7f);
        if *octet < 0x80 {
            // Of the first two there is one number (X.690, section 8.19.4).
            let root = if text.is_empty() { Some((number / 40).min(2)) } else { None };
            match root {
                Some(root) => text = format!("{root}.{}", number - 40 * root),
                None => text.push_str(&format!(".{number}")),
            }
            number = 0;
        }
    }
    text
}

/// The text of a DirectoryString, where its type leaves no doubt.
fn exact_text(value: &Any<'_>) -> Option<String> {
    let text = match value.tag() {
        Tag::Utf8String => String::from_utf8(value.data.to_vec()).ok()?,
        Tag::PrintableString | Tag::Ia5String | Tag::NumericString if value.data.is_ascii() => {
            String::from_utf8(value.data.to_vec()).ok()?
        }
        // UCS-2 knows no surrogates: whoever writes a pair means something else by it.
        Tag::BmpString if value.data.len().is_multiple_of(2) => value
            .data
            .chunks_exact(2)
            .map(|unit| char::from_u32(u32::from(u16::from_be_bytes([unit[0], unit[1]]))))
            .collect::<Option<String>>()?,
        // T61String: every implementation reads it in another character set.
        _ => return None,
    };
    plain(text)
}

fn ia5(text: &str) -> Option<String> {
    text.is_ascii().then(|| text.to_owned()).and_then(plain)
}

fn plain(text: String) -> Option<String> {
    (!text.is_empty() && !text.chars().any(char::is_control)).then_some(text)
}

fn address(bytes: &[u8]) -> Option<String> {
    let address = match bytes.len() {
        4 => IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?),
        16 => IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?),
        _ => return None,
    };
    Some(address.to_string())
}

#[cfg(test)]
mod differential;
#[cfg(test)]
mod tests;
