//! This knows a TLS client that tells whether it was asked for a certificate.
//!
//! It is that of the openssl crate, on whichever library that is built, so it can name any server and force a version. It trusts every server.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use openssl::ec::EcKey;
use openssl::pkey::{PKey, Private};
use openssl::ssl::{
    HandshakeError, ShutdownState, Ssl, SslCipherRef, SslContext, SslContextBuilder, SslMethod, SslRef,
    SslStream, SslVerifyMode, SslVersion,
};
use openssl::x509::X509;

use crate::pki::{Ca, Leaf};
use crate::process::PATIENCE;

pub use openssl::ssl::SslVersion as Version;

/// What a client does; see [`TlsClient::connect`].
pub struct TlsClient {
    context: SslContextBuilder,
    sni: Option<String>,
    preface: Vec<u8>,
}

/// A connection after its handshake.
pub struct TlsConnection {
    stream: SslStream<Tapped>,
    asked: bool,
}

impl TlsClient {
    /// One that names `sni`, or no server.
    pub fn new(sni: Option<&str>) -> Self {
        let mut context = SslContext::builder(SslMethod::tls_client()).expect("a context");
        context.set_verify(SslVerifyMode::NONE);
        Self { context, sni: sni.map(str::to_owned), preface: Vec::new() }
    }

    /// Speaks this version only.
    pub fn version(mut self, version: SslVersion) -> Self {
        self.context.set_min_proto_version(Some(version)).expect("a version");
        self.context.set_max_proto_version(Some(version)).expect("a version");
        self
    }

    /// Sends these bytes before the handshake, as a front does that speaks the PROXY protocol.
    pub fn preface(mut self, bytes: &[u8]) -> Self {
        self.preface = bytes.to_vec();
        self
    }

    /// Offers these protocols by ALPN, each with its length before it.
    pub fn alpn(mut self, protocols: &[u8]) -> Self {
        self.context.set_alpn_protos(protocols).expect("protocols");
        self
    }

    /// Presents a certificate when asked, followed by `chain`.
    pub fn certificate(self, leaf: &Leaf, chain: &[&Ca]) -> Self {
        let key = PKey::private_key_from_pem(leaf.key.as_bytes()).expect("a key");
        self.present(leaf, chain, &key)
    }

    /// Presents a certificate in DER when asked, whose key is this.
    pub fn certificate_of(mut self, der: &[u8], key: PKey<Private>) -> Self {
        let certificate = X509::from_der(der).expect("a certificate");
        self.context.set_certificate(&certificate).expect("a leaf");
        self.context.set_private_key(&key).expect("a key that belongs to the certificate");
        self
    }

    /// Presents somebody's certificate when asked, without having the key of it.
    pub fn stolen_certificate(self, leaf: &Leaf) -> Self {
        let theirs = X509::from_pem(leaf.cert.as_bytes()).expect("a certificate");
        let theirs = theirs.public_key().and_then(|key| key.ec_key()).expect("an EC key");
        let ours = EcKey::generate(theirs.group()).expect("a key");
        // OpenSSL compares public keys only, so it takes this for the key of the certificate.
        let forged = EcKey::from_private_components(theirs.group(), ours.private_key(), theirs.public_key());
        let forged = forged.and_then(PKey::from_ec_key).expect("a key");
        self.present(leaf, &[], &forged)
    }

    fn present(mut self, leaf: &Leaf, chain: &[&Ca], key: &PKey<Private>) -> Self {
        let context = &mut self.context;
        context
            .set_certificate(&X509::from_pem(leaf.cert.as_bytes()).expect("a certificate"))
            .expect("a leaf");
        for ca in chain {
            let ca = X509::from_der(&ca.der()).expect("a certificate");
            context.add_extra_chain_cert(ca).expect("a chain");
        }
        context.set_private_key(key).expect("a key that belongs to the certificate");
        self
    }

    /// Does the handshake.
    ///
    /// # Errors
    /// What the handshake ended with. In TLS 1.3 a client is done before the server has looked at its certificate: what
    /// the server has against it comes with the first [`TlsConnection::exchange`].
    pub fn connect(self, address: SocketAddr) -> Result<TlsConnection, String> {
        self.connect_over(TcpStream::connect(address).map_err(|error| error.to_string())?)
    }

    /// The same over a connection that is there.
    ///
    /// # Errors
    /// As [`Self::connect`].
    pub fn connect_over(self, mut stream: TcpStream) -> Result<TlsConnection, String> {
        stream.write_all(&self.preface).map_err(|error| error.to_string())?;
        stream.set_read_timeout(Some(PATIENCE)).expect("a limit");
        let mut ssl = Ssl::new(&self.context.build()).expect("a connection");
        if let Some(sni) = &self.sni {
            ssl.set_hostname(sni).expect("a name");
        }
        let stream = ssl.connect(Tapped { stream, received: Vec::new(), sent: Vec::new() });
        let stream = stream.map_err(|error| match error {
            HandshakeError::Failure(stream) => stream.error().to_string(),
            other => other.to_string(),
        })?;
        let tapped = stream.get_ref();
        let asked = match stream.ssl().version2() {
            Some(SslVersion::TLS1_3) => application_bytes(&tapped.sent) > finished_bytes(stream.ssl()),
            _ => handshake_messages(&tapped.received).contains(&CERTIFICATE_REQUEST),
        };
        Ok(TlsConnection { stream, asked })
    }
}

impl TlsConnection {
    /// Whether the server sent a CertificateRequest.
    pub fn asked(&self) -> bool {
        self.asked
    }

    /// Says that nothing more is sent; the other side may still send.
    pub fn end(&mut self) {
        // The other side may be gone already.
        let _ = self.stream.shutdown();
        let _ = self.stream.get_ref().stream.shutdown(Shutdown::Write);
    }

    /// Whether the other side has said that it sends nothing more, rather than just gone.
    pub fn has_ended(&mut self) -> bool {
        self.stream.get_shutdown().contains(ShutdownState::RECEIVED)
    }

    /// Lets a write fail that does not go on for a second, in place of waiting for ever.
    pub fn limit_writes(&self) {
        self.stream.get_ref().stream.set_write_timeout(Some(Duration::from_secs(1))).expect("a limit");
    }

    /// Sends bytes and reads until the server ends the connection.
    ///
    /// # Errors
    /// What the connection broke with, such as an alert about the client's certificate.
    pub fn exchange(mut self, request: &[u8]) -> io::Result<String> {
        self.stream.write_all(request)?;
        let mut answer = Vec::new();
        self.stream.read_to_end(&mut answer)?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }
}

impl Read for TlsConnection {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.read(buffer)
    }
}

impl Write for TlsConnection {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.stream.write(data)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

/// A stream whose bytes are kept.
#[derive(Debug)]
struct Tapped {
    stream: TcpStream,
    received: Vec<u8>,
    sent: Vec<u8>,
}

impl Read for Tapped {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.stream.read(buffer)?;
        self.received.extend(&buffer[..count]);
        Ok(count)
    }
}

impl Write for Tapped {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let count = self.stream.write(data)?;
        self.sent.extend(&data[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

const CERTIFICATE_REQUEST: u8 = 13;
const CHANGE_CIPHER_SPEC: u8 = 20;
const HANDSHAKE: u8 = 22;
const APPLICATION_DATA: u8 = 23;

/// The types and contents of TLS records (RFC 8446, section 5.1).
fn records(mut bytes: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    std::iter::from_fn(move || {
        let (&[kind, _, _, high, low], rest) = bytes.split_first_chunk::<5>()?;
        let (content, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes([high, low])))?;
        bytes = rest;
        Some((kind, content))
    })
}

/// The bytes that the client has sent under its keys by the end of a handshake of TLS 1.3: a Finished, and before it, only
/// where it was asked, a Certificate, be it empty (RFC 8446, section 4.4.2). AWS-LC sends both in one record, OpenSSL in two.
fn application_bytes(sent: &[u8]) -> usize {
    records(sent).filter(|&(kind, _)| kind == APPLICATION_DATA).map(|(_, content)| content.len()).sum()
}

/// The bytes of a Finished in a record of its own: its header, a MAC by the hash of the cipher suite, the type of what is in
/// the record, and its tag (RFC 8446, sections 4.4.4 and 5.2).
fn finished_bytes(ssl: &SslRef) -> usize {
    let suite = ssl.current_cipher().map_or("", SslCipherRef::name);
    let mac = if suite.ends_with("SHA384") { 48 } else { 32 };
    4 + mac + 1 + 16
}

/// The types of the messages that a server of TLS 1.2 sent in the clear (RFC 5246, section 7.4).
fn handshake_messages(received: &[u8]) -> Vec<u8> {
    let clear = records(received).take_while(|&(kind, _)| kind != CHANGE_CIPHER_SPEC);
    let clear: Vec<u8> =
        clear.filter(|&(kind, _)| kind == HANDSHAKE).flat_map(|(_, part)| part.to_vec()).collect();
    let (mut types, mut rest) = (Vec::new(), clear.as_slice());
    while let Some((&[kind, a, b, c], after)) = rest.split_first_chunk::<4>() {
        types.push(kind);
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        rest = after.get(length..).unwrap_or_default();
    }
    types
}
