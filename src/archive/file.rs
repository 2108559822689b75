//! One Parquet file: written row group by row group as events come, read row group by row group as they are wanted.

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

use super::ArchiveError;
use super::group::{COLUMNS, EventGroup, SCHEMA, column};
use super::manifest::{FileManifest, Order, Piece};
use crate::domain::event::{Position, StoredEvent};
use crate::domain::hex::hex;
use crate::domain::name::StreamId;

/// A row group ends with so many events, or so many bytes of documents: what one read of an aggregate decodes.
const GROUP_EVENTS: usize = 16_384;
const GROUP_BYTES: usize = 8 * 1024 * 1024;
/// Parts of an upload, and how many are on their way at a time.
const UPLOAD_BYTES: usize = 8 * 1024 * 1024;
const UPLOADS: usize = 4;

fn sorting(order: Order) -> Vec<SortingColumn> {
    let column_idx = |name: &&str| i32::try_from(column(name)).expect("there are eleven columns");
    let columns = order.columns().iter();
    columns.map(|name| SortingColumn { column_idx: column_idx(name), descending: false, nulls_first: false }).collect()
}

/// What the encoder has written and nobody has taken yet.
#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl Written {
    fn take(&self) -> Vec<u8> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A file on its way into the archive. It is not there before [`MonthFile::finish`].
pub struct MonthFile {
    objects: Arc<dyn ObjectStore>,
    path: Path,
    order: Order,
    encoder: SerializedFileWriter<Written>,
    written: Written,
    group: EventGroup,
    row_groups: Vec<Piece>,
    upload: Option<WriteMultipart>,
    digest: Sha256,
    bytes: u64,
}

impl MonthFile {
    pub(super) fn create(objects: Arc<dyn ObjectStore>, path: Path, order: Order) -> Self {
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::try_new(3).expect("zstd has a level 3")))
            .set_statistics_enabled(EnabledStatistics::Chunk)
            // Long documents would be in the footer, twice a row group.
            .set_column_statistics_enabled("event_data".into(), EnabledStatistics::None)
            .set_column_statistics_enabled("metadata".into(), EnabledStatistics::None)
            .set_sorting_columns(Some(sorting(order)))
            .set_created_by(format!("annals {}", env!("CARGO_PKG_VERSION")))
            .build();
        let written = Written::default();
        let encoder = SerializedFileWriter::new(written.clone(), SCHEMA.clone(), Arc::new(properties))
            .expect("writing to memory does not fail");
        Self {
            objects,
            path,
            order,
            encoder,
            written,
            group: EventGroup::default(),
            row_groups: Vec::new(),
            upload: None,
            digest: Sha256::new(),
            bytes: 0,
        }
    }

    /// Adds an event; whether a row group is full, and wants to be [flushed](Self::flush).
    pub fn push(&mut self, event: &StoredEvent<'_>) -> bool {
        self.group.push(event);
        self.group.len() >= GROUP_EVENTS || self.group.bytes() >= GROUP_BYTES
    }

    /// Encodes what was added, and sends it on its way.
    pub async fn flush(&mut self) -> Result<(), ArchiveError> {
        let group = std::mem::take(&mut self.group);
        if group.is_empty() {
            return Ok(());
        }
        // Whatever the encoder has in hand is of this group, or of the four bytes that a file begins with.
        let encoded = self.encoder.next_row_group().and_then(|writer| group.write(writer));
        let encoded = encoded.and_then(|()| Ok(self.encoder.flush()?));
        encoded.map_err(|error| ArchiveError::damaged(&self.path, error))?;
        let piece = self.send().await?;
        self.row_groups.push(piece);
        Ok(())
    }

    /// Sends what was encoded since the last time.
    async fn send(&mut self) -> Result<Piece, ArchiveError> {
        let bytes = self.written.take();
        let piece = Piece::of(self.bytes, &bytes);
        self.digest.update(&bytes);
        self.bytes += piece.bytes;
        let upload = match &mut self.upload {
            Some(upload) => upload,
            None => {
                let upload = self.objects.put_multipart(&self.path).await?;
                self.upload.insert(WriteMultipart::new_with_chunk_size(upload, UPLOAD_BYTES))
            }
        };
        upload.wait_for_capacity(UPLOADS).await?;
        upload.write(&bytes);
        Ok(piece)
    }

    /// Writes the footer; the file is there, durable, when this returns.
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

/// A file whose footer was read.
pub(super) struct OpenFile {
    path: Path,
    row_groups: Vec<Piece>,
    metadata: ParquetMetaData,
}

impl OpenFile {
    pub(super) async fn open(objects: &dyn ObjectStore, path: Path, file: FileManifest) -> Result<Self, ArchiveError> {
        let damaged = |error: ParquetError| ArchiveError::damaged(&path, error);
        let end = read_piece(objects, &path, &file.footer).await?;
        let at = end.len().checked_sub(FOOTER_SIZE).ok_or_else(|| ArchiveError::damaged(&path, "it is too short"))?;
        let tail = FooterTail::try_from(&end[at..]).map_err(damaged)?;
        let from = at.checked_sub(tail.metadata_length());
        let from = from.ok_or_else(|| ArchiveError::damaged(&path, "its footer is too long"))?;
        let metadata = ParquetMetaDataReader::decode_metadata(&end[from..at]).map_err(damaged)?;
        let names: Vec<_> = metadata.file_metadata().schema().get_fields().iter().map(|field| field.name()).collect();
        if names != COLUMNS || metadata.num_row_groups() != file.row_groups.len() {
            return Err(ArchiveError::damaged(&path, "it has other columns, or other row groups"));
        }
        Ok(Self { path, row_groups: file.row_groups, metadata })
    }

    pub(super) fn groups(&self) -> usize {
        self.metadata.num_row_groups()
    }

    pub(super) fn groups_between(&self, after: Position, to: Position) -> Vec<usize> {
        self.groups_where(|group| match group.column(column("global_position")).statistics() {
            Some(Statistics::Int64(known)) => {
                known.max_opt().is_none_or(|last| *last > after) && known.min_opt().is_none_or(|first| *first <= to)
            }
            _ => true,
        })
    }

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

    /// Fetches a row group in one piece, and decodes it.
    pub(super) async fn read_group(&self, objects: &dyn ObjectStore, n: usize) -> Result<EventGroup, ArchiveError> {
        let group = self.metadata.row_group(n).clone();
        let bytes = read_piece(objects, &self.path, &self.row_groups[n]).await?;
        let start = self.row_groups[n].offset;
        let decoded = tokio::task::spawn_blocking(move || {
            let properties = Arc::new(ReaderProperties::builder().build());
            let part = Arc::new(Part { start, bytes });
            let reader = SerializedRowGroupReader::new(part, &group, RowGroupPageIndex::new(n, None), properties)?;
            EventGroup::read(&reader)
        });
        let decoded = decoded.await.map_err(|error| ArchiveError::damaged(&self.path, error))?;
        decoded.map_err(|error| ArchiveError::damaged(&self.path, error))
    }
}

/// Reads a piece of a file, if it is still what was written.
async fn read_piece(objects: &dyn ObjectStore, path: &Path, piece: &Piece) -> Result<Bytes, ArchiveError> {
    let bytes = match objects.get_range(path, piece.range()).await {
        // Each kind of store says in its own way that a file is too short.
        Err(error) => match objects.head(path).await {
            Ok(file) if file.size < piece.range().end => return Err(ArchiveError::damaged(path, "it was cut")),
            _ => return Err(error.into()),
        },
        Ok(bytes) => bytes,
    };
    if piece.is(&bytes) { Ok(bytes) } else { Err(ArchiveError::damaged(path, "it is not what was written")) }
}

/// Whether a value can be in a column of a row group, as its statistics say.
fn may_have(group: &RowGroupMetaData, name: &str, value: &str) -> bool {
    match group.column(column(name)).statistics() {
        Some(Statistics::ByteArray(known)) => {
            known.min_opt().is_none_or(|least| least.data() <= value.as_bytes())
                && known.max_opt().is_none_or(|most| value.as_bytes() <= most.data())
        }
        _ => true,
    }
}

/// A part of an object, as the decoder asks for it: by its place in the whole.
struct Part {
    start: u64,
    bytes: Bytes,
}

impl Length for Part {
    fn len(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }
}

impl ChunkReader for Part {
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
            None => Err(ParquetError::EOF("beyond the row group".to_owned())),
        }
    }
}
