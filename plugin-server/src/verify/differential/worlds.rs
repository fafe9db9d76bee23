//! This knows how to think up CAs and leaves, what clients present of them and what is trusted, as strategies of `proptest`.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select, subsequence};

use super::certificates::{
    BASE, CRL_SIGN, Constraints, DAY, DIGITAL_SIGNATURE, Digest, ED25519, FAST_KEYS, General, KEY_AGREEMENT,
    KEY_CERT_SIGN, KEY_ENCIPHERMENT, Name, Oddity, Plan, RSA, RSA_512, RSA_1024, Usage, When,
};

/// CAs and leaves, what is presented and trusted of them, and when.
#[derive(Clone, Debug)]
pub(super) struct World {
    /// The CAs, and then the leaves.
    pub(super) plans: Vec<Plan>,
    pub(super) leaves: Vec<usize>,
    pub(super) trusted: Vec<usize>,
    /// What comes with each leaf, in this order.
    pub(super) presented: Vec<usize>,
    pub(super) partial_chain: bool,
    /// In seconds since 1970, and nanoseconds.
    pub(super) now: (i64, u32),
}

/// Whose a certificate of a CA is.
#[derive(Clone, Debug)]
enum Identity {
    New,
    /// Another certificate of an earlier CA, by the same issuer or another: renewed, or cross-signed.
    Again(Index),
    /// The name of an earlier CA and another key: its successor, or an impostor.
    SameName(Index),
    /// The key of an earlier CA under another name.
    SameKey(Index),
}

/// Who signs.
#[derive(Clone, Debug)]
enum Signer {
    Itself,
    Previous,
    Earlier(Index),
}

/// What is wrong with a certificate, or at least unusual.
#[derive(Clone, Debug)]
enum Flaw {
    Times(When, When),
    Basic(Option<(bool, Option<u8>)>),
    KeyUsage(Option<u8>),
    Usages(Option<Vec<Usage>>),
    Constraints(Constraints),
    /// Signed by another key than that of the issuer.
    SignedBy(usize),
    Key(usize),
    Digest(Digest),
    AuthorityKeyId(Option<usize>),
    KeyId(Option<usize>),
    Oddity(Oddity),
    Version1,
    /// Issued by itself.
    SelfSigned,
}

#[derive(Clone, Debug)]
struct Authority {
    identity: Identity,
    signer: Signer,
    flaws: Vec<Flaw>,
    is_trusted: bool,
    /// How often it is presented, and a number to sort by.
    is_presented: (usize, u16),
}

#[derive(Clone, Debug)]
struct Leaf {
    issuer: Option<Index>,
    key: usize,
    common_name: &'static str,
    organization: &'static str,
    names: Vec<General>,
    flaws: Vec<Flaw>,
}

/// A few CAs that sign each other in any way, or a long line of them.
pub(super) fn world() -> impl Strategy<Value = World> {
    let few = vec(authority(), 1..7);
    let line = vec(link(), 7..14);
    let authorities = prop_oneof![9 => few, 1 => line];
    let now = prop_oneof![
        8 => Just(BASE),
        2 => (select(&[BASE - DAY, BASE + DAY][..]), -1..=1_i64).prop_map(|(edge, beside)| edge + beside),
        1 => (-DAY..DAY).prop_map(|around| BASE + around),
    ];
    let nanoseconds = select(&[0, 1, 500_000_000, 999_999_999][..]);
    let brings_leaves = prop_oneof![9 => Just(false), 1 => Just(true)];
    (authorities, vec(leaf(), 1..9), brings_leaves, any::<bool>(), (now, nanoseconds)).prop_map(build)
}

fn authority() -> impl Strategy<Value = Authority> {
    let identity = prop_oneof![
        12 => Just(Identity::New),
        3 => any::<Index>().prop_map(Identity::Again),
        1 => any::<Index>().prop_map(Identity::SameName),
        1 => any::<Index>().prop_map(Identity::SameKey),
    ];
    let signer = prop_oneof![
        4 => Just(Signer::Previous),
        2 => any::<Index>().prop_map(Signer::Earlier),
        2 => Just(Signer::Itself),
    ];
    let flaws = prop_oneof![
        8 => Just(Vec::new()),
        2 => vec(flaw_of_authority(), 1..=1),
        1 => vec(flaw_of_authority(), 2..=3),
    ];
    (identity, signer, flaws, any::<u8>(), select(&[0, 1, 1, 1, 1, 1, 2][..]), any::<u16>()).prop_map(
        |(identity, signer, flaws, trusted, times, order)| {
            let is_root = matches!(signer, Signer::Itself);
            let is_trusted = trusted < if is_root { 200 } else { 40 };
            let times = if is_root { times / 2 } else { times };
            Authority { identity, signer, flaws, is_trusted, is_presented: (times, order) }
        },
    )
}

/// A CA in a long line, of which little but the length may be wrong.
fn link() -> impl Strategy<Value = Authority> {
    let flaws = prop_oneof![30 => Just(Vec::new()), 1 => vec(flaw_of_authority(), 1..=1)];
    (flaws, any::<u16>(), any::<u8>()).prop_map(|(flaws, order, trusted)| Authority {
        identity: Identity::New,
        signer: Signer::Previous,
        flaws,
        is_trusted: trusted < 8,
        is_presented: (1, order),
    })
}

fn leaf() -> impl Strategy<Value = Leaf> {
    let issuer = prop_oneof![2 => Just(None), 3 => any::<Index>().prop_map(Some)];
    let key = prop_oneof![8 => 0..FAST_KEYS, 1 => select(&[RSA, ED25519, RSA_1024][..])];
    let flaws = prop_oneof![
        7 => Just(Vec::new()),
        3 => vec(flaw_of_leaf(), 1..=1),
        1 => vec(flaw_of_leaf(), 2..=3),
    ];
    let common_name = select(&["alice", "alice.example", "evil.test"][..]);
    let names = prop_oneof![1 => Just(Vec::new()), 2 => subsequence(names(), 1..=3)];
    (issuer, key, common_name, organization(), names, flaws).prop_map(
        |(issuer, key, common_name, organization, names, flaws)| Leaf {
            issuer,
            key,
            common_name,
            organization,
            names,
            flaws,
        },
    )
}

fn organization() -> impl Strategy<Value = &'static str> {
    select(&["acme", "acme", "acme", "other"][..])
}

fn names() -> Vec<General> {
    vec![
        General::Dns("alice.example"),
        General::Dns("Alice.Example"),
        General::Dns("notexample"),
        General::Dns("evil.test"),
        General::Email("alice@example"),
        General::Email("alice@evil.test"),
        General::Uri("https://alice.example/x"),
        General::Organization("acme"),
        General::Organization("other"),
        General::Ip(&[10, 0, 0, 1]),
        General::Ip(&[192, 0, 2, 1]),
    ]
}

fn constraints() -> impl Strategy<Value = Constraints> {
    let bases = vec![
        General::Dns("example"),
        General::Dns(".example"),
        General::Dns("evil.test"),
        General::Dns(""),
        General::Email("example"),
        General::Email("alice@example"),
        General::Uri("alice.example"),
        General::Organization("acme"),
        General::Organization("other"),
        General::Ip(&[10, 0, 0, 0, 255, 0, 0, 0]),
        General::Ip(&[0; 8]),
    ];
    (subsequence(bases.clone(), 0..=3), subsequence(bases, 0..=2))
        .prop_filter("says something", |(permitted, excluded)| permitted.len() + excluded.len() > 0)
        .prop_map(|(permitted, excluded)| Constraints { permitted, excluded })
}

fn times() -> impl Strategy<Value = Flaw> {
    let at = |seconds| When::At(BASE + seconds);
    select(vec![
        (at(-DAY), at(-60)),
        (at(-DAY), at(-1)),
        (at(-DAY), at(0)),
        (at(-DAY), at(1)),
        (at(0), at(DAY)),
        (at(1), at(DAY)),
        (at(60), at(DAY)),
        (at(DAY), at(-DAY)),
        (at(-2 * DAY), at(2 * DAY)),
        (When::First, When::Last),
    ])
    .prop_map(|(from, until)| Flaw::Times(from, until))
}

fn usages() -> impl Strategy<Value = Flaw> {
    use Usage::{Any, Client, CodeSigning, Server};
    select(vec![
        None,
        Some(vec![Client]),
        Some(vec![Server]),
        Some(vec![Server, Client]),
        Some(vec![CodeSigning]),
        Some(vec![Any]),
    ])
    .prop_map(Flaw::Usages)
}

fn key_usages() -> impl Strategy<Value = Flaw> {
    let both = KEY_CERT_SIGN | CRL_SIGN;
    select(vec![
        None,
        Some(DIGITAL_SIGNATURE),
        Some(KEY_ENCIPHERMENT),
        Some(KEY_AGREEMENT),
        Some(KEY_ENCIPHERMENT | KEY_AGREEMENT),
        Some(CRL_SIGN),
        Some(KEY_CERT_SIGN),
        Some(both | DIGITAL_SIGNATURE),
    ])
    .prop_map(Flaw::KeyUsage)
}

/// What may be wrong with any certificate.
fn flaw() -> impl Strategy<Value = Flaw> {
    use Oddity::{
        BasicTwice, ConstraintsCannotBeRead, NamesCannotBeRead, NamesTwice, Unknown, UnknownCritical,
    };
    let oddities =
        vec![UnknownCritical, Unknown, NamesCannotBeRead, NamesTwice, ConstraintsCannotBeRead, BasicTwice];
    let key = 0..=RSA_512;
    prop_oneof![
        4 => times(),
        3 => usages(),
        3 => key_usages(),
        1 => (0..FAST_KEYS).prop_map(Flaw::SignedBy),
        1 => select(&[RSA, ED25519, RSA_1024, RSA_512][..]).prop_map(Flaw::Key),
        1 => select(&[Digest::Md5, Digest::Sha1][..]).prop_map(Flaw::Digest),
        1 => proptest::option::of(key.clone()).prop_map(Flaw::AuthorityKeyId),
        1 => proptest::option::of(key).prop_map(Flaw::KeyId),
        2 => select(oddities).prop_map(Flaw::Oddity),
        1 => Just(Flaw::Version1),
    ]
}

fn flaw_of_authority() -> impl Strategy<Value = Flaw> {
    let basic = select(vec![
        None,
        Some((false, None)),
        Some((true, Some(0))),
        Some((true, Some(0))),
        Some((true, Some(1))),
        Some((true, Some(2))),
    ]);
    prop_oneof![
        4 => flaw(),
        2 => basic.prop_map(Flaw::Basic),
        2 => constraints().prop_map(Flaw::Constraints),
    ]
}

fn flaw_of_leaf() -> impl Strategy<Value = Flaw> {
    prop_oneof![
        18 => flaw(),
        2 => select(vec![Some((false, None)), Some((true, None))]).prop_map(Flaw::Basic),
        1 => Just(Flaw::SelfSigned),
    ]
}

type Moment = (i64, u32);

fn build(
    (authorities, leaves, brings_leaves, partial_chain, now): (Vec<Authority>, Vec<Leaf>, bool, bool, Moment),
) -> World {
    let mut plans: Vec<Plan> = Vec::new();
    for (position, authority) in authorities.iter().enumerate() {
        let plan = plan_of_authority(position, authority, &plans);
        plans.push(plan);
    }
    let count = authorities.len();
    for leaf in &leaves {
        let issuer = leaf.issuer.map_or(count - 1, |index| index.index(count));
        let plan = plan_of_leaf(plans.len(), leaf, &plans[issuer]);
        plans.push(plan);
    }
    let mut trusted: Vec<_> = (0..count).filter(|&position| authorities[position].is_trusted).collect();
    if trusted.is_empty() {
        trusted.push(0);
    }
    let mut presented: Vec<_> =
        (0..count).flat_map(|position| vec![position; authorities[position].is_presented.0]).collect();
    presented.sort_by_key(|&position| authorities[position].is_presented.1);
    let leaves: Vec<_> = (count..plans.len()).collect();
    if brings_leaves {
        presented.splice(0..0, leaves.iter().copied());
    }
    World { plans, leaves, trusted, presented, partial_chain, now }
}

fn plan_of_authority(position: usize, authority: &Authority, earlier: &[Plan]) -> Plan {
    let new_name = Name {
        organization: if position % 4 == 3 { "other" } else { "acme" },
        common_name: format!("ca {position}"),
    };
    let new_key = position % FAST_KEYS;
    let pick = |index: &Index| (!earlier.is_empty()).then(|| &earlier[index.index(earlier.len())]);
    let (subject, key) = match &authority.identity {
        Identity::New => (new_name, new_key),
        Identity::Again(index) => {
            pick(index).map_or((new_name, new_key), |plan| (plan.subject.clone(), plan.key))
        }
        Identity::SameName(index) => {
            (pick(index).map_or(new_name, |plan| plan.subject.clone()), (new_key + 1) % FAST_KEYS)
        }
        Identity::SameKey(index) => (new_name, pick(index).map_or(new_key, |plan| plan.key)),
    };
    let issuer = match &authority.signer {
        Signer::Itself => None,
        Signer::Previous => earlier.last(),
        Signer::Earlier(index) => pick(index),
    };
    let plan = Plan {
        serial: position as u8 + 1,
        issuer: issuer.map_or_else(|| subject.clone(), |issuer| issuer.subject.clone()),
        signed_by: issuer.map_or(key, |issuer| issuer.key),
        authority_key_id: issuer.map(|issuer| issuer.key),
        subject,
        key,
        from: When::At(BASE - DAY),
        until: When::At(BASE + DAY),
        basic: Some((true, None)),
        key_usage: Some(KEY_CERT_SIGN | CRL_SIGN),
        usages: None,
        names: Vec::new(),
        constraints: None,
        key_id: Some(key),
        digest: Digest::Sha256,
        oddities: Vec::new(),
        is_version_1: false,
    };
    authority.flaws.iter().fold(plan, with_flaw)
}

fn plan_of_leaf(position: usize, leaf: &Leaf, issuer: &Plan) -> Plan {
    let plan = Plan {
        serial: position as u8 + 1,
        subject: Name { organization: leaf.organization, common_name: leaf.common_name.into() },
        issuer: issuer.subject.clone(),
        key: leaf.key,
        signed_by: issuer.key,
        from: When::At(BASE - DAY),
        until: When::At(BASE + DAY),
        basic: None,
        key_usage: Some(DIGITAL_SIGNATURE),
        usages: Some(vec![Usage::Client]),
        names: leaf.names.clone(),
        constraints: None,
        key_id: None,
        authority_key_id: Some(issuer.key),
        digest: Digest::Sha256,
        oddities: Vec::new(),
        is_version_1: false,
    };
    leaf.flaws.iter().fold(plan, with_flaw)
}

fn with_flaw(mut plan: Plan, flaw: &Flaw) -> Plan {
    match flaw.clone() {
        Flaw::Times(from, until) => (plan.from, plan.until) = (from, until),
        Flaw::Basic(basic) => plan.basic = basic,
        Flaw::KeyUsage(bits) => plan.key_usage = bits,
        Flaw::Usages(usages) => plan.usages = usages,
        Flaw::Constraints(constraints) => plan.constraints = Some(constraints),
        Flaw::SignedBy(key) => plan.signed_by = key,
        Flaw::Key(key) => {
            // A self-signed certificate is signed with its new key; others know this one by its old number only.
            if plan.signed_by == plan.key && plan.issuer == plan.subject {
                plan.signed_by = key;
            }
            if plan.key_id.is_some() {
                plan.key_id = Some(key);
            }
            plan.key = key;
        }
        Flaw::Digest(digest) => plan.digest = digest,
        Flaw::AuthorityKeyId(key) => plan.authority_key_id = key,
        Flaw::KeyId(key) => plan.key_id = key,
        Flaw::Oddity(oddity) => plan.oddities.push(oddity),
        Flaw::Version1 => plan.is_version_1 = true,
        Flaw::SelfSigned => {
            (plan.issuer, plan.signed_by) = (plan.subject.clone(), plan.key);
            plan.authority_key_id = None;
        }
    }
    plan
}
