//! `annals demo`: appends the events of a small shop, so that the console and the other commands have data to show.

pub mod command;
mod group;
mod service;
mod shop;
