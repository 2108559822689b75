//! Steps of partitions. The state of a partition is its last step, and a transition inserts the next one: a
//! compare-and-set by primary key (`migrations/functions/step_partition.sql`).

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::Row;
use sqlx::postgres::{PgArguments, PgRow, Postgres};
use sqlx::query::Query;

use crate::domain::claim_id::ClaimId;
use crate::domain::cursor::Epoch;
use crate::domain::event::Position;
use crate::domain::partition::Partition;
use crate::store::error::{DatabaseError, StoreError};
use crate::store::groups::parked::{NewParkedStream, UnparkedStream};
use crate::store::log::epochs::last_common_position;
use crate::store::primary::Primary;

const PARTITION_STATES: &str = include_str!("../sql/partition_states.sql");
const STEP_PARTITION: &str = include_str!("../sql/step_partition.sql");
const STEP_TWO_PARTITIONS: &str = include_str!("../sql/step_two_partitions.sql");
const CLAIM_OF_KEY: &str = include_str!("../sql/claim_of_key.sql");
const ACCEPTED_ACKNOWLEDGEMENT: &str = include_str!("../sql/accepted_acknowledgement.sql");
const DELETE_OLD_STEPS: &str = include_str!("../sql/delete_old_steps.sql");
const DELETE_STEPS_OF_DELETED_GROUPS: &str = include_str!("../sql/delete_steps_of_deleted_groups.sql");

/// What a step does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StepKind {
    Created,
    /// Hands out a claim.
    Claimed,
    Acknowledged,
    /// Ends a claim without acknowledging anything.
    Released,
    /// Ends a claim whose lease has expired.
    Expired,
    /// Moves a partition without waiting events forward.
    Advanced,
    /// The settings of the group, or its parked streams, have changed.
    Changed,
    Doubled,
    Reset,
    Deleted,
}

/// The state of a partition: a row of `claims`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Step {
    pub group_no: i64,
    pub partition: Partition,
    pub step: i64,
    pub kind: StepKind,
    pub partitions: i16,
    /// The epoch of the claim, or of the log if there is none.
    pub epoch: Epoch,
    pub last_processed_position: Position,
    #[serde(flatten)]
    pub claim: OpenClaim,
    pub not_before: Option<DateTime<Utc>>,
    pub careful_to: Position,
    pub expired_leases: i32,
    pub parked: i32,
    pub newly_parked: i32,
    pub claim_key: Option<String>,
    pub key_use: i32,
    #[serde(skip)]
    pub stepped_at: DateTime<Utc>,
}

/// The claim of a partition. It is open if it has a number.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct OpenClaim {
    #[serde(rename = "claim_step")]
    pub number: Option<i64>,
    pub claimed_to: Option<Position>,
    pub claimed_until: Option<DateTime<Utc>>,
    /// The parked stream that the claim retries.
    pub parked_type: Option<String>,
    pub parked_id: Option<String>,
    /// The events of the parked stream up to here are processed.
    pub parked_position: Option<Position>,
    /// The claim has all events of the parked stream up to the position of the partition.
    pub is_complete: bool,
    pub worker: Option<String>,
}

impl OpenClaim {
    /// Returns the type and the id of the parked stream that the claim retries; `None` for a claim of new events.
    pub fn retried_stream(&self) -> Option<(&str, &str)> {
        Some((self.parked_type.as_deref()?, self.parked_id.as_deref()?))
    }
}

/// The states of all partitions of a group at one time.
#[derive(Debug, Clone)]
pub struct GroupStates {
    pub steps: Vec<Step>,
    /// The time of the database.
    pub now: DateTime<Utc>,
    pub epoch: Epoch,
    pub next_retry_at: Option<DateTime<Utc>>,
}

/// A step to take.
#[derive(Debug, Clone)]
pub struct NewStep {
    /// The row. Its `step` is the one after the state that was read, and its `stepped_at` is still the time of that state.
    pub step: Step,
    /// The epoch that the caller takes for the current one.
    pub epoch: Epoch,
    /// The lease of the claim begins now, or is extended. `None`: it does not change.
    pub lease_seconds: Option<i32>,
    /// The partition rests from now on. `None`: its rest does not change.
    pub rest_seconds: Option<i32>,
    pub parked: Vec<NewParkedStream>,
    pub unparked: Vec<UnparkedStream>,
}

/// The result of taking a step.
#[derive(Debug, Clone, PartialEq)]
pub enum StepResult {
    /// The step was taken, and is the state of the partition now.
    Stepped(Box<Step>),
    /// The partition has another state than the caller has read.
    Conflict,
    /// The log is in another epoch.
    EpochChanged,
}

impl Step {
    /// Returns the id of the open claim; `None` if there is none.
    pub fn claim_id(&self) -> Option<ClaimId> {
        let number = self.claim.number?;
        Some(ClaimId { epoch: self.epoch, partition: self.partition, number })
    }

    /// Returns the position that the next acknowledgement of the open claim must reach: that of the partition, or that of
    /// the parked stream of a retry.
    pub fn acknowledged_position(&self) -> Position {
        self.claim.parked_position.unwrap_or(self.last_processed_position)
    }

    /// Returns the step after this one, without the properties of this step alone.
    pub fn next(&self, kind: StepKind) -> Self {
        Self { step: self.step + 1, kind, newly_parked: 0, claim_key: None, key_use: 1, ..self.clone() }
    }

    /// Ends the claim. The position of a retry stays, so that a repeated acknowledgement is recognised.
    pub fn end_claim(&mut self) {
        let parked_position = self.claim.parked_position;
        self.claim = OpenClaim { parked_position, ..OpenClaim::default() };
    }

    /// Returns whether the partition has an open claim whose lease has not expired.
    pub fn is_leased(&self, now: DateTime<Utc>) -> bool {
        self.claim.number.is_some() && self.claim.claimed_until.is_some_and(|until| until > now)
    }

    /// Returns whether the partition rests.
    pub fn rests(&self, now: DateTime<Utc>) -> bool {
        self.not_before.is_some_and(|until| until > now)
    }
}

fn step_from_row(group_no: i64, row: &PgRow) -> Result<Step, sqlx::Error> {
    let kind: String = row.try_get("kind")?;
    Ok(Step {
        group_no,
        partition: row.try_get("partition")?,
        step: row.try_get("step")?,
        kind: match kind.as_str() {
            "created" => StepKind::Created,
            "claimed" => StepKind::Claimed,
            "acknowledged" => StepKind::Acknowledged,
            "released" => StepKind::Released,
            "expired" => StepKind::Expired,
            "advanced" => StepKind::Advanced,
            "changed" => StepKind::Changed,
            "doubled" => StepKind::Doubled,
            "reset" => StepKind::Reset,
            "deleted" => StepKind::Deleted,
            other => return Err(sqlx::Error::Decode(format!("{other:?} is no kind of a step").into())),
        },
        partitions: row.try_get("partitions")?,
        epoch: row.try_get("epoch")?,
        last_processed_position: row.try_get("last_processed_position")?,
        claim: OpenClaim {
            number: row.try_get("claim_step")?,
            claimed_to: row.try_get("claimed_to")?,
            claimed_until: row.try_get("claimed_until")?,
            parked_type: row.try_get("parked_type")?,
            parked_id: row.try_get("parked_id")?,
            parked_position: row.try_get("parked_position")?,
            is_complete: row.try_get("is_complete")?,
            worker: row.try_get("worker")?,
        },
        not_before: row.try_get("not_before")?,
        careful_to: row.try_get("careful_to")?,
        expired_leases: row.try_get("expired_leases")?,
        parked: row.try_get("parked")?,
        newly_parked: row.try_get("newly_parked")?,
        claim_key: row.try_get("claim_key")?,
        key_use: row.try_get("key_use")?,
        stepped_at: row.try_get("stepped_at")?,
    })
}

impl NewStep {
    /// Returns a step that changes neither lease nor rest nor parked streams.
    pub fn plain(step: Step, epoch: Epoch) -> Self {
        Self { step, epoch, lease_seconds: None, rest_seconds: None, parked: Vec::new(), unparked: Vec::new() }
    }

    /// Binds the parameters. Without the time of the step before it, that step is another one of the same statement.
    fn bind<'q>(
        &self,
        query: Query<'q, Postgres, PgArguments>,
        after_time: Option<DateTime<Utc>>,
    ) -> Result<Query<'q, Postgres, PgArguments>, StoreError> {
        fn json(value: &(impl Serialize + ?Sized)) -> Result<String, StoreError> {
            serde_json::to_string(value).map_err(StoreError::unreadable)
        }
        let parked = if self.parked.is_empty() { None } else { Some(json(&self.parked)?) };
        let unparked = if self.unparked.is_empty() { None } else { Some(json(&self.unparked)?) };
        Ok(query
            .bind(self.step.step - 1)
            .bind(after_time)
            .bind(self.epoch)
            .bind(json(&self.step)?)
            .bind(self.lease_seconds)
            .bind(self.rest_seconds)
            .bind(parked)
            .bind(unparked))
    }

    /// Reads the result of the step from the four columns of a row that begin with `first`.
    fn result(&self, row: &PgRow, first: usize) -> Result<StepResult, StoreError> {
        let outcome: String = row.try_get(first)?;
        match outcome.as_str() {
            "stepped" => {
                let mut step = self.step.clone();
                step.claim.claimed_until = row.try_get(first + 1)?;
                step.not_before = row.try_get(first + 2)?;
                step.stepped_at = row.try_get(first + 3)?;
                Ok(StepResult::Stepped(Box::new(step)))
            }
            "conflict" => Ok(StepResult::Conflict),
            "epoch_changed" => Ok(StepResult::EpochChanged),
            outcome => Err(DatabaseError::UnexpectedResult(format!("step_partition returned {outcome:?}")).into()),
        }
    }
}

impl Primary {
    /// Returns the states of the partitions of a group. The list is shorter than `partitions` if the group is deleted.
    pub async fn partition_states(&self, group_no: i64, partitions: i16) -> Result<Option<GroupStates>, StoreError> {
        let rows = sqlx::query(PARTITION_STATES)
            .bind(group_no)
            .bind(i32::from(partitions))
            .fetch_all(&mut *self.acquire().await?)
            .await?;
        let Some(first) = rows.first() else { return Ok(None) };
        let (now, epoch, next_retry_at) =
            (first.try_get("now")?, first.try_get("log_epoch")?, first.try_get("next_retry_at")?);
        let steps = rows.iter().map(|row| step_from_row(group_no, row)).collect::<Result<_, _>>()?;
        Ok(Some(GroupStates { steps, now, epoch, next_retry_at }))
    }

    /// Takes a step.
    pub async fn step(&self, new: &NewStep) -> Result<StepResult, StoreError> {
        let query = new.bind(sqlx::query(STEP_PARTITION), Some(new.step.stepped_at))?;
        let row = query.fetch_one(&mut *self.acquire_to_write().await?).await?;
        new.result(&row, 0)
    }

    /// Takes two steps in one transaction, and the second one only if the first one is taken.
    pub async fn step_two(&self, first: &NewStep, second: &NewStep) -> Result<(StepResult, StepResult), StoreError> {
        let query = first.bind(sqlx::query(STEP_TWO_PARTITIONS), Some(first.step.stepped_at))?;
        let is_other = second.step.partition != first.step.partition;
        let query = second.bind(query, is_other.then_some(second.step.stepped_at))?;
        let row = query.fetch_one(&mut *self.acquire_to_write().await?).await?;
        Ok((first.result(&row, 0)?, second.result(&row, 4)?))
    }

    /// Returns the partition and the step of the last claim that was made with a key, and the number of its use; `None` if
    /// the key is unknown.
    pub async fn claim_of_key(&self, group_no: i64, key: &str) -> Result<Option<(Partition, i64, i32)>, StoreError> {
        let found =
            sqlx::query_as(CLAIM_OF_KEY).bind(group_no).bind(key).fetch_optional(&mut *self.acquire().await?).await?;
        Ok(found)
    }

    /// Returns the number of streams that an accepted acknowledgement of a claim parked; `None` if the position was never
    /// acknowledged for this claim, or the group was reset since.
    pub async fn accepted_acknowledgement(
        &self,
        group_no: i64,
        claim_id: ClaimId,
        position: Position,
    ) -> Result<Option<i32>, StoreError> {
        let parked = sqlx::query_scalar(ACCEPTED_ACKNOWLEDGEMENT)
            .bind(group_no)
            .bind(claim_id.partition)
            .bind(claim_id.number)
            .bind(claim_id.epoch)
            .bind(position)
            .fetch_optional(&mut *self.acquire().await?)
            .await?;
        Ok(parked)
    }

    /// Returns the last position that is the same in an epoch and in all later ones: `None` if no later one exists, and 0 if
    /// the log never had the epoch.
    pub async fn last_common_position(&self, epoch: Epoch) -> Result<Option<Position>, StoreError> {
        Ok(last_common_position(&mut *self.acquire().await?, epoch).await?)
    }

    /// Deletes old steps of a partition after a step, at most `limit`. Returns the last deleted one.
    pub async fn delete_old_steps(
        &self,
        group_no: i64,
        partition: Partition,
        after: i64,
        limit: i64,
    ) -> Result<Option<i64>, StoreError> {
        let last = sqlx::query_scalar(DELETE_OLD_STEPS)
            .bind(group_no)
            .bind(partition)
            .bind(after)
            .bind(limit)
            .fetch_one(&mut *self.acquire_to_write().await?)
            .await?;
        Ok(last)
    }

    /// Deletes steps of a group that was deleted ten minutes ago or earlier, at most `limit`. Returns their number.
    pub async fn delete_steps_of_deleted_groups(&self, limit: i64) -> Result<i64, StoreError> {
        let deleted = sqlx::query_scalar(DELETE_STEPS_OF_DELETED_GROUPS)
            .bind(limit)
            .fetch_one(&mut *self.acquire_to_write().await?)
            .await?;
        Ok(deleted)
    }
}
