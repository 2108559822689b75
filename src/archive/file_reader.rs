//! Reads one Parquet file, row group by row group.

use std::sync::Arc;

use bytes::{Buf, Bytes};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::errors::ParquetError;
use parquet::file::FOOTER_SIZE;
use parquet::file::metadata::page_index::RowGroupPageIndex;
use parquet::file::metadata::{FooterTail, ParquetMetaData, ParquetMetaDataReader, RowGroupMetaData};
use parquet::file::properties::ReaderProperties;
use parquet::file::reader::{ChunkReader, Length};
use parquet::file::serialized_reader::SerializedRowGroupReader;
use parquet::file::statistics::Statistics;

use crate::archive::error::ArchiveError;
use crate::archive::group::{COLUMNS, EventGroup, column};
use crate::archive::manifest::{FileManifest, FileRange};
use crate::domain::event::Position;
use crate::domain::name::StreamId;

/// A file that is open for reading.
pub(super) struct OpenFile {
    path: Path,
    row_groups: Vec<FileRange>,
    metadata: ParquetMetaData,
}

impl OpenFile {
    /// Reads and checks the footer of a file.
    pub(super) async fn open(objects: &dyn ObjectStore, path: Path, file: FileManifest) -> Result<Self, ArchiveError> {
        let damaged = |error: ParquetError| ArchiveError::damaged(&path, error);
        let end = read_range(objects, &path, &file.footer).await?;
        let at = end.len().checked_sub(FOOTER_SIZE).ok_or_else(|| ArchiveError::damaged(&path, "it is too short"))?;
        let tail = FooterTail::try_from(&end[at..]).map_err(damaged)?;
        let from = at.checked_sub(tail.metadata_length());
        let from = from.ok_or_else(|| ArchiveError::damaged(&path, "its footer is too long"))?;
        let metadata = ParquetMetaDataReader::decode_metadata(&end[from..at]).map_err(damaged)?;
        let names: Vec<_> = metadata.file_metadata().schema().get_fields().iter().map(|field| field.name()).collect();
        if names != COLUMNS || metadata.num_row_groups() != file.row_groups.len() {
            return Err(ArchiveError::damaged(&path, "its columns or its row groups are not those that Annals writes"));
        }
        Ok(Self { path, row_groups: file.row_groups, metadata })
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
        let start = self.row_groups[n].offset;
        let decoded = tokio::task::spawn_blocking(move || {
            let properties = Arc::new(ReaderProperties::builder().build());
            let part = Arc::new(FilePart { start, bytes });
            let reader = SerializedRowGroupReader::new(part, &group, RowGroupPageIndex::new(n, None), properties)?;
            EventGroup::read(&reader)
        });
        let decoded = decoded.await.map_err(|error| ArchiveError::damaged(&self.path, error))?;
        decoded.map_err(|error| ArchiveError::damaged(&self.path, error))
    }
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
        let from = start.checked_sub(self.start).and_then(|from| usize::try_from(from).ok());
        let range = from.and_then(|from| Some(from..from.checked_add(length)?));
        match range.filter(|range| range.end <= self.bytes.len()) {
            Some(range) => Ok(self.bytes.slice(range)),
            None => Err(ParquetError::EOF("the decoder reads beyond the row group".to_owned())),
        }
    }
}
