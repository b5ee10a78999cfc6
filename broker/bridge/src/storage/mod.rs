//! Storage as a destination: Parquet files in directories of this machine and in containers of Azure, Delta tables there (AIO.md
//! §5.2, §7.3).
//!
//! A batch of messages becomes one file, or one commit of a table, that is there as a whole or not at all; only then are its
//! messages done with. What is written is given by a schema; a message that does not fit it never can be, and is kept apart.

mod azure;
mod columns;
#[cfg(feature = "delta")]
mod delta;
mod destination;
mod files;
mod json_schema;
mod local;
mod record;
mod schema;

pub use destination::StorageDestination;
