//! Reducers in JavaScript: folded by worker processes of this program's own, which are killed when they go wrong.

#[cfg(feature = "javascript")]
mod canonical;
pub mod message;
#[cfg(feature = "javascript")]
mod numbers;
#[cfg(feature = "javascript")]
pub mod worker;

use std::io;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{Encode, Failed};
use crate::domain::event::Position;
use crate::domain::reducer::ReducerSource;
use crate::domain::version::Version;
use crate::store::StoredEvent;
use crate::store::error::StoreError;
use message::{Begin, Invalid, ToParent};

/// How long a fold waits for a worker, and for the worker's answer. A worker gives up by itself much sooner.
const WORKER_TIMEOUT: Duration = Duration::from_secs(5);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// The worker processes: as many as there are processors, started when they are needed.
pub struct Workers {
    program: PathBuf,
    encode: Encode,
    idle: Mutex<Vec<Worker>>,
    permits: Arc<Semaphore>,
}

/// Why a fold came to nothing.
#[derive(Debug)]
pub enum JavaScriptError {
    Invalid(Invalid),
    Failed(Failed),
    Store(StoreError),
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
        Arc::new(Self { program, encode, idle: Mutex::default(), permits: Arc::new(Semaphore::new(count)) })
    }

    /// A worker for one fold; `each`: the state after each event is wanted.
    pub async fn begin(
        self: &Arc<Self>,
        source: &ReducerSource,
        each: bool,
    ) -> Result<JavaScriptFold, JavaScriptError> {
        if !cfg!(feature = "javascript") {
            let message = "this build of Annals has no JavaScript".to_owned();
            return Err(JavaScriptError::Invalid(Invalid { message, line: 1, column: 1 }));
        }
        let permit = tokio::time::timeout(WORKER_TIMEOUT, self.permits.clone().acquire_owned()).await;
        let overloaded = |_| JavaScriptError::Store(StoreError::Overloaded);
        let permit = permit.map_err(|_| JavaScriptError::Store(StoreError::Overloaded))?.map_err(overloaded)?;
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
                JavaScriptError::Store(StoreError::Overloaded)
            })?,
        };
        Ok(JavaScriptFold { workers: self.clone(), worker, begin, pending: Vec::new(), last: (0, 0), _permit: permit })
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
    _permit: OwnedSemaphorePermit,
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
        (self.workers.encode)(&mut self.pending, event);
        self.pending.push(b'\n');
        self.last = (event.version, event.global_position);
    }

    /// Bytes that wait to be flushed.
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Hands to the worker what was taken.
    pub async fn flush(&mut self) -> Result<(), JavaScriptError> {
        let written = tokio::time::timeout(ANSWER_TIMEOUT, self.worker.input.write_all(&self.pending)).await;
        self.pending.clear();
        match written {
            Err(_) => Err(self.gone("took too long")),
            // It has ended early: its answer says why.
            Ok(Err(_)) => match self.answer().await? {
                ToParent::Done(_) | ToParent::State(_) => Err(self.gone("ended too early")),
                answer => Err(self.refusal(answer)),
            },
            Ok(Ok(())) => Ok(()),
        }
    }

    /// The state after the last event.
    pub async fn finish(mut self) -> Result<String, JavaScriptError> {
        self.pending.push(b'\n');
        self.flush().await?;
        match self.answer().await? {
            ToParent::Done(done) => {
                let workers = self.workers.clone();
                workers.idle.lock().unwrap_or_else(PoisonError::into_inner).push(self.worker);
                Ok(done.state.get().to_owned())
            }
            answer => Err(self.refusal(answer)),
        }
    }

    /// The states after each event, in order; for a fold that was begun so.
    pub async fn finish_each(mut self) -> Result<Vec<String>, JavaScriptError> {
        self.pending.push(b'\n');
        let Worker { child: _child, mut input, mut output } = self.worker;
        let lines = std::mem::take(&mut self.pending);
        // The worker answers while it is being written to.
        let write = async move { drop(input.write_all(&lines).await) };
        let (last, read) = (self.last, async {
            let mut states = Vec::new();
            loop {
                match read_answer(&mut output, self.last).await? {
                    ToParent::State(state) => states.push(state.get().to_owned()),
                    ToParent::Done(_) => return Ok(states),
                    answer => return Err(refusal(answer, self.last)),
                }
            }
        });
        let both = async { tokio::join!(write, read).1 };
        tokio::time::timeout(ANSWER_TIMEOUT, both).await.unwrap_or_else(|_| Err(gone(last, "took too long")))
    }

    async fn answer(&mut self) -> Result<ToParent, JavaScriptError> {
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, read_answer(&mut self.worker.output, self.last)).await;
        answer.unwrap_or_else(|_| Err(self.gone("took too long")))
    }

    fn refusal(&self, answer: ToParent) -> JavaScriptError {
        refusal(answer, self.last)
    }

    fn gone(&self, how: &str) -> JavaScriptError {
        gone(self.last, how)
    }
}

async fn read_answer(
    output: &mut BufReader<ChildStdout>,
    last: (Version, Position),
) -> Result<ToParent, JavaScriptError> {
    let mut line = String::new();
    match output.read_line(&mut line).await {
        Ok(length) if length > 0 => {
            serde_json::from_str(&line).map_err(|_| gone(last, "gave an answer that is not understood"))
        }
        Ok(_) | Err(_) => Err(gone(last, "ended unexpectedly")),
    }
}

fn refusal(answer: ToParent, last: (Version, Position)) -> JavaScriptError {
    match answer {
        ToParent::Invalid(invalid) => JavaScriptError::Invalid(invalid),
        ToParent::Failed(fault) => {
            // Version 0: it failed for the state as a whole.
            let place = if fault.version == 0 { last } else { (fault.version, fault.global_position) };
            JavaScriptError::Failed(Failed { version: place.0, global_position: place.1, reason: fault.reason })
        }
        ToParent::Done(_) | ToParent::State(_) => gone(last, "gave an answer that was not asked for"),
    }
}

fn gone(last: (Version, Position), how: &str) -> JavaScriptError {
    let reason = format!("the process that folds {how}");
    JavaScriptError::Failed(Failed { version: last.0, global_position: last.1, reason })
}
