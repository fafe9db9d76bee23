//! Where certificates say that their CRLs are.

use std::sync::Arc;

use revocation::{DistributionPoint, Link, PointName};
use testbed::crl::{full_name, points, reasons, relative_name, tlv};

use crate::common::World;

#[test]
fn points_are_read_with_their_names_reasons_and_issuers() {
    let world = World::new();
    let whole = full_name(&["http://crl.test/a", "ldap:///cn=x"]);
    let issuer = tlv(0xa2, &[&tlv(0xa4, &[&world.issuer.name])]);
    let directory = tlv(0xa0, &[&tlv(0xa0, &[&tlv(0xa4, &[&world.issuer.name])])]);
    let link = world.link_with_points(&points(&[
        &[&whole],
        &[&directory, &reasons(1, &[1, 8])],
        &[&issuer],
        &[&relative_name("x")],
    ]));
    let uri = |uri: &str| PointName::Uri(uri.to_owned());
    let plain = |names| DistributionPoint { names, reasons: None, is_indirect: false };
    assert_eq!(link.distribution_points[0], plain(vec![uri("http://crl.test/a"), uri("ldap:///cn=x")]));
    let names = vec![PointName::Directory(world.issuer.name.clone())];
    let some = DistributionPoint { names, reasons: Some(1 << 1 | 1 << 8), is_indirect: false };
    assert_eq!(link.distribution_points[1], some);
    assert_eq!(link.distribution_points[2], DistributionPoint { is_indirect: true, ..plain(vec![]) });
    let [PointName::Directory(name)] = &link.distribution_points[3].names[..] else { panic!() };
    assert!(name.len() > world.issuer.name.len() && name.ends_with(b"x"));
}

#[test]
fn a_certificate_whose_points_cannot_be_read_is_none() {
    let world = World::new();
    for id in [31, 46] {
        for broken in
            [&[][..], &[0x30, 0x02, 0x05, 0x00], &[0x30, 0x00, 0x00], &[0x30, 0x04, 0x30, 0x02, 0x81, 0x00]]
        {
            let der = world.ca.issue(World::subject().extension(&[2, 5, 29, id], broken)).der;
            assert!(Link::from_der(&der, Arc::clone(&world.issuer)).is_err(), "{id} {broken:02x?}");
        }
    }
}
