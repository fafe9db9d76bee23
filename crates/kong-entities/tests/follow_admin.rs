//! Kong's configuration as it is followed through the Admin API: changes, faults, and the snapshot file.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use kong_entities::{
    AdminClient, AdminSettings, Entities, Followed, Origin, REWRITE, SourceStatus, follow_admin,
};
use serde_json::{Value as Json, json};
use tempfile::TempDir;
use testbed::fake_admin::{FakeAdmin, JSON, Reply, Seen, kong_of, not_found};
use tokio::sync::mpsc;

const EVERY: Duration = Duration::from_millis(5);

const SERVICE: &str = "aaaaaaaa-0000-4000-8000-000000000001";
const ROUTE: &str = "aaaaaaaa-0000-4000-8000-000000000002";
const CERTIFICATE: &str = "aaaaaaaa-0000-4000-8000-000000000003";

/// A configuration that shows which one it is by the server name of its only route.
fn lists(name: &str) -> Json {
    json!({
        "services": [{"id": SERVICE, "name": "s"}],
        "routes": [{"id": ROUTE, "name": "r", "snis": [name], "protocols": ["https"], "service": {"id": SERVICE}}],
        "plugins": [
            {"id": SERVICE, "name": "mtls-auth", "enabled": true, "route": {"id": ROUTE}, "config": {"a": 1}},
            {"id": ROUTE, "name": "session", "enabled": true, "config": {"secret": "SECRET-OF-ANOTHER-PLUGIN"}},
        ],
        "certificates": [{"id": CERTIFICATE, "cert": "CERT", "key": "PRIVATE"}],
        "snis": [{"name": "a.example", "certificate": {"id": CERTIFICATE}}],
    })
}

/// What a server answers.
type Script = Box<dyn Fn(&Seen) -> Reply + Send>;

/// A Kong without a database, whose digest is the name.
fn kong(name: &'static str) -> impl Fn(&Seen) -> Reply + Send + 'static {
    move |seen| kong_of(&lists(name), Some(name), seen)
}

/// A Kong with a database.
fn kong_with_database(name: &'static str) -> impl Fn(&Seen) -> Reply + Send + 'static {
    move |seen| kong_of(&lists(name), None, seen)
}

fn down(_: &Seen) -> Reply {
    Reply::Answer(503, "text/html", String::new())
}

fn client(server: &FakeAdmin) -> AdminClient {
    AdminClient::new(AdminSettings::new(&server.url)).unwrap()
}

async fn follow(server: &FakeAdmin, file: Option<&Path>) -> Followed {
    follow_admin(client(server), EVERY, file).await
}

fn file() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("snapshot.json");
    (dir, path)
}

fn name(entities: &Entities) -> Option<&str> {
    entities.routes.first().map(|route| route.snis[0].as_str())
}

/// What does not happen in this time never does.
const LONG: Duration = Duration::from_secs(60);

async fn until_name(followed: &mut Followed, expected: &str) {
    let changed = followed.entities.wait_for(|entities| name(entities) == Some(expected));
    tokio::time::timeout(LONG, changed).await.expect(expected).unwrap();
}

async fn until(followed: &mut Followed, is_it: impl Fn(&SourceStatus) -> bool) -> SourceStatus {
    let changed = followed.status.wait_for(|status| is_it(status));
    tokio::time::timeout(LONG, changed).await.expect("the status changes").unwrap().clone()
}

/// A script that also tells what is asked for.
fn told(
    script: impl Fn(&Seen) -> Reply + Send + 'static,
) -> (impl Fn(&Seen) -> Reply + Send + 'static, mpsc::UnboundedReceiver<String>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let script = move |seen: &Seen| {
        let _ = sender.send(seen.target.clone());
        script(seen)
    };
    (script, receiver)
}

#[tokio::test]
async fn a_change_is_seen_with_and_without_a_database() {
    for database in [false, true] {
        let script = |name| -> Script {
            if database { Box::new(kong_with_database(name)) } else { Box::new(kong(name)) }
        };
        let server = FakeAdmin::start(script("first")).await;
        let mut followed = follow(&server, None).await;
        assert_eq!(name(&followed.entities.borrow()), Some("first"));
        let status = followed.status.borrow().clone();
        assert_eq!((status.origin, status.generation, status.failures), (Origin::AdminApi, 1, 0));
        assert!(status.age().is_some() && status.last_error.is_none());

        server.becomes(script("second"));
        until_name(&mut followed, "second").await;
        until(&mut followed, |status| status.generation == 2).await;
    }
}

/// Where Kong has a digest of all of it, one request each time.
#[tokio::test]
async fn what_has_not_changed_costs_one_request_where_kong_has_a_digest() {
    let (script, mut asked) = told(kong("first"));
    let server = FakeAdmin::start(script).await;
    let mut followed = follow(&server, None).await;
    followed.entities.mark_unchanged();
    let mut targets = Vec::new();
    while targets.len() < 8 + 20 {
        targets.push(asked.recv().await.unwrap());
    }
    assert_eq!(targets[8..], ["/status"; 20]);
    assert!(!followed.entities.has_changed().unwrap());
}

/// Kong may have changed and changed back while it was read. And the age of the snapshot file says when it was still true.
#[tokio::test]
async fn all_is_read_and_written_again_after_a_while() {
    let (_dir, path) = file();
    let (script, mut asked) = told(kong("first"));
    let server = FakeAdmin::start(script).await;
    let mut followed = follow(&server, Some(&path)).await;
    until(&mut followed, |status| status.snapshots_written == 1).await;
    tokio::time::pause();
    tokio::time::advance(REWRITE).await;
    tokio::time::resume();
    let mut lists = 0;
    let mut statuses = 0;
    // One reading asks for the status three times.
    while statuses < 20 {
        match asked.recv().await.unwrap().as_str() {
            "/status" => statuses += 1,
            "/certificates?size=100" => lists += 1,
            _ => {}
        }
    }
    assert_eq!(lists, 2);
    assert_eq!(followed.status.borrow().snapshots_written, 2);
    assert_eq!(followed.status.borrow().generation, 1);
}

/// Where it has none, everything is read, and nobody is told of what is the same in another order.
#[tokio::test]
async fn what_has_not_changed_is_not_given_again() {
    let turn = std::sync::atomic::AtomicBool::new(false);
    let (script, mut asked) = told(move |seen| {
        let mut lists = lists("first");
        if turn.fetch_xor(true, std::sync::atomic::Ordering::SeqCst) {
            lists["plugins"].as_array_mut().unwrap().reverse();
            lists["plugins"][0]["config"] = json!({"secret": "another, of another plugin"});
        }
        kong_of(&lists, None, seen)
    });
    let server = FakeAdmin::start(script).await;
    let mut followed = follow(&server, None).await;
    followed.entities.mark_unchanged();
    for _ in 0..7 * 10 {
        asked.recv().await.unwrap();
    }
    assert!(!followed.entities.has_changed().unwrap());
    assert_eq!(followed.status.borrow().generation, 1);
}

#[tokio::test]
async fn a_fault_leaves_the_last_good_one() {
    let half = |_: &Seen| Reply::Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{".to_vec());
    let without_configuration =
        |seen: &Seen| kong_of(&json!({}), Some("00000000000000000000000000000000"), seen);
    let torn = |seen: &Seen| {
        let mut lists = lists("torn");
        lists["services"] = json!([]);
        kong_of(&lists, Some("torn"), seen)
    };
    let faults: [(&str, Script); 6] = [
        ("status 503", Box::new(down)),
        ("unreachable", Box::new(half)),
        ("no answer within", Box::new(|_| Reply::Hang)),
        ("status 404", Box::new(|_| not_found())),
        ("no configuration", Box::new(without_configuration)),
        ("there is no service", Box::new(torn)),
    ];
    for (says, fault) in faults {
        let server = FakeAdmin::start(kong("first")).await;
        let mut settings = AdminSettings::new(&server.url);
        if says == "no answer within" {
            settings.timeout = Duration::from_millis(500);
        }
        let mut followed = follow_admin(AdminClient::new(settings).unwrap(), EVERY, None).await;
        followed.entities.mark_unchanged();
        server.becomes(fault);
        let status = until(&mut followed, |status| status.failures >= 1).await;
        let error = status.last_error.unwrap();
        // Every question but that for the digest may be answered by "not found".
        assert!(error.contains(says), "{says}: {error}");
        assert_eq!((status.origin, status.generation), (Origin::AdminApi, 1));
        assert!(!followed.entities.has_changed().unwrap(), "{says}");

        server.becomes(kong("second"));
        until_name(&mut followed, "second").await;
        let status = until(&mut followed, |status| status.last_error.is_none()).await;
        assert_eq!(status.generation, 2);
    }
}

#[tokio::test]
async fn nothing_is_known_before_the_first_answer() {
    let server = FakeAdmin::start(down).await;
    let mut followed = follow(&server, None).await;
    {
        let entities = followed.entities.borrow_and_update();
        assert!(!entities.is_known());
        // Who does not look at that finds a plugin that asks everybody.
        let plugin = &entities.plugins[0];
        assert!(
            plugin.name == "mtls-auth" && plugin.enabled && plugin.scope == kong_entities::Scope::default()
        );
    }
    let status = followed.status.borrow().clone();
    assert_eq!((status.origin, status.generation, status.age()), (Origin::NoSnapshot, 0, None));
    assert!(status.last_error.unwrap().contains("status 503"));
    server.becomes(kong("first"));
    until_name(&mut followed, "first").await;
    assert!(followed.entities.borrow().is_known());
}

#[tokio::test(start_paused = true)]
async fn a_start_does_not_wait_for_ever() {
    let server = FakeAdmin::start(|_| Reply::Hang).await;
    let settings = AdminSettings { timeout: Duration::from_secs(1000), ..AdminSettings::new(&server.url) };
    let begun = tokio::time::Instant::now();
    let followed = follow_admin(AdminClient::new(settings).unwrap(), EVERY, None).await;
    assert!(begun.elapsed() < Duration::from_secs(11));
    assert!(!followed.entities.borrow().is_known());
    assert_eq!(followed.status.borrow().last_error, None);
}

/// Follows until a snapshot is written.
async fn written(server: &FakeAdmin, path: &Path) {
    let mut followed = follow(server, Some(path)).await;
    until(&mut followed, |status| status.snapshots_written == 1).await;
}

#[tokio::test]
async fn the_snapshot_counts_while_the_admin_api_is_down() {
    let (dir, path) = file();
    let server = FakeAdmin::start(kong("first")).await;
    written(&server, &path).await;
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing else is left behind");
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains("PRIVATE") && !text.contains("SECRET-OF-ANOTHER-PLUGIN"), "{text}");

    let hour_ago = SystemTime::now() - Duration::from_secs(3600);
    std::fs::File::options().write(true).open(&path).unwrap().set_modified(hour_ago).unwrap();
    server.becomes(down);
    let mut followed = follow(&server, Some(&path)).await;
    {
        let entities = followed.entities.borrow_and_update();
        assert_eq!((name(&entities), entities.is_known()), (Some("first"), true));
        assert_eq!(entities.snis["a.example"].primary.key.text(), "PRIVATE");
        assert_eq!((entities.plugins.len(), entities.plugins[0].scope.route), (2, Some(0)));
    }
    let status = followed.status.borrow().clone();
    assert_eq!((status.origin, status.generation), (Origin::SnapshotFile, 1));
    assert!(status.last_error.is_some());
    assert!((3600..3700).contains(&status.age().unwrap().as_secs()), "{:?}", status.age());

    // The same as in the file is no change.
    server.becomes(kong("first"));
    let status = until(&mut followed, |status| status.origin == Origin::AdminApi).await;
    assert!(status.last_error.is_none() && status.generation == 1 && status.age().unwrap().as_secs() < 60);
    assert!(!followed.entities.has_changed().unwrap());
    server.becomes(kong("second"));
    until_name(&mut followed, "second").await;
}

/// At a start at which the Admin API answers, an old snapshot is nothing but a reading that has been seen before.
#[tokio::test]
async fn what_kong_says_counts_before_an_old_snapshot() {
    for database in [false, true] {
        let (_dir, path) = file();
        let server = FakeAdmin::start(kong("first")).await;
        written(&server, &path).await;
        if database {
            server.becomes(kong_with_database("second"));
        } else {
            server.becomes(kong("second"));
        }
        let followed = follow(&server, Some(&path)).await;
        assert_eq!(name(&followed.entities.borrow()), Some("second"));
        assert_eq!(followed.status.borrow().origin, Origin::AdminApi);
    }
}

#[tokio::test]
async fn a_snapshot_that_cannot_be_trusted_is_none() {
    let (_dir, path) = file();
    let server = FakeAdmin::start(kong("first")).await;
    written(&server, &path).await;
    let good = std::fs::read(&path).unwrap();
    let text = String::from_utf8(good.clone()).unwrap();
    let replaced = |from: &str, to: &str| {
        assert!(text.contains(from), "{from}");
        text.replace(from, to).into_bytes()
    };
    server.becomes(down);
    for (what, content, mode) in [
        ("empty", Vec::new(), 0o600),
        ("half", good[..good.len() / 2].to_vec(), 0o600),
        ("more after its end", [&good[..], b"{}"].concat(), 0o600),
        ("something else", b"{}".to_vec(), 0o600),
        ("a declarative file", b"{\"_format_version\": \"3.0\"}".to_vec(), 0o600),
        ("another version", replaced("\"3.0\"", "\"9.0\""), 0o600),
        ("another Kong's", replaced("127.0.0.1", "127.0.0.2"), 0o600),
        ("torn", replaced(&format!("{{\"id\":\"{ROUTE}\"}}"), "{\"id\":\"x\"}"), 0o600),
        ("readable for others", good.clone(), 0o644),
        ("readable for a group", good.clone(), 0o640),
        ("writable for others", good.clone(), 0o602),
    ] {
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        let followed = follow(&server, Some(&path)).await;
        assert_eq!(followed.status.borrow().origin, Origin::NoSnapshot, "{what}");
        assert!(!followed.entities.borrow().is_known(), "{what}");
    }
    // The next good one takes its place, for its owner alone.
    server.becomes(kong("second"));
    written(&server, &path).await;
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
    server.becomes(down);
    let followed = follow(&server, Some(&path)).await;
    assert_eq!(name(&followed.entities.borrow()), Some("second"));
}

#[tokio::test]
async fn a_snapshot_that_cannot_be_written_is_no_reason_to_stop() {
    let (dir, path) = file();
    let path = path.join("nowhere");
    let server = FakeAdmin::start(kong("first")).await;
    let mut followed = follow(&server, Some(&path)).await;
    let status = until(&mut followed, |status| status.snapshot_file_error.is_some()).await;
    assert_eq!((status.origin, status.last_error), (Origin::AdminApi, None));
    // It is tried again with the next one.
    std::fs::create_dir(dir.path().join("snapshot.json")).unwrap();
    server.becomes(kong("second"));
    until_name(&mut followed, "second").await;
    until(&mut followed, |status| status.snapshot_file_error.is_none()).await;
    assert!(std::fs::read_to_string(&path).unwrap().contains("second"));
}

#[tokio::test]
async fn nobody_is_asked_for_nobody() {
    let server = FakeAdmin::start(kong("first")).await;
    let Followed { entities, mut status, .. } = follow(&server, None).await;
    drop(entities);
    let ended = async { while status.changed().await.is_ok() {} };
    tokio::time::timeout(LONG, ended).await.unwrap();
}

/// Collects what is logged on this thread.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn count(&self, text: &str) -> usize {
        String::from_utf8_lossy(&self.0.lock().unwrap()).matches(text).count()
    }
}

#[tokio::test]
async fn an_outage_is_logged_once_and_so_is_its_end() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let server = FakeAdmin::start(kong("first")).await;
    let mut followed = follow(&server, None).await;
    for outage in 1..=2 {
        server.becomes(|_| Reply::Answer(500, JSON, "{}".into()));
        until(&mut followed, |status| status.failures >= outage * 5).await;
        server.becomes(kong("first"));
        until(&mut followed, |status| status.last_error.is_none()).await;
    }
    assert_eq!(log.count("the last good one stays"), 2);
    assert_eq!(log.count("age="), 2);
    assert_eq!(log.count("can be read again"), 2);
    assert_eq!(log.count("PRIVATE"), 0);
}
