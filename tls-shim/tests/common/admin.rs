//! A shim whose Kong is known by its Admin API.

use std::path::Path;

use serde_json::json;
use testbed::fake_admin::{Reply, Seen, kong_of};

const ROUTE: &str = "aaaaaaaa-0000-4000-8000-000000000001";
const PLUGIN: &str = "aaaaaaaa-0000-4000-8000-000000000002";

/// A Kong without a database that has the plugin on a route with these names.
pub fn kong(names: &'static [&'static str]) -> impl Fn(&Seen) -> Reply + Send + 'static {
    move |seen| {
        let lists = json!({
            "routes": [{"id": ROUTE, "name": "r", "snis": names, "protocols": ["https"]}],
            "plugins": [
                {"id": PLUGIN, "name": "mtls-auth", "enabled": true, "route": {"id": ROUTE}, "config": {}},
            ],
        });
        kong_of(&lists, Some(&names.concat()), seen)
    }
}

/// What breaks off each connection.
pub fn down(_: &Seen) -> Reply {
    Reply::Raw(Vec::new())
}

/// Has the settings name this Admin API, with further lines below `kong`.
pub fn set(dir: &Path, url: &str, more: &str) {
    let path = dir.join("shim.yml");
    let text = std::fs::read_to_string(&path).unwrap();
    let others = text.lines().filter(|line| !line.starts_with("kong:") && !line.starts_with("  "));
    let mut text: String = others.map(|line| format!("{line}\n")).collect();
    text += &format!("kong:\n  admin_url: {url}\n  poll_interval: 10ms\n{more}");
    std::fs::write(path, text).unwrap();
}
