//! Settings files of the shim, each taken by `tls-shim check` once the paths in it are there.

use std::path::Path;
use std::process::Command;

use serde_json::{Value as Json, json};
use testbed::fake_admin::{FakeAdmin, kong_of};
use testbed::pki::{Ca, Subject};
use testbed::process::binary;

use crate::sample::{document, sample, start_plugin_server, with_ca, write};

pub(crate) const FILES: &[&str] = &[
    "database/shim.yml",
    "hybrid/shim.yml",
    "kubernetes/ingress-controller/shim.yml",
    "kubernetes/shim.yml",
    "shim.yml",
    "systemd/shim.yml",
];

/// The settings with every file that they name in `dir`, where each of them is by the last part of its path.
fn here(settings: &mut Json, dir: &Path) {
    match settings {
        Json::String(text) if text.starts_with('/') => {
            let name = Path::new(&text).file_name().unwrap();
            *text = dir.join(name).display().to_string();
        }
        Json::Array(list) => list.iter_mut().for_each(|item| here(item, dir)),
        Json::Object(map) => map.values_mut().for_each(|value| here(value, dir)),
        _ => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_shim_yml_is_taken() {
    for name in FILES {
        let dir = tempfile::tempdir().unwrap();
        let ca = Ca::root("your CA");
        let server_ca = Ca::root("server CA");
        let leaf = server_ca.issue(Subject::server(&["payments.example.com"]));
        leaf.write(dir.path(), "default", &[]);
        leaf.write(dir.path(), "tls", &[]);
        for state in ["kong.yml", "deck.yml"] {
            write(dir.path(), state, &with_ca(&sample(state), &ca));
        }
        let socket = dir.path().join("mtls-auth.socket").display().to_string();
        let server = start_plugin_server(&["/usr/local/bin/mtls-auth", "--socket", &socket], dir.path());
        // A key of the same form.
        std::fs::copy(dir.path().join("mtls-auth.key"), dir.path().join("tickets.key")).unwrap();

        let mut settings = document(&sample(name));
        here(&mut settings, dir.path());
        // The same each time: what changes while it is read does not count.
        let entities = entities();
        let admin = FakeAdmin::start(move |seen| kong_of(&entities, None, seen)).await;
        if let Some(url) = settings["kong"].get_mut("admin_url") {
            *url = admin.url.as_str().into();
        }
        let file = write(dir.path(), "settings.yml", &settings.to_string());
        let mut check = Command::new(binary("tls-shim"));
        let check = check.args(["check", "--config"]).arg(&file).output().unwrap();
        let said = String::from_utf8_lossy(&check.stdout);
        let errors = String::from_utf8_lossy(&check.stderr);
        assert!(check.status.success() && !said.contains("FAIL"), "{name}: {said} {errors}");
        assert!(said.contains("payments.example.com  yes"), "{name}: {said}");
        assert!(said.contains("(none or any other)   no"), "{name}: {said}");
        drop(server);
    }
}

/// What of `kong.yml` matters here, as the Admin API says it.
fn entities() -> Json {
    let [service, route] = ["4a3c2b1d-0000-4000-8000-000000000001", "4a3c2b1d-0000-4000-8000-000000000002"];
    let id = testbed::fake_admin::CA_ID;
    json!({
        "ca_certificates": [{"id": id, "cert": Ca::root("your CA").pem()}],
        "services": [{"id": service, "name": "payments"}],
        "routes": [{
            "id": route, "name": "payments", "service": {"id": service}, "snis": ["payments.example.com"],
            "protocols": ["http", "https"],
        }],
        "plugins": [{
            "id": id, "name": "mtls-auth", "enabled": true, "route": {"id": route}, "protocols": ["http", "https"],
            "config": {"certificate_source": "shim", "ca_certificates": [id]},
        }],
    })
}
