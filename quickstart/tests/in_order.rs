//! `mtls-auth doctor` and `tls-shim check` say the same of what both programs share.

use std::path::Path;
use std::process::Command;

use testbed::pki::{Ca, Subject};
use testbed::process::{Process, binary};

fn said(command: &mut Command) -> (bool, String) {
    let output = command.output().unwrap();
    (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
}

fn write(dir: &Path, name: &str, content: &str) -> String {
    let path = dir.join(name);
    std::fs::write(&path, content).unwrap();
    path.display().to_string()
}

#[test]
fn both_programs_see_whether_they_have_the_same_key() {
    let dir = tempfile::tempdir().unwrap();
    let here = dir.path().display();
    let kong_yml = write(dir.path(), "kong.yml", "_format_version: '3.0'\nroutes: [{name: r, paths: [/]}]\n");
    Ca::root("servers").issue(Subject::server(&["localhost"])).write(dir.path(), "server", &[]);
    let shim_yml = write(
        dir.path(),
        "shim.yml",
        &format!(
            "listen: ['127.0.0.1:0']\nupstream: http://127.0.0.1:1\nkong: {{declarative_config: {kong_yml}}}\n\
             default_certificate: {{cert: {here}/server.crt, key: {here}/server.key}}\n\
             proof_key_file: {here}/mtls-auth.key\nplugin_server: {here}/mtls-auth.socket\n"
        ),
    );
    let (mtls_auth, tls_shim) = (binary("mtls-auth"), binary("tls-shim"));
    let server = Process::start(Command::new(&mtls_auth).arg("--kong-prefix").arg(dir.path()));
    server.wait_for("\"serving\"");
    let look = || {
        let mut doctor = Command::new(&mtls_auth);
        doctor.args([
            "doctor",
            "--declarative-config",
            &kong_yml,
            "--shim-config",
            &shim_yml,
            "--kong-prefix",
        ]);
        let mut check = Command::new(&tls_shim);
        [said(doctor.arg(dir.path())), said(check.args(["check", "--config", &shim_yml]))]
    };
    for (succeeds, said) in look() {
        assert!(succeeds && said.contains("\nOK    the server's proof key: "), "{said}");
        assert!(said.contains(&format!("process {} answers", server.id())), "{said}");
    }
    // A key that came after the server.
    write(dir.path(), "mtls-auth.key", "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=\n");
    for (succeeds, said) in look() {
        assert!(!succeeds && said.contains("\nFAIL  the server's proof key: "), "{said}");
    }
}
