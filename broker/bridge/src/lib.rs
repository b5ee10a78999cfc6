//! Remote systems that data flows read from and write to (AIO.md §5.2): one module each, behind a feature of its own.
//!
//! A bridge knows neither broker nor graph. A [`Destination`] takes [`Shipment`]s from a bounded queue and keeps each until the
//! remote system has it for certain; a [`Source`] hands [`Parcel`]s in and learns by [`Tickets`] which of them are done with,
//! so that it tells the remote system no earlier. Nothing that was acknowledged on one side is given up on the other: whoever
//! drops a shipment says by that that it is delivered, or that it never can be.

mod backoff;
#[cfg(any(feature = "otlp", feature = "storage"))]
mod batch;
pub mod cloud_events;
mod intake;
#[cfg(feature = "kafka")]
pub mod kafka;
#[cfg(feature = "mqtt")]
pub mod mqtt;
#[cfg(feature = "otlp")]
pub mod otlp;
mod parcel;
mod queue;
mod report;
#[cfg(feature = "storage")]
pub mod storage;
mod system;
mod ticket;
#[cfg(any(feature = "mqtt", feature = "otlp"))]
mod tls;

use std::future::Future;
use std::pin::Pin;

pub use backoff::Backoff;
pub use intake::{Intake, Room, Stopped, intake};
pub use parcel::Parcel;
pub use queue::{Full, QueueLimits, Receipt, Receiver, Sender, Shipment, queue};
pub use report::{DeadLetters, Health, Names, Rejection, Report, describe_metrics};
pub use system::{Inward, Output, Outward, Unusable, destination, service_type, source};
pub use ticket::{Ticket, Tickets};

/// What a bridge does, for as long as it runs.
pub type Running = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A remote system that messages go to.
pub trait Destination: Send {
    /// Sends everything that comes from `shipments`, in that order, and returns when the queue is closed and what was in it is
    /// delivered. The remote system may be away at any time, for any time: that is reported, waited out and tried again,
    /// and keeps no more in memory than the queue allows.
    fn run(self: Box<Self>, shipments: Receiver, report: Report) -> Running;
}

/// A remote system that messages come from.
pub trait Source: Send {
    /// Hands in what comes, and acknowledges it to the remote system when its ticket is done with. Returns soon after
    /// `intake` has stopped; what is not done with then will come again.
    fn run(self: Box<Self>, intake: Intake, report: Report) -> Running;
}

/// Who runs a bridge: part of client ids, transaction ids and file names, so that no two are the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// The namespace of the graph.
    pub namespace: String,
    /// The name of the graph.
    pub graph: String,
    /// The name of the node.
    pub node: String,
    /// Tells apart processes that run the same graph: twelve letters and digits, the same after a restart when there is a data
    /// directory.
    pub process: String,
}
