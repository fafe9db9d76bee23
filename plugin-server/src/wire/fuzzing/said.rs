//! This knows whatever Kong may say in either protocol, as strategies of `proptest`, and how that goes wrong.

use kong_double::Value as Lua;
use kong_double::pack::{MapOrder, pack, unpack};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::msgpack;
use super::protobuf::{Entry, Item, Kind, List, Table};
use crate::pdk::Headers;
use crate::wire::msgpack::Call;

/// Bytes as they may stand in a header, UTF-8 or not. Some are longer than the short forms of either protocol.
pub(super) fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => vec(any::<u8>(), 0..6),
        4 => "[a-z-]{1,12}".prop_map(String::into_bytes),
        1 => vec(any::<u8>(), 120..300),
    ]
}

/// Headers as Kong has them: a table of lists, in which an only value may stand for itself.
pub(super) fn headers(most: usize) -> impl Strategy<Value = Vec<(Vec<u8>, Vec<Vec<u8>>)>> {
    btree_map(bytes(), vec(bytes(), 0..4), 0..most).prop_map(|headers| headers.into_iter().collect())
}

pub(super) fn map_order() -> impl Strategy<Value = MapOrder> {
    select(&[MapOrder::Given, MapOrder::Reversed][..])
}

/// Any value of Lua's.
pub(super) fn value() -> impl Strategy<Value = Lua> {
    let leaf = prop_oneof![
        Just(Lua::Nil),
        any::<bool>().prop_map(Lua::Bool),
        any::<i32>().prop_map(Lua::number),
        any::<f64>().prop_filter("compares with itself", |number| !number.is_nan()).prop_map(Lua::Number),
        bytes().prop_map(Lua::Str),
        bytes().prop_map(Lua::Bin),
    ];
    leaf.prop_recursive(6, 40, 5, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..5).prop_map(Lua::List),
            btree_map(bytes(), inner, 0..5).prop_map(|entries| {
                Lua::table(entries.into_iter().map(|(key, value)| (Lua::Str(key), value)).collect())
            }),
        ]
    })
}

/// A call of Kong's in MsgPack:1.
#[derive(Clone, Debug)]
pub(super) enum Said {
    Start(String, String),
    Close(u64),
    Status(u64),
    Event(u64, String),
    Step(u64, Lua),
}

pub(super) fn said() -> impl Strategy<Value = Said> {
    // Lua has no integers beyond.
    let id = || prop_oneof![0..300_u64, 0..=1_u64 << 53];
    let text = || "\\PC{0,40}";
    prop_oneof![
        (text(), text()).prop_map(|(name, config)| Said::Start(name, config)),
        id().prop_map(Said::Close),
        id().prop_map(Said::Status),
        (id(), text()).prop_map(|(instance, phase)| Said::Event(instance, phase)),
        (id(), value()).prop_map(|(event, data)| Said::Step(event, data)),
    ]
}

impl Said {
    pub(super) fn message(&self, message_id: u64, order: MapOrder) -> Vec<u8> {
        let number = |id: u64| Lua::Number(id as f64);
        let (method, argument) = match self {
            Self::Start(name, config) => (
                "plugin.StartInstance",
                Lua::record([("Name", name.as_str().into()), ("Config", config.as_str().into())]),
            ),
            Self::Close(instance) => ("plugin.CloseInstance", number(*instance)),
            Self::Status(instance) => ("plugin.InstanceStatus", number(*instance)),
            Self::Event(instance, phase) => (
                "plugin.HandleEvent",
                Lua::record([("InstanceId", number(*instance)), ("EventName", phase.as_str().into())]),
            ),
            Self::Step(event, data) => {
                ("plugin.StepMultiMap", Lua::record([("EventId", number(*event)), ("Data", data.clone())]))
            }
        };
        // Not as one list, which the double packs as a table where the last is nil.
        let mut message = vec![0x94, 0x00];
        message.extend(pack(&number(message_id), order));
        message.extend(pack(&method.into(), order));
        message.push(0x91);
        message.extend(pack(&argument, order));
        message
    }

    pub(super) fn is(&self, call: &Call) -> bool {
        match (self, call) {
            (Self::Start(name, config), Call::StartInstance { plugin, config: read }) => {
                (name, config) == (plugin, read)
            }
            (Self::Close(id), Call::CloseInstance { instance })
            | (Self::Status(id), Call::InstanceStatus { instance }) => id == instance,
            (Self::Event(id, name), Call::HandleEvent { instance, phase }) => {
                (Some(*id), name) == (*instance, phase)
            }
            // As Kong packs it: what it writes as `bin` is a string like any other, holes are none.
            (Self::Step(id, data), Call::Step { event, data: read }) => {
                let (theirs, _) = unpack(&pack(data, MapOrder::Given)).unwrap();
                id == event && sorted(theirs) == sorted(msgpack::lua(read))
            }
            _ => false,
        }
    }
}

pub(super) fn sorted(value: Lua) -> Lua {
    match value {
        Lua::List(items) => Lua::List(items.into_iter().map(sorted).collect()),
        Lua::Map(entries) => {
            let mut entries: Vec<_> = entries.into_iter().map(|(key, item)| (key, sorted(item))).collect();
            entries.sort_by_key(|(key, _)| format!("{key:?}"));
            Lua::Map(entries)
        }
        leaf => leaf,
    }
}

/// The stream in pieces that meet at these places.
pub(super) fn cut<'a>(stream: &'a [u8], places: &[Index]) -> Vec<&'a [u8]> {
    let mut places: Vec<_> = places.iter().map(|place| place.index(stream.len() + 1)).collect();
    places.sort_unstable();
    let mut pieces = Vec::new();
    let mut from = 0;
    for place in places.into_iter().chain([stream.len()]) {
        pieces.push(&stream[from..place]);
        from = place;
    }
    pieces
}

/// What is almost a message: bytes of one replaced, put in or left out.
pub(super) fn edited() -> impl Strategy<Value = Vec<(Index, u8, Vec<u8>)>> {
    vec((any::<Index>(), 0..3_u8, vec(any::<u8>(), 1..6)), 1..4)
}

pub(super) fn edit(stream: &mut Vec<u8>, edits: &[(Index, u8, Vec<u8>)]) {
    for (at, left_out, put_in) in edits {
        let at = at.index(stream.len() + 1);
        let end = (at + usize::from(*left_out)).min(stream.len());
        stream.splice(at..end, put_in.iter().copied());
    }
}

pub(super) fn msgpack_table(headers: &Headers) -> Lua {
    let strings = |values: &[Vec<u8>]| values.iter().map(|value| Lua::Str(value.clone())).collect();
    let entry = |(name, values): &(Vec<u8>, Vec<Vec<u8>>)| {
        let value = match &values[..] {
            [only] => Lua::Str(only.clone()),
            values => Lua::List(strings(values)),
        };
        (Lua::Str(name.clone()), value)
    };
    Lua::table(headers.iter().map(entry).collect())
}

pub(super) fn protobuf_table(headers: &Headers) -> Table {
    let string = |text: &Vec<u8>| Item { kind: Some(Kind::String(text.clone())) };
    let entry = |(name, values): &(Vec<u8>, Vec<Vec<u8>>)| {
        let value = match &values[..] {
            [only] => string(only),
            values => Item { kind: Some(Kind::List(List { values: values.iter().map(string).collect() })) },
        };
        Entry { key: name.clone(), value: Some(value) }
    };
    Table { fields: headers.iter().map(entry).collect() }
}

/// What is no value of a header.
pub(super) fn rubbish() -> impl Strategy<Value = Lua> {
    value().prop_filter("may be a header", |value| match value {
        Lua::Str(_) | Lua::Bin(_) | Lua::Nil => false,
        Lua::List(items) => {
            // The double packs a list with holes as a table without them.
            !items.contains(&Lua::Nil) && !items.iter().all(|item| item.as_bytes().is_some())
        }
        Lua::Map(entries) => !entries.is_empty(),
        _ => true,
    })
}

/// In ProtoBuf:1: null, a number, a boolean, a table, a list of nothing, nothing; a string and a list, a string twice, a
/// string and a field that nobody knows.
pub(super) const RUBBISH: [&[u8]; 9] = [
    b"\x08\x00",
    b"\x11\x00\x00\x00\x00\x00\x00\x00\x00",
    b"\x20\x01",
    b"\x2a\x00",
    b"\x32\x02\x0a\x00",
    b"",
    b"\x1a\x01a\x32\x00",
    b"\x1a\x01a\x1a\x01b",
    b"\x1a\x01a\x78\x01",
];

pub(super) fn frames(messages: impl IntoIterator<Item = Vec<u8>>) -> Vec<u8> {
    let frame = |message: Vec<u8>| [&(message.len() as u32).to_le_bytes()[..], &message].concat();
    messages.into_iter().flat_map(frame).collect()
}
