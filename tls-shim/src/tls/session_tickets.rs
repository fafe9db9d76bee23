//! This knows what a session ticket of the shim is good for: under which policy, for how long, and for which client.
//!
//! A resumed connection has its client's certificate from the ticket alone, so a ticket must never give what a full
//! handshake would not (CVE-2025-23419, CVE-2025-23048, CVE-2025-68121 and CVE-2022-21654 are what went wrong elsewhere). So
//! each is sealed under a key that is made from a secret, a span of time **and the policy** of its connection: under
//! another policy it cannot even be read, and is as good as none.

mod contents;
mod secrets;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::settings::TicketSettings;
use crate::sni::ServerName;
use crate::tls::raw::{NAME_BYTES, TicketKey};

pub(super) use self::contents::Contents;
pub(crate) use self::secrets::SecretsError;
use self::secrets::{Secret, Secrets};

/// By how much the clocks of shims that share their secrets may differ.
const CLOCK_SKEW: Duration = Duration::from_secs(60);

/// The tickets of one shim, or of several that share their secrets.
pub(crate) struct SessionTickets {
    secrets: Secrets,
    /// How long after a full handshake its session may be resumed.
    lifetime: Duration,
}

/// All that a session may depend on, as a digest: whom the client named, whether it was asked, the generation of the map,
/// the server certificate that it was shown, and the settings of TLS.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Policy([u8; 32]);

impl Policy {
    /// Of TLS settings (`tls`) OpenSSL would look at the version alone, and resume a session of TLS 1.2 whose cipher is
    /// not allowed any more. The generation stands for all that the map says, and with the name for the entry that counts and its CA set.
    pub(super) fn new(
        name: &ServerName,
        asks: bool,
        generation: &[u8; 32],
        shown: &[u8; 32],
        tls: &str,
    ) -> Self {
        // Each part has a fixed length but for the last.
        let tls: [u8; 32] = Sha256::digest(tls).into();
        let kind = match name {
            ServerName::None => 0,
            ServerName::Name(_) => 1,
            ServerName::Undecidable(_) => 2,
        };
        let digest = Sha256::new_with_prefix(generation)
            .chain_update(shown)
            .chain_update(tls)
            .chain_update([u8::from(asks), kind])
            .chain_update(name.as_str());
        Self(digest.finalize().into())
    }
}

impl SessionTickets {
    /// Reads the secrets, or makes up new ones that nobody else has.
    ///
    /// # Errors
    /// What is wrong with the file of the secrets.
    pub(crate) fn new(settings: &TicketSettings) -> Result<Self, SecretsError> {
        Ok(Self { secrets: Secrets::read(settings.key_file.as_deref())?, lifetime: settings.lifetime })
    }

    /// Those that count after new settings were read: these, unless something about them has changed. Secrets that were
    /// made up stay, so that a reload does not take their sessions from clients.
    ///
    /// # Errors
    /// What is wrong with the file of the secrets.
    pub(crate) fn next(&self, settings: &TicketSettings) -> Result<Option<Self>, SecretsError> {
        let secrets = self.secrets.next(settings.key_file.as_deref())?;
        let is_same = secrets.is_none() && self.lifetime == settings.lifetime;
        let next =
            || Self { secrets: secrets.unwrap_or_else(|| self.secrets.clone()), lifetime: settings.lifetime };
        Ok((!is_same).then(next))
    }

    /// The key for tickets that are made now.
    pub(super) fn seals(&self, policy: &Policy, now: SystemTime) -> Option<TicketKey> {
        let span = self.span(now)?;
        Some(key(&self.secrets.seals(span)?, span, policy))
    }

    /// The key with this name, if it is one of those under which tickets were made that may still count, and whether it
    /// is not the one that seals now.
    pub(super) fn opens(
        &self,
        policy: &Policy,
        wanted: &[u8; NAME_BYTES],
        now: SystemTime,
    ) -> Option<(TicketKey, bool)> {
        let now = self.span(now)?;
        // A ticket ends at most one span after that in which it was made. The clock of whoever made it may be ahead.
        for span in [Some(now), now.checked_sub(1), now.checked_add(1)].into_iter().flatten() {
            for (position, secret) in self.secrets.opens(span).iter().enumerate() {
                // It is no secret: it stands in front of the ticket.
                if name(secret, span, policy) == *wanted {
                    return Some((key(secret, span, policy), position > 0 || span != now));
                }
            }
        }
        None
    }

    /// For how much longer a session may be resumed whose client proved at this time that it has its key; None where it
    /// may not be any more. `leaf_ends` is the end of the client's certificate: after it the client shall be asked for a
    /// new one.
    pub(super) fn remaining(
        &self,
        proven: SystemTime,
        leaf_ends: Option<SystemTime>,
        now: SystemTime,
    ) -> Option<Duration> {
        let ends = proven.checked_add(self.lifetime)?;
        let ends = leaf_ends.map_or(ends, |leaf| leaf.min(ends));
        let remaining = ends.duration_since(now).ok()?;
        // A clock that was set back must not make a session live for longer.
        let is_past = proven <= now + CLOCK_SKEW;
        (is_past && !remaining.is_zero()).then_some(remaining.min(self.lifetime))
    }

    /// Time in spans of a ticket's lifetime.
    fn span(&self, now: SystemTime) -> Option<u64> {
        let seconds = now.duration_since(UNIX_EPOCH).ok()?.as_secs();
        seconds.checked_div(self.lifetime.as_secs())
    }
}

/// What each part of a key is made for, so that none tells anything of another.
#[derive(Clone, Copy)]
enum Part {
    Name = 1,
    Cipher = 2,
    Mac = 3,
}

fn key(secret: &Secret, span: u64, policy: &Policy) -> TicketKey {
    TicketKey {
        name: name(secret, span, policy),
        cipher: part(secret, Part::Cipher, span, policy),
        mac: part(secret, Part::Mac, span, policy),
    }
}

fn name(secret: &Secret, span: u64, policy: &Policy) -> [u8; NAME_BYTES] {
    let whole = part(secret, Part::Name, span, policy);
    std::array::from_fn(|index| whole[index])
}

fn part(secret: &Secret, part: Part, span: u64, policy: &Policy) -> Zeroizing<[u8; 32]> {
    let mac = Hmac::<Sha256>::new_from_slice(secret.as_slice()).expect("HMAC takes keys of any length");
    let mac = mac
        .chain_update(b"tls-shim session ticket 1")
        .chain_update([part as u8])
        .chain_update(span.to_be_bytes())
        .chain_update(policy.0);
    Zeroizing::new(mac.finalize().into_bytes().into())
}

#[cfg(test)]
mod tests;
