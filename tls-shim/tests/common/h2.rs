//! A client of HTTP/2 that can say what curl cannot.

use std::net::SocketAddr;
use std::pin::Pin;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::channel::{Channel, Sender};
use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use openssl::pkey::PKey;
use openssl::ssl::{Ssl, SslContext, SslMethod};
use openssl::x509::X509;
use testbed::pki::Leaf;
use tokio::net::TcpStream;
use tokio_openssl::SslStream;

pub type Body = Channel<Bytes>;

/// A connection on which HTTP/2 is spoken, of a client that presents a certificate when asked.
pub async fn connect(address: SocketAddr, sni: &str, certificate: Option<&Leaf>) -> SslStream<TcpStream> {
    let mut context = SslContext::builder(SslMethod::tls_client()).unwrap();
    if let Some(leaf) = certificate {
        context.set_certificate(&X509::from_pem(leaf.cert.as_bytes()).unwrap()).unwrap();
        context.set_private_key(&PKey::private_key_from_pem(leaf.key.as_bytes()).unwrap()).unwrap();
    }
    context.set_alpn_protos(b"\x02h2").unwrap();
    let mut ssl = Ssl::new(&context.build()).unwrap();
    ssl.set_hostname(sni).unwrap();
    let stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let mut stream = SslStream::new(ssl, stream).unwrap();
    Pin::new(&mut stream).connect().await.unwrap();
    stream
}

pub struct Client(SendRequest<Body>);

impl Client {
    pub async fn connect(address: SocketAddr, sni: &str) -> Self {
        Self::connect_with(address, sni, None).await
    }

    /// One that presents a certificate when asked.
    pub async fn connect_with(address: SocketAddr, sni: &str, certificate: Option<&Leaf>) -> Self {
        let stream = connect(address, sni, certificate).await;
        // Room for many answers that nobody reads.
        let (sender, connection) = Builder::new(TokioExecutor::new())
            .initial_connection_window_size(1 << 30)
            .handshake(TokioIo::new(stream))
            .await
            .unwrap();
        tokio::spawn(connection);
        Self(sender)
    }

    /// Sends a request whose body comes from what is returned beside it.
    pub fn stream(
        &mut self,
        request: http::request::Builder,
    ) -> (Sender<Bytes>, impl Future<Output = hyper::Result<Response<Incoming>>> + use<>) {
        let (sender, body) = Channel::new(1);
        (sender, self.0.send_request(request.body(body).unwrap()))
    }

    /// Sends a request without body.
    pub async fn send(&mut self, request: http::request::Builder) -> hyper::Result<Response<Incoming>> {
        let (body, response) = self.stream(request);
        drop(body);
        response.await
    }
}

pub fn get(uri: &str) -> http::request::Builder {
    Request::get(uri)
}
