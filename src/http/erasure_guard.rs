//! Responses that are read before an erasure and sent after it.
//!
//! A handler can work for a long time on what it has read: it folds events, or reads the archive. If events are erased
//! meanwhile, its response is replaced by an error. A page is built in memory, and a slow client may take it for a long
//! time. The guard hands its body to the connection part by part, and aborts the response if events are erased: the client
//! sees an incomplete response, and repeats the request. A response that is sent piece by piece reads the rest again
//! itself.

use std::cell::RefCell;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::http::Method;
use axum::response::{IntoResponse, Response};
use hyper::body::{Frame, SizeHint};

use crate::http::problem::code::Code;
use crate::http::problem::error::ApiError;
use crate::store::erasures::known::ReadMark;

/// A smaller body is written to the connection at once.
const GUARDED_BYTES_MIN: u64 = 16 * 1024;
/// The approximate size of the parts in which content is sent. A part that is with the connection cannot be withheld.
pub const PART_BYTES: usize = 32 * 1024;

tokio::task_local! {
    /// When the current request has begun to read.
    static MARK: RefCell<ReadMark>;
}

/// A response was aborted because events were erased since it was read.
#[derive(Debug, thiserror::Error)]
#[error("events were erased while the response was sent: repeat the request")]
struct ErasedMeanwhile;

struct GuardedBody {
    body: Body,
    rest: Bytes,
    mark: ReadMark,
}

/// Returns whether a response to a request can have content of events.
pub fn may_return_content(request: &Request) -> bool {
    let path = request.uri().path();
    let begins_with = |parts: &[&str]| parts.iter().any(|part| path.starts_with(part));
    let is_read =
        request.method() == Method::GET && begins_with(&["/events", "/streams/", "/aggregates/", "/snapshots/"]);
    let is_test = request.method() == Method::POST && begins_with(&["/reducers/"]);
    is_read || is_test || begins_with(&["/groups/"]) && path.contains("/claims")
}

/// Runs a handler, and guards its response.
pub async fn guarded<E>(mark: ReadMark, handled: impl Future<Output = Result<Response, E>>) -> Result<Response, E> {
    MARK.scope(RefCell::new(mark), async {
        let response = handled.await?;
        Ok(guard(response, MARK.with(|mark| mark.borrow().clone())))
    })
    .await
}

/// Begins to read again: the response has nothing of what the request has read until now.
pub fn begin_again() {
    // Without a guard, there is nothing to renew.
    MARK.try_with(|mark| mark.borrow_mut().renew()).unwrap_or(());
}

fn guard(response: Response, mark: ReadMark) -> Response {
    if mark.has_ended() && response.status().is_success() {
        let detail = "events were erased while the response was made, which may concern it: repeat the request";
        return ApiError::new(Code::Overloaded, detail).into_response();
    }
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
