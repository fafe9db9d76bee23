//! This knows how a ticket is sealed and opened where the library leaves that to its caller.
//!
//! It is the recommended form (RFC 5077, section 4), which OpenSSL makes by itself: the name of the key, an initialisation
//! vector, the cipher text, and a MAC over all of them.

use hmac::{Hmac, KeyInit, Mac};
use openssl::symm::{self, Cipher};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::tls::raw::ticketing::{NAME_BYTES, TicketKey};

/// The bytes of a block of AES, and so of an initialisation vector in CBC mode.
const BLOCK_BYTES: usize = 16;

const MAC_BYTES: usize = 32;

/// The bytes of the length of the contents.
const LENGTH_BYTES: usize = 4;

/// What the MAC begins with. Sessions of the two libraries are written in different forms, and shims that are built on
/// either may share their secrets: to each, a ticket of the other is as good as none.
const FORM: &[u8] = b"AWS-LC";

/// By how much a ticket may be longer than the session in it, beside the contents.
pub(super) const OVERHEAD: usize = NAME_BYTES + BLOCK_BYTES + LENGTH_BYTES + BLOCK_BYTES + MAC_BYTES;

/// A ticket that was opened.
pub(super) struct Opened {
    plain: Zeroizing<Vec<u8>>,
    /// Where the session begins.
    session: usize,
}

impl Opened {
    /// What went into the ticket beside the session.
    pub(super) fn contents(&self) -> &[u8] {
        &self.plain[LENGTH_BYTES..self.session]
    }

    pub(super) fn session(&self) -> &[u8] {
        &self.plain[self.session..]
    }
}

/// The name of the key that a ticket says it was sealed with.
pub(super) fn name(ticket: &[u8]) -> Option<&[u8; NAME_BYTES]> {
    ticket.first_chunk()
}

/// Seals a session with what goes with it. None: there are no random bytes.
pub(super) fn seal(key: &TicketKey, contents: &[u8], session: &[u8]) -> Option<Vec<u8>> {
    let length = u32::try_from(contents.len()).ok()?;
    // With all its room at the beginning: none is left behind that is not overwritten at the end.
    let mut plain = Zeroizing::new(Vec::with_capacity(LENGTH_BYTES + contents.len() + session.len()));
    for part in [&length.to_be_bytes()[..], contents, session] {
        plain.extend_from_slice(part);
    }
    let mut iv = [0; BLOCK_BYTES];
    openssl::rand::rand_bytes(&mut iv).ok()?;
    let cipher_text = symm::encrypt(Cipher::aes_256_cbc(), key.cipher.as_slice(), Some(&iv), &plain).ok()?;
    let mut ticket = [&key.name[..], &iv, &cipher_text].concat();
    let mac = mac(key, &ticket)?.finalize().into_bytes();
    ticket.extend(mac);
    Some(ticket)
}

/// Opens a ticket. None: it was not sealed with this key, or not as a whole.
pub(super) fn open(key: &TicketKey, ticket: &[u8]) -> Option<Opened> {
    let (sealed, tag) = ticket.split_last_chunk::<MAC_BYTES>()?;
    // In constant time, and before anything is made of the rest.
    mac(key, sealed)?.verify_slice(tag).ok()?;
    let (iv, cipher_text) = sealed.strip_prefix(&key.name)?.split_first_chunk::<BLOCK_BYTES>()?;
    let plain = symm::decrypt(Cipher::aes_256_cbc(), key.cipher.as_slice(), Some(iv), cipher_text).ok()?;
    let plain = Zeroizing::new(plain);
    let length = usize::try_from(u32::from_be_bytes(*plain.first_chunk::<LENGTH_BYTES>()?)).ok()?;
    let session = LENGTH_BYTES.checked_add(length).filter(|&session| session <= plain.len())?;
    Some(Opened { plain, session })
}

fn mac(key: &TicketKey, sealed: &[u8]) -> Option<Hmac<Sha256>> {
    let mac = Hmac::<Sha256>::new_from_slice(key.mac.as_slice()).ok()?;
    Some(mac.chain_update(FORM).chain_update(sealed))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> TicketKey {
        TicketKey { name: [byte; NAME_BYTES], cipher: [byte; 32].into(), mac: [byte ^ 1; 32].into() }
    }

    #[test]
    fn a_ticket_opens_as_it_was_sealed_and_not_at_all_otherwise() {
        for (contents, session) in
            [(&b""[..], &b""[..]), (b"contents", b"session"), (b"", b"session"), (&[7; 999], &[8; 999])]
        {
            let ticket = seal(&key(1), contents, session).unwrap();
            assert!(ticket.len() <= OVERHEAD + contents.len() + session.len());
            assert_eq!(name(&ticket), Some(&[1; NAME_BYTES]));
            let opened = open(&key(1), &ticket).unwrap();
            assert_eq!((opened.contents(), opened.session()), (contents, session));
            assert_ne!(seal(&key(1), contents, session).unwrap(), ticket);
        }
        let ticket = seal(&key(1), b"contents", b"session").unwrap();
        for at in 0..ticket.len() {
            let mut changed = ticket.clone();
            changed[at] ^= 1;
            assert!(open(&key(1), &changed).is_none(), "{at}");
            assert!(
                open(&key(1), &ticket[..at]).is_none() && open(&key(1), &ticket[at + 1..]).is_none(),
                "{at}"
            );
        }
        let [other_name, other_cipher, other_mac] = [
            TicketKey { name: [2; NAME_BYTES], ..key(1) },
            TicketKey { cipher: [2; 32].into(), ..key(1) },
            TicketKey { mac: [2; 32].into(), ..key(1) },
        ];
        assert!(open(&other_name, &ticket).is_none() && open(&other_mac, &ticket).is_none());
        // The MAC vouches for the cipher text alone; what comes out under another key is not what went in.
        assert!(open(&other_cipher, &ticket).is_none_or(|opened| opened.session() != b"session"));
    }

    #[test]
    fn a_ticket_of_openssls_form_is_none() {
        // The same name, keys and order, but for what the MAC begins with.
        let (key, iv) = (key(1), [9; BLOCK_BYTES]);
        let cipher_text =
            symm::encrypt(Cipher::aes_256_cbc(), key.cipher.as_slice(), Some(&iv), b"\0\0\0\0session")
                .unwrap();
        let mut ticket = [&key.name[..], &iv, &cipher_text].concat();
        let mac = Hmac::<Sha256>::new_from_slice(key.mac.as_slice()).unwrap().chain_update(&ticket);
        ticket.extend(mac.finalize().into_bytes());
        assert!(open(&key, &ticket).is_none());
    }
}
