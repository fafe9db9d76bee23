//! What CRLs say that are about a part of the certificates only, or about some reasons.

use std::time::{Duration, SystemTime};

use revocation::crl::{Crl, Source, status};
use revocation::{Answer, DistributionPoint, Link, Trouble};
use testbed::crl::{
    CERTIFICATE_ISSUER, Forged, ISSUING_DISTRIBUTION_POINT, extension, full_name, points, reasons,
    relative_name, tlv,
};

use crate::common::{HOUR, SERIAL, World, assert_good, assert_revoked, assert_trouble, says};

const A: &str = "http://crl.test/a.crl";
const B: &str = "http://crl.test/b.crl";

/// An `issuingDistributionPoint` of these fields.
fn about(forged: Forged, fields: &[&[u8]]) -> Forged {
    forged.extension(ISSUING_DISTRIBUTION_POINT, true, &tlv(0x30, fields))
}

const USERS: &[u8] = &[0x81, 0x01, 0xff];
const CAS: &[u8] = &[0x82, 0x01, 0xff];
const INDIRECT: &[u8] = &[0x84, 0x01, 0xff];
const ATTRIBUTES: &[u8] = &[0x85, 0x01, 0xff];

fn all(link: &Link, from: &[(Option<&DistributionPoint>, &Crl)]) -> Result<Answer, Trouble> {
    let sources: Vec<_> =
        from.iter().map(|(point, complete)| Source { point: *point, complete, deltas: &[] }).collect();
    status(link, &sources, SystemTime::now(), Duration::ZERO).answer
}

#[test]
fn a_partition_is_about_the_certificates_that_name_its_point() {
    let world = World::new();
    let link = world.link_with_points(&points(&[&[&full_name(&["http://mirror.test/a.crl", A])]]));
    let point = Some(&link.distribution_points[0]);
    let of = |name: &[u8]| world.crl(&about(world.forged(), &[name]));
    assert_good(&says(&link, point, &of(&full_name(&[A]))));
    assert_good(&says(&link, point, &of(&full_name(&[B, A]))));
    // Had from the certificate's point, whoever may have sent it, and about another partition.
    assert_trouble(&says(&link, point, &of(&full_name(&[B]))), "not_covered");
    assert_trouble(&says(&link, point, &of(&full_name(&[]))), "not_covered");
    // A name of a kind that no point has.
    assert_trouble(
        &says(&link, point, &of(&tlv(0xa0, &[&tlv(0xa0, &[&tlv(0x82, &[b"crl.test"])])]))),
        "not_covered",
    );
    assert_good(&says(&link, point, &world.crl(&world.forged())));
}

#[test]
fn whatever_a_crl_is_about_a_certificate_that_stands_in_it_is_revoked() {
    let world = World::new();
    let link = world.link_with_points(&points(&[&[&full_name(&[A])]]));
    let point = Some(&link.distribution_points[0]);
    let listed = world.forged().entry_for(SERIAL, 1);
    for fields in [&full_name(&[B])[..], CAS, &reasons(3, &[2])] {
        assert_revoked(&says(&link, point, &world.crl(&about(listed.clone(), &[fields]))));
    }
    // Attribute certificates have numbers of their own.
    assert_trouble(&says(&link, point, &world.crl(&about(listed, &[ATTRIBUTES]))), "not_covered");
}

#[test]
fn a_crl_is_about_users_or_about_cas() {
    let world = World::new();
    let user = world.link(World::subject());
    let ca = Link::from_der(&world.ca.intermediate("below").der(), world.issuer.clone()).unwrap();
    assert!(ca.is_ca && !user.is_ca);
    let [users, cas, attributes] =
        [USERS, CAS, ATTRIBUTES].map(|kind| world.crl(&about(world.forged(), &[kind])));
    assert_good(&says(&user, None, &users));
    assert_trouble(&says(&ca, None, &users), "not_covered");
    assert_good(&says(&ca, None, &cas));
    assert_trouble(&says(&user, None, &cas), "not_covered");
    assert_trouble(&says(&user, None, &attributes), "not_covered");
    assert_good(&all(&user, &[(None, &cas), (None, &users)]));
    assert_eq!(world.read(&about(world.forged(), &[USERS, CAS])).unwrap_err().code(), "malformed");
}

#[test]
fn indirect_crls_are_refused_in_every_form() {
    let world = World::new();
    let listed = world.forged();
    assert_eq!(world.read(&about(listed.clone(), &[INDIRECT])).unwrap_err().code(), "not_covered");
    let issuer = tlv(0x30, &[&tlv(0xa4, &[&world.issuer.name])]);
    for critical in [true, false] {
        let entry = listed.clone().entry(
            &[1],
            SystemTime::now(),
            &[extension(CERTIFICATE_ISSUER, critical, &issuer)],
        );
        assert_eq!(world.read(&entry).unwrap_err().code(), "not_covered");
    }
    // The point says that its CRL is another's.
    let link = world
        .link_with_points(&points(&[&[&full_name(&[A]), &tlv(0xa2, &[&tlv(0xa4, &[&world.issuer.name])])]]));
    assert!(link.distribution_points[0].is_indirect);
    let point = Some(&link.distribution_points[0]);
    assert_trouble(&says(&link, point, &world.crl(&listed)), "not_covered");
    assert_trouble(
        &says(&link, point, &world.crl(&about(listed.clone(), &[&full_name(&[A])]))),
        "not_covered",
    );
    assert_trouble(
        &says(&link, None, &world.crl(&about(listed.clone(), &[&full_name(&[A])]))),
        "not_covered",
    );
    assert_revoked(&says(&link, point, &world.crl(&listed.entry_for(SERIAL, 1))));
}

#[test]
fn not_to_stand_in_crls_counts_where_they_are_about_all_reasons_together() {
    let world = World::new();
    let (some, others) = (reasons(1, &[1, 2, 6]), reasons(1, &[3, 4, 5, 7, 8]));
    let (at_a, at_b) = (full_name(&[A]), full_name(&[B]));
    let link = world.link_with_points(&points(&[&[&at_a, &some], &[&at_b, &others]]));
    let [a, b] = [0, 1].map(|number| Some(&link.distribution_points[number]));
    let empty = world.crl(&world.forged());
    assert_trouble(&all(&link, &[(a, &empty)]), "not_covered");
    assert_trouble(&all(&link, &[(b, &empty)]), "not_covered");
    assert_trouble(&all(&link, &[(a, &empty), (a, &empty)]), "not_covered");
    assert_good(&all(&link, &[(a, &empty), (b, &empty)]));

    let listed = world.crl(&world.forged().entry_for(SERIAL, 1));
    assert_revoked(&all(&link, &[(a, &listed)]));
    assert_revoked(&all(&link, &[(b, &empty), (a, &listed)]));
    assert_revoked(&all(&link, &[(a, &listed), (b, &empty)]));

    // The CRLs themselves are about some reasons.
    let only = |bits: &[u8]| world.crl(&about(world.forged(), &[&reasons(3, bits)]));
    let plain = world.link_with_points(&points(&[&[&at_a], &[&at_b]]));
    let [a, b] = [0, 1].map(|number| Some(&plain.distribution_points[number]));
    let (some, others) = (only(&[1, 2, 6]), only(&[3, 4, 5, 7, 8]));
    assert_trouble(&all(&plain, &[(a, &some)]), "not_covered");
    assert_good(&all(&plain, &[(a, &some), (b, &others)]));
    assert_trouble(&all(&plain, &[(a, &some), (b, &only(&[3, 4, 5, 7]))]), "not_covered");
    // Bit 0 is not used.
    assert_trouble(&all(&plain, &[(a, &some), (b, &only(&[0, 3, 4, 5, 7]))]), "not_covered");
    // What the point leaves out, the CRL does not add.
    let [a, b] = [0, 1].map(|number| Some(&link.distribution_points[number]));
    assert_trouble(&all(&link, &[(a, &others), (b, &some)]), "not_covered");
}

#[test]
fn of_several_points_one_that_is_about_all_is_enough_and_none_hides_that_it_is_revoked() {
    let world = World::new();
    let link = world.link_with_points(&points(&[&[&full_name(&[A])], &[&full_name(&[B])]]));
    let [a, b] = [0, 1].map(|number| Some(&link.distribution_points[number]));
    let now = SystemTime::now();
    let empty = world.crl(&about(world.forged(), &[&full_name(&[B])]));
    let stale = world.crl(&world.forged().time(now - 2 * HOUR, Some(now - HOUR)));
    assert_good(&all(&link, &[(a, &stale), (b, &empty)]));
    assert_trouble(&all(&link, &[(a, &stale)]), "stale");
    assert_trouble(&all(&link, &[(a, &empty), (b, &stale)]), "not_covered");
    let listed = world.crl(&world.forged().entry_for(SERIAL, 0));
    assert_revoked(&all(&link, &[(b, &empty), (a, &listed)]));
    assert_revoked(&all(&link, &[(a, &listed), (b, &empty)]));
    assert_revoked(&all(&link, &[(b, &stale), (a, &listed)]));
    assert_trouble(&all(&link, &[]), "not_covered");
}

#[test]
fn answers_of_several_crls_count_as_long_as_the_first_that_ends() {
    let world = World::new();
    let (at_a, at_b) = (full_name(&[A]), full_name(&[B]));
    let link = world.link_with_points(&points(&[
        &[&at_a, &reasons(1, &[1, 2, 3, 4])],
        &[&at_b, &reasons(1, &[5, 6, 7, 8])],
    ]));
    let [a, b] = [0, 1].map(|number| Some(&link.distribution_points[number]));
    let now = SystemTime::now();
    let long = world.crl(&world.forged().time(now - HOUR, Some(now + 9 * HOUR)));
    let short = world.crl(&world.forged().time(now - 2 * HOUR, Some(now + HOUR)));
    for from in [[(a, &long), (b, &short)], [(a, &short), (b, &long)]] {
        let answer = all(&link, &from).unwrap();
        assert_eq!((answer.this_update, answer.next_update), (short.this_update(), short.next_update()));
    }
}

#[test]
fn a_crl_counts_for_the_grace_after_its_end_and_no_longer() {
    let world = World::new();
    let link = world.link(World::subject());
    let now = SystemTime::now();
    let crl = world.crl(&world.forged().time(now - 2 * HOUR, Some(now - HOUR)));
    let says = |grace| {
        let sources = [Source { point: None, complete: &crl, deltas: &[] }];
        status(&link, &sources, now, grace).answer
    };
    assert_trouble(&says(HOUR - Duration::from_secs(1)), "stale");
    assert_good(&says(HOUR + Duration::from_secs(1)));
    assert_good(&says(Duration::MAX));
}

#[test]
fn names_below_the_issuers_are_put_together() {
    let world = World::new();
    let link = world.link_with_points(&points(&[&[&relative_name("one")]]));
    let point = Some(&link.distribution_points[0]);
    let whole = |cn: &str| {
        let rdn = relative_name(cn);
        // Without [0], [1] and their lengths; the name without its SEQUENCE.
        let set = tlv(0x31, &[&rdn[4..]]);
        let name = tlv(0x30, &[&world.issuer.name[2..], &set]);
        tlv(0xa0, &[&tlv(0xa0, &[&tlv(0xa4, &[&name])])])
    };
    for name in [relative_name("one"), whole("one")] {
        assert_good(&says(&link, point, &world.crl(&about(world.forged(), &[&name]))));
    }
    for name in [relative_name("two"), whole("two"), full_name(&["one"])] {
        assert_trouble(&says(&link, point, &world.crl(&about(world.forged(), &[&name]))), "not_covered");
    }
}
