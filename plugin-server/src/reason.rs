//! This knows why a request was refused or failed: one list, for logs and whoever counts. For operators it stands in
//! `docs/reasons.md`.

use clap::ValueEnum;
use kong_entities::SourceError;

/// Why a request was not authenticated. Operators see the code; clients never do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum)]
pub(crate) enum Reason {
    /// The client presented no certificate.
    NoCertificate,
    /// A certificate header came without a proof: not from our shim.
    ProofMissing,
    /// The proof is genuine but too old, or the clocks of shim and plugin server differ.
    ProofExpired,
    /// The proof was not made with our key for these certificates.
    ProofInvalid,
    /// The hand-off or the certificate in it cannot be decoded, stands twice or is over the limits.
    Malformed,
    /// A certificate header came from an address that is none of Kong's `trusted_ips`.
    UntrustedSource,
    /// The request has more headers than can be looked through.
    TooManyHeaders,
    /// No chain leads to a CA of this instance.
    Untrusted,
    /// A certificate of the chain has ended.
    Expired,
    /// A certificate of the chain has not begun.
    NotYetValid,
    /// The certificate is not for TLS clients.
    WrongPurpose,
    /// A certificate of the chain has been revoked.
    Revoked,
    /// Nobody could say that the certificate has not been revoked, and without that nobody passes here.
    RevocationUnknown,
    /// Trusted, but no consumer has its name.
    NoConsumer,
    /// The source of Kong's entities does not answer, so that nobody knows who the caller is.
    EntitySourceDown,
    /// The source of Kong's entities answers what it never should: a wrong token, a wrong address.
    EntitySourceInvalid,
    /// It took longer than it may.
    Deadline,
    /// The configuration of the instance cannot be used, so that it did not start.
    NotStarted,
    /// A CA of the configuration is not there, or is none.
    CaUnavailable,
    /// The consumer that the configuration names is not there.
    ConsumerUnavailable,
    /// Kong answered a PDK call with something that it never gives, or we failed.
    Internal,
}

impl Reason {
    /// All that there are.
    pub(crate) fn all() -> &'static [Self] {
        Self::value_variants()
    }

    /// The code in logs and metrics.
    pub(crate) fn code(self) -> &'static str {
        match self {
            Self::NoCertificate => "no_certificate",
            Self::ProofMissing => "proof_missing",
            Self::ProofExpired => "proof_expired",
            Self::ProofInvalid => "proof_invalid",
            Self::Malformed => "malformed",
            Self::UntrustedSource => "untrusted_source",
            Self::TooManyHeaders => "too_many_headers",
            Self::Untrusted => "untrusted",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::WrongPurpose => "wrong_purpose",
            Self::Revoked => "revoked",
            Self::RevocationUnknown => "revocation_unknown",
            Self::NoConsumer => "no_consumer",
            Self::EntitySourceDown => "entity_source_down",
            Self::EntitySourceInvalid => "entity_source_invalid",
            Self::Deadline => "deadline",
            Self::NotStarted => "not_started",
            Self::CaUnavailable => "ca_unavailable",
            Self::ConsumerUnavailable => "consumer_unavailable",
            Self::Internal => "internal",
        }
    }

    /// What the client is answered: 401 for what it presented or did not; 500 for a fault of ours or the operator's, 503
    /// for one that may be over when it tries again.
    pub(crate) fn status(self) -> u16 {
        match self {
            Self::NoCertificate
            | Self::ProofMissing
            | Self::ProofExpired
            | Self::ProofInvalid
            | Self::Malformed
            | Self::UntrustedSource
            | Self::TooManyHeaders
            | Self::Untrusted
            | Self::Expired
            | Self::NotYetValid
            | Self::WrongPurpose
            | Self::Revoked
            | Self::RevocationUnknown
            | Self::NoConsumer => 401,
            Self::EntitySourceDown | Self::Deadline => 503,
            Self::EntitySourceInvalid
            | Self::NotStarted
            | Self::CaUnavailable
            | Self::ConsumerUnavailable
            | Self::Internal => 500,
        }
    }

    /// Whether it is our own fault or the operator's: then `anonymous` does not help.
    pub(crate) fn is_fault(self) -> bool {
        self.status() >= 500
    }
}

/// Why a certificate is refused: the reason, and what an operator may want to know besides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) reason: Reason,
    pub(crate) detail: Option<String>,
}

impl Refusal {
    pub(crate) fn with(reason: Reason, detail: impl std::fmt::Display) -> Self {
        Self { reason, detail: Some(detail.to_string()) }
    }
}

/// For people: the detail where there is one, the code otherwise.
impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.detail.as_deref().unwrap_or(self.reason.code()))
    }
}

impl From<SourceError> for Refusal {
    fn from(error: SourceError) -> Self {
        let reason = if error.is_outage() { Reason::EntitySourceDown } else { Reason::EntitySourceInvalid };
        Self::with(reason, error)
    }
}

impl From<Reason> for Refusal {
    fn from(reason: Reason) -> Self {
        Self { reason, detail: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rows of a table about codes, which has so many columns.
    fn rows(table: &str, columns: usize) -> impl Iterator<Item = (&str, &str)> {
        table.lines().filter_map(move |line| {
            let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
            let code = cells[0].strip_prefix('`')?.strip_suffix('`')?;
            assert!(cells.len() == columns && cells.iter().all(|cell| !cell.is_empty()), "{line}");
            Some((code, cells[2]))
        })
    }

    fn tables() -> (&'static str, &'static str) {
        include_str!("../../docs/reasons.md").split_once("## What can go wrong with revocation").unwrap()
    }

    #[test]
    fn each_trouble_with_revocation_stands_in_the_table_for_operators() {
        let mut rows: Vec<_> = rows(tables().1, 3).map(|(code, _)| code).collect();
        let mut expected = [&["unknown"][..], &revocation::Trouble::CODES].concat();
        rows.sort_unstable();
        expected.sort_unstable();
        assert_eq!(rows, expected);
    }

    /// What operators are told of the codes: each once, with the status that clients get, and what to do.
    #[test]
    fn each_reason_stands_in_the_table_for_operators() {
        let mut rows: Vec<_> = rows(tables().0, 4).map(|(code, status)| (code, status.to_owned())).collect();
        let mut expected: Vec<_> =
            Reason::all().iter().map(|reason| (reason.code(), reason.status().to_string())).collect();
        rows.sort();
        expected.sort();
        assert_eq!(rows, expected);
    }
}
