//! One turn of the loop: what one read brought is routed, run through graphs and written out, without
//! crossing a thread.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::Arc;

use broker_core::Millis;
use broker_core::message::{Frame, Message, Publication};
use broker_core::packet::{PacketId, QoS, ReasonCode};
use broker_core::session::{Delivered, Delivery, DropCause, Orphan, Pumped};
use broker_store::{Event, Lsn, Taker};

use crate::auth::access;
use crate::broker::Broker;
use crate::client::Client;
use crate::metrics::Category;
use crate::ordered::{Held, Holding, Ordered};
use crate::pipeline::cursor::Record;
use crate::pipeline::origin::Origins;
use crate::pipeline::{Arrival, Dataflow, Entered, Outcome, Source};
use crate::route::{Cache, Member, Route, Share, Target};
use crate::{delivery, persistence};

/// How many times a message may be derived from a derived one before it is taken for a loop.
const HOPS_MAX: u8 = 16;

/// What a thread keeps from turn to turn, so that a turn allocates nothing.
#[derive(Default)]
struct Scratch {
    routes: Cache,
    touched: Vec<Arc<Client>>,
    derived: VecDeque<Outcome>,
    /// Graphs that this turn is in.
    graphs: Vec<Arc<Dataflow>>,
    frame: Frame,
    pool: Vec<Vec<u8>>,
    /// Sessions whose entry of the message under way is in the log, or about to be, and its packet identifier.
    takers: Vec<(u64, u16)>,
    /// By this, clients know whether they are among the touched ones.
    turn: u64,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// A turn under way.
pub struct Turn<'a> {
    broker: &'a Broker,
    scratch: Scratch,
    /// Its number, by which graphs know who is in them.
    number: u64,
    /// The moment of this turn.
    pub now: Millis,
    packets_received: u64,
    received: u64,
    received_bytes: u64,
    packets_sent: u64,
    sent: u64,
    sent_bytes: u64,
    /// Messages that graphs published.
    derived: u64,
    /// What is to be written down, and nobody waits for.
    notes: Vec<Event>,
    /// What is to be written down all at once: what a graph derived, and what is done by that.
    record: Option<Vec<Event>>,
    /// Bytes that sockets took.
    written: u64,
    /// Who got more than their sockets took.
    congested: Congested,
}

/// What became of a message that was published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// Nobody was there to take it.
    ByNobody,
    /// Somebody took it.
    Now,
    /// Somebody takes it once the record of this number is written.
    Once(u64),
    /// It could not be taken.
    Refused(ReasonCode),
}

/// Who got more in this turn than their sockets took.
pub type Congested = Vec<Arc<Client>>;

impl<'a> Turn<'a> {
    /// Begins a turn.
    pub fn begin(broker: &'a Broker, now: Millis) -> Self {
        let mut scratch = SCRATCH.with_borrow_mut(std::mem::take);
        scratch.turn = broker.number();
        Self {
            broker,
            number: scratch.turn,
            scratch,
            now,
            packets_received: 0,
            received: 0,
            received_bytes: 0,
            packets_sent: 0,
            sent: 0,
            sent_bytes: 0,
            derived: 0,
            notes: Vec::new(),
            record: None,
            written: 0,
            congested: Congested::new(),
        }
    }

    /// The broker.
    pub fn broker(&self) -> &'a Broker {
        self.broker
    }

    /// Notes that a client's outbox has something to write.
    pub fn touch(&mut self, client: &Arc<Client>, state: &mut crate::client::State) {
        touch(&mut self.scratch, client, state);
    }

    /// Counts a packet from a client.
    pub fn count_packet(&mut self) {
        self.packets_received += 1;
    }

    /// Counts a packet to a client, other than PUBLISH.
    pub fn count_answer(&mut self) {
        self.packets_sent += 1;
    }

    /// Counts a PUBLISH from a client.
    pub fn count_received(&mut self, payload_bytes: usize, category: Option<&Category>) {
        match category {
            None => {
                self.received += 1;
                self.received_bytes += payload_bytes as u64;
            }
            Some(category) => {
                category.received.increment(1);
                category.received_bytes.increment(payload_bytes as u64);
            }
        }
    }

    /// Counts a QoS 0 message that is not taken.
    pub fn refuse_qos0(&self, category: Option<&Category>) {
        category.unwrap_or(&self.broker.metrics.uncategorized).qos0_dropped_incoming.increment(1);
    }

    /// Notes a change that is to be written down, and that nobody waits for.
    pub fn note(&mut self, event: Event) {
        self.notes.push(event);
    }

    /// Passes a message to everyone who asked for it, in the order in which they come [MQTT-4.6.0-5], and what graphs derive from it, too.
    pub fn publish(&mut self, publication: &mut Publication<'_>) -> Taken {
        self.publish_from(publication, None)
    }

    /// The same for a QoS 2 message of this session, with this packet identifier: if it goes into the log, so does that
    /// it has been taken.
    pub fn publish_from(&mut self, publication: &mut Publication<'_>, from: Option<(u64, u16)>) -> Taken {
        let taken = self.route(publication, from);
        self.settle();
        taken
    }

    /// Passes on what a session that has ended leaves to other members of its shares.
    pub fn pass_on(&mut self, orphans: &[Orphan]) {
        let broker = self.broker;
        for Orphan { share, message } in orphans {
            let mut publication = Publication::of(message);
            let generation = broker.generation();
            let route =
                self.scratch.routes.get(publication.topic(), generation, |topic| broker.find_route(topic));
            let share = route.shares.iter().find(|candidate| candidate.name == *share);
            match share.and_then(|share| share.choose(&publication)) {
                Some(Member::Client(target)) => self.deliver(target, &mut publication, false),
                Some(Member::Graph(source)) => self.bring(source, &mut publication),
                None => broker.metrics.dropped(DropCause::Away),
            }
        }
    }

    /// Sends what waits in a session, as far as its client takes more.
    pub fn pump(&mut self, client: &Arc<Client>, state: &mut crate::client::State) {
        let pumped = state.session.pump(self.now, &self.broker.limits.session, &mut state.outbox);
        self.count_pumped(&pumped);
        touch(&mut self.scratch, client, state);
    }

    /// Counts what became of messages that waited.
    pub fn count_pumped(&mut self, pumped: &Pumped) {
        self.sent += pumped.sent;
        self.broker.metrics.shed(&pumped.shed);
    }

    /// Runs a message through one graph only, and publishes what that derives.
    pub fn feed(&mut self, source: &Source, message: Arc<Message>) {
        self.push(source, message);
        self.settle();
    }

    /// Runs a graph that messages were left in front of.
    pub fn run(&mut self, flow: &Arc<Dataflow>) {
        let derived = &mut self.scratch.derived;
        let entered = flow.take_over(self.number, self.broker, &mut |outcome| derived.push_back(outcome));
        self.note_entered(flow, entered);
        self.settle();
    }

    /// A graph that ran on this thread alone is in the message path again.
    pub fn come_back(&mut self, flow: &Arc<Dataflow>) {
        let derived = &mut self.scratch.derived;
        flow.come_back(self.number, self.broker, &mut |outcome| derived.push_back(outcome));
        self.note_entered(flow, Entered::Now);
        self.settle();
    }

    /// Lets time pass in a graph; false when somebody else is in it.
    pub fn pass_time(&mut self, flow: &Arc<Dataflow>) -> bool {
        let derived = &mut self.scratch.derived;
        let entered = flow.pass_time(self.number, self.broker, &mut |outcome| derived.push_back(outcome));
        self.note_entered(flow, entered);
        self.settle();
        entered != Entered::Not
    }

    /// Publishes a message that was derived outside of a turn.
    pub fn publish_derived(&mut self, message: Arc<Message>) {
        self.publish_outcomes([Outcome::Message(message, Origins::default())]);
    }

    /// Publishes what came out of a graph outside of a turn.
    pub fn publish_outcomes(&mut self, outcomes: impl IntoIterator<Item = Outcome>) {
        self.scratch.derived.extend(outcomes);
        self.settle();
    }

    /// Publishes what graphs have derived, and what is derived from that.
    fn settle(&mut self) {
        while let Some(outcome) = self.scratch.derived.pop_front() {
            match outcome {
                Outcome::Message(message, origins) => {
                    let taken = self.route_derived(&message);
                    self.hold(taken, origins);
                }
                Outcome::Record(record) => self.write(record),
            }
        }
    }

    /// What a message was made of is done when the message is on disk, if it goes there.
    fn hold(&self, taken: Taken, origins: Origins) {
        if let Taken::Once(number) = taken
            && !origins.is_none()
            && let Some(persistence) = self.broker.persistence()
        {
            persistence.hold(number, origins);
        }
    }

    fn route_derived(&mut self, message: &Arc<Message>) -> Taken {
        self.derived += 1;
        self.route(&mut Publication::of(message), None)
    }

    /// Publishes what a persisted graph has derived, and what is derived from that: all of it is one record of the log.
    fn write(&mut self, Record { messages, events, mut tickets }: Record) {
        self.record = Some(events);
        for message in &messages {
            self.route_derived(message);
        }
        while let Some(outcome) = self.scratch.derived.pop_front() {
            match outcome {
                Outcome::Message(message, origins) => {
                    self.route_derived(&message);
                    tickets.extend((!origins.is_none()).then_some(origins));
                }
                Outcome::Record(more) => {
                    self.record.get_or_insert_default().extend(more.events);
                    for message in &more.messages {
                        self.route_derived(message);
                    }
                    tickets.extend(more.tickets);
                }
            }
        }
        let events = self.record.take().unwrap_or_default();
        if let Some(persistence) = self.broker.persistence()
            && let Some(number) = persistence.write(events)
        {
            tickets.into_iter().for_each(|held| persistence.hold(number, held));
        }
    }

    /// Runs a message through a graph, or leaves it there.
    fn push(&mut self, source: &Source, message: Arc<Message>) {
        let Some(flow) = source.flow() else {
            // It is not up yet, and the message is in memory only.
            return self.broker.metrics.dropped(DropCause::QueueFull);
        };
        if flow.refuses() {
            return flow.count_busy();
        }
        let arrival = Arrival { source: source.place(), message, origins: Origins::default() };
        let derived = &mut self.scratch.derived;
        let entered = flow.push(arrival, self.number, self.broker, &mut |outcome| derived.push_back(outcome));
        self.note_entered(flow, entered);
    }

    fn note_entered(&mut self, flow: &Arc<Dataflow>, entered: Entered) {
        if entered == Entered::Now {
            self.scratch.graphs.push(Arc::clone(flow));
        }
    }

    /// Leaves all graphs, with nothing left behind there. As long as others bring messages, what these give is written out in
    /// between.
    fn leave_graphs(&mut self) {
        while let Some(flow) = self.scratch.graphs.last().cloned() {
            let derived = &mut self.scratch.derived;
            let left = flow.leave(self.number, self.broker, &mut |outcome| derived.push_back(outcome));
            self.settle();
            match left {
                true => self.scratch.graphs.retain(|other| !Arc::ptr_eq(other, &flow)),
                false => {
                    self.write_out();
                    // From here on clients are touched anew.
                    self.scratch.turn = self.broker.number();
                }
            }
        }
    }

    /// Writes what there is for each client.
    fn write_out(&mut self) {
        let Scratch { touched, pool, .. } = &mut self.scratch;
        for client in touched.drain(..) {
            self.written += client.flush(self.now, pool);
            if client.lock().congested(self.now) && !self.congested.iter().any(|it| Arc::ptr_eq(it, &client))
            {
                self.congested.push(client);
            }
        }
    }

    fn route(&mut self, publication: &mut Publication<'_>, from: Option<(u64, u16)>) -> Taken {
        let broker = self.broker;
        let route = self
            .scratch
            .routes
            .get(publication.topic(), broker.generation(), |topic| broker.find_route(topic));
        if publication.retain && !broker.may_retain(publication) {
            broker.metrics.retained_refused.increment(1);
            if publication.qos > QoS::AtMostOnce {
                return Taken::Refused(ReasonCode::QuotaExceeded);
            }
            // Nobody could be told: it is passed on like any other, and not kept.
            publication.retain = false;
        }
        if publication.qos > QoS::AtMostOnce
            && publication.hops == 0
            && (route.graphs.iter().any(|source| source.refuses()) || route.shares.iter().any(Share::refuses))
        {
            broker.metrics.backpressure.increment(1);
            return Taken::Refused(ReasonCode::QuotaExceeded);
        }
        let mut wait = 0;
        let mut chosen = Vec::new();
        if route.persisted || publication.retain {
            chosen.extend(route.shares.iter().map(|share| share.choose(publication)));
            match self.store(&route, &chosen, publication, from) {
                Ok(number) => wait = number,
                Err(reason) => {
                    broker.metrics.dropped(DropCause::QueueFull);
                    return Taken::Refused(reason);
                }
            }
        }
        let shared = route.clients.len() > 1;
        self.scratch.frame.clear();
        for target in &route.clients {
            self.deliver(target, publication, shared);
        }
        for (at, share) in route.shares.iter().enumerate() {
            match chosen.get(at).copied().unwrap_or_else(|| share.choose(publication)) {
                Some(Member::Client(target)) => self.deliver(target, publication, false),
                Some(Member::Graph(source)) => self.bring(source, publication),
                None => {}
            }
        }
        for source in &route.graphs {
            self.bring(source, publication);
        }
        self.scratch.takers.clear();
        for service in &route.services {
            let derived = &mut self.scratch.derived;
            let emit = &mut |message| derived.push_back(Outcome::Message(message, Origins::default()));
            service.0.answer(&publication.owned(), self.broker, emit);
        }
        let nobody = route.clients.is_empty()
            && route.shares.is_empty()
            && route.graphs.is_empty()
            && route.services.is_empty();
        match (wait, nobody) {
            (0, true) => Taken::ByNobody,
            (0, false) => Taken::Now,
            (number, _) => Taken::Once(number),
        }
    }

    /// Brings a message to a graph, unless it takes it from the log, or graphs feed one another without end.
    fn bring(&mut self, source: &Source, publication: &mut Publication<'_>) {
        if publication.hops >= HOPS_MAX {
            self.broker.metrics.derived_loops.increment(1);
        } else if !source.cursor.as_ref().is_some_and(|cursor| self.takes_later(cursor.session)) {
            self.push(source, publication.owned());
        }
    }

    /// Has a message written down for those who take it from the log, and as its topic's retained one. The number to
    /// wait for; 0 when nobody takes it so.
    fn store(
        &mut self,
        route: &Route,
        chosen: &[Option<Member<'_>>],
        publication: &mut Publication<'_>,
        from: Option<(u64, u16)>,
    ) -> Result<u64, ReasonCode> {
        let broker = self.broker;
        let Some(persistence) = broker.persistence() else {
            if publication.retain {
                broker.retain(publication);
            }
            return Ok(0);
        };
        let retained = publication.retain && broker.persists_retained(publication, persistence);
        let clears = publication.retain && publication.forward.payload.is_empty();
        let mut takers = Vec::new();
        let clients = chosen.iter().flatten().filter_map(|member| match member {
            Member::Client(target) => Some(*target),
            Member::Graph(_) => None,
        });
        for target in route.clients.iter().chain(clients) {
            takers.extend(reserve(target, publication));
        }
        let graphs = chosen.iter().flatten().filter_map(|member| match member {
            Member::Graph(source) => Some(*source),
            Member::Client(_) => None,
        });
        reserve_graphs(route.graphs.iter().chain(graphs), publication, &mut takers);
        let mut events = Vec::new();
        if !takers.is_empty() || (retained && !clears) {
            self.scratch.takers.extend(takers.iter().map(|taker| (taker.session, taker.packet_id)));
            let message = Arc::new(persistence::stored(&publication.owned()));
            events.push(Event::Stored { message, takers, retained: retained && !clears, from });
        }
        if retained && clears {
            events.push(Event::RetainedCleared { topic: publication.topic().into() });
        }
        if retained {
            persistence.begin_retaining(publication.topic());
        }
        let wait = match (&mut self.record, events.is_empty()) {
            (_, true) => 0,
            (Some(record), false) => {
                record.extend(events);
                0
            }
            (None, false) => persistence.append(events, publication.publisher).inspect_err(|_| {
                for (session, id) in self.scratch.takers.drain(..) {
                    delivery::give_back(broker, session, id);
                }
                if retained {
                    persistence.end_retaining(publication.topic());
                }
            })?,
        };
        if publication.retain && !retained {
            broker.retain(publication);
        }
        Ok(wait)
    }

    /// Sends what a session has ready of the log. Whether it wants more loaded.
    pub fn pump_durable(&mut self, client: &Arc<Client>, state: &mut crate::client::State) -> bool {
        let limits = &self.broker.limits.session;
        let access = state.access.clone();
        let may =
            |message: &Message| access.as_ref().is_none_or(|access| access.may_receive(message.topic()));
        let (sent, dropped) = state.session.pump_durable(self.now, limits, &mut state.outbox, may);
        self.sent += sent;
        for number in dropped {
            self.broker.metrics.dropped(DropCause::Expired);
            self.notes.push(Event::Done { session: client.id(), message: Lsn(number) });
        }
        touch(&mut self.scratch, client, state);
        state.session.durable().is_some_and(|durable| durable.wants().is_some())
    }

    fn deliver(&mut self, target: &Target, publication: &mut Publication<'_>, shared: bool) {
        if target.no_local && target.client.id() == publication.publisher {
            return; // [MQTT-3.8.3-3]
        }
        if target.persisted && self.takes_later(target.client.id()) {
            return;
        }
        if let Some(ordered) = &target.ordered {
            return self.arrange(ordered, Held { message: publication.owned(), retained: false });
        }
        if let Some(own) = &target.own
            && target.client.id() == publication.publisher
        {
            let retain = own.retain_as_published && publication.retain;
            let how = Delivery { qos: own.qos, retain, identifiers: &own.identifiers, share: None };
            return self.hand(&target.client, publication, shared, how);
        }
        let how = Delivery {
            qos: target.qos,
            // The flag of a message that is passed on is 0 unless asked otherwise [MQTT-3.3.1-12] [MQTT-3.3.1-13].
            retain: target.retain_as_published && publication.retain,
            identifiers: &target.identifiers,
            share: target.share.as_ref(),
        };
        self.hand(&target.client, publication, shared, how);
    }

    /// Whether the message under way comes to a session when it is written down.
    fn takes_later(&self, session: u64) -> bool {
        self.scratch.takers.iter().any(|(taker, _)| *taker == session)
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
            share: None,
        };
        self.hand(&client, &mut Publication::of(message), false, how);
    }

    /// Passes one message to one client.
    pub fn hand(
        &mut self,
        client: &Arc<Client>,
        publication: &mut Publication<'_>,
        shared: bool,
        how: Delivery<'_>,
    ) {
        let mut guard = client.lock();
        let state = &mut *guard;
        if let Some(access) = &state.access
            && !access.may_receive(publication.topic())
        {
            return crate::metrics::message_denied();
        }
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
                let bytes = publication.forward.payload.len() as u64;
                match &state.category {
                    None => {
                        self.sent += 1;
                        self.sent_bytes += bytes;
                    }
                    Some(category) => {
                        category.sent.increment(1);
                        category.sent_bytes.increment(bytes);
                    }
                }
                touch(&mut self.scratch, client, state);
            }
            Delivered::Queued => {}
            Delivered::Displaced(shed) => self.broker.metrics.shed(&shed),
            Delivered::Dropped(cause) => {
                let qos = how.qos.min(publication.qos);
                self.broker.metrics.not_sent(cause, qos, state.category.as_deref());
            }
        }
    }

    /// Writes everything out, one write a client. Returns who could not take it all.
    pub fn finish(mut self) -> Congested {
        self.leave_graphs();
        if !self.notes.is_empty()
            && let Some(persistence) = self.broker.persistence()
        {
            persistence.note(std::mem::take(&mut self.notes));
        }
        self.write_out();
        self.count();
        SCRATCH.with_borrow_mut(|kept| *kept = std::mem::take(&mut self.scratch));
        std::mem::take(&mut self.congested)
    }

    fn count(&self) {
        let metrics = &self.broker.metrics;
        let uncategorized = &metrics.uncategorized;
        for (tally, by) in [
            (&metrics.packets_received, self.packets_received),
            (&uncategorized.received, self.received),
            (&uncategorized.received_bytes, self.received_bytes),
            (&metrics.packets_sent, self.packets_sent),
            (&uncategorized.sent, self.sent),
            (&uncategorized.sent_bytes, self.sent_bytes),
            (&metrics.bytes_sent, self.written),
        ] {
            if by > 0 {
                tally.increment(by);
            }
        }
        if self.derived > 0 {
            metrics.derived.increment(self.derived);
        }
    }
}

impl Drop for Turn<'_> {
    /// A turn that did not come to its end leaves no graph closed to others.
    fn drop(&mut self) {
        self.scratch.graphs.drain(..).for_each(|flow| flow.abandon());
    }
}

/// How persisted graphs take a message from the log: once each, by all its sources that want it.
fn reserve_graphs<'a>(
    sources: impl Iterator<Item = &'a Arc<Source>>,
    publication: &Publication<'_>,
    takers: &mut Vec<Taker>,
) {
    if publication.qos == QoS::AtMostOnce || publication.hops >= HOPS_MAX {
        return;
    }
    let clients = takers.len();
    for source in sources {
        let Some(cursor) = &source.cursor else { continue };
        let place = u32::try_from(source.place()).unwrap_or(u32::MAX);
        match takers[clients..].iter_mut().find(|taker| taker.session == cursor.session) {
            Some(taker) => taker.identifiers = [&*taker.identifiers, &[place]].concat().into(),
            None => takers.push(Taker {
                session: cursor.session,
                qos: QoS::AtLeastOnce as u8,
                retain: publication.retain,
                packet_id: 0,
                identifiers: [place].into(),
            }),
        }
    }
}

/// How a session takes a message from the log; nothing when it does not.
fn reserve(target: &Target, publication: &Publication<'_>) -> Option<Taker> {
    let qos = target.qos.min(publication.qos);
    let own = target.no_local && target.client.id() == publication.publisher; // [MQTT-3.8.3-3]
    if !target.persisted || own || qos == QoS::AtMostOnce {
        return None;
    }
    let mut state = target.client.lock();
    if !access::may_receive(state.access.as_ref(), publication) {
        return None; // it is denied and counted when the message is handed on
    }
    let away = state.connection.is_none();
    let durable = state.session.durable()?;
    let id = if away { None } else { durable.reserve() };
    Some(Taker {
        session: target.client.id(),
        qos: qos as u8,
        // The flag of a message that is passed on is 0 unless asked otherwise [MQTT-3.3.1-12].
        retain: target.retain_as_published && publication.retain,
        packet_id: id.map_or(0, PacketId::get),
        identifiers: target.identifiers.clone(),
    })
}

/// Two turns at once both write a client's outbox: one may be held up by a guest.
fn touch(scratch: &mut Scratch, client: &Arc<Client>, state: &mut crate::client::State) {
    if state.touched != scratch.turn {
        state.touched = scratch.turn;
        scratch.touched.push(Arc::clone(client));
    }
}

/// Forgets what this thread has looked up, for tests in which one broker comes after the other.
#[cfg(test)]
pub fn forget() {
    SCRATCH.take();
}
