//! This knows MsgPack:1, MessagePack-RPC as Kong speaks it (`kong-plugin-protocol.md`): where a message ends in the
//! stream, which calls Kong makes, and how they are answered.

use std::collections::BTreeMap;

use bytes::{Buf, BufMut, BytesMut};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use tokio_util::codec::{Decoder, Encoder};

use super::value::Value;

/// The longest message. Kong's largest are request bodies, which we never ask for.
const MAX_MESSAGE: usize = 16 * 1024 * 1024;

/// The most values in a message. Decoded, each takes some 32 bytes where one byte may be enough on the wire; a request
/// with as many headers as Kong hands out has 4,000.
const MAX_VALUES: usize = 65_536;

/// The deepest nesting.
const MAX_DEPTH: usize = 64;

/// The PDK call after which Kong does not come back: it answers the request.
pub(crate) const REFUSE: &str = "kong.response.error";

/// Why what came is not MsgPack:1. The stream cannot be read on after any of these.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WireError {
    #[error("the connection failed: {0}")]
    Io(#[from] std::io::Error),
    #[error("a message of more than {MAX_MESSAGE} bytes")]
    TooLarge,
    #[error("a message of more than {MAX_VALUES} values")]
    TooMany,
    #[error("not MessagePack: {0}")]
    Encoding(String),
    #[error("the byte 0xc1, which MessagePack never uses")]
    NeverUsed,
    #[error("not a request: {0}")]
    Malformed(&'static str),
}

/// One call of Kong's.
#[derive(Debug, PartialEq)]
pub(crate) struct Request {
    /// Repeated in the reply. Unique only among the running calls of one of Kong's workers.
    pub(crate) message_id: u64,
    pub(crate) call: Call,
}

/// What Kong calls.
#[derive(Debug, PartialEq)]
pub(crate) enum Call {
    StartInstance {
        plugin: String,
        config: String,
    },
    CloseInstance {
        instance: u64,
    },
    /// Kong 3.5 and 3.6 leave the instance out where they could not have one started.
    HandleEvent {
        instance: Option<u64>,
        phase: String,
    },
    /// All of `Step`, `StepCredential`, `StepConsumer`, …: they differ in the type of what the PDK call gave, which
    /// whoever made the call knows. `Nil` where Kong sends no `Data`.
    Step {
        event: u64,
        data: Value,
    },
    GetStatus,
    InstanceStatus {
        instance: u64,
    },
    Unknown {
        method: String,
    },
}

impl Request {
    /// The request as Kong would send it.
    ///
    /// # Errors
    /// None that is known of: it is written into memory.
    pub(crate) fn encode(&self) -> Result<BytesMut, WireError> {
        let mut message = BytesMut::new();
        let id = self.message_id;
        match &self.call {
            Call::StartInstance { plugin, config } => {
                let arg = BTreeMap::from([("Name", plugin), ("Config", config)]);
                write(&mut message, &(0, id, "plugin.StartInstance", [arg]))?;
            }
            Call::CloseInstance { instance } => {
                write(&mut message, &(0, id, "plugin.CloseInstance", [instance]))?;
            }
            Call::InstanceStatus { instance } => {
                write(&mut message, &(0, id, "plugin.InstanceStatus", [instance]))?;
            }
            Call::HandleEvent { instance, phase } => {
                let arg = HandleEvent { instance: *instance, phase };
                write(&mut message, &(0, id, "plugin.HandleEvent", [arg]))?;
            }
            Call::Step { event, data } => {
                write(&mut message, &(0, id, "plugin.Step", [StepWith { event: *event, data }]))?;
            }
            Call::GetStatus => write(&mut message, &(0, id, "plugin.GetStatus", [(); 0]))?,
            Call::Unknown { method } => write(&mut message, &(0, id, method, [(); 0]))?,
        }
        Ok(message)
    }
}

#[derive(Serialize)]
struct HandleEvent<'a> {
    #[serde(rename = "InstanceId", skip_serializing_if = "Option::is_none")]
    instance: Option<u64>,
    #[serde(rename = "EventName")]
    phase: &'a str,
}

#[derive(Serialize)]
struct StepWith<'a> {
    #[serde(rename = "EventId")]
    event: u64,
    #[serde(rename = "Data")]
    data: &'a Value,
}

/// Finds requests in the stream, and writes replies.
#[derive(Debug, Default)]
pub(crate) struct Codec {
    measure: Measure,
}

impl Decoder for Codec {
    type Item = Request;
    type Error = WireError;

    fn decode(&mut self, stream: &mut BytesMut) -> Result<Option<Request>, WireError> {
        let Some(length) = self.measure.advance(stream)? else { return Ok(None) };
        self.measure = Measure::default();
        let request = decode_request(&stream[..length])?;
        stream.advance(length);
        Ok(Some(request))
    }

    fn decode_eof(&mut self, stream: &mut BytesMut) -> Result<Option<Request>, WireError> {
        match self.decode(stream)? {
            None if !stream.is_empty() => Err(WireError::Malformed("it ends in the middle")),
            complete => Ok(complete),
        }
    }
}

/// A reply: `[1, message id, error, result]`.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) message_id: u64,
    pub(crate) body: ReplyBody,
}

/// What a call is answered with.
///
/// There is no room for a string error to an event but [`ReplyBody::NoInstance`]: Kong takes any other to mean that
/// the request may pass.
#[derive(Debug)]
pub(crate) enum ReplyBody {
    /// The event wants Kong to run a PDK call.
    Call { event: u64, method: &'static str, args: Vec<serde_json::Value> },
    /// The event has ended; Kong goes on with the request.
    Return { event: u64 },
    /// An instance was started, closed or asked for.
    Instance { instance: u64 },
    /// The server lives: its process id, and the fingerprint of its proof key.
    Status { pid: u32, proof_key: String },
    /// Kong then starts the instance and tries again.
    NoInstance { instance: u64 },
    /// A failure of ours in an event. Kong answers 500 to an error that is not a string.
    Fault(&'static str),
    /// Only for calls that carry no event: StartInstance, for which Kong then answers 500, and unknown methods.
    Error(String),
}

impl Encoder<Reply> for Codec {
    type Error = WireError;

    fn encode(&mut self, reply: Reply, stream: &mut BytesMut) -> Result<(), WireError> {
        let id = reply.message_id;
        let nil = None::<()>;
        match reply.body {
            ReplyBody::Call { event, method, args } => {
                write(stream, &(1, id, nil, Step { data: Data::Call { method, args }, event }))
            }
            ReplyBody::Return { event } => {
                write(stream, &(1, id, nil, Step { data: Data::End("ret"), event }))
            }
            ReplyBody::Instance { instance } => {
                write(stream, &(1, id, nil, Instance { name: crate::schema::PLUGIN_NAME, id: instance }))
            }
            ReplyBody::Status { pid, proof_key } => {
                write(stream, &(1, id, nil, Status { pid, version: crate::schema::VERSION, proof_key }))
            }
            ReplyBody::NoInstance { instance } => {
                write(stream, &(1, id, format!("no plugin instance #{instance}"), nil))
            }
            ReplyBody::Fault(fault) => write(stream, &(1, id, Fault { fault }, nil)),
            ReplyBody::Error(message) => write(stream, &(1, id, message, nil)),
        }
    }
}

/// Whether Kong asks nothing more after this reply to a call of an event: the request goes on, or is answered.
pub(crate) fn is_last(reply: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Told<'a> {
        #[serde(rename = "Data", borrow)]
        data: ToldData<'a>,
    }
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum ToldData<'a> {
        Call {
            #[serde(rename = "Method")]
            method: &'a str,
        },
        End(IgnoredAny),
    }
    match rmp_serde::from_slice::<(IgnoredAny, IgnoredAny, IgnoredAny, Told<'_>)>(reply) {
        Ok((.., Told { data: ToldData::Call { method } })) => method == REFUSE,
        Ok((.., Told { data: ToldData::End(IgnoredAny) })) => true,
        // Not to an event's call.
        Err(_) => false,
    }
}

#[derive(Serialize)]
struct Step {
    #[serde(rename = "Data")]
    data: Data,
    #[serde(rename = "EventId")]
    event: u64,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Data {
    End(&'static str),
    Call {
        #[serde(rename = "Method")]
        method: &'static str,
        #[serde(rename = "Args")]
        args: Vec<serde_json::Value>,
    },
}

#[derive(Serialize)]
struct Instance {
    #[serde(rename = "Name")]
    name: &'static str,
    #[serde(rename = "Id")]
    id: u64,
}

/// Read by [`checkup::ServerStatus`].
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Status {
    pid: u32,
    version: &'static str,
    proof_key: String,
}

#[derive(Serialize)]
struct Fault {
    fault: &'static str,
}

fn write(stream: &mut BytesMut, reply: &impl Serialize) -> Result<(), WireError> {
    // Maps with their keys' names: Kong looks fields up by name.
    let mut serializer = rmp_serde::Serializer::new(stream.writer()).with_struct_map();
    reply.serialize(&mut serializer).map_err(|error| WireError::Encoding(error.to_string()))
}

fn decode_request(message: &[u8]) -> Result<Request, WireError> {
    let mut deserializer = rmp_serde::Deserializer::from_read_ref(message);
    deserializer.set_max_depth(MAX_DEPTH);
    let message =
        Value::deserialize(&mut deserializer).map_err(|error| WireError::Encoding(error.to_string()))?;
    let Value::Array(message) = message else { return Err(WireError::Malformed("not an array")) };
    let [kind, message_id, method, args] =
        <[Value; 4]>::try_from(message).map_err(|_| WireError::Malformed("not four elements"))?;
    if kind != Value::Integer(0) {
        return Err(WireError::Malformed("not of type 0"));
    }
    let message_id = message_id.as_id().ok_or(WireError::Malformed("the message id is not an integer"))?;
    let method = method.as_text().ok_or(WireError::Malformed("the method is not a string"))?;
    let Value::Array(args) = args else { return Err(WireError::Malformed("the arguments are not an array")) };
    Ok(Request { message_id, call: decode_call(method, args.into_iter().next().unwrap_or(Value::Nil))? })
}

fn decode_call(method: &str, mut arg: Value) -> Result<Call, WireError> {
    let name = method.strip_prefix("plugin.").unwrap_or(method);
    // The answer to a PDK call is the one large value: it goes on as it is.
    let data = arg.take("Data");
    let id = |name, missing| arg.get(name).and_then(Value::as_id).ok_or(WireError::Malformed(missing));
    let text = |name, missing| {
        arg.get(name).and_then(Value::as_text).map(str::to_owned).ok_or(WireError::Malformed(missing))
    };
    let bare_id = |missing| arg.as_id().ok_or(WireError::Malformed(missing));
    Ok(match name {
        "StartInstance" => Call::StartInstance {
            plugin: text("Name", "StartInstance without Name")?,
            config: text("Config", "StartInstance without Config")?,
        },
        "CloseInstance" => Call::CloseInstance { instance: bare_id("CloseInstance without an id")? },
        "InstanceStatus" => Call::InstanceStatus { instance: bare_id("InstanceStatus without an id")? },
        "HandleEvent" => Call::HandleEvent {
            instance: match arg.get("InstanceId") {
                None if matches!(arg, Value::Map(_)) => None,
                _ => Some(id("InstanceId", "HandleEvent with an InstanceId that is no id")?),
            },
            phase: text("EventName", "HandleEvent without EventName")?,
        },
        // One name for all: which PDK call the data answers is known to the event.
        "Step" | "StepCredential" | "StepConsumer" | "StepRoute" | "StepService" | "StepMultiMap"
        | "StepMemoryStats" | "StepError" => Call::Step {
            event: id("EventId", "Step without EventId")?,
            // An error is nothing that any of our PDK calls may give, so it must not be taken for an answer.
            data: match name {
                "StepError" => Value::Nil,
                _ => data,
            },
        },
        "GetStatus" => Call::GetStatus,
        _ => Call::Unknown { method: method.to_owned() },
    })
}

/// Measures a message without decoding it, going on where the last look ended, so that what arrives in many pieces is
/// looked at once and a message is refused by what it declares, before memory is taken for it.
#[derive(Debug)]
pub(crate) struct Measure {
    at: usize,
    /// How many values the message still needs.
    missing: usize,
    /// How many values it is known to have.
    values: usize,
}

impl Default for Measure {
    fn default() -> Self {
        Self { at: 0, missing: 1, values: 1 }
    }
}

impl Measure {
    /// The length of the message, once all of it is there.
    ///
    /// # Errors
    /// It is not MessagePack, or over the limits.
    pub(crate) fn advance(&mut self, stream: &[u8]) -> Result<Option<usize>, WireError> {
        while self.missing > 0 {
            let Some(head) = Head::read(&stream[self.at.min(stream.len())..])? else { return Ok(None) };
            let end = self.at.saturating_add(head.bytes);
            // Each value that is still missing takes a byte at least.
            if end.saturating_add(head.children) > MAX_MESSAGE {
                return Err(WireError::TooLarge);
            }
            if end > stream.len() {
                // Looked at again when more is there: this one value, not the whole message.
                return Ok(None);
            }
            self.values += head.children;
            if self.values > MAX_VALUES {
                return Err(WireError::TooMany);
            }
            self.at = end;
            self.missing = self.missing - 1 + head.children;
        }
        Ok(Some(self.at))
    }
}

/// What a value's first bytes say: its own length and how many values follow inside it.
struct Head {
    bytes: usize,
    children: usize,
}

impl Head {
    fn read(stream: &[u8]) -> Result<Option<Self>, WireError> {
        let Some(&marker) = stream.first() else { return Ok(None) };
        let leaf = |bytes| Some(Self { bytes, children: 0 });
        // A length of `size` bytes after the marker.
        let length = |size: usize| {
            let digits = stream.get(1..1 + size)?;
            Some(digits.iter().fold(0usize, |length, &digit| length << 8 | usize::from(digit)))
        };
        let counted = |size, extra| {
            length(size)
                .map(|length| Self { bytes: (1 + size + extra as usize).saturating_add(length), children: 0 })
        };
        let nested = |size, factor| {
            length(size).map(|length| Self { bytes: 1 + size, children: length.saturating_mul(factor) })
        };
        Ok(match marker {
            0x00..=0x7f | 0xe0..=0xff | 0xc0 | 0xc2 | 0xc3 => leaf(1),
            0x80..=0x8f => Some(Self { bytes: 1, children: 2 * usize::from(marker & 0x0f) }),
            0x90..=0x9f => Some(Self { bytes: 1, children: usize::from(marker & 0x0f) }),
            0xa0..=0xbf => leaf(1 + usize::from(marker & 0x1f)),
            0xc1 => return Err(WireError::NeverUsed),
            0xc4 | 0xd9 => counted(1, false),
            0xc5 | 0xda => counted(2, false),
            0xc6 | 0xdb => counted(4, false),
            // An extension has one byte more, for its type.
            0xc7 => counted(1, true),
            0xc8 => counted(2, true),
            0xc9 => counted(4, true),
            0xcc | 0xd0 => leaf(2),
            0xcd | 0xd1 => leaf(3),
            0xca | 0xce | 0xd2 => leaf(5),
            0xcb | 0xcf | 0xd3 => leaf(9),
            0xd4..=0xd8 => leaf(2 + (1 << (marker - 0xd4))),
            0xdc => nested(2, 1),
            0xdd => nested(4, 1),
            0xde => nested(2, 2),
            0xdf => nested(4, 2),
        })
    }
}

#[cfg(test)]
mod tests;
