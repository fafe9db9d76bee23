//! This knows a Kong that is made up: it has one request, with a certificate where the source of an instance looks for
//! it, and writes down what it is told.

use std::time::SystemTime;

use client_cert::front::Format;
use client_cert::{Presented, Proof, ProofKey, field};
use kong_entities::Consumer;
use openssl::base64;

use crate::details;
use crate::pdk::{Credential, Headers, LogLevel, Pdk, PdkFault};
use crate::source::Source;
use crate::step::step;

/// From where the request comes.
const PEER: &str = "127.0.0.1";

/// What Kong was told in the access phase.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) consumer: Option<Consumer>,
    pub(super) credential: Option<Credential>,
    pub(super) group: Option<String>,
    /// Those with a value are set.
    pub(super) headers: Vec<(String, Option<String>)>,
    pub(super) log: Vec<String>,
}

pub(super) struct MadeUpKong {
    headers: Headers,
    /// What Kong's own listener was shown.
    chain: Option<Vec<u8>>,
    pub(super) told: Told,
}

impl MadeUpKong {
    /// One whose client presented this.
    pub(super) fn new(
        source: &Source,
        presented: Option<&Presented>,
        proof_key: &[u8; 32],
        now: SystemTime,
    ) -> Self {
        let mut kong = Self { headers: Headers::new(), chain: None, told: Told::default() };
        let mut header = |name: &str, value: String| {
            kong.headers.push((name.to_ascii_lowercase().into_bytes(), vec![value.into_bytes()]));
        };
        match (source, presented) {
            (Source::Shim, Some(presented)) => {
                step!("source", "the hand-off of tls-shim, with a proof");
                header(field::CLIENT_CERT, presented.leaf_header());
                if let Some(chain) = presented.chain_header() {
                    header(field::CLIENT_CERT_CHAIN, chain);
                }
                let key = ProofKey::from_bytes(*proof_key);
                header(field::CLIENT_CERT_PROOF, Proof::write(&key, presented, "explain.invalid", now));
            }
            (Source::Header { name, format, .. }, Some(presented)) => {
                step!("source", "the header {name}, from an address that Kong trusts");
                header(name, in_header(*format, presented));
            }
            (Source::Tls, Some(presented)) => {
                step!("source", "Kong's own TLS listener");
                kong.chain = Some(all(presented).map(details::pem).collect::<String>().into_bytes());
            }
            (_, None) => step!("source", "a client without a certificate"),
        }
        kong
    }
}

fn all(presented: &Presented) -> impl Iterator<Item = &[u8]> {
    std::iter::once(&presented.leaf).chain(&presented.chain).map(Vec::as_slice)
}

/// As fronts write it: HAProxy in base64, nginx percent-encoded.
fn in_header(format: Format, presented: &Presented) -> String {
    match format {
        Format::Base64Encoded => {
            let chain = presented.chain.concat();
            let parts = [&presented.leaf, &chain].into_iter().filter(|part| !part.is_empty());
            parts.map(|part| base64::encode_block(part)).collect::<Vec<_>>().join(",")
        }
        Format::UrlEncoded => all(presented).map(details::escaped_pem).collect(),
    }
}

impl Pdk for MadeUpKong {
    async fn request_headers(&mut self) -> Result<Headers, PdkFault> {
        Ok(self.headers.clone())
    }

    async fn is_authenticated(&mut self) -> bool {
        false
    }

    async fn client_ip(&mut self) -> Option<String> {
        Some(PEER.to_owned())
    }

    async fn is_trusted_ip(&mut self, _: &str) -> bool {
        true
    }

    async fn client_certificate_chain(&mut self) -> Option<Vec<u8>> {
        self.chain.clone()
    }

    /// It is asked where there is no other source, and has none itself.
    async fn load_consumer(&mut self, id_or_username: &str) -> Result<Option<Consumer>, PdkFault> {
        step!("consumer", "{id_or_username:?}: only Kong knows; name --declarative-config or --admin-url");
        Err(PdkFault)
    }

    async fn authenticate(&mut self, consumer: Option<&Consumer>, credential: Option<&Credential>) {
        self.told.consumer = consumer.cloned();
        self.told.credential = credential.cloned();
    }

    async fn set_authenticated_group(&mut self, group: &str) {
        self.told.group = Some(group.to_owned());
    }

    async fn set_request_headers(&mut self, headers: Vec<(String, Option<String>)>) {
        self.told.headers = headers;
    }

    async fn log(&mut self, _: LogLevel, text: String) {
        self.told.log.push(text);
    }
}
