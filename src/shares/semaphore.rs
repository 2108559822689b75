//! A semaphore that serves waiting clients round robin, and on which one client holds a limited number of permits.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use crate::shares::client::ClientId;
use crate::shares::queue::FairQueue;

/// A semaphore that clients share.
pub struct FairSemaphore {
    /// The largest number of permits that one client holds.
    per_client: usize,
    state: Mutex<State>,
}

struct State {
    available: usize,
    held: HashMap<ClientId, usize>,
    waiting: FairQueue<ClientId, oneshot::Sender<FairPermit>>,
}

/// A permit, which is released when it is dropped.
pub struct FairPermit {
    /// `None` after the release.
    semaphore: Option<Arc<FairSemaphore>>,
    client: ClientId,
}

impl FairSemaphore {
    /// Creates a semaphore. One client holds at most `per_client` of the permits; the service itself has no limit.
    pub fn new(permits: usize, per_client: usize) -> Arc<Self> {
        let state = State { available: permits, held: HashMap::new(), waiting: FairQueue::new(1) };
        Arc::new(Self { per_client: per_client.max(1), state: Mutex::new(state) })
    }

    /// Acquires a permit if one is available to the client.
    pub fn try_acquire(self: &Arc<Self>, client: &ClientId) -> Option<FairPermit> {
        let mut state = self.lock();
        if state.available == 0 || !self.may_acquire(&state.held, client) {
            return None;
        }
        Some(self.grant(&mut state, client.clone()))
    }

    /// Acquires a permit, in the client's turn.
    pub async fn acquire(self: &Arc<Self>, client: ClientId) -> FairPermit {
        let receiver = {
            let mut state = self.lock();
            if state.available > 0 && self.may_acquire(&state.held, &client) {
                return self.grant(&mut state, client);
            }
            let (sender, receiver) = oneshot::channel();
            state.waiting.push(client, sender, 1);
            receiver
        };
        receiver.await.expect("the queue is part of the semaphore, which this call borrows")
    }

    fn may_acquire(&self, held: &HashMap<ClientId, usize>, client: &ClientId) -> bool {
        *client == ClientId::Service || held.get(client).is_none_or(|held| *held < self.per_client)
    }

    fn grant(self: &Arc<Self>, state: &mut State, client: ClientId) -> FairPermit {
        state.available -= 1;
        *state.held.entry(client.clone()).or_default() += 1;
        FairPermit { semaphore: Some(self.clone()), client }
    }

    /// Takes a permit back, and gives it to the next client that waits.
    fn release(self: &Arc<Self>, client: &ClientId) {
        let mut client = client.clone();
        loop {
            let mut state = self.lock();
            state.available += 1;
            if let Some(held) = state.held.get_mut(&client) {
                *held -= 1;
                if *held == 0 {
                    state.held.remove(&client);
                }
            }
            let State { held, waiting, .. } = &mut *state;
            let Some((next, sender)) = waiting.pop_of(|client| self.may_acquire(held, client)) else { return };
            let permit = self.grant(&mut state, next);
            drop(state);
            match sender.send(permit) {
                Ok(()) => return,
                // The task has stopped waiting.
                Err(mut unclaimed) => {
                    unclaimed.semaphore = None;
                    client = unclaimed.client.clone();
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for FairPermit {
    fn drop(&mut self) {
        if let Some(semaphore) = self.semaphore.take() {
            semaphore.release(&self.client);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn key(name: &str) -> ClientId {
        ClientId::Key(name.into())
    }

    #[test]
    fn a_client_holds_at_most_its_share_and_waits_for_its_own_permits() {
        let semaphore = FairSemaphore::new(4, 3);
        let mut greedy: Vec<_> = std::iter::from_fn(|| semaphore.try_acquire(&key("greedy"))).collect();
        assert_eq!(greedy.len(), 3);
        let waiting = semaphore.acquire(key("greedy"));
        let mut waiting = std::pin::pin!(waiting);
        assert!(waiting.as_mut().now_or_never().is_none());
        let other = semaphore.try_acquire(&key("other")).expect("one permit is left");
        drop(other);
        assert!(waiting.as_mut().now_or_never().is_none(), "the permit that is free is beyond its share");
        greedy.pop();
        assert!(waiting.now_or_never().is_some());
        assert_eq!(semaphore.lock().available, 2);
    }

    #[test]
    fn waiting_clients_are_served_round_robin_and_abandoned_waits_are_passed_over() {
        let semaphore = FairSemaphore::new(1, 1);
        let held = semaphore.try_acquire(&key("first")).expect("a permit");
        let mut greedy: Vec<_> = (0..3).map(|_| Box::pin(semaphore.acquire(key("greedy")))).collect();
        let mut modest = Box::pin(semaphore.acquire(key("modest")));
        assert!(greedy.iter_mut().all(|wait| wait.as_mut().now_or_never().is_none()));
        assert!(modest.as_mut().now_or_never().is_none());
        drop(greedy.remove(0));
        drop(held);
        let second = modest.now_or_never().expect("the first wait was abandoned, and the other client has its turn");
        assert!(greedy[0].as_mut().now_or_never().is_none());
        drop(second);
        drop(greedy[0].as_mut().now_or_never().expect("the first client has its turn again"));
        drop(greedy);
        assert_eq!(semaphore.lock().available, 1);
        assert!(semaphore.lock().held.is_empty());
    }

    #[test]
    fn a_permit_that_was_granted_to_an_abandoned_wait_is_not_lost() {
        let semaphore = FairSemaphore::new(1, 1);
        let held = semaphore.try_acquire(&key("a")).expect("a permit");
        let mut wait = Box::pin(semaphore.acquire(key("b")));
        assert!(wait.as_mut().now_or_never().is_none());
        drop(held);
        // The permit is in the channel, and its receiver is dropped.
        drop(wait);
        assert!(semaphore.try_acquire(&key("c")).is_some());
    }
}
