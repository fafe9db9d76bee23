//! What must hold of any bytes where a CRL has to be. The fuzz target and the run of its seeds call the same.

use std::sync::LazyLock;

use openssl::pkey::{PKey, Private};
use openssl::sign::Signer;
use revocation::crl::{Crl, Unverified, read_all};
use revocation::{Issuer, Trouble};

/// A key for all runs: with it, what is read after the signature has been verified is read of any bytes.
static KEY: LazyLock<PKey<Private>> = LazyLock::new(|| PKey::generate_ed25519().unwrap());

/// Reads bytes as a CRL, and as what is signed in one: none is believed that is not signed, what is kept is not much more
/// than what came, and what is read does not depend on the form.
///
/// # Panics
/// Where what must hold does not.
pub(crate) fn crl(bytes: &[u8]) {
    for found in read_all(bytes).unwrap_or_default() {
        assert!(found.verify(&issuer(&found)).is_err(), "nobody signed it");
    }
    match sign_and_read(bytes) {
        // An entry of at least 40 octets in DER takes 69 here at the most, and one of at least 20 takes 13. A name of a
        // point, which may have two octets, takes 32; what holds it doubles as it grows.
        Some(Ok(crl)) => {
            assert!(crl.size() <= 512 + 40 * bytes.len(), "{} for {}", crl.size(), bytes.len());
            assert!(crl.entries() <= bytes.len() / 20);
        }
        Some(Err(trouble)) => assert_ne!(trouble, Trouble::BadSignature),
        None => {}
    }
}

/// Reads bytes as what is signed in a CRL, in the name that they have; none where they do not look like that.
pub(crate) fn sign_and_read(bytes: &[u8]) -> Option<Result<Crl, Trouble>> {
    let signed = signed(bytes);
    let outline = read_all(&signed).ok()?.pop()?;
    let issuer = issuer(&outline);
    let read = Crl::read(&signed, &issuer);
    let again = outline.verify(&issuer);
    assert_eq!(again.map(|crl| crl.size()), read.as_ref().map(Crl::size).map_err(Clone::clone));
    Some(read)
}

/// Who has the key, in the name that a CRL has.
fn issuer(of: &Unverified) -> Issuer {
    let key = PKey::public_key_from_der(&KEY.public_key_to_der().unwrap()).unwrap();
    Issuer {
        der: Vec::new(),
        digest: [0; 32],
        name: of.issuer_name().to_vec(),
        key_bits: KEY.raw_public_key().unwrap(),
        key,
        signs_crls: true,
    }
}

/// A CRL whose signed part these bytes are, which have to name Ed25519 as its algorithm.
fn signed(bytes: &[u8]) -> Vec<u8> {
    let ed25519 = [0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70];
    let mut signer = Signer::new_without_digest(&KEY).unwrap();
    let signature = signer.sign_oneshot_to_vec(bytes).unwrap();
    tlv(0x30, &[bytes, &ed25519, &tlv(0x03, &[&[0], &signature])])
}

fn tlv(identifier: u8, contents: &[&[u8]]) -> Vec<u8> {
    let content = contents.concat();
    // As short as DER wants it.
    let length = match content.len() {
        short @ 0..0x80 => vec![short as u8],
        long => {
            let octets = long.to_be_bytes();
            let octets = &octets[long.leading_zeros() as usize / 8..];
            [&[0x80 | octets.len() as u8][..], octets].concat()
        }
    };
    [&[identifier][..], &length, &content].concat()
}
