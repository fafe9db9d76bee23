//! Versions, ciphers and groups: what the settings let clients choose from, under every name, and after SIGHUP.

mod common;

use common::s_client::{s_client, try_s_client};
use common::sessions::Client;
use common::{OPEN, RELOADED, Rig, SECURED, hang_up};
use testbed::pki::Ca;

/// A name whose context has CA names, and one without.
fn entities() -> String {
    let pem = serde_json::to_string(&Ca::root("named").pem()).unwrap();
    format!(
        "routes:
- name: secured
  snis: [{SECURED}]
  plugins: [{{name: mtls-auth, config: {{send_ca_dn: true, ca_certificates: [{pem}]}}}}]
- {{name: open, snis: [{OPEN}]}}"
    )
}

/// Replaces the line `tls`, and has it read.
fn set(rig: &Rig, tls: &str) {
    let path = rig.dir.path().join("shim.yml");
    let settings = std::fs::read_to_string(&path).unwrap();
    let others: String =
        settings.lines().filter(|line| !line.starts_with("tls:")).map(|line| format!("{line}\n")).collect();
    std::fs::write(&path, format!("{others}tls: {tls}\n")).unwrap();
    hang_up(&rig.shim, RELOADED);
}

const TLS_1_1: &[&str] = &["-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0"];
const TLS_1_2: &[&str] = &["-tls1_2"];
const TLS_1_3: &[&str] = &["-tls1_3"];
const AES_128: &[&str] = &["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"];
const AES_256: &[&str] = &["-tls1_2", "-cipher", "ECDHE-ECDSA-AES256-GCM-SHA384"];
const CBC: &[&str] = &["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA"];
const ANONYMOUS: &[&str] = &["-tls1_2", "-cipher", "aNULL:@SECLEVEL=0"];
const SUITE_128: &[&str] = &["-tls1_3", "-ciphersuites", "TLS_AES_128_GCM_SHA256"];
const SUITE_256: &[&str] = &["-tls1_3", "-ciphersuites", "TLS_AES_256_GCM_SHA384"];
const P_256: &[&str] = &["-groups", "P-256"];
const P_521: &[&str] = &["-groups", "P-521"];

#[test]
fn clients_choose_from_what_is_set_under_every_name() {
    let rig = Rig::new(&entities());
    for (tls, good, bad) in [
        (
            "{}",
            &[TLS_1_2, TLS_1_3, AES_128, AES_256, SUITE_128, SUITE_256, P_256][..],
            &[TLS_1_1, CBC, ANONYMOUS, P_521][..],
        ),
        ("{min_version: 1.3}", &[TLS_1_3], &[TLS_1_2, TLS_1_1]),
        ("{max_version: '1.2'}", &[TLS_1_2, P_256], &[TLS_1_3, TLS_1_1]),
        (
            "{ciphers: [ECDHE-ECDSA-AES128-SHA, ECDHE-ECDSA-AES256-GCM-SHA384]}",
            &[CBC, AES_256, SUITE_128],
            &[AES_128, ANONYMOUS],
        ),
        ("{cipher_suites: [TLS_AES_256_GCM_SHA384]}", &[SUITE_256, AES_128], &[SUITE_128, CBC]),
        ("{groups: [P-521, X25519]}", &[P_521, TLS_1_2, TLS_1_3], &[P_256]),
    ] {
        set(&rig, tls);
        for name in [Some(SECURED), Some(OPEN), None] {
            for (arguments, expected) in
                good.iter().map(|arguments| (arguments, true)).chain(bad.iter().map(|bad| (bad, false)))
            {
                let output = try_s_client(&rig, name, arguments);
                assert_eq!(output.status.success(), expected, "{tls} {name:?} {arguments:?}: {output:?}");
            }
        }
    }
}

#[test]
fn the_order_of_ciphers_and_groups_is_the_servers() {
    let rig = Rig::new(&entities());
    let [aes_128, aes_256] = ["ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-GCM-SHA384"];
    let curves = [("P-384", "secp384r1"), ("P-256", "prime256v1")];
    for (ciphers, groups) in [([aes_128, aes_256], curves), ([aes_256, aes_128], [curves[1], curves[0]])] {
        let [(first, said_first), (second, _)] = groups;
        set(&rig, &format!("{{ciphers: [{}], groups: [{first}, {second}]}}", ciphers.join(", ")));
        for client in [[aes_128, aes_256], [aes_256, aes_128]] {
            for client_groups in ["P-256:P-384", "P-384:P-256"] {
                let said = s_client(
                    &rig,
                    Some(SECURED),
                    &["-tls1_2", "-cipher", &client.join(":"), "-groups", client_groups],
                );
                assert!(
                    said.contains(&format!("Cipher is {}", ciphers[0])),
                    "{ciphers:?} {client:?}: {said}"
                );
                assert!(said.contains(said_first), "{first} {client_groups}: {said}");
            }
        }
    }
}

#[test]
fn a_list_that_is_refused_leaves_the_last_good_one() {
    let rig = Rig::with_settings(&entities(), "tls: {min_version: '1.3'}\n");
    let path = rig.dir.path().join("shim.yml");
    let settings = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, settings.replace("'1.3'", "'1.2', ciphers: [aNULL]")).unwrap();
    hang_up(&rig.shim, "SIGHUP: everything stays as it was");
    assert!(!try_s_client(&rig, Some(OPEN), TLS_1_2).status.success());
    assert!(try_s_client(&rig, Some(OPEN), TLS_1_3).status.success());
}

#[test]
fn a_session_of_other_settings_is_not_resumed() {
    let rig = Rig::new(&entities());
    let [old, new] = ["-tls1_2", "-tls1_3"].map(|version| Client::new(&rig, version));
    for client in [&old, &new] {
        let kept = format!("kept{}", client.version);
        client.begin(rig.address, Some(SECURED), "client", &kept);
        assert!(client.resumes(rig.address, Some(SECURED), &kept));
    }
    // The client offers all ciphers, that of the session too, and OpenSSL would take that.
    set(&rig, "{ciphers: [ECDHE-ECDSA-CHACHA20-POLY1305], cipher_suites: [TLS_CHACHA20_POLY1305_SHA256]}");
    for client in [&old, &new] {
        assert!(!client.resumes(rig.address, Some(SECURED), &format!("kept{}", client.version)));
    }
    set(&rig, "{min_version: '1.3'}");
    let said = old.get(rig.address, Some(SECURED), "/", "dropped", &["-sess_in", "kept-tls1_2"]);
    assert!(!said.has_passed(), "{}", said.0);
    // Under the settings of before, sessions are what they were.
    set(&rig, "{}");
    for client in [&old, &new] {
        assert!(client.resumes(rig.address, Some(SECURED), &format!("kept{}", client.version)));
    }
}
