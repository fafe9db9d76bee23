//! Signatures by OpenSSL, and what is not taken.

use openssl::ec::{EcGroup, EcKey};
use openssl::nid::Nid;
use openssl::pkey::Private;
use openssl::rsa::Rsa;
use openssl::sign::Signer;
use x509_parser::prelude::FromDer;

use super::*;

const SIGNED: &[u8] = b"signed";
const RSA_SHA256: &[u8] = &oid!(raw 1.2.840.113549.1.1.11);
const PSS: &[u8] = &oid!(raw 1.2.840.113549.1.1.10);
const ECDSA_SHA256: &[u8] = &oid!(raw 1.2.840.10045.4.3.2);
const ED25519: &[u8] = &oid!(raw 1.3.101.112);
const ED448: &[u8] = &oid!(raw 1.3.101.113);
const REFUSED: Trouble = Trouble::WrongSigner("its algorithm is not taken");
const SHORT: Trouble = Trouble::WrongSigner("its key is too short");

fn public(key: &PKey<Private>) -> PKey<Public> {
    PKey::public_key_from_der(&key.public_key_to_der().unwrap()).unwrap()
}

fn rsa(bits: u32) -> PKey<Private> {
    PKey::from_rsa(Rsa::generate(bits).unwrap()).unwrap()
}

fn ec(curve: Nid) -> PKey<Private> {
    PKey::from_ec_key(EcKey::generate(&EcGroup::from_curve_name(curve).unwrap()).unwrap()).unwrap()
}

fn verifies(oid: &[u8], parameters: &[u8], key: &PKey<Private>, signature: &[u8]) -> Result<(), Trouble> {
    let algorithm = der::write(SEQUENCE, &[&der::write(OBJECT_IDENTIFIER, &[oid]), parameters]);
    let (_, algorithm) = AlgorithmIdentifier::from_der(&algorithm).unwrap();
    verify(&algorithm, &public(key), SIGNED, signature)
}

fn sign(digest: Option<MessageDigest>, key: &PKey<Private>) -> Vec<u8> {
    let signer = match digest {
        Some(digest) => Signer::new(digest, key),
        None => Signer::new_without_digest(key),
    };
    signer.unwrap().sign_oneshot_to_vec(SIGNED).unwrap()
}

#[test]
fn edwards_curves_are_verified_and_not_taken_for_each_other() {
    let keys = [PKey::generate_ed25519().unwrap(), PKey::generate_ed448().unwrap()];
    for (key, own, other) in [(&keys[0], ED25519, ED448), (&keys[1], ED448, ED25519)] {
        let signature = sign(None, key);
        assert_eq!(verifies(own, &[], key, &signature), Ok(()));
        assert_eq!(verifies(own, &[], key, &signature[1..]), Err(Trouble::BadSignature));
        for other in [other, RSA_SHA256, ECDSA_SHA256] {
            assert_eq!(verifies(other, &[], key, &signature), Err(Trouble::BadSignature));
        }
    }
}

#[test]
fn keys_of_less_than_80_bits_are_refused() {
    let digest = Some(MessageDigest::sha256());
    for (bits, verified) in [(1024, Ok(())), (1023, Err(SHORT)), (512, Err(SHORT))] {
        let key = rsa(bits);
        assert_eq!(verifies(RSA_SHA256, &[NULL, 0], &key, &sign(digest, &key)), verified, "{bits}");
    }
    for (curve, verified) in
        [(Nid::SECP160R1, Ok(())), (Nid::X9_62_PRIME256V1, Ok(())), (Nid::SECP112R1, Err(SHORT))]
    {
        let key = ec(curve);
        assert_eq!(verifies(ECDSA_SHA256, &[], &key, &sign(digest, &key)), verified, "{curve:?}");
    }
}

#[test]
fn parameters_are_null_or_not_there() {
    let key = rsa(2048);
    let signature = sign(Some(MessageDigest::sha256()), &key);
    for parameters in [&[][..], &[NULL, 0]] {
        assert_eq!(verifies(RSA_SHA256, parameters, &key, &signature), Ok(()));
    }
    for parameters in [&[NULL, 1, 0][..], &[SEQUENCE, 0], &[0x25, 0], &[0x45, 0], &[0x85, 0]] {
        assert_eq!(verifies(RSA_SHA256, parameters, &key, &signature), Err(REFUSED), "{parameters:02x?}");
    }
}

fn pss(digest: MessageDigest, mask: MessageDigest, salt: i32, key: &PKey<Private>) -> Vec<u8> {
    let mut signer = Signer::new(digest, key).unwrap();
    signer.set_rsa_padding(Padding::PKCS1_PSS).unwrap();
    signer.set_rsa_mgf1_md(mask).unwrap();
    signer.set_rsa_pss_saltlen(RsaPssSaltlen::custom(salt)).unwrap();
    signer.sign_oneshot_to_vec(SIGNED).unwrap()
}

fn hash(oid: &[u8]) -> Vec<u8> {
    der::write(SEQUENCE, &[&der::write(OBJECT_IDENTIFIER, &[oid]), &[NULL, 0]])
}

/// RSASSA-PSS-params with this hash, this hash for the mask, and this salt, each where it is there.
fn parameters(digest: Option<&[u8]>, mask: Option<&[u8]>, salt: &[u8], trailer: &[u8]) -> Vec<u8> {
    let digest = digest.map(|oid| der::write(context(0), &[&hash(oid)]));
    let mask = mask.map(|oid| {
        let mask = der::write(SEQUENCE, &[&der::write(OBJECT_IDENTIFIER, &[MGF1]), &hash(oid)]);
        der::write(context(1), &[&mask])
    });
    let number = |tag, content: &[u8]| match content {
        [] => Vec::new(),
        content => der::write(context(tag), &[&der::write(INTEGER, &[content])]),
    };
    der::write(
        SEQUENCE,
        &[&digest.unwrap_or_default(), &mask.unwrap_or_default(), &number(2, salt), &number(3, trailer)],
    )
}

#[test]
fn pss_is_verified_with_exactly_its_parameters() {
    let key = rsa(2048);
    let (sha1, sha256) = (MessageDigest::sha1(), MessageDigest::sha256());
    let check = |parameters: Vec<u8>, signature: &[u8]| verifies(PSS, &parameters, &key, signature);
    let (own, long) = (Some(SHA256), &[0, 0xde][..]);
    let signature = pss(sha256, sha256, 32, &key);
    assert_eq!(check(parameters(own, own, &[32], &[]), &signature), Ok(()));
    assert_eq!(check(parameters(own, own, &[32], &[1]), &signature), Ok(()));
    assert_eq!(check(parameters(own, own, &[], &[]), &pss(sha256, sha256, 20, &key)), Ok(()));
    assert_eq!(check(parameters(own, own, &[0], &[]), &pss(sha256, sha256, 0, &key)), Ok(()));
    assert_eq!(check(parameters(own, own, long, &[]), &pss(sha256, sha256, 0xde, &key)), Ok(()));
    for salt in [&[][..], &[0], &[31], &[33], long, &[1, 0]] {
        let checked = check(parameters(own, own, salt, &[]), &signature);
        assert_eq!(checked, Err(Trouble::BadSignature), "{salt:?}");
    }
    for salt in [&[0xff][..], &[0xfe], &[0, 32], &[1, 0, 0], &[0xff, 0xff]] {
        assert_eq!(check(parameters(own, own, salt, &[]), &signature), Err(REFUSED), "{salt:?}");
    }
    let other = parameters(Some(SHA384), Some(SHA384), &[32], &[]);
    assert_eq!(check(other, &signature), Err(Trouble::BadSignature));
    for refused in [
        parameters(own, Some(SHA384), &[32], &[]),
        parameters(own, own, &[32], &[2]),
        parameters(own, None, &[32], &[]),
        parameters(None, own, &[32], &[]),
        Vec::new(),
        vec![NULL, 0],
        vec![SEQUENCE, 0],
    ] {
        assert_eq!(check(refused, &signature), Err(REFUSED));
    }
    // All by default: SHA-1.
    assert_eq!(check(vec![SEQUENCE, 0], &pss(sha1, sha1, 20, &key)), Err(REFUSED));
    let mixed = pss(sha256, sha1, 32, &key);
    assert_eq!(check(parameters(own, None, &[32], &[]), &mixed), Err(REFUSED));
    // PKCS #1 v1.5 is another algorithm.
    let plain = sign(Some(sha256), &key);
    assert_eq!(check(parameters(own, own, &[32], &[]), &plain), Err(Trouble::BadSignature));
    assert_eq!(verifies(RSA_SHA256, &[NULL, 0], &key, &signature), Err(Trouble::BadSignature));
}

/// Its certificate says that it is for PSS, with this hash and no other.
#[test]
fn a_key_for_pss_alone_signs_so_and_in_no_other_way() {
    let options = ["rsa_keygen_bits:2048", "rsa_pss_keygen_md:sha256", "rsa_pss_keygen_mgf1_md:sha256"];
    let mut command = std::process::Command::new("openssl");
    command.args(["genpkey", "-algorithm", "RSA-PSS"]);
    for option in options {
        command.args(["-pkeyopt", option]);
    }
    let key = PKey::private_key_from_pem(&command.output().unwrap().stdout).unwrap();
    assert_eq!(public(&key).id(), Id::RSA_PSS);
    let sha256 = MessageDigest::sha256();
    let signature = pss(sha256, sha256, 32, &key);
    let with = |oid| parameters(Some(oid), Some(oid), &[32], &[]);
    assert_eq!(verifies(PSS, &with(SHA256), &key, &signature), Ok(()));
    assert_eq!(verifies(PSS, &with(SHA384), &key, &signature), Err(Trouble::BadSignature));
    assert_eq!(verifies(RSA_SHA256, &[NULL, 0], &key, &signature), Err(Trouble::BadSignature));
}

#[test]
fn hashes_that_collide_are_refused() {
    let key = rsa(2048);
    for (oid, digest) in [
        (&oid!(raw 1.2.840.113549.1.1.5), MessageDigest::sha1()),
        (&oid!(raw 1.2.840.113549.1.1.4), MessageDigest::md5()),
    ] {
        assert_eq!(verifies(oid, &[NULL, 0], &key, &sign(Some(digest), &key)), Err(REFUSED));
    }
}
