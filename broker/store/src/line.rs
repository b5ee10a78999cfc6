//! What waits for the writer, and whether more may join.

use std::mem;

use crate::codec::Encoded;
use crate::error::Refused;
use crate::event::{Event, Lsn};
use crate::observer::OnFailure;

/// The largest record, bytes: well above what one MQTT packet can carry.
pub(crate) const RECORD_BYTES_MAX: usize = 512 << 20;

/// A record that waits for its commit.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub first: Lsn,
    pub events: Vec<Event>,
    pub encoded: Encoded,
    pub on_failure: OnFailure,
    pub token: u64,
}

impl Waiting {
    /// What it takes in the log, roughly.
    pub(crate) fn cost(&self) -> u64 {
        cost(&self.encoded)
    }
}

fn cost(encoded: &Encoded) -> u64 {
    encoded.body.len() as u64 + 32
}

/// What the writer does when it does nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Sleep {
    /// It works, and will look again before it sleeps.
    #[default]
    Awake,
    /// Until somebody wakes it, or something of its own is due.
    Resting,
    /// What nobody waits for has its time: until then, or until something urgent comes.
    Dozing,
    /// After a failure: until the time is over.
    BackingOff,
}

/// How the last commit went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Health {
    #[default]
    Working,
    /// It failed; `probe` says that one record may try whether it still does.
    Failing { probe: bool },
}

/// How much room is left, as the writer sees it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Room {
    /// Bytes of all files.
    pub used: u64,
    /// Beyond this, nothing that lasts is taken.
    pub limit: u64,
    /// Beyond this, no session or subscription is taken either.
    pub limit_sessions: u64,
    /// The device is full.
    pub short: bool,
}

/// The line in front of the writer.
#[derive(Debug, Default)]
pub(crate) struct Line {
    pub records: Vec<Waiting>,
    /// The number that the next event gets.
    pub next: u64,
    /// What waits, and what is being written.
    pub bytes: u64,
    /// Somebody waits.
    pub urgent: bool,
    pub sleep: Sleep,
    pub health: Health,
    pub room: Room,
    /// Somebody was refused for want of room: look whether some can be made.
    pub pressed: bool,
    /// Checkpoints asked for, and how many of the askers have been served.
    pub checkpoints_asked: u64,
    pub checkpoints_served: u64,
    /// What became of the last one.
    pub checkpoint_error: Option<(std::io::ErrorKind, String)>,
    pub closing: Option<Closing>,
    pub closed: bool,
}

/// How the store ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Closing {
    /// What waits is written, and a checkpoint.
    Orderly,
    /// What waits is written.
    Plain,
}

/// What a kind of record does to the room that is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Growth {
    Shrinks,
    Sessions,
    Lasts,
}

impl Line {
    /// Lets a record join, or says why not. Afterwards [`Line::must_wake`] says whether the writer has to be told.
    pub(crate) fn join(
        &mut self,
        events: Vec<Event>,
        encoded: Encoded,
        on_failure: OnFailure,
        urgent: bool,
        token: u64,
    ) -> Result<Lsn, Refused> {
        self.admit(&events, &encoded, on_failure)?;
        let first = Lsn(self.next);
        self.next += u64::from(encoded.count);
        let waiting = Waiting { first, events, encoded, on_failure, token };
        self.bytes += waiting.cost();
        self.urgent |= urgent;
        self.records.push(waiting);
        Ok(first)
    }

    fn admit(&mut self, events: &[Event], encoded: &Encoded, on_failure: OnFailure) -> Result<(), Refused> {
        if self.closing.is_some() || self.closed {
            return Err(Refused::Closed);
        }
        if encoded.body.len() > RECORD_BYTES_MAX {
            return Err(Refused::TooLarge);
        }
        let growth = if on_failure == OnFailure::Insist { Growth::Shrinks } else { growth(events) };
        if !self.has_room(growth, cost(encoded)) {
            self.pressed = true;
            return Err(Refused::Full);
        }
        match (self.health, on_failure) {
            (Health::Failing { probe: false }, OnFailure::Refuse | OnFailure::Keep) => Err(Refused::Failing),
            (Health::Failing { probe: true }, OnFailure::Refuse | OnFailure::Keep) => {
                self.health = Health::Failing { probe: false };
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// There is room for what makes the store smaller only.
    pub(crate) fn is_crowded(&self) -> bool {
        self.room.short || !self.has_room(Growth::Sessions, 0)
    }

    fn has_room(&self, growth: Growth, cost: u64) -> bool {
        let needed = self.room.used + self.bytes + cost;
        match growth {
            Growth::Lasts => !self.room.short && needed <= self.room.limit,
            Growth::Sessions => needed <= self.room.limit_sessions,
            Growth::Shrinks => true,
        }
    }

    /// The writer sleeps and would not look in time. Whoever is told so must wake it.
    pub(crate) fn must_wake(&mut self) -> bool {
        let wake = match self.sleep {
            Sleep::Resting => true,
            Sleep::Dozing => self.urgent || self.pressed,
            Sleep::Awake | Sleep::BackingOff => false,
        };
        if wake {
            self.sleep = Sleep::Awake;
        }
        wake
    }

    /// All that waits; its bytes stay counted until they are written.
    pub(crate) fn take(&mut self) -> Vec<Waiting> {
        self.urgent = false;
        mem::take(&mut self.records)
    }
}

fn growth(events: &[Event]) -> Growth {
    let one = |event: &Event| match event {
        Event::Stored { .. } | Event::KeySet { .. } => Growth::Lasts,
        Event::SessionOpened { .. } | Event::Subscribed { .. } => Growth::Sessions,
        _ => Growth::Shrinks,
    };
    events.iter().map(one).max().unwrap_or(Growth::Shrinks)
}
