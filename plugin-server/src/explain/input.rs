//! This knows what `mtls-auth explain` is asked: a certificate, a configuration of the plugin, and a source of entities.

use std::path::{Path, PathBuf};

use clap::Args;
use client_cert::Presented;
use kong_entities::{AdminClient, Directory, Entities, Plugin};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde_json::{Map, Value};

use crate::cli::{EntitySettings, OnlineOptions, OptionsError, SourceOptions};
use crate::entity_source::{EntitySource, KongConsumers};
use crate::schema::{self, PLUGIN_NAME};

/// The options of `explain`.
#[derive(Debug, Args)]
pub(crate) struct ExplainOptions {
    /// The client's certificate in PEM, which those of its chain may follow. Without it: a client that presents none
    #[arg(long, value_name = "FILE")]
    cert: Option<PathBuf>,

    /// What the client presents after its certificate, in PEM
    #[arg(long, value_name = "FILE", requires = "cert")]
    chain: Option<PathBuf>,

    /// The configuration of the plugin in YAML or JSON: what stands under `config`
    #[arg(long, value_name = "FILE", required_unless_present = "route", conflicts_with = "route")]
    plugin_config: Option<PathBuf>,

    /// The route, by name or id, whose plugin decides: its own, or else that of its service, or else the global one
    #[arg(long, value_name = "NAME")]
    route: Option<String>,

    #[command(flatten)]
    source: SourceOptions,

    #[command(flatten)]
    online: OnlineOptions,

    /// Prints JSON
    #[arg(long)]
    pub(super) json: bool,
}

/// The question.
pub(super) struct Input {
    pub(super) presented: Option<Presented>,
    /// As Kong sends it with StartInstance.
    pub(super) config: String,
    pub(super) entities: EntitySource,
    /// How it is asked about revocation; none: it is not.
    pub(super) revocation: Option<revocation::Options>,
    /// A key for this one question.
    pub(super) proof_key: [u8; 32],
}

/// Why it cannot be answered.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unusable {
    #[error(transparent)]
    Options(#[from] OptionsError),
    #[error("{}: {problem}", path.display())]
    File { path: PathBuf, problem: String },
    #[error("--route: only with --declarative-config or --admin-url")]
    NoSource,
    #[error("--route: there is no route {0:?}")]
    NoRoute(String),
    #[error("--route: no {PLUGIN_NAME} plugin applies to {0:?}, so that everybody passes there")]
    NoPlugin(String),
    #[error("{0}")]
    Source(String),
}

impl Input {
    /// Reads what the options name.
    ///
    /// # Errors
    /// See [`Unusable`].
    pub(super) async fn read(options: ExplainOptions) -> Result<Self, Unusable> {
        let settings = options.source.settle()?;
        let revocation = options.online.settle();
        let ExplainOptions { cert, chain, plugin_config, route, .. } = options;
        let presented = cert.map(|cert| presented(&cert, chain.as_deref())).transpose()?;
        let from_file = plugin_config.as_deref().map(read_config).transpose()?;
        let source = |error: &dyn std::fmt::Display| Unusable::Source(error.to_string());
        let (all, entities) = match settings {
            EntitySettings::Kong => (None, EntitySource::Kong(KongConsumers::new())),
            EntitySettings::Declarative(path) => {
                let followed = kong_entities::follow_file(&path, kong_entities::POLL_INTERVAL);
                let followed = followed.map_err(|error| source(&error))?;
                let all = followed.entities.borrow().clone();
                (Some(all), EntitySource::Directory(Directory::declarative(followed)))
            }
            EntitySettings::Admin(settings) => {
                let client = AdminClient::new(settings).map_err(|error| source(&error))?;
                let all = match route {
                    Some(_) => {
                        Some(kong_entities::snapshot(&client).await.map_err(|error| source(&error))?.into())
                    }
                    None => None,
                };
                (all, EntitySource::Directory(Directory::admin(client)))
            }
        };
        let config = match (from_file, route) {
            (Some(config), _) => config,
            (None, route) => {
                let all = all.ok_or(Unusable::NoSource)?;
                of_route(&all, &route.unwrap_or_default())?
            }
        };
        let config = Value::Object(schema::with_defaults(config)).to_string();
        let mut proof_key = [0; 32];
        getrandom::fill(&mut proof_key).map_err(|error| source(&error))?;
        Ok(Self { presented, config, entities, revocation, proof_key })
    }
}

/// The configuration that counts for a route: the most specific one, as Kong has it. Which consumer it applies to is not
/// known before there is one.
fn of_route(entities: &Entities, name: &str) -> Result<Map<String, Value>, Unusable> {
    let route = entities.routes.iter().position(|route| route.label == name);
    let route = route.ok_or_else(|| Unusable::NoRoute(name.to_owned()))?;
    let service = entities.routes[route].service;
    // 2 names the route, 1 the service only, 0 neither.
    let rank = |plugin: &Plugin| -> Option<u8> {
        let is_ours = plugin.name == PLUGIN_NAME && plugin.enabled && !plugin.scope.consumer;
        let fits = plugin.scope.route.is_none_or(|of| of == route)
            && plugin.scope.service.is_none_or(|of| Some(of) == service);
        let rank = 2 * u8::from(plugin.scope.route.is_some()) + u8::from(plugin.scope.service.is_some());
        (is_ours && fits).then_some(rank)
    };
    let ranked = entities.plugins.iter().filter_map(|plugin| Some((rank(plugin)?, plugin)));
    let (_, plugin) =
        ranked.max_by_key(|(rank, _)| *rank).ok_or_else(|| Unusable::NoPlugin(name.to_owned()))?;
    Ok(plugin.config.as_object().cloned().unwrap_or_default())
}

/// A configuration from a file: bare, or as the `config` of a plugin.
fn read_config(path: &Path) -> Result<Map<String, Value>, Unusable> {
    let wrong = |problem: String| Unusable::File { path: path.to_owned(), problem };
    let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    let mut fields: Map<String, Value> =
        serde_saphyr::from_str(&text).map_err(|error| wrong(error.to_string()))?;
    match fields.remove("config") {
        Some(Value::Object(config)) => Ok(config),
        Some(_) => Err(wrong("config: it is no record".into())),
        None => Ok(fields),
    }
}

fn presented(cert: &Path, chain: Option<&Path>) -> Result<Presented, Unusable> {
    let mut all = certificates(cert)?;
    if let Some(chain) = chain {
        all.extend(certificates(chain)?);
    }
    let leaf = all.remove(0);
    Ok(Presented { leaf, chain: all })
}

/// At least one.
fn certificates(path: &Path) -> Result<Vec<Vec<u8>>, Unusable> {
    let wrong = |problem: String| Unusable::File { path: path.to_owned(), problem };
    let text = std::fs::read(path).map_err(|error| wrong(error.to_string()))?;
    let all = CertificateDer::pem_slice_iter(&text).map(|read| read.map(|der| der.to_vec()));
    let all = all.collect::<Result<Vec<_>, _>>().map_err(|error| wrong(error.to_string()))?;
    if all.is_empty() { Err(wrong("it holds no certificate in PEM".into())) } else { Ok(all) }
}
