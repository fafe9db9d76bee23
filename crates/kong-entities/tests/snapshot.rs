//! What is read of Kong's whole configuration through its Admin API, and what is not taken for one.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use kong_entities::{
    AdminClient, AdminSettings, Certificate, Entities, SourceFault, applied_plugins, parse_json, snapshot,
};
use serde_json::{Value as Json, json};
use testbed::fake_admin::{FakeAdmin, JSON, Reply, Seen, kong_of, not_found, ok};

const HASH: &str = "12a0ff31c85ee32cbb28ae721edc5b8a";

fn client(url: &str) -> AdminClient {
    AdminClient::new(AdminSettings::new(url)).unwrap()
}

fn id(number: usize) -> String {
    format!("aaaaaaaa-0000-4000-8000-{number:012}")
}

/// A configuration as somebody writes it.
fn written() -> Json {
    json!({
        "_format_version": "3.0",
        "ca_certificates": [{"id": id(1), "cert": "CA"}],
        "certificates": [
            {"id": id(2), "cert": "RSA", "key": "K1", "cert_alt": "EC", "key_alt": "K2",
             "snis": [{"name": "a.example"}, {"name": "*.a.example"}]},
            {"id": id(3), "cert": "{vault://env/cert}", "key": "{vault://env/key}"},
        ],
        "snis": [{"name": "*", "certificate": id(3)}],
        "services": [
            {"name": "payments", "url": "http://127.0.0.1", "plugins": [{"name": "mtls-auth", "config": {"a": 1}}],
             "routes": [
                {"name": "pay", "snis": ["pay.example", "*.pay.example"], "plugins": [{"name": "key-auth"}]},
                {"name": "off", "plugins": [{"name": "mtls-auth", "enabled": false, "config": {"a": 2}}]},
             ]},
            // Its name is another's id.
            {"id": id(5), "name": id(99), "url": "http://127.0.0.1"},
        ],
        "routes": [{"id": id(12), "protocols": ["tls"], "expression": "tls.sni == \"x\"", "service": id(5)}],
        "consumers": [{"username": "alice", "plugins": [{"name": "mtls-auth", "config": {"a": 3}}]}],
        "plugins": [{"name": "mtls-auth", "route": "pay", "service": "payments", "config": {"a": 4}}],
    })
}

/// The same as Kong lists it.
fn listed() -> Json {
    let plugin = |number, name, service: Option<usize>, route: Option<usize>, enabled: bool, config: Json| {
        let reference = |number: Option<usize>| number.map_or(Json::Null, |number| json!({"id": id(number)}));
        json!({
            "id": id(number), "name": name, "enabled": enabled, "config": config, "consumer": null,
            "service": reference(service), "route": reference(route), "tags": null, "instance_name": null,
        })
    };
    let mut of_alice = plugin(33, "mtls-auth", None, None, true, json!({"a": 3}));
    of_alice["consumer"] = json!({"id": id(50)});
    json!({
        "ca_certificates": [{"id": id(1), "cert": "CA", "cert_digest": "00", "tags": null}],
        "certificates": [
            {"id": id(3), "cert": "{vault://env/cert}", "key": "{vault://env/key}", "cert_alt": null, "key_alt": null},
            {"id": id(2), "cert": "RSA", "key": "K1", "cert_alt": "EC", "key_alt": "K2"},
        ],
        "snis": [
            {"id": id(62), "name": "*", "certificate": {"id": id(3)}},
            {"id": id(61), "name": "a.example", "certificate": {"id": id(2)}},
            {"id": id(60), "name": "*.a.example", "certificate": {"id": id(2)}},
        ],
        "services": [
            {"id": id(99), "name": "payments", "host": "127.0.0.1", "ca_certificates": null},
            {"id": id(5), "name": id(99), "host": "127.0.0.1", "ca_certificates": null},
        ],
        "routes": [
            {"id": id(12), "name": null, "snis": null, "protocols": ["tls"], "expression": "tls.sni == \"x\"",
             "service": {"id": id(5)}},
            {"id": id(11), "name": "off", "snis": null, "protocols": ["http", "https"], "expression": null,
             "service": {"id": id(99)}},
            {"id": id(10), "name": "pay", "snis": ["pay.example", "*.pay.example"], "protocols": ["http", "https"],
             "service": {"id": id(99)}},
        ],
        "plugins": [
            plugin(30, "mtls-auth", Some(99), None, true, json!({"a": 1})),
            plugin(31, "key-auth", None, Some(10), true, json!({"secret": "SECRET"})),
            plugin(32, "mtls-auth", None, Some(11), false, json!({"a": 2})),
            of_alice,
            plugin(34, "mtls-auth", Some(99), Some(10), true, json!({"a": 4})),
        ],
    })
}

/// All that the shim looks at, in an order that does not depend on the source's.
#[derive(Debug, PartialEq)]
struct Seeable {
    ca_certificates: BTreeMap<String, String>,
    snis: BTreeMap<String, Vec<(String, String)>>,
    services: Vec<String>,
    routes: Vec<String>,
    plugins: Vec<String>,
}

/// `configurations`: whether those of the plugins count too.
fn seeable(entities: &Entities, configurations: bool) -> Seeable {
    assert!(entities.is_known());
    let pairs = |certificate: &Certificate| {
        let pairs = std::iter::once(&certificate.primary).chain(&certificate.alternative);
        pairs.map(|pair| (pair.cert.trim().into(), pair.key.text().trim().into())).collect()
    };
    let service = |index: Option<usize>| index.map(|index| &entities.services[index].label);
    let route = |index: Option<usize>| index.map(|index| &entities.routes[index].label);
    let sorted = |texts: &mut dyn Iterator<Item = String>| {
        let mut texts: Vec<_> = texts.collect();
        texts.sort();
        texts
    };
    let cas = entities.ca_certificates.iter();
    Seeable {
        ca_certificates: cas.map(|(id, ca)| (id.clone(), ca.cert.trim().into())).collect(),
        snis: entities.snis.iter().map(|(name, certificate)| (name.clone(), pairs(certificate))).collect(),
        services: sorted(&mut entities.services.iter().map(|service| service.label.clone())),
        routes: sorted(&mut entities.routes.iter().map(|route| {
            let (label, service) = (&route.label, service(route.service));
            format!("{label} {service:?} {:?} {:?} {:?}", route.snis, route.protocols, route.expression)
        })),
        plugins: sorted(&mut entities.plugins.iter().map(|plugin| {
            let scope = (service(plugin.scope.service), route(plugin.scope.route), plugin.scope.consumer);
            let ours = plugin.name == "mtls-auth" && configurations;
            let config = ours.then_some(&plugin.config);
            format!("{} {} {scope:?} {config:?}", plugin.name, plugin.enabled)
        })),
    }
}

#[tokio::test]
async fn both_sources_give_the_same() {
    let file = parse_json(&written().to_string()).unwrap();
    for hash in [Some(HASH), None] {
        let server = FakeAdmin::start(move |seen| kong_of(&listed(), hash, seen)).await;
        let entities = snapshot(&client(&server.url)).await.unwrap();
        assert_eq!(seeable(&entities, true), seeable(&file, true));
        // Nobody here needs it, unless they say so.
        assert!(!format!("{entities:?}").contains("SECRET"));
        let entities = applied_plugins(&client(&server.url), &["key-auth"]).await.unwrap();
        assert!(entities.certificates.is_empty() && entities.routes.len() == 3);
        let configs: BTreeMap<_, _> =
            entities.plugins.iter().map(|plugin| (&*plugin.name, &plugin.config)).collect();
        assert_eq!(
            configs,
            BTreeMap::from([("key-auth", &json!({"secret": "SECRET"})), ("mtls-auth", &Json::Null)])
        );
    }
}

/// Against a Kong that runs already: `KONG_ADMIN_URL=http://127.0.0.1:8001`, which was loaded with the declarative file that
/// `KONG_DECLARATIVE_FILE` names, with or without a database. Its routes and services have names or ids.
#[tokio::test]
async fn a_real_kong_gives_the_same_as_its_file() {
    let (Ok(url), Some(file)) = (std::env::var("KONG_ADMIN_URL"), std::env::var_os("KONG_DECLARATIVE_FILE"))
    else {
        return;
    };
    let entities = snapshot(&client(&url)).await.unwrap();
    let file = kong_entities::load(Path::new(&file)).unwrap();
    // Kong fills in the defaults of their configurations.
    assert_eq!(seeable(&entities, false), seeable(&file, false));
}

/// One digest before and after is one configuration; without any, two readings have to agree.
#[tokio::test]
async fn what_is_asked() {
    let lists = [
        "/plugins?size=1000",
        "/routes?size=1000",
        "/services?size=1000",
        "/ca_certificates?size=100",
        "/snis?size=1000",
        "/certificates?size=100",
    ];
    let once = [&["/status"][..], &lists].concat();
    for (hash, expected) in
        [(Some(HASH), [&once[..], &["/status"]].concat()), (None, [&once[..], &once[..]].concat())]
    {
        let server = FakeAdmin::start(move |seen| kong_of(&listed(), hash, seen)).await;
        snapshot(&client(&server.url)).await.unwrap();
        assert_eq!(server.take_targets(), expected);
    }
}

/// A front may let through the lists only.
#[tokio::test]
async fn a_status_that_is_kept_from_us_is_not_needed() {
    for status in [401, 403, 404] {
        let server = FakeAdmin::start(move |seen| match seen.target.as_str() {
            "/status" => Reply::Answer(status, JSON, "{}".into()),
            _ => kong_of(&listed(), Some(HASH), seen),
        })
        .await;
        let entities = snapshot(&client(&server.url)).await.unwrap();
        assert_eq!((entities.plugins.len(), entities.routes.len()), (5, 3), "{status}");
    }
}

#[tokio::test]
async fn a_kong_without_configuration_has_none() {
    let server =
        FakeAdmin::start(|seen| kong_of(&json!({}), Some("00000000000000000000000000000000"), seen)).await;
    let error = snapshot(&client(&server.url)).await.map(drop).unwrap_err();
    assert_eq!(error.fault, SourceFault::NoConfiguration);
    assert!(error.is_outage());
}

/// A database with nothing in it is a configuration with nothing in it.
#[tokio::test]
async fn an_empty_database_is_empty() {
    let server = FakeAdmin::start(|seen| kong_of(&json!({}), None, seen)).await;
    assert_eq!(snapshot(&client(&server.url)).await.unwrap().plugins, []);
}

/// Ten thousand here, for a debug build; each list by its pages.
#[tokio::test]
async fn many_routes() {
    let routes: Vec<_> = (0..10_500)
        .map(|number| {
            json!({"id": id(number), "name": format!("r{number}"), "snis": [format!("h{number}.example")],
                   "protocols": ["https"], "service": null})
        })
        .collect();
    let plugins: Vec<_> = (0..1_500)
        .map(|number| {
            json!({"id": id(number), "name": "mtls-auth", "enabled": true, "config": {},
                   "route": {"id": id(number * 7)}})
        })
        .collect();
    let lists = json!({"routes": routes, "plugins": plugins});
    let server = FakeAdmin::start(move |seen| kong_of(&lists, Some(HASH), seen)).await;
    let entities = snapshot(&client(&server.url)).await.unwrap();
    assert_eq!((entities.routes.len(), entities.plugins.len()), (10_500, 1_500));
    let named = entities.plugins.iter().filter_map(|plugin| plugin.scope.route);
    assert_eq!(named.map(|index| entities.routes[index].label.clone()).max().unwrap(), "r9996");
    assert_eq!(server.take_targets().len(), 2 + 2 + 11 + 1 + 1 + 1 + 1);
}

/// Answers as a Kong whose lists are those that `lists_at` gives for the number of the request, counted from 0.
async fn changing(
    hash_at: impl Fn(usize) -> Option<&'static str> + Send + 'static,
    lists_at: impl Fn(usize) -> Json + Send + 'static,
) -> FakeAdmin {
    let asked = AtomicUsize::new(0);
    FakeAdmin::start(move |seen| {
        let number = asked.fetch_add(1, Ordering::SeqCst);
        kong_of(&lists_at(number), hash_at(number), seen)
    })
    .await
}

/// One plugin takes the place of another while the pages are read: the new one has the lower id and stands on a page that
/// was read before it came, the old one on a page that is read after it has gone. No page shows either.
fn replaced(moved: bool) -> Json {
    let mut plugins: Vec<_> =
        (1..=1_200).map(|number| json!({"id": id(number), "name": "key-auth", "enabled": true})).collect();
    let ours = |number| json!({"id": id(number), "name": "mtls-auth", "enabled": true, "config": {}});
    if moved {
        plugins[0] = ours(1);
    } else {
        plugins[1_199] = ours(1_200);
    }
    json!({"plugins": plugins})
}

#[tokio::test]
async fn a_plugin_that_moves_between_pages_is_not_lost() {
    // Request 0 is for the status, 1 and 2 for the pages.
    for hash_at in [|number: usize| Some(if number < 2 { "a" } else { "b" }), |_: usize| None] {
        let server = changing(hash_at, |number| replaced(number >= 2)).await;
        let entities = snapshot(&client(&server.url)).await.unwrap();
        assert_eq!(entities.plugins.iter().filter(|plugin| plugin.name == "mtls-auth").count(), 1);
    }
}

/// A reading is eight requests here: each is whole, and no two in a row are the same.
#[tokio::test]
async fn what_never_holds_still_is_no_configuration() {
    let server = changing(|_| None, |number| replaced(number / 8 % 2 == 0)).await;
    let error = snapshot(&client(&server.url)).await.map(drop).unwrap_err();
    let SourceFault::Unsettled(problem) = &error.fault else { panic!("{error}") };
    assert!(problem.contains("changes while it is read") && error.is_outage(), "{error}");
}

#[tokio::test]
async fn what_refers_to_nothing_is_read_again_and_never_taken() {
    let broken = |change: &dyn Fn(&mut Json)| {
        let mut lists = listed();
        change(&mut lists);
        lists
    };
    let missing = |collection: &str, number: usize| {
        broken(&|lists| {
            let list = lists[collection].as_array_mut().unwrap();
            list.retain(|entity| entity["id"] != id(number).as_str());
        })
    };
    let twice = |collection: &str| {
        broken(&|lists| {
            let list = lists[collection].as_array_mut().unwrap();
            list.push(list[0].clone());
        })
    };
    let mut cases = tokio::task::JoinSet::new();
    for (lists, says) in [
        (missing("routes", 10), ": there is no route"),
        (missing("services", 99), "there is no service"),
        (missing("services", 5), "route: there is no service"),
        (missing("certificates", 2), "there is no certificate"),
        (twice("routes"), "routes: "),
        (twice("services"), "services: "),
        (twice("certificates"), "certificates: "),
        (twice("snis"), "snis: "),
        (twice("ca_certificates"), "ca_certificates: "),
    ] {
        cases.spawn(async move {
            for hash in [Some(HASH), None] {
                let lists = lists.clone();
                // The first reading is eight requests where there is a digest and seven where there is none.
                let lists_at = move |number| if number < 7 { lists.clone() } else { listed() };
                let healing = changing(move |_| hash, lists_at).await;
                let entities = snapshot(&client(&healing.url)).await.unwrap();
                assert_eq!(entities.routes.len(), 3, "{says}");
            }
            let server = FakeAdmin::start(move |seen| kong_of(&lists, Some(HASH), seen)).await;
            let error = snapshot(&client(&server.url)).await.map(drop).unwrap_err();
            let SourceFault::Unsettled(problem) = &error.fault else { panic!("{error}") };
            assert!(problem.contains(says), "{says}: {problem}");
        });
    }
    // Each takes its time.
    while let Some(case) = cases.join_next().await {
        case.unwrap();
    }
}

/// Its name, what is made of it, and the answer.
type Fault = (&'static str, fn(&SourceFault) -> bool, Box<dyn Fn() -> Reply + Send + Sync>);

/// A page that fails fails the whole, whatever list it is of.
#[tokio::test]
async fn a_part_is_never_given_for_the_whole() {
    let many: Vec<_> = (1..=1_001).map(|number| json!({"id": id(number), "name": "key-auth"})).collect();
    let lists = Arc::new(json!({"plugins": many}));
    let half = || {
        let whole = json!({"data": [{"id": id(1), "name": "mtls-auth"}], "next": null}).to_string();
        let half = &whole[..whole.len() / 2];
        let head =
            format!("HTTP/1.1 200 OK\r\nContent-Type: {JSON}\r\nContent-Length: {}\r\n\r\n", whole.len());
        Reply::Raw([head.as_bytes(), half.as_bytes()].concat())
    };
    let faults: [Fault; 8] = [
        (
            "500",
            |fault| *fault == SourceFault::Status(500),
            Box::new(|| Reply::Answer(500, JSON, "{}".into())),
        ),
        (
            "401",
            |fault| *fault == SourceFault::Refused(401),
            Box::new(|| Reply::Answer(401, JSON, "{}".into())),
        ),
        ("404", |fault| *fault == SourceFault::Status(404), Box::new(not_found)),
        ("half a page", |fault| matches!(fault, SourceFault::Unreachable(_)), Box::new(half)),
        (
            "a circle",
            |fault| matches!(fault, SourceFault::Malformed(_)),
            Box::new(|| ok(json!({"data": [], "next": "/x?offset=a", "offset": "a"}))),
        ),
        (
            "no offset",
            |fault| matches!(fault, SourceFault::Malformed(_)),
            Box::new(|| ok(json!({"data": [], "next": "/x?offset=a"}))),
        ),
        ("no list", |fault| matches!(fault, SourceFault::Malformed(_)), Box::new(|| ok(json!({"data": {}})))),
        (
            "no id",
            |fault| matches!(fault, SourceFault::Malformed(_)),
            Box::new(|| ok(json!({"data": [{"name": "a", "cert": "c", "key": "k"}], "next": null}))),
        ),
    ];
    for (name, is_it, reply) in faults {
        let reply = Arc::new(reply);
        for target in [
            "/plugins?size=1000",
            "/plugins?size=1000&offset=%2B1000",
            "/routes?size=1000",
            "/services?size=1000",
            "/ca_certificates?size=100",
            "/snis?size=1000",
            "/certificates?size=100",
        ] {
            if (name, target) == ("no id", "/snis?size=1000") {
                // Nothing refers to one.
                continue;
            }
            let (lists, reply) = (Arc::clone(&lists), Arc::clone(&reply));
            let answer = move |seen: &Seen| {
                if seen.target == target || seen.target.ends_with("offset=a") {
                    reply()
                } else {
                    kong_of(&lists, Some(HASH), seen)
                }
            };
            let server = FakeAdmin::start(answer).await;
            let error = snapshot(&client(&server.url)).await.map(drop).unwrap_err();
            assert!(is_it(&error.fault), "{name} {target}: {error}");
        }
    }
}

#[tokio::test]
async fn another_prefix_is_no_empty_configuration() {
    let server = FakeAdmin::start(|seen| match seen.target.strip_prefix("/admin") {
        Some(target) => kong_of(&listed(), Some(HASH), &Seen { target: target.into(), ..seen.clone() }),
        None => not_found(),
    })
    .await;
    let error = snapshot(&client(&server.url)).await.map(drop).unwrap_err();
    assert_eq!(error.fault, SourceFault::Status(404));
    let entities = snapshot(&client(&format!("{}/admin", server.url))).await.unwrap();
    assert_eq!(entities.routes.len(), 3);
}
