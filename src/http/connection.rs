//! A connection of a client, below the HTTP library.
//!
//! The library itself responds to a request that it cannot parse: 400, 414 or 431, without a body. Clients rely on a
//! problem document in every error, so the connection replaces these responses. It recognizes them by the missing
//! header `X-Request-Id`, which every response of the service has. Text inside of a response cannot look like one,
//! because a JSON document contains no CR.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::rt::{Read, ReadBuf, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::Sleep;

use crate::app::App;
use crate::http::activity::Activity;
use crate::http::base_path::sync_scope;
use crate::http::media_type::PROBLEM_JSON;
use crate::http::problem::code::Code;
use crate::http::problem::error::ApiError;

/// The largest request target that the library accepts (RFC 9110 recommends at least 8,000 bytes).
const URI_BYTES_MAX: usize = 65_534;

/// The longest time for which the rest of a request is discarded that the library has refused.
const LINGER: Duration = Duration::from_secs(2);

/// A connection whose errors are problem documents.
pub struct Connection {
    stream: TokioIo<TcpStream>,
    app: Arc<App>,
    activity: Arc<Activity>,
    /// Whether the client has sent a line break since the last response.
    has_line: bool,
    /// A problem document that replaces a response, and the number of its bytes that are written.
    replacement: Option<(Vec<u8>, usize)>,
    /// After a replacement: the rest of the request is discarded until this time, so that the client, which may still
    /// send it, receives the response and not a reset.
    linger_until: Option<Pin<Box<Sleep>>>,
}

impl Connection {
    /// Wraps a stream. `activity` is updated as requests arrive and responses are sent.
    pub fn new(stream: TcpStream, app: Arc<App>, activity: Arc<Activity>) -> Self {
        let stream = TokioIo::new(stream);
        Self { stream, app, activity, has_line: false, replacement: None, linger_until: None }
    }

    /// Returns the error if the bytes are a response of the library.
    fn library_error(&self, response: &[u8]) -> Option<ApiError> {
        let status = response.strip_prefix(b"HTTP/1.1 ")?.get(..3)?;
        let head = response.strip_suffix(b"\r\n\r\n")?;
        let contains = |part: &[u8]| head.windows(part.len()).any(|window| window.eq_ignore_ascii_case(part));
        if !contains(b"\r\ncontent-length: 0") || contains(b"\r\nx-request-id:") {
            return None;
        }
        let too_long =
            || ApiError::new(Code::UriTooLong, format!("the path and the query have more than {URI_BYTES_MAX} bytes"));
        Some(match status {
            b"400" => {
                let detail = "the request is not valid HTTP/1.1: check the request line and the headers";
                ApiError::new(Code::InvalidRequest, detail)
            }
            b"414" => too_long(),
            // The library counts a long request line as a large head.
            b"431" if !self.has_line => too_long(),
            b"431" => {
                let detail = "the headers have more than 64 KiB, or are more than 100";
                ApiError::new(Code::HeadersTooLarge, detail)
            }
            _ => return None,
        })
    }

    /// Returns the whole response with the problem document, and logs it.
    fn respond(&self, error: &ApiError) -> Vec<u8> {
        let problem = error.problem();
        let request_id = self.app.new_event_id().to_string();
        let (status, code) = (problem.status, problem.code.as_str());
        tracing::info!(status = status.as_u16(), code, detail = problem.detail, request_id, "request");
        let body = sync_scope(self.app.settings.base_path.clone(), || problem.to_json(&request_id));
        let reason = status.canonical_reason().unwrap_or_default();
        let mut response = format!(
            "HTTP/1.1 {} {reason}\r\ncontent-type: {PROBLEM_JSON}\r\ncontent-length: {}\r\ncache-control: no-store\r\n\
             x-request-id: {request_id}\r\nconnection: close\r\n\r\n",
            status.as_u16(),
            body.len(),
        )
        .into_bytes();
        response.extend_from_slice(&body);
        response
    }

    /// Writes the replacement of a response of `length` bytes. Reports the length of what it replaces.
    fn poll_replacement(&mut self, context: &mut Context<'_>, length: usize) -> Poll<io::Result<usize>> {
        while let Some((bytes, written)) = &mut self.replacement {
            let rest = &bytes[*written..];
            if rest.is_empty() {
                self.replacement = None;
                break;
            }
            let count = ready!(Pin::new(&mut self.stream).poll_write(context, rest))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            *written += count;
        }
        Poll::Ready(Ok(length))
    }
}

impl Read for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        mut cursor: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if self.has_line {
            return Pin::new(&mut self.stream).poll_read(context, cursor);
        }
        // Until the first line break, the bytes are copied, so that they can be searched. A request always begins here.
        let mut space = [std::mem::MaybeUninit::uninit(); 4 * 1024];
        let capacity = space.len().min(cursor.remaining());
        let mut buffer = ReadBuf::uninit(&mut space[..capacity]);
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer.unfilled()))?;
        if !buffer.filled().is_empty() {
            self.activity.record_bytes();
        }
        self.has_line = buffer.filled().contains(&b'\n');
        cursor.put_slice(buffer.filled());
        Poll::Ready(Ok(()))
    }
}

impl Write for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.replacement.is_none() {
            let Some(error) = self.library_error(bytes) else {
                self.has_line = false;
                return Pin::new(&mut self.stream).poll_write(context, bytes);
            };
            self.replacement = Some((self.respond(&error), 0));
            self.linger_until = Some(Box::pin(tokio::time::sleep(LINGER)));
        }
        self.poll_replacement(context, bytes.len())
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(context))?;
        // The library flushes after it has written all that it has buffered.
        self.activity.record_sent();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_shutdown(context))?;
        while let Some(deadline) = &mut self.linger_until {
            if deadline.as_mut().poll(context).is_ready() {
                break;
            }
            let mut space = [std::mem::MaybeUninit::uninit(); 16 * 1024];
            let mut buffer = ReadBuf::uninit(&mut space);
            let read = ready!(Pin::new(&mut self.stream).poll_read(context, buffer.unfilled()));
            if read.is_err() || buffer.filled().is_empty() {
                break;
            }
        }
        self.linger_until = None;
        Poll::Ready(Ok(()))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match buffers {
            [response] => self.poll_write(context, response),
            _ => {
                self.has_line = false;
                Pin::new(&mut self.stream).poll_write_vectored(context, buffers)
            }
        }
    }
}
