//! The settings of groups.

use crate::domain::event::Position;
use crate::domain::group::GroupFilter;
use crate::store::admin::projections::{PROJECTIONS_MAX, PROJECTIONS_OF_KEY_MAX};
use crate::store::error::{DatabaseError, StoreError};
use crate::store::primary::Primary;
use crate::store::reader::Reader;

const GROUPS: &str = include_str!("../sql/groups.sql");
const CREATE_GROUP: &str = include_str!("../sql/create_group.sql");
const CHANGE_GROUP: &str = include_str!("../sql/change_group.sql");
const DELETE_GROUP: &str = include_str!("../sql/delete_group.sql");
const MOVE_GROUP: &str = include_str!("../sql/move_group.sql");
const CLAIM_STEP_BOUND: &str = include_str!("../sql/claim_step_bound.sql");

type Row = (i64, String, i16, String, i32, Vec<i32>, bool, i64);

/// A group and its settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// The number of the group. A group that is created again has another one.
    pub group_no: i64,
    pub group_name: String,
    pub filter: GroupFilter,
    pub settings: GroupSettings,
    /// Increases with each change of the settings, and with each reset.
    pub revision: i64,
}

/// The settings that may change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupSettings {
    pub partitions: i16,
    pub lease_seconds: i32,
    /// The seconds before each further try of a failed event.
    pub retry_after: Vec<i32>,
    pub paused: bool,
}

/// The result of creating a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CreateGroupResult {
    Created,
    /// A group or another projection has the name.
    NameInUse,
    /// The store has [`PROJECTIONS_MAX`] projections.
    TooMany,
    /// The key has created [`PROJECTIONS_OF_KEY_MAX`] of them.
    TooManyOfKey,
}

/// The result of changing a group.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ChangeGroupResult {
    Changed,
    /// The group was changed or deleted since it was read.
    Conflict,
    /// Leases prevent the change for this number of seconds.
    ClaimsOpen(f64),
}

impl Reader {
    /// Returns a group; `None` if it does not exist.
    pub async fn group(&self, name: &str) -> Result<Option<Group>, StoreError> {
        Ok(self.read_groups(Some(name), "", 1).await?.into_iter().next())
    }

    /// Returns groups in byte order of their names, after a name, at most `limit`.
    pub async fn groups(&self, after: &str, limit: usize) -> Result<Vec<Group>, StoreError> {
        self.read_groups(None, after, limit).await
    }

    async fn read_groups(&self, name: Option<&str>, after: &str, limit: usize) -> Result<Vec<Group>, StoreError> {
        let rows: Vec<Row> = sqlx::query_as(GROUPS)
            .bind(name)
            .bind(after)
            .bind(i64::try_from(limit).unwrap_or(i64::MAX))
            .fetch_all(&mut *self.acquire().await?)
            .await?;
        let group = |(group_no, group_name, partitions, filter, lease_seconds, retry_after, paused, revision): Row| {
            let filter = serde_json::from_str(&filter).map_err(StoreError::unreadable)?;
            let settings = GroupSettings { partitions, lease_seconds, retry_after, paused };
            Ok(Group { group_no, group_name, filter, settings, revision })
        };
        rows.into_iter().map(group).collect()
    }
}

impl Primary {
    /// Creates a group that begins after a position.
    pub async fn create_group(
        &self,
        name: &str,
        filter: &GroupFilter,
        settings: &GroupSettings,
        position: Position,
        key_id: Option<&str>,
    ) -> Result<CreateGroupResult, StoreError> {
        let outcome: String = sqlx::query_scalar(CREATE_GROUP)
            .bind(name)
            .bind(serde_json::to_string(filter).map_err(StoreError::unreadable)?)
            .bind(i32::from(settings.partitions))
            .bind(settings.lease_seconds)
            .bind(&settings.retry_after)
            .bind(settings.paused)
            .bind(position)
            .bind(key_id)
            .bind(PROJECTIONS_MAX)
            .bind(PROJECTIONS_OF_KEY_MAX)
            .fetch_one(&mut *self.acquire_to_write().await?)
            .await?;
        match outcome.as_str() {
            "created" => Ok(CreateGroupResult::Created),
            "conflict" => Ok(CreateGroupResult::NameInUse),
            "limit" => Ok(CreateGroupResult::TooMany),
            "key_limit" => Ok(CreateGroupResult::TooManyOfKey),
            outcome => Err(DatabaseError::UnexpectedResult(format!("create_group returned {outcome:?}")).into()),
        }
    }

    /// Changes the settings of a group that was read at `group.revision`, and moves it to a position if there is one.
    pub async fn change_group(
        &self,
        group: &Group,
        settings: &GroupSettings,
        reset_to: Option<Position>,
    ) -> Result<ChangeGroupResult, StoreError> {
        let (outcome, open_seconds): (String, Option<f64>) = sqlx::query_as(CHANGE_GROUP)
            .bind(group.group_no)
            .bind(group.revision)
            .bind(i32::from(settings.partitions))
            .bind(settings.lease_seconds)
            .bind(&settings.retry_after)
            .bind(settings.paused)
            .bind(reset_to)
            .fetch_one(&mut *self.acquire_to_write().await?)
            .await?;
        match (outcome.as_str(), open_seconds) {
            ("changed", _) => Ok(ChangeGroupResult::Changed),
            ("conflict", _) => Ok(ChangeGroupResult::Conflict),
            ("claims_open", Some(seconds)) => Ok(ChangeGroupResult::ClaimsOpen(seconds)),
            (outcome, _) => Err(DatabaseError::UnexpectedResult(format!("change_group returned {outcome:?}")).into()),
        }
    }

    /// Deletes a group with its projection. Returns whether it existed.
    pub async fn delete_group(&self, name: &str) -> Result<bool, StoreError> {
        Ok(sqlx::query_scalar(DELETE_GROUP).bind(name).fetch_one(&mut *self.acquire_to_write().await?).await?)
    }

    /// Moves the stored position of a group forward, unless the group was changed since `revision`.
    pub async fn move_group(&self, group_no: i64, revision: i64, position: Position) -> Result<bool, StoreError> {
        let moved = sqlx::query_scalar(MOVE_GROUP)
            .bind(group_no)
            .bind(revision)
            .bind(position)
            .fetch_one(&mut *self.acquire_to_write().await?)
            .await?;
        Ok(moved)
    }

    /// Returns the highest number of a claim of a deleted group.
    pub async fn claim_step_bound(&self) -> Result<i64, StoreError> {
        Ok(sqlx::query_scalar(CLAIM_STEP_BOUND).fetch_one(&mut *self.acquire().await?).await?)
    }
}
