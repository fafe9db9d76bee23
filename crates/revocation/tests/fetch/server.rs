//! A server that answers, or fails to, as its script says; also a proxy.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use openssl::pkey::PKey;
use openssl::ssl::{NameType, Ssl, SslAcceptor, SslMethod, SslVersion};
use openssl::x509::X509;
use testbed::pki::Leaf;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A request as it came in.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Request line and header.
    pub head: String,
    pub body: Vec<u8>,
    /// The server name of the TLS connection.
    pub sni: Option<String>,
}

/// What is done with a request.
pub enum Reply {
    /// These bytes, and the end.
    Raw(Vec<u8>),
    /// These bytes, and then silence.
    Hang(Vec<u8>),
    /// These bytes, and then some again and again, with a pause before each.
    Forever(Vec<u8>, Vec<u8>, Duration),
    /// What CONNECT asks for, wherever it would have led.
    Tunnel(SocketAddr),
}

type Script = dyn Fn(&Seen) -> Reply + Send + Sync;

/// A running server. It ends with the runtime.
pub struct Server {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    tls: Option<SslAcceptor>,
    script: Box<Script>,
    connections: Mutex<usize>,
    seen: Mutex<Vec<Seen>>,
}

impl Server {
    pub async fn start(script: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_with(None, script).await
    }

    /// By TLS with this certificate.
    pub async fn start_tls(leaf: &Leaf, script: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_with(Some(acceptor(leaf, SslVersion::TLS1_3)), script).await
    }

    pub async fn start_with(
        tls: Option<SslAcceptor>,
        script: impl Fn(&Seen) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            tls,
            script: Box::new(script),
            connections: Mutex::default(),
            seen: Mutex::default(),
        });
        let server = Self { address, shared: Arc::clone(&shared) };
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                *shared.connections.lock().unwrap() += 1;
                let shared = Arc::clone(&shared);
                tokio::spawn(async move {
                    let Some(tls) = &shared.tls else { return answer(stream, None, &shared).await };
                    let ssl = Ssl::new(tls.context()).unwrap();
                    let mut stream = tokio_openssl::SslStream::new(ssl, stream).unwrap();
                    if Pin::new(&mut stream).accept().await.is_ok() {
                        let sni = stream.ssl().servername(NameType::HOST_NAME).map(str::to_owned);
                        answer(stream, sni, &shared).await;
                    }
                });
            }
        });
        server
    }

    /// An `http` URL.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn connections(&self) -> usize {
        *self.shared.connections.lock().unwrap()
    }

    /// What has been asked since the last time.
    pub fn take_seen(&self) -> Vec<Seen> {
        std::mem::take(&mut *self.shared.seen.lock().unwrap())
    }

    /// The request lines of that.
    pub fn take_lines(&self) -> Vec<String> {
        self.take_seen().iter().map(|seen| seen.head.lines().next().unwrap().to_owned()).collect()
    }
}

/// TLS in no version above this one, with this certificate.
pub fn acceptor(leaf: &Leaf, most: SslVersion) -> SslAcceptor {
    let mut builder = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server()).unwrap();
    if most == SslVersion::TLS1_1 {
        // OpenSSL does not speak it any more without being asked to.
        builder.set_cipher_list("ALL:@SECLEVEL=0").unwrap();
        builder.set_options(openssl::ssl::SslOptions::empty());
        builder.clear_options(openssl::ssl::SslOptions::NO_TLSV1_1);
        builder.set_min_proto_version(Some(SslVersion::TLS1_1)).unwrap();
    }
    builder.set_max_proto_version(Some(most)).unwrap();
    builder.set_certificate(&X509::from_der(&leaf.der).unwrap()).unwrap();
    builder.set_private_key(&PKey::private_key_from_pem(leaf.key.as_bytes()).unwrap()).unwrap();
    builder.build()
}

/// A whole answer with status 200.
pub fn ok(body: &[u8]) -> Reply {
    with_status("200 OK", "", body)
}

/// A whole answer. Each line of the header ends with CR and LF.
pub fn with_status(status: &str, header: &str, body: &[u8]) -> Reply {
    let mut answer =
        format!("HTTP/1.1 {status}\r\n{header}Content-Length: {}\r\n\r\n", body.len()).into_bytes();
    answer.extend_from_slice(body);
    Reply::Raw(answer)
}

/// A redirect.
pub fn redirect(status: u16, location: &str) -> Reply {
    with_status(&format!("{status} Over There"), &format!("Location: {location}\r\n"), b"")
}

async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin, sni: Option<String>, shared: &Shared) {
    let Some(seen) = read_request(&mut stream, sni).await else { return };
    shared.seen.lock().unwrap().push(seen.clone());
    // Whoever is written to may have gone.
    match (shared.script)(&seen) {
        Reply::Raw(bytes) => {
            let _ = stream.write_all(&bytes).await;
            let _ = stream.shutdown().await;
        }
        Reply::Hang(bytes) => {
            let _ = stream.write_all(&bytes).await;
            let _ = stream.flush().await;
            std::future::pending().await
        }
        Reply::Forever(bytes, more, pause) => {
            let _ = stream.write_all(&bytes).await;
            while stream.write_all(&more).await.is_ok() && stream.flush().await.is_ok() {
                if pause.is_zero() {
                    tokio::task::yield_now().await;
                } else {
                    tokio::time::sleep(pause).await;
                }
            }
        }
        Reply::Tunnel(address) => {
            let mut origin = TcpStream::connect(address).await.unwrap();
            stream.write_all(b"HTTP/1.1 200 Connection established\r\nVia: test\r\n\r\n").await.unwrap();
            let _ = tokio::io::copy_bidirectional(&mut stream, &mut origin).await;
        }
    }
}

async fn read_request(stream: &mut (impl AsyncRead + Unpin), sni: Option<String>) -> Option<Seen> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
    stream.read_exact(&mut body).await.ok()?;
    Some(Seen { head, body, sni })
}
