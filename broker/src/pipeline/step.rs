//! One message through the graph, or time: what only who is in it does.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use broker_core::Millis;
use broker_core::message::Message;
use metrics::counter;

use super::cursor::{self, Cursor};
use super::origin::Origins;
use super::out::Failed;
use super::running::Running;
use super::{Arrival, DRAIN_MAX, Dataflow, Emit, Outcome, exit};
use crate::broker::Broker;
use crate::clock;
use crate::ordered;
use crate::translate::{self, Letter};

/// One message in so many is timed for the histogram.
const MEASURE_EVERY: u32 = 16;
/// How soon a timer looks again when time waits for messages in the log, milliseconds.
const BEHIND_WAIT_MS: u64 = 10;
/// Later than any window closes.
const END_OF_TIME_MS: u64 = 1 << 48;

impl Dataflow {
    /// Runs messages through that were left here, some at a time. Whether that were all, and the graph is still here. Called
    /// by who is in it.
    pub(super) fn drain(self: &Arc<Self>, broker: &Broker, emit: Emit<'_>) -> bool {
        for _ in 0..DRAIN_MAX {
            if self.is_offloaded() {
                return false;
            }
            let Some(arrival) = self.inbox.lock().pop_front() else { return true };
            self.pass(arrival, broker, emit);
        }
        false
    }

    /// One message through the graph, by who is in it; or left for its thread, when it is slow.
    pub(super) fn pass(self: &Arc<Self>, arrival: Arrival, broker: &Broker, emit: Emit<'_>) {
        let mut running = self.running.lock();
        self.step(&mut running, arrival, broker, emit);
        if running.fast == 0 && !self.is_offloaded() {
            self.move_off();
        }
    }

    /// One message through the graph. The arrival is gone when what came out is looked at: an entry of the log that nothing in
    /// the graph is made of any more is done by that.
    pub(super) fn step(&self, running: &mut Running, arrival: Arrival, broker: &Broker, emit: Emit<'_>) {
        let wall = clock::wall();
        let begun = Instant::now();
        let Arrival { source, message, origins } = arrival;
        if let Some(samples) = &mut running.samples {
            samples.look(&message, emit);
        }
        let time = self.time(&message, &origins, wall);
        match running.sorting.as_mut().and_then(|sources| sources.get_mut(source)) {
            None => running.enter(source, &message, origins, broker, time),
            Some(sorting) => {
                let stamp = ordered::stamp(&message, time);
                let (size, now) = (message.size(), clock::monotonic());
                if let Err((message, origins)) = sorting.push(stamp, (message, origins), size, now, wall) {
                    running.come_late(source, &message, origins, self.late, broker, time);
                }
                running.release(broker, time);
            }
        }
        self.hand_out(running, broker, wall, emit);
        let took = begun.elapsed() / std::mem::take(&mut running.entered).max(1);
        running.measured = running.measured.wrapping_add(1);
        if running.measured.is_multiple_of(MEASURE_EVERY) {
            self.metrics.latency.record(took.as_secs_f64() * 1000.0);
        }
        running.fast = if took > self.inline_budget { 0 } else { running.fast.saturating_add(1) };
    }

    /// The time that it is in the graph when a message enters: for one of the log, when it arrived, so that it does not matter
    /// how long it has waited there.
    pub(super) fn time(&self, message: &Message, origins: &Origins, wall: Millis) -> Millis {
        let Some(cursor) = &self.cursor else { return wall };
        if !origins.is_logged() {
            return Millis(cursor.time_ms(wall.0, self.backlog()));
        }
        let arrived_ms = cursor::arrived_ms(message).min(wall.0);
        cursor.entered(arrived_ms);
        Millis(arrived_ms)
    }

    /// What waits inside and is due goes on.
    pub(super) fn tick(&self, running: &mut Running, broker: &Broker, emit: Emit<'_>) {
        self.delivered.store(false, Ordering::Release);
        let (wall, begun) = (clock::wall(), Instant::now());
        let time = self.cursor.as_ref().map_or(wall, |it| Millis(it.time_ms(wall.0, self.backlog())));
        running.release(broker, time);
        running.graph.advance(time.0, &mut running.out);
        self.hand_out(running, broker, wall, emit);
        if begun.elapsed() / std::mem::take(&mut running.entered).max(1) > self.inline_budget {
            running.fast = 0;
        }
    }

    /// Makes messages of what came out of the graph.
    pub(super) fn hand_out(&self, running: &mut Running, broker: &Broker, wall: Millis, emit: Emit<'_>) {
        let Running { graph, exits, out, dead_letter_topic, .. } = running;
        // What was derived from entries of the log, which are done by that.
        let mut kept: Vec<(Arc<Message>, Origins)> = Vec::new();
        let mut tell = |message: Message, origins: &Origins| match origins.is_logged() {
            false => emit(Outcome::Message(Arc::new(message), origins.clone())),
            true => kept.push((Arc::new(message), origins.clone())),
        };
        for (sink, item) in out.items.drain(..) {
            let carry = item.carry.clone();
            let Some(exit) = exits.get(sink) else { continue };
            match translate::message(item, exit, broker, wall) {
                Ok(derived) => {
                    let derived = exit.dress(derived);
                    self.metrics.sent.count(derived.payload().len());
                    match &exit.queue {
                        None => tell(derived, &carry.origins),
                        Some(queue) if exit::ship(queue, &derived, &carry.origins) => {}
                        Some(_) => self.metrics.busy.increment(1),
                    }
                }
                Err(refused) => out.failed.push(Failed::of(carry, &refused)),
            }
        }
        for failed in out.failed.drain(..) {
            let digest = graph.digest(&failed.operation);
            if let Some(letter) = self.give_up(&failed, digest, dead_letter_topic.as_deref()) {
                tell(letter, &failed.carry.origins);
            }
        }
        if let Some(record) = self.cursor.as_ref().and_then(|cursor| cursor.record(kept)) {
            emit(Outcome::Record(record));
        }
        let filtered = std::mem::take(&mut out.filtered);
        if filtered > 0 {
            self.metrics.filtered.increment(filtered);
        }
        if running.may_wait() {
            let due_ms = running.due_ms(wall);
            let waits = |cursor: &Arc<Cursor>| cursor.time_ms(wall.0, self.backlog()) < wall.0;
            let earliest_ms =
                if self.cursor.as_ref().is_some_and(waits) { wall.0 + BEHIND_WAIT_MS } else { 0 };
            self.arm(due_ms.map(|due_ms| due_ms.max(earliest_ms)));
        }
    }

    /// A message that cannot be processed is counted and explained, and kept where the graph names a topic for that.
    pub(super) fn give_up(
        &self,
        failed: &Failed,
        digest: Option<&str>,
        dead_letter_topic: Option<&str>,
    ) -> Option<Message> {
        let Failed { operation, reason, why, carry } = failed;
        if *reason == translate::EXPIRED {
            self.metrics.expired.increment(1);
            return None;
        }
        self.metrics.errors.increment(1);
        counter!("aio_dataflow_errors", "dataflow_id" => self.name.to_string(), "reason" => *reason)
            .increment(1);
        let topic = carry.origin.topic();
        if self.warnings.lock().one_more(&self.name) {
            tracing::warn!(graph = %self.name, %operation, topic, "a message is dropped: {why}");
        }
        if matches!(*reason, "trap" | "deadline" | "memory") {
            *self.fault.lock() = Some((Instant::now(), format!("{operation}: {why}")));
        }
        let letter = Letter { graph: &self.name, operation, reason, why, digest };
        match translate::dead_letter(&carry.origin, dead_letter_topic?, &letter) {
            Ok(message) => {
                self.metrics.dead_letters.increment(1);
                Some(message)
            }
            Err(refused) => {
                tracing::warn!(graph = %self.name, topic, "it cannot be kept either: {refused}");
                None
            }
        }
    }

    /// Everything that waits inside, as if its time had come.
    pub(super) fn let_out(&self, broker: &Broker) -> Vec<Outcome> {
        let mut outcomes = Vec::new();
        let mut running = self.running.lock();
        let inside = &mut *running;
        inside.graph.advance(END_OF_TIME_MS, &mut inside.out);
        self.hand_out(&mut running, broker, clock::wall(), &mut |outcome| outcomes.push(outcome));
        outcomes
    }
}
