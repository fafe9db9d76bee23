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
