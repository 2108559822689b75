//! The validator against PostgreSQL: what it accepts is stored, is read again, and prints in the size that was computed;
//! what it refuses as no JSON, PostgreSQL refuses too.
#![no_main]

use std::sync::{LazyLock, Mutex};

use annals::domain::json::{Reason, inspect};
use annals_fuzz::RUNTIME;
use libfuzzer_sys::fuzz_target;
use serde_json::value::RawValue;
use sqlx::{ConnectOptions, PgConnection};

static SESSION: LazyLock<Mutex<PgConnection>> = LazyLock::new(|| {
    let session = {
        let options = annals_fuzz::postgres().options();
        RUNTIME.block_on(options.connect())
    }
    .expect("a connection");
    Mutex::new(session)
});

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(document) = serde_json::from_str::<Box<RawValue>>(text) else { return };
    let inspected = inspect(&document);
    let mut session = SESSION.lock().expect("the lock");
    let printed = RUNTIME.block_on(async {
        let read = sqlx::query_scalar::<_, String>("SELECT $1::text::jsonb::text").bind(document.get());
        match read.fetch_one(&mut *session).await {
            Err(error) if error.as_database_error().is_none() => panic!("the database: {error}"),
            printed => printed,
        }
    });
    match (inspected, printed) {
        (Ok(inspected), Ok(printed)) => assert_eq!(inspected.printed_bytes, printed.len(), "{text}"),
        (Ok(_), Err(error)) => panic!("{text} was accepted: {error}"),
        (Err(fault), Ok(_)) => assert_ne!(fault.reason, Reason::Syntax, "{text} was refused"),
        (Err(_), Err(_)) => {}
    }
});
