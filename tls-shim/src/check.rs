//! This knows `tls-shim check`: whether the shim would start, whom it would ask, and what around it is not in order.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command whose result is what it prints")]

mod findings;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use checkup::Findings;
use client_cert::ProofKey;
use kong_entities::Entities;

use crate::access_log;
use crate::ca_names::Sent;
use crate::limits::CA_NAMES;
use crate::settings::Settings;
use crate::sni::{self, ServerName, Shown, SniMap};
use crate::source::{self, Reading};
use crate::start::{self, StartError};
use crate::tls::{Certificates, ServerCertificate};
use crate::upstream::Kong;

/// Validates and prints. Gives 0 where the shim would start with a configuration of Kong's and nothing fails, and 1
/// otherwise: it would refuse to start, or ask everybody since it knows nothing. A snapshot file stands in for an Admin API
/// that is away; it is no excuse for one that refuses the token, or is none at all. What is not there while a configuration
/// is looked at on another host, Kong or the plugin server, does not fail.
pub(crate) async fn check(config: &Path) -> ExitCode {
    let (fault, fails) = match report(config).await {
        Ok(Report { text, fault, findings }) => {
            println!("{text}\n\n{}", findings.to_string().trim_end());
            (fault, findings.has_failure())
        }
        Err(error) => (Some(error.to_string()), true),
    };
    if let Some(fault) = &fault {
        eprintln!("{fault}");
    }
    if fails || fault.is_some() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// What is to be said of settings with which the shim would start.
struct Report {
    text: String,
    /// What is wrong with the source.
    fault: Option<String>,
    findings: Findings,
}

async fn report(config: &Path) -> Result<Report, StartError> {
    let settings = Settings::read(config)?;
    let certificate = ServerCertificate::read(&settings.default_certificate)?;
    let key = ProofKey::read(&settings.proof_key_file)?;
    Kong::new(&settings)?;
    access_log::probe(&settings.access_log)?;
    let Reading { entities, origin } = source::read(&settings).await?;
    let map = Arc::new(sni::policy(&entities));
    let shown = certificate.summary();
    // OpenSSL has its own mind about certificates.
    let tls = start::tls(&settings, certificate, Arc::clone(&map), &entities)?;
    let certificates = tls.certificates();
    let findings = findings::look(&settings, &origin, &key, &entities, &tls).await;
    let map = if entities.is_known() {
        format!("{}\n{}", table(&map, &certificates, &shown), summary(&entities, &map))
    } else {
        "SNI  asked\n*    yes: nothing is known of Kong's configuration".to_owned()
    };
    let text = format!("{map}\nconfiguration: {origin}\ndefault server certificate: {shown}");
    Ok(Report { text, fault: origin.fault(), findings })
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
