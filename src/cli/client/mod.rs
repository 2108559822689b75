//! What the commands that call a running service share: the HTTP client, events as lines, colours, and failures with
//! their exit status.

pub mod backoff;
pub mod diff;
pub mod event;
pub mod failure;
pub mod follow;
pub mod http;
pub mod lines;
pub mod output;
pub mod pretty;
pub mod problem;
pub mod target;
pub mod text;
pub mod watch;
