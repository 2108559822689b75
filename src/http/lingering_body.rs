//! Responses that are sent before the body of the request was read: 401, 404, 413 and others.
//!
//! Many clients send the whole body before they read the response. If the service closed the connection at once, the
//! system would reset it, and such a client would see a broken connection instead of the response. So the service
//! reads on and discards the rest of the body, for a limited time and up to a limited size (RFC 9112, section 9.6).

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::http::header;
use http_body_util::BodyExt;
use hyper::body::{Frame, SizeHint};
use tokio::time::Instant;

/// The largest part of a body that is discarded: twice the largest body that a service can be configured to accept.
const DISCARDED_BYTES_MAX: usize = 32 * 1024 * 1024;

/// A request body. If it is dropped before its end, its rest is discarded in the background.
struct LingeringBody {
    /// `None` after its end.
    body: Option<Body>,
    /// The time at which the rest must have arrived.
    deadline: Instant,
    /// Whether the client sends the body, or waits until the service begins to read it (`Expect: 100-continue`).
    is_coming: bool,
}

/// Makes the body of a request linger until `deadline`, if the request has a body.
pub fn linger(request: Request, deadline: Instant) -> Request {
    if request.body().is_end_stream() {
        return request;
    }
    let is_coming = !request.headers().contains_key(header::EXPECT);
    request.map(|body| Body::new(LingeringBody { body: Some(body), deadline, is_coming }))
}

impl HttpBody for LingeringBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.is_coming = true;
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let frame = Pin::new(body).poll_frame(context);
        if matches!(frame, Poll::Ready(None | Some(Err(_)))) {
            self.body = None;
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), HttpBody::size_hint)
    }
}

impl Drop for LingeringBody {
    fn drop(&mut self) {
        let rest = self.body.take().filter(|body| self.is_coming && !body.is_end_stream());
        if let (Some(rest), Ok(runtime)) = (rest, tokio::runtime::Handle::try_current()) {
            runtime.spawn(tokio::time::timeout_at(self.deadline, discard(rest)));
        }
    }
}

async fn discard(mut body: Body) {
    let mut discarded = 0;
    while let Some(Ok(frame)) = body.frame().await {
        discarded += frame.data_ref().map_or(0, Bytes::len);
        if discarded > DISCARDED_BYTES_MAX {
            return;
        }
    }
}
