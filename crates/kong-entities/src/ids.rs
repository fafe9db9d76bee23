//! This knows ids of entities: their form, and those that Kong gives to entities of a declarative file that have none.
//!
//! Kong derives them from what names the entity, so that every node and every reload gives the same id. The plugin
//! has to derive the same ones: they go into `X-Consumer-ID`.

use uuid::{Uuid, uuid};

/// The namespace that Kong derives all such ids from.
const ENTITIES: Uuid = uuid!("fd02801f-0957-4a15-a55a-c8d9606f30b5");

/// The id of a consumer that is declared with a username and without an id.
pub(crate) fn consumer_id(username: &str) -> String {
    let consumers = Uuid::new_v5(&ENTITIES, b"consumers");
    Uuid::new_v5(&consumers, username.as_bytes()).to_string()
}

/// The id of a manual mapping that is declared without one. Kong has no such entity, so this is ours to choose; the CA
/// stands first because its id holds no colon, so that no subject name reads like another's with a CA.
pub(crate) fn mapping_id(subject_name: &str, ca_certificate: Option<&str>) -> String {
    let mappings = Uuid::new_v5(&ENTITIES, b"mtls_auth_credentials");
    let key = format!("{}:{subject_name}", ca_certificate.unwrap_or_default());
    Uuid::new_v5(&mappings, key.as_bytes()).to_string()
}

/// Whether Kong takes a text for an id: a UUID with its hyphens, in any case, of any version.
pub(crate) fn is_id(text: &str) -> bool {
    const HYPHENS: [usize; 4] = [8, 13, 18, 23];
    text.len() == 36
        && text.bytes().enumerate().all(|(position, byte)| {
            if HYPHENS.contains(&position) { byte == b'-' } else { byte.is_ascii_hexdigit() }
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_kong_takes_for_an_id_is_one() {
        for id in ["11111111-1111-4111-8111-111111111111", "FFFFFFFF-ffff-0000-0000-abcdefABCDEF"] {
            assert!(is_id(id), "{id}");
        }
        for other in [
            "",
            "alice",
            "11111111111141118111111111111111",
            "{1111111-1111-4111-8111-11111111111}",
            "1111111--1111-4111-8111-111111111111",
            "g1111111-1111-4111-8111-111111111111",
            "11111111-1111-4111-8111-111111111111 ",
        ] {
            assert!(!is_id(other), "{other}");
        }
    }
}
