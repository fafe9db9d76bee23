//! This knows the phases in which a plugin runs and how a PDK call can end its run.

use crate::headers::Given;

/// A phase in which plugins of external servers run. (`rewrite`, `certificate` and those of stream routes
/// are not part of the double.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Access,
    Response,
    Log,
}

impl Phase {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Access => "access",
            Self::Response => "response",
            Self::Log => "log",
        }
    }
}

/// How a PDK call ends a plugin's run.
#[derive(Debug)]
pub(crate) enum Stop {
    /// `kong.response.exit` or `.error`: this goes to the client.
    Exit(Exit),
    /// A Lua error: the client gets a 500.
    Error(String),
}

impl Stop {
    pub(crate) fn throw(place: &str, text: &str) -> Self {
        Self::Error(format!("{place}: {text}"))
    }
}

/// A PDK function calls `error()`.
impl From<String> for Stop {
    fn from(text: String) -> Self {
        Self::throw("mp_rpc.lua:127", &text)
    }
}

/// A response that a plugin gives.
#[derive(Debug)]
pub(crate) struct Exit {
    pub(crate) status: u16,
    pub(crate) headers: Given,
    pub(crate) body: Vec<u8>,
    pub(crate) content_type: Option<&'static str>,
}
