//! Samples of the positions of projections, in bounded memory.
//!
//! The samples of the last hour are ten seconds apart, and those of the 23 hours before are a minute apart. All
//! projections are sampled together, so a projection's sample is one number: at most 14 KiB for each projection, and
//! 140 MiB for the 10,000 that a store may have.

use std::collections::{HashMap, VecDeque};

use chrono::{DateTime, Utc};

use crate::domain::event::Position;

/// The number of samples of the last hour.
const RECENT_MAX: usize = 360;
/// One of this number of older samples is retained.
const OLDER_EVERY: usize = 6;
/// The number of retained samples before the last hour.
const OLDER_MAX: usize = 1_380;
/// The memory of a ring grows by this number of samples.
const GROWTH: usize = 60;

/// A sample of one projection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    pub at: DateTime<Utc>,
    /// The head of the log at that time.
    pub head: Position,
    pub position: Position,
}

/// The samples of one value, in order.
#[derive(Debug)]
struct Ring<T> {
    recent: VecDeque<T>,
    older: VecDeque<T>,
}

/// The samples of all projections.
#[derive(Debug, Default)]
pub struct Samples {
    /// The number of times at which the projections were sampled.
    number: usize,
    /// The times, and the head of the log at each.
    times: Ring<(DateTime<Utc>, Position)>,
    /// The positions of each existing projection since its first sample, which end with the last time.
    positions: HashMap<String, Ring<Position>>,
}

impl<T> Default for Ring<T> {
    fn default() -> Self {
        Self { recent: VecDeque::new(), older: VecDeque::new() }
    }
}

impl<T: Copy> Ring<T> {
    /// Adds the value of the sample with this number. All rings drop the samples with the same numbers.
    fn push(&mut self, number: usize, value: T) {
        if self.recent.len() == RECENT_MAX
            && let Some(oldest) = self.recent.pop_front()
            && (number - RECENT_MAX).is_multiple_of(OLDER_EVERY)
        {
            if self.older.len() == OLDER_MAX {
                self.older.pop_front();
            }
            push_back(&mut self.older, oldest);
        }
        push_back(&mut self.recent, value);
    }

    /// Returns the values, the newest first.
    fn newest_first(&self) -> impl Iterator<Item = T> {
        self.recent.iter().rev().chain(self.older.iter().rev()).copied()
    }

    fn is_full(&self) -> bool {
        self.older.len() == OLDER_MAX
    }
}

/// Adds a value. Otherwise the memory would grow to twice the number of values.
fn push_back<T>(values: &mut VecDeque<T>, value: T) {
    if values.len() == values.capacity() {
        values.reserve_exact(GROWTH);
    }
    values.push_back(value);
}

impl Samples {
    /// Adds the positions of all projections at a time. A second sample of the same time is ignored.
    pub fn add(&mut self, at: DateTime<Utc>, head: Position, positions: impl IntoIterator<Item = (String, Position)>) {
        if self.times.recent.back().is_some_and(|(last, _)| *last == at) {
            return;
        }
        self.times.push(self.number, (at, head));
        // The samples of projections that do not exist any more are dropped.
        let mut known = std::mem::take(&mut self.positions);
        for (projection_name, position) in positions {
            let mut ring = known.remove(&projection_name).unwrap_or_default();
            ring.push(self.number, position);
            self.positions.insert(projection_name, ring);
        }
        self.number += 1;
    }

    /// Returns the samples of a projection, in order.
    pub fn of(&self, projection_name: &str) -> Vec<Sample> {
        let Some(positions) = self.positions.get(projection_name) else { return Vec::new() };
        let sample = |((at, head), position)| Sample { at, head, position };
        let mut samples: Vec<_> = self.times.newest_first().zip(positions.newest_first()).map(sample).collect();
        samples.reverse();
        samples
    }

    /// Returns the time of the oldest sample if older ones were dropped.
    pub fn dropped_before(&self) -> Option<DateTime<Utc>> {
        self.times.older.front().filter(|_| self.times.is_full()).map(|(at, _)| *at)
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    fn at(number: usize) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::seconds(10 * i64::try_from(number).expect("a small number"))
    }

    fn position(number: usize) -> Position {
        Position::try_from(number).expect("a small number")
    }

    /// Adds samples of the projection `all`, and of `late` from number 1000 on, whose positions are the numbers.
    fn sampled(count: usize) -> Samples {
        let mut samples = Samples::default();
        for number in 0..count {
            let names = ["all", "late"].into_iter().take(if number < 1_000 { 1 } else { 2 });
            let positions = names.map(|name| (name.to_owned(), position(number)));
            samples.add(at(number), position(number) + 1, positions);
        }
        samples
    }

    fn numbers(samples: &Samples, projection_name: &str) -> Vec<usize> {
        let of_projection = samples.of(projection_name).into_iter().map(|sample| {
            assert_eq!((sample.at, sample.head), (at(sample.position as usize), sample.position + 1));
            sample.position as usize
        });
        of_projection.collect()
    }

    #[test]
    fn samples_are_ten_seconds_apart_for_an_hour_and_a_minute_apart_for_a_day() {
        let samples = sampled(360);
        assert_eq!(numbers(&samples, "all"), (0..360).collect::<Vec<_>>());
        let samples = sampled(362);
        assert_eq!(numbers(&samples, "all"), [vec![0], (2..362).collect()].concat());
        let samples = sampled(1_000 + 400);
        let older: Vec<_> = (0..1_040).step_by(6).collect();
        assert_eq!(numbers(&samples, "all"), [older, (1_040..1_400).collect()].concat());
        // A projection that was created later has the same times since then.
        let older: Vec<_> = (1_002..1_040).step_by(6).collect();
        assert_eq!(numbers(&samples, "late"), [older, (1_040..1_400).collect()].concat());
        assert_eq!(samples.dropped_before(), None);
        let samples = sampled(12_000);
        let older: Vec<_> = (0..11_640).step_by(6).collect();
        let older = older[older.len() - OLDER_MAX..].to_vec();
        assert_eq!(samples.dropped_before(), Some(at(older[0])));
        assert_eq!(numbers(&samples, "late"), [older, (11_640..12_000).collect()].concat());
    }

    #[test]
    fn the_memory_of_a_projection_is_bounded() {
        let samples = sampled(12_000);
        for ring in samples.positions.values() {
            let capacity = ring.recent.capacity() + ring.older.capacity();
            assert!(capacity <= RECENT_MAX + OLDER_MAX + 2 * GROWTH, "{capacity}");
        }
    }

    #[test]
    fn a_deleted_projection_has_no_samples_and_a_time_is_sampled_once() {
        let mut samples = Samples::default();
        samples.add(at(0), 5, [("a".to_owned(), 1), ("b".to_owned(), 2)]);
        samples.add(at(0), 6, [("a".to_owned(), 3)]);
        assert_eq!(samples.of("a"), [Sample { at: at(0), head: 5, position: 1 }]);
        samples.add(at(1), 6, [("b".to_owned(), 3)]);
        assert!(samples.of("a").is_empty());
        assert_eq!(samples.of("b").len(), 2);
        samples.add(at(2), 6, [("a".to_owned(), 0)]);
        assert_eq!(samples.of("a"), [Sample { at: at(2), head: 6, position: 0 }]);
        assert_eq!((samples.of("b"), samples.of("c")), (Vec::new(), Vec::new()));
    }
}
