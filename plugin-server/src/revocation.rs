//! This knows what comes of a certificate that may have been revoked. Only here can a [`Cleared`] be made.

pub(crate) mod watched;

use std::ops::Deref;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use openssl::asn1::Asn1Time;
use revocation::{Checker, Finding, Link, Said, Standing, Terms};
use tokio::time::Instant;

use crate::config::RevocationMode;
use crate::reason::{Reason, Refusal};
use crate::step::step;
use crate::verify::{ReadLink, Verified};

/// Who is asked.
pub(crate) enum Revocation {
    /// Whoever can say it.
    Checked(Checker),
    /// Nobody, for no request is decided: `mtls-auth explain` without `--online`.
    Untold,
}

/// A verified certificate whose revocation has been asked about as its instance wants it: nothing maps to a consumer, or
/// to a group, without one.
#[derive(Debug)]
pub(crate) struct Cleared(Arc<Verified>);

impl Deref for Cleared {
    type Target = Verified;

    fn deref(&self) -> &Verified {
        &self.0
    }
}

/// Asks, for as long as `deadline` allows, and decides. What is to be said in Kong's log of a certificate that passes
/// though nobody vouches for it comes beside it.
///
/// # Errors
/// The certificate has been revoked, or nobody says that it has not been.
pub(crate) async fn clear(
    revocation: &Revocation,
    verified: Arc<Verified>,
    mode: RevocationMode,
    terms: &Terms,
    deadline: Instant,
) -> Result<(Cleared, Option<Refusal>), Refusal> {
    if mode == RevocationMode::Skip {
        step!("revocation", "not asked about: revocation_check_mode is SKIP");
        return Ok((Cleared(verified), None));
    }
    let checker = match revocation {
        Revocation::Checked(checker) => checker,
        Revocation::Untold => {
            for (position, link) in verified.links().iter().enumerate() {
                step!("revocation", "{}: {}; asked with --online only", called(position), sources(link));
            }
            return Ok((Cleared(verified), None));
        }
    };
    let found = find(checker, verified.links(), terms, deadline).await;
    for (position, found) in found.iter().enumerate() {
        tell(position, found);
    }
    match rule(mode, &found) {
        Ruling::Pass => Ok((Cleared(verified), None)),
        Ruling::PassWith(notice) => Ok((Cleared(verified), Some(notice))),
        Ruling::Refuse(refusal) => Err(refusal),
    }
}

/// What was found out about a certificate, or why nobody knows where to ask.
type Found = Result<Finding, String>;

async fn find(checker: &Checker, links: &[ReadLink], terms: &Terms, deadline: Instant) -> Vec<Found> {
    let readable: Vec<&Arc<Link>> = links.iter().filter_map(|link| link.as_ref().ok()).collect();
    let mut findings = checker.check(&readable, terms, deadline).await.into_iter();
    // A certificate of which nothing was found out has no answer: `rule` refuses it where one is needed.
    let found = links.iter().map(|link| match link {
        Ok(_) => Ok(findings.next().unwrap_or_default()),
        Err(problem) => Err(problem.clone()),
    });
    found.collect()
}

/// What is decided.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Ruling {
    Pass,
    /// It passes, and Kong's log says what is not known.
    PassWith(Refusal),
    Refuse(Refusal),
}

/// The decision, by the mode and what was found out about each certificate of the chain, the leaf first
/// (`mtls-auth.md`, `revocation_check_mode`). The anchor is not among them: it is trusted because it is configured.
fn rule(mode: RevocationMode, found: &[Found]) -> Ruling {
    if mode == RevocationMode::Skip {
        return Ruling::Pass;
    }
    let standings = || found.iter().enumerate().map(|(position, found)| (position, found, standing(found)));
    for (position, _, standing) in standings() {
        if let Some(Standing::Revoked(said, since)) = standing {
            let Said { source, place, .. } = said;
            let since = since.map(|since| format!(" since {}", date(since))).unwrap_or_default();
            let detail = format!("{} is revoked{since}, says {} {place:?}", called(position), source.name());
            return Ruling::Refuse(Refusal::with(Reason::Revoked, detail));
        }
    }
    let is_known = |(position, _, standing): &(usize, _, _)| match standing {
        Some(Standing::Good) => true,
        // Many CAs have neither OCSP nor CRLs for their intermediates; a leaf without any cannot be vouched for.
        Some(Standing::NoSource) => *position > 0 || mode == RevocationMode::IgnoreCaError,
        Some(Standing::Open | Standing::Revoked(..)) | None => false,
    };
    let mut unknown: Vec<String> = standings()
        .filter(|entry| !is_known(entry))
        .map(|(position, found, _)| format!("{}: {}", called(position), troubles(found)))
        .collect();
    if found.is_empty() && mode == RevocationMode::Strict {
        // The client's certificate is an anchor itself.
        unknown.push(format!("{}: nobody can be asked about an anchor", called(0)));
    }
    if unknown.is_empty() {
        return Ruling::Pass;
    }
    let unknown = Refusal::with(Reason::RevocationUnknown, unknown.join("; "));
    match mode {
        RevocationMode::Strict => Ruling::Refuse(unknown),
        RevocationMode::IgnoreCaError | RevocationMode::Skip => Ruling::PassWith(unknown),
    }
}

/// None of a certificate that cannot be read.
fn standing(found: &Found) -> Option<Standing<'_>> {
    found.as_ref().ok().map(Finding::standing)
}

/// Why there is no answer. What servers and certificates say is quoted: it must not begin a line of its own in a log.
fn troubles(found: &Found) -> String {
    let finding = match found {
        Ok(finding) if finding.said.is_empty() => return "it names nobody to ask".to_owned(),
        Ok(finding) => finding,
        Err(problem) => return format!("malformed, {}", problem.escape_debug()),
    };
    finding.said.iter().map(told).collect::<Vec<_>>().join(", ")
}

/// What one source says.
fn told(said: &Said) -> String {
    let Said { source, place, result } = said;
    let detail = match result {
        Ok(_) => String::new(),
        Err(trouble) => format!(" ({})", trouble.to_string().escape_debug()),
    };
    format!("{} {place:?}: {}{detail}", source.name(), said.code())
}

fn tell(position: usize, found: &Found) {
    match found {
        Ok(finding) if !finding.said.is_empty() => {
            for said in &finding.said {
                step!("revocation", "{}: {}", called(position), told(said));
            }
        }
        found => step!("revocation", "{}: {}", called(position), troubles(found)),
    }
}

/// Whom a certificate says to ask.
fn sources(link: &ReadLink) -> String {
    let link = match link {
        Ok(link) => link,
        Err(problem) => return format!("malformed, {}", problem.escape_debug()),
    };
    let ocsp = link.ocsp_urls.iter().map(|url| format!("ocsp {url:?}"));
    let crls = link.distribution_points.iter().flat_map(|point| point.uris());
    let all: Vec<String> = ocsp.chain(crls.map(|url| format!("crl {url:?}"))).collect();
    if all.is_empty() { "it names nobody to ask".to_owned() } else { all.join(", ") }
}

fn called(position: usize) -> String {
    match position {
        0 => "the client's certificate".to_owned(),
        position => format!("CA {position} above it"),
    }
}

/// For people to read.
fn date(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let date = i64::try_from(seconds).ok().and_then(|seconds| Asn1Time::from_unix(seconds).ok());
    date.map_or_else(|| seconds.to_string(), |date| date.to_string())
}

#[cfg(test)]
mod tests;
