//! This knows what connections to servers have in common: TLS, under which CAs, and why one failed.

#![forbid(unsafe_code)]

use std::path::Path;
use std::pin::Pin;

use openssl::error::ErrorStack;
use openssl::ssl::{ConnectConfiguration, SslConnector, SslMethod, SslVersion};
use openssl::x509::store::X509StoreBuilder;
use openssl::x509::{X509, X509VerifyResult};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_openssl::SslStream;

/// One that trusts these CAs, or those of the system where none are given, and verifies certificate and name. It speaks
/// TLS 1.2 at the least.
///
/// # Errors
/// OpenSSL cannot be set up.
pub fn connector(cas: Option<Vec<X509>>) -> Result<SslConnector, ErrorStack> {
    let mut builder = SslConnector::builder(SslMethod::tls_client())?;
    builder.set_min_proto_version(Some(SslVersion::TLS1_2))?;
    if let Some(cas) = cas {
        // Instead of the system's CAs, not beside them.
        let mut store = X509StoreBuilder::new()?;
        for ca in cas {
            store.add_cert(ca)?;
        }
        builder.set_cert_store(store.build());
    } else if let Some(file) = openssl_probe::probe().cert_file {
        // Where OpenSSL itself looks, an OpenSSL that was built from source finds nothing. Without any CA no server is trusted.
        if let Err(error) = builder.load_verify_locations(Some(&file), None) {
            tracing::warn!(file = %file.display(), %error, "the system's CAs cannot be read");
        }
    }
    Ok(builder.build())
}

/// The certificates of CAs in a PEM file.
///
/// # Errors
/// The file cannot be read, one of them is broken, or there is none.
pub fn read_cas(path: &Path) -> Result<Vec<X509>, String> {
    let pem = std::fs::read(path).map_err(|error| error.to_string())?;
    parse_cas(&pem)
}

/// The certificates of CAs in a text in PEM.
///
/// # Errors
/// One of them is broken, or there is none.
pub fn parse_cas(pem: &[u8]) -> Result<Vec<X509>, String> {
    let cas = X509::stack_from_pem(pem).map_err(|error| format!("not PEM: {error}"))?;
    if cas.is_empty() {
        return Err("there is no certificate in it".into());
    }
    Ok(cas)
}

/// Shakes hands with a server of this name or address, as [`ConnectConfiguration::into_ssl`] takes it: in SNI, and in its
/// certificate.
///
/// # Errors
/// Why not: what is wrong with its certificate, where it is that.
pub async fn shake_hands<S: AsyncRead + AsyncWrite + Unpin>(
    configuration: ConnectConfiguration,
    name: &str,
    stream: S,
) -> Result<SslStream<S>, String> {
    let ssl = configuration.into_ssl(name).map_err(|error| error.to_string())?;
    let mut stream = SslStream::new(ssl, stream).map_err(|error| error.to_string())?;
    match Pin::new(&mut stream).connect().await {
        Ok(()) => Ok(stream),
        Err(error) => Err(match stream.ssl().verify_result() {
            X509VerifyResult::OK => format!("TLS: {error}"),
            verified => format!("its certificate is not trusted: {verified}"),
        }),
    }
}

/// An error with its causes, for the outermost error of HTTP libraries seldom says what happened.
pub fn with_causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_systems_cas_are_found_whoever_built_openssl() {
        // Without such a file there is nothing to find.
        if openssl_probe::probe().cert_file.is_some() {
            let connector = connector(None).unwrap();
            assert!(!connector.context().cert_store().all_certificates().is_empty());
        }
    }

    #[test]
    fn cas_that_are_given_are_the_only_ones() {
        let connector = connector(Some(Vec::new())).unwrap();
        assert!(connector.context().cert_store().all_certificates().is_empty());
    }
}
