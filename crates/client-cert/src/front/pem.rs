//! This knows certificates in PEM (RFC 7468), without the liberties that readers of files take.

use super::{FrontError, bodies, der};
use crate::MAX_CERTIFICATES;

const BEGIN: &[u8] = b"-----BEGIN CERTIFICATE-----";
const END: &[u8] = b"-----END CERTIFICATE-----";

/// Reads one or more certificates. White space of any amount may be where RFC 7468, section 3, has line ends ("lax"), for
/// Apache httpd makes spaces of them; nothing else may be between the blocks or around them, and no headers in them.
///
/// # Errors
/// See [`FrontError`].
pub(super) fn certificates(text: &[u8]) -> Result<Vec<Vec<u8>>, FrontError> {
    let mut certificates = Vec::new();
    let mut rest = text.trim_ascii_start();
    while !rest.is_empty() {
        if certificates.len() == MAX_CERTIFICATES {
            return Err(FrontError::TooMany);
        }
        let body = match rest.strip_prefix(BEGIN) {
            Some(body) => body,
            None if rest.starts_with(b"-----BEGIN ") => return Err(FrontError::OtherPem),
            None => return Err(FrontError::Pem),
        };
        let end = body.windows(END.len()).position(|window| window == END).ok_or(FrontError::Pem)?;
        let base64: Vec<u8> =
            body[..end].iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
        let der = bodies::base64(&base64)?;
        der::expect_one(&der)?;
        certificates.push(der);
        rest = body[end + END.len()..].trim_ascii_start();
    }
    Ok(certificates)
}
