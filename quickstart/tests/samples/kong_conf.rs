//! Fragments of `kong.conf`: their commands are run, and what they say goes together with what stands beside them.

use std::process::Command;

use serde_json::Value as Json;
use testbed::process::binary;

use crate::sample::{KongConf, document, option, sample, start_plugin_server};

pub(crate) const FILES: &[&str] = &[
    "database/kong.conf",
    "header/kong.conf",
    "hybrid/control-plane.conf",
    "hybrid/data-plane.conf",
    "kong-tls/kong.conf",
    "kong.conf",
    "systemd/kong.conf",
];

/// The settings of Kong's that a sample may have: whoever writes another one looks it up in Kong's reference and adds it.
const KNOWN: &[&str] = &[
    "admin_listen",
    "cluster_cert",
    "cluster_cert_key",
    "cluster_control_plane",
    "database",
    "declarative_config",
    "nginx_proxy_large_client_header_buffers",
    "nginx_proxy_ssl_verify_client",
    "pg_database",
    "pg_host",
    "pg_user",
    "plugins",
    "pluginserver_mtls_auth_query_cmd",
    "pluginserver_mtls_auth_socket",
    "pluginserver_mtls_auth_start_cmd",
    "pluginserver_names",
    "proxy_listen",
    "role",
    "trusted_ips",
];

/// Runs a query command, and returns the protocol that Kong is told.
pub(crate) fn query(command: &str) -> String {
    let words: Vec<_> = command.split(' ').collect();
    assert!(words[0].starts_with('/') && words[0].ends_with("/mtls-auth"), "{command}");
    let output = Command::new(binary("mtls-auth")).args(&words[1..]).output().unwrap();
    assert!(output.status.success(), "{command}: {output:?}");
    let info: Json = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(info["Plugins"][0]["Name"], "mtls-auth");
    info["Protocol"].as_str().unwrap().to_owned()
}

/// What has to hold of a Kong that runs the plugin, whoever starts the plugin server by `start`, and in front of which is the
/// shim of `shim_yml`, if any.
pub(crate) fn fits(
    kong: &dyn Fn(&str) -> Option<String>,
    start: &[&str],
    shim_yml: Option<&str>,
    name: &str,
) {
    let get = |key: &str| kong(key).unwrap_or_else(|| panic!("{name}: {key} is not set"));
    assert_eq!(get("plugins"), "bundled,mtls-auth", "{name}");
    assert_eq!(get("pluginserver_names"), "mtls-auth", "{name}");
    query(&get("pluginserver_mtls_auth_query_cmd"));

    // Both ends of the socket.
    let socket = kong("pluginserver_mtls_auth_socket");
    let socket = socket.as_deref().unwrap_or("/usr/local/kong/mtls-auth.socket");
    assert_eq!(option(start, "--socket").unwrap_or("/usr/local/kong/mtls-auth.socket"), socket, "{name}");
    // The plugin server reads what Kong reads.
    if let Some(file) = kong("declarative_config") {
        let has_database = kong("database").is_some_and(|database| database != "off");
        let expected = (!has_database).then_some(file.as_str());
        assert_eq!(option(start, "--declarative-config"), expected, "{name}");
    }

    let Some(shim_yml) = shim_yml else { return };
    // Nobody but the shim reaches the plain port.
    let listen = get("proxy_listen");
    assert!(listen.starts_with("127.0.0.1:") && !listen.contains(','), "{name}: {listen}");
    let shim = document(&sample(shim_yml));
    assert_eq!(shim["upstream"], format!("http://{listen}"), "{name}");
    assert_eq!(shim["plugin_server"], socket, "{name}");
    let key = option(start, "--proof-key-file").unwrap_or("/usr/local/kong/mtls-auth.key");
    assert_eq!(shim["proof_key_file"], key, "{name}");
    // The shim is believed, and nobody else; a chain fits into a header.
    assert_eq!(get("trusted_ips"), "127.0.0.1/32,::1/128", "{name}");
    assert_eq!(get("nginx_proxy_large_client_header_buffers"), "8 64k", "{name}");
}

#[test]
fn every_line_of_kong_conf_is_a_setting_of_kongs() {
    for name in FILES {
        let conf = KongConf::read(name);
        for key in conf.settings.keys().chain(conf.alternatives.iter().map(|(key, _)| key)) {
            assert!(KNOWN.contains(&key.as_str()), "{name}: {key}");
        }
    }
}

#[test]
fn every_command_of_kong_conf_runs() {
    for name in FILES {
        let conf = KongConf::read(name);
        let lines = conf.settings.iter();
        for (key, command) in lines.chain(conf.alternatives.iter().map(|(key, value)| (key, value))) {
            let words: Vec<_> = command.split(' ').collect();
            match key.as_str() {
                "pluginserver_mtls_auth_start_cmd" => {
                    start_plugin_server(&words, tempfile::tempdir().unwrap().path());
                }
                "pluginserver_mtls_auth_query_cmd" => {
                    // Both protocols are shown where a file is for old and new versions of Kong.
                    let protocol = query(command);
                    assert!(["MsgPack:1", "ProtoBuf:1"].contains(&protocol.as_str()), "{name}: {protocol}");
                }
                _ => {}
            }
        }
    }
}

#[test]
fn kong_the_plugin_server_and_the_shim_are_told_the_same() {
    let top = || KongConf::read("kong.conf");
    for (name, conf, shim_yml) in [
        ("kong.conf", top(), Some("shim.yml")),
        ("database", top().with(KongConf::read("database/kong.conf")), Some("database/shim.yml")),
        ("hybrid", KongConf::read("hybrid/data-plane.conf"), Some("hybrid/shim.yml")),
        ("header", KongConf::read("header/kong.conf"), None),
        ("kong-tls", KongConf::read("kong-tls/kong.conf"), None),
    ] {
        let start: Vec<_> = conf.get("pluginserver_mtls_auth_start_cmd").split(' ').collect();
        fits(&|key| conf.settings.get(key).cloned(), &start, shim_yml, name);
    }
    let with_database = KongConf::read("database/kong.conf");
    let start: Vec<_> = with_database.get("pluginserver_mtls_auth_start_cmd").split(' ').collect();
    let admin_url = option(&start, "--admin-url").unwrap();
    assert_eq!(admin_url, format!("http://{}", with_database.get("admin_listen")));
    assert_eq!(document(&sample("database/shim.yml"))["kong"]["admin_url"], admin_url);
}

/// In hybrid mode the control plane knows the plugin, runs no server of it, and is reached by nobody else.
#[test]
fn a_control_plane_needs_the_query_command_alone() {
    let [control, data] =
        ["control-plane", "data-plane"].map(|name| KongConf::read(&format!("hybrid/{name}.conf")));
    for key in ["plugins", "pluginserver_names", "pluginserver_mtls_auth_query_cmd", "cluster_cert"] {
        assert_eq!(control.get(key), data.get(key));
    }
    assert!(!control.settings.contains_key("pluginserver_mtls_auth_start_cmd"));
    assert!(
        control.get("admin_listen").starts_with("127.0.0.1:") && !control.get("admin_listen").contains(',')
    );
    assert!(!data.settings.contains_key("admin_listen"));
    assert_eq!((control.get("role"), data.get("role")), ("control_plane", "data_plane"));
    let start: Vec<_> = data.get("pluginserver_mtls_auth_start_cmd").split(' ').collect();
    assert_eq!([option(&start, "--admin-url"), option(&start, "--declarative-config")], [None, None]);
}

/// Kong asks, and no plain port is open.
#[test]
fn kongs_own_listener_asks_for_the_certificate() {
    let conf = KongConf::read("kong-tls/kong.conf");
    assert_eq!(conf.get("nginx_proxy_ssl_verify_client"), "optional_no_ca");
    assert!(conf.get("proxy_listen").split(", ").all(|listener| listener.ends_with(" ssl")));
    // In ProtoBuf:1 the chain cannot be had from Kong, which the sample of the plugin's configuration says.
    assert_eq!(query(conf.get("pluginserver_mtls_auth_query_cmd")), "ProtoBuf:1");
    assert!(sample("kong-tls/kong.yml").contains("intermediates belong among these"));
}
