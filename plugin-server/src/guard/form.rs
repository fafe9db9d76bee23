//! This knows the forms that advice is printed in: entries of a declarative file, or commands for the Admin API.

use std::path::Path;

use kong_entities::{Entities, Scope};
use serde_json::{Map, Value as Json, json};

use super::advice::{Advice, Others};
use super::function::CARRIER;
use super::words;

/// How the Admin API is reached.
pub(crate) struct Admin<'a> {
    pub(crate) url: &'a str,
    pub(crate) token_file: Option<&'a Path>,
    pub(crate) ca_file: Option<&'a Path>,
}

/// Entries for `plugins` of a declarative file. What refers to nothing that has a name or an id is commented out: without
/// the reference it would apply to everything.
pub(crate) fn declarative(entities: &Entities, advice: &[Advice]) -> String {
    let mut text = "plugins:\n".to_owned();
    for advised in advice {
        let (mut entry, mut nameless) = (format!("- name: {CARRIER}\n"), None);
        let Scope { route, service, .. } = advised.scope;
        let route = route.map(|index| &entities.routes[index]);
        let service = service.map(|index| &entities.services[index]);
        let references = [
            route.map(|route| ("route", &route.label, route.name.as_ref().or(route.id.as_ref()))),
            service.map(|service| ("service", &service.label, service.name.as_ref().or(service.id.as_ref()))),
        ];
        for (kind, label, reference) in references.into_iter().flatten() {
            match reference {
                Some(reference) => entry.push_str(&format!("  {kind}: {}\n", json!(reference))),
                None => nameless = Some(label),
            }
        }
        entry.push_str("  config:\n");
        for (phase, functions) in &advised.config {
            let functions = functions.as_array().map_or(&[][..], Vec::as_slice);
            if !functions.is_empty() {
                entry.push_str(&format!("    {phase}:\n"));
                entry.extend(functions.iter().map(|function| format!("    - {}\n", scalar(function))));
            }
        }
        text.push_str(&comment(entities, advised));
        match nameless {
            None => text.push_str(&entry),
            Some(label) => {
                text.push_str(&format!(
                    "# Nest it under {label}, which has neither name nor id to refer to:\n"
                ));
                text.extend(entry.lines().map(|line| format!("# {line}\n")));
            }
        }
    }
    text
}

/// Commands for curl. They change what they name and nothing else.
pub(crate) fn admin(entities: &Entities, advice: &[Advice], admin: &Admin<'_>) -> String {
    let mut text = String::new();
    for advised in advice {
        let mut body = Map::new();
        let (method, path) = match advised.replaces.map(|index| &entities.plugins[index]) {
            Some(plugin) => {
                if advised.others != Others::Kept {
                    // It does not run today.
                    body.insert("enabled".into(), json!(true));
                    body.insert("protocols".into(), json!(["grpc", "grpcs", "http", "https"]));
                }
                ("PATCH", format!("/plugins/{}", plugin.id.as_deref().unwrap_or_default()))
            }
            None => {
                body.insert("name".into(), json!(CARRIER));
                if let Some(route) = advised.scope.route {
                    body.insert("route".into(), json!({"id": entities.routes[route].id}));
                }
                if let Some(service) = advised.scope.service {
                    body.insert("service".into(), json!({"id": entities.services[service].id}));
                }
                ("POST", "/plugins".to_owned())
            }
        };
        body.insert("config".into(), Json::Object(advised.config.clone()));
        text.push_str(&comment(entities, advised));
        text.push_str(&format!(
            "curl -fsS -X {method} {}",
            quoted(&format!("{}{path}", admin.url.trim_end_matches('/')))
        ));
        if let Some(file) = admin.token_file {
            text.push_str(&format!(" -H \"Kong-Admin-Token: $(cat {})\"", quoted(&file.to_string_lossy())));
        }
        if let Some(file) = admin.ca_file {
            text.push_str(&format!(" --cacert {}", quoted(&file.to_string_lossy())));
        }
        let body = quoted(&Json::Object(body).to_string());
        text.push_str(&format!(" -H 'Content-Type: application/json' -d {body}\n"));
    }
    text
}

/// What the advice is about, in a comment.
fn comment(entities: &Entities, advised: &Advice) -> String {
    let mut comment = format!("# The guard {}.", words::scope(entities, advised.scope));
    if advised.replaces.is_some() {
        comment
            .push_str(" In place of the post-function that stands in this scope, for Kong takes one only.");
    }
    match advised.others {
        Others::None => {}
        Others::Kept => comment.push_str(" Its own functions come after the guard."),
        Others::Copied(wider) => comment.push_str(&format!(
            " The functions after it are those of the post-function {}, whose place it takes here.",
            words::scope(entities, entities.plugins[wider].scope)
        )),
        Others::Dropped => comment.push_str(" Kong does not run that one today: its functions are left out."),
    }
    // A name may hold anything but must not end the comment.
    comment.replace(char::is_control, " ") + "\n"
}

/// A text in YAML: as a block where that is sure to give it back, else in quotes, which are those of JSON.
fn scalar(text: &Json) -> String {
    let Some(code) = text.as_str() else { return text.to_string() };
    let plain = |char: char| char == '\n' || !char.is_control();
    let body = code.strip_suffix('\n').unwrap_or(code);
    let is_block = body.contains('\n')
        && code.chars().all(plain)
        && !body.starts_with([' ', '\n'])
        && !body.ends_with('\n');
    if !is_block {
        return text.to_string();
    }
    let lines =
        body.split('\n').map(|line| if line.is_empty() { "\n".into() } else { format!("\n      {line}") });
    format!("|{}{}", if body == code { "-" } else { "" }, lines.collect::<String>())
}

/// A word of a shell's.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}
