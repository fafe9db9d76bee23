//! This knows a Lua value as it crosses the plugin protocol: what Kong's Lua can hold after decoding a
//! message and what it can pack again.

/// A Lua value.
///
/// Lua has one number type (a double) and one string type (bytes); an empty table is neither a list nor a
/// map. Decoding therefore loses what Kong loses: integers beyond 2^53, the difference between `str` and
/// `bin`, and between `[]` and `{}`.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `nil`.
    Nil,
    /// A boolean.
    Bool(bool),
    /// Any number.
    Number(f64),
    /// A string: bytes, UTF-8 or not.
    Str(Vec<u8>),
    /// A string that is packed as MessagePack `bin`; only `get_raw_body` makes one.
    Bin(Vec<u8>),
    /// A table with the keys 1..n. May hold `Nil`s where a decoded array had them. Also the empty table.
    List(Vec<Value>),
    /// Any other table.
    Map(Vec<(Value, Value)>),
}

impl Value {
    /// A string value.
    pub fn str(text: impl AsRef<[u8]>) -> Self {
        Self::Str(text.as_ref().to_vec())
    }

    /// A number value.
    pub fn number(n: impl Into<f64>) -> Self {
        Self::Number(n.into())
    }

    /// A table with string keys; entries that are `nil` do not exist in Lua and are left out.
    pub fn record<const N: usize>(entries: [(&str, Value); N]) -> Self {
        Self::table(entries.into_iter().map(|(k, v)| (Value::str(k), v)).collect())
    }

    /// A table of these entries, as Lua would hold it.
    pub fn table(mut entries: Vec<(Value, Value)>) -> Self {
        entries.retain(|(_, v)| *v != Value::Nil);
        let sequence = entries.iter().enumerate().all(|(i, (k, _))| *k == Value::Number(i as f64 + 1.0));
        if sequence {
            return Self::List(entries.into_iter().map(|(_, v)| v).collect());
        }
        Self::Map(entries)
    }

    /// False for what Lua's `if` takes as false.
    pub fn truthy(&self) -> bool {
        !matches!(self, Self::Nil | Self::Bool(false))
    }

    /// The bytes of a string.
    pub fn as_bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Str(bytes) | Self::Bin(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// Lua's `type()`.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Nil => "nil",
            Self::Bool(_) => "boolean",
            Self::Number(_) => "number",
            Self::Str(_) | Self::Bin(_) => "string",
            Self::List(_) | Self::Map(_) => "table",
        }
    }

    /// The entry of a table under a string key; `Nil` where there is none.
    pub fn get(&self, key: &str) -> &Value {
        const NIL: &Value = &Value::Nil;
        let Self::Map(entries) = self else { return NIL };
        let wanted = |k: &Value| k.as_bytes() == Some(key.as_bytes());
        entries.iter().rev().find(|(k, _)| wanted(k)).map_or(NIL, |(_, v)| v)
    }

    /// `value.key` as Lua evaluates it: a string has no such field, anything that is no table throws.
    ///
    /// # Errors
    /// Lua's message, which names the field `what`.
    pub fn index(&self, key: &str, what: &str) -> Result<&Value, String> {
        match self {
            Self::Map(_) | Self::List(_) | Self::Str(_) | Self::Bin(_) => Ok(self.get(key)),
            other => Err(format!("attempt to index {what} (a {} value)", other.type_name())),
        }
    }

    /// `tostring(value)`.
    pub fn to_lua_string(&self) -> Vec<u8> {
        match self {
            Self::Nil => b"nil".to_vec(),
            Self::Bool(b) => b.to_string().into_bytes(),
            Self::Number(n) => number_text(*n).into_bytes(),
            Self::Str(bytes) | Self::Bin(bytes) => bytes.clone(),
            Self::List(_) | Self::Map(_) => b"table: 0x7f0000000000".to_vec(),
        }
    }

    /// The value as JSON, written as Kong's cjson does it: `/` escaped, an empty table as `{}`, bytes that
    /// are not UTF-8 as they are.
    ///
    /// # Errors
    /// cjson's message for a table that has no JSON form.
    pub fn to_json(&self) -> Result<Vec<u8>, String> {
        let mut out = Vec::new();
        self.write_json(&mut out)?;
        Ok(out)
    }

    fn write_json(&self, out: &mut Vec<u8>) -> Result<(), String> {
        match self {
            Self::Nil => out.extend(b"null"),
            Self::Bool(_) | Self::Number(_) => out.extend(self.to_lua_string()),
            Self::Str(bytes) | Self::Bin(bytes) => json_string(bytes, out),
            Self::List(items) if items.is_empty() => out.extend(b"{}"),
            Self::List(items) => {
                for (i, item) in items.iter().enumerate() {
                    out.push(if i == 0 { b'[' } else { b',' });
                    item.write_json(out)?;
                }
                out.push(b']');
            }
            Self::Map(entries) => {
                out.push(b'{');
                for (i, (key, item)) in entries.iter().enumerate() {
                    if i > 0 {
                        out.push(b',');
                    }
                    match key {
                        Self::Str(_) | Self::Bin(_) | Self::Number(_) => {
                            json_string(&key.to_lua_string(), out)
                        }
                        _ => return Err("table key must be a number or string".into()),
                    }
                    out.push(b':');
                    item.write_json(out)?;
                }
                out.push(b'}');
            }
        }
        Ok(())
    }
}

/// JSON as Kong's Lua would hold it. `null` is nil, so such entries vanish.
impl From<&serde_json::Value> for Value {
    fn from(json: &serde_json::Value) -> Self {
        use serde_json::Value as Json;
        match json {
            Json::Null => Self::Nil,
            Json::Bool(b) => Self::Bool(*b),
            Json::Number(n) => Self::Number(n.as_f64().unwrap_or(f64::NAN)),
            Json::String(s) => Self::str(s),
            Json::Array(items) => Self::List(items.iter().map(Self::from).collect()),
            Json::Object(map) => Self::table(map.iter().map(|(k, v)| (Self::str(k), v.into())).collect()),
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::str(text)
    }
}

fn number_text(n: f64) -> String {
    if n.fract() == 0.0 && n.abs() < 1e15 { format!("{n:.0}") } else { n.to_string() }
}

fn json_string(bytes: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    for &b in bytes {
        match b {
            b'"' | b'\\' | b'/' => out.extend([b'\\', b]),
            b'\n' => out.extend(b"\\n"),
            b'\r' => out.extend(b"\\r"),
            b'\t' => out.extend(b"\\t"),
            0..0x20 | 0x7f => out.extend(format!("\\u{b:04x}").bytes()),
            _ => out.push(b),
        }
    }
    out.push(b'"');
}

/// The length of an argument list as Lua's `#` answers for a table that was filled one by one, which is
/// what `unpack(args)` goes by. Without `nil`s that is the number of items; with them LuaJIT's growth of
/// the table decides, and arguments after a `nil` may be lost: `exit(200, nil, headers)` loses its headers,
/// `authenticate(nil, credential)` does not (recording 18).
pub(crate) fn argument_count(args: &[Value]) -> usize {
    let set = |key: usize| args.get(key.wrapping_sub(1)).is_some_and(|v| *v != Value::Nil);
    let mut array_size = 0; // slots 0..array_size live in the array part
    let mut in_hash: Vec<usize> = Vec::new();
    let mut hash_capacity = 0;
    for key in 1..=args.len() {
        if key < array_size {
            continue;
        }
        if in_hash.len() < hash_capacity {
            in_hash.push(key);
            continue;
        }
        // The table is full: choose the largest array part of which more than half is used.
        let mut used = vec![key];
        used.extend((1..array_size).chain(in_hash.iter().copied()).filter(|&k| set(k) && k != key));
        let mut size = 0;
        let mut counted = 0;
        for power in 0.. {
            if 2 * used.len() <= 1 << power || counted == used.len() {
                break;
            }
            let bin = |k: usize| if k > 2 { (k - 1).ilog2() } else { 0 };
            let here = used.iter().filter(|&&k| bin(k) == power).count();
            counted += here;
            if here > 0 && 2 * counted > 1 << power {
                size = (2 << power) + 1;
            }
        }
        array_size = size;
        in_hash = used.into_iter().filter(|&k| k >= array_size).collect();
        hash_capacity = if in_hash.is_empty() { 0 } else { in_hash.len().next_power_of_two().max(2) };
    }
    let mut high = array_size.saturating_sub(1);
    if high > 0 && !set(high) {
        let mut low = 0;
        while high - low > 1 {
            let middle = (low + high) / 2;
            if set(middle) { low = middle } else { high = middle }
        }
        return low;
    }
    while set(high + 1) {
        high += 1;
    }
    high
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Recording 18 shows the first three with a real Kong: `args-hole`, `exit-null-body` and
    /// `args-trailing-null`.
    #[test]
    fn arguments_after_a_nil_may_be_lost() {
        let x = || Value::str("x");
        assert_eq!(argument_count(&[Value::Nil, x()]), 2);
        assert_eq!(argument_count(&[x(), Value::Nil, x()]), 1);
        assert_eq!(argument_count(&[x(), x(), Value::Nil]), 2);
        assert_eq!(argument_count(&[Value::Nil, Value::Nil, x()]), 0);
        assert_eq!(argument_count(&[]), 0);
        for n in 1..40 {
            assert_eq!(argument_count(&vec![x(); n]), n);
        }
    }

    #[test]
    fn json_is_written_as_kong_writes_it() {
        let body = Value::record([
            ("message", Value::str("a/b\"\x01")),
            ("n", Value::number(1)),
            ("f", Value::number(1.5)),
            ("l", Value::List(vec![])),
            ("gone", Value::Nil),
            ("two", Value::List(vec![Value::Bool(true), Value::str([0xff])])),
        ]);
        let expected =
            b"{\"message\":\"a\\/b\\\"\\u0001\",\"n\":1,\"f\":1.5,\"l\":{},\"two\":[true,\"\xff\"]}";
        assert_eq!(body.to_json().unwrap(), expected);
    }
}
