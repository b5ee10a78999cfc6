//! Random events that make some sense.

use std::sync::Arc;

use broker_store::sim::Random;
use broker_store::{Event, Lsn, Message, Taker, Will};
use bytes::Bytes;

use crate::model::Model;

const SESSIONS: u64 = 6;
const TOPICS: u64 = 8;

/// A record's worth of events, for a store that holds about what `view` says.
pub fn events(random: &mut Random, view: &Model, payload_max: usize) -> Vec<Event> {
    let count = if random.once_in(4) { 2 + random.below(3) } else { 1 };
    (0..count).map(|_| event(random, view, payload_max)).collect()
}

fn event(random: &mut Random, view: &Model, payload_max: usize) -> Event {
    let session = 1 + random.below(SESSIONS);
    match random.below(100) {
        0..45 => stored(random, payload_max),
        45..70 => done(random, view),
        70..74 => {
            entry_event(random, view, |session, message, id| Event::Sent { session, message, packet_id: id })
        }
        74..77 => entry_event(random, view, |session, message, _| Event::Received { session, message }),
        77..82 => Event::SessionOpened {
            session,
            client_id: format!("client-{session}").into(),
            expiry: random.number() as u32,
            will: random.once_in(3).then(|| Box::new(will(random))),
        },
        82 => Event::SessionClosed { session, at: random.below(1 << 40) },
        83 => Event::SessionEnded { session },
        84..87 => Event::Subscribed {
            session,
            filter: filter(random),
            options: bytes(random, 6),
            persisted: random.once_in(2),
        },
        87 => Event::Unsubscribed { session, filter: filter(random) },
        88..91 => Event::Released { session, packet_id: random.below(8) as u16 },
        91..93 => Event::RetainedCleared { topic: topic(random).into() },
        93..98 => Event::KeySet { key: key(random), value: bytes(random, 60) },
        _ => Event::KeyDeleted { key: key(random) },
    }
}

fn stored(random: &mut Random, payload_max: usize) -> Event {
    let takers = (0..random.below(4)).map(|_| Taker {
        session: 1 + random.below(SESSIONS),
        qos: random.below(3) as u8,
        retain: random.once_in(2),
        packet_id: if random.once_in(2) { 0 } else { random.below(1 << 16) as u16 },
        identifiers: (0..random.below(3)).map(|_| random.number() as u32).collect(),
    });
    let takers = takers.collect();
    Event::Stored {
        message: Arc::new(message(random, payload_max)),
        takers,
        retained: random.once_in(6),
        from: random.once_in(4).then(|| (1 + random.below(SESSIONS), random.below(8) as u16)),
    }
}

fn done(random: &mut Random, view: &Model) -> Event {
    let session = 1 + random.below(SESSIONS);
    let queue = view.sessions.get(&session).map_or(&[][..], |session| &session.queue);
    let place = if random.once_in(4) { random.below_len(queue.len()) } else { 0 };
    let message = queue.get(place).map_or(random.below(1000), |entry| entry.message);
    Event::Done { session, message: Lsn(message) }
}

fn entry_event(random: &mut Random, view: &Model, event: impl FnOnce(u64, Lsn, u16) -> Event) -> Event {
    let session = 1 + random.below(SESSIONS);
    let queue = view.sessions.get(&session).map_or(&[][..], |session| &session.queue);
    let entry = queue.get(random.below_len(queue.len()));
    event(session, Lsn(entry.map_or(7, |entry| entry.message)), random.number() as u16)
}

fn will(random: &mut Random) -> Will {
    Will { message: message(random, 100), delay: random.below(100) as u32 }
}

fn message(random: &mut Random, payload_max: usize) -> Message {
    let expiry = random.once_in(3).then(|| random.number() as u32);
    Message {
        topic: topic(random).into(),
        properties: bytes(random, 20),
        payload: bytes(random, payload_max),
        expiry_offset: expiry.map(|_| random.below(20) as u32),
        expiry,
        qos: random.below(3) as u8,
        retain: random.once_in(2),
        // Clocks step back and forth.
        received: random.below(1 << 42),
        hops: random.below(3) as u8,
    }
}

fn topic(random: &mut Random) -> String {
    format!("topic/{}", random.below(TOPICS))
}

fn filter(random: &mut Random) -> Box<str> {
    format!("filter/{}", random.below(4)).into()
}

fn key(random: &mut Random) -> Bytes {
    format!("key{}", random.below(10)).into()
}

fn bytes(random: &mut Random, max: usize) -> Bytes {
    let len = random.below_len(max + 1);
    (0..len).map(|_| random.number() as u8).collect()
}
