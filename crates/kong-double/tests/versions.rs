//! What the oldest and the newest Kong do differently about a plugin server: a test for each, in both protocols.

mod support;

use std::{path::Path, time::Duration};

use kong_double::{Double, DoubleConfig, KongVersion, PluginConfig, Protocol, Route};
use serde_json::json;
use support::{PATIENCE, Upstream, either::Either, get, plugin_info_of, send};

/// Runs a test on every version in both protocols.
async fn on_all(test: impl AsyncFn(KongVersion, Protocol)) {
    for version in KongVersion::ALL {
        for protocol in Protocol::ALL {
            test(version, protocol).await;
        }
    }
}

fn config(version: KongVersion, protocol: Protocol, dir: &Path, upstream: &Upstream) -> DoubleConfig {
    let info = plugin_info_of(protocol, "p", &["access"]);
    let mut config = DoubleConfig::new(dir.join("plugin.socket"), info);
    config.version = version;
    let route = |path: &str| {
        let plugin = PluginConfig::new("p", json!({}));
        Route::new(path, upstream.addr).paths([format!("/{path}")]).plugin(plugin)
    };
    config.routes = vec![route("a"), route("b")];
    config
}

async fn status(double: &Double, path: &str) -> u16 {
    send(double.addr(), get(path, &[])).await.status
}

fn lines(double: &Double, end: &str) -> usize {
    double.error_log().iter().filter(|line| line.ends_with(end)).count()
}

const UNREADY: &str = "plugin server is not ready, p will not be executed in this request";

#[tokio::test]
async fn before_the_socket_was_reached_once_only_the_oldest_lets_requests_pass() {
    on_all(async |version, protocol| {
        let (dir, upstream) = (tempfile::tempdir().unwrap(), Upstream::ok().await);
        let double = Double::start(config(version, protocol, dir.path(), &upstream)).await.unwrap();
        let expected = if version == KongVersion::V3_4 { 200 } else { 500 };
        for path in ["/a", "/b", "/a"] {
            assert_eq!(status(&double, path).await, expected, "{version:?} {protocol:?}");
        }
        assert_eq!(upstream.seen().len(), if expected == 200 { 3 } else { 0 });
        assert_eq!(lines(&double, UNREADY), usize::from(expected == 200), "one warning");

        // It is looked for all the while.
        let server = Either::start(dir.path(), protocol);
        let asked = async {
            while server.calls().is_empty() {
                assert_eq!(status(&double, "/a").await, 200);
            }
        };
        tokio::time::timeout(PATIENCE, asked).await.expect("the server is asked");
        assert_eq!(server.calls(), ["start 1", "event 1"]);
        // Once reached, always reached: dead, it is no longer unready.
        server.kill().await;
        assert_eq!(status(&double, "/b").await, 500, "{version:?} {protocol:?}");
        assert_eq!(lines(&double, "starting instance: connection refused"), 1);
    })
    .await;
}

#[tokio::test]
async fn a_server_that_kong_did_not_start_is_never_asked_by_the_oldest() {
    on_all(async |version, protocol| {
        let (dir, upstream) = (tempfile::tempdir().unwrap(), Upstream::ok().await);
        let server = Either::start(dir.path(), protocol);
        let mut config = config(version, protocol, dir.path(), &upstream);
        config.managed_server = false;
        config.ready_timeout = Duration::ZERO;
        let double = Double::start(config).await.unwrap();
        for _ in 0..3 {
            assert_eq!(status(&double, "/a").await, 200);
        }
        let asked = if version == KongVersion::V3_4 { 0 } else { 4 };
        assert_eq!((server.calls().len(), upstream.seen().len()), (asked, 3), "{version:?} {protocol:?}");
        assert_eq!(lines(&double, UNREADY), usize::from(asked == 0));
    })
    .await;
}

#[tokio::test]
async fn a_socket_that_was_not_reached_in_time_is_given_up_by_the_oldest() {
    for protocol in Protocol::ALL {
        let (dir, upstream) = (tempfile::tempdir().unwrap(), Upstream::ok().await);
        let mut config = config(KongVersion::V3_4, protocol, dir.path(), &upstream);
        config.ready_timeout = Duration::ZERO;
        config.claim_timeout = Duration::from_millis(20);
        let double = Double::start(config).await.unwrap();
        let given_up = async {
            while lines(&double, "[p] no such file or directory") == 0 {
                assert_eq!(status(&double, "/a").await, 200);
            }
        };
        tokio::time::timeout(PATIENCE, given_up).await.expect("it is given up");
        // Whatever comes later is too late, and whoever comes next waits for a claim that nobody holds.
        let server = Either::start(dir.path(), protocol);
        let before = double.error_log().len();
        assert_eq!((status(&double, "/a").await, status(&double, "/b").await), (200, 200));
        let logged = double.error_log()[before..].to_vec();
        assert!(logged[0].contains("[p] Could not claim instance_id for p"), "{logged:?}");
        assert!(logged[1].ends_with("[p] no such file or directory"), "{logged:?}");
        assert_eq!(server.calls(), [""; 0]);
    }
}

#[tokio::test]
async fn a_claim_that_nobody_fulfils_passes_except_in_the_newest_protobuf() {
    on_all(async |version, protocol| {
        let (dir, upstream) = (tempfile::tempdir().unwrap(), Upstream::ok().await);
        let server = Either::start(dir.path(), protocol);
        server.answer_badly(1);
        let mut config = config(version, protocol, dir.path(), &upstream);
        config.claim_timeout = Duration::from_millis(20);
        let double = Double::start(config).await.unwrap();
        assert_eq!(status(&double, "/a").await, 500, "Lua throws");
        let newest = version == KongVersion::V3_9;
        let unclaimed = if newest && protocol == Protocol::ProtoBuf { 500 } else { 200 };
        assert_eq!(status(&double, "/a").await, unclaimed, "{version:?} {protocol:?}");
        let key = "Could not claim instance_id for p";
        assert!(double.error_log().last().is_some_and(|line| line.contains(key)), "{:?}", double.error_log());
        assert_eq!(server.calls(), ["bad start"]);
        // The newest then takes the claim away.
        assert_eq!(status(&double, "/a").await, 200);
        let started = ["bad start", "start 1", "event 1"];
        assert_eq!(server.calls(), started[..if newest { 3 } else { 1 }], "{version:?} {protocol:?}");
    })
    .await;
}

#[tokio::test]
async fn after_no_plugin_instance_the_newest_starts_all_of_them_again() {
    on_all(async |version, protocol| {
        let (dir, upstream) = (tempfile::tempdir().unwrap(), Upstream::ok().await);
        let server = Either::start(dir.path(), protocol);
        let mut config = config(version, protocol, dir.path(), &upstream);
        config.workers = 2;
        let double = Double::start(config).await.unwrap();
        // Client connections go to the workers in turn.
        let each = async || {
            for path in ["/a", "/a", "/b", "/b"] {
                assert_eq!(status(&double, path).await, 200, "{:?}", double.error_log());
            }
        };
        each().await;
        let started = |n: u64| [format!("start {n}"), format!("event {n}")];
        assert_eq!(server.calls(), (1..=4).flat_map(started).collect::<Vec<_>>());
        server.forget_all();
        each().await;
        let unknown: &[u64] = if version == KongVersion::V3_4 { &[1, 2, 3, 4] } else { &[1] };
        let expected = (1..=4).flat_map(|n| {
            let known = unknown.contains(&n).then(|| format!("unknown {n}"));
            known.into_iter().chain(started(n + 4))
        });
        assert_eq!(server.calls()[8..], expected.collect::<Vec<_>>(), "{version:?} {protocol:?}");
        let warned = double.error_log().iter().filter(|line| line.contains("no plugin instance #")).count();
        assert_eq!(warned, unknown.len());
    })
    .await;
}

#[tokio::test]
async fn a_dead_server_is_fail_open_except_in_the_newest_protobuf() {
    on_all(async |version, protocol| {
        let (dir, upstream) = (tempfile::tempdir().unwrap(), Upstream::ok().await);
        let server = Either::start(dir.path(), protocol);
        let double = Double::start(config(version, protocol, dir.path(), &upstream)).await.unwrap();
        assert_eq!(status(&double, "/a").await, 200);
        server.kill().await;
        let closed = version == KongVersion::V3_9 && protocol == Protocol::ProtoBuf;
        for _ in 0..2 {
            assert_eq!(
                status(&double, "/a").await,
                if closed { 500 } else { 200 },
                "{version:?} {protocol:?}"
            );
        }
        let text =
            if closed { "[p] pluginserver error: connection refused" } else { "[p] connection refused" };
        assert_eq!(lines(&double, text), 2, "{:?}", double.error_log());
        // An instance that has to be started first is another matter.
        assert_eq!(status(&double, "/b").await, 500);
        assert_eq!(upstream.seen().len(), if closed { 1 } else { 3 });
    })
    .await;
}
