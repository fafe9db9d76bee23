//! CRLs in files, metrics, and `mtls-auth explain`.

use std::process::Command;
use std::time::SystemTime;

use kong_double::Protocol;
use serde_json::{Value as Json, json};
use testbed::crl::OpensslCa;
use testbed::ocsp::State;
use testbed::pki::{Ca, Subject, naming};

use crate::common::{BINARY, Prefix};
use crate::setup::{PRIVATE, Responder, Setup};

fn serial(der: &[u8]) -> Vec<u8> {
    let certificate = openssl::x509::X509::from_der(der).unwrap();
    certificate.serial_number().to_bn().unwrap().to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn crls_in_files_count_and_are_watched() {
    let (folder, home) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let ca = Ca::root("root");
    let openssl = OpensslCa::new(home.path(), &ca);
    let write = |number| {
        let list = openssl.list(Some(number), "", &["-crldays", "1"]);
        std::fs::write(folder.path().join("ca.pem"), list).unwrap();
    };
    write(1);
    let options = ["--crl-path", folder.path().to_str().unwrap()];
    let setup = Setup::with(Protocol::MsgPack, ca, &[], &options, json!({})).await;
    let leaf = setup.ca.issue(Subject::client("alice"));
    let outcome = setup.request("strict", &leaf);
    assert_eq!(outcome.status, 200, "{outcome:?}");
    openssl.revoke(&serial(&leaf.der), SystemTime::now(), None);
    write(2);
    setup.server.wait_for("the CRLs were read again");
    assert!(setup.request("ignore", &leaf).says(&["refused: revoked", "local_crl", "ca.pem"]));
    std::fs::write(folder.path().join("ca.pem"), "no CRL").unwrap();
    setup.server.wait_for("the last good version stays");
    assert_eq!(setup.request("ignore", &leaf).status, 401);
}

#[test]
fn a_path_of_crls_or_a_ca_file_that_cannot_be_used_refuses_the_start() {
    let prefix = Prefix::new();
    let broken = prefix.write("broken", "nothing");
    for (option, path) in [
        ("--crl-path", "/nonexistent/crls"),
        ("--crl-path", broken.to_str().unwrap()),
        ("--revocation-ca-file", "/nonexistent/cas"),
        ("--revocation-ca-file", broken.to_str().unwrap()),
    ] {
        let output = prefix.command(&[option, path]).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && said.contains(path), "{option} {path}: {said}");
    }
    let file = "crl_path: /nonexistent/crls\nallow_private_revocation_urls: true\nrevocation_memory: 64\ncrl_max_stale: 60\n";
    let file = prefix.write("options.yml", file);
    let output = prefix.command(&["--config", file.to_str().unwrap()]).output().unwrap();
    assert!(
        String::from_utf8(output.stderr).unwrap().contains("/nonexistent/crls"),
        "it counts from the file, too"
    );
    for options in [["--revocation-memory", "7"], ["--crl-max-stale", "-1"], ["--revocation-memory", "x"]] {
        assert!(!prefix.command(&options).output().unwrap().status.success(), "{options:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn checks_are_counted_and_what_is_remembered_is_shown() {
    let options = [PRIVATE, "--status-listen", "127.0.0.1:0"];
    let setup = Setup::start(Protocol::MsgPack, &options, json!({})).await;
    let line: Json = serde_json::from_str(&setup.server.wait_for("status is served")).unwrap();
    let responder = Responder::of(&setup.ca);
    let (good, bad) = (responder.leaf(&setup.ca), responder.leaf(&setup.ca));
    responder.set(&bad, State::Revoked);
    for leaf in [&good, &good, &bad] {
        setup.request("strict", leaf);
    }
    let url = format!("http://{}/metrics", line["address"].as_str().unwrap());
    let output = Command::new("curl").args(["-sS", &url]).output().unwrap();
    let metrics = String::from_utf8(output.stdout).unwrap();
    for sample in [
        "mtls_auth_revocation_checks_total{source=\"ocsp\",result=\"good\"} 2",
        "mtls_auth_revocation_checks_total{source=\"ocsp\",result=\"revoked\"} 1",
        "mtls_auth_revocation_checks_total{source=\"crl\",result=\"timed_out\"} 0",
        "mtls_auth_revocation_fetch_duration_seconds_count 2",
        "mtls_auth_revocation_crls 0",
        "mtls_auth_revocation_servers_left_alone 0",
        "mtls_auth_decisions_total{outcome=\"refused\",reason=\"revoked\"} 1",
        "mtls_auth_access_duration_seconds_count{phase=\"revocation\"} 3",
    ] {
        assert!(metrics.lines().any(|line| line == sample), "{sample}\n{metrics}");
    }
}

#[test]
fn explain_says_whom_it_would_ask_and_asks_them_if_it_is_told_to() {
    let (prefix, ca) = (Prefix::new(), Ca::root("root"));
    let responder = Responder::of(&ca);
    let url = responder.web.url();
    let leaf = ca.issue(naming(Subject::client("alice"), &[&url], &["ldap:///cn=root"]));
    leaf.write(prefix.dir.path(), "alice", &[]);
    responder.set(&leaf, State::Revoked);
    let config = json!({
        "ca_certificates": [ca.pem()], "skip_consumer_lookup": true, "revocation_check_mode": "STRICT",
    });
    prefix.write("config.json", &config.to_string());
    let explain = |more: &[&str]| {
        let mut command = Command::new(BINARY);
        command.args(["explain", "--json", "--cert", "alice.crt", "--plugin-config", "config.json"]);
        let output = command.args(more).current_dir(prefix.dir.path()).output().unwrap();
        let report: Json = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
        let steps = report["steps"].as_array().unwrap().clone();
        let about =
            |step: &Json| (step["about"] == "revocation").then(|| step["says"].as_str().unwrap().to_owned());
        (output.status.code(), report["reason"].clone(), steps.iter().filter_map(about).collect::<Vec<_>>())
    };
    let (code, _, steps) = explain(&[]);
    assert_eq!((code, responder.web.requests()), (Some(0), 0));
    let expected =
        format!("the client's certificate: ocsp {url:?}, crl \"ldap:///cn=root\"; asked with --online only");
    assert_eq!(steps, [expected]);
    let (code, reason, steps) = explain(&["--online", PRIVATE]);
    assert_eq!((code, reason), (Some(1), json!("revoked")));
    assert_eq!(steps, [format!("the client's certificate: ocsp {url:?}: revoked")]);
    let (code, reason, steps) = explain(&["--online"]);
    assert_eq!((code, reason), (Some(1), json!("revocation_unknown")));
    assert!(steps[0].contains("url_refused") && steps.len() == 2, "{steps:?}");
    let output = Command::new(BINARY).args(["explain", PRIVATE]).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "an option that would be ignored");
}
