//! Thousands of chains, of which three are asked: [`verify`], `openssl verify` with the same purpose, depth and flags, and a
//! [`judge`] of our own who knows what the certificates were meant to say.
//!
//! Where ours is stricter than OpenSSL, on purpose:
//! - A CA of the configuration must say that it is one (`basicConstraints`): OpenSSL takes whatever is in its store.
//! - A leaf whose SAN extension cannot be read or stands twice is malformed, whatever else is wrong with it.
//!
//! The other side was OpenSSL 3.0 where ours was 3.6, and they differed in none of this.

mod certificates;
mod judge;
mod worlds;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use client_cert::Presented;
use proptest::prelude::*;
use proptest::test_runner::{TestCaseResult, TestError, TestRunner};
use revocation::Issuers;
use sha2::{Digest as _, Sha256};

use self::certificates::{Oddity, Plan};
use self::judge::{Opinion, TLS_CLIENT, identifiers_agree, is_self_issued, judge};
use self::worlds::{World, world};
use super::{AUTH_LEVEL, Verified, verify};
use crate::certificate::Certificate;
use crate::config::Config;
use crate::random_cases::random_cases;
use crate::reason::Reason;
use crate::trust::Trust;
use crate::verify::MAX_CERTIFICATES;

/// How many worlds, each with some leaves.
const WORLDS: u32 = 450;

/// OpenSSL's codes for what each version of it finds in these chains (x509_vfy.h). A generator that no longer makes one of
/// them has lost something.
const CODES: [u32; 16] = [2, 7, 9, 10, 18, 19, 20, 22, 25, 26, 34, 47, 48, 66, 68, 79];

/// What was seen.
#[derive(Debug, Default)]
struct Seen {
    leaves: u32,
    /// How often each verdict was ours.
    verdicts: BTreeMap<&'static str, u32>,
    /// OpenSSL's first code, and how often.
    codes: BTreeMap<u32, u32>,
    /// Worlds whose CAs are not all CAs.
    refused_configurations: u32,
    /// How many of those that passed had one chain only, and a valid one.
    sure: u32,
}

#[test]
#[allow(clippy::print_stdout, reason = "how many there were of each is to be seen with --nocapture")]
fn verdicts_are_those_of_openssl_verify_and_nothing_passes_that_the_judge_refuses() {
    let seen = RefCell::new(Seen::default());
    let dir = tempfile::tempdir().unwrap();
    let mut runner = TestRunner::new(random_cases(WORLDS, 5280));
    if let Err(error) = runner.run(&world(), |world| compare(&world, dir.path(), &mut seen.borrow_mut())) {
        match error {
            TestError::Fail(why, world) => panic!("{why}\n{world:#?}"),
            TestError::Abort(why) => panic!("{why}"),
        }
    }
    let seen = seen.into_inner();
    println!("{seen:#?}");
    let codes: BTreeSet<u32> = seen.codes.keys().copied().collect();
    let missing: Vec<_> = CODES.iter().filter(|code| !codes.contains(code)).collect();
    assert!(missing.is_empty(), "no chain made OpenSSL say {missing:?}: {seen:#?}");
}

/// A world with its certificates made.
struct Made<'a> {
    world: &'a World,
    ders: Vec<Vec<u8>>,
    now: SystemTime,
}

fn compare(world: &World, dir: &Path, seen: &mut Seen) -> TestCaseResult {
    let (seconds, nanoseconds) = world.now;
    let made = Made {
        world,
        ders: world.plans.iter().map(Plan::der).collect(),
        now: UNIX_EPOCH + Duration::new(seconds as u64, nanoseconds),
    };
    let is_ca = |&position: &usize| {
        let plan = &world.plans[position];
        !plan.is_version_1
            && matches!(plan.basic, Some((true, _)))
            && !plan.oddities.contains(&Oddity::BasicTwice)
    };
    let trust = match (made.trust(), world.trusted.iter().all(is_ca)) {
        (Ok(trust), true) => trust,
        (Err(problem), false) => {
            prop_assert!(problem.contains("not a CA"), "{}", problem);
            seen.refused_configurations += 1;
            return Ok(());
        }
        (trust, is_good) => {
            return Err(TestCaseError::fail(format!("only CAs: {is_good}, {:?}", trust.err())));
        }
    };
    let theirs = made.ask_openssl(dir);
    for (&leaf, theirs) in world.leaves.iter().zip(theirs) {
        let ours = made.ask_us(&trust, leaf);
        seen.leaves += 1;
        *seen
            .verdicts
            .entry(ours.as_ref().map_or_else(|reason| reason.code(), |_| "trusted"))
            .or_default() += 1;
        *seen.codes.entry(theirs).or_default() += 1;
        let plan = &world.plans[leaf];
        let cannot_be_read =
            |oddity: &Oddity| matches!(oddity, Oddity::NamesCannotBeRead | Oddity::NamesTwice);
        let expected = if !plan.is_version_1 && plan.oddities.iter().any(cannot_be_read) {
            Some(Reason::Malformed)
        } else {
            reason(theirs)
        };
        prop_assert_eq!(ours.as_ref().err().copied(), expected, "of leaf {}; OpenSSL says {}", leaf, theirs);
        match ours {
            Ok(verified) => made.check_chain(leaf, &verified)?,
            Err(reason) => {
                if made.is_surely_valid(leaf) {
                    return Err(TestCaseError::fail(format!("leaf {leaf} is valid, but {}", reason.code())));
                }
                continue;
            }
        }
        seen.sure += u32::from(made.is_surely_valid(leaf));
    }
    Ok(())
}

/// What we say where OpenSSL's first error is this, or 0.
fn reason(code: u32) -> Option<Reason> {
    match code {
        0 => None,
        9 => Some(Reason::NotYetValid),
        10 => Some(Reason::Expired),
        26 => Some(Reason::WrongPurpose),
        _ => Some(Reason::Untrusted),
    }
}

impl Made<'_> {
    fn pem(&self, positions: impl IntoIterator<Item = usize>) -> String {
        let pem = |position: usize| crate::details::pem(&self.ders[position]);
        positions.into_iter().map(pem).collect()
    }

    fn trust(&self) -> Result<Trust, String> {
        let entries: Vec<_> = self.world.trusted.iter().map(|&position| self.pem([position])).collect();
        let config = serde_json::json!({
            "certificate_source": "shim", "ca_certificates": entries,
            "allow_partial_chain": self.world.partial_chain,
        });
        Trust::resolve(&Config::from_json(&config.to_string()).unwrap(), &[])
    }

    fn ask_us(&self, trust: &Trust, leaf: usize) -> Result<Verified, Reason> {
        let chain = self.world.presented.iter().map(|&position| self.ders[position].clone()).collect();
        let presented = Presented { leaf: self.ders[leaf].clone(), chain };
        let certificate = Certificate::from_der(&presented.leaf).ok_or(Reason::Malformed)?;
        verify(trust, &presented, certificate, &Issuers::default(), self.now)
    }

    /// What `openssl verify` says first against each leaf, or 0 where that is nothing.
    fn ask_openssl(&self, dir: &Path) -> Vec<u32> {
        let path = |name: &str| dir.join(name).to_str().unwrap().to_owned();
        let write = |name: &str, pem: String| std::fs::write(dir.join(name), pem).unwrap();
        write("trusted", self.pem(self.world.trusted.iter().copied()));
        write("presented", self.pem(self.world.presented.iter().copied()));
        let leaves: Vec<_> = self.world.leaves.iter().map(|leaf| path(&format!("leaf {leaf}"))).collect();
        for (leaf, path) in self.world.leaves.iter().zip(&leaves) {
            std::fs::write(path, self.pem([*leaf])).unwrap();
        }
        let mut command = Command::new("openssl");
        command.args(["verify", "-purpose", TLS_CLIENT.name, "-no-CApath", "-no-CAstore"]);
        command.args([
            "-verify_depth",
            &MAX_CERTIFICATES.to_string(),
            "-auth_level",
            &AUTH_LEVEL.to_string(),
        ]);
        command.args(["-attime", &self.world.now.0.to_string(), "-CAfile", &path("trusted")]);
        if !self.world.presented.is_empty() {
            command.args(["-untrusted", &path("presented")]);
        }
        if self.world.partial_chain {
            command.arg("-partial_chain");
        }
        let output = command.args(&leaves).output().unwrap();
        let (passed, refused) = (text(&output.stdout), text(&output.stderr));
        let said = format!("{command:?}\n{passed}{refused}");
        let mut codes = HashMap::new();
        for line in passed.lines() {
            codes.insert(line.strip_suffix(": OK").unwrap_or_else(|| panic!("{said}")).to_owned(), 0);
        }
        // It goes on after some errors. Verification ends with the first, unless somebody wants to hear of others.
        let mut first = None;
        for line in refused.lines() {
            if let Some((code, _)) = line.strip_prefix("error ").and_then(|rest| rest.split_once(" at ")) {
                first = first.or_else(|| code.parse().ok());
            } else if let Some(leaf) = line.strip_suffix(": verification failed") {
                let leaf = leaf.strip_prefix("error ").unwrap_or_else(|| panic!("{said}"));
                codes.insert(leaf.to_owned(), first.take().unwrap_or_else(|| panic!("{said}")));
            }
        }
        leaves.iter().map(|leaf| *codes.get(leaf).unwrap_or_else(|| panic!("{said}"))).collect()
    }

    /// The chain that was verified must be one that the judge has nothing against, and count as long as all of it does.
    fn check_chain(&self, leaf: usize, verified: &Verified) -> TestCaseResult {
        let digest = |position: usize| <[u8; 32]>::from(Sha256::digest(&self.ders[position]));
        let known = self.world.trusted.iter().chain(&self.world.presented);
        let by_digest: HashMap<_, _> = known.map(|&position| (digest(position), position)).collect();
        let mut chain = vec![leaf];
        for issuer in &verified.issuers {
            let Some(&position) = by_digest.get(issuer) else {
                return Err(TestCaseError::fail(format!("leaf {leaf} has an issuer that is not there")));
            };
            chain.push(position);
        }
        let anchor = chain[chain.len() - 1];
        prop_assert!(self.world.trusted.contains(&anchor) || chain.len() == 1, "{:?} is not anchored", chain);
        let plans: Vec<_> = chain.iter().map(|&position| &self.world.plans[position]).collect();
        let opinion = judge(&plans, TLS_CLIENT, self.world.partial_chain, self.world.now.0);
        prop_assert!(!matches!(opinion, Opinion::Invalid(_)), "{:?} passed, but {:?}", chain, opinion);
        prop_assert_eq!(verified.links().len(), chain.len() - 1);

        let from = plans.iter().map(|plan| plan.from.seconds()).max().unwrap().max(0);
        let until = plans.iter().map(|plan| plan.until.seconds()).min().unwrap();
        let at = |seconds: i64| UNIX_EPOCH + Duration::from_secs(seconds as u64);
        prop_assert!(verified.is_valid_at(at(from)) && verified.is_valid_at(at(until)));
        prop_assert!(
            !verified.is_valid_at(at(until + 1)) && (from == 0 || !verified.is_valid_at(at(from - 1)))
        );
        prop_assert_eq!(verified.leaf_ends(), at(plans[0].until.seconds()));
        Ok(())
    }

    /// Whether there is one chain only that the leaf could have, and the judge has nothing against it. Of several, OpenSSL
    /// takes one and does not come back; and above a CA that is trusted it looks among those alone.
    fn is_surely_valid(&self, leaf: usize) -> bool {
        let plans = &self.world.plans;
        let mut chain = vec![leaf];
        loop {
            let last = chain[chain.len() - 1];
            let is_trusted = self.world.trusted.contains(&last);
            let is_root = is_self_issued(&plans[last]) && identifiers_agree(&plans[last], &plans[last]);
            if is_trusted && (self.world.partial_chain || is_root) {
                break;
            }
            let presented = self.world.presented.iter().filter(|_| !is_trusted);
            let known = self.world.trusted.iter().chain(presented).copied();
            let is_named = |position: &usize| plans[*position].subject == plans[last].issuer;
            let candidates: BTreeSet<_> = known.filter(is_named).collect();
            let mut candidates = candidates.into_iter();
            let (Some(only), None) = (candidates.next(), candidates.next()) else { return false };
            if chain.contains(&only) || !identifiers_agree(&plans[last], &plans[only]) {
                return false;
            }
            chain.push(only);
        }
        let chain: Vec<_> = chain.iter().map(|&position| &plans[position]).collect();
        judge(&chain, TLS_CLIENT, self.world.partial_chain, self.world.now.0) == Opinion::Valid
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
