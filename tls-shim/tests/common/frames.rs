//! HTTP/2 by hand (RFC 9113, section 4): what no library would send.

use std::io::{Read, Write};
use std::net::SocketAddr;

use testbed::tls_client::{TlsClient, TlsConnection};

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

pub struct Frames(TlsConnection);

impl Frames {
    pub fn connect(address: SocketAddr, sni: &str) -> Self {
        let connection = TlsClient::new(Some(sni)).alpn(b"\x02h2").connect(address).unwrap();
        connection.limit_writes();
        let mut frames = Self(connection);
        frames.0.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
        assert!(frames.send(SETTINGS, 0, 0, &[]));
        frames
    }

    /// Sends a frame; false where the other side takes nothing any more.
    pub fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> bool {
        self.0.write_all(&frame(kind, flags, stream, payload)).is_ok()
    }

    /// Sends many frames at once.
    pub fn send_all(&mut self, frames: &[u8]) -> bool {
        self.0.write_all(frames).is_ok()
    }

    /// The next frame; none once the connection has ended.
    pub fn next(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        self.0.read_exact(&mut head).ok()?;
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        self.0.read_exact(&mut payload).ok()?;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        Some(Frame { kind: head[3], flags: head[4], stream, payload })
    }

    /// The first frame that tells what becomes of a stream: its header, its end, or that of the connection.
    pub fn outcome(&mut self, stream: u32) -> Option<Frame> {
        loop {
            let frame = self.next()?;
            let of_stream = frame.stream == stream && [HEADERS, RST_STREAM].contains(&frame.kind);
            if of_stream || frame.kind == GOAWAY {
                return Some(frame);
            }
        }
    }

    /// The reason for which the connection is ended.
    pub fn goaway(&mut self) -> Option<u32> {
        loop {
            let frame = self.next()?;
            if frame.kind == GOAWAY {
                return Some(u32::from_be_bytes(frame.payload[4..8].try_into().unwrap()));
            }
        }
    }
}

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A header block whose fields go in no table (RFC 7541, section 6.2.2).
pub fn block<N: AsRef<[u8]>, V: AsRef<[u8]>>(fields: &[(N, V)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name.as_ref(), value.as_ref()] {
            integer(&mut block, text.len());
            block.extend(text);
        }
    }
    block
}

/// An integer with a prefix of seven bits (RFC 7541, section 5.1).
fn integer(block: &mut Vec<u8>, mut value: usize) {
    if value < 127 {
        return block.push(value as u8);
    }
    block.push(127);
    value -= 127;
    while value >= 128 {
        block.push((value % 128) as u8 | 128);
        value /= 128;
    }
    block.push(value as u8);
}

/// The pseudo-header fields of a request.
pub fn get(path: &str) -> Vec<(String, Vec<u8>)> {
    [(":method", "GET"), (":scheme", "https"), (":authority", "open.example"), (":path", path)]
        .map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()))
        .to_vec()
}
