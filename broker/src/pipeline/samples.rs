//! Copies of some of the messages that come into a graph, for those who look for a fault (`debuggingSettings`, AIO.md §5.3).

use broker_core::message::Message;
use config::SamplesPlan;
use metrics::{Counter, counter};

use super::origin::Origins;
use super::{Emit, Exit, Outcome, exit};
use crate::translate;

/// Every n-th message that comes into a graph, and where its copy goes.
pub struct Samples {
    nth: u32,
    /// Messages since the last that was copied.
    passed: u32,
    topic: String,
    exit: Exit,
    copied: Counter,
    dropped: Counter,
}

impl Samples {
    /// Those that a plan describes, on their way to `exit`.
    pub fn new(plan: &SamplesPlan<'_>, exit: Exit, graph: &str) -> Self {
        let of = |metric: &'static str| counter!(metric, "dataflow_id" => graph.to_owned());
        Self {
            nth: plan.nth,
            passed: 0,
            topic: plan.to.data_destination.clone().into_owned(),
            exit,
            copied: of("forebay_graph_samples_total"),
            dropped: of("forebay_graph_samples_dropped_total"),
        }
    }

    /// Looks at a message that comes in; one that is a copy is not copied again. A copy is no reason to hold anything up: one that has no room is dropped and counted.
    pub(super) fn look(&mut self, message: &Message, emit: Emit<'_>) {
        if translate::is_sample(message) {
            return;
        }
        self.passed += 1;
        if self.passed < self.nth {
            return;
        }
        self.passed = 0;
        let Ok(copy) = translate::sample(message, &self.topic) else {
            self.dropped.increment(1);
            return;
        };
        let copy = self.exit.dress(copy);
        match &self.exit.queue {
            None => emit(Outcome::Message(copy.into(), Origins::default())),
            Some(queue) if exit::ship(queue, &copy, &Origins::default()) => {}
            Some(_) => return self.dropped.increment(1),
        }
        self.copied.increment(1);
    }
}
