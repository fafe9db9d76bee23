//! This knows what must hold of any bytes in place of a declarative file, or of the answers of an Admin API. The fuzz
//! targets and the runs of their seeds call the same functions, which panic where it does not.

mod answers;
mod declarative;

use std::sync::Arc;

use serde_json::Value;

use crate::{Certificate, Entities};

pub use answers::admin_answers;
pub use declarative::declarative_file;

/// Whatever one entity refers to is there, and is found under its names.
fn consistent(entities: &Entities) {
    let (services, routes) = (entities.services.len(), entities.routes.len());
    assert!(entities.routes.iter().filter_map(|route| route.service).all(|service| service < services));
    let scopes = || entities.plugins.iter().map(|plugin| plugin.scope);
    assert!(scopes().filter_map(|scope| scope.service).all(|service| service < services));
    assert!(scopes().filter_map(|scope| scope.route).all(|route| route < routes));
    let is_there =
        |named: &Arc<Certificate>| entities.certificates.iter().any(|found| Arc::ptr_eq(found, named));
    assert!(entities.snis.values().all(is_there));

    let consumers = &entities.consumers;
    assert_eq!(entities.consumer_by_id.len(), consumers.len());
    for consumer in consumers {
        let is_it = |found: Option<&Arc<_>>| found.is_some_and(|found| Arc::ptr_eq(found, consumer));
        assert!(is_it(entities.consumer_by_id(&consumer.id)));
        assert!(consumer.username.as_ref().is_none_or(|name| is_it(entities.consumer_by_username(name))));
        assert!(consumer.custom_id.as_ref().is_none_or(|id| is_it(entities.consumer_by_custom_id(id))));
    }
    let by_name = consumers.iter().filter(|consumer| consumer.username.is_some()).count();
    let by_custom_id = consumers.iter().filter(|consumer| consumer.custom_id.is_some()).count();
    assert_eq!(entities.consumer_by_username.len(), by_name);
    assert_eq!(entities.consumer_by_custom_id.len(), by_custom_id);
    for (subject_name, mapping) in entities.mappings.each() {
        assert!(!subject_name.is_empty() && mapping.subject_name == *subject_name);
        assert!(consumers.iter().any(|consumer| Arc::ptr_eq(consumer, &mapping.consumer)));
        let ca = mapping.ca_certificate.as_ref();
        assert!(ca.is_none_or(|id| entities.ca_certificates.contains_key(id)));
    }
}

/// The list that an entity has under this name; an empty one where it has none.
fn list<'a>(of: &'a Value, name: &str) -> &'a [Value] {
    of[name].as_array().map_or(&[], Vec::as_slice)
}

/// The values of a field in all of these.
fn all<'a>(of: &'a [Value], name: &'static str) -> impl Iterator<Item = &'a Value> {
    of.iter().flat_map(move |of| list(of, name))
}

/// The texts in PEM of private keys in these certificates that stand nowhere else in this text. A fuzzer would also take words of
/// ours for a key.
fn private_keys<'a>(certificates: &'a [Value], text: &'a str) -> impl Iterator<Item = &'a str> {
    let keys = certificates.iter().flat_map(|certificate| [&certificate["key"], &certificate["key_alt"]]);
    keys.filter_map(Value::as_str)
        .filter(|key| key.starts_with("-----BEGIN ") && text.matches(key).count() == 1)
}

#[cfg(test)]
#[path = "../../../fuzz/replay.rs"]
mod replay;

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::*;

    fn folder(target: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target)
    }

    #[test]
    fn what_must_hold_does_for_declarative_files_and_their_mutations() {
        replay::replay(&folder("declarative_file"), 2000, declarative_file);
    }

    #[test]
    fn what_must_hold_does_for_answers_of_an_admin_api_and_their_mutations() {
        replay::replay(&folder("admin_answers"), 2000, admin_answers);
    }

    #[test]
    fn seeds_are_read_as_configurations_or_not() {
        let seed = |target: &str, name: &str| std::fs::read_to_string(folder(target).join(name)).unwrap();
        for (name, plugins) in [
            ("configuration", Some(2)),
            ("configuration-in-pages", Some(2)),
            ("configuration-without-hash", Some(1)),
            ("no-status", Some(1)),
            ("one-twice", Some(2)),
            ("no-configuration", None),
            ("configuration-changes", Some(1)),
            ("refers-to-nothing", None),
            ("circle", None),
            ("next-without-offset", None),
            ("certificate-of-another-form", None),
        ] {
            let read = answers::configuration(&seed("admin_answers", name));
            assert_eq!(read.map(|read| read.plugins.len()), plugins, "{name}");
        }
        for (name, plugins) in [
            ("nested.yaml", Some(6)),
            ("aliases.yaml", Some(2)),
            ("merge-keys.yaml", Some(2)),
            ("mappings.yaml", Some(0)),
            ("certificates.yaml", Some(0)),
            ("key-of-another-type.yaml", None),
            ("aliases-of-aliases.yaml", Some(1)),
            ("key-twice.yaml", None),
            ("two-documents.yaml", None),
        ] {
            let read = crate::parse_yaml(&seed("declarative_file", name)).ok();
            assert_eq!(read.map(|read| read.plugins.len()), plugins, "{name}");
        }
        let read = crate::parse_json(&seed("declarative_file", "nested.json")).unwrap();
        assert_eq!(read.plugins.len(), 5);
    }
}
