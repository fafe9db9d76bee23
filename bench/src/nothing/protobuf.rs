//! This knows ProtoBuf:1, as far as it takes to answer without looking at anything.

use crate::{PLUGIN, Received, Said};

/// The pairs of frames that an event is, and the frames of the status of an instance.
pub(crate) struct Replies {
    calls: [Vec<u8>; 3],
    instance: Vec<u8>,
}

impl Replies {
    pub(crate) fn new(said: &Said) -> Self {
        let string = |text: &str| field(3, text.as_bytes());
        let entry = |(name, value): (&str, Option<&str>)| {
            let value = value.map_or_else(|| field(6, b""), string);
            field(1, &[field(1, name.as_bytes()), field(2, &value)].concat())
        };
        let headers = said.headers().map(entry).concat();
        let id = field(1, said.consumer_id.as_bytes());
        let consumer = field(1, &[id, field(3, said.consumer.as_bytes())].concat());
        let owner = field(2, said.consumer_id.as_bytes());
        let credential = field(2, &[field(1, said.consumer.as_bytes()), owner].concat());
        let call = |method: &str, argument: &[u8]| [frame(method.as_bytes()), frame(argument)].concat();
        let calls = [
            call("kong.request.get_headers", &[0x08, 0xe8, 0x07]),
            call("kong.service.request.set_headers", &headers),
            call("kong.client.authenticate", &[consumer, credential].concat()),
        ];
        let status = [field(1, PLUGIN.as_bytes()), vec![0x10, 1]].concat();
        Self { calls, instance: field(33, &status) }
    }
}

pub(crate) async fn serve(mut received: Received, replies: &Replies) {
    let mut reply = Vec::with_capacity(4096);
    while run(&mut received, replies, &mut reply).await.is_some() {}
}

async fn run(received: &mut Received, replies: &Replies, reply: &mut Vec<u8>) -> Option<()> {
    let call = received.message(length).await?.get(4..)?;
    let (is_event, sequence) = call_of(call)?;
    reply.clear();
    reply.push(0x08);
    reply.extend_from_slice(sequence);
    if is_event {
        for call in &replies.calls {
            received.send(call)?;
            received.message(length).await?;
        }
        let returned = [frame(b""), frame(reply)].concat();
        return received.send(&returned);
    }
    reply.extend_from_slice(&replies.instance);
    let returned = frame(reply);
    received.send(&returned)
}

/// Whether a call is an event, and its `sequence` as it stands there. Kong writes the fields in any order.
fn call_of(mut call: &[u8]) -> Option<(bool, &[u8])> {
    let (mut is_event, mut sequence) = (false, &[0][..]);
    while !call.is_empty() {
        let (key, key_length) = read(call)?;
        let (value, value_length) = read(call.get(key_length..)?)?;
        let end = key_length + value_length;
        if key == 0x08 {
            sequence = call.get(key_length..end)?;
            call = call.get(end..)?;
        } else {
            is_event |= key == 36 << 3 | 2;
            call = call.get(end + value..)?;
        }
    }
    Some((is_event, sequence))
}

/// A varint, and how many bytes it takes.
fn read(bytes: &[u8]) -> Option<(usize, usize)> {
    let length = 1 + bytes.iter().position(|byte| *byte < 0x80)?;
    let number =
        bytes.get(..length)?.iter().rev().fold(0, |number, byte| number << 7 | usize::from(byte & 0x7f));
    Some((number, length))
}

fn length(bytes: &[u8]) -> Option<usize> {
    Some(4 + u32::from_le_bytes(*bytes.first_chunk()?) as usize)
}

fn frame(content: &[u8]) -> Vec<u8> {
    [&(content.len() as u32).to_le_bytes()[..], content].concat()
}

fn field(number: u32, content: &[u8]) -> Vec<u8> {
    [varint(number << 3 | 2), varint(content.len() as u32), content.to_vec()].concat()
}

fn varint(mut number: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}
