//! `bench-load`: one kind of load on a TLS front or on Kong's plain port, from one thread, and what came of it as a line of JSON.
//!
//! It measures what a client sees. What it costs the server is read from the kernel by `bench/run`.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command whose result is what it prints")]

mod front;
mod handoff;
mod loads;
mod outcome;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::front::Front;
use crate::outcome::Outcome;

/// Puts one kind of load on a TLS front, or on Kong's plain port.
#[derive(Debug, Parser)]
#[command(name = "bench-load", version)]
struct Cli {
    #[command(flatten)]
    to: To,
    #[command(subcommand)]
    load: Load,
}

/// Where to, and as whom.
#[derive(Debug, Args)]
struct To {
    /// The address of the front
    #[arg(long)]
    connect: SocketAddr,
    /// The server name in the ClientHello and the Host header
    #[arg(long)]
    sni: String,
    /// The client's certificate with its chain, in PEM; none: it presents none
    #[arg(long, requires = "key")]
    cert: Option<PathBuf>,
    /// Its private key, in PEM
    #[arg(long)]
    key: Option<PathBuf>,
    /// The only version of TLS
    #[arg(long, default_value = "1.3")]
    tls: Version,
    /// The protocol over TLS
    #[arg(long, default_value = "http1")]
    http: Http,
    /// What is asked for
    #[arg(long, default_value = "/")]
    path: String,
    /// In its place: /0/, /1/ and so on, so many in turn
    #[arg(long)]
    paths: Option<usize>,
    /// No TLS
    #[arg(long)]
    plain: bool,
    /// Hands the certificate on as tls-shim does, with proofs by the key in this file
    #[arg(long)]
    handoff_key: Option<PathBuf>,
    /// In place of --cert: so many certificates in turn, which are made for it
    #[arg(long, requires = "handoff_key")]
    certificates: Option<usize>,
    /// The CA that makes them, in PEM
    #[arg(long)]
    ca: Option<PathBuf>,
    /// Its private key, in PEM
    #[arg(long)]
    ca_key: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Version {
    #[value(name = "1.2")]
    Tls12,
    #[value(name = "1.3")]
    Tls13,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Http {
    Http1,
    Http2,
}

#[derive(Debug, Subcommand)]
enum Load {
    /// Connections with one request each
    Handshakes {
        /// How many in all
        #[arg(long)]
        count: u64,
        /// How many at a time
        #[arg(long, default_value_t = 8)]
        at_once: usize,
        /// Each but the first of each place resumes the session of the one before
        #[arg(long)]
        resume: bool,
    },
    /// Requests on connections that are kept, each after the answer to the one before
    Requests {
        /// How many in all
        #[arg(long)]
        count: u64,
        /// How many connections
        #[arg(long, default_value_t = 8)]
        connections: usize,
        /// How many requests at a time on each; more than one with HTTP/2 only
        #[arg(long, default_value_t = 1)]
        streams: usize,
        /// Sends a body of this many bytes with each
        #[arg(long, default_value_t = 0)]
        upload: usize,
    },
    /// Requests at a steady rate, whether answers come or not
    Rate {
        /// Requests per second
        #[arg(long)]
        rate: f64,
        /// For so many seconds
        #[arg(long, default_value_t = 5.0)]
        seconds: f64,
        /// How many connections
        #[arg(long, default_value_t = 64)]
        connections: usize,
    },
    /// Connections that are kept after one request each, until standard input ends
    Idle {
        /// How many
        #[arg(long)]
        count: usize,
    },
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match Front::new(&cli.to) {
        Ok(front) => run(front, cli.load).await,
        Err(error) => Err(error),
    };
    match done {
        Ok(outcome) => {
            println!("{}", serde_json::to_string(&outcome).expect("numbers are JSON"));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("bench-load: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(front: Front, load: Load) -> Result<Outcome, front::Error> {
    match load {
        Load::Handshakes { count, at_once, resume } => loads::handshakes(front, count, at_once, resume).await,
        Load::Requests { count, connections, streams, upload } => {
            loads::requests(front, count, connections, streams, upload).await
        }
        Load::Rate { rate, seconds, connections } => loads::rate(front, rate, seconds, connections).await,
        Load::Idle { count } => loads::idle(front, count).await,
    }
}
