//! Checks the pages of a column before they are decoded.
//!
//! The decoder takes the memory that a page header claims before it reads the page. Therefore this module first reads
//! all headers of a column, and compares their sum with the footer. The footer was compared with the manifest and with
//! the bounds when the file was opened.
//!
//! Only headers as the writer makes them are accepted: pages of version 1 without statistics, plain or with a
//! dictionary. So the decoder meets no other field, and no encoding whose decoder takes memory for lengths in the page.
//! A header is a struct in the compact protocol of Thrift.

use parquet::basic::{Encoding, PageType};

/// The first byte of a field: its type in the lower half, and in the upper half its number minus that of the field
/// before it.
const NEXT_NUMBER: u8 = 0x15;
const NEXT_TRUE: u8 = 0x11;
const NEXT_FALSE: u8 = 0x12;
/// The struct in field 5, after field 3.
const DATA_PAGE_HEADER: u8 = 0x2c;
/// The struct in field 7, after field 3.
const DICTIONARY_PAGE_HEADER: u8 = 0x4c;
const END_OF_STRUCT: u8 = 0;

const UNKNOWN_HEADER: &str = "a page header is not one that Annals writes";

/// A page header.
#[derive(Debug, PartialEq, Eq)]
struct PageHeader {
    is_dictionary: bool,
    decoded_bytes: u32,
    encoded_bytes: u32,
    values: u32,
}

/// Checks the pages of a column that has `rows` rows and, according to the footer, `decoded_max` bytes when it is
/// decoded. The error says what is wrong, for the end of a message.
pub(super) fn check_pages(mut column: &[u8], rows: u64, decoded_max: u64) -> Result<(), String> {
    let (mut values, mut decoded, mut is_first) = (0, 0, true);
    while !column.is_empty() {
        let bytes_left = column.len();
        let header = PageHeader::read(&mut column)?;
        let header_bytes = bytes_left - column.len();
        decoded += header_bytes as u64 + u64::from(header.decoded_bytes);
        if decoded > decoded_max {
            return Err(format!("its pages claim {decoded} decoded bytes, and its footer {decoded_max}"));
        }
        if header.is_dictionary {
            if !is_first || u64::from(header.values) > rows {
                return Err(format!("a dictionary claims {} values for {rows} rows", header.values));
            }
        } else {
            values += u64::from(header.values);
        }
        column = column.get(header.encoded_bytes as usize..).ok_or("a page ends after its column")?;
        is_first = false;
    }
    if values == rows { Ok(()) } else { Err(format!("its pages claim {values} values for {rows} rows")) }
}

impl PageHeader {
    /// Reads a header, and moves `bytes` behind it.
    fn read(bytes: &mut &[u8]) -> Result<Self, String> {
        let page_type = number(bytes)?;
        let (decoded_bytes, encoded_bytes) = (number(bytes)?, number(bytes)?);
        let is_dictionary = match byte(bytes)? {
            DATA_PAGE_HEADER if page_type == PageType::DATA_PAGE as u32 => false,
            DICTIONARY_PAGE_HEADER if page_type == PageType::DICTIONARY_PAGE as u32 => true,
            _ => return Err(UNKNOWN_HEADER.to_owned()),
        };
        let (values, encoding) = (number(bytes)?, number(bytes)?);
        let is_known = if is_dictionary {
            let is_sorted = byte(bytes)?;
            encoding == Encoding::PLAIN as u32 && matches!(is_sorted, NEXT_TRUE | NEXT_FALSE)
        } else {
            let levels = [number(bytes)?, number(bytes)?];
            [Encoding::PLAIN as u32, Encoding::RLE_DICTIONARY as u32].contains(&encoding)
                && levels == [Encoding::RLE as u32; 2]
        };
        // The ends of the inner and of the outer struct.
        let ends = [byte(bytes)?, byte(bytes)?];
        if !is_known || ends != [END_OF_STRUCT; 2] {
            return Err(UNKNOWN_HEADER.to_owned());
        }
        Ok(Self { is_dictionary, decoded_bytes, encoded_bytes, values })
    }
}

fn byte(bytes: &mut &[u8]) -> Result<u8, String> {
    let (first, rest) = bytes.split_first().ok_or("a page header ends after its column")?;
    *bytes = rest;
    Ok(*first)
}

/// Reads the next field, which must be a 32-bit number that is not negative.
fn number(bytes: &mut &[u8]) -> Result<u32, String> {
    let mut encoded = 0_u64;
    if byte(bytes)? == NEXT_NUMBER {
        for shift in [0, 7, 14, 21, 28] {
            let next = byte(bytes)?;
            encoded |= u64::from(next & 0x7f) << shift;
            if next & 0x80 == 0 {
                // In the zigzag encoding, odd numbers are negative.
                let number = i32::try_from(encoded / 2).ok().filter(|_| encoded.is_multiple_of(2));
                return number.map(i32::unsigned_abs).ok_or_else(|| UNKNOWN_HEADER.to_owned());
            }
        }
    }
    Err(UNKNOWN_HEADER.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A data page of 3 plain values: 24 bytes, and 20 bytes when it is compressed.
    const DATA: [u8; 17] = [0x15, 0, 0x15, 48, 0x15, 40, 0x2c, 0x15, 6, 0x15, 0, 0x15, 6, 0x15, 6, 0, 0];
    /// A dictionary of 2 values: 16 bytes, and 9 bytes when it is compressed.
    const DICTIONARY: [u8; 14] = [0x15, 4, 0x15, 32, 0x15, 18, 0x4c, 0x15, 4, 0x15, 0, 0x12, 0, 0];

    fn page(header: &[u8], bytes: usize) -> Vec<u8> {
        [header, &vec![0; bytes]].concat()
    }

    #[test]
    fn headers_of_the_writer_are_read() {
        let expected = PageHeader { is_dictionary: false, decoded_bytes: 24, encoded_bytes: 20, values: 3 };
        assert_eq!(PageHeader::read(&mut DATA.as_slice()), Ok(expected));
        let expected = PageHeader { is_dictionary: true, decoded_bytes: 16, encoded_bytes: 9, values: 2 };
        assert_eq!(PageHeader::read(&mut DICTIONARY.as_slice()), Ok(expected));
    }

    #[test]
    fn pages_have_the_rows_and_at_most_the_bytes_of_the_footer() {
        let column = [page(&DICTIONARY, 9), page(&DATA, 20), page(&DATA, 20)].concat();
        let decoded = 14 + 16 + 2 * (17 + 24);
        assert_eq!(check_pages(&column, 6, decoded), Ok(()));
        for (column, rows, decoded_max, fault) in [
            (column.clone(), 6, decoded - 1, "decoded bytes"),
            (column.clone(), 5, decoded, "6 values for 5 rows"),
            (column[..column.len() - 1].to_vec(), 6, decoded, "a page ends after its column"),
            (column[..25].to_vec(), 6, decoded, "a page header ends after its column"),
            (page(&DICTIONARY, 9), 1, decoded, "a dictionary claims 2 values"),
            ([page(&DATA, 20), page(&DICTIONARY, 9)].concat(), 3, decoded, "a dictionary claims"),
        ] {
            let found = check_pages(&column, rows, decoded_max).expect_err(fault);
            assert!(found.contains(fault), "{found}");
        }
    }

    #[test]
    fn other_headers_are_refused() {
        // Each change: the index of a byte, and its new value.
        for (at, value) in [(0, 0x16), (1, 2), (1, 6), (3, 49), (6, 0x4c), (6, 0x3c), (10, 10), (12, 8), (15, 0x1c)] {
            let mut header = DATA;
            header[at] = value;
            assert!(PageHeader::read(&mut header.as_slice()).is_err(), "byte {at} is {value}");
        }
        let too_large = [[0x15, 0, 0x15, 0xfe].as_slice(), &[0xff; 3], &[0x1f], &DATA[4..]].concat();
        assert!(PageHeader::read(&mut too_large.as_slice()).is_err());
        let largest = [[0x15, 0, 0x15, 0xfe].as_slice(), &[0xff; 3], &[0x0f], &DATA[4..]].concat();
        let header = PageHeader::read(&mut largest.as_slice()).expect("the largest number");
        assert_eq!(header.decoded_bytes, i32::MAX.unsigned_abs());
    }
}
