//! Servers that fail, and how many are asked at a time.

use std::future::ready;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use revocation::Trouble;
use revocation::fetch::{Fetcher, Settings};
use tokio::time::advance;

use crate::server::{Reply, Server, ok, with_status};
use crate::{fetch, fetcher, get, post, settings};

/// A server that works or fails.
struct Switched {
    server: Server,
    works: Arc<AtomicBool>,
}

impl Switched {
    async fn start() -> Self {
        let works = Arc::new(AtomicBool::new(false));
        let now = Arc::clone(&works);
        let server = Server::start(move |_| match now.load(Ordering::Relaxed) {
            true => ok(b"crl"),
            false => with_status("503 Service Unavailable", "", b""),
        })
        .await;
        Self { server, works }
    }

    async fn ask(&self, fetcher: &Fetcher) -> Result<(), &'static str> {
        let found = fetch(fetcher, get(&self.server.url("/")), &settings()).await;
        found.map(drop).map_err(|trouble| trouble.code())
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_fails_is_left_alone_and_tried_again() {
    let (switched, fetcher) = (Switched::start().await, fetcher());
    for _ in 0..3 {
        assert_eq!(fetcher.left_alone(), 0);
        assert_eq!(switched.ask(&fetcher).await, Err("http_status"));
    }
    assert_eq!((switched.ask(&fetcher).await, fetcher.left_alone()), (Err("left_alone"), 1));
    assert_eq!(switched.server.connections(), 3);
    advance(Duration::from_secs(1)).await;
    assert_eq!(switched.ask(&fetcher).await, Err("http_status"));
    assert_eq!(switched.ask(&fetcher).await, Err("left_alone"));
    switched.works.store(true, Ordering::Relaxed);
    advance(Duration::from_secs(2)).await;
    for _ in 0..3 {
        assert_eq!((switched.ask(&fetcher).await, fetcher.left_alone()), (Ok(()), 0));
    }
    assert_eq!(switched.server.connections(), 7);
}

#[tokio::test(start_paused = true)]
async fn what_is_not_reached_is_left_alone_as_well() {
    let (server, fetcher) = (Server::start(|_| Reply::Hang(Vec::new())).await, fetcher());
    for _ in 0..3 {
        let found = fetch(&fetcher, get(&server.url("/")), &settings()).await;
        assert_eq!(found, Err(Trouble::TimedOut(settings().timeout)));
    }
    assert_eq!(fetch(&fetcher, get(&server.url("/")), &settings()).await, Err(Trouble::LeftAlone(3)));
}

#[tokio::test(start_paused = true)]
async fn whoever_reads_the_answer_decides_as_well() {
    for (trouble, counts) in [
        (Trouble::BadSignature, true),
        (Trouble::Malformed("a page".into()), true),
        (Trouble::Stale, true),
        (Trouble::NotSuccessful("tryLater"), true),
        (Trouble::NotCovered("it is of another scope"), false),
    ] {
        let (server, fetcher) = (Server::start(|_| ok(b"<html>")).await, fetcher());
        for _ in 0..4 {
            let read = |_| ready(Err::<(), _>(trouble.clone()));
            let _ = fetcher.fetch(get(&server.url("/")), &settings(), read).await;
        }
        assert_eq!(
            (fetcher.left_alone(), server.connections()),
            if counts { (1, 3) } else { (0, 4) },
            "{trouble}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_takes_no_post_has_not_failed() {
    for (status, fails_a_post) in
        [(404, false), (405, false), (411, false), (501, false), (400, true), (403, true), (503, true)]
    {
        for (is_post, counts) in [(true, fails_a_post), (false, true)] {
            let server = Server::start(move |_| with_status(&format!("{status} No"), "", b"")).await;
            let fetcher = fetcher();
            let url = server.url("/");
            for _ in 0..4 {
                let query = if is_post { post(&url) } else { get(&url) };
                fetch(&fetcher, query, &settings()).await.unwrap_err();
            }
            assert_eq!(fetcher.left_alone() == 1, counts, "{status} to a POST: {is_post}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn others_are_not_left_alone_with_it() {
    let (switched, fetcher) = (Switched::start().await, fetcher());
    for _ in 0..3 {
        switched.ask(&fetcher).await.unwrap_err();
    }
    let url = switched.server.url("/another/path");
    assert_eq!(fetch(&fetcher, get(&url), &settings()).await, Err(Trouble::LeftAlone(3)));
    for settings in [
        Settings { ssl_verify: false, ..settings() },
        Settings { timeout: Duration::from_secs(7), ..settings() },
        Settings { https_proxy: Some(("proxy".into(), 1)), ..settings() },
    ] {
        assert_eq!(fetch(&fetcher, get(&url), &settings).await, Err(Trouble::HttpStatus(503)));
    }
    let port = switched.server.address.port();
    let by_name = format!("http://localhost:{port}/");
    assert_eq!(fetch(&fetcher, get(&by_name), &settings()).await, Err(Trouble::HttpStatus(503)));
}

#[tokio::test(start_paused = true)]
async fn one_request_at_a_time_finds_out_and_may_be_given_up() {
    let server = Server::start(|_| Reply::Hang(Vec::new())).await;
    let (fetcher, url) = (fetcher(), server.url("/"));
    for _ in 0..3 {
        fetch(&fetcher, get(&url), &settings()).await.unwrap_err();
    }
    advance(Duration::from_secs(1)).await;
    let own = settings();
    let mut probe = Box::pin(fetch(&fetcher, get(&url), &own));
    assert!(tokio::time::timeout(Duration::from_secs(1), &mut probe).await.is_err());
    assert_eq!(fetch(&fetcher, get(&url), &settings()).await, Err(Trouble::LeftAlone(3)));
    drop(probe);
    let found = fetch(&fetcher, get(&url), &settings()).await;
    assert_eq!(found, Err(Trouble::TimedOut(settings().timeout)));
    assert_eq!(server.connections(), 5);
}

/// Waits until no task has anything left to do.
async fn settle() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

#[tokio::test(start_paused = true)]
async fn so_many_are_asked_at_a_time_and_the_others_wait_within_their_time() {
    let fetcher = Arc::new(fetcher());
    let mut servers = Vec::new();
    let mut fetches = Vec::new();
    for _ in 0..10 {
        let server = Server::start(|_| Reply::Hang(Vec::new())).await;
        for _ in 0..9 {
            let (fetcher, url) = (Arc::clone(&fetcher), server.url("/"));
            fetches.push(tokio::spawn(async move { fetch(&fetcher, get(&url), &settings()).await }));
        }
        servers.push(server);
    }
    settle().await;
    let connections: Vec<_> = servers.iter().map(Server::connections).collect();
    assert_eq!(connections, [8, 8, 8, 8, 8, 8, 8, 8, 0, 0]);
    // One that is given up makes room for another: the ninth of the same server was first in the queue.
    fetches[0].abort();
    settle().await;
    assert_eq!(servers.iter().map(Server::connections).sum::<usize>(), 65);
    for fetch in fetches.into_iter().skip(1) {
        // Whoever waited may find the server left alone in the moment when its own time is over.
        let trouble = fetch.await.unwrap().unwrap_err();
        assert!(matches!(trouble, Trouble::TimedOut(_) | Trouble::LeftAlone(_)), "{trouble}");
    }
    assert_eq!(fetcher.left_alone(), 8, "those that were never asked have not failed");
}

#[tokio::test(start_paused = true)]
async fn whoever_wants_is_told_how_long_each_fetch_took() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&told);
    let fetcher = fetcher().observed(move |took, trouble| {
        log.lock().unwrap().push((took.as_secs(), trouble.map(Trouble::code)));
    });
    let hangs = Server::start(|_| Reply::Hang(Vec::new())).await;
    let works = Server::start(|_| ok(b"crl")).await;
    let _ = fetch(&fetcher, get(&works.url("/")), &settings()).await;
    for _ in 0..4 {
        let _ = fetch(&fetcher, get(&hangs.url("/")), &settings()).await;
    }
    let _ = fetch(&fetcher, get("ldap://ca.example/"), &settings()).await;
    let late = (20, Some("timed_out"));
    assert_eq!(*told.lock().unwrap(), [(0, None), late, late, late]);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_was_given_little_time_has_not_failed() {
    let fetcher = Arc::new(fetcher());
    let hang = async || Server::start(|_| Reply::Hang(Vec::new())).await;
    let ask = |url: String| {
        let fetcher = Arc::clone(&fetcher);
        tokio::spawn(async move { fetch(&fetcher, get(&url), &settings()).await })
    };
    let mut fetches = Vec::new();
    for _ in 0..8 {
        let server = hang().await;
        fetches.extend((0..8).map(|_| ask(server.url("/"))));
    }
    // All places are taken for 20 seconds, of which the next ones wait for 15, and those after them for 5.
    let late = [hang().await, hang().await];
    for (server, wait) in late.iter().zip([5, 10]) {
        settle().await;
        advance(Duration::from_secs(wait)).await;
        fetches.extend((0..3).map(|_| ask(server.url("/"))));
    }
    settle().await;
    assert_eq!(late.iter().map(Server::connections).sum::<usize>(), 0);
    for fetch in fetches {
        assert_eq!(fetch.await.unwrap(), Err(Trouble::TimedOut(settings().timeout)));
    }
    assert_eq!(late.iter().map(Server::connections).sum::<usize>(), 6);
    assert_eq!(fetcher.left_alone(), 8 + 1);
}
