//! What other fronts write is read as they mean it, and nothing else is read at all.

mod any_value;
mod encoders;
mod properties;
mod seeds;

use std::sync::LazyLock;

use client_cert::front::{Format, FrontError, XfccError, decode};
use client_cert::{MAX_CERTIFICATES, MAX_HEADER_BYTES, MalformedHeader, Presented};
use encoders::{FRONTS, Front, pem};
use testbed::pki::{Ca, Leaf, Subject};

/// Certificates of one client: its leaf, and CAs that could be sent with it.
static CERTIFICATES: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let mut cas = vec![Ca::root("root")];
    for depth in 1..MAX_CERTIFICATES {
        cas.push(cas[depth - 1].intermediate(&format!("intermediate {depth}")));
    }
    let issuer = &cas[MAX_CERTIFICATES - 1];
    // Base64 has what percent-encoding and `+` make difficult, and without its `+` is no longer of a length that base64
    // can have: or now and then what should not decode would, to something else.
    let is_difficult = |leaf: &Leaf| {
        !leaf.cert.matches('+').count().is_multiple_of(4)
            && leaf.cert.contains('/')
            && leaf.cert.contains('=')
    };
    let leaf = std::iter::repeat_with(|| issuer.issue(Subject::client("leaf").dns("client.example")))
        .find(is_difficult)
        .expect("an endless supply");
    std::iter::once(leaf.der).chain(cas.iter().rev().map(Ca::der)).collect()
});

/// The leaf and `chain` other certificates.
fn ders(chain: usize) -> Vec<&'static [u8]> {
    CERTIFICATES[..=chain].iter().map(Vec::as_slice).collect()
}

fn leaf() -> &'static [u8] {
    &CERTIFICATES[0]
}

/// What is meant by the value that `front` writes for these certificates.
fn meant(front: &Front, ders: &[&[u8]]) -> Presented {
    let chain = if front.chain { &ders[1..] } else { &[] };
    Presented { leaf: ders[0].to_vec(), chain: chain.iter().map(|der| der.to_vec()).collect() }
}

fn front(name: &str) -> &'static Front {
    FRONTS.iter().find(|front| front.name == name).expect("a front of the list")
}

fn url_encoded(value: &str) -> Result<Option<Presented>, FrontError> {
    decode(Format::UrlEncoded, &[value])
}

fn base64_encoded(value: &str) -> Result<Option<Presented>, FrontError> {
    decode(Format::Base64Encoded, &[value])
}

#[test]
fn the_names_are_kongs() {
    use serde::Deserialize;
    use serde::de::value::{Error, StrDeserializer};
    let named = |name| Format::deserialize(StrDeserializer::<Error>::new(name)).ok();
    assert_eq!(named("base64_encoded"), Some(Format::Base64Encoded));
    assert_eq!(named("url_encoded"), Some(Format::UrlEncoded));
    assert_eq!(named("xfcc"), None);
}

#[test]
fn what_a_front_writes_is_read_under_its_format_and_no_other() {
    for front in &FRONTS {
        for chain in [0, 1, 3] {
            let value = (front.encode)(&ders(chain));
            assert_eq!(
                decode(front.format, &[&value]),
                Ok(Some(meant(front, &ders(chain)))),
                "{front:?}: {value}"
            );
            let other = match front.format {
                Format::Base64Encoded => Format::UrlEncoded,
                Format::UrlEncoded => Format::Base64Encoded,
            };
            assert!(decode(other, &[&value]).is_err(), "{front:?} under {other:?}");
        }
    }
}

#[test]
fn no_certificate_is_only_what_a_front_says_for_it() {
    for format in [Format::Base64Encoded, Format::UrlEncoded] {
        assert_eq!(decode::<&str>(format, &[]), Ok(None));
        assert_eq!(decode(format, &[""]), Ok(None));
    }
    assert_eq!(base64_encoded(","), Ok(None), "HAProxy with leaf and chain");
    assert_eq!(url_encoded("(null)"), Ok(None), "Apache httpd");
    for value in [" ", "-", "\"\"", "::", ":", ",,", "%", "%20", "%00", "(null)", "null", "\0", "=", ";"] {
        assert!(base64_encoded(value).is_err(), "{value:?}");
    }
    for value in [" ", "-", "\"\"", "::", ":", ",", "%", "%20", "%00", "(null),", "null", "\0", "=", ";"] {
        assert!(url_encoded(value).is_err(), "{value:?}");
    }
}

#[test]
fn a_header_that_stands_twice_is_refused_even_if_both_say_the_same() {
    for front in &FRONTS {
        let value = (front.encode)(&ders(0));
        assert_eq!(decode(front.format, &[&value, &value]), Err(FrontError::Repeated));
        assert_eq!(decode(front.format, &[value.as_str(), ""]), Err(FrontError::Repeated));
    }
}

/// Proxies merge headers of one name with a comma and a space. One of the two would be the client's.
#[test]
fn two_headers_that_were_merged_into_one_are_refused() {
    for clients in &FRONTS {
        for ours in FRONTS.iter().filter(|front| front.format == clients.format) {
            let (clients_value, our_value) = ((clients.encode)(&ders(1)[1..]), (ours.encode)(&ders(0)));
            for merged in [format!("{clients_value}, {our_value}"), format!("{our_value}, {clients_value}")] {
                assert!(decode(ours.format, &[&merged]).is_err(), "{clients:?} with {ours:?}: {merged}");
            }
        }
    }
}

#[test]
fn pem_is_certificates_and_nothing_else() {
    use FrontError::*;
    let der = leaf();
    let pem = pem(der);
    let key = Ca::root("root").issue(Subject::client("leaf")).key;
    let body = pem.lines().skip(1).take_while(|line| !line.starts_with('-')).collect::<String>();
    let space = |text: String| text.replace('\n', "%0A").replace(' ', "%20");
    let read = Ok(Some(Presented { leaf: der.to_vec(), chain: vec![] }));
    for (value, result) in [
        (pem.replace('\n', "\r\n"), read.clone()),
        (pem.replace('\n', "\n\t"), read.clone()),
        (pem.replace('\n', ""), read),
        (pem.replace("CERTIFICATE", "X509 CERTIFICATE"), Err(OtherPem)),
        (pem.replace("CERTIFICATE", "TRUSTED CERTIFICATE"), Err(OtherPem)),
        (key.clone(), Err(OtherPem)),
        (format!("{pem}{key}"), Err(OtherPem)),
        (format!("{key}{pem}"), Err(OtherPem)),
        (pem.replacen('\n', "\nProc-Type: 4,ENCRYPTED\n\n", 1), Err(Base64)),
        (format!("{pem}x"), Err(Pem)),
        (format!("{pem}\0"), Err(Pem)),
        (pem.replacen("MII", "MI\0I", 1), Err(Base64)),
        (format!("-{pem}"), Err(Pem)),
        (pem.replace("BEGIN ", "BEGIN+"), Err(Pem)),
        (pem.replace("END CERTIFICATE", "END CERTIFICAT"), Err(Pem)),
        (pem.replace("=\n", "\n"), Err(Base64)),
        (pem.replace('+', " "), Err(Base64)),
        (pem.replace('+', "-").replace('/', "_"), Err(Base64)),
        ("-----BEGIN CERTIFICATE----------END CERTIFICATE-----".into(), Err(NotACertificate)),
        ("-----BEGIN CERTIFICATE-----".into(), Err(Pem)),
        (encoders::pem(&der[..der.len() - 1]), Err(NotACertificate)),
        (encoders::pem(&[der, &[0]].concat()), Err(NotACertificate)),
        (encoders::pem(&[der, der].concat()), Err(NotACertificate)),
        (format!("-----BEGIN CERTIFICATE-----{body}"), Err(Pem)),
    ] {
        assert_eq!(url_encoded(&space(value.clone())), result, "{value}");
    }
}

#[test]
fn percent_encoding_is_decoded_once_and_completely() {
    let value = (front("nginx $ssl_client_escaped_cert").encode)(&ders(0));
    assert_eq!(url_encoded(&format!("{value}%")), Err(FrontError::Percent));
    assert_eq!(url_encoded(&format!("{value}%0")), Err(FrontError::Percent));
    assert_eq!(url_encoded(&value.replacen("%0A", "%+A", 1)), Err(FrontError::Percent));
    assert!(url_encoded(&value.replace('%', "%25")).is_err());
    let everything: String = pem(leaf()).bytes().map(|byte| format!("%{byte:02x}")).collect();
    assert_eq!(url_encoded(&everything).unwrap().unwrap().leaf, leaf());
}

#[test]
fn base64_is_in_its_one_form() {
    use FrontError::*;
    let [leaf, issuer] = [ders(1)[0], ders(1)[1]].map(|der| (front("HAProxy ssl_c_der").encode)(&[der]));
    let padding = leaf.len() - leaf.trim_end_matches('=').len();
    let unpadded = &leaf[..leaf.len() - padding];
    // The bits that padding leaves over, set to something else than zero.
    let last = unpadded.as_bytes()[unpadded.len() - 1];
    let other_bits =
        format!("{}{}{}", &unpadded[..unpadded.len() - 1], char::from(last + 1), "=".repeat(padding));
    let both_in_one = (front("HAProxy ssl_c_der").encode)(&[&[ders(1)[0], ders(1)[1]].concat()]);
    for (value, error) in [
        (unpadded.to_owned(), Base64),
        (other_bits, Base64),
        (format!("{leaf}="), Base64),
        (format!(" {leaf}"), Base64),
        (format!("{leaf} "), Base64),
        (format!("\"{leaf}\""), Base64),
        (leaf.replace('+', "-").replace('/', "_"), Base64),
        (leaf.replace('+', " "), Base64),
        (format!("{leaf}\0"), Base64),
        (format!("{leaf}, {issuer}"), Base64),
        (format!(",{leaf}"), NotACertificate),
        (format!("{leaf},,{issuer}"), NotACertificate),
        (format!("{leaf},{issuer},"), NotACertificate),
        (format!("{leaf},,"), NotACertificate),
        (format!("{leaf},AAAA"), NotACertificate),
        ("AAAA".into(), NotACertificate),
        // As HAProxy's chain alone would be, where the first is not the leaf.
        (both_in_one, NotACertificate),
        (pem(ders(0)[0]), Base64),
    ] {
        assert_eq!(base64_encoded(&value), Err(error), "{value}");
    }
}

#[test]
fn a_byte_sequence_of_rfc_9440_is_one_certificate() {
    let value = (front("RFC 9440").encode)(&ders(0));
    let syntax = Err(FrontError::Rfc9440(MalformedHeader::Syntax));
    assert_eq!(base64_encoded(&format!("{value}, {value}")), syntax);
    assert_eq!(base64_encoded(&format!("{value};a=1")), syntax);
    assert_eq!(base64_encoded("::"), Err(FrontError::Rfc9440(MalformedHeader::Empty)));
    assert_eq!(base64_encoded(":AAAA:"), Err(FrontError::NotACertificate));
}

#[test]
fn the_limits_hold() {
    for front in FRONTS.iter().filter(|front| front.chain) {
        let ten = (front.encode)(&ders(MAX_CERTIFICATES - 1));
        assert_eq!(
            decode(front.format, &[ten]).unwrap().unwrap().chain.len(),
            MAX_CERTIFICATES - 1,
            "{front:?}"
        );
        let eleven = (front.encode)(&ders(MAX_CERTIFICATES));
        assert_eq!(decode(front.format, &[eleven]), Err(FrontError::TooMany), "{front:?}");
    }
    for format in [Format::Base64Encoded, Format::UrlEncoded] {
        assert_eq!(decode(format, &["-".repeat(MAX_HEADER_BYTES + 1)]), Err(FrontError::TooLarge));
        assert_ne!(decode(format, &["-".repeat(MAX_HEADER_BYTES)]), Err(FrontError::TooLarge));
    }
    // Counted before anything is decoded.
    assert_eq!(base64_encoded(&",".repeat(MAX_CERTIFICATES)), Err(FrontError::TooMany));
}

#[test]
fn only_an_element_that_agrees_with_itself_is_read() {
    use XfccError::*;
    let value = (front("Envoy with everything").encode)(&ders(1));
    let (_, rest) = value.split_once(";Cert=").unwrap();
    let (cert, rest) = rest.split_once(";Chain=").unwrap();
    let (chain, _) = rest.split_once(";Subject=").unwrap();
    let (_, rest) = value.split_once(";Hash=").unwrap();
    let (hash, _) = rest.split_once(';').unwrap();
    let others = (front("Envoy with cert").encode)(&ders(1)[1..]);
    let (_, others_cert) = others.split_once(";Cert=").unwrap();
    let swapped = (front("Envoy with chain").encode)(&[ders(1)[1], ders(1)[0]]);
    let (_, swapped_chain) = swapped.split_once(";Chain=").unwrap();

    let bare = Presented { leaf: leaf().to_vec(), chain: vec![] };
    let whole = meant(front("Envoy with everything"), &ders(1));
    for (value, presented) in [
        (format!("Hash={hash};Cert={cert}"), &bare),
        (format!("hash={};CERT={cert}", hash.to_uppercase()), &bare),
        (format!("Cert={cert};Hash=\"{hash}\""), &bare),
        (format!("Hash={hash};Cert={}", cert.trim_matches('"')), &bare),
        (format!("Hash={hash};Cert={cert};Subject=\"\";URI=;DNS="), &bare),
        (format!("Hash={hash};Cert={cert};Issuer=\"CN=a\\\"b,Cert=x\";Later=1"), &bare),
        (format!("By=a;By=b;Hash={hash};Chain={chain};Cert={cert}"), &whole),
    ] {
        assert_eq!(url_encoded(&value).as_ref(), Ok(&Some(presented.clone())), "{value}");
    }

    for (value, error) in [
        // Without the proof of Envoy's own hand, or with that of another certificate.
        (format!("Cert={cert}"), Hash),
        (format!("Hash=;Cert={cert}"), Hash),
        (format!("Hash={};Cert={cert}", &hash[..62]), Hash),
        (format!("Hash={hash}0;Cert={cert}"), Hash),
        (format!("Hash={hash};Cert={others_cert}"), Hash),
        (format!("Hash={hash};Chain={swapped_chain}"), Hash),
        (format!("Hash={hash};Subject=\"CN=a\""), NoCertificate),
        (format!("Hash={hash};XCert={cert}"), NoCertificate),
        (format!("Hash={hash};Cert={chain}"), SeveralLeaves),
        (format!("Hash={hash};Cert={cert};Chain={swapped_chain}"), OtherChain),
        (format!("Hash={hash};Cert={others_cert};Chain={chain}"), OtherChain),
        (format!("Hash={hash};Cert={cert};Cert={cert}"), Twice("Cert")),
        (format!("Hash={hash};Cert={cert};cert={others_cert}"), Twice("Cert")),
        (format!("Hash={hash};Hash={hash};Cert={cert}"), Twice("Hash")),
        (format!("Hash={hash};Chain={chain};Chain={chain}"), Twice("Chain")),
        // The client's own element before or, by way of a URI in its certificate, behind Envoy's.
        (format!("{others},{value}"), Elements),
        (format!("{value},{others}"), Elements),
        (format!("x=y,{value}"), Elements),
        (format!("Hash={hash};Cert={cert};URI=x,{others}"), Elements),
        (format!("Hash={hash};Cert={cert};URI=x;Cert={others_cert}"), Twice("Cert")),
        (format!("Hash={hash};URI=x;Cert={others_cert}"), Hash),
        // A quote that the client opens and Envoy's own closes.
        (format!("{others};X=\",{value}"), Syntax),
        (format!("{others};X=\",By=a;Hash={hash}"), Syntax),
        (format!("Hash={hash};Cert={cert};"), Syntax),
        (format!("Hash={hash};;Cert={cert}"), Syntax),
        (format!("Hash={hash}; Cert={cert}"), Syntax),
        (format!("Hash={hash};=a;Cert={cert}"), Syntax),
        (format!("Hash={hash};a;Cert={cert}"), Syntax),
        (format!("Hash={hash};Cert={cert}x"), Syntax),
        (format!("Hash={hash};URI=a\"b;Cert={cert}"), Syntax),
        (format!("Hash={hash};Subject=\"a\\"), Syntax),
    ] {
        assert_eq!(url_encoded(&value), Err(FrontError::Xfcc(error)), "{value}");
    }
    assert_eq!(url_encoded(&format!("Hash={hash};Cert=")), Err(FrontError::Pem));
    for value in [r#"[{"Hash":"00"}]"#, "Hash", &format!(";Hash={hash};Cert={cert}")] {
        assert_eq!(url_encoded(value), Err(FrontError::NotUrlEncoded), "{value}");
    }
}
