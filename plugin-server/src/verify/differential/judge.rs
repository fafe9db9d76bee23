//! This knows whether a chain is valid, by what its certificates were meant to say: RFC 5280, section 6.1, written down a
//! second time, with what OpenSSL asks beyond it.

use super::certificates::{
    DIGITAL_SIGNATURE, Digest, ED25519, General, KEY_AGREEMENT, KEY_CERT_SIGN, Oddity, Plan, RSA_512, Usage,
};
use crate::verify::MAX_CERTIFICATES;

/// What the judge thinks of a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Opinion {
    Valid,
    Invalid(&'static str),
    /// There are rules in it that the judge does not know: constraints on email addresses and URIs.
    Unsure,
}

/// What the certificates of a chain are to be good for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Purpose {
    /// What `openssl verify` calls it.
    pub(super) name: &'static str,
    /// What the leaf may be used for, where it says.
    pub(super) usage: Usage,
    /// What its key may be used for, one of these where it says.
    pub(super) key_usage: u8,
}

/// TLS clients sign, or agree on a key with a fixed one of theirs (RFC 5280, section 4.2.1.12).
pub(super) const TLS_CLIENT: Purpose =
    Purpose { name: "sslclient", usage: Usage::Client, key_usage: DIGITAL_SIGNATURE | KEY_AGREEMENT };

/// Judges a chain from the leaf to its anchor, at a time in seconds since 1970.
pub(super) fn judge(chain: &[&Plan], purpose: Purpose, partial_chain: bool, now: i64) -> Opinion {
    let [leaf, .., anchor] = chain else { return judge_alone(chain, purpose, partial_chain, now) };
    if chain.len() > MAX_CERTIFICATES + 2 {
        return Opinion::Invalid("too long");
    }
    for pair in chain.windows(2) {
        if pair[0].issuer != pair[1].subject || pair[0].signed_by != pair[1].key {
            return Opinion::Invalid("one did not issue the next");
        }
        if is_weak(pair[0].digest, pair[0].signed_by) {
            return Opinion::Invalid("a weak signature");
        }
    }
    if !partial_chain && !is_self_issued(anchor) {
        return Opinion::Invalid("it does not end in a root");
    }
    if let Some(wrong) = wrong_in_any(chain, now).or_else(|| wrong_in_leaf(leaf, purpose)) {
        return Opinion::Invalid(wrong);
    }
    let mut is_sure = true;
    for (position, issuer) in chain.iter().enumerate().skip(1) {
        let below = &chain[..position];
        match wrong_in_issuer(issuer, below, purpose) {
            Some(wrong) => return Opinion::Invalid(wrong),
            None => is_sure &= knows_constraints(issuer),
        }
    }
    if is_sure { Opinion::Valid } else { Opinion::Unsure }
}

/// A client that presents what is itself an anchor.
fn judge_alone(chain: &[&Plan], purpose: Purpose, partial_chain: bool, now: i64) -> Opinion {
    let [leaf] = chain else { return Opinion::Invalid("no chain") };
    if !partial_chain && !is_self_issued(leaf) {
        return Opinion::Invalid("it does not end in a root");
    }
    match wrong_in_any(chain, now).or_else(|| wrong_in_leaf(leaf, purpose)) {
        Some(wrong) => Opinion::Invalid(wrong),
        None => Opinion::Valid,
    }
}

/// Whether the identifiers say that one key is the other, or nothing. They are there to find issuers quickly; where they
/// contradict each other, OpenSSL does not look further.
pub(super) fn identifiers_agree(subject: &Plan, issuer: &Plan) -> bool {
    match (subject.authority_key_id, issuer.key_id) {
        (Some(wanted), Some(id)) if !subject.is_version_1 && !issuer.is_version_1 => wanted == id,
        _ => true,
    }
}

pub(super) fn is_self_issued(plan: &Plan) -> bool {
    plan.subject == plan.issuer
}

fn is_weak(digest: Digest, signed_by: usize) -> bool {
    digest != Digest::Sha256 && signed_by != ED25519
}

fn wrong_in_any(chain: &[&Plan], now: i64) -> Option<&'static str> {
    let wrong = |plan: &&Plan| {
        if now < plan.from.seconds() {
            return Some("not yet valid");
        }
        // OpenSSL lets a certificate end with its last second, not after it.
        if now >= plan.until.seconds() {
            return Some("expired");
        }
        if plan.key == RSA_512 {
            return Some("a weak key");
        }
        let is_wrong = |oddity: &Oddity| *oddity != Oddity::Unknown;
        (!plan.is_version_1 && plan.oddities.iter().any(is_wrong))
            .then_some("an extension that must be understood and cannot be")
    };
    chain.iter().find_map(wrong)
}

fn wrong_in_leaf(leaf: &Plan, purpose: Purpose) -> Option<&'static str> {
    if leaf.is_version_1 {
        return None;
    }
    if leaf.usages.as_ref().is_some_and(|usages| !usages.contains(&purpose.usage)) {
        return Some("not for this purpose");
    }
    leaf.key_usage.is_some_and(|bits| bits & purpose.key_usage == 0).then_some("a key for something else")
}

fn wrong_in_issuer(issuer: &Plan, below: &[&Plan], purpose: Purpose) -> Option<&'static str> {
    if issuer.is_version_1 {
        return Some("not a CA");
    }
    let Some((true, path_length)) = issuer.basic else { return Some("not a CA") };
    if issuer.key_usage.is_some_and(|bits| bits & KEY_CERT_SIGN == 0) {
        return Some("a CA that may not sign certificates");
    }
    if issuer.usages.as_ref().is_some_and(|usages| !usages.contains(&purpose.usage)) {
        return Some("a CA for other purposes");
    }
    let between = below[1..].iter().filter(|plan| !is_self_issued(plan)).count();
    if path_length.is_some_and(|most| between > usize::from(most)) {
        return Some("a longer path than a CA allows");
    }
    let constraints = issuer.constraints.as_ref()?;
    let all_names = constrained(below).flat_map(|(plan, is_leaf)| names(plan, is_leaf));
    for name in all_names {
        if constraints.excluded.iter().any(|base| is_within(&name, base) == Some(true)) {
            return Some("an excluded name");
        }
        let mut of_its_kind =
            constraints.permitted.iter().filter_map(|base| is_within(&name, base)).peekable();
        if of_its_kind.peek().is_some() && !of_its_kind.any(|is_within| is_within) {
            return Some("a name that is not among the permitted ones");
        }
    }
    None
}

/// Which certificates constraints are about (section 6.1.4, g), and whether each is the leaf.
fn constrained<'a>(below: &'a [&Plan]) -> impl Iterator<Item = (&'a Plan, bool)> {
    let all = below.iter().enumerate().map(|(position, plan)| (*plan, position == 0));
    all.filter(|(plan, is_leaf)| *is_leaf || !is_self_issued(plan))
}

/// Its names, of the kinds that the judge knows. The CN of a leaf that has no DNS names counts as one where it looks like
/// one.
fn names(plan: &Plan, is_leaf: bool) -> Vec<General> {
    let mut names = vec![General::Organization(plan.subject.organization)];
    if !plan.is_version_1 {
        names.extend_from_slice(&plan.names);
    }
    let has_dns = names.iter().any(|name| matches!(name, General::Dns(_)));
    if is_leaf && !has_dns && plan.subject.common_name.contains('.') {
        // Of the few that there are.
        names.push(General::Dns(if plan.subject.common_name == "alice.example" {
            "alice.example"
        } else {
            "evil.test"
        }));
    }
    names
}

/// None where the two are of different kinds.
fn is_within(name: &General, base: &General) -> Option<bool> {
    match (name, base) {
        (General::Dns(name), General::Dns(base)) => {
            Some(match name.to_ascii_lowercase().strip_suffix(base) {
                Some(rest) => {
                    rest.is_empty() || base.is_empty() || base.starts_with('.') || rest.ends_with('.')
                }
                None => false,
            })
        }
        (General::Organization(name), General::Organization(base)) => Some(name == base),
        (General::Ip(address), General::Ip(base)) => {
            let (network, mask) = base.split_at(base.len() / 2);
            let masked =
                |bits: &[u8]| bits.iter().zip(mask).map(|(bits, mask)| bits & mask).collect::<Vec<_>>();
            Some(address.len() == network.len() && masked(address) == masked(network))
        }
        _ => None,
    }
}

fn knows_constraints(issuer: &Plan) -> bool {
    let bases = issuer.constraints.iter().flat_map(|both| both.permitted.iter().chain(&both.excluded));
    !{ bases }.any(|base| matches!(base, General::Email(_) | General::Uri(_)))
}
