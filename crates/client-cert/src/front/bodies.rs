//! This knows certificates as base64 of DER without any markers, with commas between them.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::{FrontError, der, percent};
use crate::{MAX_CERTIFICATES, Presented};

/// Reads what HAProxy and Traefik write.
///
/// - HAProxy's `%[ssl_c_der,base64]` is the leaf. Its `ssl_c_chain_der` has the other certificates in one piece and, by
///   OpenSSL's rule for servers, not the leaf: it can only follow after a comma, and is empty where the client sent none.
///   So the first item must be one certificate exactly; several would be a chain whose leaf is missing.
/// - Traefik puts a comma between all certificates, without a space, and before 2.9.5 percent-encoded the whole.
///
/// A space is refused although commas in headers often have one: it is what proxies put between two headers of the same
/// name when they merge them, and one of those would be the client's.
///
/// # Errors
/// See [`FrontError`].
pub(super) fn decode(value: &[u8]) -> Result<Presented, FrontError> {
    let list = percent::decode(value)?;
    if list.iter().filter(|&&byte| byte == b',').count() >= MAX_CERTIFICATES {
        return Err(FrontError::TooMany);
    }
    let (leaf, others) = match list.iter().position(|&byte| byte == b',') {
        None => (&*list, None),
        // HAProxy with an empty `ssl_c_chain_der`.
        Some(comma) if comma + 1 == list.len() => (&list[..comma], None),
        Some(comma) => (&list[..comma], Some(&list[comma + 1..])),
    };
    let leaf = base64(leaf)?;
    der::expect_one(&leaf)?;
    let mut chain = Vec::new();
    for item in others.into_iter().flat_map(|others| others.split(|&byte| byte == b',')) {
        der::append_all(&base64(item)?, &mut chain)?;
    }
    Ok(Presented { leaf, chain })
}

/// # Errors
/// [`FrontError::Base64`] for what is not base64 with its padding and nothing else, in the one form that an encoder gives.
pub(super) fn base64(text: &[u8]) -> Result<Vec<u8>, FrontError> {
    BASE64.decode(text).map_err(|_| FrontError::Base64)
}
