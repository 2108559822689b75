//! Errors on the wire: problem documents (RFC 9457) with a stable code.
//!
//! `detail` is for the client. The cause of a problem is for operators: it is logged, and not sent.

mod appends;
pub mod code;
mod constructors;
mod conversions;
pub mod error;
pub mod field_error;
pub mod schema;
