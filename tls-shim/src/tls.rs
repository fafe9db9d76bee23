//! This knows TLS: what the shim offers, how it asks for a client certificate, and what a handshake told.
//!
//! It is the only file near OpenSSL's callbacks. They must not panic: OpenSSL is C and cannot unwind.

mod accept_any;

use std::pin::Pin;
use std::sync::Arc;

use arc_swap::ArcSwap;
use client_cert::Presented;
use openssl::error::ErrorStack;
use openssl::ex_data::Index;
use openssl::pkey::{PKey, Private};
use openssl::ssl::{
    AlpnError, NameType, Ssl, SslAcceptor, SslContext, SslContextBuilder, SslMethod, SslOptions, SslRef,
    SslSessionCacheMode, SslVerifyMode, select_next_proto,
};
use openssl::x509::X509;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_openssl::SslStream;

use crate::file::{self, FileError};
use crate::limits;
use crate::settings::CertificateFiles;
use crate::sni::{ServerName, SniMap};

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
    context: SslContext,
    map: Arc<ArcSwap<SniMap>>,
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
        let entries = self.leaf.subject_name().entries().map(|entry| {
            let name = entry.object().nid().short_name().unwrap_or("?");
            format!("{name}={}", String::from_utf8_lossy(entry.data().as_slice()))
        });
        let subject = entries.collect::<Vec<_>>().join(", ");
        format!("{subject:?}, valid until {}", self.leaf.not_after())
    }
}

impl Tls {
    /// Prepares handshakes that ask whom `map` says at the time of each.
    ///
    /// # Errors
    /// OpenSSL refuses the certificate, for a key that is too weak for example.
    pub(crate) fn new(
        certificate: &ServerCertificate,
        map: Arc<ArcSwap<SniMap>>,
    ) -> Result<Self, ErrorStack> {
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
        let snapshot = Ssl::new_ex_index()?;
        let current = Arc::clone(&map);
        // OpenSSL calls this for a ClientHello without a server name, too, and a second time after a
        // HelloRetryRequest (RFC 8446, section 4.1.4).
        builder.set_servername_callback(move |ssl, _| {
            let map = snapshot_of(ssl, snapshot, &map);
            let asks = map.asks(&server_name(ssl));
            // Without FAIL_IF_NO_PEER_CERT: asking never requires.
            ssl.set_verify(if asks { SslVerifyMode::PEER } else { SslVerifyMode::NONE });
            Ok(())
        });
        Ok(Self { context: builder.build().into_context(), map: current })
    }

    /// Whether a handshake that began now would ask a client that names this server.
    pub(crate) fn asks(&self, name: &ServerName) -> bool {
        self.map.load().asks(name)
    }

    /// Does the server's side of a handshake.
    ///
    /// # Errors
    /// Those of TLS, and of reading what the client presented: that is never taken for "no certificate".
    pub(crate) async fn accept<S>(&self, stream: S) -> Result<(SslStream<S>, Handshake), openssl::ssl::Error>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut stream = SslStream::new(Ssl::new(&self.context)?, stream)?;
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

/// Turns off all by which a connection could begin with what an earlier one had proven: a session from before a change
/// of plugins, or from a name with another policy, must not count.
fn never_resume(builder: &mut SslContextBuilder) -> Result<(), ErrorStack> {
    builder.set_options(SslOptions::NO_TICKET | SslOptions::NO_RENEGOTIATION | SslOptions::NO_COMPRESSION);
    builder.set_session_cache_mode(SslSessionCacheMode::OFF);
    builder.set_num_tickets(0)?;
    builder.set_max_early_data(0)
}

/// The map that this handshake goes by, from its first ClientHello on.
fn snapshot_of(ssl: &mut SslRef, index: Index<Ssl, Arc<SniMap>>, map: &ArcSwap<SniMap>) -> Arc<SniMap> {
    if let Some(map) = ssl.ex_data(index) {
        return Arc::clone(map);
    }
    let map = map.load_full();
    ssl.set_ex_data(index, Arc::clone(&map));
    map
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
