//! Measures the parts of a request that need no database: `cargo bench`. `annals-bench` measures the whole service.

use std::hint::black_box;

use annals::domain::event::StoredEvent;
use annals::domain::filter::EventFilter;
use annals::domain::json::inspect;
use annals::http::cache::etag;
use annals::http::extract::conditional::expected_version;
use annals::reducers::canonical::canonical;
use annals::reducers::merge_patch::MergePatchFold;
use annals::wire::event::write_event;
use axum::http::{HeaderMap, HeaderValue, header};
use chrono::DateTime;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use serde_json::value::RawValue;
use uuid::Uuid;

/// The `event_data` of the events that `annals-bench` appends, about 250 bytes.
const EVENT_DATA: &str = concat!(
    r#"{"order":"ord-000000000000","customer":"cus-000000000000","currency":"EUR","total":1234.56,"#,
    r#""lines":[{"sku":"A-100001","quantity":2,"price":499.99},{"sku":"B-200002","quantity":1,"price":234.58}],"#,
    r#""note":"leave it with the neighbours at number 12"}"#,
);

fn event() -> StoredEvent<'static> {
    StoredEvent {
        event_id: Uuid::from_u128(0x0193_5b2c_7a1e_7000_8000_0000_0000_0001),
        aggregate_type: "Order",
        aggregate_id: "ord-000000000000",
        version: 101,
        global_position: 1_234_567,
        event_type: "OrderPlaced",
        event_data: EVENT_DATA,
        metadata: None,
        occurred_at: DateTime::from_timestamp_micros(1_760_000_000_123_456).expect("a time"),
        correlation_id: Some(Uuid::from_u128(7)),
        causation_id: None,
    }
}

fn validation(criterion: &mut Criterion) {
    let document = serde_json::from_str::<&RawValue>(EVENT_DATA).expect("JSON");
    let mut group = criterion.benchmark_group("validation");
    group.throughput(Throughput::Bytes(EVENT_DATA.len() as u64));
    group.bench_function("inspect a document", |bencher| bencher.iter(|| inspect(black_box(document))));
    group.bench_function("canonical form, for the state of a reducer", |bencher| {
        bencher.iter(|| {
            let mut out = String::new();
            canonical(black_box(document), &mut out).expect("JSON");
            out
        });
    });
    group.finish();
}

fn serialisation(criterion: &mut Criterion) {
    let event = event();
    let mut out = Vec::with_capacity(1_024);
    criterion.bench_function("serialisation/write an event", |bencher| {
        bencher.iter(|| {
            out.clear();
            write_event(&mut out, black_box(&event));
        });
    });
}

fn folding(criterion: &mut Criterion) {
    const EVENTS: u64 = 50;
    let event = event();
    let mut group = criterion.benchmark_group("fold");
    group.throughput(Throughput::Elements(EVENTS));
    group.bench_function("merge patches of 50 events", |bencher| {
        bencher.iter(|| {
            let mut fold = MergePatchFold::from_state(None).expect("an empty state");
            for _ in 0..EVENTS {
                fold.apply(black_box(&event)).expect("the state is small");
            }
            fold.state()
        });
    });
    group.finish();
}

fn preconditions(criterion: &mut Criterion) {
    let mut headers = HeaderMap::new();
    headers.insert(header::IF_MATCH, HeaderValue::from_static("\"41\""));
    criterion.bench_function("etag/parse If-Match", |bencher| bencher.iter(|| expected_version(black_box(&headers))));
    criterion.bench_function("etag/format", |bencher| bencher.iter(|| etag(black_box(42_i64))));
}

fn filters(criterion: &mut Criterion) {
    let event = event();
    let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let filter = EventFilter {
        aggregate_types: owned(&["Invoice", "Order"]),
        event_types: owned(&["OrderShipped", "OrderCancelled", "OrderPlaced"]),
        ..EventFilter::default()
    };
    criterion.bench_function("filter/types of an event", |bencher| {
        bencher.iter(|| filter.matches(&black_box(&event).facts()));
    });
}

criterion_group!(parts, validation, serialisation, folding, preconditions, filters);
criterion_main!(parts);
