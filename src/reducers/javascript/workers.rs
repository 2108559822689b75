//! The pool of worker processes. A worker is started when a fold needs one and none is idle.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::reducers::error::FoldError;
use crate::reducers::javascript::message::{Started, WorkerReply};
use crate::shares::client::ClientId;
use crate::shares::semaphore::{FairPermit, FairSemaphore};

/// How long a fold waits for a worker.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the service waits at its start for the first line of a worker.
const START_TIMEOUT: Duration = Duration::from_secs(10);
/// The number of worker processes for each processor: a worker that waits for events uses no processor time.
const PER_PROCESSOR: usize = 2;

/// The pool of worker processes.
pub struct Workers {
    /// The annals binary.
    program: PathBuf,
    idle: Mutex<Vec<Worker>>,
    /// Clients wait round robin, and one client leaves a worker for the others.
    permits: Arc<FairSemaphore>,
    /// One aggregate type uses at most half of the workers, too: the service folds for all types.
    type_permits: Mutex<HashMap<String, Arc<FairSemaphore>>>,
    per_type: usize,
}

/// A worker process. It is killed when this is dropped.
pub(super) struct Worker {
    pub(super) child: Child,
    pub(super) input: ChildStdin,
    pub(super) output: BufReader<ChildStdout>,
}

/// The permits of a fold, for its type and for the pool.
pub(super) type WorkerPermits = [FairPermit; 2];

impl Workers {
    /// Creates an empty pool. `program` is the annals binary.
    pub fn new(program: PathBuf) -> Arc<Self> {
        let count = std::thread::available_parallelism().map_or(1, usize::from);
        let workers = count * PER_PROCESSOR;
        let per_type = (workers / 2).max(1);
        let permits = FairSemaphore::new(workers, workers - 1);
        Arc::new(Self { program, idle: Mutex::default(), permits, type_permits: Mutex::default(), per_type })
    }

    /// Starts a worker process, and stops it after its first line. Logs if the process cannot be started, or has no
    /// filter of system calls. All workers run as this one does.
    pub async fn check_start(&self) {
        match tokio::time::timeout(START_TIMEOUT, self.start_once()).await {
            Ok(Ok(Started { unfiltered: None })) => {}
            Ok(Ok(Started { unfiltered: Some(reason) })) => {
                tracing::warn!(reason, "reducer workers run without a filter of system calls");
            }
            Ok(Err(error)) => tracing::error!(%error, "a reducer's worker process could not be started"),
            Err(_) => tracing::error!("a reducer's worker process did not start within {START_TIMEOUT:?}"),
        }
    }

    async fn start_once(&self) -> io::Result<Started> {
        let mut worker = self.spawn()?;
        let mut line = String::new();
        worker.output.read_line(&mut line).await?;
        let reply: WorkerReply = serde_json::from_str(&line)?;
        let WorkerReply::Started(started) = reply else { return Err(io::ErrorKind::InvalidData.into()) };
        Ok(started)
    }

    /// Acquires a worker for one fold of a type.
    pub(super) async fn acquire(&self, aggregate_type: &str) -> Result<(Worker, WorkerPermits), FoldError> {
        let of_type = self.permits_of(aggregate_type);
        let client = ClientId::current();
        let permits = async { [of_type.acquire(client.clone()).await, self.permits.acquire(client).await] };
        let permits = tokio::time::timeout(ACQUIRE_TIMEOUT, permits).await.map_err(|_| FoldError::WorkersBusy)?;
        let worker = match self.idle_worker() {
            Some(worker) => worker,
            None => self.spawn().map_err(|error| {
                tracing::error!(%error, "a reducer's worker process could not be started");
                FoldError::WorkersBusy
            })?,
        };
        Ok((worker, permits))
    }

    /// Returns a worker to the pool after its fold is complete.
    pub(super) fn release(&self, worker: Worker) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(worker);
    }

    fn permits_of(&self, aggregate_type: &str) -> Arc<FairSemaphore> {
        let mut type_permits = self.type_permits.lock().unwrap_or_else(PoisonError::into_inner);
        // Semaphores without a waiting task and without a used permit are removed, and created again when needed.
        type_permits.retain(|_, permits| Arc::strong_count(permits) > 1);
        let permits = type_permits.entry(aggregate_type.to_owned());
        permits.or_insert_with(|| FairSemaphore::new(self.per_type, self.per_type)).clone()
    }

    fn idle_worker(&self) -> Option<Worker> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(mut worker) = idle.pop() {
            if matches!(worker.child.try_wait(), Ok(None)) {
                return Some(worker);
            }
        }
        None
    }

    fn spawn(&self) -> io::Result<Worker> {
        let mut child = Command::new(&self.program)
            .arg("reducer-worker")
            // The environment of the service contains the password of the database.
            .env_clear()
            // Signals of a terminal are for the service alone: a worker ends with its input.
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
