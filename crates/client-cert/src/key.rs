//! This knows key files: the one that the shim and the plugin server share, and others of its form.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

const KEY_BYTES: usize = 32;

/// The bytes of a fingerprint: enough to tell keys apart, and far too few to stand for one.
const FINGERPRINT_BYTES: usize = 8;

/// Keeps a fingerprint from being taken for a proof, or for anything else that is made with the same key.
const FINGERPRINT: &[u8] = b"kong-mtls-auth proof key fingerprint v1";

/// The bytes of a key. They are wiped when the last who has them lets go, and stay at their place in memory until then: a
/// move would leave bytes behind that nobody wipes.
pub type KeyBytes = Arc<Zeroizing<[u8; KEY_BYTES]>>;

/// The key under which proofs are made: 32 bytes, wiped from memory when dropped, never shown.
pub struct ProofKey(KeyBytes);

/// Why a key file cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("key file {}: {problem}", path.display())]
pub struct KeyFileError {
    path: PathBuf,
    problem: Problem,
}

#[derive(Debug, thiserror::Error)]
enum Problem {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("it is empty")]
    Empty,
    #[error("it does not hold {KEY_BYTES} bytes in base64")]
    NotAKey,
    #[error("it does not hold {KEY_BYTES} bytes in base64 on each line")]
    NotKeys,
    #[error("it holds more than {0} keys")]
    TooMany(usize),
    #[error("other users may read or write it (mode {0:04o}); chmod o= it and make a new key")]
    OpenToOthers(u32),
    #[error("no random bytes from the system: {0}")]
    Random(getrandom::Error),
}

impl ProofKey {
    /// A key of the given bytes.
    pub fn from_bytes(bytes: [u8; KEY_BYTES]) -> Self {
        Self(Arc::new(Zeroizing::new(bytes)))
    }

    /// Whether this is the same key. Of two that are both ours: the time that it takes tells of where they differ.
    pub fn is_same(&self, other: &Self) -> bool {
        self.0 == other.0
    }

    /// What tells this key from others, in hexadecimal, and may be shown to anybody: the beginning of an HMAC-SHA256 under
    /// the key over a text that nothing else is made of. A key of random bytes cannot be found from it, nor any proof.
    pub fn fingerprint(&self) -> String {
        let mut mac = Hmac::<Sha256>::new_from_slice(self.bytes()).expect("HMAC takes keys of any length");
        mac.update(FINGERPRINT);
        let mac = mac.finalize().into_bytes();
        mac.iter().take(FINGERPRINT_BYTES).map(|byte| format!("{byte:02x}")).collect()
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        self.0.as_slice()
    }

    /// Reads the key from a file that must exist.
    ///
    /// # Errors
    /// Names the file and what is wrong with it: missing, unreadable, empty, not a key, or open to other users.
    pub fn read(path: &Path) -> Result<Self, KeyFileError> {
        read(path).map_err(|problem| KeyFileError { path: path.to_owned(), problem })
    }

    /// Reads the key, or makes one (mode 0600) where the file is absent. Several processes may do so at once, as they
    /// do when Kong reloads: all of them end with the same key.
    ///
    /// # Errors
    /// As [`ProofKey::read`], or that the file cannot be written.
    pub fn read_or_create(path: &Path) -> Result<Self, KeyFileError> {
        let result = match read(path) {
            Err(Problem::Io(error)) if error.kind() == io::ErrorKind::NotFound => {
                create(path).and_then(|()| read(path))
            }
            other => other,
        };
        result.map_err(|problem| KeyFileError { path: path.to_owned(), problem })
    }
}

/// Reads keys of 32 bytes in base64, one on each line, from a file that must exist. There is at least one, and at most
/// `most`.
///
/// # Errors
/// Names the file and what is wrong with it: missing, unreadable, empty, no keys, too many, or open to other users.
pub fn read_key_file(path: &Path, most: usize) -> Result<Vec<KeyBytes>, KeyFileError> {
    let keys = || {
        let text = read_text(path, most)?;
        let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        // First, for the last line of too many is cut.
        if lines.len() > most {
            return Err(Problem::TooMany(most));
        }
        lines.into_iter().map(decode).collect::<Option<Vec<_>>>().ok_or(Problem::NotKeys)
    };
    keys().map_err(|problem| KeyFileError { path: path.to_owned(), problem })
}

fn read(path: &Path) -> Result<ProofKey, Problem> {
    let text = read_text(path, 1)?;
    decode(text.trim()).map(ProofKey).ok_or(Problem::NotAKey)
}

/// The text of a file with so many keys. It is not empty.
fn read_text(path: &Path, keys: usize) -> Result<Zeroizing<String>, Problem> {
    let file = File::open(path)?;
    let mode = file.metadata()?.permissions().mode() & 0o7777;
    if mode & 0o007 != 0 {
        return Err(Problem::OpenToOthers(mode));
    }
    // More than any well-formed file has, so that a wrong file is not read whole.
    let limit = 128 * keys;
    let mut text = Zeroizing::new(String::with_capacity(limit));
    file.take(limit as u64).read_to_string(&mut text)?;
    if text.trim().is_empty() { Err(Problem::Empty) } else { Ok(text) }
}

fn decode(text: &str) -> Option<KeyBytes> {
    let decoded = Zeroizing::new(BASE64.decode(text).ok()?);
    let mut key = KeyBytes::default();
    let bytes = Arc::get_mut(&mut key)?;
    (decoded.len() == bytes.len()).then(|| bytes.copy_from_slice(&decoded))?;
    Some(key)
}

/// Writes a new key beside `path` and links it into place: whoever comes second finds the first one's key, whole.
fn create(path: &Path) -> Result<(), Problem> {
    let mut bytes = Zeroizing::new([0u8; KEY_BYTES]);
    getrandom::fill(bytes.as_mut_slice()).map_err(Problem::Random)?;
    let text = Zeroizing::new(format!("{}\n", BASE64.encode(bytes.as_slice())));

    // A name that nobody else has: process ids repeat between containers that share the folder.
    let mut suffix = [0u8; 8];
    getrandom::fill(&mut suffix).map_err(Problem::Random)?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{:016x}.new", u64::from_be_bytes(suffix)));
    let new = path.with_file_name(name);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    let linked = file
        .write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .and_then(|()| std::fs::hard_link(&new, path));
    let _ = std::fs::remove_file(&new);
    match linked {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => Ok(other?),
    }
}

impl zeroize::ZeroizeOnDrop for ProofKey {}

impl std::fmt::Debug for ProofKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ProofKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(path: &Path, content: &str, mode: u32) {
        std::fs::write(path, content).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_key_is_made_once_and_only_its_owner_may_read_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mtls-auth.key");
        let made = ProofKey::read_or_create(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(ProofKey::read_or_create(&path).unwrap().bytes(), made.bytes());
        assert_eq!(ProofKey::read(&path).unwrap().bytes(), made.bytes());
        assert_ne!(made.bytes(), [0; 32]);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing else is left behind");
    }

    #[test]
    fn a_fingerprint_tells_keys_apart_and_is_no_part_of_one() {
        let key = |byte| ProofKey::from_bytes([byte; 32]);
        let shown = key(7).fingerprint();
        // printf 'kong-mtls-auth proof key fingerprint v1' | openssl dgst -sha256 -mac HMAC -macopt hexkey:0707…07
        assert_eq!(shown, "39f91c8014884c0c");
        assert_eq!(shown, ProofKey::from_bytes([7; 32]).fingerprint());
        assert_ne!(shown, key(8).fingerprint());
    }

    #[test]
    fn what_is_made_of_a_key_is_wiped() {
        fn is_wiped<T: zeroize::ZeroizeOnDrop>() {}
        // What an HMAC keeps of its key are two states of its hash.
        is_wiped::<Sha256>();
        is_wiped::<hmac::digest::CtOutput<Hmac<Sha256>>>();
    }

    #[test]
    fn whoever_makes_it_second_takes_the_first_ones() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        write(&path.with_file_name("first"), &format!("{}\n", BASE64.encode([3; 32])), 0o600);
        std::fs::hard_link(path.with_file_name("first"), &path).unwrap();
        // `create` loses the race against a file that is there by now, and leaves it alone.
        create(&path).unwrap();
        assert_eq!(read(&path).unwrap().bytes(), [3; 32]);
    }

    #[test]
    fn a_file_that_is_no_key_is_named_with_what_is_wrong() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let good = BASE64.encode([1; 32]);
        for (content, mode, says) in [
            ("", 0o600, "empty"),
            ("  \n", 0o600, "empty"),
            ("secret", 0o600, "32 bytes in base64"),
            (&BASE64.encode([1; 31]), 0o600, "32 bytes in base64"),
            (&good.repeat(9), 0o600, "32 bytes in base64"),
            (&good, 0o604, "0604"),
            (&good, 0o662, "0662"),
        ] {
            write(&path, content, mode);
            let error = ProofKey::read_or_create(&path).unwrap_err().to_string();
            assert!(error.contains(path.to_str().unwrap()) && error.contains(says), "{error}");
        }
        write(&path, &good, 0o640);
        assert!(ProofKey::read(&path).is_ok(), "a group may share the key");

        for (content, says) in [
            ("\n".to_owned(), "empty"),
            (format!("{good}\n{good}x"), "each line"),
            (format!("# new\n{good}"), "each line"),
            (format!("{good}\n").repeat(4), "more than 3"),
            (format!("{good}\n").repeat(400), "more than 3"),
        ] {
            write(&path, &content, 0o600);
            let error = read_key_file(&path, 3).unwrap_err().to_string();
            assert!(error.contains(path.to_str().unwrap()) && error.contains(says), "{error}");
        }
        write(&path, &format!("{good}\n\n  {}", BASE64.encode([2; 32])), 0o600);
        assert_eq!(
            read_key_file(&path, 3).unwrap(),
            [[1; 32], [2; 32]].map(|bytes| Arc::new(Zeroizing::new(bytes)))
        );
        write(&path, &good, 0o604);
        assert!(read_key_file(&path, 3).unwrap_err().to_string().contains("0604"));

        let absent = dir.path().join("absent");
        assert!(ProofKey::read(&absent).unwrap_err().to_string().contains("No such file"));
    }
}
