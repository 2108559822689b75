//! The valid API keys, cached by this process. They are read again every few seconds, so a request causes no query. A
//! revoked key ends within a minute, together with its open event streams.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio_util::sync::CancellationToken;

use crate::domain::access::{Access, Grant};
use crate::domain::hex::hex;
use crate::domain::quota::Quotas;
use crate::shares::client::ClientId;
use crate::store::admin::keys::{NewKey, StoredKey};
use crate::store::error::StoreError;
use crate::store::reader::Reader;

/// The prefix of every key, so that secret scanners recognise a key in a log or a repository.
const PREFIX: &str = "annals";
/// The number of bytes of a key's public id.
const ID_BYTES: usize = 6;
/// The number of bytes of a key's secret.
const SECRET_BYTES: usize = 32;
/// The maximum age of cached keys. Older ones are discarded, so that a revocation takes effect within a minute.
const MAX_CACHE_AGE: Duration = Duration::from_secs(45);
/// The database counts as unavailable if it does not return the keys within this time.
const READ_TIMEOUT: Duration = Duration::from_secs(5);
/// An unknown key may be new, so the keys are read again, but at most once in this interval.
const UNKNOWN_KEY_RETRY: Duration = Duration::from_secs(1);

/// A valid key.
pub struct Key {
    pub access: Access,
    /// The client that the key identifies, for its shares of resources.
    pub client: ClientId,
    /// Cancelled when the key expires or is revoked.
    pub ended: CancellationToken,
    stored: StoredKey,
    requests: QuotaLimiter,
    events: QuotaLimiter,
    bytes: QuotaLimiter,
    /// When the key was last used, in microseconds since 1970; 0 if it was not used since its use was recorded.
    used_at_micros: AtomicI64,
}

/// Why a key was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum AuthenticationError {
    #[error("the key is unknown, has expired, or was revoked")]
    UnknownKey,
    #[error("the API keys cannot be read: {0}")]
    Unavailable(#[from] StoreError),
}

#[derive(Default)]
struct Cache {
    keys: HashMap<String, Arc<Key>>,
    read_at: Option<Instant>,
}

/// The cache of valid keys.
#[derive(Default)]
pub struct Keyring(RwLock<Cache>);

impl Keyring {
    /// Returns the presented key if it is valid.
    pub async fn authenticate(
        &self,
        presented: &str,
        now: DateTime<Utc>,
        reader: &Reader,
    ) -> Result<Arc<Key>, AuthenticationError> {
        let (key_id, secret) = parse(presented).ok_or(AuthenticationError::UnknownKey)?;
        let (mut key, read_at) = self.cached(key_id);
        let age = read_at.map_or(Duration::MAX, |read_at| read_at.elapsed());
        if age >= MAX_CACHE_AGE || key.is_none() && age >= UNKNOWN_KEY_RETRY {
            self.refresh(reader).await?;
            key = self.cached(key_id).0;
        }
        let key = key.ok_or(AuthenticationError::UnknownKey)?;
        let digest = Sha256::digest(secret.as_bytes());
        let matches: bool = digest.as_slice().ct_eq(&key.stored.secret_sha256).into();
        let expired = key.stored.expires_at.is_some_and(|expires_at| expires_at <= now);
        if matches && !expired && !key.ended.is_cancelled() {
            key.used_at_micros.store(now.timestamp_micros(), Ordering::Relaxed);
            Ok(key)
        } else {
            Err(AuthenticationError::UnknownKey)
        }
    }

    /// Returns the keys that were used since the last call, with the times of their last use.
    pub fn take_used(&self) -> Vec<(String, DateTime<Utc>)> {
        let cache = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let used = cache.keys.values().filter_map(|key| {
            let micros = key.used_at_micros.swap(0, Ordering::Relaxed);
            Some((key.key_id().to_owned(), DateTime::from_timestamp_micros(micros).filter(|_| micros != 0)?))
        });
        used.collect()
    }

    fn cached(&self, key_id: &str) -> (Option<Arc<Key>>, Option<Instant>) {
        let cache = self.0.read().unwrap_or_else(PoisonError::into_inner);
        (cache.keys.get(key_id).cloned(), cache.read_at)
    }

    /// Reads the keys. Cached keys that have become invalid end, together with their open event streams.
    pub async fn refresh(&self, reader: &Reader) -> Result<(), StoreError> {
        let began = Instant::now();
        let read = tokio::time::timeout(READ_TIMEOUT, reader.keys()).await;
        let read = read.unwrap_or_else(|_| Err(StoreError::timed_out("reading the API keys")));
        let read = read.inspect_err(|_| self.discard_old_keys())?;
        let mut cache = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if cache.read_at.is_some_and(|read_at| read_at > began) {
            // A refresh that began later has finished already.
            return Ok(());
        }
        let mut before = std::mem::take(&mut cache.keys);
        for stored in read {
            let same = before.remove(&stored.key_id).filter(|key| key.stored == stored);
            match same.map_or_else(|| Key::from_stored(stored).map(Arc::new), Ok) {
                Ok(key) => {
                    cache.keys.insert(key.stored.key_id.clone(), key);
                }
                Err(why) => tracing::error!(why, "ignoring an invalid API key"),
            }
        }
        before.values().for_each(|key| key.ended.cancel());
        cache.read_at = Some(began);
        Ok(())
    }

    fn discard_old_keys(&self) {
        let mut cache = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if cache.read_at.is_some_and(|read_at| read_at.elapsed() >= MAX_CACHE_AGE) {
            cache.keys.drain().for_each(|(_, key)| key.ended.cancel());
        }
    }
}

impl Key {
    fn from_stored(stored: StoredKey) -> Result<Self, String> {
        let grants: Result<Vec<Grant>, _> = stored.grants.iter().map(|grant| grant.parse()).collect();
        let access = Access::new(grants.map_err(|error| format!("{}: {error}", stored.key_id))?);
        let quotas = stored.quotas;
        Ok(Self {
            access,
            client: ClientId::Key(stored.key_id.as_str().into()),
            ended: CancellationToken::new(),
            stored,
            requests: QuotaLimiter::new("requests", quotas.requests),
            events: QuotaLimiter::new("events", quotas.events),
            bytes: QuotaLimiter::new("bytes", quotas.bytes),
            used_at_micros: AtomicI64::new(0),
        })
    }

    /// Returns the public id, which is logged.
    pub fn key_id(&self) -> &str {
        &self.stored.key_id
    }

    /// Returns the name that its creator gave it.
    pub fn name(&self) -> &str {
        &self.stored.name
    }

    /// Returns its grants in their text form, `scope:pattern`.
    pub fn grants(&self) -> &[String] {
        &self.stored.grants
    }

    /// Returns when it expires; `None`: never.
    pub fn expires_at(&self) -> Option<DateTime<Utc>> {
        self.stored.expires_at
    }

    /// Counts a request. Fails if it exceeds the quota.
    pub fn count_request(&self) -> Result<(), QuotaExceeded> {
        self.requests.take(1)
    }

    /// Counts events to append. Fails if they exceed the quota.
    pub fn count_events(&self, events: usize) -> Result<(), QuotaExceeded> {
        self.events.take(events)
    }

    /// Counts the bytes of a request body. Fails if they exceed the quota.
    pub fn count_bytes(&self, bytes: usize) -> Result<(), QuotaExceeded> {
        self.bytes.take(bytes)
    }
}

/// A request exceeds a quota of its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QuotaExceeded {
    /// The key must wait for this time.
    Wait(Duration),
    /// The request alone exceeds the quota of a minute, so waiting does not help.
    TooLarge {
        /// What is counted: `events` or `bytes`.
        unit: &'static str,
        /// The quota of a minute.
        per_minute: u32,
    },
}

/// Limits what a key uses in a minute.
struct QuotaLimiter {
    unit: &'static str,
    /// The quota, and the limiter that enforces it; `None`: no limit.
    limit: Option<(NonZeroU32, DefaultDirectRateLimiter)>,
}

impl QuotaLimiter {
    fn new(unit: &'static str, per_minute: Option<i32>) -> Self {
        let per_minute = per_minute.and_then(|number| NonZeroU32::new(number.unsigned_abs()));
        Self { unit, limit: per_minute.map(|number| (number, RateLimiter::direct(Quota::per_minute(number)))) }
    }

    fn take(&self, number: usize) -> Result<(), QuotaExceeded> {
        let Some((per_minute, limiter)) = &self.limit else { return Ok(()) };
        let Some(number) = NonZeroU32::new(u32::try_from(number).unwrap_or(u32::MAX)) else { return Ok(()) };
        match limiter.check_n(number) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(not_yet)) => Err(QuotaExceeded::Wait(not_yet.wait_time_from(DefaultClock::default().now()))),
            Err(_) => Err(QuotaExceeded::TooLarge { unit: self.unit, per_minute: per_minute.get() }),
        }
    }
}

/// Generates a key. Returns the text for its owner, and the record to store.
pub fn generate(
    name: String,
    grants: &[Grant],
    quotas: Quotas,
    expires_in: Option<Duration>,
) -> Result<(String, NewKey), getrandom::Error> {
    let (mut id, mut secret) = ([0; ID_BYTES], [0; SECRET_BYTES]);
    getrandom::fill(&mut id)?;
    getrandom::fill(&mut secret)?;
    let (key_id, secret) = (hex(&id), hex(&secret));
    let new = NewKey {
        key_id: key_id.clone(),
        name,
        secret_sha256: Sha256::digest(secret.as_bytes()).to_vec(),
        grants: grants.iter().map(Grant::to_string).collect(),
        quotas,
        expires_in,
    };
    Ok((format!("{PREFIX}_{key_id}_{secret}"), new))
}

fn parse(presented: &str) -> Option<(&str, &str)> {
    let (key_id, secret) = presented.strip_prefix(PREFIX)?.strip_prefix('_')?.split_once('_')?;
    (key_id.len() == 2 * ID_BYTES && secret.len() == 2 * SECRET_BYTES).then_some((key_id, secret))
}
