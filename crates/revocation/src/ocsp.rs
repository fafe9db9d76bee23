//! This knows OCSP (RFC 6960): what to ask about a certificate, and what to believe of the answer. Without I/O.

use std::time::SystemTime;

use crate::{Answer, Link, Trouble};

/// The most bytes that a response may have.
pub const MAX_RESPONSE: usize = 64 * 1024;

/// A question about one certificate.
#[derive(Clone, Debug)]
pub struct Question {
    der: Vec<u8>,
}

impl Question {
    /// Asks about a certificate, with a nonce where one is given (RFC 9654).
    pub fn about(_link: &Link, _nonce: Option<[u8; 32]>) -> Self {
        todo!()
    }

    /// The request, in DER: the body of a POST.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// The URL of a GET (RFC 6960, appendix A.1).
    pub fn url(&self, _responder: &str) -> String {
        todo!()
    }

    /// What a response says of the certificate at this time.
    ///
    /// # Errors
    /// Nothing that counts, and why.
    pub fn read(&self, _response: &[u8], _link: &Link, _now: SystemTime) -> Result<Answer, Trouble> {
        todo!()
    }
}
