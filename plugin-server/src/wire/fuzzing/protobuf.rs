//! This knows what must hold of any bytes that are read as ProtoBuf:1.

use std::sync::mpsc;

use bytes::{Bytes, BytesMut};
use prost::Message;

use self::by_hand::Field;
use super::answers::{self, Understood};
use crate::access::Verdict;
use crate::event::{Event, Spares};
use crate::pdk::Headers;
use crate::wire::protobuf::frame::{self, LENGTH, MAX_ANSWER, MAX_CALL};
use crate::wire::protobuf::messages::{InstanceStatus, PluginNames, Returned, RpcCall, RpcReturn};
use crate::wire::protobuf::pdk::{Answer, Call, ProtoBufPdk};

/// The format as the tests of the built program have it.
#[allow(dead_code, reason = "only its fields are read here")]
#[path = "../../../tests/common/protobuf.rs"]
mod by_hand;

/// `google.protobuf.Struct` with bytes for strings, read by what `prost` derives.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Table {
    #[prost(message, repeated, tag = "1")]
    pub(super) fields: Vec<Entry>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Entry {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) key: Vec<u8>,
    #[prost(message, optional, tag = "2")]
    pub(super) value: Option<Item>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Item {
    #[prost(oneof = "Kind", tags = "3, 6")]
    pub(super) kind: Option<Kind>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(super) enum Kind {
    #[prost(bytes = "vec", tag = "3")]
    String(Vec<u8>),
    #[prost(message, tag = "6")]
    List(List),
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct List {
    #[prost(message, repeated, tag = "1")]
    pub(super) values: Vec<Item>,
}

/// Reads a stream of Kong's frames, each of them as a call and as the answer to a PDK call.
///
/// # Panics
/// Where what must hold does not.
pub fn protobuf_frames(stream: &[u8]) {
    assert_eq!(read(&[stream], MAX_CALL), slices(stream, MAX_CALL));
    let whole = read(&[stream], MAX_ANSWER);
    assert_eq!(whole, slices(stream, MAX_ANSWER));
    for pieces in super::cuts(stream) {
        assert_eq!(read(&pieces, MAX_ANSWER), whole, "in other pieces");
    }
    for frame in whole.frames.into_iter().take(super::LOOKED_INTO) {
        if let Ok(call) = RpcCall::decode(frame.clone()) {
            assert_eq!(RpcCall::decode(&*call.encode_to_vec()), Ok(call.clone()));
            replies_are_as_kong_reads_them(&call);
        }
        is_what_was_said(&frame, &run(&Some(frame.clone())).0);
    }
}

/// What was read of a stream.
#[derive(Debug, PartialEq)]
pub(super) struct Read {
    pub(super) frames: Vec<Bytes>,
    /// What is left of it.
    pub(super) rest: Bytes,
    /// Whether the rest declares more than is allowed.
    pub(super) is_too_long: bool,
}

pub(super) fn read(pieces: &[&[u8]], most: usize) -> Read {
    let mut received = BytesMut::new();
    let mut frames = Vec::new();
    let mut is_too_long = false;
    for piece in pieces {
        received.extend_from_slice(piece);
        loop {
            let room = received.capacity();
            let taken = frame::take(&mut received, most);
            assert!(received.capacity() <= room, "memory for what is not there");
            match taken {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(_) => {
                    is_too_long = true;
                    break;
                }
            }
        }
    }
    Read { frames, rest: received.freeze(), is_too_long }
}

/// The same by nothing but lengths.
fn slices(mut stream: &[u8], most: usize) -> Read {
    let mut frames = Vec::new();
    let mut is_too_long = false;
    while let Some(length) = stream.first_chunk::<LENGTH>() {
        let length = u32::from_le_bytes(*length) as usize;
        is_too_long = length > most;
        if is_too_long || stream.len() - LENGTH < length {
            break;
        }
        frames.push(Bytes::copy_from_slice(&stream[LENGTH..LENGTH + length]));
        stream = &stream[LENGTH + length..];
    }
    Read { frames, rest: Bytes::copy_from_slice(stream), is_too_long }
}

/// An event of which each call is answered with this.
pub(super) fn run(answer: &Answer) -> (Understood, Vec<Call>) {
    let (tell, told) = mpsc::channel();
    let event = Event::new(&Spares::default(), |exchange| async move {
        let understood = answers::ask(&mut ProtoBufPdk(exchange)).await;
        tell.send(understood).unwrap();
        Verdict::Proceed
    });
    let calls = answers::run(event, answer);
    let understood = told.recv().unwrap();
    for call in &calls {
        let arguments = by_hand::fields(&call.argument).expect("a message");
        if call.method == "kong.service.request.set_headers" {
            sets(&arguments, &understood.set);
        } else if call.method == "kong.ctx.shared.set" {
            let item = by_hand::bytes(1, by_hand::bytes(3, &understood.text));
            let group =
                [Field::Bytes(1, "authenticated_groups".into()), Field::Bytes(2, by_hand::bytes(6, item))];
            assert_eq!(arguments, group);
        }
    }
    (understood, calls)
}

/// Each header that was to be set is, and each that was to be removed has an empty list.
fn sets(arguments: &[Field], meant: &[(String, Option<String>)]) {
    let entries = meant.iter().map(|(name, value)| {
        let value = match value {
            Some(text) => by_hand::bytes(3, text),
            None => by_hand::bytes(6, []),
        };
        // What is empty is left out, but for a oneof.
        let name = if name.is_empty() { Vec::new() } else { by_hand::bytes(1, name) };
        Field::Bytes(1, [name, by_hand::bytes(2, value)].concat())
    });
    assert_eq!(arguments, entries.collect::<Vec<_>>());
}

/// What an event makes of an answer is what there is in it. An error may take its place, but never a part of it.
fn is_what_was_said(answer: &[u8], understood: &Understood) {
    if let Ok(headers) = &understood.headers {
        assert_eq!(Some(headers), table(answer).as_ref());
    }
    assert_eq!(understood.is_authenticated, !answer.is_empty());
    assert_eq!(understood.consumer == Ok(None), answer.is_empty());
    // The reader by hand knows fewer kinds of fields.
    let Some(fields) = by_hand::fields(answer) else { return };
    if let Ok(Some(consumer)) = &understood.consumer {
        let texts =
            [(1, Some(&consumer.id)), (3, consumer.username.as_ref()), (4, consumer.custom_id.as_ref())];
        for (tag, text) in texts.into_iter().filter_map(|(tag, text)| Some((tag, text?))) {
            assert!(fields.contains(&Field::Bytes(tag, text.clone().into_bytes())), "{tag} {text}");
        }
    }
    let last = fields.iter().rev().find(|field| matches!(field, Field::Bytes(1, _) | Field::Number(1, _)));
    match last {
        Some(Field::Bytes(_, text)) => {
            // None where another field is broken.
            let is_text = understood.chain.as_ref().is_none_or(|chain| chain == text);
            assert!(is_text && !understood.is_trusted);
            assert!(understood.client_ip.as_ref().is_none_or(|ip| ip.as_bytes() == text));
        }
        Some(Field::Number(_, number)) => {
            assert!(!understood.is_trusted || *number != 0);
            assert_eq!((&understood.chain, &understood.client_ip), (&None, &None));
        }
        None => {
            assert!(!understood.is_trusted);
            assert_eq!((&understood.chain, &understood.client_ip), (&None, &None));
        }
    }
}

/// The headers in an answer, if every value there is a string or a list of some.
fn table(answer: &[u8]) -> Option<Headers> {
    let string = |item: Item| match item.kind? {
        Kind::String(text) => Some(text),
        Kind::List(_) => None,
    };
    let entry = |Entry { key, value }| match value?.kind? {
        Kind::String(text) => Some((key, vec![text])),
        Kind::List(list) => Some((key, list.values.into_iter().map(string).collect::<Option<_>>()?)),
    };
    Table::decode(answer).ok()?.fields.into_iter().map(entry).collect()
}

/// Whatever is answered to a call is one frame, and says to Kong what was meant.
fn replies_are_as_kong_reads_them(call: &RpcCall) {
    let status = InstanceStatus { name: "mtls-auth".into(), instance_id: 1 };
    let names = PluginNames { names: vec!["mtls-auth".into()] };
    for (returned, meant) in [
        (None, None),
        (
            Some(Returned::InstanceStatus(status)),
            Some(Field::Bytes(33, [by_hand::bytes(1, "mtls-auth"), by_hand::number(2, 1)].concat())),
        ),
        (Some(Returned::PluginNames(names)), Some(Field::Bytes(31, by_hand::bytes(1, "mtls-auth")))),
    ] {
        let reply = RpcReturn { sequence: call.sequence, returned };
        let mut stream = BytesMut::new();
        frame::put(&mut stream, &reply.encode_to_vec());
        let Read { frames, rest, .. } = slices(&stream, MAX_CALL);
        assert!(frames.len() == 1 && rest.is_empty());
        // In two's complement, and left out where it is 0.
        let sequence = (call.sequence != 0).then_some(Field::Number(1, call.sequence as u64));
        let fields: Vec<_> = sequence.into_iter().chain(meant).collect();
        assert_eq!(by_hand::fields(&frames[0]), Some(fields));
    }
}
