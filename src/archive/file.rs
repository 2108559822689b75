//! One Parquet file, written and read row group by row group.

use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Buf, Bytes};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, WriteMultipart};
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::FOOTER_SIZE;
use parquet::file::metadata::page_index::RowGroupPageIndex;
use parquet::file::metadata::{FooterTail, ParquetMetaData, ParquetMetaDataReader, RowGroupMetaData, SortingColumn};
use parquet::file::properties::{EnabledStatistics, ReaderProperties, WriterProperties};
use parquet::file::reader::{ChunkReader, Length};
use parquet::file::serialized_reader::SerializedRowGroupReader;
use parquet::file::statistics::Statistics;
use parquet::file::writer::SerializedFileWriter;
use sha2::{Digest, Sha256};

use crate::archive::error::ArchiveError;
use crate::archive::group::{COLUMNS, EventGroup, SCHEMA, column};
use crate::archive::manifest::{FileManifest, FileRange, Order};
use crate::domain::event::{Position, StoredEvent};
use crate::domain::hex::hex;
use crate::domain::name::StreamId;

/// The limits of a row group, in events and in bytes of documents. One read of an aggregate decodes a whole row group.
const GROUP_EVENTS: usize = 16_384;
const GROUP_BYTES: usize = 8 * 1024 * 1024;
/// The size of the parts of an upload, and the number of parts that are sent at the same time.
const UPLOAD_BYTES: usize = 8 * 1024 * 1024;
const UPLOADS: usize = 4;

fn sorting(order: Order) -> Vec<SortingColumn> {
    let column_idx = |name: &&str| i32::try_from(column(name)).expect("there are eleven columns");
    let columns = order.columns().iter();
    columns.map(|name| SortingColumn { column_idx: column_idx(name), descending: false, nulls_first: false }).collect()
}

/// The output of the encoder that was not sent yet.
#[derive(Clone, Default)]
struct EncodedBytes(Arc<Mutex<Vec<u8>>>);

impl EncodedBytes {
    fn take(&self) -> Vec<u8> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Write for EncodedBytes {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A file that is being written. It does not exist in the archive before [`PartitionFile::finish`].
pub struct PartitionFile {
    objects: Arc<dyn ObjectStore>,
    path: Path,
    order: Order,
    encoder: SerializedFileWriter<EncodedBytes>,
    encoded: EncodedBytes,
    group: EventGroup,
    row_groups: Vec<FileRange>,
    upload: Option<WriteMultipart>,
    digest: Sha256,
    bytes: u64,
}

impl PartitionFile {
    /// Begins a file. Nothing is sent before the first [`PartitionFile::flush`].
    pub(super) fn create(objects: Arc<dyn ObjectStore>, path: Path, order: Order) -> Self {
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::try_new(3).expect("zstd has a level 3")))
            .set_statistics_enabled(EnabledStatistics::Chunk)
            // With statistics, the footer would contain two whole documents for each row group.
            .set_column_statistics_enabled("event_data".into(), EnabledStatistics::None)
            .set_column_statistics_enabled("metadata".into(), EnabledStatistics::None)
            .set_sorting_columns(Some(sorting(order)))
            .set_created_by(format!("annals {}", env!("CARGO_PKG_VERSION")))
            .build();
        let encoded = EncodedBytes::default();
        let encoder = SerializedFileWriter::new(encoded.clone(), SCHEMA.clone(), Arc::new(properties))
            .expect("writing to memory does not fail");
        Self {
            objects,
            path,
            order,
            encoder,
            encoded,
            group: EventGroup::default(),
            row_groups: Vec::new(),
            upload: None,
            digest: Sha256::new(),
            bytes: 0,
        }
    }

    /// Adds an event. Returns whether the row group is full, so that [`Self::flush`] must be called.
    pub fn push(&mut self, event: &StoredEvent<'_>) -> bool {
        self.group.push(event);
        self.group.len() >= GROUP_EVENTS || self.group.bytes() >= GROUP_BYTES
    }

    /// Encodes the row group and sends it.
    pub async fn flush(&mut self) -> Result<(), ArchiveError> {
        let group = std::mem::take(&mut self.group);
        if group.is_empty() {
            return Ok(());
        }
        // The encoder holds only bytes of this row group, and the four bytes at the start of the file.
        let encoded = self.encoder.next_row_group().and_then(|writer| group.write(writer));
        let encoded = encoded.and_then(|()| Ok(self.encoder.flush()?));
        encoded.map_err(|error| ArchiveError::damaged(&self.path, error))?;
        let range = self.send().await?;
        self.row_groups.push(range);
        Ok(())
    }

    /// Sends the bytes that were encoded since the last call.
    async fn send(&mut self) -> Result<FileRange, ArchiveError> {
        let bytes = self.encoded.take();
        let range = FileRange::new(self.bytes, &bytes);
        self.digest.update(&bytes);
        self.bytes += range.bytes;
        let upload = match &mut self.upload {
            Some(upload) => upload,
            None => {
                let upload = self.objects.put_multipart(&self.path).await?;
                self.upload.insert(WriteMultipart::new_with_chunk_size(upload, UPLOAD_BYTES))
            }
        };
        upload.wait_for_capacity(UPLOADS).await?;
        upload.write(&bytes);
        Ok(range)
    }

    /// Writes the footer. The file is complete and durable when this returns.
    pub async fn finish(mut self) -> Result<FileManifest, ArchiveError> {
        self.flush().await?;
        self.encoder.finish().map_err(|error| ArchiveError::damaged(&self.path, error))?;
        let footer = self.send().await?;
        if let Some(upload) = self.upload {
            upload.finish().await?;
        }
        Ok(FileManifest {
            name: self.order.file_name().to_owned(),
            sorted_by: self.order.columns().iter().map(|&name| name.to_owned()).collect(),
            bytes: self.bytes,
            sha256: hex(&self.digest.finalize()),
            row_groups: self.row_groups,
            footer,
        })
    }
}

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
