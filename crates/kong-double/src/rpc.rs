//! This knows how Kong's worker calls the plugin server: one message out, one answer in, on a pooled
//! connection taken for every single call.

use std::{
    io,
    path::Path,
    sync::{
        Mutex,
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
    Level,
    pack::{MapOrder, Unpack, pack, unpack},
    pool::Pool,
    value::Value,
};

/// What a Lua function gave back: `return result, err`.
#[derive(Debug)]
pub(crate) struct Returned {
    pub(crate) result: Value,
    pub(crate) err: Value,
}

/// A Lua error: in Kong it ends the plugin's coroutine and the client gets a 500.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Thrown(pub(crate) String);

/// Hears what happens while a call runs.
pub(crate) trait Said: Send + Sync {
    /// A call is made.
    fn called(&self, method: &str);
    /// Kong's Lua logs a line, from that place.
    fn log(&self, level: Level, place: &str, text: &[u8]);
    /// The plugin server is another process than before.
    fn server_changed(&self);
}

/// One worker's side of the protocol.
pub(crate) struct Client {
    last_id: AtomicU64,
    pool: Pool,
    read_timeout: Duration,
    order: MapOrder,
    /// The pid that the server's `serverPid` notifications named last.
    server_pid: Mutex<Option<Value>>,
}

impl Client {
    pub(crate) fn new(socket: &Path, settings: &crate::DoubleConfig, order: MapOrder) -> Self {
        Self {
            last_id: AtomicU64::new(0),
            pool: Pool::new(socket, settings.pool_size, settings.idle_timeout, settings.scatter),
            read_timeout: settings.read_timeout,
            order,
            server_pid: Mutex::default(),
        }
    }

    pub(crate) fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Calls one method. `said` hears what Kong would log, and that the server's pid has changed.
    pub(crate) async fn call(&self, method: &str, arg: Value, said: &dyn Said) -> Result<Returned, Thrown> {
        let id = self.last_id.fetch_add(1, Ordering::Relaxed) + 1;
        said.called(method);
        let mut stream = match self.pool.connect().await {
            Ok(stream) => stream,
            Err(e) => {
                let reason = errno_text(&e);
                said.log(Level::Error, "mp_rpc.lua:177", format!("trying to connect: {reason}").as_bytes());
                return Ok(Returned { result: Value::Nil, err: Value::str(reason) });
            }
        };

        let request = Value::List(vec![
            Value::number(0),
            Value::number(id as f64),
            Value::str(method),
            Value::List(vec![arg]),
        ]);
        let request = pack(&request, self.order);
        let sent = timeout(self.read_timeout, stream.write_all(&request)).await;
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
                    said.server_changed();
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

/// An I/O error in the words of nginx's cosockets.
fn errno_text(e: &io::Error) -> String {
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
