//! This knows how OpenSSL is told with which keys session tickets are sealed, what else goes into them, and which of them
//! count (RFC 5077; RFC 8446, section 4.6.1).
//!
//! OpenSSL asks in this order. To make a ticket: what goes into it, then the key. For a ticket that came: the key, then,
//! once seal and contents were found to be whole, whether it counts.

use std::ffi::{CStr, c_char, c_int, c_long, c_uchar, c_void};
use std::marker::PhantomData;
use std::slice;
use std::sync::LazyLock;

use foreign_types::ForeignTypeRef;
use openssl::cipher::Cipher;
use openssl::cipher_ctx::CipherCtxRef;
use openssl::error::ErrorStack;
use openssl::ssl::{SslContextBuilder, SslRef};
use openssl::x509::X509Ref;
use openssl_sys::{
    EVP_CIPHER_CTX, EVP_MAC_CTX, EVP_MAC_CTX_set_params, OSSL_PARAM, OSSL_PARAM_construct_end,
    OSSL_PARAM_construct_octet_string, SSL, SSL_CTX, SSL_SESSION, SSL_get_session, X509,
};

use crate::tls::raw::ticketing::{NAME_BYTES, TicketKey, Ticketing};

/// The bytes of a block of AES, and so of an initialisation vector in CBC mode.
const IV_BYTES: usize = 16;

/// Has a context ask `T` about tickets.
///
/// # Errors
/// OpenSSL's.
pub(in crate::tls) fn set_tickets<T: Ticketing>(builder: &mut SslContextBuilder) -> Result<(), ErrorStack> {
    let ctx = builder.as_ptr();
    // SAFETY: `ctx` is the builder's live SSL_CTX, and the callback has the signature that OpenSSL calls.
    let keys = unsafe { SSL_CTX_set_tlsext_ticket_key_evp_cb(ctx, Some(Callbacks::<T>::key)) };
    let arg = std::ptr::null_mut();
    // SAFETY: As above. Neither callback uses its argument, so that null is a good one.
    let contents = unsafe {
        SSL_CTX_set_session_ticket_cb(ctx, Some(Callbacks::<T>::generate), Some(Callbacks::<T>::decrypt), arg)
    };
    if keys == 1 && contents == 1 { Ok(()) } else { Err(ErrorStack::get()) }
}

/// Has a full handshake of TLS 1.3 end with one ticket in place of two. OpenSSL reads the client's certificate anew for each,
/// which is a fifteenth of the handshake, and sends each by itself. Most clients keep the last one only. One that uses each
/// once, and connects twice at the same time, has one more full handshake. A resumed session is followed by one in any case.
///
/// # Errors
/// OpenSSL's.
pub(in crate::tls) fn send_few_tickets(builder: &mut SslContextBuilder) -> Result<(), ErrorStack> {
    builder.set_num_tickets(1)
}

/// The first OpenSSL that sends no ticket in TLS 1.3 where there is no key for one; older ones send one that clients take
/// for broken.
const SENDS_NO_TICKET: i64 = 0x3000_0060;

/// OpenSSL's session has the client's leaf only.
pub(in crate::tls) const SESSION_HAS_CHAIN: bool = false;

/// Whether it can be left to [`Ticketing::contents`] that a connection gets no ticket, once its client has been heard.
pub(in crate::tls) fn may_withhold_tickets() -> bool {
    openssl::version::number() >= SENDS_NO_TICKET
}

/// Has a connection get no ticket.
///
/// # Errors
/// OpenSSL's.
pub(in crate::tls) fn withhold_tickets(ssl: &mut SslRef) -> Result<(), ErrorStack> {
    ssl.set_num_tickets(0)
}

/// What stands beside the session of a connection: what went into a ticket for it, or came in the one by which it was
/// resumed. Empty where neither is so.
pub(in crate::tls) fn ticket_contents(ssl: &SslRef) -> &[u8] {
    // SAFETY: `ssl` is a live SSL. Its session lives as long as it stays that of the connection.
    unsafe { contents_of(SSL_get_session(ssl.as_ptr())) }
}

/// # Safety
/// `session` is null, or a session that lives, and is not given other contents, for `'a`.
unsafe fn contents_of<'a>(session: *mut SSL_SESSION) -> &'a [u8] {
    let (mut data, mut length) = (std::ptr::null_mut(), 0);
    // SAFETY: OpenSSL writes to both pointers, which are to variables of ours; it is not called with a null session.
    let found = !session.is_null()
        && unsafe { SSL_SESSION_get0_ticket_appdata(session, &mut data, &mut length) } == 1;
    if !found || data.is_null() || length == 0 {
        return &[];
    }
    // SAFETY: OpenSSL has set both to bytes that belong to the session.
    unsafe { slice::from_raw_parts(data.cast::<u8>(), length) }
}

/// Has OpenSSL's callbacks ask `T`.
struct Callbacks<T>(PhantomData<T>);

impl<T: Ticketing> Callbacks<T> {
    /// `SSL_CTX_generate_session_ticket_fn`: before a ticket is made. 1 goes on, 0 breaks the connection.
    unsafe extern "C" fn generate(ssl: *mut SSL, _arg: *mut c_void) -> c_int {
        // SAFETY: OpenSSL calls with a live SSL; nobody else has it while it does.
        let session = unsafe { SSL_get_session(ssl) };
        if session.is_null() {
            return 0;
        }
        // SAFETY: As above.
        let ticket = T::contents(unsafe { SslRef::from_ptr(ssl) });
        if let Some((_, lifetime)) = &ticket {
            // Else the client would be told of a longer one, and try in vain. OpenSSL reads 0 back as 3, and then breaks
            // the connection over the difference.
            let seconds = c_long::try_from(lifetime.as_secs()).unwrap_or(c_long::MAX).max(1);
            // SAFETY: `session` is that of the connection, and alive.
            unsafe { SSL_SESSION_set_timeout(session, seconds) };
        }
        let contents = ticket.map(|(contents, _)| contents).unwrap_or_default();
        // SAFETY: As above. OpenSSL copies the bytes.
        unsafe { SSL_SESSION_set1_ticket_appdata(session, contents.as_ptr().cast(), contents.len()) }
    }

    /// `SSL_CTX_set_tlsext_ticket_key_evp_cb`. To make a ticket: 1 with a key, 0 makes none. For one that came: 1 with a
    /// key, 2 with a key and a new ticket to take its place, 0 takes it for none. Below 0 breaks the connection.
    unsafe extern "C" fn key(
        ssl: *mut SSL,
        name: *mut c_uchar,
        iv: *mut c_uchar,
        cipher: *mut EVP_CIPHER_CTX,
        mac: *mut EVP_MAC_CTX,
        makes: c_int,
    ) -> c_int {
        // SAFETY: OpenSSL calls with a live SSL; nobody else has it while it does.
        let ssl = unsafe { SslRef::from_ptr(ssl) };
        // SAFETY: And with a live context for the cipher, which nobody else has.
        let cipher = unsafe { CipherCtxRef::from_ptr_mut(cipher) };
        if makes == 1 {
            // Without contents it could not be told later what it is good for.
            if ticket_contents(ssl).is_empty() {
                return 0;
            }
            // SAFETY: To make a ticket, OpenSSL has room for the name of a key and for an initialisation vector here.
            let (name, iv) = unsafe {
                (slice::from_raw_parts_mut(name, NAME_BYTES), slice::from_raw_parts_mut(iv, IV_BYTES))
            };
            let Some(key) = T::seals(ssl) else { return 0 };
            name.copy_from_slice(&key.name);
            let sealed = openssl::rand::rand_bytes(iv).and_then(|()| {
                cipher.encrypt_init(Some(aes_256_cbc()?), Some(key.cipher.as_slice()), Some(iv))
            });
            // SAFETY: OpenSSL calls with a live context for the MAC, which nobody else has.
            return if sealed.is_ok() && unsafe { set_mac_key(mac, &key) } { 1 } else { -1 };
        }
        // SAFETY: OpenSSL has found the ticket to have this many bytes, and more: the vector follows the name.
        let (name, iv) =
            unsafe { (&*name.cast::<[u8; NAME_BYTES]>(), slice::from_raw_parts(iv.cast_const(), IV_BYTES)) };
        let Some((key, renews)) = T::opens(ssl, name) else { return 0 };
        let opened = aes_256_cbc()
            .and_then(|aes| cipher.decrypt_init(Some(aes), Some(key.cipher.as_slice()), Some(iv)));
        // SAFETY: As above.
        match opened.is_ok() && unsafe { set_mac_key(mac, &key) } {
            true if renews => 2,
            true => 1,
            false => -1,
        }
    }

    /// `SSL_CTX_decrypt_session_ticket_fn`: after OpenSSL has looked at a ticket that came.
    unsafe extern "C" fn decrypt(
        ssl: *mut SSL,
        session: *mut SSL_SESSION,
        _key_name: *const c_uchar,
        _key_name_bytes: usize,
        status: c_int,
        _arg: *mut c_void,
    ) -> c_int {
        let is_whole = matches!(status, status::SUCCESS | status::SUCCESS_RENEW);
        if !is_whole || session.is_null() {
            return answer::IGNORE_RENEW;
        }
        // SAFETY: OpenSSL calls with a live SSL and, where the ticket is whole, with its session, which is not yet that
        // of the connection. Nobody else has either. The certificate belongs to the session.
        let (ssl, leaf, contents) = unsafe {
            let leaf = SSL_SESSION_get0_peer(session);
            let leaf = (!leaf.is_null()).then(|| X509Ref::from_ptr(leaf));
            (SslRef::from_ptr(ssl), leaf, contents_of(session))
        };
        match T::counts(ssl, leaf, contents) {
            true if status == status::SUCCESS_RENEW => answer::USE_RENEW,
            true => answer::USE,
            // A full handshake, and a new ticket after it.
            false => answer::IGNORE_RENEW,
        }
    }
}

/// What OpenSSL says of a ticket: `SSL_TICKET_STATUS`.
mod status {
    use super::c_int;

    pub(super) const SUCCESS: c_int = 5;
    pub(super) const SUCCESS_RENEW: c_int = 6;
}

/// What it is told to do with it: `SSL_TICKET_RETURN`.
mod answer {
    use super::c_int;

    pub(super) const IGNORE_RENEW: c_int = 2;
    pub(super) const USE: c_int = 3;
    pub(super) const USE_RENEW: c_int = 4;
}

/// The cipher, looked for once: that takes OpenSSL longer than a ticket does.
fn aes_256_cbc() -> Result<&'static Cipher, ErrorStack> {
    static CIPHER: LazyLock<Result<Cipher, ErrorStack>> =
        LazyLock::new(|| Cipher::fetch(None, "AES-256-CBC", None));
    CIPHER.as_ref().map_err(ErrorStack::clone)
}

/// # Safety
/// `mac` is a live context for HMAC that nobody else has.
unsafe fn set_mac_key(mac: *mut EVP_MAC_CTX, key: &TicketKey) -> bool {
    const KEY: &CStr = c"key";
    const DIGEST: &CStr = c"digest";
    const SHA256: &CStr = c"SHA256";
    let bytes = key.mac.as_ptr().cast_mut().cast::<c_void>();
    // SAFETY: Names and values are alive until OpenSSL has read them below, strings end with a NUL, and the key has
    // the length that is given. OpenSSL does not write to what parameters that are set point to.
    unsafe {
        let params = [
            OSSL_PARAM_construct_octet_string(KEY.as_ptr(), bytes, key.mac.len()),
            OSSL_PARAM_construct_utf8_string(DIGEST.as_ptr(), SHA256.as_ptr().cast_mut(), 0),
            OSSL_PARAM_construct_end(),
        ];
        EVP_MAC_CTX_set_params(mac, params.as_ptr()) == 1
    }
}

type GenerateCallback = unsafe extern "C" fn(*mut SSL, *mut c_void) -> c_int;
type DecryptCallback =
    unsafe extern "C" fn(*mut SSL, *mut SSL_SESSION, *const c_uchar, usize, c_int, *mut c_void) -> c_int;
type KeyCallback = unsafe extern "C" fn(
    *mut SSL,
    *mut c_uchar,
    *mut c_uchar,
    *mut EVP_CIPHER_CTX,
    *mut EVP_MAC_CTX,
    c_int,
) -> c_int;

unsafe extern "C" {
    fn SSL_CTX_set_tlsext_ticket_key_evp_cb(ctx: *mut SSL_CTX, callback: Option<KeyCallback>) -> c_int;
    fn SSL_CTX_set_session_ticket_cb(
        ctx: *mut SSL_CTX,
        generate: Option<GenerateCallback>,
        decrypt: Option<DecryptCallback>,
        arg: *mut c_void,
    ) -> c_int;
    fn SSL_SESSION_set1_ticket_appdata(
        session: *mut SSL_SESSION,
        data: *const c_void,
        length: usize,
    ) -> c_int;
    fn SSL_SESSION_get0_ticket_appdata(
        session: *mut SSL_SESSION,
        data: *mut *mut c_void,
        length: *mut usize,
    ) -> c_int;
    fn SSL_SESSION_set_timeout(session: *mut SSL_SESSION, seconds: c_long) -> c_long;
    fn SSL_SESSION_get0_peer(session: *mut SSL_SESSION) -> *mut X509;
    fn OSSL_PARAM_construct_utf8_string(name: *const c_char, text: *mut c_char, bytes: usize) -> OSSL_PARAM;
}
