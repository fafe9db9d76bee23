//! This knows CertID (RFC 6960, section 4.1.1): which certificate is asked about, and which one an answer is about.

use openssl::sha::sha1;
use sha2::{Digest, Sha256};
use x509_parser::der_parser::oid;

use crate::der::{self, INTEGER, NULL, OBJECT_IDENTIFIER, OCTET_STRING, SEQUENCE, malformed};
use crate::{Link, Trouble};

const SHA1: &[u8] = &oid!(raw 1.3.14.3.2.26);
const SHA256: &[u8] = &oid!(raw 2.16.840.1.101.3.4.2.1);

/// Which certificate an entry of a response is about.
#[derive(Debug)]
pub(super) struct CertId<'a> {
    /// The OID of the hash algorithm.
    hash: &'a [u8],
    issuer_name: &'a [u8],
    issuer_key: &'a [u8],
    /// The content octets of an INTEGER.
    serial: &'a [u8],
}

impl<'a> CertId<'a> {
    pub(super) fn read(bytes: &'a [u8]) -> Result<Self, Trouble> {
        der::read_all(bytes, |id| {
            let hash = der::read_all(id.content(SEQUENCE, "a hash algorithm")?, |algorithm| {
                let oid = algorithm.content(OBJECT_IDENTIFIER, "a hash algorithm")?;
                if algorithm.optional(NULL)?.is_some_and(|null| !null.is_empty()) {
                    return Err(malformed("a hash algorithm"));
                }
                Ok(oid)
            })?;
            let issuer_name = id.content(OCTET_STRING, "the hash of a name")?;
            let issuer_key = id.content(OCTET_STRING, "the hash of a key")?;
            let serial = id.content(INTEGER, "a serial number")?;
            Ok(Self { hash, issuer_name, issuer_key, serial })
        })
    }

    /// Whether it is this certificate: all of issuer's name, issuer's key and serial number. An unknown hash algorithm is
    /// about nothing that is known.
    pub(super) fn is(&self, link: &Link) -> bool {
        let hash: fn(&[u8]) -> Vec<u8> = match self.hash {
            SHA1 => |bytes| sha1(bytes).to_vec(),
            SHA256 => |bytes| Sha256::digest(bytes).to_vec(),
            _ => return false,
        };
        self.serial == serial(link)
            && self.issuer_name == hash(&link.issuer.name)
            && self.issuer_key == hash(&link.issuer.key_bits)
    }
}

/// The CertID to ask with. By SHA-1, which is the only one that every responder knows (RFC 5019, section 2.1.1): it only
/// names the certificate, and the answer says its name again.
pub(super) fn write(link: &Link) -> Vec<u8> {
    let algorithm = der::write(SEQUENCE, &[&der::write(OBJECT_IDENTIFIER, &[SHA1]), &der::write(NULL, &[])]);
    let name = der::write(OCTET_STRING, &[&sha1(&link.issuer.name)]);
    let key = der::write(OCTET_STRING, &[&sha1(&link.issuer.key_bits)]);
    der::write(SEQUENCE, &[&algorithm, &name, &key, &der::write(INTEGER, &[&serial(link)])])
}

/// The content octets of the serial number, which is never negative.
fn serial(link: &Link) -> Vec<u8> {
    let mut octets = link.serial.clone();
    if octets.first().is_none_or(|first| first & 0x80 != 0) {
        octets.insert(0, 0);
    }
    octets
}
