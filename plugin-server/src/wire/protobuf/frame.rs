//! This knows frames: a little-endian length of four bytes, and so many bytes.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// How many bytes a length takes.
pub(crate) const LENGTH: usize = 4;

/// The longest call of Kong's. The largest is StartInstance, with a configuration in it. That it is no more than this
/// is also what tells the two protocols apart ([`crate::wire::protocol`]).
pub(crate) const MAX_CALL: usize = 8 * 1024 * 1024;

/// The longest answer to a PDK call. The largest is the headers of a request.
pub(crate) const MAX_ANSWER: usize = 16 * 1024 * 1024;

/// Why the stream cannot be read on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("the connection failed: {0}")]
    Io(#[from] std::io::Error),
    #[error("a frame of {length} bytes, of which {most} are allowed")]
    TooLong { length: usize, most: usize },
    #[error("not a call: {0}")]
    NotACall(#[from] prost::DecodeError),
    #[error("not a call: it has no command that is known here")]
    NoCommand,
    #[error("this server has no plugin {0:?}")]
    NoSuchPlugin(String),
    #[error("it ends in the middle of a frame")]
    Truncated,
    #[error("Kong closed it in the middle of an event")]
    EventAbandoned,
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
/// [`FrameError::TooLong`] as soon as the length is there, which stays in the stream.
pub(crate) fn take(stream: &mut BytesMut, most: usize) -> Result<Option<Bytes>, FrameError> {
    let Some(declared) = stream.first_chunk() else { return Ok(None) };
    let length = length(*declared);
    if length > most {
        return Err(FrameError::TooLong { length, most });
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
