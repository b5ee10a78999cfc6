//! Moves the epoch on while guests run, so that none runs for ever.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use wasmtime::{Engine, EngineWeak};

/// One tick while a guest runs.
pub const TICK: Duration = Duration::from_millis(1);
/// How often an idle ticker looks whether one does: nobody has to wake it.
const LOOK: Duration = Duration::from_millis(20);

/// How many guest calls are under way.
#[derive(Debug, Clone, Default)]
pub struct Running(Arc<AtomicUsize>);

impl Running {
    /// Notes that a call begins; it ends when the guard is dropped.
    pub fn enter(&self) -> Guard<'_> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Guard(&self.0)
    }
}

/// A call under way.
#[derive(Debug)]
pub struct Guard<'a>(&'a AtomicUsize);

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Starts the ticker of `engine`; it ends with it.
///
/// # Errors
/// No thread is to be had.
pub fn start(engine: &Engine) -> std::io::Result<Running> {
    let running = Running::default();
    let seen = running.clone();
    let engine = engine.weak();
    std::thread::Builder::new().name("guest epochs".into()).spawn(move || tick(&engine, &seen))?;
    Ok(running)
}

fn tick(engine: &EngineWeak, running: &Running) {
    while let Some(engine) = engine.upgrade() {
        let busy = running.0.load(Ordering::Relaxed) > 0;
        if busy {
            engine.increment_epoch();
        }
        drop(engine);
        std::thread::sleep(if busy { TICK } else { LOOK });
    }
}
