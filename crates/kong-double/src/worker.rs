//! This knows one Kong worker's part in an event: its instances, and what becomes of a request when something is wrong
//! with the plugin server.

use std::sync::Arc;

use crate::{
    Level,
    config::{Loaded, LoadedPlugin},
    instances::{Claim, Instances},
    mp_rpc,
    pack::MapOrder,
    pb_rpc, pdk_response,
    phase::{Phase, Stop},
    pool::Pool,
    protocol::Protocol,
    readiness::{Readiness, Ready},
    request::Request,
    value::Value,
    version::KongVersion,
};

/// One worker.
pub(crate) struct Worker {
    version: KongVersion,
    readiness: Readiness,
    rpc: Rpc,
    instances: Arc<Instances>,
    /// All workers' instances: `no plugin instance` resets them everywhere.
    everyone: Vec<Arc<Instances>>,
}

/// How it speaks with the plugin server.
enum Rpc {
    MsgPack(mp_rpc::Client),
    ProtoBuf(pb_rpc::Client),
}

/// What there is to run an event with.
enum Instance {
    Id(Value),
    /// Kong 3.4 has not reached the plugin server yet.
    NotReady,
    /// What Kong's Lua returns as `nil, err`.
    None(Value),
}

impl Worker {
    /// The workers of a double.
    pub(crate) fn all(loaded: &Loaded) -> Vec<Arc<Self>> {
        let settings = &loaded.settings;
        let everyone: Vec<_> = (0..settings.workers).map(|_| Arc::new(Instances::new(settings))).collect();
        let orders = [MapOrder::Given, MapOrder::Reversed];
        let worker = |(n, instances): (usize, &Arc<Instances>)| {
            let order = orders[n % 2];
            let rpc = match loaded.protocol {
                Protocol::MsgPack => {
                    Rpc::MsgPack(mp_rpc::Client::new(settings, order, Arc::clone(instances)))
                }
                Protocol::ProtoBuf => Rpc::ProtoBuf(pb_rpc::Client::new(settings, order)),
            };
            Arc::new(Self {
                version: settings.version,
                readiness: Readiness::new(settings),
                rpc,
                instances: Arc::clone(instances),
                everyone: everyone.clone(),
            })
        };
        everyone.iter().enumerate().map(worker).collect()
    }

    pub(crate) fn protocol(&self) -> Protocol {
        match self.rpc {
            Rpc::MsgPack(_) => Protocol::MsgPack,
            Rpc::ProtoBuf(_) => Protocol::ProtoBuf,
        }
    }

    pub(crate) fn readiness(&self) -> &Readiness {
        &self.readiness
    }

    /// Closes idle pooled connections in time; never ends.
    pub(crate) async fn sweep(&self) {
        loop {
            tokio::time::sleep(self.pool().sweep_interval()).await;
            self.pool().sweep();
        }
    }

    fn pool(&self) -> &Pool {
        match &self.rpc {
            Rpc::MsgPack(client) => client.pool(),
            Rpc::ProtoBuf(client) => client.pool(),
        }
    }

    /// Runs one phase of a plugin for a request: returns normally where Kong would go on with the request, be it after
    /// the plugin has let it or after trouble that Kong only logs.
    pub(crate) async fn handle_event(
        &self,
        plugin: &LoadedPlugin,
        phase: Phase,
        request: &mut Request,
    ) -> Result<(), Stop> {
        loop {
            let err = match (self.instance(plugin, request).await?, &self.rpc) {
                (Instance::Id(id), Rpc::MsgPack(client)) => client.run_event(id, phase, request).await?,
                (Instance::Id(id), Rpc::ProtoBuf(client)) => client.run_event(id, phase, request).await?,
                (Instance::None(err), _) => err,
                (Instance::NotReady, _) => {
                    self.pass_unready(request);
                    return Ok(());
                }
            };
            let text = match &err {
                Value::Nil | Value::Bool(false) => return Ok(()),
                Value::Str(text) => text,
                Value::List(_) | Value::Map(_) => {
                    let what = "attempt to call method 'lower' (a nil value)";
                    return Err(Stop::throw("mp_rpc.lua:310", what));
                }
                other => {
                    let what = format!("attempt to index local 'err' (a {} value)", other.type_name());
                    return Err(Stop::throw("mp_rpc.lua:310", &what));
                }
            };
            if !self.starts_again_after(text) {
                return self.give_up(text, phase, request);
            }
            if self.version.resets_whole_plugin() {
                self.everyone.iter().for_each(|instances| instances.reset());
            } else {
                self.instances.forget(&plugin.id);
            }
            let place =
                if self.protocol() == Protocol::MsgPack { "mp_rpc.lua:314" } else { "pb_rpc.lua:378" };
            request.log(Level::Warn, place, text);
        }
    }

    /// Whether Kong takes an error to mean that the server does not know the instance.
    fn starts_again_after(&self, err: &[u8]) -> bool {
        let err = String::from_utf8_lossy(err).to_lowercase();
        err.contains("no plugin instance")
            || (self.protocol() == Protocol::ProtoBuf && err.contains("closed"))
    }

    /// What becomes of a request whose event failed for good.
    fn give_up(&self, err: &[u8], phase: Phase, request: &mut Request) -> Result<(), Stop> {
        match self.protocol() {
            Protocol::MsgPack => request.log(Level::Error, "mp_rpc.lua:318", err),
            Protocol::ProtoBuf if self.version.fails_closed_in_protobuf() => {
                request.log(Level::Error, "pb_rpc.lua:382", &[b"pluginserver error: ", err].concat());
                let status = [Value::number(500)];
                let answered = pdk_response::run("kong.response.error", &status, phase, request);
                answered.map_err(|stop| stop.at("pb_rpc.lua:383"))?;
            }
            Protocol::ProtoBuf => request.log(Level::Error, "pb_rpc.lua:382", err),
        }
        Ok(())
    }

    fn pass_unready(&self, request: &Request) {
        if self.readiness.warn_once() {
            let name = request.plugin_name();
            let text = format!("plugin server is not ready, {name} will not be executed in this request");
            request.log_raw(Level::Warn, text.as_bytes());
        }
    }

    /// The plugin's instance, started where there is none for this very config.
    async fn instance(&self, plugin: &LoadedPlugin, request: &mut Request) -> Result<Instance, Stop> {
        let claim = match self.instances.claim(&plugin.id, plugin.seq).await {
            Claim::Running(id) => return Ok(Instance::Id(id)),
            Claim::TimedOut => {
                let text =
                    format!("Could not claim instance_id for {} (key: {})", request.plugin_name(), plugin.id);
                return Ok(Instance::None(Value::str(text)));
            }
            Claim::Start(claim) => claim,
        };
        match self.readiness.get() {
            Ready::Yes => {}
            Ready::NotYet => {
                claim.failed();
                return Ok(Instance::NotReady);
            }
            // Kong does not release the claim here: whoever comes next waits for it.
            Ready::GivenUp(reason) => return Ok(Instance::None(Value::str(reason))),
        }
        let started = match &self.rpc {
            Rpc::MsgPack(client) => client.start_instance(plugin, request).await?,
            Rpc::ProtoBuf(client) => client.start_instance(plugin, request).await?,
        };
        let id = match started {
            Ok(id) => id,
            Err(err) => {
                let err = err.to_lua_string();
                request.log(Level::Error, "plugin.lua:283", &[b"starting instance: ", &err[..]].concat());
                claim.failed();
                return Err(Stop::throw("plugin.lua:286", &String::from_utf8_lossy(&err)));
            }
        };
        if let Some(old) = claim.started(id.clone()) {
            match &self.rpc {
                Rpc::MsgPack(client) => client.close_instance(old, request).await?,
                Rpc::ProtoBuf(client) => client.close_instance(old, request).await?,
            }
        }
        Ok(Instance::Id(id))
    }
}
