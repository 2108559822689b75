//! The tailer: reads the log as it grows, over a connection of its own.
//!
//! It reads at once when this process has committed an append. Otherwise it polls, because other processes append, too,
//! and a notification from them could be lost. The pause between two polls grows while there are no new events.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use crate::domain::cursor::Cursor;
use crate::domain::filter::EventFilter;
use crate::store::error::StoreError;
use crate::store::log::follow::Follower;
use crate::store::log::scan::LogScan;
use crate::subscriptions::feed::Feed;
use crate::subscriptions::ring::LiveEvent;

/// The pause after new events, doubled after each poll without events, up to the maximum.
const PAUSE_MIN: Duration = Duration::from_millis(5);
const PAUSE_MAX: Duration = Duration::from_millis(250);
/// The pause between two attempts to reconnect, doubled each time up to the maximum.
const RECONNECT_PAUSE_MIN: Duration = Duration::from_millis(50);
const RECONNECT_PAUSE_MAX: Duration = Duration::from_secs(1);
/// The approximate number of bytes that one poll reads.
const POLL_BYTES: usize = 1024 * 1024;

/// Follows the log until shutdown.
pub async fn run(feed: Arc<Feed>) {
    let mut pause = RECONNECT_PAUSE_MIN;
    let mut is_disconnected = false;
    while !feed.closing.is_cancelled() {
        match follow(&feed, &mut is_disconnected).await {
            Ok(()) => return,
            Err(error) => {
                // One line for each outage.
                if !is_disconnected {
                    tracing::warn!(%error, "the tailer lost its connection to the database; reconnecting");
                    pause = RECONNECT_PAUSE_MIN;
                }
                is_disconnected = true;
            }
        }
        if feed.closing.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
            return;
        }
        pause = (pause * 2).min(RECONNECT_PAUSE_MAX);
    }
}

/// Follows over one connection until it fails, or until shutdown.
async fn follow(feed: &Feed, is_disconnected: &mut bool) -> Result<(), StoreError> {
    let mut follower = Follower::connect(feed.primary.reader()).await?;
    let mut pause = PAUSE_MIN;
    loop {
        let (event_streams, long_polls) = feed.subscribers();
        let claims = feed.waiting_claims();
        let has_started = feed.ring().has_started();
        let has_moved = if has_started && event_streams + claims > 0 {
            read_events(feed, &mut follower).await?
        } else {
            read_head(feed, &mut follower).await?
        };
        if std::mem::take(is_disconnected) {
            tracing::info!("the tailer has reconnected to the database");
        }
        pause = if has_moved { PAUSE_MIN } else { (pause * 2).min(PAUSE_MAX) };
        let has_subscribers = event_streams + long_polls + claims > 0;
        tokio::select! {
            () = feed.closing.cancelled() => return Ok(()),
            () = tokio::time::sleep(if has_subscribers { pause } else { PAUSE_MAX }) => {}
            () = feed.primary.wait_for_commit(), if has_subscribers => {}
            () = feed.subscriber_started.notified() => pause = PAUSE_MIN,
        }
    }
}

/// Reads new events into the ring. Returns whether the log has moved.
async fn read_events(feed: &Feed, follower: &mut Follower) -> Result<bool, StoreError> {
    let from = feed.ring().cursor();
    let mut scan = LogScan::new(EventFilter::default(), from, feed.limits().scan);
    let mut has_moved = false;
    loop {
        let mut events = Vec::new();
        let mut bytes = 0;
        let before = scan.after();
        let erasure = feed.newest_erasure();
        let read = follower.read(&mut scan, |event| {
            let live = LiveEvent::new(event);
            bytes += live.json.len();
            events.push(live);
            if bytes < POLL_BYTES { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        let head = match read.await {
            Ok(head) => head,
            // A subscriber beyond the last common position gets `epoch_changed` with its next request.
            Err(StoreError::EpochChanged { epoch, last_common_position }) => {
                if from.epoch == Some(epoch) {
                    let advice = "run `annals epoch --begin REASON`";
                    tracing::error!(epoch, head = last_common_position, advice, "the log is shorter than before");
                } else {
                    tracing::warn!(epoch, last_common_position, "a new epoch has begun, and the last events were lost");
                }
                feed.reset_to(epoch, last_common_position);
                return Ok(true);
            }
            Err(error) => return Err(error),
        };
        if scan.after() == before {
            if from.epoch != Some(head.epoch) && !has_moved {
                // An epoch has begun, and has no event yet. Subscriptions of the epoch wait for the tailer.
                feed.extend(head.epoch, Vec::new(), before, erasure);
                has_moved = true;
            }
            return Ok(has_moved);
        }
        has_moved = true;
        feed.extend(head.epoch, events, scan.after(), erasure);
        if scan.after() >= head.global_position {
            return Ok(true);
        }
    }
}

/// Reads only the head of the log, because no event stream needs the events. Returns whether the log has moved.
async fn read_head(feed: &Feed, follower: &mut Follower) -> Result<bool, StoreError> {
    let head = follower.head().await?;
    let has_moved = feed.ring().cursor() != Cursor { epoch: Some(head.epoch), position: head.global_position };
    if has_moved {
        feed.reset_to(head.epoch, head.global_position);
    }
    Ok(has_moved)
}
