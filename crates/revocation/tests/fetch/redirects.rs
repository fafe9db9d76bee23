//! Where redirects lead.

use revocation::Trouble;

use crate::server::{Server, ok, redirect};
use crate::{fetch, fetcher, get, post, settings};

#[tokio::test]
async fn three_redirects_are_followed_and_no_more() {
    let server = Server::start(|seen| match seen.head.split(' ').nth(1).unwrap() {
        "/0" => ok(b"crl"),
        "/1" => redirect(301, "/0"),
        "/2" => redirect(302, "/1"),
        "/3" => redirect(303, "/2"),
        "/4" => redirect(307, "/3"),
        "/5" => redirect(308, "/0"),
        _ => redirect(302, "/loop"),
    })
    .await;
    for (path, requests) in [("/1", 2), ("/3", 4), ("/5", 2)] {
        assert_eq!(fetch(&fetcher(), get(&server.url(path)), &settings()).await.unwrap(), "crl", "{path}");
        assert_eq!(server.take_seen().len(), requests, "{path}");
    }
    for path in ["/4", "/loop"] {
        let trouble = fetch(&fetcher(), get(&server.url(path)), &settings()).await.unwrap_err();
        assert!(trouble.to_string().contains("more than 3 times"), "{path}: {trouble}");
        assert_eq!(server.take_seen().len(), 4, "{path}");
    }
}

#[tokio::test]
async fn a_post_is_asked_again_as_a_post_or_not_at_all() {
    let server = Server::start(|seen| match seen.head.split(' ').nth(1).unwrap() {
        "/0" => ok(&seen.body),
        path => redirect(path[1..].parse().unwrap(), "/0"),
    })
    .await;
    for status in [307, 308] {
        let url = server.url(&format!("/{status}"));
        assert_eq!(fetch(&fetcher(), post(&url), &settings()).await.unwrap(), "question", "{status}");
        assert_eq!(server.take_lines(), [format!("POST /{status} HTTP/1.1"), "POST /0 HTTP/1.1".into()]);
    }
    for status in [301, 302, 303] {
        let url = server.url(&format!("/{status}"));
        let found = fetch(&fetcher(), post(&url), &settings()).await;
        assert_eq!(found, Err(Trouble::HttpStatus(status)));
        assert_eq!(server.take_seen().len(), 1, "{status}");
    }
}

#[tokio::test]
async fn what_is_no_redirect_is_not_followed() {
    for status in [200, 201, 300, 304, 305, 306, 400] {
        let server = Server::start(move |_| redirect(status, "/elsewhere")).await;
        let found = fetch(&fetcher(), get(&server.url("/")), &settings()).await;
        match status {
            200 => assert_eq!(found.unwrap(), ""),
            _ => assert_eq!(found, Err(Trouble::HttpStatus(status))),
        }
        assert_eq!(server.take_seen().len(), 1, "{status}");
    }
    let server = Server::start(|_| redirect(302, "/a\r\nLocation: /b")).await;
    let trouble = fetch(&fetcher(), get(&server.url("/")), &settings()).await.unwrap_err();
    assert_eq!(trouble.code(), "malformed");
}

#[tokio::test]
async fn a_redirect_to_another_server_is_followed_where_that_is_allowed() {
    let there = Server::start(|_| ok(b"crl")).await;
    let location = there.url("/crl");
    let here = Server::start(move |_| redirect(302, &location)).await;
    assert_eq!(fetch(&fetcher(), get(&here.url("/")), &settings()).await.unwrap(), "crl");
    let host = format!("host: {}\r\n", there.address);
    assert!(there.take_seen()[0].head.contains(&host));
}

#[tokio::test]
async fn all_redirects_have_one_time_limit() {
    tokio::time::pause();
    let server = Server::start(|seen| match seen.head.split(' ').nth(1).unwrap() {
        "/0" => crate::Reply::Hang(Vec::new()),
        _ => redirect(302, "/0"),
    })
    .await;
    let begun = tokio::time::Instant::now();
    let found = fetch(&fetcher(), get(&server.url("/")), &settings()).await;
    assert_eq!(found, Err(Trouble::TimedOut(settings().timeout)));
    assert_eq!(begun.elapsed().as_secs(), 20);
}
