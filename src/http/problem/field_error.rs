//! The place of a fault in a request.

use serde::Serialize;

/// A fault of the request: its place, and what is expected there. An element of `errors`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct FieldError {
    /// JSON pointer (RFC 6901) into the body.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pointer: Option<String>,
    /// Name of a header.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header: Option<String>,
    /// Name of a query parameter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parameter: Option<String>,
    /// Name of a segment of the path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    pub detail: String,
}

impl FieldError {
    fn new(detail: impl Into<String>) -> Self {
        Self { pointer: None, header: None, parameter: None, path: None, detail: detail.into() }
    }

    /// A fault in the body.
    pub fn pointer(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { pointer: Some(pointer.into()), ..Self::new(detail) }
    }

    /// A fault in a header.
    pub fn header(header: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { header: Some(header.into()), ..Self::new(detail) }
    }

    /// A fault in a query parameter.
    pub fn parameter(parameter: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { parameter: Some(parameter.into()), ..Self::new(detail) }
    }

    /// A fault in a segment of the path.
    pub fn path(path: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { path: Some(path.into()), ..Self::new(detail) }
    }

    /// Returns the sentence that describes the fault with its place.
    pub fn sentence(&self) -> String {
        // A fault of the path as a whole has this name.
        let path = if self.path.as_deref() == Some("path") { "" } else { "path segment " };
        let places =
            [("", &self.pointer), ("header ", &self.header), ("parameter ", &self.parameter), (path, &self.path)];
        let place = places.iter().find_map(|(kind, name)| Some(format!("{kind}{}", name.as_ref()?)));
        match place.filter(|place| !place.is_empty()) {
            Some(place) => format!("{place}: {}", self.detail),
            // The pointer to the whole body is empty.
            None if ["is ", "must "].iter().any(|verb| self.detail.starts_with(verb)) => {
                format!("the body {}", self.detail)
            }
            None => self.detail.clone(),
        }
    }
}
