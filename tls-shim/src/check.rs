//! This knows `tls-shim check`: whether the shim would start, and whom it would ask.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command whose result is what it prints")]

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use arc_swap::ArcSwap;
use client_cert::ProofKey;
use kong_entities::Entities;

use crate::settings::Settings;
use crate::sni::{self, Reason, ServerName, SniMap};
use crate::start::{self, StartError};
use crate::tls::ServerCertificate;
use crate::upstream::Kong;

/// Validates, prints, and gives 0 where the shim would start and 1 where it would not.
pub(crate) fn check(config: &Path) -> ExitCode {
    match report(config) {
        Ok(report) => {
            println!("{report}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn report(config: &Path) -> Result<String, StartError> {
    let settings = Settings::read(config)?;
    let certificate = ServerCertificate::read(&settings.default_certificate)?;
    ProofKey::read(&settings.proof_key_file)?;
    Kong::new(&settings)?;
    let entities = kong_entities::load(&settings.kong.declarative_config)?;
    // OpenSSL has its own mind about certificates.
    start::tls(&settings, &certificate, Arc::new(ArcSwap::from_pointee(SniMap::default())))?;
    let map = sni::policy(&entities);
    let summary = summary(&entities, &map);
    Ok(format!("{}\n{summary}\nserver certificate: {}", table(&map), certificate.summary()))
}

/// Every SNI that is asked with the reasons, one a line.
fn table(map: &SniMap) -> String {
    let yes =
        |why: &[Reason]| format!("yes: {}", why.iter().map(Reason::to_string).collect::<Vec<_>>().join("; "));
    let others = if map.asks(&ServerName::None) { "yes, as *" } else { "no" };
    let mut rows = vec![("SNI".to_owned(), "asked".to_owned())];
    rows.extend(map.rows().into_iter().map(|(name, why)| (name, yes(why))));
    rows.push(("(none or any other)".to_owned(), others.to_owned()));
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    rows.iter().map(|(name, asked)| format!("{name:width$}  {asked}")).collect::<Vec<_>>().join("\n")
}

fn summary(entities: &Entities, map: &SniMap) -> String {
    let (plugins, enabled) = sni::plugin_counts(entities);
    let (services, routes) = (entities.services.len(), entities.routes.len());
    let names = map.len();
    format!(
        "mtls-auth plugins: {plugins}, of which enabled: {enabled}; services: {services}; routes: {routes}; \
         SNIs in the map: {names}"
    )
}
