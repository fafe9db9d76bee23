//! A shim of its own for each test, between clients and an upstream that tells what it saw.
#![allow(dead_code, unreachable_pub, reason = "no test uses all of it")]

pub mod admin;
pub mod announced;
pub mod frames;
pub mod grpc;
pub mod h2;
pub mod handed_on;
pub mod raw_hello;
pub mod s_client;
pub mod sessions;
pub mod tls_front;

use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Output};
use std::time::Instant;

use openssl::ssl::{SslConnector, SslMethod, SslVerifyMode};
use testbed::pki::{Ca, Leaf, Subject};
use testbed::process::{PATIENCE, Process};
use testbed::tls_client::{TlsClient, Version};
use testbed::upstream::Upstream;

/// A plugin on one route, and another route without.
pub const ONE_ROUTE: &str = "
routes:
- {name: secured, snis: [secured.example], plugins: [{name: mtls-auth}]}
- {name: open, snis: [open.example]}
";

/// The names that [`ONE_ROUTE`] asks and does not ask.
pub const SECURED: &str = "secured.example";
pub const OPEN: &str = "open.example";

pub const KEY: [u8; 32] = [7; 32];

pub struct Rig {
    pub dir: tempfile::TempDir,
    pub upstream: Upstream,
    pub shim: Process,
    pub address: SocketAddr,
    pub ca: Ca,
    pub client: Leaf,
}

impl Rig {
    /// A shim for these entities.
    pub fn new(entities: &str) -> Self {
        let upstream = Upstream::start();
        let address = upstream.address();
        Self::with_upstream(entities, upstream, address)
    }

    /// A shim that takes `address` for Kong's.
    pub fn with_upstream(entities: &str, upstream: Upstream, address: SocketAddr) -> Self {
        Self::build(entities, upstream, address, "")
    }

    /// A shim with further lines in its settings.
    pub fn with_settings(entities: &str, settings: &str) -> Self {
        let upstream = Upstream::start();
        let address = upstream.address();
        Self::build(entities, upstream, address, settings)
    }

    /// A shim with these settings in place of `upstream`.
    pub fn with_kong(entities: &str, upstream: Upstream, settings: &str) -> Self {
        let address = upstream.address();
        Self::build(entities, upstream, address, settings)
    }

    fn build(entities: &str, upstream: Upstream, address: SocketAddr, settings: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        write_settings(dir.path(), "[\"127.0.0.1:0\"]", address);
        let path = dir.path().join("shim.yml");
        let mut all = std::fs::read_to_string(&path).unwrap();
        if settings.starts_with("upstream: ") {
            all = all.replace(&format!("upstream: http://{address}\n"), "");
        }
        all += settings;
        std::fs::write(path, all).unwrap();
        write_entities(dir.path(), entities);
        let shim = start(dir.path());
        let address = listening(&shim);
        let ca = Ca::root("clients");
        let client = ca.issue(Subject::client("alice"));
        client.write(dir.path(), "client", &[]);
        Self { dir, upstream, shim, address, ca, client }
    }

    pub fn client(&self, sni: &str) -> TlsClient {
        TlsClient::new(Some(sni))
    }

    /// Runs curl for `https://<host><path>` against the shim; curl must succeed.
    pub fn curl(&self, host: &str, path: &str, arguments: &[&str]) -> String {
        let output = self.try_curl(host, path, arguments);
        assert!(output.status.success(), "curl: {output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    pub fn try_curl(&self, host: &str, path: &str, arguments: &[&str]) -> Output {
        let port = self.address.port();
        Command::new("curl")
            .args(["--silent", "--show-error", "--insecure", "--max-time", "60", "--noproxy", "*"])
            .args(["--resolve", &format!("{host}:{port}:127.0.0.1")])
            .args(arguments)
            .arg(format!("https://{host}:{port}{path}"))
            .current_dir(self.dir.path())
            .output()
            .expect("curl runs")
    }

    /// What curl needs to present the client's certificate.
    pub const CERTIFICATE: [&'static str; 4] = ["--cert", "client.crt", "--key", "client.key"];
}

/// A folder with all that a shim needs for [`ONE_ROUTE`] on a free port.
pub fn folder(upstream: &Upstream) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    write_settings(dir.path(), "[\"127.0.0.1:0\"]", upstream.address());
    write_entities(dir.path(), ONE_ROUTE);
    dir
}

/// Writes `shim.yml` and all that it names but Kong's entities.
pub fn write_settings(dir: &Path, listen: &str, upstream: SocketAddr) {
    let server = Ca::root("servers").issue(Subject::server(&[SECURED, OPEN, "localhost"]));
    server.write(dir, "server", &[]);
    write_key(&dir.join("mtls-auth.key"));
    let at = dir.display();
    let settings = format!(
        "listen: {listen}
upstream: http://{upstream}
kong: {{declarative_config: {at}/kong.yml, poll_interval: 10ms}}
default_certificate: {{cert: {at}/server.crt, key: {at}/server.key}}
proof_key_file: {at}/mtls-auth.key
"
    );
    std::fs::write(dir.join("shim.yml"), settings).unwrap();
}

fn write_key(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    // [7; 32] in base64.
    std::fs::write(path, "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=\n").unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

/// Writes Kong's declarative file, as a whole.
pub fn write_entities(dir: &Path, entities: &str) {
    let new = dir.join("kong.yml.new");
    std::fs::write(&new, format!("_format_version: '3.0'\n{entities}")).unwrap();
    std::fs::rename(new, dir.join("kong.yml")).unwrap();
}

pub fn start(dir: &Path) -> Process {
    start_with(&dir.join("shim.yml"))
}

/// The same with a settings file of this name.
pub fn start_with(config: &Path) -> Process {
    Process::start(&mut command(config))
}

/// The command for it.
pub fn command(config: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tls-shim"));
    command.args(["--log-level", "debug", "--config"]).arg(config);
    command
}

/// Where the shim says that it listens first.
pub fn listening(shim: &Process) -> SocketAddr {
    let line = shim.wait_for("\"listening\"");
    let rest = line.split_once("\"addr\":\"").expect("an address").1;
    rest.split('"').next().unwrap().parse().expect("an address")
}

/// Does something, and waits until the shim has said this once more.
pub fn until_said_again(shim: &Process, says: &str, action: impl FnOnce()) {
    let count = || shim.output().iter().filter(|line| line.contains(says)).count();
    let before = count();
    action();
    until(|| count() > before);
}

/// Sends SIGHUP and waits until the shim says this once more.
pub fn hang_up(shim: &Process, says: &str) {
    until_said_again(shim, says, || shim.signal("HUP"));
}

/// What the shim says when all was read again.
pub const RELOADED: &str = "SIGHUP: reloaded";

/// Whether a client of either version is asked; they must not differ.
pub fn asked(shim: SocketAddr, sni: Option<&str>) -> bool {
    let asked = [Version::TLS1_2, Version::TLS1_3]
        .map(|version| TlsClient::new(sni).version(version).connect(shim).unwrap().asked());
    assert_eq!(asked[0], asked[1], "{sni:?}");
    asked[0]
}

/// The certificate that a client is shown that names a server without one of its own.
pub fn shown(rig: &Rig) -> Vec<u8> {
    let mut client = SslConnector::builder(SslMethod::tls_client()).unwrap();
    client.set_verify(SslVerifyMode::NONE);
    let client = client.build().configure().unwrap().verify_hostname(false);
    let stream = client.connect(OPEN, TcpStream::connect(rig.address).unwrap()).unwrap();
    stream.ssl().peer_certificate().unwrap().to_der().unwrap()
}

/// What OpenSSL says of an error, as the library writes it that the shim is built on: AWS-LC has the names of its constants.
pub fn as_written(reason: &str) -> String {
    if cfg!(feature = "aws-lc") { reason.replace(' ', "_").to_uppercase() } else { reason.to_owned() }
}

/// Waits until it is so.
pub fn until(mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "it never came to be");
        std::thread::yield_now();
    }
}
