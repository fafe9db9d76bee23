//! This knows `mtls-auth guard`: what keeps requests from passing while this server does not answer, where it is missing
//! in a configuration of Kong's, and what to write there.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command whose result is what it prints")]

mod advice;
mod coverage;
mod form;
mod function;
mod options;
mod watch;
mod words;

use std::process::ExitCode;

use kong_entities::{AdminClient, Entities};

use crate::cli::EntitySettings;
use coverage::Coverage;
use form::Admin;
use options::Form;

pub(crate) use options::GuardOptions;
pub(crate) use watch::{GuardWatch, LOOKED_AT};
pub(crate) use words::scope;

/// The command line cannot be followed: the status of a shell's built-ins for that, and of clap's.
pub(crate) const USAGE: u8 = 2;

/// Prints what is missing, or with `--check` says what is guarded. Gives 1 where the configuration cannot be read and, with
/// `--check`, where something is unguarded.
#[tokio::main(flavor = "current_thread")]
pub(crate) async fn run(options: GuardOptions) -> ExitCode {
    if options.format == Some(Form::Admin) && options.source.admin_url.is_none() {
        eprintln!("mtls-auth: --format admin: only with --admin-url");
        return ExitCode::from(USAGE);
    }
    let source = match options.source.settle() {
        Ok(source) => source,
        Err(error) => {
            eprintln!("mtls-auth: {error}");
            return if error.is_usage() { ExitCode::from(USAGE) } else { ExitCode::FAILURE };
        }
    };
    let (entities, has_database) = match read(source).await {
        Ok(read) => read,
        Err(error) => {
            eprintln!("mtls-auth: {error}");
            return ExitCode::FAILURE;
        }
    };
    let coverage = Coverage::of(&entities);
    let report = words::report(&entities, &coverage);
    if options.check {
        print!("{report}");
        return if coverage.is_whole() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    for line in report.lines() {
        println!("# {line}");
    }
    let advice = advice::advice(&entities, &coverage);
    if !advice.is_empty() {
        print!("{}", printed(&options, &entities, has_database, &advice));
    }
    ExitCode::SUCCESS
}

/// What is not guarded, in one line. None: everything is.
pub(crate) fn unguarded(entities: &Entities) -> Option<String> {
    words::unguarded(entities, &Coverage::of(entities))
}

/// The configuration, and whether there is a database to write into by the Admin API.
async fn read(source: EntitySettings) -> Result<(Entities, bool), Box<dyn std::error::Error>> {
    Ok(match source {
        EntitySettings::Kong => return Err("one of --admin-url and --declarative-config is needed".into()),
        EntitySettings::Declarative(path) => (kong_entities::load(&path)?, false),
        EntitySettings::Admin(settings) => {
            let client = AdminClient::new(settings)?;
            let entities = watch::read(&client).await?;
            (entities, client.configuration_hash().await?.is_none())
        }
    })
}

fn printed(
    options: &GuardOptions,
    entities: &Entities,
    has_database: bool,
    advice: &[advice::Advice],
) -> String {
    let default = if has_database { Form::Admin } else { Form::Declarative };
    let source = &options.source;
    match (options.format.unwrap_or(default), &source.admin_url) {
        (Form::Admin, Some(url)) => {
            let (token_file, ca_file) = (source.admin_token_file.as_deref(), source.admin_ca_file.as_deref());
            form::admin(entities, advice, &Admin { url, token_file, ca_file })
        }
        _ => form::declarative(entities, advice),
    }
}

#[cfg(test)]
mod tests;
