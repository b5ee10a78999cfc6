//! Looks whether the files that listeners are made of change, and has them read again: when they do, and on SIGHUP.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use metrics::counter;
use tokio::signal::unix::Signal;

use super::listeners::Listeners;
use super::seen::Seen;

/// How often files are looked at. Looking is asking for times and sizes; it works where notifications do not, such as on
/// what Kubernetes mounts.
const PERIOD: Duration = Duration::from_secs(1);

/// The files that listeners are made of, watched.
pub struct Watch {
    listeners: Arc<Listeners>,
    /// What the command line names.
    paths: Vec<PathBuf>,
}

/// How the files of resources were, and those that they refer to.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Files {
    resources: Vec<Seen>,
    others: Vec<Seen>,
}

/// How the files of resources are now. To be asked before they are read.
pub fn look(paths: &[PathBuf]) -> Vec<Seen> {
    Seen::all(&config::files(paths))
}

impl Watch {
    /// Of what `paths` name.
    pub fn new(listeners: Arc<Listeners>, paths: Vec<PathBuf>) -> Arc<Self> {
        Arc::new(Self { listeners, paths })
    }

    /// Watches for ever; `read` is how the files of resources were when they were read.
    pub async fn run(self: Arc<Self>, read: Vec<Seen>, mut hangup: Signal) {
        let mut applied = Files { resources: read, others: self.listeners.seen() };
        let mut last = applied.clone();
        let mut ticks = tokio::time::interval(PERIOD);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let asked = tokio::select! {
                asked = hangup.recv() => asked.is_some(),
                _ = ticks.tick() => false,
            };
            // Files are asked for and certificates parsed: that is not for a thread that passes messages.
            let watch = Arc::clone(&self);
            let Ok(now) = tokio::task::spawn_blocking(move || watch.now()).await else { continue };
            // Only what has come to rest: somebody may be writing still.
            let changed = now != applied && now == last;
            last = now;
            if asked || changed || self.listeners.is_due() {
                let watch = Arc::clone(&self);
                if let Ok(read) = tokio::task::spawn_blocking(move || watch.reload()).await {
                    applied = read;
                }
            }
        }
    }

    fn now(&self) -> Files {
        let others = self.listeners.seen();
        Files { resources: look(&self.paths), others: Seen::all(others.iter().map(|seen| &seen.path)) }
    }

    /// Reads everything again, and says how the files were then.
    fn reload(&self) -> Files {
        let resources = look(&self.paths);
        let result = match self.listeners.reload(&config::load(&self.paths)) {
            Ok(()) => {
                tracing::info!(
                    "listeners, certificates, authentication and authorization are as the files have them now"
                );
                "applied"
            }
            Err(faults) => {
                for fault in faults {
                    tracing::error!("{fault}");
                }
                tracing::error!(
                    "nothing was changed: what held before for listeners and their clients holds on"
                );
                "refused"
            }
        };
        counter!("forebay_reloads_total", "result" => result).increment(1);
        Files { resources, others: self.listeners.seen() }
    }
}
