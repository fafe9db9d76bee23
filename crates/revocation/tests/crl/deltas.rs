//! Delta CRLs.

use std::time::{Duration, SystemTime};

use revocation::crl::{Source, status};
use revocation::{DistributionPoint, Status};
use testbed::crl::{FRESHEST_CRL, Forged, ISSUING_DISTRIBUTION_POINT, full_name, points, tlv};

use crate::common::{HOUR, SERIAL, World, assert_good, assert_revoked, assert_trouble, says, with_deltas};

const KEY_COMPROMISE: u8 = 1;
const HOLD: u8 = 6;
const REMOVE: u8 = 8;

/// What a complete CRL and one delta CRL say, and the code of the trouble with the delta, if any.
#[track_caller]
fn together(
    world: &World,
    complete: &Forged,
    delta: &Forged,
) -> (Result<revocation::Answer, revocation::Trouble>, Vec<&'static str>) {
    let link = world.link(World::subject());
    let verdict = with_deltas(&link, None, &world.crl(complete), &[&world.crl(delta)]);
    (verdict.answer, verdict.deltas_left_out.iter().map(revocation::Trouble::code).collect())
}

#[test]
fn a_delta_revokes_what_the_complete_one_does_not_know_yet_and_takes_out_what_was_on_hold() {
    let world = World::new();
    let delta = world.forged().number(5).delta_from(4);
    assert!(world.crl(&delta).is_delta());
    let empty = world.forged().number(4);
    let listed = empty.clone().entry_for(SERIAL, HOLD);
    for (complete, delta, revoked) in [
        (&empty, delta.clone(), false),
        (&empty, delta.clone().entry_for(SERIAL, KEY_COMPROMISE), true),
        (&empty, delta.clone().entry_for(SERIAL, REMOVE), false),
        (&listed, delta.clone(), true),
        (&listed, delta.clone().entry_for(&[1], REMOVE), true),
        (&listed, delta.clone().entry_for(SERIAL, REMOVE), false),
        (&listed, delta.clone().entry_for(SERIAL, HOLD), true),
        // Both: revoked it is.
        (&listed, delta.clone().entry_for(SERIAL, REMOVE).entry_for(SERIAL, HOLD), true),
        (&listed, delta.entry_for(SERIAL, HOLD).entry_for(SERIAL, REMOVE), true),
    ] {
        let (answer, left_out) = together(&world, complete, &delta);
        assert!(left_out.is_empty(), "{left_out:?}");
        if revoked { assert_revoked(&answer) } else { assert_good(&answer) }
    }
}

#[test]
fn a_complete_crl_takes_nothing_out() {
    let world = World::new();
    assert_revoked(&world.says(&world.forged().entry_for(SERIAL, REMOVE)));
}

#[test]
fn a_delta_alone_never_says_good() {
    let world = World::new();
    let delta = world.forged().number(5).delta_from(4);
    assert_trouble(&world.says(&delta), "not_covered");
    assert_trouble(&world.says(&delta.clone().entry_for(SERIAL, REMOVE)), "not_covered");
    assert_revoked(&world.says(&delta.entry_for(SERIAL, HOLD)));
}

#[test]
fn two_deltas_are_no_complete_crl() {
    let world = World::new();
    let of = |number: u8| world.crl(&world.forged().number(number).delta_from(1));
    let verdict = with_deltas(&world.link(World::subject()), None, &of(2), &[&of(3)]);
    assert_trouble(&verdict.answer, "not_covered");
}

#[test]
fn a_delta_that_does_not_go_with_the_complete_one_is_left_out_and_that_is_told() {
    let world = World::new();
    let about = |forged: Forged, uri: &str| {
        forged.extension(ISSUING_DISTRIBUTION_POINT, true, &tlv(0x30, &[&full_name(&[uri])]))
    };
    let listed = world.forged().number(4).entry_for(SERIAL, HOLD);
    let without_number = world.forged().entry_for(SERIAL, HOLD);
    let delta = world.forged().entry_for(SERIAL, REMOVE);
    for (complete, delta) in [
        // Neither has a number, or only one.
        (&without_number, delta.clone().delta_from(4)),
        (&listed, delta.clone().delta_from(4)),
        (&without_number, delta.clone().number(5).delta_from(4)),
        // It begins later than the complete one.
        (&listed, delta.clone().number(6).delta_from(5)),
        (&listed, delta.clone().number(255).delta_from(128)),
        // It is older.
        (&listed, delta.clone().number(3).delta_from(2)),
        // It is about a part only.
        (&listed, about(delta.clone().number(5).delta_from(4), "http://crl.test/a")),
        // It is none.
        (&listed, delta.clone().number(5)),
    ] {
        let (answer, left_out) = together(&world, complete, &delta);
        assert_revoked(&answer);
        assert_eq!(left_out, ["not_covered"]);
    }
    // As new as the complete one: it says the same (RFC 5280, section 5.2.4), and is not left out.
    let (_, left_out) = together(&world, &listed, &delta.clone().number(4).delta_from(1));
    assert!(left_out.is_empty());
    // It is another's.
    let link = world.link(World::subject());
    let namesake = World::new();
    let others = namesake.crl(&delta.number(5).delta_from(4));
    let verdict = with_deltas(&link, None, &world.crl(&listed), &[&others]);
    assert_revoked(&verdict.answer);
    assert_eq!(verdict.deltas_left_out[0].code(), "something_else");
}

#[test]
fn a_delta_that_is_left_out_revokes_all_the_same_unless_the_complete_one_is_newer() {
    let world = World::new();
    let part = |forged: Forged| {
        forged.extension(ISSUING_DISTRIBUTION_POINT, true, &tlv(0x30, &[&full_name(&["http://crl.test/a"])]))
    };
    let complete = world.forged().number(4);
    let delta = world.forged().entry_for(SERIAL, KEY_COMPROMISE);
    for (delta, revokes) in [
        (delta.clone().number(6).delta_from(5), true),
        (delta.clone().delta_from(4), true),
        (part(delta.clone().number(5).delta_from(4)), true),
        // Its numbers are others than those of the complete one.
        (part(delta.clone().number(3).delta_from(2)), true),
        (delta.clone().number(4), true),
        (delta.clone().number(3).delta_from(2), false),
        (delta.clone().number(3), false),
    ] {
        let (answer, left_out) = together(&world, &complete, &delta);
        assert_eq!(left_out, ["not_covered"]);
        if revokes { assert_revoked(&answer) } else { assert_good(&answer) }
    }
}

#[test]
fn a_delta_goes_with_a_complete_one_of_the_same_part() {
    let world = World::new();
    let of = |forged: Forged, uri: &str| {
        let der = tlv(0x30, &[&full_name(&[uri])]);
        world.crl(&forged.extension(ISSUING_DISTRIBUTION_POINT, true, &der))
    };
    let (a, b) = ("http://crl.test/a", "http://crl.test/b");
    let link = world.link_with_points(&points(&[&[&full_name(&[a])]]));
    let complete = of(world.forged().number(4), a);
    let delta = world.forged().number(5).delta_from(4).entry_for(SERIAL, KEY_COMPROMISE);
    let point = Some(&link.distribution_points[0]);
    assert_revoked(&with_deltas(&link, point, &complete, &[&of(delta.clone(), a)]).answer);
    let verdict = with_deltas(&link, point, &complete, &[&of(delta, b)]);
    assert_revoked(&verdict.answer);
    assert_eq!(verdict.deltas_left_out.len(), 1);
    let taken_out = of(world.forged().number(5).delta_from(4).entry_for(SERIAL, REMOVE), b);
    let on_hold = of(world.forged().number(4).entry_for(SERIAL, HOLD), a);
    assert_revoked(&with_deltas(&link, point, &on_hold, &[&taken_out]).answer);
}

#[test]
fn numbers_are_compared_as_numbers() {
    let world = World::new();
    let number = |forged: Forged, number: u8, octets: &[u8]| {
        forged.extension(number, number == 27, &testbed::crl::integer(octets))
    };
    let listed = number(world.forged().entry_for(SERIAL, HOLD), 20, &[0x01, 0x00]);
    let delta = |base: &[u8], this: &[u8]| {
        number(number(world.forged().entry_for(SERIAL, REMOVE), 27, base), 20, this)
    };
    // 255 begins before 256, and 257 comes after it.
    assert_good(&together(&world, &listed, &delta(&[0x00, 0xff], &[0x01, 0x01])).0);
    assert_good(&together(&world, &listed, &delta(&[0x00], &[0x01; 20])).0);
    assert_revoked(&together(&world, &listed, &delta(&[0x01, 0x01], &[0x01, 0x02])).0);
    assert_revoked(&together(&world, &listed, &delta(&[0x00], &[0x00, 0xff])).0);
}

#[test]
fn of_several_deltas_the_newest_counts() {
    let world = World::new();
    let link = world.link(World::subject());
    let complete = world.crl(&world.forged().number(1));
    let on_hold = world.crl(&world.forged().number(2).delta_from(1).entry_for(SERIAL, HOLD));
    let taken_out = world.crl(&world.forged().number(3).delta_from(1).entry_for(SERIAL, REMOVE));
    for deltas in [[&on_hold, &taken_out], [&taken_out, &on_hold]] {
        assert_good(&with_deltas(&link, None, &complete, &deltas).answer);
    }
    assert_revoked(&with_deltas(&link, None, &complete, &[&on_hold]).answer);
}

#[test]
fn a_delta_whose_time_is_over_revokes_and_takes_nothing_out() {
    let world = World::new();
    let now = SystemTime::now();
    let old = |reason| {
        let delta = world.forged().time(now - 2 * HOUR, Some(now - HOUR)).number(5).delta_from(4);
        delta.entry_for(SERIAL, reason)
    };
    let empty = world.forged().number(4);
    let (answer, left_out) = together(&world, &empty, &old(KEY_COMPROMISE));
    assert_revoked(&answer);
    assert_eq!(left_out, ["stale"]);
    assert_eq!(answer.unwrap().next_update, world.crl(&empty).next_update());
    assert_revoked(&together(&world, &empty.clone().entry_for(SERIAL, HOLD), &old(REMOVE)).0);
    // One of the future does neither.
    let future = world.forged().time(now + HOUR, Some(now + 2 * HOUR)).number(5).delta_from(4);
    let (answer, left_out) = together(&world, &empty, &future.clone().entry_for(SERIAL, KEY_COMPROMISE));
    assert_good(&answer);
    assert_eq!(left_out, ["from_the_future"]);
    assert_revoked(&together(&world, &empty.entry_for(SERIAL, HOLD), &future.entry_for(SERIAL, REMOVE)).0);
}

#[test]
fn a_complete_crl_whose_time_is_over_says_nothing_also_with_a_delta_unless_that_revokes() {
    let world = World::new();
    let now = SystemTime::now();
    let old = world.forged().time(now - 2 * HOUR, Some(now - HOUR)).number(4);
    let delta = world.forged().number(5).delta_from(4);
    assert_trouble(&together(&world, &old, &delta).0, "stale");
    assert_trouble(
        &together(&world, &old.clone().entry_for(SERIAL, HOLD), &delta.clone().entry_for(SERIAL, REMOVE)).0,
        "stale",
    );
    assert_revoked(&together(&world, &old, &delta.entry_for(SERIAL, KEY_COMPROMISE)).0);
    // Also where it goes with a later one; not where its own time is over as well.
    let later = world.forged().number(6).delta_from(5).entry_for(SERIAL, KEY_COMPROMISE);
    assert_revoked(&together(&world, &old, &later).0);
    let over = later.time(now - 2 * HOUR, Some(now - HOUR));
    assert_trouble(&together(&world, &old, &over).0, "stale");
}

#[test]
fn an_answer_with_a_delta_counts_until_the_first_of_the_two_ends() {
    let world = World::new();
    let now = SystemTime::now();
    let link = world.link(World::subject());
    let complete = world.crl(&world.forged().time(now - 5 * HOUR, Some(now + 9 * HOUR)).number(4));
    let delta = world.crl(&world.forged().time(now - HOUR, Some(now + HOUR)).number(5).delta_from(4));
    let sources = [Source { point: None, complete: &complete, deltas: &[&delta] }];
    let answer = status(&link, &sources, now, Duration::ZERO).answer.unwrap();
    assert_eq!(answer.status, Status::Good);
    assert_eq!((answer.this_update, answer.next_update), (delta.this_update(), delta.next_update()));
}

#[test]
fn where_deltas_are_to_be_had_is_read_of_certificates_and_crls() {
    let world = World::new();
    let uri = "http://crl.test/delta.crl";
    let der = points(&[&[&full_name(&["ldap://crl.test/x", uri])]]);
    let link = world.link(World::subject().extension(&[2, 5, 29, 46], &der));
    let crl = world.crl(&world.forged().extension(FRESHEST_CRL, false, &der));
    for points in [&link.freshest_points[..], crl.freshest_points()] {
        let uris: Vec<_> = points.iter().flat_map(DistributionPoint::uris).collect();
        assert_eq!(uris, ["ldap://crl.test/x", uri]);
    }
    assert!(link.distribution_points.is_empty());
    assert_good(&says(&link, None, &crl));
}
