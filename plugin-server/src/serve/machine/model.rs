//! This knows what has to come of an event: by what it was given, and by what Kong answered.

use std::collections::{BTreeMap, HashMap};
use std::sync::LazyLock;
use std::time::SystemTime;

use client_cert::{Presented, Proof, ProofKey};
use serde_json::json;
use sha2::{Digest, Sha256};
use testbed::pki::{Ca, Subject, rcgen::ExtendedKeyUsagePurpose};

use super::kong::{Answer, Ask, Protocol};
use crate::certificate::hex;

pub(super) const KEY: [u8; 32] = [9; 32];

/// Of the two, the first is one of Kong's `trusted_ips`.
pub(super) const ADDRESSES: [&str; 2] = ["10.0.0.1", "192.0.2.1"];

/// What plugins are configured as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Config {
    /// The certificates of one CA stand for consumers.
    Plain,
    /// Those of the other one.
    OfOther,
    /// To be trusted is enough.
    Skip,
    /// Whoever is not authenticated is `anon`.
    Anonymous,
    /// The same, and the consumer for whom nobody has the name is not there.
    Dangling,
    /// Another front sets the header.
    Header,
    /// Kong's own listener; of the other CA.
    Tls,
    /// Cannot be started: what it names is no CA.
    Broken,
}

pub(super) const CONFIGS: [Config; 8] = [
    Config::Plain,
    Config::OfOther,
    Config::Skip,
    Config::Anonymous,
    Config::Dangling,
    Config::Header,
    Config::Tls,
    Config::Broken,
];

/// What a request brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Given {
    Nothing,
    /// One of [`Certificates::leaves`], as the shim hands it on.
    Leaf(usize),
    /// Without a proof.
    Unproven(usize),
    /// With a proof by another key.
    Forged(usize),
    /// With the proof of another certificate.
    OfAnother(usize),
}

pub(super) struct Certificates {
    pub(super) cas: [Ca; 2],
    pub(super) leaves: Vec<Leaf>,
}

pub(super) struct Leaf {
    der: Vec<u8>,
    pem: String,
    /// Which of the CAs, if any.
    ca: Option<usize>,
    name: &'static str,
    /// The code of what is wrong with it.
    wrong: Option<&'static str>,
    serial: String,
    sha256: String,
}

/// Made once: they are only read.
pub(super) static CERTIFICATES: LazyLock<Certificates> = LazyLock::new(|| {
    let cas = [Ca::root("one"), Ca::root("other")];
    let stranger = Ca::root("stranger");
    let mut leaves = Vec::new();
    let mut issue = |ca: Option<usize>, name, subject: Subject, wrong| {
        let number = leaves.len() as u8 + 1;
        let made = ca.map_or(&stranger, |ca| &cas[ca]).issue(subject.serial(&[number]));
        let (serial, sha256) = (format!("{number:02X}"), hex(&Sha256::digest(&made.der)));
        leaves.push(Leaf { der: made.der, pem: made.cert, ca, name, wrong, serial, sha256 });
    };
    for ca in [Some(0), Some(1), None] {
        for name in ["alice", "bob", "nobody"] {
            issue(ca, name, Subject::client(name), None);
        }
        issue(ca, "alice", Subject::client("alice").expired(), Some("expired"));
        let server = Subject::client("alice").usages(vec![ExtendedKeyUsagePurpose::ServerAuth]);
        issue(ca, "alice", server, Some("wrong_purpose"));
    }
    Certificates { cas, leaves }
});

impl Config {
    pub(super) fn json(self) -> String {
        let pem = |ca: usize| CERTIFICATES.cas[ca].pem();
        let mut config = json!({
            "certificate_source": "shim", "consumer_by": ["username"], "ca_certificates": [pem(self.ca())],
            "inject_client_cert_details": true, "client_serial_header_name": "X-Client-Cert-Serial", "__seq__": 1,
        });
        let mut set = |field: &str, value| config[field] = value;
        match self {
            Self::Plain | Self::OfOther => {}
            Self::Skip => {
                set("skip_consumer_lookup", json!(true));
                set("authenticated_group_by", json!("CN"));
            }
            Self::Anonymous => set("anonymous", json!("anon")),
            Self::Dangling => {
                set("anonymous", json!("anon"));
                set("default_consumer", json!("gone"));
            }
            Self::Header => {
                set("certificate_source", json!("header"));
                set("certificate_header_name", json!("X-Ssl-Cert"));
                set("certificate_header_format", json!("base64_encoded"));
            }
            Self::Tls => set("certificate_source", json!("tls")),
            Self::Broken => set("ca_certificates", json!([CERTIFICATES.leaves[0].pem])),
        }
        config.to_string()
    }

    fn is_anonymous(self) -> bool {
        matches!(self, Self::Anonymous | Self::Dangling)
    }

    fn ca(self) -> usize {
        usize::from(matches!(self, Self::OfOther | Self::Tls))
    }
}

impl Given {
    fn leaf(self) -> Option<&'static Leaf> {
        match self {
            Self::Nothing => None,
            Self::Leaf(leaf) | Self::Unproven(leaf) | Self::Forged(leaf) | Self::OfAnother(leaf) => {
                Some(&CERTIFICATES.leaves[leaf])
            }
        }
    }

    /// The headers that Kong would show for it.
    pub(super) fn headers(self, config: Config) -> Vec<(String, String)> {
        let mut headers = vec![("host".to_owned(), "x".to_owned())];
        let Some(leaf) = self.leaf() else { return headers };
        let mut push = |name: &str, value| headers.push((name.to_owned(), value));
        let presented = |leaf: &Leaf| Presented { leaf: leaf.der.clone(), chain: vec![] };
        let proof = |key, leaf: &Leaf| {
            Proof::write(&ProofKey::from_bytes(key), &presented(leaf), "", SystemTime::now())
        };
        match config {
            Config::Tls => {}
            Config::Header => push("x-ssl-cert", openssl::base64::encode_block(&leaf.der)),
            _ => {
                push("client-cert", presented(leaf).leaf_header());
                match self {
                    Self::Leaf(_) => push("client-cert-proof", proof(KEY, leaf)),
                    Self::Forged(_) => push("client-cert-proof", proof([8; 32], leaf)),
                    Self::OfAnother(number) => {
                        let leaves = &CERTIFICATES.leaves;
                        push("client-cert-proof", proof(KEY, &leaves[(number + 1) % leaves.len()]));
                    }
                    Self::Unproven(_) | Self::Nothing => {}
                }
            }
        }
        headers
    }
}

/// What is counted of a request: its outcome and the code of the reason.
pub(super) type Decision = (&'static str, &'static str);

/// Who passes.
#[derive(Clone, Debug)]
enum Who {
    Consumer,
    Trusted,
    Anonymous(&'static str),
    LeftAlone,
}

/// What the event waits for.
#[derive(Clone, Debug)]
enum Stage {
    Headers,
    Credential,
    ClientIp,
    IsTrusted(String),
    Chain,
    SetHeaders(Who),
    Group,
    LogAnonymous(&'static str),
    Authenticate(Who),
    SetCredential,
    /// The line in the log of a refusal.
    Log(&'static str),
    Refused(&'static str),
    Passed(Who),
}

/// An event, as it has to go.
#[derive(Clone, Debug)]
pub(super) struct Event {
    pub(super) config: Config,
    pub(super) given: Given,
    pub(super) address: &'static str,
    /// Whether an earlier plugin has authenticated the request.
    pub(super) is_authenticated: bool,
    pub(super) protocol: Protocol,
    /// What Kong showed of it.
    seen: Given,
    stage: Stage,
    /// Whether its time is over; none where it has no limit.
    is_late: Option<bool>,
}

impl Event {
    pub(super) fn new(
        config: Config,
        given: Given,
        address: &'static str,
        is_authenticated: bool,
        protocol: Protocol,
    ) -> Self {
        // Of an instance that did not start.
        let is_broken = config == Config::Broken;
        Self {
            config,
            given,
            address,
            is_authenticated,
            protocol,
            seen: Given::Nothing,
            stage: if is_broken { Stage::Log("not_started") } else { Stage::Headers },
            is_late: (!is_broken).then_some(false),
        }
    }

    pub(super) fn time_is_over(&mut self) {
        self.is_late = self.is_late.map(|_| true);
    }

    /// What Kong answers where nothing goes wrong.
    pub(super) fn right_answer(&self) -> Answer {
        match &self.stage {
            Stage::Headers => Answer::Headers(self.given.headers(self.config)),
            Stage::Credential if self.is_authenticated => Answer::Table,
            Stage::ClientIp => Answer::Text(self.address.into()),
            Stage::IsTrusted(address) => Answer::Bool(address == ADDRESSES[0]),
            Stage::Chain => self.given.leaf().map_or(Answer::Nil, |leaf| Answer::Text(leaf.pem.clone())),
            _ => Answer::Nil,
        }
    }

    /// Goes on with an answer. `peers` are the addresses that the instance knows.
    pub(super) fn answered(&mut self, answer: &Answer, peers: &mut HashMap<String, bool>) {
        let next = self.next(answer, peers);
        let has_ended = matches!(next, Stage::Refused(_) | Stage::Passed(_));
        self.stage = match self.is_late {
            // What has come so far counts; there is no time for another call but the one that tells of it.
            Some(true) if !has_ended => {
                self.is_late = None;
                Stage::Log("deadline")
            }
            _ => next,
        };
    }

    /// How it ended, once it has.
    pub(super) fn decision(&self) -> Option<Decision> {
        match &self.stage {
            Stage::Passed(Who::Consumer | Who::Trusted) => Some(("passed", "")),
            Stage::Passed(Who::Anonymous(code)) => Some(("anonymous", code)),
            Stage::Passed(Who::LeftAlone) => Some(("left_alone", "")),
            Stage::Refused(code) => Some((if is_fault(code) { "fault" } else { "refused" }, code)),
            _ => None,
        }
    }

    fn next(&mut self, answer: &Answer, peers: &mut HashMap<String, bool>) -> Stage {
        // ProtoBuf:1 leaves out what is nothing, and has one type for text and this credential.
        let is_protobuf = self.protocol == Protocol::ProtoBuf;
        let answer = match answer {
            Answer::Bool(false) if is_protobuf => &Answer::Nil,
            Answer::Table if is_protobuf => &Answer::Text("of another plugin".into()),
            Answer::Text(text) if is_protobuf && text.is_empty() => &Answer::Nil,
            other => other,
        };
        match self.stage.clone() {
            Stage::Headers => {
                match answer {
                    Answer::Headers(_) => self.seen = self.given,
                    Answer::Nil if is_protobuf => {}
                    // It looks like a table of headers.
                    Answer::Table => {}
                    _ => return Stage::Log("internal"),
                }
                if self.config.is_anonymous() { Stage::Credential } else { self.look_for_certificate() }
            }
            Stage::Credential if *answer == Answer::Nil => self.look_for_certificate(),
            Stage::Credential if self.seen == Given::Nothing => Stage::Passed(Who::LeftAlone),
            Stage::Credential => Stage::SetHeaders(Who::LeftAlone),
            Stage::ClientIp => match answer {
                Answer::Text(address) => match peers.get(address) {
                    Some(true) => self.decide(),
                    Some(false) => Stage::Log("untrusted_source"),
                    None => Stage::IsTrusted(address.clone()),
                },
                _ => Stage::Log("untrusted_source"),
            },
            Stage::IsTrusted(address) => {
                let is_trusted = *answer == Answer::Bool(true);
                peers.insert(address, is_trusted);
                if is_trusted { self.decide() } else { Stage::Log("untrusted_source") }
            }
            Stage::Chain => match answer {
                Answer::Text(pem) if self.given.leaf().is_some_and(|leaf| leaf.pem == *pem) => {
                    self.seen = self.given;
                    self.decide()
                }
                Answer::Text(_) => Stage::Log("malformed"),
                _ => Stage::Log("no_certificate"),
            },
            Stage::SetHeaders(Who::LeftAlone) => Stage::Passed(Who::LeftAlone),
            Stage::SetHeaders(Who::Trusted) => Stage::Group,
            Stage::SetHeaders(Who::Anonymous(code)) if code != "no_certificate" => Stage::LogAnonymous(code),
            Stage::SetHeaders(who) => Stage::Authenticate(who),
            Stage::Group => Stage::Authenticate(Who::Trusted),
            Stage::LogAnonymous(code) => Stage::Authenticate(Who::Anonymous(code)),
            Stage::Authenticate(Who::Trusted) if is_protobuf => Stage::SetCredential,
            Stage::Authenticate(who) => Stage::Passed(who),
            Stage::SetCredential => Stage::Passed(Who::Trusted),
            Stage::Log(code) => Stage::Refused(code),
            Stage::Refused(_) | Stage::Passed(_) => panic!("it has ended"),
        }
    }

    fn look_for_certificate(&self) -> Stage {
        match self.config {
            Config::Header if self.seen != Given::Nothing => Stage::ClientIp,
            Config::Tls => Stage::Chain,
            _ => self.decide(),
        }
    }

    /// With all that there is to know.
    fn decide(&self) -> Stage {
        let has_proofs = !matches!(self.config, Config::Header | Config::Tls);
        let wrong = match self.seen {
            Given::Nothing => Some("no_certificate"),
            Given::Unproven(_) if has_proofs => Some("proof_missing"),
            Given::Forged(_) | Given::OfAnother(_) if has_proofs => Some("proof_invalid"),
            _ => self.seen.leaf().and_then(|leaf| self.wrong_with(leaf)),
        };
        match wrong {
            None if self.config == Config::Skip => Stage::SetHeaders(Who::Trusted),
            None => Stage::SetHeaders(Who::Consumer),
            Some(code) if self.config.is_anonymous() && !is_fault(code) => {
                Stage::SetHeaders(Who::Anonymous(code))
            }
            Some(code) => Stage::Log(code),
        }
    }

    fn wrong_with(&self, leaf: &Leaf) -> Option<&'static str> {
        if leaf.ca != Some(self.config.ca()) {
            return Some("untrusted");
        }
        let is_unknown = self.config != Config::Skip && leaf.name == "nobody";
        let unknown = if self.config == Config::Dangling { "consumer_unavailable" } else { "no_consumer" };
        leaf.wrong.or(is_unknown.then_some(unknown))
    }

    /// Whether this is what the event must want now.
    pub(super) fn check(&self, ask: &Ask) -> Result<(), String> {
        let name = self.seen.leaf().map_or("", |leaf| leaf.name).to_owned();
        let is_right = match (&self.stage, ask) {
            (Stage::Headers, Ask::Headers)
            | (Stage::Credential, Ask::Credential)
            | (Stage::ClientIp, Ask::ClientIp)
            | (Stage::Chain, Ask::Chain)
            | (Stage::Passed(_), Ask::Pass) => true,
            (Stage::IsTrusted(address), Ask::IsTrusted(asked)) => address == asked,
            (Stage::SetHeaders(who), Ask::SetHeaders(changes)) => self.is_told(who, changes),
            (Stage::Group, Ask::Group(group)) => *group == name,
            (Stage::Authenticate(who), Ask::Authenticate(consumer, credential)) => {
                let (expected, id) = match who {
                    Who::Consumer => (Some(name.clone()), Some(name)),
                    Who::Trusted => (None, Some(format!("CN={name}"))),
                    Who::Anonymous(_) => (Some("anon".into()), None),
                    Who::LeftAlone => return Err("nobody is to be authenticated".into()),
                };
                (consumer, credential) == (&expected, &id)
            }
            (Stage::SetCredential, Ask::SetCredential(id)) => *id == format!("CN={name}"),
            (Stage::LogAnonymous(code), Ask::Log { is_error: false, line }) => {
                line.starts_with(&format!("passed as anonymous: {code}")) && self.is_named(code, line)
            }
            (Stage::Log(code), Ask::Log { is_error, line }) => {
                *is_error == is_fault(code)
                    && line.starts_with(&format!("refused: {code}"))
                    && self.is_named(code, line)
            }
            (Stage::Refused(code), Ask::Refuse(status, text)) => {
                let expected = match *code {
                    "no_certificate" => (401, "No required TLS certificate was sent"),
                    "deadline" => (503, "An unexpected error occurred"),
                    code if is_fault(code) => (500, "An unexpected error occurred"),
                    _ => (401, "TLS certificate failed verification"),
                };
                (*status, &**text) == expected
            }
            _ => false,
        };
        if is_right { Ok(()) } else { Err(format!("{ask:?} where it is at {self:?}")) }
    }

    /// The log names the certificate where there was one to verify.
    fn is_named(&self, code: &str, line: &str) -> bool {
        let is_read = ["untrusted", "expired", "wrong_purpose", "no_consumer"].contains(&code);
        let expected = self.seen.leaf().filter(|_| is_read);
        match expected {
            Some(leaf) => line.ends_with(&format!("sha256: {}", leaf.sha256)),
            None => !line.contains("sha256: "),
        }
    }

    /// The headers that go on to the upstream are of this certificate and of nobody else.
    fn is_told(&self, who: &Who, changes: &BTreeMap<String, Option<String>>) -> bool {
        let set: BTreeMap<&str, &str> =
            changes.iter().filter_map(|(name, value)| Some((&**name, value.as_deref()?))).collect();
        let leaf = self.seen.leaf();
        let subject = format!("CN={}", leaf.map_or("", |leaf| leaf.name));
        let expected: Vec<(&str, &str)> = match (who, leaf) {
            (Who::Consumer, Some(leaf)) => vec![
                ("X-Consumer-Username", leaf.name),
                ("X-Credential-Identifier", leaf.name),
                ("X-Client-Cert-Serial", &leaf.serial),
            ],
            (Who::Trusted, Some(leaf)) => {
                vec![("X-Client-Cert-Dn", &subject), ("X-Client-Cert-Serial", &leaf.serial)]
            }
            (Who::Anonymous(_), _) => {
                vec![("X-Consumer-Username", "anon"), ("X-Anonymous-Consumer", "true")]
            }
            (Who::LeftAlone, _) => vec![],
            _ => return false,
        };
        // Each consumer has an id, too.
        let has_id = matches!(who, Who::Consumer | Who::Anonymous(_));
        let carriers: &[&str] = match (self.seen, self.config) {
            (Given::Nothing, _) | (_, Config::Tls) => &[],
            (_, Config::Header) => &["x-ssl-cert"],
            (Given::Unproven(_), _) => &["client-cert"],
            _ => &["client-cert", "client-cert-proof"],
        };
        let are_gone = carriers.iter().all(|name| changes.get(*name) == Some(&None));
        let count = expected.len() + usize::from(has_id);
        are_gone
            && changes.len() == count + carriers.len()
            && set.len() == count
            && has_id == set.contains_key("X-Consumer-ID")
            && expected.iter().all(|(name, value)| set.get(name) == Some(value))
    }
}

fn is_fault(code: &str) -> bool {
    ["internal", "not_started", "deadline", "consumer_unavailable"].contains(&code)
}
