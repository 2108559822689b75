//! Consumer groups: projections that several workers share.
//!
//! A group has partitions, and a stream belongs to one of them. A worker asks for a claim: the next events of the free
//! partition that is furthest behind, under a lease. It acknowledges a claim by setting a position. A stream whose event
//! cannot be processed is parked: its later events wait, and other streams continue.
//!
//! | what | where |
//! |---|---|
//! | the groups of the process | [`service`] |
//! | one group: its states, its window of the log | [`group`], [`state`], [`window`] |
//! | handing out claims, acknowledging them | [`claim`], [`acknowledge`] |
//! | parked streams | [`parked`] |
//! | the position of a group, and upkeep | [`position`], [`upkeep`] |
//!
//! Invariants:
//! - The state of a partition changes only by a compare-and-set in the database. What a process has in memory is a hint:
//!   a step that is based on an outdated state fails.
//! - Membership of `parked_streams` changes only together with a step of the stream's partition. So a claim that was
//!   planned with an outdated list of parked streams fails, too.
//! - The window of a group is a contiguous part of the log. An event that a partition has passed was acknowledged, or
//!   belongs to a parked stream.

pub mod acknowledge;
pub mod claim;
pub mod error;
pub mod group;
pub mod parked;
pub mod position;
pub mod service;
mod state;
pub mod upkeep;
mod window;
