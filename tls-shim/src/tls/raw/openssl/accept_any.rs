//! This knows how OpenSSL is told to take a client's certificates as they are, up to a size.
//!
//! OpenSSL would build a chain to CAs that it does not have here, and check names and policies on the way, all before
//! anybody knows whether the client has the key. Trust is the plugin's decision, by the CAs of the route; the
//! handshake only has to prove possession, which it does by itself (RFC 8446, section 4.4.3; RFC 5246, section 7.4.8).

use std::ffi::{c_int, c_long, c_void};
use std::ptr;

use openssl::error::ErrorStack;
use openssl::ssl::SslContextBuilder;

type VerifyCallback = unsafe extern "C" fn(*mut c_void, *mut c_void) -> c_int;

unsafe extern "C" {
    fn SSL_CTX_set_cert_verify_callback(ctx: *mut c_void, callback: Option<VerifyCallback>, arg: *mut c_void);
    fn SSL_CTX_ctrl(ctx: *mut c_void, cmd: c_int, larg: c_long, parg: *mut c_void) -> c_long;
}

/// `SSL_CTRL_SET_MAX_CERT_LIST` of OpenSSL's `ssl.h`.
const SET_MAX_CERT_LIST: c_int = 51;

/// Takes any certificate whose key the client proves to have, without looking at who signed it. A Certificate message
/// over `max_bytes` fails the handshake.
///
/// # Errors
/// None.
pub(in crate::tls) fn accept_any(builder: &mut SslContextBuilder, max_bytes: i32) -> Result<(), ErrorStack> {
    let ctx = builder.as_ptr().cast::<c_void>();
    // SAFETY: `ctx` is the builder's live SSL_CTX. The callback has the signature that OpenSSL calls, stays valid for
    // ever and does not use its argument, so that null is a good one.
    unsafe { SSL_CTX_set_cert_verify_callback(ctx, Some(yes), ptr::null_mut()) };
    // SAFETY: `ctx` is the builder's live SSL_CTX; this command takes a number and no pointer.
    unsafe { SSL_CTX_ctrl(ctx, SET_MAX_CERT_LIST, c_long::from(max_bytes), ptr::null_mut()) };
    Ok(())
}

/// OpenSSL calls this in place of building a chain. It touches neither pointer.
unsafe extern "C" fn yes(_store_context: *mut c_void, _arg: *mut c_void) -> c_int {
    1
}
