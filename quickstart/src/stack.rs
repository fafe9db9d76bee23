//! This knows how the pieces are put together, in a folder of their own.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use kong_double::{Double, DoubleConfig, PluginConfig, Route};
use serde_json::{Value as Json, json};
use tempfile::TempDir;
use testbed::pki::{Ca, Leaf, Subject};
use testbed::process::{Process, binary};
use testbed::upstream::Upstream;

/// The server name of the route that needs a certificate.
pub const PROTECTED: &str = "payments.example.com";

/// The server name of the route that needs none.
pub const OPEN: &str = "www.example.com";

const CA_ID: &str = "6ae7a1a4-0cf0-4b6a-9d3f-3f7c5a0b1c2d";

/// Everything that runs. Dropping it stops all.
pub struct Stack {
    // Stopped in this order: whoever is in front first.
    shim: Process,
    server: Process,
    /// Kong's double.
    pub kong: Double,
    /// What is behind Kong.
    pub upstream: Upstream,
    /// The certificates of the clients.
    pub clients: Clients,
    shim_address: SocketAddr,
    dir: TempDir,
}

/// Certificates of clients, good and bad.
pub struct Clients {
    /// The CA that the plugin trusts.
    pub ca: Ca,
    /// Of that CA, with the name of a consumer.
    pub alice: Leaf,
    /// Of that CA, with the name of a consumer, and over.
    pub expired: Leaf,
    /// Of that CA, with a name that no consumer has.
    pub stranger: Leaf,
    /// Of another CA, which has the same name, with the name of a consumer.
    pub mallory: Leaf,
}

impl Clients {
    fn make() -> Self {
        let ca = Ca::root("Quickstart CA");
        Self {
            alice: ca.issue(Subject::client("alice")),
            expired: ca.issue(Subject::client("alice").expired()),
            stranger: ca.issue(Subject::client("stranger")),
            mallory: Ca::root("Quickstart CA").issue(Subject::client("alice")),
            ca,
        }
    }
}

impl Stack {
    /// Builds the binaries, makes the certificates and starts everything.
    ///
    /// # Panics
    /// If anything does not start.
    pub async fn start() -> Self {
        let (mtls_auth, tls_shim) = (binary("mtls-auth"), binary("tls-shim"));
        let dir = tempfile::tempdir().expect("a folder");
        let clients = Clients::make();
        let server_ca = Ca::root("Quickstart server CA");
        server_ca.issue(Subject::server(&[PROTECTED, OPEN, "localhost"])).write(dir.path(), "server", &[]);
        write(dir.path(), "server-ca.crt", &server_ca.pem());
        for (name, leaf) in [
            ("alice", &clients.alice),
            ("expired", &clients.expired),
            ("stranger", &clients.stranger),
            ("mallory", &clients.mallory),
        ] {
            leaf.write(dir.path(), name, &[]);
        }
        let upstream = Upstream::start();
        let kong_yml =
            write(dir.path(), "kong.yml", &declarative(&clients.ca, upstream.address()).to_string());

        let server = Process::start(
            Command::new(&mtls_auth)
                .arg("--kong-prefix")
                .arg(dir.path())
                .arg("--declarative-config")
                .arg(&kong_yml),
        );
        server.wait_for("\"serving\"");
        let dump = Command::new(&mtls_auth).arg("-dump").output().expect("the plugin info").stdout;
        let plugin_info = serde_json::from_slice(&dump).expect("JSON");
        let kong = kong(&dir.path().join("mtls-auth.socket"), plugin_info, upstream.address());
        let kong = Double::start(kong).await.expect("Kong's double");

        let shim_yml = json!({
            "listen": ["127.0.0.1:0"],
            "upstream": format!("http://{}", kong.addr()),
            "kong": {"declarative_config": kong_yml, "poll_interval": "50ms"},
            "default_certificate": {"cert": dir.path().join("server.crt"), "key": dir.path().join("server.key")},
            "proof_key_file": dir.path().join("mtls-auth.key"),
            "plugin_server": dir.path().join("mtls-auth.socket"),
        });
        let shim_yml = write(dir.path(), "shim.yml", &shim_yml.to_string());
        let shim = Process::start(Command::new(&tls_shim).arg("--config").arg(&shim_yml));
        let shim_address = listening(&shim.wait_for("\"listening\""));
        Self { shim, server, kong, upstream, clients, shim_address, dir }
    }

    /// Where the shim takes TLS connections.
    pub fn address(&self) -> SocketAddr {
        self.shim_address
    }

    /// A file of the folder: `alice.crt`, `alice.key`, `server-ca.crt`, `kong.yml`, `shim.yml`, …
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The plugin server.
    pub fn server(&mut self) -> &mut Process {
        &mut self.server
    }

    /// The shim.
    pub fn shim(&mut self) -> &mut Process {
        &mut self.shim
    }
}

/// Kong's configuration, which the shim and the plugin server read. JSON is YAML too.
fn declarative(ca: &Ca, upstream: SocketAddr) -> Json {
    json!({
        "_format_version": "3.0",
        "ca_certificates": [{"id": CA_ID, "cert": ca.pem()}],
        "consumers": [{"username": "alice", "custom_id": "customer-1"}],
        "services": [{"name": "upstream", "url": format!("http://{upstream}"), "routes": [
            {"name": "protected", "hosts": [PROTECTED], "snis": [PROTECTED],
             "plugins": [{"name": "mtls-auth", "config": plugin_config()}]},
            {"name": "open", "hosts": [OPEN], "snis": [OPEN]},
        ]}],
    })
}

/// The same for the double, which reads no files.
fn kong(socket: &Path, plugin_info: Json, upstream: SocketAddr) -> DoubleConfig {
    let mut config = DoubleConfig::new(socket, plugin_info);
    config.workers = 2;
    config.trusted_ips = vec!["127.0.0.1".into()];
    let protected = PluginConfig::new("mtls-auth", plugin_config());
    config.routes = vec![
        Route::new("protected", upstream).hosts([PROTECTED]).plugin(protected),
        Route::new("open", upstream).hosts([OPEN]),
    ];
    config
}

fn plugin_config() -> Json {
    json!({"ca_certificates": [CA_ID]})
}

fn write(dir: &Path, name: &str, content: &str) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, content).expect("a file");
    path
}

/// The address in the shim's log line, whichever form the log has.
fn listening(line: &str) -> SocketAddr {
    let (_, rest) = line.split_once("127.0.0.1:").expect("an address");
    let port: String = rest.chars().take_while(char::is_ascii_digit).collect();
    SocketAddr::from(([127, 0, 0, 1], port.parse().expect("a port")))
}
