//! This knows how Kong's worker speaks MsgPack:1: one message out, one answer in, on a pooled connection taken for every
//! single call, and a call for every step of an event.

use std::{
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    time::timeout,
};

use crate::{
    DoubleConfig, Level,
    config::LoadedPlugin,
    instances::Instances,
    pack::{MapOrder, Unpack, pack, unpack},
    pdk,
    phase::{Phase, Stop},
    pool::Pool,
    request::Request,
    value::{Value, argument_count},
};

/// What a Lua function gave back: `return result, err`.
#[derive(Debug)]
struct Returned {
    result: Value,
    err: Value,
}

/// A Lua error: in Kong it ends the plugin's coroutine and the client gets a 500.
#[derive(Debug, PartialEq, Eq)]
struct Thrown(String);

impl From<Thrown> for Stop {
    fn from(thrown: Thrown) -> Self {
        Self::throw("mp_rpc.lua:208", &thrown.0)
    }
}

/// One worker's side of the protocol.
pub(crate) struct Client {
    last_id: AtomicU64,
    pool: Pool,
    read_timeout: Duration,
    order: MapOrder,
    /// The pid that the server's `serverPid` notifications named last.
    server_pid: Mutex<Option<Value>>,
    /// Reset where that pid changes.
    instances: Arc<Instances>,
}

impl Client {
    pub(crate) fn new(settings: &DoubleConfig, order: MapOrder, instances: Arc<Instances>) -> Self {
        Self {
            last_id: AtomicU64::new(0),
            pool: Pool::of(settings),
            read_timeout: settings.read_timeout,
            order,
            server_pid: Mutex::default(),
            instances,
        }
    }

    pub(crate) fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Starts an instance and gives its id, or Lua's `err`.
    pub(crate) async fn start_instance(
        &self,
        plugin: &LoadedPlugin,
        request: &Request,
    ) -> Result<Result<Value, Value>, Stop> {
        let config = Value::record([
            ("Name", Value::str(request.plugin_name())),
            ("Config", Value::str(&plugin.config_json)),
        ]);
        let started = self.call("plugin.StartInstance", config, request).await?;
        if started.result == Value::Nil {
            return Ok(Err(started.err));
        }
        Ok(Ok(started.result.index("Id", "local 'status'").map_err(Thrown)?.clone()))
    }

    /// Closes an instance. Whatever comes back is fine with Kong: another request may have closed it first.
    pub(crate) async fn close_instance(&self, id: Value, request: &Request) -> Result<(), Stop> {
        self.call("plugin.CloseInstance", id, request).await?;
        Ok(())
    }

    /// One event: HandleEvent, then a step for every PDK call the server asks for. Gives back Lua's `err`.
    pub(crate) async fn run_event(
        &self,
        instance_id: Value,
        phase: Phase,
        request: &mut Request,
    ) -> Result<Value, Stop> {
        let event = Value::record([("InstanceId", instance_id), ("EventName", Value::str(phase.name()))]);
        let mut answer = self.call("plugin.HandleEvent", event, request).await?;
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
            let result = call_pdk(&method, &args, phase, request).await?;
            let step = Value::record([("EventId", event_id.clone()), ("Data", result)]);
            answer = self.call(step_method(&method), step, request).await?;
            if !answer.result.truthy() {
                return Ok(answer.err);
            }
        }
    }

    /// Calls one method.
    async fn call(&self, method: &str, arg: Value, request: &Request) -> Result<Returned, Thrown> {
        let id = self.last_id.fetch_add(1, Ordering::Relaxed) + 1;
        request.count_call(method);
        let mut stream = match self.pool.connect().await {
            Ok(stream) => stream,
            Err(e) => {
                let reason = errno_text(&e);
                let text = format!("trying to connect: {reason}");
                request.log(Level::Error, "mp_rpc.lua:177", text.as_bytes());
                return Ok(Returned { result: Value::Nil, err: Value::str(reason) });
            }
        };

        let message = Value::List(vec![
            Value::number(0),
            Value::number(id as f64),
            Value::str(method),
            Value::List(vec![arg]),
        ]);
        let message = pack(&message, self.order);
        let sent = timeout(self.read_timeout, stream.write_all(&message)).await;
        let sent = sent.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        if let Err(e) = sent {
            // A connection that timed out goes back with half a message in it, as in Kong.
            self.pool.keep(stream);
            return Ok(Returned { result: Value::Nil, err: Value::str(errno_text(&e)) });
        }

        let mut reader =
            Reader { stream: &mut stream, received: Vec::new(), read_timeout: self.read_timeout };
        loop {
            let Some(message) = reader.message().await? else {
                self.pool.keep(stream);
                return Ok(Returned { result: Value::Nil, err: Value::str("no data") });
            };
            let part = |n: usize| match &message {
                Value::List(parts) => Ok(parts.get(n - 1).cloned().unwrap_or(Value::Nil)),
                Value::Map(_) | Value::Str(_) => Ok(Value::Nil),
                other => {
                    Err(Thrown(format!("attempt to index local 'data' (a {} value)", other.type_name())))
                }
            };
            if part(1)? == Value::number(2) {
                if part(2)?.as_bytes() == Some(b"serverPid") && self.pid_changed(&part(3)?) {
                    self.instances.reset();
                }
                continue;
            }
            if part(1)? != Value::number(1) {
                return Err(Thrown("RPC response expected from Go plugin server".into()));
            }
            if part(2)? != Value::Number(id as f64) {
                return Err(Thrown("unexpected RPC response ID from Go plugin server".into()));
            }
            self.pool.keep(stream);
            return Ok(match part(3)? {
                Value::Nil => Returned { result: part(4)?, err: Value::Nil },
                err => Returned { result: Value::Nil, err },
            });
        }
    }

    fn pid_changed(&self, pid: &Value) -> bool {
        // Lua's tonumber() of anything else, a list included, is nil.
        let pid = matches!(pid, Value::Number(_)).then(|| pid.clone());
        let mut known = self.server_pid.lock().expect("no panic while held");
        let changed = known.is_some() && *known != pid;
        *known = pid;
        changed
    }
}

/// Reads messages off one connection for one call. What was received behind the answer is forgotten with
/// it, as in Kong, where every call has a decoder of its own.
struct Reader<'a> {
    stream: &'a mut UnixStream,
    received: Vec<u8>,
    read_timeout: Duration,
}

impl Reader<'_> {
    /// The next message; `None` where the connection ended or fell silent before its first byte.
    async fn message(&mut self) -> Result<Option<Value>, Thrown> {
        loop {
            if !self.received.is_empty() {
                match unpack(&self.received) {
                    Ok((message, len)) => {
                        self.received.drain(..len);
                        return Ok(Some(message));
                    }
                    Err(Unpack::Missing) => {}
                    Err(Unpack::Invalid(reason)) => return Err(Thrown(reason)),
                }
            }
            let mut chunk = [0; 4096];
            match timeout(self.read_timeout, self.stream.read(&mut chunk)).await {
                Ok(Ok(n)) if n > 0 => self.received.extend(&chunk[..n]),
                _ if self.received.is_empty() => return Ok(None),
                _ => return Err(Thrown("missing bytes".into())),
            }
        }
    }
}

/// Runs one PDK call and prepares its result for the step.
async fn call_pdk(method: &str, args: &[Value], phase: Phase, request: &mut Request) -> Result<Value, Stop> {
    let result = pdk::run(method, args, phase, request).await.map_err(|stop| stop.at("mp_rpc.lua:127"))?;
    let Some(result) = result else {
        let text = format!("could not find pdk method: {method}");
        request.log(Level::Error, "mp_rpc.lua:116", text.as_bytes());
        return Ok(Value::Nil);
    };
    if method.ends_with(".get_raw_body") {
        return match result {
            Value::Str(body) => Ok(Value::Bin(body)),
            _ => Err(Stop::throw(
                "MessagePack.lua:126",
                "bad argument #1 to 'binary' (string expected, got nil)",
            )),
        };
    }
    if step_method(method) == "plugin.StepMultiMap" { Ok(multi_map(result)) } else { Ok(result) }
}

/// The method of the step that carries a PDK call's result.
fn step_method(pdk_method: &str) -> &'static str {
    match pdk_method {
        "kong.client.get_credential" | "kong.client.authenticate" => "plugin.StepCredential",
        "kong.client.load_consumer" | "kong.client.get_consumer" => "plugin.StepConsumer",
        "kong.node.get_memory_stats" => "plugin.StepMemoryStats",
        "kong.router.get_route" => "plugin.StepRoute",
        "kong.router.get_service" => "plugin.StepService",
        "kong.request.get_query"
        | "kong.request.get_headers"
        | "kong.response.get_headers"
        | "kong.service.response.get_headers" => "plugin.StepMultiMap",
        _ => "plugin.Step",
    }
}

/// Every value of a multi-map is a list; that of a name without value is empty.
fn multi_map(table: Value) -> Value {
    let entries = match table {
        Value::Map(entries) => entries,
        _ => Vec::new(),
    };
    let list = |value| match value {
        Value::Bool(true) => Value::List(Vec::new()),
        Value::Str(_) => Value::List(vec![value]),
        other => other,
    };
    // Not `Value::table`: an empty one is packed as a map here.
    Value::Map(entries.into_iter().map(|(k, v)| (k, list(v))).collect())
}

/// An I/O error in the words of nginx's cosockets.
pub(crate) fn errno_text(e: &io::Error) -> String {
    match e.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".into(),
        io::ErrorKind::NotFound => "no such file or directory".into(),
        io::ErrorKind::PermissionDenied => "permission denied".into(),
        io::ErrorKind::WouldBlock => "resource temporarily unavailable".into(),
        io::ErrorKind::TimedOut => "timeout".into(),
        io::ErrorKind::BrokenPipe => "broken pipe".into(),
        io::ErrorKind::ConnectionReset => "connection reset by peer".into(),
        _ => e.to_string().to_lowercase(),
    }
}
