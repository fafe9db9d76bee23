//! A ClientHello as no library would send it, and records as none would cut them.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;

use testbed::process::PATIENCE;
use testbed::tls_client::Version;

/// The types of TLS records (RFC 8446, section 5.1).
pub const ALERT: u8 = 21;
pub const HANDSHAKE: u8 = 22;

/// The types of messages in a handshake of TLS 1.2 (RFC 5246, section 7.4).
pub const CERTIFICATE: u8 = 11;
pub const CERTIFICATE_REQUEST: u8 = 13;
pub const SERVER_HELLO_DONE: u8 = 14;

/// A way to an address on which the first record of each connection, a ClientHello, comes in records of one byte.
pub fn cutting(to: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut client in listener.incoming().map(Result::unwrap) {
            let mut server = TcpStream::connect(to).unwrap();
            server.set_nodelay(true).unwrap();
            thread::spawn(move || {
                let (kind, content) = record(&mut client).unwrap();
                for byte in content {
                    server.write_all(&[kind, 3, 1, 0, 1, byte]).unwrap();
                }
                let (mut from, mut back) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                thread::spawn(move || pass(&mut from, &mut back));
                pass(&mut server, &mut client);
            });
        }
    });
    address
}

fn pass(from: &mut TcpStream, to: &mut TcpStream) {
    // Either side may be gone.
    let _ = io::copy(from, to);
    let _ = to.shutdown(Shutdown::Write);
}

/// The next record: its type and content.
pub fn record(stream: &mut TcpStream) -> io::Result<(u8, Vec<u8>)> {
    let mut header = [0; 5];
    stream.read_exact(&mut header)?;
    let mut content = vec![0; usize::from(u16::from_be_bytes([header[3], header[4]]))];
    stream.read_exact(&mut content)?;
    Ok((header[0], content))
}

/// The types of the messages that a server of TLS 1.2 sends until it is the client's turn; none where it sends an alert.
pub fn server_part(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut messages = Vec::new();
    while !messages.ends_with(&[SERVER_HELLO_DONE, 0, 0, 0]) {
        match record(stream).unwrap() {
            (HANDSHAKE, content) => messages.extend(content),
            (kind, _) => {
                assert_eq!(kind, ALERT);
                return None;
            }
        }
    }
    let (mut types, mut rest) = (Vec::new(), &messages[..]);
    while let Some((&[kind, length @ ..], after)) = rest.split_first_chunk::<4>() {
        types.push(kind);
        let [a, b, c] = length;
        rest = &after[u32::from_be_bytes([0, a, b, c]) as usize..];
    }
    Some(types)
}

/// Connects, and sends a ClientHello of this version with this content of `server_name`.
pub fn hello(to: SocketAddr, version: Version, server_name: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let is_new = version == Version::TLS1_3;
    let suites: &[u8] =
        if is_new { b"\x13\x01\x13\x02\x13\x03" } else { b"\xc0\x2b\xc0\x2f\xc0\x2c\xc0\x30" };
    let mut extensions = [
        extension(0, server_name),
        extension(10, b"\x00\x04\x00\x1d\x00\x17"),
        extension(11, b"\x01\x00"),
        extension(13, b"\x00\x08\x04\x03\x08\x04\x05\x03\x04\x01"),
        extension(23, b""),
    ]
    .concat();
    if is_new {
        extensions.extend(extension(43, b"\x02\x03\x04"));
        // X25519, and its base point.
        let share = [&b"\x00\x1d\x00\x20\x09"[..], &[0; 31]].concat();
        extensions.extend(extension(51, &long(&share)));
    }
    let body = [&b"\x03\x03"[..], &[7; 32], b"\x00", &long(suites), b"\x01\x00", &long(&extensions)].concat();
    send(&mut stream, 1, &body);
    stream
}

/// Sends a message of a handshake, in as many records as it needs.
pub fn send(stream: &mut TcpStream, kind: u8, body: &[u8]) {
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    let message = [&[kind], &length[1..], body].concat();
    for part in message.chunks(1 << 14) {
        let record = [&[HANDSHAKE, 3, 3][..], &long(part)].concat();
        stream.write_all(&record).unwrap();
    }
}

/// A host name in `server_name`, which has a list of names.
pub fn host_name(name: &[u8]) -> Vec<u8> {
    long(&[&[0][..], &long(name)].concat())
}

/// After its length in two bytes.
pub fn long(content: &[u8]) -> Vec<u8> {
    [&u16::try_from(content.len()).unwrap().to_be_bytes()[..], content].concat()
}

fn extension(kind: u16, content: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &long(content)].concat()
}
