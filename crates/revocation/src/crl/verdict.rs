//! This knows what a certificate's CRLs say of it, taken together (RFC 5280, section 6.3.3).

use std::cmp::Ordering;
use std::time::{Duration, SystemTime};

use super::Crl;
use super::serials::Found;
use crate::point::ALL_REASONS;
use crate::{Answer, CLOCK_SKEW, DistributionPoint, Link, Status, Trouble};

/// A complete CRL that may say something of a certificate, with what may be newer.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// The certificate's distribution point that it was had from; none for a CRL that was had otherwise.
    pub point: Option<&'a DistributionPoint>,
    /// The complete CRL. A delta CRL here can revoke, but never says that a certificate is good.
    pub complete: &'a Crl,
    /// Delta CRLs. Of those that go with the complete one, the newest counts.
    pub deltas: &'a [&'a Crl],
}

/// What a certificate's CRLs say of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// What they say, or why that is nothing: of several troubles, the first. It is never [`Status::Unknown`].
    pub answer: Result<Answer, Trouble>,
    /// Why delta CRLs were left out, but for what they revoke.
    pub deltas_left_out: Vec<Trouble>,
}

/// What all CRLs that there are for a certificate say of it. One in which it stands is enough to revoke it, whatever that
/// CRL is about, as its issuer gives a serial number only once. Not to stand in them counts where those that are about
/// the certificate are complete for all reasons of revocation together.
///
/// A CRL counts for `grace` after its time. A delta CRL that does not go with the complete one, or whose time is over, still
/// revokes what stands in it, unless the complete one is newer; but it takes nothing out.
pub fn status(link: &Link, sources: &[Source<'_>], now: SystemTime, grace: Duration) -> Verdict {
    let mut deltas_left_out = Vec::new();
    let mut revoked: Option<Answer> = None;
    let mut good: Option<Answer> = None;
    let mut reasons = 0;
    let mut trouble = None;
    for source in sources {
        match source.read(link, now, grace, &mut deltas_left_out) {
            Ok(Said::Revoked(answer)) => revoked = Some(revoked.unwrap_or(answer)),
            Ok(Said::Good(answer, covered)) => {
                good = Some(good.map_or(answer, |other| both(other, answer)));
                reasons |= covered;
            }
            Err(error) => trouble = trouble.or(Some(error)),
        }
    }
    let answer = match (revoked, good) {
        (Some(revoked), _) => Ok(revoked),
        (None, Some(good)) if reasons == ALL_REASONS => Ok(good),
        (None, Some(_)) => {
            Err(trouble.unwrap_or(Trouble::NotCovered("the CRLs are only about some reasons of revocation")))
        }
        (None, None) => Err(trouble.unwrap_or(Trouble::NotCovered("there is no CRL"))),
    };
    Verdict { answer, deltas_left_out }
}

/// What one source says.
enum Said {
    Revoked(Answer),
    /// It is not in it, for these reasons of revocation.
    Good(Answer, u16),
}

impl<'a> Source<'a> {
    fn read(
        &self,
        link: &Link,
        now: SystemTime,
        grace: Duration,
        left_out: &mut Vec<Trouble>,
    ) -> Result<Said, Trouble> {
        if !link.issuer.signs_crls {
            return Err(Trouble::WrongSigner("the CA's key usage has no cRLSign"));
        }
        let complete = self.complete;
        if !complete.is_of(&link.issuer) {
            return Err(Trouble::SomethingElse("the CRL is another issuer's"));
        }
        let deltas = Deltas::sort(self.deltas, complete, now, left_out);
        let in_newest = deltas.newest.and_then(|newest| Some((newest, newest.find(link)?)));
        if let Some((newest, found)) = in_newest.filter(|(_, found)| !found.removed) {
            return Ok(Said::Revoked(newest.revoked(found)));
        }
        if let Some(answer) = deltas.doubt(link, complete, now, grace) {
            return Ok(Said::Revoked(answer));
        }
        complete.check_time(now, grace)?;
        let is_taken_out = in_newest.is_some();
        if let Some(found) = complete.find(link).filter(|_| !is_taken_out) {
            // Only a delta CRL takes out: `removeFromCRL` has no place in a complete one (RFC 5280, section 5.3.1), so that there
            // it is an entry as any other.
            if !(found.removed && complete.is_delta()) {
                return Ok(Said::Revoked(complete.revoked(found)));
            }
        }
        if complete.is_delta() {
            return Err(Trouble::NotCovered("there is a delta CRL only"));
        }
        let reasons = complete.contents.scope.reasons(link, self.point)?;
        let mut answer = complete.answer(Status::Good);
        if let Some(newest) = deltas.newest {
            answer.this_update = newest.this_update();
            answer.next_update = earlier(answer.next_update, newest.next_update());
        }
        Ok(Said::Good(answer, reasons))
    }
}

/// Delta CRLs beside a complete one.
struct Deltas<'a> {
    /// Of those that go with it, the one with the highest number: it says all that the others say.
    newest: Option<&'a Crl>,
    /// Those that do not go with it, or no longer, and yet may know of a revocation that it does not know. They take nothing
    /// out.
    doubtful: Vec<&'a Crl>,
}

impl<'a> Deltas<'a> {
    fn sort(deltas: &[&'a Crl], complete: &Crl, now: SystemTime, left_out: &mut Vec<Trouble>) -> Self {
        let mut sorted = Self { newest: None, doubtful: Vec::new() };
        for delta in deltas {
            match delta.goes_with(complete).and_then(|()| delta.check_time(now, Duration::ZERO)) {
                Ok(()) => {
                    let is_newer =
                        |other: &Crl| order(&delta.contents.number, &other.contents.number).is_gt();
                    if sorted.newest.is_none_or(is_newer) {
                        sorted.newest = Some(delta);
                    }
                }
                Err(trouble) => {
                    let is_over = delta.is_older_than(complete) || trouble == Trouble::FromTheFuture;
                    if delta.has_issuer_of(complete) && !is_over {
                        sorted.doubtful.push(delta);
                    }
                    left_out.push(trouble);
                }
            }
        }
        sorted
    }

    /// That the doubtful ones revoke a certificate. For how long, the complete one tells where their own time is over.
    fn doubt(&self, link: &Link, complete: &Crl, now: SystemTime, grace: Duration) -> Option<Answer> {
        self.doubtful.iter().find_map(|delta| {
            let answer = delta.revoked(delta.find(link).filter(|found| !found.removed)?);
            if delta.check_time(now, Duration::ZERO).is_ok() {
                return Some(answer);
            }
            complete.check_time(now, grace).ok()?;
            Some(Answer { next_update: complete.next_update(), ..answer })
        })
    }
}

impl Crl {
    fn find(&self, link: &Link) -> Option<Found> {
        let contents = &self.contents;
        contents.scope.has_certificates().then(|| contents.serials.find(&link.serial)).flatten()
    }

    fn answer(&self, status: Status) -> Answer {
        Answer { status, this_update: self.this_update(), next_update: self.next_update() }
    }

    fn check_time(&self, now: SystemTime, grace: Duration) -> Result<(), Trouble> {
        if self.this_update() > now + CLOCK_SKEW {
            return Err(Trouble::FromTheFuture);
        }
        // What is added to may be the year 9999.
        let end = self.next_update().and_then(|next| next.checked_add(grace));
        if end.is_some_and(|end| end < now) { Err(Trouble::Stale) } else { Ok(()) }
    }

    /// Whether this delta CRL can be put together with a complete one (RFC 5280, sections 5.2.4 and 6.3.3 (c)). Where the
    /// RFC compares their key identifiers, the keys themselves are compared here.
    fn goes_with(&self, complete: &Self) -> Result<(), Trouble> {
        let (delta, base) = (&self.contents, &complete.contents);
        if !self.has_issuer_of(complete) {
            return Err(Trouble::SomethingElse("the delta CRL is another issuer's"));
        }
        if !self.is_delta() || complete.is_delta() {
            return Err(Trouble::NotCovered("a delta CRL and a complete one go together only"));
        }
        if delta.number.is_none() || base.number.is_none() {
            return Err(Trouble::NotCovered("the delta CRL, or the complete one, has no number"));
        }
        if !base.scope.is_that_of(&delta.scope) {
            return Err(Trouble::NotCovered("the delta CRL is about something else than the complete one"));
        }
        if order(&delta.base, &base.number).is_gt() {
            return Err(Trouble::NotCovered("the delta CRL goes with a later complete one"));
        }
        if self.is_older_than(complete) {
            return Err(Trouble::NotCovered("the delta CRL is older than the complete one"));
        }
        Ok(())
    }

    fn has_issuer_of(&self, other: &Self) -> bool {
        self.issuer_name == other.issuer_name && self.issuer_key == other.issuer_key
    }

    /// Whether a later complete CRL about the same says all that this one said. Numbers are only comparable where both are
    /// about the same (RFC 5280, section 5.2.3).
    fn is_older_than(&self, complete: &Self) -> bool {
        let (this, that) = (&self.contents, &complete.contents);
        this.number.is_some()
            && that.scope.is_that_of(&this.scope)
            && order(&this.number, &that.number).is_lt()
    }

    fn revoked(&self, found: Found) -> Answer {
        self.answer(Status::Revoked { since: Some(found.since) })
    }
}

/// The order of two numbers without zeros before them.
fn order(one: &Option<Box<[u8]>>, other: &Option<Box<[u8]>>) -> Ordering {
    let length = |number: &Option<Box<[u8]>>| number.as_ref().map(|number| number.len());
    length(one).cmp(&length(other)).then_with(|| one.cmp(other))
}

/// Two answers that only count together.
fn both(one: Answer, other: Answer) -> Answer {
    Answer {
        this_update: one.this_update.min(other.this_update),
        next_update: earlier(one.next_update, other.next_update),
        ..one
    }
}

fn earlier(one: Option<SystemTime>, other: Option<SystemTime>) -> Option<SystemTime> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}
