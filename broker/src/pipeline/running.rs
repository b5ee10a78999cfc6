//! The inside of a graph: what only one at a time works on.

use std::sync::Arc;

use broker_core::Millis;
use broker_core::message::Message;
use broker_core::packet::QoS;
use broker_core::reorder::{Late, Reorder};
use processing::runtime::GraphRuntime;
use processing_core::item::MessageSchema;

use super::Exit;
use super::origin::Origins;
use super::out::Out;
use super::samples::Samples;
use crate::broker::Broker;
use crate::clock;
use crate::ordered;
use crate::translate::{self, Carry, Refused};

/// What only one at a time works on.
pub(super) struct Running {
    pub(super) graph: GraphRuntime<Carry>,
    /// Whether items wait inside.
    pub(super) keeps_items: bool,
    /// What comes in, by source.
    pub(super) entrances: Vec<Entrance>,
    /// What comes in by a source waits here for its turn, when it is to come in order.
    pub(super) sorting: Option<Vec<Sorting>>,
    pub(super) exits: Vec<Exit>,
    /// What comes in is copied now and then.
    pub(super) samples: Option<Samples>,
    pub(super) dead_letter_topic: Option<String>,
    /// Fast messages in a row, while offloaded.
    pub(super) fast: u32,
    pub(super) measured: u32,
    /// Messages that entered in this step.
    pub(super) entered: u32,
    /// What came out, reused from message to message.
    pub(super) out: Out,
}

/// What is known of the messages of a source.
#[derive(Debug, Default)]
pub struct Entrance {
    /// Their schema.
    pub schema: Option<MessageSchema>,
    /// The highest QoS that they, and what is made of them, have.
    pub qos_max: Option<QoS>,
}

/// Messages of one source that wait for their turn.
pub(super) type Sorting = Reorder<(Arc<Message>, Origins)>;

impl Running {
    /// A message enters the graph.
    pub(super) fn enter(
        &mut self,
        source: usize,
        message: &Arc<Message>,
        origins: Origins,
        broker: &Broker,
        time: Millis,
    ) {
        self.entered += 1;
        let entrance = self.entrances.get(source);
        let schema = entrance.and_then(|entrance| entrance.schema.as_ref());
        match translate::item(message, &origins, schema, broker, time) {
            Ok(mut item) => {
                entrance.and_then(|it| it.qos_max).into_iter().for_each(|most| item.carry.limit_qos(most));
                if self.keeps_items {
                    self.graph.advance(time.0, &mut self.out);
                }
                self.graph.push_to(source, item, &mut self.out);
            }
            Err(refused) => self.out.refuse(Carry::of(message, &origins), &refused),
        }
    }

    /// A message comes after one with a later stamp has entered.
    pub(super) fn come_late(
        &mut self,
        source: usize,
        message: &Arc<Message>,
        origins: Origins,
        late: Late,
        broker: &Broker,
        time: Millis,
    ) {
        match ordered::too_late(message, late) {
            Some(marked) => self.enter(source, &marked, origins, broker, time),
            None => self.out.refuse(Carry::of(message, &origins), &Refused::OutOfOrder),
        }
    }

    /// Messages whose turn it is enter.
    pub(super) fn release(&mut self, broker: &Broker, time: Millis) {
        let now = clock::monotonic();
        for source in 0..self.sorting.as_ref().map_or(0, Vec::len) {
            let next = |sorting: &mut Vec<Sorting>| sorting.get_mut(source)?.release(now);
            while let Some((message, origins)) = self.sorting.as_mut().and_then(next) {
                self.enter(source, &message, origins, broker, time);
            }
        }
        for sorting in self.sorting.iter_mut().flatten() {
            ordered::count_forced(&mut sorting.forced);
        }
    }

    /// Whether anything ever waits inside for its time.
    pub(super) fn may_wait(&self) -> bool {
        self.keeps_items || self.sorting.is_some()
    }

    /// When something that waits is due, milliseconds since the Unix epoch.
    pub(super) fn due_ms(&mut self, wall: Millis) -> Option<u64> {
        let now = clock::monotonic();
        let sorted = self.sorting.iter().flatten().filter_map(Reorder::due).min();
        let sorted = sorted.map(|due| wall.plus(due.since(now)).0);
        let inside = if self.keeps_items { self.graph.due_ms() } else { None };
        sorted.into_iter().chain(inside).min()
    }
}
