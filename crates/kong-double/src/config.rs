//! This knows what the double is told to be: its settings, routes, consumers and plugins.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use serde_json::Value as Json;
use uuid::Uuid;

use crate::{
    Level, error::Error, ip::IpNet, protocol::Protocol, schema::Schema, value::Value, version::KongVersion,
};

/// What a [`Double`](crate::Double) does.
#[derive(Clone, Debug)]
pub struct DoubleConfig {
    /// The Kong that is played.
    pub version: KongVersion,
    /// Whether Kong itself started the plugin server (`pluginserver_…_start_cmd` is set). The double starts none; of
    /// the versions only 3.4 makes a difference.
    pub managed_server: bool,
    /// Kong workers. Each has its own message ids, pooled connections and instances; client connections go
    /// to them in turn.
    pub workers: usize,
    /// The plugin server's socket.
    pub plugin_socket: PathBuf,
    /// What the plugin server prints on `-dump`: the protocol, name, phases and the config schema.
    pub plugin_info: Json,
    /// Routes, in any order; the most specific one that matches is taken.
    pub routes: Vec<Route>,
    /// Plugins that apply to routes that have none of that name themselves.
    pub global_plugins: Vec<PluginConfig>,
    /// What `kong.client.load_consumer` finds.
    pub consumers: Vec<Consumer>,
    /// Kong's `trusted_ips`: addresses or CIDR blocks whose forwarding headers are believed.
    pub trusted_ips: Vec<String>,
    /// Kong's `log_level`; less severe lines are not written.
    pub log_level: Level,
    /// How long an answer of the plugin server is awaited (Kong: 60 s).
    pub read_timeout: Duration,
    /// After how long an idle pooled connection is closed (Kong: 60 s).
    pub idle_timeout: Duration,
    /// How long a request waits for another one that is starting the same instance (Kong: 10 s).
    pub claim_timeout: Duration,
    /// How long Kong 3.4 looks for the plugin server's socket after its start (Kong: 20 s).
    pub ready_timeout: Duration,
    /// Pooled connections per worker (`lua_socket_pool_size`, in Kong's configuration 256).
    pub pool_size: usize,
    /// Where not 0: every call takes the longest idle of at least so many pooled connections instead of the
    /// shortest idle one, so that the steps of an event arrive on different connections even without load.
    pub scatter: usize,
}

impl DoubleConfig {
    /// Kong 3.9 with its defaults: one worker, no routes, log level `notice`.
    pub fn new(plugin_socket: impl Into<PathBuf>, plugin_info: Json) -> Self {
        Self {
            version: KongVersion::default(),
            managed_server: true,
            workers: 1,
            plugin_socket: plugin_socket.into(),
            plugin_info,
            routes: Vec::new(),
            global_plugins: Vec::new(),
            consumers: Vec::new(),
            trusted_ips: Vec::new(),
            log_level: Level::Notice,
            read_timeout: Duration::from_secs(60),
            idle_timeout: Duration::from_secs(60),
            claim_timeout: Duration::from_secs(10),
            ready_timeout: Duration::from_secs(20),
            pool_size: 256,
            scatter: 0,
        }
    }
}

/// A route together with its service.
#[derive(Clone, Debug)]
pub struct Route {
    /// Unique name.
    pub name: String,
    /// Hosts, `*.example.com` and `example.*` included; none = any.
    pub hosts: Vec<String>,
    /// Path prefixes; none = any. Regular expressions are not supported.
    pub paths: Vec<String>,
    /// Where the service is.
    pub upstream: SocketAddr,
    /// Whether the matched prefix is cut off (Kong's default: true).
    pub strip_path: bool,
    /// Whether the upstream sees the client's `Host` (Kong's default: false).
    pub preserve_host: bool,
    /// The plugins of this route.
    pub plugins: Vec<PluginConfig>,
    /// What an auth plugin that ran earlier has found, to test `anonymous` as logical OR.
    pub already_authenticated: Option<EarlierAuth>,
}

impl Route {
    /// A route that takes every request.
    pub fn new(name: impl Into<String>, upstream: SocketAddr) -> Self {
        Self {
            name: name.into(),
            hosts: Vec::new(),
            paths: Vec::new(),
            upstream,
            strip_path: true,
            preserve_host: false,
            plugins: Vec::new(),
            already_authenticated: None,
        }
    }

    /// The same with these hosts.
    #[must_use]
    pub fn hosts(mut self, hosts: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.hosts = hosts.into_iter().map(Into::into).collect();
        self
    }

    /// The same with these path prefixes.
    #[must_use]
    pub fn paths(mut self, paths: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.paths = paths.into_iter().map(Into::into).collect();
        self
    }

    /// The same with one more plugin.
    #[must_use]
    pub fn plugin(mut self, plugin: PluginConfig) -> Self {
        self.plugins.push(plugin);
        self
    }
}

/// One use of the plugin, on a route or globally.
#[derive(Clone, Debug)]
pub struct PluginConfig {
    /// The plugin's name.
    pub name: String,
    /// Its config as a user writes it: without what the schema's defaults fill in.
    pub config: Json,
    /// The id of the plugin entity; where not given, one made of name and route.
    pub id: Option<String>,
}

impl PluginConfig {
    /// A plugin with this config.
    pub fn new(name: impl Into<String>, config: Json) -> Self {
        Self { name: name.into(), config, id: None }
    }
}

/// A consumer in Kong's database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Consumer {
    /// UUID.
    pub id: String,
    /// Unique where set.
    pub username: Option<String>,
    /// Unique where set.
    pub custom_id: Option<String>,
}

impl Consumer {
    /// A consumer of this name with an id made from it.
    pub fn named(username: &str) -> Self {
        Self { id: uuid_of(&["consumer", username]), username: Some(username.into()), custom_id: None }
    }

    pub(crate) fn to_lua(&self) -> Value {
        let optional = |text: &Option<String>| text.as_ref().map_or(Value::Nil, Value::str);
        Value::record([
            ("id", Value::str(&self.id)),
            ("username", optional(&self.username)),
            ("custom_id", optional(&self.custom_id)),
            ("created_at", Value::number(CREATED_AT)),
            ("updated_at", Value::number(CREATED_AT)),
            ("ws_id", Value::str(workspace_id())),
        ])
    }
}

/// What an earlier auth plugin passed to `kong.client.authenticate`.
#[derive(Clone, Debug, Default)]
pub struct EarlierAuth {
    /// The consumer it found.
    pub consumer: Option<Consumer>,
    /// The credential it found, as JSON.
    pub credential: Option<Json>,
}

/// Entities of the double were all created then (2024-01-01).
pub(crate) const CREATED_AT: u32 = 1_704_067_200;

/// The id of the double's only workspace.
pub(crate) fn workspace_id() -> String {
    uuid_of(&["workspace"])
}

/// A stable id for an entity, as Kong makes them for declarative configurations.
pub(crate) fn uuid_of(names: &[&str]) -> String {
    Uuid::new_v5(&Uuid::NAMESPACE_OID, names.join(":").as_bytes()).to_string()
}

/// A configuration as Kong has loaded it: validated, with defaults and sequence numbers.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) settings: DoubleConfig,
    pub(crate) protocol: Protocol,
    pub(crate) plugin_name: String,
    pub(crate) phases: Vec<String>,
    pub(crate) trusted: Vec<IpNet>,
    /// The plugins of each route of `settings.routes`.
    pub(crate) plugins: Vec<Vec<Arc<LoadedPlugin>>>,
}

/// One plugin entity with its config.
#[derive(Debug)]
pub(crate) struct LoadedPlugin {
    pub(crate) id: String,
    /// Differs after every reload, whether the config changed or not.
    pub(crate) seq: u64,
    /// The `Config` text of StartInstance.
    pub(crate) config_json: String,
}

impl Loaded {
    /// Validates a configuration as Kong does when it loads one.
    pub(crate) fn load(settings: DoubleConfig, seq: &mut u64) -> Result<Self, Error> {
        let entry = &settings.plugin_info["Plugins"][0];
        let plugin_name =
            entry["Name"].as_str().ok_or(Error::PluginInfo("Plugins[1].Name is missing"))?.to_owned();
        let protocol = Protocol::of_plugin_info(&settings.plugin_info)
            .ok_or(Error::PluginInfo("Protocol is neither MsgPack:1 nor ProtoBuf:1"))?;
        let phases: Vec<String> = serde_json::from_value(entry["Phases"].clone())
            .map_err(|_| Error::PluginInfo("Plugins[1].Phases is not a list of strings"))?;
        if let Some(phase) =
            phases.iter().find(|p| !["certificate", "access", "response", "log"].contains(&p.as_str()))
        {
            return Err(Error::Phase(phase.clone()));
        }
        let schema = Schema::of_plugin(entry);
        let trusted = settings
            .trusted_ips
            .iter()
            .map(|text| IpNet::parse(text).ok_or_else(|| Error::TrustedIp(text.clone())))
            .collect::<Result<_, _>>()?;
        if settings.workers == 0 {
            return Err(Error::NoWorkers);
        }

        let mut load_plugin = |plugin: &PluginConfig, route: Option<&str>| {
            if plugin.name != plugin_name {
                return Err(Error::UnknownPlugin(plugin.name.clone()));
            }
            *seq += 1;
            load_plugin(plugin, route, *seq, schema.as_ref()).map(Arc::new)
        };
        let global = settings
            .global_plugins
            .iter()
            .map(|plugin| load_plugin(plugin, None))
            .collect::<Result<Vec<_>, _>>()?;
        let mut plugins = Vec::new();
        for route in &settings.routes {
            if let Some(path) = route.paths.iter().find(|path| !path.starts_with('/')) {
                return Err(Error::RoutePath { route: route.name.clone(), path: path.clone() });
            }
            let own = route.plugins.iter().map(|plugin| load_plugin(plugin, Some(&route.name)));
            let own = own.collect::<Result<Vec<_>, _>>()?;
            plugins.push(if own.is_empty() { global.clone() } else { own });
        }
        Ok(Self { protocol, plugin_name, phases, trusted, plugins, settings })
    }

    /// `kong.ip.is_trusted`.
    pub(crate) fn is_trusted(&self, ip: IpAddr) -> bool {
        self.trusted.iter().any(|net| net.contains(ip))
    }
}

fn load_plugin(
    plugin: &PluginConfig,
    route: Option<&str>,
    seq: u64,
    schema: Option<&Schema>,
) -> Result<LoadedPlugin, Error> {
    let wrong =
        |violation| Error::Config { plugin: plugin.name.clone(), route: route.map(Into::into), violation };
    let mut config = match (schema, &plugin.config) {
        (Some(schema), config) => schema.fill(config).map_err(wrong)?,
        (None, Json::Object(map)) => map.clone(),
        (None, _) => serde_json::Map::new(),
    };
    let route_id = route.map(|route| uuid_of(&["route", route]));
    let id =
        plugin.id.clone().unwrap_or_else(|| uuid_of(&["plugin", &plugin.name, route.unwrap_or_default()]));
    let key =
        format!("plugins:{}:{}::::{}", plugin.name, route_id.as_deref().unwrap_or_default(), workspace_id());
    config.insert("__key__".into(), key.into());
    config.insert("__seq__".into(), seq.into());
    config.insert("__plugin_id".into(), id.clone().into());
    config.insert("__ws_id".into(), workspace_id().into());
    if let Some(route_id) = route_id {
        config.insert("route_id".into(), route_id.into());
    }
    // cjson escapes the slash; it stands nowhere in JSON but in strings.
    let config_json = Json::Object(config).to_string().replace('/', "\\/");
    Ok(LoadedPlugin { id, seq, config_json })
}
