//! Reducers in JavaScript. They run in worker processes of this program, which are killed if a fold fails.

pub mod fold;
pub mod message;
mod numbers;
pub mod sandbox;
pub mod worker;
pub mod workers;
