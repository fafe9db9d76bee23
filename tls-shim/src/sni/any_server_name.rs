//! What must hold of any routes and any server name. The fuzz target and the run of its seeds call the same.

use std::sync::LazyLock;

use kong_entities::{CaCertificate, Entities, Plugin, Route, Scope, Service};
use openssl::asn1::Asn1Time;
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::PKey;
use openssl::x509::{X509, X509Name};
use serde_json::json;

use crate::ca_names::Sent;
use crate::distinguished_name::DistinguishedName;
use crate::sni::{ServerName, SniMap, policy};

/// CA certificates that plugins may announce.
static CAS: LazyLock<[X509; 3]> = LazyLock::new(|| ["one", "two", "three"].map(ca));

/// A line of the input: a route.
struct Line<'a> {
    /// `+`: with a plugin that announces a CA. `!`: with one that announces nothing. `s`: as `+`, but on the service of
    /// all such routes. `x`: as `+`, on a route with an expression. Any other: without.
    kind: u8,
    /// The names and patterns, or the expression.
    rest: &'a str,
}

/// Reads routes, one to a line, and after an empty line a server name, as a whole extension and as the name in one. Who
/// meets a plugin is asked; a name is asked in each spelling or in none; what cannot be decided is asked wherever
/// anybody is; and a list of CA names lacks none.
///
/// # Panics
/// Where what must hold does not.
pub(crate) fn server_name(bytes: &[u8]) {
    let Some(end) = bytes.windows(2).position(|two| two == b"\n\n") else { return };
    let Ok(text) = str::from_utf8(&bytes[..end]) else { return };
    let wire = &bytes[end + 2..];
    let lines: Vec<_> = text.lines().filter_map(Line::read).collect();
    let entities = entities(&lines);
    let map = policy(&entities);

    let name = ServerName::from_wire(Some(wire));
    assert_eq!(ServerName::from_extension(Some(wire)).ok(), in_extension(wire));
    assert_eq!(ServerName::from_extension(Some(&extension(wire))).ok().as_ref(), Some(&name));

    let everybody = map.asks(&ServerName::None);
    let anybody = everybody || map.len() > 0;
    assert_eq!(map.asks(&ServerName::Undecidable(String::new())), anybody);
    assert_eq!(map.rows().count() > 0, anybody);
    let asked = map.asks(&name);
    assert!(asked || !everybody);
    let lower = String::from_utf8_lossy(wire).to_ascii_lowercase();
    let upper = wire.to_ascii_uppercase();
    let bare = lower.strip_suffix('.').unwrap_or(&lower);
    let in_other_spellings = [bare.as_bytes(), lower.as_bytes(), &upper];
    for other in in_other_spellings.map(|bytes| ServerName::from_wire(Some(bytes))) {
        assert!(asked || !map.asks(&other), "{name:?} is not asked, {other:?} is");
    }
    match &name {
        ServerName::Name(name) => {
            assert_eq!(ServerName::from_wire(Some(format!("{name}.").as_bytes())).as_str(), name);
            for (line, position) in lines.iter().zip(0..) {
                assert!(
                    asked || !(line.has_plugin() && line.meets(name)),
                    "nobody asks {name} of route {position}"
                );
            }
            if lines.iter().all(Line::is_plain) {
                assert_eq!(asked, lines.iter().any(|line| line.has_plugin() && line.meets(name)), "{name}");
            }
            lacks_none(&map, &lines, name);
        }
        ServerName::Undecidable(_) => assert_eq!(asked, anybody),
        ServerName::None => panic!("there is one"),
    }
    // Kong gives its entities in any order.
    let reversed: Vec<_> = lines.into_iter().rev().collect();
    let reversed = policy(&self::entities(&reversed));
    assert_eq!((reversed.asks(&name), reversed.generation()), (asked, map.generation()));
}

/// Whoever goes by the list finds the CA of each plugin that it meets.
fn lacks_none(map: &SniMap, lines: &[Line<'_>], name: &str) {
    let Some(sent) = map.asked(&ServerName::Name(name.to_owned())) else { return };
    let Sent::Names(sent) = &map.sent()[sent.position()] else { return };
    for line in lines.iter().filter(|line| line.announces() && line.meets(name)) {
        let ca = DistinguishedName::new(line.ca().subject_name()).unwrap();
        assert!(sent.contains(&ca), "{name} meets {:?}", line.rest);
    }
}

impl<'a> Line<'a> {
    fn read(line: &'a str) -> Option<Self> {
        let kind = *line.as_bytes().first()?;
        Some(Self { kind, rest: line.get(1..)? })
    }

    fn has_plugin(&self) -> bool {
        matches!(self.kind, b'+' | b'!' | b's' | b'x')
    }

    fn announces(&self) -> bool {
        matches!(self.kind, b'+' | b's')
    }

    fn snis(&self) -> impl Iterator<Item = &'a str> {
        self.rest.split_ascii_whitespace().filter(|_| self.kind != b'x')
    }

    /// Whether a client of this name is on this route, by the simplest reading of its names.
    fn meets(&self, name: &str) -> bool {
        let meets = |sni: &str| {
            let sni = sni.to_ascii_lowercase();
            match (sni.strip_prefix('*'), sni.strip_suffix('*')) {
                (Some(end), _) => name.ends_with(end.strip_suffix('.').unwrap_or(end)),
                (None, Some(beginning)) => name.starts_with(beginning),
                (None, None) => name == sni.strip_suffix('.').unwrap_or(&sni),
            }
        };
        self.kind != b'x' && (self.snis().next().is_none() || self.snis().any(meets))
    }

    /// Whether its names leave no doubt.
    fn is_plain(&self) -> bool {
        let is_plain = |sni: &str| {
            let rest = sni.strip_prefix("*.").or_else(|| sni.strip_suffix(".*")).unwrap_or(sni);
            let labels = || rest.split('.');
            let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
            rest.len() < 250
                && labels().all(|label| (1..64).contains(&label.len()) && label.bytes().all(is_letter))
                // No address.
                && labels().any(|label| label.bytes().any(|byte| !byte.is_ascii_digit()))
        };
        self.kind != b'x' && self.snis().all(is_plain)
    }

    fn ca(&self) -> &'static X509 {
        &CAS[self.ca_position()]
    }

    fn ca_position(&self) -> usize {
        // On the service there is one plugin for all.
        if self.kind == b's' { 0 } else { self.rest.len() % CAS.len() }
    }
}

fn entities(lines: &[Line<'_>]) -> Entities {
    let mut entities = Entities::default();
    for (position, ca) in CAS.iter().enumerate() {
        let cert = String::from_utf8(ca.to_pem().unwrap()).unwrap();
        entities.ca_certificates.insert(position.to_string(), CaCertificate { cert }.into());
    }
    let config = |ca: usize, announces| json!({"ca_certificates": [ca.to_string()], "send_ca_dn": announces});
    entities.services.push(Service { label: "service".into(), id: None, name: None });
    if lines.iter().any(|line| line.kind == b's') {
        let scope = Scope { service: Some(0), ..Scope::default() };
        entities.plugins.push(plugin(scope, config(0, true)));
    }
    for (position, line) in lines.iter().enumerate() {
        entities.routes.push(Route {
            label: "route".into(),
            id: None,
            name: None,
            service: (line.kind == b's').then_some(0),
            snis: line.snis().map(str::to_owned).collect(),
            protocols: vec!["https".into()],
            expression: (line.kind == b'x').then(|| line.rest.to_owned()),
        });
        if matches!(line.kind, b'+' | b'!' | b'x') {
            let scope = Scope { route: Some(position), ..Scope::default() };
            entities.plugins.push(plugin(scope, config(line.ca_position(), line.kind != b'!')));
        }
    }
    entities
}

fn plugin(scope: Scope, config: serde_json::Value) -> Plugin {
    Plugin { id: None, name: "mtls-auth".into(), enabled: true, protocols: None, scope, config }
}

fn ca(cn: &str) -> X509 {
    // Not Ed25519: AWS-LC signs no certificate with it by this call.
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
    let key = PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap();
    let mut name = X509Name::builder().unwrap();
    name.append_entry_by_text("CN", cn).unwrap();
    let name = name.build();
    let mut certificate = X509::builder().unwrap();
    certificate.set_subject_name(&name).unwrap();
    certificate.set_issuer_name(&name).unwrap();
    certificate.set_not_before(&Asn1Time::days_from_now(0).unwrap()).unwrap();
    certificate.set_not_after(&Asn1Time::days_from_now(1).unwrap()).unwrap();
    certificate.set_pubkey(&key).unwrap();
    certificate.sign(&key, MessageDigest::sha256()).unwrap();
    certificate.build()
}

/// The name in an extension of exactly the form that RFC 6066, section 3, and OpenSSL want.
fn in_extension(bytes: &[u8]) -> Option<ServerName> {
    let name = bytes.get(5..)?;
    (bytes == extension(name)).then(|| ServerName::from_wire(Some(name)))
}

fn extension(name: &[u8]) -> Vec<u8> {
    let length = |of: usize| u16::try_from(of).unwrap_or(u16::MAX).to_be_bytes();
    [&length(name.len() + 3)[..], &[0], &length(name.len()), name].concat()
}
