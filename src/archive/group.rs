//! A row group: up to some thousand events, column by column.
//!
//! The columns have types that every reader of Parquet supports: strings for ids and JSON, 64-bit microseconds for the
//! time.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, LazyLock};

use chrono::{DateTime, Utc};
use parquet::basic::{LogicalType, Repetition, TimeUnit, Type as PhysicalType};
use parquet::column::reader::{ColumnReader, get_typed_column_reader};
use parquet::data_type::{ByteArray, ByteArrayType, DataType, Int32Type, Int64Type};
use parquet::errors::{ParquetError, Result};
use parquet::file::reader::RowGroupReader;
use parquet::file::writer::SerializedRowGroupWriter;
use parquet::schema::types::{Type, TypePtr};
use uuid::Uuid;

use crate::archive::error::ArchiveError;
use crate::domain::erasure::ErasedContent;
use crate::domain::event::{Position, StoredEvent};
use crate::domain::name::StreamId;
use crate::domain::version::Version;

/// The columns, in the order of the table's.
const COLUMNS: [&str; 11] = [
    "event_id",
    "aggregate_type",
    "aggregate_id",
    "version",
    "event_type",
    "event_data",
    "metadata",
    "occurred_at",
    "correlation_id",
    "causation_id",
    "global_position",
];

/// Returns the index of a column in the schema.
pub(super) fn column(name: &str) -> usize {
    COLUMNS.iter().position(|column| *column == name).expect("a column of this name")
}

/// The Parquet schema of a file.
pub(super) static SCHEMA: LazyLock<TypePtr> = LazyLock::new(|| {
    let text = |name| (name, PhysicalType::BYTE_ARRAY, Some(LogicalType::String));
    let time = LogicalType::timestamp(true, TimeUnit::MICROS);
    let fields = COLUMNS.iter().map(|&name| {
        let (name, physical, logical) = match name {
            "version" => (name, PhysicalType::INT32, None),
            "global_position" => (name, PhysicalType::INT64, None),
            "occurred_at" => (name, PhysicalType::INT64, Some(time.clone())),
            name => text(name),
        };
        let optional = matches!(name, "metadata" | "correlation_id" | "causation_id");
        let repetition = if optional { Repetition::OPTIONAL } else { Repetition::REQUIRED };
        let field = Type::primitive_type_builder(name, physical).with_repetition(repetition);
        Arc::new(field.with_logical_type(logical).build().expect("a column is well-formed"))
    });
    let fields = fields.collect();
    Arc::new(Type::group_type_builder("event").with_fields(fields).build().expect("the schema is well-formed"))
});

/// Events, column by column.
#[derive(Clone, Default)]
pub struct EventGroup {
    event_id: Vec<ByteArray>,
    aggregate_type: Vec<ByteArray>,
    aggregate_id: Vec<ByteArray>,
    version: Vec<Version>,
    event_type: Vec<ByteArray>,
    event_data: Vec<ByteArray>,
    metadata: Vec<Option<ByteArray>>,
    occurred_at: Vec<i64>,
    correlation_id: Vec<Option<ByteArray>>,
    causation_id: Vec<Option<ByteArray>>,
    global_position: Vec<Position>,
    bytes: usize,
}

impl EventGroup {
    /// Returns the number of events.
    pub fn len(&self) -> usize {
        self.version.len()
    }

    /// Returns whether the group has no events.
    pub fn is_empty(&self) -> bool {
        self.version.is_empty()
    }

    /// Returns the size of `event_data` and `metadata` of all added events, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds an event.
    pub(super) fn push(&mut self, event: &StoredEvent<'_>) {
        let id = |id: Uuid| ByteArray::from(id.to_string().into_bytes());
        let text = |text: &str| ByteArray::from(text.as_bytes().to_vec());
        self.event_id.push(id(event.event_id));
        self.aggregate_type.push(text(event.aggregate_type));
        self.aggregate_id.push(text(event.aggregate_id));
        self.version.push(event.version);
        self.event_type.push(text(event.event_type));
        self.event_data.push(text(event.event_data));
        self.metadata.push(event.metadata.map(text));
        self.occurred_at.push(event.occurred_at.timestamp_micros());
        self.correlation_id.push(event.correlation_id.map(id));
        self.causation_id.push(event.causation_id.map(id));
        self.global_position.push(event.global_position);
        self.bytes += event.payload_bytes();
    }

    /// Returns the event at index `n`.
    pub fn event(&self, n: usize) -> std::result::Result<StoredEvent<'_>, ArchiveError> {
        self.decode_event(n).map_err(|error| ArchiveError::InvalidEvent(error.to_string()))
    }

    fn decode_event(&self, n: usize) -> Result<StoredEvent<'_>> {
        let occurred_at = DateTime::<Utc>::from_timestamp_micros(self.occurred_at[n]);
        Ok(StoredEvent {
            event_id: uuid(&self.event_id[n])?,
            aggregate_type: text(&self.aggregate_type[n])?,
            aggregate_id: text(&self.aggregate_id[n])?,
            version: self.version[n],
            global_position: self.global_position[n],
            event_type: text(&self.event_type[n])?,
            event_data: text(&self.event_data[n])?,
            metadata: self.metadata[n].as_ref().map(text).transpose()?,
            occurred_at: occurred_at.ok_or_else(|| ParquetError::General("occurred_at is out of range".to_owned()))?,
            correlation_id: self.correlation_id[n].as_ref().map(uuid).transpose()?,
            causation_id: self.causation_id[n].as_ref().map(uuid).transpose()?,
        })
    }

    /// Returns the index of the first event after a position. The group must be in the order of the log.
    pub fn first_after(&self, position: Position) -> usize {
        self.global_position.partition_point(|known| *known <= position)
    }

    /// Returns the position of the event at index `n`; `None` if the group has no such event.
    pub fn position(&self, n: usize) -> Option<Position> {
        self.global_position.get(n).copied()
    }

    /// Returns the position of the last event before a time; `None` if there is none. The group must be in the order of
    /// the log.
    pub fn last_position_before(&self, time: DateTime<Utc>) -> Option<Position> {
        let micros = time.timestamp_micros();
        let later = self.occurred_at.partition_point(|known| *known < micros);
        self.position(later.checked_sub(1)?)
    }

    /// Returns the indexes of the events of a stream. The group must be sorted by aggregate.
    pub fn rows_of(&self, stream: &StreamId) -> Range<usize> {
        let wanted = (stream.aggregate_type().as_bytes(), stream.aggregate_id().as_bytes());
        let is_before = |at: usize, included: bool| {
            let known = (self.aggregate_type[at].data(), self.aggregate_id[at].data());
            known < wanted || included && known == wanted
        };
        let bound = |included| {
            let (mut low, mut high) = (0, self.len());
            while low < high {
                let middle = usize::midpoint(low, high);
                if is_before(middle, included) { low = middle + 1 } else { high = middle }
            }
            low
        };
        bound(false)..bound(true)
    }

    /// Returns a copy in which the content of some events is erased; `None` if the group has none of them.
    pub fn without(
        &self,
        erased: &HashMap<Position, ErasedContent>,
    ) -> std::result::Result<Option<Self>, ArchiveError> {
        let invalid = |error: ParquetError| ArchiveError::InvalidEvent(error.to_string());
        let found = (0..self.len()).filter_map(|n| Some((n, erased.get(&self.global_position[n])?)));
        let found: Vec<_> = found.collect();
        if found.is_empty() {
            return Ok(None);
        }
        let mut copy = self.clone();
        for (n, content) in found {
            let event_data = content.erase_event_data(text(&self.event_data[n]).map_err(invalid)?);
            let metadata = self.metadata[n].as_ref().map(text).transpose().map_err(invalid)?;
            copy.event_data[n] = ByteArray::from(event_data.into_bytes());
            copy.metadata[n] = content.erase_metadata(metadata).map(|erased| ByteArray::from(erased.into_bytes()));
        }
        Ok(Some(copy))
    }

    /// Encodes the events as a row group.
    pub(super) fn write<W: std::io::Write + Send>(&self, mut group: SerializedRowGroupWriter<'_, W>) -> Result<()> {
        let texts = [&self.event_id, &self.aggregate_type, &self.aggregate_id];
        for column in texts {
            write_column::<ByteArrayType, W>(&mut group, column, None)?;
        }
        write_column::<Int32Type, W>(&mut group, &self.version, None)?;
        write_column::<ByteArrayType, W>(&mut group, &self.event_type, None)?;
        write_column::<ByteArrayType, W>(&mut group, &self.event_data, None)?;
        write_optional(&mut group, &self.metadata)?;
        write_column::<Int64Type, W>(&mut group, &self.occurred_at, None)?;
        write_optional(&mut group, &self.correlation_id)?;
        write_optional(&mut group, &self.causation_id)?;
        write_column::<Int64Type, W>(&mut group, &self.global_position, None)?;
        group.close()?;
        Ok(())
    }

    /// Decodes a row group.
    pub(super) fn read(reader: &dyn RowGroupReader) -> Result<Self> {
        let rows = usize::try_from(reader.metadata().num_rows()).unwrap_or(0);
        let columns = |name| reader.get_column_reader(column(name));
        let group = Self {
            event_id: read_column::<ByteArrayType>(columns("event_id")?, rows)?,
            aggregate_type: read_column::<ByteArrayType>(columns("aggregate_type")?, rows)?,
            aggregate_id: read_column::<ByteArrayType>(columns("aggregate_id")?, rows)?,
            version: read_column::<Int32Type>(columns("version")?, rows)?,
            event_type: read_column::<ByteArrayType>(columns("event_type")?, rows)?,
            event_data: read_column::<ByteArrayType>(columns("event_data")?, rows)?,
            metadata: read_optional(columns("metadata")?, rows)?,
            occurred_at: read_column::<Int64Type>(columns("occurred_at")?, rows)?,
            correlation_id: read_optional(columns("correlation_id")?, rows)?,
            causation_id: read_optional(columns("causation_id")?, rows)?,
            global_position: read_column::<Int64Type>(columns("global_position")?, rows)?,
            bytes: 0,
        };
        Ok(group)
    }
}

fn text(bytes: &ByteArray) -> Result<&str> {
    std::str::from_utf8(bytes.data()).map_err(|error| ParquetError::General(error.to_string()))
}

fn uuid(bytes: &ByteArray) -> Result<Uuid> {
    Uuid::try_parse_ascii(bytes.data()).map_err(|error| ParquetError::General(error.to_string()))
}

fn write_column<T: DataType, W: std::io::Write + Send>(
    group: &mut SerializedRowGroupWriter<'_, W>,
    values: &[T::T],
    levels: Option<&[i16]>,
) -> Result<()> {
    let mut column = group.next_column()?.ok_or_else(|| ParquetError::General("too many columns".to_owned()))?;
    column.typed::<T>().write_batch(values, levels, None)?;
    column.close()
}

fn write_optional<W: std::io::Write + Send>(
    group: &mut SerializedRowGroupWriter<'_, W>,
    values: &[Option<ByteArray>],
) -> Result<()> {
    let levels: Vec<i16> = values.iter().map(|value| i16::from(value.is_some())).collect();
    let given: Vec<_> = values.iter().flatten().cloned().collect();
    write_column::<ByteArrayType, W>(group, &given, Some(&levels))
}

fn read_column<T: DataType>(reader: ColumnReader, rows: usize) -> Result<Vec<T::T>> {
    let mut reader = get_typed_column_reader::<T>(reader);
    let mut values = Vec::with_capacity(rows);
    reader.read_records(rows, None, None, &mut values)?;
    complete(values, rows)
}

fn read_optional(reader: ColumnReader, rows: usize) -> Result<Vec<Option<ByteArray>>> {
    let mut reader = get_typed_column_reader::<ByteArrayType>(reader);
    let (mut given, mut levels) = (Vec::new(), Vec::with_capacity(rows));
    reader.read_records(rows, Some(&mut levels), None, &mut given)?;
    let mut given = given.into_iter();
    complete(levels.iter().map(|level| if *level == 1 { given.next() } else { None }).collect(), rows)
}

fn complete<T>(values: Vec<T>, rows: usize) -> Result<Vec<T>> {
    if values.len() == rows {
        Ok(values)
    } else {
        Err(ParquetError::General(format!("the number of values in a column is {}, and must be {rows}", values.len())))
    }
}
