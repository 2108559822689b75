//! The Prometheus metrics. Each is declared once, in the registry of this process.
//!
//! The number of label values is bounded: routes are templates, and aggregate types beyond the first 200 count as
//! `other`.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use prometheus::{
    Encoder, Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder,
};

/// The number of aggregate types with a label value of their own.
const AGGREGATE_TYPES_MAX: usize = 200;
const OTHER: &str = "other";

/// Buckets from half a millisecond to ten seconds.
const SECONDS: &[f64] =
    &[0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0];
/// Buckets of append requests in one commit.
const REQUESTS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0];

/// The values of the label `result` of appends.
pub const APPEND_RESULTS: &[&str] = &[
    "written",
    "replayed",
    "version_conflict",
    "event_id_reused",
    "event_partly_known",
    "clock_skew",
    "overloaded",
    "shutting_down",
    "database_unavailable",
    "outcome_unknown",
    "internal",
];

/// The values of the label `result` of claims.
pub const CLAIM_RESULTS: &[&str] = &["claimed", "extended", "acknowledged", "released", "expired", "lost"];

/// The metrics of a process. [`Metrics::new`] has the help text of each.
pub struct Metrics {
    registry: Registry,
    events_inserted: IntCounterVec,
    /// The counters of `events_inserted`, by aggregate type.
    events_inserted_by_type: RwLock<HashMap<String, IntCounter>>,
    pub appends: IntCounterVec,
    pub append_duration_seconds: Histogram,
    pub append_batch_requests: Histogram,
    pub append_queue_length: IntGauge,
    aggregate_loads: IntCounterVec,
    aggregate_load_duration_seconds: HistogramVec,
    pub snapshots_written: IntCounter,
    snapshots_ignored: IntCounter,
    pub reducer_failures: IntCounter,
    pub head_position: IntGauge,
    pub epoch: IntGauge,
    pub log_ahead_seconds: Gauge,
    pub database_clock_ahead_seconds: Gauge,
    pub subscribers: IntGaugeVec,
    pub subscription_lag_events: IntGauge,
    pub projection_lag_events: IntGaugeVec,
    pub claims: IntCounterVec,
    pub claimed_events: IntCounter,
    pub open_claims: IntGaugeVec,
    pub parked_streams: IntGaugeVec,
    pub table_size_bytes: IntGaugeVec,
    pub partitions_ahead: IntGauge,
    pub partitions_archived: IntGauge,
    pub archive_failures: IntCounter,
    pub maintenance_last_success_timestamp_seconds: IntGauge,
    pub replica_up: IntGauge,
    pub replica_lag_events: IntGauge,
    pub replica_lag_seconds: Gauge,
    pub missing_events: IntCounter,
    pub erasures: IntCounter,
    pub erased_events: IntCounter,
    pub erasures_pending: IntGauge,
    pub oldest_pending_erasure_seconds: Gauge,
    pub archive_damage: IntCounter,
    pub keys_refused: IntCounterVec,
    pub db_pool_connections: IntGaugeVec,
    pub db_pool_acquire_seconds: Histogram,
    pub http_request_duration_seconds: HistogramVec,
}

impl Metrics {
    /// Declares and registers all metrics.
    pub fn new() -> Self {
        let registry = Registry::new();
        let declare = Declare(&registry);
        let metrics = Self {
            events_inserted: declare.counters(
                "annals_events_inserted_total",
                "Events written by this process.",
                &["aggregate_type"],
            ),
            events_inserted_by_type: RwLock::default(),
            appends: declare.counters("annals_appends_total", "Append requests by their result.", &["result"]),
            append_duration_seconds: declare.histogram(
                "annals_append_duration_seconds",
                "Time from queueing an append request to its result.",
                SECONDS,
            ),
            append_batch_requests: declare.histogram(
                "annals_append_batch_requests",
                "Append requests in one commit.",
                REQUESTS,
            ),
            append_queue_length: declare
                .gauge("annals_append_queue_length", "Append requests in the queue of the writer."),
            aggregate_loads: declare.counters(
                "annals_aggregate_loads_total",
                "Loads of aggregates by whether a snapshot was used.",
                &["snapshot"],
            ),
            aggregate_load_duration_seconds: declare.histograms(
                "annals_aggregate_load_duration_seconds",
                "Time to load an aggregate, by whether a snapshot was used.",
                SECONDS,
                &["snapshot"],
            ),
            snapshots_written: declare.counter("annals_snapshots_written_total", "Snapshots that were stored."),
            reducer_failures: declare
                .counter("annals_reducer_failures_total", "Folds that failed because the reducer failed for an event."),
            snapshots_ignored: declare
                .counter("annals_snapshots_ignored_total", "Loads that ignored a snapshot because it was not usable."),
            head_position: declare
                .gauge("annals_head_position", "Highest position of the log that this process has seen."),
            epoch: declare
                .gauge("annals_epoch", "Epoch of the log. It changes when the end of the log may have been lost."),
            log_ahead_seconds: declare.float_gauge(
                "annals_log_ahead_seconds",
                "How far the time of the last event is ahead of the clock of the service; 0 if it is not.",
            ),
            database_clock_ahead_seconds: declare.float_gauge(
                "annals_database_clock_ahead_seconds",
                "How far the clock of PostgreSQL is ahead of the clock of the service; negative if it is behind.",
            ),
            subscribers: declare.gauges("annals_subscribers", "Open event streams and long polls.", &["transport"]),
            subscription_lag_events: declare.gauge(
                "annals_subscription_lag_events",
                "Number of events that the slowest open event stream is behind the head of the log.",
            ),
            projection_lag_events: declare.gauges(
                "annals_projection_lag_events",
                "Number of events between a projection's position and the head of the log.",
                &["projection"],
            ),
            claims: declare.counters(
                "annals_claims_total",
                "Claims of consumer groups that this process has handed out, extended or ended, by result.",
                &["result"],
            ),
            claimed_events: declare
                .counter("annals_claimed_events_total", "Events that this process has handed out in claims."),
            open_claims: declare.gauges(
                "annals_open_claims",
                "Claims of a consumer group that are not acknowledged yet.",
                &["group"],
            ),
            parked_streams: declare.gauges(
                "annals_parked_streams",
                "Parked streams of a consumer group, by whether they are tried again or an operator decides.",
                &["group", "retry"],
            ),
            table_size_bytes: declare.gauges(
                "annals_table_size_bytes",
                "Bytes of a table by part: heap, index, toast. The partitions of events count as one table.",
                &["table", "part"],
            ),
            partitions_ahead: declare
                .gauge("annals_partitions_ahead", "Partitions that exist for months after the current one."),
            partitions_archived: declare
                .gauge("annals_partitions_archived", "Partitions that are read from the archive."),
            archive_failures: declare
                .counter("annals_archive_failures_total", "Failed attempts to archive a partition."),
            maintenance_last_success_timestamp_seconds: declare.gauge(
                "annals_maintenance_last_success_timestamp_seconds",
                "Unix time at which maintenance last succeeded.",
            ),
            replica_up: declare.gauge(
                "annals_replica_up",
                "1 while the read replica serves reads, 0 while the primary serves them instead of it.",
            ),
            replica_lag_seconds: declare.float_gauge(
                "annals_replica_lag_seconds",
                "Time for which the primary has had something that the read replica does not have yet.",
            ),
            replica_lag_events: declare
                .gauge("annals_replica_lag_events", "Number of events that the read replica is behind the primary."),
            missing_events: declare.counter(
                "annals_missing_events_total",
                "Reads that did not find an event that must exist. Any increase means that the log is damaged.",
            ),
            erasures: declare.counter("annals_erasures_total", "Erasures that this process has made."),
            erased_events: declare.counter(
                "annals_erased_events_total",
                "Events whose content this process has erased, wholly or in part.",
            ),
            erasures_pending: declare.gauge(
                "annals_erasures_pending",
                "Erasures whose content is hidden, and not removed from all files yet.",
            ),
            oldest_pending_erasure_seconds: declare.float_gauge(
                "annals_oldest_pending_erasure_seconds",
                "Age of the oldest erasure whose content is not removed from all files; 0 if there is none.",
            ),
            archive_damage: declare.counter(
                "annals_archive_damage_total",
                "Reads that found files of the archive that differ from what was written, and were refused.",
            ),
            keys_refused: declare.counters(
                "annals_keys_refused_total",
                "Requests rejected by authentication, authorization or rate limiting.",
                &["code"],
            ),
            db_pool_connections: declare.gauges(
                "annals_db_pool_connections",
                "Connections of the read pool by state.",
                &["state"],
            ),
            db_pool_acquire_seconds: declare.histogram(
                "annals_db_pool_acquire_seconds",
                "Time to acquire a connection of the read pool.",
                SECONDS,
            ),
            http_request_duration_seconds: declare.histograms(
                "annals_http_request_duration_seconds",
                "Time from the head of a request to the head of its response.",
                SECONDS,
                &["method", "route", "status"],
            ),
            registry: registry.clone(),
        };
        declare
            .gauges("annals_build_info", "The version of this build; the value is always 1.", &["version"])
            .with_label_values(&[env!("CARGO_PKG_VERSION")])
            .set(1);
        #[cfg(target_os = "linux")]
        declare.register(prometheus::process_collector::ProcessCollector::for_self());
        // The series exist before their first increment, so that alerts can use them.
        for result in APPEND_RESULTS {
            metrics.appends.with_label_values(&[*result]).inc_by(0);
        }
        for result in CLAIM_RESULTS {
            metrics.claims.with_label_values(&[*result]).inc_by(0);
        }
        for result in ["hit", "miss"] {
            metrics.aggregate_loads.with_label_values(&[result]).inc_by(0);
        }
        for code in ["unauthenticated", "forbidden", "quota_exceeded"] {
            metrics.keys_refused.with_label_values(&[code]).inc_by(0);
        }
        metrics
    }

    /// Counts written events of a type.
    pub fn count_inserted(&self, aggregate_type: &str, events: u64) {
        let counters = self.events_inserted_by_type.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(counter) = counters.get(aggregate_type) {
            return counter.inc_by(events);
        }
        drop(counters);
        let mut counters = self.events_inserted_by_type.write().unwrap_or_else(PoisonError::into_inner);
        let label = if counters.len() < AGGREGATE_TYPES_MAX { aggregate_type } else { OTHER };
        let counter = self.events_inserted.with_label_values(&[label]);
        counter.inc_by(events);
        if label != OTHER {
            counters.insert(label.to_owned(), counter);
        }
    }

    /// Counts a load or a fold: whether it used a snapshot, whether it ignored an unusable one, and its duration.
    pub fn count_load(&self, used_snapshot: bool, unusable_snapshot: bool, took: Duration) {
        let hit = if used_snapshot { "hit" } else { "miss" };
        self.aggregate_loads.with_label_values(&[hit]).inc();
        self.aggregate_load_duration_seconds.with_label_values(&[hit]).observe(took.as_secs_f64());
        self.snapshots_ignored.inc_by(u64::from(unusable_snapshot));
    }

    /// Renders all metrics in the text format of Prometheus.
    pub fn render(&self) -> Result<Vec<u8>, prometheus::Error> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// Declares and registers metrics. A wrong or duplicate declaration is a defect that fails every test.
struct Declare<'r>(&'r Registry);

impl Declare<'_> {
    fn register<C: prometheus::core::Collector + 'static>(&self, collector: C) {
        self.0.register(Box::new(collector)).expect("each metric is declared once");
    }

    fn registered<C: prometheus::core::Collector + Clone + 'static>(&self, created: prometheus::Result<C>) -> C {
        let collector = created.expect("names and labels are well-formed");
        self.register(collector.clone());
        collector
    }

    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.registered(IntCounterVec::new(Opts::new(name, help), labels))
    }

    fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.registered(IntCounter::new(name, help))
    }

    fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.registered(IntGauge::new(name, help))
    }

    fn float_gauge(&self, name: &str, help: &str) -> Gauge {
        self.registered(Gauge::new(name, help))
    }

    fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        self.registered(IntGaugeVec::new(Opts::new(name, help), labels))
    }

    fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> Histogram {
        self.registered(Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec())))
    }

    fn histograms(&self, name: &str, help: &str, buckets: &[f64], labels: &[&str]) -> HistogramVec {
        self.registered(HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets.to_vec()), labels))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aggregate_types_beyond_the_first_two_hundred_count_as_other() {
        let metrics = Metrics::new();
        for n in 0..250 {
            metrics.count_inserted(&format!("Type{n}"), 1);
        }
        metrics.count_inserted("Type0", 1);
        let text = String::from_utf8(metrics.render().expect("it renders")).expect("text");
        let series: Vec<_> = text.lines().filter(|line| line.starts_with("annals_events_inserted_total{")).collect();
        assert_eq!(series.len(), 201);
        assert!(series.contains(&"annals_events_inserted_total{aggregate_type=\"other\"} 50"));
        assert!(series.contains(&"annals_events_inserted_total{aggregate_type=\"Type0\"} 2"));
    }
}
