//! The archive: its files, and a cache of recently used footers and row groups.

use std::io::ErrorKind;
use std::ops::Range;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, ObjectStoreScheme, RetryConfig};
use sha2::{Digest, Sha256};

use crate::archive::bounds::{MANIFEST_BYTES_MAX, check_manifest};
use crate::archive::error::ArchiveError;
use crate::archive::file_reader::OpenFile;
use crate::archive::file_writer::PartitionFile;
use crate::archive::found_position::FoundPosition;
use crate::archive::group::EventGroup;
use crate::archive::lru::LruCache;
use crate::archive::manifest::{Manifest, Order};
use crate::archive::partition::ArchivedPartition;
use crate::domain::event::Position;
use crate::domain::hex::hex;
use crate::domain::name::StreamId;
use crate::shares::client::ClientId;
use crate::shares::semaphore::FairSemaphore;

const MANIFEST: &str = "manifest.json";
/// The number of cached row groups, so that consecutive pages do not decode the same one.
const CACHED_GROUPS: usize = 4;
/// The number of row groups that are decoded at the same time.
const DECODING_MAX: usize = 2;
/// The number of cached footers. Each partition has two files.
const CACHED_FILES: usize = 1_000;

/// A request to an object store is not repeated after this time. The limit of the library is three minutes, and few
/// clients wait that long for archived events.
const RETRY_MAX: Duration = Duration::from_secs(20);

/// The schemes of buckets. The library has other places, too. One of them is memory, which loses the events with the
/// process.
const BUCKETS: [&str; 3] = ["s3://", "gs://", "az://"];

/// The key of a cached file. It has the digest, so that a file that was opened for one manifest is never used for
/// another one.
#[derive(Debug, Clone, PartialEq, Eq)]
struct FileKey {
    path: Path,
    manifest_sha256: String,
}

/// The place of archived partitions.
pub struct Archive {
    /// The URL, for messages.
    url: String,
    objects: Arc<dyn ObjectStore>,
    root: Path,
    /// The folder of an archive in a file system.
    local_root: Option<PathBuf>,
    files: LruCache<FileKey, OpenFile>,
    groups: LruCache<(FileKey, usize), EventGroup>,
    /// Limits the row groups that are decoded at the same time: each takes a processor and tens of megabytes.
    decoding: Arc<FairSemaphore>,
}

impl Archive {
    /// Opens the archive at `url`: an existing folder (`/var/annals-archive` or `file:///…`), or `s3://`, `gs://`,
    /// `az://` with a bucket and a prefix. The credentials come from the variables of each service (`AWS_…`,
    /// `GOOGLE_…`, `AZURE_…`).
    pub fn open(url: &str) -> Result<Arc<Self>, ArchiveError> {
        let fault = |what: String| ArchiveError::Url(without_credentials(url), what);
        let folder = url.strip_prefix("file://").or_else(|| url.strip_prefix("file:")).unwrap_or(url);
        let folder = folder.starts_with('/').then_some(folder);
        let (objects, root): (Arc<dyn ObjectStore>, Path) = match folder {
            Some(folder) if FilePath::new(folder).is_dir() => {
                let files = LocalFileSystem::new_with_prefix(folder).map_err(|error| fault(error.to_string()))?;
                // The table is dropped once the files exist, so they must survive a loss of power.
                (Arc::new(files.with_fsync(true).with_automatic_cleanup(true)), Path::default())
            }
            Some(_) => return Err(fault("the folder does not exist: create it, or mount it".to_owned())),
            None => open_bucket(url).map_err(fault)?,
        };
        Ok(Arc::new(Self {
            url: without_credentials(url),
            objects,
            root,
            local_root: folder.map(PathBuf::from),
            files: LruCache::new(CACHED_FILES),
            groups: LruCache::new(CACHED_GROUPS),
            decoding: FairSemaphore::new(DECODING_MAX, DECODING_MAX),
        }))
    }

    /// Returns the URL of the archive, without credentials.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Returns whether the tests of Annals use this kind of place. No test uses Google Cloud Storage.
    pub fn is_tested(&self) -> bool {
        !self.url.starts_with("gs://")
    }

    fn path(&self, folder: &str, name: &str) -> Path {
        self.root.clone().join(folder).join(name)
    }

    /// Creates a file for the events of a partition.
    pub fn create(&self, folder: &str, order: Order) -> PartitionFile {
        PartitionFile::create(self.objects.clone(), self.path(folder, order.file_name()), order)
    }

    /// Writes a partition's manifest, after its files are complete. Returns the manifest's SHA-256.
    pub async fn put_manifest(&self, folder: &str, manifest: &Manifest) -> Result<String, ArchiveError> {
        let text = manifest.to_json();
        let digest = hex(&Sha256::digest(&text));
        self.objects.put(&self.path(folder, MANIFEST), text.into()).await?;
        Ok(digest)
    }

    /// Reads a partition's manifest, and compares it with the SHA-256 that the database has.
    pub async fn manifest(&self, partition: &ArchivedPartition) -> Result<Manifest, ArchiveError> {
        let path = self.path(&partition.folder, MANIFEST);
        let object = self.objects.get(&path).await?;
        if object.meta.size > MANIFEST_BYTES_MAX {
            let what = format!("it has {} bytes, and may have {MANIFEST_BYTES_MAX}", object.meta.size);
            return Err(ArchiveError::damaged(&path, what));
        }
        let text = object.bytes().await?;
        let sha256 = hex(&Sha256::digest(&text));
        if sha256 != partition.manifest_sha256 {
            let (expected, name) = (&partition.manifest_sha256, &partition.name);
            let what = format!("its SHA-256 is {sha256}, and the database has {expected} for the partition {name}");
            return Err(ArchiveError::damaged(&path, what));
        }
        let damaged = |what: String| ArchiveError::damaged(&path, what);
        let manifest = Manifest::from_json(&text).map_err(damaged)?;
        check_manifest(&manifest).map_err(damaged)?;
        Ok(manifest)
    }

    /// Returns whether the archive has this partition. An error says that its manifest is not the one that was written.
    pub async fn has(&self, partition: &ArchivedPartition) -> Result<bool, ArchiveError> {
        match self.manifest(partition).await {
            Ok(_) => Ok(true),
            Err(ArchiveError::Store(object_store::Error::NotFound { .. })) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Returns whether every file that the manifest names exists with its size.
    pub async fn is_complete(&self, partition: &ArchivedPartition) -> Result<bool, ArchiveError> {
        let manifest = self.manifest(partition).await?;
        for file in &manifest.files {
            if self.objects.head(&self.path(&partition.folder, &file.name)).await?.size != file.bytes {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Reads a whole file, and returns its SHA-256 and its size.
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

    /// Returns the numbers of the row groups of a file.
    pub async fn groups(&self, partition: &ArchivedPartition, order: Order) -> Result<Range<usize>, ArchiveError> {
        Ok(0..self.file(partition, order).await?.groups())
    }

    /// Returns the row groups that may have events after one position and up to another, in the order of the log.
    pub async fn groups_between(
        &self,
        partition: &ArchivedPartition,
        after: Position,
        to: Position,
    ) -> Result<Vec<usize>, ArchiveError> {
        Ok(self.file(partition, Order::Position).await?.groups_between(after, to))
    }

    /// Returns the last position of a partition before a time, or the row group that has it.
    pub async fn last_position_before(
        &self,
        partition: &ArchivedPartition,
        time: DateTime<Utc>,
    ) -> Result<FoundPosition, ArchiveError> {
        self.file(partition, Order::Position).await?.last_position_before(time)
    }

    /// Returns the first position of a partition after another one; `None` if there is none.
    pub async fn first_position_after(
        &self,
        partition: &ArchivedPartition,
        after: Position,
    ) -> Result<Option<Position>, ArchiveError> {
        match self.file(partition, Order::Position).await?.first_position_after(after)? {
            FoundPosition::At(position) => Ok(position),
            FoundPosition::InGroup(n) => {
                let group = self.group(partition, Order::Position, n).await?;
                Ok(group.position(group.first_after(after)))
            }
        }
    }

    /// Returns the row groups that may have events of a stream.
    pub async fn groups_of(
        &self,
        partition: &ArchivedPartition,
        stream: &StreamId,
    ) -> Result<Vec<usize>, ArchiveError> {
        Ok(self.file(partition, Order::Aggregate).await?.groups_of(stream))
    }

    /// Reads a row group of a file.
    pub async fn group(
        &self,
        partition: &ArchivedPartition,
        order: Order,
        n: usize,
    ) -> Result<Arc<EventGroup>, ArchiveError> {
        let place = (self.key(partition, order), n);
        if let Some(group) = self.groups.get(&place) {
            return Ok(group);
        }
        let file = self.file(partition, order).await?;
        let _permit = self.decoding.acquire(ClientId::current()).await;
        // Another task may have read the row group while this one waited.
        if let Some(group) = self.groups.get(&place) {
            return Ok(group);
        }
        Ok(self.groups.insert(place, file.read_group(&*self.objects, n).await?))
    }

    fn key(&self, partition: &ArchivedPartition, order: Order) -> FileKey {
        let path = self.path(&partition.folder, order.file_name());
        FileKey { path, manifest_sha256: partition.manifest_sha256.clone() }
    }

    /// Returns an open file. One that cannot be opened is not cached, so that a repaired file is read at once.
    async fn file(&self, partition: &ArchivedPartition, order: Order) -> Result<Arc<OpenFile>, ArchiveError> {
        let key = self.key(partition, order);
        if let Some(file) = self.files.get(&key) {
            return Ok(file);
        }
        let manifest = self.manifest(partition).await?;
        let events = manifest.events;
        let file = manifest.files.into_iter().find(|file| file.name == order.file_name());
        let file = file.ok_or_else(|| ArchiveError::damaged(&key.path, "the manifest does not name it"))?;
        let opened = OpenFile::open(&*self.objects, key.path.clone(), file, events).await?;
        Ok(self.files.insert(key, opened))
    }

    /// Deletes a folder with all that it contains. Does nothing if it does not exist.
    ///
    /// In an object store, the objects that a folder can have are deleted by name, because a list may not have a new
    /// object yet. In a file system, a killed process may also have left files that a list does not show.
    pub async fn delete(&self, folder: &str) -> Result<(), ArchiveError> {
        for name in Order::ALL.map(|order| order.file_name()).into_iter().chain([MANIFEST]) {
            self.delete_object(&self.path(folder, name)).await?;
        }
        let Some(local_root) = &self.local_root else { return Ok(()) };
        let folder = local_root.join(folder);
        let deleted = tokio::task::spawn_blocking(move || match std::fs::remove_dir_all(folder) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        });
        let failed =
            |error: std::io::Error| object_store::Error::Generic { store: "LocalFileSystem", source: Box::new(error) };
        Ok(deleted.await.unwrap_or_else(|error| Err(std::io::Error::other(error))).map_err(failed)?)
    }

    async fn delete_object(&self, path: &Path) -> Result<(), ArchiveError> {
        match self.objects.delete(path).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Clears the cache, so that later reads use the current files.
    pub fn clear_cache(&self) {
        self.files.clear();
        self.groups.clear();
    }
}

/// Returns the URL for a message. What precedes a @ is a container of Azure, or credentials if it has a colon.
fn without_credentials(url: &str) -> String {
    match url.split_once("://").and_then(|(scheme, rest)| Some((scheme, rest.rsplit_once('@')?))) {
        Some((scheme, (credentials, place))) if credentials.contains(':') => format!("{scheme}://…@{place}"),
        _ => url.to_owned(),
    }
}

/// Configures the builder of a bucket. It ignores settings that it does not know.
macro_rules! configure {
    ($builder:ty, $url:expr, $settings:expr) => {
        $settings
            .into_iter()
            .fold(<$builder>::new().with_url($url), |builder, (name, value)| match name.parse() {
                Ok(name) => builder.with_config(name, value),
                Err(_) => builder,
            })
            .with_retry(RetryConfig { retry_timeout: RETRY_MAX, ..RetryConfig::default() })
            .build()
            .map_err(|error| error.to_string())?
    };
}

/// Opens a bucket of a cloud service.
fn open_bucket(url: &str) -> Result<(Arc<dyn ObjectStore>, Path), String> {
    let parsed = url.parse().ok().filter(|parsed| {
        BUCKETS.iter().any(|scheme| url.starts_with(scheme)) && ObjectStoreScheme::parse(parsed).is_ok()
    });
    let expected = "it must be an absolute path, file:///folder, s3://bucket/prefix, gs://… or az://…";
    let parsed = parsed.ok_or(expected)?;
    // The client of the library has no cryptography of its own. An error means that a provider is installed already.
    drop(rustls::crypto::ring::default_provider().install_default());
    if parsed.password().is_some() {
        return Err("it must not contain credentials: set the variables AWS_…, GOOGLE_… or AZURE_…".to_owned());
    }
    // Only variables with a prefix: the library also reads names like TOKEN, which may belong to another program.
    let is_setting = |name: &str| ["AWS_", "AZURE_", "GOOGLE_"].iter().any(|service| name.starts_with(service));
    let settings = std::env::vars().filter(|(name, _)| is_setting(name));
    let settings: Vec<_> = settings.map(|(name, value)| (name.to_ascii_lowercase(), value)).collect();
    require_permission_for_http(parsed.scheme(), &settings)?;
    let (scheme, root) = ObjectStoreScheme::parse(&parsed).map_err(|error| error.to_string())?;
    let objects: Arc<dyn ObjectStore> = match scheme {
        ObjectStoreScheme::AmazonS3 => Arc::new(configure!(AmazonS3Builder, url, settings)),
        ObjectStoreScheme::GoogleCloudStorage => Arc::new(configure!(GoogleCloudStorageBuilder, url, settings)),
        ObjectStoreScheme::MicrosoftAzure => Arc::new(configure!(MicrosoftAzureBuilder, url, settings)),
        _ => return Err(expected.to_owned()),
    };
    Ok((objects, root))
}

/// Returns an error if the endpoint of a bucket has no TLS and no setting permits that. The library would refuse each
/// request, without the reason.
fn require_permission_for_http(scheme: &str, settings: &[(String, String)]) -> Result<(), String> {
    let (endpoints, permission): (&[&str], &str) = match scheme {
        "s3" => (&["aws_endpoint", "aws_endpoint_url", "aws_endpoint_url_s3"], "aws_allow_http"),
        "az" => (&["azure_storage_endpoint", "azure_endpoint"], "azure_allow_http"),
        _ => return Ok(()),
    };
    let is_without_tls = |(name, value): &&(String, String)| {
        endpoints.contains(&name.as_str()) && value.to_ascii_lowercase().starts_with("http://")
    };
    let Some((endpoint, _)) = settings.iter().find(is_without_tls) else { return Ok(()) };
    if settings.iter().any(|(name, value)| name == permission && !value.eq_ignore_ascii_case("false")) {
        return Ok(());
    }
    let (endpoint, permission) = (endpoint.to_ascii_uppercase(), permission.to_ascii_uppercase());
    Err(format!("{endpoint} begins with http://: use https://, or set {permission}=true"))
}
