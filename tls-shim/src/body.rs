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
    pub(crate) body: Incoming,
    pub(crate) counts: Counts,
    /// Told who is waited for, where there is a limit to that.
    pub(crate) patience: Option<Patience>,
}

impl Outgoing {
    /// How long it is going to be, as far as its sender said.
    pub(crate) fn length(&self) -> Length {
        match self.body.size_hint().exact() {
            _ if self.body.is_end_stream() => Length::None,
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
        let polled = Pin::new(&mut self.body).poll_frame(cx);
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
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
