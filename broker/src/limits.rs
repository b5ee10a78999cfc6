//! What clients may ask of the broker: safe by default, and what a Broker resource makes of it (AIO.md §5.6, §9.2).

use std::time::Duration;

use broker_core::session::{self, Overflow};
use config::resource::Resource;
use config::resource::broker::{self, ClientLimits, HighPriority, MemoryProfile, QueueStrategy};

/// Limits in force.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Per session.
    pub session: session::Limits,
    /// The largest packet taken [MQTT-3.2.2-15].
    pub packet_size_max: usize,
    /// The largest CONNECT taken.
    pub connect_size_max: usize,
    /// How long a connection may take to send its CONNECT, in milliseconds.
    pub connect_ms_max: u64,
    /// QoS 1 and 2 messages a client may have under way to us [MQTT-3.3.4-7].
    pub receive_maximum: u16,
    /// Topic aliases of a connection, in each direction.
    pub topic_alias_maximum: u16,
    /// The longest a session may outlive its connection, in seconds.
    pub session_expiry_max: u32,
    /// The longest that a message may wait for its subscribers, in seconds; `u32::MAX` is for ever.
    pub message_expiry_max: u32,
    /// The longest keep alive, in seconds; 0 leaves it to the clients [MQTT-3.2.2-21].
    pub keep_alive_max: u16,
    /// Levels of a topic or filter.
    pub topic_levels_max: usize,
    /// Subscriptions of one session.
    pub subscriptions_max: usize,
    /// User properties of one packet.
    pub user_properties_max: usize,
    /// Retained messages.
    pub retained_messages_max: usize,
    /// Bytes of all retained messages.
    pub retained_bytes_max: usize,
    /// Bytes of all other messages in memory; beyond, publishers are refused.
    pub memory_bytes_max: usize,
    /// Messages of high priority are taken all the same.
    pub high_priority_passes: bool,
    /// How often `$SYS/broker` is published; `None` for never.
    pub sys_interval: Option<Duration>,
}

/// The sizes that come with a memory profile.
struct Profile {
    packet: usize,
    memory: usize,
    queue: usize,
    outbox: usize,
    retained: usize,
}

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

impl Profile {
    /// The largest packet and the memory for messages are those of AIO.md §9.2, of which three quarters are used.
    const fn of(profile: MemoryProfile) -> Self {
        let (packet, memory, queue, outbox, retained) = match profile {
            MemoryProfile::Tiny => (4 * MIB, 12 * MIB, 4 * MIB, MIB, 16 * MIB),
            MemoryProfile::Low => (16 * MIB, 48 * MIB, 16 * MIB, 2 * MIB, 64 * MIB),
            MemoryProfile::Medium => (64 * MIB, 432 * MIB, 64 * MIB, 4 * MIB, 1024 * MIB),
            MemoryProfile::High => (256 * MIB, 1536 * MIB, 256 * MIB, 8 * MIB, 4096 * MIB),
        };
        Self { packet, memory, queue, outbox, retained }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::of_profile(MemoryProfile::Medium)
    }
}

impl Limits {
    /// How long a connection may take to send its CONNECT, unless said otherwise.
    pub const CONNECT: Duration = Duration::from_secs(10);
    /// The largest CONNECT taken, unless said otherwise: each of its five fields may have 65,535 bytes.
    pub const CONNECT_BYTES: usize = 384 * KIB;

    /// The defaults of a memory profile.
    pub fn of_profile(profile: MemoryProfile) -> Self {
        let Profile { packet, memory, queue, outbox, retained } = Profile::of(profile);
        Self {
            session: session::Limits {
                queue_bytes_max: queue,
                outbox_bytes_max: outbox,
                ..session::Limits::default()
            },
            packet_size_max: packet,
            connect_size_max: Self::CONNECT_BYTES,
            connect_ms_max: Self::CONNECT.as_millis() as u64,
            receive_maximum: 1024,
            topic_alias_maximum: 64,
            session_expiry_max: u32::MAX,
            message_expiry_max: u32::MAX,
            keep_alive_max: 0,
            topic_levels_max: 128,
            subscriptions_max: 100_000,
            user_properties_max: 1024,
            retained_messages_max: 1_000_000,
            retained_bytes_max: retained,
            memory_bytes_max: memory,
            high_priority_passes: true,
            sys_interval: Some(Duration::from_secs(10)),
        }
    }

    /// What a Broker says; the defaults where it says nothing, or where there is none.
    pub fn of(broker: Option<&Resource<broker::Broker>>) -> Self {
        let Some(resource) = broker else { return Self::default() };
        let mut limits = Self::of_profile(resource.spec.memory_profile);
        let handling = resource.spec.high_priority_messages_backpressure_handling;
        limits.high_priority_passes = handling == HighPriority::Accept;
        if let Some(clients) = resource.spec.advanced.as_ref().and_then(|advanced| advanced.clients.as_ref())
        {
            limits.narrow(clients);
        }
        limits.set(&resource.meta.settings.broker);
        limits
    }

    /// How long a message may wait: as long as it says, and no longer than the broker allows.
    pub fn message_expiry(&self, said: Option<u32>) -> Option<u32> {
        match said {
            Some(said) => Some(said.min(self.message_expiry_max)),
            None => (self.message_expiry_max < u32::MAX).then_some(self.message_expiry_max),
        }
    }

    /// `advanced.clients`.
    fn narrow(&mut self, clients: &ClientLimits) {
        set(&mut self.session_expiry_max, clients.max_session_expiry_seconds);
        set(&mut self.message_expiry_max, clients.max_message_expiry_seconds);
        set(&mut self.packet_size_max, clients.max_packet_size_bytes);
        set(&mut self.keep_alive_max, clients.max_keep_alive_seconds);
        if let Some(maximum) = clients.max_receive_maximum {
            // What clients may take at once, and as much the other way.
            self.session.inflight_max = self.session.inflight_max.min(maximum);
            self.receive_maximum = self.receive_maximum.min(maximum);
        }
        if let Some(queue) = &clients.subscriber_queue_limit {
            set(&mut self.session.queue_messages_max, queue.length);
            self.session.overflow = match queue.strategy {
                QueueStrategy::None => Overflow::DropNewest,
                QueueStrategy::DropOldest => Overflow::DropOldest,
            };
        }
    }

    /// Annotations `forebay.dev/…`.
    fn set(&mut self, own: &config::resource::BrokerSettings) {
        set(&mut self.memory_bytes_max, own.message_memory);
        set(&mut self.retained_bytes_max, own.retained_bytes);
        set(&mut self.retained_messages_max, own.retained_messages);
        set(&mut self.session.queue_bytes_max, own.queue_bytes);
        set(&mut self.session.outbox_bytes_max, own.outbox_bytes);
        set(&mut self.session.inflight_max, own.inflight_messages);
        set(&mut self.subscriptions_max, own.subscriptions);
        set(&mut self.topic_levels_max, own.topic_levels);
        set(&mut self.topic_alias_maximum, own.topic_aliases);
        set(&mut self.user_properties_max, own.user_properties);
        if let Some(interval) = own.sys_interval {
            self.sys_interval = Some(interval).filter(|interval| !interval.is_zero());
        }
    }
}

/// Takes what was said; what this machine cannot count is as much as it can.
fn set<T: TryFrom<U> + Max, U>(limit: &mut T, said: Option<U>) {
    if let Some(said) = said {
        *limit = T::try_from(said).unwrap_or(T::MAX);
    }
}

trait Max {
    const MAX: Self;
}

impl Max for usize {
    const MAX: Self = usize::MAX;
}

impl Max for u32 {
    const MAX: Self = u32::MAX;
}

impl Max for u16 {
    const MAX: Self = u16::MAX;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broker(yaml: &str) -> Limits {
        let file = std::env::temp_dir().join(format!("forebay-limits-{}.yaml", std::process::id()));
        let text = format!("apiVersion: mqttbroker.iotoperations.azure.com/v1\nkind: Broker\n{yaml}");
        std::fs::write(&file, text).unwrap();
        let loaded = config::load(std::slice::from_ref(&file));
        std::fs::remove_file(&file).unwrap();
        assert!(loaded.findings.is_empty(), "{:?}", loaded.findings);
        Limits::of(loaded.resources.brokers.first())
    }

    #[test]
    fn a_broker_sets_what_it_says_and_leaves_the_rest() {
        let limits = broker(
            "metadata:\n  name: default\n  annotations:\n    forebay.dev/message-memory: 7MiB\n    \
             forebay.dev/topic-levels: \"5\"\n    forebay.dev/sys-interval: 0s\nspec:\n  memoryProfile: Low\n  \
             highPriorityMessagesBackpressureHandling: Reject\n  advanced:\n    clients:\n      \
             maxSessionExpirySeconds: 60\n      maxMessageExpirySeconds: 30\n      maxPacketSizeBytes: 1000\n      \
             subscriberQueueLimit: {length: 3, strategy: DropOldest}\n      maxReceiveMaximum: 10\n      \
             maxKeepAliveSeconds: 20\n",
        );
        assert_eq!((limits.session_expiry_max, limits.message_expiry_max), (60, 30));
        assert_eq!((limits.packet_size_max, limits.keep_alive_max), (1000, 20));
        assert_eq!((limits.session.queue_messages_max, limits.session.overflow), (3, Overflow::DropOldest));
        assert_eq!((limits.session.inflight_max, limits.receive_maximum), (10, 10));
        assert_eq!((limits.memory_bytes_max, limits.topic_levels_max), (7 * MIB, 5));
        assert_eq!((limits.retained_bytes_max, limits.high_priority_passes), (64 * MIB, false));
        assert_eq!(limits.sys_interval, None);
        assert_eq!(limits.subscriptions_max, Limits::default().subscriptions_max);
    }

    #[test]
    fn profiles_grow() {
        use MemoryProfile::{High, Low, Medium, Tiny};
        let sizes = [Tiny, Low, Medium, High].map(Limits::of_profile);
        assert!(sizes.is_sorted_by(|a, b| a.packet_size_max < b.packet_size_max));
        assert!(sizes.is_sorted_by(|a, b| a.memory_bytes_max < b.memory_bytes_max));
        assert!(
            sizes.iter().all(|limits| limits.session.outbox_bytes_max > crate::client::OUTBOX_HIGH_BYTES)
        );
    }
}
