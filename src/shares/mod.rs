//! Fair shares: several clients use one process, and none takes what the others need.
//!
//! A resource is shared in one of two ways. A [`limit::FairLimit`] refuses a client that holds more than its share: it is
//! for what is held for long, like event streams. A [`semaphore::FairSemaphore`] and a [`queue::FairQueue`] let clients
//! wait, and serve them round robin: they are for what is released soon, like connections to the database.

pub mod client;
pub mod limit;
pub mod queue;
pub mod semaphore;
