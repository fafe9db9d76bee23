//! This knows MsgPack:1, as far as it takes to answer without looking at anything but which step of which event it is.

use std::sync::atomic::{AtomicU8, AtomicU16, Ordering};

use crate::{PLUGIN, Received, Said};

/// The first id of an event. All take two bytes, by which each reply ends.
const FIRST: u16 = 0x100;

/// What the steps of an event are answered with, but for the ids.
pub(crate) struct Replies {
    steps: Vec<Vec<u8>>,
    /// The event that began last, and how far each of them is. There are never so many at once that ids meet.
    last: AtomicU16,
    reached: Vec<AtomicU8>,
    instance: Vec<u8>,
}

impl Replies {
    pub(crate) fn new(said: &Said) -> Self {
        let mut headers = vec![0x80 | said.headers().len() as u8];
        for (name, value) in said.headers() {
            headers.extend(text(name));
            headers.extend(value.map_or(vec![0x90], text));
        }
        let consumer = map(&[("id", text(&said.consumer_id)), ("username", text(&said.consumer))]);
        let owner = map(&[("id", text(&said.consumer_id))]);
        let credential = map(&[("id", text(&said.consumer)), ("consumer", owner)]);
        let call = |method: &str, args: &[Vec<u8>]| {
            let mut list = vec![0x90 | args.len() as u8];
            list.extend(args.concat());
            let call = map(&[("Method", text(method)), ("Args", list)]);
            map(&[("Data", call), ("EventId", vec![0xcd])])
        };
        let steps = vec![
            call("kong.request.get_headers", &[vec![0xcd, 0x03, 0xe8]]),
            call("kong.service.request.set_headers", &[headers]),
            call("kong.client.authenticate", &[consumer, credential]),
            map(&[("Data", text("ret")), ("EventId", vec![0xcd])]),
        ];
        Self {
            steps,
            last: AtomicU16::new(FIRST),
            reached: (0..=u16::MAX).map(|_| AtomicU8::new(0)).collect(),
            instance: map(&[("Name", text(PLUGIN)), ("Id", vec![1])]),
        }
    }

    /// The next event, which begins.
    fn begin(&self) -> Option<u16> {
        let next = |last: u16| Some(last.checked_add(1).unwrap_or(FIRST));
        let event = self.last.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).ok()?;
        self.reached.get(usize::from(event))?.store(0, Ordering::Relaxed);
        Some(event)
    }

    /// What an event is answered with now.
    fn advance(&self, event: u16) -> Option<&[u8]> {
        let reached = self.reached.get(usize::from(event))?.fetch_add(1, Ordering::Relaxed);
        self.steps.get(usize::from(reached)).map(Vec::as_slice)
    }
}

pub(crate) async fn serve(mut received: Received, replies: &Replies) {
    let mut reply = Vec::with_capacity(4096);
    while let Some(message) = received.message(length).await {
        reply.clear();
        if answer(message, replies, &mut reply).is_none() || received.send(&reply).is_none() {
            return;
        }
    }
}

/// `[0, id, method, [argument]]`, answered with `[1, id, nil, result]`.
fn answer(message: &[u8], replies: &Replies, reply: &mut Vec<u8>) -> Option<()> {
    let id = message.get(2..2 + length(message.get(2..)?)?)?;
    let method = message.get(2 + id.len()..)?;
    let argument = method.get(length(method)? + 1..)?;
    let name = method.get(1..)?;
    let event = if name.starts_with(b"plugin.HandleEvent") {
        Some(replies.begin()?)
    } else if name.starts_with(b"plugin.Step") {
        Some(event(argument)?)
    } else {
        None
    };
    reply.extend_from_slice(&[0x94, 1]);
    reply.extend_from_slice(id);
    reply.push(0xc0);
    match event {
        Some(event) => {
            reply.extend_from_slice(replies.advance(event)?);
            reply.extend_from_slice(&event.to_be_bytes());
        }
        None => reply.extend_from_slice(&replies.instance),
    }
    Some(())
}

/// The `EventId` of a step's argument, which is a small map in any order.
fn event(mut argument: &[u8]) -> Option<u16> {
    const NAME: &[u8] = b"\xa7EventId\xcd";
    argument = argument.get(1..)?;
    while !argument.starts_with(NAME) {
        argument = argument.get(length(argument)?..)?;
        argument = argument.get(length(argument)?..)?;
    }
    argument.get(NAME.len()..)?.first_chunk().map(|bytes| u16::from_be_bytes(*bytes))
}

/// How long the first value is, once that can be told. It may be longer than what is there.
fn length(bytes: &[u8]) -> Option<usize> {
    let (mut at, mut missing) = (0, 1);
    while missing > 0 {
        let marker = *bytes.get(at)?;
        let number = |size: usize| {
            let digits = bytes.get(at + 1..at + 1 + size)?;
            Some(digits.iter().fold(0, |number, &digit| number << 8 | usize::from(digit)))
        };
        let (own, children) = match marker {
            0x80..=0x8f => (1, 2 * usize::from(marker & 0x0f)),
            0x90..=0x9f => (1, usize::from(marker & 0x0f)),
            0xa0..=0xbf => (1 + usize::from(marker & 0x1f), 0),
            0xc4 | 0xd9 => (2 + number(1)?, 0),
            0xc5 | 0xda => (3 + number(2)?, 0),
            0xc6 | 0xdb => (5 + number(4)?, 0),
            0xcc | 0xd0 => (2, 0),
            0xcd | 0xd1 => (3, 0),
            0xca | 0xce | 0xd2 => (5, 0),
            0xcb | 0xcf | 0xd3 => (9, 0),
            0xdc => (3, number(2)?),
            0xdd => (5, number(4)?),
            0xde => (3, 2 * number(2)?),
            0xdf => (5, 2 * number(4)?),
            _ => (1, 0),
        };
        at += own;
        missing = missing - 1 + children;
    }
    Some(at)
}

fn text(text: &str) -> Vec<u8> {
    let mut bytes = match text.len() {
        length @ 0..32 => vec![0xa0 | length as u8],
        length => vec![0xda, (length >> 8) as u8, length as u8],
    };
    bytes.extend_from_slice(text.as_bytes());
    bytes
}

fn map(entries: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = vec![0x80 | entries.len() as u8];
    for (name, value) in entries {
        bytes.extend(text(name));
        bytes.extend_from_slice(value);
    }
    bytes
}
