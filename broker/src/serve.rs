//! `forebay serve`: bind, say what is bound, run until told to end, drain.

use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use broker_core::packet::ReasonCode;
use broker_store::Store;
use metrics::counter;
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use parking_lot::Mutex;
use processing::state_store::Quota;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, oneshot, watch};

use crate::admin::{self, Admin};
use crate::broker::Broker;
use crate::cli;
use crate::control::{self, Control};
use crate::graphs::Graphs;
use crate::health::Health;
use crate::limits::Limits;
use crate::listener::listeners::Listeners;
use crate::persistence::{self, Persistence, Policy};
use crate::reload::{self, Watch};
use crate::services::schema_registry::SchemaRegistryService;
use crate::services::state_store::StateStoreService;
use crate::{clock, delivery, housekeeping, listener, logs, schemas, self_check, sys};

/// Upper bounds of the latency histogram of operations, seconds.
const OPERATION_BUCKETS: [f64; 12] = [1e-6, 2e-6, 5e-6, 1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 1e-3, 1e-2, 1e-1, 1.0];
/// Upper bounds of the latency histogram of graphs, milliseconds.
const GRAPH_BUCKETS: [f64; 12] = [0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 10.0, 100.0, 1000.0];
/// How often histograms are summed up.
const UPKEEP: Duration = Duration::from_secs(5);
/// What the store may take on disk where nothing is said.
const STORE_BYTES_MAX_DEFAULT: u64 = 1 << 30;
/// How long clients get to take their goodbye.
const DRAIN: Duration = Duration::from_secs(3);

/// Why the broker does not run.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// An address off loopback, without authentication.
    #[error(
        "{0} can be reached from other machines, and nothing asks clients who they are; \
         listen on loopback, name users with --password-file, or say --allow-anonymous if that is what you want"
    )]
    Exposed(SocketAddr),
    /// The address cannot be bound.
    #[error("cannot listen on {address}: {error}{}", hint(error))]
    Bind {
        /// Which.
        address: SocketAddr,
        /// Why.
        error: std::io::Error,
    },
    /// What resources say of ports.
    #[error("the listeners cannot be what they should:\n  {0}")]
    Listeners(String),
    /// The password file cannot be written.
    #[error("{0}")]
    Passwd(String),
    /// Anything else at start-up.
    #[error("cannot start: {0}")]
    Start(String),
}

fn hint(error: &std::io::Error) -> &'static str {
    match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            "; another broker runs there (mosquitto?): stop it, or choose another port with --listen"
        }
        std::io::ErrorKind::PermissionDenied => "; ports below 1024 need privileges",
        _ => "",
    }
}

/// Runs until SIGTERM or Ctrl-C.
pub fn run(options: &cli::Serve) -> Result<(), ServeError> {
    run_with(options, |_| None)
}

/// Ends what runs beside the broker, and with it the broker.
pub type Ended = oneshot::Receiver<std::io::Result<()>>;

/// Runs until SIGTERM, Ctrl-C, or until what `beside` has begun is done. `beside` is called with the first
/// address, once every graph has been tried.
pub fn run_with(
    options: &cli::Serve,
    beside: impl FnOnce(SocketAddr) -> Option<Ended> + Send + 'static,
) -> Result<(), ServeError> {
    let metrics = install_metrics().map_err(|error| ServeError::Start(error.to_string()))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| ServeError::Start(error.to_string()))?;
    let result = runtime.block_on(serve(options, metrics, beside));
    // A guest that will not end must not keep the process.
    runtime.shutdown_timeout(Duration::from_secs(1));
    result
}

fn install_metrics() -> Result<PrometheusHandle, BuildError> {
    PrometheusBuilder::new()
        .set_buckets_for_metric(
            Matcher::Full("forebay_operation_latency_seconds".to_owned()),
            &OPERATION_BUCKETS,
        )?
        .set_buckets_for_metric(Matcher::Full("aio_dataflow_processing_latency".to_owned()), &GRAPH_BUCKETS)?
        .install_recorder()
}

async fn serve(
    options: &cli::Serve,
    metrics: PrometheusHandle,
    beside: impl FnOnce(SocketAddr) -> Option<Ended> + Send + 'static,
) -> Result<(), ServeError> {
    let started = |error: std::io::Error| ServeError::Start(error.to_string());
    let mut terminate = signal(SignalKind::terminate()).map_err(started)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(started)?;
    let read = reload::look(&options.files);
    let loaded = Arc::new(config::load(&options.files));
    logs::follow(loaded.resources.brokers.first());
    let errors = counter!("aio_dataflow_reconcile_errors");
    for finding in &loaded.findings {
        eprintln!("{finding}");
        errors.increment(u64::from(finding.is_error()));
    }
    let hangup = signal(SignalKind::hangup()).map_err(started)?;
    let listeners = Arc::new(Listeners::bind(options, &loaded)?);
    let admin_listener = options.admin.map(bind).transpose()?;
    let broker = Broker::new(limits(options, &loaded), "forebay");
    let store = persist(options, &loaded, &broker)?;
    let health = Arc::new(Health::of(&loaded));
    let (schemas, unusable) = schemas::load(&loaded, options.schemas.as_deref());
    for schema in &unusable {
        eprintln!("schema {schema}");
        errors.increment(1);
    }
    SchemaRegistryService::start(&schemas, &broker);
    let quota = Quota { keys_max: options.state_store_keys, bytes_max: options.state_store_bytes };
    let graphs = Graphs::new(&broker, options.data_dir.as_deref(), schemas, quota, Arc::clone(&health))
        .map_err(|error| ServeError::Start(error.to_string()))?;
    StateStoreService::start(graphs.state_store(), &broker);
    for line in graphs.prepare(&loaded) {
        eprintln!("store: {line}");
    }
    if let Some(persistence) = broker.persistence() {
        persistence.show();
    }
    let graphs = Arc::new(graphs);
    let (shown, stopped_last) = (Arc::clone(&graphs), Arc::clone(&graphs));
    tokio::spawn(upkeep(metrics.clone()));
    let admin = Arc::new(Admin {
        broker: Arc::clone(&broker),
        metrics,
        graphs: shown,
        health,
        ready: AtomicBool::new(false),
    });
    println!("{}", banner(&listeners, admin_listener.as_ref()));

    let first = listeners.first();
    let (stop, stopped) = watch::channel(false);
    listeners.run(&broker, &stopped);
    drop(stopped);
    let watch = Arc::new(Watch {
        listeners,
        graphs: Arc::clone(&graphs),
        health: Arc::clone(&admin.health),
        paths: options.files.clone(),
        schemas: options.schemas.clone(),
        asked: Notify::new(),
        files: Mutex::default(),
    });
    tokio::spawn(Arc::clone(&watch).run(read, hangup));
    if let Some(data_dir) = options.data_dir.as_deref() {
        match control::bind(data_dir) {
            Ok(socket) => {
                let control = Control { admin: Arc::clone(&admin), watch };
                drop(tokio::spawn(control::run(socket, Arc::new(control))));
            }
            // Such as a path that is too long for a socket: everything else goes on.
            Err(error) => tracing::warn!("there is no control socket in {}: {error}", data_dir.display()),
        }
    }
    if let Some(listener) = admin_listener {
        tokio::spawn(admin::run(listener, Arc::clone(&admin)));
    }
    tokio::spawn(housekeeping::run(Arc::clone(&broker)));
    tokio::spawn(sys::run(Arc::clone(&broker)));
    if let Some(resource) = loaded.resources.brokers.first() {
        self_check::start(&broker, &admin.health, resource);
    }
    if !options.registry_poll.is_zero() {
        tokio::spawn(Arc::clone(&graphs).watch_registries(*options.registry_poll));
    }
    let begun = tokio::spawn(async move {
        graphs.start(loaded).await;
        admin.ready.store(true, Ordering::Release);
        first.and_then(beside)
    });
    let ended = async {
        match begun.await {
            Ok(Some(ended)) => ended.await,
            _ => std::future::pending().await,
        }
    };
    let result = tokio::select! {
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
        ended = ended => match ended {
            Ok(Err(error)) => Err(started(error)),
            _ => Ok(()),
        },
    };
    println!("forebay: ending; clients are told");
    drain(&broker, &stop).await;
    stopped_last.stop_bridges().await;
    if let Some(store) = store
        && let Err(error) =
            tokio::task::spawn_blocking(|| store.close()).await.map_or(Ok(()), |closed| closed)
    {
        tracing::error!("the store was not closed in good order: {error}");
    }
    result
}

/// Opens the store, if there is a place for it, and begins with what it holds.
fn persist(
    options: &cli::Serve,
    loaded: &config::Loaded,
    broker: &Arc<Broker>,
) -> Result<Option<Store>, ServeError> {
    let resource = loaded.resources.brokers.first().and_then(|broker| broker.spec.persistence.as_ref());
    let Some(data_dir) = options.data_dir.as_deref() else {
        return match resource {
            Some(_) => Err(ServeError::Start(
                "the Broker has `persistence`, and there is no place for it: give one with --data-dir"
                    .to_owned(),
            )),
            None => Ok(None),
        };
    };
    let policy = resource.map_or_else(Policy::dynamic, Policy::of);
    let bytes_max = resource.map_or(STORE_BYTES_MAX_DEFAULT, |resource| resource.max_size.0);
    let (jobs, inbox) = mpsc::channel();
    let opened = Persistence::open(data_dir, policy, bytes_max, jobs);
    let (persistence, recovery) = opened.map_err(|error| ServeError::Start(error.to_string()))?;
    for line in persistence::recovered(&recovery) {
        eprintln!("store: {line}");
    }
    let store = persistence.store.clone();
    broker.persist(Arc::clone(&persistence), clock::monotonic());
    let weak = Arc::downgrade(broker);
    thread::Builder::new()
        .name("delivery".to_owned())
        .spawn(move || delivery::run(&weak, &persistence, &inbox))
        .map_err(|error| ServeError::Start(error.to_string()))?;
    Ok(Some(store))
}

/// Histograms gather every sample until somebody sums them up: that must not wait for somebody to ask.
async fn upkeep(metrics: PrometheusHandle) {
    let mut ticks = tokio::time::interval(UPKEEP);
    loop {
        ticks.tick().await;
        metrics.run_upkeep();
    }
}

/// Sends every client away, in good order.
async fn drain(broker: &Arc<Broker>, stop: &watch::Sender<bool>) {
    stop.send_replace(true);
    for client in broker.clients() {
        client.kick(ReasonCode::ServerShuttingDown);
    }
    let gone = async {
        while broker.clients().iter().any(|client| client.lock().connection.is_some()) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    if tokio::time::timeout(DRAIN, gone).await.is_err() {
        tracing::warn!("some clients did not take their goodbye in time");
    }
}

fn limits(options: &cli::Serve, loaded: &config::Loaded) -> Limits {
    let connect_ms = u64::try_from(options.connect_timeout.as_millis()).unwrap_or(u64::MAX);
    Limits {
        connect_ms_max: connect_ms,
        connect_size_max: options.connect_bytes,
        ..Limits::of(loaded.resources.brokers.first())
    }
}

fn bind(address: SocketAddr) -> Result<TcpListener, ServeError> {
    listener::bind(address).map_err(|error| ServeError::Bind { address, error })
}

fn banner(listeners: &Listeners, admin: Option<&TcpListener>) -> String {
    let mut text = format!("forebay {}{}", env!("CARGO_PKG_VERSION"), listeners.banner());
    if let Some(Ok(address)) = admin.map(TcpListener::local_addr) {
        let _ = write!(text, "\n  admin  http://{address}/metrics  /status  /livez  /readyz");
    }
    text.extend(listeners.hint());
    text
}
