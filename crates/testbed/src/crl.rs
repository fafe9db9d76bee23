//! This knows how to make CRLs: with `openssl ca`, and octet by octet those that it would not make.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use openssl::hash::MessageDigest;
use openssl::pkey::PKey;
use openssl::sign::Signer;
use openssl::x509::X509;
use rcgen::CertificateParams;

use crate::pki::Ca;

const HOUR: Duration = Duration::from_secs(3600);

/// A CA in a folder, as `openssl ca` has it.
pub struct OpensslCa {
    dir: PathBuf,
}

impl OpensslCa {
    /// Writes a CA's files into an empty folder: `ca.crt`, `ca.key`, and a database that has no certificate.
    pub fn new(dir: &Path, ca: &Ca) -> Self {
        let write = |name: &str, text: &str| std::fs::write(dir.join(name), text).expect("a file");
        write("ca.crt", &ca.pem());
        write("ca.key", &ca.key_pem());
        write("index.txt", "");
        Self { dir: dir.to_path_buf() }
    }

    /// Puts a serial number into its database as that of a revoked certificate, with a reason by openssl's name
    /// (`keyCompromise`, `holdInstruction,holdInstructionReject`).
    pub fn revoke(&self, serial: &[u8], since: SystemTime, reason: Option<&str>) {
        let mut line = format!("R\t491231235959Z\t{}", &calendar(since)[2..]);
        if let Some(reason) = reason {
            write!(line, ",{reason}").expect("a String takes all");
        }
        writeln!(line, "\t{}\tunknown\t/CN=revoked", hex(serial)).expect("a String takes all");
        let database = self.dir.join("index.txt");
        let all = std::fs::read_to_string(&database).expect("a database") + &line;
        std::fs::write(database, all).expect("a database");
    }

    /// A CRL of what was revoked so far, in PEM: `openssl ca -gencrl` with these options, and these lines as its extensions
    /// in the form of openssl's configuration, which may be followed by sections of their own. Without a number there is no
    /// CRLNumber; without that and without extensions it is of version 1.
    pub fn list(&self, number: Option<u64>, extensions: &str, options: &[&str]) -> String {
        let path = |name: &str| self.dir.join(name).display().to_string();
        let mut config = format!("[ca]\ndefault_ca=d\n[d]\ndatabase={}\n", path("index.txt"));
        config += "default_md=sha256\nunique_subject=no\n";
        if let Some(number) = number {
            let digits = format!("{number:x}");
            let even = if digits.len() % 2 == 1 { "0" } else { "" };
            std::fs::write(path("crlnumber"), format!("{even}{digits}\n")).expect("a number");
            config += &format!("crlnumber={}\n", path("crlnumber"));
        }
        if !extensions.is_empty() {
            config += "crl_extensions=extensions\n[extensions]\n";
            config += extensions;
        }
        std::fs::write(path("openssl.cnf"), config).expect("a configuration");
        let mut command = Command::new("openssl");
        command.args(["ca", "-gencrl", "-config", &path("openssl.cnf"), "-cert", &path("ca.crt")]);
        let output =
            command.args(["-keyfile", &path("ca.key")]).args(options).output().expect("openssl runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("PEM is text")
    }
}

/// A CRL that is put together from DER: each part may be replaced by what openssl would not make.
#[derive(Clone, Debug)]
pub struct Forged {
    /// The version, in DER: empty for version 1.
    pub version: Vec<u8>,
    /// The algorithm in the signed part, in DER.
    pub algorithm: Vec<u8>,
    /// The algorithm outside of it, in DER.
    pub outer_algorithm: Vec<u8>,
    /// The issuer's name, in DER.
    pub issuer: Vec<u8>,
    /// `thisUpdate`, in DER.
    pub this_update: Vec<u8>,
    /// `nextUpdate`, in DER: may be empty.
    pub next_update: Vec<u8>,
    /// The entries, in DER, one after the other.
    pub entries: Vec<u8>,
    /// The extensions, in DER, one after the other.
    pub extensions: Vec<u8>,
    /// What follows the extensions in the signed part.
    pub rest: Vec<u8>,
}

impl Forged {
    /// A CRL of this CA: version 2, empty, made an hour ago, good for another hour, without extensions.
    pub fn of(ca: &Ca) -> Self {
        let now = SystemTime::now();
        let certificate = X509::from_der(&ca.der()).expect("a certificate");
        // ecdsa-with-SHA256
        let algorithm = tlv(0x30, &[&tlv(0x06, &[&[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02]])]);
        Self {
            version: integer(&[1]),
            outer_algorithm: algorithm.clone(),
            algorithm,
            issuer: certificate.subject_name().to_der().expect("a name"),
            this_update: utc_time(now - HOUR),
            next_update: utc_time(now + HOUR),
            entries: Vec::new(),
            extensions: Vec::new(),
            rest: Vec::new(),
        }
    }

    /// Sets from when and until when it counts.
    pub fn time(mut self, this_update: SystemTime, next_update: Option<SystemTime>) -> Self {
        self.this_update = utc_time(this_update);
        self.next_update = next_update.map(utc_time).unwrap_or_default();
        self
    }

    /// Adds an entry: the content octets of its serial number, and its extensions in DER, see [`extension`].
    pub fn entry(mut self, serial: &[u8], since: SystemTime, extensions: &[Vec<u8>]) -> Self {
        let extensions = extensions.concat();
        let extensions = if extensions.is_empty() { Vec::new() } else { tlv(0x30, &[&extensions]) };
        self.entries.extend(tlv(0x30, &[&integer(serial), &utc_time(since), &extensions]));
        self
    }

    /// Adds an entry with a reason (RFC 5280, section 5.3.1).
    pub fn entry_for(self, serial: &[u8], reason: u8) -> Self {
        let reason = extension(REASON_CODE, false, &tlv(0x0a, &[&[reason]]));
        self.entry(serial, SystemTime::now() - HOUR, &[reason])
    }

    /// Adds an extension: the last part of its OID below 2.5.29, and the DER in it.
    pub fn extension(mut self, number: u8, is_critical: bool, der: &[u8]) -> Self {
        self.extensions.extend(extension(number, is_critical, der));
        self
    }

    /// Sets its CRLNumber.
    pub fn number(self, number: u8) -> Self {
        self.extension(CRL_NUMBER, false, &small(number))
    }

    /// Makes it a delta CRL that begins at this number.
    pub fn delta_from(self, base: u8) -> Self {
        self.extension(DELTA_CRL_INDICATOR, true, &small(base))
    }

    /// The part that is to be signed.
    pub fn signed_part(&self) -> Vec<u8> {
        let entries = if self.entries.is_empty() { Vec::new() } else { tlv(0x30, &[&self.entries]) };
        let extensions = if self.extensions.is_empty() {
            Vec::new()
        } else {
            tlv(0xa0, &[&tlv(0x30, &[&self.extensions])])
        };
        let head: [&[u8]; 3] = [&self.version, &self.algorithm, &self.issuer];
        let body: [&[u8]; 5] = [&self.this_update, &self.next_update, &entries, &extensions, &self.rest];
        tlv(0x30, &[&head.concat(), &body.concat()])
    }

    /// Signs it with a CA's key: the CRL in DER.
    pub fn sign(&self, ca: &Ca) -> Vec<u8> {
        sign(&self.signed_part(), &self.outer_algorithm, ca)
    }
}

/// `cRLNumber`, below 2.5.29.
pub const CRL_NUMBER: u8 = 20;
/// `reasonCode`, below 2.5.29.
pub const REASON_CODE: u8 = 21;
/// `deltaCRLIndicator`, below 2.5.29.
pub const DELTA_CRL_INDICATOR: u8 = 27;
/// `issuingDistributionPoint`, below 2.5.29.
pub const ISSUING_DISTRIBUTION_POINT: u8 = 28;
/// `certificateIssuer`, below 2.5.29.
pub const CERTIFICATE_ISSUER: u8 = 29;
/// `cRLDistributionPoints`, below 2.5.29.
pub const CRL_DISTRIBUTION_POINTS: u8 = 31;
/// `freshestCRL`, below 2.5.29.
pub const FRESHEST_CRL: u8 = 46;

/// Puts signed part, algorithm, and a signature with a CA's P-256 key together.
pub fn sign(signed_part: &[u8], algorithm: &[u8], ca: &Ca) -> Vec<u8> {
    let key = PKey::private_key_from_pem(ca.key_pem().as_bytes()).expect("a key");
    let mut signer = Signer::new(MessageDigest::sha256(), &key).expect("a signer");
    let signature = signer.sign_oneshot_to_vec(signed_part).expect("a signature");
    tlv(0x30, &[signed_part, algorithm, &tlv(0x03, &[&[0], &signature])])
}

/// A DER element.
pub fn tlv(identifier: u8, contents: &[&[u8]]) -> Vec<u8> {
    let length: usize = contents.iter().map(|content| content.len()).sum();
    let mut der = vec![identifier];
    match length {
        short @ 0..0x80 => der.push(short as u8),
        long => {
            let octets = long.to_be_bytes();
            let octets = &octets[long.leading_zeros() as usize / 8..];
            der.push(0x80 | octets.len() as u8);
            der.extend_from_slice(octets);
        }
    }
    contents.iter().for_each(|content| der.extend_from_slice(content));
    der
}

/// An INTEGER of these content octets.
pub fn integer(octets: &[u8]) -> Vec<u8> {
    tlv(0x02, &[octets])
}

/// An INTEGER that is not negative.
fn small(number: u8) -> Vec<u8> {
    if number < 0x80 { integer(&[number]) } else { integer(&[0, number]) }
}

/// An extension: the last part of its OID below 2.5.29, and the DER in it.
pub fn extension(number: u8, is_critical: bool, der: &[u8]) -> Vec<u8> {
    let critical: &[u8] = if is_critical { &[0x01, 0x01, 0xff] } else { &[] };
    tlv(0x30, &[&[0x06, 0x03, 0x55, 0x1d, number], critical, &tlv(0x04, &[der])])
}

/// A time in two digits of the year.
pub fn utc_time(time: SystemTime) -> Vec<u8> {
    tlv(0x17, &[&calendar(time).as_bytes()[2..]])
}

/// A time in four digits of the year.
pub fn generalized_time(time: SystemTime) -> Vec<u8> {
    tlv(0x18, &[calendar(time).as_bytes()])
}

/// `fullName` of a DistributionPointName: URLs.
pub fn full_name(uris: &[&str]) -> Vec<u8> {
    let names: Vec<_> = uris.iter().flat_map(|uri| tlv(0x86, &[uri.as_bytes()])).collect();
    tlv(0xa0, &[&tlv(0xa0, &[&names])])
}

/// `nameRelativeToCRLIssuer` of a DistributionPointName: a CN.
pub fn relative_name(cn: &str) -> Vec<u8> {
    tlv(0xa0, &[&tlv(0xa1, &[&tlv(0x30, &[&[0x06, 0x03, 0x55, 0x04, 0x03], &tlv(0x0c, &[cn.as_bytes()])])])])
}

/// `ReasonFlags` from the numbers of its bits, with a context-specific tag.
pub fn reasons(tag: u8, bits: &[u8]) -> Vec<u8> {
    let mut octets = [0_u8; 2];
    for bit in bits {
        octets[usize::from(bit / 8)] |= 0x80 >> (bit % 8);
    }
    tlv(0x80 | tag, &[&[7], &octets])
}

/// `CRLDistributionPoints`, or `FreshestCRL`: each point its fields one after the other.
pub fn points(points: &[&[&[u8]]]) -> Vec<u8> {
    let points: Vec<_> = points.iter().flat_map(|fields| tlv(0x30, fields)).collect();
    tlv(0x30, &[&points])
}

fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02X}")).collect()
}

/// A time as GeneralizedTime writes it.
fn calendar(time: SystemTime) -> String {
    let mut params = CertificateParams::default();
    params.not_before = time.into();
    let time = params.not_before;
    let (year, month, day) = (time.year(), u8::from(time.month()), time.day());
    format!("{year:04}{month:02}{day:02}{:02}{:02}{:02}Z", time.hour(), time.minute(), time.second())
}
