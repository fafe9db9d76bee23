//! This knows one request from its beginning to its end, and tells of it then. Where nobody wants to know, nothing is noted.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use client_cert::Presented;
use http::header::HOST;
use http::{Method, Request, StatusCode, Version};
use sha2::{Digest, Sha256};

use crate::limits;
use crate::proxy_protocol::Addresses;
use crate::tls::Handshake;

/// What is known of a connection once its handshake has ended.
#[derive(Clone, Debug)]
pub(crate) struct Connected {
    /// Where it comes from; with the PROXY protocol, what the front said.
    pub(crate) client: SocketAddr,
    /// What it connected to.
    pub(crate) server: SocketAddr,
    /// `TLSv1.3`, as OpenSSL calls it.
    pub(crate) tls: &'static str,
    /// As OpenSSL calls it.
    pub(crate) cipher: &'static str,
    /// The server that the client named: in lower case, cut at [`limits::LOGGED_NAME`].
    pub(crate) sni: Option<String>,
    /// Whether the client was asked for a certificate.
    pub(crate) asked: bool,
    /// The SHA-256 of the client's own certificate in hexadecimal; none where it presented none.
    pub(crate) fingerprint: Option<String>,
    /// Whether it resumes a session.
    pub(crate) resumed: bool,
    /// How long the handshake took, from when the shim was ready for it.
    pub(crate) handshake: Duration,
}

impl Connected {
    /// What a handshake told.
    pub(crate) fn new(addresses: &Addresses, handshake: &Handshake) -> Self {
        let sni = handshake.server_name.as_str();
        Self {
            client: addresses.client,
            server: addresses.server,
            tls: handshake.version,
            cipher: handshake.cipher,
            sni: (!sni.is_empty()).then(|| cut(sni, limits::LOGGED_NAME)),
            asked: handshake.asked,
            fingerprint: handshake.presented.as_ref().map(fingerprint),
            resumed: handshake.resumed,
            handshake: handshake.took,
        }
    }
}

fn fingerprint(presented: &Presented) -> String {
    Sha256::digest(&presented.leaf).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Who ended a request before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Side {
    /// It left, or took nothing for too long.
    Client,
    /// Kong.
    Upstream,
    /// The shim, which was told to end, or had waited for too long.
    Shim,
}

impl Side {
    /// The word for it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Upstream => "upstream",
            Self::Shim => "shim",
        }
    }
}

/// Who answered a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    Kong,
    /// The shim itself, for this reason: a word that does not change.
    Shim(&'static str),
}

/// A request that has come to its end.
#[derive(Debug)]
pub(crate) struct Finished<'a> {
    pub(crate) connection: &'a Connected,
    /// Cut at [`limits::LOGGED_METHOD`].
    pub(crate) method: &'a str,
    /// As the client sent it; cut at [`limits::LOGGED_NAME`]. Of several `Host` fields the first.
    pub(crate) host: Option<&'a str>,
    /// Without the query, in which secrets may stand; cut at [`limits::LOGGED_PATH`].
    pub(crate) path: &'a str,
    pub(crate) version: Version,
    /// None where the request ended before its answer began.
    pub(crate) answer: Option<(StatusCode, By)>,
    /// The bytes of the body that had gone to Kong by now; after an upgrade, all bytes that had.
    pub(crate) up: u64,
    /// The bytes of the answer's body that were given to the client's connection; after an upgrade, all bytes.
    pub(crate) down: u64,
    /// Until the header of Kong's answer was there.
    pub(crate) answered_after: Option<Duration>,
    /// Until now.
    pub(crate) took: Duration,
    /// None where the whole answer was given to the client's connection.
    pub(crate) broken_off: Option<Side>,
}

/// Who is told of requests that have ended.
pub(crate) trait Observer: Send + Sync {
    /// Must not block: whoever ends a request calls it.
    fn finished(&self, request: &Finished<'_>);
}

/// Those who are told of all requests.
pub(crate) struct Observers {
    all: Vec<Box<dyn Observer>>,
    cut_off: AtomicBool,
}

impl Observers {
    pub(crate) fn new(all: Vec<Box<dyn Observer>>) -> Self {
        Self { all, cut_off: AtomicBool::new(false) }
    }

    /// From now on, the shim itself ends what has not ended.
    pub(crate) fn cut_off(&self) {
        self.cut_off.store(true, Ordering::Relaxed);
    }
}

/// What the records of a connection have in common.
pub(crate) struct Ledger {
    connection: Connected,
    observers: Arc<Observers>,
    cut_off: AtomicBool,
}

impl Ledger {
    pub(crate) fn new(connection: Connected, observers: Arc<Observers>) -> Self {
        Self { connection, observers, cut_off: AtomicBool::new(false) }
    }

    /// From now on, the shim itself ends what has not ended on this connection.
    pub(crate) fn cut_off(&self) {
        self.cut_off.store(true, Ordering::Relaxed);
    }

    /// Who ended a request that just ended.
    fn left(&self) -> Side {
        let ours = self.cut_off.load(Ordering::Relaxed) || self.observers.cut_off.load(Ordering::Relaxed);
        if ours { Side::Shim } else { Side::Client }
    }
}

/// Notes about a request while it runs. Dropping them ends it, and tells of it; of the default one, nobody is told.
#[derive(Default)]
pub(crate) struct Record(Option<Box<Open>>);

struct Open {
    ledger: Arc<Ledger>,
    begun: Instant,
    method: String,
    host: Option<String>,
    path: String,
    version: Version,
    answer: Option<(StatusCode, By)>,
    answered_after: Option<Duration>,
    passed: Arc<Passed>,
    end: Option<End>,
}

#[derive(Clone, Copy)]
enum End {
    Whole,
    Broken(Side),
}

/// What has passed in the two directions.
#[derive(Default)]
struct Passed {
    up: AtomicU64,
    down: AtomicU64,
    client_left: AtomicBool,
}

/// Counts what passes for a request, from wherever it passes.
#[derive(Clone)]
pub(crate) struct Counts(Option<Arc<Passed>>);

impl Counts {
    /// So many bytes went to Kong.
    pub(crate) fn up(&self, bytes: usize) {
        if let Some(passed) = &self.0 {
            passed.up.fetch_add(bytes as u64, Ordering::Relaxed);
        }
    }

    /// So many bytes went to the client.
    pub(crate) fn down(&self, bytes: usize) {
        if let Some(passed) = &self.0 {
            passed.down.fetch_add(bytes as u64, Ordering::Relaxed);
        }
    }

    /// The client left while it sent a body. Kong's answer breaks off upon it, and that is no fault of Kong's.
    pub(crate) fn client_left(&self) {
        if let Some(passed) = &self.0 {
            passed.client_left.store(true, Ordering::Relaxed);
        }
    }
}

impl Record {
    /// Begins with a request whose header has come.
    pub(crate) fn begin<B>(ledger: Option<&Arc<Ledger>>, request: &Request<B>) -> Self {
        Self(ledger.map(|ledger| {
            let (headers, uri) = (request.headers(), request.uri());
            let host = match headers.get(HOST) {
                Some(host) => Some(String::from_utf8_lossy(host.as_bytes())),
                None => uri.authority().map(|authority| authority.as_str().into()),
            };
            Box::new(Open {
                ledger: Arc::clone(ledger),
                begun: Instant::now(),
                method: cut(request.method().as_str(), limits::LOGGED_METHOD),
                host: host.map(|host| cut(&host, limits::LOGGED_NAME)),
                path: cut(uri.path(), limits::LOGGED_PATH),
                version: request.version(),
                answer: None,
                answered_after: None,
                passed: Arc::default(),
                end: None,
            })
        }))
    }

    /// Leaves in place of it one of which nobody is told.
    pub(crate) fn take(&mut self) -> Self {
        Self(self.0.take())
    }

    /// Where to count what passes.
    pub(crate) fn counts(&self) -> Counts {
        Counts(self.0.as_ref().map(|open| Arc::clone(&open.passed)))
    }

    /// The header of Kong's answer is there.
    pub(crate) fn kong_answered(&mut self, status: StatusCode) {
        if let Some(open) = &mut self.0 {
            open.answer = Some((status, By::Kong));
            open.answered_after = Some(open.begun.elapsed());
        }
    }

    /// The shim answers, whatever Kong may have said.
    pub(crate) fn shim_answers(&mut self, status: StatusCode, reason: &'static str) {
        if let Some(open) = &mut self.0 {
            open.answer = Some((status, By::Shim(reason)));
        }
    }

    /// So many bytes of the answer's body were given to the client's connection.
    pub(crate) fn passed_down(&self, bytes: usize) {
        if let Some(open) = &self.0 {
            open.passed.down.fetch_add(bytes as u64, Ordering::Relaxed);
        }
    }

    /// Nothing more is to come, and all that was has been passed on. What broke it off before counts.
    pub(crate) fn whole(&mut self) {
        self.end(End::Whole);
    }

    /// It was broken off. Who was first counts.
    pub(crate) fn broke(&mut self, side: Side) {
        self.end(End::Broken(side));
    }

    /// Whether its answer has no body, whatever its header says (RFC 9110, section 9.3.2).
    pub(crate) fn is_head(&self) -> bool {
        self.0.as_ref().is_some_and(|open| open.method == Method::HEAD.as_str())
    }

    fn end(&mut self, end: End) {
        if let Some(open) = &mut self.0 {
            open.end.get_or_insert(end);
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let Some(open) = self.0.take() else { return };
        let broken_off = match open.end {
            Some(End::Whole) => None,
            _ if open.passed.client_left.load(Ordering::Relaxed) => Some(Side::Client),
            Some(End::Broken(side)) => Some(side),
            None => Some(open.ledger.left()),
        };
        let finished = Finished {
            connection: &open.ledger.connection,
            method: &open.method,
            host: open.host.as_deref(),
            path: &open.path,
            version: open.version,
            answer: open.answer,
            up: open.passed.up.load(Ordering::Relaxed),
            down: open.passed.down.load(Ordering::Relaxed),
            answered_after: open.answered_after,
            took: open.begun.elapsed(),
            broken_off,
        };
        open.ledger.observers.all.iter().for_each(|observer| observer.finished(&finished));
    }
}

/// The beginning of a text, with a mark where there was more of it.
fn cut(text: &str, most: usize) -> String {
    if text.len() <= most {
        return text.to_owned();
    }
    let mut end = most;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_between_characters() {
        for (text, expected) in
            [("", ""), ("abcd", "abcd"), ("abcde", "abcd…"), ("abcéd", "abc…"), ("ééé", "éé…")]
        {
            assert_eq!(cut(text, 4), expected);
        }
    }
}
