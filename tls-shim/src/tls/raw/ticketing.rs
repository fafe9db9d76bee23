//! This knows what is to be decided about session tickets (RFC 5077; RFC 8446, section 4.6.1), whatever library asks.

use std::time::Duration;

use openssl::ssl::SslRef;
use openssl::x509::X509Ref;
use zeroize::Zeroizing;

/// The bytes of the name of a key.
pub(in crate::tls) const NAME_BYTES: usize = 16;

/// What a ticket is sealed with: AES-256-CBC, then HMAC-SHA256 over name, initialisation vector and cipher text, as
/// recommended (RFC 5077, section 4).
pub(in crate::tls) struct TicketKey {
    /// Stands in front of the ticket, for all to read.
    pub(in crate::tls) name: [u8; NAME_BYTES],
    pub(in crate::tls) cipher: Zeroizing<[u8; 32]>,
    pub(in crate::tls) mac: Zeroizing<[u8; 32]>,
}

/// Who decides about tickets. What is asked must not panic.
pub(in crate::tls) trait Ticketing {
    /// What goes into a ticket for this connection beside the session, and how long it may be used. It must not be
    /// empty. None: the connection gets no ticket.
    fn contents(ssl: &SslRef) -> Option<(Vec<u8>, Duration)>;

    /// The key that seals it.
    fn seals(ssl: &SslRef) -> Option<TicketKey>;

    /// The key that sealed a ticket which came on this connection, by its name, and whether a new ticket is to take the
    /// place of this one. None: the ticket does not count.
    fn opens(ssl: &SslRef, name: &[u8; NAME_BYTES]) -> Option<(TicketKey, bool)>;

    /// Whether the session of a ticket may be resumed on this connection: with the client's certificate that stands in
    /// the session, and what went into the ticket beside it.
    fn counts(ssl: &SslRef, leaf: Option<&X509Ref>, contents: &[u8]) -> bool;
}
