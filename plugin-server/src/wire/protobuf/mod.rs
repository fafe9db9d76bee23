//! ProtoBuf:1, Kong's other protocol for plugin servers (`kong-plugin-protocol.md`): length-prefixed frames, each of
//! them one Protocol Buffers message, and a whole event on one connection.

pub(crate) mod fields;
pub(crate) mod frame;
pub(crate) mod messages;
pub(crate) mod pdk;

/// Why a connection cannot be read on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WireError {
    #[error("the connection failed: {0}")]
    Io(#[from] std::io::Error),
    #[error(transparent)]
    TooLong(#[from] frame::TooLong),
    #[error("not a call: {0}")]
    NotACall(#[from] prost::DecodeError),
    #[error("not a call: it has no command that is known here")]
    NoCommand,
    #[error("this server has no plugin {0:?}")]
    NoSuchPlugin(String),
    #[error("it ends in the middle of a frame")]
    Truncated,
    #[error("Kong closed it in the middle of an event")]
    EventAbandoned,
}
