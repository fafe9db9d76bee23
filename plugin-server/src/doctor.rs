//! This knows `mtls-auth doctor`: what has to be in order around the server, in which order it is looked at, and which of it
//! can be seen from where. What is good and what is not is judged in [`checkup`], and by `guard`.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command whose result is what it prints")]

mod kong;
mod options;
mod plugins;
mod server;
mod shim;

use std::process::ExitCode;

use checkup::{Finding, Findings};

use crate::doctor::kong::Kong;
use crate::doctor::options::Named;
use crate::guard::USAGE;

pub(crate) use options::DoctorOptions;

/// Prints a line for each thing. 0 where nothing fails, 1 where something does, 2 where the command line cannot be followed.
#[tokio::main(flavor = "current_thread")]
pub(crate) async fn run(options: DoctorOptions) -> ExitCode {
    let json = options.json;
    let named = match options.settle() {
        Ok(named) => named,
        Err(error) => {
            eprintln!("mtls-auth doctor: {error}");
            return if error.is_usage() { ExitCode::from(USAGE) } else { ExitCode::FAILURE };
        }
    };
    let findings = look(named).await;
    if json {
        println!("{}", findings.to_json());
    } else {
        print!("{findings}");
    }
    if findings.has_failure() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

async fn look(named: Named) -> Findings {
    let mut findings = Findings::default();
    let kong = Kong::look(named.entities, named.kong_conf.as_deref(), &named.kong_env, &mut findings).await;
    findings.extend(server::socket(&named.socket, kong.plugin_server()));
    let status = server::status(&named.socket, &mut findings).await;
    let key = server::proof_key(&named.proof_key_file, status.as_ref(), &mut findings);
    if let Some(path) = &named.shim_config {
        shim::look(path, &named.socket, status.as_ref(), key.as_ref(), &mut findings).await;
    }
    plugins::look(&kong, &mut findings).await;
    findings
}

/// What to do where the source of Kong's configuration does not answer.
fn unread(what: &'static str) -> Finding {
    Finding::unseen(what, "Kong's configuration cannot be read", "see to the line on kong first")
}
