//! This knows how a look-up at Kong can fail.

use std::time::Duration;

/// A look-up that has no answer: neither an entity nor the knowledge that there is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{url}: {fault}")]
pub struct SourceError {
    /// What was asked, for people to read: cut where it is long.
    pub url: String,
    /// What happened.
    pub fault: SourceFault,
}

/// What happened to a look-up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SourceFault {
    /// No connection, no TLS, or the connection broke.
    #[error("unreachable: {0}")]
    Unreachable(String),
    /// The whole answer took longer than this.
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    /// 401 or 403: the token is missing or wrong.
    #[error("refused with status {0}: is the token right?")]
    Refused(u16),
    /// A status that is no answer to what was asked. Redirects are among them: a token goes to nobody but the
    /// configured server.
    #[error("unexpected status {0}")]
    Status(u16),
    /// An answer that is not what Kong answers, or is about another entity than was asked for.
    #[error("not an answer of Kong's Admin API: {0}")]
    Malformed(String),
    /// Kong runs without a database and has no configuration, as after a restart until somebody gives it one. To believe
    /// that there is nothing would unprotect everything that was there before.
    #[error("Kong has no configuration, or an empty one")]
    NoConfiguration,
    /// What Kong lists does not fit together, however often it is read.
    #[error("its configuration cannot be read as a whole: {0}")]
    Unsettled(String),
    /// The look-up ended without a result, by a fault of ours.
    #[error("the look-up was broken off")]
    BrokenOff,
}

impl SourceError {
    /// Whether Kong is away or overloaded, so that the same question may be answered later with nothing changed: the
    /// 503 among our faults, where all others are a 500.
    pub fn is_outage(&self) -> bool {
        match self.fault {
            SourceFault::Unreachable(_)
            | SourceFault::TimedOut(_)
            | SourceFault::NoConfiguration
            | SourceFault::Unsettled(_) => true,
            SourceFault::Status(status) => matches!(status, 429 | 500 | 502 | 503 | 504),
            SourceFault::Refused(_) | SourceFault::Malformed(_) | SourceFault::BrokenOff => false,
        }
    }
}
