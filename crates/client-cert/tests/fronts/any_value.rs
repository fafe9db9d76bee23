//! What must hold of any value of another front's header. The fuzz target and the run of its seeds call the same.

use client_cert::front::{Format, decode};
use client_cert::{MAX_CERTIFICATES, MAX_HEADER_BYTES};

/// Reads a value: an error, none, or certificates within the limits that are read back from the form of RFC 9440; and
/// under no more than one format.
///
/// # Panics
/// Where what must hold does not.
pub(crate) fn front_header(value: &[u8]) {
    let read: Vec<_> = [Format::Base64Encoded, Format::UrlEncoded]
        .into_iter()
        .filter_map(|format| decode(format, &[value]).ok().flatten())
        .collect();
    assert!(read.len() <= 1, "two readings");
    for presented in read {
        assert!(value.len() <= MAX_HEADER_BYTES && presented.chain.len() < MAX_CERTIFICATES);
        let header = presented.leaf_header();
        if header.len() <= MAX_HEADER_BYTES {
            let again = decode(Format::Base64Encoded, &[header]).unwrap().unwrap();
            assert_eq!(again.leaf, presented.leaf);
        }
    }
}
