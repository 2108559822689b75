//! The parts of the OpenAPI document that utoipa cannot derive from the handlers.

pub mod document;
pub mod examples;
pub mod integers;
pub mod operations;
pub mod parameter_schemas;
pub mod parameters;
pub mod problem_schemas;
pub mod request_bodies;
pub mod response_headers;
pub mod responses;
