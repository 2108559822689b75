//! What a request names, and the events that have the named content.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use uuid::Uuid;

use crate::domain::erasure::{ERASED_EVENT_TYPE, ERASED_EVENTS_MAX, ErasedContent};
use crate::domain::event::{Position, StoredEvent};
use crate::domain::name::StreamId;
use crate::domain::version::Version;
use crate::erasures::error::ErasureError;
use crate::store::erasures::erase::ErasableEvent;
use crate::store::fetch_size::FetchSize;
use crate::store::primary::Primary;
use crate::store::streams::events::StreamRead;
use crate::store::streams::range::VersionRange;

/// The versions of a stream, both bounds included.
#[derive(Debug, Clone)]
pub struct NamedStream {
    pub stream: StreamId,
    pub from: Version,
    /// Versions above the head are ignored.
    pub to: Version,
}

/// A request to erase content.
#[derive(Debug, Clone)]
pub struct ErasureRequest {
    pub reason: String,
    pub streams: Vec<NamedStream>,
    pub event_ids: Vec<Uuid>,
    pub content: ErasedContent,
    /// What is named, as JSON.
    pub named: String,
    /// The id of the API key; `None` if keys are not required.
    pub requested_by: Option<String>,
}

/// The events that a request names.
#[derive(Debug, Default)]
pub(super) struct NamedEvents {
    /// All of them, `$erased` events excepted.
    pub(super) positions: BTreeSet<Position>,
    /// Those that have the named content.
    with_content: BTreeMap<Position, ErasableEvent>,
    /// Their number, which may exceed the limit of those that are listed.
    count: usize,
}

/// An event that was found by its id.
struct FoundById {
    event: ErasableEvent,
    is_announcement: bool,
    has_content: bool,
}

impl NamedEvents {
    /// Finds the events of a request. `may_erase` tells whether the caller may erase events of an aggregate type.
    pub(super) async fn find(
        primary: &Primary,
        request: &ErasureRequest,
        may_erase: impl Fn(&str) -> bool + Send + Sync,
    ) -> Result<Self, ErasureError> {
        let mut named = Self::default();
        let found = find_by_ids(primary, request).await?;
        if found.iter().flatten().any(|found| !may_erase(&found.event.aggregate_type)) {
            return Err(ErasureError::Forbidden);
        }
        for (index, (found, id)) in found.into_iter().zip(&request.event_ids).enumerate() {
            let found = found.ok_or(ErasureError::EventNotFound(*id))?;
            if found.is_announcement {
                return Err(ErasureError::Announcement(index));
            }
            named.add(found.event, found.has_content);
        }
        for stream in &request.streams {
            named.add_stream(primary, stream, &request.content).await?;
        }
        if named.count > ERASED_EVENTS_MAX {
            return Err(ErasureError::TooLarge(named.count));
        }
        Ok(named)
    }

    /// Returns the events that have the named content, in the order of the log.
    pub(super) fn with_content(&self) -> Vec<ErasableEvent> {
        self.with_content.values().cloned().collect()
    }

    fn add(&mut self, event: ErasableEvent, has_content: bool) {
        if self.positions.insert(event.global_position) && has_content {
            self.count += 1;
            if self.count <= ERASED_EVENTS_MAX {
                self.with_content.insert(event.global_position, event);
            }
        }
    }

    async fn add_stream(
        &mut self,
        primary: &Primary,
        named: &NamedStream,
        content: &ErasedContent,
    ) -> Result<(), ErasureError> {
        let stream = &named.stream;
        let head = primary.stream_head(stream).await?;
        let head = head.ok_or_else(|| ErasureError::StreamNotFound(stream.clone()))?;
        let mut left = VersionRange::forward(named.from, named.to.min(head.version));
        let mut fetch_size = FetchSize::default();
        while !left.is_empty() {
            let _permit = primary.bulk_read_permit().await;
            let read = StreamRead { stream, head: &head, range: left, limit: usize::MAX };
            let add = |event: &StoredEvent<'_>| {
                if event.event_type != ERASED_EVENT_TYPE {
                    self.add(ErasableEvent::new(event), content.is_in(event));
                }
                ControlFlow::Continue(())
            };
            left = primary.read_stream(read, &mut fetch_size, add).await?;
        }
        Ok(())
    }
}

/// Finds events by their ids; `None` for an unknown id.
async fn find_by_ids(primary: &Primary, request: &ErasureRequest) -> Result<Vec<Option<FoundById>>, ErasureError> {
    let mut found = Vec::with_capacity(request.event_ids.len());
    for id in &request.event_ids {
        let read = primary.read_event(*id, |event| FoundById {
            event: ErasableEvent::new(event),
            is_announcement: event.event_type == ERASED_EVENT_TYPE,
            has_content: request.content.is_in(event),
        });
        found.push(read.await?);
    }
    Ok(found)
}
