//! This knows what is to be seen of the plugin in Kong's configuration: whether it is guarded, whether each of its
//! configurations can be used, and when the CAs end that they name.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use checkup::{Finding, Findings};
use kong_entities::{Directory, Entities, Plugin, is_pem};
use serde_json::Value;

use super::kong::Kong;
use crate::config::Config;
use crate::guard::{self, LOOKED_AT};
use crate::schema::{self, PLUGIN_NAME};
use crate::trust::{self, Trust};

const GUARD: &str = "guard";
const CONFIGURATION: &str = "configuration";
const CAS: &str = "CAs";

/// Looks at all configurations of the plugin that Kong runs.
pub(super) async fn look(kong: &Kong, findings: &mut Findings) {
    let read = match &kong.directory {
        Some(directory) => {
            directory.applied_plugins(&LOOKED_AT).await.map(|entities| (directory, entities)).map_err(Some)
        }
        None => Err(None),
    };
    let (directory, entities) = match read {
        Ok(read) => read,
        Err(error) => {
            for what in [GUARD, CAS] {
                findings.push(match &error {
                    Some(error) => {
                        Finding::unseen(what, error, "see to it that the Admin API can be read as a whole")
                    }
                    None if kong.is_named => super::unread(what),
                    None => Finding::unseen(
                        what,
                        "nobody said where Kong's configuration can be read",
                        "name it by --admin-url or --declarative-config",
                    ),
                });
            }
            return;
        }
    };
    let ours = entities.plugins.iter().filter(|plugin| plugin.name == PLUGIN_NAME && plugin.enabled);
    let ours: Vec<_> = ours.collect();
    if ours.is_empty() {
        findings.push(Finding::warn(
            GUARD,
            "no mtls-auth is enabled in Kong's configuration: nobody is asked for a certificate",
            "put it on a route, a service or everything",
        ));
        return;
    }
    findings.push(guard(&entities, kong));
    authorities(directory, &entities, &ours, findings).await;
}

fn guard(entities: &Entities, kong: &Kong) -> Finding {
    const REMEDY: &str = "`mtls-auth guard` prints what is missing";
    match guard::unguarded(entities) {
        None => Finding::ok(GUARD, "it stands beside every mtls-auth"),
        Some(unguarded) if kong.fails_closed() => {
            let finding =
                format!("missing for {unguarded}; in ProtoBuf:1, Kong answers 500 while the server is away");
            Finding::warn(GUARD, finding, REMEDY)
        }
        Some(unguarded) => Finding::fail(
            GUARD,
            format!(
                "missing for {unguarded}; Kong lets requests pass there while the server does not answer"
            ),
            REMEDY,
        ),
    }
}

/// The CAs of all configurations, each once, and a line for each configuration that cannot be used.
async fn authorities(directory: &Directory, entities: &Entities, ours: &[&Plugin], findings: &mut Findings) {
    let mut all = BTreeMap::new();
    for plugin in ours {
        match trust(directory, &plugin.config).await {
            Ok(trust) => {
                let read = trust.authorities();
                all.extend(read.filter_map(|(digest, ca)| Some((*digest, trust::subject_and_end(ca)?))));
            }
            Err(problem) => {
                let scope = guard::scope(entities, plugin.scope);
                let finding = format!("of the mtls-auth {scope}: {problem}");
                let remedy = "mend it: every request is refused there";
                findings.push(Finding::fail(CONFIGURATION, finding, remedy));
            }
        }
    }
    let named = all.into_values().map(|(subject, ends)| (format!("{subject:?}"), ends));
    let remedy =
        "name its successor in ca_certificates beside it, and have the clients' certificates renewed";
    findings.extend(checkup::ends(CAS, named, SystemTime::now(), remedy));
}

/// The CAs that a configuration names.
///
/// # Errors
/// What is wrong with it, or that nobody can say.
async fn trust(directory: &Directory, config: &Value) -> Result<Trust, String> {
    let fields = schema::with_defaults(config.as_object().cloned().unwrap_or_default());
    let config = Config::from_json(&Value::Object(fields).to_string())?;
    config.source()?;
    let mut found = Vec::new();
    for entry in config.ca_certificates.iter().filter(|entry| !is_pem(entry)) {
        let ca = directory.ca_certificate(entry, Duration::MAX).await.map_err(|error| error.to_string())?;
        found.push(ca.ok_or_else(|| format!("there is no CA certificate with the id {entry:?}"))?);
    }
    Trust::resolve(&config, &found)
}
