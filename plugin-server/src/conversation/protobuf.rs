//! This knows the conversation in ProtoBuf:1. Kong makes one call after the other on a connection, and an event has it
//! to itself: pairs of frames from us and one answer to each, until an empty frame and the reply to the call.
//!
//! Nothing here closes a connection in the middle of an event. Kong would start the event anew, at once, for as long as
//! that happens (`kong-plugin-protocol.md`, "ProtoBuf:1"): whatever is wrong, the event ends with an answer to the
//! client.

use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use prost::Message;

use super::Counted;
use super::stream::Stream;
use crate::access::Verdict;
use crate::event::{Progress, Spares};
use crate::rpc::Server;
use crate::rpc::protobuf::{Outcome, ProtoBufEvent};
use crate::wire::protobuf::WireError;
use crate::wire::protobuf::frame::{self, LENGTH, MAX_ANSWER, MAX_CALL, TooLong};
use crate::wire::protobuf::messages::{RpcCall, RpcReturn};
use crate::wire::protobuf::pdk::{Answer, Call};

pub(super) async fn converse(
    stream: Stream,
    received: BytesMut,
    server: &Arc<Server>,
) -> Result<(), WireError> {
    let mut line = Line { stream, received, sending: BytesMut::with_capacity(4096) };
    while let Some(frame) = line.frame(MAX_CALL).await? {
        let running = Counted::one_of(&server.calls);
        let call = RpcCall::decode(frame)?;
        let sequence = call.sequence;
        let reply = match server.answer_protobuf(call.command.ok_or(WireError::NoCommand)?).await? {
            Outcome::Reply(returned) => RpcReturn { sequence, returned },
            Outcome::Event(event) => {
                if let Some(last_word) = run(&mut line, event, &server.events.spares).await? {
                    line.call(&last_word).await?;
                    // The client has its answer as soon as Kong has read this; what comes now may take its time.
                    drop(running);
                    if !line.is_answered().await {
                        return Ok(());
                    }
                }
                frame::put(&mut line.sending, b"");
                RpcReturn { sequence, returned: None }
            }
        };
        frame::put(&mut line.sending, &reply.encode_to_vec());
        line.send().await?;
    }
    Ok(())
}

/// Runs an event until Kong may go on with the request, or to the call after which it does not come back.
async fn run(line: &mut Line, event: ProtoBufEvent, spares: &Spares) -> Result<Option<Call>, WireError> {
    let mut event = match event {
        ProtoBufEvent::Runs(event) => event,
        ProtoBufEvent::NoInstance(id) => return Ok(Some(Call::no_instance(id))),
    };
    loop {
        match event.advance().await {
            Progress::Calls(call) => {
                line.call(&call).await?;
                let answer = line.answer().await?;
                event.answer(answer);
            }
            Progress::Ended(verdict) => {
                spares.keep(event);
                return Ok(match verdict {
                    Verdict::Proceed => None,
                    Verdict::Refuse { status, message } => Some(Call::exit(status, message)),
                });
            }
        }
    }
}

/// A connection, with what was read from it ahead.
struct Line {
    stream: Stream,
    received: BytesMut,
    sending: BytesMut,
}

impl Line {
    /// The next frame. None if Kong has closed the connection.
    async fn frame(&mut self, most: usize) -> Result<Option<Bytes>, WireError> {
        loop {
            if let Some(frame) = frame::take(&mut self.received, most)? {
                return Ok(Some(frame));
            }
            if self.stream.read(&mut self.received).await? == 0 {
                return if self.received.is_empty() { Ok(None) } else { Err(WireError::Truncated) };
            }
        }
    }

    /// Has Kong run a PDK call.
    async fn call(&mut self, call: &Call) -> Result<(), WireError> {
        frame::put(&mut self.sending, call.method.as_bytes());
        frame::put(&mut self.sending, &call.argument);
        self.send().await
    }

    /// What Kong gives to a PDK call. One that is too long is read over, so that the event can end as it should.
    async fn answer(&mut self) -> Result<Answer, WireError> {
        match self.frame(MAX_ANSWER).await {
            Ok(Some(answer)) => Ok(Some(answer)),
            Ok(None) => Err(WireError::EventAbandoned),
            Err(WireError::TooLong(TooLong { length, .. })) => {
                tracing::warn!(length, "an answer to a PDK call that is too long");
                self.skip(LENGTH + length).await?;
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    async fn skip(&mut self, mut length: usize) -> Result<(), WireError> {
        loop {
            let here = length.min(self.received.len());
            self.received.advance(here);
            length -= here;
            if length == 0 {
                return Ok(());
            }
            if self.stream.read(&mut self.received).await? == 0 {
                return Err(WireError::EventAbandoned);
            }
        }
    }

    /// Whether Kong comes back after a call that ends the request. No Kong does as far as is known: it leaves the
    /// connection, which is closed with the request, in whatever way.
    async fn is_answered(&mut self) -> bool {
        matches!(self.frame(MAX_ANSWER).await, Ok(Some(_)))
    }

    async fn send(&mut self) -> Result<(), WireError> {
        self.stream.write_all(&self.sending).await?;
        self.sending.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests;
