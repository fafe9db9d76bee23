//! This knows one Kong worker's part in an event: its instances, and the loop that runs PDK calls until the
//! plugin server says `ret`.

use std::{path::Path, sync::Arc};

use crate::{
    DoubleConfig, Level,
    config::LoadedPlugin,
    instances::{Claim, Instances},
    pack::MapOrder,
    pdk,
    phase::{Phase, Stop},
    request::Request,
    rpc::{Client, Said, Thrown},
    value::{Value, argument_count},
};

/// One worker.
pub(crate) struct Worker {
    client: Client,
    instances: Arc<Instances>,
    /// All workers' instances: `no plugin instance` resets them everywhere.
    everyone: Vec<Arc<Instances>>,
}

impl Worker {
    /// The workers of a double.
    pub(crate) fn all(settings: &DoubleConfig) -> Vec<Arc<Self>> {
        let everyone: Vec<_> =
            (0..settings.workers).map(|_| Arc::new(Instances::new(settings.claim_timeout))).collect();
        let orders = [MapOrder::Given, MapOrder::Reversed];
        let worker = |(n, instances): (usize, &Arc<Instances>)| {
            Arc::new(Self {
                client: Client::new(Path::new(&settings.plugin_socket), settings, orders[n % 2]),
                instances: Arc::clone(instances),
                everyone: everyone.clone(),
            })
        };
        everyone.iter().enumerate().map(worker).collect()
    }

    /// Closes idle pooled connections in time; never ends.
    pub(crate) async fn sweep(&self) {
        loop {
            tokio::time::sleep(self.client.pool().sweep_interval()).await;
            self.client.pool().sweep();
        }
    }

    /// Runs one phase of a plugin for a request: returns normally where Kong would go on with the request,
    /// be it after a `ret` or after trouble that Kong only logs.
    pub(crate) async fn handle_event(
        &self,
        plugin: &LoadedPlugin,
        phase: Phase,
        request: &mut Request,
    ) -> Result<(), Stop> {
        loop {
            let err = match self.instance_id(plugin, request).await? {
                Ok(id) => self.run_event(id, phase, request).await?,
                Err(err) => err,
            };
            let text = match &err {
                Value::Nil | Value::Bool(false) => return Ok(()),
                Value::Str(text) => text,
                Value::List(_) | Value::Map(_) => {
                    return Err(Stop::throw(
                        "mp_rpc.lua:310",
                        "attempt to call method 'lower' (a nil value)",
                    ));
                }
                other => {
                    let what = format!("attempt to index local 'err' (a {} value)", other.type_name());
                    return Err(Stop::throw("mp_rpc.lua:310", &what));
                }
            };
            if !String::from_utf8_lossy(text).to_lowercase().contains("no plugin instance") {
                request.log(Level::Error, "mp_rpc.lua:318", text);
                return Ok(());
            }
            self.everyone.iter().for_each(|instances| instances.reset());
            request.log(Level::Warn, "mp_rpc.lua:314", text);
        }
    }

    /// The plugin's instance, started where there is none for this very config. `Err` is what Kong's Lua
    /// returns as `nil, err`.
    async fn instance_id(
        &self,
        plugin: &LoadedPlugin,
        request: &Request,
    ) -> Result<Result<Value, Value>, Stop> {
        let said = Caller { worker: self, request };
        let claim = match self.instances.claim(&plugin.id, plugin.seq).await {
            Claim::Running(id) => return Ok(Ok(id)),
            Claim::TimedOut => {
                let text =
                    format!("Could not claim instance_id for {} (key: {})", request.plugin_name(), plugin.id);
                return Ok(Err(Value::str(text)));
            }
            Claim::Start(claim) => claim,
        };
        let config = Value::record([
            ("Name", Value::str(request.plugin_name())),
            ("Config", Value::str(&plugin.config_json)),
        ]);
        let started = self.client.call("plugin.StartInstance", config, &said).await?;
        if started.result == Value::Nil {
            let err = started.err.to_lua_string();
            request.log(Level::Error, "plugin.lua:283", &[b"starting instance: ", &err[..]].concat());
            drop(claim);
            return Err(Stop::throw("plugin.lua:286", &String::from_utf8_lossy(&err)));
        }
        let id = started.result.index("Id", "local 'status'").map_err(Thrown)?.clone();
        let old = claim.started(id.clone());
        if let Some(old) = old {
            // Whatever comes back: another request may have closed it first.
            self.client.call("plugin.CloseInstance", old, &said).await?;
        }
        Ok(Ok(id))
    }

    /// One event: HandleEvent, then a step for every PDK call the server asks for. Gives back Lua's `err`.
    async fn run_event(
        &self,
        instance_id: Value,
        phase: Phase,
        request: &mut Request,
    ) -> Result<Value, Stop> {
        let event = Value::record([("InstanceId", instance_id), ("EventName", Value::str(phase.name()))]);
        let mut answer = {
            let said = Caller { worker: self, request: &*request };
            self.client.call("plugin.HandleEvent", event, &said).await?
        };
        if !answer.result.truthy() {
            return Ok(answer.err);
        }
        let event_id = answer.result.index("EventId", "local 'step_in'").map_err(Thrown)?.clone();
        loop {
            let data = answer.result.index("Data", "local 'step_in'").map_err(Thrown)?.clone();
            if data.as_bytes() == Some(b"ret") {
                return Ok(Value::Nil);
            }
            let method =
                data.index("Method", "field 'Data'").map_err(|e| Stop::throw("mp_rpc.lua:285", &e))?;
            let Some(method) = method.as_bytes() else {
                return Err(Stop::throw(
                    "util.lua:8",
                    "bad argument #1 to 'gmatch' (string expected, got nil)",
                ));
            };
            let method = String::from_utf8_lossy(method).into_owned();
            let args = match data.get("Args") {
                Value::List(args) => args[..argument_count(args)].to_vec(),
                Value::Map(_) => Vec::new(),
                scalar => vec![scalar.clone()],
            };
            let result = pdk::call(&method, &args, phase, request).await?;
            let step = Value::record([("EventId", event_id.clone()), ("Data", result)]);
            let said = Caller { worker: self, request: &*request };
            answer = self.client.call(pdk::step_method(&method), step, &said).await?;
            if !answer.result.truthy() {
                return Ok(answer.err);
            }
        }
    }
}

impl From<Thrown> for Stop {
    fn from(thrown: Thrown) -> Self {
        Self::throw("mp_rpc.lua:208", &thrown.0)
    }
}

/// A request that makes calls through a worker.
struct Caller<'a> {
    worker: &'a Worker,
    request: &'a Request,
}

impl Said for Caller<'_> {
    fn called(&self, method: &str) {
        self.request.count_call(method);
    }

    fn log(&self, level: Level, place: &str, text: &[u8]) {
        self.request.log(level, place, text);
    }

    fn server_changed(&self) {
        self.worker.instances.reset();
    }
}
