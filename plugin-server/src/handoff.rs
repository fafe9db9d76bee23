//! This knows how to find the hand-off of `tls-shim` among the headers of a request, and which headers a client may
//! not have set.

use std::time::SystemTime;

use client_cert::field::{self, CLIENT_CERT, CLIENT_CERT_CHAIN, CLIENT_CERT_PROOF};
use client_cert::{Presented, Proof, ProofError, ProofKey};

use crate::pdk::{Headers, MAX_HEADERS};
use crate::reason::{Reason, Refusal};

/// The certificates that our shim says the client presented, and whose key the client has.
///
/// # Errors
/// [`Reason::NoCertificate`] only where nothing of a hand-off is there at all: a presented but bad one is not none.
pub(crate) fn presented(headers: &Headers, key: &ProofKey, now: SystemTime) -> Result<Presented, Refusal> {
    let leaf = only_value(headers, CLIENT_CERT)?;
    let chain = only_value(headers, CLIENT_CERT_CHAIN)?;
    let proof = only_value(headers, CLIENT_CERT_PROOF)?;
    let (leaf, proof) = match (leaf, proof) {
        (Some(leaf), Some(proof)) => (leaf, proof),
        (Some(_), None) => return Err(Reason::ProofMissing.into()),
        (None, None) if chain.is_none() => return Err(Reason::NoCertificate.into()),
        (None, _) => return Err(Refusal::with(Reason::Malformed, format_args!("{CLIENT_CERT} is missing"))),
    };
    let presented =
        Presented::from_headers(leaf, chain).map_err(|problem| Refusal::with(Reason::Malformed, problem))?;
    match Proof::check(key, &presented, proof, now) {
        Ok(_) => Ok(presented),
        Err(problem @ (ProofError::Malformed | ProofError::Mismatch)) => {
            Err(Refusal::with(Reason::ProofInvalid, problem))
        }
        Err(problem @ (ProofError::Expired | ProofError::FromTheFuture)) => {
            Err(Refusal::with(Reason::ProofExpired, problem))
        }
    }
}

/// The value of a header that our shim sends once and in one spelling. Anything else was written by somebody else.
fn only_value<'a>(headers: &'a Headers, wanted: &str) -> Result<Option<&'a [u8]>, Refusal> {
    let mut found = None;
    for (name, values) in headers.iter().filter(|(name, _)| field::spells(name, wanted)) {
        match values.as_slice() {
            [value] if found.is_none() && name == wanted.as_bytes() => found = Some(value.as_slice()),
            _ => {
                let problem = format_args!("{wanted} stands twice or in another spelling");
                return Err(Refusal::with(Reason::Malformed, problem));
            }
        }
    }
    Ok(found)
}

/// Whether Kong may have left headers out: among those could be one that must not go on to the upstream.
pub(crate) fn may_be_incomplete(headers: &Headers) -> bool {
    headers.iter().map(|(_, values)| values.len().max(1)).sum::<usize>() >= MAX_HEADERS
}

/// What to change in the request: sets `identity`, and removes every spelling of what a client must not set or an
/// upstream must not see, which `also` adds folded names to.
pub(crate) fn upstream_headers(
    headers: &Headers,
    identity: Vec<(String, String)>,
    also: &[String],
) -> Vec<(String, Option<String>)> {
    let is_set = |name: &str| identity.iter().any(|(set, _)| set.eq_ignore_ascii_case(name));
    let mut changes = removed(headers, |name| {
        field::spells_any(name, &field::HANDOFF)
            || field::spells_any(name, &field::IDENTITY)
            || field::spells_any(name, also)
    });
    changes.retain(|(name, _)| !is_set(name));
    changes.extend(identity.into_iter().map(|(name, value)| (name, Some(value))));
    changes
}

/// What to remove where an earlier plugin has authenticated the request. The headers that it set stay; Kong writes them
/// with hyphens only, so the other spellings are a client's. What `also` names is ours alone to set.
pub(crate) fn foreign_headers(headers: &Headers, also: &[String]) -> Vec<(String, Option<String>)> {
    removed(headers, |name| {
        field::spells_any(name, &field::HANDOFF)
            || name.contains(&b'_') && field::spells_any(name, &field::IDENTITY)
            || field::spells_any(name, also)
    })
}

fn removed(headers: &Headers, unwanted: impl Fn(&[u8]) -> bool) -> Vec<(String, Option<String>)> {
    headers
        .iter()
        .filter(|(name, _)| unwanted(name))
        // What spells one of ours is ASCII.
        .filter_map(|(name, _)| Some((String::from_utf8(name.clone()).ok()?, None)))
        .collect()
}
