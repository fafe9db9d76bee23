//! What the shim tells of itself on its status address.

mod common;

use std::hash::{BuildHasher, RandomState};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use common::sessions::{CERTIFICATE, Client};
use common::{ONE_ROUTE, OPEN, RELOADED, Rig, SECURED, hang_up, until, until_said_again, write_entities};
use serde_json::json;
use testbed::pki::{Ca, Subject};

/// An address that nobody has, nor gets by chance until it is listened on: others are at the usual address of the loopback.
fn free() -> SocketAddr {
    let [_, a, b, c, ..] = RandomState::new().hash_one(0).to_be_bytes();
    TcpListener::bind((Ipv4Addr::new(127, a, b, c.clamp(1, 254)), 0)).unwrap().local_addr().unwrap()
}

fn get(address: SocketAddr, path: &str) -> (String, String) {
    let output = Command::new("curl")
        .args(["--silent", "--max-time", "60", "--noproxy", "*", "--write-out", "\n%{http_code}"])
        .arg(format!("http://{address}{path}"))
        .output()
        .expect("curl runs");
    let text = String::from_utf8(output.stdout).unwrap();
    let (body, status) = text.rsplit_once('\n').unwrap();
    (status.to_owned(), body.to_owned())
}

/// Whether `tls-shim ready` ends well, and what it prints.
fn ready(rig: &Rig) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tls-shim"));
    let output = command.args(["ready", "--config"]).arg(rig.dir.path().join("shim.yml")).output().unwrap();
    (output.status.success(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
}

/// The value of a metric with its labels, 0 where there is none.
fn value(metrics: &str, name: &str) -> f64 {
    let line = metrics.lines().find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ')));
    line.map_or(0.0, |line| line.rsplit_once(' ').unwrap().1.parse().unwrap())
}

#[test]
fn handshakes_requests_and_reloads_are_counted() {
    let status = free();
    let rig = Rig::with_settings(ONE_ROUTE, &format!("status_listen: {status}\n"));
    let metrics = || get(status, "/metrics").1;
    for version in ["-tls1_2", "-tls1_3"] {
        let client = Client::new(&rig, version);
        client.begin(rig.address, Some(SECURED), "client", "session");
        assert!(client.resumes(rig.address, Some(SECURED), "session"));
        client.get(rig.address, Some(SECURED), "/", "none", &[]);
        client.get(rig.address, Some(OPEN), "/", "none", &CERTIFICATE);
    }
    rig.curl(OPEN, "/", &["--header", &format!("Host: {SECURED}")]);
    // What is no TLS.
    Command::new("curl").arg("--silent").arg(format!("http://{}/", rig.address)).output().unwrap();
    until(|| value(&metrics(), r#"tls_shim_handshake_failures_total{reason="tls"}"#) >= 1.0);
    until(|| {
        value(&metrics(), r#"tls_shim_requests_total{class="2xx",answered_by="kong",reason=""}"#) >= 8.0
    });
    let said = metrics();
    for version in ["TLSv1.2", "TLSv1.3"] {
        for (asked, presented, resumed, least) in [
            (true, true, false, 1.0),
            (true, true, true, 1.0),
            (true, false, false, 1.0),
            (false, false, false, 1.0),
        ] {
            let name = format!(
                r#"tls_shim_handshakes_total{{version="{version}",asked="{asked}",presented="{presented}",resumed="{resumed}"}}"#
            );
            assert!(value(&said, &name) >= least, "{name}: {said}");
        }
    }
    let refused = r#"tls_shim_requests_total{class="4xx",answered_by="shim",reason="misdirected"}"#;
    assert_eq!(value(&said, refused), 1.0, "{said}");
    assert_eq!(value(&said, "tls_shim_map_names"), 1.0);
    assert!(value(&said, "tls_shim_request_duration_seconds_count") >= 9.0);
    until(|| value(&metrics(), "tls_shim_connections") == 0.0);

    hang_up(&rig.shim, RELOADED);
    let path = rig.dir.path().join("shim.yml");
    let good = std::fs::read_to_string(&path).unwrap();
    until_said_again(&rig.shim, "everything stays as it was", || std::fs::write(&path, "nonsense").unwrap());
    std::fs::write(&path, good).unwrap();
    let said = metrics();
    assert_eq!(value(&said, r#"tls_shim_reloads_total{result="whole"}"#), 1.0, "{said}");
    assert!(value(&said, r#"tls_shim_reloads_total{result="failed"}"#) >= 1.0, "{said}");

    // Another map is another generation.
    let before = value(&said, "tls_shim_map_generation");
    write_entities(rig.dir.path(), "plugins: [{name: mtls-auth}]");
    until(|| value(&metrics(), "tls_shim_map_generation") != before);
}

#[test]
fn it_is_ready_once_kong_is_known_and_the_plugin_server_answers() {
    let status = free();
    let rig = Rig::with_settings(ONE_ROUTE, &format!("status_listen: {status}\n"));
    assert_eq!(get(status, "/healthz").0, "200");
    assert_eq!(get(status, "/readyz").0, "200");
    assert_eq!(get(status, "/").0, "404");
    let (is_ready, said) = ready(&rig);
    assert!(is_ready && said.contains("kong: ok\n"), "{said}");
    drop(rig);

    let status = free();
    let nobody = "plugin_server: /nowhere/plugin.socket";
    let mut rig = Rig::with_settings(ONE_ROUTE, &format!("status_listen: {status}\n{nobody}\n"));
    let (code, body) = get(status, "/readyz");
    assert!(code == "503" && body.contains("plugin_server"), "{code}: {body}");
    assert_eq!(value(&get(status, "/metrics").1, "tls_shim_plugin_server_up"), 0.0);
    let (is_ready, said) = ready(&rig);
    assert!(!is_ready && said.contains("plugin_server: the plugin server does not answer\n"), "{said}");
    rig.shim.signal("KILL");
    rig.shim.wait();
    let (is_ready, said) = ready(&rig);
    assert!(!is_ready && said.contains(&status.to_string()), "{said}");
    let (is_ready, said) = ready(&Rig::new(ONE_ROUTE));
    assert!(!is_ready && said.contains("status_listen"), "{said}");
}

/// Each name in the dashboard's queries is one of a sample.
#[test]
fn the_dashboard_asks_for_what_the_shim_tells() {
    let status = free();
    let nobody = "plugin_server: /nowhere/plugin.socket";
    let rig = Rig::with_settings(ONE_ROUTE, &format!("status_listen: {status}\n{nobody}\n"));
    rig.curl(OPEN, "/", &[]);
    let metrics = || get(status, "/metrics").1;
    until(|| metrics().contains("tls_shim_requests_total{"));
    let said = metrics();
    let samples = said.lines().filter(|line| !line.starts_with('#'));
    let exported: Vec<&str> = samples.map(|line| line.split(['{', ' ']).next().unwrap()).collect();
    let asked = testbed::dashboard::asked_for("tls_shim_");
    assert!(asked.len() > 15, "{asked:?}");
    for name in asked {
        assert!(exported.contains(&name.as_str()), "{name} is asked for, but there are only {exported:?}");
    }
}

#[test]
fn the_end_of_each_server_certificate_is_told() {
    let status = free();
    let rig = Rig::with_settings(ONE_ROUTE, &format!("status_listen: {status}\n"));
    let ends = || {
        let metrics = get(status, "/metrics").1;
        let lines = metrics.lines().filter(|line| line.starts_with("tls_shim_server_certificate_expiry"));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let all = ends();
    assert_eq!(all.len(), 1, "{all:?}");
    assert!(all[0].contains("subject=\"CN=secured.example\"") && all[0].contains("id=\"\""), "{all:?}");
    let end = SystemTime::now() + Duration::from_secs(86_400);
    let leaf = Ca::root("servers").issue(Subject::server(&["a.example"]).not_after(end));
    let id = "5b2d7d8a-0000-4000-8000-000000000001";
    let certificates =
        json!([{"id": id, "cert": leaf.cert, "key": leaf.key, "snis": [{"name": "a.example"}]}]);
    write_entities(rig.dir.path(), &format!("certificates: {certificates}"));
    until(|| ends().len() == 2);
    let seconds = end.duration_since(UNIX_EPOCH).unwrap().as_secs();
    let line = ends().into_iter().find(|line| line.contains(id)).unwrap();
    assert!(line.contains("subject=\"CN=a.example\"") && line.ends_with(&format!(" {seconds}")), "{line}");
}
