//! Reducers in JavaScript: folded by worker processes of this program's own, which are killed when they go wrong.

pub mod message;
#[cfg(feature = "javascript")]
mod numbers;
#[cfg(feature = "javascript")]
pub mod worker;

use std::collections::HashMap;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde::Serialize;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::fold::{FoldError, STATE_BYTES_MAX, not_json};
use super::{Encode, Failed, trial};
use crate::domain::event::Position;
use crate::domain::reducer::ReducerSource;
use crate::domain::version::Version;
use crate::store::StoredEvent;
use crate::store::error::StoreError;
use message::{Begin, Invalid, ToParent};

/// How long a fold waits for a worker, and for the worker's answer once it has everything. A worker gives up a reducer that
/// goes wrong much sooner; this is for a long history on a busy machine, and no fault of the reducer.
const WORKER_TIMEOUT: Duration = Duration::from_secs(5);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Worker processes for each processor: one that waits for the database takes no time from another.
const PER_PROCESSOR: usize = 2;
/// A state may be escaped on its way: its line is this long at most.
const LINE_BYTES_MAX: usize = 6 * STATE_BYTES_MAX + 64 * 1024;

/// The worker processes, started when they are needed.
pub struct Workers {
    program: PathBuf,
    encode: Encode,
    idle: Mutex<Vec<Worker>>,
    permits: Arc<Semaphore>,
    /// One type has at most half of the workers, so that a slow reducer does not keep all others waiting.
    of_types: Mutex<HashMap<String, Arc<Semaphore>>>,
    per_type: usize,
}

struct Worker {
    /// Killed when it is dropped.
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Workers {
    /// `program` is the annals binary, `encode` writes events as reducers see them.
    pub fn new(program: PathBuf, encode: Encode) -> Arc<Self> {
        let count = std::thread::available_parallelism().map_or(1, usize::from);
        let permits = Arc::new(Semaphore::new(count * PER_PROCESSOR));
        let per_type = (count * PER_PROCESSOR / 2).max(1);
        Arc::new(Self { program, encode, idle: Mutex::default(), permits, of_types: Mutex::default(), per_type })
    }

    /// A worker for one fold of a type; `each`: the state after each event is wanted.
    pub async fn begin(
        self: &Arc<Self>,
        aggregate_type: &str,
        source: &ReducerSource,
        each: bool,
    ) -> Result<JavaScriptFold, FoldError> {
        if !cfg!(feature = "javascript") {
            let message = "this build of Annals has no JavaScript".to_owned();
            return Err(FoldError::Invalid(Invalid { message, line: 1, column: 1 }));
        }
        let of_type = self.of_type(aggregate_type);
        let permits = async { (of_type.acquire_owned().await, self.permits.clone().acquire_owned().await) };
        let Ok((Ok(of_type), Ok(any))) = tokio::time::timeout(WORKER_TIMEOUT, permits).await else {
            return Err(FoldError::Store(StoreError::NotFolded));
        };
        let begin = Begin {
            source: source.source.clone(),
            snapshot_every: Version::try_from(source.snapshot_every).unwrap_or(Version::MAX),
            state: None,
            each,
        };
        let worker = match self.rested() {
            Some(worker) => worker,
            None => self.spawn().map_err(|error| {
                tracing::error!(%error, "a reducer's worker could not be started");
                FoldError::Store(StoreError::NotFolded)
            })?,
        };
        Ok(JavaScriptFold {
            workers: self.clone(),
            worker,
            begin,
            pending: Vec::new(),
            last: (0, 0),
            _permits: [of_type, any],
        })
    }

    fn of_type(&self, aggregate_type: &str) -> Arc<Semaphore> {
        let mut of_types = self.of_types.lock().unwrap_or_else(PoisonError::into_inner);
        // Those that nobody waits for or holds are made anew when they are needed.
        of_types.retain(|_, permits| Arc::strong_count(permits) > 1 || permits.available_permits() < self.per_type);
        let permits = of_types.entry(aggregate_type.to_owned());
        permits.or_insert_with(|| Arc::new(Semaphore::new(self.per_type))).clone()
    }

    fn rested(&self) -> Option<Worker> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(mut worker) = idle.pop() {
            if matches!(worker.child.try_wait(), Ok(None)) {
                return Some(worker);
            }
        }
        None
    }

    fn spawn(&self) -> io::Result<Worker> {
        // Nothing of our environment: it has the database's password.
        let mut child = Command::new(&self.program)
            .arg("reducer-worker")
            .env_clear()
            // What is sent to us from a terminal is not for it: it ends with its input.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(io::ErrorKind::BrokenPipe.into());
        };
        Ok(Worker { child, input, output: BufReader::new(output) })
    }
}

/// A fold on its way through a worker.
pub struct JavaScriptFold {
    workers: Arc<Workers>,
    worker: Worker,
    begin: Begin,
    /// Lines that the worker has not got yet.
    pending: Vec<u8>,
    /// Version and position of the last event that was taken.
    last: (Version, Position),
    _permits: [OwnedSemaphorePermit; 2],
}

impl JavaScriptFold {
    /// Begins with a state, or with none.
    pub fn start(&mut self, state: Option<&str>) -> Result<(), serde_json::Error> {
        #[derive(Serialize)]
        struct Message<'b> {
            begin: &'b Begin,
        }
        self.begin.state = state.map(|state| serde_json::value::RawValue::from_string(state.to_owned())).transpose()?;
        serde_json::to_writer(&mut self.pending, &Message { begin: &self.begin })?;
        self.pending.push(b'\n');
        Ok(())
    }

    /// Takes an event; nothing happens to it before [`JavaScriptFold::flush`].
    pub fn take(&mut self, event: &StoredEvent<'_>) {
        let begin = self.pending.len();
        (self.workers.encode)(&mut self.pending, event);
        // JSON has line breaks only between tokens; here a line is an event.
        for byte in &mut self.pending[begin..] {
            if matches!(byte, b'\n' | b'\r') {
                *byte = b' ';
            }
        }
        self.pending.push(b'\n');
        self.last = (event.version, event.global_position);
    }

    /// Bytes that wait to be flushed.
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Hands to the worker what was taken.
    pub async fn flush(&mut self) -> Result<(), FoldError> {
        let written = tokio::time::timeout(ANSWER_TIMEOUT, self.worker.input.write_all(&self.pending)).await;
        self.pending.clear();
        match written {
            Err(_) => Err(FoldError::Store(StoreError::NotFolded)),
            // It has ended early: its answer says why.
            Ok(Err(_)) => {
                let answer = self.answer().await?;
                Err(refusal(answer, self.last))
            }
            Ok(Ok(())) => Ok(()),
        }
    }

    /// The state after the last event.
    pub async fn finish(mut self) -> Result<String, FoldError> {
        self.pending.push(b'\n');
        self.flush().await?;
        match self.answer().await? {
            ToParent::Done(done) => {
                let workers = self.workers.clone();
                workers.idle.lock().unwrap_or_else(PoisonError::into_inner).push(self.worker);
                Ok(done.state.get().to_owned())
            }
            answer => Err(refusal(answer, self.last)),
        }
    }

    /// The states after each event, in order, as many as a trial has room for; for a fold that was begun so.
    pub async fn finish_each(mut self) -> Result<Vec<String>, FoldError> {
        self.pending.push(b'\n');
        let Worker { mut child, mut input, mut output } = self.worker;
        let lines = std::mem::take(&mut self.pending);
        // The worker answers while it is being written to.
        let write = async move { drop(input.write_all(&lines).await) };
        let last = self.last;
        let read = async {
            let (mut states, mut bytes) = (Vec::new(), 0);
            while bytes < trial::BYTES_MAX {
                match read_answer(&mut child, &mut output, last).await? {
                    ToParent::State(state) => {
                        bytes += state.get().len();
                        states.push(state.get().to_owned());
                    }
                    ToParent::Done(_) => break,
                    answer => return Err(refusal(answer, last)),
                }
            }
            Ok(states)
        };
        // The writing ends with the reading: the worker is killed then.
        let both = async {
            tokio::pin!(write, read);
            tokio::select! {
                states = &mut read => states,
                () = &mut write => read.await,
            }
        };
        let states = tokio::time::timeout(ANSWER_TIMEOUT, both).await;
        states.unwrap_or(Err(FoldError::Store(StoreError::NotFolded)))
    }

    async fn answer(&mut self) -> Result<ToParent, FoldError> {
        let Worker { child, output, .. } = &mut self.worker;
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, read_answer(child, output, self.last)).await;
        answer.unwrap_or(Err(FoldError::Store(StoreError::NotFolded)))
    }
}

async fn read_answer(
    child: &mut Child,
    output: &mut BufReader<ChildStdout>,
    last: (Version, Position),
) -> Result<ToParent, FoldError> {
    let mut line = String::new();
    let read = output.take(LINE_BYTES_MAX as u64).read_line(&mut line).await;
    if read.is_ok() && line.ends_with('\n') {
        return serde_json::from_str(&line).map_err(not_json);
    }
    // Crashed by itself: the reducer's doing. Killed by somebody, or gone: not.
    let crashed = tokio::time::timeout(WORKER_TIMEOUT, child.wait()).await;
    let status = crashed.ok().and_then(Result::ok);
    let signal = status.and_then(|status| Signal::try_from(status.signal()?).ok());
    match signal {
        Some(signal @ (Signal::SIGABRT | Signal::SIGBUS | Signal::SIGSEGV)) => {
            let reason = format!("the process that folds crashed ({signal})");
            Err(FoldError::Failed(Failed { version: last.0, global_position: last.1, reason }))
        }
        _ => Err(FoldError::Store(StoreError::NotFolded)),
    }
}

fn refusal(answer: ToParent, last: (Version, Position)) -> FoldError {
    match answer {
        ToParent::Invalid(invalid) => FoldError::Invalid(invalid),
        // Before any event: it is the source that is wrong.
        ToParent::Failed(fault) if fault.version == 0 && last.0 == 0 => {
            FoldError::Invalid(Invalid { message: fault.reason, line: 1, column: 1 })
        }
        ToParent::Failed(fault) => {
            let place = if fault.version == 0 { last } else { (fault.version, fault.global_position) };
            FoldError::Failed(Failed { version: place.0, global_position: place.1, reason: fault.reason })
        }
        ToParent::Done(_) | ToParent::State(_) => FoldError::Store(StoreError::NotFolded),
    }
}
