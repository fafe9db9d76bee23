//! This knows the conversation on one connection: which protocol Kong speaks there, and its calls one after the other.

mod msgpack;
mod protobuf;
mod stream;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::BytesMut;
use tokio::net::UnixStream;

use self::stream::Stream;
use crate::rpc::Server;
use crate::wire;
use crate::wire::protobuf::frame;
use crate::wire::protocol::Protocol;

/// Why a connection ended before Kong had closed it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConversationError {
    #[error("the connection failed: {0}")]
    Io(#[from] std::io::Error),
    #[error("it ends in the middle of its first four bytes")]
    TooShort,
    #[error("MsgPack:1: {0}")]
    MsgPack(#[from] wire::msgpack::WireError),
    #[error("ProtoBuf:1: {0}")]
    ProtoBuf(#[from] wire::protobuf::WireError),
}

/// Serves a connection until Kong closes it.
///
/// # Errors
/// What came that is not of the protocol, or what the system says.
pub(crate) async fn converse(stream: UnixStream, server: &Arc<Server>) -> Result<(), ConversationError> {
    let mut stream = Stream::new(stream)?;
    let mut received = BytesMut::with_capacity(4096);
    let first: [u8; frame::LENGTH] = loop {
        if let Some(first) = received.first_chunk() {
            break *first;
        }
        if stream.read(&mut received).await? == 0 {
            return if received.is_empty() { Ok(()) } else { Err(ConversationError::TooShort) };
        }
    };
    match Protocol::of(first) {
        Protocol::MsgPack => Ok(msgpack::converse(stream, received, server).await?),
        Protocol::ProtoBuf => Ok(protobuf::converse(stream, received, server).await?),
    }
}

/// One of so many, until it is dropped: a connection, or a call from when it is read until its reply is written.
pub(crate) struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    pub(crate) fn one_of(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::AcqRel);
        Self(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}
