//! This knows what a certificate says, trusted or not.

use sha2::{Digest, Sha256};
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::names::{self, AlternativeName, AttributeType};

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;

/// What a leaf certificate says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Certificate {
    /// RFC 4514.
    pub(crate) subject: String,
    /// RFC 4514.
    pub(crate) issuer: String,
    /// In hexadecimal.
    pub(crate) serial: String,
    /// SHA-256 over the DER, in hexadecimal.
    pub(crate) fingerprint: String,
    /// Whether its key may prove possession in a handshake: its key usage, where it has one, says so (RFC 5280, section
    /// 4.2.1.3).
    pub(crate) may_sign: bool,
    /// The CN, where there is exactly one and it has an exact text.
    pub(crate) common_name: Option<String>,
    /// The SANs; none where there is no such extension.
    alternative_names: Option<Vec<AlternativeName>>,
}

impl Certificate {
    /// Reads a certificate.
    ///
    /// # Errors
    /// None where it is not exactly one certificate in DER, or where its SAN extension cannot be read.
    pub(crate) fn from_der(der: &[u8]) -> Option<Self> {
        let (rest, parsed) = X509Certificate::from_der(der).ok()?;
        if !rest.is_empty() {
            return None;
        }
        Some(Self {
            subject: names::distinguished_name(parsed.subject()),
            issuer: names::distinguished_name(parsed.issuer()),
            serial: serial(parsed.raw_serial()),
            fingerprint: hex(&Sha256::digest(der)),
            may_sign: may_sign(&parsed),
            common_name: names::common_name(parsed.subject()),
            alternative_names: alternative_names(&parsed)?,
        })
    }

    /// The names that may map to a consumer: the SANs in order, the CN only where there is no SAN extension
    /// (`mtls-auth.md`, "Which consumer").
    pub(crate) fn subject_names<'a>(&'a self, matcher: &'a [AttributeType]) -> Vec<&'a str> {
        match &self.alternative_names {
            Some(names) => names.iter().flat_map(|name| name.subject_names(matcher)).collect(),
            None => self.common_name.as_deref().into_iter().collect(),
        }
    }

    /// The SANs for a header, where there are any.
    pub(crate) fn alternative_names_text(&self) -> Option<String> {
        self.alternative_names.as_deref().filter(|names| !names.is_empty()).map(names::list)
    }
}

/// What OpenSSL wants of the key of a TLS client; a key usage that cannot be read allows nothing.
fn may_sign(certificate: &X509Certificate<'_>) -> bool {
    match certificate.key_usage() {
        Ok(None) => true,
        Ok(Some(usage)) => usage.value.digital_signature() || usage.value.key_agreement(),
        Err(_) => false,
    }
}

/// The outer `None`: an extension that cannot be read, or that stands twice. It may hide names, so nothing goes on.
fn alternative_names(certificate: &X509Certificate<'_>) -> Option<Option<Vec<AlternativeName>>> {
    let mut found = None;
    for extension in certificate.extensions() {
        if extension.oid != x509_parser::oid_registry::OID_X509_EXT_SUBJECT_ALT_NAME {
            continue;
        }
        match extension.parsed_extension() {
            ParsedExtension::SubjectAlternativeName(names) if found.is_none() => {
                found = Some(names::alternative_names(names));
            }
            _ => return None,
        }
    }
    Some(found)
}

/// Without the byte that DER puts before a number whose first bit is set.
fn serial(bytes: &[u8]) -> String {
    hex(match bytes {
        [0, rest @ ..] if !rest.is_empty() => rest,
        all => all,
    })
}

/// In lower case.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_serial_number_has_no_byte_for_its_sign() {
        for (der, text) in [(&[0, 0x80][..], "80"), (&[0], "00"), (&[0x7f, 0], "7f00")] {
            assert_eq!(serial(der), text);
        }
    }
}
