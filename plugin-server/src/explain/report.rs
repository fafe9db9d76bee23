//! This knows how a decision is told, to people and to programs.

use std::fmt;

use serde_json::json;

use crate::access::{Decision, Verdict};
use crate::explain::kong::Told;
use crate::reason::Reason;
use crate::step::Step;

/// What would be decided, and how it came to that.
#[derive(Debug)]
pub(super) struct Report {
    steps: Vec<Step>,
    decision: Decision,
    told: Told,
}

impl Report {
    pub(super) fn decided(decision: Decision, told: Told) -> Self {
        Self { steps: Vec::new(), decision, told }
    }

    /// An instance of this configuration does not start, so that Kong answers 500.
    pub(super) fn not_started(problem: String) -> Self {
        let told = Told { log: vec![problem], ..Told::default() };
        Self::decided(Decision::Refused(Reason::NotStarted), told)
    }

    /// With the steps that led there.
    pub(super) fn after(self, steps: Vec<Step>) -> Self {
        Self { steps, ..self }
    }

    pub(super) fn passes(&self) -> bool {
        self.decision.verdict() == Verdict::Proceed
    }

    fn word(&self) -> &'static str {
        match self.decision {
            Decision::Authenticated => "authenticated",
            Decision::LeftAlone => "left_alone",
            Decision::Anonymous(_) => "anonymous",
            Decision::Refused(_) => "refused",
        }
    }

    fn reason(&self) -> Option<Reason> {
        match self.decision {
            Decision::Authenticated | Decision::LeftAlone => None,
            Decision::Anonymous(reason) | Decision::Refused(reason) => Some(reason),
        }
    }

    /// The headers that the upstream gets.
    fn set_headers(&self) -> impl Iterator<Item = (&str, &str)> {
        self.told.headers.iter().filter_map(|(name, value)| Some((name.as_str(), value.as_deref()?)))
    }

    pub(super) fn to_json(&self) -> String {
        let answer = match self.decision.verdict() {
            Verdict::Proceed => None,
            Verdict::Refuse { status, message } => Some(json!({"status": status, "message": message})),
        };
        let consumer = self.told.consumer.as_ref().map(|consumer| {
            json!({"id": consumer.id, "username": consumer.username, "custom_id": consumer.custom_id})
        });
        let headers: serde_json::Map<_, _> =
            self.set_headers().map(|(name, value)| (name.to_owned(), value.into())).collect();
        let report = json!({
            "passes": self.passes(),
            "decision": self.word(),
            "reason": self.reason().map(Reason::code),
            "answer": answer,
            "consumer": consumer,
            "credential": self.told.credential.as_ref().map(|credential| &credential.id),
            "group": self.told.group,
            "headers": headers,
            "log": self.told.log,
            "steps": self.steps,
        });
        format!("{report:#}")
    }
}

/// A line for each step, then what comes of them.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Step { about, says } in &self.steps {
            writeln!(f, "{about:<10}  {says}")?;
        }
        let reason = self.reason().map(|reason| format!(", reason: {}", reason.code())).unwrap_or_default();
        writeln!(f, "\n{}{reason}", self.word())?;
        match self.decision.verdict() {
            Verdict::Proceed => writeln!(f, "the request passes")?,
            Verdict::Refuse { status, message } => {
                writeln!(f, "the client is answered {status} {message:?}")?
            }
        }
        if let Some(group) = &self.told.group {
            writeln!(f, "group for the acl plugin: {group}")?;
        }
        for (name, value) in self.set_headers() {
            writeln!(f, "header for the upstream: {name}: {value}")?;
        }
        for line in &self.told.log {
            writeln!(f, "in Kong's error log: {line}")?;
        }
        Ok(())
    }
}
