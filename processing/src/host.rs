//! wasmtime, behind one door: the engine, the linker, and what each guest's store holds.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use wasmtime::component::{Linker, ResourceTable};
use wasmtime::{Config, Engine, ResourceLimiter};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use crate::limits::Limits;
use crate::log::{GuestLog, Stdio};
use crate::rpc::Invoker;
use crate::schema::SchemaRegistry;
use crate::state_store::{Quota, StateStore};
use crate::telemetry::GuestMetrics;
use crate::ticker::{self, Running};

/// Bytes that a guest holds by handle.
#[derive(Debug, Clone)]
pub struct Buffer(pub Bytes);

/// Called when a guest has held its caller up for longer than the inline budget.
pub type OnOverrun = Arc<dyn Fn() + Send + Sync>;

/// What the host needs from the one who embeds it.
#[derive(Clone, Default)]
pub struct Options {
    /// See [`OnOverrun`]. It may be called many times during one call.
    pub on_overrun: Option<OnOverrun>,
    /// The schemas that guests may ask for.
    pub schemas: Arc<SchemaRegistry>,
    /// Carries the guests' remote calls; without it they are refused.
    pub invoker: Option<Arc<dyn Invoker>>,
    /// What the guests' state store may hold.
    pub quota: Quota,
}

/// The host cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// wasmtime refuses its configuration, or what is linked clashes.
    #[error("WebAssembly cannot be set up: {0:#}")]
    Setup(#[from] wasmtime::Error),
    /// No thread for the epochs.
    #[error("no thread is to be had: {0}")]
    Thread(#[from] io::Error),
}

/// One per process: compiles components and links them to what guests may use.
#[derive(Clone)]
pub struct Host {
    pub(crate) engine: Engine,
    pub(crate) linker: Arc<Linker<State>>,
    pub(crate) running: Running,
    pub(crate) on_overrun: Option<OnOverrun>,
    pub(crate) state_store: Arc<StateStore>,
    pub(crate) schemas: Arc<SchemaRegistry>,
    pub(crate) invoker: Option<Arc<dyn Invoker>>,
}

impl Host {
    /// Sets wasmtime up.
    ///
    /// # Errors
    /// wasmtime's own, and no thread being to be had.
    pub fn new(options: Options) -> Result<Self, HostError> {
        let engine = Engine::new(&config())?;
        let mut linker = Linker::new(&engine);
        crate::wasi::link(&mut linker)?;
        crate::imports::link(&mut linker)?;
        #[cfg(feature = "wasi-nn")]
        crate::nn::link(&mut linker)?;
        let running = ticker::start(&engine)?;
        let Options { on_overrun, schemas, invoker, quota } = options;
        let state_store = Arc::new(StateStore::new(quota));
        Ok(Self { engine, linker: Arc::new(linker), running, on_overrun, state_store, schemas, invoker })
    }

    /// The same host, whose guests share `state_store` and nothing with the guests of this one.
    #[must_use]
    pub fn with_state_store(&self, state_store: Arc<StateStore>) -> Self {
        Self { state_store, ..self.clone() }
    }

    /// The store behind the guests' state-store import.
    pub fn state_store(&self) -> &Arc<StateStore> {
        &self.state_store
    }
}

fn config() -> Config {
    let mut config = Config::new();
    config.epoch_interruption(true);
    config.wasm_component_model(true);
    config.concurrency_support(false);
    // A guest's crash is reported by its message; frames are of no use to the one who reads the log.
    config.wasm_backtrace_max_frames(None);
    config
}

/// Who a guest is, for its log lines and metrics.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The DataflowGraph.
    pub graph: Arc<str>,
    /// The operation.
    pub operation: Arc<str>,
}

/// What an operation has used of limits that are not an instance's own: a crash does not give them anew.
pub(crate) struct Used {
    log: Arc<GuestLog>,
    metrics: Arc<GuestMetrics>,
}

/// What a guest's store holds.
pub struct State {
    wasi: WasiCtx,
    /// Handles of WASI resources and of buffers.
    pub(crate) table: ResourceTable,
    pub(crate) identity: Identity,
    pub(crate) limits: Arc<Limits>,
    pub(crate) state_store: Arc<StateStore>,
    pub(crate) schemas: Arc<SchemaRegistry>,
    pub(crate) invoker: Option<Arc<dyn Invoker>>,
    pub(crate) log: Arc<GuestLog>,
    pub(crate) metrics: Arc<GuestMetrics>,
    /// Bytes of all its memories, and elements of all its tables.
    memory_bytes: usize,
    table_elements: usize,
    /// The limiter refused memory during the call under way.
    pub(crate) memory_refused: bool,
    pub(crate) call: Call,
    #[cfg(feature = "wasi-nn")]
    pub(crate) nn: crate::nn::Held,
    on_overrun: Option<OnOverrun>,
}

/// The call under way, as the epochs see it.
#[derive(Debug, Default)]
pub(crate) struct Call {
    /// When the first epoch ended; the call itself is a little older.
    first_tick: Option<Instant>,
    max: Duration,
    /// The call was ended for taking too long.
    pub(crate) overdue: bool,
}

impl State {
    /// For an operation; with what an earlier instance of it has `used`, if there was one.
    pub(crate) fn new(host: &Host, identity: Identity, limits: Arc<Limits>, used: Option<Used>) -> Self {
        let used = used.unwrap_or_else(|| Used {
            log: GuestLog::new(identity.clone(), limits.log_level, limits.log_lines_per_second_max),
            metrics: Arc::new(GuestMetrics::new(limits.metrics_max)),
        });
        let mut table = ResourceTable::new();
        table.set_max_capacity(limits.handles_max);
        Self {
            wasi: WasiCtx::builder()
                .stdout(Stdio::stdout(&used.log))
                .stderr(Stdio::stderr(&used.log))
                .build(),
            table,
            log: used.log,
            metrics: used.metrics,
            identity,
            limits,
            state_store: Arc::clone(&host.state_store),
            schemas: Arc::clone(&host.schemas),
            invoker: host.invoker.clone(),
            memory_bytes: 0,
            table_elements: 0,
            memory_refused: false,
            call: Call::default(),
            #[cfg(feature = "wasi-nn")]
            nn: crate::nn::Held::default(),
            on_overrun: host.on_overrun.clone(),
        }
    }

    /// What all memories of the guest have grown to.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.memory_bytes
    }

    /// What goes on to the operation's next instance.
    pub(crate) fn into_used(self) -> Used {
        Used { log: self.log, metrics: self.metrics }
    }

    /// A call begins that may take `max`.
    pub(crate) fn begin_call(&mut self, max: Duration) {
        self.call = Call { first_tick: None, max, overdue: false };
        self.memory_refused = false;
    }

    /// The longest that a guest may wait inside a host function.
    pub(crate) fn longest_wait(&self) -> Duration {
        let elapsed = self.call.first_tick.map_or(Duration::ZERO, |tick| tick.elapsed());
        self.call.max.saturating_sub(elapsed)
    }

    /// An epoch ended during a call. False when the call must end, too.
    pub(crate) fn tick(&mut self) -> bool {
        let now = Instant::now();
        let elapsed = now - *self.call.first_tick.get_or_insert(now);
        if elapsed >= self.call.max {
            self.call.overdue = true;
            return false;
        }
        if elapsed >= self.limits.inline_budget
            && let Some(on_overrun) = &self.on_overrun
        {
            on_overrun();
        }
        true
    }
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

/// A component may have several memories and tables: the limits are for all of them together.
impl ResourceLimiter for State {
    fn memory_growing(&mut self, now: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let all = self.memory_bytes.saturating_add(desired.saturating_sub(now));
        let allowed = all <= self.limits.memory_bytes_max;
        if allowed {
            self.memory_bytes = all;
        }
        self.memory_refused |= !allowed;
        Ok(allowed)
    }

    fn table_growing(&mut self, now: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let all = self.table_elements.saturating_add(desired.saturating_sub(now));
        let allowed = all <= self.limits.table_elements_max;
        if allowed {
            self.table_elements = all;
        }
        Ok(allowed)
    }
}
