//! Every sample configuration that ships is one that the programs take.

use std::path::{Path, PathBuf};
use std::process::Command;

use kong_double::{Double, DoubleConfig, PluginConfig, Route};
use testbed::pki::{Ca, Subject};
use testbed::process::{Process, binary};

fn sample(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../kong-conf").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn write(dir: &Path, name: &str, content: &str) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, content).unwrap();
    path
}

/// The sample with a CA where it says that yours goes.
fn kong_yml(ca: &Ca) -> String {
    let sample = sample("kong.yml");
    let (before, rest) = sample.split_once("    -----BEGIN CERTIFICATE-----").unwrap();
    let (placeholder, after) = rest.split_once("-----END CERTIFICATE-----\n").unwrap();
    assert!(placeholder.contains("(your CA)"));
    let pem: String = ca.pem().lines().map(|line| format!("    {line}\n")).collect();
    format!("{before}{pem}{after}")
}

#[test]
fn no_sample_is_left_out() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../kong-conf");
    let mut names: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    // What the programs export is told from ones that run: see their own tests.
    let elsewhere = ["grafana-dashboard.json"];
    names.retain(|name| !elsewhere.contains(&name.as_str()));
    assert_eq!(names, ["guard.yml", "kong.conf", "kong.yml", "shim.yml"], "each has its test here");
}

#[test]
fn every_sample_is_guarded_in_every_scope() {
    let dir = tempfile::tempdir().unwrap();
    let check = |name: &str, text: &str| {
        let file = write(dir.path(), name, text);
        let mut command = Command::new(binary("mtls-auth"));
        let output = command.args(["guard", "--check", "--declarative-config"]).arg(file).output().unwrap();
        (output.status.success(), String::from_utf8(output.stdout).unwrap())
    };
    for (name, scopes) in [
        ("kong.yml", &["on route payments"][..]),
        ("guard.yml", &["on route refunds", "on service payments", "on everything"]),
    ] {
        let text = sample(name);
        let (success, said) = check(name, &text);
        let expected: Vec<_> = scopes.iter().map(|scope| format!("mtls-auth {scope}: guarded")).collect();
        let mut lines: Vec<_> = said.lines().collect();
        lines.sort_unstable();
        let mut expected: Vec<_> = expected.iter().map(String::as_str).collect();
        expected.sort_unstable();
        assert_eq!((success, lines), (true, expected));
        // By these functions, and by nothing else.
        let (success, said) = check(name, &text.replace("503", "200"));
        assert!(!success && said.matches("UNGUARDED").count() == scopes.len(), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kong_yml_and_shim_yml_are_taken() {
    let dir = tempfile::tempdir().unwrap();
    let ca = Ca::root("your CA");
    let kong_yml = write(dir.path(), "kong.yml", &kong_yml(&ca));

    // The plugin server starts with it, and takes the plugin's configuration as Kong would send it.
    let mtls_auth = binary("mtls-auth");
    let mut command = Command::new(&mtls_auth);
    let server = Process::start(
        command.arg("--kong-prefix").arg(dir.path()).arg("--declarative-config").arg(&kong_yml),
    );
    server.wait_for("\"serving\"");
    let info = Command::new(&mtls_auth).arg("-dump").output().unwrap().stdout;
    let mut config =
        DoubleConfig::new(dir.path().join("mtls-auth.socket"), serde_json::from_slice(&info).unwrap());
    let entities = kong_entities::load(&kong_yml).unwrap();
    let upstream = testbed::upstream::Upstream::start();
    let ours: Vec<_> = entities.plugins.iter().filter(|plugin| plugin.name == "mtls-auth").collect();
    assert!(!ours.is_empty());
    for plugin in ours {
        let plugin = PluginConfig::new("mtls-auth", plugin.config.clone());
        config.routes.push(Route::new("route", upstream.address()).plugin(plugin));
    }
    let kong = Double::start(config).await.unwrap();
    let url = format!("http://{}/", kong.addr());
    let status =
        Command::new("curl").args(["-s", "-o", "/dev/null", "-w", "%{http_code}", &url]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&status.stdout), "401", "{:?}", kong.error_log());
    // The guard stands in the same scope as the plugin.
    for plugin in entities.plugins.iter().filter(|plugin| plugin.name == "mtls-auth") {
        let guards =
            |other: &&kong_entities::Plugin| other.name == "post-function" && other.scope == plugin.scope;
        assert!(entities.plugins.iter().any(|other| guards(&other)));
    }

    // What no plugin of ours takes away, this one does.
    let transformer = entities.plugins.iter().find(|plugin| plugin.name == "request-transformer").unwrap();
    assert_eq!(transformer.scope, kong_entities::Scope::default());
    let removed: Vec<String> =
        serde_json::from_value(transformer.config["remove"]["headers"].clone()).unwrap();
    assert_eq!(
        removed.iter().map(|name| name.to_lowercase()).collect::<Vec<_>>(),
        client_cert::field::HANDOFF
    );

    // The shim takes its file once the paths in it are there.
    let server_ca = Ca::root("server CA");
    server_ca.issue(Subject::server(&["payments.example.com"])).write(dir.path(), "default", &[]);
    let here = |name: &str| dir.path().join(name).display().to_string();
    let shim_yml = sample("shim.yml")
        .replace("/etc/kong/kong.yml", &here("kong.yml"))
        .replace("/etc/tls/default.crt", &here("default.crt"))
        .replace("/etc/tls/default.key", &here("default.key"))
        // The machine may have a plugin server of its own at the socket of the sample.
        .replace("/usr/local/kong/mtls-auth.socket", &here("mtls-auth.socket"))
        .replace("/usr/local/kong/mtls-auth.key", &here("mtls-auth.key"));
    let shim_yml = write(dir.path(), "shim.yml", &shim_yml);
    let check = Command::new(binary("tls-shim")).args(["check", "--config"]).arg(&shim_yml).output().unwrap();
    let said = String::from_utf8_lossy(&check.stdout);
    assert!(check.status.success(), "{said} {}", String::from_utf8_lossy(&check.stderr));
    assert!(said.contains("payments.example.com  yes"), "{said}");
}

#[test]
fn kong_conf_names_options_that_there_are() {
    let sample = sample("kong.conf");
    let settings: Vec<_> = sample
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| line.split_once(" = ").unwrap_or_else(|| panic!("no setting: {line}")))
        .collect();
    let value = |name: &str| settings.iter().find(|(other, _)| *other == name).unwrap().1;
    assert_eq!(value("plugins"), "bundled,mtls-auth");
    assert_eq!(value("pluginserver_names"), "mtls-auth");
    let help = Command::new(binary("mtls-auth")).arg("--help").output().unwrap().stdout;
    let help = String::from_utf8(help).unwrap();
    for word in value("pluginserver_mtls_auth_start_cmd").split(' ').filter(|word| word.starts_with("--")) {
        assert!(help.contains(word), "{word}");
    }
    assert_eq!(value("pluginserver_mtls_auth_query_cmd"), "/usr/local/bin/mtls-auth -dump");
    assert!(value("pluginserver_mtls_auth_start_cmd").ends_with(value("declarative_config")));
}
