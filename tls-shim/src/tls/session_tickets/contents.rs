//! This knows what stands in a ticket beside OpenSSL's session, which has the client's leaf but not its chain.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The version of the form below. What another version of the shim has made is read by none but it.
const VERSION: u8 = 1;

/// What OpenSSL's session does not have. The seal of the ticket vouches for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::tls) struct Contents {
    /// When the client has proven to have the key of its certificate: at the end of its last full handshake, however
    /// often the session was resumed since. In whole seconds.
    pub(in crate::tls) proven: SystemTime,
    /// What the client presented after its leaf, in DER.
    pub(in crate::tls) chain: Vec<Vec<u8>>,
}

impl Contents {
    /// As it stands in a ticket: version, time, then each certificate after its length.
    pub(in crate::tls) fn to_bytes(&self) -> Vec<u8> {
        let seconds = self.proven.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let mut bytes = vec![VERSION];
        bytes.extend(seconds.to_be_bytes());
        for certificate in &self.chain {
            bytes.extend((certificate.len() as u64).to_be_bytes());
            bytes.extend(certificate);
        }
        bytes
    }

    /// None for what [`Self::to_bytes`] cannot have made.
    pub(in crate::tls) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.strip_prefix(&[VERSION])?;
        let (seconds, mut rest) = number(bytes)?;
        let proven = UNIX_EPOCH.checked_add(Duration::from_secs(seconds))?;
        let mut chain = Vec::new();
        while !rest.is_empty() {
            let (length, after) = number(rest)?;
            let (certificate, after) = after.split_at_checked(usize::try_from(length).ok()?)?;
            chain.push(certificate.to_vec());
            rest = after;
        }
        Some(Self { proven, chain })
    }
}

fn number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (number, rest) = bytes.split_first_chunk()?;
    Some((u64::from_be_bytes(*number), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contents_come_out_as_they_went_in_and_only_whole() {
        let proven = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        for chain in [vec![], vec![vec![1; 300]], vec![vec![1; 300], vec![], vec![2]]] {
            let contents = Contents { proven, chain };
            let bytes = contents.to_bytes();
            assert_eq!(Contents::from_bytes(&bytes).as_ref(), Some(&contents));
            for length in 0..bytes.len() {
                assert_ne!(Contents::from_bytes(&bytes[..length]).as_ref(), Some(&contents), "{length}");
            }
        }
        let too_long = [&[VERSION][..], &[0; 8], &u64::MAX.to_be_bytes()].concat();
        let too_late = [&[VERSION][..], &u64::MAX.to_be_bytes()].concat();
        for wrong in [&[][..], &[VERSION], &[VERSION; 8], &[2; 9], &too_long, &too_late] {
            assert_eq!(Contents::from_bytes(wrong), None, "{wrong:?}");
        }
    }
}
