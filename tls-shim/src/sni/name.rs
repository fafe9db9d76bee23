//! This knows server names: what a client may name, and the patterns in which routes write them.

/// The longest name that the DNS can carry as text (RFC 1035, section 2.3.4).
const MAX_NAME: usize = 253;

/// The key of what stands for everybody, whatever the name. No name or pattern is empty.
pub(crate) const EVERYBODY: &str = "";

/// The server name of a ClientHello (RFC 6066, section 3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ServerName {
    /// The client named none.
    None,
    /// A DNS name: lower case, without trailing dot.
    Name(String),
    /// Anything else, such as an address or a name that is not ASCII: which routes it means cannot be decided.
    Undecidable(String),
}

/// The extension `server_name` has another form than it must have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MalformedName;

impl ServerName {
    /// Reads the whole extension of a ClientHello. Its list has exactly one name, which is that of a host, as OpenSSL
    /// wants it: no other kind was ever defined, and none may stand there twice.
    ///
    /// # Errors
    /// It is not of this form. Such a handshake must fail: whoever looks at it next may read another name out of it.
    pub(crate) fn from_extension(extension: Option<&[u8]>) -> Result<Self, MalformedName> {
        const HOST_NAME: u8 = 0;
        let Some(extension) = extension else { return Ok(Self::None) };
        let list = after_its_length(extension).ok_or(MalformedName)?;
        let name = list.strip_prefix(&[HOST_NAME]).and_then(after_its_length).ok_or(MalformedName)?;
        Ok(Self::from_wire(Some(name)))
    }

    /// Reads the name itself.
    pub(crate) fn from_wire(bytes: Option<&[u8]>) -> Self {
        let Some(bytes) = bytes else { return Self::None };
        let text = String::from_utf8_lossy(bytes).to_ascii_lowercase();
        match normalised(&text) {
            Some(name) => Self::Name(name.to_owned()),
            None => Self::Undecidable(text),
        }
    }

    /// The name as it goes into the proof; empty where there is none.
    pub(crate) fn as_str(&self) -> &str {
        match self {
            Self::None => "",
            Self::Name(text) | Self::Undecidable(text) => text,
        }
    }
}

/// What follows a length of two bytes, if that is the length of it.
fn after_its_length(bytes: &[u8]) -> Option<&[u8]> {
    let (length, rest) = bytes.split_first_chunk()?;
    (usize::from(u16::from_be_bytes(*length)) == rest.len()).then_some(rest)
}

/// The key of one entry of a route's `snis`, as Kong's router reads it: a leading `*` matches by suffix, a trailing one by
/// prefix, and a trailing dot does not count. Kong matches any number of labels in place of the `*`.
///
/// It is `a.example`, or `.example` for `*.example`, or `a.` for `a.*`. None for what Kong would match in a way that is
/// not by whole labels (`*example.com`), and for what no client could name.
pub(crate) fn key(sni: &str) -> Option<String> {
    let sni = sni.to_ascii_lowercase();
    if let Some(rest) = sni.strip_prefix("*.") {
        return normalised(rest).map(|rest| format!(".{rest}"));
    }
    if let Some(rest) = sni.strip_suffix(".*") {
        // No dot to remove here: `example..*` is no name.
        return well_formed(rest).then(|| format!("{rest}."));
    }
    exact(&sni)
}

/// The key of this one name.
pub(super) fn exact(name: &str) -> Option<String> {
    normalised(&name.to_ascii_lowercase()).map(str::to_owned)
}

/// The key of the narrowest pattern that matches all names with this end: by whole labels, so it is `.com` for
/// `example.com`, which is the end of `an-example.com` too.
pub(super) fn ending(end: &str) -> Option<String> {
    let end = end.to_ascii_lowercase();
    let dot = end.find('.')?;
    normalised(&end[dot + 1..]).map(|rest| format!(".{rest}"))
}

/// As [`ending`], for names with this beginning.
pub(super) fn beginning(beginning: &str) -> Option<String> {
    let beginning = beginning.to_ascii_lowercase();
    let dot = beginning.rfind('.')?;
    well_formed(&beginning[..dot]).then(|| beginning[..=dot].to_owned())
}

/// Whether this is the key of a pattern.
pub(super) fn is_pattern(key: &str) -> bool {
    key.starts_with('.') || key.ends_with('.')
}

/// The entry that has this key, as people write it; that of everybody is `*`.
pub(crate) fn written(key: &str) -> String {
    match key {
        EVERYBODY => "*".to_owned(),
        suffix if suffix.starts_with('.') => format!("*{suffix}"),
        prefix if prefix.ends_with('.') => format!("{prefix}*"),
        name => name.to_owned(),
    }
}

/// The keys of patterns with a leading `*` that match a name, the longest first. Of a key of such a pattern: itself and
/// those that match all that it matches.
pub(super) fn suffixes(name: &str) -> impl Iterator<Item = &str> {
    name.match_indices('.').map(|(dot, _)| &name[dot..])
}

/// As [`suffixes`], for patterns with a trailing `*`.
pub(super) fn prefixes(name: &str) -> impl Iterator<Item = &str> {
    name.rmatch_indices('.').map(|(dot, _)| &name[..=dot])
}

/// The keys of all that matches what this key does: its own, those of patterns of both kinds, and that of everybody.
pub(super) fn around(key: &str) -> impl Iterator<Item = &str> {
    // For patterns are among their own suffixes or prefixes.
    let own = (!key.is_empty() && !is_pattern(key)).then_some(key);
    own.into_iter().chain(suffixes(key)).chain(prefixes(key)).chain([EVERYBODY])
}

/// A lower-case DNS name without its trailing dot, if it is one and not an address.
fn normalised(text: &str) -> Option<&str> {
    let name = text.strip_suffix('.').unwrap_or(text);
    (well_formed(name) && name.parse::<std::net::IpAddr>().is_err()).then_some(name)
}

/// Whether these are labels of letters, digits, hyphens and underscores, of legal length.
fn well_formed(name: &str) -> bool {
    name.len() <= MAX_NAME
        && name.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_'))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_extension_has_one_name_and_nothing_else() {
        let name = |text: &str| Ok(ServerName::Name(text.to_owned()));
        let undecidable = |text: &str| Ok(ServerName::Undecidable(text.to_owned()));
        for (extension, expected) in [
            (&b"\0\x04\0\0\x01A"[..], name("a")),
            (b"\0\x06\0\0\x03b.C", name("b.c")),
            (b"\0\x05\0\0\x02a.", name("a")),
            (b"\0\x05\0\0\x02a\0", undecidable("a\0")),
            (b"\0\x03\0\0\0", undecidable("")),
        ] {
            assert_eq!(ServerName::from_extension(Some(extension)), expected, "{extension:?}");
        }
        assert_eq!(ServerName::from_extension(None), Ok(ServerName::None));
        for malformed in [
            &b""[..],
            b"\0",
            b"\0\0",
            b"\0\x01\0",
            b"\0\x04\x01\0\x01a",
            b"\0\x05\0\0\x01a",
            b"\0\x04\0\0\x02a",
            b"\0\x04\0\0\x01ab",
            b"\0\x05\0\0\x01ab",
            b"\0\x08\0\0\x01a\0\0\x01b",
        ] {
            assert_eq!(ServerName::from_extension(Some(malformed)), Err(MalformedName), "{malformed:?}");
        }
    }
}
