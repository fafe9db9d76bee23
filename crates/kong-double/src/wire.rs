//! This knows the exact shape of a MessagePack message: the format of every element, so that two messages
//! can be compared for more than what they mean.

/// One element with its format, such as `str16`. Entries of maps are sorted, because Lua has no order for
/// them; everything else is as it was on the wire.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wire {
    /// Anything but an array or a map: the format and the bytes behind marker and length.
    Leaf(&'static str, Vec<u8>),
    /// An array.
    Array(&'static str, Vec<Wire>),
    /// A map.
    Map(&'static str, Vec<(Wire, Wire)>),
}

impl Wire {
    /// The message that these bytes are. `None` where they are not one whole message.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes;
        let wire = element(&mut rest)?;
        rest.is_empty().then_some(wire)
    }

    /// The text of a string.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Leaf(format, bytes) if format.contains("str") => std::str::from_utf8(bytes).ok(),
            _ => None,
        }
    }
}

fn element(rest: &mut &[u8]) -> Option<Wire> {
    let marker = take(rest, 1)?[0];
    Some(match marker {
        0x00..=0x7f | 0xe0..=0xff => Wire::Leaf("fixint", vec![marker]),
        0x80..=0x8f => map("fixmap", usize::from(marker & 0x0f), rest)?,
        0x90..=0x9f => array("fixarray", usize::from(marker & 0x0f), rest)?,
        0xa0..=0xbf => leaf("fixstr", usize::from(marker & 0x1f), rest)?,
        0xc0 => Wire::Leaf("nil", Vec::new()),
        0xc2 => Wire::Leaf("false", Vec::new()),
        0xc3 => Wire::Leaf("true", Vec::new()),
        0xc4 => length(rest, 1).and_then(|n| leaf("bin8", n, rest))?,
        0xc5 => length(rest, 2).and_then(|n| leaf("bin16", n, rest))?,
        0xc6 => length(rest, 4).and_then(|n| leaf("bin32", n, rest))?,
        0xca => leaf("float32", 4, rest)?,
        0xcb => leaf("float64", 8, rest)?,
        0xcc => leaf("uint8", 1, rest)?,
        0xcd => leaf("uint16", 2, rest)?,
        0xce => leaf("uint32", 4, rest)?,
        0xcf => leaf("uint64", 8, rest)?,
        0xd0 => leaf("int8", 1, rest)?,
        0xd1 => leaf("int16", 2, rest)?,
        0xd2 => leaf("int32", 4, rest)?,
        0xd3 => leaf("int64", 8, rest)?,
        0xd9 => length(rest, 1).and_then(|n| leaf("str8", n, rest))?,
        0xda => length(rest, 2).and_then(|n| leaf("str16", n, rest))?,
        0xdb => length(rest, 4).and_then(|n| leaf("str32", n, rest))?,
        0xdc => length(rest, 2).and_then(|n| array("array16", n, rest))?,
        0xdd => length(rest, 4).and_then(|n| array("array32", n, rest))?,
        0xde => length(rest, 2).and_then(|n| map("map16", n, rest))?,
        0xdf => length(rest, 4).and_then(|n| map("map32", n, rest))?,
        _ => return None,
    })
}

/// So many bytes from the front; `None`, and all still there, where there are fewer.
pub(crate) fn take<'a>(rest: &mut &'a [u8], n: usize) -> Option<&'a [u8]> {
    let (taken, after) = rest.split_at_checked(n)?;
    *rest = after;
    Some(taken)
}

fn length(rest: &mut &[u8], width: usize) -> Option<usize> {
    Some(take(rest, width)?.iter().fold(0, |n, b| n << 8 | usize::from(*b)))
}

fn leaf(format: &'static str, len: usize, rest: &mut &[u8]) -> Option<Wire> {
    Some(Wire::Leaf(format, take(rest, len)?.to_vec()))
}

fn array(format: &'static str, len: usize, rest: &mut &[u8]) -> Option<Wire> {
    Some(Wire::Array(format, (0..len).map(|_| element(rest)).collect::<Option<_>>()?))
}

fn map(format: &'static str, len: usize, rest: &mut &[u8]) -> Option<Wire> {
    let entry = |_| Some((element(rest)?, element(rest)?));
    let mut entries: Vec<_> = (0..len).map(entry).collect::<Option<_>>()?;
    entries.sort();
    Some(Wire::Map(format, entries))
}
