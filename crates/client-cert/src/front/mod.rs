//! This knows how TLS fronts other than our shim write the client certificate into a header, and reads it.
//!
//! Kong has two names for such headers (`mtls-auth.md`, `certificate_header_format`), and they are enough for the fronts
//! below: how a value begins tells which one of a format's forms it is, so none has two readings.
//!
//! | `certificate_header_format` | begins with | form | written by |
//! |---|---|---|---|
//! | `url_encoded` | `-` or `%` | PEM, percent-encoded or with spaces for line ends, leaf first | nginx `$ssl_client_escaped_cert`, AWS ALB, Apache httpd |
//! | | letters and `=` | `X-Forwarded-Client-Cert`, see [`XfccError`] | Envoy |
//! | `base64_encoded` | `:` | `Client-Cert` of RFC 9440 | whoever follows it |
//! | | anything else | base64 of DER, a comma between certificates, leaf first | HAProxy, Traefik |
//!
//! What such a front sends of a client without a certificate is an absent header or one of few values, which
//! [`decode`] names. Everything else that is not read completely is an error: "presented but bad" is not "none".
//!
//! Nothing in such a header shows who wrote it. It is worth as much as the front's care to replace a client's own
//! header, and as `secure_source`, which looks at where the connection comes from.

mod bodies;
mod der;
mod pem;
mod percent;
mod xfcc;

use serde::Deserialize;

use crate::{MAX_CERTIFICATES, MAX_HEADER_BYTES, MalformedHeader, Presented};

pub use xfcc::XfccError;

/// How a front writes the certificate: Kong's `certificate_header_format`, by its names (`mtls-auth.md`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// Base64 of DER, which is PEM without its markers and line ends; or RFC 9440.
    Base64Encoded,
    /// Percent-encoded PEM, with its markers; also where it is a field of `X-Forwarded-Client-Cert`.
    UrlEncoded,
}

/// Why a front's header does not give a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrontError {
    /// No front writes two: one of them is the client's.
    #[error("the header stands more than once")]
    Repeated,
    /// Over [`MAX_HEADER_BYTES`].
    #[error("more than {MAX_HEADER_BYTES} bytes")]
    TooLarge,
    /// Over [`MAX_CERTIFICATES`].
    #[error("more than {MAX_CERTIFICATES} certificates")]
    TooMany,
    /// A `%` without two hexadecimal digits after it.
    #[error("a % that no two hexadecimal digits follow")]
    Percent,
    /// Not base64 in its one canonical form (RFC 4648, section 4), or white space in a list of it.
    #[error("not base64")]
    Base64,
    /// No value of [`Format::UrlEncoded`] begins like this.
    #[error("neither PEM nor X-Forwarded-Client-Cert")]
    NotUrlEncoded,
    /// Something else than certificates in PEM, or than white space between them.
    #[error("not certificates in PEM")]
    Pem,
    /// A key, a request or the like. Only the label `CERTIFICATE` of RFC 7468, section 5.1, is taken.
    #[error("a PEM block that is not a CERTIFICATE")]
    OtherPem,
    /// Not exactly one certificate in DER (RFC 5280, section 4.1) where there should be one.
    #[error("not a certificate in DER")]
    NotACertificate,
    /// See [`MalformedHeader`].
    #[error(transparent)]
    Rfc9440(#[from] MalformedHeader),
    /// See [`XfccError`].
    #[error(transparent)]
    Xfcc(#[from] XfccError),
}

/// Reads the values of the header that a front sets; none where it says that the client presented no certificate.
///
/// That is an absent header (nginx, AWS ALB, Envoy, Traefik), an empty value (HAProxy, Apache httpd), `(null)` in place of
/// PEM (Apache httpd, `%{SSL_CLIENT_CERT}s`), and a lone comma in place of base64 (HAProxy,
/// `%[ssl_c_der,base64],%[ssl_c_chain_der,base64]`).
///
/// # Errors
/// See [`FrontError`]. The size is looked at before anything is decoded.
pub fn decode<V: AsRef<[u8]>>(format: Format, values: &[V]) -> Result<Option<Presented>, FrontError> {
    let value = match values {
        [] => return Ok(None),
        [value] => value.as_ref(),
        _ => return Err(FrontError::Repeated),
    };
    if value.len() > MAX_HEADER_BYTES {
        return Err(FrontError::TooLarge);
    }
    match (format, value) {
        (_, b"") | (Format::Base64Encoded, b",") | (Format::UrlEncoded, b"(null)") => Ok(None),
        (Format::Base64Encoded, [b':', ..]) => rfc9440(value).map(Some),
        (Format::Base64Encoded, _) => bodies::decode(value).map(Some),
        (Format::UrlEncoded, [b'-' | b'%', ..]) => percent_encoded_pem(value).map(Some),
        (Format::UrlEncoded, _) if xfcc::begins(value) => xfcc::decode(value).map(Some),
        (Format::UrlEncoded, _) => Err(FrontError::NotUrlEncoded),
    }
}

/// Reads certificates in PEM without any encoding, leaf first, as Kong itself gives them.
///
/// # Errors
/// See [`FrontError`].
pub fn from_pem(text: &[u8]) -> Result<Presented, FrontError> {
    if text.len() > MAX_HEADER_BYTES {
        return Err(FrontError::TooLarge);
    }
    let mut certificates = pem::certificates(text)?.into_iter();
    let leaf = certificates.next().ok_or(FrontError::Pem)?;
    Ok(Presented { leaf, chain: certificates.collect() })
}

/// `Client-Cert` alone: it has one certificate, and the chain would be in another header.
fn rfc9440(value: &[u8]) -> Result<Presented, FrontError> {
    let presented = Presented::from_headers(value, None)?;
    der::expect_one(&presented.leaf)?;
    Ok(presented)
}

/// TLS sends the leaf first (RFC 8446, section 4.4.2), and so do fronts that hand on the chain.
fn percent_encoded_pem(value: &[u8]) -> Result<Presented, FrontError> {
    from_pem(&percent::decode(value)?)
}
