//! Retained messages for a new subscription: a few at a time, as the client takes them, so that a subscription to
//! everything does not put everything into memory.

use std::collections::VecDeque;
use std::sync::Arc;

use broker_core::message::{Message, Publication};
use broker_core::packet::QoS;
use broker_core::router::Options;
use broker_core::session::{self, Delivery};

use crate::client::{Client, State};
use crate::ordered::{Held, Ordered};
use crate::turn::Turn;

/// Messages that are looked up at once.
const BATCH: usize = 256;
/// With fewer bytes than this waiting for its socket, a client is given more.
const OUTBOX_LOW_BYTES: usize = 256 * 1024;

/// A subscription that retained messages are due for.
#[derive(Debug)]
pub struct Replay {
    /// The filter as the client wrote it.
    pub filter: Box<str>,
    /// What was subscribed with.
    pub options: Options,
    /// Where its messages wait for their turn.
    pub ordered: Option<Arc<Ordered>>,
    /// The last one that was sent.
    after: Option<Arc<Message>>,
}

impl Replay {
    /// From the beginning.
    pub fn new(filter: &str, options: Options, ordered: Option<Arc<Ordered>>) -> Self {
        Self { filter: filter.into(), options, ordered, after: None }
    }
}

impl State {
    /// Begins with the retained messages of a subscription; what was under way for the same filter is over.
    pub fn replay(&mut self, replay: Replay) {
        self.replay_no_more(&replay.filter);
        self.replays.make().push_back(replay);
    }

    /// The subscription is gone.
    pub fn replay_no_more(&mut self, filter: &str) {
        if let Some(replays) = self.replays.get_mut() {
            replays.retain(|replay| *replay.filter != *filter);
        }
    }

    /// Whether the next retained message can go out now.
    pub fn takes_retained(&self, limits: &session::Limits) -> bool {
        let next = self.replays.get().and_then(VecDeque::front);
        next.is_some_and(|next| self.takes_one_retained(next.options.qos, limits))
    }

    fn takes_one_retained(&self, qos: QoS, limits: &session::Limits) -> bool {
        let session = &self.session;
        let room =
            qos == QoS::AtMostOnce || (session.queued() == 0 && session.has_room(limits, &self.outbox));
        room && session.link().is_some() && self.backlog() < OUTBOX_LOW_BYTES
    }
}

impl Turn<'_> {
    /// Sends retained messages that are due, as far as the client takes them.
    pub fn replay(&mut self, client: &Arc<Client>) {
        let broker = self.broker();
        let limits = &broker.limits.session;
        loop {
            let mut replay = {
                let mut state = client.lock();
                if !state.takes_retained(limits) {
                    return;
                }
                let next = state.replays.get_mut().and_then(VecDeque::pop_front);
                let Some(replay) = next else { return };
                replay
            };
            let after = replay.after.as_ref().map(|message| message.topic());
            let batch = broker.retained(&replay.filter, after, self.now, BATCH);
            let more = batch.len() == BATCH;
            for message in batch {
                self.give_retained(client, &replay, &message);
                replay.after = Some(message);
                let mut state = client.lock();
                if !state.takes_one_retained(replay.options.qos, limits) {
                    state.replays.make().push_front(replay);
                    return;
                }
            }
            if more {
                client.lock().replays.make().push_front(replay);
            }
        }
    }

    fn give_retained(&mut self, client: &Arc<Client>, replay: &Replay, message: &Arc<Message>) {
        let Replay { options, ordered, .. } = replay;
        if options.no_local && message.publisher == client.id() {
            return; // [MQTT-3.8.3-3]
        }
        if let Some(ordered) = ordered {
            return self.arrange(ordered, Held { message: Arc::clone(message), retained: true });
        }
        let identifiers = options.identifier.as_slice();
        // The flag says that it was retained: 3.1.1 [MQTT-3.3.1-8].
        let how = Delivery { qos: options.qos, retain: true, identifiers, share: None };
        self.hand(client, &mut Publication::of(message), false, how);
    }
}
