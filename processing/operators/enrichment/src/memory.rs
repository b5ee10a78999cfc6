//! What is kept in the state store. What the store refuses is logged: no window is lost for it.

use wasm_graph_sdk::logger::{self, Level};
use wasm_graph_sdk::state_store::{
    self, Duration, HybridLogicalClock, SetConditions, SetOptions, StateStoreError,
};

use crate::map::NAME;

/// Whether it is too hot.
pub const OVERTEMP: &[u8] = b"overtemp";
/// How wet it is, while it is.
pub const WET: &[u8] = b"wet_flag";
/// How many windows were too hot.
const OVERTEMP_COUNT: &[u8] = b"overtemp_count";

/// Who has it may count.
const LOCK: &[u8] = b"lock";
/// Our name on the lock.
const OWNER: &[u8] = b"module2";
const LOCK_EXPIRES: Duration = Duration { seconds: 10, nanos: 0 };
const LOCK_TRIES: usize = 3;

/// The answer, if there is one.
fn answer<T>(what: &str, key: &[u8], result: Result<T, StateStoreError>) -> Option<T> {
    result
        .inspect_err(|error| {
            let message = format!("{what} {}: {error:?}", String::from_utf8_lossy(key));
            logger::log(Level::Error, NAME, &message);
        })
        .ok()
}

/// The value of `key`.
pub fn get(key: &[u8]) -> Option<Vec<u8>> {
    answer("get", key, state_store::get(key, None))?.response
}

/// Sets `key`, whatever it was.
pub fn set(key: &[u8], value: &[u8]) {
    answer("set", key, state_store::set(key, value, None, None, SetOptions::default()));
}

/// Forgets `key`.
pub fn delete(key: &[u8]) {
    answer("delete", key, state_store::del(key, None, None));
}

/// One window more that was too hot. Whoever else counts here is kept out by a lock that expires by itself, and by
/// the fencing token should it have expired too early.
pub fn count_overtemp() {
    let Some(token) = (0..LOCK_TRIES).find_map(|_| lock()) else {
        logger::log(Level::Warn, NAME, "the lock is taken: this window is not counted");
        return;
    };
    let known = get(OVERTEMP_COUNT).and_then(|text| String::from_utf8(text).ok()?.parse().ok());
    let count: u64 = known.unwrap_or(0);
    let value = count.saturating_add(1).to_string();
    let set = state_store::set(OVERTEMP_COUNT, value.as_bytes(), None, Some(&token), SetOptions::default());
    answer("set", OVERTEMP_COUNT, set);
    answer("unlock", LOCK, state_store::vdel(LOCK, OWNER, None, None));
}

/// Takes the lock; with it comes the token that it gives.
fn lock() -> Option<HybridLogicalClock> {
    let options =
        SetOptions { conditions: SetConditions::OnlyIfEqualOrDoesNotExist, expires: Some(LOCK_EXPIRES) };
    let taken = answer("lock", LOCK, state_store::set(LOCK, OWNER, None, None, options))?;
    taken.response.then_some(taken.version).flatten()
}
