//! `bench-nothing`: a plugin server that decides nothing. It has Kong make the same PDK calls as `mtls-auth` for a request
//! that passes, with the same arguments each time, so that what it costs is what Kong and the socket cost.
#![allow(clippy::print_stderr, reason = "a command that says why it ended")]

mod msgpack;
mod protobuf;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::UnixListener;

/// Serves Kong on a socket and lets every request pass as the same consumer.
#[derive(Debug, Parser)]
#[command(name = "bench-nothing", version)]
struct Cli {
    /// The socket to serve on
    #[arg(long)]
    socket: PathBuf,
    /// What Kong speaks
    #[arg(long)]
    protocol: Protocol,
    /// The id of the consumer
    #[arg(long)]
    consumer_id: String,
    /// The consumer's username
    #[arg(long)]
    consumer: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Protocol {
    Msgpack,
    Protobuf,
}

/// What is set in each request, and what is removed from it.
pub(crate) struct Said {
    pub(crate) consumer_id: String,
    pub(crate) consumer: String,
}

impl Said {
    /// The headers for the upstream; those without a value are removed.
    pub(crate) fn headers(&self) -> [(&str, Option<&str>); 6] {
        [
            ("client-cert", None),
            ("client-cert-chain", None),
            ("client-cert-proof", None),
            ("X-Consumer-ID", Some(&self.consumer_id)),
            ("X-Consumer-Username", Some(&self.consumer)),
            ("X-Credential-Identifier", Some(&self.consumer)),
        ]
    }
}

/// The name that the plugin has for Kong.
pub(crate) const PLUGIN: &str = "mtls-auth";

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    let said = Said { consumer_id: cli.consumer_id, consumer: cli.consumer };
    let Err(error) = serve(&cli.socket, cli.protocol, &said).await;
    eprintln!("bench-nothing: {error}");
    ExitCode::FAILURE
}

async fn serve(
    socket: &PathBuf,
    protocol: Protocol,
    said: &Said,
) -> std::io::Result<std::convert::Infallible> {
    let listener = UnixListener::bind(socket)?;
    let replies: &'static _ =
        Box::leak(Box::new((msgpack::Replies::new(said), protobuf::Replies::new(said))));
    loop {
        let (stream, _) = listener.accept().await?;
        let received = Received::of(stream)?;
        tokio::spawn(async move {
            match protocol {
                Protocol::Msgpack => msgpack::serve(received, &replies.0).await,
                Protocol::Protobuf => protobuf::serve(received, &replies.1).await,
            }
        });
    }
}

/// What has been read from a connection and not been looked at. Nothing but what there is to read wakes it.
pub(crate) struct Received {
    stream: AsyncFd<UnixStream>,
    bytes: Vec<u8>,
    from: usize,
    to: usize,
}

impl Received {
    #[allow(deprecated, reason = "what replaces it is unsafe")]
    pub(crate) fn of(stream: tokio::net::UnixStream) -> std::io::Result<Self> {
        let stream = AsyncFd::with_interest(stream.into_std()?, Interest::READABLE)?;
        Ok(Self { stream, bytes: vec![0; 64 * 1024], from: 0, to: 0 })
    }

    /// What is there, once `length` knows how long the first message is and all of it is there. None at the end.
    pub(crate) async fn message(&mut self, length: impl Fn(&[u8]) -> Option<usize>) -> Option<&[u8]> {
        let length = loop {
            let there = &self.bytes[self.from..self.to];
            match length(there) {
                Some(length) if length <= there.len() => break length,
                _ => {}
            }
            self.bytes.copy_within(self.from..self.to, 0);
            (self.from, self.to) = (0, self.to - self.from);
            let mut ready = self.stream.readable_mut().await.ok()?;
            match ready.get_inner_mut().read(&mut self.bytes[self.to..]) {
                Ok(0) => return None,
                Ok(read) => self.to += read,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(_) => return None,
            }
            // There is more room than any message takes.
            ready.clear_ready();
        };
        let begun = self.from;
        self.from += length;
        Some(&self.bytes[begun..self.from])
    }

    /// Replies are far shorter than what a socket takes at once.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> Option<()> {
        self.stream.get_mut().write_all(bytes).ok()
    }
}
