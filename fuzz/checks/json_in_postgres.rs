//! The validator of JSON against PostgreSQL: PostgreSQL stores every document that the validator accepts, and prints it
//! in the size that the validator has computed. It rejects every document that the validator rejects as not valid JSON.

use annals::domain::json::{Reason, inspect};
use serde_json::value::RawValue;
use sqlx::PgConnection;

/// Checks an input.
pub async fn check(data: &[u8], session: &mut PgConnection) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(document) = serde_json::from_str::<Box<RawValue>>(text) else { return };
    let inspected = inspect(&document);
    let read = sqlx::query_scalar::<_, String>("SELECT $1::text::jsonb::text").bind(document.get());
    let printed = match read.fetch_one(session).await {
        Err(error) if error.as_database_error().is_none() => panic!("the database failed: {error}"),
        printed => printed,
    };
    match (inspected, printed) {
        (Ok(inspected), Ok(printed)) => assert_eq!(inspected.printed_bytes, printed.len(), "{text}"),
        (Ok(_), Err(error)) => panic!("{text} was accepted: {error}"),
        (Err(fault), Ok(_)) => assert_ne!(fault.reason, Reason::Syntax, "{text} was rejected"),
        (Err(_), Err(_)) => {}
    }
}
