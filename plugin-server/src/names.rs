//! This knows names in certificates: what they say exactly, or that they say nothing that may be compared.
//!
//! A name is authorization. One that cannot be put into text exactly (a NUL or other control character, a character
//! set without a sure meaning) matches nothing: to cut or guess is how one name becomes another
//! (`attacks-and-faults.md`, "names in certificates").

use std::net::IpAddr;

use x509_parser::asn1_rs::{Any, Oid, Tag, ToDer, oid};
use x509_parser::extensions::{GeneralName, SubjectAlternativeName};
use x509_parser::x509::X509Name;

/// A name by which the subject of a certificate may be known (RFC 5280, section 4.2.1.6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SubjectName {
    pub(crate) kind: NameKind,
    pub(crate) text: String,
}

/// The form of a subject name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NameKind {
    CommonName,
    Dns,
    Email,
    Uri,
    Ip,
}

impl NameKind {
    /// As OpenSSL writes them.
    fn prefix(self) -> &'static str {
        match self {
            Self::CommonName => "CN",
            Self::Dns => "DNS",
            Self::Email => "email",
            Self::Uri => "URI",
            Self::Ip => "IP",
        }
    }
}

/// The names of a SAN extension, in its order, without those that have no exact text.
pub(crate) fn alternative_names(extension: &SubjectAlternativeName<'_>) -> Vec<SubjectName> {
    let name = |kind, text: Option<String>| text.map(|text| SubjectName { kind, text });
    extension
        .general_names
        .iter()
        .filter_map(|general_name| match general_name {
            GeneralName::DNSName(text) => name(NameKind::Dns, ia5(text)),
            GeneralName::RFC822Name(text) => name(NameKind::Email, ia5(text)),
            GeneralName::URI(text) => name(NameKind::Uri, ia5(text)),
            GeneralName::IPAddress(bytes) => name(NameKind::Ip, address(bytes)),
            _ => None,
        })
        .collect()
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
pub(crate) fn list(names: &[SubjectName]) -> String {
    let mut list = String::new();
    for name in names {
        if !list.is_empty() {
            list.push_str(", ");
        }
        list.push_str(name.kind.prefix());
        list.push(':');
        for character in name.text.chars() {
            if matches!(character, ',' | '\\') {
                list.push('\\');
            }
            list.push(character);
        }
    }
    list
}

/// The string form of RFC 4514, as nginx's `$ssl_client_s_dn` has it: last RDN first, in ASCII, anything else escaped.
pub(crate) fn distinguished_name(name: &X509Name<'_>) -> String {
    let mut text = String::new();
    let rdns: Vec<_> = name.iter_rdn().collect();
    for rdn in rdns.iter().rev() {
        if !text.is_empty() {
            text.push(',');
        }
        for (position, attribute) in rdn.iter().enumerate() {
            if position > 0 {
                text.push('+');
            }
            push_attribute(&mut text, attribute.attr_type(), attribute.attr_value());
        }
    }
    text
}

fn push_attribute(text: &mut String, kind: &Oid<'_>, value: &Any<'_>) {
    match keyword(kind) {
        Some(keyword) => text.push_str(keyword),
        None => text.push_str(&kind.to_id_string()),
    }
    text.push('=');
    match exact_text(value) {
        Some(value) => push_escaped(text, &value),
        // RFC 4514, section 2.4: what has no string form is the hexadecimal form of its BER.
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

/// The keywords of RFC 4514, section 3, and two that OpenSSL also writes by name.
fn keyword(kind: &Oid<'_>) -> Option<&'static str> {
    let known = [
        (oid!(2.5.4.3), "CN"),
        (oid!(2.5.4.6), "C"),
        (oid!(2.5.4.7), "L"),
        (oid!(2.5.4.8), "ST"),
        (oid!(2.5.4.9), "street"),
        (oid!(2.5.4.10), "O"),
        (oid!(2.5.4.11), "OU"),
        (oid!(0.9.2342.19200300.100.1.25), "DC"),
        (oid!(0.9.2342.19200300.100.1.1), "UID"),
        (oid!(2.5.4.5), "serialNumber"),
        (oid!(1.2.840.113549.1.9.1), "emailAddress"),
    ];
    known.into_iter().find_map(|(oid, keyword)| (oid == *kind).then_some(keyword))
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
mod tests;
