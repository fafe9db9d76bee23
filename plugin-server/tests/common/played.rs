//! Kong for one request after the other, in either protocol, on what a test says that it knows.

use serde_json::{Value as Json, json};

use super::protobuf::{self, bytes, content, fields, number, table};
use super::{Connection, Prefix};

/// What Kong speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Speaks {
    MsgPack,
    ProtoBuf,
}

/// A request, as far as Kong tells of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Request {
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    /// What its client showed to Kong's own listener, in PEM.
    pub(crate) shown: Option<String>,
}

/// What became of it.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// None: it passed.
    pub(crate) status: Option<u64>,
    /// What the client was told, or what Kong was told of whom it is, as it stands in the call.
    pub(crate) said: String,
    pub(crate) log: String,
}

/// An instance of the plugin, or why Kong has none: then it answers for itself.
pub(crate) struct Instance<'a> {
    prefix: &'a Prefix,
    speaks: Speaks,
    id: Result<u64, String>,
}

impl Speaks {
    pub(crate) const BOTH: [Self; 2] = [Self::MsgPack, Self::ProtoBuf];

    /// Starts an instance.
    pub(crate) fn start<'a>(self, prefix: &'a Prefix, config: &Json) -> Instance<'a> {
        let id = match self {
            Self::MsgPack => {
                let arg = json!({"Name": "mtls-auth", "Config": config.to_string()});
                let (error, started) = prefix.connect().call("plugin.StartInstance", arg);
                started["Id"].as_u64().ok_or_else(|| error.as_str().unwrap().to_owned())
            }
            Self::ProtoBuf => Ok(prefix.connect_protobuf().start(&config.to_string())),
        };
        Instance { prefix, speaks: self, id }
    }

    /// Starts an instance, and has it decide about a request.
    pub(crate) fn run(self, prefix: &Prefix, config: &Json, request: &Request) -> Outcome {
        self.start(prefix, config).ask(request)
    }
}

impl Instance<'_> {
    /// Has it decide about a request.
    pub(crate) fn ask(&self, request: &Request) -> Outcome {
        match (&self.id, self.speaks) {
            (Err(problem), _) => Outcome { status: Some(500), said: String::new(), log: problem.clone() },
            (Ok(id), Speaks::MsgPack) => by_msgpack(self.prefix.connect(), *id, request),
            (Ok(id), Speaks::ProtoBuf) => by_protobuf(self.prefix.connect_protobuf(), *id, request),
        }
    }
}

fn by_msgpack(mut kong: Connection, instance: u64, request: &Request) -> Outcome {
    let mut outcome = Outcome { status: None, said: String::new(), log: String::new() };
    let event = json!({"InstanceId": instance, "EventName": "access"});
    let mut step = kong.ok("plugin.HandleEvent", event);
    loop {
        let (event, data) = (&step["EventId"], &step["Data"]);
        if data == "ret" {
            return outcome;
        }
        let args = &data["Args"];
        let answer = match data["Method"].as_str().unwrap() {
            "kong.request.get_headers" => {
                let headers = request.headers.iter().map(|(name, value)| (name.clone(), json!([value])));
                Json::Object(headers.collect())
            }
            "kong.client.tls.get_full_client_certificate_chain" => json!(request.shown),
            "kong.client.get_ip" => json!("10.0.0.1"),
            "kong.ip.is_trusted" => json!(true),
            "kong.response.error" => {
                let said = args[1].as_str().unwrap().to_owned();
                return Outcome { status: args[0].as_u64(), said, ..outcome };
            }
            "kong.client.authenticate" => {
                outcome.said = args.to_string();
                Json::Null
            }
            method => {
                if method.starts_with("kong.log.") {
                    outcome.log.push_str(args[0].as_str().unwrap());
                }
                Json::Null
            }
        };
        let mut arg = json!({"EventId": event});
        if !answer.is_null() {
            arg["Data"] = answer;
        }
        step = kong.ok("plugin.StepMultiMap", arg);
    }
}

fn by_protobuf(mut kong: protobuf::Connection, instance: u64, request: &Request) -> Outcome {
    let mut outcome = Outcome { status: None, said: String::new(), log: String::new() };
    kong.begin(instance);
    loop {
        let frame = kong.read();
        if frame.is_empty() {
            assert_eq!(fields(&kong.reply()).unwrap().len(), 1, "the sequence and nothing else");
            return outcome;
        }
        let (method, argument) = (String::from_utf8(frame).unwrap(), kong.read());
        let text = || String::from_utf8_lossy(&argument).into_owned();
        let answer = match method.as_str() {
            "kong.request.get_headers" => {
                let pairs = request.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
                table(&pairs.collect::<Vec<_>>())
            }
            "kong.nginx.get_var" => request.shown.as_ref().map(|pem| bytes(1, pem)).unwrap_or_default(),
            "kong.client.get_ip" => bytes(1, "10.0.0.1"),
            "kong.ip.is_trusted" => number(1, 1),
            "kong.response.exit" => {
                let status = fields(&argument).unwrap().into_iter().find_map(|field| match field {
                    protobuf::Field::Number(1, status) => Some(status),
                    _ => None,
                });
                let body: Json = serde_json::from_slice(&content(&argument, 2).unwrap()).unwrap();
                return Outcome { status, said: body["message"].as_str().unwrap().to_owned(), ..outcome };
            }
            "kong.client.authenticate" => {
                outcome.said = text();
                Vec::new()
            }
            method => {
                if method.starts_with("kong.log.") {
                    outcome.log.push_str(&text());
                }
                Vec::new()
            }
        };
        kong.write(&answer);
    }
}
