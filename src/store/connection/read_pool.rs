//! The pool of connections for reads. Each is acquired for one short statement.
//!
//! sqlx pings a connection that returns to its pool, which is a round trip. While tasks wait for a connection, a task
//! that has read its result to the end hands its connection to the next task without that ping. Loads are 5 to 10 %
//! faster.
//!
//! Invariants:
//! - Only a connection without unread results is handed off. After an error, or if a read stops within a result, the
//!   connection returns to sqlx's pool, which reads the rest or closes the connection.
//! - Connections are held for a hand-off only while a task waits, so the idle timeout of the pool holds. Its maximum
//!   lifetime does not hold while tasks wait all the time.
//! - Clients share the connections; see [`shared_permits`].
//! - The number of permits equals the number of connections: a task with a permit always finds a handed-off connection
//!   or one in sqlx's pool.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sqlx::PgPool;

use crate::shares::client::ClientId;
use crate::shares::semaphore::{FairPermit, FairSemaphore};
use crate::store::connection::session::{ServerState, Session};

pub(in crate::store) struct ReadPool {
    pool: PgPool,
    permits: Arc<FairSemaphore>,
    server_state: ServerState,
    /// The longest time that a task waits.
    timeout: Duration,
    handoffs: Mutex<HandoffQueue>,
}

/// Connections that are handed from task to task.
#[derive(Default)]
struct HandoffQueue {
    waiting_tasks: usize,
    connections: Vec<Session>,
}

/// Why no connection was acquired.
#[derive(Debug, thiserror::Error)]
pub(in crate::store) enum AcquireError {
    /// The client did not get its turn in time, because its other tasks or other clients use the connections. This says
    /// nothing about the database.
    #[error("other reads use all connections")]
    NoTurn,
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

/// An acquired connection. When it is dropped, it returns to sqlx's pool, or is closed if the server did not respond.
pub(in crate::store) struct ReadConnection<'p> {
    /// `None` only after a hand-off.
    connection: Option<Session>,
    pool: &'p ReadPool,
    /// Released after the connection.
    _permit: FairPermit,
}

/// Returns the permits of connections. Clients wait for them round robin, and one client leaves a connection for the
/// others: a statement of theirs then waits for none of its statements.
pub(in crate::store) fn shared_permits(connections: usize) -> Arc<FairSemaphore> {
    FairSemaphore::new(connections, connections.saturating_sub(1))
}

impl ReadPool {
    pub(in crate::store) fn new(pool: PgPool, server_state: ServerState) -> Self {
        let options = pool.options();
        Self {
            permits: shared_permits(options.get_max_connections() as usize),
            server_state,
            timeout: options.get_acquire_timeout(),
            handoffs: Mutex::default(),
            pool,
        }
    }

    /// Acquires a connection for the current client, in its turn.
    pub(in crate::store) async fn acquire(&self) -> Result<ReadConnection<'_>, AcquireError> {
        let client = ClientId::current();
        if let Some(permit) = self.permits.try_acquire(&client) {
            return Ok(self.acquire_with(permit).await?);
        }
        let _waiting = WaitingTask::register(self);
        let permit = tokio::time::timeout(self.timeout, self.permits.acquire(client)).await;
        Ok(self.acquire_with(permit.map_err(|_| AcquireError::NoTurn)?).await?)
    }

    async fn acquire_with(&self, permit: FairPermit) -> Result<ReadConnection<'_>, sqlx::Error> {
        let handed_off = self.handoffs().connections.pop();
        let connection = match handed_off {
            Some(session) if session.is_usable() => session,
            handed_off => {
                handed_off.into_iter().for_each(Session::release);
                Session::pooled(self.pool.acquire().await?, &self.server_state)
            }
        };
        Ok(ReadConnection { connection: Some(connection), pool: self, _permit: permit })
    }

    /// Returns the number of connections in use, and of idle ones.
    pub(in crate::store) fn connections(&self) -> (usize, usize) {
        let (size, idle) = (self.pool.size() as usize, self.pool.num_idle());
        (size.saturating_sub(idle), idle)
    }

    /// Closes the pool. Waits until all of its connections are released.
    pub(in crate::store) async fn close(&self) {
        self.pool.close().await;
    }

    fn handoffs(&self) -> MutexGuard<'_, HandoffQueue> {
        self.handoffs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ReadConnection<'_> {
    /// Releases the connection after a result that was read to its end.
    pub(in crate::store) fn hand_off(mut self) {
        let mut handoffs = self.pool.handoffs();
        if handoffs.waiting_tasks > 0 {
            handoffs.connections.extend(self.connection.take());
        }
    }
}

impl Deref for ReadConnection<'_> {
    type Target = Session;

    fn deref(&self) -> &Session {
        self.connection.as_ref().expect("only hand_off takes the connection")
    }
}

impl DerefMut for ReadConnection<'_> {
    fn deref_mut(&mut self) -> &mut Session {
        self.connection.as_mut().expect("only hand_off takes the connection")
    }
}

impl Drop for ReadConnection<'_> {
    fn drop(&mut self) {
        if let Some(session) = self.connection.take() {
            session.release();
        }
    }
}

/// A task that waits for a connection.
struct WaitingTask<'p>(&'p ReadPool);

impl<'p> WaitingTask<'p> {
    fn register(pool: &'p ReadPool) -> Self {
        pool.handoffs().waiting_tasks += 1;
        Self(pool)
    }
}

impl Drop for WaitingTask<'_> {
    fn drop(&mut self) {
        let mut handoffs = self.0.handoffs();
        handoffs.waiting_tasks -= 1;
        let unclaimed =
            if handoffs.waiting_tasks == 0 { std::mem::take(&mut handoffs.connections) } else { Vec::new() };
        drop(handoffs);
        // The tasks for which they were handed off have stopped waiting: the connections return to sqlx's pool.
        unclaimed.into_iter().for_each(Session::release);
    }
}
