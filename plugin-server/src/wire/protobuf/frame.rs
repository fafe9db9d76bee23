//! This knows frames: a little-endian length of four bytes, and so many bytes.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// How many bytes a length takes.
pub(crate) const LENGTH: usize = 4;

/// The longest call of Kong's. The largest is StartInstance, with a configuration in it. That it is no more than this
/// is also what tells the two protocols apart ([`crate::wire::protocol`]).
pub(crate) const MAX_CALL: usize = 8 * 1024 * 1024;

/// The longest answer to a PDK call. The largest is the headers of a request.
pub(crate) const MAX_ANSWER: usize = 16 * 1024 * 1024;

/// A frame is longer than it may be.
#[derive(Debug, PartialEq, thiserror::Error)]
#[error("a frame of {length} bytes, of which {most} are allowed")]
pub(crate) struct TooLong {
    pub(crate) length: usize,
    most: usize,
}

/// What a length says.
pub(crate) fn length(bytes: [u8; LENGTH]) -> usize {
    // Wherever tokio runs, a usize has 32 bits at least.
    u32::from_le_bytes(bytes) as usize
}

/// Takes the first frame out of the stream, once all of it is there. Nothing is set aside for what a length only
/// declares: the stream grows with what arrives.
///
/// # Errors
/// As soon as the length is there, which stays in the stream.
pub(crate) fn take(stream: &mut BytesMut, most: usize) -> Result<Option<Bytes>, TooLong> {
    let Some(declared) = stream.first_chunk() else { return Ok(None) };
    let length = length(*declared);
    if length > most {
        return Err(TooLong { length, most });
    }
    if stream.len() < LENGTH + length {
        return Ok(None);
    }
    stream.advance(LENGTH);
    Ok(Some(stream.split_to(length).freeze()))
}

/// Appends a frame.
pub(crate) fn put(stream: &mut BytesMut, content: &[u8]) {
    // What we send is a few kilobytes: names of methods, headers of ours, lines for the log.
    stream.put_u32_le(u32::try_from(content.len()).unwrap_or(u32::MAX));
    stream.put_slice(content);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_found_however_the_stream_is_cut() {
        let contents = [&b""[..], b"x", &[7; 300], b"", &[0; 70_000]];
        let mut stream = BytesMut::new();
        for content in contents {
            put(&mut stream, content);
        }
        for size in (1..12).chain([299, 4096, stream.len()]) {
            let mut received = BytesMut::new();
            let mut found = Vec::new();
            for piece in stream.chunks(size) {
                received.extend_from_slice(piece);
                while let Some(frame) = take(&mut received, 70_000).unwrap() {
                    found.push(frame);
                }
            }
            assert_eq!(found, contents, "in pieces of {size}");
            assert!(received.is_empty());
        }
    }

    #[test]
    fn what_declares_too_much_is_refused_before_it_comes() {
        for most in [MAX_CALL, MAX_ANSWER] {
            let declares = |length: usize| BytesMut::from(&u32::try_from(length).unwrap().to_le_bytes()[..]);
            assert_eq!(take(&mut declares(most), most), Ok(None));
            assert_eq!(take(&mut declares(most + 1), most), Err(TooLong { length: most + 1, most }));
            let mut stream = declares(u32::MAX as usize);
            assert!(take(&mut stream, most).is_err());
            assert!(stream.capacity() < 1024, "no memory for what is only declared");
        }
    }
}
