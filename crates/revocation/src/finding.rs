//! This knows what was found out about one certificate, and from whom.

use std::sync::Arc;
use std::time::SystemTime;

use crate::{Answer, Status, Trouble};

/// Who can say whether a certificate has been revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// An OCSP responder that the certificate names.
    Ocsp,
    /// A CRL from a distribution point that the certificate names.
    Crl,
    /// A CRL in a file.
    LocalCrl,
}

impl Source {
    /// All that there are.
    pub const ALL: [Self; 3] = [Self::Ocsp, Self::Crl, Self::LocalCrl];

    /// The name in logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ocsp => "ocsp",
            Self::Crl => "crl",
            Self::LocalCrl => "local_crl",
        }
    }
}

/// What one of them says, or why it says nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// What kind of source it is.
    pub source: Source,
    /// Its URL or path.
    pub place: Arc<str>,
    /// What it says.
    pub result: Result<Answer, Trouble>,
}

impl Said {
    /// What came of it, in a word, for logs and metrics.
    pub fn code(&self) -> &'static str {
        match &self.result {
            Ok(answer) => answer.status.code(),
            Err(trouble) => trouble.code(),
        }
    }
}

/// All that was found out about a certificate, in the order in which it was.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Finding {
    /// What each source says that was asked.
    pub said: Vec<Said>,
}

/// What follows from a [`Finding`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing<'a> {
    /// Somebody says that it has not been revoked, and nobody that it has.
    Good,
    /// This one says that it has been revoked.
    Revoked(&'a Said, Option<SystemTime>),
    /// Whoever was asked says nothing that counts.
    Open,
    /// There is nobody to ask.
    NoSource,
}

impl Finding {
    /// What follows from it. "Revoked" wins, whoever says it, whatever others say.
    pub fn standing(&self) -> Standing<'_> {
        let answers = || self.said.iter().filter_map(|said| Some((said, said.result.as_ref().ok()?.status)));
        let revoked = answers().find_map(|(said, status)| match status {
            Status::Revoked { since } => Some(Standing::Revoked(said, since)),
            Status::Good | Status::Unknown => None,
        });
        match revoked {
            Some(revoked) => revoked,
            None if answers().any(|(_, status)| status == Status::Good) => Standing::Good,
            None if self.said.is_empty() => Standing::NoSource,
            None => Standing::Open,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(result: Result<Status, Trouble>) -> Said {
        let answer = |status| Answer { status, this_update: SystemTime::UNIX_EPOCH, next_update: None };
        Said { source: Source::Ocsp, place: "http://ocsp".into(), result: result.map(answer) }
    }

    #[test]
    fn revoked_wins_whoever_says_it_and_trouble_is_no_answer() {
        let revoked = Status::Revoked { since: None };
        let standing = |results: &[Result<Status, Trouble>]| {
            let finding = Finding { said: results.iter().cloned().map(said).collect() };
            match finding.standing() {
                Standing::Good => "good",
                Standing::Revoked(..) => "revoked",
                Standing::Open => "open",
                Standing::NoSource => "no source",
            }
        };
        let trouble = || Err(Trouble::Stale);
        for (results, expected) in [
            (vec![], "no source"),
            (vec![Ok(Status::Good)], "good"),
            (vec![trouble(), Ok(Status::Good)], "good"),
            (vec![Ok(Status::Unknown), Ok(Status::Good)], "good"),
            (vec![Ok(Status::Good), Ok(revoked)], "revoked"),
            (vec![Ok(revoked), Ok(Status::Good), trouble()], "revoked"),
            (vec![trouble()], "open"),
            (vec![Ok(Status::Unknown), trouble()], "open"),
        ] {
            assert_eq!(standing(&results), expected, "{results:?}");
        }
    }
}
