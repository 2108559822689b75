//! One subscriber's way along the log: from the table while it is behind, from the ring once it has caught up.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::Instant;

use super::ring::Found;
use super::{Feed, Seat, TooManySubscribers};
use crate::domain::cursor::{Cursor, Epoch};
use crate::domain::event::Position;
use crate::domain::filter::EventFilter;
use crate::domain::name::StreamId;
use crate::domain::version::Version;
use crate::mutants;
use crate::store::StoredEvent;
use crate::store::error::StoreError;
use crate::store::log::{LogHead, LogScan};
use crate::store::read::{Direction, Pace, VersionRange};

/// What a batch holds at most, about; a slow subscriber holds one.
const BATCH_BYTES: usize = 64 * 1024;
/// Between two tries while the database is away.
const RETRY_PAUSE: Duration = Duration::from_millis(250);

/// Where a subscription begins.
#[derive(Debug, Clone)]
pub enum Origin {
    /// After a position of the log.
    Log { filter: EventFilter, after: Position },
    /// At a version of a stream.
    Stream { stream: StreamId, from: Version },
}

/// The next events of a subscription, in order.
#[derive(Debug)]
pub struct Batch {
    pub epoch: Epoch,
    pub events: Vec<Delivered>,
    /// Everything up to here was looked at.
    pub position: Position,
}

/// An event on its way to a subscriber.
#[derive(Debug)]
pub struct Delivered {
    pub global_position: Position,
    pub version: Version,
    pub json: Bytes,
}

/// What became of waiting for the next events.
#[derive(Debug)]
pub enum Delivery {
    Batch(Batch),
    /// The time is up.
    Nothing,
    /// Nothing will follow: the process shuts down, or the log is no longer the one that was followed.
    Ended,
}

pub struct Subscription {
    feed: Arc<Feed>,
    source: Source,
    filter: EventFilter,
    epoch: Epoch,
    /// Everything up to here was handed out.
    position: Position,
    /// The highest position that was handed out: beyond `position` while a stream is being caught up with.
    highest: Position,
    told: Arc<AtomicI64>,
    tail: watch::Receiver<Position>,
    _seat: Seat,
}

/// Where events come from that are not in the ring.
#[derive(Clone)]
enum Source {
    Log(LogScan),
    Stream { stream: StreamId, next: Version },
}

impl Feed {
    /// Begins to follow. `head` is where the log stands: the epoch in which the origin is meant.
    pub fn subscribe(self: &Arc<Self>, origin: Origin, head: &LogHead) -> Result<Subscription, TooManySubscribers> {
        let seat = Seat::take(self, |feed| &feed.streams)?;
        let (source, filter, position) = match origin {
            Origin::Log { filter, after } => {
                let cursor = Cursor { epoch: Some(head.epoch), position: after };
                (Source::Log(LogScan::new(filter.clone(), cursor, self.limits.scan)), filter, after)
            }
            Origin::Stream { stream, from } => {
                let filter = EventFilter {
                    aggregate_types: vec![stream.aggregate_type().to_owned()],
                    aggregate_ids: vec![stream.aggregate_id().to_owned()],
                    ..EventFilter::default()
                };
                // Before everything: the versions are read from the table first.
                (Source::Stream { stream, next: from }, filter, -1)
            }
        };
        // How far a stream is behind is not known before it has caught up.
        let told = Arc::new(AtomicI64::new(if position < 0 { head.global_position } else { position }));
        let mut positions = self.positions.lock().unwrap_or_else(PoisonError::into_inner);
        positions.retain(|position| position.strong_count() > 0);
        positions.push(Arc::downgrade(&told));
        drop(positions);
        let (epoch, tail) = (head.epoch, self.tail.subscribe());
        let highest = position;
        Ok(Subscription { feed: self.clone(), source, filter, epoch, position, highest, told, tail, _seat: seat })
    }
}

/// What one look at the ring, or one read of the table, came to.
enum Step {
    Delivered(Delivery),
    /// There is nothing new.
    UpToDate,
    /// Something has changed that makes another look worth while, now.
    Again,
    /// The same, after a pause.
    Rest,
}

impl Subscription {
    /// The next batch, which may be without events if only the position has moved; waits for it at most until then.
    ///
    /// While the database is away it waits, too: who follows goes on where it stands when the database is back.
    pub async fn next(&mut self, until: Instant) -> Result<Delivery, StoreError> {
        let closing = self.feed.closing.clone();
        loop {
            self.tail.mark_unchanged();
            // A step may be dropped at any await: nothing is noted before it is complete.
            let step = tokio::select! {
                biased;
                () = closing.cancelled() => return Ok(Delivery::Ended),
                step = self.step() => step,
                () = tokio::time::sleep_until(until) => return Ok(Delivery::Nothing),
            };
            let wait_at_most = match step {
                Ok(Step::Delivered(delivery)) => return Ok(delivery),
                Ok(Step::Again) => continue,
                Ok(Step::UpToDate) => until,
                // Those who were beyond the point of change: their next request is told where to go on.
                Err(StoreError::EpochChanged { .. }) => return Ok(Delivery::Ended),
                Ok(Step::Rest) | Err(StoreError::Unavailable(_) | StoreError::ArchiveUnavailable(_)) => {
                    until.min(Instant::now() + RETRY_PAUSE)
                }
                Err(error) => return Err(error),
            };
            tokio::select! {
                changed = self.tail.changed() => changed.map_err(|_| StoreError::ShuttingDown)?,
                () = tokio::time::sleep_until(wait_at_most) => {}
                () = closing.cancelled() => return Ok(Delivery::Ended),
            }
            if Instant::now() >= until {
                return Ok(Delivery::Nothing);
            }
        }
    }

    async fn step(&mut self) -> Result<Step, StoreError> {
        let found = self.feed.ring().read(self.position, BATCH_BYTES);
        match found {
            Found::NotBegun => Ok(Step::UpToDate),
            // The tailer has not noticed yet what this subscriber was told at its beginning.
            Found::Events { epoch, .. } if epoch < self.epoch => Ok(Step::UpToDate),
            Found::Events { epoch, .. } if epoch > self.epoch => {
                let known = self.epoch;
                self.epoch = self.feed.store.log_head_for(self.cursor()).await?.epoch;
                Ok(if self.epoch > known { Step::Again } else { Step::Rest })
            }
            Found::Events { to, .. } if to == self.position => Ok(Step::UpToDate),
            Found::Events { epoch, events, to } => {
                let first = if let Source::Stream { next, .. } = self.source { next } else { 1 };
                let wanted =
                    events.iter().filter(|event| event.version >= first && self.filter.matches(&event.facts()));
                let events = wanted
                    .map(|event| Delivered {
                        global_position: event.global_position,
                        version: event.version,
                        json: event.json.clone(),
                    })
                    .collect();
                Ok(Step::Delivered(self.hand_out(epoch, events, to)))
            }
            Found::Behind if mutants::is(mutants::SKIP_ON_LAG) => {
                self.position = self.feed.ring().cursor().position;
                Ok(Step::Again)
            }
            Found::Behind => self.read_table().await,
        }
    }

    /// The next events from the table. Nothing is noted before all of it is read: it may be dropped in between.
    async fn read_table(&mut self) -> Result<Step, StoreError> {
        let feed = self.feed.clone();
        let _few = match self.source {
            Source::Log(_) => feed.reads.bulk().await,
            Source::Stream { .. } => feed.store.bulk().await,
        };
        let mut events = Vec::new();
        let mut bytes = 0;
        let take = |event: &StoredEvent<'_>| {
            let json = feed.json(event);
            bytes += json.len();
            let (global_position, version) = (event.global_position, event.version);
            events.push(Delivered { global_position, version, json: json.into() });
            if bytes < BATCH_BYTES { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        };
        let store = self.feed.store.clone();
        let mut source = self.source.clone();
        let (head, position) = match &mut source {
            Source::Log(scan) => {
                scan.moved_to(self.cursor());
                let head = self.feed.reads.read_log(scan, Position::MAX, usize::MAX, take).await?;
                (head, scan.after())
            }
            Source::Stream { stream, next } => {
                // The head of the log first: up to it, the stream's head knows every version.
                let log_head = store.log_head_for(self.cursor()).await?;
                let left = match store.stream_head(stream).await? {
                    None => None,
                    Some(head) => {
                        let range = VersionRange { from: *next, to: head.version, direction: Direction::Forward };
                        let pace = &mut Pace::default();
                        Some(store.read_stream(stream, &head, range, usize::MAX, pace, take).await?)
                    }
                };
                let complete = left.is_none_or(VersionRange::is_empty);
                (log_head, if complete { log_head.global_position } else { self.position })
            }
        };
        let nothing_new = events.is_empty() && position == self.position;
        if head.epoch < self.epoch || nothing_new {
            // The database that was asked is behind the one that the tailer follows.
            return Ok(Step::Rest);
        }
        self.source = source;
        Ok(Step::Delivered(self.hand_out(head.epoch, events, position)))
    }

    fn hand_out(&mut self, epoch: Epoch, events: Vec<Delivered>, position: Position) -> Delivery {
        if let (Source::Stream { next, .. }, Some(last)) = (&mut self.source, events.last()) {
            *next = last.version + 1;
        }
        self.highest = events.last().map_or(position, |last| last.global_position.max(position)).max(self.highest);
        (self.epoch, self.position) = (epoch, position);
        if position >= 0 {
            self.told.store(position, Ordering::Relaxed);
        }
        Delivery::Batch(Batch { epoch, events, position: position.max(0) })
    }

    /// What was handed out, for the question whether it is still part of the log.
    fn cursor(&self) -> Cursor {
        Cursor { epoch: Some(self.epoch), position: self.highest.max(0) }
    }
}
