//! This knows Kong's end of a connection, in either protocol.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use prost::Message;
use serde_json::{Value as Json, json};
use testbed::process::PATIENCE;

use crate::wire::protobuf::messages::{
    AuthenticateArgs, Bool, Command, ExitArgs, HandleEvent, InstanceId, InstanceStatus, KeyValue, Kind,
    ListValue, Returned, RpcCall, RpcReturn, StartInstance, Struct, Text, Value,
};

/// What the server wants of Kong, whatever carries it.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Ask {
    Headers,
    Credential,
    ClientIp,
    IsTrusted(String),
    Chain,
    /// Which headers to set, and which to remove.
    SetHeaders(BTreeMap<String, Option<String>>),
    Group(String),
    /// A consumer by its username, and the id of a credential.
    Authenticate(Option<String>, Option<String>),
    /// In ProtoBuf:1, where there is no consumer.
    SetCredential(String),
    Log {
        is_error: bool,
        line: String,
    },
    /// Kong answers the request, and nothing comes after it.
    Refuse(u16, String),
    /// Kong goes on with the request.
    Pass,
    /// Kong starts the instance and begins the event anew.
    NoInstance(u64),
}

/// What Kong answers.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Answer {
    Nil,
    Headers(Vec<(String, String)>),
    Text(String),
    Bool(bool),
    /// A credential.
    Table,
    /// Of a type that no call gives: a list of a number, or octets that are no message.
    Nonsense,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    MsgPack,
    ProtoBuf,
}

/// A connection.
pub(super) struct Connection {
    pub(super) protocol: Protocol,
    stream: UnixStream,
    received: Vec<u8>,
    /// The number of the last call.
    number: i64,
}

impl Connection {
    pub(super) fn to(path: &Path, protocol: Protocol) -> io::Result<Self> {
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { protocol, stream, received: Vec::new(), number: 0 })
    }

    /// Whether the server closes it without another word.
    pub(super) fn is_closed(&mut self) -> bool {
        matches!(self.stream.read(&mut [0; 64]), Ok(0))
    }

    /// Starts an instance and gives its id, or what is wrong with its configuration.
    pub(super) fn start(&mut self, config: &str) -> Result<u64, String> {
        match self.protocol {
            Protocol::MsgPack => {
                let (error, result) =
                    self.call("plugin.StartInstance", json!({"Name": "mtls-auth", "Config": config}));
                result["Id"].as_u64().ok_or_else(|| error.as_str().unwrap().to_owned())
            }
            Protocol::ProtoBuf => {
                let start = StartInstance { name: b"mtls-auth".to_vec(), config: config.into() };
                let id = self.instance(Command::StartInstance(start));
                Ok(id.expect("in this protocol there is always one"))
            }
        }
    }

    /// Closes an instance and says whether there was one.
    pub(super) fn close(&mut self, instance: u64) -> bool {
        match self.protocol {
            Protocol::MsgPack => {
                let (error, result) = self.call("plugin.CloseInstance", json!(instance));
                match error {
                    Json::Null => assert_eq!(result["Id"], json!(instance)),
                    error => assert_eq!(error, json!(format!("no plugin instance #{instance}"))),
                }
                result != Json::Null
            }
            Protocol::ProtoBuf => {
                let closed =
                    self.instance(Command::CloseInstance(InstanceId { instance_id: instance as i32 }));
                closed.inspect(|id| assert_eq!(*id, instance)).is_some()
            }
        }
    }

    /// Begins an event; gives its id, which only MsgPack:1 has, and what it wants.
    pub(super) fn begin(&mut self, instance: u64) -> (u64, Ask) {
        match self.protocol {
            Protocol::MsgPack => {
                let arg = json!({"InstanceId": instance, "EventName": "access"});
                match self.call("plugin.HandleEvent", arg) {
                    (Json::Null, result) => {
                        (result["EventId"].as_u64().unwrap(), ask_in_msgpack(&result["Data"]))
                    }
                    (error, Json::Null) => (0, Ask::NoInstance(no_instance(error.as_str().unwrap()))),
                    other => panic!("{other:?}"),
                }
            }
            Protocol::ProtoBuf => {
                let event = HandleEvent { instance_id: instance as i32, event_name: b"access".to_vec() };
                self.send_command(Command::HandleEvent(event));
                (0, self.ask_in_protobuf())
            }
        }
    }

    /// Answers what an event wants, and gives what it wants next. The id is that of an event in MsgPack:1.
    pub(super) fn answer(&mut self, event: u64, answer: &Answer) -> Ask {
        self.send_answer(event, answer);
        match self.protocol {
            Protocol::MsgPack => {
                let (error, result) = self.reply();
                assert_eq!((&error, &result["EventId"]), (&Json::Null, &json!(event)));
                ask_in_msgpack(&result["Data"])
            }
            Protocol::ProtoBuf => self.ask_in_protobuf(),
        }
    }

    /// The same without waiting for what comes of it.
    pub(super) fn send_answer(&mut self, event: u64, answer: &Answer) {
        let message = match self.protocol {
            Protocol::MsgPack => self.step(event, answer),
            Protocol::ProtoBuf => framed(&answer.message()),
        };
        self.stream.write_all(&message).unwrap();
    }

    /// Half of a call, in the middle of which Kong leaves.
    pub(super) fn send_half(&mut self, event: u64) {
        let message = match self.protocol {
            Protocol::MsgPack => self.step(event, &Answer::Text("x".into())),
            Protocol::ProtoBuf => framed(b"half of it"),
        };
        self.stream.write_all(&message[..message.len() / 2]).unwrap();
    }

    /// Answers the call that ends a request, which no Kong does; in ProtoBuf:1 the event then ends as others do.
    pub(super) fn answer_last_word(&mut self) {
        self.send_answer(0, &Answer::Nil);
        assert_eq!(self.frame(), b"");
        assert_eq!(self.returned(), None);
    }

    fn step(&mut self, event: u64, answer: &Answer) -> Vec<u8> {
        let (method, data) = answer.data();
        let mut arg = json!({"EventId": event});
        if data != Json::Null {
            arg["Data"] = data;
        }
        self.number += 1;
        rmp_serde::to_vec(&json!([0, self.number, method, [arg]])).unwrap()
    }

    fn call(&mut self, method: &str, arg: Json) -> (Json, Json) {
        self.number += 1;
        let request = rmp_serde::to_vec(&json!([0, self.number, method, [arg]])).unwrap();
        self.stream.write_all(&request).unwrap();
        self.reply()
    }

    fn reply(&mut self) -> (Json, Json) {
        loop {
            let mut rest = &self.received[..];
            let mut deserializer = rmp_serde::Deserializer::new(&mut rest);
            if let Ok(reply) = <Json as serde::Deserialize>::deserialize(&mut deserializer) {
                assert!(rest.is_empty(), "two replies to one call");
                self.received.clear();
                assert_eq!((&reply[0], &reply[1]), (&json!(1), &json!(self.number)), "{reply}");
                return (reply[2].clone(), reply[3].clone());
            }
            let mut piece = [0; 4096];
            let read = self.stream.read(&mut piece).unwrap();
            assert!(read > 0, "the server closed the connection");
            self.received.extend_from_slice(&piece[..read]);
        }
    }

    fn send_command(&mut self, command: Command) {
        self.number += 1;
        let call = RpcCall { sequence: self.number, command: Some(command) };
        self.stream.write_all(&framed(&call.encode_to_vec())).unwrap();
    }

    fn instance(&mut self, command: Command) -> Option<u64> {
        self.send_command(command);
        match self.returned() {
            Some(Returned::InstanceStatus(InstanceStatus { name, instance_id })) => {
                assert_eq!(name, "mtls-auth");
                Some(instance_id as u64)
            }
            None => None,
            other => panic!("{other:?}"),
        }
    }

    fn returned(&mut self) -> Option<Returned> {
        let reply = RpcReturn::decode(&*self.frame()).unwrap();
        assert_eq!(reply.sequence, self.number);
        reply.returned
    }

    fn frame(&mut self) -> Vec<u8> {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length).unwrap();
        let mut content = vec![0; u32::from_le_bytes(length) as usize];
        self.stream.read_exact(&mut content).unwrap();
        content
    }

    fn ask_in_protobuf(&mut self) -> Ask {
        let method = String::from_utf8(self.frame()).unwrap();
        if method.is_empty() {
            assert_eq!(self.returned(), None);
            return Ask::Pass;
        }
        let argument = self.frame();
        if method.starts_with("no plugin instance #") {
            return Ask::NoInstance(no_instance(&method));
        }
        ask_in_protobuf(&method, &argument)
    }
}

fn framed(content: &[u8]) -> Vec<u8> {
    [&(content.len() as u32).to_le_bytes()[..], content].concat()
}

fn no_instance(error: &str) -> u64 {
    error
        .strip_prefix("no plugin instance #")
        .and_then(|id| id.parse().ok())
        .unwrap_or_else(|| panic!("{error}"))
}

impl Answer {
    /// How it stands in MsgPack:1.
    fn data(&self) -> (&'static str, Json) {
        match self {
            Self::Nil => ("plugin.Step", Json::Null),
            Self::Headers(headers) => {
                let table = headers.iter().map(|(name, value)| (name.clone(), json!([value])));
                ("plugin.StepMultiMap", Json::Object(table.collect()))
            }
            Self::Text(text) => ("plugin.Step", json!(text)),
            Self::Bool(value) => ("plugin.Step", json!(value)),
            Self::Table => ("plugin.StepCredential", json!({"id": "of another plugin"})),
            Self::Nonsense => ("plugin.Step", json!([7])),
        }
    }

    /// How it stands in ProtoBuf:1.
    fn message(&self) -> Vec<u8> {
        match self {
            Self::Nil => Vec::new(),
            Self::Headers(headers) => {
                let fields = headers.iter().map(|(name, value)| (name.clone(), Value::from(value.as_str())));
                Struct::new(fields).encode_to_vec()
            }
            Self::Text(text) => Text { v: text.clone().into_bytes() }.encode_to_vec(),
            Self::Bool(v) => Bool { v: *v }.encode_to_vec(),
            Self::Table => Text { v: b"of another plugin".to_vec() }.encode_to_vec(),
            Self::Nonsense => vec![0xff; 3],
        }
    }
}

fn ask_in_msgpack(data: &Json) -> Ask {
    if data == "ret" {
        return Ask::Pass;
    }
    let args = data["Args"].as_array().unwrap();
    let text = |value: &Json| value.as_str().unwrap().to_owned();
    match data["Method"].as_str().unwrap() {
        "kong.request.get_headers" => Ask::Headers,
        "kong.client.get_credential" => Ask::Credential,
        "kong.client.get_ip" => Ask::ClientIp,
        "kong.ip.is_trusted" => Ask::IsTrusted(text(&args[0])),
        "kong.client.tls.get_full_client_certificate_chain" => Ask::Chain,
        "kong.service.request.set_headers" => {
            let table = args[0].as_object().unwrap().iter();
            Ask::SetHeaders(
                table.map(|(name, value)| (name.clone(), value.as_str().map(str::to_owned))).collect(),
            )
        }
        "kong.ctx.shared.set" => Ask::Group(text(&args[1][0])),
        "kong.client.authenticate" => Ask::Authenticate(
            args[0]["username"].as_str().map(str::to_owned),
            args.get(1).map(|credential| text(&credential["id"])),
        ),
        "kong.log.notice" => Ask::Log { is_error: false, line: text(&args[0]) },
        "kong.log.err" => Ask::Log { is_error: true, line: text(&args[0]) },
        "kong.response.error" => Ask::Refuse(args[0].as_u64().unwrap() as u16, text(&args[1])),
        other => panic!("{other}: {data}"),
    }
}

fn ask_in_protobuf(method: &str, argument: &[u8]) -> Ask {
    let text = || String::from_utf8(Text::decode(argument).unwrap().v).unwrap();
    let log = |is_error| {
        let list = ListValue::decode(argument).unwrap();
        let [Value { kind: Some(Kind::String(line)) }] = &list.values[..] else { panic!("{list:?}") };
        Ask::Log { is_error, line: line.strip_prefix("[mtls-auth] ").unwrap().to_owned() }
    };
    match method {
        "kong.request.get_headers" => Ask::Headers,
        "kong.client.get_credential" => Ask::Credential,
        "kong.client.get_ip" => Ask::ClientIp,
        "kong.ip.is_trusted" => Ask::IsTrusted(text()),
        "kong.nginx.get_var" => {
            assert_eq!(text(), "ssl_client_raw_cert");
            Ask::Chain
        }
        "kong.service.request.set_headers" => {
            let table = Struct::decode(argument).unwrap().fields.into_iter();
            Ask::SetHeaders(
                table
                    .map(|field| match field.value.and_then(|value| value.kind) {
                        Some(Kind::String(text)) => (field.key, Some(text)),
                        Some(Kind::List(list)) if list.values.is_empty() => (field.key, None),
                        other => panic!("{other:?}"),
                    })
                    .collect(),
            )
        }
        "kong.ctx.shared.set" | "kong.nginx.set_ctx" => {
            let KeyValue { k, v } = KeyValue::decode(argument).unwrap();
            let first = |list: ListValue| list.values.into_iter().next().unwrap().kind.unwrap();
            match (&*k, v.unwrap().kind.unwrap()) {
                ("authenticated_groups", Kind::List(list)) => match first(list) {
                    Kind::String(group) => Ask::Group(group),
                    other => panic!("{other:?}"),
                },
                ("authenticated_credential", Kind::Table(table)) => {
                    match table.fields[0].value.clone().unwrap().kind {
                        Some(Kind::String(id)) => Ask::SetCredential(id),
                        other => panic!("{other:?}"),
                    }
                }
                other => panic!("{other:?}"),
            }
        }
        "kong.client.authenticate" => {
            let AuthenticateArgs { consumer, credential } = AuthenticateArgs::decode(argument).unwrap();
            Ask::Authenticate(
                consumer.map(|consumer| consumer.username),
                credential.map(|credential| credential.id),
            )
        }
        "kong.log.notice" => log(false),
        "kong.log.err" => log(true),
        "kong.response.exit" => {
            let exit = ExitArgs::decode(argument).unwrap();
            let body: Json = serde_json::from_slice(&exit.body).unwrap();
            Ask::Refuse(exit.status as u16, body["message"].as_str().unwrap().to_owned())
        }
        other => panic!("{other}"),
    }
}
