//! Promise P8, P10: a file of the archive that claims more than the writer makes is refused before memory is taken for
//! its claims. The digests do not stop such a file here: the manifest and the database name it.

use std::path::PathBuf;
use std::sync::Arc;

use annals::archive::manifest::{FileRange, Manifest, Order, PartitionFacts};
use annals::archive::partition::ArchivedPartition;
use annals::archive::place::Archive;
use annals::domain::event::StoredEvent;
use bytes::Bytes;
use parquet::file::metadata::{
    ColumnChunkMetaDataBuilder, ParquetMetaData, ParquetMetaDataReader, ParquetMetaDataWriter, RowGroupMetaDataBuilder,
};
use tempfile::TempDir;
use uuid::Uuid;

use crate::support::at;

const FOLDER: &str = "2025-01-0123456789abcdef";
/// The number of bytes of a forged page.
const PAGE_BYTES: u32 = 20;
/// The number of values of Parquet's enumeration of encodings.
const PLAIN: u32 = 0;
const DELTA_BINARY_PACKED: u32 = 5;
const LARGEST: u32 = i32::MAX.unsigned_abs();

/// An archived partition of three events, whose file `by_position.parquet` a test forges.
struct Forgery {
    folder: TempDir,
    archive: Arc<Archive>,
    manifest: Manifest,
}

impl Forgery {
    async fn create() -> Self {
        let folder = TempDir::new().expect("a folder");
        let archive = Archive::open(folder.path().to_str().expect("a path")).expect("the folder exists");
        let time = at("2025-01-10T00:00:00Z");
        let mut files = Vec::new();
        for order in Order::ALL {
            let mut file = archive.create(FOLDER, order);
            for version in 1..=3_i32 {
                let is_full = file.push(&StoredEvent {
                    event_id: Uuid::from_u128(version.unsigned_abs().into()),
                    aggregate_type: "Order",
                    aggregate_id: "1",
                    version,
                    global_position: version.into(),
                    event_type: "Happened",
                    event_data: "{\"n\": 1}",
                    metadata: None,
                    occurred_at: time,
                    correlation_id: None,
                    causation_id: None,
                });
                assert!(!is_full);
            }
            files.push(file.finish().await.expect("the file is written"));
        }
        let facts = PartitionFacts {
            name: "events_2025_01".to_owned(),
            starts_at: at("2025-01-01T00:00:00Z"),
            ends_at: at("2025-02-01T00:00:00Z"),
            events: 3,
            first_position: 1,
            last_position: 3,
            first_occurred_at: time,
            last_occurred_at: time,
        };
        Self { folder, archive, manifest: Manifest::new(&facts, String::new(), files, time) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(FOLDER).join(name)
    }

    /// Returns the bytes of the row group and of the footer, before the file is forged.
    fn parts(&self) -> (Vec<u8>, Vec<u8>) {
        let mut row_group = std::fs::read(self.path("by_position.parquet")).expect("a file");
        let footer = row_group.split_off(usize::try_from(self.manifest.files[0].footer.offset).expect("an offset"));
        (row_group, footer)
    }

    fn metadata(&self) -> ParquetMetaData {
        let file = Bytes::from(std::fs::read(self.path("by_position.parquet")).expect("a file"));
        ParquetMetaDataReader::new().parse_and_finish(&file).expect("a footer")
    }

    /// Reads the row group of a file with these bytes, as a service does whose database names the forged manifest.
    /// Returns the number of its events, or the error.
    async fn read(&self, row_group: &[u8], footer: &[u8]) -> Result<usize, String> {
        let mut manifest = self.manifest.clone();
        let file = &mut manifest.files[0];
        file.row_groups = vec![FileRange::new(0, row_group)];
        file.footer = FileRange::new(row_group.len() as u64, footer);
        file.bytes = file.footer.range().end;
        let intact = std::fs::read(self.path("by_position.parquet")).expect("a file");
        std::fs::write(self.path("by_position.parquet"), [row_group, footer].concat()).expect("the file is forged");
        let read = self.read_with(&manifest).await;
        std::fs::write(self.path("by_position.parquet"), intact).expect("the file is restored");
        read
    }

    /// Reads the row group with a forged manifest that the database names.
    async fn read_with(&self, manifest: &Manifest) -> Result<usize, String> {
        let manifest_sha256 = self.archive.put_manifest(FOLDER, manifest).await.expect("the manifest is written");
        let (name, folder) = (manifest.partition.clone(), FOLDER.to_owned());
        let partition = ArchivedPartition { name, folder, manifest_sha256 };
        let group = self.archive.group(&partition, Order::Position, 0).await;
        group.map(|group| group.len()).map_err(|error| error.to_string())
    }

    /// Reads the file with another footer.
    async fn read_with_metadata(&self, metadata: &ParquetMetaData) -> Result<usize, String> {
        self.read(&self.parts().0, &encode(metadata)).await
    }

    /// Reads the file with other pages in its last column. The footer claims `decoded` bytes for them.
    async fn read_with_pages(&self, pages: &[u8], decoded: u32) -> Result<usize, String> {
        let (row_group, _) = self.parts();
        let metadata = self.metadata();
        let (start, _) = metadata.row_group(0).column(10).byte_range();
        let forged = with_last_column(&metadata, |column| {
            column
                .set_dictionary_page_offset(None)
                .set_data_page_offset(start.try_into().expect("an offset"))
                .set_total_compressed_size(pages.len().try_into().expect("a size"))
                .set_total_uncompressed_size(decoded.into())
        });
        let before = &row_group[..usize::try_from(start).expect("an offset")];
        self.read(&[before, pages].concat(), &encode(&forged)).await
    }
}

/// Returns the bytes of a footer.
fn encode(metadata: &ParquetMetaData) -> Vec<u8> {
    let mut footer = Vec::new();
    ParquetMetaDataWriter::new(&mut footer, metadata).finish().expect("a footer");
    footer
}

/// Returns the metadata with a changed row group.
fn with_group(
    metadata: &ParquetMetaData,
    change: impl FnOnce(RowGroupMetaDataBuilder) -> RowGroupMetaDataBuilder,
) -> ParquetMetaData {
    let group = change(metadata.row_group(0).clone().into_builder()).build().expect("a row group");
    metadata.clone().into_builder().set_row_groups(vec![group]).build()
}

/// Returns the metadata with a changed last column, `global_position`.
fn with_last_column(
    metadata: &ParquetMetaData,
    change: impl FnOnce(ColumnChunkMetaDataBuilder) -> ColumnChunkMetaDataBuilder,
) -> ParquetMetaData {
    with_group(metadata, |mut group| {
        let mut columns = group.take_columns();
        let last = columns.pop().expect("a column");
        columns.push(change(last.into_builder()).build().expect("a column"));
        group.set_column_metadata(columns)
    })
}

/// Returns a number as the next field of a page header.
fn number(value: u32) -> Vec<u8> {
    let mut bytes = vec![0x15];
    let mut left = u64::from(value) * 2;
    while left > 0x7f {
        bytes.push((left & 0x7f) as u8 | 0x80);
        left >>= 7;
    }
    bytes.push(left as u8);
    bytes
}

/// Returns a page whose header claims these numbers.
fn data_page(decoded: u32, values: u32, encoding: u32) -> Vec<u8> {
    let header = [number(0), number(decoded), number(PAGE_BYTES), vec![0x2c]].concat();
    let inner = [number(values), number(encoding), number(3), number(3), vec![0, 0]].concat();
    [header, inner, vec![0; PAGE_BYTES as usize]].concat()
}

/// Returns a dictionary page whose header claims this number of values.
fn dictionary_page(values: u32) -> Vec<u8> {
    let header = [number(2), number(24), number(PAGE_BYTES), vec![0x4c]].concat();
    [header, number(values), number(PLAIN), vec![0x12, 0, 0], vec![0; PAGE_BYTES as usize]].concat()
}

#[track_caller]
fn assert_refused(read: Result<usize, String>, fault: &str) {
    let error = read.expect_err(fault);
    assert!(error.contains("the archive is damaged") && error.contains(fault), "expected {fault:?}: {error}");
}

#[tokio::test]
async fn a_file_that_is_written_again_without_a_change_is_read() {
    let forgery = Forgery::create().await;
    let (row_group, footer) = forgery.parts();
    assert_eq!(forgery.read(&row_group, &footer).await, Ok(3));
    // So the other tests fail because of what they change.
    assert_eq!(forgery.read_with_metadata(&forgery.metadata()).await, Ok(3));
}

#[tokio::test]
async fn a_page_header_that_claims_too_much_is_refused() {
    let forgery = Forgery::create().await;
    for (pages, decoded, fault) in [
        // The decoder takes this size before it decompresses the page.
        (data_page(LARGEST, 3, PLAIN), 100, "decoded bytes, and its footer 100"),
        // If the footer claims as much, the bound of a row group refuses it.
        (data_page(LARGEST, 3, PLAIN), LARGEST, "decoded bytes, and it may have 100663296"),
        // The decoder takes memory for all values of a dictionary before it reads the first one.
        ([dictionary_page(LARGEST), data_page(24, 3, PLAIN)].concat(), 200, "a dictionary claims 2147483647 values"),
        (data_page(24, LARGEST, PLAIN), 100, "claim 2147483647 values for 3 rows"),
        // The decoders of other encodings take memory for lengths within the page.
        (data_page(24, 3, DELTA_BINARY_PACKED), 100, "a page header is not one that Annals writes"),
        (vec![0x15; 200], 200, "a page header is not one that Annals writes"),
    ] {
        assert!(pages.len() < 1_000, "the file is small");
        assert_refused(forgery.read_with_pages(&pages, decoded).await, fault);
    }
}

#[tokio::test]
async fn a_footer_that_claims_too_much_is_refused() {
    let forgery = Forgery::create().await;
    let metadata = forgery.metadata();
    for (forged, fault) in [
        (with_group(&metadata, |group| group.set_num_rows(1 << 40)), "claims 1099511627776 rows"),
        (with_group(&metadata, |group| group.set_num_rows(-1)), "claims -1 rows"),
        (with_group(&metadata, |group| group.set_num_rows(0)), "claims 0 rows"),
        (with_group(&metadata, |group| group.set_num_rows(16_384)), "is not one that Annals writes"),
        (with_last_column(&metadata, |column| column.set_num_values(1 << 40)), "global_position is not one"),
        (with_last_column(&metadata, |column| column.set_total_uncompressed_size(1 << 40)), "may have 100663296"),
        (with_last_column(&metadata, |column| column.set_total_uncompressed_size(-1)), "may have 100663296"),
        (with_last_column(&metadata, |column| column.set_total_compressed_size(1 << 40)), "global_position elsewhere"),
        (with_last_column(&metadata, |column| column.set_total_compressed_size(-1)), "global_position elsewhere"),
        (
            with_last_column(&metadata, |column| column.set_data_page_offset(1 << 40).set_dictionary_page_offset(None)),
            "elsewhere",
        ),
    ] {
        assert_refused(forgery.read_with_metadata(&forged).await, fault);
    }
}

#[tokio::test]
async fn the_schema_in_a_footer_takes_no_memory() {
    let forgery = Forgery::create().await;
    let (row_group, _) = forgery.parts();
    let mut footer = encode(&forgery.metadata());
    // The root of the schema has 11 columns, and now it claims the largest number of them.
    let root = b"\x05event\x15\x16";
    let at = footer.windows(root.len()).position(|bytes| bytes == root).expect("the root of the schema");
    let end = at + root.len();
    footer.splice(end - 1..end, [0xfe, 0xff, 0xff, 0xff, 0x0f]);
    let tail = footer.len() - 8;
    let length = u32::try_from(tail).expect("a short footer");
    footer[tail..tail + 4].copy_from_slice(&length.to_le_bytes());
    // The schema is skipped, because the columns are known.
    assert_eq!(forgery.read(&row_group, &footer).await, Ok(3));
}

#[tokio::test]
async fn a_manifest_that_claims_too_much_is_refused() {
    let forgery = Forgery::create().await;
    let forged = |change: fn(&mut Manifest)| {
        let mut manifest = forgery.manifest.clone();
        change(&mut manifest);
        manifest
    };
    for (manifest, fault) in [
        (forged(|manifest| manifest.events = 4), "claims 3 events, and the manifest has 4"),
        (forged(|manifest| manifest.files[0].bytes += 1), "its ranges end at byte"),
        (forged(|manifest| manifest.files[0].footer.bytes = 1 << 40), "may have 81920"),
        (forged(|manifest| manifest.files[0].row_groups[0].bytes = 1 << 40), "may have 100663296"),
        (forged(|manifest| manifest.files[0].row_groups[0].offset = 4), "must begin at byte 0"),
        (forged(|manifest| manifest.files[0].row_groups.clear()), "must begin at byte 0"),
        (forged(|manifest| manifest.files.swap(0, 1)), "not the two that Annals writes"),
        (forged(|manifest| manifest.files.truncate(1)), "not the two that Annals writes"),
    ] {
        assert_refused(forgery.read_with(&manifest).await, fault);
    }
    assert_eq!(forgery.read_with(&forgery.manifest).await, Ok(3));

    // A file that takes no space on the disk. It is refused by its size, before it is read.
    let file = std::fs::File::create(forgery.path("manifest.json")).expect("a file");
    file.set_len(1 << 30).expect("a large file");
    let (name, folder) = (forgery.manifest.partition.clone(), FOLDER.to_owned());
    let partition = ArchivedPartition { name, folder, manifest_sha256: String::new() };
    let read = forgery.archive.manifest(&partition).await.map(|_| 0).map_err(|error| error.to_string());
    assert_refused(read, "it has 1073741824 bytes, and may have 33554432");
}
