//! How many bytes of messages the process holds: in sessions, inside graphs, retained, on their way.
//!
//! Each thread keeps its own account and settles it now and then, so that counting costs no shared cache line. What
//! [`held`] says is therefore out by up to [`STEP`] bytes a thread.

use std::cell::Cell;
use std::sync::atomic::{AtomicI64, Ordering};

/// A thread settles its account when it has changed by so many bytes.
pub const STEP: i64 = 16 * 1024;

/// The process has one memory, so there is one account of it.
static HELD: AtomicI64 = AtomicI64::new(0);

thread_local! {
    static ACCOUNT: Account = const { Account(Cell::new(0)) };
}

struct Account(Cell<i64>);

impl Drop for Account {
    fn drop(&mut self) {
        HELD.fetch_add(self.0.get(), Ordering::Relaxed);
    }
}

fn change(by: i64) {
    let settled = ACCOUNT.try_with(|Account(open)| {
        let now = open.get() + by;
        if now.abs() < STEP {
            open.set(now);
        } else {
            HELD.fetch_add(now, Ordering::Relaxed);
            open.set(0);
        }
    });
    if settled.is_err() {
        // The thread is at its end: its account is closed.
        HELD.fetch_add(by, Ordering::Relaxed);
    }
}

/// Bytes held now.
pub fn held() -> usize {
    usize::try_from(HELD.load(Ordering::Relaxed)).unwrap_or(0)
}

/// So many bytes, on the account as long as this lives.
#[derive(Debug, Default)]
pub struct Weight(usize);

impl Weight {
    /// Puts `bytes` on the account.
    pub fn of(bytes: usize) -> Self {
        let mut weight = Self(0);
        weight.set(bytes);
        weight
    }

    /// From now on it is so many.
    pub fn set(&mut self, bytes: usize) {
        let old = std::mem::replace(&mut self.0, bytes);
        if bytes != old {
            change(i64::try_from(bytes).unwrap_or(i64::MAX) - i64::try_from(old).unwrap_or(i64::MAX));
        }
    }
}

impl Clone for Weight {
    fn clone(&self) -> Self {
        Self::of(self.0)
    }
}

impl Drop for Weight {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Other tests of this process hold messages, too: only large differences mean something.
    #[test]
    fn what_is_held_anywhere_is_on_the_account_until_it_is_dropped() {
        const LARGE: usize = 1 << 40;
        let before = held();
        let mut weight = Weight::of(LARGE);
        assert!(held() > before + LARGE / 2);
        let copy = std::thread::spawn({
            let weight = weight.clone();
            move || weight
        });
        let copy = copy.join().unwrap();
        assert!(held() > before + LARGE + LARGE / 2);
        weight.set(0);
        drop(copy);
        assert!(held() < before + LARGE / 2);
    }

    #[test]
    fn small_changes_of_a_thread_that_ends_are_not_lost() {
        std::thread::spawn(|| change(STEP / 2)).join().unwrap();
        std::thread::spawn(|| change(-STEP / 2)).join().unwrap();
    }
}
