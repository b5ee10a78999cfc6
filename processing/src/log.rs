//! What a guest has to say, in the host's log: by the contract's logger, and by its stdout and stderr.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::io::AsyncWrite;
use tracing::level_filters::LevelFilter;
use wasmtime_wasi::async_trait;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};

use crate::bindings::wasm_graph::processor::logger::Level;
use crate::host::Identity;

/// What the lines of operations that have a level of their own are told from others by: whoever filters lets them all pass.
pub const TARGET: &str = "operator";

/// Longest line that is logged.
const LINE_BYTES_MAX: usize = 4096;

/// One operation's log: so many lines a second, whatever way they come, and however often its instance is begun anew.
#[derive(Debug)]
pub struct GuestLog {
    identity: Identity,
    /// The least that is logged, where it has a level of its own.
    level: Option<LevelFilter>,
    budget: Mutex<Budget>,
}

/// How many lines a guest may still log in this second.
#[derive(Debug)]
struct Budget {
    per_second: u32,
    left: u32,
    refused: u64,
    second: Option<Instant>,
}

impl Budget {
    /// Whether one more line may be logged; and how many were not, when a new second begins.
    fn take(&mut self) -> (bool, u64) {
        let now = Instant::now();
        let mut refused = 0;
        if self.second.is_none_or(|second| now - second >= Duration::from_secs(1)) {
            self.second = Some(now);
            self.left = self.per_second;
            refused = std::mem::take(&mut self.refused);
        }
        let allowed = self.left > 0;
        self.left = self.left.saturating_sub(1);
        self.refused += u64::from(!allowed);
        (allowed, refused)
    }
}

impl GuestLog {
    /// For an operation that may log `per_second` lines; of at least this level, or what the log takes anyway.
    pub fn new(identity: Identity, level: Option<LevelFilter>, per_second: u32) -> Arc<Self> {
        let budget = Budget { per_second, left: per_second, refused: 0, second: None };
        Arc::new(Self { identity, level, budget: Mutex::new(budget) })
    }

    /// Whether anybody reads what is logged at this level.
    pub fn listens(&self, level: Level) -> bool {
        // With a level of its own it is told from others, who have none.
        macro_rules! listens {
            ($level:expr) => {
                match self.level {
                    Some(least) => least >= $level && tracing::enabled!(target: TARGET, $level),
                    None => tracing::enabled!($level),
                }
            };
        }
        match level {
            Level::Trace => listens!(tracing::Level::TRACE),
            Level::Debug => listens!(tracing::Level::DEBUG),
            Level::Info => listens!(tracing::Level::INFO),
            Level::Warn => listens!(tracing::Level::WARN),
            Level::Error | Level::Critical => listens!(tracing::Level::ERROR),
        }
    }

    /// Logs a line, cut where it is too long; drops and counts it when there were too many in this second.
    pub fn line(&self, level: Level, context: &str, message: &str) {
        if !self.listens(level) {
            return;
        }
        let (graph, operation) = (&*self.identity.graph, &*self.identity.operation);
        let (allowed, refused) = self.budget.lock().take();
        if refused > 0 {
            tracing::warn!(graph, operation, "{refused} log lines of this operator were not written");
        }
        if !allowed {
            metrics::counter!("forebay_operator_log_lines_dropped_total", "operation" => operation.to_owned())
                .increment(1);
            return;
        }
        let message = &message[..message.floor_char_boundary(LINE_BYTES_MAX)];
        let context = &context[..context.floor_char_boundary(LINE_BYTES_MAX)];
        macro_rules! log {
            ($level:expr) => {
                match self.level {
                    Some(_) => tracing::event!(target: TARGET, $level, graph, operation, context, "{message}"),
                    None => tracing::event!($level, graph, operation, context, "{message}"),
                }
            };
        }
        match level {
            Level::Trace => log!(tracing::Level::TRACE),
            Level::Debug => log!(tracing::Level::DEBUG),
            Level::Info => log!(tracing::Level::INFO),
            Level::Warn => log!(tracing::Level::WARN),
            Level::Error | Level::Critical => log!(tracing::Level::ERROR),
        }
    }
}

/// A guest's stdout or stderr: each line a line of the log.
#[derive(Debug, Clone)]
pub struct Stdio {
    log: Arc<GuestLog>,
    level: Level,
    name: &'static str,
    /// What has been written of the line under way.
    line: Arc<Mutex<Vec<u8>>>,
}

impl Stdio {
    /// What a guest prints; at the level info.
    pub fn stdout(log: &Arc<GuestLog>) -> Self {
        Self { log: Arc::clone(log), level: Level::Info, name: "stdout", line: Arc::default() }
    }

    /// What a guest complains about, its panic messages among them; at the level warn.
    pub fn stderr(log: &Arc<GuestLog>) -> Self {
        Self { level: Level::Warn, name: "stderr", ..Self::stdout(log) }
    }

    fn put(&self, mut bytes: &[u8]) {
        let mut line = self.line.lock();
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            line.extend_from_slice(&bytes[..end]);
            self.end(&mut line);
            bytes = &bytes[end + 1..];
        }
        line.extend_from_slice(bytes);
        if line.len() > LINE_BYTES_MAX {
            self.end(&mut line);
        }
    }

    fn end(&self, line: &mut Vec<u8>) {
        let text = String::from_utf8_lossy(line);
        if !text.trim_end().is_empty() {
            self.log.line(self.level, self.name, text.trim_end());
        }
        line.clear();
    }
}

impl IsTerminal for Stdio {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Stdio {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }
    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

impl OutputStream for Stdio {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.put(&bytes);
        Ok(())
    }
    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }
    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(64 << 10)
    }
}

#[async_trait]
impl Pollable for Stdio {
    async fn ready(&mut self) {}
}

impl AsyncWrite for Stdio {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        self.put(bytes);
        Poll::Ready(Ok(bytes.len()))
    }
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
