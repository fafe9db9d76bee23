//! gRPC: over HTTP/2 on the whole way.

mod common;

use bytes::Bytes;
use common::grpc::{Event, Upstream};
use common::h2::{Client, get};
use common::{ONE_ROUTE, OPEN, Rig, SECURED};
use http_body_util::BodyExt;
use testbed::process::PATIENCE;

async fn rig() -> (Upstream, Rig) {
    let upstream = Upstream::start().await;
    let rig = Rig::with_settings(ONE_ROUTE, &format!("grpc_upstream: http://{}", upstream.address));
    (upstream, rig)
}

fn call(path: &str) -> http::request::Builder {
    let request = get(&format!("https://{OPEN}:8443{path}")).method("POST");
    request.header("content-type", "application/grpc+proto").header("te", "trailers")
}

#[tokio::test]
async fn messages_stream_both_ways_and_end_with_trailers() {
    let (upstream, rig) = rig().await;
    let mut client = Client::connect(rig.address, OPEN).await;
    let (mut body, response) = client.stream(call("/echo?q").header("grpc-timeout", "1S"));
    let mut response = response.await.unwrap();
    assert_eq!(response.headers()["content-type"], "application/grpc");
    for part in ["first", "second", "third"] {
        // Each comes back before the next one is sent.
        body.send_data(Bytes::from(part)).await.unwrap();
        let frame = response.body_mut().frame().await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), part);
    }
    drop(body);
    let mut trailers = None;
    while let Some(frame) = response.body_mut().frame().await {
        trailers = frame.unwrap().into_trailers().ok();
    }
    assert_eq!(trailers.unwrap()["grpc-status"], "0");

    let head = upstream.heads().pop().unwrap();
    assert_eq!(head.version, http::Version::HTTP_2);
    assert_eq!(head.uri, format!("http://{OPEN}:8443/echo?q").as_str());
    for (name, value) in [
        ("te", "trailers"),
        ("grpc-timeout", "1S"),
        ("x-real-ip", "127.0.0.1"),
        ("x-forwarded-proto", "https"),
    ] {
        assert_eq!(head.headers.get_all(name).iter().collect::<Vec<_>>(), [value], "{name}");
    }
    for name in ["host", "connection", "transfer-encoding"] {
        assert!(!head.headers.contains_key(name), "{name}");
    }
    assert!(rig.upstream.requests().is_empty());
}

#[tokio::test]
async fn an_answer_may_be_a_header_only() {
    let (_upstream, rig) = rig().await;
    let mut client = Client::connect(rig.address, OPEN).await;
    // It comes before the request has ended.
    let (_body, response) = client.stream(call("/refuse"));
    let mut response = response.await.unwrap();
    assert_eq!(
        (response.status().as_u16(), &response.headers()["grpc-status"]),
        (200, &"7".parse().unwrap())
    );
    assert!(response.body_mut().frame().await.is_none());
}

#[tokio::test]
async fn a_call_that_is_broken_off_does_not_pass_for_one_that_has_ended() {
    let (_upstream, rig) = rig().await;
    let mut client = Client::connect(rig.address, OPEN).await;
    // The reset may overtake the part before it, and the header.
    let broken = match client.send(call("/broken")).await {
        Ok(response) => response.into_body().collect().await.map(drop),
        Err(error) => Err(error),
    };
    assert!(broken.is_err());
    // The others go on.
    assert_eq!(client.send(call("/refuse")).await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_certificate_is_handed_on_and_forged_ones_are_not() {
    let (upstream, rig) = rig().await;
    for presents in [false, true] {
        let certificate = presents.then_some(&rig.client);
        let mut client = Client::connect_with(rig.address, SECURED, certificate).await;
        let request = get(&format!("https://{SECURED}/refuse")).method("POST");
        let forged = ["client-cert", "client_cert", "client-cert-proof", "x_consumer-id", "x-real-ip"];
        let request = forged.iter().fold(request, |request, name| request.header(*name, "forged"));
        client.send(request.header("content-type", "application/grpc")).await.unwrap();
        let head = upstream.heads().pop().unwrap();
        assert!(!head.headers.values().any(|value| value == "forged"), "{head:?}");
        for name in ["client-cert", "client-cert-proof"] {
            assert_eq!(head.headers.get_all(name).iter().count(), usize::from(presents), "{name}");
        }
    }
}

#[tokio::test]
async fn trailers_of_a_request_go_no_further() {
    let (mut upstream, rig) = rig().await;
    let mut client = Client::connect(rig.address, OPEN).await;
    let (mut body, response) = client.stream(call("/echo"));
    body.send_data(Bytes::from_static(b"x")).await.unwrap();
    body.send_trailers([("client-cert".parse().unwrap(), "forged".parse().unwrap())].into_iter().collect())
        .await
        .unwrap();
    // Its own come back, once it has read to the end.
    let body = response.await.unwrap().into_body().collect().await.unwrap();
    assert_eq!(body.trailers().unwrap()["grpc-status"], "0");
    assert_eq!(upstream.events(), []);
    assert!(!format!("{:?}", upstream.heads()).contains("forged"));
}

#[tokio::test]
async fn who_gives_up_ends_his_call_and_no_other() {
    let (mut upstream, rig) = rig().await;
    let mut client = Client::connect(rig.address, OPEN).await;
    let (mut kept, stays) = client.stream(call("/echo"));
    let mut stays = stays.await.unwrap();
    // Both directions are open, or only one, when he does.
    let (body, response) = client.stream(call("/hold"));
    let response = response.await.unwrap();
    drop((response, body));
    assert!(matches!(upstream.event().await, Event::Reset(_)));
    let (body, response) = client.stream(call("/endless"));
    drop(body);
    drop(response.await.unwrap());
    assert!(matches!(upstream.event().await, Event::Sent(_)));

    kept.send_data(Bytes::from_static(b"still here")).await.unwrap();
    assert_eq!(stays.body_mut().frame().await.unwrap().unwrap().into_data().unwrap(), "still here");
    assert_eq!(upstream.connections(), 1);
}

#[tokio::test]
async fn a_connection_that_is_full_gets_another_beside_it() {
    let (upstream, rig) = rig().await;
    let mut client = Client::connect(rig.address, OPEN).await;
    let mut calls = Vec::new();
    for at in 0..150_usize {
        assert_eq!(upstream.connections(), at.div_ceil(100));
        let (body, response) = client.stream(call("/echo"));
        calls.push((body, response.await.unwrap()));
    }
    for (at, (body, response)) in calls.iter_mut().enumerate() {
        let text = at.to_string();
        body.send_data(Bytes::from(text.clone())).await.unwrap();
        assert_eq!(response.body_mut().frame().await.unwrap().unwrap().into_data().unwrap(), text);
    }
}

#[tokio::test]
async fn an_answer_that_nobody_reads_holds_up_no_other() {
    let (upstream, rig) = rig().await;
    let mut client = Client::connect(rig.address, OPEN).await;
    let mut unread = Vec::new();
    for _ in 0..20 {
        let (body, response) = client.stream(call("/endless"));
        drop(body);
        unread.push(response.await.unwrap());
    }
    // The others go over the same two connections.
    tokio::time::timeout(PATIENCE, echoes(&mut client)).await.expect("none is held up");
    assert_eq!(upstream.connections(), 1);
    // What nobody takes waits with its sender.
    assert!(upstream.sent() < 20 * 4 * 1024 * 1024, "{} bytes", upstream.sent());
}

async fn echoes(client: &mut Client) {
    for _ in 0..10 {
        let (mut body, response) = client.stream(call("/echo"));
        let mut response = response.await.unwrap();
        for _ in 0..20 {
            body.send_data(Bytes::from(vec![1; 10_000])).await.unwrap();
            let mut back = 0;
            while back < 10_000 {
                back += response.body_mut().frame().await.unwrap().unwrap().into_data().unwrap().len();
            }
        }
    }
}

#[tokio::test]
async fn a_connection_is_left_before_kong_ends_it() {
    let (upstream, rig) = rig().await;
    let mut client = Client::connect(rig.address, OPEN).await;
    for _ in 0..1000 {
        client.send(call("/refuse")).await.unwrap();
    }
    assert_eq!(upstream.connections(), 2);
}

#[tokio::test]
async fn clients_share_no_connection() {
    let (upstream, rig) = rig().await;
    for count in 1..4 {
        let mut client = Client::connect(rig.address, OPEN).await;
        client.send(call("/refuse")).await.unwrap();
        client.send(call("/refuse")).await.unwrap();
        assert_eq!(upstream.connections(), count);
    }
}

#[tokio::test]
async fn what_is_not_grpc_goes_the_usual_way() {
    let (upstream, rig) = rig().await;
    let mut client = Client::connect(rig.address, OPEN).await;
    for kind in ["application/grpc-web+proto", "application/json"] {
        let request = get(&format!("https://{OPEN}/usual")).method("POST").header("content-type", kind);
        assert_eq!(client.send(request).await.unwrap().status(), 200);
    }
    let arguments = ["--http1.1", "-d", "x", "-H", "Content-Type: application/grpc"];
    rig.curl(OPEN, "/usual", &arguments);
    assert_eq!((rig.upstream.requests().len(), upstream.connections()), (3, 0));

    // Nor is anything else where Kong has no listener for it.
    let rig = Rig::new(ONE_ROUTE);
    let mut client = Client::connect(rig.address, OPEN).await;
    assert_eq!(client.send(call("/usual")).await.unwrap().status(), 200);
    assert_eq!(rig.upstream.wait_for("/usual").values("te"), ["trailers"]);
}

#[tokio::test]
async fn a_listener_that_is_gone_is_a_bad_gateway() {
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let rig = Rig::with_settings(ONE_ROUTE, &format!("grpc_upstream: http://{gone}"));
    let mut client = Client::connect(rig.address, OPEN).await;
    assert_eq!(client.send(call("/echo")).await.unwrap().status(), 502);
}
