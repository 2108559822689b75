//! See `checks/cursor.rs`.
#![no_main]

#[path = "../checks/cursor.rs"]
mod check;

libfuzzer_sys::fuzz_target!(|data: &[u8]| check::check(data));
