//! The tailer: reads the log as it grows, over a connection of its own.
//!
//! It looks at once when this process has committed an append, and otherwise polls, the less often the longer nothing has
//! happened: other replicas append too, and nothing that they could send would be safer than looking.

use std::ops::ControlFlow;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::Feed;
use super::ring::LiveEvent;
use crate::domain::cursor::Cursor;
use crate::domain::filter::EventFilter;
use crate::store::error::StoreError;
use crate::store::follow::Follower;
use crate::store::log::LogScan;

/// The pause after something has happened, doubled each time that nothing has, up to the second one.
const PAUSE_MIN: Duration = Duration::from_millis(5);
const PAUSE_MAX: Duration = Duration::from_millis(250);
/// The same between two tries to connect.
const RECONNECT_PAUSE_MIN: Duration = Duration::from_millis(50);
const RECONNECT_PAUSE_MAX: Duration = Duration::from_secs(1);
/// What one look reads at most, about.
const LOOK_BYTES: usize = 1024 * 1024;

/// Follows the log until shutdown.
pub async fn run(feed: Arc<Feed>) {
    let mut pause = RECONNECT_PAUSE_MIN;
    let mut away = false;
    while !feed.closing.is_cancelled() {
        match follow(&feed, &mut away).await {
            Ok(()) => return,
            Err(error) => {
                // One line an outage.
                if !away {
                    tracing::warn!(%error, "the tailer lost the database; it connects again");
                    pause = RECONNECT_PAUSE_MIN;
                }
                away = true;
            }
        }
        if feed.closing.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
            return;
        }
        pause = (pause * 2).min(RECONNECT_PAUSE_MAX);
    }
}

/// Follows over one connection until it breaks, or until shutdown.
async fn follow(feed: &Feed, away: &mut bool) -> Result<(), StoreError> {
    let mut follower = Follower::connect(feed.store.clone()).await?;
    let mut pause = PAUSE_MIN;
    loop {
        let (streams, long_polls) = feed.subscribers();
        let begun = feed.ring().has_begun();
        let moved =
            if begun && streams > 0 { look(feed, &mut follower).await? } else { skip(feed, &mut follower).await? };
        if std::mem::take(away) {
            tracing::info!("the tailer follows the log again");
        }
        pause = if moved { PAUSE_MIN } else { (pause * 2).min(PAUSE_MAX) };
        let hurry = streams + long_polls > 0;
        tokio::select! {
            () = feed.closing.cancelled() => return Ok(()),
            () = tokio::time::sleep(if hurry { pause } else { PAUSE_MAX }) => {}
            () = feed.store.committed(), if hurry => {}
            () = feed.wanted.notified() => pause = PAUSE_MIN,
        }
    }
}

/// Reads what is new into the ring; whether there was anything.
async fn look(feed: &Feed, follower: &mut Follower) -> Result<bool, StoreError> {
    let from = feed.ring().cursor();
    let mut scan = LogScan::new(EventFilter::default(), from, feed.limits.scan);
    let mut moved = false;
    loop {
        let mut events = Vec::new();
        let mut bytes = 0;
        let before = scan.after();
        let read = follower.read(&mut scan, |event| {
            let json = feed.json(event);
            bytes += json.len();
            events.push(LiveEvent::new(event, json));
            if bytes < LOOK_BYTES { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        let head = match read.await {
            Ok(head) => head,
            // Those who were beyond are told when they ask where to go on.
            Err(StoreError::EpochChanged { epoch, kept }) => {
                tracing::warn!(epoch, kept, "the log is in a new epoch, and the end of the last one is gone");
                feed.stand_at(epoch, kept);
                return Ok(true);
            }
            Err(error) => return Err(error),
        };
        if head.global_position < before {
            tracing::error!(position = before, head = head.global_position, "the log is shorter than it was");
            feed.stand_at(head.epoch, head.global_position);
            return Ok(true);
        }
        if scan.after() == before {
            return Ok(moved);
        }
        moved = true;
        feed.ring.write().unwrap_or_else(PoisonError::into_inner).extend(head.epoch, events, scan.after());
        feed.tail.send_replace(scan.after());
        if scan.after() >= head.global_position {
            return Ok(true);
        }
    }
}

/// Notes where the log stands, without reading it: nobody wants the events. Whether it has moved.
async fn skip(feed: &Feed, follower: &mut Follower) -> Result<bool, StoreError> {
    let head = follower.head().await?;
    let stands = feed.ring().cursor();
    let moved = stands != Cursor { epoch: Some(head.epoch), position: head.global_position };
    if moved {
        feed.stand_at(head.epoch, head.global_position);
    }
    Ok(moved)
}
