//! This knows a CA with one certificate, and what is asked about it.

use std::sync::Arc;
use std::time::SystemTime;

use revocation::ocsp::Question;
use revocation::{Answer, Issuer, Link, Status, Trouble};
use tempfile::TempDir;
use testbed::ocsp::{Authority, State};
use testbed::pki::rcgen::ExtendedKeyUsagePurpose;
use testbed::pki::{Ca, Leaf, Subject};

pub(crate) struct Lab {
    pub(crate) ca: Ca,
    pub(crate) leaf: Leaf,
    pub(crate) link: Link,
    pub(crate) authority: Authority,
    pub(crate) question: Question,
    pub(crate) now: SystemTime,
    _dir: TempDir,
}

pub(crate) const NONCE: [u8; 32] = [7; 32];

impl Lab {
    /// A CA that says of its certificate that it is good.
    pub(crate) fn new() -> Self {
        let ca = Ca::root("CA");
        let leaf = ca.issue(Subject::client("alice"));
        let dir = tempfile::tempdir().unwrap();
        let mut authority = Authority::new(dir.path(), &ca);
        authority.set(&leaf, State::Valid);
        let link = link(&ca, &leaf);
        let question = Question::about(&link, Some(NONCE));
        Self { ca, leaf, link, authority, question, now: SystemTime::now(), _dir: dir }
    }

    pub(crate) fn signed_by(mut self, signer: &Leaf) -> Self {
        self.authority = self.authority.signed_by(signer);
        self
    }

    /// A certificate with this extended key usage, from this CA.
    pub(crate) fn delegate(&self) -> Leaf {
        self.ca.issue(delegate())
    }

    /// What `openssl ocsp` answers to the question.
    pub(crate) fn answer(&self, arguments: &[&str]) -> Vec<u8> {
        self.authority.answer(self.question.der(), arguments)
    }

    pub(crate) fn read(&self, response: &[u8]) -> Result<Answer, Trouble> {
        self.question.read(response, &self.link, self.now)
    }

    pub(crate) fn ask(&self, arguments: &[&str]) -> Result<Status, Trouble> {
        self.read(&self.answer(arguments)).map(|answer| answer.status)
    }
}

pub(crate) fn delegate() -> Subject {
    Subject::client("OCSP").usages(vec![ExtendedKeyUsagePurpose::OcspSigning])
}

pub(crate) fn link(ca: &Ca, leaf: &Leaf) -> Link {
    Link::from_der(&leaf.der, Arc::new(Issuer::from_der(&ca.der()).unwrap())).unwrap()
}
