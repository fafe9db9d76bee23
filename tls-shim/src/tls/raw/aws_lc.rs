//! This knows what AWS-LC has other names or calls for than OpenSSL.

mod accept_any;
#[cfg(test)]
mod renaming;
mod sealed;
mod session_tickets;

use std::ffi::{CString, c_int, c_void};
use std::sync::LazyLock;

use foreign_types::ForeignTypeRef;
use openssl::error::ErrorStack;
use openssl::ex_data::Index;
use openssl::nid::Nid;
use openssl::pkey::{Id, PKeyRef, Private};
use openssl::ssl::{SslContext, SslContextBuilder, SslOptions, SslRef};
use openssl::x509::X509Ref;
use openssl_sys::{
    AWSLC_VERSION_NUMBER_STRING, EC_R_UNKNOWN_GROUP, ERR_LIB_EC, ERR_LIB_RSA, ERR_put_error,
    RSA_R_KEY_SIZE_TOO_SMALL, SSL, SSL_AD_DECODE_ERROR, SSL_AD_INTERNAL_ERROR, SSL_CLIENT_HELLO_ERROR,
    SSL_CLIENT_HELLO_SUCCESS, SSL_CTX_set_ciphersuites, SSL_CTX_set_client_hello_cb,
    SSL_CTX_set_early_data_enabled, SSL_add1_chain_cert,
};

use super::Refused;

pub(in crate::tls) use self::accept_any::accept_any;
#[cfg(test)]
pub(in crate::tls) use self::renaming::rename_after_server_hello;
pub(in crate::tls) use self::session_tickets::{
    SESSION_HAS_CHAIN, may_withhold_tickets, send_few_tickets, set_tickets, ticket_contents, withhold_tickets,
};

/// The kinds of keys that a server can have. AWS-LC takes RSA-PSS too, and then fails every handshake.
pub(in crate::tls) const SERVER_KEYS: [Id; 3] = [Id::RSA, Id::EC, Id::ED25519];

/// The curves of keys that it can sign with in a handshake.
const CURVES: [Nid; 3] = [Nid::X9_62_PRIME256V1, Nid::SECP384R1, Nid::SECP521R1];

/// The bits of an RSA key for 112 bits of security, which OpenSSL 3.2 and newer want, and AWS-LC would not (NIST SP 800-57
/// part 1, section 5.6.1).
const RSA_BITS: u32 = 2048;

type ClientHello = Box<dyn Fn(&mut SslRef) -> Result<(), Refused> + Send + Sync>;

/// Where a context keeps what it calls for a ClientHello.
static CLIENT_HELLO: LazyLock<Result<Index<SslContext, ClientHello>, ErrorStack>> =
    LazyLock::new(SslContext::new_ex_index);

/// What the library is called.
pub(in crate::tls) const NAME: &str = "AWS-LC";

/// The library and its version: `AWS-LC 1.73.0`.
pub(crate) fn library() -> &'static str {
    static LIBRARY: LazyLock<String> = LazyLock::new(|| {
        format!("{NAME} {}", String::from_utf8_lossy(AWSLC_VERSION_NUMBER_STRING).trim_end_matches('\0'))
    });
    &LIBRARY
}

/// Has a context call for every first ClientHello.
///
/// # Errors
/// AWS-LC's.
pub(in crate::tls) fn set_client_hello_callback(
    builder: &mut SslContextBuilder,
    callback: impl Fn(&mut SslRef) -> Result<(), Refused> + Send + Sync + 'static,
) -> Result<(), ErrorStack> {
    let index = *CLIENT_HELLO.as_ref().map_err(ErrorStack::clone)?;
    builder.set_ex_data(index, Box::new(callback));
    // SAFETY: The builder's SSL_CTX is alive. The callback has the signature that AWS-LC calls, stays valid for ever and
    // does not use its argument, so that null is a good one.
    unsafe { SSL_CTX_set_client_hello_cb(builder.as_ptr(), Some(client_hello), std::ptr::null_mut()) };
    Ok(())
}

/// `SSL_client_hello_cb_fn`. What is called may give the connection another context.
unsafe extern "C" fn client_hello(ssl: *mut SSL, alert: *mut c_int, _arg: *mut c_void) -> c_int {
    // SAFETY: AWS-LC calls with a live SSL; nobody else has it while it does.
    let ssl = unsafe { SslRef::from_ptr_mut(ssl) };
    // One of our own, for as long as it is needed here.
    let context = ssl.ssl_context().to_owned();
    let callback = CLIENT_HELLO.as_ref().ok().and_then(|&index| context.ex_data(index));
    let refused = match callback.map(|callback| callback(ssl)) {
        Some(Ok(())) => return SSL_CLIENT_HELLO_SUCCESS,
        Some(Err(Refused::Malformed)) => SSL_AD_DECODE_ERROR,
        Some(Err(Refused::Failed(error))) => {
            error.put();
            SSL_AD_INTERNAL_ERROR
        }
        None => SSL_AD_INTERNAL_ERROR,
    };
    // SAFETY: AWS-LC reads the number of the alert from there.
    unsafe { *alert = refused };
    SSL_CLIENT_HELLO_ERROR
}

/// The order of ciphers and groups is the server's.
pub(in crate::tls) fn prefer_own_order(builder: &mut SslContextBuilder) {
    builder.set_options(SslOptions::CIPHER_SERVER_PREFERENCE);
}

/// Has a connection end with what it began with: no data before the handshake has ended, which could be sent twice.
/// AWS-LC has no compression, and its servers no renegotiation.
///
/// # Errors
/// None.
pub(in crate::tls) fn forbid(builder: &mut SslContextBuilder) -> Result<(), ErrorStack> {
    // SAFETY: The builder's SSL_CTX is alive.
    unsafe { SSL_CTX_set_early_data_enabled(builder.as_ptr(), 0) };
    Ok(())
}

/// Sets the ciphers of TLS 1.3. Which of them is chosen is then AWS-LC's to say.
///
/// # Errors
/// AWS-LC knows none of them.
pub(crate) fn set_ciphersuites(builder: &mut SslContextBuilder, suites: &str) -> Result<(), ErrorStack> {
    // No name has a NUL; the error is an empty one.
    let suites = CString::new(suites).map_err(|_| ErrorStack::get())?;
    // SAFETY: The builder's SSL_CTX is alive, and so is the text, which ends with a NUL and is only read.
    let set = unsafe { SSL_CTX_set_ciphersuites(builder.as_ptr(), suites.as_ptr()) };
    if set == 1 { Ok(()) } else { Err(ErrorStack::get()) }
}

/// Adds to the chain of the certificate that a connection was given last.
///
/// # Errors
/// AWS-LC's.
pub(in crate::tls) fn add_chain_cert(ssl: &mut SslRef, issuer: &X509Ref) -> Result<(), ErrorStack> {
    // SAFETY: Both are alive. AWS-LC takes a reference of its own to the certificate.
    let added = unsafe { SSL_add1_chain_cert(ssl.as_ptr(), issuer.as_ptr()) };
    if added == 1 { Ok(()) } else { Err(ErrorStack::get()) }
}

/// Whether a server's key is strong enough, and one to sign with. AWS-LC has no such levels as OpenSSL, takes any, and then
/// fails every handshake or has one that can be broken.
///
/// # Errors
/// It is not.
pub(in crate::tls) fn is_strong(key: &PKeyRef<Private>) -> Result<(), ErrorStack> {
    let curve = || key.ec_key().ok()?.group().curve_name();
    let (library, reason) = match key.id() {
        Id::RSA if key.bits() < RSA_BITS => (ERR_LIB_RSA, RSA_R_KEY_SIZE_TOO_SMALL),
        Id::EC if !curve().is_some_and(|curve| CURVES.contains(&curve)) => (ERR_LIB_EC, EC_R_UNKNOWN_GROUP),
        _ => return Ok(()),
    };
    // SAFETY: The name of the file lives for ever and ends with a NUL.
    unsafe { ERR_put_error(library, 0, reason, c"aws_lc.rs".as_ptr(), 0) };
    Err(ErrorStack::get())
}

#[cfg(test)]
mod tests {
    use openssl::ec::{EcGroup, EcKey};
    use openssl::pkey::PKey;
    use openssl::rsa::Rsa;

    use super::*;

    #[test]
    fn a_key_that_no_handshake_can_use_or_that_is_weak_is_refused() {
        let ec =
            |curve| PKey::from_ec_key(EcKey::generate(&EcGroup::from_curve_name(curve).unwrap()).unwrap());
        let rsa = |bits| PKey::from_rsa(Rsa::generate(bits).unwrap());
        for key in [rsa(2048), ec(CURVES[0]), ec(CURVES[1]), ec(CURVES[2]), PKey::generate_ed25519()] {
            is_strong(&key.unwrap()).unwrap();
        }
        for (key, reason) in [
            (rsa(1024), "KEY_SIZE_TOO_SMALL"),
            (ec(Nid::SECP224R1), "UNKNOWN_GROUP"),
            (ec(Nid::SECP256K1), "UNKNOWN_GROUP"),
        ] {
            let error = is_strong(&key.unwrap()).unwrap_err();
            assert_eq!(error.errors()[0].reason(), Some(reason));
        }
    }

    #[test]
    fn the_library_is_told_with_its_version() {
        assert!(library().starts_with("AWS-LC 1.") && !library().contains('\0'), "{}", library());
    }
}
