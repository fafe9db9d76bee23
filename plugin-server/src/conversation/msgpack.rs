//! This knows the conversation in MsgPack:1. Kong has one call in flight on a connection, of any event or none.

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio_util::codec::{Decoder, Encoder};

use super::Counted;
use crate::rpc::Server;
use crate::wire::msgpack::{Codec, Reply, WireError};

pub(super) async fn converse(
    mut stream: UnixStream,
    mut received: BytesMut,
    server: &Server,
) -> Result<(), WireError> {
    let mut codec = Codec::default();
    let mut reply = BytesMut::with_capacity(4096);
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
            reply.clear();
        }
        if stream.read_buf(&mut received).await? == 0 {
            return codec.decode_eof(&mut received).map(|_| ());
        }
    }
}
