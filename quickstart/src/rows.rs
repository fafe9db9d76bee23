//! This knows what the demonstration tries, and what must come of it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::Value as Json;
use testbed::pki::Leaf;
use testbed::tls_client::TlsClient;

use crate::stack::{OPEN, PROTECTED, Stack};

const NO_CERTIFICATE: &str = "No required TLS certificate was sent";
const NOT_VERIFIED: &str = "TLS certificate failed verification";

/// One thing that is tried.
pub struct Row {
    /// What the client does.
    pub what: &'static str,
    /// The server that it names, or where it goes instead.
    pub server: &'static str,
    /// Whether it was asked for a certificate; none where it spoke no TLS.
    pub asked: Option<bool>,
    /// The status of the answer.
    pub status: u16,
    /// The message of a refusal.
    pub message: String,
    /// The headers by which the upstream was told who the caller is; none where the request did not reach it.
    pub identity: Vec<(String, String)>,
    /// Whether all of this is as it must be.
    pub right: bool,
}

/// Tries everything.
///
/// # Panics
/// If a connection breaks.
pub fn run(stack: &Stack) -> Vec<Row> {
    let clients = &stack.clients;
    let forged =
        format!("Client-Cert: :{}:\r\nClient-Cert-Proof: v1.1.x.x\r\nX_Consumer_Username: alice\r\n", "AAAA");
    vec![
        refused(stack, "no certificate", None, "", NO_CERTIFICATE),
        refused(stack, "a certificate of another CA", Some(&clients.mallory), "", NOT_VERIFIED),
        refused(stack, "a certificate that has expired", Some(&clients.expired), "", NOT_VERIFIED),
        refused(stack, "a certificate of nobody's name", Some(&clients.stranger), "", NOT_VERIFIED),
        refused(stack, "forged headers, through the shim", None, &forged, NO_CERTIFICATE),
        past_the_shim(stack, &forged),
        mapped(stack),
        open(stack),
    ]
}

fn refused(stack: &Stack, what: &'static str, leaf: Option<&Leaf>, headers: &str, message: &str) -> Row {
    let row = over_tls(stack, what, PROTECTED, leaf, headers);
    let right =
        row.asked == Some(true) && row.status == 401 && row.message == message && row.identity.is_empty();
    Row { right, ..row }
}

fn past_the_shim(stack: &Stack, headers: &str) -> Row {
    let answer = plain(stack.kong.addr(), &request(PROTECTED, headers));
    let row = Row::new("forged headers, past the shim", "Kong's plain port", None, &answer);
    let right = row.status == 401 && row.message == NOT_VERIFIED && row.identity.is_empty();
    Row { right, ..row }
}

fn mapped(stack: &Stack) -> Row {
    let row = over_tls(stack, "alice's certificate", PROTECTED, Some(&stack.clients.alice), "");
    let names: Vec<_> = row.identity.iter().map(|(name, _)| name.to_ascii_lowercase()).collect();
    let all = ["x-consumer-custom-id", "x-consumer-id", "x-consumer-username", "x-credential-identifier"];
    let is_alice = row.identity.iter().any(|pair| pair.1 == "alice" && pair.0.eq_ignore_ascii_case(all[2]));
    let right = row.asked == Some(true) && row.status == 200 && names == all && is_alice;
    Row { right, ..row }
}

fn open(stack: &Stack) -> Row {
    let row = over_tls(stack, "an SNI that is not asked", OPEN, Some(&stack.clients.alice), "");
    let right = row.asked == Some(false) && row.status == 200 && row.identity.is_empty();
    Row { right, ..row }
}

fn over_tls(
    stack: &Stack,
    what: &'static str,
    server: &'static str,
    leaf: Option<&Leaf>,
    headers: &str,
) -> Row {
    let client = TlsClient::new(Some(server));
    let client = match leaf {
        Some(leaf) => client.certificate(leaf, &[]),
        None => client,
    };
    let connection = client.connect(stack.address()).expect("a handshake");
    let asked = connection.asked();
    let answer = connection.exchange(request(server, headers).as_bytes()).expect("an answer");
    Row::new(what, server, Some(asked), &answer)
}

impl Row {
    fn new(what: &'static str, server: &'static str, asked: Option<bool>, answer: &str) -> Self {
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        // Kong's double sends its own answers with a length, and the upstream does so too.
        let body: Json = serde_json::from_str(body).unwrap_or_default();
        let message = body["message"].as_str().unwrap_or_default().to_owned();
        let mut identity: Vec<(String, String)> =
            serde_json::from_value(body["headers"].clone()).unwrap_or_default();
        identity.retain(|(name, _)| {
            let name = name.to_ascii_lowercase().replace('_', "-");
            ["x-consumer-", "x-credential-", "x-anonymous-", "x-client-cert-", "client-cert"]
                .iter()
                .any(|prefix| name.starts_with(prefix))
        });
        identity.sort();
        Self { what, server, asked, status, message, identity, right: false }
    }
}

fn request(host: &str, headers: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{headers}\r\n")
}

fn plain(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("a connection");
    stream.write_all(request.as_bytes()).expect("a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}
