//! This knows what was decided about one connection when its client had named a server, and what follows from it for
//! session tickets.

use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use client_cert::Presented;
use openssl::asn1::{Asn1Time, Asn1TimeRef};
use openssl::error::ErrorStack;
use openssl::ex_data::Index;
use openssl::ssl::{Ssl, SslRef, SslVersion};
use openssl::x509::X509Ref;

use crate::limits;
use crate::sni::ServerName;
use crate::tls::raw::{self, NAME_BYTES, TicketKey, Ticketing, ticket_contents};
use crate::tls::session_tickets::{Contents, Policy, SessionTickets};

/// What was decided. It stays with the connection.
pub(super) struct Decision {
    pub(super) server_name: ServerName,
    /// Whether the client is asked for a certificate.
    pub(super) asks: bool,
    /// None: its session is of no use to another connection, nor that of another to it.
    pub(super) resumption: Option<Resumption>,
}

/// On what terms a session may be resumed.
pub(super) struct Resumption {
    pub(super) tickets: Arc<SessionTickets>,
    /// What its ticket must have been made for.
    pub(super) policy: Policy,
    /// Whether the client binds secrets in TLS 1.2 to their handshake (RFC 7627). A session without that can be passed
    /// off as another one, and so can the certificate of its client. In TLS 1.3 all are bound.
    pub(super) is_bound: bool,
}

/// Where OpenSSL keeps it.
static INDEX: LazyLock<Result<Index<Ssl, Decision>, ErrorStack>> = LazyLock::new(Ssl::new_ex_index);

impl Decision {
    /// What was decided about this connection, if anything was.
    pub(super) fn of(ssl: &SslRef) -> Option<&Self> {
        ssl.ex_data(*INDEX.as_ref().ok()?)
    }

    /// Leaves it with the connection.
    pub(super) fn keep(self, ssl: &mut SslRef) -> Result<(), ErrorStack> {
        let index = *INDEX.as_ref().map_err(ErrorStack::clone)?;
        if self.resumption.is_none() || (self.asks && !raw::may_withhold_tickets()) {
            raw::withhold_tickets(ssl)?;
        }
        ssl.set_ex_data(index, self);
        Ok(())
    }

    /// The terms for this connection, once its version of TLS is known.
    fn resumption(&self, ssl: &SslRef) -> Option<&Resumption> {
        let is_usable = |terms: &&Resumption| terms.is_bound || is_tls_1_3(ssl);
        self.resumption.as_ref().filter(is_usable)
    }
}

fn is_tls_1_3(ssl: &SslRef) -> bool {
    ssl.version2() == Some(SslVersion::TLS1_3)
}

/// What the client presented. OpenSSL has checked that it has the key: a handshake in which CertificateVerify is missing
/// or wrong does not end well (RFC 8446, section 4.4.3; RFC 5246, section 7.4.8). Of a session that is resumed
/// OpenSSL has the leaf only; the rest comes with the ticket.
///
/// # Errors
/// It cannot be told. That is never the same as "nothing".
pub(super) fn presented(ssl: &SslRef) -> Result<Option<Presented>, ErrorStack> {
    let Some(leaf) = ssl.peer_certificate() else { return Ok(None) };
    let chain = if ssl.session_reused() && !raw::SESSION_HAS_CHAIN {
        Contents::from_bytes(ticket_contents(ssl)).ok_or_else(ErrorStack::get)?.chain
    } else {
        // On the server's side the chain comes without the leaf.
        let chain = ssl.peer_cert_chain().into_iter().flatten().map(|issuer| issuer.to_der());
        chain.collect::<Result<_, _>>()?
    };
    Ok(Some(Presented { leaf: leaf.to_der()?, chain }))
}

impl Ticketing for Decision {
    fn contents(ssl: &SslRef) -> Option<(Vec<u8>, Duration)> {
        let decision = Self::of(ssl)?;
        let terms = decision.resumption(ssl)?;
        let leaf = ssl.peer_certificate();
        if decision.asks != leaf.is_some() {
            // Who was asked and has shown none may have one next time.
            return None;
        }
        let now = SystemTime::now();
        let mut contents = if ssl.session_reused() {
            // However often a session is resumed, it ends when it would have.
            Contents::from_bytes(ticket_contents(ssl))?
        } else {
            Contents { proven: now, chain: presented(ssl).ok()?.map(|all| all.chain).unwrap_or_default() }
        };
        let leaf_bytes = leaf.as_ref().map_or(Ok(0), |leaf| leaf.to_der().map(|der| der.len())).ok()?;
        if contents.to_bytes().len() + leaf_bytes > limits::TICKET {
            return None;
        }
        if raw::SESSION_HAS_CHAIN {
            contents.chain.clear();
        }
        let ends = leaf.as_ref().map(|leaf| end(leaf)).transpose().ok()?;
        Some((contents.to_bytes(), terms.tickets.remaining(contents.proven, ends, now)?))
    }

    fn seals(ssl: &SslRef) -> Option<TicketKey> {
        let terms = Self::of(ssl)?.resumption(ssl)?;
        terms.tickets.seals(&terms.policy, SystemTime::now())
    }

    fn opens(ssl: &SslRef, name: &[u8; NAME_BYTES]) -> Option<(TicketKey, bool)> {
        let terms = Self::of(ssl)?.resumption(ssl)?;
        let (key, is_old) = terms.tickets.opens(&terms.policy, name, SystemTime::now())?;
        // In TLS 1.3 a ticket should be used once only (RFC 8446, appendix C.4), so each is followed by another.
        Some((key, is_old || is_tls_1_3(ssl)))
    }

    fn counts(ssl: &SslRef, leaf: Option<&X509Ref>, contents: &[u8]) -> bool {
        let counts = || {
            let decision = Self::of(ssl)?;
            let terms = decision.resumption(ssl)?;
            let contents = Contents::from_bytes(contents)?;
            let ends = leaf.map(end).transpose().ok()?;
            // No ticket is made where these differ.
            let is_alike = decision.asks == leaf.is_some();
            let remaining = terms.tickets.remaining(contents.proven, ends, SystemTime::now())?;
            is_alike.then_some(remaining)
        };
        counts().is_some()
    }
}

/// The end of a certificate.
pub(super) fn end(certificate: &X509Ref) -> Result<SystemTime, ErrorStack> {
    seconds(certificate.not_after())
}

fn seconds(time: &Asn1TimeRef) -> Result<SystemTime, ErrorStack> {
    let since = Asn1Time::from_unix(0)?.diff(time)?;
    let seconds = i64::from(since.days) * 24 * 60 * 60 + i64::from(since.secs);
    // What ended before 1970 has ended.
    Ok(UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
}
