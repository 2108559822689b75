//! Responses that are read before an erasure and sent after it.
//!
//! A page is built in memory, and a slow client may take it for a long time. The guard hands its body to the connection
//! part by part. If events are erased meanwhile, it aborts the response: the client sees an incomplete response, and
//! repeats the request. A response that is sent piece by piece reads the rest again itself.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use axum::response::Response;
use hyper::body::{Frame, SizeHint};

use crate::store::erasures::known::ReadMark;

/// A smaller body is written to the connection at once.
const GUARDED_BYTES_MIN: u64 = 16 * 1024;
/// The size of the parts.
const PART_BYTES: usize = 32 * 1024;

/// A response was aborted because events were erased since it was read.
#[derive(Debug, thiserror::Error)]
#[error("events were erased while the response was sent: repeat the request")]
struct ErasedMeanwhile;

struct GuardedBody {
    body: Body,
    rest: Bytes,
    mark: ReadMark,
}

/// Guards a response whose content was read after the mark.
pub fn guard(response: Response, mark: ReadMark) -> Response {
    let is_large = response.body().size_hint().exact().is_some_and(|bytes| bytes >= GUARDED_BYTES_MIN);
    if !is_large {
        return response;
    }
    response.map(|body| Body::new(GuardedBody { body, rest: Bytes::new(), mark }))
}

impl HttpBody for GuardedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.mark.has_ended() {
            return Poll::Ready(Some(Err(axum::Error::new(ErasedMeanwhile))));
        }
        if self.rest.is_empty() {
            match std::task::ready!(Pin::new(&mut self.body).poll_frame(context)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.rest = data,
                    Err(other) => return Poll::Ready(Some(Ok(other))),
                },
                end => return Poll::Ready(end),
            }
        }
        let length = self.rest.len().min(PART_BYTES);
        Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(length)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = self.body.size_hint();
        if let Some(left) = hint.exact() {
            hint.set_exact(left + self.rest.len() as u64);
        }
        hint
    }
}
