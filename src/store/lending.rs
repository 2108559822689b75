//! The pool for reads: its connections are lent, each for one short statement at a time.
//!
//! A connection that goes back to sqlx's pool is asked whether it is still well, which is a round trip. While others wait, whoever
//! has read an answer to its end hands the connection to the next of them without that.
//!
//! Invariants:
//! - Only a connection with nothing under way is handed on. After an error, and when a client left in the middle of an answer, it
//!   goes back to the pool, which waits for what is still to come, or closes it.
//! - One is kept for handing on only while somebody waits, so the pool's rules for idle connections hold. Its rule for old ones
//!   does not, as long as somebody waits.
//! - There are as many permits as connections: who has one finds a connection handed on, or one in the pool.

use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sqlx::PgPool;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnection, Postgres};
use tokio::sync::{Semaphore, SemaphorePermit};

pub(super) struct Lending {
    pool: PgPool,
    permits: Semaphore,
    /// How long somebody waits at most.
    timeout: Duration,
    desk: Mutex<Desk>,
}

/// Where connections are handed on.
#[derive(Default)]
struct Desk {
    waiting: usize,
    handed_on: Vec<PoolConnection<Postgres>>,
}

/// A connection that is lent. Dropped, it goes back to the pool.
pub(super) struct Lent<'l> {
    /// Taken only when it is handed on.
    connection: Option<PoolConnection<Postgres>>,
    lending: &'l Lending,
    /// Given back after the connection.
    _permit: SemaphorePermit<'l>,
}

impl Lending {
    pub(super) fn new(pool: PgPool) -> Self {
        let options = pool.options();
        Self {
            permits: Semaphore::new(options.get_max_connections() as usize),
            timeout: options.get_acquire_timeout(),
            desk: Mutex::default(),
            pool,
        }
    }

    pub(super) async fn lend(&self) -> Result<Lent<'_>, sqlx::Error> {
        if let Ok(permit) = self.permits.try_acquire() {
            return self.with(permit).await;
        }
        let wait = async {
            let _waiting = Waiting::at(self);
            let permit = self.permits.acquire().await.map_err(|_| sqlx::Error::PoolClosed)?;
            self.with(permit).await
        };
        tokio::time::timeout(self.timeout, wait).await.unwrap_or(Err(sqlx::Error::PoolTimedOut))
    }

    async fn with<'l>(&'l self, permit: SemaphorePermit<'l>) -> Result<Lent<'l>, sqlx::Error> {
        let handed_on = self.desk().handed_on.pop();
        let connection = match handed_on {
            Some(connection) => connection,
            None => self.pool.acquire().await?,
        };
        Ok(Lent { connection: Some(connection), lending: self, _permit: permit })
    }

    /// Connections in use, and idle.
    pub(super) fn connections(&self) -> (usize, usize) {
        let (size, idle) = (self.pool.size() as usize, self.pool.num_idle());
        (size.saturating_sub(idle), idle)
    }

    /// Closes the pool once its connections are back.
    pub(super) async fn close(&self) {
        self.pool.close().await;
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lent<'_> {
    /// Gives the connection back after an answer that was read to its end.
    pub(super) fn hand_on(mut self) {
        let mut desk = self.lending.desk();
        if desk.waiting > 0 {
            desk.handed_on.extend(self.connection.take());
        }
    }
}

impl Deref for Lent<'_> {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        self.connection.as_ref().expect("it is taken only when it is handed on")
    }
}

impl DerefMut for Lent<'_> {
    fn deref_mut(&mut self) -> &mut PgConnection {
        self.connection.as_mut().expect("it is taken only when it is handed on")
    }
}

/// Somebody waits for a connection.
struct Waiting<'l>(&'l Lending);

impl<'l> Waiting<'l> {
    fn at(lending: &'l Lending) -> Self {
        lending.desk().waiting += 1;
        Self(lending)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut desk = self.0.desk();
        desk.waiting -= 1;
        let left = if desk.waiting == 0 { std::mem::take(&mut desk.handed_on) } else { Vec::new() };
        drop(desk);
        // Whoever it was meant for has left: back to the pool.
        drop(left);
    }
}
