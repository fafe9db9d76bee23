//! This knows header lines in their order, with the ways nginx and Kong's Lua look at them.

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::value::Value;

/// Headers as a plugin gives them: names, each with its values.
pub(crate) type Given = Vec<(Vec<u8>, Vec<Vec<u8>>)>;

/// Header lines. Names compare without case; `X-A` and `X_A` are different names.
#[derive(Clone, Debug, Default)]
pub(crate) struct Headers(Vec<(HeaderName, HeaderValue)>);

impl Headers {
    pub(crate) fn iter(&self) -> impl Iterator<Item = &(HeaderName, HeaderValue)> {
        self.0.iter()
    }

    /// The first line of that name.
    pub(crate) fn get(&self, name: &str) -> Option<&[u8]> {
        self.0.iter().find(|(n, _)| n.as_str().eq_ignore_ascii_case(name)).map(|(_, v)| v.as_bytes())
    }

    /// `ngx.req.set_header`: the values take the place of all lines of that name; none clears it.
    pub(crate) fn set(&mut self, name: &[u8], values: Vec<Vec<u8>>) {
        let name = header_name(name);
        let at = self.0.iter().position(|(n, _)| *n == name).unwrap_or(self.0.len());
        self.0.retain(|(n, _)| *n != name);
        let lines = values.into_iter().map(|value| (name.clone(), header_value(&value)));
        self.0.splice(at..at, lines);
    }

    /// Sets one line of which name and value are known to be well-formed.
    pub(crate) fn put(&mut self, name: &'static str, value: impl AsRef<[u8]>) {
        self.set(name.as_bytes(), vec![value.as_ref().to_vec()]);
    }

    pub(crate) fn append(&mut self, name: &[u8], values: Vec<Vec<u8>>) {
        let name = header_name(name);
        self.0.extend(values.into_iter().map(|value| (name.clone(), header_value(&value))));
    }

    pub(crate) fn remove(&mut self, name: &str) {
        self.0.retain(|(n, _)| !n.as_str().eq_ignore_ascii_case(name));
    }

    /// `ngx.req.get_headers(max)` / `ngx.resp.get_headers(max)`: of at most so many lines, name -> value,
    /// or a list of them where the name is repeated.
    pub(crate) fn to_lua(&self, max: usize) -> Value {
        let mut entries: Vec<(Value, Value)> = Vec::new();
        for (name, value) in self.0.iter().take(max) {
            let value = Value::str(value.as_bytes());
            match entries.iter_mut().find(|(n, _)| n.as_bytes() == Some(name.as_str().as_bytes())) {
                Some((_, Value::List(values))) => values.push(value),
                Some((_, first)) => *first = Value::List(vec![first.clone(), value]),
                None => entries.push((Value::str(name.as_str()), value)),
            }
        }
        Value::table(entries)
    }

    /// `kong.request.get_header(name)`: nginx's `$http_name`, for which `-` and `_` are the same and which
    /// joins repeated lines; where a comma shows in that, the first value among the first 100 lines.
    pub(crate) fn as_kong_reads(&self, name: &[u8]) -> Option<Vec<u8>> {
        let fold =
            |n: &[u8]| n.to_ascii_lowercase().iter().map(|b| if *b == b'-' { b'_' } else { *b }).collect();
        let wanted: Vec<u8> = fold(name);
        let same = |n: &HeaderName| fold(n.as_str().as_bytes()) == wanted;
        let values: Vec<&[u8]> = self.0.iter().filter(|(n, _)| same(n)).map(|(_, v)| v.as_bytes()).collect();
        let joined = values.join(&b", "[..]);
        if values.is_empty() || !joined.windows(2).any(|w| w == b", ") {
            return (!values.is_empty()).then_some(joined);
        }
        self.as_kong_caches(&String::from_utf8_lossy(name))
    }

    /// `ngx.req.get_headers()[name]`, the way Kong's own code reads headers: of the first 100 lines, the
    /// first value under this very name, else under the name with `-` for `_`.
    pub(crate) fn as_kong_caches(&self, name: &str) -> Option<Vec<u8>> {
        let among = |wanted: &str| {
            self.0.iter().take(100).find(|(n, _)| n.as_str() == wanted).map(|(_, v)| v.as_bytes().to_vec())
        };
        let exact = name.to_ascii_lowercase();
        among(&exact).or_else(|| among(&exact.replace('_', "-")))
    }
}

impl From<&HeaderMap> for Headers {
    fn from(map: &HeaderMap) -> Self {
        Self(map.iter().map(|(n, v)| (n.clone(), v.clone())).collect())
    }
}

impl From<Headers> for HeaderMap {
    fn from(headers: Headers) -> Self {
        let mut map = HeaderMap::new();
        for (name, value) in headers.0 {
            map.append(name, value);
        }
        map
    }
}

/// Header values given by Lua, as lists of bytes, after `validate_header` and `normalize_multi_header`.
///
/// # Errors
/// What `validate_header` throws.
pub(crate) fn values_of(name: &[u8], value: &Value) -> Result<Vec<Vec<u8>>, String> {
    // An empty value would clear the header in nginx; Kong sends a space instead.
    let filled = |bytes: &[u8]| if bytes.is_empty() { b" ".to_vec() } else { bytes.to_vec() };
    let name = String::from_utf8_lossy(name);
    match value {
        Value::Str(bytes) | Value::Bin(bytes) => Ok(vec![filled(bytes)]),
        Value::Number(_) | Value::Bool(_) => Ok(vec![value.to_lua_string()]),
        Value::Map(_) => Ok(Vec::new()),
        Value::List(items) => items
            .iter()
            .take_while(|item| **item != Value::Nil)
            .map(|item| {
                let wrong = || {
                    let got = item.type_name();
                    format!("invalid header value in array \"{name}\": got {got}, expected string")
                };
                item.as_bytes().map(filled).ok_or_else(wrong)
            })
            .collect(),
        Value::Nil => Err(format!(
            "invalid header value for \"{name}\": got nil, expected array of string, string, number or boolean"
        )),
    }
}

/// A header name; what is no token is percent-encoded, as ngx_lua does it.
fn header_name(name: &[u8]) -> HeaderName {
    HeaderName::from_bytes(name).unwrap_or_else(|_| {
        let escape = |b: &u8| match b {
            b if b.is_ascii_alphanumeric() || b"-_.~!#$&'*+^`|%".contains(b) => (*b as char).to_string(),
            b => format!("%{b:02X}"),
        };
        let escaped: String = name.iter().map(escape).collect();
        HeaderName::from_bytes(escaped.as_bytes()).unwrap_or(HeaderName::from_static("-"))
    })
}

/// A header value; control characters are percent-encoded, as ngx_lua does it.
fn header_value(value: &[u8]) -> HeaderValue {
    let escape = |b: &u8| match b {
        0x00..=0x08 | 0x0a..=0x1f | 0x7f => format!("%{b:02X}").into_bytes(),
        b => vec![*b],
    };
    let escaped: Vec<u8> = value.iter().flat_map(escape).collect();
    HeaderValue::from_bytes(&escaped).expect("control characters were escaped")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&str, &str)]) -> Headers {
        let mut headers = Headers::default();
        lines.iter().for_each(|(n, v)| headers.append(n.as_bytes(), vec![v.as_bytes().to_vec()]));
        headers
    }

    #[test]
    fn kong_reads_either_spelling_but_keeps_them_apart_in_get_headers() {
        let sent = headers(&[("x_client_cert", "forged")]);
        assert_eq!(sent.as_kong_reads(b"X-Client-Cert"), Some(b"forged".to_vec()));
        assert_eq!(sent.to_lua(100).get("x-client-cert"), &Value::Nil);
        assert_eq!(sent.to_lua(100).get("x_client_cert"), &Value::str("forged"));
        let both = headers(&[("X_A", "1"), ("X-A", "2"), ("X-A", "3")]);
        assert_eq!(both.as_kong_reads(b"x-a"), Some(b"2".to_vec()));
        assert_eq!(both.as_kong_reads(b"x-none"), None);
    }

    #[test]
    fn setting_replaces_every_case_but_not_the_other_spelling() {
        let mut sent = headers(&[("a", "1"), ("X-A", "1"), ("x_a", "2"), ("x-a", "3")]);
        sent.set(b"X-A", vec![b"new\r\nInjected: x".to_vec()]);
        let lines: Vec<_> = sent.iter().map(|(n, v)| format!("{n}: {}", v.to_str().unwrap())).collect();
        assert_eq!(lines, ["a: 1", "x-a: new%0D%0AInjected: x", "x_a: 2"]);
        sent.set(b"x-a", vec![]);
        assert_eq!(sent.get("X-A"), None);
        assert!(sent.get("x_a").is_some());
    }
}
