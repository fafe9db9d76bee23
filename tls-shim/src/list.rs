//! This knows header fields that are lists (RFC 9110, section 5.6.1). It is pure.

use http::{HeaderMap, HeaderName};

/// The members of a field, however many lines it has.
pub(crate) fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a [u8]> {
    headers
        .get_all(name)
        .into_iter()
        .flat_map(|value| value.as_bytes().split(|&byte| byte == b','))
        .map(<[u8]>::trim_ascii)
}

/// Whether `wanted`, in any case, is among the members of a field.
pub(crate) fn lists(headers: &HeaderMap, name: &HeaderName, wanted: &str) -> bool {
    tokens(headers, name).any(|token| token.eq_ignore_ascii_case(wanted.as_bytes()))
}

/// Whether `wanted`, in any case, is all that a field has.
pub(crate) fn is_one(headers: &HeaderMap, name: &HeaderName, wanted: &str) -> bool {
    lists(headers, name, wanted) && tokens(headers, name).count() == 1
}
