//! A graph at work: a thread that takes what the link forwards, steps the engine and publishes what comes out.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use config::{Template, TopicFilter};
use flume::RecvTimeoutError;
use processing::runtime::GraphRuntime;
use processing_core::engine::{Cause, Outlet};
use processing_core::item::{Item, MessageSchema};
use rumqttd::Notification;
use rumqttd::local::{LinkError, LinkRx, LinkTx};
use rumqttd::protocol::Packet;

use crate::letter::Failed;
use crate::message::{self, Origin};
use crate::start::Protocol;

/// The longest that a thread sleeps: the clock may be set while it does.
const SLEEP_MAX: Duration = Duration::from_secs(1);
/// Dropped messages that are told of one by one, in each second.
const TOLD_MAX: u32 = 10;

/// What a graph did so far.
#[derive(Debug, Default)]
pub struct Tally {
    /// Messages that came in.
    pub received: AtomicU64,
    /// Messages that went out.
    pub sent: AtomicU64,
    /// Messages that a filter dropped.
    pub filtered: AtomicU64,
    /// Messages that could not be processed.
    pub failed: AtomicU64,
}

/// A graph that is ready to run.
pub struct Flow {
    /// Its name.
    pub name: String,
    /// The graph.
    pub graph: GraphRuntime<Origin>,
    /// The filters and the schema of each source.
    pub sources: Vec<(Vec<TopicFilter>, Option<MessageSchema>)>,
    /// The topics of its sinks.
    pub destinations: Vec<Template>,
    /// Where messages go that cannot be processed.
    pub dead_letter_topic: Option<String>,
    /// What the clients of the broker speak.
    pub protocol: Protocol,
    /// What it did so far.
    pub tally: Arc<Tally>,
}

/// What comes out of a graph.
#[derive(Default)]
struct Out {
    items: Vec<(usize, Item<Origin>)>,
    failed: Vec<Failed>,
    filtered: u64,
}

impl Outlet<Origin> for Out {
    fn emit(&mut self, sink: usize, item: Item<Origin>) {
        self.items.push((sink, item));
    }

    fn dropped(&mut self, operation: &str, cause: Cause, carry: &Origin) {
        match Failed::of(operation, &cause, carry) {
            Some(failed) => self.failed.push(failed),
            None => self.filtered += 1,
        }
    }
}

/// A graph with its link to the broker.
pub struct Running {
    flow: Flow,
    link: LinkTx,
    node: Arc<str>,
    counter: u64,
    out: Out,
    /// When messages were told of last, and how many since.
    told: (Instant, u32),
}

impl Running {
    /// A graph that has subscribed.
    pub fn new(flow: Flow, link: LinkTx) -> Self {
        let told = (Instant::now(), 0);
        Self { flow, link, node: Arc::from("forebay-rumqttd"), counter: 0, out: Out::default(), told }
    }

    /// Runs until the broker is gone.
    pub fn run(mut self, mut incoming: LinkRx) {
        loop {
            match incoming.recv_deadline(self.deadline()) {
                Ok(Some(Notification::Forward(forward))) => self.take(forward.publish, forward.properties),
                // The router has given as much as it does at once, and wants to hear that there is room.
                Ok(Some(Notification::Unschedule)) => {
                    if incoming.ready().is_err() {
                        return;
                    }
                }
                Ok(_) => {}
                Err(LinkError::RecvTimeout(RecvTimeoutError::Timeout)) => {}
                Err(error) => {
                    tracing::info!(graph = self.flow.name, "the broker is gone: {error}");
                    return;
                }
            }
            if self.flow.graph.keeps_items() {
                self.flow.graph.advance(message::wall_ms(), &mut self.out);
            }
            if self.hand_out().is_err() {
                return;
            }
        }
    }

    /// When something that waits inside is due.
    fn deadline(&self) -> Instant {
        let due = self.flow.graph.due_ms().filter(|_| self.flow.graph.keeps_items());
        let wait = due.map_or(SLEEP_MAX, |due| Duration::from_millis(due.saturating_sub(message::wall_ms())));
        Instant::now() + wait.min(SLEEP_MAX)
    }

    fn take(
        &mut self,
        publish: rumqttd::protocol::Publish,
        properties: Option<rumqttd::protocol::PublishProperties>,
    ) {
        let arrived = match message::arrived(publish, properties) {
            Ok(arrived) => Arc::new(arrived),
            Err(why) => return tracing::warn!(graph = self.flow.name, "a message is dropped: {why}"),
        };
        for place in 0..self.flow.sources.len() {
            let (filters, schema) = &self.flow.sources[place];
            if !filters.iter().any(|filter| filter.matches(&arrived.topic)) {
                continue;
            }
            self.flow.tally.received.fetch_add(1, Ordering::Relaxed);
            self.counter += 1;
            match message::item(&arrived, schema.as_ref(), &self.node, self.counter) {
                Ok(item) => self.flow.graph.push_to(place, item, &mut self.out),
                Err(why) => {
                    let origin = Origin(Arc::clone(&arrived));
                    let failed =
                        Failed { operation: String::new(), reason: "timestamp", why: why.to_owned(), origin };
                    self.out.failed.push(failed);
                }
            }
        }
    }

    /// Publishes what came out.
    fn hand_out(&mut self) -> Result<(), ()> {
        let Out { items, failed, filtered } = &mut self.out;
        let (items, mut failed) = (std::mem::take(items), std::mem::take(failed));
        self.flow.tally.filtered.fetch_add(std::mem::take(filtered), Ordering::Relaxed);
        let mut packets = Vec::with_capacity(items.len());
        for (sink, item) in items {
            let Some(destination) = self.flow.destinations.get(sink) else { continue };
            let origin = item.carry.clone();
            match message::packet(item, destination) {
                Ok(packet) => packets.push(packet),
                Err(why) => {
                    failed.push(Failed { operation: String::new(), reason: "destination", why, origin });
                }
            }
        }
        self.flow.tally.sent.fetch_add(packets.len() as u64, Ordering::Relaxed);
        for failed in failed {
            packets.extend(self.give_up(&failed));
        }
        packets.into_iter().try_for_each(|packet| self.publish(packet))
    }

    /// A message that cannot be processed is counted and told, and kept where the graph names a topic for that.
    fn give_up(&mut self, failed: &Failed) -> Option<Packet> {
        let Failed { operation, reason, why, origin } = failed;
        self.flow.tally.failed.fetch_add(1, Ordering::Relaxed);
        if self.told.0.elapsed() >= Duration::from_secs(1) {
            self.told = (Instant::now(), 0);
        }
        self.told.1 += 1;
        if self.told.1 <= TOLD_MAX {
            tracing::warn!(
                graph = self.flow.name,
                operation,
                topic = origin.0.topic,
                "a message is dropped: {why}"
            );
        }
        let topic = self.flow.dead_letter_topic.as_deref()?;
        let told = [
            ("dead-letter-topic", origin.0.topic.as_str()),
            ("dead-letter-graph", &self.flow.name),
            ("dead-letter-operation", operation),
            ("dead-letter-reason", reason),
            ("dead-letter-cause", why),
        ];
        Some(message::kept(&origin.0, topic, &told))
    }

    /// Hands a packet to the router's thread; waits while that has more than it can take.
    fn publish(&mut self, packet: Packet) -> Result<(), ()> {
        let packet = match (packet, self.flow.protocol) {
            (Packet::Publish(publish, _), Protocol::V4) => Packet::Publish(publish, None),
            (packet, _) => packet,
        };
        // It is ready at once: what it waits for, it waits for by holding this thread.
        let mut sent = std::pin::pin!(self.link.send(packet));
        match sent.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Err(error)) => {
                tracing::info!(graph = self.flow.name, "the broker is gone: {error}");
                Err(())
            }
            Poll::Ready(Ok(_)) | Poll::Pending => Ok(()),
        }
    }
}
