//! Months outside the database: Parquet files in a folder, S3, Google Cloud Storage or Azure.
//!
//! A month is a folder with three objects, written once and never changed:
//!
//! ```text
//! 2025-01-<a random number>/by_position.parquet    every event of the month, in the order of the log
//!                           by_aggregate.parquet   the same events, stream by stream
//!                           manifest.json          what is in them, with SHA-256; written last
//! ```
//!
//! Two orders, because the log and a stream are both read from here, and by others: the statistics of the row groups let
//! any reader of Parquet skip what is not of a span of time, or not of an aggregate. [`group`] says what a column holds.
//!
//! Invariant: an event read from here is equal, byte by byte, to what PostgreSQL printed when it was written. The digest
//! of a month, which does not depend on Parquet, proves it before a month leaves the database; and the manifest has the
//! SHA-256 of every piece that is read at once, which each read compares.

mod digest;
mod file;
mod group;
mod manifest;

pub use digest::EventDigest;
pub use file::MonthFile;
pub use group::EventGroup;
pub use manifest::{FileManifest, Manifest, MonthFacts, Order};

use std::path::Path as FilePath;
use std::sync::{Arc, Mutex, PoisonError};

use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;

use crate::domain::event::Position;
use crate::domain::hex::hex;
use crate::domain::name::StreamId;
use file::OpenFile;

const MANIFEST: &str = "manifest.json";
/// Row groups kept as they were read last, so that page after page does not decode the same one.
const GROUPS_KEPT: usize = 4;
/// Row groups decoded at a time.
const DECODING: usize = 2;
/// Footers that are kept: two files a month.
const FILES_KEPT: usize = 1_000;

/// What can go wrong outside the database.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    #[error("ARCHIVE_URL={0} is not understood: {1}")]
    Url(String, String),
    /// The store does not answer, or does not have the object.
    #[error("the archive cannot be read or written: {0}")]
    Store(#[from] object_store::Error),
    /// What was read is not what was written.
    #[error("the archive is damaged: {path}: {what}")]
    Damaged { path: String, what: String },
}

impl ArchiveError {
    /// It will be the same however often one tries: a file is gone, or is not what was written.
    pub fn is_about_the_files(&self) -> bool {
        matches!(self, Self::Damaged { .. } | Self::Store(object_store::Error::NotFound { .. }))
    }

    fn damaged(path: &Path, what: impl std::fmt::Display) -> Self {
        Self::Damaged { path: path.to_string(), what: what.to_string() }
    }
}

/// The place where archived months are.
pub struct Archive {
    objects: Arc<dyn ObjectStore>,
    root: Path,
    files: Recent<Path, OpenFile>,
    groups: Recent<(Path, usize), EventGroup>,
    /// Decoding takes a processor and tens of megabytes: few do it at a time.
    decoding: Semaphore,
}

impl Archive {
    /// `url` is a folder that exists (`/var/annals-archive` or `file:///…`), or `s3://`, `gs://`, `az://` with a bucket and
    /// a prefix; how to log in there is told by the variables that each service has for it (`AWS_…`, `GOOGLE_…`, `AZURE_…`).
    pub fn open(url: &str) -> Result<Arc<Self>, ArchiveError> {
        let fault = |what: String| ArchiveError::Url(url.to_owned(), what);
        let folder = url.strip_prefix("file://").or_else(|| url.starts_with('/').then_some(url));
        let (objects, root): (Arc<dyn ObjectStore>, Path) = match folder {
            Some(folder) if FilePath::new(folder).is_dir() => {
                let files = LocalFileSystem::new_with_prefix(folder).map_err(|error| fault(error.to_string()))?;
                // A month is dropped from the database once its files are there: they have to survive a loss of power.
                (Arc::new(files.with_fsync(true)), Path::default())
            }
            Some(_) => return Err(fault("there is no such folder: make it, or mount it".to_owned())),
            None if !url.contains("://") => {
                return Err(fault("a folder is written from the root on, with /".to_owned()));
            }
            None => cloud(url).map_err(fault)?,
        };
        Ok(Arc::new(Self {
            objects,
            root,
            files: Recent::new(FILES_KEPT),
            groups: Recent::new(GROUPS_KEPT),
            decoding: Semaphore::new(DECODING),
        }))
    }

    fn path(&self, folder: &str, name: &str) -> Path {
        self.root.clone().join(folder).join(name)
    }

    /// A file to write a month to.
    pub fn create(&self, folder: &str, order: Order) -> MonthFile {
        MonthFile::create(self.objects.clone(), self.path(folder, order.file_name()), order)
    }

    /// Writes a month's manifest: its files are complete then. Returns its SHA-256.
    pub async fn put_manifest(&self, folder: &str, manifest: &Manifest) -> Result<String, ArchiveError> {
        let text = manifest.to_json();
        let digest = hex(&Sha256::digest(&text));
        self.objects.put(&self.path(folder, MANIFEST), text.into()).await?;
        Ok(digest)
    }

    /// A month's manifest, and its SHA-256.
    pub async fn manifest(&self, folder: &str) -> Result<(Manifest, String), ArchiveError> {
        let path = self.path(folder, MANIFEST);
        let text = self.objects.get(&path).await?.bytes().await?;
        let manifest = Manifest::from_json(&text).map_err(|error| ArchiveError::damaged(&path, error))?;
        Ok((manifest, hex(&Sha256::digest(&text))))
    }

    /// Whether the archive is the one that has this month: its manifest is the one that was written.
    pub async fn has(&self, folder: &str, manifest_sha256: &str) -> Result<bool, ArchiveError> {
        match self.manifest(folder).await {
            Ok((_, sha256)) => Ok(sha256 == manifest_sha256),
            Err(ArchiveError::Store(object_store::Error::NotFound { .. })) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whether everything that a month's manifest names is there, with its size.
    pub async fn is_complete(&self, folder: &str, manifest_sha256: &str) -> Result<bool, ArchiveError> {
        let (manifest, sha256) = self.manifest(folder).await?;
        for file in &manifest.files {
            if self.objects.head(&self.path(folder, &file.name)).await?.size != file.bytes {
                return Ok(false);
            }
        }
        Ok(sha256 == manifest_sha256)
    }

    /// SHA-256 of a file as it lies there, and its size.
    pub async fn file_digest(&self, folder: &str, order: Order) -> Result<(String, u64), ArchiveError> {
        use futures_util::TryStreamExt;
        let (mut digest, mut bytes) = (Sha256::new(), 0);
        let mut pieces = self.objects.get(&self.path(folder, order.file_name())).await?.into_stream();
        while let Some(piece) = pieces.try_next().await? {
            bytes += piece.len() as u64;
            digest.update(&piece);
        }
        Ok((hex(&digest.finalize()), bytes))
    }

    /// The row groups of a month's file.
    pub async fn groups(&self, folder: &str, order: Order) -> Result<std::ops::Range<usize>, ArchiveError> {
        Ok(0..self.file(folder, order).await?.groups())
    }

    /// The row groups of a month that may have events after a position up to another one, in the order of the log.
    pub async fn groups_between(
        &self,
        folder: &str,
        after: Position,
        to: Position,
    ) -> Result<Vec<usize>, ArchiveError> {
        Ok(self.file(folder, Order::Position).await?.groups_between(after, to))
    }

    /// The row groups of a month that may have events of a stream.
    pub async fn groups_of(&self, folder: &str, stream: &StreamId) -> Result<Vec<usize>, ArchiveError> {
        Ok(self.file(folder, Order::Aggregate).await?.groups_of(stream))
    }

    /// A row group of a month's file.
    pub async fn group(&self, folder: &str, order: Order, n: usize) -> Result<Arc<EventGroup>, ArchiveError> {
        let place = (self.path(folder, order.file_name()), n);
        if let Some(group) = self.groups.get(&place) {
            return Ok(group);
        }
        let file = self.file(folder, order).await?;
        let _turn = self.decoding.acquire().await.expect("nobody closes it");
        // Somebody else may have read it while this one waited.
        if let Some(group) = self.groups.get(&place) {
            return Ok(group);
        }
        Ok(self.groups.keep(place, file.read_group(&*self.objects, n).await?))
    }

    async fn file(&self, folder: &str, order: Order) -> Result<Arc<OpenFile>, ArchiveError> {
        let path = self.path(folder, order.file_name());
        if let Some(file) = self.files.get(&path) {
            return Ok(file);
        }
        let (manifest, _) = self.manifest(folder).await?;
        let file = manifest.files.into_iter().find(|file| file.name == order.file_name());
        let file = file.ok_or_else(|| ArchiveError::damaged(&path, "its manifest does not name it"))?;
        Ok(self.files.keep(path.clone(), OpenFile::open(&*self.objects, path, file).await?))
    }

    /// Forgets what was read: a file is read again as it lies there.
    pub fn forget(&self) {
        self.files.forget();
        self.groups.forget();
    }
}

#[cfg(feature = "cloud")]
fn cloud(url: &str) -> Result<(Arc<dyn ObjectStore>, Path), String> {
    let parsed = url.parse().map_err(|_| "a folder, or a URL like s3://bucket/prefix, is expected".to_owned())?;
    // Not all variables: some names that the library knows, like TOKEN, may be meant for something else.
    let is_meant = |name: &str| ["AWS_", "AZURE_", "GOOGLE_"].iter().any(|service| name.starts_with(service));
    let settings = std::env::vars().filter(|(name, _)| is_meant(name));
    let settings = settings.map(|(name, value)| (name.to_ascii_lowercase(), value));
    let (objects, root) = object_store::parse_url_opts(&parsed, settings).map_err(|error| error.to_string())?;
    Ok((Arc::from(objects), root))
}

#[cfg(not(feature = "cloud"))]
fn cloud(_: &str) -> Result<(Arc<dyn ObjectStore>, Path), String> {
    Err("a folder is expected: this build knows no other place (feature `cloud`)".to_owned())
}

/// What was used last, a few of it.
struct Recent<K, V> {
    kept: Mutex<Vec<(K, Arc<V>)>>,
    most: usize,
}

impl<K: PartialEq, V> Recent<K, V> {
    fn new(most: usize) -> Self {
        Self { kept: Mutex::default(), most }
    }

    fn get(&self, key: &K) -> Option<Arc<V>> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let at = kept.iter().position(|(known, _)| known == key)?;
        let found = kept.remove(at);
        let value = found.1.clone();
        kept.push(found);
        Some(value)
    }

    fn keep(&self, key: K, value: V) -> Arc<V> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= self.most {
            kept.remove(0);
        }
        let value = Arc::new(value);
        kept.push((key, value.clone()));
        value
    }

    fn forget(&self) {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}
