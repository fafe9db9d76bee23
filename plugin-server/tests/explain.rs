//! `mtls-auth explain` tells what the access phase would decide, and how it comes to that.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value as Json;
use testbed::pki::{Ca, Subject};

const CA_ID: &str = "6ae7a1a4-0cf0-4b6a-9d3f-3f7c5a0b1c2d";

/// Certificates and configurations in a folder.
struct World {
    dir: tempfile::TempDir,
    ca: Ca,
}

impl World {
    fn new() -> Self {
        let world = Self { dir: tempfile::tempdir().unwrap(), ca: Ca::root("root") };
        let issuing = world.ca.intermediate("issuing");
        let write = |leaf: testbed::pki::Leaf, name: &str, chain: &[&Ca]| {
            leaf.write(world.dir.path(), name, chain);
        };
        write(issuing.issue(Subject::client("alice")), "alice", &[&issuing]);
        write(world.ca.issue(Subject::client("alice").expired()), "past", &[]);
        write(world.ca.issue(Subject::client("stranger")), "stranger", &[]);
        write(Ca::root("root").issue(Subject::client("alice")), "mallory", &[]);
        write(world.ca.issue(Subject::server(&["alice"])), "server", &[]);
        let kong = serde_json::json!({
            "_format_version": "3.0",
            "ca_certificates": [{"id": CA_ID, "cert": world.ca.pem()}],
            "consumers": [{"username": "alice", "custom_id": "customer-1"}, {"username": "guest"}],
            "services": [{
                "name": "pay", "url": "http://a",
                "plugins": [{"name": "mtls-auth", "config": {"ca_certificates": [CA_ID]}}],
                "routes": [
                    {"name": "strict", "paths": ["/s"]},
                    {"name": "soft", "paths": ["/a"], "plugins": [
                        {"name": "mtls-auth", "config": {"ca_certificates": [CA_ID], "anonymous": "guest"}},
                    ]},
                    {"name": "skips", "paths": ["/k"], "plugins": [
                        {"name": "mtls-auth", "config": {"ca_certificates": [CA_ID], "skip_consumer_lookup": true}},
                    ]},
                    {"name": "broken", "paths": ["/b"], "plugins": [
                        {"name": "mtls-auth", "config": {"ca_certificates": ["11111111-1111-4111-8111-111111111111"]}},
                    ]},
                ],
            }],
            "routes": [{"name": "open", "paths": ["/o"]}],
        });
        world.write("kong.yml", &kong.to_string());
        world
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.dir.path().join(name), text).unwrap();
    }

    fn explain(&self, arguments: &[&str]) -> Output {
        explain(self.dir.path(), arguments)
    }

    /// What is said of a certificate on a route of the declarative file.
    fn on_route(&self, route: &str, cert: &str) -> (Option<i32>, Json) {
        let mut arguments = vec!["--declarative-config", "kong.yml", "--route", route, "--json"];
        let file = format!("{cert}.crt");
        if !cert.is_empty() {
            arguments.extend(["--cert", &file]);
        }
        let output = self.explain(&arguments);
        let said = String::from_utf8_lossy(&output.stdout);
        (output.status.code(), serde_json::from_str(&said).unwrap_or_else(|_| panic!("{output:?}")))
    }
}

fn explain(dir: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_mtls-auth"))
        .arg("explain")
        .args(arguments)
        .current_dir(dir)
        .output()
        .unwrap()
}

#[test]
fn each_outcome_is_explained_with_its_reason() {
    let world = World::new();
    for (route, cert, code, decision, reason) in [
        ("strict", "alice", 0, "authenticated", None),
        ("strict", "", 1, "refused", Some("no_certificate")),
        ("strict", "past", 1, "refused", Some("expired")),
        ("strict", "mallory", 1, "refused", Some("untrusted")),
        ("strict", "server", 1, "refused", Some("wrong_purpose")),
        ("strict", "stranger", 1, "refused", Some("no_consumer")),
        // The plugin of the route comes before that of the service.
        ("soft", "stranger", 0, "anonymous", Some("no_consumer")),
        ("soft", "", 0, "anonymous", Some("no_certificate")),
        ("skips", "stranger", 0, "authenticated", None),
        ("broken", "alice", 1, "refused", Some("not_started")),
    ] {
        let (status, said) = world.on_route(route, cert);
        assert_eq!(status, Some(code), "{route} {cert}: {said:#}");
        assert_eq!((&said["passes"], &said["decision"]), (&(code == 0).into(), &decision.into()), "{said:#}");
        assert_eq!(said["reason"].as_str(), reason, "{said:#}");
        assert_eq!(said["answer"].is_null(), code == 0, "{said:#}");
    }
}

#[test]
fn steps_and_headers_are_those_of_the_access_phase() {
    let world = World::new();
    let (_, said) = world.on_route("strict", "alice");
    let steps: Vec<(&str, &str)> = said["steps"]
        .as_array()
        .unwrap()
        .iter()
        .map(|step| (step["about"].as_str().unwrap(), step["says"].as_str().unwrap()))
        .collect();
    let abouts: Vec<&str> = steps.iter().map(|(about, _)| *about).collect();
    assert_eq!(
        abouts,
        ["source", "presented", "trust", "chain", "revocation", "revocation", "names", "mapping", "consumer"]
    );
    let says = |about: &str| steps.iter().find(|step| step.0 == about).unwrap().1;
    assert!(
        says("presented").contains("\"CN=alice\"") && says("presented").ends_with("and 1 more certificates")
    );
    assert_eq!(says("trust"), "\"CN=root\"");
    let chain = says("chain");
    assert!(
        chain.find("CN=alice") < chain.find("CN=issuing") && chain.find("CN=issuing") < chain.find("CN=root")
    );
    assert_eq!(says("names"), "[\"alice\"]");
    assert!(says("consumer").starts_with("username \"alice\": the consumer with the id "));
    assert_eq!(said["headers"]["X-Consumer-Username"], "alice");
    assert_eq!(said["headers"]["X-Credential-Identifier"], "alice");
    assert_eq!(said["consumer"]["custom_id"], "customer-1");

    // What OpenSSL has against a chain, and each look-up that fails.
    let (_, said) = world.on_route("strict", "past");
    assert!(said["steps"].to_string().contains("certificate has expired"), "{said:#}");
    let (_, said) = world.on_route("strict", "stranger");
    let text = said["steps"].to_string();
    for lookup in [r#"username \"stranger\": there is none"#, r#"custom_id \"stranger\": there is none"#] {
        assert!(text.contains(lookup), "{text}");
    }
    let (_, said) = world.on_route("skips", "stranger");
    assert_eq!((&said["group"], &said["consumer"]), (&"stranger".into(), &Json::Null));

    let output =
        world.explain(&["--declarative-config", "kong.yml", "--route", "strict", "--cert", "past.crt"]);
    let said = String::from_utf8_lossy(&output.stdout);
    for line in [
        "refused, reason: expired",
        "the client is answered 401 \"TLS certificate failed verification\"",
        "in Kong's error log: refused: expired",
    ] {
        assert!(said.contains(line), "{said}");
    }
}

#[test]
fn a_configuration_stands_for_itself_with_every_source_of_certificates() {
    let world = World::new();
    for source in [
        "certificate_source: shim",
        "certificate_source: tls",
        "{certificate_source: header, certificate_header_name: X-Cert, certificate_header_format: url_encoded,",
        "{certificate_source: header, certificate_header_name: X-Cert, certificate_header_format: base64_encoded,",
    ] {
        let config = match source.strip_suffix(',') {
            Some(_) => format!("{source} ca_certificates: ['{CA_ID}']}}"),
            None => format!("{{{source}, ca_certificates: ['{CA_ID}']}}"),
        };
        // Bare, and as it stands in a plugin.
        for text in [config.clone(), format!("name: mtls-auth\nconfig: {config}")] {
            world.write("plugin.yml", &text);
            let arguments =
                ["--plugin-config", "plugin.yml", "--declarative-config", "kong.yml", "--cert", "alice.crt"];
            let output = world.explain(&arguments);
            assert_eq!(output.status.code(), Some(0), "{text}: {output:?}");
        }
    }
    // The chain apart, and none.
    let all = std::fs::read_to_string(world.dir.path().join("alice.crt")).unwrap();
    let (leaf, chain) = all.split_at(all.rfind("-----BEGIN").unwrap());
    world.write("leaf.crt", leaf);
    world.write("chain.crt", chain);
    world.write("plugin.yml", &format!("ca_certificates: ['{CA_ID}']"));
    let asked = ["--plugin-config", "plugin.yml", "--declarative-config", "kong.yml", "--cert", "leaf.crt"];
    assert_eq!(world.explain(&asked).status.code(), Some(1));
    assert_eq!(world.explain(&[&asked[..], &["--chain", "chain.crt"]].concat()).status.code(), Some(0));
    // Without a source of entities nobody knows any consumer, which lets nobody pass.
    let pem = serde_json::json!({"ca_certificates": [world.ca.pem()], "consumer_by": ["username"]});
    world.write("plugin.yml", &pem.to_string());
    let output = world.explain(&["--plugin-config", "plugin.yml", "--cert", "alice.crt"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("only Kong knows"), "{output:?}");
}

#[test]
fn a_question_that_cannot_be_understood_is_2() {
    let world = World::new();
    world.write("plugin.yml", "certificate_source: shim");
    world.write("none.crt", "nothing");
    for (arguments, says) in [
        (&[][..], "--plugin-config"),
        (&["--route", "strict"], "--declarative-config or --admin-url"),
        (&["--route", "nowhere", "--declarative-config", "kong.yml"], "no route \"nowhere\""),
        (&["--route", "open", "--declarative-config", "kong.yml"], "everybody passes"),
        (&["--route", "strict", "--declarative-config", "none.yml"], "none.yml"),
        (
            &["--route", "strict", "--declarative-config", "kong.yml", "--cert", "none.crt"],
            "none.crt: it holds no",
        ),
        (&["--route", "strict", "--declarative-config", "kong.yml", "--cert", "absent.crt"], "absent.crt"),
        (&["--plugin-config", "absent.yml"], "absent.yml"),
        (&["--plugin-config", "plugin.yml", "--route", "strict"], "cannot be used with"),
        (
            &[
                "--plugin-config",
                "plugin.yml",
                "--admin-url",
                "http://127.0.0.1:1",
                "--declarative-config",
                "a",
            ],
            "cannot be used with",
        ),
    ] {
        let output = world.explain(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains(says), "{arguments:?}: {output:?}");
    }
}
