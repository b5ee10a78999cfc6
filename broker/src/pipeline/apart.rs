//! A slow graph, on a thread of its own: it holds up nobody, and comes back when it is fast again.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::{Arrival, BUSY_WAIT, DRAIN_MAX, Dataflow, Emit, SLEEP_MAX};
use crate::broker::Broker;
use crate::clock;
use crate::turn::Turn;

/// A graph that was slow comes back to the inline path after so many fast messages in a row.
const FAST_MESSAGES: u32 = 256;
/// The thread itself, as the one who is in the graph; no turn has this number.
const APART: u64 = u64::MAX;

impl Dataflow {
    pub(super) fn is_offloaded(&self) -> bool {
        self.offloaded.load(Ordering::Acquire)
    }

    /// The graph held its caller up for longer than the inline budget: from now on it runs on a thread of its
    /// own, and holds up nobody. Called by who is in the graph.
    pub(super) fn move_off(self: &Arc<Self>) {
        let flow = Arc::clone(self);
        let thread = std::thread::Builder::new().name(format!("graph {}", self.name));
        self.offloaded.store(true, Ordering::Release);
        match thread.spawn(move || flow.run_apart()) {
            Ok(_) => {
                self.metrics.moves.increment(1);
                tracing::info!(graph = %self.name, "the graph is slow; it goes on in a thread of its own");
            }
            Err(error) => {
                self.offloaded.store(false, Ordering::Release);
                tracing::warn!(graph = %self.name, %error, "the graph is slow, and no thread can be had for it");
            }
        }
    }

    /// The life of that thread: until the graph is fast again, or stopped.
    pub(super) fn run_apart(self: Arc<Self>) {
        let mut derived = Vec::new();
        loop {
            let arrival = self.wait();
            let Some(broker) = self.broker.upgrade() else { return };
            if arrival.is_none() && self.stopped.load(Ordering::Acquire) {
                return self.abandon();
            }
            let comes_back = self.run_some(arrival, &broker, &mut |outcome| derived.push(outcome));
            let mut turn = Turn::begin(&broker, clock::monotonic());
            turn.publish_outcomes(derived.drain(..));
            if comes_back {
                tracing::info!(graph = %self.name, "the graph is fast again; it runs in the message path");
                turn.come_back(&self);
            }
            turn.finish();
            if !comes_back {
                self.owner.store(0, Ordering::Release);
            }
            self.feed(&broker);
            if comes_back {
                self.earlier.notify_one();
                return;
            }
        }
    }

    /// The graph is in the message path again. Who says so is in it, and runs what waits through it first, before anybody else can
    /// come in, who would have to do that for others.
    pub fn come_back(self: &Arc<Self>, turn: u64, broker: &Broker, emit: Emit<'_>) {
        self.owner.store(turn, Ordering::Release);
        self.offloaded.store(false, Ordering::Release);
        self.drain(broker, emit);
    }

    /// A message, and those behind it as long as that is no longer than one may take; without one, time passes. Whether the graph is
    /// fast again.
    pub(super) fn run_some(&self, arrival: Option<Arrival>, broker: &Broker, emit: Emit<'_>) -> bool {
        let begun = Instant::now();
        let mut running = self.running.lock();
        match arrival {
            Some(arrival) => self.step(&mut running, arrival, broker, emit),
            None => self.tick(&mut running, broker, emit),
        }
        let mut left = DRAIN_MAX - 1;
        while left > 0 && begun.elapsed() < self.inline_budget {
            let Some(arrival) = self.inbox.lock().pop_front() else { break };
            self.step(&mut running, arrival, broker, emit);
            left -= 1;
        }
        running.fast >= FAST_MESSAGES
    }

    /// The next message; none when something inside is due first. Not before he has left who was in the graph when it moved
    /// here.
    pub(super) fn wait(&self) -> Option<Arrival> {
        let mut inbox = self.inbox.lock();
        loop {
            let wait = match self.owner.load(Ordering::Acquire) {
                0 => match inbox.pop_front() {
                    Some(arrival) => {
                        // Whoever stops the graph waits until what becomes of it is published.
                        self.owner.store(APART, Ordering::Release);
                        return Some(arrival);
                    }
                    None if self.stopped.load(Ordering::Acquire) => return None,
                    None => self.until_due().unwrap_or(SLEEP_MAX).min(SLEEP_MAX),
                },
                _ => BUSY_WAIT,
            };
            if wait.is_zero() {
                self.owner.store(APART, Ordering::Release);
                return None;
            }
            self.work.wait_for(&mut inbox, wait);
        }
    }
}
