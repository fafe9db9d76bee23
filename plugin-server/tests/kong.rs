//! The built server with Kong's side of the protocol: as recorded, and as played by Kong's double.

mod common;

use std::io::Write;

use common::Prefix;
use kong_double::recording::Recording;
use kong_double::wire::Wire;

fn entry(array: &Wire, position: usize) -> Wire {
    let Wire::Array(_, entries) = array else { panic!("{array:?} is no array") };
    entries[position].clone()
}

fn field_of(map: &Wire, name: &str) -> Wire {
    let Wire::Map(_, entries) = map else { panic!("{map:?} is no map") };
    entries.iter().find(|(key, _)| key.text() == Some(name)).unwrap().1.clone()
}

fn number_of(leaf: &Wire) -> u64 {
    match leaf {
        Wire::Leaf("float64", bytes) => f64::from_be_bytes(bytes[..].try_into().unwrap()) as u64,
        Wire::Leaf(_, bytes) => bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)),
        other => panic!("{other:?} is no number"),
    }
}

/// Kong's recorded bytes, as they came, to our server: each call gets one answer with its id, whatever the event or
/// instance is that it names, for all of them are of another server's. None gets an answer that lets a request pass.
#[test]
fn recorded_calls_are_all_understood_and_none_is_let_pass() {
    for number in ["01", "02", "03", "04", "05", "11", "12", "13"] {
        let prefix = Prefix::new();
        let _server = prefix.serve(&[]);
        let mut kong = prefix.connect();
        let exchanges = Recording::load(number).exchanges();
        assert!(!exchanges.is_empty());
        for exchange in exchanges {
            let call = Wire::parse(&exchange.call).unwrap();
            let arg = entry(&entry(&call, 3), 0);
            kong.stream.write_all(&exchange.call).unwrap();
            let reply = kong.reply();
            assert_eq!(reply[1], number_of(&entry(&call, 1)), "{number}: {call:?}");
            match entry(&call, 2).text().unwrap() {
                "plugin.StartInstance" => {
                    assert!(
                        reply[2].as_str().unwrap().contains("this server has no plugin"),
                        "{number}: {reply}"
                    );
                }
                "plugin.HandleEvent" if field_of(&arg, "EventName").text() != Some("access") => {
                    assert!(reply[2].is_object(), "{number}: {reply}");
                }
                "plugin.HandleEvent" | "plugin.CloseInstance" => {
                    assert!(
                        reply[2].as_str().unwrap().starts_with("no plugin instance"),
                        "{number}: {reply}"
                    );
                }
                step => {
                    assert!(step.starts_with("plugin.Step"), "{number}: {step}");
                    assert_eq!(reply[3]["EventId"], number_of(&field_of(&arg, "EventId")), "{number}");
                    assert_eq!(reply[3]["Data"]["Method"], "kong.response.error", "{number}: {reply}");
                }
            }
        }
    }
}
