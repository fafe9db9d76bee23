//! This knows how each front writes the certificates of a client. nginx 1.22, HAProxy 2.6 and Apache httpd 2.4 were
//! watched doing it, Traefik's is as in its source; AWS ALB and Envoy as in their documentation.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use client_cert::front::Format;
use sha2::{Digest, Sha256};

/// A front, or a way to set one up.
#[derive(Clone, Copy)]
pub(crate) struct Front {
    pub(crate) name: &'static str,
    pub(crate) format: Format,
    /// Whether it hands on what the client sent besides the leaf.
    pub(crate) chain: bool,
    /// Writes the value for certificates in DER, the leaf first.
    pub(crate) encode: fn(&[&[u8]]) -> String,
}

impl std::fmt::Debug for Front {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

const fn url(name: &'static str, chain: bool, encode: fn(&[&[u8]]) -> String) -> Front {
    Front { name, format: Format::UrlEncoded, chain, encode }
}

const fn base64(name: &'static str, chain: bool, encode: fn(&[&[u8]]) -> String) -> Front {
    Front { name, format: Format::Base64Encoded, chain, encode }
}

pub(crate) const FRONTS: [Front; 13] = [
    url("nginx $ssl_client_escaped_cert", false, nginx),
    url("AWS ALB X-Amzn-Mtls-Clientcert-Leaf", false, |ders| alb(&ders[..1])),
    url("AWS ALB X-Amzn-Mtls-Clientcert", true, alb),
    url("Apache httpd %{SSL_CLIENT_CERT}s", false, apache_unwrapped),
    url("Apache httpd %{escape:%{SSL_CLIENT_CERT}}", false, apache_escaped),
    url("Envoy with cert", false, |ders| envoy(ders, &["Cert"])),
    url("Envoy with chain", true, |ders| envoy(ders, &["Chain"])),
    url("Envoy with everything", true, |ders| envoy(ders, &["Cert", "Chain", "Subject", "URI", "DNS"])),
    base64("HAProxy ssl_c_der", false, |ders| BASE64.encode(ders[0])),
    base64("HAProxy ssl_c_der,ssl_c_chain_der", true, haproxy),
    base64("Traefik", true, |ders| traefik(ders, |body| body)),
    base64("Traefik before 2.9.5", true, |ders| traefik(ders, |body| percent(&body, "-_.~", true))),
    base64("RFC 9440", false, |ders| format!(":{}:", BASE64.encode(ders[0]))),
];

/// `PEM_write_bio_X509`.
pub(crate) fn pem(der: &[u8]) -> String {
    let body = BASE64.encode(der);
    let lines: Vec<&str> = body.as_bytes().chunks(64).map(|line| str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

fn percent(text: &str, plain: &str, upper: bool) -> String {
    let escape = |byte: u8| if upper { format!("%{byte:02X}") } else { format!("%{byte:02x}") };
    let keeps = |byte: u8| byte.is_ascii_alphanumeric() || plain.as_bytes().contains(&byte);
    text.bytes().map(|byte| if keeps(byte) { char::from(byte).to_string() } else { escape(byte) }).collect()
}

/// `NGX_ESCAPE_URI_COMPONENT`.
fn nginx(ders: &[&[u8]]) -> String {
    percent(&pem(ders[0]), "-._~", true)
}

/// "URL-encoded PEM, with +=/ as safe characters".
fn alb(ders: &[&[u8]]) -> String {
    ders.iter().map(|der| percent(&pem(der), "-._~+=/", true)).collect()
}

/// The last space does not outlive the next parser of headers.
fn apache_unwrapped(ders: &[&[u8]]) -> String {
    pem(ders[0]).replace('\n', " ").trim_end().to_owned()
}

fn apache_escaped(ders: &[&[u8]]) -> String {
    percent(&pem(ders[0]), "-._+=/", false)
}

/// The chain is empty where the client sent none, its comma is not.
fn haproxy(ders: &[&[u8]]) -> String {
    format!("{},{}", BASE64.encode(ders[0]), BASE64.encode(ders[1..].concat()))
}

fn traefik(ders: &[&[u8]], escape: impl Fn(String) -> String) -> String {
    ders.iter().map(|der| escape(BASE64.encode(der))).collect::<Vec<_>>().join(",")
}

fn envoy(ders: &[&[u8]], details: &[&str]) -> String {
    let url_encoded_pem = |der: &&[u8]| percent(&pem(der), "-._", true);
    let hash: String = Sha256::digest(ders[0]).iter().map(|byte| format!("{byte:02x}")).collect();
    let mut pairs = vec!["By=spiffe://front/edge".to_owned(), format!("Hash={hash}")];
    pairs.extend(details.iter().map(|detail| match *detail {
        "Cert" => format!("Cert=\"{}\"", url_encoded_pem(&ders[0])),
        "Chain" => format!("Chain=\"{}\"", ders.iter().map(url_encoded_pem).collect::<String>()),
        "Subject" => r#"Subject="CN=a\"b\,c;d\\,O=e""#.to_owned(),
        "URI" => "URI=spiffe://client/x?a=b;URI=".to_owned(),
        _ => "DNS=a.example;DNS=b.example".to_owned(),
    }));
    pairs.join(";")
}

/// The encoders above, held to what was seen on the wire.
#[test]
fn the_forms_are_those_that_were_captured() {
    // Base64 `+/8=`, and for the second `AQ==`.
    let ders: &[&[u8]] = &[b"\xfb\xff", b"\x01"];
    for (name, value) in [
        (
            "nginx $ssl_client_escaped_cert",
            "-----BEGIN%20CERTIFICATE-----%0A%2B%2F8%3D%0A-----END%20CERTIFICATE-----%0A",
        ),
        (
            "AWS ALB X-Amzn-Mtls-Clientcert",
            "-----BEGIN%20CERTIFICATE-----%0A+/8=%0A-----END%20CERTIFICATE-----%0A\
             -----BEGIN%20CERTIFICATE-----%0AAQ==%0A-----END%20CERTIFICATE-----%0A",
        ),
        ("Apache httpd %{SSL_CLIENT_CERT}s", "-----BEGIN CERTIFICATE----- +/8= -----END CERTIFICATE-----"),
        (
            "Apache httpd %{escape:%{SSL_CLIENT_CERT}}",
            "-----BEGIN%20CERTIFICATE-----%0a+/8=%0a-----END%20CERTIFICATE-----%0a",
        ),
        ("HAProxy ssl_c_der", "+/8="),
        ("HAProxy ssl_c_der,ssl_c_chain_der", "+/8=,AQ=="),
        ("Traefik", "+/8=,AQ=="),
        ("Traefik before 2.9.5", "%2B%2F8%3D,AQ%3D%3D"),
        ("RFC 9440", ":+/8=:"),
    ] {
        let front = FRONTS.iter().find(|front| front.name == name).unwrap();
        assert_eq!((front.encode)(ders), value, "{name}");
    }
}
