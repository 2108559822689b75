//! A long poll: a request for a page that waits for new events.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::domain::event::Position;
use crate::subscriptions::feed::{Feed, SubscriberKind, SubscriberSlot, TooManySubscribers};

/// The pause after events that did not match, doubled each time up to the maximum.
const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_millis(250);

/// A request that waits for new events.
pub struct LongPoll {
    slot: SubscriberSlot,
    pause: Duration,
}

impl LongPoll {
    /// Acquires a slot for the request.
    pub fn start(feed: &Arc<Feed>) -> Result<Self, TooManySubscribers> {
        Ok(Self { slot: SubscriberSlot::acquire(feed, SubscriberKind::LongPoll)?, pause: PAUSE_MIN })
    }

    /// Waits until the log has an event after `position`, the deadline passes, or the process shuts down. Returns
    /// whether the log has such an event.
    pub async fn wait(&mut self, position: Position, deadline: Instant) -> bool {
        let feed = &self.slot.feed;
        let mut tail = feed.tail.subscribe();
        tokio::select! {
            found = tail.wait_for(|tail| *tail > position) => found.is_ok(),
            () = tokio::time::sleep_until(deadline) => false,
            () = feed.closing.cancelled() => false,
        }
    }

    /// Pauses after new events that did not match the request, before the next read.
    pub async fn pause(&mut self, deadline: Instant) {
        tokio::time::sleep_until(deadline.min(Instant::now() + self.pause)).await;
        self.pause = (self.pause * 2).min(PAUSE_MAX);
    }
}
