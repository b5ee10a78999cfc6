//! Messages that are sent together.

use std::time::{Duration, Instant};

use crate::{Parcel, Receiver, Rejection, Report, Shipment};

/// How much is sent together.
#[derive(Clone, Copy, Debug)]
pub struct BatchLimits {
    /// A batch is sent when its first message has waited for so long.
    pub latency: Duration,
    /// Or when it has so many messages.
    pub messages_max: usize,
    /// Or so many bytes, as they came or in memory, whichever is more.
    pub bytes_max: usize,
}

/// A message, and what it becomes.
#[derive(Debug)]
pub struct Ready<T> {
    /// The message.
    pub shipment: Shipment,
    /// What it becomes.
    pub made: T,
}

/// The next batch, each message read by `read`, which also says how many bytes what it becomes takes in memory; what cannot be read is rejected. It may be empty; nothing when the queue is closed
/// and empty.
pub async fn gather<T>(
    shipments: &mut Receiver,
    report: &Report,
    limits: &BatchLimits,
    read: impl Fn(&Parcel) -> Result<(T, usize), Rejection>,
) -> Option<Vec<Ready<T>>> {
    let (mut batch, mut bytes) = (Vec::new(), 0);
    let mut deadline: Option<Instant> = None;
    while batch.len() < limits.messages_max && bytes < limits.bytes_max {
        let next = match deadline {
            None => shipments.next().await,
            Some(deadline) => match tokio::time::timeout_at(deadline.into(), shipments.next()).await {
                Ok(next) => next,
                Err(_) => break,
            },
        };
        let Some(shipment) = next else { break };
        let Some(shipment) = report.unless_expired(shipment) else { continue };
        match read(&shipment.parcel) {
            Ok((made, size)) => {
                bytes += size.max(shipment.parcel.size());
                batch.push(Ready { shipment, made });
            }
            Err(rejection) => report.rejected(shipment, &rejection),
        }
        deadline.get_or_insert_with(|| Instant::now() + limits.latency);
    }
    // Only what is rejected may have come.
    (!batch.is_empty() || deadline.is_some()).then_some(batch)
}
