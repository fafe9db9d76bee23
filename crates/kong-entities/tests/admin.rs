//! What the client of the Admin API asks, what it finds, and what it does not believe.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kong_entities::{AdminClient, AdminSettings, AdminToken, SourceFault};
use openssl::pkey::PKey;
use openssl::ssl::{SslAcceptor, SslMethod};
use openssl::x509::X509;
use serde_json::{Value as Json, json};
use testbed::fake_admin::{
    CA_ID, ENTITIES, FakeAdmin, JSON, Reply, Seen, kong, kong_with, node, not_found, ok,
};
use testbed::pki::{Ca, Subject};

const VICTIM: &str = "11111111-1111-4111-8111-111111111111";
const OTHER: &str = "22222222-2222-4222-8222-222222222222";

fn client(url: &str) -> AdminClient {
    AdminClient::new(AdminSettings::new(url)).unwrap()
}

/// Every consumer by every name, and strangers by none.
async fn everybody_is_found(client: &AdminClient) {
    client.check().await.unwrap();
    let file: Json = serde_json::from_str(ENTITIES).unwrap();
    for declared in file["consumers"].as_array().unwrap() {
        let id = declared["id"].as_str().unwrap();
        let found = client.consumer_by_id(id).await.unwrap().unwrap();
        assert_eq!(found.id, id);
        assert_eq!(found.username.as_deref(), declared["username"].as_str());
        assert_eq!(found.custom_id.as_deref(), declared["custom_id"].as_str());
        if let Some(username) = declared["username"].as_str() {
            assert_eq!(client.consumer_by_username(username).await.unwrap().unwrap(), found, "{username}");
        }
        if let Some(custom_id) = declared["custom_id"].as_str() {
            assert_eq!(client.consumer_by_custom_id(custom_id).await.unwrap().unwrap(), found, "{custom_id}");
        }
    }
    // The longest that there can be a question for, once encoded.
    let long = "/".repeat(2048);
    let too_long = "/".repeat(9000);
    for stranger in [
        "",
        "Victim",
        "victim ",
        "victim\n",
        "victim\0",
        "\0",
        "victim/",
        "victim/../victim",
        "victim%00",
        "/",
        "?",
        "#",
        "c-victim",
        "?custom_id=c-victim",
        "victim/plugins",
        ".",
        "%2E%2E",
        OTHER,
        &long,
        &too_long,
    ] {
        assert_eq!(client.consumer_by_username(stranger).await, Ok(None), "{stranger:?}");
    }
    for stranger in ["", "C-VICTIM", "c-victim\0", "c-victim&size=1", "victim", VICTIM, &long, &too_long] {
        assert_eq!(client.consumer_by_custom_id(stranger).await, Ok(None), "{stranger:?}");
    }
    for stranger in ["", "victim", "c-victim", "11111111-1111-4111-8111-111111111112"] {
        assert_eq!(client.consumer_by_id(stranger).await, Ok(None), "{stranger:?}");
    }
    // A name that is one consumer's id and another's username.
    assert_eq!(client.consumer_by_username(VICTIM).await.unwrap().unwrap().id, OTHER);
    assert_eq!(client.consumer_by_id_or_username(VICTIM).await.unwrap().unwrap().id, VICTIM);
    let last =
        client.consumer_by_id_or_username("99999999-9999-4999-8999-999999999999").await.unwrap().unwrap();
    assert_eq!(last.id, "22222222-2222-4222-8222-222222222223");
    let umlaut = client.consumer_by_id_or_username("ümlaut").await.unwrap().unwrap();
    assert_eq!(umlaut.username.as_deref(), Some("ümlaut"));

    for stranger in ["", "PEM", "6ae7a1a4-0cf0-4b6a-9d3f-3f7c5a0b1c2e"] {
        assert_eq!(client.ca_certificate(stranger).await, Ok(None), "{stranger:?}");
    }
}

#[tokio::test]
async fn whoever_is_there_is_found_and_nobody_else() {
    let server = FakeAdmin::start(kong).await;
    let client = client(&server.url);
    everybody_is_found(&client).await;
    assert_eq!(client.ca_certificate(CA_ID).await.unwrap().unwrap().cert, "PEM");
}

/// The same of a real Kong, into which `kong.json` of the fake one has been loaded: `POST /config`, or consumer by
/// consumer with a database. With an https URL, `KONG_ADMIN_CA_FILE` says which CA to trust.
#[tokio::test]
async fn whoever_is_there_is_found_in_a_real_kong() {
    // Only where one is given.
    let Ok(url) = std::env::var("KONG_ADMIN_URL") else { return };
    let ca_file = std::env::var_os("KONG_ADMIN_CA_FILE").map(Into::into);
    everybody_is_found(&AdminClient::new(AdminSettings { ca_file, ..AdminSettings::new(url) }).unwrap())
        .await;
}

/// What cannot be asked for is not asked for: least of all the list of all consumers.
#[tokio::test]
async fn a_name_is_never_another_target() {
    let server = FakeAdmin::start(|_| not_found()).await;
    let client = client(&format!("{}/admin/team/", server.url));
    let too_long = "x".repeat(2049);
    for (name, target) in [
        (too_long.as_str(), None),
        ("", None),
        ("a\0b", None),
        ("a/b?c#d", Some("/admin/team/consumers/a%2Fb%3Fc%23d")),
        ("..", Some("/admin/team/consumers/%2E%2E")),
        ("../../x", Some("/admin/team/consumers/..%2F..%2Fx")),
        ("a b+c", Some("/admin/team/consumers/a%20b%2Bc")),
        ("a\r\nb: c", Some("/admin/team/consumers/a%0D%0Ab%3A%20c")),
        ("ü", Some("/admin/team/consumers/%C3%BC")),
    ] {
        assert_eq!(client.consumer_by_username(name).await, Ok(None), "{name:?}");
        assert_eq!(server.take_targets(), Vec::from_iter(target.map(str::to_owned)), "{name:?}");
    }
    let _ = client.consumer_by_custom_id("a&b=c d").await;
    assert_eq!(server.take_targets(), ["/admin/team/consumers?custom_id=a%26b%3Dc%20d"]);
    let _ = client.ca_certificate("../consumers").await;
    let _ = client.consumer_by_id("alice").await;
    let _ = client.consumer_by_custom_id("").await;
    assert_eq!(server.take_targets(), [""; 0]);
}

/// Asks for `alice` by each of her names, and for a CA.
async fn faults(client: &AdminClient) -> Vec<Option<SourceFault>> {
    vec![
        client.consumer_by_username("alice").await.err().map(|error| error.fault),
        client.consumer_by_id(VICTIM).await.err().map(|error| error.fault),
        client.consumer_by_custom_id("alice").await.err().map(|error| error.fault),
        client.ca_certificate(CA_ID).await.err().map(|error| error.fault),
    ]
}

#[tokio::test]
async fn what_is_about_another_entity_is_not_believed() {
    let another = json!({
        "id": OTHER, "username": "Alice", "custom_id": "alice ", "cert": "PEM",
        "data": [{"id": OTHER, "username": "alice", "custom_id": "bob"}],
    });
    let server = FakeAdmin::start(move |_| ok(another.clone())).await;
    let client = client(&server.url);
    let malformed = Some(SourceFault::Malformed("it is about another entity".into()));
    assert_eq!(faults(&client).await, vec![malformed; 4]);

    // The consumer of the right name, but not where an id is asked for.
    let alice = json!({"id": "not-an-id", "username": "alice", "custom_id": "alice"});
    let body = json!({"id": "not-an-id", "username": "alice", "data": [alice]});
    server.becomes(move |_| ok(body.clone()));
    assert!(faults(&client).await.iter().all(Option::is_some));

    let alice = json!({"id": OTHER, "username": "alice", "custom_id": "alice"});
    server.becomes(move |_| ok(json!({"data": [alice, alice]})));
    let error = client.consumer_by_custom_id("alice").await.unwrap_err();
    assert!(error.to_string().contains("several consumers"), "{error}");
}

#[tokio::test]
async fn what_is_no_answer_of_kong_is_an_error() {
    let server = FakeAdmin::start(kong).await;
    let client = client(&server.url);
    let page = |status: u16, content_type, body: &str| {
        let body = body.to_owned();
        move |_: &Seen| Reply::Answer(status, content_type, body.clone())
    };
    let one = r#"{"id":"x","username":"alice"}"#;
    for (script, says) in [
        (page(401, JSON, "{}"), "refused with status 401"),
        (page(403, JSON, "{}"), "refused with status 403"),
        (page(500, JSON, r#"{"message":"An unexpected error occurred"}"#), "unexpected status 500"),
        (page(503, "text/html", "<html>"), "unexpected status 503"),
        (page(204, JSON, ""), "unexpected status 204"),
        (page(301, JSON, "{}"), "unexpected status 301"),
        (page(400, "text/html", "<html>"), "unexpected status 400"),
        (page(414, "text/html", "<html>"), "unexpected status 414"),
        (page(404, "text/html", r#"{"message":"Not found"}"#), "content type \"text/html\""),
        (page(404, JSON, "{}"), "JSON of another form"),
        (page(404, JSON, "[]"), "JSON"),
        (page(200, "text/plain", one), "content type \"text/plain\""),
        (page(200, "application/jsonx", one), "content type"),
        (page(200, JSON, ""), "not JSON"),
        (page(200, JSON, "{"), "not JSON"),
        (page(200, JSON, "{\"id\":1}"), "JSON of another form"),
        (page(200, JSON, "{\"id\":\"x\"}SECRET"), "not JSON"),
        (page(200, JSON, "null"), "JSON of another form"),
        (page(200, JSON, "{\"id\":\"SECRET\",\"username\":[\"SECRET\"]}"), "JSON of another form"),
        (page(200, JSON, "{\"id\":\"x\",\"id\":\"y\",\"username\":\"alice\"}"), "JSON of another form"),
    ] {
        server.becomes(script);
        let error = client.consumer_by_username("alice").await.unwrap_err().to_string();
        assert!(error.contains(says) && error.contains("/consumers/alice: "), "{says}: {error}");
        assert!(!error.contains("SECRET"), "{error}");
    }
    // By custom id even Kong's own 404 is none: the list is there always.
    server.becomes(|_| not_found());
    assert_eq!(client.consumer_by_custom_id("alice").await.unwrap_err().fault, SourceFault::Status(404));
    assert!(client.check().await.is_err());
}

#[tokio::test]
async fn a_server_that_misbehaves_is_an_error_within_bounds() {
    let raw = |head: &str, body: usize| {
        let bytes = [head.as_bytes(), &vec![b' '; body]].concat();
        move |_: &Seen| Reply::Raw(bytes.clone())
    };
    let server = FakeAdmin::start(kong).await;
    let client = client(&server.url);
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n";
    for (script, says) in [
        (raw("", 0), "unreachable"),
        (raw("not HTTP at all\r\n\r\n", 0), "unreachable"),
        (raw(head, 0), "unreachable"),
        (raw(&format!("{head}Content-Length: 9\r\n\r\n{{}}"), 0), "unreachable"),
        (raw(&format!("{head}Content-Length: 1048577\r\n\r\n"), 1_048_577), "longer than 1048576 bytes"),
        (raw(&format!("{head}\r\n"), 3_000_000), "longer than 1048576 bytes"),
        (raw(&format!("{head}X: {}\r\n\r\n", "x".repeat(2_000_000)), 0), "unreachable"),
    ] {
        server.becomes(script);
        let error = client.consumer_by_username("alice").await.unwrap_err();
        assert!(error.to_string().contains(says), "{says}: {error}");
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let elsewhere = FakeAdmin::start(kong).await;
    let location = elsewhere.url.clone();
    let server = FakeAdmin::start(move |seen| {
        let target = &seen.target;
        Reply::Raw(format!("HTTP/1.1 302 Found\r\nLocation: {location}{target}\r\n\r\n").into_bytes())
    })
    .await;
    let settings =
        AdminSettings { token: Some(AdminToken::new("SECRET").unwrap()), ..AdminSettings::new(&server.url) };
    let client = AdminClient::new(settings).unwrap();
    let error = client.consumer_by_username("victim").await.unwrap_err();
    assert_eq!(error.fault, SourceFault::Status(302));
    assert_eq!(elsewhere.take_targets(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_answer_is_given_up() {
    let server = FakeAdmin::start(|_| Reply::Hang).await;
    let client = client(&server.url);
    let error = client.consumer_by_username("alice").await.unwrap_err();
    assert_eq!(error.fault, SourceFault::TimedOut(Duration::from_secs(3)));
    assert!(error.is_outage());
}

#[tokio::test]
async fn a_server_that_is_away_is_unreachable() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let error = client(&url).consumer_by_username("alice").await.unwrap_err();
    assert!(error.is_outage() && error.to_string().contains("unreachable"), "{error}");
}

#[tokio::test]
async fn a_connection_is_kept_and_replaced_when_the_server_closes_it() {
    let server = FakeAdmin::start(kong).await;
    let client = client(&server.url);
    for _ in 0..3 {
        client.consumer_by_username("victim").await.unwrap().unwrap();
    }
    // Not even an error spoils it, where the answer was whole.
    server.becomes(|_| Reply::Answer(500, JSON, "{}".into()));
    client.consumer_by_username("victim").await.unwrap_err();
    server.becomes(kong);
    client.consumer_by_username("victim").await.unwrap().unwrap();
    assert_eq!(server.take_seen().iter().map(|seen| seen.connection).collect::<Vec<_>>(), [1; 5]);

    // The server closes it upon the next request, as one does whose time is up: the request is made again.
    server.becomes(|seen| if seen.connection == 1 { Reply::Raw(Vec::new()) } else { kong(seen) });
    client.consumer_by_username("victim").await.unwrap().unwrap();
    assert_eq!(server.take_seen().iter().map(|seen| seen.connection).collect::<Vec<_>>(), [1, 2]);
}

#[tokio::test]
async fn the_token_goes_with_every_request_and_into_no_error() {
    let server = FakeAdmin::start(|seen| match seen.head.contains("kong-admin-token: SECRET\r\n") {
        true => Reply::Answer(401, JSON, r#"{"message":"SECRET"}"#.into()),
        false => kong(seen),
    })
    .await;
    let settings =
        AdminSettings { token: Some(AdminToken::new("SECRET").unwrap()), ..AdminSettings::new(&server.url) };
    assert!(!format!("{settings:?}").contains("SECRET"));
    let client = AdminClient::new(settings).unwrap();
    let error = client.consumer_by_username("victim").await.unwrap_err();
    assert_eq!(error.fault, SourceFault::Refused(401));
    assert!(!error.is_outage() && !format!("{error} {error:?}").contains("SECRET"));
}

#[tokio::test]
async fn lists_are_read_to_their_end() {
    let consumers: Vec<Json> = (0..2500)
        .map(|number| json!({"id": format!("55555555-5555-4555-8555-{number:012}"), "username": format!("u{number}")}))
        .collect();
    let server = FakeAdmin::start(move |seen| {
        // Whatever stands before Kong's own path is not in what it answers.
        let target = seen.target.strip_prefix("/admin").unwrap().to_owned();
        kong_with(&consumers, &Seen { target, ..seen.clone() })
    })
    .await;
    let client = client(&format!("{}/admin", server.url));
    let all: Vec<Json> = client.list("consumers").await.unwrap();
    let ids: std::collections::HashSet<_> = all.iter().map(|consumer| consumer["id"].to_string()).collect();
    assert_eq!((all.len(), ids.len()), (2500, 2500));
    assert_eq!(
        server.take_targets(),
        ["", "&offset=%2B1000", "&offset=%2B2000"].map(|more| format!("/admin/consumers?size=1000{more}"))
    );
}

#[tokio::test]
async fn a_list_that_has_no_end_or_no_middle_is_an_error() {
    let server = FakeAdmin::start(kong).await;
    let client = client(&server.url);
    server.becomes(|_| ok(json!({"data": [], "offset": "a", "next": "/x"})));
    let error = client.list::<Json>("plugins").await.unwrap_err().to_string();
    assert!(error.contains("circle"), "{error}");
    assert_eq!(server.take_targets().len(), 2);

    server.becomes(|_| ok(json!({"data": [], "next": "http://elsewhere/plugins"})));
    assert!(client.list::<Json>("plugins").await.unwrap_err().to_string().contains("no offset"));

    let count = std::sync::atomic::AtomicUsize::new(0);
    server.becomes(move |_| {
        let offset = count.fetch_add(1, std::sync::atomic::Ordering::SeqCst).to_string();
        ok(json!({"data": [1], "offset": offset, "next": "/x"}))
    });
    assert!(client.list::<Json>("plugins").await.unwrap_err().to_string().contains("more than 1000 pages"));

    // One page that fails, and nothing is given.
    server.becomes(|seen| match seen.target.contains("offset") {
        true => Reply::Answer(500, JSON, "{}".into()),
        false => ok(json!({"data": [{"id": OTHER, "username": VICTIM}], "offset": "a", "next": "/x"})),
    });
    assert_eq!(client.list::<Json>("plugins").await.unwrap_err().fault, SourceFault::Status(500));
    assert_eq!(client.consumer_by_username(VICTIM).await.unwrap_err().fault, SourceFault::Status(500));
}

#[tokio::test]
async fn tls_is_verified_by_the_cas_and_the_name_that_are_configured() {
    let (ca, stranger, dir) = (Ca::root("ca"), Ca::root("stranger"), tempfile::tempdir().unwrap());
    let ca_file = dir.path().join("ca.pem");
    std::fs::write(&ca_file, ca.pem()).unwrap();
    let attempt = async |issuer: &Ca, names: &[&str], host: &str, ca_file: Option<&std::path::Path>| {
        let server = FakeAdmin::start_tls(acceptor(issuer, names), kong).await;
        let url = server.url.replace("127.0.0.1", host);
        let token = Some(AdminToken::new("SECRET").unwrap());
        let settings = AdminSettings { ca_file: ca_file.map(Into::into), token, ..AdminSettings::new(url) };
        let found = AdminClient::new(settings).unwrap().consumer_by_username("victim").await;
        (found.map(|consumer| consumer.unwrap().id.clone()), server.take_seen().len())
    };
    let ours = Some(ca_file.as_path());
    assert_eq!(attempt(&ca, &["127.0.0.1"], "127.0.0.1", ours).await, (Ok(VICTIM.into()), 1));
    assert_eq!(attempt(&ca, &["localhost"], "localhost", ours).await, (Ok(VICTIM.into()), 1));
    for (issuer, names, host, ca_file) in [
        (&ca, ["kong.example.com"], "localhost", ours),
        (&ca, ["127.0.0.2"], "127.0.0.1", ours),
        (&ca, ["localhost"], "127.0.0.1", ours),
        (&stranger, ["localhost"], "localhost", ours),
        // The system does not know our CA.
        (&ca, ["localhost"], "localhost", None),
    ] {
        let (found, seen) = attempt(issuer, &names, host, ca_file).await;
        let error = found.unwrap_err().to_string();
        assert!(error.contains("certificate is not trusted"), "{names:?} {host}: {error}");
        assert_eq!(seen, 0, "nothing is asked, and no token sent");
    }
}

fn acceptor(issuer: &Ca, names: &[&str]) -> SslAcceptor {
    let leaf = issuer.issue(Subject::server(names));
    let mut builder = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server()).unwrap();
    builder.set_certificate(&X509::from_der(&leaf.der).unwrap()).unwrap();
    builder.set_private_key(&PKey::private_key_from_pem(leaf.key.as_bytes()).unwrap()).unwrap();
    builder.build()
}

#[test]
fn a_ca_file_that_is_none_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ca.pem");
    let attempt = |url: &str| {
        let settings = AdminSettings { ca_file: Some(path.clone()), ..AdminSettings::new(url) };
        AdminClient::new(settings).map(|_| ()).unwrap_err().to_string()
    };
    for (content, says) in
        [(None, "No such file"), (Some(""), "no certificate"), (Some("words"), "no certificate")]
    {
        if let Some(content) = content {
            std::fs::write(&path, content).unwrap();
        }
        let error = attempt("https://kong");
        assert!(error.contains("ca.pem: ") && error.contains(says), "{error}");
    }
    let error = attempt("http://kong");
    assert!(error.contains("http:// URL"), "{error}");
}

#[tokio::test]
async fn a_node_says_its_version_and_time_even_where_it_cannot_say_how_it_is_set_up() {
    const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    let configuration = json!({"trusted_ips": ["10.0.0.0/8"]});
    let server = FakeAdmin::start(move |_| node(200, "3.9.1", &configuration, DATE)).await;
    let client = client(&server.url);
    let before = SystemTime::now();
    let found = client.node().await.unwrap();
    assert_eq!(
        (&*found.version, found.settings.unwrap().trusted_ips),
        ("3.9.1", vec!["10.0.0.0/8".to_owned()])
    );
    assert_eq!(found.date, Some(UNIX_EPOCH + Duration::from_secs(784_111_777)));
    assert!(before <= found.asked.0 && found.asked.0 <= found.asked.1 && found.asked.1 <= SystemTime::now());
    assert_eq!(server.take_targets(), ["/"]);

    // As Kong 3.9.1 answers in the worker that has started a plugin server.
    server.becomes(|_| node(500, "3.9.1", &Json::Null, DATE));
    let found = client.node().await.unwrap();
    assert_eq!((&*found.version, &found.settings), ("3.9.1", &None));
    assert!(found.date.is_some());
    server.becomes(|_| node(200, "3.9.1", &Json::Null, "soon"));
    assert_eq!(client.node().await.unwrap().date, None);

    server.becomes(|_| Reply::Answer(500, JSON, "{}".into()));
    assert_eq!(client.node().await.unwrap_err().fault, SourceFault::Status(500));
    server.becomes(|_| node(401, "3.9.1", &Json::Null, DATE));
    assert_eq!(client.node().await.unwrap_err().fault, SourceFault::Refused(401));
    server.becomes(|_| ok(json!({"version": 3})));
    assert!(matches!(client.node().await.unwrap_err().fault, SourceFault::Malformed(_)));
}
