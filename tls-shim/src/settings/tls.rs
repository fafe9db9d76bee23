//! This knows what the settings say of TLS with clients: versions, ciphers and groups.
//!
//! OpenSSL's lists are a language of their own, in which a word may stand for many ciphers (`ALL`), bring in anonymous ones
//! (`aNULL`) or lower what keys have to be (`@SECLEVEL=0`). Here a list is plain names, each of which is known to be good and
//! known to the OpenSSL that is there.

use openssl::error::ErrorStack;
use openssl::ssl::{SslContext, SslContextBuilder, SslMethod, SslVersion};
use serde::Deserialize;

use crate::tls::{library, set_ciphersuites};

/// The groups for key exchange, unless set: those of Mozilla's intermediate configuration, of which OpenSSL 3.5 and newer
/// know the first.
const GROUPS: [&str; 2] = ["X25519MLKEM768:X25519:P-256:P-384", "X25519:P-256:P-384"];

/// Whose key exchange is by a secret of that connection alone, and whose server shows a certificate: the first parts of
/// their names.
const EXCHANGES: [&str; 3] = ["ECDHE-ECDSA-", "ECDHE-RSA-", "DHE-RSA-"];

/// What may follow: neither NULL, RC4, DES nor what is left of other countries' ciphers.
const CIPHERS: [&str; 3] = ["AES128-", "AES256-", "CHACHA20-"];

/// Those of TLS 1.3 but for the one whose tag is short, and for those that do not encrypt (RFC 9150).
const SUITES: [&str; 4] = [
    "TLS_AES_128_GCM_SHA256",
    "TLS_AES_256_GCM_SHA384",
    "TLS_CHACHA20_POLY1305_SHA256",
    "TLS_AES_128_CCM_SHA256",
];

/// Elliptic curves of 128 bits of security and more, alone or with ML-KEM beside them.
const KNOWN_GROUPS: [&str; 8] = [
    "X25519MLKEM768",
    "SecP256r1MLKEM768",
    "SecP384r1MLKEM1024",
    "X25519",
    "X448",
    "P-256",
    "P-384",
    "P-521",
];

/// What clients may choose from. Without any settings it is Mozilla's intermediate configuration.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Written")]
pub(crate) struct TlsSettings {
    min_version: Version,
    max_version: Version,
    /// Of TLS 1.2, as OpenSSL reads lists.
    ciphers: Option<List>,
    /// Of TLS 1.3.
    cipher_suites: Option<List>,
    groups: Option<List>,
}

/// As it stands in the file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    min_version: Option<Version>,
    max_version: Option<Version>,
    ciphers: Option<Ciphers>,
    cipher_suites: Option<Suites>,
    groups: Option<Groups>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
enum Version {
    #[serde(rename = "1.2")]
    Tls1_2,
    #[serde(rename = "1.3")]
    Tls1_3,
}

/// Names, the best first, with colons between them.
type List = String;

#[derive(Deserialize)]
#[serde(try_from = "Vec<String>")]
struct Ciphers(List);

#[derive(Deserialize)]
#[serde(try_from = "Vec<String>")]
struct Suites(List);

#[derive(Deserialize)]
#[serde(try_from = "Vec<String>")]
struct Groups(List);

impl Default for TlsSettings {
    fn default() -> Self {
        Self {
            min_version: Version::Tls1_2,
            max_version: Version::Tls1_3,
            ciphers: None,
            cipher_suites: None,
            groups: None,
        }
    }
}

impl TlsSettings {
    /// Has handshakes of a context go by it, which begins with Mozilla's intermediate configuration.
    ///
    /// # Errors
    /// OpenSSL takes a part alone and not the whole, which is not known to happen.
    pub(crate) fn apply(&self, builder: &mut SslContextBuilder) -> Result<(), ErrorStack> {
        builder.set_min_proto_version(Some(self.min_version.into()))?;
        builder.set_max_proto_version(Some(self.max_version.into()))?;
        if let Some(ciphers) = &self.ciphers {
            builder.set_cipher_list(ciphers)?;
        }
        if let Some(suites) = &self.cipher_suites {
            set_ciphersuites(builder, suites)?;
        }
        match &self.groups {
            Some(groups) => builder.set_groups_list(groups),
            None => builder.set_groups_list(GROUPS[0]).or_else(|_| builder.set_groups_list(GROUPS[1])),
        }
    }

    /// A text that is another one for other settings.
    pub(crate) fn fingerprint(&self) -> String {
        let Self { min_version, max_version, ciphers, cipher_suites, groups } = self;
        // No name has a quotation mark.
        format!("{min_version:?} {max_version:?} {ciphers:?} {cipher_suites:?} {groups:?}")
    }
}

impl From<Version> for SslVersion {
    fn from(version: Version) -> Self {
        match version {
            Version::Tls1_2 => Self::TLS1_2,
            Version::Tls1_3 => Self::TLS1_3,
        }
    }
}

impl TryFrom<Written> for TlsSettings {
    type Error = &'static str;

    fn try_from(written: Written) -> Result<Self, Self::Error> {
        let unset = Self::default();
        let settings = Self {
            min_version: written.min_version.unwrap_or(unset.min_version),
            max_version: written.max_version.unwrap_or(unset.max_version),
            ciphers: written.ciphers.map(|Ciphers(list)| list),
            cipher_suites: written.cipher_suites.map(|Suites(list)| list),
            groups: written.groups.map(|Groups(list)| list),
        };
        if settings.min_version > settings.max_version {
            return Err("min_version is above max_version");
        }
        let is_of_1_2 = |group: &str| !group.contains("MLKEM");
        let has_1_2 = settings.groups.as_ref().is_none_or(|groups| groups.split(':').any(is_of_1_2));
        if settings.min_version == Version::Tls1_2 && !has_1_2 {
            return Err("groups: TLS 1.2 has none with ML-KEM; it needs another, or a min_version of 1.3");
        }
        Ok(settings)
    }
}

impl TryFrom<Vec<String>> for Ciphers {
    type Error = String;

    fn try_from(names: Vec<String>) -> Result<Self, String> {
        let is_good = |name: &str| {
            let after = EXCHANGES.iter().find_map(|exchange| name.strip_prefix(exchange));
            after.is_some_and(|after| CIPHERS.iter().any(|cipher| after.starts_with(cipher)))
                // Its tags are short.
                && !name.ends_with("-CCM8")
        };
        let taken = |builder: &mut SslContextBuilder, name: &str| builder.set_cipher_list(name);
        let kind = "a cipher of TLS 1.2 with forward secrecy, a certificate and AES or ChaCha20";
        list(&names, kind, is_good, taken).map(Self)
    }
}

impl TryFrom<Vec<String>> for Suites {
    type Error = String;

    fn try_from(names: Vec<String>) -> Result<Self, String> {
        let kind = format!("one of {}", SUITES.join(", "));
        list(&names, &kind, |name| SUITES.contains(&name), set_ciphersuites).map(Self)
    }
}

impl TryFrom<Vec<String>> for Groups {
    type Error = String;

    fn try_from(names: Vec<String>) -> Result<Self, String> {
        let taken = |builder: &mut SslContextBuilder, name: &str| builder.set_groups_list(name);
        let kind = format!("one of {}", KNOWN_GROUPS.join(", "));
        list(&names, &kind, |name| KNOWN_GROUPS.contains(&name), taken).map(Self)
    }
}

/// The names as one list, each of which is good and `taken` by OpenSSL alone: of several it would leave out in silence
/// what it does not know.
fn list(
    names: &[String],
    kind: &str,
    is_good: impl Fn(&str) -> bool,
    taken: impl Fn(&mut SslContextBuilder, &str) -> Result<(), ErrorStack>,
) -> Result<List, String> {
    if names.is_empty() {
        return Err(format!("expected at least {kind}"));
    }
    for (at, name) in names.iter().enumerate() {
        // What means something in OpenSSL's lists is in no name.
        let is_plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
        if !is_plain || !is_good(name) {
            return Err(format!("{name:?} is not {kind}"));
        }
        if names[..at].contains(name) {
            return Err(format!("{name:?} is there twice"));
        }
        let mut builder = SslContext::builder(SslMethod::tls_server()).map_err(|error| error.to_string())?;
        if taken(&mut builder, name).is_err() {
            return Err(format!("{} does not know {name:?}", library()));
        }
    }
    Ok(names.join(":"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<TlsSettings, String> {
        serde_saphyr::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_not_set_is_mozillas_intermediate_configuration() {
        let unset = parse("{}").unwrap();
        assert_eq!(unset, TlsSettings::default());
        let set = parse(
            "{min_version: '1.3', max_version: 1.3, ciphers: [ECDHE-RSA-AES256-GCM-SHA384, ECDHE-ECDSA-AES128-SHA],
              cipher_suites: [TLS_AES_256_GCM_SHA384], groups: [P-256, X25519]}",
        )
        .unwrap();
        assert_eq!((set.min_version, set.max_version), (Version::Tls1_3, Version::Tls1_3));
        assert_eq!(set.ciphers.as_deref(), Some("ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-AES128-SHA"));
        assert_eq!(set.cipher_suites.as_deref(), Some("TLS_AES_256_GCM_SHA384"));
        assert_eq!(set.groups.as_deref(), Some("P-256:X25519"));
        assert_ne!(set.fingerprint(), unset.fingerprint());
    }

    #[test]
    fn no_cipher_passes_that_could_be_read_or_forged() {
        for name in [
            // Without a server's certificate, without encryption, without forward secrecy.
            "ADH-AES128-GCM-SHA256",
            "AECDH-AES128-SHA",
            "ECDHE-PSK-AES128-CBC-SHA256",
            "ECDHE-RSA-NULL-SHA",
            "ECDHE-ECDSA-NULL-SHA",
            "AES128-GCM-SHA256",
            "DHE-PSK-AES128-GCM-SHA256",
            "NULL-MD5",
            // Weak ones.
            "ECDHE-RSA-RC4-SHA",
            "ECDHE-RSA-DES-CBC3-SHA",
            "EXP-DES-CBC-SHA",
            "ECDHE-ECDSA-AES128-CCM8",
            "DHE-DSS-AES128-GCM-SHA256",
            // OpenSSL's own language.
            "ALL",
            "HIGH",
            "aNULL",
            "eNULL",
            "@SECLEVEL=0",
            "DEFAULT@SECLEVEL=0",
            "ECDHE-RSA-AES128-GCM-SHA256:aNULL",
            "ECDHE-RSA-AES128-GCM-SHA256+aNULL",
            "ECDHE-RSA-AES128-GCM-SHA256,ADH-AES128-GCM-SHA256",
            "!ECDHE-RSA-AES128-GCM-SHA256",
            "ECDHE-RSA-AES128-GCM-SHA256 ",
            "",
            // What only looks like one.
            "ECDHE-RSA-AES128-",
            "ECDHE-RSA-AES128-GCM-SHA257",
            "ecdhe-rsa-aes128-gcm-sha256",
        ] {
            let list = format!("ciphers: [ECDHE-RSA-AES256-GCM-SHA384, {name:?}]");
            let error = parse(&list).unwrap_err();
            assert!(error.contains(&format!("{name:?}")), "{name}: {error}");
        }
        // TLS_SHA256_SHA256 does not encrypt.
        for name in ["TLS_SHA256_SHA256", "TLS_AES_128_CCM_8_SHA256", "ECDHE-RSA-AES128-GCM-SHA256", ""] {
            let error = parse(&format!("cipher_suites: [{name:?}]")).unwrap_err();
            assert!(error.contains("is not one of TLS_AES_128_GCM_SHA256"), "{name}: {error}");
        }
    }

    #[test]
    fn what_openssl_would_not_take_is_refused() {
        for (text, says) in [
            ("min_version: '1.1'", "1.1"),
            ("max_version: TLSv1.3", "TLSv1.3"),
            ("{min_version: '1.3', max_version: '1.2'}", "min_version is above max_version"),
            ("ciphers: []", "at least a cipher"),
            ("cipher_suites: []", "at least one of"),
            ("groups: []", "at least one of"),
            ("ciphers: ECDHE-RSA-AES128-GCM-SHA256", "sequence"),
            ("groups: [P-256, P-256]", "\"P-256\" is there twice"),
            ("groups: [secp160r1]", "\"secp160r1\" is not one of"),
            ("groups: ['X25519:P-256']", "is not one of"),
            ("groups: ['?X25519']", "is not one of"),
            ("groups: [MLKEM768]", "is not one of"),
            ("curves: [X25519]", "curves"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
    }

    #[test]
    fn a_group_counts_where_openssl_knows_it() {
        // OpenSSL 3.5 was the first with ML-KEM. AWS-LC has it, and says that it is an OpenSSL 1.1.1.
        let is_known = cfg!(feature = "aws-lc") || openssl::version::number() >= 0x3050_0000;
        for (list, is_taken, says) in [
            ("groups: [X25519MLKEM768, X25519]", is_known, "does not know \"X25519MLKEM768\""),
            ("{min_version: '1.3', groups: [X25519MLKEM768]}", is_known, "does not know"),
            ("groups: [X25519MLKEM768]", false, if is_known { "TLS 1.2" } else { "does not know" }),
        ] {
            match parse(list) {
                Ok(_) => assert!(is_taken, "{list}"),
                Err(error) => assert!(!is_taken && error.contains(says), "{list}: {error}"),
            }
        }
    }
}
