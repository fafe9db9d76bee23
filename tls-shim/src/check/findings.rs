//! This knows what around the shim has to be in order, and how it is looked at. Whether the shim would start is known by
//! then.

use std::path::Path;
use std::time::{Duration, SystemTime};

use checkup::{Finding, Findings};
use client_cert::ProofKey;
use kong_entities::Entities;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::plugin_server;
use crate::settings::{AdminApi, Settings, Source, Upstream};
use crate::sni;
use crate::source::{self, Origin};
use crate::tls::{ServerCertificate, Tls, Trouble};

const KONG: &str = "kong";
const VERSION: &str = "Kong's version";
const PROOF_KEY: &str = "proof key";
const PLUGIN_SERVER: &str = "plugin server";
const SERVERS_KEY: &str = "the server's proof key";
const CERTIFICATES: &str = "server certificates";
const PRIVATE_KEYS: &str = "private keys";
const ROUTES: &str = "routes";

/// Looks at all of it, in the order in which a request meets it.
pub(super) async fn look(
    settings: &Settings,
    origin: &Origin,
    key: &ProofKey,
    entities: &Entities,
    tls: &Tls,
) -> Findings {
    let mut findings = Findings::default();
    findings.push(kong(origin));
    if let (Source::AdminApi(api), Origin::AdminApi(_)) = (&settings.kong, origin) {
        findings.extend(node(api).await);
    }
    findings.extend(certificates(tls));
    findings.extend(tls.certificates().troubles().map(trouble));
    findings.extend(private_keys(settings, entities));
    findings.push(checkup::proof_key(PROOF_KEY, &settings.proof_key_file).1);
    findings.extend(plugin_server(settings.plugin_server.as_deref(), key).await);
    let patience = settings.time_limits.upstream_connect;
    findings.extend(upstream("upstream", &settings.upstream, patience).await);
    if let Some(grpc) = &settings.grpc_upstream {
        findings.extend(upstream("grpc_upstream", grpc, patience).await);
    }
    if !settings.upstream.tls {
        findings.extend(out_of_reach(entities));
    }
    findings
}

/// Whether Kong's configuration itself is known, and not what stands in for it.
fn kong(origin: &Origin) -> Finding {
    let finding = format!("its configuration comes {origin}");
    match origin {
        Origin::DeclarativeFile(_) | Origin::AdminApi(_) => Finding::ok(KONG, finding),
        Origin::SnapshotFile { .. } if origin.fault().is_none() => Finding::warn(
            KONG,
            finding,
            "what has changed since does not count; see that admin_url leads to Kong",
        ),
        Origin::SnapshotFile { .. } => Finding::fail(
            KONG,
            finding,
            "see that admin_url leads to Kong, and that a token, if one is asked for, is right",
        ),
        Origin::Nowhere { because, .. } => {
            let remedy =
                "see that admin_url leads to Kong: until it answers, everybody is asked for a certificate";
            Finding::fail(KONG, because.to_string(), remedy)
        }
    }
}

/// What the Admin API says of Kong itself.
async fn node(api: &AdminApi) -> Vec<Finding> {
    let node = match source::client(api) {
        Ok(client) => client.node().await.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    let node = match node {
        Ok(node) => node,
        Err(error) => {
            return vec![Finding::unseen(VERSION, error, "let the front before the Admin API pass GET /")];
        }
    };
    let mut findings = vec![checkup::version(&node.version)];
    if let Some(date) = node.date {
        findings.push(checkup::clock(date, node.asked.0, node.asked.1));
    }
    if let Some(settings) = node.settings {
        findings.push(checkup::header_buffers(settings.header_buffers.as_deref()));
        findings.push(checkup::trusted_ips(&settings.trusted_ips));
    }
    findings
}

/// Which server certificates end soon.
fn certificates(tls: &Tls) -> Vec<Finding> {
    let of = |certificate: &ServerCertificate, of: &str| -> Vec<_> {
        certificate.ends().map(|(subject, _, ends)| (format!("{subject:?} ({of})"), ends)).collect()
    };
    let certificates = tls.certificates();
    let of_kong = certificates.usable().flat_map(|certificate| {
        of(certificate, &certificate.id().map_or_else(|| "without an id".to_owned(), |id| format!("id {id}")))
    });
    let all = of(&tls.default_certificate(), "the default").into_iter().chain(of_kong);
    checkup::ends(
        CERTIFICATES,
        all,
        SystemTime::now(),
        "renew it: the shim shows the new one without a restart",
    )
}

fn trouble(Trouble { broken, id, names, reason }: &Trouble) -> Finding {
    let finding = format!("the one with the id {id} for {names}: {reason}");
    let remedy = match broken {
        true => "mend it in Kong: until then clients are shown another one",
        false => "mend it in Kong",
    };
    Finding::warn(CERTIFICATES, finding, remedy)
}

/// Whether the files that hold private keys of server certificates are closed to others.
fn private_keys(settings: &Settings, entities: &Entities) -> Vec<Finding> {
    let declarative = match &settings.kong {
        Source::DeclarativeFile(file) if !entities.certificates.is_empty() => Some(file.path.as_path()),
        _ => None,
    };
    let files = [settings.default_certificate.key.as_path()].into_iter().chain(declarative);
    let of_file = |path: &Path| {
        let shown = path.display();
        match hardening::open_to_others(path) {
            None => Finding::ok(PRIVATE_KEYS, format!("{shown} is closed to others")),
            Some(mode) => Finding::warn(
                PRIVATE_KEYS,
                format!("other users may read or write {shown} (mode {mode:04o})"),
                "chmod o= it; a key that others could read is best replaced",
            ),
        }
    };
    files.map(of_file).collect()
}

/// Whether the plugin server is there, and has the same key.
async fn plugin_server(socket: Option<&Path>, key: &ProofKey) -> Vec<Finding> {
    let Some(socket) = socket else {
        let finding =
            "plugin_server is not set: what needs a certificate goes to Kong also while the server is away";
        let remedy = "set it to the server's socket, such as /usr/local/kong/mtls-auth.socket";
        return vec![Finding::warn(PLUGIN_SERVER, finding, remedy)];
    };
    let at = socket.display();
    match plugin_server::status(socket).await {
        Ok(status) => {
            let pid = status.pid.map_or_else(|| "unknown".to_owned(), |pid| pid.to_string());
            let answers = Finding::ok(PLUGIN_SERVER, format!("process {pid} answers at {at}"));
            vec![answers, checkup::agreement(SERVERS_KEY, key, &status)]
        }
        Err(silence) => {
            let finding =
                format!("{at}: {silence}; what needs a certificate is refused with 503 while it is so");
            let remedy = "start Kong, and let the shim's user connect to that socket";
            vec![match silence.is_absence() {
                true => Finding::warn(PLUGIN_SERVER, finding, remedy),
                false => Finding::fail(PLUGIN_SERVER, finding, remedy),
            }]
        }
    }
}

/// Whether a listener of Kong's takes connections, and whether what goes there can be read on the way.
async fn upstream(key: &'static str, upstream: &Upstream, patience: Duration) -> Vec<Finding> {
    let address = upstream.address();
    let connecting = timeout(patience, TcpStream::connect((upstream.host(), upstream.port()))).await;
    let remedy = "see that Kong runs, and that its proxy_listen has this address";
    let reached = match connecting {
        Ok(Ok(_)) => Finding::ok(key, format!("{address} takes connections")),
        Ok(Err(error)) => Finding::warn(key, format!("{address}: {error}"), remedy),
        Err(_) => Finding::warn(key, format!("{address}: no connection within {patience:?}"), remedy),
    };
    let readable = (!upstream.tls && !upstream.is_local()).then(|| {
        Finding::warn(
            key,
            format!(
                "http:// to {address}: who sees the way there can use what is handed on as its own, for {} s",
                client_cert::LIFETIME.as_secs()
            ),
            "use https://, or a network that nobody else is in",
        )
    });
    [reached].into_iter().chain(readable).collect()
}

/// The routes that nobody reaches, with the first few by name.
fn out_of_reach(entities: &Entities) -> Option<Finding> {
    const SHOWN: usize = 5;
    let routes: Vec<&str> = sni::out_of_reach_without_sni(entities).collect();
    let (shown, more) = routes.split_at(routes.len().min(SHOWN));
    let more = if more.is_empty() { String::new() } else { format!(" and {} more", more.len()) };
    (!routes.is_empty()).then(|| {
        let shown = shown.join(", ");
        let finding = format!("nobody reaches those whose expression demands tls.sni: {shown}{more}");
        Finding::warn(ROUTES, finding, "set upstream to https://, so that Kong is told the server name")
    })
}
