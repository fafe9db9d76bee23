//! Kong's declarative files, and decK's state files, which the programs read alike.

use std::process::Command;

use kong_double::{Double, DoubleConfig, PluginConfig, Route};
use kong_entities::{Entities, Scope};
use serde_json::Value as Json;
use testbed::pki::Ca;
use testbed::process::{Process, binary};

use crate::entities::STATE_FILES;
use crate::sample::{sample, with_ca, write};

pub(crate) const FILES: &[&str] =
    &["guard.yml", "header/kong.yml", "kong-tls/kong.yml", "kong.yml", "kubernetes/kong.yml"];

/// What `mtls-auth guard --check` says of a configuration, and whether it is content.
pub(crate) fn check_guard(text: &str) -> (bool, Vec<String>) {
    let dir = tempfile::tempdir().unwrap();
    let file = write(dir.path(), "kong.yml", text);
    let mut command = Command::new(binary("mtls-auth"));
    let output = command.args(["guard", "--check", "--declarative-config"]).arg(file).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let mut lines: Vec<_> = said.lines().map(str::to_owned).collect();
    lines.sort_unstable();
    (output.status.success(), lines)
}

#[test]
fn every_sample_is_guarded_in_every_scope() {
    for name in FILES.iter().chain(STATE_FILES) {
        let scopes = match *name {
            "guard.yml" => &["on everything", "on route refunds", "on service payments"][..],
            _ => &["on route payments"],
        };
        let text = sample(name);
        let expected: Vec<_> = scopes.iter().map(|scope| format!("mtls-auth {scope}: guarded")).collect();
        assert_eq!(check_guard(&text), (true, expected), "{name}");
        // By these functions, and by nothing else.
        let (success, said) = check_guard(&text.replace("503", "200"));
        let unguarded = said.iter().filter(|line| line.contains("UNGUARDED")).count();
        assert!(!success && unguarded == scopes.len(), "{name}: {said:?}");
    }
}

/// Starts the plugin server as `command` says and asks it with each configuration, as Kong would. None has a certificate in
/// its request, which is a refusal; a configuration that it cannot use would be a fault.
pub(crate) async fn is_taken(command: &mut Command, configs: Vec<Json>) {
    let dir = tempfile::tempdir().unwrap();
    let server = Process::start(command.arg("--kong-prefix").arg(dir.path()));
    server.wait_for("\"serving\"");
    let upstream = testbed::upstream::Upstream::start();
    for protocol in ["msgpack", "protobuf"] {
        let mut dump = Command::new(binary("mtls-auth"));
        let info = dump.args(["-dump", "--protocol", protocol]).output().unwrap().stdout;
        for config in &configs {
            let mut double = DoubleConfig::new(
                dir.path().join("mtls-auth.socket"),
                serde_json::from_slice(&info).unwrap(),
            );
            let plugin = PluginConfig::new("mtls-auth", config.clone());
            double.routes.push(Route::new("route", upstream.address()).plugin(plugin));
            let kong = Double::start(double).await.unwrap();
            let url = format!("http://{}/", kong.addr());
            let mut curl = Command::new("curl");
            let answer = curl.args(["-s", "-o", "/dev/null", "-w", "%{http_code}", &url]).output().unwrap();
            let log = kong.error_log();
            assert_eq!(String::from_utf8_lossy(&answer.stdout), "401", "{config}: {log:?}");
            assert!(log.iter().any(|line| line.contains("refused: no_certificate")), "{config}: {log:?}");
        }
    }
    assert!(upstream.requests().is_empty());
}

/// The configurations of our plugin.
fn configs(entities: &Entities) -> Vec<Json> {
    let ours = entities.plugins.iter().filter(|plugin| plugin.name == "mtls-auth");
    ours.map(|plugin| plugin.config.clone()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_plugin_configuration_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let ca = Ca::root("your CA");
    let files = FILES.iter().chain(STATE_FILES).copied();
    // The CAs that guard.yml names are in the others.
    let (alone, with_file): (Vec<_>, Vec<_>) = files.partition(|name| name.starts_with("hybrid/"));
    let of = |names: Vec<&str>| -> Vec<Json> {
        let load = |name: &str| {
            let text = with_ca(&sample(name), &ca);
            kong_entities::parse_yaml(&text).unwrap_or_else(|error| panic!("{name}: {error}"))
        };
        let found: Vec<_> = names.iter().map(|name| configs(&load(name))).collect();
        assert!(found.iter().all(|found| !found.is_empty()));
        found.concat()
    };
    let file = write(dir.path(), "kong.yml", &with_ca(&sample("kong.yml"), &ca));
    let mut command = Command::new(binary("mtls-auth"));
    is_taken(command.arg("--declarative-config").arg(file), of(with_file)).await;
    // A data plane has neither a file nor an Admin API.
    is_taken(&mut Command::new(binary("mtls-auth")), of(alone)).await;
}

/// What no plugin of ours takes away, this one does.
#[test]
fn the_hand_off_is_kept_from_the_upstreams_of_other_routes() {
    for name in FILES.iter().chain(STATE_FILES) {
        let entities = kong_entities::parse_yaml(&sample(name)).unwrap();
        let config = &configs(&entities)[0];
        let mut handed: Vec<_> = match config["certificate_source"].as_str() {
            Some("tls") => Vec::new(),
            Some("header") => vec![config["certificate_header_name"].as_str().unwrap().to_lowercase()],
            _ => client_cert::field::HANDOFF.map(str::to_owned).to_vec(),
        };
        let transformer = entities.plugins.iter().find(|plugin| plugin.name == "request-transformer");
        let mut removed: Vec<String> = transformer.map_or_else(Vec::new, |plugin| {
            assert_eq!(plugin.scope, Scope::default(), "{name}");
            serde_json::from_value(plugin.config["remove"]["headers"].clone()).unwrap()
        });
        removed.iter_mut().for_each(|name| name.make_ascii_lowercase());
        handed.sort_unstable();
        removed.sort_unstable();
        // It shows scopes, and is no configuration to run.
        if *name != "guard.yml" {
            assert_eq!(removed, handed, "{name}");
        }
    }
}
