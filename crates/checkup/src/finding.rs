//! This knows how it is told what is in order and what is not, to people and to programs.

use std::fmt;

use serde::Serialize;
use serde_json::json;

/// How bad it is, the worst last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Verdict {
    /// It is as it should be.
    Ok,
    /// It works, but not as well or as safely as it should, or nobody could look.
    Warn,
    /// Requests that should pass do not, or such as should not do.
    Fail,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "OK",
            Self::Warn => "WARN",
            Self::Fail => "FAIL",
        })
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub verdict: Verdict,
    /// What was looked at, in a few words that stay the same: scripts may look for them.
    pub what: &'static str,
    /// What was found.
    pub finding: String,
    /// What to do about it; none where all is well.
    pub remedy: Option<String>,
}

impl Finding {
    /// All is well.
    pub fn ok(what: &'static str, finding: impl Into<String>) -> Self {
        Self::new(Verdict::Ok, what, finding.into(), None)
    }

    /// Something should be better, and `remedy` says how.
    pub fn warn(what: &'static str, finding: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(Verdict::Warn, what, finding.into(), Some(remedy.into()))
    }

    /// Something is wrong, and `remedy` says what to do.
    pub fn fail(what: &'static str, finding: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(Verdict::Fail, what, finding.into(), Some(remedy.into()))
    }

    /// Nobody could look, for this reason.
    pub fn unseen(what: &'static str, reason: impl fmt::Display, remedy: impl Into<String>) -> Self {
        Self::warn(what, format!("not looked at: {reason}"), remedy)
    }

    fn new(verdict: Verdict, what: &'static str, finding: String, remedy: Option<String>) -> Self {
        Self { verdict, what, finding: one_line(&finding), remedy: remedy.as_deref().map(one_line) }
    }
}

/// What somebody else wrote may stand in a finding, and must not look like another one, nor speak to a terminal.
fn one_line(text: &str) -> String {
    text.chars().map(|char| if char.is_control() { ' ' } else { char }).collect()
}

/// `WARN  clock: 3 s apart; have both hosts ask the same time servers`.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { verdict, what, finding, remedy } = self;
        write!(f, "{verdict:<4}  {what}: {finding}")?;
        match remedy {
            Some(remedy) => write!(f, "; {remedy}"),
            None => Ok(()),
        }
    }
}

/// All that was looked at, in the order in which it is told.
#[derive(Clone, Debug, Default)]
pub struct Findings(Vec<Finding>);

impl Findings {
    /// Adds one.
    pub fn push(&mut self, finding: Finding) {
        self.0.push(finding);
    }

    /// Whether anything fails.
    pub fn has_failure(&self) -> bool {
        self.worst() == Verdict::Fail
    }

    fn worst(&self) -> Verdict {
        self.0.iter().map(|finding| finding.verdict).max().unwrap_or(Verdict::Ok)
    }

    /// For programs: `{"verdict": "WARN", "findings": [{"verdict": …, "what": …, "finding": …, "remedy": …}]}`, where the
    /// first verdict is the worst of all.
    pub fn to_json(&self) -> String {
        format!("{:#}", json!({"verdict": self.worst(), "findings": self.0}))
    }
}

impl Extend<Finding> for Findings {
    fn extend<T: IntoIterator<Item = Finding>>(&mut self, findings: T) {
        self.0.extend(findings);
    }
}

/// A line for each.
impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|finding| writeln!(f, "{finding}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_how_bad_it_is_what_was_found_and_what_to_do() {
        let mut findings = Findings::default();
        assert_eq!((findings.has_failure(), findings.worst()), (false, Verdict::Ok));
        findings.push(Finding::ok("a", "fine"));
        findings.push(Finding::unseen("b", "no Admin API", "name it"));
        assert_eq!(findings.to_string(), "OK    a: fine\nWARN  b: not looked at: no Admin API; name it\n");
        assert!(!findings.has_failure());
        findings.extend([Finding::fail("c", "x\nOK    y: \u{1b}[31m", "z\n")]);
        assert!(findings.to_string().ends_with("\nFAIL  c: x OK    y:  [31m; z \n"), "{findings}");
        assert!(findings.has_failure());
        let told: serde_json::Value = serde_json::from_str(&findings.to_json()).unwrap();
        assert_eq!(told["verdict"], "FAIL");
        assert_eq!(
            told["findings"][1],
            json!({"verdict": "WARN", "what": "b", "finding": "not looked at: no Admin API", "remedy": "name it"})
        );
        assert_eq!(told["findings"][0]["remedy"], serde_json::Value::Null);
    }
}
