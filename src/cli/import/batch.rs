//! The batches of an import.

use std::collections::HashSet;

use anyhow::bail;
use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::cli::counted::counted;
use crate::cli::import::line::ImportEvent;
use crate::domain::append::{Append, AppendRequest, Outcome, REQUEST_EVENTS_MAX};
use crate::domain::erasure::Announcement;
use crate::store::append::import::{ImportBatch, ImportError, Importer};

/// The approximate number of payload bytes in one commit.
const BATCH_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The totals of an import.
#[derive(Debug, Default)]
pub(super) struct Imported {
    pub(super) written: u64,
    pub(super) known: u64,
}

/// The events of one commit. Each is a request of its own.
#[derive(Default)]
pub(super) struct Batch {
    /// The numbers of the lines.
    numbers: Vec<u64>,
    requests: Vec<AppendRequest>,
    times: Vec<DateTime<Utc>>,
    ids: HashSet<Uuid>,
    bytes: usize,
    /// What the `$erased` events announce, by the index of their request.
    announcements: Vec<(usize, Announcement)>,
}

impl Batch {
    /// Returns whether the batch has no event.
    pub(super) fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    /// Returns whether an event fits into the batch. Every event fits into an empty batch.
    pub(super) fn fits(&self, event: &ImportEvent) -> bool {
        self.requests.is_empty()
            || (self.requests.len() < REQUEST_EVENTS_MAX
                && self.bytes + event.event.size() <= BATCH_BYTES_MAX
                && !self.ids.contains(&event.event.event_id.uuid()))
    }

    /// Adds the event of a line.
    pub(super) fn push(&mut self, number: u64, event: ImportEvent) {
        self.numbers.push(number);
        self.times.extend(event.occurred_at);
        self.bytes += event.event.size();
        self.ids.insert(event.event.event_id.uuid());
        let index = self.requests.len();
        self.announcements.extend(event.announcement.map(|announcement| (index, announcement)));
        let append = Append { stream: event.stream, expected: event.expected, events: vec![event.event] };
        self.requests.push(AppendRequest { appends: vec![append] });
    }

    /// Prepares the call. This happens while PostgreSQL writes the previous batch.
    pub(super) fn prepare(self) -> (Self, ImportBatch) {
        // With --time=now the events have no times.
        let times = (!self.times.is_empty()).then(|| self.times.clone());
        let prepared = ImportBatch::new(&self.requests, times);
        (self, prepared)
    }

    /// Writes the batch, and adds its events to the totals.
    pub(super) async fn write(
        self,
        prepared: ImportBatch,
        importer: &mut Importer,
        imported: &mut Imported,
    ) -> anyhow::Result<()> {
        let outcomes = importer.write(prepared).await.map_err(|error| explain(error, imported))?;
        for (index, outcome) in outcomes.into_iter().enumerate() {
            let (number, request) = (self.numbers[index], &self.requests[index]);
            if let Outcome::Written(places) | Outcome::Replayed(places) = &outcome
                && let Some((_, announcement)) = self.announcements.iter().find(|(of, _)| *of == index)
                && let Some(recorded) = places.appends.iter().flatten().next()
            {
                importer.note_erasure(&request.appends[0].stream, recorded, announcement).await?;
            }
            match outcome {
                Outcome::Written(_) => imported.written += 1,
                // An id that is derived from the stream and the ordinal may be that of an event from another file.
                Outcome::Replayed(places)
                    if (self.times.get(index)).is_some_and(|time| {
                        places.appends.iter().flatten().any(|event| event.occurred_at != *time)
                    }) =>
                {
                    bail!("line {number}: {}", another_event())
                }
                Outcome::Replayed(_) => imported.known += 1,
                refused => bail!(
                    "line {number}: {}. Other lines are written, and a repeated import skips them",
                    reason(request, &refused)
                ),
            }
        }
        Ok(())
    }
}

/// Returns the error for an id that the log has with another time.
pub(super) fn another_event() -> &'static str {
    "the log has another event with this id, which occurred at another time. A line without event_id gets an id \
     derived from its stream and its ordinal in the file: import the files as one file, or give the lines event ids"
}

fn reason(request: &AppendRequest, refused: &Outcome) -> String {
    let append = &request.appends[0];
    match refused {
        Outcome::VersionConflict(current) => format!(
            "the stream {} is at version {}, so the event cannot get version {}; without `version` it gets the next \
             version",
            append.stream,
            current[0],
            append.expected.missed_after() + 1
        ),
        _ => format!("the log has the event {} already, with other content", append.events[0].event_id.uuid()),
    }
}

fn explain(error: ImportError, imported: &Imported) -> anyhow::Error {
    let written = counted(imported.written, "event");
    if matches!(error, ImportError::TimeGoesBackwards) {
        return anyhow::anyhow!(
            "another client appended during the import, and times in the log must not go backwards. The import had \
             written {written}. Stop the other clients and import into an empty store, or import with --time=now"
        );
    }
    anyhow::Error::new(error)
        .context(format!("the import failed after it had written {written}; a repeated import continues from there"))
}
