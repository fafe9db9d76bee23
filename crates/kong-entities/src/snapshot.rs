//! This knows how to read Kong's whole configuration from its Admin API in many requests, so that it is one configuration
//! in the end.
//!
//! What is torn apart between two requests could lose a plugin, and with it the question for a certificate. So a
//! configuration counts only once it has held still: Kong said the same digest of it before and after
//! ([`AdminClient::configuration_hash`]), or two readings in a row were the same. And whatever one entity refers to must be
//! there.

use std::time::Duration;

use openssl::sha::sha256;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::declarative::build::build_by_id;
use crate::declarative::file::{
    File, FormatVersion, RawCaCertificate, RawCertificate, RawPlugin, RawRoute, RawService, RawSni,
};
use crate::model::PLUGIN;
use crate::{AdminClient, Entities, SourceError, SourceFault};

/// How often it is read before it is given up for now.
const READINGS: usize = 6;

/// Between two readings: somebody may be writing one entity after the other.
const PAUSE: Duration = Duration::from_millis(100);

/// How long it may take in all. A Kong 3.9.1 with PostgreSQL that serves nothing else takes some 8 s for 100,000 routes.
const MAX_TIME: Duration = Duration::from_secs(300);

/// SHA-256 of [`Snapshot::text`].
pub(crate) type Digest = [u8; 32];

/// One configuration, read as a whole.
pub(crate) struct Snapshot {
    pub(crate) entities: Entities,
    /// What `entities` were made of, in the form of a declarative file in JSON, in an order that does not depend on Kong's.
    pub(crate) text: Zeroizing<Vec<u8>>,
    pub(crate) digest: Digest,
    /// What Kong said of it.
    pub(crate) configuration_hash: Option<String>,
}

/// Kong's whole configuration but consumers, as the declarative file with the same content would give it: services,
/// routes, plugins, CA certificates, certificates and their names. Of a commercial Kong: that of the workspace in the
/// client's URL.
///
/// # Errors
/// See [`SourceFault`]. A part is never given for the whole.
pub async fn snapshot(client: &AdminClient) -> Result<Entities, SourceError> {
    read(client, None).await.map(|snapshot| snapshot.entities)
}

/// What applies where: services, routes and plugins alone, with the configurations of these plugins and of no others.
/// Certificates are not asked for, and so no private keys.
///
/// # Errors
/// See [`snapshot`].
pub async fn applied_plugins(client: &AdminClient, configs: &[&str]) -> Result<Entities, SourceError> {
    let wanted = Wanted { configs, certificates: false };
    read_within_time(client, None, wanted).await.map(|snapshot| snapshot.entities)
}

/// That of [`snapshot`] with what it was made of. `seen` is what an earlier reading gave: it counts as one.
pub(crate) async fn read(client: &AdminClient, seen: Option<Digest>) -> Result<Snapshot, SourceError> {
    read_within_time(client, seen, Wanted { configs: &[PLUGIN], certificates: true }).await
}

/// What is read.
#[derive(Clone, Copy)]
struct Wanted<'a> {
    /// The plugins whose configurations are kept.
    configs: &'a [&'a str],
    /// Whether CA certificates, certificates and their names are asked for.
    certificates: bool,
}

async fn read_within_time(
    client: &AdminClient,
    seen: Option<Digest>,
    wanted: Wanted<'_>,
) -> Result<Snapshot, SourceError> {
    tokio::time::timeout(MAX_TIME, read_unbounded(client, seen, wanted))
        .await
        .unwrap_or_else(|_| Err(client.fault(SourceFault::TimedOut(MAX_TIME))))
}

async fn read_unbounded(
    client: &AdminClient,
    mut seen: Option<Digest>,
    wanted: Wanted<'_>,
) -> Result<Snapshot, SourceError> {
    let mut problem = String::new();
    for reading in 0..READINGS {
        if reading > 0 {
            tokio::time::sleep(PAUSE).await;
        }
        let before = client.configuration_hash().await?;
        let lists = lists(client, wanted).await?;
        let unmoved = match before {
            Some(before) => client.configuration_hash().await?.filter(|after| *after == before),
            None => None,
        };
        let url = client.url();
        let (text, built) = tokio::task::spawn_blocking(move || (text(&lists, &url), build_by_id(lists)))
            .await
            .map_err(|_| client.fault(SourceFault::BrokenOff))?;
        let digest = sha256(&text);
        let again = seen.replace(digest) == Some(digest);
        match built {
            Ok(entities) if again || unmoved.is_some() => {
                return Ok(Snapshot { entities, text, digest, configuration_hash: unmoved });
            }
            Ok(_) => problem = "it changes while it is read".into(),
            Err(misfit) => problem = misfit,
        }
    }
    Err(client.fault(SourceFault::Unsettled(problem)))
}

/// All lists. What refers to others comes before them: what is new is then seen with what it refers to, or not at all.
async fn lists(client: &AdminClient, wanted: Wanted<'_>) -> Result<File, SourceError> {
    let mut plugins: Vec<RawPlugin> = list(client, "plugins").await?;
    for plugin in plugins.iter_mut().filter(|plugin| !wanted.configs.contains(&plugin.name.as_str())) {
        plugin.config = serde_json::Value::Null;
    }
    let routes = list(client, "routes").await?;
    let services = list(client, "services").await?;
    let (mut ca_certificates, mut snis, mut certificates) = (Vec::new(), Vec::<RawSni>::new(), Vec::new());
    if wanted.certificates {
        ca_certificates = list(client, "ca_certificates").await?;
        snis = client.list("snis").await?;
        snis.sort_by(|a, b| a.name.cmp(&b.name));
        certificates = list::<ListedCertificate>(client, "certificates").await?;
    }
    Ok(File {
        format_version: FormatVersion::Text("3.0".into()),
        ca_certificates,
        certificates: Some(certificates.into_iter().map(RawCertificate::from).collect()),
        snis: Some(snis),
        consumers: Vec::new(),
        services,
        routes,
        plugins,
        mtls_auth_credentials: Vec::new(),
    })
}

/// A list in the order of its ids: Kong gives it in none that stays.
async fn list<T: Listed>(client: &AdminClient, collection: &'static str) -> Result<Vec<T>, SourceError> {
    let mut list: Vec<T> = client.list(collection).await?;
    if list.iter().any(|entity| entity.id().is_none()) {
        return Err(client.fault(SourceFault::Malformed(format!("{collection}: one has no id"))));
    }
    list.sort_by(|a, b| a.id().cmp(&b.id()));
    Ok(list)
}

trait Listed: DeserializeOwned {
    fn id(&self) -> Option<&str>;
}

macro_rules! listed {
    ($($entity:ty),*) => {
        $(impl Listed for $entity {
            fn id(&self) -> Option<&str> {
                self.id.as_deref()
            }
        })*
    };
}

listed!(RawCaCertificate, RawPlugin, RawRoute, RawService, ListedCertificate);

/// What is written beside the lists.
#[derive(Serialize)]
struct Written<'a> {
    _comment: &'static str,
    _admin_url: &'a str,
    #[serde(flatten)]
    lists: &'a File,
}

/// A configuration with where it comes from, in JSON.
fn text(lists: &File, admin_url: &str) -> Zeroizing<Vec<u8>> {
    let comment = "Kong's configuration as it was read last. It holds private keys.";
    let written = Written { _comment: comment, _admin_url: admin_url, lists };
    let mut text = Zeroizing::new(Vec::new());
    serde_json::to_writer(&mut *text, &written).expect("lists of texts are JSON");
    text
}

/// A certificate as the Admin API lists it: with the bare names of its `snis`, which are a list of their own too.
#[derive(Deserialize)]
struct ListedCertificate {
    id: Option<String>,
    cert: String,
    key: Zeroizing<String>,
    cert_alt: Option<String>,
    key_alt: Option<Zeroizing<String>>,
}

impl From<ListedCertificate> for RawCertificate {
    fn from(listed: ListedCertificate) -> Self {
        let ListedCertificate { id, cert, key, cert_alt, key_alt } = listed;
        Self { id, cert, key, cert_alt, key_alt, snis: None }
    }
}
