//! `GET /events?direction=backward`: a page of the log, the newest events first.

use axum::http::{Method, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::app::App;
use crate::domain::cursor::{Cursor, Epoch};
use crate::domain::event::Position;
use crate::http::extract::min_position::head_for_cursor;
use crate::http::problem::error::{ApiError, ApiResult};
use crate::http::representation::format::LIMIT_DEFAULT;
use crate::http::representation::page::{LOG_LINK_BYTES_MAX, PageEvents, link_to_next, next_member};
use crate::http::representation::response::without_body;
use crate::http::routes::events::read_request::LogReadRequest;
use crate::store::log::backward::scan::BackwardScan;
use crate::wire::event::EventSchema;

/// A page of the log, the newest events first.
#[derive(Serialize, ToSchema)]
pub struct BackwardLogPage {
    events: Vec<EventSchema>,
    /// Every event from this position on, up to the start of the read, was examined, whether it matched the filters or
    /// not.
    next_before: Position,
    /// The position of the last event of the log.
    head: Position,
    /// Positions are unique within an epoch. A failover or a restore begins a new one.
    epoch: Epoch,
    /// The path of the page with older events; null at the beginning of the log.
    next: Option<String>,
}

/// Returns a page of the events before a cursor, or from the head.
pub async fn read_backward(
    app: &App,
    method: &Method,
    request: &LogReadRequest,
    before: Option<Cursor>,
) -> ApiResult<Response> {
    let reader = app.reader();
    let (head, before) = match before {
        Some(Cursor { epoch, position }) => {
            // The page has the events before the cursor, so only these must still be in the log.
            let last = Cursor { epoch, position: (position - 1).max(1) };
            let head = head_for_cursor(app, &reader, last).await?;
            if position > head.global_position.max(1) {
                return Err(match epoch {
                    Some(_) => ApiError::epoch_changed(head.epoch, head.global_position),
                    None => ApiError::position_beyond_head(head.global_position),
                });
            }
            (head, position)
        }
        None => {
            let head = reader.log_head().await?;
            (head, head.global_position + 1)
        }
    };
    let mut headers = request.representation.headers();
    if let Some(response) = without_body(method, false, &headers) {
        return Ok(response);
    }
    let before = Cursor { epoch: Some(head.epoch), position: before };
    let mut events = PageEvents::new(b"{\"events\":", request.representation);
    let mut scan = BackwardScan::new(request.filter.clone(), before, app.feed.limits().scan);
    let limit = request.limit.unwrap_or(LIMIT_DEFAULT);
    let head = reader.read_log_backward(&mut scan, limit, |event| events.push(event)).await?;
    let next_before = scan.before().max(1);
    let next =
        (!scan.is_at_beginning()).then(|| request.link_to(Cursor { epoch: Some(head.epoch), position: next_before }));
    if let Some(next) = next.as_deref().filter(|next| next.len() <= LOG_LINK_BYTES_MAX) {
        headers.insert(header::LINK, link_to_next(next));
    }
    let last_members = format!(
        ",\"next_before\":{next_before},\"head\":{},\"epoch\":{}{}",
        head.global_position,
        head.epoch,
        next_member(next.as_deref())
    );
    Ok((headers, events.finish(&last_members)).into_response())
}
