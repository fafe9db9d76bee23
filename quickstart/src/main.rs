//! `cargo run --release -p quickstart`: shows a client certificate on its way to a Kong consumer. Ends non-zero if
//! anything is not as it must be.

#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "what it shows is what it is for")]

use std::process::ExitCode;

use clap::Parser;
use quickstart::rows::{self, Row};
use quickstart::stack::{OPEN, PROTECTED, Stack};

/// Shows a client certificate on its way from a TLS client, through tls-shim and mtls-auth, to a Kong consumer.
#[derive(Parser)]
struct Cli {
    /// Stays up afterwards and prints curl commands to try
    #[arg(long)]
    keep: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    println!("Building mtls-auth and tls-shim, and starting them with throw-away certificates …");
    let stack = Stack::start().await;
    println!(
        "In Kong's place: its double (crates/kong-double), a stand-in that is for tests and demonstrations only.\n"
    );

    let rows = tokio::task::block_in_place(|| rows::run(&stack));
    show(&rows);
    if !rows.iter().all(|row| row.right) {
        println!("\nRows marked WRONG are not as they must be. Kong's error log:");
        for line in stack.kong.error_log() {
            println!("  {line}");
        }
        return ExitCode::FAILURE;
    }
    println!("\nWhy each was refused, in Kong's error log and nowhere else:");
    for line in stack.kong.error_log().iter().filter(|line| line.contains("refused: ")) {
        println!("  {}", reason(line));
    }
    println!("\nThe same with your own Kong: README.md, \"With your Kong\", and the samples in kong-conf/.");
    if cli.keep {
        keep(&stack).await;
    }
    ExitCode::SUCCESS
}

fn show(rows: &[Row]) {
    println!("      {:<34} {:<22} {:<6} ANSWER", "CLIENT", "SERVER NAME", "ASKED");
    for row in rows {
        let mark = if row.right { "ok" } else { "WRONG" };
        let asked = match row.asked {
            Some(true) => "yes",
            Some(false) => "no",
            None => "-",
        };
        println!("{mark:<5} {:<34} {:<22} {asked:<6} {} {}", row.what, row.server, row.status, row.message);
        for (name, value) in &row.identity {
            println!("{:<70} the upstream saw {name}: {value}", "");
        }
    }
}

/// The part of a log line that tells why: the rest is about the stand-in.
fn reason(line: &str) -> &str {
    let from = line.find("refused: ").unwrap_or(0);
    let to = line[from..].find(", client: ").map_or(line.len(), |at| from + at);
    &line[from..to]
}

async fn keep(stack: &Stack) {
    let port = stack.address().port();
    let ca = stack.file("server-ca.crt");
    let curl = |server: &str, more: &str| {
        println!(
            "  curl --cacert {} --resolve {server}:{port}:127.0.0.1 {more}https://{server}:{port}/",
            ca.display()
        );
    };
    let certificate = |name: &str| {
        let (cert, key) = (stack.file(&format!("{name}.crt")), stack.file(&format!("{name}.key")));
        format!("--cert {} --key {} ", cert.display(), key.display())
    };
    println!("\nTry it:");
    curl(PROTECTED, "");
    curl(PROTECTED, &certificate("mallory"));
    curl(PROTECTED, &certificate("alice"));
    curl(OPEN, "");
    println!("\nThe configuration of both programs and of Kong is in {}.", stack.file("").display());
    println!("Ctrl-C ends it.");
    let _ = tokio::signal::ctrl_c().await;
}
