//! This knows `openssl s_client` as a client that keeps its sessions in files.

use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use super::Rig;

/// What it needs to present the client's certificate.
pub const CERTIFICATE: [&str; 4] = ["-cert", "client.crt", "-key", "client.key"];

/// `openssl s_client` in a folder of its own.
pub struct Client<'a> {
    pub dir: &'a Path,
    /// The option that names the only version of TLS.
    pub version: &'static str,
    /// Another configuration file of OpenSSL's than the system's.
    pub conf: Option<&'a Path>,
}

/// What it said.
pub struct Said(pub String);

impl Said {
    pub fn resumed(&self) -> bool {
        let (new, reused) = (self.0.contains("\nNew, TLSv1"), self.0.contains("\nReused, TLSv1"));
        assert!(new != reused, "{}", self.0);
        reused
    }

    pub fn got_a_ticket(&self) -> bool {
        self.tickets() > 0
    }

    /// How many tickets came.
    pub fn tickets(&self) -> usize {
        // In TLS 1.2 one without bytes takes back the promise of one (RFC 5077, section 3.3).
        const EMPTY: usize = 4 + 4 + 2;
        let lengths = self.0.lines().filter(|line| line.contains("NewSessionTicket"));
        lengths
            .filter_map(|line| line.split_once("[length ")?.1.split(']').next())
            .filter(|length| usize::from_str_radix(length, 16).unwrap() > EMPTY)
            .count()
    }

    /// How long the client was told that its last ticket lives, in seconds.
    pub fn lifetime(&self) -> u64 {
        let mut hints = self.0.lines().filter_map(|line| line.split_once("session ticket lifetime hint: "));
        let last = hints.next_back().unwrap_or_else(|| panic!("no ticket: {}", self.0)).1;
        last.split(' ').next().unwrap().parse().unwrap()
    }

    pub fn has_passed(&self) -> bool {
        self.0.contains("HTTP/1.1 200 OK")
    }
}

impl<'a> Client<'a> {
    pub fn new(rig: &'a Rig, version: &'static str) -> Self {
        Self { dir: rig.dir.path(), version, conf: None }
    }

    /// Does a handshake and a request for `path`. A session is kept in the file `keep`.
    pub fn get(&self, shim: SocketAddr, sni: Option<&str>, path: &str, keep: &str, more: &[&str]) -> Said {
        let mut client = Command::new("openssl")
            .args(["s_client", "-ign_eof", "-msg", "-connect", &shim.to_string(), self.version])
            .args(sni.map_or(vec!["-noservername"], |sni| vec!["-servername", sni]))
            .args(["-sess_out", keep])
            .args(more)
            .current_dir(self.dir)
            .envs(self.conf.map(|conf| ("OPENSSL_CONF", conf)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("openssl runs");
        let host = sni.unwrap_or("a");
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        client.stdin.as_mut().unwrap().write_all(request.as_bytes()).unwrap();
        let output = client.wait_with_output().unwrap();
        Said(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// A full handshake with the certificates in `name`.crt, whose session is kept in `keep`.
    pub fn begin(&self, shim: SocketAddr, sni: Option<&str>, name: &str, keep: &str) {
        let [cert, key] = ["crt", "key"].map(|kind| format!("{name}.{kind}"));
        let rest = self.rest(name);
        let chain = ["-cert", &cert, "-key", &key, "-cert_chain", &rest];
        let chain = if rest.is_empty() { &chain[..4] } else { &chain };
        let said = self.get(shim, sni, "/begin", keep, chain);
        assert!(!said.resumed() && said.has_passed() && said.got_a_ticket(), "{sni:?}: {}", said.0);
    }

    /// The name of a file with the certificates after the first in `name`.crt, or of none where there are none.
    fn rest(&self, name: &str) -> String {
        let all = std::fs::read_to_string(self.dir.join(format!("{name}.crt"))).unwrap();
        let Some(second) = all.match_indices("-----BEGIN").map(|(at, _)| at).nth(1) else {
            return String::new();
        };
        std::fs::write(self.dir.join("rest.crt"), &all[second..]).unwrap();
        "rest.crt".into()
    }

    /// Whether the session in `kept` is resumed.
    pub fn resumes(&self, shim: SocketAddr, sni: Option<&str>, kept: &str) -> bool {
        let said = self.get(shim, sni, "/resume", "dropped", &["-sess_in", kept]);
        assert!(said.has_passed(), "{}", said.0);
        said.resumed()
    }
}

/// One for each version of TLS.
pub fn clients(rig: &Rig) -> [Client<'_>; 2] {
    ["-tls1_2", "-tls1_3"].map(|version| Client::new(rig, version))
}
