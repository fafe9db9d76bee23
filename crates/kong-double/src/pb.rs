//! This knows Protocol Buffers as Kong's Lua library writes and reads them: Lua tables, by the description of a
//! message.
//!
//! Written by hand, on purpose: the plugin server has other code for it, and two implementations check one another.
//! What is particular to Kong's library: fields are written in the order of the table, which Lua leaves open; what is
//! 0 or empty is left out, but never a boolean and never in a oneof; a message read has all of its fields that are
//! neither messages nor in a oneof.

use crate::{pack::MapOrder, value::Value, wire::take};

/// Deeper nesting than this overflows Lua's stack in Kong, which throws.
const MAX_DEPTH: usize = 190;

/// A message's name and its fields.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) name: &'static str,
    pub(crate) fields: &'static [Field],
}

/// One field of a message.
#[derive(Debug)]
pub(crate) struct Field {
    name: &'static str,
    number: u64,
    kind: Kind,
    count: Count,
}

/// What is in a field.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Bool,
    /// `int32` and `int64`: they look the same, and no number of Kong's is beyond the first.
    Int,
    Double,
    /// `string` and `bytes`: nobody looks whether it is UTF-8.
    Text,
    /// `google.protobuf.NullValue`, the only enum.
    Null,
    Message(&'static Message),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Count {
    One,
    OneOf,
    Repeated,
    /// From strings; the kind is that of the values.
    Map,
}

impl Field {
    /// A field of proto3: 0 and empty are as good as absent.
    pub(crate) const fn one(name: &'static str, number: u64, kind: Kind) -> Self {
        Self { name, number, kind, count: Count::One }
    }

    /// A field of a oneof.
    pub(crate) const fn one_of(name: &'static str, number: u64, kind: Kind) -> Self {
        Self { name, number, kind, count: Count::OneOf }
    }

    /// A repeated field.
    pub(crate) const fn repeated(name: &'static str, number: u64, kind: Kind) -> Self {
        Self { name, number, kind, count: Count::Repeated }
    }

    /// A map from strings.
    pub(crate) const fn map(name: &'static str, number: u64, values: Kind) -> Self {
        Self { name, number, kind: values, count: Count::Map }
    }
}

/// Writes a table as a message. What the message has no field for is left out.
///
/// # Errors
/// The library's complaint, for a value of the wrong type.
pub(crate) fn encode(message: &Message, table: &Value, order: MapOrder) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    for (key, value) in entries(table, order) {
        let field = key.as_bytes().and_then(|key| message.fields.iter().find(|f| f.name.as_bytes() == key));
        let (Some(field), false) = (field, *value == Value::Nil) else { continue };
        match (field.count, value) {
            (Count::One, _) => put(field.number, field, value, may_omit(field.kind), order, &mut out)?,
            (Count::OneOf, _) => put(field.number, field, value, false, order, &mut out)?,
            (_, Value::List(_) | Value::Map(_)) if field.count == Count::Map => {
                for (key, value) in entries(value, order) {
                    let mut entry = Vec::new();
                    let key_field = Field::one("key", 1, Kind::Text);
                    put(1, &key_field, key, true, order, &mut entry)?;
                    put(2, field, value, true, order, &mut entry)?;
                    put_text(field.number, &entry, &mut out);
                }
            }
            (_, Value::List(items)) => {
                for item in items.iter().take_while(|item| **item != Value::Nil) {
                    put(field.number, field, item, false, order, &mut out)?;
                }
            }
            // A table without a first element.
            (_, Value::Map(_)) => {}
            (_, other) => return Err(mismatch("table", field, other)),
        }
    }
    Ok(out)
}

/// A table's entries in the order in which this worker's Lua has them.
fn entries(table: &Value, order: MapOrder) -> Vec<(&Value, &Value)> {
    const ABSENT: &Value = &Value::Nil;
    let mut entries: Vec<_> = match table {
        Value::Map(entries) => entries.iter().map(|(k, v)| (k, v)).collect(),
        // The keys are numbers, which are no names of fields.
        Value::List(items) => items.iter().map(|item| (ABSENT, item)).collect(),
        _ => Vec::new(),
    };
    if order == MapOrder::Reversed {
        entries.reverse();
    }
    entries
}

fn may_omit(kind: Kind) -> bool {
    !matches!(kind, Kind::Message(_))
}

fn put(
    number: u64,
    field: &Field,
    value: &Value,
    omit_empty: bool,
    order: MapOrder,
    out: &mut Vec<u8>,
) -> Result<(), String> {
    match (field.kind, value) {
        (Kind::Bool, value) => put_varint(number << 3, u64::from(value.truthy()), out),
        (Kind::Int | Kind::Null, Value::Number(n)) if *n == 0.0 && omit_empty => {}
        (Kind::Int | Kind::Null, Value::Number(n)) if n.fract() == 0.0 => {
            put_varint(number << 3, *n as i64 as u64, out);
        }
        (Kind::Int | Kind::Null, Value::Number(_)) => {
            return Err(format!("integer expected for field '{}', got number", field.name));
        }
        (Kind::Double, Value::Number(n)) if *n == 0.0 && omit_empty => {}
        (Kind::Double, Value::Number(n)) => {
            varint(number << 3 | 1, out);
            out.extend(n.to_le_bytes());
        }
        (Kind::Text, Value::Str(text) | Value::Bin(text)) if text.is_empty() && omit_empty => {}
        (Kind::Text, Value::Str(text) | Value::Bin(text)) => put_text(number, text, out),
        (Kind::Message(message), Value::List(_) | Value::Map(_)) => {
            let content = encode(message, value, order)?;
            if !(content.is_empty() && omit_empty) {
                put_text(number, &content, out);
            }
        }
        (Kind::Int | Kind::Double | Kind::Null, other) => return Err(mismatch("number", field, other)),
        (Kind::Text, other) => return Err(mismatch("string", field, other)),
        (Kind::Message(_), other) => return Err(mismatch("table", field, other)),
    }
    Ok(())
}

fn mismatch(expected: &str, field: &Field, got: &Value) -> String {
    format!("{expected} expected for field '{}', got {}", field.name, got.type_name())
}

fn put_varint(key: u64, value: u64, out: &mut Vec<u8>) {
    varint(key, out);
    varint(value, out);
}

fn put_text(number: u64, content: &[u8], out: &mut Vec<u8>) {
    put_varint(number << 3 | 2, content.len() as u64, out);
    out.extend(content);
}

fn varint(mut n: u64, out: &mut Vec<u8>) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

/// Reads a message as a table.
///
/// # Errors
/// The library's complaint, for bytes that are no such message.
pub(crate) fn decode(message: &Message, bytes: &[u8]) -> Result<Value, String> {
    decode_at(message, bytes, 0)
}

fn decode_at(message: &Message, bytes: &[u8], depth: usize) -> Result<Value, String> {
    if depth > MAX_DEPTH {
        return Err("stack overflow (message too many levels)".into());
    }
    let mut table: Vec<(Value, Value)> = Vec::new();
    for field in message.fields {
        let default = match (field.count, field.kind) {
            (Count::OneOf, _) | (Count::One, Kind::Message(_)) => continue,
            (Count::Repeated | Count::Map, _) => Value::List(Vec::new()),
            (Count::One, Kind::Bool) => Value::Bool(false),
            (Count::One, Kind::Text) => Value::str(""),
            (Count::One, Kind::Int | Kind::Double | Kind::Null) => Value::number(0),
        };
        table.push((Value::str(field.name), default));
    }
    let mut rest = bytes;
    // The library stops without a word where the number of a field is cut off.
    while let Some(key) = take_varint(&mut rest) {
        let raw = Raw::take(key, &mut rest).ok_or_else(|| format!("unfinished bytes in {}", message.name))?;
        let Some(field) = message.fields.iter().find(|field| field.number == raw.number) else { continue };
        let at = table.iter().position(|(name, _)| name.as_bytes() == Some(field.name.as_bytes()));
        let read = match field.count {
            Count::Map => map_entry(field, &raw, depth)?,
            _ => (Value::Nil, scalar(field, &raw, depth)?),
        };
        match (field.count, at) {
            (Count::One | Count::OneOf, Some(at)) => table[at].1 = read.1,
            (Count::One | Count::OneOf, None) => table.push((Value::str(field.name), read.1)),
            (Count::Repeated, Some(at)) => {
                let Value::List(items) = &mut table[at].1 else { unreachable!("the default is a list") };
                items.push(read.1);
            }
            (Count::Map, Some(at)) => {
                let mut entries = match std::mem::replace(&mut table[at].1, Value::Nil) {
                    Value::Map(entries) => entries,
                    _ => Vec::new(),
                };
                entries.retain(|(key, _)| *key != read.0);
                entries.push(read);
                table[at].1 = Value::Map(entries);
            }
            (Count::Repeated | Count::Map, None) => unreachable!("has a default"),
        }
    }
    Ok(Value::Map(table))
}

fn map_entry(field: &Field, raw: &Raw<'_>, depth: usize) -> Result<(Value, Value), String> {
    let Content::Bytes(mut rest) = raw.content else { return Err(wrong_type(field)) };
    let (mut key, mut value) = (Value::str(""), Value::Nil);
    while let Some(entry_key) = take_varint(&mut rest) {
        let raw = Raw::take(entry_key, &mut rest).ok_or_else(|| wrong_type(field))?;
        match raw.number {
            1 => key = scalar(&Field::one("key", 1, Kind::Text), &raw, depth)?,
            2 => value = scalar(field, &raw, depth)?,
            _ => {}
        }
    }
    Ok((key, value))
}

fn scalar(field: &Field, raw: &Raw<'_>, depth: usize) -> Result<Value, String> {
    Ok(match (field.kind, &raw.content) {
        (Kind::Bool, Content::Varint(n)) => Value::Bool(*n != 0),
        (Kind::Int, Content::Varint(n)) => Value::Number(*n as i64 as f64),
        // Enums are read by their names.
        (Kind::Null, Content::Varint(0)) => Value::str("NULL_VALUE"),
        (Kind::Null, Content::Varint(n)) => Value::Number(*n as f64),
        (Kind::Double, Content::Fixed64(bytes)) => Value::Number(f64::from_le_bytes(*bytes)),
        (Kind::Text, Content::Bytes(bytes)) => Value::str(bytes),
        (Kind::Message(message), Content::Bytes(bytes)) => decode_at(message, bytes, depth + 1)?,
        _ => return Err(wrong_type(field)),
    })
}

fn wrong_type(field: &Field) -> String {
    format!("type mismatch for field '{}'", field.name)
}

/// A field on the wire.
struct Raw<'a> {
    number: u64,
    content: Content<'a>,
}

enum Content<'a> {
    Varint(u64),
    Fixed64([u8; 8]),
    Bytes(&'a [u8]),
    Fixed32,
}

impl<'a> Raw<'a> {
    /// The field whose key was just read.
    fn take(key: u64, rest: &mut &'a [u8]) -> Option<Self> {
        let content = match key & 7 {
            0 => Content::Varint(take_varint(rest)?),
            1 => Content::Fixed64(take(rest, 8)?.try_into().ok()?),
            2 => {
                let len = usize::try_from(take_varint(rest)?).ok()?;
                Content::Bytes(take(rest, len)?)
            }
            5 => take(rest, 4).map(|_| Content::Fixed32)?,
            _ => return None,
        };
        Some(Self { number: key >> 3, content })
    }
}

fn take_varint(rest: &mut &[u8]) -> Option<u64> {
    let mut n = 0;
    for shift in (0..64).step_by(7) {
        let byte = take(rest, 1)?[0];
        n |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(n);
        }
    }
    None
}
