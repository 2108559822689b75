//! See `checks/json_in_postgres.rs`.
#![no_main]

#[path = "../checks/json_in_postgres.rs"]
mod check;

use std::sync::{LazyLock, Mutex};

use annals_fuzz::RUNTIME;
use libfuzzer_sys::fuzz_target;
use sqlx::{ConnectOptions, PgConnection};

static SESSION: LazyLock<Mutex<PgConnection>> = LazyLock::new(|| {
    let options = annals_fuzz::postgres().options();
    Mutex::new(RUNTIME.block_on(options.connect()).expect("a connection"))
});

fuzz_target!(|data: &[u8]| {
    let mut session = SESSION.lock().expect("the lock");
    RUNTIME.block_on(check::check(data, &mut session));
});
