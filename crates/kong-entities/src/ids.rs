//! This knows the ids that Kong gives to entities of a declarative file that have none.
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
