//! What follows from a commit: messages go to the sessions that took them, answers to those who waited, and sessions
//! that are behind get more of what the log has for them.
//!
//! A thread of its own does this, so that the writer of the store is free for the next group.

use std::collections::HashMap;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Weak};

use broker_core::durable::{Entry, Progress};
use broker_core::packet::{PacketId, ReasonCode};
use broker_store::{Committed, Event, Failed, Lsn, Taker};

use crate::broker::Broker;
use crate::client::{Client, State};
use crate::clock;
use crate::persistence::{self, Job, Persistence};
use crate::pipeline::Outcome;
use crate::pipeline::cursor::{self, Cursor};
use crate::pipeline::origin::Origins;
use crate::turn::Turn;

/// Entries that are loaded for a session, and wait until their packet identifiers are written down.
struct Load {
    client: Arc<Client>,
    entries: Vec<Entry>,
    last: u64,
}

/// Works off `jobs` until the broker is gone.
pub fn run(broker: &Weak<Broker>, persistence: &Arc<Persistence>, jobs: &Receiver<Job>) {
    let mut delivery = Delivery::new(persistence);
    while let Ok(job) = jobs.recv() {
        let Some(broker) = broker.upgrade() else { return };
        delivery.work(&broker, job);
    }
}

/// What the delivering thread remembers.
pub struct Delivery {
    persistence: Arc<Persistence>,
    /// By the number of the record that they wait for.
    loads: HashMap<u64, Load>,
}

impl Delivery {
    /// With nothing on its way.
    pub fn new(persistence: &Arc<Persistence>) -> Self {
        Self { persistence: Arc::clone(persistence), loads: HashMap::new() }
    }

    /// Does one job.
    pub fn work(&mut self, broker: &Broker, job: Job) {
        let mut turn = Turn::begin(broker, clock::monotonic());
        match job {
            Job::Committed(records) => self.committed(records, &mut turn),
            Job::Failed(records, kept) => self.failed(&records, kept, &mut turn),
            Job::Fill(client) => self.fill(&client, &mut turn),
            Job::Feed(cursor) => self.feed(&cursor, &mut turn),
        }
        turn.finish();
        self.persistence.wake();
    }

    fn committed(&mut self, records: Vec<Committed>, turn: &mut Turn<'_>) {
        for Committed { first, events, token } in records {
            let last = first.plus(events.len().saturating_sub(1) as u64);
            for (event, number) in events.iter().zip(first.0..) {
                self.event(event, number, turn);
            }
            if let Some(Load { client, entries, last }) = self.loads.remove(&first.0) {
                loaded(&client, entries, Some(last), turn);
                self.fill(&client, turn);
            }
            self.persistence.tell(last.0);
            self.persistence.release();
            settle(token, &self.persistence, turn);
            let due = self.persistence.due(first.0).into_iter();
            turn.publish_outcomes(due.map(|message| Outcome::Message(message, Origins::default())));
        }
    }

    fn event(&mut self, event: &Event, number: u64, turn: &mut Turn<'_>) {
        match event {
            Event::Stored { message, takers, retained, .. } => {
                let message = Arc::new(persistence::message_of(message));
                if *retained {
                    turn.broker().retain_message(Arc::clone(&message));
                    self.persistence.end_retaining(message.topic());
                }
                for taker in takers {
                    self.deliver(taker, number, &message, turn);
                }
            }
            Event::Received { session, message: Lsn(message) } => {
                let Some(client) = turn.broker().client(*session) else { return };
                let mut guard = client.lock();
                let state = &mut *guard;
                state.session.on_received(*message, &mut state.outbox);
                turn.touch(&client, state);
            }
            Event::RetainedCleared { topic } => {
                turn.broker().clear_retained(topic);
                self.persistence.end_retaining(topic);
            }
            _ => {}
        }
    }

    fn deliver(
        &mut self,
        taker: &Taker,
        number: u64,
        message: &Arc<broker_core::message::Message>,
        turn: &mut Turn<'_>,
    ) {
        let Some(client) = turn.broker().client(taker.session) else {
            let entry = cursor::Entry {
                number,
                sources: sources(&taker.identifiers),
                message: Some(Arc::clone(message)),
            };
            let Some(cursor) = self.persistence.cursor(taker.session) else { return };
            if let Some(flow) = cursor.committed(entry, !self.persistence.is_crowded()) {
                turn.run(&flow);
            }
            return;
        };
        let mut guard = client.lock();
        let state = &mut *guard;
        let Some(durable) = state.session.durable() else { return };
        durable.committed(number, PacketId::new(taker.packet_id), |number, id| Entry {
            number,
            id,
            message: Some(Arc::clone(message)),
            qos: persistence::qos(taker.qos),
            retain: taker.retain,
            identifiers: taker.identifiers.clone(),
            progress: Progress::Ready,
            dup: false,
        });
        let fill = turn.pump_durable(&client, state);
        drop(guard);
        if fill {
            self.fill(&client, turn);
        }
    }

    fn failed(&mut self, records: &[Failed], kept: Option<Lsn>, turn: &mut Turn<'_>) {
        for Failed { first, events, token, settled } in records {
            for event in events {
                self.undo(event, turn.broker());
                if !settled {
                    leave_open(event, turn.broker());
                }
            }
            let last = first.plus(events.len().saturating_sub(1) as u64);
            if let Some(Load { client, .. }) = self.loads.remove(&first.0) {
                client.lock().session.durable().into_iter().for_each(|durable| durable.not_loaded());
            }
            self.persistence.refuse(first.0);
            // What is kept is not told, though it is older: nobody may take it for written.
            self.persistence.tell(kept.map_or(last.0, |kept| last.0.min(kept.0 - 1)));
            settle(*token, &self.persistence, turn);
        }
    }

    /// What was agreed on for an event that could not be written holds no more.
    fn undo(&self, event: &Event, broker: &Broker) {
        match event {
            Event::Stored { message, takers, retained, from } => {
                for taker in takers {
                    give_back(broker, taker.session, taker.packet_id);
                }
                if let Some((session, id)) = from
                    && let (Some(client), Some(id)) = (broker.client(*session), PacketId::new(*id))
                {
                    client.lock().session.refuse_qos2(id);
                }
                if *retained {
                    self.persistence.end_retaining(&String::from_utf8_lossy(&message.topic));
                }
            }
            Event::RetainedCleared { topic } => self.persistence.end_retaining(topic),
            // The client is told that it has no such subscription.
            Event::Subscribed { session, filter, .. } => {
                let Some(client) = broker.client(*session) else { return };
                if client.lock().session.unsubscribe(filter) {
                    broker.unsubscribe(filter, *session);
                }
            }
            _ => {}
        }
    }

    /// Loads what a session has room for.
    fn fill(&mut self, client: &Arc<Client>, turn: &mut Turn<'_>) {
        while let Some((from, room)) = wants(client) {
            let Some(found) = self.look(client, from, room) else { return };
            let last = found.last().map(|found| found.number);
            let entries: Vec<Entry> = {
                let mut state = client.lock();
                let Some(durable) = state.session.durable() else { return };
                found
                    .into_iter()
                    .filter_map(|found| {
                        let id = found.id.or_else(|| durable.assign(found.number))?;
                        Some((found, id))
                    })
                    .map(|(found, id)| found.entry(id))
                    .collect()
            };
            let new: Vec<Event> = entries
                .iter()
                .filter(|entry| entry.progress == Progress::Ready && !entry.dup)
                .map(|entry| Event::Sent {
                    session: client.id(),
                    message: Lsn(entry.number),
                    packet_id: entry.id.get(),
                })
                .collect();
            let (Some(last), false) = (last, new.is_empty()) else {
                loaded(client, entries, last, turn);
                continue;
            };
            match self.persistence.insist(new, 0) {
                Ok(number) => {
                    self.loads.insert(number, Load { client: Arc::clone(client), entries, last });
                }
                Err(_) => {
                    client.lock().session.durable().into_iter().for_each(|durable| durable.not_loaded())
                }
            }
            return;
        }
    }

    /// Loads some of what waits in the log for a graph, and runs it.
    fn feed(&self, cursor: &Arc<Cursor>, turn: &mut Turn<'_>) {
        let Some((from, count)) = cursor.begin_loading().filter(|_| !self.persistence.is_crowded()) else {
            return;
        };
        let mut entries: Vec<cursor::Entry> = {
            let state = self.persistence.store.state();
            let entries = state.session(cursor.session).into_iter().flat_map(|it| it.queue.from(Lsn(from)));
            let entry = |entry: broker_store::Entry<'_>| cursor::Entry {
                number: entry.message.0,
                sources: sources(entry.identifiers),
                message: None,
            };
            entries.take(count).map(entry).collect()
        };
        for entry in &mut entries {
            // One that cannot be read any more is done.
            entry.message = self.persistence.read(entry.number);
        }
        if let Some(flow) = cursor.loaded(entries) {
            turn.run(&flow);
            turn.publish_outcomes(cursor.record(Vec::new()).map(Outcome::Record));
        }
    }

    /// What the log has for a session, bodies and all; nothing when the session is gone there.
    fn look(&self, client: &Arc<Client>, from: u64, room: usize) -> Option<Vec<Found>> {
        let mut found: Vec<Found> = {
            let state = self.persistence.store.state();
            let session = state.session(client.id())?;
            let entries = session.queue.from(Lsn(from)).take(room);
            entries.map(|entry| Found::of(&entry, self.persistence.restored)).collect()
        };
        // One that cannot be read is given up when its turn to be sent comes.
        for found in found.iter_mut().filter(|found| !found.received) {
            found.message = self.persistence.read(found.number);
        }
        Some(found)
    }
}

/// The sources of a graph that an entry goes in by.
fn sources(identifiers: &[u32]) -> Vec<usize> {
    identifiers.iter().map(|place| *place as usize).collect()
}

/// Where a session wants to be loaded on from; loading begins with that.
fn wants(client: &Arc<Client>) -> Option<(u64, usize)> {
    let mut state = client.lock();
    state.session.link()?;
    let durable = state.session.durable()?;
    let wants = durable.wants()?;
    durable.begin_loading();
    Some(wants)
}

/// Entries that are loaded join the session, and go out as far as the client takes them.
fn loaded(client: &Arc<Client>, entries: Vec<Entry>, last: Option<u64>, turn: &mut Turn<'_>) {
    let mut guard = client.lock();
    let state = &mut *guard;
    let released: Vec<u64> = entries
        .iter()
        .filter(|entry| entry.progress == Progress::Received)
        .map(|entry| entry.number)
        .collect();
    if let Some(durable) = state.session.durable() {
        durable.loaded(entries, last);
    }
    for number in released {
        state.session.on_received(number, &mut state.outbox);
    }
    turn.pump_durable(client, state);
}

/// An entry of the log.
struct Found {
    number: u64,
    id: Option<PacketId>,
    qos: u8,
    retain: bool,
    received: bool,
    identifiers: Box<[u32]>,
    message: Option<Arc<broker_core::message::Message>>,
    /// It may have been sent before.
    old: bool,
}

impl Found {
    fn of(entry: &broker_store::Entry<'_>, restored: u64) -> Self {
        let id = PacketId::new(entry.packet_id);
        Self {
            number: entry.message.0,
            id,
            qos: entry.qos,
            retain: entry.retain,
            received: entry.received,
            identifiers: entry.identifiers.into(),
            message: None,
            old: id.is_some() && entry.message.0 <= restored,
        }
    }

    fn entry(self, id: PacketId) -> Entry {
        Entry {
            number: self.number,
            id,
            message: self.message,
            qos: persistence::qos(self.qos),
            retain: self.retain,
            identifiers: self.identifiers,
            progress: if self.received { Progress::Received } else { Progress::Ready },
            dup: self.old,
        }
    }
}

/// A QoS 2 message whose record failed, and may be found on the disk all the same should the process end now, is neither taken nor
/// refused: its client, told either, would use the identifier for another one, which would then be taken for this one. It is sent
/// away instead, and sends the message again.
fn leave_open(event: &Event, broker: &Broker) {
    let Event::Stored { from: Some((session, _)), .. } = event else { return };
    if let Some(client) = broker.client(*session) {
        client.lock().leave_unanswered(ReasonCode::UnspecifiedError);
    }
}

/// A packet identifier that was reserved for a persisted message is free again.
pub fn give_back(broker: &Broker, session: u64, id: u16) {
    if let (Some(client), Some(id)) = (broker.client(session), PacketId::new(id)) {
        client.lock().session.durable().into_iter().for_each(|durable| durable.give_back(id));
    }
}

/// Answers that waited for what is now told go out.
fn settle(client: u64, persistence: &Persistence, turn: &mut Turn<'_>) {
    if client == 0 {
        return;
    }
    let Some(client) = turn.broker().client(client) else { return };
    let mut guard = client.lock();
    let state: &mut State = &mut guard;
    state.settle(persistence);
    turn.touch(&client, state);
}
