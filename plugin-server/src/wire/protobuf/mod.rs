//! ProtoBuf:1, Kong's other protocol for plugin servers (`kong-plugin-protocol.md`): length-prefixed frames, each of
//! them one Protocol Buffers message, and a whole event on one connection.

pub(crate) mod fields;
pub(crate) mod frame;
pub(crate) mod messages;
pub(crate) mod pdk;
