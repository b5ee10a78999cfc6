//! What flows through a graph (AIO.md §1.3, §1.6).

use crate::time::Hlc;
use bytes::Bytes;

/// One thing that flows through a graph.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item<C> {
    /// The logical time, which branch and delay are given and by which accumulate groups. At first the message's own
    /// timestamp; only a delay changes it.
    pub time: Hlc,
    /// What operators see and change.
    pub data: Data,
    /// What operators never see: whatever the host of the graph needs to know when the item leaves it.
    pub carry: C,
}

/// The data model of operators (`data-model`, AIO.md §1.3). Clones share their bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Data {
    /// A message.
    Message(Message),
    /// An image.
    Snapshot(Snapshot),
    /// Bytes without a topic or a timestamp.
    Bytes(Bytes),
}

impl Data {
    /// How many bytes of content this holds, without the bookkeeping around them.
    pub fn len_bytes(&self) -> usize {
        match self {
            Self::Message(message) => {
                let properties: usize =
                    message.user_properties.iter().map(|(key, value)| key.len() + value.len()).sum();
                message.topic.len() + message.payload.len() + properties
            }
            Self::Snapshot(snapshot) => snapshot.frame.len(),
            Self::Bytes(bytes) => bytes.len(),
        }
    }
}

/// A message, as operators see it. Text fields are UTF-8 when they come from MQTT; an operator may have left
/// other bytes in them when it passed a buffer on as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// When the message was made, by its own account; a window may overwrite it without changing the logical time.
    pub timestamp: Hlc,
    /// The MQTT topic.
    pub topic: Bytes,
    /// The MQTT content type.
    pub content_type: Option<Bytes>,
    /// The payload.
    pub payload: Bytes,
    /// The MQTT user properties in their order, duplicates kept.
    pub user_properties: Vec<(Bytes, Bytes)>,
    /// The schema that goes with the message, if any.
    pub schema: Option<MessageSchema>,
}

impl Message {
    /// A message with a timestamp and nothing else: what an accumulate is first given as staged (AIO.md §4.1).
    pub fn empty(timestamp: Hlc) -> Self {
        Self {
            timestamp,
            topic: Bytes::new(),
            content_type: None,
            payload: Bytes::new(),
            user_properties: Vec::new(),
            schema: None,
        }
    }
}

/// A schema that goes with a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MessageSchema {
    /// Where a registry has it.
    RegistryReference(Bytes),
    /// The schema itself.
    Inline {
        /// Its name.
        name: Bytes,
        /// Its text.
        content: Bytes,
    },
}

/// An image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// When the image was taken.
    pub timestamp: Hlc,
    /// The pixel or file format, such as `rgb24`.
    pub format: Bytes,
    /// Pixels across.
    pub width: u32,
    /// Pixels down.
    pub height: u32,
    /// The image.
    pub frame: Bytes,
}
