//! The index of the subscriptions by what they want, so that an event wakes only those that may want it.
//!
//! Invariant: an event is in the ring before it wakes subscriptions, and the tail of the feed moves after that. So if a
//! subscription was not woken since it read the ring, it wants no event up to the tail.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::domain::event::Position;
use crate::domain::filter::EventFilter;
use crate::subscriptions::ring::LiveEvent;

/// The value of a [`Waker`] that was not woken.
const NOT_WOKEN: Position = Position::MAX;

/// The subscriptions by their keys.
#[derive(Default)]
pub(super) struct Interests {
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    last_id: u64,
    any: Wakers,
    by_aggregate_type: HashMap<String, Wakers>,
    by_event_type: HashMap<String, Wakers>,
    /// By aggregate type, then by aggregate id.
    by_stream: HashMap<String, HashMap<String, Wakers>>,
}

type Wakers = HashMap<u64, Arc<Waker>>;

/// A property of an event that a subscription wants. Each event that its filter matches has one of its keys.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Key {
    Any,
    AggregateType(String),
    EventType(String),
    Stream { aggregate_type: String, aggregate_id: String },
}

/// The interest of one subscription, until it is dropped.
pub(super) struct Interest {
    id: u64,
    keys: Vec<Key>,
    waker: Arc<Waker>,
    interests: Arc<Interests>,
}

/// Wakes a subscription.
struct Waker {
    /// The position of the first event that the subscription may want, since it was cleared.
    first_wanted: AtomicI64,
    notify: Notify,
}

impl Interests {
    /// Adds a subscription.
    pub(super) fn add(self: &Arc<Self>, filter: &EventFilter) -> Interest {
        let keys = keys(filter);
        let waker = Arc::new(Waker { first_wanted: AtomicI64::new(NOT_WOKEN), notify: Notify::new() });
        let mut table = self.table();
        table.last_id += 1;
        let id = table.last_id;
        for key in &keys {
            table.wakers_mut(key).insert(id, waker.clone());
        }
        Interest { id, keys, waker, interests: self.clone() }
    }

    /// Wakes the subscriptions that may want one of these events.
    pub(super) fn wake(&self, events: &[Arc<LiveEvent>]) {
        let Some(first) = events.first() else { return };
        let table = self.table();
        table.any.values().for_each(|waker| waker.wake(first.global_position));
        for event in events {
            let of_stream =
                table.by_stream.get(&*event.aggregate_type).and_then(|streams| streams.get(&*event.aggregate_id));
            let wakers = [
                table.by_aggregate_type.get(&*event.aggregate_type),
                table.by_event_type.get(&*event.event_type),
                of_stream,
            ];
            for waker in wakers.into_iter().flatten().flat_map(Wakers::values) {
                waker.wake(event.global_position);
            }
        }
    }

    /// Wakes all subscriptions, because the ring has begun again.
    pub(super) fn wake_all(&self) {
        let table = self.table();
        let of_streams = table.by_stream.values().flat_map(HashMap::values);
        let of_types = table.by_aggregate_type.values().chain(table.by_event_type.values());
        for waker in std::iter::once(&table.any).chain(of_types).chain(of_streams).flat_map(Wakers::values) {
            waker.wake(0);
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn wakers_mut(&mut self, key: &Key) -> &mut Wakers {
        match key {
            Key::Any => &mut self.any,
            Key::AggregateType(name) => self.by_aggregate_type.entry(name.clone()).or_default(),
            Key::EventType(name) => self.by_event_type.entry(name.clone()).or_default(),
            Key::Stream { aggregate_type, aggregate_id } => {
                self.by_stream.entry(aggregate_type.clone()).or_default().entry(aggregate_id.clone()).or_default()
            }
        }
    }

    fn remove(&mut self, key: &Key, id: u64) {
        self.wakers_mut(key).remove(&id);
        match key {
            Key::Any => {}
            Key::AggregateType(name) => remove_if_empty(&mut self.by_aggregate_type, name, HashMap::is_empty),
            Key::EventType(name) => remove_if_empty(&mut self.by_event_type, name, HashMap::is_empty),
            Key::Stream { aggregate_type, aggregate_id } => {
                if let Some(streams) = self.by_stream.get_mut(aggregate_type) {
                    remove_if_empty(streams, aggregate_id, HashMap::is_empty);
                }
                remove_if_empty(&mut self.by_stream, aggregate_type, HashMap::is_empty);
            }
        }
    }
}

fn remove_if_empty<T>(map: &mut HashMap<String, T>, key: &str, is_empty: impl Fn(&T) -> bool) {
    if map.get(key).is_some_and(is_empty) {
        map.remove(key);
    }
}

/// Returns the keys of a filter.
fn keys(filter: &EventFilter) -> Vec<Key> {
    if let ([aggregate_type], [_, ..]) = (filter.aggregate_types.as_slice(), filter.aggregate_ids.as_slice()) {
        let stream = |aggregate_id: &String| Key::Stream {
            aggregate_type: aggregate_type.clone(),
            aggregate_id: aggregate_id.clone(),
        };
        return filter.aggregate_ids.iter().map(stream).collect();
    }
    if !filter.aggregate_types.is_empty() {
        return filter.aggregate_types.iter().cloned().map(Key::AggregateType).collect();
    }
    if !filter.event_types.is_empty() {
        return filter.event_types.iter().cloned().map(Key::EventType).collect();
    }
    match &filter.readable {
        Some(patterns) if !patterns.iter().any(|pattern| pattern.is_prefix()) => {
            patterns.iter().map(|pattern| Key::AggregateType(pattern.text().to_owned())).collect()
        }
        _ => vec![Key::Any],
    }
}

impl Interest {
    /// Forgets that the subscription was woken. Returns the position of the first event that it may want, since the last
    /// call; `None` if it was not woken. The subscription then reads the ring.
    pub(super) fn clear(&self) -> Option<Position> {
        Some(self.waker.first_wanted.swap(NOT_WOKEN, Ordering::SeqCst)).filter(|position| *position != NOT_WOKEN)
    }

    /// Returns whether the subscription was woken since the last call of [`Interest::clear`].
    pub(super) fn is_woken(&self) -> bool {
        self.waker.first_wanted.load(Ordering::SeqCst) != NOT_WOKEN
    }

    /// Waits until the subscription is woken.
    pub(super) async fn woken(&self) {
        while !self.is_woken() {
            self.waker.notify.notified().await;
        }
    }
}

impl Drop for Interest {
    fn drop(&mut self) {
        let mut table = self.interests.table();
        for key in &self.keys {
            table.remove(key, self.id);
        }
    }
}

impl Waker {
    fn wake(&self, position: Position) {
        self.first_wanted.fetch_min(position, Ordering::SeqCst);
        self.notify.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use futures_util::FutureExt;
    use uuid::Uuid;

    use super::*;
    use crate::domain::event::StoredEvent;

    fn event(aggregate_type: &str, aggregate_id: &str, event_type: &str, global_position: Position) -> Arc<LiveEvent> {
        Arc::new(LiveEvent::new(&StoredEvent {
            event_id: Uuid::nil(),
            aggregate_type,
            aggregate_id,
            version: 1,
            global_position,
            event_type,
            event_data: "1",
            metadata: None,
            occurred_at: DateTime::UNIX_EPOCH,
            correlation_id: None,
            causation_id: None,
        }))
    }

    fn filter(
        aggregate_types: &[&str],
        aggregate_ids: &[&str],
        event_types: &[&str],
        readable: &[&str],
    ) -> EventFilter {
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        let patterns = || readable.iter().map(|text| text.parse().expect("a pattern")).collect();
        EventFilter {
            aggregate_types: texts(aggregate_types),
            aggregate_ids: texts(aggregate_ids),
            event_types: texts(event_types),
            readable: (!readable.is_empty()).then(patterns),
            ..EventFilter::default()
        }
    }

    #[test]
    fn an_event_wakes_the_subscriptions_that_may_want_it_and_no_others() {
        let events = [event("Order", "1", "Placed", 7), event("Account", "9", "Opened", 8)];
        for (filter, first_wanted) in [
            (filter(&[], &[], &[], &[]), Some(7)),
            (filter(&["Order"], &[], &[], &[]), Some(7)),
            (filter(&["Account", "Cart"], &[], &["Closed"], &[]), Some(8)),
            (filter(&["Cart"], &[], &["Placed"], &[]), None),
            (filter(&["Order"], &["2", "1"], &[], &[]), Some(7)),
            (filter(&["Order"], &["9"], &[], &[]), None),
            (filter(&[], &[], &["Opened"], &[]), Some(8)),
            (filter(&[], &[], &["Closed"], &["Order"]), None),
            (filter(&[], &[], &[], &["Cart", "Account"]), Some(8)),
            (filter(&[], &[], &[], &["Cart"]), None),
            (filter(&[], &[], &[], &["Cart*"]), Some(7)),
        ] {
            let interests = Arc::<Interests>::default();
            let interest = interests.add(&filter);
            interests.wake(&events);
            assert_eq!(interest.is_woken(), first_wanted.is_some(), "{filter:?}");
            assert_eq!(interest.woken().now_or_never().is_some(), first_wanted.is_some(), "{filter:?}");
            assert_eq!(interest.clear(), first_wanted, "{filter:?}");
            // A waker that was notified and cleared does not wake its subscription.
            assert!(interest.clear().is_none() && interest.woken().now_or_never().is_none());
            interests.wake_all();
            assert_eq!(interest.clear(), Some(0), "{filter:?}");
        }
    }

    #[test]
    fn every_event_that_a_filter_matches_wakes_its_subscription() {
        let names = ["Order", "Account", "Cart"];
        let lists: [&[&str]; 3] = [&[], &["Order"], &["Account", "Cart"]];
        for aggregate_types in lists {
            for aggregate_ids in [&[][..], &["Order", "Cart"]] {
                for event_types in lists {
                    for readable in [&[][..], &["Order"], &["Acc*", "Cart"], &["*"]] {
                        if !aggregate_ids.is_empty() && aggregate_types.len() != 1 {
                            continue;
                        }
                        let filter = filter(aggregate_types, aggregate_ids, event_types, readable);
                        let interests = Arc::<Interests>::default();
                        let interest = interests.add(&filter);
                        for n in 0..27 {
                            let event = event(names[n % 3], names[n / 3 % 3], names[n / 9], 5);
                            interests.wake(std::slice::from_ref(&event));
                            let is_woken = interest.clear().is_some();
                            assert!(is_woken || !filter.matches(&event.facts()), "{filter:?} {event:?}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn a_dropped_interest_is_removed_from_the_index() {
        let interests = Arc::<Interests>::default();
        let filters =
            [filter(&[], &[], &[], &[]), filter(&["Order"], &["1", "2"], &[], &[]), filter(&["Order"], &[], &[], &[])];
        let held: Vec<_> = filters.iter().chain(&filters).map(|filter| interests.add(filter)).collect();
        drop(held);
        let table = interests.table();
        assert!(table.any.is_empty() && table.by_aggregate_type.is_empty() && table.by_event_type.is_empty());
        assert!(table.by_stream.is_empty());
    }
}
