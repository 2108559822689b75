//! Reads one Parquet file, row group by row group.

use std::ops::Range;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use chrono::{DateTime, Utc};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::errors::ParquetError;
use parquet::file::FOOTER_SIZE;
use parquet::file::metadata::page_index::RowGroupPageIndex;
use parquet::file::metadata::{
    FooterTail, ParquetMetaData, ParquetMetaDataOptions, ParquetMetaDataReader, RowGroupMetaData,
};
use parquet::file::properties::ReaderProperties;
use parquet::file::reader::{ChunkReader, Length};
use parquet::file::serialized_reader::SerializedRowGroupReader;
use parquet::file::statistics::Statistics;
use parquet::schema::types::SchemaDescriptor;

use crate::archive::bounds::{check_footer, column_range};
use crate::archive::error::ArchiveError;
use crate::archive::found_position::FoundPosition;
use crate::archive::group::{EventGroup, SCHEMA, column};
use crate::archive::manifest::{FileManifest, FileRange};
use crate::archive::pages::check_pages;
use crate::domain::event::Position;
use crate::domain::name::StreamId;

/// A file that is open for reading.
pub(super) struct OpenFile {
    path: Path,
    row_groups: Vec<FileRange>,
    metadata: ParquetMetaData,
}

impl OpenFile {
    /// Reads the footer of a file, and compares it with the manifest, which has `events` events.
    pub(super) async fn open(
        objects: &dyn ObjectStore,
        path: Path,
        file: FileManifest,
        events: u64,
    ) -> Result<Self, ArchiveError> {
        let footer = read_range(objects, &path, &file.footer).await?;
        let decoded = run_decoder(&path, move || {
            let metadata = decode_footer(&footer)?;
            check_footer(&metadata, &file, events)?;
            Ok((metadata, file.row_groups))
        });
        let (metadata, row_groups) = decoded.await?;
        Ok(Self { path, row_groups, metadata })
    }

    /// Returns the number of row groups.
    pub(super) fn groups(&self) -> usize {
        self.metadata.num_row_groups()
    }

    /// Returns the row groups whose statistics allow events after `after` and up to `to`.
    pub(super) fn groups_between(&self, after: Position, to: Position) -> Vec<usize> {
        self.groups_where(|group| match group.column(column("global_position")).statistics() {
            Some(Statistics::Int64(known)) => {
                known.max_opt().is_none_or(|last| *last > after) && known.min_opt().is_none_or(|first| *first <= to)
            }
            _ => true,
        })
    }

    /// Returns the last position before a time. The file must be in the order of the log.
    pub(super) fn last_position_before(&self, time: DateTime<Utc>) -> Result<FoundPosition, ArchiveError> {
        let micros = time.timestamp_micros();
        for n in (0..self.groups()).rev() {
            let (first, last) = self.bounds(n, "occurred_at")?;
            if last < micros {
                return Ok(FoundPosition::At(Some(self.bounds(n, "global_position")?.1)));
            }
            if first < micros {
                return Ok(FoundPosition::InGroup(n));
            }
        }
        Ok(FoundPosition::At(None))
    }

    /// Returns the first position after another one. The file must be in the order of the log.
    pub(super) fn first_position_after(&self, after: Position) -> Result<FoundPosition, ArchiveError> {
        for n in 0..self.groups() {
            let (first, last) = self.bounds(n, "global_position")?;
            if first > after {
                return Ok(FoundPosition::At(Some(first)));
            }
            if last > after {
                let has_no_gap = self.metadata.row_group(n).num_rows() == last - first + 1;
                return Ok(if has_no_gap { FoundPosition::At(Some(after + 1)) } else { FoundPosition::InGroup(n) });
            }
        }
        Ok(FoundPosition::At(None))
    }

    /// Returns the smallest and the largest value of a column of integers in a row group. Every file has them.
    fn bounds(&self, n: usize, name: &str) -> Result<(i64, i64), ArchiveError> {
        let bounds = match self.metadata.row_group(n).column(column(name)).statistics() {
            Some(Statistics::Int64(known)) => known.min_opt().copied().zip(known.max_opt().copied()),
            _ => None,
        };
        let missing = || ArchiveError::damaged(&self.path, format!("row group {n} has no statistics of {name}"));
        bounds.ok_or_else(missing)
    }

    /// Returns the row groups whose statistics allow events of a stream.
    pub(super) fn groups_of(&self, stream: &StreamId) -> Vec<usize> {
        self.groups_where(|group| {
            may_have(group, "aggregate_type", stream.aggregate_type())
                && may_have(group, "aggregate_id", stream.aggregate_id())
        })
    }

    fn groups_where(&self, wanted: impl Fn(&RowGroupMetaData) -> bool) -> Vec<usize> {
        let groups = self.metadata.row_groups().iter().enumerate();
        groups.filter(|(_, group)| wanted(group)).map(|(n, _)| n).collect()
    }

    /// Fetches a row group with one request, and decodes it.
    pub(super) async fn read_group(&self, objects: &dyn ObjectStore, n: usize) -> Result<EventGroup, ArchiveError> {
        let group = self.metadata.row_group(n).clone();
        let bytes = read_range(objects, &self.path, &self.row_groups[n]).await?;
        let part = FilePart { start: self.row_groups[n].offset, bytes };
        let decoded = run_decoder(&self.path, move || {
            check_columns(&group, &part)?;
            decode_group(&group, part, n).map_err(|error| error.to_string())
        });
        decoded.await
    }
}

/// Runs a decoder on a thread for blocking work. A panic of the decoder is damage, too: files that Annals wrote are
/// decoded without one.
async fn run_decoder<T: Send + 'static>(
    path: &Path,
    decode: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, ArchiveError> {
    match tokio::task::spawn_blocking(decode).await {
        Ok(decoded) => decoded.map_err(|what| ArchiveError::damaged(path, what)),
        Err(error) if error.is_panic() => Err(ArchiveError::damaged(path, "it cannot be decoded")),
        // The process is shutting down.
        Err(error) => Err(ArchiveError::Store(error.into())),
    }
}

/// Decodes the footer at the end of a file. The schema in it is skipped, because it can claim any number of columns:
/// the columns are those of [`SCHEMA`], and the decoder refuses a row group with another number of them.
fn decode_footer(footer: &[u8]) -> Result<ParquetMetaData, String> {
    let at = footer.len().checked_sub(FOOTER_SIZE).ok_or("it is too short")?;
    let tail = FooterTail::try_from(&footer[at..]).map_err(|error| error.to_string())?;
    let from = at.checked_sub(tail.metadata_length()).ok_or("its footer is too long")?;
    let schema = Arc::new(SchemaDescriptor::new(SCHEMA.clone()));
    let options = ParquetMetaDataOptions::new().with_schema(schema);
    ParquetMetaDataReader::decode_metadata_with_options(&footer[from..at], Some(&options))
        .map_err(|error| error.to_string())
}

/// Checks the pages of each column of a row group.
fn check_columns(group: &RowGroupMetaData, part: &FilePart) -> Result<(), String> {
    let rows = u64::try_from(group.num_rows()).unwrap_or(0);
    for column in group.columns() {
        let damaged = |what: String| format!("the column {}: {what}", column.column_path().string());
        let decoded_max = u64::try_from(column.uncompressed_size()).unwrap_or(0);
        let pages = column_range(column).and_then(|range| part.slice(range));
        let pages = pages.ok_or_else(|| damaged("it is not in its row group".to_owned()))?;
        check_pages(&pages, rows, decoded_max).map_err(damaged)?;
    }
    Ok(())
}

/// Decodes a row group.
fn decode_group(group: &RowGroupMetaData, part: FilePart, n: usize) -> parquet::errors::Result<EventGroup> {
    let properties = Arc::new(ReaderProperties::builder().build());
    let reader = SerializedRowGroupReader::new(Arc::new(part), group, RowGroupPageIndex::new(n, None), properties)?;
    EventGroup::read(&reader)
}

/// Reads a range of a file, and compares it with the manifest.
async fn read_range(objects: &dyn ObjectStore, path: &Path, range: &FileRange) -> Result<Bytes, ArchiveError> {
    let bytes = match objects.get_range(path, range.range()).await {
        // Each kind of object store has its own error for a file that is too short.
        Err(error) => match objects.head(path).await {
            Ok(file) if file.size < range.range().end => return Err(ArchiveError::damaged(path, "it is truncated")),
            _ => return Err(error.into()),
        },
        Ok(bytes) => bytes,
    };
    if range.matches(&bytes) { Ok(bytes) } else { Err(ArchiveError::damaged(path, "it is not what was written")) }
}

/// Returns whether a column of a row group may contain a value, according to its statistics.
fn may_have(group: &RowGroupMetaData, name: &str, value: &str) -> bool {
    match group.column(column(name)).statistics() {
        Some(Statistics::ByteArray(known)) => {
            known.min_opt().is_none_or(|least| least.data() <= value.as_bytes())
                && known.max_opt().is_none_or(|most| value.as_bytes() <= most.data())
        }
        _ => true,
    }
}

/// A part of a file. The decoder addresses it by offsets in the whole file.
struct FilePart {
    start: u64,
    bytes: Bytes,
}

impl FilePart {
    /// Returns a range of the file; `None` if it is not in this part.
    fn slice(&self, range: Range<u64>) -> Option<Bytes> {
        let relative = |at: u64| at.checked_sub(self.start).and_then(|at| usize::try_from(at).ok());
        let (from, to) = (relative(range.start)?, relative(range.end)?);
        (from <= to && to <= self.bytes.len()).then(|| self.bytes.slice(from..to))
    }
}

impl Length for FilePart {
    fn len(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }
}

impl ChunkReader for FilePart {
    type T = bytes::buf::Reader<Bytes>;

    fn get_read(&self, start: u64) -> parquet::errors::Result<Self::T> {
        let length = usize::try_from(self.len().saturating_sub(start)).unwrap_or(0);
        Ok(self.get_bytes(start, length)?.reader())
    }

    fn get_bytes(&self, start: u64, length: usize) -> parquet::errors::Result<Bytes> {
        let end = start.saturating_add(length as u64);
        let outside = || ParquetError::EOF("the decoder reads beyond the row group".to_owned());
        self.slice(start..end).ok_or_else(outside)
    }
}
