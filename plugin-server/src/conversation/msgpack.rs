//! This knows the conversation in MsgPack:1. Kong has one call in flight on a connection, of any event or none.

use std::io;
use std::pin::pin;
use std::time::Duration;

use bytes::BytesMut;
use tokio::time::timeout;
use tokio_util::codec::{Decoder, Encoder};

use super::Counted;
use super::stream::Stream;
use crate::rpc::Server;
use crate::wire::msgpack::{self, Codec, Reply, WireError};

pub(super) async fn converse(
    mut stream: Stream,
    mut received: BytesMut,
    server: &Server,
) -> Result<(), WireError> {
    let mut codec = Codec::default();
    let mut reply = BytesMut::with_capacity(4096);
    let mut handed_over = pin!(server.siblings.handed_over());
    let mut is_last = false;
    loop {
        while let Some(request) = codec.decode(&mut received)? {
            let _running = Counted::one_of(&server.calls);
            match server.siblings.ask(&request).await {
                Some(of_another) => reply = of_another,
                None => {
                    let body = server.answer(request.call).await;
                    codec.encode(Reply { message_id: request.message_id, body }, &mut reply)?;
                }
            }
            stream.write_all(&reply).await?;
            is_last = server.siblings.have_taken_over() && msgpack::is_last(&reply);
            reply.clear();
        }
        let read = if server.siblings.have_taken_over() {
            let wait = (!std::mem::take(&mut is_last)).then(|| server.siblings.linger());
            match next_or_end(&mut stream, &mut received, wait).await? {
                Some(read) => read,
                None => return Ok(()),
            }
        } else {
            tokio::select! {
                biased;
                read = stream.read(&mut received) => read?,
                () = &mut handed_over => continue,
            }
        };
        if read == 0 {
            return codec.decode_eof(&mut received).map(|_| ());
        }
    }
}

/// What comes next on a connection to a server that has been succeeded; none where it is to end. Kong kills the server, and
/// what is under way with it, while the next connection leads to the successor (`kong-plugin-protocol.md`, "How Kong finds
/// and runs the server").
async fn next_or_end(
    stream: &mut Stream,
    received: &mut BytesMut,
    wait: Option<Duration>,
) -> io::Result<Option<usize>> {
    if let Some(wait) = wait
        && let Ok(read) = timeout(wait, stream.read(received)).await
    {
        return read.map(Some);
    }
    // A call that has just come would be lost, and tokio may not know of it yet.
    stream.read_now(received)
}
