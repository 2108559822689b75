//! A fold in a worker process, as the service sees it.

use std::os::unix::process::ExitStatusExt;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdout};

use crate::domain::event::{Position, StoredEvent};
use crate::domain::reducer::ReducerSource;
use crate::domain::version::Version;
use crate::reducers::error::{FoldError, InvalidReducer, ReducerFailure, not_json};
use crate::reducers::javascript::message::{Begin, Output, WorkerReply};
use crate::reducers::javascript::workers::{Worker, WorkerPermits, Workers};
use crate::reducers::limits::{STATE_BYTES_MAX, STATES_BYTES_MAX};
use crate::wire::event::write_event;

/// How long a fold waits for the reply of a worker that has all events. A worker stops a failing reducer much sooner.
/// This limit is for a long history on a busy machine, and is not a fault of the reducer.
const REPLY_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the service waits for the exit status of a worker whose output has ended.
const EXIT_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest reply. Escapes in JSON may make a state longer than its limit.
const LINE_BYTES_MAX: usize = 6 * STATE_BYTES_MAX + 64 * 1024;

/// A fold in a worker process.
pub struct JavaScriptFold {
    workers: Arc<Workers>,
    worker: Worker,
    begin: Begin,
    /// Lines that were not sent to the worker yet.
    pending: Vec<u8>,
    /// Version and position of the last event.
    last: (Version, Position),
    _permits: WorkerPermits,
}

impl JavaScriptFold {
    /// Acquires a worker. [`JavaScriptFold::begin`] must be called before the first event.
    pub async fn prepare(
        workers: &Arc<Workers>,
        aggregate_type: &str,
        source: &ReducerSource,
        output: Output,
    ) -> Result<Self, FoldError> {
        let (worker, permits) = workers.acquire(aggregate_type).await?;
        let begin = Begin {
            source: source.source.clone(),
            snapshot_every: Version::try_from(source.snapshot_every).unwrap_or(Version::MAX),
            state: None,
            output,
        };
        let workers = workers.clone();
        Ok(Self { workers, worker, begin, pending: Vec::new(), last: (0, 0), _permits: permits })
    }

    /// Begins with the state of a snapshot, or before the first event.
    pub fn begin(&mut self, state: Option<&str>) -> Result<(), serde_json::Error> {
        #[derive(Serialize)]
        struct Message<'b> {
            begin: &'b Begin,
        }
        self.begin.state = state.map(|state| RawValue::from_string(state.to_owned())).transpose()?;
        serde_json::to_writer(&mut self.pending, &Message { begin: &self.begin })?;
        self.pending.push(b'\n');
        Ok(())
    }

    /// Adds an event. [`JavaScriptFold::flush`] sends it to the worker.
    pub fn push(&mut self, event: &StoredEvent<'_>) {
        let start = self.pending.len();
        write_event(&mut self.pending, event);
        // A line is an event. JSON has line breaks only between tokens, where a space means the same.
        for byte in &mut self.pending[start..] {
            if matches!(byte, b'\n' | b'\r') {
                *byte = b' ';
            }
        }
        self.pending.push(b'\n');
        self.last = (event.version, event.global_position);
    }

    /// Returns the number of bytes that were not sent yet.
    pub fn pending_bytes(&self) -> usize {
        self.pending.len()
    }

    /// Sends the events to the worker.
    pub async fn flush(&mut self) -> Result<(), FoldError> {
        let written = tokio::time::timeout(REPLY_TIMEOUT, self.worker.input.write_all(&self.pending)).await;
        self.pending.clear();
        match written {
            Err(_) => Err(FoldError::WorkersBusy),
            // The worker has ended early, and its reply says why.
            Ok(Err(_)) => {
                let reply = self.read_reply().await?;
                Err(failure(reply, self.last))
            }
            Ok(Ok(())) => Ok(()),
        }
    }

    /// Returns the state after the last event.
    pub async fn finish(mut self) -> Result<String, FoldError> {
        self.pending.push(b'\n');
        self.flush().await?;
        match self.read_reply().await? {
            WorkerReply::Done(done) => {
                self.workers.release(self.worker);
                Ok(done.state.get().to_owned())
            }
            reply => Err(failure(reply, self.last)),
        }
    }

    /// Returns the requested states, in order, up to the limit of their bytes.
    pub async fn finish_with_every_state(mut self) -> Result<Vec<String>, FoldError> {
        self.pending.push(b'\n');
        let Worker { mut child, mut input, mut output } = self.worker;
        let lines = std::mem::take(&mut self.pending);
        // The worker replies while events are still being sent.
        let write = async move { drop(input.write_all(&lines).await) };
        let last = self.last;
        let read = async {
            let (mut states, mut bytes) = (Vec::new(), 0);
            while bytes < STATES_BYTES_MAX {
                match read_reply(&mut child, &mut output, last).await? {
                    WorkerReply::State(state) => {
                        bytes += state.get().len();
                        states.push(state.get().to_owned());
                    }
                    WorkerReply::Done(_) => break,
                    reply => return Err(failure(reply, last)),
                }
            }
            Ok(states)
        };
        // Writing ends when reading ends, because the worker is then killed.
        let both = async {
            tokio::pin!(write, read);
            tokio::select! {
                states = &mut read => states,
                () = &mut write => read.await,
            }
        };
        let states = tokio::time::timeout(REPLY_TIMEOUT, both).await;
        states.unwrap_or(Err(FoldError::WorkersBusy))
    }

    async fn read_reply(&mut self) -> Result<WorkerReply, FoldError> {
        let Worker { child, output, .. } = &mut self.worker;
        let reply = tokio::time::timeout(REPLY_TIMEOUT, read_reply(child, output, self.last)).await;
        reply.unwrap_or(Err(FoldError::WorkersBusy))
    }
}

async fn read_reply(
    child: &mut Child,
    output: &mut BufReader<ChildStdout>,
    last: (Version, Position),
) -> Result<WorkerReply, FoldError> {
    while let Some(line) = read_line(output).await {
        let reply: WorkerReply = serde_json::from_str(&line).map_err(not_json)?;
        // The first line of a new process is no reply to a fold.
        if !matches!(reply, WorkerReply::Started(_)) {
            return Ok(reply);
        }
    }
    // A crash is a fault of the reducer; a kill from outside is not.
    let exited = tokio::time::timeout(EXIT_TIMEOUT, child.wait()).await;
    let status = exited.ok().and_then(Result::ok);
    let signal = status.and_then(|status| Signal::try_from(status.signal()?).ok());
    match signal {
        Some(signal @ (Signal::SIGABRT | Signal::SIGBUS | Signal::SIGSEGV)) => {
            let reason = format!("the worker process crashed ({signal})");
            Err(FoldError::Failed(ReducerFailure { version: last.0, global_position: last.1, reason }))
        }
        _ => Err(FoldError::WorkersBusy),
    }
}

/// Reads a line. Returns `None` if the output ends before the line does, or if the line is too long.
async fn read_line(output: &mut BufReader<ChildStdout>) -> Option<String> {
    let mut line = String::new();
    let read = output.take(LINE_BYTES_MAX as u64).read_line(&mut line).await;
    (read.is_ok() && line.ends_with('\n')).then_some(line)
}

/// Returns the error for a reply that is not the expected one.
fn failure(reply: WorkerReply, last: (Version, Position)) -> FoldError {
    match reply {
        WorkerReply::Invalid(invalid) => FoldError::Invalid(invalid),
        // A failure before any event is a fault of the source.
        WorkerReply::Failed(fault) if fault.version == 0 && last.0 == 0 => {
            FoldError::Invalid(InvalidReducer { message: fault.reason, line: 1, column: 1 })
        }
        WorkerReply::Failed(fault) => {
            let (version, global_position) =
                if fault.version == 0 { last } else { (fault.version, fault.global_position) };
            FoldError::Failed(ReducerFailure { version, global_position, reason: fault.reason })
        }
        WorkerReply::Started(_) | WorkerReply::Done(_) | WorkerReply::State(_) => FoldError::WorkersBusy,
    }
}
