//! The same configuration, as a declarative file, a state file of decK's and calls of the Admin API.

use serde_json::{Value as Json, json};

use crate::sample::{document, sample};

pub(crate) const STATE_FILES: &[&str] =
    &["deck.yml", "header/deck.yml", "hybrid/deck.yml", "kong-tls/deck.yml"];

/// The folders, with a `/`, that say the same thrice.
pub(crate) const TOPOLOGIES: [&str; 3] = ["", "header/", "kong-tls/"];

/// All entities of a file, each with its collection and what it belongs to by name, in an order that depends on nothing else.
///
/// Of plugins the ids are left out, which only the Admin API needs; of services, whether they are enabled: what has begun
/// disabled ends enabled.
pub(crate) fn flat(file: &Json) -> Vec<Json> {
    let mut found = Vec::new();
    for (collection, list) in file.as_object().unwrap() {
        if !collection.starts_with('_') {
            nested(collection, list, &json!({}), &mut found);
        }
    }
    found.sort_by_key(Json::to_string);
    found
}

fn nested(collection: &str, list: &Json, parent: &Json, found: &mut Vec<Json>) {
    for entity in list.as_array().unwrap() {
        let mut entity = entity.as_object().unwrap().clone();
        let name = entity.get("name").cloned();
        for (child, field) in
            [("routes", "service"), ("plugins", if collection == "routes" { "route" } else { "service" })]
        {
            if let Some(list) = entity.remove(child) {
                nested(child, &list, &json!({field: {"name": name}}), found);
            }
        }
        entity.extend(parent.as_object().unwrap().clone());
        entity.insert("collection".into(), collection.into());
        match collection {
            "plugins" => entity.remove("id"),
            "services" => entity.remove("enabled"),
            _ => None,
        };
        if let Some(cert) = entity.get_mut("cert") {
            *cert = cert.as_str().unwrap().trim_end().into();
        }
        found.push(entity.into());
    }
}

#[test]
fn deck_is_told_the_same() {
    for folder in TOPOLOGIES {
        let [kong, deck] = ["kong.yml", "deck.yml"].map(|name| document(&sample(&format!("{folder}{name}"))));
        let expected = flat(&kong);
        assert!(expected.len() >= 6, "{expected:?}");
        assert_eq!(flat(&deck), expected, "{folder}");
    }
}

#[test]
fn deck_touches_nothing_else_and_opens_nothing() {
    for name in STATE_FILES {
        let deck = document(&sample(name));
        assert_eq!(deck["_format_version"], "3.0");
        assert_eq!(deck["_info"], json!({"select_tags": ["mtls-auth"]}), "{name}");
        for service in deck["services"].as_array().unwrap() {
            assert_eq!(service["enabled"], false, "{name}: it makes routes before their plugins");
        }
    }
}

/// A data plane's plugin server finds nothing but usernames.
#[test]
fn a_data_plane_is_told_nothing_that_it_would_have_to_look_up() {
    let deck = document(&sample("hybrid/deck.yml"));
    let plugins = flat(&deck).into_iter().filter(|entity| entity["name"] == "mtls-auth");
    let configs: Vec<_> = plugins.map(|plugin| plugin["config"].clone()).collect();
    assert!(!configs.is_empty());
    for config in configs {
        assert_eq!(config["consumer_by"], json!(["username"]));
        assert!(crate::sample::strings(&config["ca_certificates"]).into_iter().all(kong_entities::is_pem));
    }
}
