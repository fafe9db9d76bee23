//! This knows how a callback reads the server name of a ClientHello before OpenSSL has.
//!
//! OpenSSL looks at tickets before it tells anybody of the server name. Whether a ticket may be used depends on the name,
//! so it has to be known sooner (CVE-2025-23419 is what comes of it otherwise).

use std::ffi::c_uint;
use std::ptr;

use foreign_types::ForeignTypeRef;
use openssl::ssl::SslRef;
use openssl_sys::SSL_client_hello_get0_ext;

/// The type of the extension `server_name` (RFC 6066, section 3).
const SERVER_NAME: c_uint = 0;

/// The type of the extension `extended_master_secret` (RFC 7627, section 5.1).
const EXTENDED_MASTER_SECRET: c_uint = 23;

/// The extension `server_name` as the client sent it. None where there is none, and outside of the callback for a
/// ClientHello.
pub(in crate::tls) fn server_name_extension(ssl: &SslRef) -> Option<&[u8]> {
    extension(ssl, SERVER_NAME)
}

/// Whether the client offers to bind the secret of a session in TLS 1.2 to its handshake. Nobody does outside of the
/// callback for a ClientHello.
pub(in crate::tls) fn offers_extended_master_secret(ssl: &SslRef) -> bool {
    extension(ssl, EXTENDED_MASTER_SECRET).is_some()
}

fn extension(ssl: &SslRef, kind: c_uint) -> Option<&[u8]> {
    let (mut data, mut length) = (ptr::null(), 0);
    // SAFETY: `ssl` is a live SSL, and both pointers are to variables that OpenSSL may write to. It answers 0 where it
    // has no ClientHello at hand.
    let found = unsafe { SSL_client_hello_get0_ext(ssl.as_ptr(), kind, &mut data, &mut length) };
    if found != 1 {
        return None;
    }
    if data.is_null() || length == 0 {
        return Some(&[]);
    }
    // SAFETY: OpenSSL has set both to bytes of the ClientHello, which it keeps for as long as the callback runs. Nobody
    // can free it in the meantime: that takes a `&mut SslRef`, and the slice borrows `ssl`.
    Some(unsafe { std::slice::from_raw_parts(data, length) })
}

#[cfg(test)]
mod tests {
    use openssl::ssl::{Ssl, SslContext, SslMethod};

    use super::*;

    #[test]
    fn there_is_none_without_a_client_hello() {
        let ssl = Ssl::new(&SslContext::builder(SslMethod::tls_server()).unwrap().build()).unwrap();
        assert!(server_name_extension(&ssl).is_none() && !offers_extended_master_secret(&ssl));
    }
}
