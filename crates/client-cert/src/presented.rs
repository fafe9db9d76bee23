//! This knows the certificates that a client presented, and their form in RFC 9440 headers.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

/// The most certificates that a hand-off may carry, the leaf included.
pub const MAX_CERTIFICATES: usize = 10;

/// The most bytes that the values of `Client-Cert` and `Client-Cert-Chain` may have together.
pub const MAX_HEADER_BYTES: usize = 64 * 1024;

/// What a TLS client presented: DER certificates, in the order in which it sent them.
///
/// Nothing is known of them here but that they are bytes: possession of the leaf's key is shown by [`crate::Proof`],
/// trust is decided by the verifier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Presented {
    /// The certificate whose key the client proved to have (RFC 8446, section 4.4.3).
    pub leaf: Vec<u8>,
    /// What the client sent besides: no order and no relation to the leaf is promised.
    pub chain: Vec<Vec<u8>>,
}

/// Why header values are not a hand-off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MalformedHeader {
    /// Not `:base64:` (RFC 9651, section 3.3.5), or a list with anything else in it.
    #[error("not a byte sequence of RFC 9440")]
    Syntax,
    /// A certificate without any bytes.
    #[error("an empty certificate")]
    Empty,
    /// Over [`MAX_CERTIFICATES`].
    #[error("more than {MAX_CERTIFICATES} certificates")]
    TooMany,
    /// Over [`MAX_HEADER_BYTES`].
    #[error("more than {MAX_HEADER_BYTES} bytes")]
    TooLarge,
}

impl Presented {
    /// The value of `Client-Cert` (RFC 9440, section 2.2).
    pub fn leaf_header(&self) -> String {
        byte_sequence(&self.leaf)
    }

    /// The value of `Client-Cert-Chain` (RFC 9440, section 2.3); none where there is nothing but the leaf.
    pub fn chain_header(&self) -> Option<String> {
        if self.chain.is_empty() {
            return None;
        }
        Some(self.chain.iter().map(|der| byte_sequence(der)).collect::<Vec<_>>().join(", "))
    }

    /// Reads the values of `Client-Cert` and, where it was sent, `Client-Cert-Chain`.
    ///
    /// # Errors
    /// Whatever is not exactly the form of RFC 9440, or over the limits. The size is looked at before anything is
    /// decoded.
    pub fn from_headers(leaf: &[u8], chain: Option<&[u8]>) -> Result<Self, MalformedHeader> {
        let bytes = leaf.len() + chain.map_or(0, <[u8]>::len);
        if bytes > MAX_HEADER_BYTES {
            return Err(MalformedHeader::TooLarge);
        }
        let leaf = decode_byte_sequence(leaf)?;
        let chain = match chain {
            None => Vec::new(),
            Some(list) if list.iter().filter(|&&byte| byte == b',').count() + 2 > MAX_CERTIFICATES => {
                return Err(MalformedHeader::TooMany);
            }
            Some(list) => {
                list.split(|&byte| byte == b',').map(decode_byte_sequence).collect::<Result<_, _>>()?
            }
        };
        Ok(Self { leaf, chain })
    }
}

fn byte_sequence(der: &[u8]) -> String {
    format!(":{}:", BASE64.encode(der))
}

fn decode_byte_sequence(item: &[u8]) -> Result<Vec<u8>, MalformedHeader> {
    let base64 = item
        .trim_ascii()
        .strip_prefix(b":")
        .and_then(|rest| rest.strip_suffix(b":"))
        .ok_or(MalformedHeader::Syntax)?;
    let der = BASE64.decode(base64).map_err(|_| MalformedHeader::Syntax)?;
    if der.is_empty() {
        return Err(MalformedHeader::Empty);
    }
    Ok(der)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn presented(chain: usize) -> Presented {
        Presented { leaf: b"leaf".to_vec(), chain: (0..chain).map(|i| vec![i as u8; 5]).collect() }
    }

    #[test]
    fn headers_are_those_of_rfc_9440() {
        assert_eq!(presented(0).leaf_header(), ":bGVhZg==:");
        assert_eq!(presented(0).chain_header(), None);
        assert_eq!(presented(2).chain_header().unwrap(), ":AAAAAAA=:, :AQEBAQE=:");
    }

    #[test]
    fn what_is_written_is_read() {
        for chain in 0..MAX_CERTIFICATES {
            let written = presented(chain);
            let list = written.chain_header();
            let read =
                Presented::from_headers(written.leaf_header().as_bytes(), list.as_deref().map(str::as_bytes));
            assert_eq!(read.unwrap(), written);
        }
    }

    #[test]
    fn what_does_not_decode_is_refused() {
        use MalformedHeader::*;
        for (leaf, why) in [
            ("", Syntax),
            (":", Syntax),
            ("bGVhZg==", Syntax),
            (":bGVhZg==", Syntax),
            (":bGVhZg:", Syntax),
            (":bGVh Zg==:", Syntax),
            (":bGVhZg==:;a=1", Syntax),
            (":bGVhZg==:, :bGVhZg==:", Syntax),
            ("::", Empty),
        ] {
            assert_eq!(Presented::from_headers(leaf.as_bytes(), None), Err(why), "{leaf:?}");
        }
        for (chain, why) in [("", Syntax), (",", Syntax), (":AA==:,", Syntax), (":AA==:, ::", Empty)] {
            assert_eq!(Presented::from_headers(b":AA==:", Some(chain.as_bytes())), Err(why), "{chain:?}");
        }
    }

    #[test]
    fn limits_hold_before_anything_is_decoded() {
        let ten = presented(10);
        let list = ten.chain_header().unwrap();
        assert_eq!(Presented::from_headers(b":AA==:", Some(list.as_bytes())), Err(MalformedHeader::TooMany));
        let garbage = vec![b'!'; MAX_HEADER_BYTES];
        assert_eq!(Presented::from_headers(b":AA==:", Some(&garbage)), Err(MalformedHeader::TooLarge));
    }
}
