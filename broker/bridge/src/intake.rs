//! Where a source hands in what came from its remote system.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use crate::parcel::Parcel;
use crate::ticket::Ticket;

/// The data flow has stopped: nothing is taken any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the data flow has stopped")]
pub struct Stopped;

/// Where a source hands in what came.
#[derive(Clone, Debug)]
pub struct Intake {
    line: mpsc::Sender<(Parcel, Ticket)>,
    stop: Arc<watch::Receiver<bool>>,
}

/// An intake for `room` messages that are not yet taken, where they come out, and what stops it when it is set or dropped.
pub fn intake(room: usize) -> (Intake, mpsc::Receiver<(Parcel, Ticket)>, watch::Sender<bool>) {
    let (stop, stopped) = watch::channel(false);
    let (intake, out) = Intake::until(room, stopped);
    (intake, out, stop)
}

impl Intake {
    /// An intake that `stop` stops, like others.
    pub fn until(room: usize, stop: watch::Receiver<bool>) -> (Self, mpsc::Receiver<(Parcel, Ticket)>) {
        let (line, out) = mpsc::channel(room.max(1));
        (Self { line, stop: Arc::new(stop) }, out)
    }

    /// Hands a message in; waits while the data flow has no room for more.
    ///
    /// # Errors
    /// The data flow has stopped. The ticket is dropped, and says nothing about the message by that.
    pub async fn push(&self, parcel: Parcel, ticket: Ticket) -> Result<(), Stopped> {
        self.line.send((parcel, ticket)).await.map_err(|_| Stopped)
    }

    /// Waits until a message can be handed in without waiting. Nothing is lost when this is dropped while it waits.
    ///
    /// # Errors
    /// The data flow has stopped.
    pub async fn room(&self) -> Result<Room<'_>, Stopped> {
        self.line.reserve().await.map(Room).map_err(|_| Stopped)
    }

    /// Returns when the data flow stops: no new messages are wanted then, and tickets are still worth waiting for a moment.
    pub async fn stopped(&self) {
        let mut stop = (*self.stop).clone();
        // An error is an end, too.
        let _ = stop.wait_for(|stopped| *stopped).await;
    }
}

/// Room for one message.
#[derive(Debug)]
pub struct Room<'a>(mpsc::Permit<'a, (Parcel, Ticket)>);

impl Room<'_> {
    /// Hands a message in.
    pub fn push(self, parcel: Parcel, ticket: Ticket) {
        self.0.send((parcel, ticket));
    }
}
