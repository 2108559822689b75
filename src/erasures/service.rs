//! Erases the content of a request, and announces erasures.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::Mutex;

use crate::domain::append::{Append, AppendRequest, Outcome, REQUEST_STREAMS_MAX};
use crate::domain::derived_id::DerivedIds;
use crate::domain::erasure::{ERASED_EVENT_TYPE, ErasureNo};
use crate::domain::event::NewEvent;
use crate::domain::name::StreamId;
use crate::domain::version::ExpectedVersion;
use crate::erasures::error::ErasureError;
use crate::erasures::request::{ErasureRequest, NamedEvents};
use crate::metrics::Metrics;
use crate::mutants;
use crate::store::append::error::AppendError;
use crate::store::append::queue::AppendQueue;
use crate::store::erasures::erase::{Announced, ErasableEvent, NewErasure};
use crate::store::erasures::known::GRACE;
use crate::store::erasures::receipts::{ErasedStream, Erasure, ErasureMonth};
use crate::store::error::StoreError;
use crate::store::primary::Primary;

/// The erasures of a process.
pub struct Erasures {
    primary: Arc<Primary>,
    queue: AppendQueue,
    derived_ids: DerivedIds,
    metrics: Arc<Metrics>,
    /// Held while erasures are announced, so that a job and a request do not append the same events.
    announcing: Mutex<()>,
}

/// The result of a request.
#[derive(Debug)]
pub enum ErasureResult {
    /// This request has erased content.
    Erased(Erasure),
    /// All of it was erased before: the newest erasure that covers it; `None` if no event has the named content.
    Before(Option<Erasure>),
}

/// What a request would erase.
#[derive(Debug, Default)]
pub struct ErasurePreview {
    pub events: usize,
    pub streams: usize,
    pub snapshots: i64,
    pub months: Vec<ErasureMonth>,
}

impl Erasures {
    /// Creates the erasures of a process.
    pub fn new(primary: Arc<Primary>, queue: AppendQueue, derived_ids: DerivedIds, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self { primary, queue, derived_ids, metrics, announcing: Mutex::default() })
    }

    /// Returns what a request would erase, and erases nothing.
    pub async fn preview(
        &self,
        request: &ErasureRequest,
        may_erase: impl Fn(&str) -> bool + Send + Sync,
    ) -> Result<ErasurePreview, ErasureError> {
        let events = NamedEvents::find(&self.primary, request, may_erase).await?.with_content();
        let streams: BTreeSet<_> = events.iter().map(|event| (&event.aggregate_type, &event.aggregate_id)).collect();
        let times: Vec<_> = events.iter().map(|event| event.occurred_at).collect();
        Ok(ErasurePreview {
            events: events.len(),
            streams: streams.len(),
            snapshots: self.primary.count_snapshots(streams.into_iter()).await?,
            months: self.primary.months_of(&times).await?,
        })
    }

    /// Erases the content that a request names. When this returns, it is hidden and announced. The caller cannot cancel
    /// an erasure that has begun.
    pub async fn erase(
        self: &Arc<Self>,
        request: ErasureRequest,
        may_erase: impl Fn(&str) -> bool + Send + Sync,
    ) -> Result<ErasureResult, ErasureError> {
        let named = NamedEvents::find(&self.primary, &request, may_erase).await?;
        let events = named.with_content();
        let content = request.content.clone();
        let erased = if events.is_empty() {
            None
        } else {
            let this = self.clone();
            let erasing = tokio::spawn(async move { this.erase_events(&request, &events).await });
            erasing.await.unwrap_or(Err(StoreError::ShuttingDown.into()))?
        };
        if let Some(erasure) = erased {
            return Ok(ErasureResult::Erased(self.read(erasure).await?));
        }
        let positions: Vec<_> = named.positions.into_iter().collect();
        let Some(before) = self.primary.erasure_of_events(&positions, &content).await? else {
            return Ok(ErasureResult::Before(None));
        };
        // Another request may not have announced it yet.
        self.announce(before).await?;
        Ok(ErasureResult::Before(Some(self.read(before).await?)))
    }

    async fn erase_events(
        &self,
        request: &ErasureRequest,
        events: &[ErasableEvent],
    ) -> Result<Option<ErasureNo>, ErasureError> {
        if mutants::is(mutants::ANNOUNCED_FIRST) {
            self.announce_too_early(events).await;
        }
        let new = NewErasure {
            reason: &request.reason,
            request: &request.named,
            requested_by: request.requested_by.as_deref(),
            content: &request.content,
            exported: None,
            events,
        };
        let Some(erasure) = self.primary.erase(new).await? else { return Ok(None) };
        self.metrics.erasures.inc();
        self.metrics.erased_events.inc_by(events.len() as u64);
        self.announce(erasure).await?;
        Ok(Some(erasure))
    }

    async fn read(&self, erasure: ErasureNo) -> Result<Erasure, StoreError> {
        let missing = || StoreError::unreadable(format!("erasure {erasure} is missing"));
        self.primary.erasure(erasure).await?.ok_or_else(missing)
    }

    /// Announces the erasures of which no announcement is recorded: their process ended too early.
    pub async fn announce_all(&self) -> Result<(), ErasureError> {
        let mut failed = None;
        for erasure in self.primary.erasures_not_announced().await? {
            if let Err(error) = self.announce(erasure).await {
                failed.get_or_insert(error);
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// Appends the `$erased` events of an erasure, unless that is recorded.
    async fn announce(&self, erasure: ErasureNo) -> Result<(), ErasureError> {
        if self.read(erasure).await?.announced_position.is_some() {
            return Ok(());
        }
        // Responses that were read before the erasure are completed or aborted within this time.
        tokio::time::sleep(GRACE).await;
        let _announcing = self.announcing.lock().await;
        if self.read(erasure).await?.announced_position.is_some() {
            return Ok(());
        }
        let streams = self.primary.erased_streams(erasure).await?;
        let mut announced = Vec::with_capacity(streams.len());
        for streams in streams.chunks(REQUEST_STREAMS_MAX) {
            let appends = streams.iter().map(|stream| self.announcement(erasure, stream)).collect();
            let outcome = self.queue.submit(Arc::new(AppendRequest { appends })).await;
            let places = match outcome.map_err(ErasureError::NotAnnounced)? {
                Outcome::Written(places) | Outcome::Replayed(places) => places,
                refused => {
                    let what = format!("the $erased events of erasure {erasure} were refused: {refused:?}");
                    return Err(StoreError::unreadable(what).into());
                }
            };
            for (stream, recorded) in streams.iter().zip(places.appends) {
                announced.extend(recorded.into_iter().map(|event| Announced {
                    stream: stream.stream.clone(),
                    version: event.version,
                    global_position: event.global_position,
                }));
            }
        }
        Ok(self.primary.record_announcement(erasure, &announced).await?)
    }

    /// Returns the append of the `$erased` event of a stream. It is the same each time.
    fn announcement(&self, erasure: ErasureNo, erased: &ErasedStream) -> Append {
        let ErasedStream { stream, versions, members } = erased;
        let event_data = format!(r#"{{"erasure": {erasure}, "versions": {versions}, "members": {members}}}"#);
        let event = NewEvent {
            event_id: self.derived_ids.from_erasure(stream, erasure),
            event_type: ERASED_EVENT_TYPE.to_owned(),
            event_data: event_data.into(),
            metadata: None,
            correlation_id: None,
            causation_id: None,
        };
        Append { stream: stream.clone(), expected: ExpectedVersion::Any, events: vec![event] }
    }

    /// A broken variant, which a test must detect.
    async fn announce_too_early(&self, events: &[ErasableEvent]) {
        let next = self.primary.erasures().newest() + 1;
        for event in events {
            let stream = StreamId::parse(event.aggregate_type.clone(), event.aggregate_id.clone());
            let stream = stream.expect("the stream of a stored event");
            let versions = format!("[[{0}, {0}]]", event.version);
            let append = self.announcement(next, &ErasedStream { stream, versions, members: "null".to_owned() });
            let submitted: Result<_, AppendError> =
                self.queue.submit(Arc::new(AppendRequest { appends: vec![append] })).await;
            drop(submitted);
        }
        tokio::time::sleep(GRACE * 5).await;
    }
}
