//! Steps at which a process may be made to die: each is a moment that a crash could pick.

use crate::disk::Disk;

/// The names of all steps, in the order in which a commit and what follows it come by.
pub const FAILPOINTS: &[&str] = &[
    "store.before-segment",
    "store.segment-written",
    "store.segment-renamed",
    "store.after-segment",
    "store.before-write",
    "store.after-write",
    "store.after-sync",
    "store.after-apply",
    "store.after-told",
    "store.before-checkpoint",
    "store.checkpoint-slice",
    "store.checkpoint-written",
    "store.checkpoint-synced",
    "store.checkpoint-renamed",
    "store.checkpoint-durable",
    "store.checkpoint-pruned",
    "store.before-delete",
    "store.after-delete",
    "store.before-move",
    "store.after-move",
    "store.before-truncate",
    "store.after-truncate",
    "store.migration-step",
    "store.migration-done",
];

/// Marks a step: a simulated disk may lose power here, and a process with debug assertions dies here when
/// `FOREBAY_FAILPOINT=name[:nth]` says so.
pub(crate) fn failpoint(disk: &dyn Disk, name: &'static str) {
    debug_assert!(FAILPOINTS.contains(&name), "{name} is not in the list");
    disk.step(name);
    #[cfg(debug_assertions)]
    abort_if_asked(name);
}

#[cfg(debug_assertions)]
fn abort_if_asked(name: &str) {
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    static ASKED: LazyLock<Option<(String, u64)>> = LazyLock::new(|| {
        let asked = std::env::var("FOREBAY_FAILPOINT").ok()?;
        match asked.rsplit_once(':') {
            Some((name, nth)) => Some((name.to_owned(), nth.parse().ok()?)),
            None => Some((asked, 1)),
        }
    });
    static SEEN: AtomicU64 = AtomicU64::new(0);

    if let Some((asked, nth)) = &*ASKED
        && asked == name
        && SEEN.fetch_add(1, Ordering::Relaxed) + 1 == *nth
    {
        std::process::abort();
    }
}
