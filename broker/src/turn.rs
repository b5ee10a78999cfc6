//! One turn of the loop: what one read brought is routed, run through graphs and written out, without
//! crossing a thread.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::Arc;

use broker_core::Millis;
use broker_core::message::{Frame, Message, Publication};
use broker_core::session::{Delivered, Delivery};

use crate::broker::Broker;
use crate::client::Client;
use crate::ordered::{Held, Holding, Ordered};
use crate::pipeline::Source;
use crate::route::{Cache, Target};

/// How many times a message may be derived from a derived one before it is taken for a loop.
const HOPS_MAX: u8 = 16;

/// What a thread keeps from turn to turn, so that a turn allocates nothing.
#[derive(Default)]
struct Scratch {
    routes: Cache,
    touched: Vec<Arc<Client>>,
    derived: VecDeque<Arc<Message>>,
    frame: Frame,
    pool: Vec<Vec<u8>>,
    /// Number of the turn under way.
    turn: u64,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// A turn under way.
pub struct Turn<'a> {
    broker: &'a Broker,
    scratch: Scratch,
    /// The moment of this turn.
    pub now: Millis,
    received: u64,
    received_bytes: u64,
    sent: u64,
}

/// Who got more in this turn than their sockets took.
pub type Congested = Vec<Arc<Client>>;

impl<'a> Turn<'a> {
    /// Begins a turn.
    pub fn begin(broker: &'a Broker, now: Millis) -> Self {
        let mut scratch = SCRATCH.with_borrow_mut(std::mem::take);
        scratch.turn = broker.number();
        Self { broker, scratch, now, received: 0, received_bytes: 0, sent: 0 }
    }

    /// The broker.
    pub fn broker(&self) -> &'a Broker {
        self.broker
    }

    /// Notes that a client's outbox has something to write.
    pub fn touch(&mut self, client: &Arc<Client>, state: &mut crate::client::State) {
        touch(&mut self.scratch, client, state);
    }

    /// Counts a PUBLISH from a client.
    pub fn count_received(&mut self, payload_bytes: usize) {
        self.received += 1;
        self.received_bytes += payload_bytes as u64;
    }

    /// Passes a message to everyone who asked for it, and what graphs derive from it, too. Returns whether
    /// anybody was there to take it.
    pub fn publish(&mut self, publication: &mut Publication<'_>) -> bool {
        let matched = self.route(publication);
        while let Some(message) = self.scratch.derived.pop_front() {
            self.broker.metrics.derived.increment(1);
            self.route(&mut Publication::of(&message));
        }
        matched
    }

    /// Runs a message through one graph only, and publishes what that derives.
    pub fn feed(&mut self, source: &Arc<Source>, message: &Arc<Message>) {
        let mut derived = Vec::new();
        source.push(message, self.broker, &mut |message| derived.push(message));
        for message in &derived {
            self.publish_derived(message);
        }
    }

    /// Publishes what a graph derived outside of a turn.
    pub fn publish_derived(&mut self, message: &Arc<Message>) {
        self.broker.metrics.derived.increment(1);
        self.publish(&mut Publication::of(message));
    }

    fn route(&mut self, publication: &mut Publication<'_>) -> bool {
        if publication.retain {
            self.broker.retain(publication);
        }
        let broker = self.broker;
        let route = self
            .scratch
            .routes
            .get(publication.topic(), broker.generation(), |topic| broker.find_route(topic));
        let shared = route.clients.len() > 1;
        self.scratch.frame.clear();
        for target in &route.clients {
            self.deliver(target, publication, shared);
        }
        for share in &route.shares {
            // A member that is away is passed over while another is there.
            let mut members =
                share.in_turn().filter(|t| !(t.no_local && t.client.id() == publication.publisher));
            let first = members.next();
            let online = |t: &&Target| t.client.lock().connection.is_some();
            if let Some(target) = first.filter(online).or_else(|| members.find(online)).or(first) {
                self.deliver(target, publication, false);
            }
        }
        for source in &route.graphs {
            if publication.hops >= HOPS_MAX {
                self.broker.metrics.derived_loops.increment(1);
                continue;
            }
            let derived = &mut self.scratch.derived;
            source.push(&publication.owned(), self.broker, &mut |message| derived.push_back(message));
        }
        for service in &route.services {
            let derived = &mut self.scratch.derived;
            service.0.answer(&publication.owned(), self.broker, &mut |message| derived.push_back(message));
        }
        let nobody = route.clients.is_empty()
            && route.shares.is_empty()
            && route.graphs.is_empty()
            && route.services.is_empty();
        !nobody
    }

    fn deliver(&mut self, target: &Target, publication: &mut Publication<'_>, shared: bool) {
        if target.no_local && target.client.id() == publication.publisher {
            return; // [MQTT-3.8.3-3]
        }
        if let Some(ordered) = &target.ordered {
            return self.arrange(ordered, Held { message: publication.owned(), retained: false });
        }
        let how = Delivery {
            qos: target.qos,
            // The flag of a message that is passed on is 0 unless asked otherwise [MQTT-3.3.1-12].
            retain: target.retain_as_published && publication.retain,
            identifiers: &target.identifiers,
        };
        self.hand(&target.client, publication, shared, how);
    }

    /// Has a message wait for its turn, and delivers those whose turn it is.
    pub fn arrange(&mut self, ordered: &Arc<Ordered>, held: Held) {
        let mut holding = ordered.lock();
        if let Some(held) = ordered.hold(&mut holding, held, self.now) {
            self.hand_held(ordered, &held);
        }
        self.release(ordered, &mut holding);
    }

    /// Delivers those whose turn it is.
    pub fn release(&mut self, ordered: &Arc<Ordered>, holding: &mut Holding<'_>) {
        while let Some(held) = ordered.release(holding, self.now) {
            self.hand_held(ordered, &held);
        }
    }

    fn hand_held(&mut self, ordered: &Ordered, Held { message, retained }: &Held) {
        let Some(client) = ordered.client() else { return };
        let options = ordered.options();
        let how = Delivery {
            qos: options.qos,
            retain: *retained || (options.retain_as_published && message.retain),
            identifiers: options.identifier.as_slice(),
        };
        self.hand(&client, &mut Publication::of(message), false, how);
    }

    fn hand(
        &mut self,
        client: &Arc<Client>,
        publication: &mut Publication<'_>,
        shared: bool,
        how: Delivery<'_>,
    ) {
        let mut guard = client.lock();
        let state = &mut *guard;
        if state.outbox.is_empty()
            && state.outbox.buffer().capacity() == 0
            && let Some(buffer) = self.scratch.pool.pop()
        {
            *state.outbox.buffer() = buffer;
        }
        let frame = shared.then_some(&mut self.scratch.frame);
        let limits = &self.broker.limits.session;
        match state.session.deliver(publication, frame, how, self.now, limits, &mut state.outbox) {
            Delivered::Sent => {
                self.sent += 1;
                touch(&mut self.scratch, client, state);
            }
            Delivered::Queued => {}
            Delivered::Dropped(cause) => self.broker.metrics.dropped(cause),
        }
    }

    /// Writes everything out, one write a client. Returns who could not take it all.
    pub fn finish(mut self) -> Congested {
        let mut congested = Vec::new();
        let Scratch { touched, pool, .. } = &mut self.scratch;
        for client in touched.drain(..) {
            client.flush(self.now, pool);
            if client.lock().congested(self.now) {
                congested.push(client);
            }
        }
        self.count();
        SCRATCH.with_borrow_mut(|kept| *kept = std::mem::take(&mut self.scratch));
        congested
    }

    fn count(&self) {
        let metrics = &self.broker.metrics;
        if self.received > 0 {
            metrics.publishes_received.increment(self.received);
            metrics.payload_bytes_received.increment(self.received_bytes);
        }
        if self.sent > 0 {
            metrics.publishes_sent.increment(self.sent);
        }
    }
}

/// Two turns at once both write a client's outbox: one may be held up by a guest.
fn touch(scratch: &mut Scratch, client: &Arc<Client>, state: &mut crate::client::State) {
    if state.touched != scratch.turn {
        state.touched = scratch.turn;
        scratch.touched.push(Arc::clone(client));
    }
}
