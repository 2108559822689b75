//! In place of the archive, in a build without the feature `archive`: there is none, and nobody can have opened one.

mod digest;
mod manifest;

pub use digest::EventDigest;
pub use manifest::{FileManifest, Manifest, MonthFacts, Order};

use std::ops::Range;
use std::sync::Arc;

use crate::domain::event::{Position, StoredEvent};
use crate::domain::name::StreamId;

/// What can go wrong outside the database.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    #[error("ARCHIVE_URL={0}: this build of Annals has no archive (feature `archive`)")]
    Url(String),
    #[error("the archive is damaged: {path}: {what}")]
    Damaged { path: String, what: String },
}

impl ArchiveError {
    pub fn is_about_the_files(&self) -> bool {
        matches!(self, Self::Damaged { .. })
    }
}

/// Nowhere.
pub enum Archive {}

/// No row group.
pub enum EventGroup {}

/// No file.
pub enum MonthFile {}

type Result<T> = std::result::Result<T, ArchiveError>;

impl Archive {
    pub fn open(url: &str) -> Result<Arc<Self>> {
        Err(ArchiveError::Url(url.to_owned()))
    }

    pub fn create(&self, _: &str, _: Order) -> MonthFile {
        match *self {}
    }

    pub async fn put_manifest(&self, _: &str, _: &Manifest) -> Result<String> {
        match *self {}
    }

    pub async fn manifest(&self, _: &str) -> Result<(Manifest, String)> {
        match *self {}
    }

    pub async fn has(&self, _: &str, _: &str) -> Result<bool> {
        match *self {}
    }

    pub async fn is_complete(&self, _: &str, _: &str) -> Result<bool> {
        match *self {}
    }

    pub async fn file_digest(&self, _: &str, _: Order) -> Result<(String, u64)> {
        match *self {}
    }

    pub async fn groups(&self, _: &str, _: Order) -> Result<Range<usize>> {
        match *self {}
    }

    pub async fn groups_between(&self, _: &str, _: Position, _: Position) -> Result<Vec<usize>> {
        match *self {}
    }

    pub async fn groups_of(&self, _: &str, _: &StreamId) -> Result<Vec<usize>> {
        match *self {}
    }

    pub async fn group(&self, _: &str, _: Order, _: usize) -> Result<Arc<EventGroup>> {
        match *self {}
    }

    pub fn forget(&self) {
        match *self {}
    }
}

impl EventGroup {
    pub fn len(&self) -> usize {
        match *self {}
    }

    pub fn is_empty(&self) -> bool {
        match *self {}
    }

    pub fn event(&self, _: usize) -> Result<StoredEvent<'_>> {
        match *self {}
    }

    pub fn first_after(&self, _: Position) -> usize {
        match *self {}
    }

    pub fn rows_of(&self, _: &StreamId) -> Range<usize> {
        match *self {}
    }
}

impl MonthFile {
    pub fn push(&mut self, _: &StoredEvent<'_>) -> bool {
        match *self {}
    }

    pub async fn flush(&mut self) -> Result<()> {
        match *self {}
    }

    pub async fn finish(self) -> Result<FileManifest> {
        match self {}
    }
}
