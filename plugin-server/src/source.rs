//! This knows where the certificate of a request comes from: our shim, another TLS front, or Kong's own listener
//! (`mtls-auth.md`, `certificate_source`).

use std::time::SystemTime;

use client_cert::front::{self, Format};
use client_cert::{Presented, field};

use crate::handoff;
use crate::instance::Instance;
use crate::pdk::{Headers, Pdk};
use crate::reason::{Reason, Refusal};

/// Where an instance takes certificates from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// The headers of `tls-shim`, with its proof.
    Shim,
    /// A header that another front sets.
    Header {
        /// As configured.
        name: String,
        format: Format,
        /// Whether it counts only on connections from Kong's `trusted_ips`: nothing else shows who wrote it.
        secure: bool,
    },
    /// Kong's own TLS listener, which asked for the certificate itself.
    Tls,
}

/// The certificates that a client presented, and whose key it has, as far as the source vouches for it.
///
/// # Errors
/// [`Reason::NoCertificate`] only where the source says that there was none: a presented but bad one is not none.
pub(crate) async fn presented(
    pdk: &mut impl Pdk,
    instance: &Instance,
    headers: &Headers,
    now: SystemTime,
) -> Result<Presented, Refusal> {
    match &instance.source {
        Source::Shim => handoff::presented(headers, instance.proof_key(), now),
        Source::Header { name, format, secure } => {
            let values = values(headers, name)?;
            // Costs nothing where nobody claims anything.
            if *secure && values.iter().any(|value| !value.is_empty()) {
                instance.check_peer(pdk).await?;
            }
            let presented = front::decode(*format, values).map_err(malformed)?;
            presented.ok_or_else(|| Reason::NoCertificate.into())
        }
        Source::Tls => match pdk.client_certificate_chain().await {
            None => Err(Reason::NoCertificate.into()),
            Some(pem) => front::from_pem(&pem).map_err(malformed),
        },
    }
}

/// The values of a header in the spelling that the front writes. Whoever writes it in another one is somebody else, who
/// hopes that the front does not know it for the same.
fn values<'a>(headers: &'a Headers, name: &str) -> Result<&'a [Vec<u8>], Refusal> {
    let exact = name.to_ascii_lowercase();
    let folded = field::folded(name);
    let mut found: &[Vec<u8>] = &[];
    for (spelling, values) in headers.iter().filter(|(spelling, _)| field::spells(spelling, &folded)) {
        if *spelling != exact.as_bytes() || !found.is_empty() {
            let problem = format_args!("{name} stands twice or in another spelling");
            return Err(Refusal::with(Reason::Malformed, problem));
        }
        found = values;
    }
    Ok(found)
}

fn malformed(problem: front::FrontError) -> Refusal {
    Refusal::with(Reason::Malformed, problem)
}
