//! Writes one Parquet file, row group by row group.

use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};

use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, WriteMultipart};
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::metadata::SortingColumn;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::SerializedFileWriter;
use sha2::{Digest, Sha256};

use crate::archive::bounds::{GROUP_BYTES, GROUP_EVENTS};
use crate::archive::error::ArchiveError;
use crate::archive::group::{EventGroup, SCHEMA, column};
use crate::archive::manifest::{FileManifest, FileRange, Order};
use crate::domain::event::StoredEvent;
use crate::domain::hex::hex;

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
