//! What must hold of whatever Kong may say, of whatever is almost that, and of anything else.

use kong_double::Value as Lua;
use kong_double::pack::{MapOrder, pack};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::RngSeed;
use prost::Message;

use super::protobuf::{Entry, Item, Kind, List, Table};
use super::{msgpack, msgpack_frames, protobuf, protobuf_frames};
use crate::pdk::{Headers, MAX_HEADERS, PdkFault};
use crate::wire::msgpack::Call;
use crate::wire::protobuf::frame::{MAX_ANSWER, MAX_CALL};
use crate::wire::protobuf::messages::{Command, HandleEvent, InstanceId, RpcCall, StartInstance};

/// The same cases in each run: the fuzzer is there to look for others.
fn config() -> ProptestConfig {
    ProptestConfig { failure_persistence: None, rng_seed: RngSeed::Fixed(9440), ..ProptestConfig::default() }
}

/// Bytes as they may stand in a header, UTF-8 or not. Some are longer than the short forms of either protocol.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => vec(any::<u8>(), 0..6),
        4 => "[a-z-]{1,12}".prop_map(String::into_bytes),
        1 => vec(any::<u8>(), 120..300),
    ]
}

/// Headers as Kong has them: a table of lists, in which an only value may stand for itself.
fn headers(most: usize) -> impl Strategy<Value = Vec<(Vec<u8>, Vec<Vec<u8>>)>> {
    btree_map(bytes(), vec(bytes(), 0..4), 0..most).prop_map(|headers| headers.into_iter().collect())
}

fn map_order() -> impl Strategy<Value = MapOrder> {
    select(&[MapOrder::Given, MapOrder::Reversed][..])
}

/// Any value of Lua's.
fn value() -> impl Strategy<Value = Lua> {
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

/// The message, and the call that it is; a step stands with what Kong gives to it.
#[derive(Clone, Debug)]
enum Said {
    Start(String, String),
    Close(u64),
    Status(u64),
    Event(u64, String),
    Step(u64, Lua),
}

fn said() -> impl Strategy<Value = Said> {
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
    fn message(&self, message_id: u64, order: MapOrder) -> Vec<u8> {
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
        // Not packed as one list: an argument table may be empty only where Kong's is.
        let mut message = vec![0x94, 0x00];
        message.extend(pack(&number(message_id), order));
        message.extend(pack(&method.into(), order));
        message.push(0x91);
        message.extend(pack(&argument, order));
        message
    }

    fn is(&self, call: &Call) -> bool {
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
                let (theirs, _) = kong_double::pack::unpack(&pack(data, MapOrder::Given)).unwrap();
                id == event && sorted(theirs) == sorted(msgpack::lua(read))
            }
            _ => false,
        }
    }
}

fn sorted(value: Lua) -> Lua {
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
fn cut<'a>(stream: &'a [u8], places: &[Index]) -> Vec<&'a [u8]> {
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
fn edited() -> impl Strategy<Value = Vec<(Index, u8, Vec<u8>)>> {
    vec((any::<Index>(), 0..3_u8, vec(any::<u8>(), 1..6)), 1..4)
}

fn edit(stream: &mut Vec<u8>, edits: &[(Index, u8, Vec<u8>)]) {
    for (at, left_out, put_in) in edits {
        let at = at.index(stream.len() + 1);
        let end = (at + usize::from(*left_out)).min(stream.len());
        stream.splice(at..end, put_in.iter().copied());
    }
}

fn msgpack_table(headers: &Headers) -> Lua {
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

fn protobuf_table(headers: &Headers) -> Table {
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

/// What an event is told of its request's headers, where Kong says this in MsgPack:1.
fn told_in_msgpack(table: &Lua) -> Result<Headers, PdkFault> {
    let message = Said::Step(1, table.clone()).message(1, MapOrder::Given);
    let mut read = msgpack::read(&[&message]);
    assert_eq!(read.end, "");
    let Some((msgpack::Comparable(request), _)) = read.requests.pop() else { panic!("no request") };
    let Call::Step { data, .. } = request.call else { panic!("{request:?}") };
    msgpack::run(&data).0.headers
}

/// The same in ProtoBuf:1.
fn told_in_protobuf(message: Vec<u8>) -> Result<Headers, PdkFault> {
    protobuf::run(&Some(message.into())).0.headers
}

/// With names that are empty: what encodes the messages leaves them out, and so may Kong, which has no such headers.
fn without_empty_names(headers: Headers) -> Headers {
    headers.into_iter().filter(|(name, _)| !name.is_empty()).collect()
}

/// What is no value of a header.
fn rubbish() -> impl Strategy<Value = Lua> {
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
const RUBBISH: [&[u8]; 9] = [
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

proptest! {
    #![proptest_config(config())]

    #[test]
    fn it_holds_of_any_bytes(stream in vec(any::<u8>(), 0..300)) {
        msgpack_frames(&stream);
        protobuf_frames(&stream);
    }

    #[test]
    fn whatever_kong_calls_in_msgpack_is_read_however_it_is_cut(
        said in vec(said(), 1..6),
        message_id in 0..=1_u64 << 53,
        order in map_order(),
        places in vec(any::<Index>(), 0..9),
    ) {
        let stream: Vec<u8> = said.iter().flat_map(|said| said.message(message_id, order)).collect();
        let read = msgpack::read(&cut(&stream, &places));
        prop_assert_eq!(read.end, "");
        prop_assert_eq!(read.requests.len(), said.len());
        for ((msgpack::Comparable(request), _), said) in read.requests.iter().zip(&said) {
            prop_assert_eq!(request.message_id, message_id);
            prop_assert!(said.is(&request.call), "{:?} is read as {:?}", said, request);
        }
        msgpack_frames(&stream);
    }

    #[test]
    fn it_holds_of_what_is_almost_msgpack_of_kongs(
        said in vec(said(), 1..4),
        order in map_order(),
        edits in edited(),
    ) {
        let mut stream: Vec<u8> = said.iter().flat_map(|said| said.message(300, order)).collect();
        edit(&mut stream, &edits);
        msgpack_frames(&stream);
    }

    #[test]
    fn whatever_kong_calls_in_protobuf_is_read_however_it_is_cut(
        (sequence, instance_id) in any::<(i64, i32)>(),
        (one, other) in (bytes(), bytes()),
        places in vec(any::<Index>(), 0..9),
    ) {
        let commands = [
            Command::StartInstance(StartInstance { name: one.clone(), config: other }),
            Command::CloseInstance(InstanceId { instance_id }),
            Command::HandleEvent(HandleEvent { instance_id, event_name: one }),
        ];
        let calls = commands.map(|command| RpcCall { sequence, command: Some(command) });
        let stream = frames(calls.iter().map(Message::encode_to_vec));
        let read = protobuf::read(&cut(&stream, &places), MAX_CALL);
        let decoded: Vec<_> = read.frames.into_iter().map(|frame| RpcCall::decode(frame).unwrap()).collect();
        prop_assert_eq!(&decoded[..], &calls);
        prop_assert!(read.rest.is_empty() && !read.is_too_long);
        protobuf_frames(&stream);
    }

    #[test]
    fn it_holds_of_what_is_almost_protobuf_of_kongs(
        headers in headers(6),
        call in any::<(i64, i32)>(),
        edits in edited(),
    ) {
        let (sequence, instance_id) = call;
        let event = HandleEvent { instance_id, event_name: b"access".into() };
        let call = RpcCall { sequence, command: Some(Command::HandleEvent(event)) };
        for mut message in [protobuf_table(&headers).encode_to_vec(), call.encode_to_vec()] {
            // Within a frame, so that it is looked at, and anywhere.
            let mut stream = frames([message.clone()]);
            edit(&mut stream, &edits);
            protobuf_frames(&stream);
            edit(&mut message, &edits);
            protobuf_frames(&frames([message]));
        }
    }

    #[test]
    fn headers_are_told_exactly_in_either_protocol(headers in headers(30)) {
        let headers = without_empty_names(headers);
        prop_assert_eq!(told_in_msgpack(&msgpack_table(&headers)), Ok(headers.clone()));
        prop_assert_eq!(told_in_protobuf(protobuf_table(&headers).encode_to_vec()), Ok(headers));
    }

    #[test]
    fn headers_with_rubbish_among_them_are_a_fault_and_no_part_of_them(
        headers in headers(6),
        name in bytes(),
        rubbish in rubbish(),
        first in any::<bool>(),
    ) {
        let Lua::Map(mut entries) = msgpack_table(&vec![(b"host".to_vec(), vec![b"x".to_vec()])]) else {
            unreachable!("a table with a name in it")
        };
        if let Lua::Map(more) = msgpack_table(&headers) {
            entries.extend(more);
        }
        entries.retain(|(other, _)| other.as_bytes() != Some(&name[..]));
        entries.insert(if first { 0 } else { entries.len() }, (Lua::Str(name), rubbish.clone()));
        prop_assert_eq!(told_in_msgpack(&Lua::Map(entries)), Err(PdkFault));
        // A list of values with one in it that is none.
        let list = Lua::List(vec![Lua::str("a"), rubbish]);
        prop_assert_eq!(told_in_msgpack(&Lua::record([("x", list)])), Err(PdkFault));
    }

    /// Each kind of `google.protobuf.Value` but the two, and each of them where it may not be.
    #[test]
    fn headers_in_protobuf_with_rubbish_among_them_are_a_fault_and_no_part_of_them(
        headers in headers(6),
        at in any::<Index>(),
        in_a_list in any::<bool>(),
        rubbish in select(&RUBBISH[..]),
    ) {
        let field = |number: u8, content: &[u8]| [&[number << 3 | 2, content.len() as u8], content].concat();
        let item = if in_a_list { field(6, &field(1, rubbish)) } else { rubbish.to_vec() };
        let entry = [field(1, b"x"), field(2, &item)].concat();
        let headers = without_empty_names(headers);
        let mut entries: Vec<_> =
            headers.iter().map(|header| protobuf_table(&vec![header.clone()]).encode_to_vec()).collect();
        entries.insert(at.index(entries.len() + 1), field(1, &entry));
        prop_assert_eq!(told_in_protobuf(entries.concat()), Err(PdkFault));
    }

    /// Of a message of which only a beginning has come nothing is decoded, and nothing is set aside for the rest.
    #[test]
    fn what_is_only_declared_takes_no_memory(length in any::<u32>(), behind in vec(any::<u8>(), 0..20)) {
        let declared = length.to_le_bytes();
        let read = protobuf::read(&[&declared, &behind], MAX_ANSWER);
        prop_assert_eq!(read.is_too_long, length as usize > MAX_ANSWER);
        prop_assert!(read.is_too_long || read.frames.len() <= 1 || (length as usize) < behind.len());
        for marker in [0xc6, 0xc9, 0xdb, 0xdd, 0xdf] {
            let declared = [&[0x94, 0x00, 0x01, marker][..], &length.to_be_bytes()].concat();
            msgpack_frames(&[&declared[..], &behind].concat());
            let end = msgpack::read(&[&declared, &behind]).end;
            if length > 16 << 20 {
                prop_assert!(end.contains("bytes"), "{}", end);
            }
        }
    }
}

fn frames(messages: impl IntoIterator<Item = Vec<u8>>) -> Vec<u8> {
    let frame = |message: Vec<u8>| [&(message.len() as u32).to_le_bytes()[..], &message].concat();
    messages.into_iter().flat_map(frame).collect()
}

#[test]
fn as_many_headers_as_kong_hands_out_are_told_exactly() {
    let many = |count: usize| vec![b"value".to_vec(); count];
    let one_of_each = |number| (format!("x-{number}").into_bytes(), many(1));
    for headers in [
        (0..MAX_HEADERS).map(one_of_each).collect(),
        vec![(b"x".to_vec(), many(MAX_HEADERS))],
        vec![(b"x".to_vec(), many(MAX_HEADERS / 2)), (b"y".to_vec(), many(MAX_HEADERS / 2))],
        vec![(b"x\xff".to_vec(), vec![]), (b"y".to_vec(), vec![vec![], vec![0xff; 8192]])],
        vec![],
    ] {
        assert_eq!(told_in_msgpack(&msgpack_table(&headers)), Ok(headers.clone()));
        assert_eq!(told_in_protobuf(protobuf_table(&headers).encode_to_vec()), Ok(headers));
    }
}

#[test]
fn an_answer_that_is_too_long_for_any_is_a_fault_and_vouches_for_nothing() {
    let (understood, _) = protobuf::run(&None);
    assert_eq!(understood.headers, Err(PdkFault));
    assert!(!understood.is_trusted && understood.client_ip.is_none() && understood.chain.is_none());
}

#[test]
fn nesting_ends_somewhere_and_no_depth_harms() {
    let read_at = |depth: usize, nest: &[u8]| {
        let stream =
            [b"\x94\x00\x01\xa4Step\x91\x82\xa7EventId\x01\xa4Data".to_vec(), nest.repeat(depth), vec![0xc0]]
                .concat();
        msgpack_frames(&stream);
        msgpack::read(&[&stream]).requests.len()
    };
    // A list in a list, and a table in a table, by its value and by its key.
    for nest in [&b"\x91"[..], b"\x81\xa1k"] {
        assert_eq!(read_at(20, nest), 1);
        for depth in [100, 1000, 30_000] {
            assert_eq!(read_at(depth, nest), 0, "{depth}");
        }
    }
    // Groups within groups, which are no field of any message here.
    for depth in [20, 100, 1000, 30_000] {
        let groups = [vec![0x0b; depth], vec![0x0c; depth]].concat();
        protobuf_frames(&frames([groups]));
    }
}
