//! This knows distinguished names (RFC 5280, section 4.1.2.4): their bytes, and how people read them.

use std::fmt;
use std::sync::Arc;

use openssl::error::ErrorStack;
use openssl::x509::{X509Name, X509NameEntryRef, X509NameRef};

/// A distinguished name in the bytes of its certificate. Two that only mean the same are not equal: clients that compare
/// bytes find one of them and not the other.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct DistinguishedName(Arc<[u8]>);

impl DistinguishedName {
    /// # Errors
    /// OpenSSL has no memory.
    pub(crate) fn new(name: &X509NameRef) -> Result<Self, ErrorStack> {
        Ok(Self(name.to_der()?.into()))
    }

    /// How many bytes it has in DER.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The name as OpenSSL takes it.
    ///
    /// # Errors
    /// OpenSSL has no memory.
    pub(crate) fn to_openssl(&self) -> Result<X509Name, ErrorStack> {
        X509Name::from_der(&self.0)
    }
}

/// The string form of RFC 4514, with what cannot be printed as `\XX`. An RDN of several attributes shows as several RDNs:
/// that is for the eye only.
impl fmt::Display for DistinguishedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ok(name) = self.to_openssl() else { return write!(f, "(no name)") };
        let mut entries: Vec<String> = name.entries().map(attribute).collect();
        // RFC 4514, section 2.1: the last comes first.
        entries.reverse();
        f.write_str(&entries.join(","))
    }
}

fn attribute(entry: &X509NameEntryRef) -> String {
    let kind = match entry.object().nid().short_name() {
        Ok(short) if short != "UNDEF" => short.to_owned(),
        _ => entry.object().to_string(),
    };
    let value = match entry.data().to_string() {
        Ok(text) => escaped(&text),
        Err(_) => {
            entry.data().as_slice().iter().fold("#".to_owned(), |text, byte| format!("{text}{byte:02X}"))
        }
    };
    format!("{kind}={value}")
}

/// RFC 4514, section 2.4.
fn escaped(value: &str) -> String {
    let last = value.chars().count().saturating_sub(1);
    let mut text = String::new();
    for (position, character) in value.chars().enumerate() {
        let at_the_edge = position == 0 || position == last;
        match character {
            '"' | '+' | ',' | ';' | '<' | '>' | '\\' => text.extend(['\\', character]),
            '#' if position == 0 => text.push_str("\\#"),
            ' ' if at_the_edge => text.push_str("\\ "),
            character if character.is_control() => {
                let mut bytes = [0; 4];
                text.extend(character.encode_utf8(&mut bytes).bytes().map(|byte| format!("\\{byte:02X}")));
            }
            character => text.push(character),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(attributes: &[(&str, &str)]) -> String {
        let mut builder = X509Name::builder().unwrap();
        for (kind, value) in attributes {
            builder.append_entry_by_text(kind, value).unwrap();
        }
        DistinguishedName::new(&builder.build()).unwrap().to_string()
    }

    #[test]
    fn a_name_is_written_as_people_know_it() {
        assert_eq!(
            text(&[("C", "DE"), ("O", "Example, Inc."), ("CN", "Clients G1")]),
            "CN=Clients G1,O=Example\\, Inc.,C=DE"
        );
        assert_eq!(text(&[("CN", "Käse")]), "CN=Käse");
        assert_eq!(text(&[("CN", "#1")]), "CN=\\#1");
        assert_eq!(text(&[("CN", " a ")]), "CN=\\ a\\ ");
        assert_eq!(text(&[("CN", "a\nb\u{85}")]), "CN=a\\0Ab\\C2\\85");
        assert_eq!(text(&[("1.2.3.4", "a")]), "1.2.3.4=a");
        assert_eq!(text(&[]), "");
    }
}
