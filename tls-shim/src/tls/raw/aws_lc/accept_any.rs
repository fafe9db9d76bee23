//! This knows how AWS-LC is told to take a client's certificates as they are, up to a size.
//!
//! Trust is the plugin's decision, by the CAs of the route; the handshake only has to prove possession, which it does by
//! itself (RFC 8446, section 4.4.3; RFC 5246, section 7.4.8).

use openssl::error::ErrorStack;
use openssl::ssl::SslContextBuilder;
use openssl_sys::{
    SSL, SSL_CTX_set_custom_verify, SSL_CTX_set_max_cert_list, SSL_CTX_set_verify_algorithm_prefs,
    SSL_VERIFY_PEER, ssl_verify_result_t, ssl_verify_result_t_ssl_verify_ok,
};

/// By what a client may prove to have its key (RFC 8446, section 4.2.3): all that AWS-LC can verify, but for SHA-1, which
/// it would take unless told, and with Ed25519, which it would not.
const SIGNATURES: [u16; 10] = [
    0x0403, // ecdsa_secp256r1_sha256
    0x0807, // ed25519
    0x0804, // rsa_pss_rsae_sha256
    0x0401, // rsa_pkcs1_sha256
    0x0503, // ecdsa_secp384r1_sha384
    0x0805, // rsa_pss_rsae_sha384
    0x0501, // rsa_pkcs1_sha384
    0x0603, // ecdsa_secp521r1_sha512
    0x0806, // rsa_pss_rsae_sha512
    0x0601, // rsa_pkcs1_sha512
];

/// Takes any certificate whose key the client proves to have, without looking at who signed it. A Certificate message
/// over `max_bytes` fails the handshake.
///
/// # Errors
/// AWS-LC's.
pub(in crate::tls) fn accept_any(builder: &mut SslContextBuilder, max_bytes: i32) -> Result<(), ErrorStack> {
    let ctx = builder.as_ptr();
    // SAFETY: `ctx` is the builder's live SSL_CTX. The callback has the signature that AWS-LC calls and stays valid for
    // ever.
    unsafe { SSL_CTX_set_custom_verify(ctx, SSL_VERIFY_PEER, Some(yes)) };
    // SAFETY: `ctx` is as above.
    unsafe { SSL_CTX_set_max_cert_list(ctx, max_bytes.unsigned_abs() as usize) };
    // SAFETY: `ctx` is as above. AWS-LC copies the numbers, of which there are so many.
    let set = unsafe { SSL_CTX_set_verify_algorithm_prefs(ctx, SIGNATURES.as_ptr(), SIGNATURES.len()) };
    if set == 1 { Ok(()) } else { Err(ErrorStack::get()) }
}

/// AWS-LC calls this in place of building a chain. It touches neither pointer.
unsafe extern "C" fn yes(_ssl: *mut SSL, _alert: *mut u8) -> ssl_verify_result_t {
    ssl_verify_result_t_ssl_verify_ok
}
