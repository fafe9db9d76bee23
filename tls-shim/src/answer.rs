//! This knows the body of an answer to the client.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body, Frame, Incoming, SizeHint};

use crate::kept::Returns;
use crate::multiplexed::Stream;

/// The body of an answer.
pub(crate) enum Answer {
    /// Kong's, as it comes.
    Kong { body: Incoming, _way: Way },
    /// A short one of the shim's own.
    Own(Full<Bytes>),
}

/// The way to Kong that an answer takes up until its end.
pub(crate) enum Way {
    /// A connection that carries nothing else meanwhile.
    Kept(#[expect(dead_code, reason = "it is held")] Returns),
    /// A place on one that carries others beside it.
    Multiplexed(#[expect(dead_code, reason = "it is held")] Stream),
}

impl Body for Answer {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut *self {
            Self::Kong { body, .. } => Pin::new(body).poll_frame(cx),
            Self::Own(body) => Pin::new(body).poll_frame(cx).map_err(|never| match never {}),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Kong { body, .. } => body.is_end_stream(),
            Self::Own(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Kong { body, .. } => body.size_hint(),
            Self::Own(body) => body.size_hint(),
        }
    }
}
