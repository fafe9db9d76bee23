//! A plugin server that speaks ProtoBuf:1 by a script, with the wire format written down by hand: not by the double's
//! own codec, which is what is tested.

use std::{
    io::{Read, Write},
    net::Shutdown,
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
};

use super::PATIENCE;

/// Kong's commands, by their field numbers in `RpcCall`.
pub(crate) const START: u64 = 33;
pub(crate) const CLOSE: u64 = 35;
pub(crate) const EVENT: u64 = 36;

/// One field of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Field {
    Number(u64, u64),
    Double(u64, [u8; 8]),
    Bytes(u64, Vec<u8>),
}

pub(crate) fn number(field: u64, value: u64) -> Vec<u8> {
    [varint(field << 3), varint(value)].concat()
}

pub(crate) fn bytes(field: u64, content: impl AsRef<[u8]>) -> Vec<u8> {
    let content = content.as_ref();
    [varint(field << 3 | 2), varint(content.len() as u64), content.to_vec()].concat()
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut written = Vec::new();
    while value >= 0x80 {
        written.push(value as u8 | 0x80);
        value >>= 7;
    }
    written.push(value as u8);
    written
}

/// The fields of a message; panics if it is none.
pub(crate) fn fields(mut message: &[u8]) -> Vec<Field> {
    let take = |message: &mut &[u8]| {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = message.split_first().expect("a number");
            *message = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return value;
            }
        }
        panic!("a number without end")
    };
    let mut fields = Vec::new();
    while !message.is_empty() {
        let key = take(&mut message);
        fields.push(match key & 7 {
            0 => Field::Number(key >> 3, take(&mut message)),
            1 => {
                let (content, rest) = message.split_first_chunk().expect("eight bytes");
                message = rest;
                Field::Double(key >> 3, *content)
            }
            2 => {
                let len = take(&mut message) as usize;
                let (content, rest) = message.split_at_checked(len).expect("so many bytes");
                message = rest;
                Field::Bytes(key >> 3, content.to_vec())
            }
            other => panic!("wire type {other}"),
        });
    }
    fields
}

/// The content of the first such field; empty where there is none.
pub(crate) fn content(message: &[u8], field: u64) -> Vec<u8> {
    let found = fields(message).into_iter().find_map(|found| match found {
        Field::Bytes(number, content) if number == field => Some(content),
        _ => None,
    });
    found.unwrap_or_default()
}

fn number_of(message: &[u8], field: u64) -> u64 {
    let found = fields(message).into_iter().find_map(|found| match found {
        Field::Number(number, value) if number == field => Some(value),
        _ => None,
    });
    found.unwrap_or_default()
}

/// A call of Kong's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Command {
    /// Number of the connection, from 1.
    pub(crate) conn: usize,
    pub(crate) sequence: u64,
    pub(crate) number: u64,
    pub(crate) message: Vec<u8>,
}

impl Command {
    /// The instance that it is about.
    pub(crate) fn instance(&self) -> u64 {
        number_of(&self.message, 1)
    }
}

/// Kong at the other end of a connection. Its methods give `None` when Kong leaves it.
pub(crate) struct Kong {
    conn: usize,
    stream: UnixStream,
    commands: Arc<Mutex<Vec<Command>>>,
}

impl Kong {
    /// The next frame that Kong writes.
    pub(crate) fn frame(&mut self) -> Option<Vec<u8>> {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length).ok()?;
        let mut content = vec![0; u32::from_le_bytes(length) as usize];
        self.stream.read_exact(&mut content).ok()?;
        Some(content)
    }

    /// The next command.
    pub(crate) fn command(&mut self) -> Option<Command> {
        let frame = self.frame()?;
        let sequence = number_of(&frame, 1);
        let (number, message) = fields(&frame)
            .into_iter()
            .find_map(|field| match field {
                Field::Bytes(number, message) => Some((number, message)),
                _ => None,
            })
            .expect("a command");
        let command = Command { conn: self.conn, sequence, number, message };
        self.commands.lock().unwrap().push(command.clone());
        Some(command)
    }

    pub(crate) fn write(&mut self, content: &[u8]) -> Option<()> {
        self.raw(&(content.len() as u32).to_le_bytes())?;
        self.raw(content)
    }

    pub(crate) fn raw(&mut self, bytes: &[u8]) -> Option<()> {
        self.stream.write_all(bytes).ok()
    }

    /// Has Kong run a PDK call.
    pub(crate) fn call(&mut self, method: &str, message: &[u8]) -> Option<Vec<u8>> {
        self.write(method.as_bytes())?;
        self.write(message)?;
        self.frame()
    }

    /// Ends an event.
    pub(crate) fn pass(&mut self, event: &Command) -> Option<()> {
        self.write(b"")?;
        self.write(&number(1, event.sequence))
    }

    /// Answers StartInstance.
    pub(crate) fn started(&mut self, start: &Command, id: u64) -> Option<()> {
        let status = [bytes(1, "p"), number(2, id)].concat();
        self.write(&[number(1, start.sequence), bytes(33, status)].concat())
    }
}

/// The server.
pub(crate) struct Server {
    pub(crate) socket: PathBuf,
    commands: Arc<Mutex<Vec<Command>>>,
    streams: Arc<Mutex<Vec<UnixStream>>>,
    left: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    listening: Option<JoinHandle<()>>,
}

impl Server {
    /// Runs the script on every connection, until it ends, which closes the connection.
    pub(crate) fn start(
        dir: &Path,
        script: impl Fn(&mut Kong) -> Option<()> + Send + Sync + 'static,
    ) -> Self {
        let socket = dir.join("plugin.socket");
        let _ = std::fs::remove_file(&socket);
        let listener = UnixListener::bind(&socket).unwrap();
        let (commands, streams) = (Arc::<Mutex<Vec<_>>>::default(), Arc::<Mutex<Vec<_>>>::default());
        let (left, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (seen, open, ended, stopped) =
            (Arc::clone(&commands), Arc::clone(&streams), Arc::clone(&left), Arc::clone(&stop));
        let script = Arc::new(script);
        let listening = std::thread::spawn(move || {
            for conn in 1.. {
                let (stream, _) = listener.accept().unwrap();
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                open.lock().unwrap().push(stream.try_clone().unwrap());
                let mut kong = Kong { conn, stream, commands: Arc::clone(&seen) };
                let (script, ended) = (Arc::clone(&script), Arc::clone(&ended));
                std::thread::spawn(move || {
                    script(&mut kong);
                    let _ = kong.stream.shutdown(Shutdown::Both);
                    ended.fetch_add(1, Ordering::SeqCst);
                });
            }
        });
        Self { socket, commands, streams, left, stop, listening: Some(listening) }
    }

    /// A server that starts instances 1, 2, … and leaves events to the script.
    pub(crate) fn with_events(
        dir: &Path,
        script: impl Fn(&mut Kong, &Command) -> Option<()> + Send + Sync + 'static,
    ) -> Self {
        let instances = AtomicUsize::new(0);
        Self::start(dir, move |kong| {
            loop {
                let command = kong.command()?;
                match command.number {
                    START => {
                        let id = instances.fetch_add(1, Ordering::SeqCst) + 1;
                        kong.started(&command, id as u64)?;
                    }
                    CLOSE => kong.write(&number(1, command.sequence))?,
                    EVENT => script(kong, &command)?,
                    other => panic!("command {other}"),
                }
            }
        })
    }

    /// What Kong has called so far.
    pub(crate) fn commands(&self) -> Vec<Command> {
        self.commands.lock().unwrap().clone()
    }

    /// The numbers of these.
    pub(crate) fn numbers(&self) -> Vec<u64> {
        self.commands().iter().map(|command| command.number).collect()
    }

    /// Waits until so many connections have ended.
    pub(crate) async fn wait_for_ended(&self, count: usize) {
        let enough = async {
            while self.left.load(Ordering::SeqCst) < count {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, enough).await.expect("connections end");
    }
}

impl Drop for Server {
    /// Kills it: nobody listens, and every connection is closed.
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // Wakes the listener, which then goes.
        drop(UnixStream::connect(&self.socket));
        if let Some(listening) = self.listening.take() {
            listening.join().expect("the listener ends");
        }
        for stream in self.streams.lock().unwrap().iter() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}
