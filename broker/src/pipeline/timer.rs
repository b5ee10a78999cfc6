//! Time inside a graph: what waits there goes on when it is due, although nobody brings a message.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{BUSY_WAIT, Dataflow, Emit, Entered, NEVER, SLEEP_MAX};
use crate::broker::Broker;
use crate::clock;
use crate::turn::Turn;

impl Dataflow {
    /// Sees to it that somebody looks when what waits inside is due.
    pub(super) fn arm(&self, due_ms: Option<u64>) {
        let due_ms = due_ms.unwrap_or(NEVER);
        let before = self.due_ms.swap(due_ms, Ordering::AcqRel);
        if due_ms < before {
            self.earlier.notify_one();
        }
    }

    /// How long until something inside is due; `None` when nothing waits.
    pub fn until_due(&self) -> Option<Duration> {
        if self.delivered.load(Ordering::Acquire) {
            return Some(Duration::ZERO);
        }
        let due_ms = self.due_ms.load(Ordering::Acquire);
        (due_ms != NEVER).then(|| Duration::from_millis(due_ms.saturating_sub(clock::wall().0)))
    }

    /// Something was delivered to a remote system: what that was made of is to be written off, and there is room for more.
    pub fn hear_of_delivery(&self) {
        if self.cursor.is_some() && !self.delivered.swap(true, Ordering::AcqRel) {
            self.earlier.notify_one();
            if self.is_offloaded() {
                self.work.notify_one();
            }
        }
    }

    /// The timer of the graph: what is due goes on, unless somebody else is in the graph.
    pub fn pass_time(self: &Arc<Self>, turn: u64, broker: &Broker, emit: Emit<'_>) -> Entered {
        let entered = self.enter(turn);
        if entered != Entered::Not {
            let mut running = self.running.lock();
            self.tick(&mut running, broker, emit);
            if running.fast == 0 && !self.is_offloaded() {
                self.move_off();
            }
        }
        entered
    }

    /// What is due inside goes on, and more is loaded if there is room for it. False when somebody else is in the graph.
    pub fn go_on(self: &Arc<Self>, broker: &Broker) -> bool {
        let mut turn = Turn::begin(broker, clock::monotonic());
        let passed = turn.pass_time(self);
        turn.finish();
        self.feed(broker);
        passed
    }

    /// Lets time pass inside the graph, for as long as the broker runs.
    pub async fn keep_time(self: Arc<Self>) {
        while !self.stopped.load(Ordering::Acquire) {
            let wait = if self.is_offloaded() { None } else { self.until_due() };
            match wait {
                None => self.earlier.notified().await,
                Some(wait) if !wait.is_zero() => {
                    let _ = tokio::time::timeout(wait.min(SLEEP_MAX), self.earlier.notified()).await;
                }
                Some(_) => {
                    let Some(broker) = self.broker.upgrade() else { return };
                    if !self.go_on(&broker) {
                        tokio::time::sleep(BUSY_WAIT).await;
                    }
                }
            }
        }
    }
}
