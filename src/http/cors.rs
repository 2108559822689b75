//! Cross-origin requests (Fetch Standard, section 3.2): pages of the configured origins may call the service.
//!
//! The layer answers preflight requests itself, before authorization, because browsers send them without a key.

use std::time::Duration;

use axum::http::{HeaderName, HeaderValue, Method, header};
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};

use crate::app::CorsOrigins;

/// The time for which a browser may cache the response to a preflight request.
const MAX_AGE: Duration = Duration::from_hours(1);

/// Returns the layer for the configured origins; `None` if there are none.
pub fn cors_layer(origins: &CorsOrigins) -> Option<CorsLayer> {
    let allowed = match origins {
        CorsOrigins::None => return None,
        CorsOrigins::Any => AllowOrigin::any(),
        CorsOrigins::List(origins) => {
            AllowOrigin::list(origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok()))
        }
    };
    let exposed = [
        header::ETAG,
        header::LINK,
        header::LOCATION,
        header::RETRY_AFTER,
        header::WWW_AUTHENTICATE,
        HeaderName::from_static("idempotent-replayed"),
        HeaderName::from_static("preference-applied"),
        HeaderName::from_static("x-request-id"),
    ];
    let layer = CorsLayer::new()
        .allow_origin(allowed)
        .allow_methods([Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::DELETE])
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers(exposed)
        .max_age(MAX_AGE);
    Some(layer)
}
