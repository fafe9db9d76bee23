//! This knows how one map is told from another: by what stands in it, so that shims that read the same configuration,
//! and one that is started again, have the same.
//!
//! It does not depend on the order of things, which the Admin API and the declarative file give in their own way.

use std::collections::HashMap;

use kong_entities::{Entities, Plugin};
use sha2::{Digest, Sha256};

use super::Row;

/// The digest of a map.
pub(super) type Generation = [u8; 32];

/// The digest of all rows, each with the plugins that it comes from. `plugins` are those that [`Row::plugins`] counts.
pub(super) fn of(rows: &HashMap<String, Row>, plugins: &[Generation]) -> Generation {
    let row = |(key, row): (&String, &Row)| {
        let plugins = row.plugins.iter().map(|&plugin| plugins[plugin]).collect();
        digest(b"row", &[key.as_bytes(), &together(plugins)])
    };
    together(rows.iter().map(row).collect())
}

/// The digest of a plugin: its configuration, and the CA certificates that it refers to, as they are now.
pub(super) fn of_plugin(entities: &Entities, plugin: &Plugin) -> Generation {
    let config = plugin.config.to_string();
    let entries = plugin.config["ca_certificates"].as_array().map(Vec::as_slice).unwrap_or_default();
    let cas = entries.iter().filter_map(|entry| entry.as_str()).map(|entry| {
        let ca = entities.ca_certificates.get(&entry.to_ascii_lowercase());
        digest(b"ca", &[entry.as_bytes(), ca.map_or(&[], |ca| ca.cert.as_bytes())])
    });
    digest(b"plugin", &[config.as_bytes(), &together(cas.collect())])
}

/// The digest of some, in whatever order.
fn together(mut digests: Vec<Generation>) -> Generation {
    digests.sort_unstable();
    digest(b"set", &[digests.as_flattened()])
}

fn digest(kind: &[u8], parts: &[&[u8]]) -> Generation {
    let mut digest = Sha256::new();
    for part in [kind].iter().chain(parts) {
        // Its length tells where a part ends.
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part);
    }
    digest.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::super::policy;
    use super::Generation;

    const MAP: &str = "
ca_certificates:
- {id: 6f1d39a0-9b0e-4c0e-8d4c-0a8f0f7f0001, cert: one}
- {id: 6f1d39a0-9b0e-4c0e-8d4c-0a8f0f7f0002, cert: two}
routes:
- name: a
  snis: [a.example, x.example]
  plugins: [{name: mtls-auth, config: {ca_certificates: [6f1d39a0-9b0e-4c0e-8d4c-0a8f0f7f0001], anonymous: 'guest'}}]
- name: b
  snis: [b.example]
  plugins: [{name: mtls-auth, config: {ca_certificates: [6f1d39a0-9b0e-4c0e-8d4c-0a8f0f7f0002]}}, {name: acl}]
";

    fn generation(yaml: &str) -> Generation {
        *policy(&kong_entities::parse_yaml(&format!("_format_version: '3.0'\n{yaml}")).unwrap()).generation()
    }

    #[test]
    fn what_decides_about_clients_makes_another_generation() {
        let original = generation(MAP);
        for (from, to) in [
            ("cert: one", "cert: other"),
            ("anonymous: 'guest'", "anonymous: other"),
            ("snis: [b.example]", "snis: [c.example]"),
            ("snis: [b.example]", "snis: [b.example, c.example]"),
            ("snis: [b.example]", "snis: []"),
            ("snis: [a.example, x.example]", "snis: [a.example]"),
            ("0002]}}, {name: acl}]", "0001]}}, {name: acl}]"),
            ("0002]}}, {name: acl}]", "0002]}, enabled: false}, {name: acl}]"),
            ("0002]}}, {name: acl}]", "0002], send_ca_dn: true}}, {name: acl}]"),
            // The same rows and the same plugins, but which comes from which.
            ("snis: [a.example, x.example]", "snis: [b.example]"),
        ] {
            let other = MAP.replacen(from, to, 1);
            assert_ne!(other, MAP);
            assert_ne!(generation(&other), original, "{to}");
        }
        let swapped =
            MAP.replace("a.example, x.example", "y.example").replace("b.example", "a.example, x.example");
        assert_ne!(generation(&swapped.replace("y.example", "b.example")), original);
    }

    #[test]
    fn what_does_not_decide_about_clients_makes_none() {
        let original = generation(MAP);
        for (from, to) in [
            ("anonymous: 'guest'", "anonymous: guest"),
            ("{name: acl}", "{name: cors}"),
            ("[a.example, x.example]", "[X.example, a.example.]"),
            ("- name: a\n", "- name: z\n"),
            (
                "- {id: 6f1d39a0-9b0e-4c0e-8d4c-0a8f0f7f0001, cert: one}\n- {id: 6f1d39a0-9b0e-4c0e-8d4c-0a8f0f7f0002, cert: two}",
                "- {id: 6f1d39a0-9b0e-4c0e-8d4c-0a8f0f7f0002, cert: two}\n- {id: 6f1d39a0-9b0e-4c0e-8d4c-0a8f0f7f0001, cert: one}",
            ),
            ("- name: b\n", "- {name: open, snis: [open.example]}\n- name: b\n"),
        ] {
            let same = MAP.replacen(from, to, 1);
            assert_ne!(same, MAP);
            assert_eq!(generation(&same), original, "{to}");
        }
        let (head, b) = MAP.split_once("- name: b").unwrap();
        let (head, a) = head.split_once("- name: a").unwrap();
        assert_eq!(generation(&format!("{head}- name: b{b}- name: a{a}")), original);
    }

    #[test]
    fn nobody_asked_and_nothing_known_are_generations_of_their_own() {
        let nobody = generation("routes: []");
        let unknown = *policy(&kong_entities::Entities::unknown()).generation();
        assert_ne!(nobody, unknown);
        assert_ne!(nobody, generation(MAP));
    }
}
