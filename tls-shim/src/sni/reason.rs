//! This knows why a name is asked, and how people are told.

use std::fmt;
use std::sync::Arc;

use super::expression::Open;

/// Why a name is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// A plugin that applies to everything.
    Global,
    /// A plugin that applies to this route.
    Route(Cause),
    /// A plugin that applies to this service, which has the route.
    Service(Arc<str>, Cause),
}

/// What a route says about server names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cause {
    pub(super) route: Arc<str>,
    pub(super) names: Names,
}

/// How a route says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Names {
    Listed,
    Missing,
    Undecidable(String),
    /// By this test in its expression.
    Expression(Arc<str>),
    /// Its expression says nothing certain about it.
    OpenExpression(Open),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Global => write!(f, "global plugin"),
            Self::Route(cause) => write!(f, "plugin on route {cause}"),
            Self::Service(service, cause) => write!(f, "plugin on service {service}, route {cause}"),
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { route, names } = self;
        match names {
            Names::Listed => write!(f, "{route}"),
            Names::Missing => write!(f, "{route}, which names no SNI"),
            Names::Undecidable(sni) => write!(f, "{route}, whose SNI {sni:?} cannot be decided"),
            Names::Expression(test) => write!(f, "{route}, whose expression has {test}"),
            Names::OpenExpression(open) => write!(f, "{route}, whose expression {open}"),
        }
    }
}

impl fmt::Display for Open {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(byte) => write!(f, "cannot be read from byte {byte} on"),
            Self::Untested => write!(f, "can match without a test of tls.sni"),
            Self::Undecidable(test) => write!(f, "can match by {test}, for which no list of names stands"),
            Self::Negated => write!(f, "can match by what it negates"),
        }
    }
}
