//! This knows what OpenSSL has other names or calls for than AWS-LC.

mod accept_any;
mod session_tickets;

use ::openssl::error::ErrorStack;
use ::openssl::pkey::{Id, PKeyRef, Private};
use ::openssl::ssl::{ClientHelloResponse, SslAlert, SslContextBuilder, SslOptions, SslRef};
use ::openssl::x509::X509Ref;

use super::Refused;

pub(in crate::tls) use self::accept_any::accept_any;
pub(in crate::tls) use self::session_tickets::{
    SESSION_HAS_CHAIN, may_withhold_tickets, send_few_tickets, set_tickets, ticket_contents, withhold_tickets,
};

/// The kinds of keys that a server can have. OpenSSL takes others, such as DSA, and then fails every handshake.
pub(in crate::tls) const SERVER_KEYS: [Id; 5] = [Id::RSA, Id::RSA_PSS, Id::EC, Id::ED25519, Id::ED448];

/// What the library is called.
pub(in crate::tls) const NAME: &str = "OpenSSL";

/// The library and its version: `OpenSSL 3.0.19 27 Jan 2026`.
pub(crate) fn library() -> &'static str {
    ::openssl::version::version()
}

/// Has a context call for every first ClientHello.
///
/// # Errors
/// None.
pub(in crate::tls) fn set_client_hello_callback(
    builder: &mut SslContextBuilder,
    callback: impl Fn(&mut SslRef) -> Result<(), Refused> + Send + Sync + 'static,
) -> Result<(), ErrorStack> {
    builder.set_client_hello_callback(move |ssl, alert| match callback(ssl) {
        Ok(()) => Ok(ClientHelloResponse::SUCCESS),
        Err(Refused::Malformed) => {
            *alert = SslAlert::DECODE_ERROR;
            Err(ErrorStack::get())
        }
        Err(Refused::Failed(error)) => Err(error),
    });
    Ok(())
}

/// The order of ciphers is the server's; but a client that likes ChaCha20 best has no hardware for AES.
pub(in crate::tls) fn prefer_own_order(builder: &mut SslContextBuilder) {
    builder.set_options(SslOptions::CIPHER_SERVER_PREFERENCE | SslOptions::PRIORITIZE_CHACHA);
}

/// Has a connection end with what it began with: no renegotiation, no compression, and no data before the handshake has
/// ended, which could be sent twice.
///
/// # Errors
/// OpenSSL's.
pub(in crate::tls) fn forbid(builder: &mut SslContextBuilder) -> Result<(), ErrorStack> {
    builder.set_options(SslOptions::NO_RENEGOTIATION | SslOptions::NO_COMPRESSION);
    builder.set_max_early_data(0)
}

/// Sets the ciphers of TLS 1.3.
///
/// # Errors
/// OpenSSL knows none of them.
pub(crate) fn set_ciphersuites(builder: &mut SslContextBuilder, suites: &str) -> Result<(), ErrorStack> {
    builder.set_ciphersuites(suites)
}

/// Adds to the chain of the certificate that a connection was given last.
///
/// # Errors
/// OpenSSL's.
pub(in crate::tls) fn add_chain_cert(ssl: &mut SslRef, issuer: &X509Ref) -> Result<(), ErrorStack> {
    ssl.add_chain_cert(issuer.to_owned())
}

/// Whether a server's key is strong enough. OpenSSL has its own mind about that, and tells when it is given one.
///
/// # Errors
/// None.
pub(in crate::tls) fn is_strong(_key: &PKeyRef<Private>) -> Result<(), ErrorStack> {
    Ok(())
}
