use serde_json::Value;

use super::{all, consistent, list, private_keys};
use crate::{Entities, parse_json, parse_yaml};

/// What is taken for a private key in YAML that cannot be read, where it stands behind `key:`.
const PRIVATE_KEY: &str = "PRIVATE-KEY-OF-A-SEED";

/// The most values that aliases may stand for: what the reader of YAML allows unless told otherwise.
const MOST_OF_ALIASES: usize = 1_000_000;

/// Reads a text as a declarative file in JSON, and in YAML: no plugin is lost or applies to something else than what is
/// written, nothing refers to what is not there, what is kept is not much more than what came, and an error quotes no
/// private key.
///
/// # Panics
/// Where what must hold does not.
pub fn declarative_file(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    let json = serde_json::from_str(text).ok();
    read(text, parse_json(text), json.as_ref());
    let yaml = serde_saphyr::from_str(text).ok();
    read(text, parse_yaml(text), yaml.as_ref());
}

fn read(text: &str, read: Result<Entities, String>, written: Option<&Value>) {
    match read {
        Ok(entities) => {
            consistent(&entities);
            bounded(&entities, text);
            if let Some(written) = written {
                as_written(&entities, written);
            }
        }
        Err(problem) => {
            assert!(!is_key_only(text) || !problem.contains(PRIVATE_KEY), "{problem}");
            let certificates = written.map_or(&[][..], |written| list(written, "certificates"));
            let shown = private_keys(certificates, text).find(|key| problem.contains(key));
            assert_eq!(shown, None, "{problem}");
        }
    }
}

/// Whether what stands for a private key is one in each place.
fn is_key_only(text: &str) -> bool {
    text.split('\n').filter(|line| line.contains(PRIVATE_KEY)).all(|line| {
        let line = line.trim_start_matches([' ', '-']);
        line.strip_prefix("key: ").or_else(|| line.strip_prefix("key_alt: ")) == Some(PRIVATE_KEY)
    })
}

/// An alias in YAML has few letters and may stand for much.
fn bounded(entities: &Entities, text: &str) {
    let kept: usize = entities.plugins.iter().map(|plugin| size(&plugin.config)).sum();
    let all = kept + entities.plugins.len() + entities.routes.len() + entities.services.len();
    assert!(all <= MOST_OF_ALIASES + text.len(), "{all} of {}", text.len());
}

/// How many values there are in one.
fn size(value: &Value) -> usize {
    1 + match value {
        Value::Array(values) => values.iter().map(size).sum(),
        Value::Object(fields) => fields.values().map(size).sum(),
        _ => 0,
    }
}

/// By an understanding of its own: how many of each there are, and what plugins apply to.
fn as_written(entities: &Entities, written: &Value) {
    let services = list(written, "services");
    let nested: Vec<_> = all(services, "routes").cloned().collect();
    let routes = [&nested, list(written, "routes")].concat();
    assert_eq!(entities.services.len(), services.len());
    assert_eq!(entities.routes.len(), routes.len());

    let at_the_top = list(written, "plugins");
    let consumers = list(written, "consumers");
    let nested = [services, &routes, consumers].map(|of| all(of, "plugins").count());
    assert_eq!(entities.plugins.len(), at_the_top.len() + nested.iter().sum::<usize>());
    let is_global = |plugin: &&Value| {
        ["service", "route", "consumer", "consumer_group"].iter().all(|scope| plugin[scope].is_null())
    };
    let global = entities.plugins.iter().filter(|plugin| {
        plugin.scope.service.is_none() && plugin.scope.route.is_none() && !plugin.scope.consumer
    });
    assert_eq!(global.count(), at_the_top.iter().filter(is_global).count());
    let disabled = |plugin: &&Value| plugin["enabled"] == Value::Bool(false);
    let plugins =
        at_the_top.iter().chain([services, &routes, consumers].into_iter().flat_map(|of| all(of, "plugins")));
    let is_off = entities.plugins.iter().filter(|plugin| !plugin.enabled);
    assert_eq!(is_off.count(), plugins.filter(disabled).count());

    let on_route =
        |route| entities.plugins.iter().filter(move |plugin| plugin.scope.route == Some(route)).count();
    // One that is nested under a route may name another: then it applies there.
    let stays = |plugin: &&Value, scope: &str| plugin[scope].is_null();
    for (position, route) in routes.iter().enumerate() {
        let here = list(route, "plugins").iter().filter(|plugin| stays(plugin, "route")).count();
        assert!(on_route(position) >= here, "a plugin of route {position} applies to something else");
        assert_eq!(entities.routes[position].snis.len(), list(route, "snis").len());
    }
    let on_service =
        |service| entities.plugins.iter().filter(move |plugin| plugin.scope.service == Some(service)).count();
    for (position, service) in services.iter().enumerate() {
        let here = list(service, "plugins").iter().filter(|plugin| stays(plugin, "service")).count();
        assert!(on_service(position) >= here, "a plugin of service {position} applies to something else");
    }
    let is_named = |consumer: &&Value| !consumer["id"].is_null() || !consumer["username"].is_null();
    assert_eq!(entities.consumer_count(), consumers.iter().filter(is_named).count());
}
