//! This knows OCSP (RFC 6960): what to ask about a certificate, and what to believe of the answer. Without I/O.
//!
//! A response is taken apart by hand (`response.rs`): the signature is over bytes as they came, each form has one reading,
//! and whatever is not known is refused. The crate for it, `x509-ocsp`, would bring a second model of certificates beside
//! `x509-parser`'s, and give the signed bytes only as it writes them anew.

mod cert_id;
mod response;
mod signer;

use std::time::{Duration, SystemTime};

use self::response::{Entry, NONCE, Response};
use crate::der::{self, OBJECT_IDENTIFIER, OCTET_STRING, SEQUENCE, context};
use crate::{Answer, CLOCK_SKEW, Link, Status, Trouble};

/// The most bytes that a response may have.
pub const MAX_RESPONSE: usize = 64 * 1024;

/// The media type of a request (RFC 6960, appendix C.1).
pub const REQUEST_TYPE: &str = "application/ocsp-request";

/// How long a status counts at most where the responder does not say when there will be a newer one, which is to say that
/// there is one at all times (RFC 6960, section 4.2.2.1). Otherwise such an answer could be shown for ever.
pub const MAX_AGE_WITHOUT_NEXT_UPDATE: Duration = Duration::from_secs(3600);

/// A question about one certificate.
#[derive(Clone, Debug)]
pub struct Question {
    der: Vec<u8>,
    /// The value of the nonce extension.
    nonce: Option<Vec<u8>>,
}

impl Question {
    /// Asks about a certificate, with a nonce where one is given (RFC 9654).
    pub fn about(link: &Link, nonce: Option<[u8; 32]>) -> Self {
        let nonce = nonce.map(|nonce| der::write(OCTET_STRING, &[&nonce]));
        let request = der::write(SEQUENCE, &[&cert_id::write(link)]);
        let list = der::write(SEQUENCE, &[&request]);
        let extensions = nonce.as_ref().map(|nonce| {
            let oid = der::write(OBJECT_IDENTIFIER, &[NONCE]);
            let extension = der::write(SEQUENCE, &[&oid, &der::write(OCTET_STRING, &[nonce])]);
            der::write(context(2), &[&der::write(SEQUENCE, &[&extension])])
        });
        let tbs = der::write(SEQUENCE, &[&list, &extensions.unwrap_or_default()]);
        Self { der: der::write(SEQUENCE, &[&tbs]), nonce }
    }

    /// The request, in DER: the body of a POST.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// The URL of a GET (RFC 6960, appendix A.1).
    pub fn url(&self, responder: &str) -> String {
        let mut url = responder.trim_end_matches('/').to_owned();
        url.push('/');
        for character in openssl::base64::encode_block(&self.der).chars() {
            match character {
                '+' => url.push_str("%2B"),
                '/' => url.push_str("%2F"),
                '=' => url.push_str("%3D"),
                other => url.push(other),
            }
        }
        url
    }

    /// What a response says of the certificate at this time. `link` is the one that the question is about.
    ///
    /// # Errors
    /// Nothing that counts, and why.
    pub fn read(&self, response: &[u8], link: &Link, now: SystemTime) -> Result<Answer, Trouble> {
        if response.len() > MAX_RESPONSE {
            return Err(Trouble::TooLong(MAX_RESPONSE));
        }
        let response = Response::read(response)?;
        signer::verify(&response, &link.issuer, now)?;
        // Whoever does not know nonces leaves it out (RFC 6960, section 4.4.1); another one is the answer to another question.
        if response.nonce.is_some() && response.nonce != self.nonce.as_deref() {
            return Err(Trouble::SomethingElse("its nonce is not the one that was sent"));
        }
        if response.produced_at > now + CLOCK_SKEW {
            return Err(Trouble::FromTheFuture);
        }
        worst(&response.entries, link, now)
    }
}

/// What the entries about this certificate say. Where they contradict each other, "revoked" wins, and "good" counts only
/// where nothing else is said.
fn worst(entries: &[Entry<'_>], link: &Link, now: SystemTime) -> Result<Answer, Trouble> {
    let weight = |said: &Result<Answer, Trouble>| match said {
        Ok(Answer { status: Status::Good, .. }) => 0,
        Ok(Answer { status: Status::Unknown, .. }) => 1,
        Err(_) => 2,
        Ok(Answer { status: Status::Revoked { .. }, .. }) => 3,
    };
    entries
        .iter()
        .filter(|entry| entry.id.is(link))
        .map(|entry| in_time(entry.answer, now))
        .max_by_key(weight)
        .unwrap_or(Err(Trouble::SomethingElse("no entry is about this certificate")))
}

/// An answer, if this is its time (RFC 6960, section 4.2.2.1).
fn in_time(answer: Answer, now: SystemTime) -> Result<Answer, Trouble> {
    if answer.this_update > now + CLOCK_SKEW {
        return Err(Trouble::FromTheFuture);
    }
    let end = match (answer.next_update, answer.status) {
        (Some(next), _) => next,
        // Nothing newer makes it good again.
        (None, Status::Revoked { .. }) => return Ok(answer),
        (None, Status::Good | Status::Unknown) => answer.this_update + MAX_AGE_WITHOUT_NEXT_UPDATE,
    };
    if end + CLOCK_SKEW < now { Err(Trouble::Stale) } else { Ok(answer) }
}
