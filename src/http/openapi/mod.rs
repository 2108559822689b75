//! The parts of the OpenAPI document that utoipa cannot derive from the handlers.

pub mod document;
pub mod parameter_schemas;
pub mod parameters;
pub mod request_bodies;
pub mod responses;
