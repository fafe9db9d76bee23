//! This knows the messages of ProtoBuf:1 that we read or write, by the names and numbers of Kong's
//! `pluginsocket.proto`.
//!
//! Messages that only Kong writes have `bytes` where the protocol says `string`: on the wire they are the same, and
//! nobody promises UTF-8.

use prost::{Message, Oneof};

/// A call of Kong's.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct RpcCall {
    /// Repeated in the reply.
    #[prost(int64, tag = "1")]
    pub(crate) sequence: i64,
    #[prost(oneof = "Command", tags = "31, 32, 33, 34, 35, 36")]
    pub(crate) command: Option<Command>,
}

/// What Kong calls. It has only ever been seen to start and close instances and to handle events.
#[derive(Clone, PartialEq, Oneof)]
pub(crate) enum Command {
    #[prost(message, tag = "31")]
    GetPluginNames(Empty),
    #[prost(message, tag = "32")]
    GetPluginInfo(Name),
    #[prost(message, tag = "33")]
    StartInstance(StartInstance),
    #[prost(message, tag = "34")]
    GetInstanceStatus(InstanceId),
    #[prost(message, tag = "35")]
    CloseInstance(InstanceId),
    #[prost(message, tag = "36")]
    HandleEvent(HandleEvent),
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Empty {}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Name {
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) name: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct StartInstance {
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) name: Vec<u8>,
    /// JSON.
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) config: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct InstanceId {
    #[prost(int32, tag = "1")]
    pub(crate) instance_id: i32,
}

/// Kong's `String`: bytes, for Kong does not look whether they are UTF-8.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Text {
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) v: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Bool {
    #[prost(bool, tag = "1")]
    pub(crate) v: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct HandleEvent {
    #[prost(int32, tag = "1")]
    pub(crate) instance_id: i32,
    /// The phase.
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) event_name: Vec<u8>,
}

/// The reply to a call. That to an event, and to a call that failed, carries nothing: there is no field for errors.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct RpcReturn {
    #[prost(int64, tag = "1")]
    pub(crate) sequence: i64,
    #[prost(oneof = "Returned", tags = "31, 32, 33")]
    pub(crate) returned: Option<Returned>,
}

#[derive(Clone, PartialEq, Oneof)]
pub(crate) enum Returned {
    #[prost(message, tag = "31")]
    PluginNames(PluginNames),
    #[prost(message, tag = "32")]
    PluginInfo(PluginInfo),
    #[prost(message, tag = "33")]
    InstanceStatus(InstanceStatus),
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct PluginNames {
    #[prost(string, repeated, tag = "1")]
    pub(crate) names: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct PluginInfo {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(string, repeated, tag = "4")]
    pub(crate) phases: Vec<String>,
    #[prost(string, tag = "5")]
    pub(crate) version: String,
    #[prost(int32, tag = "6")]
    pub(crate) priority: i32,
    /// JSON.
    #[prost(string, tag = "7")]
    pub(crate) schema: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct InstanceStatus {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(int32, tag = "2")]
    pub(crate) instance_id: i32,
}

/// The argument of a PDK call that takes a number.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Int {
    #[prost(int32, tag = "1")]
    pub(crate) v: i32,
}

/// The arguments of a PDK call that takes a name and any value.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct KeyValue {
    #[prost(string, tag = "1")]
    pub(crate) k: String,
    #[prost(message, optional, tag = "2")]
    pub(crate) v: Option<Value>,
}

/// The arguments of `kong.client.authenticate`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct AuthenticateArgs {
    #[prost(message, optional, tag = "1")]
    pub(crate) consumer: Option<Consumer>,
    #[prost(message, optional, tag = "2")]
    pub(crate) credential: Option<AuthenticatedCredential>,
}

/// The arguments of `kong.client.load_consumer`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct ConsumerSpec {
    #[prost(string, tag = "1")]
    pub(crate) id: String,
    #[prost(bool, tag = "2")]
    pub(crate) by_username: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Consumer {
    #[prost(string, tag = "1")]
    pub(crate) id: String,
    #[prost(string, tag = "3")]
    pub(crate) username: String,
    #[prost(string, tag = "4")]
    pub(crate) custom_id: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct AuthenticatedCredential {
    #[prost(string, tag = "1")]
    pub(crate) id: String,
    #[prost(string, tag = "2")]
    pub(crate) consumer_id: String,
}

/// The arguments of `kong.response.exit`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct ExitArgs {
    #[prost(int32, tag = "1")]
    pub(crate) status: i32,
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) body: Vec<u8>,
    #[prost(message, optional, tag = "3")]
    pub(crate) headers: Option<Struct>,
}

/// `google.protobuf.Struct`, whose map is on the wire a list of entries.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Struct {
    #[prost(message, repeated, tag = "1")]
    pub(crate) fields: Vec<StructField>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct StructField {
    #[prost(string, tag = "1")]
    pub(crate) key: String,
    #[prost(message, optional, tag = "2")]
    pub(crate) value: Option<Value>,
}

/// `google.protobuf.Value`, as far as we write it.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Value {
    #[prost(oneof = "Kind", tags = "3, 5, 6")]
    pub(crate) kind: Option<Kind>,
}

#[derive(Clone, PartialEq, Oneof)]
pub(crate) enum Kind {
    #[prost(string, tag = "3")]
    String(String),
    #[prost(message, tag = "5")]
    Table(Struct),
    #[prost(message, tag = "6")]
    List(ListValue),
}

/// `google.protobuf.ListValue`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct ListValue {
    #[prost(message, repeated, tag = "1")]
    pub(crate) values: Vec<Value>,
}

impl<T: Into<String>> From<T> for Value {
    fn from(text: T) -> Self {
        Self { kind: Some(Kind::String(text.into())) }
    }
}

impl Value {
    pub(crate) fn table(table: Struct) -> Self {
        Self { kind: Some(Kind::Table(table)) }
    }

    pub(crate) fn list<const N: usize>(items: [&str; N]) -> Self {
        Self { kind: Some(Kind::List(ListValue { values: items.map(Self::from).into() })) }
    }
}

impl Struct {
    pub(crate) fn new(fields: impl IntoIterator<Item = (String, Value)>) -> Self {
        let field = |(key, value)| StructField { key, value: Some(value) };
        Self { fields: fields.into_iter().map(field).collect() }
    }
}
