//! This knows a line of the access log: one JSON object for a request that has ended. It is pure; `access_log/writer.rs` writes.
//!
//! Lines are ASCII. What a client sent is escaped, so that it can neither begin a line of its own nor speak to the terminal
//! of whoever reads.

mod timestamp;
mod writer;

use std::io::{self, Write};
use std::time::{Duration, SystemTime};

use http::Version;
use serde::Serialize;
use serde_json::Serializer;
use serde_json::ser::{CompactFormatter, Formatter};

use crate::record::{By, Finished, Side};

use self::timestamp::timestamp;
pub(crate) use self::writer::{AccessLog, Writing, open, probe};

/// The keys, in their order. All stand in every line.
#[derive(Serialize)]
struct Line<'a> {
    time: String,
    client: String,
    client_port: u16,
    server: String,
    server_port: u16,
    tls: &'a str,
    cipher: &'a str,
    sni: Option<&'a str>,
    asked: bool,
    presented: bool,
    resumed: bool,
    certificate_sha256: Option<&'a str>,
    protocol: &'a str,
    method: &'a str,
    host: Option<&'a str>,
    path: &'a str,
    status: Option<u16>,
    answered_by: Option<&'a str>,
    reason: Option<&'a str>,
    bytes_up: u64,
    bytes_down: u64,
    handshake_ms: f64,
    answer_ms: Option<f64>,
    total_ms: f64,
    broken_off_by: Option<&'a str>,
}

/// What stands in place of lines that could not be written.
#[derive(Serialize)]
struct Dropped {
    time: String,
    dropped: u64,
}

/// The line for a request that ended now, with the end of the line.
fn line(request: &Finished<'_>, now: SystemTime) -> Vec<u8> {
    let connection = request.connection;
    let by = request.answer.map(|(_, by)| by);
    json(&Line {
        time: timestamp(now),
        client: connection.client.ip().to_canonical().to_string(),
        client_port: connection.client.port(),
        server: connection.server.ip().to_canonical().to_string(),
        server_port: connection.server.port(),
        tls: connection.tls,
        cipher: connection.cipher,
        sni: connection.sni.as_deref(),
        asked: connection.asked,
        presented: connection.fingerprint.is_some(),
        resumed: connection.resumed,
        certificate_sha256: connection.fingerprint.as_deref(),
        protocol: protocol(request.version),
        method: request.method,
        host: request.host,
        path: request.path,
        status: request.answer.map(|(status, _)| status.as_u16()),
        answered_by: by.map(|by| if by == By::Kong { "kong" } else { "shim" }),
        reason: by.and_then(|by| if let By::Shim(reason) = by { Some(reason) } else { None }),
        bytes_up: request.up,
        bytes_down: request.down,
        handshake_ms: milliseconds(connection.handshake),
        answer_ms: request.answered_after.map(milliseconds),
        total_ms: milliseconds(request.took),
        broken_off_by: request.broken_off.map(Side::name),
    })
}

/// The line that tells of lines that are missing before it.
fn dropped_line(dropped: u64, now: SystemTime) -> Vec<u8> {
    json(&Dropped { time: timestamp(now), dropped })
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2",
        _ => "HTTP/1.1",
    }
}

/// To the microsecond.
fn milliseconds(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1000.0
}

fn json(line: &impl Serialize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(768);
    let mut serializer = Serializer::with_formatter(&mut bytes, Ascii);
    line.serialize(&mut serializer).expect("text, numbers and truth values, in memory");
    bytes.push(b'\n');
    bytes
}

/// Escapes all that is not printable ASCII. What serde_json escapes itself, quotes and control characters below the space,
/// does not come here.
struct Ascii;

impl Formatter for Ascii {
    fn write_string_fragment<W>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()>
    where
        W: ?Sized + Write,
    {
        for part in fragment.split_inclusive(is_escaped) {
            let plain = part.trim_end_matches(is_escaped);
            CompactFormatter.write_string_fragment(writer, plain)?;
            for unit in part[plain.len()..].encode_utf16() {
                write!(writer, "\\u{unit:04x}")?;
            }
        }
        Ok(())
    }
}

fn is_escaped(character: char) -> bool {
    !matches!(character, ' '..='~')
}

#[cfg(test)]
mod tests;
