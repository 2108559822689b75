//! One subscription: it reads the table while it is behind the ring, and the ring once it has caught up. The next batch of
//! the table is read while the client takes the one before.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use crate::domain::cursor::{Cursor, Epoch};
use crate::domain::event::{Position, StoredEvent};
use crate::domain::filter::EventFilter;
use crate::domain::name::StreamId;
use crate::domain::version::Version;
use crate::mutants;
use crate::shares::client::ClientId;
use crate::shares::limit::Share;
use crate::store::erasures::known::ReadMark;
use crate::store::error::StoreError;
use crate::store::fetch_size::FetchSize;
use crate::store::log::head::LogHead;
use crate::store::log::scan::LogScan;
use crate::store::streams::events::StreamRead;
use crate::store::streams::range::VersionRange;
use crate::subscriptions::feed::{AHEAD_BYTES, Feed, SubscriberKind, SubscriberSlot, TooManySubscribers};
use crate::subscriptions::interests::Interest;
use crate::subscriptions::ring::Found;
use crate::wire::event::write_event;

/// The approximate size of a batch. A slow subscriber holds one batch.
const BATCH_BYTES: usize = 64 * 1024;
/// The pause between two attempts while the database is unavailable.
const RETRY_PAUSE: Duration = Duration::from_millis(250);

/// The start of a subscription.
#[derive(Debug, Clone)]
pub enum StartFrom {
    /// After a position of the log.
    Log { filter: EventFilter, after: Position },
    /// At a version of a stream.
    Stream { stream: StreamId, from: Version },
}

/// The next events of a subscription, in order. They are in the log of this epoch.
#[derive(Debug)]
pub struct Batch {
    pub epoch: Epoch,
    pub events: Vec<EncodedEvent>,
    /// Everything up to this position is delivered; 0 while a stream is read for the first time.
    pub position: Position,
}

/// An event as subscribers receive it.
#[derive(Debug)]
pub struct EncodedEvent {
    pub global_position: Position,
    pub version: Version,
    pub json: Bytes,
}

/// The result of waiting for the next events.
#[derive(Debug)]
pub enum Delivery {
    Batch(Batch),
    /// The deadline has passed.
    Nothing,
    /// No event will follow: the process shuts down, or the log was rewound behind the subscription.
    Ended,
}

/// One subscription to the log or to a stream.
pub struct Subscription {
    feed: Arc<Feed>,
    source: Source,
    filter: EventFilter,
    epoch: Epoch,
    /// Everything up to this position is delivered; `None` while a stream is read for the first time.
    position: Option<Position>,
    /// The highest position that is delivered: above `position` while a stream is read from the table.
    highest: Position,
    /// `position`, for the lag of the feed.
    tracked: Arc<AtomicI64>,
    interest: Interest,
    /// The last step was completed, and found no new event in the ring.
    is_up_to_date: bool,
    /// The number of rewinds of the log that were compared with `position`.
    rewinds: u64,
    client: ClientId,
    /// The permission to read ahead; held while the subscriber is behind the ring.
    read_ahead: Option<Share>,
    /// The next batch, which a task reads from the table. It ends when the handle is dropped.
    table_read: Option<AbortOnDropHandle<Result<TableBatch, StoreError>>>,
    _slot: SubscriberSlot,
}

/// A batch that was read from the table.
struct TableBatch {
    /// The source after the batch.
    source: Source,
    epoch: Epoch,
    events: Vec<EncodedEvent>,
    position: Option<Position>,
    /// The batch has ended because of its size.
    is_full: bool,
    /// The newest erasure when it was read.
    mark: ReadMark,
}

/// The source of events that are not in the ring.
#[derive(Clone)]
enum Source {
    Log(LogScan),
    Stream { stream: StreamId, next: Version },
}

/// The result of one read of the ring or of the table.
enum Step {
    Delivered(Delivery),
    /// The ring has no new event.
    UpToDate,
    /// The tailer has not reached the epoch of the subscription.
    TailerIsBehind,
    /// The state has changed: read again at once.
    ReadAgain,
    /// Read again after a pause.
    ReadAgainLater,
}

impl Subscription {
    /// Starts a subscription. `head` is the head of the log, whose epoch is the epoch of the start position.
    pub fn start(feed: &Arc<Feed>, from: StartFrom, head: &LogHead) -> Result<Self, TooManySubscribers> {
        let slot = SubscriberSlot::acquire(feed, SubscriberKind::EventStream)?;
        let (source, filter, position) = match from {
            StartFrom::Log { filter, after } => {
                let cursor = Cursor { epoch: Some(head.epoch), position: after };
                (Source::Log(LogScan::new(filter.clone(), cursor, feed.limits().scan)), filter, Some(after))
            }
            StartFrom::Stream { stream, from } => {
                let filter = EventFilter {
                    aggregate_types: vec![stream.aggregate_type().to_owned()],
                    aggregate_ids: vec![stream.aggregate_id().to_owned()],
                    ..EventFilter::default()
                };
                (Source::Stream { stream, next: from }, filter, None)
            }
        };
        // The lag of a stream is unknown until it has caught up.
        let tracked = feed.track_position(position.unwrap_or(head.global_position));
        Ok(Self {
            feed: feed.clone(),
            source,
            epoch: head.epoch,
            position,
            highest: position.unwrap_or(0),
            tracked,
            interest: feed.interests.add(&filter),
            filter,
            is_up_to_date: false,
            rewinds: feed.ring().rewinds(),
            client: ClientId::current(),
            read_ahead: None,
            table_read: None,
            _slot: slot,
        })
    }

    /// Returns the next batch, or waits for it until the deadline. A batch without events reports a new position.
    ///
    /// If the database is unavailable, waits and resumes from the same position.
    pub async fn next(&mut self, deadline: Instant) -> Result<Delivery, StoreError> {
        let closing = self.feed.closing.clone();
        loop {
            // A wake-up after this is followed by another step.
            if let Some(first_wanted) = self.interest.clear() {
                self.pass_over(first_wanted - 1);
                self.track();
            }
            // A step may be dropped at any await: it changes nothing before it is complete.
            self.is_up_to_date = false;
            let step = tokio::select! {
                biased;
                () = closing.cancelled() => return Ok(Delivery::Ended),
                step = self.client.clone().scope(self.step()) => step,
                () = tokio::time::sleep_until(deadline) => return Ok(Delivery::Nothing),
            };
            self.is_up_to_date = matches!(step, Ok(Step::UpToDate));
            if self.is_up_to_date {
                // Until it is woken, it is behind no event that it wants.
                self.tracked.store(Position::MAX, Ordering::Relaxed);
            }
            let wake_at = match step {
                Ok(Step::Delivered(delivery)) => return Ok(delivery),
                Ok(Step::ReadAgain) => continue,
                Ok(Step::UpToDate | Step::TailerIsBehind) => deadline,
                // The client's next request gets `epoch_changed` with the position to resume from.
                Err(StoreError::EpochChanged { .. }) => return Ok(Delivery::Ended),
                Ok(Step::ReadAgainLater)
                | Err(StoreError::Unavailable(_) | StoreError::ArchiveUnavailable(_) | StoreError::Behind(_)) => {
                    deadline.min(Instant::now() + RETRY_PAUSE)
                }
                Err(error) => return Err(error),
            };
            tokio::select! {
                () = self.interest.woken() => {}
                () = tokio::time::sleep_until(wake_at) => {}
                () = closing.cancelled() => return Ok(Delivery::Ended),
            }
            if Instant::now() >= deadline {
                return Ok(self.pass_to_tail().unwrap_or(Delivery::Nothing));
            }
        }
    }

    /// Moves past events that did not wake the subscription since it had read the whole ring.
    fn pass_over(&mut self, to: Position) {
        if self.is_up_to_date && self.position.is_some_and(|position| position < to) {
            self.position = Some(to);
            self.highest = self.highest.max(to);
        }
    }

    /// Moves to the tail if the subscription wants no event up to it. Returns its new position as a batch without events.
    fn pass_to_tail(&mut self) -> Option<Delivery> {
        // The tail is read first, because it moves after the subscriptions are woken.
        let tail = *self.feed.tail.borrow();
        if !self.is_up_to_date || self.interest.is_woken() || Some(tail) <= self.position {
            return None;
        }
        self.pass_over(tail);
        Some(self.deliver(self.epoch, Vec::new(), self.position))
    }

    async fn step(&mut self) -> Result<Step, StoreError> {
        let rewinds = self.feed.ring().rewinds();
        if rewinds != self.rewinds {
            // Fails if the log no longer has what was delivered.
            self.feed.primary.log_head_for(self.cursor()).await?;
            (self.rewinds, self.table_read) = (rewinds, None);
        }
        // A stream that was not read yet is read from the table first, in the order of its versions.
        let Some(position) = self.position.filter(|_| self.table_read.is_none()) else {
            return self.read_table().await;
        };
        let found = self.feed.ring().read(position, BATCH_BYTES, self.feed.newest_erasure());
        if !matches!(found, Found::Behind) {
            self.read_ahead = None;
        }
        match found {
            Found::NotStarted => Ok(Step::TailerIsBehind),
            Found::Events { epoch, .. } if epoch < self.epoch => Ok(Step::TailerIsBehind),
            Found::Events { epoch, .. } if epoch > self.epoch => {
                let before = self.epoch;
                self.epoch = self.feed.primary.log_head_for(self.cursor()).await?.epoch;
                Ok(if self.epoch > before { Step::ReadAgain } else { Step::ReadAgainLater })
            }
            Found::Events { to, .. } if to == position => Ok(Step::UpToDate),
            Found::Events { epoch, events, to } => {
                let first = if let Source::Stream { next, .. } = self.source { next } else { 1 };
                let matching =
                    events.iter().filter(|event| event.version >= first && self.filter.matches(&event.facts()));
                let events = matching
                    .map(|event| EncodedEvent {
                        global_position: event.global_position,
                        version: event.version,
                        json: event.json.clone(),
                    })
                    .collect();
                Ok(Step::Delivered(self.deliver(epoch, events, Some(to))))
            }
            Found::Behind if mutants::is(mutants::SKIP_ON_LAG) => {
                self.position = Some(self.feed.ring().cursor().position);
                Ok(Step::ReadAgain)
            }
            Found::Behind => self.read_table().await,
        }
    }

    /// Delivers the next events from the table. While the subscriber is far behind, begins to read the events after them.
    async fn read_table(&mut self) -> Result<Step, StoreError> {
        let read = self.table_read().await;
        self.table_read = None;
        let batch = match read {
            Ok(read) => read?,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => return Err(StoreError::ShuttingDown),
        };
        if batch.mark.is_void() {
            return Ok(Step::ReadAgain);
        }
        let is_unchanged = batch.events.is_empty() && batch.position == self.position;
        if batch.epoch < self.epoch || is_unchanged {
            // The database that was read is behind the one that the tailer follows.
            return Ok(Step::ReadAgainLater);
        }
        self.source = batch.source;
        let delivery = self.deliver(batch.epoch, batch.events, batch.position);
        if batch.is_full && self.read_ahead.is_some() {
            self.table_read();
        }
        Ok(Step::Delivered(delivery))
    }

    /// Returns the task that reads the next events from the table. Starts it if none is running.
    fn table_read(&mut self) -> &mut AbortOnDropHandle<Result<TableBatch, StoreError>> {
        let cursor = self.cursor();
        self.table_read.get_or_insert_with(|| {
            if self.read_ahead.is_none() {
                self.read_ahead = self.feed.try_read_ahead(self.client.clone());
            }
            let bytes_max = if self.read_ahead.is_some() { AHEAD_BYTES } else { BATCH_BYTES };
            let (feed, source, position) = (self.feed.clone(), self.source.clone(), self.position);
            let read = async move { read_batch(&feed, source, position, cursor, bytes_max).await };
            AbortOnDropHandle::new(tokio::spawn(self.client.clone().scope(read)))
        })
    }

    /// Moves the subscription forward.
    fn deliver(&mut self, epoch: Epoch, events: Vec<EncodedEvent>, position: Option<Position>) -> Delivery {
        if let (Source::Stream { next, .. }, Some(last)) = (&mut self.source, events.last()) {
            *next = last.version + 1;
        }
        let last = events.last().map(|event| event.global_position);
        self.highest = self.highest.max(last.unwrap_or(0)).max(position.unwrap_or(0));
        (self.epoch, self.position) = (epoch, position);
        self.track();
        Delivery::Batch(Batch { epoch, events, position: position.unwrap_or(0) })
    }

    /// Reports the position for the lag of the feed.
    fn track(&self) {
        if let Some(position) = self.position {
            self.tracked.store(position, Ordering::Relaxed);
        }
    }

    /// Returns the cursor of everything that is delivered, to check whether it is still part of the log.
    fn cursor(&self) -> Cursor {
        Cursor { epoch: Some(self.epoch), position: self.highest }
    }
}

/// Reads the events after a cursor from the table, up to about `bytes_max` bytes.
async fn read_batch(
    feed: &Feed,
    mut source: Source,
    position: Option<Position>,
    cursor: Cursor,
    bytes_max: usize,
) -> Result<TableBatch, StoreError> {
    let reader = match source {
        Source::Log(_) => feed.readers.for_subscribers(),
        Source::Stream { .. } => feed.primary.reader(),
    };
    let _permit = reader.bulk_read_permit().await;
    let mark = feed.read_mark();
    // The last event of a batch exceeds its size.
    let (mut json, mut ends) = (Vec::with_capacity(bytes_max + bytes_max / 16), Vec::new());
    let deliver = |event: &StoredEvent<'_>| {
        write_event(&mut json, event);
        ends.push((event.global_position, event.version, json.len()));
        if json.len() < bytes_max { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    };
    let (head, position) = match &mut source {
        Source::Log(scan) => {
            scan.advance_to(cursor);
            scan.set_page_bytes(bytes_max);
            let head = reader.read_log(scan, Position::MAX, usize::MAX, deliver).await?;
            (head, Some(scan.after()))
        }
        Source::Stream { stream, next } => {
            // The head of the log is read first: the head of the stream then includes every version up to it.
            let log_head = feed.primary.log_head_for(cursor).await?;
            let left = match feed.primary.stream_head(stream).await? {
                None => None,
                Some(head) => {
                    let range = VersionRange::forward(*next, head.version);
                    let read = StreamRead { stream, head: &head, range, limit: usize::MAX };
                    Some(feed.primary.read_stream(read, &mut FetchSize::of_pages(bytes_max), deliver).await?)
                }
            };
            let is_complete = left.is_none_or(VersionRange::is_empty);
            (log_head, if is_complete { Some(log_head.global_position) } else { position })
        }
    };
    let is_full = json.len() >= bytes_max;
    let events = encoded_events(json.into(), &ends);
    Ok(TableBatch { source, epoch: head.epoch, events, position, is_full, mark })
}

/// Divides the JSON of events, which each end where `ends` says.
fn encoded_events(json: Bytes, ends: &[(Position, Version, usize)]) -> Vec<EncodedEvent> {
    let starts = std::iter::once(0).chain(ends.iter().map(|(_, _, end)| *end));
    let event = |(start, (global_position, version, end)): (usize, &(Position, Version, usize))| EncodedEvent {
        global_position: *global_position,
        version: *version,
        json: json.slice(start..*end),
    };
    starts.zip(ends).map(event).collect()
}
