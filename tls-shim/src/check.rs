//! This knows `tls-shim check`: whether the shim would start, and whom it would ask.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command whose result is what it prints")]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use client_cert::ProofKey;
use kong_entities::Entities;

use crate::access_log;
use crate::ca_names::Sent;
use crate::limits::CA_NAMES;
use crate::settings::Settings;
use crate::sni::{self, ServerName, Shown, SniMap};
use crate::source::{self, Reading};
use crate::start::{self, StartError};
use crate::tls::{Certificates, ServerCertificate, Trouble};
use crate::upstream::Kong;

/// Validates and prints. Gives 0 where the shim would start with a configuration of Kong's, and 1 where it would not: it
/// would refuse to start, or ask everybody since it knows nothing. A snapshot file stands in for an Admin API that is
/// away; it is no excuse for one that refuses the token, or is none at all.
pub(crate) async fn check(config: &Path) -> ExitCode {
    let fault = match report(config).await {
        Ok((report, fault)) => {
            println!("{report}");
            fault
        }
        Err(error) => Some(error.to_string()),
    };
    match fault {
        Some(fault) => {
            eprintln!("{fault}");
            ExitCode::FAILURE
        }
        None => ExitCode::SUCCESS,
    }
}

/// What is to be said of the settings, and what is wrong with the source.
async fn report(config: &Path) -> Result<(String, Option<String>), StartError> {
    let settings = Settings::read(config)?;
    let certificate = ServerCertificate::read(&settings.default_certificate)?;
    ProofKey::read(&settings.proof_key_file)?;
    Kong::new(&settings)?;
    access_log::probe(&settings.access_log)?;
    let Reading { entities, origin } = source::read(&settings).await?;
    let map = Arc::new(sni::policy(&entities));
    let shown = certificate.summary();
    // OpenSSL has its own mind about certificates.
    let certificates = start::tls(&settings, certificate, Arc::clone(&map), &entities)?.certificates();
    let map = if entities.is_known() {
        format!("{}\n{}", table(&map, &certificates, &shown), summary(&entities, &map))
    } else {
        "SNI  asked\n*    yes: nothing is known of Kong's configuration".to_owned()
    };
    let troubles = certificates.troubles().map(trouble).collect::<String>();
    let out_of_reach = if settings.upstream.tls { String::new() } else { out_of_reach(&entities) };
    let report = format!(
        "{map}\nconfiguration: {origin}\n{troubles}{out_of_reach}default server certificate: {shown}"
    );
    Ok((report, origin.fault()))
}

/// Every SNI that is asked or has a certificate: one a line with the reasons why it is asked, and further lines with the CA
/// names that it is sent and the server certificate.
fn table(map: &SniMap, certificates: &Certificates, default: &str) -> String {
    let names: BTreeSet<String> = certificates.names().collect();
    let shown = |row: &str| {
        let own = certificates.of_row(row).map(|certificate| certificate.summary());
        // Of the names that a row is about, those with more labels there get what other rows say.
        let one_label = if row.contains('.') && row.contains('*') && names.contains(row) {
            ", where * is one label"
        } else {
            ""
        };
        format!("server certificate: {}{one_label}", own.as_deref().unwrap_or(default))
    };
    let mut rows = vec![("SNI".to_owned(), "asked".to_owned())];
    let mut others = names.clone();
    for row in map.rows() {
        others.remove(&row.sni);
        let ca_names = format!("CA names: {}", ca_names(&row));
        let reasons = row.reasons.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        let shown = shown(&row.sni);
        rows.extend([
            (row.sni, format!("yes: {reasons}")),
            (String::new(), ca_names),
            (String::new(), shown),
        ]);
    }
    for sni in others {
        let asking = map.asking(&sni);
        let asked =
            if asking.is_empty() { "no".to_owned() } else { format!("yes, as {}", asking.join(", ")) };
        let shown = shown(&sni);
        rows.extend([(sni, asked), (String::new(), shown)]);
    }
    let others = if map.asks(&ServerName::None) { "yes, as *" } else { "no" };
    rows.push(("(none or any other)".to_owned(), others.to_owned()));
    let shown = match certificates.of_row("*") {
        None => format!("server certificate: {default}"),
        Some(_) => format!("server certificate: {default} for none, that of * for any other"),
    };
    rows.push((String::new(), shown));
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    rows.iter().map(|(name, said)| format!("{name:width$}  {said}")).collect::<Vec<_>>().join("\n")
}

/// A line for what is wrong with a server certificate.
fn trouble(Trouble { broken, id, names, reason }: &Trouble) -> String {
    let word = if *broken { "error" } else { "warning" };
    format!("{word}: server certificate with the id {id} for {names}: {reason}\n")
}

/// A line for the routes that nobody reaches, with the first few by name.
fn out_of_reach(entities: &Entities) -> String {
    const SHOWN: usize = 5;
    let routes: Vec<&str> = sni::out_of_reach_without_sni(entities).collect();
    if routes.is_empty() {
        return String::new();
    }
    let (shown, more) = routes.split_at(routes.len().min(SHOWN));
    let more = if more.is_empty() { String::new() } else { format!(" and {} more", more.len()) };
    format!(
        "warning: nobody reaches routes whose expression demands tls.sni while upstream is not https://: {}{more}\n",
        shown.join(", ")
    )
}

fn ca_names(row: &Shown<'_>) -> String {
    match row.sent {
        Sent::Nothing => "none".to_owned(),
        Sent::Incomplete => format!("none, since not all are known: {}", row.problems.join("; ")),
        Sent::TooLong(bytes) => format!("none, since they are too many: {bytes} bytes, {CA_NAMES} at most"),
        Sent::Names(names) => {
            let names = names.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ");
            if row.silent.is_empty() {
                return names;
            }
            // See `Sent::merged` for what follows from it.
            let silent = row.silent.iter().copied().collect::<Vec<_>>().join("; ");
            format!("{names}; not named are the CAs of: {silent}")
        }
    }
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
