//! This knows TLS: what the shim offers, how it asks for a client certificate, and what a handshake told.
//!
//! It is the only file near OpenSSL's callbacks. They must not panic: OpenSSL is C and cannot unwind.

mod accept_any;
mod contexts;

use std::pin::Pin;
use std::sync::Arc;

use arc_swap::ArcSwap;
use client_cert::Presented;
use openssl::error::ErrorStack;
use openssl::ex_data::Index;
use openssl::pkey::{PKey, Private};
use openssl::ssl::{
    AlpnError, NameType, SniError, Ssl, SslAcceptor, SslAcceptorBuilder, SslContext, SslContextBuilder,
    SslMethod, SslOptions, SslRef, SslSessionCacheMode, SslVerifyMode, select_next_proto,
};
use openssl::x509::X509;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_openssl::SslStream;

use crate::distinguished_name::DistinguishedName;
use crate::file::{self, FileError};
use crate::limits;
use crate::settings::CertificateFiles;
use crate::sni::{ServerName, SniMap};
use crate::tls::contexts::Policy;

/// What the shim speaks, the best first, in the form of ALPN (RFC 7301, section 3.1).
const PROTOCOLS: &[u8] = b"\x02h2\x08http/1.1";

/// What the shim shows to clients.
pub(crate) struct ServerCertificate {
    leaf: X509,
    chain: Vec<X509>,
    key: PKey<Private>,
}

/// Does handshakes.
pub(crate) struct Tls {
    certificate: ServerCertificate,
    /// Where every handshake begins. Its only use is to have the callback that chooses another.
    entrance: SslContext,
    policy: Arc<ArcSwap<Policy>>,
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

impl ServerCertificate {
    /// Reads certificate, chain and key.
    ///
    /// # Errors
    /// Names the file and what is wrong with it.
    pub(crate) fn read(files: &CertificateFiles) -> Result<Self, FileError> {
        let mut certificates = file::read(&files.cert, |pem| {
            let certificates = X509::stack_from_pem(pem.as_bytes()).unwrap_or_default();
            if certificates.is_empty() { Err("it holds no certificate in PEM") } else { Ok(certificates) }
        })?;
        let leaf = certificates.remove(0);
        let key = file::read(&files.key, |pem| {
            // The callback keeps OpenSSL from asking for a passphrase on the terminal.
            let key = PKey::private_key_from_pem_callback(pem.as_bytes(), |_| Err(ErrorStack::get()));
            let key = key.map_err(|_| "it holds no private key in PEM without a passphrase".to_owned())?;
            match leaf.public_key() {
                Ok(public) if public.public_eq(&key) => Ok(key),
                _ => Err(format!("the key does not belong to the certificate in {}", files.cert.display())),
            }
        })?;
        Ok(Self { leaf, chain: certificates, key })
    }

    /// Its subject and its end, for people to read.
    pub(crate) fn summary(&self) -> String {
        let subject = DistinguishedName::new(self.leaf.subject_name());
        let subject = subject.map(|name| name.to_string()).unwrap_or_default();
        format!("\"{subject}\", valid until {}", self.leaf.not_after())
    }
}

impl Tls {
    /// Prepares handshakes that ask whom `map` says.
    ///
    /// # Errors
    /// OpenSSL refuses the certificate, for a key that is too weak for example.
    pub(crate) fn new(certificate: ServerCertificate, map: Arc<SniMap>) -> Result<Self, ErrorStack> {
        let plain = context(builder(&certificate)?);
        let policy = Arc::new(ArcSwap::from_pointee(Policy::nobody(plain)));
        let mut entrance = builder(&certificate)?;
        choose_by_name(&mut entrance, Arc::clone(&policy))?;
        let tls = Self { certificate, entrance: context(entrance), policy };
        tls.follow(map);
        Ok(tls)
    }

    /// From now on, handshakes ask whom `map` says. Those that have begun end as they began.
    pub(crate) fn follow(&self, map: Arc<SniMap>) {
        let next = self.policy.load().next(map, |names| {
            let mut with_names = builder(&self.certificate)?;
            with_names.set_client_ca_list(names);
            Ok(context(with_names))
        });
        self.policy.store(Arc::new(next));
    }

    /// Whether a handshake that began now would ask a client that names this server.
    pub(crate) fn asks(&self, name: &ServerName) -> bool {
        self.policy.load().decide(name).0
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

/// All that every context has. Several are used for one connection, so none may have anything that another has not: which
/// of its parts OpenSSL takes over when a connection changes its context, and which it leaves, is nowhere promised.
fn builder(certificate: &ServerCertificate) -> Result<SslAcceptorBuilder, ErrorStack> {
    let mut builder = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server())?;
    builder.set_certificate(&certificate.leaf)?;
    for issuer in &certificate.chain {
        builder.add_extra_chain_cert(issuer.clone())?;
    }
    builder.set_private_key(&certificate.key)?;
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
fn choose_by_name(entrance: &mut SslContextBuilder, policy: Arc<ArcSwap<Policy>>) -> Result<(), ErrorStack> {
    let snapshot = Ssl::new_ex_index()?;
    // OpenSSL calls this for a ClientHello without a server name, too, and a second time after a HelloRetryRequest (RFC
    // 8446, section 4.1.4): also where the first call has changed the context, to one that has no such callback.
    entrance.set_servername_callback(move |ssl, _| {
        let policy = snapshot_of(ssl, snapshot, &policy);
        let (asks, context) = policy.decide(&server_name(ssl));
        // Without FAIL_IF_NO_PEER_CERT: asking never requires.
        ssl.set_verify(if asks { SslVerifyMode::PEER } else { SslVerifyMode::NONE });
        ssl.set_ssl_context(context).map_err(|_| SniError::ALERT_FATAL)
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

/// The policy that this handshake goes by, from its first ClientHello on.
fn snapshot_of(ssl: &mut SslRef, index: Index<Ssl, Arc<Policy>>, policy: &ArcSwap<Policy>) -> Arc<Policy> {
    if let Some(policy) = ssl.ex_data(index) {
        return Arc::clone(policy);
    }
    let policy = policy.load_full();
    ssl.set_ex_data(index, Arc::clone(&policy));
    policy
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
