//! What must hold for any value, and for any that is almost a front's.

use client_cert::Presented;
use client_cert::front::{Format, FrontError, decode};
use proptest::prelude::*;
use proptest::sample::{Index, select};

use crate::encoders::{FRONTS, Front};
use crate::{CERTIFICATES, meant};

/// A change of a value such as an attacker or a broken front could make. Each is too small to remove a certificate:
/// nothing in these headers could show that one is missing.
#[derive(Clone, Debug)]
enum Edit {
    Replace(Index, u8),
    Insert(Index, Vec<u8>),
    Remove(Index, usize),
    Swap(Index, Index),
    Repeat(Index, Index),
}

impl Edit {
    fn apply(&self, value: &mut Vec<u8>) {
        let length = value.len();
        match self {
            Self::Replace(at, byte) => value[at.index(length)] = *byte,
            Self::Insert(at, bytes) => {
                let at = at.index(length + 1);
                value.splice(at..at, bytes.iter().copied());
            }
            Self::Remove(at, count) => {
                let at = at.index(length);
                value.drain(at..length.min(at + count));
            }
            Self::Swap(one, other) => value.swap(one.index(length), other.index(length)),
            Self::Repeat(from, to) => {
                let (from, to) = (from.index(length), to.index(length));
                let slice = value[from.min(to)..=from.max(to)].to_vec();
                value.splice(from..from, slice);
            }
        }
    }
}

/// What means something in one of the forms.
const TOKENS: [&str; 25] = [
    "-----BEGIN CERTIFICATE-----",
    "-----END CERTIFICATE-----",
    "-----BEGIN%20",
    "%0A",
    "%",
    "%2",
    "%00",
    ",",
    ", ",
    ";",
    ":",
    "\"",
    "\\",
    "=",
    "+",
    " ",
    "\t",
    "MIIB",
    "Cert=",
    "Chain=\"",
    "Hash=",
    "URI=",
    "(null)",
    "{",
    "\0",
];

fn piece() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => select(&TOKENS[..]).prop_map(|token| token.as_bytes().to_vec()),
        1 => proptest::collection::vec(any::<u8>(), 0..4),
    ]
}

fn edit() -> impl Strategy<Value = Edit> {
    prop_oneof![
        (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Edit::Replace(at, byte)),
        (any::<Index>(), piece()).prop_map(|(at, bytes)| Edit::Insert(at, bytes)),
        (any::<Index>(), 1..8usize).prop_map(|(at, count)| Edit::Remove(at, count)),
        (any::<Index>(), any::<Index>()).prop_map(|(one, other)| Edit::Swap(one, other)),
        (any::<Index>(), any::<Index>()).prop_map(|(from, to)| Edit::Repeat(from, to)),
    ]
}

/// A front, and the certificates that a client sends to it, in any order.
fn front_and_ders() -> impl Strategy<Value = (Front, Vec<&'static [u8]>)> {
    let all: Vec<&[u8]> = CERTIFICATES.iter().map(Vec::as_slice).collect();
    let some = Just(all)
        .prop_shuffle()
        .prop_flat_map(|all| (1..=5usize).prop_map(move |count| all[..count].to_vec()));
    (select(&FRONTS[..]), some)
}

/// What is read of a value under each format.
fn under_each_format(value: &[u8]) -> [Result<Option<Presented>, FrontError>; 2] {
    [Format::Base64Encoded, Format::UrlEncoded].map(|format| decode(format, &[value]))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_make_it_panic_or_have_two_readings(value in proptest::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(under_each_format(&value).iter().flatten().count() <= 1 || value.is_empty());
    }

    #[test]
    fn no_likely_bytes_make_it_panic_or_have_two_readings(pieces in proptest::collection::vec(piece(), 0..40)) {
        let value = pieces.concat();
        prop_assert!(under_each_format(&value).iter().flatten().count() <= 1 || value.is_empty());
    }

    #[test]
    fn whatever_a_client_sends_is_read_as_the_front_means_it((front, ders) in front_and_ders()) {
        prop_assert_eq!(decode(front.format, &[(front.encode)(&ders)]), Ok(Some(meant(&front, &ders))));
    }

    /// A changed value may be read as the same leaf, or as bytes that nobody has signed; never as another certificate,
    /// never under both formats, and never as none. Envoy's digest leaves only the same leaf.
    #[test]
    fn a_changed_value_gives_no_other_certificate(
        (front, ders) in front_and_ders(),
        edits in proptest::collection::vec(edit(), 1..4),
    ) {
        let mut value = (front.encode)(&ders).into_bytes();
        edits.iter().for_each(|edit| edit.apply(&mut value));
        let results = under_each_format(&value);
        let read: Vec<_> = results.iter().flatten().collect();
        prop_assert!(read.len() <= 1);
        for presented in read {
            let presented = presented.as_ref().expect("a certificate, as the value is not empty");
            let others = CERTIFICATES.iter().filter(|der| *der != ders[0]);
            prop_assert!(others.into_iter().all(|other| presented.leaf != *other));
            if front.name.starts_with("Envoy") {
                prop_assert_eq!(&presented.leaf, ders[0]);
            }
        }
    }
}
