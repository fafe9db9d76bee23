//! This knows header names: those of the hand-off, those that tell an upstream who the caller is, and when two
//! spellings are the same name.
//!
//! Kong's nginx runs with `underscores_in_headers on`, and CGI-like upstreams fold `-` and `_` into one, so
//! `X_Consumer_ID` can be taken for `X-Consumer-ID` by whoever reads it last. Here both are one name.

/// RFC 9440: the leaf certificate.
pub const CLIENT_CERT: &str = "client-cert";
/// RFC 9440: the rest of the chain as the client sent it, without the leaf.
pub const CLIENT_CERT_CHAIN: &str = "client-cert-chain";
/// Shows that our shim wrote the two above; see [`crate::Proof`].
pub const CLIENT_CERT_PROOF: &str = "client-cert-proof";

/// The headers from the shim to the plugin server. No client may send them, no upstream gets them.
pub const HANDOFF: [&str; 3] = [CLIENT_CERT, CLIENT_CERT_CHAIN, CLIENT_CERT_PROOF];

/// The headers by which the plugin tells the upstream who the caller is (`mtls-auth.md`, "Headers to the upstream").
pub const IDENTITY: [&str; 7] = [
    "x-consumer-id",
    "x-consumer-username",
    "x-consumer-custom-id",
    "x-credential-identifier",
    "x-anonymous-consumer",
    "x-client-cert-dn",
    "x-client-cert-san",
];

/// Further headers by which Kong's plugins, bundled ones included, tell the upstream who the caller is. The shim lets
/// a client set none of them, not even on routes where no plugin would.
pub const OTHER_IDENTITY: [&str; 10] = [
    "x-consumer-groups",
    "x-credential-username",
    "x-authenticated-groups",
    "x-authenticated-scope",
    "x-authenticated-userid",
    "x-client-cert",
    "x-client-cert-serial",
    "x-client-cert-issuer-dn",
    "x-client-cert-subject-dn",
    "x-client-cert-fingerprint",
];

/// Whether `name`, in any case and with `_` or `-`, spells `field`, which is lower-case with hyphens.
pub fn spells(name: &[u8], field: &str) -> bool {
    name.len() == field.len()
        && name.iter().zip(field.as_bytes()).all(|(&byte, &wanted)| match byte {
            b'_' => wanted == b'-',
            _ => byte.to_ascii_lowercase() == wanted,
        })
}

/// Whether `name` spells any of `fields`.
pub fn spells_any(name: &[u8], fields: &[impl AsRef<str>]) -> bool {
    fields.iter().any(|field| spells(name, field.as_ref()))
}

/// The one form of all spellings of a name: what [`spells`] compares with.
pub fn folded(name: &str) -> String {
    name.to_ascii_lowercase().replace('_', "-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_is_the_same_name() {
        for name in ["client-cert", "Client-Cert", "CLIENT_CERT", "client_Cert"] {
            assert!(spells(name.as_bytes(), CLIENT_CERT), "{name}");
        }
        assert!(spells(b"x-consumer_custom-ID", "x-consumer-custom-id"));
        for name in ["client-certs", "client-cer", "client.cert", "clientcert", "client-cert ", ""] {
            assert!(!spells(name.as_bytes(), CLIENT_CERT), "{name}");
        }
    }

    #[test]
    fn the_lists_are_in_the_form_that_spells_expects() {
        for field in HANDOFF.iter().chain(&IDENTITY).chain(&OTHER_IDENTITY) {
            assert!(spells(field.as_bytes(), field), "{field} is not lower-case with hyphens");
            assert_eq!(folded(&field.to_uppercase().replace('-', "_")), *field);
        }
    }
}
