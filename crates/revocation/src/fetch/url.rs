//! This knows which URLs may be asked. They come from certificates whose chain verified, so from CAs that are trusted to issue;
//! that does not let them have us ask our own neighbours (`attacks-and-faults.md`, SSRF).

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Uri};

use super::address::not_public;
use crate::Trouble;

/// Ends of names that are nobody's on the internet (RFC 6761, 6762, 8375, and ICANN's for private use).
const INNER_NAMES: &[&str] = &["localhost", "localdomain", "local", "internal", "home.arpa"];

/// Names in DNS are no longer (RFC 1035, section 2.3.4).
const MAX_NAME: usize = 253;

/// URLs are no longer, a GET's with an OCSP request in it included.
const MAX_URL: usize = 4096;

/// A URL that has the right form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) server: Server,
    /// Path and query.
    pub(super) path: PathAndQuery,
}

/// Scheme, host and port of a URL.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Server {
    /// Whether the scheme is `https`.
    pub(super) tls: bool,
    pub(super) host: Host,
    pub(super) port: u16,
}

/// The host of a URL.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Host {
    Address(IpAddr),
    /// In lower case.
    Name(String),
}

impl Target {
    /// Takes a URL apart. All spellings that resolvers or proxies may read as an address in another way than we do are
    /// refused, as are user names and fragments.
    pub(super) fn parse(text: &str) -> Result<Self, Trouble> {
        Self::read(text).map_err(|problem| Trouble::UrlRefused(problem.to_owned()))
    }

    fn read(text: &str) -> Result<Self, &'static str> {
        if text.len() > MAX_URL {
            return Err("the URL is too long");
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("the URL has characters that none may have");
        }
        if text.contains('#') {
            return Err("the URL has a fragment");
        }
        let (scheme, rest) = text.split_once("://").ok_or("it is not an http or https URL")?;
        let tls = match scheme.to_ascii_lowercase().as_str() {
            "http" => false,
            "https" => true,
            _ => return Err("it is not an http or https URL"),
        };
        let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        if authority.contains('@') {
            return Err("the URL has a user name");
        }
        // A colon within brackets is an address's.
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
            _ => (authority, None),
        };
        let port = match port {
            None if tls => 443,
            None => 80,
            Some(port) => read_port(port).ok_or("the URL's port is none")?,
        };
        let server = Server { tls, host: Host::read(host)?, port };
        let slash = if path.starts_with('/') { "" } else { "/" };
        let path = format!("{slash}{path}").parse().map_err(|_| "the URL's path is none")?;
        Ok(Self { server, path })
    }

    /// Where a redirect leads.
    pub(super) fn redirected(&self, location: &str, allow_other: bool) -> Result<Self, Trouble> {
        // What comes after it is for whoever shows the answer (RFC 9110, section 10.2.2).
        let location = location.split_once('#').map_or(location, |(location, _)| location);
        let refused = |problem: &str| Trouble::UrlRefused(format!("it redirects to elsewhere: {problem}"));
        let target = if location.starts_with("//") {
            Self::read(&format!("{}:{location}", self.server.scheme()))
        } else if location.starts_with('/') {
            Self::read(&format!("{}{location}", self.server))
        } else {
            Self::read(location)
        };
        let target = target.map_err(refused)?;
        if self.server.tls && !target.server.tls {
            return Err(refused("from https to http"));
        }
        if self.server != target.server && !allow_other {
            return Err(refused(&target.server.to_string()));
        }
        Ok(target)
    }
}

impl Server {
    pub(super) fn scheme(&self) -> Scheme {
        if self.tls { Scheme::HTTPS } else { Scheme::HTTP }
    }

    /// Host and port.
    pub(super) fn authority(&self) -> Authority {
        authority(&format!("{}:{}", self.host.in_url(), self.port))
    }

    /// The same, the port only where it is not the scheme's: for `Host` (RFC 9110, section 7.2).
    fn short_authority(&self) -> Authority {
        match (self.tls, self.port) {
            (false, 80) | (true, 443) => authority(&self.host.in_url()),
            _ => self.authority(),
        }
    }

    /// The value of `Host`.
    pub(super) fn host_header(&self) -> HeaderValue {
        HeaderValue::from_str(self.short_authority().as_str()).expect("an authority is printable")
    }

    /// A URL in absolute form, for proxies (RFC 9112, section 3.2.2).
    pub(super) fn absolute(&self, path: &PathAndQuery) -> Uri {
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(self.scheme());
        parts.authority = Some(self.short_authority());
        parts.path_and_query = Some(path.clone());
        Uri::from_parts(parts).expect("scheme, authority and path are a URI")
    }

    /// Checks what can be seen without asking for the addresses of a name: all that there is where a proxy asks for them, so
    /// that there names which lead to inner addresses are the proxy's to refuse.
    pub(super) fn check(&self) -> Result<(), Trouble> {
        match &self.host {
            Host::Address(address) => check_address(*address),
            Host::Name(name) => {
                // No name without a dot is on the internet; it is one of the network's own.
                let is_inner = !name.contains('.')
                    || INNER_NAMES.iter().any(|end| {
                        name.strip_suffix(end).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
                    });
                if is_inner {
                    return Err(Trouble::UrlRefused(format!("{name} is a name of the network's own")));
                }
                Ok(())
            }
        }
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme(), self.authority())
    }
}

impl Host {
    fn read(text: &str) -> Result<Self, &'static str> {
        const PROBLEM: &str = "the URL's host is neither an address nor a name";
        if let Some(address) = text.strip_prefix('[') {
            let address = address.strip_suffix(']').ok_or(PROBLEM)?;
            // With a zone it is none: a zone is of a link.
            return address.parse().map(|address| Self::Address(IpAddr::V6(address))).map_err(|_| PROBLEM);
        }
        if let Ok(address) = text.parse() {
            return Ok(Self::Address(IpAddr::V4(address)));
        }
        let is_label = |label: &str| {
            let is_character = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
            (1..=63).contains(&label.len()) && label.bytes().all(is_character)
        };
        let name = text.to_ascii_lowercase();
        // With a number at its end, resolvers take it for an address, in decimal, octal or hexadecimal, of one to four parts.
        let is_number =
            |label: &str| label.starts_with("0x") || label.bytes().all(|byte| byte.is_ascii_digit());
        let is_name = name.len() <= MAX_NAME
            && name.split('.').all(is_label)
            && !name.rsplit('.').next().is_some_and(is_number);
        if is_name { Ok(Self::Name(name)) } else { Err(PROBLEM) }
    }

    /// Without brackets: for resolvers and TLS.
    pub(super) fn plain(&self) -> String {
        match self {
            Self::Address(address) => address.to_string(),
            Self::Name(name) => name.clone(),
        }
    }

    fn in_url(&self) -> String {
        match self {
            Self::Address(IpAddr::V6(address)) => format!("[{address}]"),
            Self::Address(_) | Self::Name(_) => self.plain(),
        }
    }
}

/// Checks what a name has been resolved to. One inner address refuses them all: nobody who means well has such a name, and
/// what is refused would otherwise change with the order of the resolver's answer.
pub(super) fn check_addresses(addresses: &[SocketAddr]) -> Result<(), Trouble> {
    addresses.iter().try_for_each(|address| check_address(address.ip()))
}

fn check_address(address: IpAddr) -> Result<(), Trouble> {
    match not_public(address) {
        Some(what) => {
            Err(Trouble::UrlRefused(format!("{address} is not an address of the internet ({what})")))
        }
        None => Ok(()),
    }
}

/// Of a host that [`Host::read`] has let through.
fn authority(text: &str) -> Authority {
    text.parse().expect("a host, perhaps with a port, is an authority")
}

fn read_port(text: &str) -> Option<u16> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|port| is_number && *port != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem<T: fmt::Debug>(result: Result<T, Trouble>) -> String {
        match result.unwrap_err() {
            Trouble::UrlRefused(problem) => problem,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_url_is_taken_apart() {
        for (url, server, host_header, path) in [
            ("http://ca.example", "http://ca.example:80", "ca.example", "/"),
            ("HTTP://CA.Example:8080/a?b=c%2f", "http://ca.example:8080", "ca.example:8080", "/a?b=c%2f"),
            ("https://ca.example/", "https://ca.example:443", "ca.example", "/"),
            ("https://ca.example:80?q", "https://ca.example:80", "ca.example:80", "/?q"),
            ("http://8.8.8.8/", "http://8.8.8.8:80", "8.8.8.8", "/"),
            ("http://[2A00::1]:81/x", "http://[2a00::1]:81", "[2a00::1]:81", "/x"),
            ("http://a_b-c.xn--p1ai/@", "http://a_b-c.xn--p1ai:80", "a_b-c.xn--p1ai", "/@"),
            ("http://ca.example:065/", "http://ca.example:65", "ca.example:65", "/"),
            ("http://127.0.0.1.example/", "http://127.0.0.1.example:80", "127.0.0.1.example", "/"),
        ] {
            let target = Target::parse(url).unwrap();
            let found = (target.server.to_string(), target.server.host_header(), target.path.to_string());
            assert_eq!(found, (server.into(), HeaderValue::from_static(host_header), path.into()), "{url}");
        }
    }

    #[test]
    fn a_url_of_another_form_is_refused() {
        let long = format!("http://ca.example/{}", "a".repeat(MAX_URL));
        let long_name = format!("http://{}example/", "a.".repeat(130));
        let long_label = format!("http://{}.example/", "a".repeat(64));
        for (url, says) in [
            ("", "not an http"),
            ("ca.example", "not an http"),
            ("http:/ca.example", "not an http"),
            ("http:ca.example", "not an http"),
            ("//ca.example/", "not an http"),
            ("ldap://ca.example/cn=x", "not an http"),
            ("file:///etc/passwd", "not an http"),
            ("gopher://ca.example/", "not an http"),
            (" http://ca.example/", "characters"),
            ("http://ca.example/a b", "characters"),
            ("http://ca.example/\r\nHost: x", "characters"),
            ("http://ca.example/\u{e4}", "characters"),
            ("http://c\u{f6}.example/", "characters"),
            ("http://127.0.0.1\u{3002}example/", "characters"),
            ("http://ca.example/#a", "fragment"),
            ("http://ca.example#@8.8.8.8/", "fragment"),
            ("http://user@ca.example/", "user name"),
            ("http://user:secret@ca.example/", "user name"),
            ("http://ca.example\\@8.8.8.8/", "user name"),
            ("http://ca.example\\.evil/", "host"),
            ("http://", "host"),
            ("http:///path", "host"),
            ("http://:80/", "host"),
            ("http://.ca.example/", "host"),
            ("http://ca..example/", "host"),
            ("http://ca.example./", "host"),
            ("http://c%61.example/", "host"),
            ("http://ca.example:/", "port"),
            ("http://ca.example:0/", "port"),
            ("http://ca.example:65536/", "port"),
            ("http://ca.example:+80/", "port"),
            ("http://ca.example:80:80/", "host"),
            // Addresses in other spellings.
            ("http://0177.0.0.1/", "host"),
            ("http://127.0.0.01/", "host"),
            ("http://127.0.0.1./", "host"),
            ("http://127.1/", "host"),
            ("http://2130706433/", "host"),
            ("http://017700000001/", "host"),
            ("http://0x7f000001/", "host"),
            ("http://0x7F.0.0.0x1/", "host"),
            ("http://ca.example.0x/", "host"),
            ("http://256.256.256.256/", "host"),
            ("http://127.0.0.1%2f/", "host"),
            ("http://%31%32%37.0.0.1/", "host"),
            ("http://::1/", "host"),
            ("http://[::1/", "host"),
            ("http://::1]/", "host"),
            ("http://[fe80::1%25eth0]/", "host"),
            ("http://[fe80::1%eth0]/", "host"),
            ("http://[127.0.0.1]/", "host"),
            ("http://[v1.x]/", "host"),
            ("http://[::1].example/", "port"),
            (&long, "too long"),
            (&long_name, "host"),
            (&long_label, "host"),
        ] {
            let problem = problem(Target::parse(url));
            assert!(problem.contains(says), "{url}: {problem}");
        }
    }

    #[test]
    fn an_inner_host_is_refused() {
        for url in [
            "http://127.0.0.1/",
            "https://169.254.169.254/latest/meta-data/",
            "http://[::1]:8001/",
            "http://[::ffff:127.0.0.1]/",
            "http://[::FFFF:7f00:1]/",
            "http://[64:ff9b::10.0.0.1]/",
            "http://0.0.0.0/",
            "http://localhost/",
            "http://LOCALHOST:8001/",
            "http://a.localhost/",
            "http://localhost.localdomain/",
            "http://ip6-loopback/",
            "http://kong:8001/",
            "http://metadata.google.internal/",
            "http://printer.local/",
            "http://nas.home.arpa/",
        ] {
            problem(Target::parse(url).unwrap().server.check());
        }
        for url in
            ["http://8.8.8.8/", "http://[2a00::1]/", "http://mylocalhost.example/", "http://a.nonlocal/"]
        {
            Target::parse(url).unwrap().server.check().unwrap();
        }
    }

    #[test]
    fn one_inner_address_of_a_name_refuses_the_name() {
        let addresses = |texts: &[&str]| -> Vec<SocketAddr> {
            texts.iter().map(|text| SocketAddr::new(text.parse().unwrap(), 80)).collect()
        };
        assert_eq!(check_addresses(&addresses(&["8.8.8.8", "2a00::1"])), Ok(()));
        for texts in
            [&["127.0.0.1"][..], &["8.8.8.8", "10.0.0.1"], &["10.0.0.1", "8.8.8.8"], &["8.8.8.8", "::1"]]
        {
            problem(check_addresses(&addresses(texts)));
        }
    }

    #[test]
    fn a_redirect_stays_with_its_server() {
        let from = Target::parse("http://ca.example:8080/old/a?b").unwrap();
        for location in ["http://CA.example:8080/new", "//ca.example:8080/new", "/new", "/new#part"] {
            let to = from.redirected(location, false).unwrap();
            assert_eq!((&to.server, to.path.as_str()), (&from.server, "/new"), "{location}");
        }
        for (location, says, may_be_elsewhere) in [
            ("http://other.example:8080/", "http://other.example:8080", true),
            ("//other.example/", "http://other.example:80", true),
            ("http://ca.example/", "http://ca.example:80", true),
            ("https://ca.example:8080/", "https://ca.example:8080", true),
            ("http://127.0.0.1:8080/", "http://127.0.0.1:8080", true),
            ("", "not an http", false),
            ("new", "not an http", false),
            ("?new", "not an http", false),
            ("/a b", "characters", false),
            ("/\\\u{e4}", "characters", false),
            ("file:///etc/passwd", "not an http", false),
            ("http://user@ca.example:8080/", "user name", false),
        ] {
            let problem = problem(from.redirected(location, false));
            assert!(problem.contains("redirects") && problem.contains(says), "{location}: {problem}");
            assert_eq!(from.redirected(location, true).is_ok(), may_be_elsewhere, "{location}");
        }
    }

    #[test]
    fn no_redirect_leaves_tls() {
        let from = Target::parse("https://ca.example/").unwrap();
        for allow_other in [false, true] {
            let problem = problem(from.redirected("http://ca.example:443/", allow_other));
            assert!(problem.contains("from https to http"), "{problem}");
            assert!(from.redirected("https://ca.example:443/b", allow_other).is_ok());
        }
    }
}
