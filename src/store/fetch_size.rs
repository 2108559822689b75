//! The number of rows that one statement requests.

/// The bytes of a page, unless its reader wants another number at once. A larger page is read in several of these.
const PAGE_BYTES: usize = 1024 * 1024;
const ROWS_MAX: usize = 4_096;
/// The rows of the first statement, when the size of the events is unknown.
const FIRST_ROWS: usize = 64;

/// The number of rows that one statement requests: as many as fill the rest of a page, estimated from the size of the
/// previous rows. So a page needs few statements, and few rows are discarded.
#[derive(Debug, Clone, Copy)]
pub struct FetchSize {
    page_bytes: usize,
    /// The bytes that the page has already.
    filled: usize,
    /// The average size of the previous rows; `None` before the first ones.
    row_bytes: Option<usize>,
}

impl Default for FetchSize {
    fn default() -> Self {
        Self { page_bytes: PAGE_BYTES, filled: 0, row_bytes: None }
    }
}

impl FetchSize {
    /// Creates the size for a reader that wants this number of bytes at once.
    pub fn of_pages(bytes: usize) -> Self {
        Self { page_bytes: bytes, ..Self::default() }
    }

    /// Sets the number of bytes that the reader wants at once.
    pub fn set_page_bytes(&mut self, bytes: usize) {
        self.page_bytes = bytes;
    }

    /// Begins a page.
    pub(super) fn begin_page(&mut self) {
        self.filled = 0;
    }

    /// Returns the number of rows to request if the reader wants at most `wanted`.
    pub(super) fn rows_for(self, wanted: usize) -> i64 {
        let rows = match self.row_bytes {
            None => FIRST_ROWS,
            Some(row_bytes) => {
                // Some more, because a page that is almost full needs another statement.
                let fitting = (self.page_bytes - self.filled) / row_bytes;
                (fitting + fitting / 16 + 1).min(ROWS_MAX)
            }
        };
        i64::try_from(rows.min(wanted)).unwrap_or(i64::MAX)
    }

    /// Adjusts the size to the number and the bytes of the rows that were read.
    pub(super) fn adjust(&mut self, rows: usize, bytes: usize) {
        if let Some(row_bytes) = bytes.checked_div(rows) {
            self.row_bytes = Some(row_bytes.max(1));
            self.filled += bytes;
            if self.filled >= self.page_bytes {
                self.begin_page();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_requests_as_many_rows_as_fill_the_rest_of_the_page() {
        let mut size = FetchSize::default();
        assert_eq!((size.rows_for(10), size.rows_for(1_000)), (10, 64));
        size.set_page_bytes(64 * 1_024);
        size.adjust(64, 32 * 1_024);
        assert_eq!(size.rows_for(usize::MAX), 64 + 4 + 1);
        size.adjust(64, 32 * 1_024);
        assert_eq!((size.rows_for(usize::MAX), size.rows_for(3)), (128 + 8 + 1, 3));
    }

    #[test]
    fn the_number_of_rows_is_bounded() {
        let mut size = FetchSize::default();
        size.adjust(10, 20 * PAGE_BYTES);
        assert_eq!(size.rows_for(1_000), 1);
        size.adjust(1, 0);
        assert_eq!(size.rows_for(usize::MAX), 4_096);
    }
}
