//! This knows the two protocols that Kong has for plugin servers, by their names.

use serde_json::Value as Json;

/// A protocol, as the plugin server's `-dump` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// `MsgPack:1`: MessagePack-RPC, each PDK call a call of its own on any connection.
    MsgPack,
    /// `ProtoBuf:1`: frames of Protocol Buffers, an event on one connection.
    ProtoBuf,
}

impl Protocol {
    /// Both.
    pub const ALL: [Self; 2] = [Self::MsgPack, Self::ProtoBuf];

    /// As `-dump` and Kong write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::MsgPack => "MsgPack:1",
            Self::ProtoBuf => "ProtoBuf:1",
        }
    }

    /// The protocol that a plugin server asks for in its `-dump`.
    pub(crate) fn of_plugin_info(info: &Json) -> Option<Self> {
        Self::ALL.into_iter().find(|protocol| info["Protocol"] == protocol.name())
    }
}
