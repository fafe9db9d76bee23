//! What is read from a declarative file, and what is refused.

use kong_entities::{Scope, load, parse_json, parse_yaml};

const NESTED: &str = r#"
_format_version: "3.0"
_transform: true
ca_certificates:
- id: 6AE7A1A4-0CF0-4B6A-9D3F-3F7C5A0B1C2D
  cert: PEM
consumers:
- username: alice
  custom_id: a-1
- id: 11111111-1111-4111-8111-111111111111
  custom_id: b-2
  plugins:
  - name: rate-limiting
services:
- name: payments
  url: http://127.0.0.1:9000
  plugins:
  - name: mtls-auth
    config: {ca_certificates: [x]}
  routes:
  - name: pay
    snis: [pay.example.com, "*.pay.example.com"]
    plugins:
    - name: mtls-auth
      enabled: false
- name: other
  url: http://127.0.0.1:9001
routes:
- name: bare
  service: other
- id: 22222222-2222-4222-8222-222222222222
  service: {id: payments}
  protocols: [tls]
  expression: tls.sni == "a"
plugins:
- name: mtls-auth
- name: mtls-auth
  route: pay
- name: mtls-auth
  service: {name: other}
  consumer: alice
"#;

#[test]
fn everything_that_is_nested_or_referred_to_is_found() {
    let entities = parse_yaml(NESTED).unwrap();
    assert_eq!(entities.ca_certificates["6ae7a1a4-0cf0-4b6a-9d3f-3f7c5a0b1c2d"].cert, "PEM");

    let services: Vec<_> = entities.services.iter().map(|service| service.label.as_str()).collect();
    assert_eq!(services, ["payments", "other"]);
    let routes: Vec<_> =
        entities.routes.iter().map(|route| (route.label.as_str(), route.service, route.snis.len())).collect();
    let unnamed = "22222222-2222-4222-8222-222222222222";
    assert_eq!(routes, [("pay", Some(0), 2), ("bare", Some(1), 0), (unnamed, Some(0), 0)]);
    assert_eq!(entities.routes[0].protocols, ["http", "https"]);
    assert_eq!(entities.routes[2].protocols, ["tls"]);
    assert_eq!(entities.routes[2].expression.as_deref(), Some(r#"tls.sni == "a""#));

    let scope = |service, route, consumer| Scope { service, route, consumer };
    let ours: Vec<_> = entities
        .plugins
        .iter()
        .filter(|plugin| plugin.name == "mtls-auth")
        .map(|plugin| (plugin.scope, plugin.enabled))
        .collect();
    assert_eq!(ours.len(), 5);
    for expected in [
        (scope(Some(0), None, false), true),
        (scope(None, Some(0), false), false),
        (scope(None, None, false), true),
        (scope(None, Some(0), false), true),
        (scope(Some(1), None, true), true),
    ] {
        assert!(ours.contains(&expected), "{expected:?} in {ours:?}");
    }
    let on_service =
        entities.plugins.iter().find(|plugin| plugin.scope == scope(Some(0), None, false)).unwrap();
    assert_eq!(on_service.config["ca_certificates"][0], "x");
}

#[test]
fn consumers_are_found_by_each_of_their_names() {
    let entities = parse_yaml(NESTED).unwrap();
    let alice = entities.consumer_by_username("alice").unwrap();
    assert_eq!(entities.consumer_by_custom_id("a-1"), Some(alice));
    assert_eq!(entities.consumer_by_id_or_username("alice"), Some(alice));
    assert_eq!(entities.consumer_by_id_or_username(&alice.id.to_uppercase()), Some(alice));
    let other = entities.consumer_by_id("11111111-1111-4111-8111-111111111111").unwrap();
    assert_eq!(entities.consumer_by_custom_id("b-2"), Some(other));
    for stranger in ["Alice", "alice ", "a-1", ""] {
        assert_eq!(entities.consumer_by_username(stranger), None, "{stranger:?}");
    }
}

/// The ids are those that a Kong 3.9.1 gave to these consumers.
#[test]
fn a_consumer_without_id_has_the_id_that_kong_gives_it() {
    let entities = parse_yaml(NESTED).unwrap();
    assert_eq!(entities.consumer_by_username("alice").unwrap().id, "b32379d9-3d28-5683-a79c-72139be6e34f");
}

/// Kong without a database keeps an id as it is written, and finds a consumer's groups and credentials by that only.
#[test]
fn an_id_keeps_its_case_and_is_found_in_any() {
    let text =
        "_format_version: '3.0'\nconsumers: [{id: AAAAAAAA-1111-4111-8111-111111111111, username: a}]\n";
    let entities = parse_yaml(text).unwrap();
    let consumer = entities.consumer_by_id("aaaaaaaa-1111-4111-8111-111111111111").unwrap();
    assert_eq!(consumer.id, "AAAAAAAA-1111-4111-8111-111111111111");
    let twice = text.replace("username: a}", "username: a}, {id: aaaaaaaa-1111-4111-8111-111111111111}");
    assert!(parse_yaml(&twice).unwrap_err().contains("stands twice"));
}

/// As the commercial edition's tools write them: nested by decK, flat by `kong config db_export`.
const MAPPED: &str = r#"
_format_version: "3.0"
ca_certificates:
- id: 6AE7A1A4-0CF0-4B6A-9D3F-3F7C5A0B1C2D
  cert: PEM
consumers:
- username: alice
  mtls_auth_credentials:
  - id: AAAAAAAA-0000-4000-8000-000000000001
    subject_name: alice@example.com
    ca_certificate: {id: 6ae7a1a4-0cf0-4b6a-9d3f-3f7c5a0b1c2d}
    tags: null
  - subject_name: shared.example.com
- id: 11111111-1111-4111-8111-111111111111
  custom_id: bob
mtls_auth_credentials:
- id: aaaaaaaa-0000-4000-8000-000000000002
  created_at: 1700000000
  subject_name: alice@example.com
  consumer: 11111111-1111-4111-8111-111111111111
  ca_certificate: null
- subject_name: shared.example.com
  consumer: {username: alice}
  ca_certificate: 6ae7a1a4-0cf0-4b6a-9d3f-3f7c5a0b1c2d
"#;

#[test]
fn mappings_are_found_by_subject_name() {
    let entities = parse_yaml(MAPPED).unwrap();
    let found = |name: &str| -> Vec<_> {
        let mappings = entities.mappings(name).iter();
        mappings
            .map(|mapping| (mapping.consumer.username.as_deref(), mapping.ca_certificate.as_deref()))
            .collect()
    };
    let ca = Some("6ae7a1a4-0cf0-4b6a-9d3f-3f7c5a0b1c2d");
    assert_eq!(found("alice@example.com"), [(Some("alice"), ca), (None, None)]);
    assert_eq!(found("shared.example.com"), [(Some("alice"), None), (Some("alice"), ca)]);
    assert_eq!(found("Alice@example.com"), []);
    let ids: Vec<_> =
        entities.mappings("alice@example.com").iter().map(|mapping| mapping.id.as_str()).collect();
    assert_eq!(ids, ["aaaaaaaa-0000-4000-8000-000000000001", "aaaaaaaa-0000-4000-8000-000000000002"]);
    assert_eq!(entities.mappings("alice@example.com")[1].consumer.custom_id.as_deref(), Some("bob"));
}

#[test]
fn a_mapping_without_id_has_one_that_stays() {
    let (one, other) = (parse_yaml(MAPPED).unwrap(), parse_yaml(MAPPED).unwrap());
    assert_eq!(one.mappings("shared.example.com"), other.mappings("shared.example.com"));
    let ids: Vec<_> = one.mappings("shared.example.com").iter().map(|mapping| mapping.id.as_str()).collect();
    assert_eq!(ids, ["43f0530c-55be-51e1-b38c-236e3db56d4d", "f4e97c05-5be2-51ea-a00e-c2235df1db1d"]);
}

/// Each form that a Kong 3.9.1 takes.
const CERTIFICATES: &str = r#"
_format_version: "3.0"
certificates:
- id: AAAAAAAA-0000-4000-8000-000000000001
  cert: RSA
  key: SECRET-1
  cert_alt: EC
  key_alt: SECRET-2
  snis:
  - name: nested.example
  - {id: aaaaaaaa-0000-4000-8000-00000000000a, name: "*.nested.example", tags: null}
- cert: "{vault://env/cert}"
  key: "{vault://env/key}"
  cert_alt: null
  key_alt: null
  snis: [{name: vault.*}]
- id: aaaaaaaa-0000-4000-8000-000000000001
  cert: OTHER
  key: SECRET-3
  snis: null
snis:
- name: bare.example
  certificate: aaaaaaaa-0000-4000-8000-000000000001
- name: Bare.example
  certificate: {id: AAAAAAAA-0000-4000-8000-000000000001}
- name: "*"
  certificate: {id: aaaaaaaa-0000-4000-8000-000000000001}
"#;

#[test]
fn a_server_certificate_is_found_by_its_names() {
    let entities = parse_yaml(CERTIFICATES).unwrap();
    let mut found: Vec<_> = entities
        .snis
        .iter()
        .map(|(name, certificate)| {
            let pairs = std::iter::once(&certificate.primary).chain(&certificate.alternative);
            let pairs: Vec<_> = pairs.map(|pair| (pair.cert.as_str(), pair.key.text())).collect();
            (name.as_str(), pairs)
        })
        .collect();
    found.sort();
    let first = vec![("RSA", "SECRET-1"), ("EC", "SECRET-2")];
    let other = vec![("OTHER", "SECRET-3")];
    let vault = vec![("{vault://env/cert}", "{vault://env/key}")];
    assert_eq!(
        found,
        [
            ("*", other.clone()),
            ("*.nested.example", first.clone()),
            ("Bare.example", first.clone()),
            ("bare.example", other),
            ("nested.example", first),
            ("vault.*", vault),
        ]
    );
    let ids: Vec<_> = entities.certificates.iter().map(|certificate| certificate.id.as_deref()).collect();
    let id = "aaaaaaaa-0000-4000-8000-000000000001";
    assert_eq!(ids, [Some(id.to_uppercase().as_str()), None, Some(id)]);
    assert!(!format!("{entities:?}").contains("SECRET"));
}

#[test]
fn json_reads_the_same() {
    let entities = parse_json(r#"{"_format_version":"3.0","consumers":[{"username":"bob"}]}"#).unwrap();
    assert!(entities.consumer_by_username("bob").is_some());
}

#[test]
fn what_is_wrong_is_refused_and_named() {
    let consumers = |list: &str| format!("_format_version: '3.0'\nconsumers: {list}\n");
    let plugins = |list: &str| format!("_format_version: '3.0'\nplugins: {list}\n");
    let certificates = |list: &str| format!("_format_version: '3.0'\ncertificates: {list}\n");
    let snis = |list: &str| format!("{}snis: {list}\n", certificates("[{id: i, cert: c, key: SECRET}]"));
    let mappings = |list: &str| {
        format!("{}mtls_auth_credentials: {list}\n", consumers("[{username: a}, {username: b}]"))
    };
    for (text, says) in [
        (String::new(), "empty"),
        (" \n".into(), "empty"),
        ("consumers: []\n".into(), "_format_version"),
        ("_format_version: '9'\n".into(), "_format_version"),
        ("just some words".into(), "line 1"),
        (consumers("[{username: a}, {username: a}]"), "stands twice"),
        (
            consumers("[{username: a, custom_id: x}, {username: b, custom_id: x}]"),
            "custom_id \"x\" stands twice",
        ),
        (consumers("[{username: [a]}]"), "line 2"),
        (plugins("[{name: mtls-auth, route: nowhere}]"), "there is no route \"nowhere\""),
        (plugins("[{name: mtls-auth, service: {name: nowhere}}]"), "there is no service \"nowhere\""),
        (plugins("[{name: mtls-auth, service: {}}]"), "expected a name or an id"),
        (plugins("[{name: mtls-auth, enabled: perhaps}]"), "line 2"),
        ("_format_version: '3.0'\nroutes: [{name: r}, {name: r}]\n".into(), "\"r\" stands twice"),
        (certificates("[{id: i, cert: c}]"), "key"),
        (certificates("[{id: i, key: SECRET}]"), "cert"),
        (
            certificates("[{id: i, cert: c, key: SECRET, cert_alt: d}]"),
            "i: cert_alt and key_alt stand together",
        ),
        (certificates("[{cert: c, key: SECRET, key_alt: SECRET}]"), "cert_alt and key_alt stand together"),
        (certificates("[{id: i, cert: c, key: SECRET}, {id: i, cert: d, key: SECRET}]"), "id i stands twice"),
        (certificates("[{id: i, cert: c, key: SECRET, snis: [{name: a}, {name: a}]}]"), "\"a\" stands twice"),
        (certificates("[{id: i, cert: c, key: SECRET, snis: [a.example]}]"), "line 2"),
        (
            certificates("[{id: i, cert: c, key: SECRET, snis: [{name: a, certificate: i}]}]"),
            "\"a\": certificate: it stands under one already",
        ),
        (snis("[{name: a, certificate: i}, {name: a, certificate: i}]"), "\"a\" stands twice"),
        (snis("[{name: a}]"), "\"a\": certificate is missing"),
        (snis("[{name: a, certificate: {}}]"), "\"a\": certificate: expected an id"),
        (snis("[{name: a, certificate: I}]"), "\"a\": there is no certificate \"I\""),
        (mappings("[{subject_name: n}]"), "\"n\": consumer is missing"),
        (mappings("[{subject_name: n, consumer: nobody}]"), "there is no consumer \"nobody\""),
        (mappings("[{subject_name: n, consumer: {}}]"), "expected a name or an id"),
        (mappings("[{subject_name: n, consumer: a, ca_certificate: x}]"), "there is no CA certificate \"x\""),
        (mappings("[{subject_name: '', consumer: a}]"), "subject_name is empty"),
        (mappings("[{consumer: a}]"), "subject_name"),
        (
            mappings("[{subject_name: n, consumer: a}, {subject_name: n, consumer: b}]"),
            "subject_name \"n\" without ca_certificate stands twice",
        ),
        (
            mappings("[{id: i, subject_name: n, consumer: a}, {id: I, subject_name: m, consumer: a}]"),
            "id \"i\" stands twice",
        ),
        (
            consumers("[{username: a, mtls_auth_credentials: [{subject_name: n, consumer: a}]}]"),
            "it stands under one already",
        ),
        (
            consumers("[{custom_id: a, mtls_auth_credentials: [{subject_name: n}]}]"),
            "neither id nor username",
        ),
        (format!("{}consumers: []\nconsumers: []\n", consumers("[]")), "consumers"),
    ] {
        let problem = parse_yaml(&text).map(|_| ()).unwrap_err();
        assert!(problem.contains(says) && !problem.contains("SECRET"), "{text:?}: {problem}");
    }
}

#[test]
fn an_error_names_the_file_and_does_not_quote_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("kong.yml");
    assert!(load(&path).unwrap_err().to_string().contains("kong.yml: No such file"));
    let json = path.with_extension("json");
    for (path, text) in [
        (&path, "_format_version: '3.0'\ncertificates: [{cert: c, key: SECRET}]\nplugins: 7 # SECRET\n"),
        (&path, "_format_version: '3.0'\ncertificates: [{cert: c, key: k}]\nsnis: SECRET\n"),
        (&path, "_format_version: '3.0'\ncertificates: [{cert: c, key: k}]\nplugins: [SECRET]\n"),
        (&json, "{\"_format_version\": \"3.0\",\n\n\"certificates\": \"SECRET\"}"),
        (
            &json,
            "{\"_format_version\": \"3.0\",\n\n\"certificates\": [{\"cert\": \"c\", \"key\": \"SECRET\"}",
        ),
    ] {
        std::fs::write(path, text).unwrap();
        let error = load(path).unwrap_err().to_string();
        assert!(error.contains("kong.") && error.contains("line 3"), "{error}");
        assert!(!error.contains("SECRET"), "{error}");
    }
}
