//! The seats of an address: each open connection of a client occupies one.
//!
//! If no seat is free, a new connection gets the seat of the connection that has been idle for the longest time, and
//! that one is closed. HTTP allows a server to close an idle connection at any time (RFC 9112, section 9.5). If no
//! connection is idle, a new connection gets a spare seat, with which it may send one request. So connections without
//! requests cannot keep clients out.
//!
//! Invariant: a connection with a request in progress keeps its seat.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

use crate::http::activity::{Activity, IdleClock};

/// The numbers of connections that an address accepts at the same time.
#[derive(Debug, Clone, Copy)]
pub struct SeatLimits {
    /// The number of regular seats.
    pub regular: usize,
    /// The number of seats above it, for one request each.
    pub spare: usize,
}

/// The seats of an address.
pub struct Seats {
    limits: SeatLimits,
    clock: Arc<IdleClock>,
    table: Mutex<Table>,
}

/// Which seats are occupied.
#[derive(Default)]
struct Table {
    last_id: u64,
    regular: HashMap<u64, Arc<Activity>>,
    spare: usize,
    /// Connections that were idle at the last search: since when, and the id. The last one has been idle for the
    /// longest time. A connection that has become idle after the search has been idle for a shorter time than each.
    idle: Vec<(u64, u64)>,
}

/// Whether a seat is one of the regular ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Regular,
    Spare,
}

/// An occupied seat. It is free again when it is dropped.
pub struct Seat {
    seats: Arc<Seats>,
    id: u64,
    kind: Kind,
    activity: Arc<Activity>,
}

impl Seats {
    /// Creates free seats.
    pub fn new(limits: SeatLimits) -> Arc<Self> {
        Arc::new(Self { limits, clock: Arc::new(IdleClock::new()), table: Mutex::default() })
    }

    /// Occupies a seat for a new connection, which ends when `closing` is cancelled. Returns `None` if no seat is free
    /// and no connection is idle.
    pub fn occupy(self: &Arc<Self>, closing: &CancellationToken) -> Option<Seat> {
        let mut table = self.table();
        let is_regular = table.regular.len() < self.limits.regular || table.evict_longest_idle(&self.clock);
        if !is_regular && table.spare >= self.limits.spare {
            return None;
        }
        table.last_id += 1;
        let id = table.last_id;
        let activity = Arc::new(Activity::new(self.clock.clone(), closing.child_token()));
        let kind = if is_regular {
            table.regular.insert(id, activity.clone());
            Kind::Regular
        } else {
            table.spare += 1;
            Kind::Spare
        };
        Some(Seat { seats: self.clone(), id, kind, activity })
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// Evicts the connection that has been idle for the longest time. Returns `false` if no connection is idle.
    ///
    /// A search reads the state of every connection. It is only repeated after its result is used up and a connection
    /// has become idle, so that a flood of new connections does not cause a search each.
    fn evict_longest_idle(&mut self, clock: &IdleClock) -> bool {
        loop {
            while let Some((since, id)) = self.idle.pop() {
                if self.regular.get(&id).is_some_and(|activity| activity.evict(since)) {
                    self.regular.remove(&id);
                    return true;
                }
            }
            if !clock.take_some_became_idle() {
                return false;
            }
            let idle = self.regular.iter().filter_map(|(id, activity)| Some((activity.idle_since()?, *id)));
            self.idle = idle.collect();
            self.idle.sort_unstable_by_key(|idle| Reverse(*idle));
        }
    }
}

impl Seat {
    /// Returns the state of the connection.
    pub fn activity(&self) -> &Arc<Activity> {
        &self.activity
    }

    /// Returns whether the connection may send one request only.
    pub fn is_spare(&self) -> bool {
        self.kind == Kind::Spare
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut table = self.seats.table();
        match self.kind {
            // The seat of an evicted connection belongs to another one already, under another id.
            Kind::Regular => drop(table.regular.remove(&self.id)),
            Kind::Spare => table.spare -= 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seats(regular: usize, spare: usize) -> Arc<Seats> {
        Seats::new(SeatLimits { regular, spare })
    }

    fn occupy(seats: &Arc<Seats>) -> Option<Seat> {
        seats.occupy(&CancellationToken::new())
    }

    fn is_evicted(seat: &Seat) -> bool {
        seat.activity().begin_request().is_none()
    }

    #[test]
    fn an_idle_connection_loses_its_seat_and_a_busy_one_does_not() {
        let seats = seats(3, 1);
        let [first, second, third] = [(); 3].map(|()| occupy(&seats).expect("a free seat"));
        let request = first.activity().begin_request();
        let fourth = occupy(&seats).expect("the seat of the second");
        assert!(!fourth.is_spare() && is_evicted(&second));
        // The end of an evicted connection frees no seat.
        drop(second);
        let requests = [&third, &fourth].map(|seat| seat.activity().begin_request().expect("a seat"));
        let spare = occupy(&seats).expect("a spare seat");
        assert!(spare.is_spare());
        assert!(occupy(&seats).is_none());
        drop(spare);
        assert!(occupy(&seats).expect("a spare seat").is_spare());
        drop(first);
        assert!(!occupy(&seats).expect("the seat of the first").is_spare());
        drop((request, requests));
    }

    #[test]
    fn the_connection_that_has_been_idle_for_the_longest_time_is_evicted_first() {
        let seats = seats(3, 0);
        let old: Vec<Seat> = (0..3).map(|_| occupy(&seats).expect("a free seat")).collect();
        // The first one has requests, until the clock shows that it has been idle for the shortest time.
        while old[0].activity().idle_since() <= old[2].activity().idle_since() {
            drop(old[0].activity().begin_request());
            old[0].activity().record_sent();
        }
        let new: Vec<Seat> = (0..2).map(|_| occupy(&seats).expect("a seat")).collect();
        assert!(is_evicted(&old[1]) && is_evicted(&old[2]));
        assert!(old[0].activity().idle_since().is_some());
        let next = occupy(&seats).expect("the seat of the first");
        assert!(is_evicted(&old[0]) && new[0].activity().idle_since().is_some());
        // The result of the first search is used up, so a second one finds the new connections.
        let last = occupy(&seats).expect("the seat of a new one");
        assert!(is_evicted(&new[0]) && !is_evicted(&new[1]));
        drop((next, last));
    }
}
