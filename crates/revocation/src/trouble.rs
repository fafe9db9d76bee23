//! This knows why there is no answer about a certificate, or none that counts.

use std::time::Duration;

/// Why there is no answer about a certificate, or none that counts. It is never an answer itself, and never remembered as one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// The URL is none that may be asked: its scheme, or where it leads (`attacks-and-faults.md`, SSRF).
    #[error("{0}")]
    UrlRefused(String),
    /// There is no way to the server, or it broke off.
    #[error("it cannot be reached: {0}")]
    Unreachable(String),
    /// It did not answer in time.
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    /// It failed a few times in a row, and is left alone for a while.
    #[error("it has failed {0} times in a row, and is left alone for a while")]
    LeftAlone(u32),
    /// It answered with another status than 200.
    #[error("it answered with status {0}")]
    HttpStatus(u16),
    /// The answer is longer than it may be, in bytes.
    #[error("the answer is longer than {0} bytes")]
    TooLong(usize),
    /// The answer is not what it should be.
    #[error("the answer cannot be read: {0}")]
    Malformed(String),
    /// The responder says that it cannot answer (RFC 6960, section 4.2.1: `tryLater` and others).
    #[error("the responder says {0}")]
    NotSuccessful(&'static str),
    /// The signature is not that of whoever signed.
    #[error("the signature is wrong")]
    BadSignature,
    /// Whoever signed may not say so.
    #[error("the signer may not say so: {0}")]
    WrongSigner(&'static str),
    /// The answer is about another certificate, or was made for another question.
    #[error("the answer is about something else: {0}")]
    SomethingElse(&'static str),
    /// The answer's time is over.
    #[error("the answer is too old")]
    Stale,
    /// The answer's time has not begun.
    #[error("the answer is from the future")]
    FromTheFuture,
    /// What there is does not say anything about this certificate.
    #[error("it does not cover the certificate: {0}")]
    NotCovered(&'static str),
}

impl Trouble {
    /// All codes that there are.
    pub const CODES: [&str; 14] = [
        "url_refused",
        "unreachable",
        "timed_out",
        "left_alone",
        "http_status",
        "too_long",
        "malformed",
        "not_successful",
        "bad_signature",
        "wrong_signer",
        "something_else",
        "stale",
        "from_the_future",
        "not_covered",
    ];

    /// The code in logs and metrics.
    pub fn code(&self) -> &'static str {
        match self {
            Self::UrlRefused(_) => "url_refused",
            Self::Unreachable(_) => "unreachable",
            Self::TimedOut(_) => "timed_out",
            Self::LeftAlone(_) => "left_alone",
            Self::HttpStatus(_) => "http_status",
            Self::TooLong(_) => "too_long",
            Self::Malformed(_) => "malformed",
            Self::NotSuccessful(_) => "not_successful",
            Self::BadSignature => "bad_signature",
            Self::WrongSigner(_) => "wrong_signer",
            Self::SomethingElse(_) => "something_else",
            Self::Stale => "stale",
            Self::FromTheFuture => "from_the_future",
            Self::NotCovered(_) => "not_covered",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is not in the list would not be counted.
    #[test]
    fn each_code_is_in_the_list() {
        let all = [
            Trouble::UrlRefused(String::new()),
            Trouble::Unreachable(String::new()),
            Trouble::TimedOut(Duration::ZERO),
            Trouble::LeftAlone(3),
            Trouble::HttpStatus(500),
            Trouble::TooLong(1),
            Trouble::Malformed(String::new()),
            Trouble::NotSuccessful(""),
            Trouble::BadSignature,
            Trouble::WrongSigner(""),
            Trouble::SomethingElse(""),
            Trouble::Stale,
            Trouble::FromTheFuture,
            Trouble::NotCovered(""),
        ];
        assert_eq!(all.map(|trouble| trouble.code()), Trouble::CODES);
    }
}
