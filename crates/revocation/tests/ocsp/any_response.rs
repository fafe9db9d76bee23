//! What must hold of any response. The fuzz target and the run of its seeds call the same.

use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use openssl::ec::{EcGroup, EcKey};
use openssl::nid::Nid;
use openssl::pkey::{PKey, Public};
use revocation::ocsp::Question;
use revocation::{Answer, CLOCK_SKEW, Issuer, Link};

/// The subject of the CA that the seeds are about, in DER.
const NAME: &[u8] = b"\x30\x0d\x31\x0b\x30\x09\x06\x03\x55\x04\x03\x0c\x02CA";
/// Its public key, a point of P-256. Nobody has the private one any more.
const POINT: &str = "04681c579e77249845927cd69835d470d0be39aa764951e7a19c92da66e3e20520fa906088686da3d3b708d67a00d832830e40fdc60fc0e523a08e32c1c91cf16a";
/// Soon after the seeds were made, and long before they end.
const NOW: Duration = Duration::from_secs(1_795_656_760);

struct Fixed {
    asked: Link,
    /// Of the same issuer; nobody has ever said anything about it.
    other: Link,
    /// Of an issuer with another key, that everything else takes for the same.
    twin: Link,
    questions: [Question; 2],
}

static FIXED: LazyLock<Fixed> = LazyLock::new(|| {
    let hex = |at: usize| u8::from_str_radix(&POINT[at..at + 2], 16).unwrap();
    let point: Vec<u8> = (0..POINT.len()).step_by(2).map(hex).collect();
    // SubjectPublicKeyInfo up to the point (RFC 5480).
    let spki = b"\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x42\x00";
    let key = PKey::public_key_from_der(&[&spki[..], &point].concat()).unwrap();
    let curve = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
    let another = EcKey::generate(&curve).unwrap().public_key_to_der().unwrap();
    let another = PKey::public_key_from_der(&another).unwrap();
    let asked = link(1, &point, &key);
    let questions = [None, Some([7; 32])].map(|nonce| Question::about(&asked, nonce));
    Fixed { asked, other: link(2, &point, &key), twin: link(1, &point, &another), questions }
});

fn link(serial: u8, point: &[u8], key: &PKey<Public>) -> Link {
    let issuer = Issuer {
        der: Vec::new(),
        digest: [0; 32],
        name: NAME.to_vec(),
        key_bits: point.to_vec(),
        key: key.clone(),
        signs_crls: true,
    };
    Link {
        serial: vec![serial],
        is_ca: false,
        issuer: Arc::new(issuer),
        ocsp_urls: Vec::new(),
        distribution_points: Vec::new(),
        freshest_points: Vec::new(),
    }
}

/// What these bytes say of the certificate that the seeds are about, to a question without a nonce and to one with it.
pub(crate) fn read(bytes: &[u8], now: SystemTime) -> [Option<Answer>; 2] {
    FIXED.questions.each_ref().map(|question| question.read(bytes, &FIXED.asked, now).ok())
}

pub(crate) fn now() -> SystemTime {
    UNIX_EPOCH + NOW
}

/// Reads a response: an answer is about whom the signer named, signed with the issuer's own key, and of this time.
///
/// # Panics
/// Where what must hold does not.
pub(crate) fn ocsp_response(bytes: &[u8]) {
    let now = now();
    for answer in read(bytes, now).into_iter().flatten() {
        assert!(answer.this_update <= now + CLOCK_SKEW, "from the future");
        assert!(answer.next_update.is_none_or(|next| next + CLOCK_SKEW >= now), "stale");
    }
    for question in &FIXED.questions {
        question.read(bytes, &FIXED.other, now).expect_err("an answer about nobody that was asked about");
        question.read(bytes, &FIXED.twin, now).expect_err("an answer of somebody else's");
    }
}
