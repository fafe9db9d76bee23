//! This knows the messages and PDK methods of Kong's `pluginsocket.proto` that the double has, and how Kong's Lua turns
//! arguments into messages and results back.

use crate::{
    pack::MapOrder,
    pb::{Field, Kind, Message, decode, encode},
    value::{Value, argument_count},
};

pub(crate) static RPC_CALL: Message = Message {
    name: "RpcCall",
    fields: &[
        Field::one("sequence", 1, Kind::Int),
        Field::one_of("cmd_start_instance", 33, Kind::Message(&START_INSTANCE)),
        Field::one_of("cmd_close_instance", 35, Kind::Message(&CLOSE_INSTANCE)),
        Field::one_of("cmd_handle_event", 36, Kind::Message(&HANDLE_EVENT)),
    ],
};

static START_INSTANCE: Message = Message {
    name: "CmdStartInstance",
    fields: &[Field::one("name", 1, Kind::Text), Field::one("config", 2, Kind::Text)],
};

static CLOSE_INSTANCE: Message =
    Message { name: "CmdCloseInstance", fields: &[Field::one("instance_id", 1, Kind::Int)] };

static HANDLE_EVENT: Message = Message {
    name: "CmdHandleEvent",
    fields: &[Field::one("instance_id", 1, Kind::Int), Field::one("event_name", 2, Kind::Text)],
};

pub(crate) static RPC_RETURN: Message = Message {
    name: "RpcReturn",
    fields: &[
        Field::one("sequence", 1, Kind::Int),
        Field::one_of("instance_status", 33, Kind::Message(&INSTANCE_STATUS)),
    ],
};

static INSTANCE_STATUS: Message = Message {
    name: "InstanceStatus",
    fields: &[
        Field::one("name", 1, Kind::Text),
        Field::one("instance_id", 2, Kind::Int),
        Field::one("config", 3, Kind::Message(&VALUE)),
        Field::one("started_at", 4, Kind::Int),
    ],
};

static EMPTY: Message = Message { name: "google.protobuf.Empty", fields: &[] };
static BOOL: Message = Message { name: "Bool", fields: &[Field::one("v", 1, Kind::Bool)] };
static INT: Message = Message { name: "Int", fields: &[Field::one("v", 1, Kind::Int)] };
static NUMBER: Message = Message { name: "Number", fields: &[Field::one("v", 1, Kind::Double)] };
static STRING: Message = Message { name: "String", fields: &[Field::one("v", 1, Kind::Text)] };

static KV: Message = Message {
    name: "KV",
    fields: &[Field::one("k", 1, Kind::Text), Field::one("v", 2, Kind::Message(&VALUE))],
};

static VALUE: Message = Message {
    name: "google.protobuf.Value",
    fields: &[
        Field::one_of("null_value", 1, Kind::Null),
        Field::one_of("number_value", 2, Kind::Double),
        Field::one_of("string_value", 3, Kind::Text),
        Field::one_of("bool_value", 4, Kind::Bool),
        Field::one_of("struct_value", 5, Kind::Message(&STRUCT)),
        Field::one_of("list_value", 6, Kind::Message(&LIST)),
    ],
};

static STRUCT: Message =
    Message { name: "google.protobuf.Struct", fields: &[Field::map("fields", 1, Kind::Message(&VALUE))] };

static LIST: Message = Message {
    name: "google.protobuf.ListValue",
    fields: &[Field::repeated("values", 1, Kind::Message(&VALUE))],
};

static EXIT: Message = Message {
    name: "ExitArgs",
    fields: &[
        Field::one("status", 1, Kind::Int),
        Field::one("body", 2, Kind::Text),
        Field::one("headers", 3, Kind::Message(&STRUCT)),
    ],
};

static CONSUMER_SPEC: Message = Message {
    name: "ConsumerSpec",
    fields: &[Field::one("id", 1, Kind::Text), Field::one("by_username", 2, Kind::Bool)],
};

static CONSUMER: Message = Message {
    name: "Consumer",
    fields: &[
        Field::one("id", 1, Kind::Text),
        Field::one("created_at", 2, Kind::Int),
        Field::one("username", 3, Kind::Text),
        Field::one("custom_id", 4, Kind::Text),
        Field::repeated("tags", 5, Kind::Text),
    ],
};

static CREDENTIAL: Message = Message {
    name: "AuthenticatedCredential",
    fields: &[Field::one("id", 1, Kind::Text), Field::one("consumer_id", 2, Kind::Text)],
};

static AUTHENTICATE: Message = Message {
    name: "AuthenticateArgs",
    fields: &[
        Field::one("consumer", 1, Kind::Message(&CONSUMER)),
        Field::one("credential", 2, Kind::Message(&CREDENTIAL)),
    ],
};

/// A PDK method: what it takes and what it gives.
#[derive(Debug)]
pub(crate) struct Method {
    takes: &'static Message,
    gives: &'static Message,
}

impl Method {
    /// The method of this name.
    pub(crate) fn find(name: &str) -> Option<Self> {
        let (takes, gives) = match name {
            "kong.client.get_ip"
            | "kong.client.get_forwarded_ip"
            | "kong.log.serialize"
            | "kong.nginx.get_subsystem"
            | "kong.node.get_id"
            | "kong.request.get_scheme"
            | "kong.request.get_host"
            | "kong.request.get_forwarded_scheme"
            | "kong.request.get_method"
            | "kong.request.get_path"
            | "kong.request.get_path_with_query"
            | "kong.request.get_raw_query"
            | "kong.response.get_source" => (&EMPTY, &STRING),
            "kong.client.get_port"
            | "kong.request.get_port"
            | "kong.response.get_status"
            | "kong.service.response.get_status" => (&EMPTY, &INT),
            "kong.nginx.req_start_time" | "kong.request.get_http_version" => (&EMPTY, &NUMBER),
            "kong.client.get_credential" => (&EMPTY, &CREDENTIAL),
            "kong.client.get_consumer" => (&EMPTY, &CONSUMER),
            "kong.client.load_consumer" => (&CONSUMER_SPEC, &CONSUMER),
            "kong.client.authenticate" => (&AUTHENTICATE, &EMPTY),
            "kong.ctx.shared.set" => (&KV, &EMPTY),
            "kong.ctx.shared.get" | "kong.nginx.get_ctx" => (&STRING, &VALUE),
            "kong.nginx.set_ctx" => (&KV, &STRING),
            "kong.ip.is_trusted" => (&STRING, &BOOL),
            "kong.log.alert" | "kong.log.crit" | "kong.log.err" | "kong.log.warn" | "kong.log.notice"
            | "kong.log.info" | "kong.log.debug" => (&LIST, &EMPTY),
            "kong.nginx.get_var"
            | "kong.request.get_header"
            | "kong.request.get_query_arg"
            | "kong.response.get_header"
            | "kong.service.response.get_header" => (&STRING, &STRING),
            "kong.request.get_headers"
            | "kong.request.get_query"
            | "kong.response.get_headers"
            | "kong.service.response.get_headers" => (&INT, &STRUCT),
            "kong.response.set_header"
            | "kong.response.add_header"
            | "kong.service.request.set_header"
            | "kong.service.request.add_header" => (&KV, &EMPTY),
            "kong.response.clear_header" | "kong.service.request.clear_header" => (&STRING, &EMPTY),
            "kong.response.set_headers"
            | "kong.service.request.set_headers"
            | "kong.service.request.set_query" => (&STRUCT, &EMPTY),
            "kong.response.exit" => (&EXIT, &EMPTY),
            _ => return None,
        };
        Some(Self { takes, gives })
    }

    /// The arguments of a call.
    ///
    /// # Errors
    /// Where the message is none of these.
    pub(crate) fn arguments(&self, message: &[u8]) -> Result<Vec<Value>, String> {
        let table = decode(self.takes, message)?;
        let field = |name| table.get(name).clone();
        Ok(match self.takes.name {
            "google.protobuf.Empty" => vec![],
            "google.protobuf.ListValue" => {
                let mut items = list_of(&table);
                items.truncate(argument_count(&items));
                items
            }
            "google.protobuf.Struct" => vec![table_of(&table)],
            "KV" => vec![field("k"), value_of(table.get("v"))],
            "ExitArgs" => vec![field("status"), field("body"), table_of(table.get("headers"))],
            "ConsumerSpec" => vec![field("id"), field("by_username")],
            "AuthenticateArgs" => vec![field("consumer"), field("credential")],
            _ => vec![field("v")],
        })
    }

    /// The message for what the method gave. For nil that is an empty one, but for a `Value`, which can say so.
    ///
    /// # Errors
    /// Where Kong's library cannot write that value.
    pub(crate) fn result(&self, given: Value, order: MapOrder) -> Result<Vec<u8>, String> {
        let table = match self.gives.name {
            "google.protobuf.Value" => as_value(&given),
            "google.protobuf.Struct" => as_struct(&given),
            "Bool" | "Int" | "Number" | "String" => Value::Map(vec![(Value::str("v"), given)]),
            _ if given == Value::Nil => return Ok(Vec::new()),
            _ => given,
        };
        encode(self.gives, &table, order)
    }
}

/// A `google.protobuf.Value` as Lua has it. A null comes as the name of its enum; false comes as nil.
fn value_of(value: &Value) -> Value {
    if value.get("list_value").truthy() {
        return Value::List(list_of(value.get("list_value")));
    }
    if value.get("struct_value").truthy() {
        return table_of(value.get("struct_value"));
    }
    let kinds = ["bool_value", "string_value", "number_value"];
    let set = kinds.into_iter().map(|kind| value.get(kind)).find(|value| value.truthy());
    set.unwrap_or(value.get("null_value")).clone()
}

fn list_of(list: &Value) -> Vec<Value> {
    match list.get("values") {
        Value::List(values) => values.iter().map(value_of).collect(),
        _ => Vec::new(),
    }
}

/// A `google.protobuf.Struct` as Lua has it; nil where there is none.
fn table_of(message: &Value) -> Value {
    match (message, message.get("fields")) {
        (Value::Nil, _) => Value::Nil,
        (_, Value::Map(fields)) => {
            Value::table(fields.iter().map(|(key, value)| (key.clone(), value_of(value))).collect())
        }
        _ => Value::List(Vec::new()),
    }
}

/// The other way. A table is a list if it has a first element, and so an empty one is a struct.
fn as_value(value: &Value) -> Value {
    let entry = |key, value| Value::Map(vec![(Value::str(key), value)]);
    match value {
        Value::Nil => entry("null_value", Value::number(1)),
        Value::Bool(_) => entry("bool_value", value.clone()),
        Value::Number(_) => entry("number_value", value.clone()),
        Value::Str(_) | Value::Bin(_) => entry("string_value", value.clone()),
        Value::List(items) if items.first().is_some_and(|first| *first != Value::Nil) => {
            let items = items.iter().take_while(|item| **item != Value::Nil);
            entry("list_value", entry("values", Value::List(items.map(as_value).collect())))
        }
        Value::List(_) | Value::Map(_) => entry("struct_value", as_struct(value)),
    }
}

fn as_struct(table: &Value) -> Value {
    let fields = match table {
        Value::Map(entries) => entries.iter().map(|(key, value)| (key.clone(), as_value(value))).collect(),
        _ => Vec::new(),
    };
    Value::Map(vec![(Value::str("fields"), Value::Map(fields))])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(method: &str, given: Value) -> Vec<u8> {
        Method::find(method).unwrap().result(given, MapOrder::Given).unwrap()
    }

    #[test]
    fn results_look_as_kongs_library_writes_them() {
        let consumer = Value::record([
            ("id", Value::str("x")),
            ("username", Value::str("")),
            ("ws_id", Value::str("not in the message")),
            ("created_at", Value::number(1)),
        ]);
        let headers = Value::record([
            ("a", Value::str("1")),
            ("b", Value::List(vec![Value::str("2"), Value::str("")])),
            ("c", Value::List(vec![])),
        ]);
        let pairs = b"\x0a\x08\x0a\x01a\x12\x03\x1a\x011";
        let lists = b"\x0a\x10\x0a\x01b\x12\x0b\x32\x09\x0a\x03\x1a\x012\x0a\x02\x1a\x00";
        for (method, given, expected) in [
            ("kong.client.get_ip", Value::str("::1"), &b"\x0a\x03::1"[..]),
            ("kong.nginx.get_var", Value::Nil, b""),
            ("kong.nginx.get_var", Value::str(""), b""),
            // A boolean is never left out.
            ("kong.ip.is_trusted", Value::Bool(false), b"\x08\x00"),
            ("kong.ip.is_trusted", Value::Bool(true), b"\x08\x01"),
            ("kong.client.get_port", Value::number(300), b"\x08\xac\x02"),
            ("kong.client.load_consumer", Value::Nil, b""),
            ("kong.client.load_consumer", consumer, b"\x0a\x01x\x10\x01"),
            ("kong.client.get_credential", Value::Nil, b""),
            ("kong.ctx.shared.get", Value::Nil, b"\x08\x01"),
            ("kong.ctx.shared.get", Value::Bool(false), b"\x20\x00"),
            ("kong.ctx.shared.get", Value::str(""), b"\x1a\x00"),
            ("kong.nginx.get_ctx", Value::number(0), b"\x11\0\0\0\0\0\0\0\0"),
            (
                "kong.request.get_headers",
                headers,
                &[&pairs[..], lists, b"\x0a\x07\x0a\x01c\x12\x02\x2a\x00"].concat(),
            ),
            ("kong.request.get_headers", Value::List(vec![]), b""),
        ] {
            assert_eq!(result(method, given.clone()), expected, "{method} {given:?}");
        }
    }

    #[test]
    fn arguments_are_what_kongs_lua_makes_of_them() {
        let arguments = |method: &str, message: &[u8]| Method::find(method).unwrap().arguments(message);
        let (nil, text) = (Value::Nil, |text: &str| Value::str(text));
        for (method, message, expected) in [
            ("kong.client.get_ip", &b""[..], vec![]),
            ("kong.request.get_headers", b"\x08\xe8\x07", vec![Value::number(1000)]),
            ("kong.request.get_headers", b"", vec![Value::number(0)]),
            (
                "kong.request.get_headers",
                b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
                vec![Value::number(-1)],
            ),
            ("kong.client.load_consumer", b"\x0a\x03bob\x10\x01", vec![text("bob"), Value::Bool(true)]),
            ("kong.client.load_consumer", b"", vec![text(""), Value::Bool(false)]),
            ("kong.client.authenticate", b"", vec![nil.clone(), nil.clone()]),
            ("kong.response.exit", b"\x08\x91\x03", vec![Value::number(401), text(""), nil.clone()]),
            ("kong.ctx.shared.set", b"\x0a\x01k\x12\x02\x1a\x00", vec![text("k"), text("")]),
            ("kong.ctx.shared.set", b"\x0a\x01k\x12\x02\x20\x00", vec![text("k"), nil.clone()]),
            ("kong.ctx.shared.set", b"\x0a\x01k\x12\x02\x08\x00", vec![text("k"), text("NULL_VALUE")]),
            ("kong.ctx.shared.set", b"\x0a\x01k\x12\x02\x32\x00", vec![text("k"), Value::List(vec![])]),
            ("kong.log.notice", b"\x0a\x03\x1a\x01a\x0a\x03\x1a\x01b", vec![text("a"), text("b")]),
            ("kong.log.notice", b"\x0a\x03\x1a\x01a\x0a\x02\x20\x00", vec![text("a")]),
        ] {
            assert_eq!(arguments(method, message), Ok(expected), "{method} {message:02x?}");
        }
        let credential = arguments("kong.client.authenticate", b"\x12\x03\x0a\x01x").unwrap().remove(1);
        assert_eq!((credential.get("id"), credential.get("consumer_id")), (&text("x"), &text("")));
        for (method, message) in [
            ("kong.client.get_ip", &b"\x0a"[..]),
            ("kong.request.get_headers", b"\x0a\x01x"),
            ("kong.nginx.get_var", b"\x0a\x05x"),
            ("kong.service.request.set_headers", b"\x08\x01"),
        ] {
            assert!(arguments(method, message).is_err(), "{method} {message:02x?}");
        }
        assert!(Method::find("kong.response.error").is_none());
        assert!(Method::find("kong.client.tls.get_full_client_certificate_chain").is_none());
    }
}
