//! This knows how to have `openssl ocsp` answer for a CA: request by request, or as a server.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use openssl::x509::X509;

use crate::pki::{Ca, Leaf};
use crate::process::Process;

/// A CA's certificate, whoever signs for it, and what it knows of its certificates, as files in a folder of their own.
pub struct Authority {
    dir: PathBuf,
    /// Serial number and the fields of the index that say its state, by certificate.
    index: Vec<(String, &'static str)>,
}

/// What the index says of a certificate; one that is not in it is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Good.
    Valid,
    /// Revoked on the first of January 2026, because its key is known to others.
    Revoked,
}

impl Authority {
    /// Answers for this CA, which signs by itself; see [`Self::signed_by`]. `dir` must be there, and no other's.
    pub fn new(dir: &Path, ca: &Ca) -> Self {
        let authority = Self { dir: dir.to_owned(), index: Vec::new() };
        std::fs::write(authority.path("ca.crt"), ca.pem()).expect("a file");
        authority.write_index();
        authority.signer(&ca.pem(), &ca.key())
    }

    /// Lets somebody else sign.
    pub fn signed_by(self, signer: &Leaf) -> Self {
        self.signer(&signer.cert, &signer.key)
    }

    fn signer(self, cert: &str, key: &str) -> Self {
        std::fs::write(self.path("signer.crt"), cert).expect("a file");
        std::fs::write(self.path("signer.key"), key).expect("a file");
        self
    }

    /// Says what to answer about a certificate from now on. A server that runs looks after each request: it hears of it with
    /// the second one at the latest.
    pub fn set(&mut self, leaf: &Leaf, state: State) {
        let certificate = X509::from_der(&leaf.der).expect("a certificate");
        let serial = certificate.serial_number().to_bn().and_then(|serial| serial.to_hex_str());
        let serial = serial.expect("a serial number").to_string();
        let fields = match state {
            State::Valid => "V\t491231235959Z\t",
            State::Revoked => "R\t491231235959Z\t260101000000Z,keyCompromise",
        };
        self.index.retain(|(other, _)| *other != serial);
        self.index.push((serial, fields));
        self.write_index();
    }

    /// At once, for a server may be reading it. What was there before stays beside it: a server knows a change by the inode
    /// and by times in whole seconds, and the inode of a file that is gone is soon that of another.
    fn write_index(&self) {
        let mut index = String::new();
        for (serial, fields) in &self.index {
            writeln!(index, "{fields}\t{serial}\tunknown\t/CN={serial}").expect("a String");
        }
        std::fs::write(self.path("index.new"), index).expect("a file");
        let kept = (0..).map(|number| self.path(&format!("index.{number}"))).find(|path| !path.exists());
        if let Some(kept) = kept.filter(|_| self.path("index.txt").exists()) {
            std::fs::hard_link(self.path("index.txt"), kept).expect("a file");
        }
        std::fs::rename(self.path("index.new"), self.path("index.txt")).expect("a file");
    }

    /// The response to a request, both in DER. `arguments` are those of `openssl ocsp`, such as `-ndays 1`; without them,
    /// the response does not say when there will be a newer one.
    pub fn answer(&self, request: &[u8], arguments: &[&str]) -> Vec<u8> {
        std::fs::write(self.path("request.der"), request).expect("a file");
        let mut command = self.command(arguments);
        command.arg("-reqin").arg(self.path("request.der")).arg("-respout").arg(self.path("response.der"));
        run(&mut command);
        std::fs::read(self.path("response.der")).expect("a response")
    }

    /// Starts a server for as long as what is returned lives.
    pub fn serve(&self, arguments: &[&str]) -> Responder {
        let process = Process::start(self.command(arguments).args(["-port", "0"]));
        let line = process.wait_for("ACCEPT ");
        let port = line.split_whitespace().nth(1).and_then(|address| address.rsplit(':').next());
        let port = port.and_then(|port| port.parse().ok()).unwrap_or_else(|| panic!("no port in {line:?}"));
        Responder { process, port }
    }

    /// The request that `openssl ocsp` itself makes about a certificate, with these arguments, such as `-sha256`.
    pub fn request(&self, leaf: &Leaf, arguments: &[&str]) -> Vec<u8> {
        std::fs::write(self.path("asked.crt"), &leaf.cert).expect("a file");
        let mut command = Command::new("openssl");
        // A hash algorithm is that of the certificates after it.
        command.arg("ocsp").args(arguments).arg("-issuer").arg(self.path("ca.crt"));
        command.arg("-cert").arg(self.path("asked.crt")).arg("-reqout").arg(self.path("asked.der"));
        run(&mut command);
        std::fs::read(self.path("asked.der")).expect("a request")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("openssl");
        command.arg("ocsp").arg("-index").arg(self.path("index.txt")).arg("-CA").arg(self.path("ca.crt"));
        command.arg("-rsigner").arg(self.path("signer.crt")).arg("-rkey").arg(self.path("signer.key"));
        command.args(arguments);
        command
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}

fn run(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output().expect("openssl runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
}

/// A running server, `openssl ocsp -port`, which takes POST and GET, one connection after the other.
pub struct Responder {
    process: Process,
    port: u16,
}

impl Responder {
    /// Where it is to be asked.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/", self.port)
    }

    /// Its process.
    pub fn process(&self) -> &Process {
        &self.process
    }
}
