//! This knows TLS: what the shim offers, how it asks for a client certificate, and what a handshake told.
//!
//! OpenSSL calls back into it, and into what it calls from there. None of that may panic: OpenSSL is C and cannot unwind.

mod certificates;
mod contexts;
mod decision;
mod raw;
mod server_certificate;
mod session_tickets;

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use client_cert::Presented;
use kong_entities::Entities;
use openssl::error::ErrorStack;
use openssl::ssl::{
    AlpnError, NameType, SniError, Ssl, SslAcceptor, SslAcceptorBuilder, SslCipherRef, SslContext,
    SslContextBuilder, SslMethod, SslMode, SslRef, SslSessionCacheMode, SslVerifyMode, select_next_proto,
};
use openssl::stack::Stack;
use openssl::x509::X509Name;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_openssl::SslStream;

use crate::limits;
use crate::settings::TlsSettings;
use crate::sni::{ServerName, SniMap};
use crate::tls::contexts::Contexts;
use crate::tls::decision::{Decision, Resumption};
use crate::tls::raw::Refused;
use crate::tls::session_tickets::Policy;

pub(crate) use self::certificates::{Certificates, Trouble};
pub(crate) use self::raw::{library, set_ciphersuites};
pub(crate) use self::server_certificate::ServerCertificate;
pub(crate) use self::session_tickets::{SecretsError, SessionTickets};

/// What the shim speaks, the best first, in the form of ALPN (RFC 7301, section 3.1).
const PROTOCOLS: &[u8] = b"\x02h2\x08http/1.1";

/// Does handshakes.
pub(crate) struct Tls {
    front: ArcSwap<Front>,
    /// Whoever makes the next front or state of one holds it, so that nobody's change is lost.
    changing: Mutex<()>,
}

/// All contexts under the same settings. A handshake ends under those that it began under, with the last state that these had.
struct Front {
    settings: TlsSettings,
    /// Where every handshake begins. Its only use is to have the callback that chooses another.
    entrance: SslContext,
    /// A context like those that handshakes go on with.
    plain: SslContext,
    state: Arc<ArcSwap<State>>,
}

/// What handshakes go by. It is replaced as a whole.
#[derive(Clone)]
struct State {
    contexts: Arc<Contexts>,
    certificates: Arc<Certificates>,
    /// Shown where Kong has no certificate for a name.
    default: Arc<ServerCertificate>,
    /// None: sessions are not resumed.
    tickets: Option<Arc<SessionTickets>>,
    /// See [`TlsSettings::fingerprint`].
    fingerprint: Arc<str>,
    /// Whether anything is known of Kong's configuration.
    is_known: bool,
    /// When the generation of the map became another.
    since: SystemTime,
}

/// What is to be said of the map that counts.
pub(crate) struct MapFacts {
    pub(crate) is_known: bool,
    /// See [`SniMap::generation`].
    pub(crate) generation: [u8; 32],
    /// When it became another.
    pub(crate) since: SystemTime,
    pub(crate) names: usize,
}

/// What a handshake told.
pub(crate) struct Handshake {
    /// The server that the client named.
    pub(crate) server_name: ServerName,
    /// Whether the client was asked for a certificate.
    pub(crate) asked: bool,
    /// The certificates of a client that proved to have the key of the first: in this handshake, or in the one in which
    /// the session began that it resumes.
    pub(crate) presented: Option<Presented>,
    /// Whether it resumes a session.
    pub(crate) resumed: bool,
    /// Whether both sides agreed on HTTP/2; it is HTTP/1.1 otherwise.
    pub(crate) http2: bool,
    /// `TLSv1.3`, as OpenSSL calls it.
    pub(crate) version: &'static str,
    /// As OpenSSL calls it.
    pub(crate) cipher: &'static str,
    /// How long it took, waiting for the client included.
    pub(crate) took: Duration,
}

impl Tls {
    /// Prepares handshakes that ask whom `map` says, and show the certificates of `entities`.
    ///
    /// # Errors
    /// OpenSSL refuses the default certificate, for a key that is too weak for example.
    pub(crate) fn new(
        settings: &TlsSettings,
        default: ServerCertificate,
        tickets: Option<SessionTickets>,
        map: Arc<SniMap>,
        entities: &Entities,
    ) -> Result<Self, ErrorStack> {
        let plain = context(builder(settings)?);
        is_taken(&plain, &default)?;
        let state = State {
            contexts: Arc::new(Contexts::nobody(plain.clone())),
            certificates: Arc::default(),
            default: shown_by_default(default),
            tickets: tickets.map(Arc::new),
            fingerprint: settings.fingerprint().into(),
            is_known: entities.is_known(),
            since: SystemTime::now(),
        };
        let front = Front::new(settings.clone(), plain, state)?;
        let tls = Self { front: ArcSwap::from_pointee(front), changing: Mutex::default() };
        tls.follow(map, entities);
        Ok(tls)
    }

    /// From now on, handshakes begin under these settings. Sessions from before are full handshakes.
    ///
    /// # Errors
    /// OpenSSL refuses them: those before stay.
    pub(crate) fn replace_settings(&self, settings: &TlsSettings) -> Result<(), ErrorStack> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let front = self.front.load();
        if front.settings == *settings {
            return Ok(());
        }
        let now = front.state.load_full();
        let plain = context(builder(settings)?);
        let nobody = Contexts::nobody(plain.clone());
        let contexts = nobody.next(Arc::clone(now.contexts.map()), |names| named(settings, names));
        let (contexts, fingerprint) = (Arc::new(contexts), settings.fingerprint().into());
        let state = State { contexts, fingerprint, ..State::clone(&now) };
        self.front.store(Arc::new(Front::new(settings.clone(), plain, state)?));
        Ok(())
    }

    /// From now on, handshakes ask whom `map` says and show the certificates of `entities`. Those that have begun end as
    /// they began. What is wrong with a certificate is logged, once for as long as it stays as it is.
    pub(crate) fn follow(&self, map: Arc<SniMap>, entities: &Entities) {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let front = self.front.load();
        let now = front.state.load_full();
        let contexts = now.contexts.next(map, |names| named(&front.settings, names));
        let certificates = now.certificates.next(entities, |certificate| is_taken(&front.plain, certificate));
        certificates.news().iter().for_each(say);
        let counts = certificates.counts();
        tracing::info!(
            names = counts.names,
            certificates = counts.certificates,
            broken = counts.broken,
            refused = counts.refused,
            "server certificates by name"
        );
        let (contexts, certificates) = (Arc::new(contexts), Arc::new(certificates));
        let is_same = contexts.generation() == now.contexts.generation();
        let since = if is_same { now.since } else { SystemTime::now() };
        let is_known = entities.is_known();
        let next = State { contexts, certificates, is_known, since, ..State::clone(&now) };
        front.state.store(Arc::new(next));
    }

    /// From now on, handshakes show this one where Kong has none for a name.
    ///
    /// # Errors
    /// OpenSSL refuses it: the one before stays.
    pub(crate) fn replace_default(&self, default: ServerCertificate) -> Result<(), ErrorStack> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let front = self.front.load();
        is_taken(&front.plain, &default)?;
        let now = front.state.load_full();
        front.state.store(Arc::new(State { default: shown_by_default(default), ..State::clone(&now) }));
        Ok(())
    }

    /// From now on, handshakes go by these tickets; None: nobody gets any, and those that clients have do not count.
    pub(crate) fn replace_tickets(&self, tickets: Option<SessionTickets>) {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let front = self.front.load();
        let now = front.state.load_full();
        front.state.store(Arc::new(State { tickets: tickets.map(Arc::new), ..State::clone(&now) }));
    }

    /// What handshakes go by now.
    pub(crate) fn tickets(&self) -> Option<Arc<SessionTickets>> {
        self.front.load().state.load().tickets.clone()
    }

    /// The server certificates that handshakes show now.
    pub(crate) fn certificates(&self) -> Arc<Certificates> {
        Arc::clone(&self.front.load().state.load().certificates)
    }

    /// The server certificate that they show where Kong has none for a name.
    pub(crate) fn default_certificate(&self) -> Arc<ServerCertificate> {
        Arc::clone(&self.front.load().state.load().default)
    }

    /// What handshakes go by now.
    pub(crate) fn map(&self) -> MapFacts {
        let state = self.front.load().state.load_full();
        let map = state.contexts.map();
        let (is_known, since) = (state.is_known, state.since);
        MapFacts { is_known, generation: *map.generation(), since, names: map.len() }
    }

    /// Whether a handshake that began now would ask a client that names this server.
    pub(crate) fn asks(&self, name: &ServerName) -> bool {
        self.front.load().state.load().contexts.choose(name).0
    }

    /// Does the server's side of a handshake.
    ///
    /// # Errors
    /// Those of TLS, and of reading what the client presented: that is never taken for "no certificate".
    pub(crate) async fn accept<S>(&self, stream: S) -> Result<(SslStream<S>, Handshake), openssl::ssl::Error>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let begun = Instant::now();
        let mut stream = SslStream::new(Ssl::new(&self.front.load().entrance)?, stream)?;
        Pin::new(&mut stream).accept().await?;
        // Without a decision there was no callback, which cannot be; nobody knows then what was asked.
        let decision = Decision::of(stream.ssl()).ok_or_else(ErrorStack::get)?;
        let handshake = Handshake {
            server_name: decision.server_name.clone(),
            asked: decision.asks,
            presented: decision::presented(stream.ssl())?,
            resumed: stream.ssl().session_reused(),
            http2: stream.ssl().selected_alpn_protocol() == Some(b"h2"),
            version: stream.ssl().version_str(),
            cipher: stream.ssl().current_cipher().map_or("", SslCipherRef::name),
            took: begun.elapsed(),
        };
        Ok((stream, handshake))
    }
}

impl Front {
    fn new(settings: TlsSettings, plain: SslContext, state: State) -> Result<Self, ErrorStack> {
        let state = Arc::new(ArcSwap::from_pointee(state));
        let mut entrance = builder(&settings)?;
        choose_by_name(&mut entrance, Arc::clone(&state))?;
        Ok(Self { settings, entrance: context(entrance), plain, state })
    }
}

impl State {
    /// What a client is shown that names this server.
    fn shown(&self, name: &ServerName) -> &ServerCertificate {
        self.certificates.choose(name).unwrap_or(&self.default)
    }

    /// Prepares a connection for a client that names this server.
    fn decide(&self, server_name: ServerName, ssl: &mut SslRef) -> Result<(), ErrorStack> {
        let (asks, context) = self.contexts.choose(&server_name);
        let shown = self.shown(&server_name);
        // Without FAIL_IF_NO_PEER_CERT: asking never requires.
        ssl.set_verify(if asks { SslVerifyMode::PEER } else { SslVerifyMode::NONE });
        // In this order: a connection that changes its context loses its certificate.
        ssl.set_ssl_context(context)?;
        shown.give(ssl)?;
        let resumption = self.tickets.as_ref().map(|tickets| {
            let policy = Policy::new(
                &server_name,
                asks,
                self.contexts.generation(),
                shown.digest(),
                &self.fingerprint,
            );
            let is_bound = raw::offers_extended_master_secret(ssl);
            Resumption { tickets: Arc::clone(tickets), policy, is_bound }
        });
        Decision { server_name, asks, resumption }.keep(ssl)
    }
}

/// Whether OpenSSL would take it in a handshake.
fn is_taken(context: &SslContext, certificate: &ServerCertificate) -> Result<(), ErrorStack> {
    let mut ssl = Ssl::new(context)?;
    certificate.give(&mut ssl)
}

/// Tells the log of a default certificate that counts from now on, if there is something to tell.
fn shown_by_default(certificate: ServerCertificate) -> Arc<ServerCertificate> {
    if let Some(reason) = certificate.untimely() {
        tracing::warn!(reason, "the default certificate is shown to clients that will not take it");
    }
    Arc::new(certificate)
}

fn say(Trouble { broken, id, names, reason }: &Trouble) {
    if *broken {
        tracing::error!(
            names,
            id,
            reason,
            "a server certificate cannot be used: its names keep the last good one that they had, or else get the next \
             that matches them"
        );
    } else {
        tracing::warn!(names, id, reason, "something is wrong with a server certificate or its names");
    }
}

/// All that every context has. Several are used for one connection, so none may have anything that another has not: which
/// of its parts OpenSSL takes over when a connection changes its context, and which it leaves, is nowhere promised. None has
/// a certificate: what a connection took over from it could be shown beside its own, as the one of another kind.
fn builder(settings: &TlsSettings) -> Result<SslAcceptorBuilder, ErrorStack> {
    let mut builder = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server())?;
    settings.apply(&mut builder)?;
    raw::prefer_own_order(&mut builder);
    // A chain is what stands in the certificate's file: OpenSSL has no CAs to look for more.
    builder.set_mode(SslMode::NO_AUTO_CHAIN);
    // A record is read in one go, rather than its header first, and the read that finds nothing after it is saved, too. What
    // was read too much of is OpenSSL's until it is asked for: nobody looks at the socket without asking it.
    builder.set_read_ahead(true);
    resume_by_tickets(&mut builder)?;
    builder.set_alpn_select_callback(|_, offered| {
        // Refusing what we do not speak keeps other protocols' messages from being sent to us (RFC 7301, section
        // 3.2). A client that offers nothing speaks HTTP/1.1.
        select_next_proto(PROTOCOLS, offered).ok_or(AlpnError::ALERT_FATAL)
    });
    raw::accept_any(&mut builder, limits::CERTIFICATES)?;
    // Asked is what stands where the callback below does not run.
    builder.set_verify(SslVerifyMode::PEER);
    Ok(builder)
}

/// A context that sends these CA names.
fn named(settings: &TlsSettings, names: Stack<X509Name>) -> Result<SslContext, ErrorStack> {
    let mut builder = builder(settings)?;
    builder.set_client_ca_list(names);
    Ok(context(builder))
}

fn context(builder: SslAcceptorBuilder) -> SslContext {
    builder.build().into_context()
}

/// Has a handshake decided as soon as the client has named its server, and before OpenSSL looks at a ticket.
fn choose_by_name(entrance: &mut SslContextBuilder, state: Arc<ArcSwap<State>>) -> Result<(), ErrorStack> {
    // OpenSSL calls this for the first ClientHello only: the context that the connection goes on with has none.
    raw::set_client_hello_callback(entrance, move |ssl| {
        let name = ServerName::from_extension(raw::server_name_extension(ssl));
        let name = name.map_err(|_| Refused::Malformed)?;
        state.load().decide(name, ssl).map_err(Refused::Failed)
    })?;
    // And this when it has read the name by itself, without a server name too, and again after a HelloRetryRequest (RFC
    // 8446, section 4.1.4). The second ClientHello is the first one but for what was asked for (section 4.1.2). In TLS
    // 1.2, that of a session which is resumed comes from the ticket.
    entrance.set_servername_callback(|ssl, _| {
        let name = ServerName::from_wire(ssl.servername_raw(NameType::HOST_NAME));
        match Decision::of(ssl) {
            Some(decision) if decision.server_name == name => Ok(()),
            _ => Err(SniError::ALERT_FATAL),
        }
    });
    Ok(())
}

/// Has a connection begin with what an earlier one has proven only where [`session_tickets`] says so. There is nothing else
/// to begin with: no cache of sessions, and no data before the handshake has ended, which could be sent twice.
fn resume_by_tickets(builder: &mut SslContextBuilder) -> Result<(), ErrorStack> {
    raw::forbid(builder)?;
    builder.set_session_cache_mode(SslSessionCacheMode::OFF);
    // OpenSSL wants one wherever a client may be asked. It is the same for all: what a session is good for is told by
    // the key of its ticket.
    builder.set_session_id_context(b"tls-shim")?;
    raw::send_few_tickets(builder)?;
    raw::set_tickets::<Decision>(builder)
}

#[cfg(test)]
mod tests;
