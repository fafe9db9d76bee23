//! This knows MessagePack as Kong's Lua library writes and reads it.
//!
//! Written by hand, on purpose: the plugin server decodes with other code, and two implementations check
//! one another. What is particular to Kong: `str8` is never written (a string of 32 bytes is `str16`),
//! integers take their smallest form, a number is an integer where it has no fraction and lies strictly
//! within ±(2^53 − 1), an empty table is an array.

use crate::value::Value;

/// Deeper nesting than this overflows Lua's C stack in Kong, which throws.
const MAX_DEPTH: usize = 190;
const MAX_INTEGER: f64 = 9_007_199_254_740_991.0;

/// In which order the entries of a map are written. Lua's `pairs` has no order of its own: it differs
/// between Kong processes (recordings 01 and 04 differ), so a server must not rely on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapOrder {
    /// As they were given.
    Given,
    /// The other way round.
    Reversed,
}

/// Encodes a value.
pub fn pack(value: &Value, order: MapOrder) -> Vec<u8> {
    let mut out = Vec::with_capacity(128);
    write(value, order, &mut out);
    out
}

fn write(value: &Value, order: MapOrder, out: &mut Vec<u8>) {
    match value {
        Value::Nil => out.push(0xc0),
        Value::Bool(b) => out.push(0xc2 + u8::from(*b)),
        Value::Number(n) => write_number(*n, out),
        Value::Str(bytes) => {
            write_length(bytes.len(), Some(0xa0), 32, None, 0xda, out);
            out.extend(bytes);
        }
        Value::Bin(bytes) => {
            write_length(bytes.len(), None, 0, Some(0xc4), 0xc5, out);
            out.extend(bytes);
        }
        Value::List(items) if items.last() == Some(&Value::Nil) || items.contains(&Value::Nil) => {
            // Lua drops the nils; what is left is a sequence only if the holes were at its end.
            let entries = items.iter().enumerate().map(|(i, v)| (Value::Number(i as f64 + 1.0), v.clone()));
            write(&Value::table(entries.collect()), order, out);
        }
        Value::List(items) => {
            write_length(items.len(), Some(0x90), 16, None, 0xdc, out);
            items.iter().for_each(|item| write(item, order, out));
        }
        Value::Map(entries) => {
            write_length(entries.len(), Some(0x80), 16, None, 0xde, out);
            let mut entry = |(k, v): &(Value, Value)| {
                write(k, order, out);
                write(v, order, out);
            };
            match order {
                MapOrder::Given => entries.iter().for_each(&mut entry),
                MapOrder::Reversed => entries.iter().rev().for_each(&mut entry),
            }
        }
    }
}

/// Writes a length in its smallest form: in the marker (`fix`, below `fix_limit`), one byte (`small`), two
/// or four bytes (`wide` and the marker after it).
fn write_length(
    len: usize,
    fix: Option<u8>,
    fix_limit: usize,
    small: Option<u8>,
    wide: u8,
    out: &mut Vec<u8>,
) {
    match (fix, small) {
        (Some(fix), _) if len < fix_limit => out.push(fix + len as u8),
        (_, Some(small)) if len <= 0xff => out.extend([small, len as u8]),
        _ if len <= 0xffff => {
            out.push(wide);
            out.extend((len as u16).to_be_bytes());
        }
        _ => {
            out.push(wide + 1);
            out.extend((len as u32).to_be_bytes());
        }
    }
}

fn write_number(n: f64, out: &mut Vec<u8>) {
    if n.fract() != 0.0 || !(n < MAX_INTEGER && n > -MAX_INTEGER) {
        out.push(0xcb);
        out.extend(n.to_be_bytes());
        return;
    }
    let i = n as i64;
    let bytes = i.to_be_bytes();
    let (marker, width) = match i {
        -0x20..=0x7f => return out.push(i as u8),
        0x80..=0xff => (0xcc, 1),
        0x100..=0xffff => (0xcd, 2),
        0x1_0000..=0xffff_ffff => (0xce, 4),
        0x1_0000_0000.. => (0xcf, 8),
        -0x80.. => (0xd0, 1),
        -0x8000.. => (0xd1, 2),
        -0x8000_0000.. => (0xd2, 4),
        _ => (0xd3, 8),
    };
    out.push(marker);
    out.extend(&bytes[8 - width..]);
}

/// Why bytes are not a value (yet).
#[derive(Debug, PartialEq, Eq)]
pub enum Unpack {
    /// More bytes are needed.
    Missing,
    /// No bytes could make it one; Lua's library throws this.
    Invalid(String),
}

/// Decodes the value at the start of `bytes` and says how many bytes it took.
///
/// # Errors
/// See [`Unpack`].
pub fn unpack(bytes: &[u8]) -> Result<(Value, usize), Unpack> {
    let mut reader = Reader { rest: bytes };
    let value = reader.value(0)?;
    Ok((value, bytes.len() - reader.rest.len()))
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8], Unpack> {
        let (taken, rest) = self.rest.split_at_checked(n).ok_or(Unpack::Missing)?;
        self.rest = rest;
        Ok(taken)
    }

    fn uint(&mut self, width: usize) -> Result<u64, Unpack> {
        Ok(self.take(width)?.iter().fold(0, |n, b| n << 8 | u64::from(*b)))
    }

    fn int(&mut self, width: usize) -> Result<i64, Unpack> {
        let shift = 64 - 8 * width as u32;
        Ok(((self.uint(width)? << shift) as i64) >> shift)
    }

    fn value(&mut self, depth: usize) -> Result<Value, Unpack> {
        if depth > MAX_DEPTH {
            return Err(Unpack::Invalid("C stack overflow".into()));
        }
        let marker = self.take(1)?[0];
        Ok(match marker {
            0x00..=0x7f => Value::Number(f64::from(marker)),
            0xe0..=0xff => Value::Number(f64::from(marker as i8)),
            0x80..=0x8f => self.map(usize::from(marker & 0x0f), depth)?,
            0x90..=0x9f => self.list(usize::from(marker & 0x0f), depth)?,
            0xa0..=0xbf => self.string(usize::from(marker & 0x1f))?,
            0xc0 => Value::Nil,
            0xc2 => Value::Bool(false),
            0xc3 => Value::Bool(true),
            0xc4 | 0xd9 => self.sized(1, Self::string)?,
            0xc5 | 0xda => self.sized(2, Self::string)?,
            0xc6 | 0xdb => self.sized(4, Self::string)?,
            0xca => Value::Number(f64::from(f32::from_bits(self.uint(4)? as u32))),
            0xcb => Value::Number(f64::from_bits(self.uint(8)?)),
            0xcc => Value::Number(self.uint(1)? as f64),
            0xcd => Value::Number(self.uint(2)? as f64),
            0xce => Value::Number(self.uint(4)? as f64),
            0xcf => Value::Number(self.uint(8)? as f64),
            0xd0 => Value::Number(self.int(1)? as f64),
            0xd1 => Value::Number(self.int(2)? as f64),
            0xd2 => Value::Number(self.int(4)? as f64),
            0xd3 => Value::Number(self.int(8)? as f64),
            0xdc => self.sized(2, |r, n| r.list(n, depth))?,
            0xdd => self.sized(4, |r, n| r.list(n, depth))?,
            0xde => self.sized(2, |r, n| r.map(n, depth))?,
            0xdf => self.sized(4, |r, n| r.map(n, depth))?,
            0xc1 => return Err(Unpack::Invalid("unpack '0xC1' is unimplemented".into())),
            0xc7..=0xc9 | 0xd4..=0xd8 => return Err(Unpack::Invalid("unpack 'ext' is unimplemented".into())),
        })
    }

    fn sized(
        &mut self,
        width: usize,
        read: impl FnOnce(&mut Self, usize) -> Result<Value, Unpack>,
    ) -> Result<Value, Unpack> {
        let len = self.uint(width)? as usize;
        read(self, len)
    }

    fn string(&mut self, len: usize) -> Result<Value, Unpack> {
        Ok(Value::Str(self.take(len)?.to_vec()))
    }

    fn list(&mut self, len: usize, depth: usize) -> Result<Value, Unpack> {
        // No capacity taken from a declared length: it comes from the peer.
        let mut items = Vec::new();
        for _ in 0..len {
            items.push(self.value(depth + 1)?);
        }
        Ok(Value::List(items))
    }

    fn map(&mut self, len: usize, depth: usize) -> Result<Value, Unpack> {
        let mut entries = Vec::new();
        for _ in 0..len {
            let key = self.value(depth + 1)?;
            let value = self.value(depth + 1)?;
            match key {
                // lua-MessagePack drops an entry whose key is nil or NaN: no Lua table can hold it.
                Value::Nil => {}
                Value::Number(n) if n.is_nan() => {}
                _ => entries.push((key, value)),
            }
        }
        Ok(Value::table(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(value: Value) -> Vec<u8> {
        pack(&value, MapOrder::Given)
    }

    #[test]
    fn strings_are_never_str8() {
        assert_eq!(packed(Value::str("a".repeat(31)))[0], 0xbf);
        assert_eq!(packed(Value::str("a".repeat(32)))[..3], [0xda, 0, 32]);
        assert_eq!(packed(Value::str("a".repeat(0x1_0000)))[..5], [0xdb, 0, 1, 0, 0]);
        assert_eq!(packed(Value::Bin(vec![7; 10]))[..2], [0xc4, 10]);
        assert_eq!(packed(Value::Bin(vec![7; 5120]))[..3], [0xc5, 0x14, 0]);
    }

    #[test]
    fn numbers_take_the_form_lua_gives_them() {
        for (n, expected) in [
            (0.0, vec![0]),
            (127.0, vec![0x7f]),
            (128.0, vec![0xcc, 0x80]),
            (8000.0, vec![0xcd, 0x1f, 0x40]),
            (1_795_466_921.0, vec![0xce, 0x6b, 0x04, 0xa6, 0xa9]),
            (-1.0, vec![0xff]),
            (-33.0, vec![0xd0, 0xdf]),
            (-40_000.0, vec![0xd2, 0xff, 0xff, 0x63, 0xc0]),
            (1.5, vec![0xcb, 0x3f, 0xf8, 0, 0, 0, 0, 0, 0]),
            // 2^53 is beyond what the library takes for an integer (recording 18, eventid-big).
            (9_007_199_254_740_992.0, vec![0xcb, 0x43, 0x40, 0, 0, 0, 0, 0, 0]),
        ] {
            assert_eq!(packed(Value::Number(n)), expected, "{n}");
            assert_eq!(unpack(&expected).unwrap(), (Value::Number(n), expected.len()));
        }
    }

    #[test]
    fn a_truncated_value_asks_for_more_and_a_bad_one_throws() {
        let whole =
            packed(Value::record([("Data", Value::str("x".repeat(40))), ("EventId", Value::number(7))]));
        for cut in 0..whole.len() {
            assert_eq!(unpack(&whole[..cut]), Err(Unpack::Missing));
        }
        assert!(matches!(unpack(&[0xc1]), Err(Unpack::Invalid(_))));
        assert!(matches!(unpack(&[0x91; 4096]), Err(Unpack::Invalid(_))));
    }
}
