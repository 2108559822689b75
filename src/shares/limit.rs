//! A limit that clients share: none can take all of it.
//!
//! A client may hold at most as much as remains free. One client alone can hold half of the limit, two can hold a third
//! each, and so on: there is always something left for a client that comes later. This rule is known as dynamic
//! thresholds (Choudhury and Hahne, 1998), and needs no configuration.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::shares::client::ClientId;

/// A limit that clients share.
pub struct FairLimit {
    limit: usize,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    total: usize,
    by_client: HashMap<ClientId, usize>,
}

/// A part of a [`FairLimit`], which is released when it is dropped.
pub struct Share {
    limit: Arc<FairLimit>,
    client: ClientId,
    amount: usize,
}

/// Why a part of a limit was not acquired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// The limit is reached.
    LimitReached,
    /// The client would hold more than remains free.
    ShareExceeded,
}

impl FairLimit {
    /// Creates a limit.
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, held: Mutex::default() })
    }

    /// Returns the limit.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Returns how much of the limit all clients hold together.
    pub fn held(&self) -> usize {
        self.lock().total
    }

    /// Acquires a part of the limit for a client. A client that holds nothing gets what it asks for, if it is free.
    pub fn try_acquire(self: &Arc<Self>, client: ClientId, amount: usize) -> Result<Share, Refused> {
        let mut held = self.lock();
        let total = held.total.saturating_add(amount);
        let free = self.limit.checked_sub(total).ok_or(Refused::LimitReached)?;
        let of_client = held.by_client.get(&client).copied().unwrap_or(0);
        if of_client > 0 && of_client + amount > free && client != ClientId::Service {
            return Err(Refused::ShareExceeded);
        }
        held.total = total;
        *held.by_client.entry(client.clone()).or_default() += amount;
        Ok(Share { limit: self.clone(), client, amount })
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut held = self.limit.lock();
        held.total -= self.amount;
        if let Some(of_client) = held.by_client.get_mut(&self.client) {
            *of_client -= self.amount;
            if *of_client == 0 {
                held.by_client.remove(&self.client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> ClientId {
        ClientId::Key(name.into())
    }

    fn acquire_all(limit: &Arc<FairLimit>, client: &str) -> Vec<Share> {
        std::iter::from_fn(|| limit.try_acquire(key(client), 1).ok()).collect()
    }

    #[test]
    fn each_greedy_client_gets_the_same_share_and_leaves_one_for_the_next() {
        let limit = FairLimit::new(1_000);
        let first = acquire_all(&limit, "first");
        assert_eq!(first.len(), 500);
        let second = acquire_all(&limit, "second");
        assert_eq!(second.len(), 250);
        assert_eq!(limit.try_acquire(key("first"), 1).err(), Some(Refused::ShareExceeded));
        assert!(limit.try_acquire(key("third"), 1).is_ok());
        drop(first);
        // Without the first client, the second one may hold half.
        assert_eq!(acquire_all(&limit, "second").len(), 250);
        drop(second);
        assert_eq!(limit.held(), 0);
        assert!(limit.lock().by_client.is_empty());
    }

    #[test]
    fn a_client_that_holds_nothing_gets_what_is_free() {
        let limit = FairLimit::new(10);
        let large = limit.try_acquire(key("first"), 9).expect("9 of 10 are free");
        assert_eq!(limit.try_acquire(key("second"), 2).err(), Some(Refused::LimitReached));
        let small = limit.try_acquire(key("second"), 1).expect("1 is free");
        drop((large, small));
        assert_eq!(limit.held(), 0);
    }
}
