//! This knows `openssl s_client`: what it is told in a handshake.

use std::process::{Command, Output, Stdio};

use super::Rig;

/// Does a handshake, which must succeed, and returns all that is told of it.
pub fn s_client(rig: &Rig, sni: Option<&str>, arguments: &[&str]) -> String {
    let output = try_s_client(rig, sni, arguments);
    assert!(output.status.success(), "{sni:?}, {arguments:?}: {output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The same where it may fail.
pub fn try_s_client(rig: &Rig, sni: Option<&str>, arguments: &[&str]) -> Output {
    Command::new("openssl")
        .args(["s_client", "-nameopt", "RFC2253", "-connect", &rig.address.to_string()])
        .args(sni.map_or(vec!["-noservername"], |sni| vec!["-servername", sni]))
        .args(arguments)
        .current_dir(rig.dir.path())
        .stdin(Stdio::null())
        .output()
        .expect("openssl runs")
}
