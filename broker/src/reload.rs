//! Looks whether the files of resources change, and those that they refer to, and has them read again: when they do, on SIGHUP,
//! and when somebody asks. Listeners and graphs are brought to what they say.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use config::Loaded;
use metrics::counter;
use parking_lot::Mutex;
use tokio::signal::unix::Signal;
use tokio::sync::Notify;

use crate::graphs::Graphs;
use crate::health::Health;
use crate::listener::listeners::Listeners;
use crate::listener::seen::Seen;
use crate::schemas;

/// How often files are looked at. Looking is asking for times and sizes; it works where notifications do not, such as on
/// what Kubernetes mounts.
const PERIOD: Duration = Duration::from_secs(1);

/// The files of resources, watched.
pub struct Watch {
    /// What listens.
    pub listeners: Arc<Listeners>,
    /// What runs graphs.
    pub graphs: Arc<Graphs>,
    /// How resources fare.
    pub health: Arc<Health>,
    /// What the command line names.
    pub paths: Vec<PathBuf>,
    /// The directory of schemas that it names.
    pub schemas: Option<PathBuf>,
    /// Asks that the files be read again now.
    pub asked: Notify,
    /// Held by who writes or reads files of resources.
    pub files: Mutex<()>,
}

/// How the files of resources were, and those that they refer to.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Files {
    resources: Vec<Seen>,
    others: Vec<Seen>,
}

/// How the files of resources are now. To be asked before they are read.
pub fn look(paths: &[PathBuf]) -> Vec<Seen> {
    Seen::all(&config::watched(paths))
}

impl Watch {
    /// Watches for ever; `read` is how the files of resources were when they were read.
    pub async fn run(self: Arc<Self>, read: Vec<Seen>, mut hangup: Signal) {
        let mut applied = Files { resources: read, others: self.listeners.seen() };
        let mut last = applied.clone();
        let mut ticks = tokio::time::interval(PERIOD);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let asked = tokio::select! {
                asked = hangup.recv() => asked.is_some(),
                () = self.asked.notified() => true,
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
                let Ok((read, loaded)) = tokio::task::spawn_blocking(move || watch.reload()).await else {
                    continue;
                };
                applied = read;
                self.graphs.reconcile(loaded).await;
            }
        }
    }

    fn now(&self) -> Files {
        let _files = self.files.lock();
        let others = self.listeners.seen();
        Files { resources: look(&self.paths), others: Seen::all(others.iter().map(|seen| &seen.path)) }
    }

    /// Reads everything again, and says how the files were then.
    fn reload(&self) -> (Files, Arc<Loaded>) {
        let _files = self.files.lock();
        let resources = look(&self.paths);
        let loaded = Arc::new(config::load(&self.paths));
        let result = match self.listeners.reload(&loaded) {
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
        self.tell(&loaded);
        counter!("forebay_reloads_total", "result" => result).increment(1);
        (Files { resources, others: self.listeners.seen() }, loaded)
    }

    /// What is wrong is told, once for each time that it is new.
    fn tell(&self, loaded: &Loaded) {
        for schema in schemas::read_into(self.graphs.schemas(), loaded, self.schemas.as_deref()) {
            tracing::error!("schema {schema}");
        }
        for finding in self.health.read(loaded) {
            eprintln!("{finding}");
            counter!("aio_dataflow_reconcile_errors").increment(u64::from(finding.is_error()));
        }
    }
}
