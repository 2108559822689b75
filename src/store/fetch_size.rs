//! The number of rows that one statement requests.

const CHUNK_BYTES: usize = 1024 * 1024;
const CHUNK_ROWS_MAX: i64 = 500;

/// The number of rows that one statement requests. It is estimated from the size of the previous rows, so that the rows
/// fill about 1 MiB. A page that is limited in bytes then discards few rows.
#[derive(Debug, Clone, Copy)]
pub struct FetchSize {
    rows: i64,
}

impl Default for FetchSize {
    /// Returns the size for the first statement, when the size of the events is unknown.
    fn default() -> Self {
        Self { rows: 64 }
    }
}

impl FetchSize {
    /// Returns the number of rows to request if the reader wants at most `wanted`.
    pub(super) fn rows_for(self, wanted: usize) -> i64 {
        i64::try_from(wanted).unwrap_or(i64::MAX).min(self.rows)
    }

    /// Adjusts the size to the number and the bytes of the rows that were read.
    pub(super) fn adjust(&mut self, rows: i64, bytes: usize) {
        let fitting = i64::try_from(CHUNK_BYTES * usize::try_from(rows).unwrap_or(1) / bytes.max(1));
        self.rows = fitting.unwrap_or(CHUNK_ROWS_MAX).clamp(1, CHUNK_ROWS_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_asks_for_as_many_rows_as_fill_a_chunk() {
        let mut size = FetchSize::default();
        assert_eq!(size.rows_for(10), 10);
        assert_eq!(size.rows_for(1_000), 64);
        size.adjust(64, 64 * 1_024);
        assert_eq!(size.rows_for(usize::MAX), CHUNK_ROWS_MAX);
        size.adjust(10, 10 * CHUNK_BYTES);
        assert_eq!(size.rows_for(1_000), 1);
        size.adjust(1, 0);
        assert_eq!(size.rows_for(1_000), CHUNK_ROWS_MAX);
    }
}
