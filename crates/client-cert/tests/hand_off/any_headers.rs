//! What must hold of any values of `Client-Cert` and `Client-Cert-Chain`. The fuzz target and the run of its seeds call the
//! same.

use client_cert::front::{Format, decode};
use client_cert::{MAX_CERTIFICATES, MAX_HEADER_BYTES, MalformedHeader, Presented};

/// Reads two values, which a line feed stands between, or one: what is read is within the limits, and nothing but its own
/// form is read as it.
///
/// # Panics
/// Where what must hold does not.
pub(crate) fn hand_off(bytes: &[u8]) {
    let (leaf, chain) = match bytes.iter().position(|&byte| byte == b'\n') {
        Some(end) => (&bytes[..end], Some(&bytes[end + 1..])),
        None => (bytes, None),
    };
    let length = leaf.len() + chain.map_or(0, <[u8]>::len);
    let presented = match Presented::from_headers(leaf, chain) {
        Ok(presented) => presented,
        Err(problem) => {
            assert_eq!(problem == MalformedHeader::TooLarge, length > MAX_HEADER_BYTES);
            return;
        }
    };
    assert!(length <= MAX_HEADER_BYTES && presented.chain.len() < MAX_CERTIFICATES);
    assert!(!presented.leaf.is_empty() && presented.chain.iter().all(|der| !der.is_empty()));

    // Another text for the same bytes would be another form: padding that is left out, bits behind the last byte.
    assert_eq!(leaf.trim_ascii(), presented.leaf_header().as_bytes());
    let written = presented.chain_header();
    match (chain, &written) {
        (None, None) => {}
        (Some(chain), Some(written)) => {
            let ours: Vec<_> = written.split(", ").map(str::as_bytes).collect();
            let theirs: Vec<_> = chain.split(|&byte| byte == b',').map(<[u8]>::trim_ascii).collect();
            assert_eq!(theirs, ours);
        }
        (chain, written) => panic!("{written:?} was read of {chain:?}"),
    }
    // A space behind each comma may make it too large.
    let again =
        Presented::from_headers(presented.leaf_header().as_bytes(), written.as_deref().map(str::as_bytes));
    assert!(again == Ok(presented.clone()) || again == Err(MalformedHeader::TooLarge));

    // As another front's header it is the same certificate, or none.
    if let Ok(Some(front)) = decode(Format::Base64Encoded, &[leaf]) {
        assert_eq!(front.leaf, presented.leaf);
    }
}
