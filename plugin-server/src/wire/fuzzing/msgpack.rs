//! This knows what must hold of any bytes that are read as MsgPack:1.

use std::sync::mpsc;

use bytes::BytesMut;
use kong_double::Value as Lua;
use kong_double::pack::unpack;
use serde::Deserialize;
use serde_json::json;
use tokio_util::codec::{Decoder, Encoder};

use super::answers::{self, Understood};
use crate::access::Verdict;
use crate::event::{Event, PdkCall, Spares};
use crate::pdk::Headers;
use crate::wire::msgpack::{Call, Codec, Reply, ReplyBody, Request};
use crate::wire::pdk::MsgPackPdk;
use crate::wire::protocol::Protocol;
use crate::wire::value::Value;

/// More than any of Kong's messages has, in values and in levels; the limits of ours are not above it.
const MANY: usize = 65_536;
const DEEP: usize = 64;

/// Reads a stream of Kong's calls.
///
/// # Panics
/// Where what must hold does not.
pub fn msgpack_frames(stream: &[u8]) {
    let whole = read(&[stream]);
    for pieces in super::cuts(stream) {
        assert_eq!(read(&pieces), whole, "in other pieces");
    }
    let mut rest = stream;
    for (number, (request, length)) in whole.requests.iter().enumerate() {
        let message;
        (message, rest) = rest.split_at(*length);
        is_as_others_read_it(message, request);
        if number < super::LOOKED_INTO {
            replies_are_as_kong_reads_them(request);
        }
    }
    match &*whole.end {
        "" => assert!(rest.is_empty()),
        IN_THE_MIDDLE => assert!(unpack(rest).is_err(), "it waits for more of what is complete"),
        _ => {}
    }
    // What tells the two protocols apart holds for whatever a request of Kong's begins with.
    if let [0x94, 0x00, third, fourth, ..] = *stream
        && !whole.requests.is_empty()
    {
        assert_eq!(Protocol::of([0x94, 0x00, third, fourth]), Protocol::MsgPack);
    }
}

const IN_THE_MIDDLE: &str = "not a request: it ends in the middle";

/// What was read of a stream.
#[derive(Debug, PartialEq)]
pub(super) struct Read {
    /// Each with how many bytes it took.
    pub(super) requests: Vec<(Comparable, usize)>,
    /// Why it could not be read on; empty at a good end.
    pub(super) end: String,
}

/// A request, in which a NaN is as good as another.
#[derive(Debug)]
pub(super) struct Comparable(pub(super) Request);

impl PartialEq for Comparable {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0 || format!("{self:?}") == format!("{other:?}")
    }
}

pub(super) fn read(pieces: &[&[u8]]) -> Read {
    let mut codec = Codec::default();
    let mut received = BytesMut::new();
    let mut read = Read { requests: Vec::new(), end: String::new() };
    for (number, piece) in pieces.iter().enumerate() {
        received.extend_from_slice(piece);
        let is_last = number + 1 == pieces.len();
        loop {
            let (before, room) = (received.len(), received.capacity());
            let decoded = if is_last { codec.decode_eof(&mut received) } else { codec.decode(&mut received) };
            assert!(received.capacity() <= room, "memory for what is not there");
            match decoded {
                Ok(Some(request)) => read.requests.push((Comparable(request), before - received.len())),
                Ok(None) => break,
                Err(error) => {
                    read.end = error.to_string();
                    return read;
                }
            }
        }
    }
    read
}

/// The double's decoder finds the same message, of the same length.
fn is_as_others_read_it(message: &[u8], request: &Comparable) {
    let value = Value::deserialize(&mut rmp_serde::Deserializer::from_read_ref(message)).unwrap();
    let (theirs, length) = unpack(message).expect("a message");
    assert_eq!(length, message.len());
    let ours = lua(&value);
    assert!(is_same(&ours, &theirs), "{ours:?}, not {theirs:?}");
    let (values, depth) = extent(&value);
    assert!(values <= MANY.min(message.len()) && depth <= DEEP, "{values} values, {depth} deep");
    let Lua::List(elements) = theirs else { panic!("{theirs:?}") };
    assert_eq!(elements.len(), 4);
    assert_eq!(elements[0], Lua::Number(0.0));
    assert_eq!(elements[1], Lua::Number(request.0.message_id as f64));
    let Lua::List(arguments) = &elements[3] else { panic!("{elements:?}") };
    let argument = arguments.first().unwrap_or(&Lua::Nil);
    match &request.0.call {
        Call::CloseInstance { instance } | Call::InstanceStatus { instance } => {
            assert_eq!(*argument, Lua::Number(*instance as f64));
        }
        Call::HandleEvent { instance: Some(instance), phase } => {
            says(argument, "InstanceId", &Lua::Number(*instance as f64));
            says(argument, "EventName", &Lua::str(phase));
        }
        Call::HandleEvent { instance: None, phase } => says(argument, "EventName", &Lua::str(phase)),
        Call::StartInstance { plugin, config } => {
            says(argument, "Name", &Lua::str(plugin));
            says(argument, "Config", &Lua::str(config));
        }
        Call::Step { event, .. } => says(argument, "EventId", &Lua::Number(*event as f64)),
        Call::GetStatus | Call::Unknown { .. } => {}
    }
}

/// Somewhere: no table of Lua's has a key twice, but bytes may.
fn says(argument: &Lua, key: &str, value: &Lua) {
    let Lua::Map(entries) = argument else { panic!("{argument:?}") };
    let is_said = |(name, said): &(Lua, Lua)| name.as_bytes() == Some(key.as_bytes()) && said == value;
    assert!(entries.iter().any(is_said), "no {key} {value:?} in {argument:?}");
}

/// Whether two values are the same, of which a NaN is as good as another.
fn is_same(one: &Lua, other: &Lua) -> bool {
    match (one, other) {
        (Lua::Number(one), Lua::Number(other)) => one.is_nan() && other.is_nan() || one == other,
        (Lua::List(one), Lua::List(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| is_same(one, other))
        }
        (Lua::Map(one), Lua::Map(other)) => {
            one.len() == other.len()
                && one
                    .iter()
                    .zip(other)
                    .all(|(one, other)| is_same(&one.0, &other.0) && is_same(&one.1, &other.1))
        }
        (one, other) => one == other,
    }
}

/// A value as Lua would hold it.
pub(super) fn lua(value: &Value) -> Lua {
    match value {
        Value::Nil => Lua::Nil,
        Value::Bool(boolean) => Lua::Bool(*boolean),
        Value::Integer(integer) => Lua::Number(*integer as f64),
        Value::Float(float) => Lua::Number(*float),
        Value::Bytes(bytes) => Lua::Str(bytes.clone()),
        Value::Array(items) => Lua::List(items.iter().map(lua).collect()),
        Value::Map(entries) => {
            let entries = entries.iter().map(|(key, item)| (lua(key), lua(item)));
            // No table has such keys.
            let is_key =
                |key: &Lua| *key != Lua::Nil && !matches!(key, Lua::Number(number) if number.is_nan());
            Lua::table(entries.filter(|(key, _)| is_key(key)).collect())
        }
    }
}

/// How many values there are, and how deep they are nested.
fn extent(value: &Value) -> (usize, usize) {
    let inside: Vec<&Value> = match value {
        Value::Array(items) => items.iter().collect(),
        Value::Map(entries) => entries.iter().flat_map(|(key, item)| [key, item]).collect(),
        _ => Vec::new(),
    };
    inside
        .into_iter()
        .map(extent)
        .fold((1, 1), |(values, depth), (more, deeper)| (values + more, depth.max(deeper + 1)))
}

/// Whatever is answered to a request is one message, and says to Kong what was meant.
fn replies_are_as_kong_reads_them(Comparable(Request { message_id, call }): &Comparable) {
    let id = *message_id;
    let number = Lua::Number(id as f64);
    let instance = Lua::record([("Name", "mtls-auth".into()), ("Id", number.clone())]);
    reads(id, ReplyBody::Instance { instance: id }, Lua::Nil, instance);
    reads(
        id,
        ReplyBody::NoInstance { instance: id },
        Lua::str(format!("no plugin instance #{id}")),
        Lua::Nil,
    );
    let ended = Lua::record([("Data", "ret".into()), ("EventId", number)]);
    reads(id, ReplyBody::Return { event: id }, Lua::Nil, ended);
    let version = ("Version", crate::schema::VERSION.into());
    let status = Lua::record([("Pid", Lua::number(7)), version, ("ProofKey", "ab".into())]);
    reads(id, ReplyBody::Status { pid: 7, proof_key: "ab".into() }, Lua::Nil, status);
    // A string would let the request pass.
    reads(id, ReplyBody::Fault("f"), Lua::record([("fault", "f".into())]), Lua::Nil);
    match call {
        Call::Unknown { method } => reads(id, ReplyBody::Error(method.clone()), Lua::str(method), Lua::Nil),
        Call::Step { event, data } => {
            let (understood, calls) = run(data);
            is_what_was_said(&lua(data), &understood);
            let set = calls.iter().find(|call| call.method == "kong.service.request.set_headers");
            sets(&set.expect("it is called").args[0], &understood.set);
            for PdkCall { method, args } in calls {
                let asked = Lua::record([("Method", method.into()), ("Args", Lua::from(&json!(args)))]);
                let asked = Lua::record([("Data", asked), ("EventId", Lua::Number(*event as f64))]);
                reads(id, ReplyBody::Call { event: *event, method, args }, Lua::Nil, asked);
            }
        }
        _ => {}
    }
}

fn reads(message_id: u64, body: ReplyBody, error: Lua, result: Lua) {
    let meant = Lua::List(vec![Lua::number(1), Lua::Number(message_id as f64), error, result]);
    let mut stream = BytesMut::new();
    Codec::default().encode(Reply { message_id, body }, &mut stream).unwrap();
    assert_eq!(unpack(&stream), Ok((meant, stream.len())));
}

/// An event of which each call is answered with this.
pub(super) fn run(answer: &Value) -> (Understood, Vec<PdkCall>) {
    let (tell, told) = mpsc::channel();
    let event = Event::new(&Spares::default(), |exchange| async move {
        let understood = answers::ask(&mut MsgPackPdk(exchange)).await;
        tell.send(understood).unwrap();
        Verdict::Proceed
    });
    let calls = answers::run(event, answer);
    (told.recv().unwrap(), calls)
}

/// What an event makes of an answer is what there is in it. An error may take its place, but never a part of it.
fn is_what_was_said(answer: &Lua, understood: &Understood) {
    if let Ok(headers) = &understood.headers {
        assert_eq!(Some(headers), table(answer).as_ref());
    }
    assert_eq!(understood.is_authenticated, *answer != Lua::Nil);
    assert_eq!(understood.is_trusted, *answer == Lua::Bool(true));
    assert_eq!(understood.chain.as_deref(), answer.as_bytes());
    let text = answer.as_bytes().and_then(|bytes| std::str::from_utf8(bytes).ok());
    assert_eq!(understood.client_ip.as_deref(), text);
    match &understood.consumer {
        Err(_) => {}
        Ok(None) => assert_eq!(*answer, Lua::Nil),
        Ok(Some(consumer)) => {
            says(answer, "id", &Lua::str(&consumer.id));
            for (field, text) in [("username", &consumer.username), ("custom_id", &consumer.custom_id)] {
                if let Some(text) = text {
                    says(answer, field, &Lua::str(text));
                }
            }
        }
    }
}

/// A table of names and values, as Kong has headers.
fn table(answer: &Lua) -> Option<Headers> {
    let string = |value: &Lua| value.as_bytes().map(<[u8]>::to_vec);
    match answer {
        Lua::Map(entries) => entries
            .iter()
            .map(|(name, value)| match value {
                Lua::List(values) => Some((string(name)?, values.iter().map(string).collect::<Option<_>>()?)),
                value => Some((string(name)?, vec![string(value)?])),
            })
            .collect(),
        Lua::List(items) if items.is_empty() => Some(Vec::new()),
        _ => None,
    }
}

/// Each header that was to be set is, and each that was to be removed has an empty list. The last counts of one name.
fn sets(table: &serde_json::Value, meant: &[(String, Option<String>)]) {
    let table = table.as_object().expect("a table");
    for (name, value) in table {
        let (_, last) = meant.iter().rev().find(|(meant, _)| meant == name).expect("only what is meant");
        assert_eq!(*value, last.as_ref().map_or_else(|| json!([]), |text| json!(text)));
    }
    assert!(meant.iter().all(|(name, _)| table.contains_key(name)));
}
