//! What makes an upstream one that speaks TLS, as Kong's listener with `ssl` does.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use openssl::pkey::PKey;
use openssl::ssl::{AlpnError, NameType, Ssl, SslAcceptor, SslMethod, select_next_proto};
use openssl::x509::X509;
use testbed::pki::Leaf;
use tokio::net::{TcpListener, TcpStream};
use tokio_openssl::SslStream;

pub struct TlsFront {
    pub port: u16,
    names: Arc<Mutex<Vec<Option<String>>>>,
}

impl TlsFront {
    /// Ends TLS in front of `upstream`; ALPN offers these protocols.
    pub async fn start(certificate: &Leaf, upstream: SocketAddr, protocols: &'static [u8]) -> Self {
        let mut builder = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server()).unwrap();
        builder.set_certificate(&X509::from_pem(certificate.cert.as_bytes()).unwrap()).unwrap();
        builder.set_private_key(&PKey::private_key_from_pem(certificate.key.as_bytes()).unwrap()).unwrap();
        builder.set_alpn_select_callback(move |_, offered| {
            select_next_proto(protocols, offered).ok_or(AlpnError::NOACK)
        });
        let context = builder.build().into_context();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let names = Arc::new(Mutex::new(Vec::new()));
        let noting = Arc::clone(&names);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (noting, ssl) = (Arc::clone(&noting), Ssl::new(&context).unwrap());
                tokio::spawn(async move {
                    let mut stream = SslStream::new(ssl, stream).unwrap();
                    if Pin::new(&mut stream).accept().await.is_err() {
                        return;
                    }
                    let name = stream.ssl().servername(NameType::HOST_NAME).map(str::to_owned);
                    noting.lock().unwrap().push(name);
                    let mut upstream = TcpStream::connect(upstream).await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut stream, &mut upstream).await;
                });
            }
        });
        Self { port, names }
    }

    /// The SNI of each connection so far.
    pub fn names(&self) -> Vec<Option<String>> {
        self.names.lock().unwrap().clone()
    }
}
