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
    Error {
        /// Where in Kong's Lua; none while it is that of whoever calls the PDK.
        place: Option<&'static str>,
        text: String,
    },
}

impl Stop {
    pub(crate) fn throw(place: &'static str, text: &str) -> Self {
        Self::Error { place: Some(place), text: text.into() }
    }

    /// The same, thrown there if it has no place yet.
    pub(crate) fn at(self, caller: &'static str) -> Self {
        match self {
            Self::Error { place: None, text } => Self::throw(caller, &text),
            other => other,
        }
    }
}

/// A PDK function calls `error()`, which blames its caller.
impl From<String> for Stop {
    fn from(text: String) -> Self {
        Self::Error { place: None, text }
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
