//! What one session may hold.

/// What one session may hold.
#[derive(Debug, Clone)]
pub struct Limits {
    /// QoS 1 and 2 messages under way to a client at once; the client's receive maximum may ask for fewer.
    pub inflight_max: u16,
    /// Messages that wait for a client, away or slow.
    pub queue_messages_max: usize,
    /// Bytes of those messages.
    pub queue_bytes_max: usize,
    /// What happens to a message for which the queue has no room.
    pub overflow: Overflow,
    /// Encoded bytes that wait for the socket before QoS 0 messages are shed.
    pub outbox_bytes_max: usize,
}

/// What happens when a queue is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Overflow {
    /// The new message is not queued.
    #[default]
    DropNewest,
    /// The oldest ones make room for it.
    DropOldest,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            inflight_max: 1024,
            queue_messages_max: 100_000,
            queue_bytes_max: 64 << 20,
            overflow: Overflow::DropNewest,
            outbox_bytes_max: 4 << 20,
        }
    }
}
