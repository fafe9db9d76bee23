//! This knows the PROXY protocol, versions 1 and 2: what a front says of a connection before its first byte.
//!
//! Source: HAProxy's `proxy-protocol.txt`.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::limits;

/// By which a header of version 2 is known (section 2.2).
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// The longest line of version 1, with its end (section 2.1).
const LINE: usize = 107;

/// The two ends of a client's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Addresses {
    pub(crate) client: SocketAddr,
    /// What the client connected to.
    pub(crate) server: SocketAddr,
}

/// How a header is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Version {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

/// Why a connection does not begin as it must.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HeaderError {
    /// The connection ended or broke.
    #[error("the PROXY header is incomplete: {0}")]
    Io(#[from] io::Error),
    /// It begins with something else.
    #[error("it does not begin with a PROXY header")]
    Missing,
    /// It is longer than [`limits::PROXY_HEADER_BYTES`], or than a line may be.
    #[error("the PROXY header is too long")]
    TooLong,
    /// It does not follow the grammar, or is about no TCP connection.
    #[error("the PROXY header cannot be read")]
    Malformed,
}

/// Reads a header, and not one byte after it. None where the front speaks for itself, or does not know.
///
/// # Errors
/// See [`HeaderError`]. The connection is of no use then: whose it is cannot be known.
pub(crate) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Result<Option<Addresses>, HeaderError> {
    // The shortest header of either version is longer.
    let mut start = [0; SIGNATURE.len()];
    stream.read_exact(&mut start).await?;
    if start == *SIGNATURE {
        let mut head = [0; 4];
        stream.read_exact(&mut head).await?;
        let [kind, family, high, low] = head;
        let length = usize::from(u16::from_be_bytes([high, low]));
        if length > limits::PROXY_HEADER_BYTES {
            return Err(HeaderError::TooLong);
        }
        let mut rest = vec![0; length];
        stream.read_exact(&mut rest).await?;
        return binary(kind, family, &rest);
    }
    if !start.starts_with(b"PROXY ") {
        return Err(HeaderError::Missing);
    }
    let mut line = start.to_vec();
    while !line.ends_with(b"\r\n") {
        if line.len() == LINE {
            return Err(HeaderError::TooLong);
        }
        line.push(stream.read_u8().await?);
    }
    text(&line)
}

/// A header of version 2 after its signature and length. What follows the addresses (TLVs) is of no matter here.
fn binary(kind: u8, family: u8, rest: &[u8]) -> Result<Option<Addresses>, HeaderError> {
    match kind {
        // LOCAL: a health check of the front for example.
        0x20 => return Ok(None),
        0x21 => {}
        _ => return Err(HeaderError::Malformed),
    }
    let (client, server, ports) = match family {
        0x00 => return Ok(None),
        0x11 => {
            let (&[client, server], rest) = chunks::<4, 2>(rest)?;
            (IpAddr::from(client), IpAddr::from(server), rest)
        }
        0x21 => {
            let (&[client, server], rest) = chunks::<16, 2>(rest)?;
            (IpAddr::from(client), IpAddr::from(server), rest)
        }
        _ => return Err(HeaderError::Malformed),
    };
    let (&[client_port, server_port], _) = chunks::<2, 2>(ports)?;
    Ok(Some(Addresses {
        client: (client, u16::from_be_bytes(client_port)).into(),
        server: (server, u16::from_be_bytes(server_port)).into(),
    }))
}

/// The first `M` parts of `N` bytes each, and what follows.
fn chunks<const N: usize, const M: usize>(bytes: &[u8]) -> Result<(&[[u8; N]; M], &[u8]), HeaderError> {
    let (parts, _) = bytes.as_chunks::<N>();
    let parts = parts.first_chunk::<M>().ok_or(HeaderError::Malformed)?;
    Ok((parts, &bytes[N * M..]))
}

/// A header of version 1, with its end.
fn text(line: &[u8]) -> Result<Option<Addresses>, HeaderError> {
    let line = str::from_utf8(line).ok().and_then(|line| line.strip_suffix("\r\n"));
    let words: Vec<&str> = line.ok_or(HeaderError::Malformed)?.split(' ').collect();
    let (client, server, client_port, server_port) = match words[..] {
        ["PROXY", "UNKNOWN", ..] => return Ok(None),
        ["PROXY", "TCP4", client, server, client_port, server_port] => {
            (ip::<Ipv4Addr>(client)?, ip::<Ipv4Addr>(server)?, client_port, server_port)
        }
        ["PROXY", "TCP6", client, server, client_port, server_port] => {
            (ip::<Ipv6Addr>(client)?, ip::<Ipv6Addr>(server)?, client_port, server_port)
        }
        _ => return Err(HeaderError::Malformed),
    };
    let port = |text: &str| {
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<u16>().ok().filter(|_| digits).ok_or(HeaderError::Malformed)
    };
    Ok(Some(Addresses {
        client: (client, port(client_port)?).into(),
        server: (server, port(server_port)?).into(),
    }))
}

fn ip<T: std::str::FromStr + Into<IpAddr>>(text: &str) -> Result<IpAddr, HeaderError> {
    text.parse::<T>().map(Into::into).map_err(|_| HeaderError::Malformed)
}

impl Version {
    /// The header that says of a connection what it is.
    pub(crate) fn header(self, addresses: Addresses) -> Vec<u8> {
        let Addresses { client, server } = addresses;
        let (client_ip, server_ip) = (client.ip().to_canonical(), server.ip().to_canonical());
        let ips = match (client_ip, server_ip) {
            (IpAddr::V4(client), IpAddr::V4(server)) => Ok((client, server)),
            // Both are said in the form of one family.
            (client, server) => Err((mapped(client), mapped(server))),
        };
        let (client_port, server_port) = (client.port(), server.port());
        match (self, ips) {
            (Self::V1, Ok((client, server))) => {
                format!("PROXY TCP4 {client} {server} {client_port} {server_port}\r\n").into_bytes()
            }
            (Self::V1, Err((client, server))) => {
                format!("PROXY TCP6 {client} {server} {client_port} {server_port}\r\n").into_bytes()
            }
            (Self::V2, ips) => {
                let (family, length, ips) = match ips {
                    Ok((client, server)) => (0x11, 12, [client.octets(), server.octets()].concat()),
                    Err((client, server)) => (0x21, 36, [client.octets(), server.octets()].concat()),
                };
                let ports = [client_port.to_be_bytes(), server_port.to_be_bytes()].concat();
                [&SIGNATURE[..], &[0x21, family, 0, length], &ips, &ports].concat()
            }
        }
    }
}

fn mapped(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read_all(bytes: &[u8]) -> Result<(Option<Addresses>, usize), HeaderError> {
        let mut rest = bytes;
        read(&mut rest).await.map(|addresses| (addresses, rest.len()))
    }

    fn addresses(client: &str, server: &str) -> Addresses {
        Addresses { client: client.parse().unwrap(), server: server.parse().unwrap() }
    }

    fn v2(kind: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [&SIGNATURE[..], &[kind, family], &length, rest].concat()
    }

    #[tokio::test]
    async fn what_is_written_is_read_to_its_last_byte() {
        for (said, meant) in [
            (addresses("192.0.2.7:56324", "198.51.100.1:443"), None),
            (addresses("[2001:db8::7]:1", "[2001:db8::1]:65535"), None),
            (
                addresses("[::ffff:192.0.2.7]:1", "198.51.100.1:443"),
                Some(addresses("192.0.2.7:1", "198.51.100.1:443")),
            ),
            (addresses("192.0.2.7:1", "[::1]:2"), Some(addresses("[::ffff:192.0.2.7]:1", "[::1]:2"))),
        ] {
            for version in [Version::V1, Version::V2] {
                let bytes = [version.header(said), b"\x16\x03\x01".to_vec()].concat();
                assert_eq!(read_all(&bytes).await.unwrap(), (Some(meant.unwrap_or(said)), 3), "{version:?}");
            }
        }
    }

    #[tokio::test]
    async fn the_examples_of_the_specification_are_read() {
        let line = b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n";
        let broadcast = addresses("255.255.255.255:65535", "255.255.255.255:65535");
        assert_eq!(read_all(line).await.unwrap().0, Some(broadcast));
        let longest = format!("PROXY UNKNOWN {0} {0} 65535 65535\r\n", "ffff:".repeat(7) + "ffff");
        assert_eq!(longest.len(), 107);
        assert_eq!(read_all(longest.as_bytes()).await.unwrap(), (None, 0));
        assert_eq!(read_all(b"PROXY UNKNOWN\r\n").await.unwrap(), (None, 0));
        // LOCAL, UNSPEC, and a TLV after the addresses.
        assert_eq!(read_all(&v2(0x20, 0x00, &[])).await.unwrap(), (None, 0));
        assert_eq!(read_all(&v2(0x20, 0x11, &[1; 12])).await.unwrap(), (None, 0));
        assert_eq!(read_all(&v2(0x21, 0x00, b"anything")).await.unwrap(), (None, 0));
        let with_tlv =
            v2(0x21, 0x11, &[&[192, 0, 2, 7, 192, 0, 2, 1, 0, 80, 1, 187][..], &[4, 0, 1, 0]].concat());
        assert_eq!(read_all(&with_tlv).await.unwrap(), (Some(addresses("192.0.2.7:80", "192.0.2.1:443")), 0));
    }

    #[tokio::test]
    async fn whatever_is_no_header_is_refused() {
        for line in [
            "PROXY TCP4 192.0.2.7 192.0.2.1 1 2 3\r\n",
            "PROXY TCP4 192.0.2.7 192.0.2.1 1\r\n",
            "PROXY TCP4  192.0.2.7 192.0.2.1 1 2\r\n",
            "PROXY TCP4 192.0.2.07 192.0.2.1 1 2\r\n",
            "PROXY TCP4 192.0.2.7 192.0.2.1 +1 2\r\n",
            "PROXY TCP4 192.0.2.7 192.0.2.1 1 65536\r\n",
            "PROXY TCP4 192.0.2.7 192.0.2.1  2\r\n",
            "PROXY TCP4 ::1 ::2 1 2\r\n",
            "PROXY TCP6 192.0.2.7 192.0.2.1 1 2\r\n",
            "PROXY TCP6 fe80::1%eth0 ::2 1 2\r\n",
            "PROXY UDP4 192.0.2.7 192.0.2.1 1 2\r\n",
            "PROXY tcp4 192.0.2.7 192.0.2.1 1 2\r\n",
            "PROXY TCP4 192.0.2.7 192.0.2.1 1 2\n\r\n",
        ] {
            assert!(matches!(read_all(line.as_bytes()).await, Err(HeaderError::Malformed)), "{line:?}");
        }
        for (kind, family, rest) in [
            (0x21, 0x11, &[0; 11][..]),
            (0x21, 0x21, &[0; 35]),
            (0x11, 0x11, &[0; 12]),
            (0x22, 0x11, &[0; 12]),
            (0x21, 0x12, &[0; 12]),
            (0x21, 0x31, &[0; 216]),
        ] {
            let header = v2(kind, family, rest);
            assert!(matches!(read_all(&header).await, Err(HeaderError::Malformed)), "{header:?}");
        }
        for other in [
            &b"GET / HTTP/1.1\r\n\r\n"[..],
            b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03\0",
            b"proxy TCP4 \r\n",
        ] {
            assert!(matches!(read_all(other).await, Err(HeaderError::Missing)), "{other:?}");
        }
        let endless = format!("PROXY TCP4 {}", "1".repeat(200));
        assert!(matches!(read_all(endless.as_bytes()).await, Err(HeaderError::TooLong)));
        let large = v2(0x21, 0x11, &[0; limits::PROXY_HEADER_BYTES + 1]);
        assert!(matches!(read_all(&large).await, Err(HeaderError::TooLong)));
        let whole = Version::V2.header(addresses("192.0.2.7:1", "192.0.2.1:2"));
        for end in 0..whole.len() {
            assert!(matches!(read_all(&whole[..end]).await, Err(HeaderError::Io(_))), "{end}");
        }
    }
}
