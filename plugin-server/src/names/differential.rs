//! Names as three others read them: `openssl x509`, Python's cryptography, and whoever thought them up.
//!
//! Where ours is stricter, on purpose: a value has no text where it is empty, has control characters, or is of a type whose
//! character set is read in several ways or that RFC 5280 leaves out of a DirectoryString. It is then `#` and its DER, and
//! matches nothing. And a value of `#` alone is escaped, as RFC 4514 has it: OpenSSL forgets that this last character is
//! also the first.

mod thought_up;

use std::collections::HashSet;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde_json::Value as Json;
use x509_parser::prelude::FromDer;

use self::thought_up::{Attribute, Name, San, certificate, name, sans};
use super::*;
use crate::certificate::Certificate;
use crate::random_cases::random_cases;

/// The attributes of a DN in text. No comma and no plus is taken for one that is part of a value.
fn attributes(text: &str) -> Vec<&str> {
    let mut attributes = Vec::new();
    let (mut begin, mut is_escaped) = (0, false);
    for (position, character) in text.char_indices() {
        if !is_escaped && matches!(character, ',' | '+') {
            attributes.push(&text[begin..position]);
            begin = position + 1;
        }
        is_escaped = !is_escaped && character == '\\';
    }
    attributes.push(&text[begin..]);
    attributes
}

/// Our text of a name must be what OpenSSL writes, attribute by attribute, but for what has no text for us.
fn compare_name(name: &Name, ours: &str, openssl: &str) -> Result<(), TestCaseError> {
    if name.0.is_empty() {
        prop_assert_eq!((ours, openssl), ("", ""));
        return Ok(());
    }
    let (ours, openssl) = (attributes(ours), attributes(openssl));
    let thought_up: Vec<&Attribute> = name.0.iter().rev().flat_map(|rdn| rdn.iter().rev()).collect();
    prop_assert_eq!(ours.len(), thought_up.len());
    prop_assert_eq!(openssl.len(), thought_up.len());
    for ((ours, openssl), attribute) in ours.iter().zip(openssl).zip(thought_up) {
        let (kind, _) = openssl.split_once('=').unwrap();
        if attribute.text().as_deref() == Some("#") && !attribute.is_nameless() {
            prop_assert_eq!((*ours).to_owned(), format!("{kind}=\\#"));
        } else if attribute.has_text() {
            prop_assert_eq!(*ours, openssl, "{:?}", attribute);
        } else {
            prop_assert_eq!((*ours).to_owned(), format!("{kind}=#{}", attribute.value_in_hexadecimal()));
        }
    }
    Ok(())
}

fn ask_openssl(der: &[u8], path: &Path) -> (String, String, Vec<String>) {
    std::fs::write(path, der).unwrap();
    let output = Command::new("openssl")
        .args(["x509", "-noout", "-nameopt", "RFC2253", "-subject", "-issuer"])
        .args(["-ext", "subjectAltName", "-inform", "DER", "-in"])
        .arg(path)
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let mut lines = said.lines();
    let mut after = |prefix| lines.next().and_then(|line| line.strip_prefix(prefix)).unwrap().to_owned();
    let (subject, issuer) = (after("subject="), after("issuer="));
    // Newer versions also say how long an address is that is none.
    let without_lengths = |line: &str| {
        (0..=32).fold(line.trim_start().to_owned(), |line, length| {
            line.replace(&format!(" length={length}>"), ">")
        })
    };
    (subject, issuer, lines.map(without_lengths).collect())
}

#[test]
fn names_of_any_kind_are_those_of_openssl() {
    let mut runner = TestRunner::new(random_cases(250, 4514));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("certificate");
    let names = || name().prop_filter("OpenSSL stops at what is broken", |name| !name.is_broken());
    let result = runner.run(&(names(), names(), sans()), |(subject, issuer, sans)| {
        let der = certificate(&subject, &issuer, &sans);
        let ours = Certificate::from_der(&der).unwrap();
        let (their_subject, their_issuer, their_sans) = ask_openssl(&der, &path);
        compare_name(&subject, &ours.subject, &their_subject)?;
        compare_name(&issuer, &ours.issuer, &their_issuer)?;
        let list: Vec<_> = sans.iter().map(San::as_openssl_prints_it).collect();
        let expected = if sans.is_empty() { Vec::new() } else { vec![list.join(", ")] };
        // It does not print any of them where one has a NUL.
        if !sans.iter().any(San::has_nul) {
            prop_assert_eq!(their_sans.get(1..).unwrap_or_default(), expected);
        }
        let text: Vec<_> = sans.iter().filter_map(San::text).collect();
        prop_assert_eq!(ours.subject_names(&[]), if sans.is_empty() { cn(&subject) } else { text });
        Ok(())
    });
    result.unwrap();
}

/// What counts without SANs.
fn cn(subject: &Name) -> Vec<String> {
    let all = subject.0.iter().flatten().filter(|attribute| attribute.is_common_name());
    match all.collect::<Vec<_>>()[..] {
        [only] => only.text().into_iter().collect(),
        _ => Vec::new(),
    }
}

/// One certificate a line in hexadecimal, and for each what Python's cryptography reads of it.
const SCRIPT: &str = r#"
import json, sys, warnings
from cryptography import x509
warnings.simplefilter("ignore")
KINDS = {x509.DNSName: "dns", x509.RFC822Name: "email", x509.UniformResourceIdentifier: "uri", x509.IPAddress: "ip"}
def subject(certificate):
    try:
        return [[attribute.oid.dotted_string, attribute.value] for attribute in certificate.subject]
    except Exception as error:
        return str(error)
def names(certificate):
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        return [[KINDS[type(name)], str(name.value)] for name in extension.value if type(name) in KINDS]
    except Exception as error:
        return str(error)
for line in sys.stdin:
    try:
        certificate = x509.load_der_x509_certificate(bytes.fromhex(line))
        print(json.dumps({"subject": subject(certificate), "names": names(certificate)}))
    except Exception as error:
        print(json.dumps({"subject": str(error), "names": str(error)}))
"#;

/// The Python that has the package: the one of the path, or else the system's.
fn python() -> Command {
    let has_it = |program: &&str| {
        let mut check = Command::new(program);
        check.args(["-c", "import cryptography"]).stderr(Stdio::null());
        check.status().is_ok_and(|status| status.success())
    };
    let found = ["python3", "/usr/bin/python3"].into_iter().find(has_it);
    Command::new(found.expect("Python's cryptography is missing (Debian: python3-cryptography)"))
}

#[test]
fn names_of_any_kind_are_those_of_pythons_cryptography() {
    let config = random_cases(3000, 4514);
    let count = config.cases;
    let mut runner = TestRunner::new(config);
    let strategy = vec((name(), sans()), count as usize);
    let all = strategy.new_tree(&mut runner).unwrap().current();
    let ders: Vec<_> = all.iter().map(|(subject, sans)| certificate(subject, &Name(vec![]), sans)).collect();
    let lines: String = ders.iter().map(|der| crate::certificate::hex(der) + "\n").collect();
    let mut child =
        python().args(["-c", SCRIPT]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || stdin.write_all(lines.as_bytes()).unwrap());
    let mut said = String::new();
    child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    writer.join().unwrap();
    assert!(child.wait().unwrap().success());
    let read: Vec<Json> = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(read.len(), all.len());

    let (mut subjects, mut lists) = (0, 0);
    for (((subject, sans), der), theirs) in all.iter().zip(&ders).zip(&read) {
        let context = format!("{subject:?} {sans:?} {theirs}");
        let (_, parsed) = x509_parser::prelude::X509Certificate::from_der(der).unwrap();
        if let Some(theirs) = theirs["subject"].as_array() {
            subjects += 1;
            let ours = parsed
                .subject()
                .iter_attributes()
                .map(|attribute| (dotted(attribute.attr_type()), exact_text(attribute.attr_value())));
            // In one RDN they are a set, which has no order there.
            let theirs: HashSet<_> = theirs.iter().map(|pair| (pair[0].as_str(), pair[1].as_str())).collect();
            for (kind, text) in ours {
                let Some(text) = text else { continue };
                assert!(theirs.contains(&(Some(&*kind), Some(&*text))), "{kind} {text:?}: {context}");
            }
        } else {
            let is_refused = subject.0.iter().flatten().any(Attribute::may_be_refused);
            assert!(is_refused || subject.has_one_twice(), "{context}");
        }
        let ours = Certificate::from_der(der).unwrap();
        if let Some(theirs) = theirs["names"].as_array() {
            lists += 1;
            let theirs: Vec<_> = theirs.iter().map(|pair| pair[1].as_str().unwrap().to_owned()).collect();
            let with_text: Vec<_> = sans.iter().filter(|san| !san.is_directory_name()).collect();
            let ours_of: Vec<_> = with_text.iter().filter_map(|san| san.text()).collect();
            assert_eq!(
                ours.subject_names(&[AttributeType::from_name("1.2.3").unwrap()]),
                ours_of,
                "{context}"
            );
            // All that we take for a name, they do, and in the same order.
            let mut rest = theirs.iter();
            assert!(ours_of.iter().all(|name| rest.any(|their| their == name)), "{ours_of:?}: {context}");
        } else {
            let is_refused = theirs["subject"].is_string() || sans.iter().any(San::may_be_refused);
            assert!(sans.is_empty() || is_refused, "{context}");
        }
    }
    // Enough of them are names that both can read.
    assert!(subjects * 3 > all.len() && lists * 3 > all.len(), "{subjects} {lists} of {}", all.len());
}
