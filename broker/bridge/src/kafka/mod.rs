//! Kafka, and what speaks its protocol, as source and destination (AIO.md §5.2, §7.5): by librdkafka.

mod destination;
mod headers;
mod offsets;
mod settings;
mod source;
mod trouble;

pub use destination::KafkaDestination;
pub use source::KafkaSource;
