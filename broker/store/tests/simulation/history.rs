//! What the store was given and what it said of it; and from that, what it may hold after a crash.

use std::io;
use std::sync::Arc;

use broker_store::sim::SimDisk;
use broker_store::{Committed, Event, Failed, Observer};
use parking_lot::Mutex;

use crate::model::Model;

/// What the observer was told, in order, while there was power.
#[derive(Debug)]
pub enum Told {
    Committed(u64),
    Failed {
        token: u64,
        settled: bool,
    },
    /// One call is over.
    Over,
}

/// Writes down what it is told.
pub struct Listener {
    pub disk: SimDisk,
    pub told: Mutex<Vec<Told>>,
}

impl Listener {
    pub fn new(disk: &SimDisk) -> Arc<Self> {
        Arc::new(Self { disk: disk.clone(), told: Mutex::default() })
    }

    fn note(&self, told: impl Iterator<Item = Told>) {
        // A process that is over hears nothing.
        if self.disk.is_on() {
            self.told.lock().extend(told.chain([Told::Over]));
        }
    }
}

impl Observer for Listener {
    fn committed(&self, records: Vec<Committed>) {
        self.note(records.into_iter().map(|record| Told::Committed(record.token)));
    }

    fn failed(&self, records: Vec<Failed>, _kept: Option<broker_store::Lsn>, _why: &io::Error) {
        let told = |record: Failed| Told::Failed { token: record.token, settled: record.settled };
        self.note(records.into_iter().map(told));
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Fate {
    Waits,
    Committed,
    /// Refused, in this call; it may come back if the process ends before anything is committed.
    Unsettled(usize),
    Refused,
}

#[derive(Debug)]
struct Record {
    first: u64,
    events: Vec<Event>,
    urgent: bool,
    fate: Fate,
}

/// The records of one life, by token, and the state before them.
#[derive(Debug, Default)]
pub struct History {
    before: Model,
    /// With all that may yet be committed, or once could.
    view: Model,
    records: Vec<Record>,
    calls: usize,
}

impl History {
    pub fn new(before: Model) -> Self {
        Self { view: before.clone(), before, ..Self::default() }
    }

    /// The token that the next record is to be given.
    pub fn next(&self) -> u64 {
        self.records.len() as u64
    }

    pub fn appended(&mut self, first: u64, events: Vec<Event>, urgent: bool) {
        if let Some(last) = self.records.last() {
            assert!(first >= last.first + last.events.len() as u64, "numbers grow");
        }
        self.view.apply(first, &events);
        self.records.push(Record { first, events, urgent, fate: Fate::Waits });
    }

    pub fn told(&mut self, told: Vec<Told>) {
        let mut last = None;
        for told in told {
            match told {
                Told::Committed(token) => {
                    let record = &mut self.records[token as usize];
                    assert!(record.fate == Fate::Waits, "{token} was {:?}", record.fate);
                    assert!(last.is_none_or(|last| last < token), "told in order");
                    last = Some(token);
                    record.fate = Fate::Committed;
                    // What is committed stands behind a header that shuts out what failed before.
                    for record in &mut self.records {
                        if let Fate::Unsettled(_) = record.fate {
                            record.fate = Fate::Refused;
                        }
                    }
                }
                Told::Failed { token, settled } => {
                    let record = &mut self.records[token as usize];
                    assert!(record.fate == Fate::Waits, "{token} was {:?}", record.fate);
                    record.fate = if settled { Fate::Refused } else { Fate::Unsettled(self.calls) };
                }
                Told::Over => self.calls += 1,
            }
        }
    }

    pub fn waiting(&self) -> usize {
        self.records.iter().filter(|record| record.fate == Fate::Waits).count()
    }

    /// The state with all that is committed.
    pub fn committed(&self) -> Model {
        let mut model = self.before.clone();
        self.records.iter().filter(|it| it.fate == Fate::Committed).for_each(|it| it.apply(&mut model));
        model
    }

    /// About what the store holds, for those who think up what to do next.
    pub fn view(&self) -> &Model {
        &self.view
    }

    /// The records that are not certain, a line each.
    pub fn outline(&self) -> String {
        let lines = self.records.iter().rev().take(25).rev();
        let line =
            |it: &Record| format!("#{} {:?} urgent: {}, {:?}\n", it.first, it.fate, it.urgent, it.events);
        lines.map(line).collect()
    }

    /// Whether the store may hold this after a crash: everything up to the last that somebody waited for and was told of,
    /// and of what followed nothing, all, or a beginning.
    pub fn allows(&self, found: &Model) -> bool {
        let told = |record: &Record| record.urgent && record.fate == Fate::Committed;
        let certain = self.records.iter().rposition(told).map_or(0, |last| last + 1);
        let mut base = self.before.clone();
        for record in self.records[..certain].iter().filter(|record| record.fate == Fate::Committed) {
            record.apply(&mut base);
        }
        let rest = &self.records[certain..];
        let mut calls: Vec<Option<usize>> = rest
            .iter()
            .filter_map(
                |record| if let Fate::Unsettled(call) = record.fate { Some(Some(call)) } else { None },
            )
            .collect();
        calls.push(None);
        calls.dedup();
        calls.into_iter().any(|call| {
            let may = |record: &&Record| match record.fate {
                Fate::Waits | Fate::Committed => true,
                Fate::Unsettled(in_call) => Some(in_call) == call,
                Fate::Refused => false,
            };
            let mut model = base.clone();
            model.is(found)
                || rest.iter().filter(may).any(|record| {
                    record.apply(&mut model);
                    model.is(found)
                })
        })
    }
}

impl Record {
    fn apply(&self, model: &mut Model) {
        model.apply(self.first, &self.events);
    }
}
