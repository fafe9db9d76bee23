//! This knows recorded conversations between a real Kong Gateway 3.9.1 and external plugin servers.
//!
//! The double's tests replay the server's side against the double; a plugin server's tests can replay Kong's
//! side against that server. The recordings are part of the crate, so that they load from anywhere.

use serde::Deserialize;

use crate::pack::{Unpack, unpack};

/// The recordings, by their numbers.
const RECORDINGS: [(&str, &str); 11] = [
    ("01", include_str!("../recordings/01-py-hello-start-close.jsonl")),
    ("02", include_str!("../recordings/02-py-steps.jsonl")),
    ("03", include_str!("../recordings/03-py-exit.jsonl")),
    ("04", include_str!("../recordings/04-py-pdk-error.jsonl")),
    ("05", include_str!("../recordings/05-py-phases.jsonl")),
    ("08", include_str!("../recordings/08-go-hello-protobuf.jsonl")),
    ("10", include_str!("../recordings/10-py-raise.jsonl")),
    ("11", include_str!("../recordings/11-py-nonutf8.jsonl")),
    ("12", include_str!("../recordings/12-py-concurrent.jsonl")),
    ("13", include_str!("../recordings/13-py-server-killed.jsonl")),
    ("18", include_str!("../recordings/18-fake-server.jsonl")),
];

/// One recording of Kong and a plugin server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recording {
    /// Everything that happened on the socket, in order.
    pub chunks: Vec<Chunk>,
}

/// What happened at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Number of the connection, from 1.
    pub conn: u32,
    /// Who did it.
    pub dir: Direction,
    /// The bytes as they were read; empty where this side closed the connection.
    pub bytes: Vec<u8>,
}

/// Which way bytes went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From Kong to the plugin server.
    KongToServer,
    /// From the plugin server to Kong.
    ServerToKong,
}

/// One call of Kong and what came back on its connection until the next call there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// Number of the connection.
    pub conn: u32,
    /// The whole message that Kong sent.
    pub call: Vec<u8>,
    /// What the server wrote, in the pieces it was read in. May be none, or half a message.
    pub replies: Vec<Vec<u8>>,
    /// Whether the server then closed the connection.
    pub closed: bool,
}

#[derive(Deserialize)]
struct Line {
    conn: u32,
    event: Option<String>,
    dir: Option<String>,
    hex: Option<String>,
}

impl Recording {
    /// The recording of this number: `01` to `05`, `08`, `10` to `13`, `18`.
    ///
    /// # Panics
    /// If there is none.
    pub fn load(number: &str) -> Self {
        let text = RECORDINGS.iter().find(|(known, _)| *known == number).map(|(_, text)| *text);
        let text = text.unwrap_or_else(|| panic!("no recording {number}"));
        let chunks = text.lines().filter_map(chunk).collect();
        Self { chunks }
    }

    /// The same as calls with their answers, in the order of the calls. For MsgPack:1; `08` is ProtoBuf:1.
    pub fn exchanges(&self) -> Vec<Exchange> {
        let mut exchanges: Vec<Exchange> = Vec::new();
        for chunk in &self.chunks {
            let last = exchanges.iter_mut().rev().find(|exchange| exchange.conn == chunk.conn);
            match (chunk.dir, last) {
                (Direction::KongToServer, last) if !chunk.bytes.is_empty() => match last {
                    Some(last) if !is_whole(&last.call) => last.call.extend(&chunk.bytes),
                    _ => exchanges.push(Exchange {
                        conn: chunk.conn,
                        call: chunk.bytes.clone(),
                        replies: Vec::new(),
                        closed: false,
                    }),
                },
                (Direction::ServerToKong, Some(last)) if chunk.bytes.is_empty() => last.closed = true,
                (Direction::ServerToKong, Some(last)) => last.replies.push(chunk.bytes.clone()),
                _ => {}
            }
        }
        exchanges
    }
}

fn is_whole(message: &[u8]) -> bool {
    !matches!(unpack(message), Err(Unpack::Missing))
}

fn chunk(line: &str) -> Option<Chunk> {
    let line: Line = serde_json::from_str(line).expect("the recordings are well-formed");
    let dir = match (line.dir.as_deref(), line.event.as_deref()) {
        (Some("kong->server"), _) | (_, Some("eof-kong")) => Direction::KongToServer,
        (Some("server->kong"), _) | (_, Some("eof-server")) => Direction::ServerToKong,
        _ => return None,
    };
    let hex = line.hex.unwrap_or_default();
    let digit = |b: u8| (b as char).to_digit(16).expect("the recordings are hexadecimal") as u8;
    let bytes = hex.as_bytes().chunks_exact(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect();
    Some(Chunk { conn: line.conn, dir, bytes })
}
