//! What must hold of whatever Kong may say, of whatever is almost that, and of anything else.

use kong_double::Value as Lua;
use kong_double::pack::MapOrder;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::RngSeed;
use prost::Message;

use super::said::{
    RUBBISH, Said, bytes, cut, edit, edited, frames, headers, map_order, msgpack_table, protobuf_table,
    rubbish, said,
};
use super::{msgpack, msgpack_frames, protobuf, protobuf_frames};
use crate::pdk::{Headers, MAX_HEADERS, PdkFault};
use crate::wire::msgpack::Call;
use crate::wire::protobuf::frame::{MAX_ANSWER, MAX_CALL};
use crate::wire::protobuf::messages::{Command, HandleEvent, InstanceId, RpcCall, StartInstance};

/// The same cases in each run: the fuzzer is there to look for others.
fn config() -> ProptestConfig {
    ProptestConfig { failure_persistence: None, rng_seed: RngSeed::Fixed(9440), ..ProptestConfig::default() }
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

/// No header has an empty name, and what encodes ProtoBuf:1 leaves empty fields out.
fn without_empty_names(headers: Headers) -> Headers {
    headers.into_iter().filter(|(name, _)| !name.is_empty()).collect()
}

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
        in_an_entry in 0..8_u8,
        rubbish in select(&RUBBISH[..]),
    ) {
        let field = |number: u8, content: &[u8]| [&[number << 3 | 2, content.len() as u8], content].concat();
        let item = if in_a_list { field(6, &field(1, rubbish)) } else { rubbish.to_vec() };
        let (name, value, unknown) = (field(1, b"x"), field(2, &field(3, b"v")), field(3, b"u"));
        let entry = match in_an_entry {
            // All is right, but there is too much of it, of which a part would be left out; or the value is wrong.
            0 => [name.repeat(2), value],
            1 => [name, value.repeat(2)],
            2 => [name, [value, unknown].concat()],
            _ => [name, field(2, &item)],
        }
        .concat();
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
fn the_number_of_values_ends_somewhere() {
    // A list of so many nils, beside the eight other values of the message.
    let read = |count: u32| {
        let stream = [
            &b"\x94\x00\x01\xa4Step\x91\x82\xa7EventId\x01\xa4Data\xdd"[..],
            &count.to_be_bytes(),
            &vec![0xc0; count as usize],
        ]
        .concat();
        msgpack_frames(&stream);
        msgpack::read(&[&stream])
    };
    assert_eq!(read(60_000).requests.len(), 1);
    for count in [66_000, 1_000_000] {
        let end = read(count).end;
        assert!(end.contains("values"), "{end}");
    }
    // One header with many values, and many with one.
    let headers = |names: usize, values: usize| -> Headers {
        (0..names).map(|number| (format!("x-{number}").into_bytes(), vec![Vec::new(); values])).collect()
    };
    for too_many in [headers(1, 66_000), headers(66_000, 1)] {
        assert_eq!(told_in_protobuf(protobuf_table(&too_many).encode_to_vec()), Err(PdkFault));
    }
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
