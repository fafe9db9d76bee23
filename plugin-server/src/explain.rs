//! This knows `mtls-auth explain`: what the plugin would decide about a certificate, and why. It runs the access phase
//! itself, with a Kong that is made up.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command whose result is what it prints")]

mod input;
mod kong;
mod report;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use client_cert::ProofKey;
use revocation::Checker;

use crate::access::{self, Decision};
use crate::explain::input::Input;
use crate::explain::kong::MadeUpKong;
use crate::explain::report::Report;
use crate::ids::Run;
use crate::instance::{Instances, Shared};
use crate::revocation::Revocation;
use crate::step;

pub(crate) use crate::explain::input::ExplainOptions;

/// How long it may take: nobody waits but whoever asked.
const TIME_LIMIT: Duration = Duration::from_secs(30);

/// Prints what would be decided. 0 where the request would pass, 1 where not, 2 where the question cannot be
/// understood.
pub(crate) fn run(options: ExplainOptions) -> ExitCode {
    let json = options.json;
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return misunderstood(&error),
    };
    // On this thread alone, so that every step is heard of.
    match runtime.block_on(Input::read(options)) {
        Ok(input) => {
            let (report, steps) = step::listen(|| runtime.block_on(explain(input)));
            let report = report.after(steps);
            let shown = if json { report.to_json() } else { report.to_string() };
            println!("{}", shown.trim_end());
            if report.passes() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(problem) => misunderstood(&problem),
    }
}

fn misunderstood(problem: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("mtls-auth explain: {problem}");
    ExitCode::from(2)
}

/// Asks an instance of this configuration about a request with this certificate.
async fn explain(input: Input) -> Report {
    let key = ProofKey::from_bytes(input.proof_key);
    let revocation = match input.revocation.map(Checker::new).transpose() {
        Ok(checker) => checker.map_or(Revocation::Untold, Revocation::Checked),
        Err(problem) => return Report::not_started(problem),
    };
    let shared = Shared::new(input.entities, key, revocation, TIME_LIMIT);
    let instances = Instances::new(Arc::new(shared), Run::random());
    let instance = match instances.start(&input.config).await.map(|id| instances.get(id)) {
        Ok(Some(instance)) => instance,
        Ok(None) => return Report::not_started("the instance is gone".into()),
        Err(problem) => return Report::not_started(problem),
    };
    let now = SystemTime::now();
    let mut kong = MadeUpKong::new(&instance.source, input.presented.as_ref(), &input.proof_key, now);
    let decision: Decision = access::access(&mut kong, &instance, now).await;
    Report::decided(decision, kong.told)
}
