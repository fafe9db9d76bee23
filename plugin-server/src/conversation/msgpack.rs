//! This knows the conversation in MsgPack:1. Kong has one call in flight on a connection, of any event or none.

use bytes::BytesMut;
use tokio_util::codec::{Decoder, Encoder};

use super::Counted;
use super::stream::Stream;
use crate::rpc::Server;
use crate::wire::msgpack::{Codec, Reply, WireError};

pub(super) async fn converse(
    mut stream: Stream,
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
        if stream.read(&mut received).await? == 0 {
            return codec.decode_eof(&mut received).map(|_| ());
        }
    }
}
