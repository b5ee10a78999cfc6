//! The key-value store behind the guests' `state-store` import (AIO.md §1.5, §8): versions, conditions,
//! expiry and fencing. In memory; a [`Journal`] may write down what is to outlive the process.

pub mod journal;
pub mod resp;

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use processing_core::time::Hlc;

use journal::{Journal, OwnedPair, Pair};

/// How far ahead of our clock a fencing token may be (AIO.md §8).
const AHEAD_MAX: Duration = Duration::from_secs(60);

/// When a SET takes place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Condition {
    /// Always.
    #[default]
    Unconditional,
    /// NX: the key is not there.
    IfAbsent,
    /// NEX: the key is not there, or has this value already.
    IfAbsentOrEqual,
}

/// Why the store refuses a request. The words are the protocol's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// An empty key.
    #[error("the key length is zero")]
    EmptyKey,
    /// The key is fenced, and no token came.
    #[error("a fencing token is required for this request")]
    TokenRequired,
    /// The token is older than the key's.
    #[error("the request fencing token is a lower version that the fencing token protecting the resource")]
    TokenOld,
    /// The token is more than a minute ahead.
    #[error(
        "the request fencing token timestamp is too far in the future; ensure that the client and broker system clocks are synchronized"
    )]
    TokenAhead,
    /// No room.
    #[error("the quota has been exceeded")]
    Quota,
    /// The disk that it is to be kept on fails.
    #[error("the key cannot be persisted now")]
    Disk,
}

/// What the store may hold.
#[derive(Debug, Clone)]
pub struct Quota {
    /// Keys.
    pub keys_max: usize,
    /// Bytes of keys and values.
    pub bytes_max: usize,
}

impl Quota {
    /// Keys, unless said otherwise.
    pub const KEYS_MAX_DEFAULT: usize = 1_000_000;
    /// Bytes, unless said otherwise.
    pub const BYTES_MAX_DEFAULT: usize = 256 << 20;
}

impl Default for Quota {
    fn default() -> Self {
        Self { keys_max: Self::KEYS_MAX_DEFAULT, bytes_max: Self::BYTES_MAX_DEFAULT }
    }
}

#[derive(Debug)]
struct Entry {
    value: Vec<u8>,
    version: Hlc,
    fence: Option<Hlc>,
    /// On the wall clock, since the Unix epoch.
    expires: Option<Duration>,
    /// It is written down.
    kept: bool,
}

struct Inner {
    entries: HashMap<Arc<[u8]>, Entry>,
    /// Keys by when they expire.
    expiring: BTreeSet<(Duration, Arc<[u8]>)>,
    /// Keys that have expired and nobody has been told of yet.
    expired: Vec<Arc<[u8]>>,
    bytes: usize,
    last: Hlc,
    journal: Option<Box<dyn Journal>>,
}

/// Is told what guests have changed: the key, its new value or none, and the version. Called without any lock held, in
/// the middle of a guest's call.
pub type OnChange = Box<dyn Fn(&[u8], Option<&[u8]>, &Hlc) + Send + Sync>;

/// The store.
pub struct StateStore {
    inner: Mutex<Inner>,
    quota: Quota,
    on_change: OnceLock<OnChange>,
}

impl std::fmt::Debug for StateStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StateStore").field("quota", &self.quota).finish_non_exhaustive()
    }
}

/// How full the store is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Keys.
    pub keys: usize,
    /// Bytes of keys and values.
    pub bytes: usize,
}

impl Default for StateStore {
    fn default() -> Self {
        Self::new(Quota::default())
    }
}

/// A SET.
#[derive(Debug, Default)]
pub struct Set<'a> {
    /// The key.
    pub key: &'a [u8],
    /// Its new value.
    pub value: &'a [u8],
    /// When to set it.
    pub condition: Condition,
    /// How long the value lives.
    pub expires: Option<Duration>,
    /// What NEX compares with; the new value when nothing is said.
    pub expected: Option<&'a [u8]>,
    /// The fencing token.
    pub token: Option<Hlc>,
    /// When the request was made: the new version is later.
    pub requested: Option<Hlc>,
    /// The key is to outlive the process.
    pub persist: bool,
}

/// A change that took place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The new version; of a deletion the version that was there.
    pub version: Hlc,
    /// The number of the record that says so; 0 when it is in memory only.
    pub record: u64,
    /// The key outlives the process.
    pub kept: bool,
}

impl StateStore {
    /// An empty store.
    pub fn new(quota: Quota) -> Self {
        let last = Hlc { secs: 0, nanos: 0, counter: 0, node: "StateStore".into() };
        let (entries, expiring) = (HashMap::new(), BTreeSet::new());
        let inner = Inner { entries, expiring, expired: Vec::new(), bytes: 0, last, journal: None };
        Self { inner: Mutex::new(inner), quota, on_change: OnceLock::new() }
    }

    /// Has `on_change` told of what guests change. The first one stays.
    pub fn observe(&self, on_change: OnChange) {
        let _ = self.on_change.set(on_change);
    }

    /// Has `journal` write down what is to outlive the process, from now on.
    pub fn keep(&self, journal: Box<dyn Journal>) {
        self.inner.lock().journal = Some(journal);
    }

    /// Takes back a pair that was written down. Nobody is told, and no quota asked.
    pub fn restore(&self, key: &[u8], pair: OwnedPair) {
        let OwnedPair { value, version, fence, expires } = pair;
        let mut inner = self.inner.lock();
        inner.remove(key);
        let at = |time: &Hlc| (time.secs, time.nanos, time.counter);
        if at(&version) > at(&inner.last) {
            (inner.last.secs, inner.last.nanos, inner.last.counter) = at(&version);
        }
        inner.insert(key, Entry { value, version, fence, expires, kept: true });
    }

    /// Tells of a change by a guest.
    pub(crate) fn changed(&self, key: &[u8], value: Option<&[u8]>, version: &Hlc) {
        if let Some(on_change) = self.on_change.get() {
            on_change(key, value, version);
        }
    }

    /// Removes up to `max` keys whose time is over. Returns them and those that were found to be over before, with the
    /// version of their deletion.
    pub fn sweep(&self, now: Duration, max: usize) -> Vec<(Arc<[u8]>, Hlc)> {
        let mut inner = self.inner.lock();
        for _ in 0..max {
            let Some((_, key)) = inner.expiring.first().filter(|(at, _)| *at <= now).cloned() else { break };
            inner.delete(&key);
            inner.expired.push(key);
        }
        let expired = std::mem::take(&mut inner.expired);
        expired.into_iter().map(|key| (key, inner.next_version(now, None))).collect()
    }

    /// How full it is.
    pub fn usage(&self) -> Usage {
        let inner = self.inner.lock();
        Usage { keys: inner.entries.len(), bytes: inner.bytes }
    }

    /// The value and version of `key`; `now` since the Unix epoch.
    ///
    /// # Errors
    /// An empty key.
    pub fn get(&self, key: &[u8], now: Duration) -> Result<Option<(Vec<u8>, Hlc)>, StoreError> {
        check(key)?;
        let mut inner = self.inner.lock();
        inner.expire(key, now);
        Ok(inner.entries.get(key).map(|entry| (entry.value.clone(), entry.version.clone())))
    }

    /// Sets a key. The new version, or `None` when the condition is not met.
    ///
    /// # Errors
    /// An empty key, a fencing token that does not do, no room.
    pub fn set(&self, set: &Set<'_>, now: Duration) -> Result<Option<Hlc>, StoreError> {
        Ok(self.put(set, now)?.map(|change| change.version))
    }

    /// The same, and whether it is written down.
    ///
    /// # Errors
    /// As [`StateStore::set`]; or it cannot be written down.
    pub fn put(&self, set: &Set<'_>, now: Duration) -> Result<Option<Change>, StoreError> {
        check(set.key)?;
        let mut inner = self.inner.lock();
        inner.expire(set.key, now);
        inner.fenced(set.key, set.token.as_ref(), now)?;
        let old = inner.entries.get(set.key);
        let met = match (set.condition, old) {
            (Condition::Unconditional, _) | (_, None) => true,
            (Condition::IfAbsent, Some(_)) => false,
            (Condition::IfAbsentOrEqual, Some(old)) => old.value == set.expected.unwrap_or(set.value),
        };
        if !met {
            return Ok(None);
        }
        let size = set.key.len() + set.value.len();
        let freed = old.map_or(0, |old| set.key.len() + old.value.len());
        let fence = set.token.clone().or_else(|| old.and_then(|old| old.fence.clone()));
        let full = old.is_none() && inner.entries.len() >= self.quota.keys_max;
        if full || inner.bytes - freed + size > self.quota.bytes_max {
            return Err(StoreError::Quota);
        }
        // What takes the place of a pair that is written down is written down as well, or that would come back.
        let was_kept = old.is_some_and(|old| old.kept);
        let version = inner.next_version(now, set.requested.as_ref());
        let expires = set.expires.map(|after| now.saturating_add(after));
        let journal = inner.journal.as_ref().filter(|it| was_kept || it.keeps(set.key, set.persist));
        let pair = Pair { value: set.value, version: &version, fence: fence.as_ref(), expires };
        let record = journal.map(|journal| journal.set(set.key, &pair)).transpose()?;
        let kept = record.is_some();
        inner.remove(set.key);
        inner.insert(
            set.key,
            Entry { value: set.value.to_vec(), version: version.clone(), fence, expires, kept },
        );
        Ok(Some(Change { version, record: record.unwrap_or(0), kept }))
    }

    /// Deletes `key`; with `expected` only if it has that value. 1 deleted, 0 not there, −1 another value; and
    /// the version that was there.
    ///
    /// # Errors
    /// An empty key, a fencing token that does not do.
    pub fn delete(
        &self,
        key: &[u8],
        expected: Option<&[u8]>,
        token: Option<&Hlc>,
        now: Duration,
    ) -> Result<(i64, Option<Hlc>), StoreError> {
        let (count, change) = self.take(key, expected, token, now)?;
        Ok((count, change.map(|change| change.version)))
    }

    /// The same, and whether it is written down.
    ///
    /// # Errors
    /// As [`StateStore::delete`].
    pub fn take(
        &self,
        key: &[u8],
        expected: Option<&[u8]>,
        token: Option<&Hlc>,
        now: Duration,
    ) -> Result<(i64, Option<Change>), StoreError> {
        check(key)?;
        let mut inner = self.inner.lock();
        inner.expire(key, now);
        inner.fenced(key, token, now)?;
        let Some(entry) = inner.entries.get(key) else { return Ok((0, None)) };
        let mut change = Change { version: entry.version.clone(), record: 0, kept: entry.kept };
        if expected.is_some_and(|value| value != entry.value) {
            return Ok((-1, Some(change)));
        }
        change.record = inner.delete(key);
        Ok((1, Some(change)))
    }
}

fn check(key: &[u8]) -> Result<(), StoreError> {
    if key.is_empty() { Err(StoreError::EmptyKey) } else { Ok(()) }
}

impl Inner {
    fn expire(&mut self, key: &[u8], now: Duration) {
        if self.entries.get(key).and_then(|entry| entry.expires).is_some_and(|at| at <= now) {
            self.delete(key);
            self.expired.push(key.into());
        }
    }

    fn insert(&mut self, key: &[u8], entry: Entry) {
        let key: Arc<[u8]> = key.into();
        self.bytes += key.len() + entry.value.len();
        self.expiring.extend(entry.expires.map(|at| (at, Arc::clone(&key))));
        self.entries.insert(key, entry);
    }

    /// Removes a key for good. The record that says so; 0 when it was in memory only.
    fn delete(&mut self, key: &[u8]) -> u64 {
        let kept = self.entries.get(key).is_some_and(|entry| entry.kept);
        self.remove(key);
        self.journal.as_ref().filter(|_| kept).map_or(0, |journal| journal.delete(key))
    }

    fn remove(&mut self, key: &[u8]) {
        if let Some((key, entry)) = self.entries.remove_entry(key) {
            self.bytes -= key.len() + entry.value.len();
            if let Some(at) = entry.expires {
                self.expiring.remove(&(at, key));
            }
        }
    }

    fn fenced(&self, key: &[u8], token: Option<&Hlc>, now: Duration) -> Result<(), StoreError> {
        if let Some(token) = token
            && Duration::new(token.secs, 0) > now + AHEAD_MAX
        {
            return Err(StoreError::TokenAhead);
        }
        match (self.entries.get(key).and_then(|entry| entry.fence.as_ref()), token) {
            (None, _) => Ok(()),
            (Some(_), None) => Err(StoreError::TokenRequired),
            (Some(fence), Some(token)) if token < fence => Err(StoreError::TokenOld),
            (Some(_), Some(_)) => Ok(()),
        }
    }

    /// Later than every version before, and than the request, whatever the clock does.
    fn next_version(&mut self, now: Duration, requested: Option<&Hlc>) -> Hlc {
        let now = (now.as_secs(), now.subsec_millis() * 1_000_000);
        let last = (self.last.secs, self.last.nanos, self.last.counter);
        let asked = requested.map_or((0, 0, 0), |asked| (asked.secs, asked.nanos, asked.counter));
        let (secs, nanos, counter) = last.max(asked);
        if now > (secs, nanos) {
            (self.last.secs, self.last.nanos, self.last.counter) = (now.0, now.1, 0);
        } else {
            (self.last.secs, self.last.nanos, self.last.counter) = (secs, nanos, counter.saturating_add(1));
        }
        self.last.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(1_000_000);

    fn token(secs: u64) -> Hlc {
        Hlc { secs, nanos: 0, counter: 0, node: "n".into() }
    }

    #[test]
    fn conditions_are_met_or_not() {
        let store = StateStore::default();
        let set = |value: &'static [u8], condition| {
            store.set(&Set { key: b"k", value, condition, ..Set::default() }, NOW).unwrap().is_some()
        };
        assert!(set(b"a", Condition::IfAbsent));
        assert!(!set(b"b", Condition::IfAbsent));
        assert!(set(b"a", Condition::IfAbsentOrEqual));
        assert!(!set(b"b", Condition::IfAbsentOrEqual));
        assert!(set(b"b", Condition::Unconditional));
        assert_eq!(store.get(b"k", NOW).unwrap().unwrap().0, b"b");
    }

    #[test]
    fn values_expire_and_versions_only_grow() {
        let store = StateStore::default();
        let expires = Some(Duration::from_millis(10));
        let first = store.set(&Set { key: b"k", expires, ..Set::default() }, NOW).unwrap().unwrap();
        assert_eq!(store.get(b"k", NOW + Duration::from_millis(10)), Ok(None));
        let second = store.set(&Set { key: b"k", ..Set::default() }, NOW - Duration::from_secs(9)).unwrap();
        assert!(second.unwrap() > first, "even when the clock steps back");
    }

    #[test]
    fn what_expires_is_told_once_whoever_finds_it() {
        let store = StateStore::default();
        let set = |key: &'static [u8], ms| {
            let expires = Some(Duration::from_millis(ms));
            store.set(&Set { key, expires, ..Set::default() }, NOW).unwrap()
        };
        set(b"a", 10);
        set(b"b", 20);
        set(b"c", 30);
        set(b"c", 5_000);
        assert_eq!(store.get(b"a", NOW + Duration::from_millis(15)), Ok(None));
        let keys =
            |now| -> Vec<Vec<u8>> { store.sweep(now, 10).iter().map(|(key, _)| key.to_vec()).collect() };
        assert_eq!(keys(NOW + Duration::from_millis(40)), [b"a".to_vec(), b"b".to_vec()]);
        assert_eq!(keys(NOW + Duration::from_millis(40)), Vec::<Vec<u8>>::new());
        assert_eq!(store.usage(), Usage { keys: 1, bytes: 1 });
    }

    #[test]
    fn a_version_is_later_than_the_request() {
        let store = StateStore::default();
        let requested = Hlc { secs: NOW.as_secs() + 5, nanos: 0, counter: 7, node: "client".into() };
        let set =
            |requested| store.set(&Set { key: b"k", requested, ..Set::default() }, NOW).unwrap().unwrap();
        let version = set(Some(requested.clone()));
        assert_eq!((version.secs, version.counter, &*version.node), (requested.secs, 8, "StateStore"));
        assert!(set(None) > version);
    }

    #[test]
    fn a_fenced_key_wants_a_token_as_new() {
        let store = StateStore::default();
        let set = |token| store.set(&Set { key: b"k", value: b"v", token, ..Set::default() }, NOW);
        set(Some(token(10))).unwrap();
        assert_eq!(set(None), Err(StoreError::TokenRequired));
        assert_eq!(set(Some(token(9))), Err(StoreError::TokenOld));
        assert_eq!(set(Some(token(NOW.as_secs() + 61))), Err(StoreError::TokenAhead));
        set(Some(token(11))).unwrap();
        assert_eq!(store.delete(b"k", None, Some(&token(10)), NOW), Err(StoreError::TokenOld));
        assert_eq!(store.delete(b"k", Some(b"x"), Some(&token(11)), NOW).unwrap().0, -1);
        assert_eq!(store.delete(b"k", Some(b"v"), Some(&token(11)), NOW).unwrap().0, 1);
        assert_eq!(store.delete(b"k", None, None, NOW).unwrap().0, 0);
    }

    /// A key, and the pair that it was set to; nothing for one that was deleted.
    type Line = (Vec<u8>, Option<Vec<u8>>);

    /// Keeps what asks for it, and writes it into a list; refuses the value `full`.
    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<Line>>>);

    impl Journal for Written {
        fn keeps(&self, _: &[u8], asked: bool) -> bool {
            asked
        }

        fn set(&self, key: &[u8], pair: &Pair<'_>) -> Result<u64, StoreError> {
            if pair.value == b"full" {
                return Err(StoreError::Disk);
            }
            let mut list = self.0.lock();
            list.push((key.to_vec(), Some(pair.to_bytes())));
            Ok(list.len() as u64)
        }

        fn delete(&self, key: &[u8]) -> u64 {
            let mut list = self.0.lock();
            list.push((key.to_vec(), None));
            list.len() as u64
        }
    }

    #[test]
    fn what_asks_for_it_is_written_down_before_it_takes_effect_and_comes_back() {
        let (store, written) = (StateStore::default(), Written::default());
        store.keep(Box::new(written.clone()));
        let put = |key: &'static [u8], value: &'static [u8], persist| {
            let expires = Some(Duration::from_secs(60));
            store.put(&Set { key, value, persist, expires, token: Some(token(3)), ..Set::default() }, NOW)
        };
        let change = put(b"a", b"1", true).unwrap().unwrap();
        assert_eq!((change.record, change.kept), (1, true));
        assert_eq!(put(b"b", b"1", false).unwrap().unwrap().record, 0);
        // It stays one of those, asked or not.
        assert_eq!(put(b"a", b"2", false).unwrap().unwrap().record, 2);
        assert_eq!(put(b"a", b"full", true), Err(StoreError::Disk));
        assert_eq!(store.get(b"a", NOW).unwrap().unwrap().0, b"2");
        assert_eq!(store.take(b"b", None, Some(&token(3)), NOW).unwrap().1.unwrap().record, 0);

        let last = written.0.lock().last().cloned().unwrap();
        let again = StateStore::default();
        again.restore(&last.0, OwnedPair::from_bytes(&last.1.unwrap()).unwrap());
        let (value, version) = again.get(b"a", NOW).unwrap().unwrap();
        assert_eq!(value, b"2");
        assert_eq!(again.set(&Set { key: b"a", ..Set::default() }, NOW), Err(StoreError::TokenRequired));
        let next = again.set(&Set { key: b"c", ..Set::default() }, Duration::ZERO).unwrap().unwrap();
        assert!(next > version, "versions go on from there");
        assert_eq!(again.usage(), Usage { keys: 2, bytes: 3 });

        // What expires is gone from there, too.
        store.sweep(NOW + Duration::from_secs(61), 10);
        assert_eq!(written.0.lock().last(), Some(&(b"a".to_vec(), None)));
    }

    #[test]
    fn the_quota_holds_and_what_is_deleted_gives_room() {
        let store = StateStore::new(Quota { keys_max: 1, bytes_max: 4 });
        let set = |key: &'static [u8], value: &'static [u8]| {
            store.set(&Set { key, value, ..Set::default() }, NOW).map(|_| ())
        };
        assert_eq!(set(b"a", b"1234"), Err(StoreError::Quota));
        assert_eq!(set(b"a", b"123"), Ok(()));
        assert_eq!(set(b"a", b"321"), Ok(()), "replacing needs no more room");
        assert_eq!(set(b"b", b""), Err(StoreError::Quota));
        store.delete(b"a", None, None, NOW).unwrap();
        assert_eq!(set(b"b", b""), Ok(()));
        assert_eq!(set(b"", b""), Err(StoreError::EmptyKey));
    }
}
