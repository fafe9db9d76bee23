//! This knows how to make responses that `openssl ocsp` does not: their parts, and a signature.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use openssl::asn1::Asn1Time;
use openssl::hash::{MessageDigest, hash};
use openssl::pkey::PKey;
use openssl::sign::Signer;
use revocation::Link;
pub(crate) use testbed::crl::tlv as der;

pub(crate) const SHA1: &[u8] = &[0x2b, 0x0e, 0x03, 0x02, 0x1a];
pub(crate) const SHA256: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01];
pub(crate) const SHA512: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x03];
pub(crate) const BASIC: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x30, 0x01, 0x01];
pub(crate) const NONCE: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x30, 0x01, 0x02];
pub(crate) const ECDSA_SHA256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
pub(crate) const ECDSA_SHA1: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x01];

pub(crate) const GOOD: &[u8] = &[0x80, 0];
pub(crate) const UNKNOWN: &[u8] = &[0x82, 0];

pub(crate) fn seq(parts: &[&[u8]]) -> Vec<u8> {
    der(0x30, parts)
}

pub(crate) fn oid(content: &[u8]) -> Vec<u8> {
    der(0x06, &[content])
}

pub(crate) fn time(time: SystemTime) -> Vec<u8> {
    let seconds = time.duration_since(UNIX_EPOCH).unwrap().as_secs() as i64;
    // "Jan  2 03:04:05 2026 GMT"
    let shown = Asn1Time::from_unix(seconds).unwrap().to_string();
    let parts: Vec<_> = shown.split_whitespace().collect();
    let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let month = months.iter().position(|name| *name == parts[0]).unwrap() + 1;
    let (day, clock): (u8, _) = (parts[1].parse().unwrap(), parts[2].replace(':', ""));
    der(0x18, &[format!("{}{month:02}{day:02}{clock}Z", parts[3]).as_bytes()])
}

pub(crate) fn revoked(since: SystemTime, reason: u8) -> Vec<u8> {
    der(0xa1, &[&time(since), &der(0xa0, &[&der(0x0a, &[&[reason]])])])
}

pub(crate) fn extension(id: &[u8], critical: bool, value: &[u8]) -> Vec<u8> {
    let critical = if critical { der(0x01, &[&[0xff]]) } else { Vec::new() };
    seq(&[&oid(id), &critical, &der(0x04, &[value])])
}

/// An entry of a response, part by part.
#[derive(Clone)]
pub(crate) struct Entry {
    pub(crate) hash: Vec<u8>,
    pub(crate) issuer_name: Vec<u8>,
    pub(crate) issuer_key: Vec<u8>,
    pub(crate) serial: Vec<u8>,
    pub(crate) status: Vec<u8>,
    pub(crate) this_update: Vec<u8>,
    pub(crate) next_update: Vec<u8>,
    pub(crate) extensions: Vec<u8>,
}

impl Entry {
    /// Good from a minute ago to in an hour.
    pub(crate) fn good(link: &Link, now: SystemTime) -> Self {
        let mut serial = link.serial.clone();
        if serial[0] & 0x80 != 0 {
            serial.insert(0, 0);
        }
        let mut entry = Self {
            hash: Vec::new(),
            issuer_name: Vec::new(),
            issuer_key: Vec::new(),
            serial,
            status: GOOD.to_vec(),
            this_update: time(now - Duration::from_secs(60)),
            next_update: Vec::new(),
            extensions: Vec::new(),
        };
        entry.next_update(now + Duration::from_secs(3600));
        entry.hash(SHA1, MessageDigest::sha1(), link);
        entry
    }

    pub(crate) fn next_update(&mut self, at: SystemTime) {
        self.next_update = der(0xa0, &[&time(at)]);
    }

    pub(crate) fn hash(&mut self, oid: &[u8], digest: MessageDigest, link: &Link) {
        self.hash = oid.to_vec();
        self.issuer_name = hash(digest, &link.issuer.name).unwrap().to_vec();
        self.issuer_key = hash(digest, &link.issuer.key_bits).unwrap().to_vec();
    }

    pub(crate) fn der(&self) -> Vec<u8> {
        let id = seq(&[
            &seq(&[&oid(&self.hash), &der(0x05, &[])]),
            &der(0x04, &[&self.issuer_name]),
            &der(0x04, &[&self.issuer_key]),
            &der(0x02, &[&self.serial]),
        ]);
        seq(&[&id, &self.status, &self.this_update, &self.next_update, &self.extensions])
    }
}

/// A response, part by part.
#[derive(Clone)]
pub(crate) struct Forged {
    pub(crate) status: u8,
    pub(crate) response_type: Vec<u8>,
    pub(crate) version: Vec<u8>,
    pub(crate) responder: Vec<u8>,
    pub(crate) produced_at: Vec<u8>,
    pub(crate) entries: Vec<Entry>,
    pub(crate) extensions: Vec<Vec<u8>>,
    pub(crate) algorithm: Vec<u8>,
    pub(crate) digest: MessageDigest,
    pub(crate) certificates: Vec<Vec<u8>>,
}

impl Forged {
    /// One that says that this certificate is good, signed by its issuer.
    pub(crate) fn good(link: &Link, now: SystemTime) -> Self {
        Self {
            status: 0,
            response_type: BASIC.to_vec(),
            version: Vec::new(),
            responder: der(0xa1, &[&link.issuer.name]),
            produced_at: time(now),
            entries: vec![Entry::good(link, now)],
            extensions: Vec::new(),
            algorithm: seq(&[&oid(ECDSA_SHA256)]),
            digest: MessageDigest::sha256(),
            certificates: Vec::new(),
        }
    }

    /// As bytes, signed with this key (PEM).
    pub(crate) fn sign(&self, key: &str) -> Vec<u8> {
        let entries: Vec<_> = self.entries.iter().map(Entry::der).collect();
        let mut parts = vec![self.version.clone(), self.responder.clone(), self.produced_at.clone()];
        parts.push(seq(&[&entries.concat()]));
        if !self.extensions.is_empty() {
            parts.push(der(0xa1, &[&seq(&[&self.extensions.concat()])]));
        }
        let tbs = seq(&[&parts.concat()]);
        let key = PKey::private_key_from_pem(key.as_bytes()).unwrap();
        let signature = Signer::new(self.digest, &key).unwrap().sign_oneshot_to_vec(&tbs).unwrap();
        let mut basic = vec![tbs, self.algorithm.clone(), der(0x03, &[&[0], &signature])];
        if !self.certificates.is_empty() {
            basic.push(der(0xa0, &[&seq(&[&self.certificates.concat()])]));
        }
        let bytes = seq(&[&oid(&self.response_type), &der(0x04, &[&seq(&[&basic.concat()])])]);
        seq(&[&der(0x0a, &[&[self.status]]), &der(0xa0, &[&bytes])])
    }
}
