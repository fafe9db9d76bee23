//! This knows how Kong's worker speaks ProtoBuf:1: frames of a length and a message, and an event that has one connection
//! to itself until the server returns from it.

use std::{
    io,
    sync::atomic::{AtomicU64, Ordering},
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
    mp_rpc::errno_text,
    pack::MapOrder,
    pb::{decode, encode},
    pdk,
    phase::{Phase, Stop},
    plugin_socket::{Method, RPC_CALL, RPC_RETURN},
    pool::Pool,
    request::Request,
    value::Value,
};

/// One worker's side of the protocol.
pub(crate) struct Client {
    last_id: AtomicU64,
    pool: Pool,
    read_timeout: Duration,
    order: MapOrder,
}

impl Client {
    pub(crate) fn new(settings: &DoubleConfig, order: MapOrder) -> Self {
        Self {
            last_id: AtomicU64::new(0),
            pool: Pool::of(settings),
            read_timeout: settings.read_timeout,
            order,
        }
    }

    pub(crate) fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Starts an instance and gives its id, or Lua's `err`.
    pub(crate) async fn start_instance(
        &self,
        plugin: &LoadedPlugin,
        request: &mut Request,
    ) -> Result<Result<Value, Value>, Stop> {
        let data = Value::record([
            ("name", Value::str(request.plugin_name())),
            ("config", Value::str(&plugin.config_json)),
        ]);
        let status = match self.call("cmd_start_instance", data, None, request).await? {
            Ok(status) => status,
            Err(err) => return Ok(Err(Value::str(err))),
        };
        let status = status.get("instance_status");
        let id = status.index("instance_id", "field 'instance_status'");
        Ok(Ok(id.map_err(|text| Stop::throw("pb_rpc.lua:342", &text))?.clone()))
    }

    /// Closes an instance. Whatever comes back is fine with Kong: another request may have closed it first.
    pub(crate) async fn close_instance(&self, id: Value, request: &mut Request) -> Result<(), Stop> {
        let data = Value::record([("instance_id", id)]);
        self.call("cmd_close_instance", data, None, request).await?.ok();
        Ok(())
    }

    /// One event, with the PDK calls that the server asks for. Gives back Lua's `err`.
    pub(crate) async fn run_event(
        &self,
        instance_id: Value,
        phase: Phase,
        request: &mut Request,
    ) -> Result<Value, Stop> {
        let data = Value::record([("event_name", Value::str(phase.name())), ("instance_id", instance_id)]);
        let returned = self.call("cmd_handle_event", data, Some(phase), request).await?;
        Ok(returned.map_or_else(Value::str, |_| Value::Nil))
    }

    /// Calls a command and gives what the server returns, or Lua's `err`. In an event, runs PDK calls before that.
    /// Unless the server returns, the connection is left.
    async fn call(
        &self,
        command: &'static str,
        data: Value,
        event: Option<Phase>,
        request: &mut Request,
    ) -> Result<Result<Value, String>, Stop> {
        // Kong counts twice, so that the first is 2.
        let sequence = self.last_id.fetch_add(1, Ordering::Relaxed) + 2;
        request.count_call(command);
        let stream = match self.pool.connect().await {
            Ok(stream) => stream,
            Err(e) => {
                let reason = errno_text(&e);
                let text = format!("trying to connect: {reason}");
                request.log(Level::Error, "pb_rpc.lua:273", text.as_bytes());
                return Ok(Err(reason));
            }
        };
        let mut line = Line { stream, patience: self.read_timeout };
        let message = Value::record([("sequence", Value::number(sequence as f64)), (command, data)]);
        let message = encode(&RPC_CALL, &message, self.order);
        let message = message.map_err(|text| Stop::throw("pb_rpc.lua:279", &text))?;
        line.write(&message).await.map_err(|text| Stop::throw("pb_rpc.lua:284", &text))?;

        if let Some(phase) = event
            && let Err(err) = self.answer_calls(&mut line, phase, request).await?
        {
            return Ok(Err(err));
        }
        let returned = match line.read().await {
            Ok(returned) => returned,
            Err(err) => return Ok(Err(err)),
        };
        self.pool.keep(line.stream);
        let returned = decode(&RPC_RETURN, &returned).map_err(|text| Stop::throw("pb_rpc.lua:323", &text))?;
        if *returned.get("sequence") != Value::number(sequence as f64) {
            return Err(Stop::throw("pb_rpc.lua:325", "assertion failed!"));
        }
        Ok(Ok(returned))
    }

    /// Answers the server's PDK calls until its empty frame.
    async fn answer_calls(
        &self,
        line: &mut Line,
        phase: Phase,
        request: &mut Request,
    ) -> Result<Result<(), String>, Stop> {
        loop {
            let name = match line.read().await {
                Ok(name) if name.is_empty() => return Ok(Ok(())),
                Ok(name) => String::from_utf8_lossy(&name).into_owned(),
                Err(err) => return Ok(Err(err)),
            };
            let message = match line.read().await {
                Ok(message) => message,
                Err(err) => return Ok(Err(err)),
            };
            let Some(method) = Method::find(&name) else {
                return Ok(Err(format!("method \"{name}\" not found")));
            };
            let arguments =
                method.arguments(&message).map_err(|text| Stop::throw("pb_rpc.lua:229", &text))?;
            let given = pdk::run(&name, &arguments, phase, request).await;
            let given = given.map_err(|stop| stop.at("pb_rpc.lua:233"))?.unwrap_or(Value::Nil);
            let answer = method.result(given, self.order);
            let answer = answer.map_err(|text| Stop::throw("pb_rpc.lua:239", &text))?;
            request.count_call(&name);
            line.write(&answer).await.map_err(|text| Stop::throw("pb_rpc.lua:264", &text))?;
        }
    }
}

/// A connection in use.
struct Line {
    stream: UnixStream,
    /// For how long each read or write may take.
    patience: Duration,
}

impl Line {
    /// Length and content one after the other, as Kong sends them, so that a server may see one without the other.
    async fn write(&mut self, content: &[u8]) -> Result<(), String> {
        let length = (content.len() as u32).to_le_bytes();
        for piece in [&length[..], content] {
            in_time(self.patience, self.stream.write_all(piece)).await?;
        }
        Ok(())
    }

    async fn read(&mut self) -> Result<Vec<u8>, String> {
        let mut length = [0; 4];
        in_time(self.patience, self.stream.read_exact(&mut length)).await?;
        let length = u64::from(u32::from_le_bytes(length));
        let mut content = Vec::new();
        let mut limited = (&mut self.stream).take(length);
        in_time(self.patience, limited.read_to_end(&mut content)).await?;
        if content.len() as u64 == length { Ok(content) } else { Err("closed".into()) }
    }
}

async fn in_time<T>(patience: Duration, done: impl Future<Output = io::Result<T>>) -> Result<T, String> {
    match timeout(patience, done).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(e)) if e.kind() == io::ErrorKind::UnexpectedEof => Err("closed".into()),
        Ok(Err(e)) => Err(errno_text(&e)),
        Err(_) => Err("timeout".into()),
    }
}
