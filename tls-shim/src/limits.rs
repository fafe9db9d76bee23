//! This knows the limits of the shim that no setting changes. The others stand in [`crate::settings`].

use std::time::Duration;

/// How long a client may take over leaving once it was told that the connection ends because it was idle.
pub(crate) const LEAVE: Duration = Duration::from_secs(5);

/// After how long without a request the buffers of an HTTP/1.1 connection are given back. To rest costs a fifth of a request, so
/// clients that ask again and again keep them.
pub(crate) const REST_AFTER: Duration = Duration::from_secs(1);

/// How long a client that was accepted may take over its handshake, and then over its first request, when the shim is told
/// to end: it counts on an answer.
pub(crate) const FIRST_REQUEST: Duration = Duration::from_secs(5);

/// How often a client on HTTP/2 is asked whether it is still there, and how long it may take to answer.
pub(crate) const PING: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(20));

/// How long a connection to Kong is kept without use. Kong itself keeps them for 75 s, and closing first means that
/// none is closed under a request.
pub(crate) const UPSTREAM_IDLE: Duration = Duration::from_secs(30);

/// How many connections to Kong are kept without use, those of HTTP/2 aside.
pub(crate) const UPSTREAM_IDLE_CONNECTIONS: usize = 1024;

/// How often the connections to Kong that are of no use any more are looked for.
pub(crate) const UPSTREAM_SWEEP: Duration = Duration::from_secs(5);

/// How many requests a connection to Kong carries at a time where it speaks HTTP/2. nginx takes 128
/// (`http2_max_concurrent_streams`), and a stream over that would wait for others to end, which they may never do.
pub(crate) const UPSTREAM_STREAMS: usize = 100;

/// How many requests a connection to Kong carries in all where it speaks HTTP/2. nginx ends it after 1,000 by default
/// (`keepalive_requests`), and drops those that are on their way by then.
pub(crate) const UPSTREAM_REQUESTS: usize = 900;

/// The bytes of an answer over HTTP/2 that Kong may send before the client has taken them.
pub(crate) const UPSTREAM_STREAM_WINDOW: u32 = 256 * 1024;

/// How long no connection is accepted after the system refused one, for want of file descriptors for example.
pub(crate) const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The most connections of clients at a time, unless set.
pub(crate) const CONNECTIONS: usize = 16 * 1024;

/// The file descriptors that are needed for other things than a client's connection and one to Kong for it: listeners,
/// files, the Admin API, the runtime.
pub(crate) const OTHER_DESCRIPTORS: usize = 32;

/// How often the log is told that connections wait since there are as many as there may be.
pub(crate) const FULL_SAID: Duration = Duration::from_secs(60);

/// The connections that wait to be accepted, for each listener.
pub(crate) const BACKLOG: u32 = 1024;

/// The bytes of a PROXY header of version 2 after its first 16. Addresses take 36, what fronts add to them a few hundred.
pub(crate) const PROXY_HEADER_BYTES: usize = 4096;

/// The bytes of a client's Certificate message. Base64 makes 4/3 of it, so this is over what a hand-off can carry. It is
/// also as much as leaves room for the rest of a session in a ticket: OpenSSL fails the handshake, even if there is to be
/// no ticket, of a client whose leaf makes that more than 65,280 bytes.
pub(crate) const CERTIFICATES: i32 = 63 * 1024;

/// The bytes of a client's certificates in a session ticket. Who presents more gets none. A client sends the ticket in its
/// first message, which should not take many packets.
pub(crate) const TICKET: usize = 16 * 1024;

/// The bytes of the CA names in a CertificateRequest. They may be 64 KiB in TLS 1.2 (RFC 5246, section 7.4.4); in TLS 1.3
/// all extensions of the message together may (RFC 8446, section 4.3.2), so the others keep one of them. OpenSSL would
/// fail the handshake of every client over one byte more.
pub(crate) const CA_NAMES: usize = 63 * 1024;

/// The fields in the header of an answer.
pub(crate) const ANSWER_HEADER_FIELDS: usize = 200;

/// The bytes of a request's path in the access log.
pub(crate) const LOGGED_PATH: usize = 1024;

/// The bytes of a name in the access log: a host, or the server that a client named.
pub(crate) const LOGGED_NAME: usize = 255;

/// The bytes of a request's method in the access log.
pub(crate) const LOGGED_METHOD: usize = 32;

/// The lines of the access log that wait to be written. They have some 700 bytes; clients can make them 10 KiB.
pub(crate) const LOG_QUEUE: usize = 8192;

/// The bytes of the access log that are written in one go, give or take a line.
pub(crate) const LOG_BATCH: usize = 64 * 1024;

/// How often the log is told that lines of the access log are lost.
pub(crate) const LOG_COMPLAINT: Duration = Duration::from_secs(10);

/// For what waits for a disk or a resolver when the shim ends.
pub(crate) const SHUTDOWN: Duration = Duration::from_secs(1);

/// For the lines of the access log that wait when the shim ends.
pub(crate) const LOG_FLUSH: Duration = Duration::from_secs(5);

/// The bytes of an answer's header over HTTP/2.
pub(crate) const ANSWER_HEADER_BYTES: u32 = 64 * 1024;
