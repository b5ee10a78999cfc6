//! Looks whether the files that listeners are made of change, and has them read again: when they do, and on SIGHUP.

use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash, Hasher};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use metrics::counter;
use tokio::signal::unix::Signal;

use super::listeners::Listeners;

/// How often files are looked at. Looking is asking for times and sizes; it works where notifications do not, such as on
/// what Kubernetes mounts.
const PERIOD: Duration = Duration::from_secs(1);

/// Watches for ever. `files` are what the command line names.
pub async fn watch(listeners: Arc<Listeners>, files: Vec<PathBuf>, mut hangup: Signal) {
    let files = Arc::new(files);
    let mut applied = look(&listeners, &files).await;
    let mut last = applied;
    let mut ticks = tokio::time::interval(PERIOD);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let asked = tokio::select! {
            asked = hangup.recv() => asked.is_some(),
            _ = ticks.tick() => false,
        };
        let now = look(&listeners, &files).await;
        // Only what has come to rest: somebody may be writing still.
        let changed = now != applied && now == last;
        last = now;
        if asked || changed || listeners.is_due() {
            applied = now;
            reload(&listeners, &files).await;
        }
    }
}

async fn reload(listeners: &Arc<Listeners>, files: &Arc<Vec<PathBuf>>) {
    let (listeners, files) = (Arc::clone(listeners), Arc::clone(files));
    // Certificates are parsed and tokens' keys read: that is not for a thread that passes messages.
    let reloaded = tokio::task::spawn_blocking(move || listeners.reload(&config::load(&files))).await;
    let result = match reloaded {
        Ok(Ok(())) => {
            tracing::info!(
                "listeners, certificates, authentication and authorization are as the files have them now"
            );
            "applied"
        }
        Ok(Err(faults)) => {
            for fault in faults {
                tracing::error!("{fault}");
            }
            tracing::error!("nothing was changed: what held before for listeners and their clients holds on");
            "refused"
        }
        Err(error) => {
            tracing::error!("nothing was changed: {error}");
            "refused"
        }
    };
    counter!("forebay_reloads_total", "result" => result).increment(1);
}

async fn look(listeners: &Arc<Listeners>, files: &Arc<Vec<PathBuf>>) -> u64 {
    let (listeners, files) = (Arc::clone(listeners), Arc::clone(files));
    tokio::task::spawn_blocking(move || {
        let mut all = config::files(&files);
        all.extend(listeners.files());
        fingerprint(&all)
    })
    .await
    .unwrap_or(0)
}

/// Changes when one of the files does.
fn fingerprint(files: &[PathBuf]) -> u64 {
    let mut hasher = DefaultHasher::new();
    for file in files {
        file.hash(&mut hasher);
        let known = fs::metadata(file).ok();
        known.map(|file| (file.ino(), file.len(), file.mtime(), file.mtime_nsec())).hash(&mut hasher);
    }
    hasher.finish()
}
