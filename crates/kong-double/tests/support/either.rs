//! A plugin server that speaks either protocol: starts instances and lets every event of an instance that it knows pass.

use std::{
    path::Path,
    sync::{Arc, Mutex},
};

use kong_double::{Protocol, Value};

use super::{
    Server,
    protobuf::{self, CLOSE, START, bytes, number},
};

/// How many StartInstances from now on are answered with what makes Kong's Lua throw.
pub(crate) type BadStarts = u32;

#[derive(Debug, Default)]
struct State {
    last: u64,
    known: Vec<u64>,
    bad_starts: BadStarts,
    calls: Vec<String>,
}

/// What Kong asks for, in either protocol.
enum Call {
    Start,
    Close(u64),
    Event(u64),
}

/// What the server says to it.
enum Answer {
    Started(u64),
    /// Something that is no answer.
    Wrong,
    Done,
    NoInstance(u64),
}

impl State {
    fn answer(&mut self, call: &Call) -> Answer {
        let (said, answer) = match *call {
            Call::Start if self.bad_starts > 0 => {
                self.bad_starts -= 1;
                ("bad start".to_owned(), Answer::Wrong)
            }
            Call::Start => {
                self.last += 1;
                self.known.push(self.last);
                (format!("start {}", self.last), Answer::Started(self.last))
            }
            Call::Close(id) => (format!("close {id}"), Answer::Done),
            Call::Event(id) if self.known.contains(&id) => (format!("event {id}"), Answer::Done),
            Call::Event(id) => (format!("unknown {id}"), Answer::NoInstance(id)),
        };
        self.calls.push(said);
        answer
    }
}

/// The server.
pub(crate) struct Either {
    state: Arc<Mutex<State>>,
    running: Running,
}

enum Running {
    MsgPack(Server),
    ProtoBuf(protobuf::Server),
}

impl Either {
    pub(crate) fn start(dir: &Path, protocol: Protocol) -> Self {
        let state = Arc::<Mutex<State>>::default();
        let own = Arc::clone(&state);
        let running = match protocol {
            Protocol::MsgPack => Running::MsgPack(Server::start(dir, move |call| {
                let id =
                    |value: &Value| if let Value::Number(id) = value { *id as u64 } else { panic!("no id") };
                let asked = match call.method.as_str() {
                    "plugin.StartInstance" => Call::Start,
                    "plugin.CloseInstance" => Call::Close(id(&call.arg)),
                    "plugin.HandleEvent" => Call::Event(id(call.arg.get("InstanceId"))),
                    other => panic!("{other}"),
                };
                match own.lock().unwrap().answer(&asked) {
                    Answer::Started(id) => call.result(Value::record([("Id", Value::Number(id as f64))])),
                    Answer::Wrong => super::Call { id: call.id + 1.0, ..call.clone() }.result(Value::Nil),
                    Answer::Done => call.ret(),
                    Answer::NoInstance(id) => {
                        call.reply(Value::str(format!("no plugin instance #{id}")), Value::Nil)
                    }
                }
            })),
            Protocol::ProtoBuf => Running::ProtoBuf(protobuf::Server::start(dir, move |kong| {
                loop {
                    let command = kong.command()?;
                    let asked = match command.number {
                        START => Call::Start,
                        CLOSE => Call::Close(command.instance()),
                        _ => Call::Event(command.instance()),
                    };
                    let answer = own.lock().unwrap().answer(&asked);
                    match (answer, asked) {
                        (Answer::Started(id), _) => kong.started(&command, id)?,
                        (Answer::Wrong, _) => kong.write(&number(1, command.sequence + 1))?,
                        (Answer::Done, Call::Event(_)) => kong.pass(&command)?,
                        (Answer::Done, _) => kong.write(&number(1, command.sequence))?,
                        (Answer::NoInstance(id), _) => {
                            kong.call(&format!("no plugin instance #{id}"), &bytes(1, ""))?;
                        }
                    }
                }
            })),
        };
        Self { state, running }
    }

    /// What Kong has called: `start 1`, `event 1`, `close 1`; `unknown 1` for an event of an instance that was forgotten.
    pub(crate) fn calls(&self) -> Vec<String> {
        self.state.lock().unwrap().calls.clone()
    }

    /// Knows none of its instances any longer.
    pub(crate) fn forget_all(&self) {
        self.state.lock().unwrap().known.clear();
    }

    pub(crate) fn answer_badly(&self, starts: BadStarts) {
        self.state.lock().unwrap().bad_starts = starts;
    }

    /// Stops; nobody listens when this returns.
    pub(crate) async fn kill(self) {
        match self.running {
            Running::MsgPack(server) => server.kill().await,
            Running::ProtoBuf(server) => drop(server),
        }
    }
}
