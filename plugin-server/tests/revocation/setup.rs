//! A server, Kong's double, and a CA whose certificates name where to ask.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use client_cert::{Presented, Proof, ProofKey};
use kong_double::{Double, DoubleConfig, PluginConfig, Protocol, Route};
use serde_json::{Value as Json, json};
use tempfile::TempDir;
use testbed::ocsp::{Authority, State};
use testbed::pki::{Ca, Leaf, Subject, naming};
use testbed::process::{PATIENCE, Process};
use testbed::upstream::Upstream;
use testbed::web::{Answer, WebServer};

use crate::common::{BINARY, Prefix};

/// Lets URLs lead to our servers.
pub(crate) const PRIVATE: &str = "--allow-private-revocation-urls";

pub(crate) struct Setup {
    pub(crate) prefix: Prefix,
    pub(crate) server: Process,
    pub(crate) kong: Double,
    pub(crate) ca: Ca,
    _upstream: Upstream,
}

/// How a request ended, and what was added to Kong's log.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) status: u16,
    pub(crate) log: Vec<String>,
    pub(crate) took: Duration,
}

impl Outcome {
    /// Whether a line of the log has all of these.
    pub(crate) fn says(&self, parts: &[&str]) -> bool {
        self.log.iter().any(|line| parts.iter().all(|part| line.contains(part)))
    }
}

impl Setup {
    /// A server with these options, and a route for each mode, whose configuration also has this.
    pub(crate) async fn start(protocol: Protocol, options: &[&str], extra: Json) -> Self {
        Self::with(protocol, Ca::root("root"), &[], options, extra).await
    }

    /// The same with other CAs beside the first.
    pub(crate) async fn with(
        protocol: Protocol,
        ca: Ca,
        others: &[&Ca],
        options: &[&str],
        extra: Json,
    ) -> Self {
        let prefix = Prefix::new();
        let entities = json!({"_format_version": "3.0", "consumers": [{"username": "anon"}]});
        let file = prefix.write("kong.json", &entities.to_string());
        let source = ["--declarative-config", file.to_str().unwrap()];
        let server = prefix.serve(&[&source[..], options].concat());
        let name = match protocol {
            Protocol::MsgPack => "msgpack",
            Protocol::ProtoBuf => "protobuf",
        };
        let info = std::process::Command::new(BINARY).args(["-dump", "--protocol", name]).output().unwrap();
        let mut config = DoubleConfig::new(prefix.socket(), serde_json::from_slice(&info.stdout).unwrap());
        let upstream = Upstream::start();
        let cas: Vec<String> = std::iter::once(&ca).chain(others.iter().copied()).map(Ca::pem).collect();
        let route = |path: &str, fields: Json| {
            let mut plugin = json!({"ca_certificates": cas, "skip_consumer_lookup": true});
            for more in [&extra, &fields] {
                plugin.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            }
            let plugin = PluginConfig::new("mtls-auth", plugin);
            Route::new(path, upstream.address()).paths([format!("/{path}")]).plugin(plugin)
        };
        config.routes = vec![
            route("skip", json!({"revocation_check_mode": "SKIP"})),
            route("ignore", json!({})),
            route("strict", json!({"revocation_check_mode": "STRICT"})),
            route("anonymous", json!({"revocation_check_mode": "STRICT", "anonymous": "anon"})),
        ];
        let kong = Double::start(config).await.unwrap();
        Self { prefix, server, kong, ca, _upstream: upstream }
    }

    /// A request with this certificate, whose client sends nothing besides.
    pub(crate) fn request(&self, mode: &str, leaf: &Leaf) -> Outcome {
        self.request_with(mode, leaf, &[])
    }

    pub(crate) fn request_with(&self, mode: &str, leaf: &Leaf, chain: &[&Ca]) -> Outcome {
        let key = ProofKey::read(&self.prefix.path("mtls-auth.key")).unwrap();
        let chain = chain.iter().map(|ca| ca.der()).collect();
        let presented = Presented { leaf: leaf.der.clone(), chain };
        let proof = Proof::write(&key, &presented, "", SystemTime::now());
        let mut headers = vec![("Client-Cert", presented.leaf_header()), ("Client-Cert-Proof", proof)];
        headers.extend(presented.chain_header().map(|chain| ("Client-Cert-Chain", chain)));
        let logged = self.kong.error_log().len();
        let begun = Instant::now();
        let mut command = std::process::Command::new("curl");
        command.args(["-sS", "-o", "/dev/null", "-w", "%{http_code}"]);
        for (name, value) in headers {
            command.arg("-H").arg(format!("{name}: {value}"));
        }
        let output = command.arg(format!("http://{}/{mode}", self.kong.addr())).output().unwrap();
        let took = begun.elapsed();
        let status = String::from_utf8(output.stdout).unwrap().parse().unwrap();
        Outcome { status, took, log: self.kong.error_log().split_off(logged) }
    }

    /// Asks until a request ends like this, or as good as never does.
    pub(crate) fn wait_for(&self, mode: &str, leaf: &Leaf, is_right: impl Fn(&Outcome) -> bool) {
        let begun = Instant::now();
        loop {
            let outcome = self.request(mode, leaf);
            if is_right(&outcome) {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "{outcome:?}");
        }
    }
}

/// A responder that answers by `openssl ocsp`, behind a web server that may do something else.
pub(crate) struct Responder {
    pub(crate) web: WebServer,
    authority: Arc<Mutex<Authority>>,
    _dir: TempDir,
}

impl Responder {
    /// One that knows no certificate yet.
    pub(crate) fn of(ca: &Ca) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let authority = Arc::new(Mutex::new(Authority::new(dir.path(), ca)));
        let responder = Self { web: WebServer::start(Answer::Closes), authority, _dir: dir };
        responder.works();
        responder
    }

    /// Answers as it should.
    pub(crate) fn works(&self) {
        let authority = Arc::clone(&self.authority);
        let answer = move |question: &[u8]| authority.lock().unwrap().answer(question, &["-ndays", "1"]);
        self.web.answer(Answer::Made(Arc::new(answer)));
    }

    pub(crate) fn set(&self, leaf: &Leaf, state: State) {
        self.authority.lock().unwrap().set(leaf, state);
    }

    /// A certificate that names it, and is good.
    pub(crate) fn leaf(&self, ca: &Ca) -> Leaf {
        let leaf = ca.issue(naming(Subject::client("alice"), &[&self.web.url()], &[]));
        self.set(&leaf, State::Valid);
        leaf
    }
}
