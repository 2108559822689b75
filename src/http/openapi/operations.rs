//! The operations of a path.

use utoipa::openapi::path::{Operation, PathItem};

/// Returns the operations of a path.
pub fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    let PathItem { get, put, post, delete, head, .. } = item;
    [get, put, post, delete, head].into_iter().filter_map(Option::as_mut)
}
