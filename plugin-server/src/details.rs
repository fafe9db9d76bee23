//! This knows the headers that tell an upstream about the certificate itself (`mtls-auth.md`,
//! `inject_client_cert_details`), in the forms that nginx's variables have, for that is what upstreams read.

use openssl::base64;
use openssl::sha::sha1;

use crate::certificate::{Certificate, hex};
use crate::config::Config;

/// The names of the headers; none where details are not wanted.
pub(crate) fn names(config: &Config) -> impl Iterator<Item = &str> {
    let wanted = config.inject_client_cert_details;
    let names = [
        &config.client_cert_header_name,
        &config.client_serial_header_name,
        &config.client_cert_issuer_dn_header_name,
        &config.client_cert_subject_dn_header_name,
        &config.client_cert_fingerprint_header_name,
    ];
    names.into_iter().flatten().map(String::as_str).filter(move |_| wanted)
}

/// The headers for a verified certificate.
pub(crate) fn headers(config: &Config, leaf: &[u8], certificate: &Certificate) -> Vec<(String, String)> {
    if !config.inject_client_cert_details {
        return Vec::new();
    }
    let of = |name: &Option<String>, value: &dyn Fn() -> String| Some((name.clone()?, value()));
    [
        of(&config.client_cert_header_name, &|| escaped_pem(leaf)),
        of(&config.client_serial_header_name, &|| certificate.serial.to_ascii_uppercase()),
        of(&config.client_cert_issuer_dn_header_name, &|| certificate.issuer.clone()),
        of(&config.client_cert_subject_dn_header_name, &|| certificate.subject.clone()),
        of(&config.client_cert_fingerprint_header_name, &|| hex(&sha1(leaf))),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// PEM with everything percent-encoded but the unreserved characters of RFC 3986.
pub(crate) fn escaped_pem(der: &[u8]) -> String {
    let pem = pem(der);
    let mut escaped = String::with_capacity(pem.len() + pem.len() / 8);
    for character in pem.chars() {
        match character {
            ' ' => escaped.push_str("%20"),
            '\n' => escaped.push_str("%0A"),
            '+' => escaped.push_str("%2B"),
            '/' => escaped.push_str("%2F"),
            '=' => escaped.push_str("%3D"),
            _ => escaped.push(character),
        }
    }
    escaped
}

/// A certificate in PEM (RFC 7468).
pub(crate) fn pem(der: &[u8]) -> String {
    let base64 = base64::encode_block(der);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    for (position, character) in base64.chars().enumerate() {
        if position > 0 && position % 64 == 0 {
            pem.push('\n');
        }
        pem.push(character);
    }
    pem.push_str("\n-----END CERTIFICATE-----\n");
    pem
}

#[cfg(test)]
mod tests {
    use testbed::pki::{Ca, Subject};

    use super::*;

    fn unescaped(text: &str) -> String {
        ["%20", "%0A", "%2B", "%2F", "%3D"]
            .into_iter()
            .zip([" ", "\n", "+", "/", "="])
            .fold(text.to_owned(), |text, (code, character)| text.replace(code, character))
    }

    /// Held to OpenSSL's command line, from which nginx's variables do not differ.
    #[test]
    fn details_are_those_of_openssl() {
        let dir = tempfile::tempdir().unwrap();
        let root = Ca::root("root, with a comma");
        for _ in 0..4 {
            let leaf = root.issue(Subject::client("alice"));
            leaf.write(dir.path(), "leaf", &[]);
            let certificate = Certificate::from_der(&leaf.der).unwrap();
            let config = Config::from_json(
                r#"{
                    "certificate_source": "shim", "ca_certificates": ["x"], "inject_client_cert_details": true,
                    "client_cert_header_name": "C", "client_serial_header_name": "N",
                    "client_cert_issuer_dn_header_name": "I", "client_cert_fingerprint_header_name": "F"
                }"#,
            )
            .unwrap();
            let ours = headers(&config, &leaf.der, &certificate);
            let output = std::process::Command::new("openssl")
                .args(["x509", "-serial", "-issuer", "-fingerprint", "-nameopt", "RFC2253", "-in"])
                .arg(dir.path().join("leaf.crt"))
                .output()
                .unwrap();
            let theirs = String::from_utf8(output.stdout).unwrap();
            let line = |name: &str| {
                let line = theirs.lines().filter_map(|line| line.split_once('='));
                let mut line = line.filter(|(other, _)| other.eq_ignore_ascii_case(name));
                line.next().unwrap_or_else(|| panic!("{theirs}")).1.replace(':', "")
            };
            let pem = &theirs[theirs.find("-----BEGIN").unwrap()..];
            assert_eq!(unescaped(&ours[0].1), pem);
            assert_eq!(ours[1], ("N".into(), line("serial")));
            assert_eq!(ours[2], ("I".into(), line("issuer")));
            assert_eq!(ours[3], ("F".into(), line("sha1 Fingerprint").to_ascii_lowercase()));
            assert_eq!(ours.len(), 4, "what has no name is not sent");
        }
    }
}
