//! The API keys that are good at this moment, as a process knows them: read again every few seconds, so that a request asks
//! the database nothing, and a revoked key ends within a minute, with everything that it holds open.

use std::collections::HashMap;
use std::num::NonZeroU32;
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
use crate::store::Store;
use crate::store::error::StoreError;
use crate::store::keys::{NewKey, StoredKey};

/// What every key begins with, so that it is recognised where it does not belong: in a log, in a repository.
const PREFIX: &str = "annals";
/// Bytes of a key's public part, and of its secret.
const ID_BYTES: usize = 6;
const SECRET_BYTES: usize = 32;
/// Keys that could not be read again for so long are not believed any more: revocation must work within a minute.
const BELIEVED: Duration = Duration::from_secs(45);
/// A database that says nothing is one that is away.
const READ_TIMEOUT: Duration = Duration::from_secs(5);
/// A key that is not known may be new: the database is asked, but not for every guess.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// A key that is good.
pub struct Key {
    pub access: Access,
    /// Cancelled once it is good no more.
    pub ended: CancellationToken,
    stored: StoredKey,
    limiter: Option<DefaultDirectRateLimiter>,
}

/// Why a request is not let in.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    #[error("the key is not known, or has expired, or was revoked")]
    NoSuchKey,
    #[error("the keys cannot be read now: {0}")]
    Unavailable(#[from] StoreError),
}

#[derive(Default)]
struct Known {
    keys: HashMap<String, Arc<Key>>,
    read_at: Option<Instant>,
}

#[derive(Default)]
pub struct Keyring(RwLock<Known>);

impl Keyring {
    /// The key that was presented, if it is good.
    pub async fn find(&self, presented: &str, now: DateTime<Utc>, store: &Store) -> Result<Arc<Key>, Refused> {
        let (key_id, secret) = parse(presented).ok_or(Refused::NoSuchKey)?;
        let (mut key, read_at) = self.known(key_id);
        let age = read_at.map_or(Duration::MAX, |read_at| read_at.elapsed());
        if age >= BELIEVED || key.is_none() && age >= ASK_AGAIN {
            self.refresh(store).await?;
            key = self.known(key_id).0;
        }
        let key = key.ok_or(Refused::NoSuchKey)?;
        let digest = Sha256::digest(secret.as_bytes());
        let is_it: bool = digest.as_slice().ct_eq(&key.stored.secret_sha256).into();
        let expired = key.stored.expires_at.is_some_and(|expires_at| expires_at <= now);
        if is_it && !expired && !key.ended.is_cancelled() { Ok(key) } else { Err(Refused::NoSuchKey) }
    }

    fn known(&self, key_id: &str) -> (Option<Arc<Key>>, Option<Instant>) {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        (known.keys.get(key_id).cloned(), known.read_at)
    }

    /// Reads the keys again. Those that are gone end, with what they hold open.
    pub async fn refresh(&self, store: &Store) -> Result<(), StoreError> {
        let began = Instant::now();
        let read = tokio::time::timeout(READ_TIMEOUT, store.keys(true)).await;
        let read = read.unwrap_or_else(|_| Err(StoreError::timed_out("reading the API keys took too long")));
        let read = read.inspect_err(|_| self.end_what_is_not_believed())?;
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if known.read_at.is_some_and(|read_at| read_at > began) {
            // Somebody who began later was faster.
            return Ok(());
        }
        let mut before = std::mem::take(&mut known.keys);
        for stored in read {
            let same = before.remove(&stored.key_id).filter(|key| key.stored == stored);
            match same.map(Ok).unwrap_or_else(|| Key::of(stored).map(Arc::new)) {
                Ok(key) => {
                    known.keys.insert(key.stored.key_id.clone(), key);
                }
                Err(why) => tracing::error!(why, "an API key is passed over"),
            }
        }
        before.values().for_each(|key| key.ended.cancel());
        known.read_at = Some(began);
        Ok(())
    }

    fn end_what_is_not_believed(&self) {
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if known.read_at.is_some_and(|read_at| read_at.elapsed() >= BELIEVED) {
            known.keys.drain().for_each(|(_, key)| key.ended.cancel());
        }
    }
}

impl Key {
    fn of(stored: StoredKey) -> Result<Self, String> {
        let grants: Result<Vec<Grant>, _> = stored.grants.iter().map(|grant| grant.parse()).collect();
        let access = Access::new(grants.map_err(|error| format!("{}: {error}", stored.key_id))?);
        let per_minute = stored.requests_per_minute.and_then(|requests| NonZeroU32::new(requests.unsigned_abs()));
        let limiter = per_minute.map(|requests| RateLimiter::direct(Quota::per_minute(requests)));
        Ok(Self { access, ended: CancellationToken::new(), stored, limiter })
    }

    pub fn key_id(&self) -> &str {
        &self.stored.key_id
    }

    /// Counts a request; if it is one too many, how long to wait.
    pub fn take_from_quota(&self) -> Result<(), Duration> {
        let Some(limiter) = &self.limiter else { return Ok(()) };
        limiter.check().map_err(|not_yet| not_yet.wait_time_from(DefaultClock::default().now()))
    }
}

/// Makes a key: what is given to its user, and what is stored.
pub fn make(
    name: String,
    grants: &[Grant],
    requests_per_minute: Option<i32>,
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
        requests_per_minute,
        expires_in,
    };
    Ok((format!("{PREFIX}_{key_id}_{secret}"), new))
}

fn parse(presented: &str) -> Option<(&str, &str)> {
    let (key_id, secret) = presented.strip_prefix(PREFIX)?.strip_prefix('_')?.split_once('_')?;
    (key_id.len() == 2 * ID_BYTES && secret.len() == 2 * SECRET_BYTES).then_some((key_id, secret))
}
