//! ProtoBuf:1 as Kong speaks it, written down a second time: from the wire format and the numbers in Kong's
//! `pluginsocket.proto`, not from the server's own messages.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

/// Calls in a oneof of `RpcCall`, by field number.
pub(crate) const START_INSTANCE: u64 = 33;
pub(crate) const CLOSE_INSTANCE: u64 = 35;
pub(crate) const HANDLE_EVENT: u64 = 36;

/// The status of an instance in `RpcReturn`.
pub(crate) const INSTANCE_STATUS: u64 = 33;

/// One field of a message.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Field {
    Number(u64, u64),
    Bytes(u64, Vec<u8>),
}

pub(crate) fn number(field: u64, value: u64) -> Vec<u8> {
    [varint(field << 3), varint(value)].concat()
}

pub(crate) fn bytes(field: u64, content: impl AsRef<[u8]>) -> Vec<u8> {
    let content = content.as_ref();
    [varint(field << 3 | 2), varint(content.len() as u64), content.to_vec()].concat()
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut written = Vec::new();
    while value >= 0x80 {
        written.push(value as u8 | 0x80);
        value >>= 7;
    }
    written.push(value as u8);
    written
}

/// The fields of a message. None if it is none.
pub(crate) fn fields(mut message: &[u8]) -> Option<Vec<Field>> {
    fn take(message: &mut &[u8]) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = message.split_first()?;
            *message = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }
    let mut fields = Vec::new();
    while !message.is_empty() {
        let key = take(&mut message)?;
        let value = take(&mut message)?;
        fields.push(match key & 7 {
            0 => Field::Number(key >> 3, value),
            2 => {
                let (content, rest) = message.split_at_checked(usize::try_from(value).ok()?)?;
                message = rest;
                Field::Bytes(key >> 3, content.to_vec())
            }
            _ => return None,
        });
    }
    Some(fields)
}

/// The content of the first such field.
pub(crate) fn content(message: &[u8], field: u64) -> Option<Vec<u8>> {
    fields(message)?.into_iter().find_map(|found| match found {
        Field::Bytes(number, content) if number == field => Some(content),
        _ => None,
    })
}

/// `google.protobuf.Struct` of strings.
pub(crate) fn table(entries: &[(&str, &str)]) -> Vec<u8> {
    let entry = |(key, value): &(&str, &str)| bytes(1, [bytes(1, key), bytes(2, bytes(3, value))].concat());
    entries.iter().flat_map(entry).collect()
}

/// One of Kong's connections.
pub(crate) struct Connection {
    pub(crate) stream: UnixStream,
    sequence: u64,
    /// How many times Kong had to write, each of which is a round trip.
    pub(crate) writes: usize,
}

impl Connection {
    pub(crate) fn new(stream: UnixStream) -> Self {
        Self { stream, sequence: 0, writes: 0 }
    }

    pub(crate) fn write(&mut self, content: &[u8]) {
        self.writes += 1;
        let length = u32::try_from(content.len()).unwrap().to_le_bytes();
        // Kong writes them one after the other, too.
        self.stream.write_all(&length).unwrap();
        self.stream.write_all(content).unwrap();
    }

    pub(crate) fn read(&mut self) -> Vec<u8> {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length).unwrap();
        let mut content = vec![0; u32::from_le_bytes(length) as usize];
        self.stream.read_exact(&mut content).unwrap();
        content
    }

    /// Makes a call without waiting for anything.
    pub(crate) fn send(&mut self, command: u64, message: &[u8]) {
        self.sequence += 1;
        self.write(&[number(1, self.sequence), bytes(command, message)].concat());
    }

    /// The reply to the call that was sent last.
    pub(crate) fn reply(&mut self) -> Vec<u8> {
        let reply = self.read();
        assert!(reply.starts_with(&number(1, self.sequence)), "{reply:02x?}");
        reply
    }

    /// The id of the instance in a reply to `command`.
    pub(crate) fn instance(&mut self, command: u64, message: &[u8]) -> Option<u64> {
        self.send(command, message);
        let status = content(&self.reply(), INSTANCE_STATUS)?;
        assert_eq!(content(&status, 1).unwrap(), b"mtls-auth");
        fields(&status)?.into_iter().find_map(|field| match field {
            Field::Number(2, id) => Some(id),
            _ => None,
        })
    }

    pub(crate) fn start(&mut self, config: &str) -> u64 {
        self.instance(START_INSTANCE, &[bytes(1, "mtls-auth"), bytes(2, config)].concat()).unwrap()
    }

    pub(crate) fn begin(&mut self, instance: u64) {
        self.send(HANDLE_EVENT, &[number(1, instance), bytes(2, "access")].concat());
    }

    /// The next PDK call: its method and the message with its arguments.
    pub(crate) fn call(&mut self) -> (String, Vec<u8>) {
        (String::from_utf8(self.read()).unwrap(), self.read())
    }

    /// Answers the PDK call that must come next; gives its arguments.
    pub(crate) fn answers(&mut self, method: &str, answer: &[u8]) -> Vec<u8> {
        let (asked, argument) = self.call();
        assert_eq!(asked, method);
        self.write(answer);
        argument
    }

    /// Whether the server closes the connection without another word.
    pub(crate) fn is_closed(&mut self) -> bool {
        !matches!(self.stream.read(&mut [0; 64]), Ok(1..))
    }
}
