//! gRPC by people who did not write ours: tonic on both ends, and the shim between.

mod common;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Buf, BufMut};
use common::h2;
use common::{ONE_ROUTE, OPEN, Rig, SECURED};
use http::uri::PathAndQuery;
use http::{Request, Uri};
use hyper::body::Incoming;
use hyper::server::conn::http2::Builder;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use testbed::pki::Leaf;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder, Streaming};
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Response, Status};

/// Messages are bytes.
#[derive(Default)]
struct Plain;

impl Codec for Plain {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Plain {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Plain {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        let bytes = from.remaining();
        Ok(Some(from.copy_to_bytes(bytes).to_vec()))
    }
}

/// Answers a call as Kong's listener for gRPC would hand it on.
async fn answer(request: Request<Incoming>) -> Result<http::Response<tonic::body::Body>, Infallible> {
    let mut grpc = tonic::server::Grpc::new(Plain);
    let path = request.uri().path().to_owned();
    Ok(match path.as_str() {
        "/test.Test/Say" => {
            let say = async |request: tonic::Request<Vec<u8>>| {
                let certificate = request.metadata().contains_key("client-cert");
                let mut response = Response::new(request.into_inner());
                let certificate = MetadataValue::from_static(if certificate { "yes" } else { "no" });
                response.metadata_mut().insert("certificate", certificate);
                Ok(response)
            };
            grpc.unary(tower::service_fn(say), request).await
        }
        "/test.Test/Chat" => {
            let chat =
                async |request: tonic::Request<Streaming<Vec<u8>>>| Ok(Response::new(request.into_inner()));
            grpc.streaming(tower::service_fn(chat), request).await
        }
        "/test.Test/Slow" => {
            let slow = async |_: tonic::Request<Vec<u8>>| {
                std::future::pending::<Result<Response<Vec<u8>>, Status>>().await
            };
            grpc.unary(tower::service_fn(slow), request).await
        }
        _ => {
            let refuse = async |_: tonic::Request<Vec<u8>>| {
                let details = bytes::Bytes::from_static(b"\0\x01");
                Err::<Response<Vec<u8>>, _>(Status::with_details(
                    Code::ResourceExhausted,
                    "no more, ä",
                    details,
                ))
            };
            grpc.unary(tower::service_fn(refuse), request).await
        }
    })
}

async fn upstream() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let connection =
                Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service_fn(answer));
            tokio::spawn(connection);
        }
    });
    address
}

/// A client of the shim's.
async fn client(rig: &Rig, sni: &'static str, certificate: Option<Leaf>) -> tonic::client::Grpc<Channel> {
    let address = rig.address;
    let certificate = std::sync::Arc::new(certificate);
    let connect = move |_: Uri| {
        let certificate = std::sync::Arc::clone(&certificate);
        async move {
            let stream = h2::connect(address, sni, certificate.as_ref().as_ref()).await;
            Ok::<_, Infallible>(TokioIo::new(stream))
        }
    };
    let endpoint = Endpoint::from_shared(format!("https://{sni}")).unwrap();
    let channel = endpoint.connect_with_connector(tower::service_fn(connect)).await.unwrap();
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.unwrap();
    client
}

async fn rig() -> Rig {
    Rig::with_settings(ONE_ROUTE, &format!("grpc_upstream: http://{}", upstream().await))
}

fn path(method: &str) -> PathAndQuery {
    format!("/test.Test/{method}").parse().unwrap()
}

#[tokio::test]
async fn a_call_is_answered_and_told_of_the_certificate() {
    let rig = rig().await;
    for (sni, leaf, certificate) in
        [(OPEN, None, "no"), (SECURED, None, "no"), (SECURED, Some(rig.client.clone()), "yes")]
    {
        let mut client = client(&rig, sni, leaf).await;
        let large = vec![7; 3 << 20];
        let response = client.unary(tonic::Request::new(large.clone()), path("Say"), Plain).await.unwrap();
        assert_eq!(response.metadata().get("certificate").unwrap(), certificate, "{sni}");
        assert!(*response.get_ref() == large);
    }
}

#[tokio::test]
async fn messages_stream_both_ways() {
    let rig = rig().await;
    let mut client = client(&rig, OPEN, None).await;
    let (say, said) = mpsc::unbounded_channel();
    let outgoing = tonic::Request::new(UnboundedReceiverStream::new(said));
    let mut answers = client.streaming(outgoing, path("Chat"), Plain).await.unwrap().into_inner();
    for at in 0..100_u8 {
        // Each comes back before the next one is sent.
        say.send(vec![at; 1000]).unwrap();
        assert_eq!(answers.next().await.unwrap().unwrap(), [at; 1000]);
    }
    drop(say);
    assert!(answers.next().await.is_none());
    assert!(answers.trailers().await.unwrap().is_some());
}

#[tokio::test]
async fn a_status_comes_as_it_was_said() {
    let rig = rig().await;
    let mut client = client(&rig, OPEN, None).await;
    let status = client.unary(tonic::Request::new(vec![]), path("Refuse"), Plain).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::ResourceExhausted, "no more, ä"));
    assert_eq!(status.details(), b"\0\x01");
    // One that is given up harms no other on the connection.
    let mut slow = tonic::Request::new(vec![]);
    slow.set_timeout(Duration::from_millis(50));
    client.ready().await.unwrap();
    let status = client.unary(slow, path("Slow"), Plain).await.unwrap_err();
    assert!(matches!(status.code(), Code::Cancelled | Code::DeadlineExceeded), "{status}");
    client.ready().await.unwrap();
    assert!(client.unary(tonic::Request::new(vec![1]), path("Say"), Plain).await.is_ok());
}
