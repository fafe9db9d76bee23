//! This knows which addresses are nobody's on the internet: those that a URL must not lead to, for whoever wrote it would
//! have us ask our own neighbours (SSRF).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A range of addresses: how it begins, in how many bits, and what it is.
type Range<A> = (A, u32, &'static str);

/// From IANA's registry of special-purpose addresses (RFC 6890) and RFC 5771.
const V4: &[Range<Ipv4Addr>] = &[
    (Ipv4Addr::new(0, 0, 0, 0), 8, "this host"),
    (Ipv4Addr::new(10, 0, 0, 0), 8, "private"),
    (Ipv4Addr::new(100, 64, 0, 0), 10, "shared"),
    (Ipv4Addr::new(127, 0, 0, 0), 8, "loopback"),
    (Ipv4Addr::new(169, 254, 0, 0), 16, "link-local"),
    (Ipv4Addr::new(172, 16, 0, 0), 12, "private"),
    (Ipv4Addr::new(192, 0, 0, 0), 24, "reserved"),
    (Ipv4Addr::new(192, 0, 2, 0), 24, "documentation"),
    (Ipv4Addr::new(192, 88, 99, 0), 24, "reserved"),
    (Ipv4Addr::new(192, 168, 0, 0), 16, "private"),
    (Ipv4Addr::new(198, 18, 0, 0), 15, "benchmarking"),
    (Ipv4Addr::new(198, 51, 100, 0), 24, "documentation"),
    (Ipv4Addr::new(203, 0, 113, 0), 24, "documentation"),
    (Ipv4Addr::new(224, 0, 0, 0), 4, "multicast"),
    (Ipv4Addr::new(240, 0, 0, 0), 4, "reserved"),
];

/// Of the unicast addresses of the internet. All others are refused as a whole; what these names are for is the message.
const V6: &[Range<Ipv6Addr>] = &[
    (Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, 0), 128, "unspecified"),
    (Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, 1), 128, "loopback"),
    (Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0), 96, "an IPv4 address in disguise"),
    (Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, 0), 96, "an IPv4 address in disguise"),
    // With Teredo, benchmarking and ORCHID.
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23, "reserved"),
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32, "documentation"),
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20, "documentation"),
    (Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0), 7, "private"),
    (Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10, "link-local"),
    (Ipv6Addr::new(0xfec0, 0, 0, 0, 0, 0, 0, 0), 10, "private"),
    (Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8, "multicast"),
];

/// What an address is, if it is none of the internet's.
pub(super) fn not_public(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(address) => not_public_v4(address),
        IpAddr::V6(address) => not_public_v6(address),
    }
}

fn not_public_v4(address: Ipv4Addr) -> Option<&'static str> {
    let within = |start: Ipv4Addr, bits: u32| (address.to_bits() ^ start.to_bits()) >> (32 - bits) == 0;
    V4.iter().find(|(start, bits, _)| within(*start, *bits)).map(|(_, _, what)| *what)
}

fn not_public_v6(address: Ipv6Addr) -> Option<&'static str> {
    let within = |start: Ipv6Addr, bits: u32| (address.to_bits() ^ start.to_bits()) >> (128 - bits) == 0;
    // Translated on the way: NAT64 (RFC 6052), 6to4 (RFC 3056).
    let translated = match address.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => Some((high, low)),
        [0x2002, high, low, ..] => Some((high, low)),
        _ => None,
    };
    if let Some((high, low)) = translated {
        return not_public_v4(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)));
    }
    let special = V6.iter().find(|(start, bits, _)| within(*start, *bits)).map(|(_, _, what)| *what);
    // All that has been given out so far (IANA's registry of global unicast addresses).
    let is_unicast = within(Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3);
    special.or((!is_unicast).then_some("reserved"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_of_the_internet_is_told_from_what_is() {
        for (what, addresses) in [
            ("this host", "0.0.0.0 0.255.255.255"),
            ("private", "10.0.0.0 10.255.255.255 172.16.0.0 172.31.255.255 192.168.0.1 192.168.255.255"),
            ("shared", "100.64.0.0 100.100.100.200 100.127.255.255"),
            ("loopback", "127.0.0.1 127.255.255.255 ::1"),
            ("link-local", "169.254.0.0 169.254.169.254 169.254.255.255 fe80::1 febf:ffff::1"),
            ("reserved", "192.0.0.1 192.0.0.170 192.88.99.1 240.0.0.1 255.255.255.255"),
            ("documentation", "192.0.2.1 198.51.100.1 203.0.113.255 2001:db8::1 3fff::1 3fff:fff::1"),
            ("benchmarking", "198.18.0.0 198.19.255.255"),
            ("multicast", "224.0.0.1 239.255.255.255 ff02::1 ff0e::1"),
            ("unspecified", "::"),
            ("an IPv4 address in disguise", "::ffff:127.0.0.1 ::ffff:8.8.8.8 ::127.0.0.1 ::8.8.8.8 ::2"),
            ("private", "fc00::1 fd00:ec2::254 fdff::1 fec0::1"),
            ("reserved", "2001::1 2001:2::1 2001:1ff::1 4000::1 1::1 100::1 5f00::1"),
            // NAT64, 6to4: what they are translated to.
            ("loopback", "64:ff9b::127.0.0.1 64:ff9b::7f01:203 2002:7f00:1::1"),
            ("private", "64:ff9b::10.0.0.1 64:ff9b::192.168.1.1 2002:a00:1:: 2002:c0a8:101::1"),
            ("link-local", "64:ff9b::169.254.169.254 2002:a9fe:a9fe::1"),
            // NAT64 under prefixes of one's own (RFC 8215): what is inside cannot be told.
            ("reserved", "64:ff9b:1::8.8.8.8 64:ff9b::1:0:808:808"),
            // Translated, not mapped (RFC 2765).
            ("reserved", "::ffff:0:127.0.0.1"),
        ] {
            for text in addresses.split(' ') {
                assert_eq!(not_public(text.parse().unwrap()), Some(what), "{text}");
            }
        }
        for text in "1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.1 \
                     169.253.1.1 169.255.0.1 172.15.255.255 172.32.0.0 191.255.255.255 192.0.1.1 192.0.3.1 \
                     192.167.1.1 192.169.0.0 198.17.255.255 198.20.0.0 223.255.255.255 2001:200::1 2001:4860:4860::8888 \
                     2001:db7::1 2001:db9::1 2606:4700::1111 2a00::1 3ffe::1 64:ff9b::8.8.8.8 2002:808:808::1"
            .split_whitespace()
        {
            assert_eq!(not_public(text.parse().unwrap()), None, "{text}");
        }
    }
}
