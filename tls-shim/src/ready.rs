//! This knows `tls-shim ready`: what the running shim's `/readyz` says, for whoever can start a program beside it, and has
//! no client for HTTP.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command whose result is what it prints")]

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use crate::settings::Settings;

/// How long the shim may take for each step of its answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// How much of an answer is read.
const ANSWER: u64 = 64 * 1024;

/// Prints the lines of `/readyz`. Gives 0 where the shim is ready, and 1 where it is not, does not answer, or has no status
/// address.
pub(crate) fn ready(config: &Path) -> ExitCode {
    match ask(config) {
        Ok((is_ready, said)) => {
            print!("{said}");
            if is_ready { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(problem) => {
            eprintln!("tls-shim ready: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn ask(config: &Path) -> Result<(bool, String), String> {
    let settings = Settings::read(config).map_err(|error| error.to_string())?;
    let address = settings
        .status_listen
        .ok_or_else(|| format!("{}: without status_listen nobody can ask", config.display()))?;
    let answer = get(address).map_err(|error| format!("{address}: {error}"))?;
    let (head, said) =
        answer.split_once("\r\n\r\n").ok_or_else(|| format!("{address}: that is no answer of a shim"))?;
    Ok((head.starts_with("HTTP/1.1 200 "), said.to_owned()))
}

/// The answer as it comes. The status address closes each connection after one.
fn get(address: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    write!(stream, "GET /readyz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(ANSWER).read_to_string(&mut answer)?;
    Ok(answer)
}
