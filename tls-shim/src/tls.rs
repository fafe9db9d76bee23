//! This knows TLS: what the shim offers, how it asks for a client certificate, and what a handshake told.
//!
//! It is the only file near OpenSSL's callbacks. They must not panic: OpenSSL is C and cannot unwind.

mod accept_any;
mod certificates;
mod contexts;
mod server_certificate;

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use client_cert::Presented;
use kong_entities::Entities;
use openssl::error::ErrorStack;
use openssl::ssl::{
    AlpnError, NameType, SniError, Ssl, SslAcceptor, SslAcceptorBuilder, SslContext, SslContextBuilder,
    SslMethod, SslMode, SslOptions, SslRef, SslSessionCacheMode, SslVerifyMode, select_next_proto,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_openssl::SslStream;

use crate::limits;
use crate::sni::{ServerName, SniMap};
use crate::tls::contexts::Policy;

pub(crate) use self::certificates::{Certificates, Trouble};
pub(crate) use self::server_certificate::ServerCertificate;

/// What the shim speaks, the best first, in the form of ALPN (RFC 7301, section 3.1).
const PROTOCOLS: &[u8] = b"\x02h2\x08http/1.1";

/// The groups for key exchange: those of Mozilla's intermediate configuration, of which OpenSSL 3.5 and newer know the first.
const GROUPS: [&str; 2] = ["X25519MLKEM768:X25519:P-256:P-384", "X25519:P-256:P-384"];

/// Does handshakes.
pub(crate) struct Tls {
    /// Where every handshake begins. Its only use is to have the callback that chooses another.
    entrance: SslContext,
    /// A context like those that handshakes go on with.
    plain: SslContext,
    state: Arc<ArcSwap<State>>,
    /// Whoever makes the next state of one holds it, so that nobody's change is lost.
    changing: Mutex<()>,
}

/// What handshakes go by. It is replaced as a whole.
#[derive(Clone)]
struct State {
    policy: Arc<Policy>,
    certificates: Arc<Certificates>,
    /// Shown where Kong has no certificate for a name.
    default: Arc<ServerCertificate>,
}

/// What a handshake told.
pub(crate) struct Handshake {
    /// The server that the client named.
    pub(crate) server_name: ServerName,
    /// Whether the client was asked for a certificate.
    pub(crate) asked: bool,
    /// The certificates of a client that proved to have the key of the first.
    pub(crate) presented: Option<Presented>,
    /// Whether both sides agreed on HTTP/2; it is HTTP/1.1 otherwise.
    pub(crate) http2: bool,
}

impl Tls {
    /// Prepares handshakes that ask whom `map` says, and show the certificates of `entities`.
    ///
    /// # Errors
    /// OpenSSL refuses the default certificate, for a key that is too weak for example.
    pub(crate) fn new(
        default: ServerCertificate,
        map: Arc<SniMap>,
        entities: &Entities,
    ) -> Result<Self, ErrorStack> {
        let plain = context(builder()?);
        is_taken(&plain, &default)?;
        let state = State {
            policy: Arc::new(Policy::nobody(plain.clone())),
            certificates: Arc::default(),
            default: shown_by_default(default),
        };
        let state = Arc::new(ArcSwap::from_pointee(state));
        let mut entrance = builder()?;
        choose_by_name(&mut entrance, Arc::clone(&state))?;
        let tls = Self { entrance: context(entrance), plain, state, changing: Mutex::default() };
        tls.follow(map, entities);
        Ok(tls)
    }

    /// From now on, handshakes ask whom `map` says and show the certificates of `entities`. Those that have begun end as
    /// they began. What is wrong with a certificate is logged, once for as long as it stays as it is.
    pub(crate) fn follow(&self, map: Arc<SniMap>, entities: &Entities) {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.state.load_full();
        let policy = now.policy.next(map, |names| {
            let mut with_names = builder()?;
            with_names.set_client_ca_list(names);
            Ok(context(with_names))
        });
        let certificates = now.certificates.next(entities, |certificate| is_taken(&self.plain, certificate));
        certificates.news().iter().for_each(say);
        let counts = certificates.counts();
        tracing::info!(
            names = counts.names,
            certificates = counts.certificates,
            broken = counts.broken,
            refused = counts.refused,
            "server certificates by name"
        );
        let (policy, certificates) = (Arc::new(policy), Arc::new(certificates));
        self.state.store(Arc::new(State { policy, certificates, default: Arc::clone(&now.default) }));
    }

    /// From now on, handshakes show this one where Kong has none for a name.
    ///
    /// # Errors
    /// OpenSSL refuses it: the one before stays.
    pub(crate) fn replace_default(&self, default: ServerCertificate) -> Result<(), ErrorStack> {
        is_taken(&self.plain, &default)?;
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.state.load_full();
        self.state.store(Arc::new(State { default: shown_by_default(default), ..State::clone(&now) }));
        Ok(())
    }

    /// The server certificates that handshakes show now.
    pub(crate) fn certificates(&self) -> Arc<Certificates> {
        Arc::clone(&self.state.load().certificates)
    }

    /// Whether a handshake that began now would ask a client that names this server.
    pub(crate) fn asks(&self, name: &ServerName) -> bool {
        self.state.load().policy.decide(name).0
    }

    /// Does the server's side of a handshake.
    ///
    /// # Errors
    /// Those of TLS, and of reading what the client presented: that is never taken for "no certificate".
    pub(crate) async fn accept<S>(&self, stream: S) -> Result<(SslStream<S>, Handshake), openssl::ssl::Error>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut stream = SslStream::new(Ssl::new(&self.entrance)?, stream)?;
        Pin::new(&mut stream).accept().await?;
        let handshake = Handshake {
            server_name: server_name(stream.ssl()),
            asked: stream.ssl().verify_mode().contains(SslVerifyMode::PEER),
            presented: presented(stream.ssl())?,
            http2: stream.ssl().selected_alpn_protocol() == Some(b"h2"),
        };
        Ok((stream, handshake))
    }
}

impl State {
    /// What a client is shown that names this server.
    fn shown(&self, name: &ServerName) -> &ServerCertificate {
        self.certificates.choose(name).unwrap_or(&self.default)
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
fn builder() -> Result<SslAcceptorBuilder, ErrorStack> {
    let mut builder = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server())?;
    builder.set_groups_list(GROUPS[0]).or_else(|_| builder.set_groups_list(GROUPS[1]))?;
    // A chain is what stands in the certificate's file: OpenSSL has no CAs to look for more.
    builder.set_mode(SslMode::NO_AUTO_CHAIN);
    never_resume(&mut builder)?;
    builder.set_alpn_select_callback(|_, offered| {
        // Refusing what we do not speak keeps other protocols' messages from being sent to us (RFC 7301, section
        // 3.2). A client that offers nothing speaks HTTP/1.1.
        select_next_proto(PROTOCOLS, offered).ok_or(AlpnError::ALERT_FATAL)
    });
    accept_any::accept_any(&mut builder, limits::CERTIFICATES);
    // Asked is what stands where the callback below does not run.
    builder.set_verify(SslVerifyMode::PEER);
    Ok(builder)
}

fn context(builder: SslAcceptorBuilder) -> SslContext {
    builder.build().into_context()
}

/// Has a handshake decided as soon as the client has named its server.
fn choose_by_name(entrance: &mut SslContextBuilder, state: Arc<ArcSwap<State>>) -> Result<(), ErrorStack> {
    let decided = Ssl::new_ex_index::<ServerName>()?;
    // OpenSSL calls this for a ClientHello without a server name, too, and a second time after a HelloRetryRequest (RFC
    // 8446, section 4.1.4): also where the first call has changed the context, to one that has no such callback.
    entrance.set_servername_callback(move |ssl, _| {
        let name = server_name(ssl);
        if let Some(first) = ssl.ex_data(decided) {
            // The second ClientHello is the first one but for what was asked for (RFC 8446, section 4.1.2).
            return if *first == name { Ok(()) } else { Err(SniError::ALERT_FATAL) };
        }
        let state = state.load();
        let (asks, context) = state.policy.decide(&name);
        // Without FAIL_IF_NO_PEER_CERT: asking never requires.
        ssl.set_verify(if asks { SslVerifyMode::PEER } else { SslVerifyMode::NONE });
        // In this order: a connection that changes its context loses its certificate.
        ssl.set_ssl_context(context)
            .and_then(|()| state.shown(&name).give(ssl))
            .map_err(|_| SniError::ALERT_FATAL)?;
        ssl.set_ex_data(decided, name);
        Ok(())
    });
    Ok(())
}

/// Turns off all by which a connection could begin with what an earlier one had proven: a session from before a change
/// of plugins, or from a name with another policy, must not count.
fn never_resume(builder: &mut SslContextBuilder) -> Result<(), ErrorStack> {
    builder.set_options(SslOptions::NO_TICKET | SslOptions::NO_RENEGOTIATION | SslOptions::NO_COMPRESSION);
    builder.set_session_cache_mode(SslSessionCacheMode::OFF);
    builder.set_num_tickets(0)?;
    builder.set_max_early_data(0)
}

fn server_name(ssl: &SslRef) -> ServerName {
    ServerName::from_wire(ssl.servername_raw(NameType::HOST_NAME))
}

/// What the client presented. OpenSSL has checked that it has the key: a handshake in which CertificateVerify is missing
/// or wrong does not end well (RFC 8446, section 4.4.3; RFC 5246, section 7.4.8).
fn presented(ssl: &SslRef) -> Result<Option<Presented>, ErrorStack> {
    let Some(leaf) = ssl.peer_certificate() else { return Ok(None) };
    // On the server's side the chain comes without the leaf.
    let chain = ssl.peer_cert_chain().into_iter().flatten().map(|issuer| issuer.to_der());
    Ok(Some(Presented { leaf: leaf.to_der()?, chain: chain.collect::<Result<_, _>>()? }))
}

#[cfg(test)]
mod tests;
