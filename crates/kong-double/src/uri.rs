//! This knows paths and queries: how Kong normalizes, reads and writes them.

use crate::{request::Request, value::Value};

/// `kong.request.get_path()`: slashes merged, dot segments resolved, escapes of unreserved characters undone.
pub(crate) fn normal_path(raw: &str) -> String {
    let mut path = String::new();
    let mut rest = raw;
    while let Some(c) = rest.chars().next() {
        let escape = rest.get(1..3).filter(|_| c == '%').and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match escape {
            Some(b) if b.is_ascii_alphanumeric() || b"-._~".contains(&b) => path.push(char::from(b)),
            Some(b) => path.push_str(&format!("%{b:02X}")),
            None => path.push(c),
        }
        rest = &rest[if escape.is_some() { 3 } else { c.len_utf8() }..];
    }
    let mut segments: Vec<&str> = Vec::new();
    let parts: Vec<&str> = path.split('/').collect();
    for (i, part) in parts.iter().enumerate() {
        let last = i + 1 == parts.len();
        match *part {
            "" | "." if !last => continue,
            ".." => drop(segments.pop()),
            "." => {}
            part => {
                segments.push(part);
                continue;
            }
        }
        if last {
            segments.push("");
        }
    }
    format!("/{}", segments.join("/"))
}

/// Path and query that the upstream is asked for.
pub(crate) fn upstream_uri(request: &Request) -> String {
    let path = normal_path(request.raw_path());
    let prefix = request.route.as_ref().map_or("", |(_, prefix)| prefix);
    let strip = request.matched_route().is_some_and(|route| route.strip_path);
    let rest = if strip { path.strip_prefix(prefix).unwrap_or(&path) } else { &path };
    let slash = if rest.starts_with('/') { "" } else { "/" };
    let query = request.raw_query().map(|query| format!("?{}", String::from_utf8_lossy(query)));
    format!("{slash}{rest}{}", query.unwrap_or_default())
}

/// `ngx.req.get_uri_args(max)`: name -> value, `true` for a name without `=`, a list for a repeated name.
pub(crate) fn query_args(query: &[u8], max: usize) -> Value {
    let mut entries: Vec<(Value, Value)> = Vec::new();
    for part in query.split(|b| *b == b'&').filter(|part| !part.is_empty()).take(max) {
        let (name, value) = match part.iter().position(|b| *b == b'=') {
            Some(at) => (&part[..at], Value::Str(percent_decoded(&part[at + 1..]))),
            None => (part, Value::Bool(true)),
        };
        let name = percent_decoded(name);
        if name.is_empty() {
            continue;
        }
        match entries.iter_mut().find(|(n, _)| n.as_bytes() == Some(&name)) {
            Some((_, Value::List(values))) => values.push(value),
            Some((_, first)) => *first = Value::List(vec![first.clone(), value]),
            None => entries.push((Value::Str(name), value)),
        }
    }
    Value::table(entries)
}

fn percent_decoded(text: &[u8]) -> Vec<u8> {
    let hex = |b: &u8| (*b as char).to_digit(16).map(|d| d as u8);
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, tail @ ..] = rest {
        match (first, tail) {
            (b'%', [high, low, after @ ..]) if hex(high).is_some() && hex(low).is_some() => {
                out.push(hex(high).unwrap_or_default() << 4 | hex(low).unwrap_or_default());
                rest = after;
                continue;
            }
            (b'+', _) => out.push(b' '),
            _ => out.push(*first),
        }
        rest = tail;
    }
    out
}

/// `ngx.encode_args` of a table, sorted by name, as `kong.service.request.set_query` sends it.
///
/// # Errors
/// What it throws.
pub(crate) fn encoded_args(args: &Value) -> Result<Vec<u8>, String> {
    let entries = match args {
        Value::Map(entries) => entries.as_slice(),
        Value::List(items) if items.is_empty() => &[],
        _ => return Err("arg keys must be strings".into()),
    };
    let escape = |bytes: &[u8]| {
        let escape = |b: &u8| match b {
            b if b.is_ascii_alphanumeric() || b"-_.~!*'()".contains(b) => vec![*b],
            b => format!("%{b:02X}").into_bytes(),
        };
        bytes.iter().flat_map(escape).collect::<Vec<u8>>()
    };
    let mut parts = Vec::new();
    for (name, value) in entries {
        let name = escape(name.as_bytes().ok_or("arg keys must be strings")?);
        let values =
            if let Value::List(values) = value { values.as_slice() } else { std::slice::from_ref(value) };
        let mut encoded = Vec::new();
        for value in values {
            match value {
                Value::Bool(true) => encoded.push(name.clone()),
                Value::Bool(false) => {}
                Value::Str(_) | Value::Bin(_) | Value::Number(_) => {
                    encoded.push([&name[..], b"=", &escape(&value.to_lua_string())].concat());
                }
                other => return Err(format!("attempt to use {} as query arg value", other.type_name())),
            }
        }
        if !encoded.is_empty() {
            parts.push(encoded.join(&b'&'));
        }
    }
    parts.sort();
    Ok(parts.join(&b'&'))
}

#[cfg(test)]
mod tests {
    use super::normal_path;

    #[test]
    fn paths_are_normal() {
        for (raw, expected) in [
            ("/", "/"),
            ("/a/b", "/a/b"),
            ("/a//b/", "/a/b/"),
            ("/a/./b/../c", "/a/c"),
            ("/../x", "/x"),
            ("/a/..", "/"),
            ("/%61%2f%7e", "/a%2F~"),
        ] {
            assert_eq!(normal_path(raw), expected, "{raw}");
        }
    }
}
