//! This knows how AWS-LC is told how session tickets are sealed, what else goes into them, and which of them count
//! (RFC 5077; RFC 8446, section 4.6.1).
//!
//! AWS-LC has the bytes of a session sealed, and those of a ticket opened, by two calls. By the time of the first it cannot be
//! told any more that there shall be no ticket, or for how long it lives. So that is decided when the client's Finished has
//! come, which is the last message before any ticket: who the client is, is known by then. Tickets are sent only if that
//! message is what it should be.

use std::ffi::{c_int, c_void};
use std::marker::PhantomData;
use std::slice;
use std::sync::LazyLock;

use foreign_types::ForeignTypeRef;
use openssl::error::ErrorStack;
use openssl::ex_data::Index;
use openssl::ssl::{Ssl, SslContextBuilder, SslRef, SslVersion};
use openssl::x509::X509Ref;
use openssl_sys::{
    SSL, SSL_CTX_set_msg_callback, SSL_CTX_set_num_tickets, SSL_CTX_set_ticket_aead_method, SSL_OP_NO_TICKET,
    SSL_SESSION, SSL_SESSION_free, SSL_SESSION_from_bytes, SSL_SESSION_get0_peer, SSL_SESSION_set_timeout,
    SSL_TICKET_AEAD_METHOD, SSL_get_SSL_CTX, SSL_get_session, SSL_set_options, SSL3_MT_FINISHED,
    SSL3_RT_HANDSHAKE, ssl_ticket_aead_result_t,
    ssl_ticket_aead_result_t_ssl_ticket_aead_ignore_ticket as IGNORE,
    ssl_ticket_aead_result_t_ssl_ticket_aead_success as SUCCESS,
};

use super::sealed::{self, Opened};
use crate::tls::raw::ticketing::Ticketing;

/// AWS-LC's session has all certificates of the client, and so has its ticket.
pub(in crate::tls) const SESSION_HAS_CHAIN: bool = true;

/// What stands beside the session of a connection.
#[derive(Default)]
struct Beside {
    /// What came in the ticket that was opened last. It is of no use unless the session was resumed.
    came: Vec<u8>,
    /// What goes into a ticket. Empty: there shall be none.
    goes: Vec<u8>,
}

/// Where AWS-LC keeps it.
static INDEX: LazyLock<Result<Index<Ssl, Beside>, ErrorStack>> = LazyLock::new(Ssl::new_ex_index);

/// Whether it can be left to [`Ticketing::contents`] that a connection gets no ticket, once its client has been heard.
pub(in crate::tls) fn may_withhold_tickets() -> bool {
    true
}

/// Has a handshake of TLS 1.3 followed by one ticket in place of two, as with OpenSSL: each is a copy of the session, sealed.
///
/// # Errors
/// AWS-LC's.
pub(in crate::tls) fn send_few_tickets(builder: &mut SslContextBuilder) -> Result<(), ErrorStack> {
    // SAFETY: The builder's SSL_CTX is alive.
    let set = unsafe { SSL_CTX_set_num_tickets(builder.as_ptr(), 1) };
    if set == 1 { Ok(()) } else { Err(ErrorStack::get()) }
}

/// Has a connection neither get a ticket nor use one.
///
/// # Errors
/// None.
pub(in crate::tls) fn withhold_tickets(ssl: &mut SslRef) -> Result<(), ErrorStack> {
    // SAFETY: `ssl` is a live SSL that nobody else has, and the number is that of an option.
    unsafe { SSL_set_options(ssl.as_ptr(), SSL_OP_NO_TICKET.unsigned_abs()) };
    Ok(())
}

/// Has a context ask `T` about tickets.
///
/// # Errors
/// AWS-LC's.
pub(in crate::tls) fn set_tickets<T: Ticketing>(builder: &mut SslContextBuilder) -> Result<(), ErrorStack> {
    INDEX.as_ref().map_err(ErrorStack::clone)?;
    let ctx = builder.as_ptr();
    // SAFETY: `ctx` is the builder's live SSL_CTX. The methods have the signatures that AWS-LC calls, and stay valid for
    // ever, as does the table.
    unsafe { SSL_CTX_set_ticket_aead_method(ctx, Callbacks::<T>::METHOD) };
    // SAFETY: As above. The callback does not use its argument.
    unsafe { SSL_CTX_set_msg_callback(ctx, Some(Callbacks::<T>::message)) };
    Ok(())
}

/// What stands beside the session of a connection: what goes into a ticket for it, or came in the one by which it was
/// resumed. Empty where neither is so.
pub(in crate::tls) fn ticket_contents(ssl: &SslRef) -> &[u8] {
    match beside(ssl) {
        Some(beside) if !beside.goes.is_empty() => &beside.goes,
        Some(beside) if ssl.session_reused() => &beside.came,
        _ => &[],
    }
}

fn beside(ssl: &SslRef) -> Option<&Beside> {
    ssl.ex_data(*INDEX.as_ref().ok()?)
}

fn set_beside(ssl: &mut SslRef, change: impl FnOnce(&mut Beside)) {
    let Ok(index) = *INDEX else { return };
    match ssl.ex_data_mut(index) {
        Some(beside) => change(beside),
        None => {
            let mut beside = Beside::default();
            change(&mut beside);
            ssl.set_ex_data(index, beside);
        }
    }
}

/// Has AWS-LC's callbacks ask `T`.
struct Callbacks<T>(PhantomData<T>);

impl<T: Ticketing> Callbacks<T> {
    const METHOD: &'static SSL_TICKET_AEAD_METHOD = &SSL_TICKET_AEAD_METHOD {
        max_overhead: Some(Self::max_overhead),
        seal: Some(Self::seal),
        open: Some(Self::open),
    };

    /// `SSL_CTX_set_msg_callback`: a message that came or goes.
    unsafe extern "C" fn message(
        is_sent: c_int,
        _version: c_int,
        record: c_int,
        message: *const c_void,
        bytes: usize,
        ssl: *mut SSL,
        _arg: *mut c_void,
    ) {
        if is_sent != 0 || record != SSL3_RT_HANDSHAKE || message.is_null() || bytes == 0 {
            return;
        }
        // SAFETY: AWS-LC calls with a message of at least one byte, which is its type (RFC 8446, section 4).
        if c_int::from(unsafe { *message.cast::<u8>() }) != SSL3_MT_FINISHED {
            return;
        }
        // SAFETY: It calls with a live SSL; nobody else has it while it does.
        let ssl = unsafe { SslRef::from_ptr_mut(ssl) };
        let ticket = T::contents(ssl);
        // In TLS 1.2 a ticket may have been promised by now; then it is empty (RFC 5077, section 3.3). In TLS 1.3 it must
        // not be.
        let Some((contents, lifetime)) = ticket else {
            set_beside(ssl, |beside| beside.goes.clear());
            // Its errors: none.
            let _ = withhold_tickets(ssl);
            return;
        };
        set_beside(ssl, |beside| beside.goes = contents);
        let resumed_before_1_3 = ssl.session_reused() && ssl.version2() != Some(SslVersion::TLS1_3);
        // SAFETY: `ssl` is as above.
        let session = unsafe { SSL_get_session(ssl.as_ptr()) };
        // In TLS 1.2 a connection that resumes a session gets no other ticket.
        if !session.is_null() && !resumed_before_1_3 {
            // Else the client would be told of a longer one, and try in vain.
            let seconds = u32::try_from(lifetime.as_secs()).unwrap_or(u32::MAX).max(1);
            // SAFETY: `session` is that which this handshake makes: alive, and not yet anybody's but the connection's.
            unsafe { SSL_SESSION_set_timeout(session, seconds) };
        }
    }

    /// By how much a ticket may be longer than its session.
    unsafe extern "C" fn max_overhead(ssl: *mut SSL) -> usize {
        // SAFETY: AWS-LC calls with a live SSL; nobody else has it while it does.
        let ssl = unsafe { SslRef::from_ptr(ssl) };
        sealed::OVERHEAD + beside(ssl).map_or(0, |beside| beside.goes.len())
    }

    /// Makes a ticket. 1 goes on, 0 breaks the connection.
    unsafe extern "C" fn seal(
        ssl: *mut SSL,
        out: *mut u8,
        out_bytes: *mut usize,
        max_out_bytes: usize,
        session: *const u8,
        session_bytes: usize,
    ) -> c_int {
        // SAFETY: AWS-LC calls with a live SSL; nobody else has it while it does.
        let ssl = unsafe { SslRef::from_ptr(ssl) };
        // SAFETY: And with the bytes of a session.
        let session = unsafe { slice::from_raw_parts(session, session_bytes) };
        // Without contents it could not be told later what it is good for.
        let contents = beside(ssl).map(|beside| beside.goes.as_slice()).filter(|goes| !goes.is_empty());
        let ticket = contents
            .and_then(|contents| sealed::seal(&T::seals(ssl)?, contents, session))
            .filter(|ticket| ticket.len() <= max_out_bytes);
        let ticket = match ticket {
            Some(ticket) => ticket,
            None if ssl.version2() == Some(SslVersion::TLS1_3) => return 0,
            None => Vec::new(),
        };
        // SAFETY: AWS-LC has room for `max_out_bytes` there, which the ticket does not exceed, and does not look at what
        // was there. The ticket is memory of ours, and so is no part of it.
        unsafe { std::ptr::copy_nonoverlapping(ticket.as_ptr(), out, ticket.len()) };
        // SAFETY: It reads the length from there.
        unsafe { *out_bytes = ticket.len() };
        1
    }

    /// Opens a ticket that came.
    unsafe extern "C" fn open(
        ssl: *mut SSL,
        out: *mut u8,
        out_bytes: *mut usize,
        max_out_bytes: usize,
        ticket: *const u8,
        ticket_bytes: usize,
    ) -> ssl_ticket_aead_result_t {
        if ticket.is_null() || ticket_bytes == 0 {
            return IGNORE;
        }
        // SAFETY: AWS-LC calls with the bytes of a ticket.
        let ticket = unsafe { slice::from_raw_parts(ticket, ticket_bytes) };
        // SAFETY: And with a live SSL; nobody else has it while it does.
        let ssl = unsafe { SslRef::from_ptr_mut(ssl) };
        let Some(opened) = Self::counting(ssl, ticket) else { return IGNORE };
        let session = opened.session();
        if session.len() > max_out_bytes {
            return IGNORE;
        }
        // SAFETY: AWS-LC has room for `max_out_bytes` there. What is copied is memory of ours, and so is no part of it.
        unsafe { std::ptr::copy_nonoverlapping(session.as_ptr(), out, session.len()) };
        // SAFETY: It reads the length from there.
        unsafe { *out_bytes = session.len() };
        set_beside(ssl, |beside| beside.came = opened.contents().to_vec());
        SUCCESS
    }

    /// What stands in a ticket that counts. Whether another is to take its place cannot be told to AWS-LC: in TLS 1.3
    /// there always is one, in TLS 1.2 never.
    fn counting(ssl: &SslRef, ticket: &[u8]) -> Option<Opened> {
        let (key, _) = T::opens(ssl, sealed::name(ticket)?)?;
        let opened = sealed::open(&key, ticket)?;
        let session = Session::read(ssl, opened.session())?;
        T::counts(ssl, session.leaf(), opened.contents()).then_some(opened)
    }
}

/// A session that nobody else has.
struct Session(*mut SSL_SESSION);

impl Session {
    fn read(ssl: &SslRef, bytes: &[u8]) -> Option<Self> {
        // SAFETY: `ssl` is a live SSL, and its context lives as long. AWS-LC copies of the bytes what it needs.
        let session =
            unsafe { SSL_SESSION_from_bytes(bytes.as_ptr(), bytes.len(), SSL_get_SSL_CTX(ssl.as_ptr())) };
        if session.is_null() {
            // So that nobody takes it for an error of the connection.
            drop(ErrorStack::get());
        }
        (!session.is_null()).then_some(Self(session))
    }

    /// The client's certificate.
    fn leaf(&self) -> Option<&X509Ref> {
        // SAFETY: The session is alive, and the certificate belongs to it.
        unsafe {
            let leaf = SSL_SESSION_get0_peer(self.0);
            (!leaf.is_null()).then(|| X509Ref::from_ptr(leaf))
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // SAFETY: It came from `SSL_SESSION_from_bytes`, and is freed here only.
        unsafe { SSL_SESSION_free(self.0) };
    }
}
