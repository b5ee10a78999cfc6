//! `$SYS/broker/…`: the broker's own figures as retained messages, under the names that mosquitto has for them.
//!
//! They are taken from counters that are there anyway, every so often; a message pays nothing for them.

mod load;
mod memory;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use broker_core::Millis;
use broker_core::message::{Message, Publication};
use broker_core::packet::QoS;
use bytes::Bytes;
use tokio::time::MissedTickBehavior;

use crate::broker::Broker;
use crate::clock;
use crate::turn::Turn;
use load::Load;

/// Publishes the figures every so often, for ever.
pub async fn run(broker: Arc<Broker>) {
    let Some(interval) = broker.limits.sys_interval else { return };
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut figures = Figures::new(clock::monotonic());
    loop {
        ticks.tick().await;
        figures.publish(&broker, clock::monotonic(), interval);
    }
}

struct Figures {
    began: Millis,
    /// The last value of each topic: what has not changed is not said again.
    said: HashMap<String, String>,
    clients_max: usize,
    heap_max: u64,
    loads: Vec<Load>,
}

impl Figures {
    fn new(began: Millis) -> Self {
        let loads = Vec::new();
        Self { began, said: HashMap::new(), clients_max: 0, heap_max: 0, loads }
    }

    fn publish(&mut self, broker: &Broker, now: Millis, interval: Duration) {
        let mut values = self.values(broker, now);
        let counted = counted(broker);
        for (topic, value) in &counted {
            values.push((topic, value.to_string()));
        }
        let mut turn = Turn::begin(broker, now);
        for (topic, value) in values {
            self.say(topic, value, &mut turn);
        }
        self.say_loads(broker, &counted, interval, &mut turn);
        turn.finish();
    }

    /// What is so at the moment.
    fn values(&mut self, broker: &Broker, now: Millis) -> Vec<(&'static str, String)> {
        let clients = broker.clients();
        let total = clients.len();
        let mut connected = 0;
        let (mut queued, mut under_way) = (0, 0);
        for client in clients {
            let state = client.lock();
            connected += usize::from(state.connection.is_some());
            queued += state.session.queued();
            under_way += state.session.inflight();
        }
        self.clients_max = self.clients_max.max(connected);
        let sizes = broker.sizes();
        let stored = sizes.retained_messages + queued + under_way;
        let bytes = sizes.retained_bytes + broker.memory_bytes();
        let heap = memory::resident();
        self.heap_max = self.heap_max.max(heap.unwrap_or(0));
        let mut values = vec![
            ("version", format!("forebay version {}", env!("CARGO_PKG_VERSION"))),
            ("uptime", format!("{} seconds", now.since(self.began) / 1000)),
            ("clients/total", total.to_string()),
            ("clients/connected", connected.to_string()),
            ("clients/active", connected.to_string()),
            ("clients/disconnected", (total - connected).to_string()),
            ("clients/inactive", (total - connected).to_string()),
            ("clients/maximum", self.clients_max.to_string()),
            ("messages/stored", stored.to_string()),
            ("store/messages/count", stored.to_string()),
            ("store/messages/bytes", bytes.to_string()),
            ("messages/inflight", under_way.to_string()),
            ("subscriptions/count", sizes.subscriptions.to_string()),
            ("shared_subscriptions/count", sizes.shared_subscriptions.to_string()),
            ("retained messages/count", sizes.retained_messages.to_string()),
        ];
        if let Some(heap) = heap {
            values.push(("heap/current", heap.to_string()));
            values.push(("heap/maximum", self.heap_max.to_string()));
        }
        values
    }

    /// How much of what was counted came in a minute, over one, five and fifteen of them.
    fn say_loads(
        &mut self,
        broker: &Broker,
        counted: &[(&str, u64)],
        interval: Duration,
        turn: &mut Turn<'_>,
    ) {
        let of = |topic: &str| counted.iter().find(|(name, _)| *name == topic).map_or(0, |(_, value)| *value);
        let connections = broker.metrics.connections.get();
        let now: Vec<(&'static str, u64)> = LOADS
            .iter()
            .map(|(name, topic)| (*name, if topic.is_empty() { connections } else { of(topic) }))
            .collect();
        if self.loads.is_empty() {
            self.loads = now.iter().map(|(name, value)| Load::new(name, *value)).collect();
        }
        let mut said = Vec::new();
        for (load, (_, value)) in self.loads.iter_mut().zip(now) {
            load.count(value, interval);
            said.extend(load.averages().map(|(minutes, average)| {
                (format!("load/{}/{minutes}min", load.name), format!("{average:.2}"))
            }));
        }
        for (topic, value) in said {
            self.say(&topic, value, turn);
        }
    }

    fn say(&mut self, topic: &str, value: String, turn: &mut Turn<'_>) {
        if self.said.get(topic) == Some(&value) {
            return;
        }
        let name = format!("$SYS/broker/{topic}");
        let mut message = Message::new(Bytes::from(name), Bytes::new(), Bytes::from(value.clone()), turn.now);
        message.qos = QoS::AtMostOnce;
        message.retain = true;
        turn.publish(&mut Publication::of(&Arc::new(message)));
        self.said.insert(topic.to_owned(), value);
    }
}

/// What loads are of; the connections made are counted under no topic of their own.
const LOADS: [(&str, &str); 8] = [
    ("messages/received", "messages/received"),
    ("messages/sent", "messages/sent"),
    ("publish/received", "publish/messages/received"),
    ("publish/sent", "publish/messages/sent"),
    ("publish/dropped", "publish/messages/dropped"),
    ("bytes/received", "bytes/received"),
    ("bytes/sent", "bytes/sent"),
    ("connections", ""),
];

/// What was counted since the beginning.
fn counted(broker: &Broker) -> [(&'static str, u64); 10] {
    let metrics = &broker.metrics;
    let publishes_sent = metrics.sum(|category| &category.sent);
    [
        ("messages/received", metrics.packets_received.get()),
        ("messages/sent", metrics.packets_sent.get() + publishes_sent),
        ("bytes/received", metrics.bytes_received.get()),
        ("bytes/sent", metrics.bytes_sent.get()),
        ("publish/messages/received", metrics.sum(|category| &category.received)),
        ("publish/messages/sent", publishes_sent),
        ("publish/messages/dropped", metrics.dropped_total()),
        ("publish/bytes/received", metrics.sum(|category| &category.received_bytes)),
        ("publish/bytes/sent", metrics.sum(|category| &category.sent_bytes)),
        ("clients/expired", metrics.sessions_expired.get()),
    ]
}
