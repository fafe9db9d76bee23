use kong_double::recording::Recording;
use kong_double::wire::Wire;
use serde_json::json;

use super::*;

/// A message as any MessagePack library would write it.
fn message(json: serde_json::Value) -> Vec<u8> {
    rmp_serde::to_vec(&json).unwrap()
}

fn decode_all(bytes: &[u8]) -> Result<Vec<Request>, WireError> {
    let mut codec = Codec::default();
    let mut stream = BytesMut::from(bytes);
    let mut requests = Vec::new();
    while let Some(request) = codec.decode(&mut stream)? {
        requests.push(request);
    }
    codec.decode_eof(&mut stream)?;
    Ok(requests)
}

fn refused(bytes: &[u8]) -> String {
    decode_all(bytes).unwrap_err().to_string()
}

#[test]
fn requests_are_found_however_the_stream_is_cut() {
    let stream = [
        message(json!([0, 1, "plugin.StartInstance", [{"Name": "mtls-auth", "Config": "x".repeat(300)}]])),
        message(json!([0, 70_000, "plugin.HandleEvent", [{"InstanceId": 4_503_599_627_370_496_u64, "EventName": "access"}]])),
        message(json!([0, 2, "plugin.HandleEvent", [{"EventName": "access"}]])),
        message(json!([0, 3, "plugin.CloseInstance", [17]])),
        message(json!([0, 4, "plugin.StepMultiMap", [{"EventId": 9, "Data": {"host": ["a", "b"]}}]])),
        message(json!([0, 5, "plugin.Step", [{"EventId": 9}]])),
        message(json!([0, 5, "plugin.StepError", [{"EventId": 9, "Data": "not an answer"}]])),
        message(json!([0, 6, "plugin.GetStatus", []])),
        message(json!([0, 7, "plugin.Dance", [1, 2]])),
    ]
    .concat();
    let whole = decode_all(&stream).unwrap();
    let bytes = |text: &str| Value::Bytes(text.into());
    let hosts = Value::Array(vec![bytes("a"), bytes("b")]);
    let calls = [
        Call::StartInstance { plugin: "mtls-auth".into(), config: "x".repeat(300) },
        Call::HandleEvent { instance: Some(1 << 52), phase: "access".into() },
        Call::HandleEvent { instance: None, phase: "access".into() },
        Call::CloseInstance { instance: 17 },
        Call::Step { event: 9, data: Value::Map(vec![(bytes("host"), hosts)]) },
        Call::Step { event: 9, data: Value::Nil },
        Call::Step { event: 9, data: Value::Nil },
        Call::GetStatus,
        Call::Unknown { method: "plugin.Dance".into() },
    ];
    assert_eq!(
        whole.iter().map(|request| &request.call).collect::<Vec<_>>(),
        calls.iter().collect::<Vec<_>>()
    );
    assert_eq!(whole[1].message_id, 70_000);

    for size in [1, 2, 3, 7, 100] {
        let mut codec = Codec::default();
        let mut received = BytesMut::new();
        let mut requests = Vec::new();
        for piece in stream.chunks(size) {
            received.extend_from_slice(piece);
            while let Some(request) = codec.decode(&mut received).unwrap() {
                requests.push(request);
            }
        }
        assert_eq!(requests, whole, "in pieces of {size}");
        assert!(received.is_empty());
    }
}

/// The same message as the double's own decoder reads it.
fn value(wire: &Wire) -> Value {
    match wire {
        Wire::Array(_, items) => Value::Array(items.iter().map(value).collect()),
        Wire::Map(_, entries) => {
            Value::Map(entries.iter().map(|(key, item)| (value(key), value(item))).collect())
        }
        Wire::Leaf(format, bytes) => match *format {
            "nil" => Value::Nil,
            "true" => Value::Bool(true),
            "false" => Value::Bool(false),
            "float64" => Value::Float(f64::from_be_bytes(bytes[..].try_into().unwrap())),
            "fixint" => Value::Integer(i64::from(bytes[0] as i8)),
            text if text.contains("str") || text.contains("bin") => Value::Bytes(bytes.clone()),
            "uint8" | "uint16" | "uint32" => {
                Value::Integer(bytes.iter().fold(0, |number, byte| number << 8 | i64::from(*byte)))
            }
            other => panic!("{other} in a recording"),
        },
    }
}

fn sorted(value: Value) -> Value {
    match value {
        Value::Array(items) => Value::Array(items.into_iter().map(sorted).collect()),
        Value::Map(entries) => {
            let mut entries: Vec<_> = entries.into_iter().map(|(key, item)| (key, sorted(item))).collect();
            entries.sort_by(|a, b| a.0.as_bytes().cmp(&b.0.as_bytes()));
            Value::Map(entries)
        }
        leaf => leaf,
    }
}

#[test]
fn what_a_real_kong_sent_is_read_as_it_was_recorded() {
    let mut count = 0;
    for number in ["01", "02", "03", "04", "05", "10", "11", "12", "13", "18"] {
        for exchange in Recording::load(number).exchanges() {
            let ours =
                Value::deserialize(&mut rmp_serde::Deserializer::from_read_ref(&exchange.call)).unwrap();
            let recorded = value(&Wire::parse(&exchange.call).unwrap());
            assert_eq!(sorted(ours), sorted(recorded), "{number}");
            // In 18 Kong repeats odd event ids, such as strings, to the server that gave them out.
            if number != "18" {
                assert_eq!(decode_all(&exchange.call).unwrap().len(), 1, "{number}");
            }
            count += 1;
        }
    }
    assert!(count > 250, "only {count} recorded calls");
}

#[test]
fn strings_that_are_not_utf_8_survive() {
    // [0, 1, "plugin.StepMultiMap", [{"EventId": 1, "Data": {"x": ["\xff\xfe"]}}]], the value as str16 as Kong has it
    // for longer ones.
    let mut bytes = message(json!([0, 1, "plugin.StepMultiMap"]));
    bytes[0] = 0x94;
    bytes.extend(b"\x91\x82\xa7EventId\x01\xa4Data\x81\xa1x\x91\xda\x00\x02\xff\xfe");
    let requests = decode_all(&bytes).unwrap();
    let Call::Step { data, .. } = &requests[0].call else { panic!("{requests:?}") };
    assert_eq!(data.get("x"), Some(&Value::Array(vec![Value::Bytes(vec![0xff, 0xfe])])));
}

#[test]
fn lua_numbers_that_are_whole_are_ids() {
    assert_eq!(Value::Float(9.0).as_id(), Some(9));
    assert_eq!(Value::Float(9_007_199_254_740_992.0).as_id(), Some(1 << 53));
    for not_an_id in
        [Value::Float(1.5), Value::Float(-1.0), Value::Float(1e300), Value::Integer(-1), Value::Nil]
    {
        assert_eq!(not_an_id.as_id(), None, "{not_an_id:?}");
    }
}

#[test]
fn what_is_not_a_request_is_refused_with_what_is_wrong() {
    for (bytes, says) in [
        (message(json!("hello")), "not an array"),
        (message(json!([0, 1, "plugin.Step"])), "not four elements"),
        (message(json!([1, 1, "plugin.Step", []])), "not of type 0"),
        (message(json!([0, -1, "plugin.Step", []])), "message id"),
        (message(json!([0, 1, 7, []])), "method is not a string"),
        (message(json!([0, 1, "plugin.Step", 7])), "arguments"),
        (message(json!([0, 1, "plugin.Step", []])), "without EventId"),
        (message(json!([0, 1, "plugin.Step", [{"EventId": "7"}]])), "without EventId"),
        (message(json!([0, 1, "plugin.HandleEvent", [{"InstanceId": 1}]])), "without EventName"),
        (message(json!([0, 1, "plugin.HandleEvent", [7]])), "InstanceId that is no id"),
        (message(json!([0, 1, "plugin.HandleEvent", [{"InstanceId": "7"}]])), "InstanceId that is no id"),
        (message(json!([0, 1, "plugin.StartInstance", [{"Name": "x"}]])), "without Config"),
        (message(json!([0, 1, "plugin.CloseInstance", [{"Id": 1}]])), "without an id"),
        (b"GET / HTTP/1.1\r\n".to_vec(), "not an array"),
        (vec![0xc1], "0xc1"),
        // An extension, which Kong never sends.
        (vec![0x94, 0x00, 0x01, 0xd4, 0x01, 0x00, 0x90], "not MessagePack"),
        // Truncated.
        (vec![0x94, 0x00], "ends in the middle"),
        (vec![0x94, 0x00, 0x01, 0xda, 0x00], "ends in the middle"),
    ] {
        let problem = refused(&bytes);
        assert!(problem.contains(says), "{bytes:02x?}: {problem}");
    }
}

#[test]
fn what_declares_too_much_is_refused_before_it_comes() {
    for (bytes, says) in [
        // A string, a binary, an extension, an array and a map of 4 GiB.
        (vec![0xdb, 0xff, 0xff, 0xff, 0xff], "bytes"),
        (vec![0xc6, 0xff, 0xff, 0xff, 0xff], "bytes"),
        (vec![0xc9, 0xff, 0xff, 0xff, 0xff, 0x01], "bytes"),
        (vec![0xdd, 0xff, 0xff, 0xff, 0xff], "bytes"),
        (vec![0xdf, 0xff, 0xff, 0xff, 0xff], "bytes"),
        // Within the bytes, but each of the values would take memory.
        (vec![0xdd, 0x00, 0x01, 0x00, 0x00], "values"),
        // Many small ones.
        ([vec![0xdc, 0xff, 0x00], vec![0xdc, 0xff, 0x00], vec![0xdc, 0xff, 0x00]].concat(), "values"),
    ] {
        let mut codec = Codec::default();
        let problem = codec.decode(&mut BytesMut::from(&bytes[..])).unwrap_err().to_string();
        assert!(problem.contains(says), "{bytes:02x?}: {problem}");
    }
    // Nested deeper than anything of Kong's.
    let nested = [vec![0x91; 10_000], vec![0xc0]].concat();
    assert!(refused(&nested).contains("not MessagePack"));
}

/// Every marker of the format: measured and decoded must agree on where a value ends.
#[test]
fn every_kind_of_value_is_measured_as_it_is_decoded() {
    for marker in 0..=0xff_u8 {
        if marker == 0xc1 || (0xc7..=0xc9).contains(&marker) || (0xd4..=0xd8).contains(&marker) {
            continue;
        }
        // Enough zeros for any length, of which most read as length 0, and as values after that.
        let mut bytes = vec![marker];
        bytes.resize(64, 0);
        let measured = Measure::default().advance(&bytes).unwrap().unwrap();
        let mut rest = &bytes[..];
        Value::deserialize(&mut rmp_serde::Deserializer::new(&mut rest)).unwrap();
        assert_eq!(measured, bytes.len() - rest.len(), "{marker:#04x}");
    }
}

#[test]
fn replies_are_what_kong_reads() {
    let encoded = |body| {
        let mut stream = BytesMut::new();
        Codec::default().encode(Reply { message_id: 5, body }, &mut stream).unwrap();
        rmp_serde::from_slice::<serde_json::Value>(&stream).unwrap()
    };
    let args = vec![json!({"X-A": "b", "x_a": []}), json!(null), json!(401)];
    assert_eq!(
        encoded(ReplyBody::Call { event: 9, method: "kong.service.request.set_headers", args: args.clone() }),
        json!([1, 5, null, {"EventId": 9, "Data": {"Method": "kong.service.request.set_headers", "Args": args}}])
    );
    assert_eq!(encoded(ReplyBody::Return { event: 9 }), json!([1, 5, null, {"EventId": 9, "Data": "ret"}]));
    let instance = encoded(ReplyBody::Instance { instance: 1 << 52 });
    assert_eq!(instance, json!([1, 5, null, {"Name": "mtls-auth", "Id": 1_u64 << 52}]));
    assert_eq!(encoded(ReplyBody::NoInstance { instance: 3 }), json!([1, 5, "no plugin instance #3", null]));
    assert_eq!(encoded(ReplyBody::Error("e".into())), json!([1, 5, "e", null]));
    assert!(encoded(ReplyBody::Fault("f"))[2].is_object(), "a string would let the request pass");
    assert_eq!(
        encoded(ReplyBody::Status { pid: 7, proof_key: "ab".into() }),
        json!([1, 5, null, {"Pid": 7, "Version": crate::schema::VERSION, "ProofKey": "ab"}])
    );
}
