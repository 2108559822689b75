//! `min_position`: an answer from a database that has seen what the reader has written.

use std::time::Duration;

use tokio::time::Instant;

use super::problem::{Code, Problem, Refusal};
use super::query::Query;
use crate::app::App;
use crate::domain::event::Position;
use crate::domain::json::EXACT_INTEGER_MAX;
use crate::store::Store;
use crate::store::error::StoreError;

/// How long the position is waited for.
const WAIT: Duration = Duration::from_secs(1);
/// Between two looks; doubled each time.
const LOOK_PAUSE: Duration = Duration::from_millis(10);

pub fn take(query: &mut Query) -> Result<Option<Position>, Box<Problem>> {
    query.take_number("min_position", 0, EXACT_INTEGER_MAX)
}

/// Waits until the log has the position in the database that will answer, if one is asked for.
pub async fn reached(app: &App, store: &Store, position: Option<Position>) -> Result<(), Refusal> {
    let Some(position) = position else { return Ok(()) };
    let until = Instant::now() + WAIT;
    let soft = app.shutdown.soft();
    let mut pause = LOOK_PAUSE;
    loop {
        let head = store.log_head().await?.global_position;
        if head >= position {
            return Ok(());
        }
        if Instant::now() >= until {
            let detail = format!("the database that answers is at position {head}, not yet at {position}");
            return Err(Problem::new(Code::ReplicaBehind, detail).with("head", &head).into());
        }
        let look_again = until.min(Instant::now() + pause);
        if soft.run_until_cancelled(tokio::time::sleep_until(look_again)).await.is_none() {
            return Err(StoreError::ShuttingDown.into());
        }
        pause *= 2;
    }
}
