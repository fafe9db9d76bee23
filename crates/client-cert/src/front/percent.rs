//! This knows percent-encoding (RFC 3986, section 2.1).

use std::borrow::Cow;

use super::FrontError;

/// Decodes once. Every other byte stands for itself, a `+` too: AWS ALB leaves those of base64 as they are, and to make
/// spaces of them, as HTML forms do, would break every certificate that has one.
///
/// # Errors
/// [`FrontError::Percent`].
pub(super) fn decode(text: &[u8]) -> Result<Cow<'_, [u8]>, FrontError> {
    if !text.contains(&b'%') {
        return Ok(Cow::Borrowed(text));
    }
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    loop {
        rest = match rest {
            [] => return Ok(Cow::Owned(decoded)),
            [b'%', high, low, after @ ..] => {
                decoded.push(byte(*high, *low).ok_or(FrontError::Percent)?);
                after
            }
            [b'%', ..] => return Err(FrontError::Percent),
            [plain, after @ ..] => {
                decoded.push(*plain);
                after
            }
        };
    }
}

/// The byte that two hexadecimal digits in any case stand for.
pub(super) fn byte(high: u8, low: u8) -> Option<u8> {
    let digit = |digit: u8| char::from(digit).to_digit(16);
    u8::try_from(digit(high)? * 16 + digit(low)?).ok()
}
