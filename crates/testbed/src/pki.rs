//! This knows how to make throw-away CAs and certificates, valid around now.

use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
pub use rcgen;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, CustomExtension, DistinguishedName, DnType,
    DnValue, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, PKCS_ED25519, PKCS_RSA_SHA256,
    PublicKeyData, SanType, SignatureAlgorithm,
};

use crate::crl::{full_name, points, tlv};

const HOUR: Duration = Duration::from_secs(3600);

/// A CA that exists for the length of a test.
pub struct Ca {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate with its private key.
#[derive(Clone, Debug)]
pub struct Leaf {
    /// The certificate, in PEM.
    pub cert: String,
    /// The certificate, in DER.
    pub der: Vec<u8>,
    /// The private key, in PEM (PKCS #8).
    pub key: String,
}

/// What a certificate is to say; see [`Ca::issue`].
#[derive(Clone, Debug)]
pub struct Subject {
    cn: Option<DnValue>,
    sans: Vec<SanType>,
    usages: Vec<ExtendedKeyUsagePurpose>,
    key_usages: Vec<KeyUsagePurpose>,
    extensions: Vec<CustomExtension>,
    not_before: SystemTime,
    not_after: SystemTime,
    serial: Option<Vec<u8>>,
}

impl Ca {
    /// A self-signed root.
    pub fn root(cn: &str) -> Self {
        let params = ca_params(cn);
        Self { issuer: CertifiedIssuer::self_signed(params, key()).expect("a root") }
    }

    /// The same with another end.
    pub fn root_until(cn: &str, not_after: SystemTime) -> Self {
        let mut params = ca_params(cn);
        params.not_after = not_after.into();
        Self { issuer: CertifiedIssuer::self_signed(params, key()).expect("a root") }
    }

    /// An intermediate that this CA signs.
    pub fn intermediate(&self, cn: &str) -> Self {
        let params = ca_params(cn);
        Self { issuer: CertifiedIssuer::signed_by(params, key(), &self.issuer).expect("an intermediate") }
    }

    /// The same, with a certificate that [names](naming) these.
    pub fn intermediate_naming(&self, cn: &str, ocsp: &[&str], crls: &[&str]) -> Self {
        let mut params = ca_params(cn);
        params.custom_extensions = sources(ocsp, crls);
        Self { issuer: CertifiedIssuer::signed_by(params, key(), &self.issuer).expect("an intermediate") }
    }

    /// An intermediate with an extension as it is: its OID, and the DER within.
    pub fn intermediate_with(&self, cn: &str, oid: &[u64], der: &[u8]) -> Self {
        let mut params = ca_params(cn);
        params.custom_extensions = vec![CustomExtension::from_oid_content(oid, der.to_vec())];
        Self { issuer: CertifiedIssuer::signed_by(params, key(), &self.issuer).expect("an intermediate") }
    }

    /// A certificate that this CA signs, which is no CA (`CA:FALSE`) and yet issues others.
    pub fn impostor(&self, cn: &str) -> Self {
        let mut params = ca_params(cn);
        params.is_ca = IsCa::ExplicitNoCa;
        Self { issuer: CertifiedIssuer::signed_by(params, key(), &self.issuer).expect("an impostor") }
    }

    /// A self-signed root whose key usage does not let it sign CRLs.
    pub fn without_crl_sign(cn: &str) -> Self {
        let mut params = ca_params(cn);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        Self { issuer: CertifiedIssuer::self_signed(params, key()).expect("a root") }
    }

    /// Signs a certificate.
    pub fn issue(&self, subject: Subject) -> Leaf {
        self.issue_for(subject, &key())
    }

    /// Signs a certificate for this key.
    pub fn issue_for(&self, subject: Subject, key: &KeyPair) -> Leaf {
        let cert = subject.params().signed_by(key, &self.issuer).expect("a leaf");
        Leaf { cert: cert.pem(), der: cert.der().to_vec(), key: key.serialize_pem() }
    }

    /// Signs a certificate whose key is an RSA one of this many bits.
    pub fn issue_rsa(&self, subject: Subject, bits: u32) -> Leaf {
        let rsa = Rsa::generate(bits).expect("an RSA key");
        let bits = rsa.public_key_to_der_pkcs1().expect("a public key");
        let key = PKey::from_rsa(rsa).expect("a key");
        self.issue_public(subject, &PublicKey { bits, algorithm: &PKCS_RSA_SHA256 }, &key)
    }

    /// Signs a certificate whose key is an Ed25519 one, in a form that OpenSSL reads: rcgen's it does not.
    pub fn issue_ed25519(&self, subject: Subject) -> Leaf {
        let key = PKey::generate_ed25519().expect("a key");
        let bits = key.raw_public_key().expect("a public key");
        self.issue_public(subject, &PublicKey { bits, algorithm: &PKCS_ED25519 }, &key)
    }

    fn issue_public(&self, subject: Subject, public: &PublicKey, key: &PKey<Private>) -> Leaf {
        let cert = subject.params().signed_by(public, &self.issuer).expect("a leaf");
        let key = key.private_key_to_pem_pkcs8().expect("a key in PEM");
        let key = String::from_utf8(key).expect("PEM is text");
        Leaf { cert: cert.pem(), der: cert.der().to_vec(), key }
    }

    /// Its certificate, in PEM.
    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// Its private key, in PEM (PKCS #8).
    pub fn key(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// Its certificate, in DER.
    pub fn der(&self) -> Vec<u8> {
        self.issuer.der().to_vec()
    }

    /// Its private key, in PEM (PKCS #8).
    pub fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// What rcgen signs with.
    pub fn issuer(&self) -> &rcgen::Issuer<'static, KeyPair> {
        &self.issuer
    }
}

/// A public key as it is in a certificate, which rcgen takes but does not make: of RSA as in RFC 8017, appendix A.1.1.
struct PublicKey {
    bits: Vec<u8>,
    algorithm: &'static SignatureAlgorithm,
}

impl PublicKeyData for PublicKey {
    fn der_bytes(&self) -> &[u8] {
        &self.bits
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        self.algorithm
    }
}

impl Leaf {
    /// Writes `<name>.crt` and `<name>.key` into a folder; the certificate is followed by `chain`, and the key is closed to
    /// others.
    pub fn write(&self, dir: &Path, name: &str, chain: &[&Ca]) {
        let mut pem = self.cert.clone();
        pem.extend(chain.iter().map(|ca| ca.pem()));
        std::fs::write(dir.join(format!("{name}.crt")), pem).expect("a certificate file");
        let key = dir.join(format!("{name}.key"));
        std::fs::write(&key, &self.key).expect("a key file");
        std::fs::set_permissions(key, PermissionsExt::from_mode(0o600)).expect("its mode");
    }
}

impl Subject {
    /// A client certificate with this CN, good for TLS clients, valid now and for an hour.
    pub fn client(cn: &str) -> Self {
        let now = SystemTime::now();
        Self {
            cn: Some(cn.into()),
            sans: Vec::new(),
            usages: vec![ExtendedKeyUsagePurpose::ClientAuth],
            key_usages: vec![KeyUsagePurpose::DigitalSignature],
            extensions: Vec::new(),
            not_before: now - HOUR,
            not_after: now + HOUR,
            serial: None,
        }
    }

    /// A server certificate for these DNS names or addresses.
    pub fn server(names: &[&str]) -> Self {
        let subject = Self::client(names[0]).usages(vec![ExtendedKeyUsagePurpose::ServerAuth]);
        names.iter().fold(subject, |subject, name| match name.parse::<IpAddr>() {
            Ok(address) => subject.san(SanType::IpAddress(address)),
            Err(_) => subject.dns(name),
        })
    }

    /// Sets the CN in another string type.
    pub fn cn(mut self, cn: DnValue) -> Self {
        self.cn = Some(cn);
        self
    }

    /// Leaves the subject empty.
    pub fn without_cn(mut self) -> Self {
        self.cn = None;
        self
    }

    /// Adds a subject alternative name.
    pub fn san(mut self, san: SanType) -> Self {
        self.sans.push(san);
        self
    }

    /// Adds a DNS name as subject alternative name.
    pub fn dns(self, name: &str) -> Self {
        self.san(SanType::DnsName(name.try_into().expect("an IA5 name")))
    }

    /// Sets the serial number, of which the first bit is its sign; without, it is a random one.
    pub fn serial(mut self, serial: &[u8]) -> Self {
        self.serial = Some(serial.to_vec());
        self
    }

    /// Adds an extension as it is: its OID, and the DER within.
    pub fn extension(mut self, oid: &[u64], der: &[u8]) -> Self {
        self.extensions.push(CustomExtension::from_oid_content(oid, der.to_vec()));
        self
    }

    /// Adds a critical extension as it is: its OID, and the DER within.
    pub fn critical_extension(mut self, oid: &[u64], der: &[u8]) -> Self {
        let mut extension = CustomExtension::from_oid_content(oid, der.to_vec());
        extension.set_criticality(true);
        self.extensions.push(extension);
        self
    }

    /// Sets the extended key usages; none leaves the extension out.
    pub fn usages(mut self, usages: Vec<ExtendedKeyUsagePurpose>) -> Self {
        self.usages = usages;
        self
    }

    /// Sets the key usages, which are digital signatures otherwise; none leaves the extension out.
    pub fn key_usages(mut self, usages: Vec<KeyUsagePurpose>) -> Self {
        self.key_usages = usages;
        self
    }

    /// Sets the time before which it is not valid.
    pub fn not_before(mut self, time: SystemTime) -> Self {
        self.not_before = time;
        self
    }

    /// Sets the time after which it is no longer valid.
    pub fn not_after(mut self, time: SystemTime) -> Self {
        self.not_after = time;
        self
    }

    /// Ended a minute ago.
    pub fn expired(self) -> Self {
        self.not_after(SystemTime::now() - Duration::from_secs(60))
    }

    /// Begins in a minute.
    pub fn not_yet_valid(self) -> Self {
        self.not_before(SystemTime::now() + Duration::from_secs(60))
    }

    fn params(self) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name = distinguished_name(self.cn);
        params.subject_alt_names = self.sans;
        params.extended_key_usages = self.usages;
        params.custom_extensions = self.extensions;
        params.key_usages = self.key_usages;
        params.not_before = self.not_before.into();
        params.not_after = self.not_after.into();
        params.serial_number = self.serial.map(rcgen::SerialNumber::from);
        params.use_authority_key_identifier_extension = true;
        params
    }
}

/// A certificate that names OCSP responders (RFC 5280, section 4.2.2.1), and the places of one CRL (section 4.2.1.13).
pub fn naming(mut subject: Subject, ocsp: &[&str], crls: &[&str]) -> Subject {
    subject.extensions.extend(sources(ocsp, crls));
    subject
}

fn sources(ocsp: &[&str], crls: &[&str]) -> Vec<CustomExtension> {
    const AUTHORITY_INFO_ACCESS: &[u64] = &[1, 3, 6, 1, 5, 5, 7, 1, 1];
    const CRL_DISTRIBUTION_POINTS: &[u64] = &[2, 5, 29, 31];
    let method = [0x06, 8, 0x2b, 6, 1, 5, 5, 7, 0x30, 1];
    let access: Vec<u8> =
        ocsp.iter().flat_map(|url| tlv(0x30, &[&method, &tlv(0x86, &[url.as_bytes()])])).collect();
    let mut extensions = Vec::new();
    if !ocsp.is_empty() {
        extensions.push(CustomExtension::from_oid_content(AUTHORITY_INFO_ACCESS, tlv(0x30, &[&access])));
    }
    if !crls.is_empty() {
        let points = points(&[&[&full_name(crls)]]);
        extensions.push(CustomExtension::from_oid_content(CRL_DISTRIBUTION_POINTS, points));
    }
    extensions
}

fn ca_params(cn: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = distinguished_name(Some(cn.into()));
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = (SystemTime::now() - 2 * HOUR).into();
    params.not_after = (SystemTime::now() + 24 * HOUR).into();
    params
}

fn distinguished_name(cn: Option<DnValue>) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    if let Some(cn) = cn {
        name.push(DnType::CommonName, cn);
    }
    name
}

fn key() -> KeyPair {
    KeyPair::generate().expect("a P-256 key")
}
