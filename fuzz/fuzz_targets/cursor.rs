//! Cursors and the expected versions of tags: what is understood is written back the same.
#![no_main]

use annals::domain::cursor::Cursor;
use annals::domain::json::EXACT_INTEGER_MAX;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(cursor) = text.parse::<Cursor>() else { return };
    assert!((0..=EXACT_INTEGER_MAX).contains(&cursor.position));
    assert!(cursor.epoch.is_none_or(|epoch| epoch > 0));
    assert_eq!(cursor.to_string().parse(), Ok(cursor));
});
