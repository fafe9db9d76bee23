//! CRLs that an operator gave: no distribution point, and no issuer yet.

use revocation::crl::read_all;
use testbed::crl::{ISSUING_DISTRIBUTION_POINT, full_name, points, reasons, tlv};
use testbed::pki::Ca;

use crate::common::{SERIAL, World, assert_good, assert_revoked, assert_trouble, says};
use crate::reading::pem;

#[test]
fn all_crls_of_a_file_are_read_and_verified_once_their_issuers_are_known() {
    let (one, other) = (World::new(), World::of(Ca::root("other")));
    let (of_one, of_other) =
        (one.forged().sign(&one.ca), other.forged().entry_for(SERIAL, 1).sign(&other.ca));
    let file = format!("# both\n{}{}{}", pem(&of_one), one.ca.pem(), pem(&of_other));
    let crls = read_all(file.as_bytes()).unwrap();
    assert_eq!(crls.len(), 2);
    assert_eq!(crls[0].issuer_name(), one.issuer.name);
    assert_eq!(crls[1].issuer_name(), other.issuer.name);
    assert!(crls[0].size() >= of_one.len());
    assert_good(&says(&one.link(World::subject()), None, &crls[0].verify(&one.issuer).unwrap()));
    assert_revoked(&says(&other.link(World::subject()), None, &crls[1].verify(&other.issuer).unwrap()));
    assert_eq!(crls[0].verify(&other.issuer).unwrap_err().code(), "something_else");
    let namesake = World::new();
    assert_eq!(crls[0].verify(&namesake.issuer).unwrap_err().code(), "bad_signature");

    let crls = read_all(&of_one).unwrap();
    assert_eq!(crls.len(), 1);
    assert!(crls[0].verify(&one.issuer).is_ok());
}

#[test]
fn a_file_without_crls_or_with_a_broken_one_is_told() {
    let world = World::new();
    let whole = pem(&world.forged().sign(&world.ca));
    for file in
        [String::new(), world.ca.pem(), format!("{whole}{}", pem(b"\x30\x00")), whole.replace("END", "EMD")]
    {
        assert_eq!(read_all(file.as_bytes()).unwrap_err().code(), "malformed", "{file}");
    }
}

#[test]
fn a_local_crl_of_a_point_counts_for_certificates_that_have_the_point() {
    let world = World::new();
    let of = |fields: &[&[u8]]| {
        world.crl(&world.forged().extension(ISSUING_DISTRIBUTION_POINT, true, &tlv(0x30, fields)))
    };
    let (a, b) = (full_name(&["http://crl.test/a"]), full_name(&["http://crl.test/b"]));
    let with_a = world.link_with_points(&points(&[&[&full_name(&["http://crl.test/x"])], &[&a]]));
    let without = world.link(World::subject());
    assert_good(&says(&with_a, None, &of(&[&a])));
    assert_trouble(&says(&with_a, None, &of(&[&b])), "not_covered");
    assert_trouble(&says(&without, None, &of(&[&a])), "not_covered");
    // Those about everything count for all.
    assert_good(&says(&with_a, None, &world.crl(&world.forged())));
    assert_good(&says(&without, None, &world.crl(&world.forged())));
    // As does one named like the issuer (RFC 5280, section 6.3.3, last paragraph).
    let named = tlv(0xa0, &[&tlv(0xa0, &[&tlv(0xa4, &[&world.issuer.name])])]);
    assert_good(&says(&without, None, &of(&[&named])));
    // What the point is about counts here as well.
    let partly = world.link_with_points(&points(&[&[&a, &reasons(1, &[1])]]));
    assert_trouble(&says(&partly, None, &of(&[&a])), "not_covered");
    assert_good(&says(&partly, None, &world.crl(&world.forged())));
}
