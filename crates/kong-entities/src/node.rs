//! This knows what one of Kong's nodes is and how it is set up, as far as that matters here: from the root of its Admin API,
//! or from a `kong.conf`.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::Deserialize;
use serde_json::Value;

/// What a node says of itself. Kong leaves its secrets out of it, and nothing but this is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Such as `3.9.1`.
    pub version: String,
    /// How it runs. None: it answered with an error, as Kong 3.9.1 does in the worker that has started a plugin server, for
    /// it cannot write down the handle of that process.
    pub settings: Option<NodeSettings>,
    /// What its clock showed, in whole seconds.
    pub date: Option<SystemTime>,
    /// Between these two times of this host's clock.
    pub asked: (SystemTime, SystemTime),
}

/// How a node is set up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeSettings {
    /// nginx's `large_client_header_buffers` of the proxy listener, such as `8 64k`. None: nginx's own default.
    pub header_buffers: Option<String>,
    /// Networks from which `X-Forwarded-*` are believed.
    pub trusted_ips: Vec<String>,
    /// Listeners of the proxy, each an address and its flags.
    pub proxy_listen: Vec<String>,
    /// The plugin server that provides our plugin. None: Kong knows of none.
    pub plugin_server: Option<PluginServer>,
}

/// What a node knows of the plugin server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PluginServer {
    /// Where Kong looks for it. None: where that version of Kong looks by itself.
    pub socket: Option<PathBuf>,
    /// `MsgPack:1` or `ProtoBuf:1`. None: nobody can tell from the outside.
    pub protocol: Option<&'static str>,
}

/// The name under which Kong knows our plugin server in the samples.
const PLUGIN_SERVER: &str = "mtls-auth";

/// What Kong listens on where nobody says anything.
const PROXY_LISTEN: &str =
    "0.0.0.0:8000 reuseport backlog=16384, 0.0.0.0:8443 http2 ssl reuseport backlog=16384";

/// The most bytes of a `kong.conf`. The one that comes with Kong, comments and all, has a tenth of it.
const MAX_CONF_BYTES: u64 = 1 << 20;

/// The answer to `GET /`.
#[derive(Deserialize)]
pub(crate) struct RawNode {
    pub(crate) version: String,
    configuration: Value,
}

impl RawNode {
    /// An empty list is an empty object there, as Lua cannot tell them apart, so whatever is of another type is empty.
    pub(crate) fn settings(&self) -> NodeSettings {
        let configuration = &self.configuration;
        let list = |key: &str| configuration[key].as_array().map_or(&[][..], Vec::as_slice);
        let texts =
            |key: &str| list(key).iter().filter_map(Value::as_str).map(str::to_owned).collect::<Vec<_>>();
        let directive = |of: &str| {
            let named = |directive: &&Value| directive["name"] == "large_client_header_buffers";
            list(of).iter().find(named).and_then(|directive| directive["value"].as_str()).map(str::to_owned)
        };
        let servers = list("pluginservers").iter();
        let plugin_server = servers
            .map(|server| (server, server["query_command"].as_str()))
            .find(|(server, query)| is_ours(server["name"].as_str().unwrap_or_default(), *query))
            .map(|(server, query)| PluginServer {
                socket: server["socket"].as_str().map(PathBuf::from),
                // Kong notes there what the query command said, and does not say so anywhere.
                protocol: match server["protocol"].as_str() {
                    Some(name) => known_protocol(name),
                    None => query.and_then(protocol_of),
                },
            });
        NodeSettings {
            header_buffers: directive("nginx_proxy_directives")
                .or_else(|| directive("nginx_http_directives")),
            trusted_ips: texts("trusted_ips"),
            proxy_listen: texts("proxy_listen"),
            plugin_server,
        }
    }
}

/// The version in the `Server` header of Kong's answers, such as `kong/3.9.1`.
pub(crate) fn version_of_server(header: &str) -> Option<String> {
    let version = header.split_whitespace().find_map(|word| word.strip_prefix("kong/"))?;
    version.starts_with(|char: char| char.is_ascii_digit()).then(|| version.to_owned())
}

impl NodeSettings {
    /// Reads a `kong.conf`, in which what stands in Kong's environment (`KONG_*`) or on its command line is missing, or the
    /// `.kong_env` that Kong writes into its prefix when it starts, with all of that.
    ///
    /// # Errors
    /// What the system says of the file; that it is too long, or no text.
    pub fn read_conf(path: &Path) -> io::Result<Self> {
        let mut text = String::new();
        File::open(path)?.take(MAX_CONF_BYTES + 1).read_to_string(&mut text)?;
        if text.len() as u64 > MAX_CONF_BYTES {
            return Err(io::Error::other(format!("it is longer than {MAX_CONF_BYTES} bytes")));
        }
        Ok(Self::of_conf(&text))
    }

    fn of_conf(text: &str) -> Self {
        // Of two lines for the same the later counts.
        let value = |key: &str| {
            let mut values = text.lines().filter_map(setting).filter(|(name, _)| *name == key);
            values.next_back().map(|(_, value)| value).filter(|value| !value.is_empty())
        };
        let list = |text: &str| {
            let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
            parts.map(str::to_owned).collect::<Vec<_>>()
        };
        let names = value("pluginserver_names").map(|names| list(&names)).unwrap_or_default();
        let plugin_server = names.iter().find_map(|name| {
            let name = name.to_ascii_lowercase();
            let of = |key: &str| value(&format!("pluginserver_{}_{key}", name.replace('-', "_")));
            let query = of("query_cmd");
            is_ours(&name, query.as_deref()).then(|| PluginServer {
                socket: of("socket").map(PathBuf::from),
                // Without a command Kong takes the program of this name, which says MsgPack:1 unless told otherwise.
                protocol: protocol_of(query.as_deref().unwrap_or("mtls-auth -dump")),
            })
        });
        Self {
            header_buffers: value("nginx_proxy_large_client_header_buffers")
                .or_else(|| value("nginx_http_large_client_header_buffers")),
            trusted_ips: value("trusted_ips").map(|networks| list(&networks)).unwrap_or_default(),
            proxy_listen: list(&value("proxy_listen").unwrap_or_else(|| PROXY_LISTEN.to_owned())),
            plugin_server,
        }
    }
}

fn is_ours(name: &str, query: Option<&str>) -> bool {
    name == PLUGIN_SERVER || query.is_some_and(|query| query.contains(PLUGIN_SERVER))
}

fn known_protocol(name: &str) -> Option<&'static str> {
    ["MsgPack:1", "ProtoBuf:1"].into_iter().find(|known| *known == name)
}

/// What our program says of itself when it is asked by this command; of a script that calls it nobody knows.
fn protocol_of(query: &str) -> Option<&'static str> {
    let mut words = query.split_whitespace();
    if !words.next()?.ends_with(PLUGIN_SERVER) {
        return None;
    }
    let words: Vec<_> = words.collect();
    let chosen = words.iter().position(|word| *word == "--protocol").map(|at| words.get(at + 1).copied());
    let chosen = chosen.flatten().or_else(|| words.iter().find_map(|word| word.strip_prefix("--protocol=")));
    match chosen {
        None | Some("msgpack") => Some("MsgPack:1"),
        Some("protobuf") => Some("ProtoBuf:1"),
        Some(_) => None,
    }
}

/// A line's name and value. Kong takes what follows a `#` for a comment, unless a backslash stands before it.
fn setting(line: &str) -> Option<(&str, String)> {
    let line = line.trim();
    if line.starts_with('#') {
        return None;
    }
    let (name, value) = line.split_once('=')?;
    let ends = value.char_indices().position(|(at, char)| char == '#' && !value[..at].ends_with('\\'));
    let value: String = value.chars().take(ends.unwrap_or(usize::MAX)).collect();
    Some((name.trim(), value.replace("\\#", "#").trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(configuration: Value) -> NodeSettings {
        serde_json::from_value::<RawNode>(json!({"version": "3.9.1", "configuration": configuration}))
            .unwrap()
            .settings()
    }

    #[test]
    fn what_matters_of_a_node_is_found_in_its_own_words() {
        let settings = of(json!({
            "nginx_proxy_directives": [
                {"name": "large_client_header_buffers", "value": "8 64k"},
                {"name": "real_ip_header", "value": "X-Real-IP"},
            ],
            "nginx_http_directives": [{"name": "large_client_header_buffers", "value": "1 1k"}],
            "trusted_ips": ["127.0.0.1/32"],
            "proxy_listen": ["127.0.0.1:8000 reuseport"],
            "pluginservers": [
                {"name": "go", "socket": "/x", "query_command": "/go -dump", "protocol": "ProtoBuf:1"},
                {"name": "mtls-auth", "socket": "/k/m.socket", "query_command": "/mtls-auth -dump", "protocol": "ProtoBuf:1"},
            ],
        }));
        let server = PluginServer { socket: Some("/k/m.socket".into()), protocol: Some("ProtoBuf:1") };
        assert_eq!(
            settings,
            NodeSettings {
                header_buffers: Some("8 64k".into()),
                trusted_ips: vec!["127.0.0.1/32".into()],
                proxy_listen: vec!["127.0.0.1:8000 reuseport".into()],
                plugin_server: Some(server),
            }
        );
        // Lua's empty lists, and what is not there.
        let empty = json!({"nginx_proxy_directives": {}, "trusted_ips": {}, "pluginservers": {}});
        assert_eq!(of(empty), NodeSettings::default());
        assert_eq!(of(json!(null)), NodeSettings::default());
        let of_http =
            json!({"nginx_http_directives": [{"name": "large_client_header_buffers", "value": "4 16k"}]});
        assert_eq!(of(of_http).header_buffers.as_deref(), Some("4 16k"));
    }

    #[test]
    fn the_protocol_is_known_by_the_command_that_kong_asks_with() {
        for (query, protocol) in [
            ("/usr/local/bin/mtls-auth -dump", Some("MsgPack:1")),
            ("mtls-auth --dump --protocol protobuf", Some("ProtoBuf:1")),
            ("mtls-auth --protocol=protobuf --dump", Some("ProtoBuf:1")),
            ("mtls-auth -dump --protocol msgpack", Some("MsgPack:1")),
            ("mtls-auth -dump --protocol", Some("MsgPack:1")),
            ("mtls-auth -dump --protocol other", None),
            ("/opt/wrapper.sh mtls-auth -dump", None),
            ("", None),
        ] {
            assert_eq!(protocol_of(query), protocol, "{query}");
            let server = json!([{"name": "mtls-auth", "query_command": query}]);
            assert_eq!(
                of(json!({"pluginservers": server})).plugin_server.unwrap().protocol,
                protocol,
                "{query}"
            );
        }
        // What Kong has noted counts more.
        let server = json!([{"name": "x", "query_command": "mtls-auth -dump", "protocol": "ProtoBuf:1"}]);
        assert_eq!(of(json!({"pluginservers": server})).plugin_server.unwrap().protocol, Some("ProtoBuf:1"));
    }

    #[test]
    fn the_version_stands_in_the_server_header() {
        for (header, version) in [
            ("kong/3.9.1", Some("3.9.1")),
            ("openresty kong/3.4.2", Some("3.4.2")),
            ("kong/", None),
            ("kong/x", None),
            ("nginx/1.25", None),
        ] {
            assert_eq!(version_of_server(header).as_deref(), version, "{header}");
        }
    }

    #[test]
    fn a_kong_conf_is_read_as_kong_reads_it() {
        let settings = NodeSettings::of_conf(
            "# trusted_ips = 10.0.0.0/8
trusted_ips=0.0.0.0/0
  trusted_ips = 127.0.0.1/32, ::1/128   # the shim's
pluginserver_names = go,mtls-auth
pluginserver_mtls_auth_query_cmd = /usr/local/bin/mtls-auth -dump --protocol protobuf
pluginserver_mtls_auth_socket = /run/a\\#b.socket # x
nginx_http_large_client_header_buffers = 1 1k
nginx_proxy_large_client_header_buffers = 8 64k
nonsense
",
        );
        let server = PluginServer { socket: Some("/run/a#b.socket".into()), protocol: Some("ProtoBuf:1") };
        assert_eq!(settings.plugin_server, Some(server));
        assert_eq!(settings.trusted_ips, ["127.0.0.1/32", "::1/128"]);
        assert_eq!(settings.header_buffers.as_deref(), Some("8 64k"));
        assert_eq!(settings.proxy_listen.len(), 2, "what Kong listens on by itself");
        let bare = NodeSettings::of_conf("pluginserver_names = mtls-auth\ntrusted_ips =\nproxy_listen = off");
        let server = PluginServer { socket: None, protocol: Some("MsgPack:1") };
        assert_eq!((bare.plugin_server, bare.trusted_ips), (Some(server), vec![]));
        assert_eq!(bare.proxy_listen, ["off"]);
        assert_eq!(NodeSettings::of_conf("").plugin_server, None);

        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kong.conf");
        assert!(NodeSettings::read_conf(&path).is_err());
        std::fs::write(&path, "#".repeat(1 << 20)).unwrap();
        assert!(NodeSettings::read_conf(&path).is_ok());
        std::fs::write(&path, "#".repeat((1 << 20) + 1)).unwrap();
        assert!(NodeSettings::read_conf(&path).unwrap_err().to_string().contains("longer"));
    }
}
