//! This knows the body of a request that streams from the client to Kong.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};

use crate::headers::Length;
use crate::patience::Patience;
use crate::record::Counts;

/// The body of a request on its way to Kong, without trailers: nginx does not read them, over HTTP/2 it even ends the
/// connection for them, and a name that no client may send must not come that way either.
pub(crate) struct Outgoing {
    /// None: there is none, nor was there.
    body: Option<Incoming>,
    counts: Counts,
    /// Told who is waited for, where there is a limit to that.
    patience: Option<Patience>,
}

impl Outgoing {
    /// A body as it comes from a client.
    pub(crate) fn new(body: Incoming, counts: Counts, patience: Option<Patience>) -> Self {
        Self { body: Some(body), counts, patience }
    }

    /// The same once more, where it is empty.
    pub(crate) fn again(&self) -> Option<Self> {
        let empty = || Self { body: None, counts: self.counts.clone(), patience: self.patience.clone() };
        self.is_end_stream().then(empty)
    }

    /// How long it is going to be, as far as its sender said.
    pub(crate) fn length(&self) -> Length {
        match self.size_hint().exact() {
            _ if self.is_end_stream() => Length::None,
            Some(0) => Length::None,
            Some(bytes) => Length::Known(bytes),
            None => Length::Unknown,
        }
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let polled = Pin::new(body).poll_frame(cx);
        if let Some(patience) = &self.patience {
            if polled.is_pending() { patience.with_client() } else { patience.with_kong() }
        }
        match polled {
            Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                Ok(data) => {
                    self.counts.up(data.len());
                    Poll::Ready(Some(Ok(Frame::data(data))))
                }
                Err(_) => Poll::Ready(None),
            },
            Poll::Ready(Some(Err(error))) => {
                self.counts.client_left();
                Poll::Ready(Some(Err(error)))
            }
            other => other,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}
