//! A CA with its issuer, and what its CRLs say.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use revocation::crl::{Crl, Source, Verdict, status};
use revocation::{Answer, DistributionPoint, Issuer, Link, Status, Trouble};
use testbed::crl::Forged;
use testbed::pki::{Ca, Subject};

pub(crate) const HOUR: Duration = Duration::from_secs(3600);

/// The serial number of [`World::link`], with its sign.
pub(crate) const SERIAL: &[u8] = &[0x00, 0xc0, 0xff, 0xee];

pub(crate) struct World {
    pub(crate) ca: Ca,
    pub(crate) issuer: Arc<Issuer>,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::of(Ca::root("CRL test"))
    }

    pub(crate) fn of(ca: Ca) -> Self {
        let issuer = Arc::new(Issuer::from_der(&ca.der()).unwrap());
        Self { ca, issuer }
    }

    pub(crate) fn subject() -> Subject {
        Subject::client("someone").serial(SERIAL)
    }

    /// A certificate of the CA.
    pub(crate) fn link(&self, subject: Subject) -> Link {
        Link::from_der(&self.ca.issue(subject).der, Arc::clone(&self.issuer)).unwrap()
    }

    /// A certificate with these distribution points, in DER.
    pub(crate) fn link_with_points(&self, points: &[u8]) -> Link {
        self.link(Self::subject().extension(&[2, 5, 29, 31], points))
    }

    pub(crate) fn forged(&self) -> Forged {
        Forged::of(&self.ca)
    }

    pub(crate) fn read(&self, forged: &Forged) -> Result<Crl, Trouble> {
        Crl::read(&forged.sign(&self.ca), &self.issuer)
    }

    pub(crate) fn crl(&self, forged: &Forged) -> Crl {
        self.read(forged).unwrap()
    }

    /// What one CRL says of the plain certificate now.
    pub(crate) fn says(&self, forged: &Forged) -> Result<Answer, Trouble> {
        let crl = self.read(forged)?;
        says(&self.link(Self::subject()), None, &crl)
    }
}

pub(crate) fn says(link: &Link, point: Option<&DistributionPoint>, crl: &Crl) -> Result<Answer, Trouble> {
    with_deltas(link, point, crl, &[]).answer
}

pub(crate) fn with_deltas(
    link: &Link,
    point: Option<&DistributionPoint>,
    complete: &Crl,
    deltas: &[&Crl],
) -> Verdict {
    status(link, &[Source { point, complete, deltas }], SystemTime::now(), Duration::ZERO)
}

pub(crate) fn is_good(answer: &Result<Answer, Trouble>) -> bool {
    matches!(answer, Ok(Answer { status: Status::Good, .. }))
}

pub(crate) fn is_revoked(answer: &Result<Answer, Trouble>) -> bool {
    matches!(answer, Ok(Answer { status: Status::Revoked { .. }, .. }))
}

#[track_caller]
pub(crate) fn assert_good(answer: &Result<Answer, Trouble>) {
    assert!(is_good(answer), "{answer:?}");
}

#[track_caller]
pub(crate) fn assert_revoked(answer: &Result<Answer, Trouble>) {
    assert!(is_revoked(answer), "{answer:?}");
}

#[track_caller]
pub(crate) fn assert_trouble(answer: &Result<Answer, Trouble>, code: &str) {
    assert_eq!(answer.as_ref().map_err(Trouble::code), Err(code), "{answer:?}");
}
