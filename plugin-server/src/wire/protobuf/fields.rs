//! This knows the wire format of Protocol Buffers, as far as it takes to read a request's headers in one pass.
//!
//! The answer to `kong.request.get_headers` is the one large message, and the one whose values a client chooses. Read
//! with the derived decoders, each value would take some fifty bytes where two may be enough on the wire; here they
//! are counted before they are kept.

use crate::pdk::Headers;

/// The most values in an answer. A request with as many headers as Kong hands out has 2,000, names included.
const MAX_VALUES: usize = 65_536;

/// The message is not headers, or more of them than can be real.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotHeaders;

/// The number of a field, and its content where it has a length.
type Field<'a> = (u64, Option<&'a [u8]>);

/// The fields of a message, one after the other.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn next(&mut self) -> Result<Option<Field<'a>>, NotHeaders> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let key = self.varint()?;
        let content = match key & 7 {
            0 => self.varint().map(|_| None)?,
            1 => self.bytes(8).map(|_| None)?,
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| NotHeaders)?;
                Some(self.bytes(length)?)
            }
            5 => self.bytes(4).map(|_| None)?,
            _ => return Err(NotHeaders),
        };
        Ok(Some((key >> 3, content)))
    }

    /// The content of the only field, which has this number.
    fn only(mut self, number: u64) -> Result<&'a [u8], NotHeaders> {
        match (self.next()?, self.next()?) {
            (Some((found, Some(content))), None) if found == number => Ok(content),
            _ => Err(NotHeaders),
        }
    }

    fn varint(&mut self) -> Result<u64, NotHeaders> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.0.split_first().ok_or(NotHeaders)?;
            self.0 = rest;
            let bits = u64::from(byte & 0x7f);
            // Of the tenth byte one bit has room. Without the others it would be another number.
            if bits << shift >> shift != bits {
                return Err(NotHeaders);
            }
            number |= bits << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(NotHeaders)
    }

    fn bytes(&mut self, length: usize) -> Result<&'a [u8], NotHeaders> {
        let (bytes, rest) = self.0.split_at_checked(length).ok_or(NotHeaders)?;
        self.0 = rest;
        Ok(bytes)
    }
}

/// How many values may still come.
struct Allowance(usize);

impl Allowance {
    fn take_one(&mut self) -> Result<(), NotHeaders> {
        self.0 = self.0.checked_sub(1).ok_or(NotHeaders)?;
        Ok(())
    }
}

/// Reads a `google.protobuf.Struct` whose values are strings or lists of strings. Kong puts whatever a client sent
/// into fields that should be UTF-8, so all are bytes here.
pub(crate) fn headers(message: &[u8]) -> Result<Headers, NotHeaders> {
    const FIELDS: u64 = 1;
    const KEY: u64 = 1;
    const VALUE: u64 = 2;
    let mut allowance = Allowance(MAX_VALUES);
    let mut headers = Headers::new();
    let mut fields = Fields(message);
    while let Some(field) = fields.next()? {
        let (FIELDS, Some(entry)) = field else { return Err(NotHeaders) };
        allowance.take_one()?;
        let (mut name, mut values) = (None, None);
        let mut entry = Fields(entry);
        while let Some(field) = entry.next()? {
            match field {
                (KEY, Some(bytes)) if name.is_none() => name = Some(bytes.to_vec()),
                (VALUE, Some(bytes)) if values.is_none() => values = Some(strings(bytes, &mut allowance)?),
                _ => return Err(NotHeaders),
            }
        }
        headers.push((name.ok_or(NotHeaders)?, values.ok_or(NotHeaders)?));
    }
    Ok(headers)
}

/// The strings of a `google.protobuf.Value` that is one, or a list of some.
fn strings(value: &[u8], allowance: &mut Allowance) -> Result<Vec<Vec<u8>>, NotHeaders> {
    const STRING: u64 = 3;
    const LIST: u64 = 6;
    const VALUES: u64 = 1;
    let Ok(list) = Fields(value).only(LIST) else {
        allowance.take_one()?;
        return Ok(vec![Fields(value).only(STRING)?.to_vec()]);
    };
    let mut strings = Vec::new();
    let mut list = Fields(list);
    while let Some(item) = list.next()? {
        let (VALUES, Some(item)) = item else { return Err(NotHeaders) };
        allowance.take_one()?;
        strings.push(Fields(item).only(STRING)?.to_vec());
    }
    Ok(strings)
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::wire::protobuf::messages::{Kind, ListValue, Struct, StructField, Value};

    fn message(fields: Vec<(&str, Value)>) -> Vec<u8> {
        let field = |(key, value): (&str, _)| StructField { key: key.to_owned(), value: Some(value) };
        Struct { fields: fields.into_iter().map(field).collect() }.encode_to_vec()
    }

    #[test]
    fn headers_are_names_with_their_values() {
        let list = Value::list(["a", "b"]);
        let read = headers(&message(vec![("host", "x".into()), ("n", list), ("e", "".into())])).unwrap();
        let bytes =
            |values: &[&str]| values.iter().map(|value| value.as_bytes().to_vec()).collect::<Vec<_>>();
        let expected = [("host", bytes(&["x"])), ("n", bytes(&["a", "b"])), ("e", bytes(&[""]))];
        assert_eq!(read, expected.map(|(name, values)| (name.as_bytes().to_vec(), values)));
        assert_eq!(headers(b""), Ok(vec![]));
        assert_eq!(headers(&message(vec![("n", Value::list([]))])), Ok(vec![(b"n".to_vec(), vec![])]));
    }

    #[test]
    fn values_that_are_not_utf_8_survive() {
        let mut bytes = message(vec![("x", "??".into())]);
        let at = bytes.iter().position(|byte| *byte == b'?').unwrap();
        bytes[at..at + 2].copy_from_slice(b"\xff\xfe");
        assert_eq!(headers(&bytes), Ok(vec![(b"x".to_vec(), vec![vec![0xff, 0xfe]])]));
    }

    #[test]
    fn whatever_is_not_headers_is_none() {
        let good = message(vec![("host", Value::list(["a", "b"]))]);
        assert!(headers(&good).is_ok());
        for end in 1..good.len() {
            assert_eq!(headers(&good[..end]), Err(NotHeaders), "cut off at {end}");
        }
        for (bytes, what) in [
            (&b"\x08\x01"[..], "a number where a field should be"),
            (b"\x12\x00", "another field"),
            (b"\x0b", "a group"),
            (b"\x0a\x00", "an entry without name and value"),
            (b"\x0a\x03\x0a\x01x", "an entry without a value"),
            (b"\x0a\x04\x12\x02\x1a\x00", "an entry without a name"),
            (b"\x0a\x05\x0a\x01x\x12\x00", "an empty value"),
            (b"\x0a\x07\x0a\x01x\x12\x02\x08\x00", "a null value"),
            (b"\x0a\x07\x0a\x01x\x12\x02\x20\x01", "a boolean value"),
            (b"\x0a\x09\x0a\x01x\x12\x04\x1a\x00\x1a\x00", "a value twice"),
            (b"\x0a\x09\x0a\x01x\x12\x04\x32\x02\x0a\x00", "a list of an empty value"),
            (b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "a length of 2^64 - 1"),
            (b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "a number that does not end"),
            // Without their upper bits they would be what should be there.
            (
                b"\x8a\x80\x80\x80\x80\x80\x80\x80\x80\x02\x07\x0a\x01x\x12\x02\x1a\x00",
                "a key of more than 64 bits",
            ),
            (
                b"\x0a\x87\x80\x80\x80\x80\x80\x80\x80\x80\x7e\x0a\x01x\x12\x02\x1a\x00",
                "a length of more than 64 bits",
            ),
            (b"GET / HTTP/1.1", "another protocol"),
        ] {
            assert_eq!(headers(bytes), Err(NotHeaders), "{what}");
        }
    }

    /// Whatever single byte is wrong: it is read or refused, and nothing panics. What the derived decoder reads, too,
    /// is the same there.
    #[test]
    fn no_wrong_byte_is_read_as_the_derived_decoder_does_not() {
        let good = message(vec![("host", Value::list(["a", "b"])), ("x-y", "z".into())]);
        let mut read = 0;
        for at in 0..good.len() {
            for byte in 0..=0xff {
                let mut bytes = good.clone();
                bytes[at] = byte;
                let Ok(headers) = headers(&bytes) else { continue };
                let Ok(derived) = Struct::decode(&bytes[..]) else { continue };
                read += 1;
                let names: Vec<_> =
                    derived.fields.iter().map(|field| field.key.clone().into_bytes()).collect();
                assert_eq!(headers.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>(), names);
                for (field, (_, values)) in derived.fields.into_iter().zip(headers) {
                    let derived = match field.value.unwrap().kind.unwrap() {
                        Kind::String(text) => vec![text],
                        Kind::List(list) => list
                            .values
                            .into_iter()
                            .map(|value| match value.kind.unwrap() {
                                Kind::String(text) => text,
                                other => panic!("{other:?} in a list"),
                            })
                            .collect(),
                        Kind::Table(_) => panic!("a table for a value"),
                    };
                    assert_eq!(values, derived.into_iter().map(String::into_bytes).collect::<Vec<_>>());
                }
            }
        }
        assert!(read > 500, "only {read}");
    }

    #[test]
    fn more_values_than_can_be_real_are_none_before_memory_is_taken_for_them() {
        // One header with as many empty values as there may be beside its name, and one with one more.
        let with = |count: usize| {
            let values = vec![Value::from(""); count];
            message(vec![("x", Value { kind: Some(Kind::List(ListValue { values })) })])
        };
        assert!(headers(&with(MAX_VALUES - 1)).is_ok());
        assert_eq!(headers(&with(MAX_VALUES)), Err(NotHeaders));
        let many = |count| headers(&message(vec![("x", "".into()); count]));
        assert!(many(MAX_VALUES / 2).is_ok());
        assert_eq!(many(MAX_VALUES / 2 + 1), Err(NotHeaders));
    }
}
