//! The events of a row group as parameters of a statement.

use sqlx::Postgres;
use sqlx::postgres::PgArguments;
use sqlx::query::Query;

use crate::archive::error::ArchiveError;
use crate::archive::group::EventGroup;
use crate::domain::event::StoredEvent;

/// The events of a row group as arrays: parameters $1 to $11, in the order of the table's columns.
pub(in crate::store) struct Columns<'g>(Vec<StoredEvent<'g>>);

impl<'g> Columns<'g> {
    /// Decodes the events of a row group.
    pub(in crate::store) fn from_group(group: &'g EventGroup) -> Result<Self, ArchiveError> {
        Ok(Self((0..group.len()).map(|at| group.event(at)).collect::<Result<_, _>>()?))
    }

    /// Binds the arrays to a statement.
    pub(in crate::store) fn bind_to<'q>(
        &self,
        query: Query<'q, Postgres, PgArguments>,
    ) -> Query<'q, Postgres, PgArguments>
    where
        'g: 'q,
    {
        fn column<'g, T>(events: &[StoredEvent<'g>], field: impl Fn(&StoredEvent<'g>) -> T) -> Vec<T> {
            events.iter().map(field).collect()
        }
        let Self(events) = self;
        query
            .bind(column(events, |event| event.event_id))
            .bind(column(events, |event| event.aggregate_type))
            .bind(column(events, |event| event.aggregate_id))
            .bind(column(events, |event| event.version))
            .bind(column(events, |event| event.event_type))
            .bind(column(events, |event| event.event_data))
            .bind(column(events, |event| event.metadata))
            .bind(column(events, |event| event.occurred_at))
            .bind(column(events, |event| event.correlation_id))
            .bind(column(events, |event| event.causation_id))
            .bind(column(events, |event| event.global_position))
    }
}
