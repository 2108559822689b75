//! Bounds of the files of the archive. They are checked before memory is taken for what a file claims.
//!
//! The decoder of Parquet takes memory for the rows of a row group and for the bytes of a page as soon as it has read
//! their numbers, so a file of a few kilobytes can claim gigabytes. The digests refuse every file that Annals did not
//! write. The bounds hold even if the database names such a file: no manifest, footer or row group can claim more than
//! the writer makes.

use std::ops::Range;

use parquet::basic::Compression;
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData, RowGroupMetaData};

use crate::archive::manifest::{FileManifest, FileRange, Manifest, Order};
use crate::domain::append::BODY_BYTES_MAX;

/// The writer ends a row group at this number of events, or at this number of bytes of documents. One read of an
/// aggregate decodes a whole row group.
pub(super) const GROUP_EVENTS: usize = 16_384;
pub(super) const GROUP_BYTES: usize = 8 * 1024 * 1024;

/// The largest documents of one event: as PostgreSQL prints them, they have at most twice the size of a request.
const EVENT_BYTES_MAX: u64 = 2 * BODY_BYTES_MAX as u64;
/// The largest size of a row without its documents: three names of 255 characters, three ids, three numbers, the length
/// or the index of each value, and the headers of pages.
const ROW_BYTES_MAX: u64 = 3_584;
/// The largest size of a row group, decoded or not: 96 MiB. The writer ends a row group after the event that fills it.
pub(super) const GROUP_DECODED_MAX: u64 = GROUP_BYTES as u64 + EVENT_BYTES_MAX + GROUP_EVENTS as u64 * ROW_BYTES_MAX;

/// The largest number of row groups of a file: a thousand million events, or 512 GiB of documents. The archiver reads
/// the manifest back before it drops a table, so a month with more is not archived.
const GROUPS_MAX: usize = 65_536;
/// The largest manifest. It has less than 200 bytes for each row group of each of the two files.
pub(super) const MANIFEST_BYTES_MAX: u64 = 32 * 1024 * 1024;
/// The largest footer: the schema, and for each row group its columns with truncated statistics and the index of its
/// pages, which take less than 11 KiB. Decoded, a footer takes up to a hundred times its size.
const FOOTER_BYTES: u64 = 64 * 1024;
const FOOTER_BYTES_PER_GROUP: u64 = 16 * 1024;

/// Checks the numbers of a manifest. The error says what is wrong, for the end of a message.
pub(super) fn check_manifest(manifest: &Manifest) -> Result<(), String> {
    let names: Vec<_> = manifest.files.iter().map(|file| file.name.as_str()).collect();
    if names != Order::ALL.map(Order::file_name) {
        return Err("its files are not the two that Annals writes".to_owned());
    }
    manifest.files.iter().try_for_each(|file| check_ranges(file).map_err(|what| format!("{}: {what}", file.name)))
}

/// Checks that the ranges of a file are the whole file, one after the other, and that none is too large.
fn check_ranges(file: &FileManifest) -> Result<(), String> {
    let groups = file.row_groups.len();
    if groups > GROUPS_MAX {
        return Err(format!("it has {groups} row groups, and may have {GROUPS_MAX}"));
    }
    let footer_max = FOOTER_BYTES + groups as u64 * FOOTER_BYTES_PER_GROUP;
    let row_groups = file.row_groups.iter().map(|range| (range, GROUP_DECODED_MAX));
    let mut end = 0;
    for (range, most) in row_groups.chain([(&file.footer, footer_max)]) {
        let FileRange { offset, bytes, .. } = range;
        if *offset != end {
            return Err(format!("a range begins at byte {offset}, and must begin at byte {end}"));
        }
        if *bytes > most {
            return Err(format!("the range at byte {offset} has {bytes} bytes, and may have {most}"));
        }
        end += bytes;
    }
    if end == file.bytes {
        Ok(())
    } else {
        Err(format!("its ranges end at byte {end}, and it has {} bytes", file.bytes))
    }
}

/// Compares a footer with the manifest, which has `events` events. The error says what is wrong.
pub(super) fn check_footer(metadata: &ParquetMetaData, file: &FileManifest, events: u64) -> Result<(), String> {
    let (claimed, known) = (metadata.num_row_groups(), file.row_groups.len());
    if claimed != known {
        return Err(format!("its footer claims {claimed} row groups, and the manifest has {known}"));
    }
    let mut rows = 0;
    for (n, (group, range)) in metadata.row_groups().iter().zip(&file.row_groups).enumerate() {
        rows += check_group(group, range).map_err(|what| format!("row group {n}: {what}"))?;
    }
    if rows == events { Ok(()) } else { Err(format!("its footer claims {rows} events, and the manifest has {events}")) }
}

/// Checks what the footer claims of a row group. Returns the number of its rows.
fn check_group(group: &RowGroupMetaData, range: &FileRange) -> Result<u64, String> {
    let claimed = group.num_rows();
    let rows = u64::try_from(claimed).ok().filter(|rows| (1..=GROUP_EVENTS as u64).contains(rows));
    let rows = rows.ok_or_else(|| format!("its footer claims {claimed} rows, and it may have {GROUP_EVENTS}"))?;
    let mut decoded = 0_u64;
    for column in group.columns() {
        let within = |bytes: &Range<u64>| range.range().start <= bytes.start && bytes.end <= range.range().end;
        if !column_range(column).is_some_and(|bytes| within(&bytes)) {
            return Err(format!("its footer places the column {} elsewhere", column.column_path().string()));
        }
        if column.num_values() != claimed || !matches!(column.compression(), Compression::ZSTD(_)) {
            return Err(format!("its column {} is not one that Annals writes", column.column_path().string()));
        }
        decoded = decoded.saturating_add(u64::try_from(column.uncompressed_size()).unwrap_or(u64::MAX));
    }
    if decoded > GROUP_DECODED_MAX {
        return Err(format!("its footer claims {decoded} decoded bytes, and it may have {GROUP_DECODED_MAX}"));
    }
    Ok(rows)
}

/// Returns the place of a column in its file; `None` if no file has such a place.
pub(super) fn column_range(column: &ColumnChunkMetaData) -> Option<Range<u64>> {
    let start = column.dictionary_page_offset().unwrap_or_else(|| column.data_page_offset());
    let start = u64::try_from(start).ok()?;
    Some(start..start.checked_add(u64::try_from(column.compressed_size()).ok()?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(ranges: &[(u64, u64)], footer: (u64, u64), bytes: u64) -> FileManifest {
        let range = |&(offset, bytes): &(u64, u64)| FileRange { offset, bytes, sha256: String::new() };
        FileManifest {
            name: Order::Position.file_name().to_owned(),
            sorted_by: Vec::new(),
            bytes,
            sha256: String::new(),
            row_groups: ranges.iter().map(range).collect(),
            footer: range(&footer),
        }
    }

    #[test]
    fn the_ranges_of_a_file_follow_each_other_up_to_its_end() {
        assert_eq!(check_ranges(&file(&[(0, 100), (100, 50)], (150, 40), 190)), Ok(()));
        for (ranges, footer, bytes, fault) in [
            (vec![(4, 96)], (100, 40), 140, "must begin at byte 0"),
            (vec![(0, 100), (90, 50)], (140, 40), 180, "must begin at byte 100"),
            (vec![(0, 100), (110, 50)], (160, 40), 200, "must begin at byte 100"),
            (vec![(0, 100)], (120, 40), 160, "must begin at byte 100"),
            (vec![(0, 100)], (100, 40), 150, "end at byte 140"),
            (vec![(0, 100)], (100, u64::MAX), 150, "may have 81920"),
            (vec![(0, GROUP_DECODED_MAX + 1)], (GROUP_DECODED_MAX + 1, 40), 0, "may have 100663296"),
            (vec![(0, u64::MAX), (u64::MAX, 1)], (0, 40), 0, "may have 100663296"),
        ] {
            let found = check_ranges(&file(&ranges, footer, bytes)).expect_err(fault);
            assert!(found.contains(fault), "{found}");
        }
        let many: Vec<_> = (0..=GROUPS_MAX as u64).map(|n| (n, 1)).collect();
        let found = check_ranges(&file(&many, (many.len() as u64, 40), many.len() as u64 + 40)).expect_err("too many");
        assert!(found.contains("may have 65536"), "{found}");
    }
}
