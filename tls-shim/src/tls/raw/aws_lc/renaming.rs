//! This knows a client for a test: one that names another server once it has got a ServerHello, of which a HelloRetryRequest
//! is one.

use std::ffi::{CStr, c_int, c_void};
use std::sync::atomic::{AtomicUsize, Ordering};

use openssl::ssl::SslContextBuilder;
use openssl_sys::{
    SSL, SSL_CTX_set_msg_callback, SSL_CTX_set_msg_callback_arg, SSL_set_tlsext_host_name, SSL3_RT_HANDSHAKE,
};

/// The types of messages (RFC 8446, section 4).
const CLIENT_HELLO: u8 = 1;
const SERVER_HELLO: u8 = 2;

struct Renaming {
    name: &'static CStr,
    hellos: AtomicUsize,
}

/// Has a client name this server from its second ClientHello on. It gives the number of its ClientHellos.
pub(in crate::tls) fn rename_after_server_hello(
    builder: &mut SslContextBuilder,
    name: &'static CStr,
) -> &'static AtomicUsize {
    let renaming: &'static Renaming = Box::leak(Box::new(Renaming { name, hellos: AtomicUsize::new(0) }));
    let arg = std::ptr::from_ref(renaming).cast_mut().cast::<c_void>();
    // SAFETY: The builder's SSL_CTX is alive; the callback is there for ever.
    unsafe { SSL_CTX_set_msg_callback(builder.as_ptr(), Some(message)) };
    // SAFETY: As above, and so is its argument.
    unsafe { SSL_CTX_set_msg_callback_arg(builder.as_ptr(), arg) };
    &renaming.hellos
}

unsafe extern "C" fn message(
    is_sent: c_int,
    _version: c_int,
    record: c_int,
    message: *const c_void,
    _bytes: usize,
    ssl: *mut SSL,
    renaming: *mut c_void,
) {
    if record != SSL3_RT_HANDSHAKE {
        return;
    }
    // SAFETY: It was given above, and is never written to.
    let renaming = unsafe { &*renaming.cast_const().cast::<Renaming>() };
    // SAFETY: A handshake message has at least its type.
    let kind = unsafe { *message.cast::<u8>() };
    if is_sent == 1 && kind == CLIENT_HELLO {
        renaming.hellos.fetch_add(1, Ordering::Relaxed);
    }
    if is_sent == 0 && kind == SERVER_HELLO {
        // SAFETY: AWS-LC calls with a live SSL, and copies the name.
        unsafe { SSL_set_tlsext_host_name(ssl, renaming.name.as_ptr()) };
    }
}
