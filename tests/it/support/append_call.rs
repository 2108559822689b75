//! No promise: calls of the append procedures and of their functions, in named notation. Tests use them to control the
//! session, the transaction and the cache of the caller.

use chrono::{DateTime, Utc};
use sqlx::Row;
use sqlx::postgres::PgRow;

use super::id;

/// The values that the writer caches after an append: the generation, the end of the log, and the stream of the append.
#[derive(Debug, Clone)]
pub struct Cache {
    pub generation: i64,
    pub log_position: i64,
    pub log_time: DateTime<Utc>,
    pub open_from: DateTime<Utc>,
    /// The number and the version of the stream; `None`: the caller does not know the stream.
    pub stream: Option<(i64, i32)>,
}

impl Cache {
    /// Returns the cache after an append, without the stream of the append.
    pub fn from_row(row: &PgRow) -> Self {
        Self {
            generation: row.get("generation"),
            log_position: row.get("log_position"),
            log_time: row.get("log_time"),
            open_from: row.get("open_from"),
            stream: None,
        }
    }
}

/// The two procedures that append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Procedure {
    /// `append_event`, for a single event.
    Single,
    /// `append_events`, for a batch.
    Batch,
}

impl Procedure {
    pub const ALL: [Self; 2] = [Self::Single, Self::Batch];
}

/// An append of one event.
#[derive(Debug, Clone)]
pub struct AppendCall {
    pub procedure: Procedure,
    pub aggregate_type: &'static str,
    pub aggregate_id: String,
    /// The expected version in the encoding of the procedure; [`AppendCall::ANY`] is any version.
    pub expected: i32,
    /// The event id, as an SQL expression.
    pub event_id: String,
    /// The time of the test clock; `None`: the clock of PostgreSQL.
    pub now: Option<&'static str>,
    pub cache: Option<Cache>,
}

impl AppendCall {
    /// The encoding of an expected version that every version satisfies.
    pub const ANY: i32 = -1;

    /// Creates an append to a stream of orders, by a caller whose cache is empty.
    pub fn new(procedure: Procedure, aggregate_id: impl Into<String>, expected: i32, event: u32) -> Self {
        Self {
            procedure,
            aggregate_type: "Order",
            aggregate_id: aggregate_id.into(),
            expected,
            event_id: format!("'{}'", id(event)),
            now: None,
            cache: None,
        }
    }

    /// Returns the parameters, which are the same for the procedure and for the function.
    fn parameters(&self) -> Vec<String> {
        let Self { aggregate_type, aggregate_id, expected, event_id, now, cache, .. } = self;
        let null = || "NULL".to_owned();
        let cached = |value: fn(&Cache) -> String| cache.as_ref().map_or_else(null, value);
        let stream = cache.as_ref().and_then(|cache| cache.stream);
        let stream_no = stream.map(|(stream_no, _)| stream_no);
        let head = stream.map(|(_, head)| head);
        let named = |name: &str, value: String| format!("{name} => {value}");
        let mut parameters = match self.procedure {
            Procedure::Single => vec![
                named("p_aggregate_type", format!("'{aggregate_type}'")),
                named("p_aggregate_id", format!("'{aggregate_id}'")),
                named("p_expected", expected.to_string()),
                named("p_event_id", event_id.clone()),
                named("p_event_type", "'Happened'".to_owned()),
                named("p_event_data", "'{}'".to_owned()),
                named("p_metadata", null()),
                named("p_correlation_id", null()),
                named("p_causation_id", null()),
                named("p_id_is_new", "false".to_owned()),
                named("p_stream_head", head.map_or_else(null, |head| head.to_string())),
                named("p_stream_no", stream_no.map_or_else(null, |stream_no| stream_no.to_string())),
            ],
            Procedure::Batch => vec![
                named("p_stream_types", format!("ARRAY['{aggregate_type}']")),
                named("p_stream_ids", format!("ARRAY['{aggregate_id}']")),
                named("p_stream_offsets", "ARRAY[0]".to_owned()),
                named("p_request_appends", "ARRAY[1]".to_owned()),
                named("p_append_streams", "ARRAY[1]".to_owned()),
                named("p_append_expected", format!("ARRAY[{expected}]")),
                named("p_append_offsets", "ARRAY[0]".to_owned()),
                named("p_append_earlier", "ARRAY[0]".to_owned()),
                named("p_event_appends", "ARRAY[1]".to_owned()),
                named("p_event_offsets", "ARRAY[0]".to_owned()),
                named("p_event_ids", format!("ARRAY[{event_id}]::uuid[]")),
                named("p_event_types", "ARRAY['Happened']".to_owned()),
                named("p_event_data", "ARRAY['{}']::jsonb[]".to_owned()),
                named("p_metadata", null()),
                named("p_correlation_ids", null()),
                named("p_causation_ids", null()),
                named("p_event_times", null()),
                named("p_ids_are_new", "false".to_owned()),
                named("p_stream_heads", head.map_or_else(null, |head| format!("ARRAY[{head}]"))),
                named("p_stream_nos", stream_no.map_or_else(null, |stream_no| format!("ARRAY[{stream_no}]::bigint[]"))),
            ],
        };
        parameters.extend([
            named("p_position_floor", "0".to_owned()),
            named("p_service_time", null()),
            named("p_now", now.map_or_else(null, |now| format!("'{now}'"))),
            named("p_last_generation", cached(|cache| cache.generation.to_string())),
            named("p_log_position", cached(|cache| cache.log_position.to_string())),
            named("p_log_time", cached(|cache| format!("'{}'", cache.log_time.to_rfc3339()))),
            named("p_open_from", cached(|cache| format!("'{}'", cache.open_from.to_rfc3339()))),
        ]);
        parameters
    }

    /// Returns a call of the procedure, which commits. The writer sends the same call.
    pub fn to_procedure(&self) -> String {
        const SINGLE: [&str; 7] =
            ["stream_no", "generation", "log_position", "log_time", "open_from", "epoch", "version"];
        const BATCH: [&str; 14] = [
            "stream_nos",
            "generation",
            "log_position",
            "log_time",
            "open_from",
            "epoch",
            "request_outcomes",
            "append_first_versions",
            "append_first_positions",
            "append_current_versions",
            "event_versions",
            "event_positions",
            "event_times",
            "written_at",
        ];
        let (name, results) = match self.procedure {
            Procedure::Single => ("append_event", SINGLE.as_slice()),
            Procedure::Batch => ("append_events", BATCH.as_slice()),
        };
        let results = results.iter().map(|result| format!("{result} => NULL"));
        format!("CALL {name}({})", self.parameters().into_iter().chain(results).collect::<Vec<_>>().join(", "))
    }

    /// Returns a call of the function, which does not commit.
    pub fn to_function(&self) -> String {
        let name = match self.procedure {
            Procedure::Single => "append_event_locked",
            Procedure::Batch => "append_events_locked",
        };
        format!("SELECT * FROM {name}({})", self.parameters().join(", "))
    }

    /// Returns the version and the position of the event in the result; `None`: nothing was written.
    pub fn written(&self, row: &PgRow) -> Option<(i32, i64)> {
        match self.procedure {
            Procedure::Single => Some((row.get::<Option<i32>, _>("version")?, row.get("log_position"))),
            Procedure::Batch => {
                let versions: Vec<i32> = row.get("append_first_versions");
                let positions: Vec<i64> = row.get("append_first_positions");
                (row.get::<Vec<i32>, _>("request_outcomes")[0] == 0).then(|| (versions[0], positions[0]))
            }
        }
    }

    /// Returns the number of the stream in the result.
    pub fn stream_no(&self, row: &PgRow) -> i64 {
        match self.procedure {
            Procedure::Single => row.get("stream_no"),
            Procedure::Batch => row.get::<Vec<i64>, _>("stream_nos")[0],
        }
    }
}

/// Returns the SQLSTATE of an error that PostgreSQL reports.
pub fn sqlstate(error: &sqlx::Error) -> Option<String> {
    error.as_database_error().and_then(|error| error.code().map(|code| code.into_owned()))
}
