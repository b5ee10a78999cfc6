//! Windows: a delay that rounds up to the window's end, and an accumulate that sums what it holds.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests are tests

use std::collections::BTreeMap;

use bytes::Bytes;
use processing_core::engine::{Bounds, Cause, Engine, Outlet};
use processing_core::graph::{Connection, Definition, Graph, Kind, Operation};
use processing_core::item::{Data, Item, Message};
use processing_core::operator::{Operator, OperatorError};
use processing_core::time::Hlc;
use proptest::prelude::*;

const WINDOW_MS: u64 = 10_000;

/// Moves items to the end of their window, as AIO's `window` sample does.
struct RoundUp;

impl Operator for RoundUp {
    fn delay(&mut self, _: &Data, time: &Hlc) -> Result<Hlc, OperatorError> {
        let ms = time.secs * 1000 + u64::from(time.nanos) / 1_000_000;
        Ok(Hlc { counter: 0, ..Hlc::from_millis(ms.next_multiple_of(WINDOW_MS), time.node.clone()) })
    }
}

/// Writes down what it is given: `[1 2]` then `[1 2 3]`. Fails on a batch with a 13.
struct Concat;

impl Operator for Concat {
    fn accumulate(&mut self, staged: &Data, batch: &[Data]) -> Result<Data, OperatorError> {
        let Data::Message(message) = staged else { panic!("staged is a message") };
        let mut all = payload(staged);
        for data in batch {
            if payload(data) == "13" {
                return Err(OperatorError::Failed("thirteen".to_owned()));
            }
            all = format!("{all} {}", payload(data)).trim().to_owned();
        }
        Ok(Data::Message(Message { payload: Bytes::from(all), ..message.clone() }))
    }
}

fn payload(data: &Data) -> String {
    match data {
        Data::Message(message) => String::from_utf8(message.payload.to_vec()).unwrap(),
        _ => panic!("messages only"),
    }
}

fn item(ms: u64, node: &str, payload: &str) -> Item<u32> {
    let time = Hlc::from_millis(ms, node.into());
    let message =
        Message { payload: Bytes::copy_from_slice(payload.as_bytes()), ..Message::empty(time.clone()) };
    Item { time, data: Data::Message(message), carry: 1 }
}

/// What leaves, and how many items it stands for.
#[derive(Default, Debug, PartialEq)]
struct Seen {
    out: Vec<(u64, String, u32)>,
    dropped: Vec<(String, Cause)>,
}

impl Outlet<u32> for Seen {
    fn emit(&mut self, _: usize, item: Item<u32>) {
        self.out.push((item.time.secs, payload(&item.data), item.carry));
    }
    fn dropped(&mut self, operation: &str, cause: Cause, carry: &u32) {
        assert_eq!(*carry, 1, "each item is dropped on its own");
        self.dropped.push((operation.to_owned(), cause));
    }
    fn combine(&mut self, carry: &mut u32, later: u32) {
        *carry += later;
    }
}

fn engine(chain: &[Kind]) -> Engine<u32> {
    let names: Vec<String> =
        chain.iter().enumerate().map(|(at, kind)| format!("{}{at}", kind.as_str())).collect();
    let operation = |(name, &kind): (&String, &Kind)| Operation {
        name: name.clone(),
        kind,
        module: kind.has_module().then(|| "m:1".to_owned()),
    };
    let connection = |pair: &[String]| Connection { from: pair[0].clone(), arm: None, to: pair[1].clone() };
    let definition = Definition {
        operations: names.iter().zip(chain).map(operation).collect(),
        connections: names.windows(2).map(connection).collect(),
        ..Definition::default()
    };
    let operator = |kind: &Kind| -> Option<Box<dyn Operator>> {
        match kind {
            Kind::Delay => Some(Box::new(RoundUp)),
            Kind::Accumulate => Some(Box::new(Concat)),
            _ => None,
        }
    };
    Engine::new(Graph::check(definition).unwrap(), chain.iter().map(operator).collect()).unwrap()
}

fn window() -> Engine<u32> {
    engine(&[Kind::Source, Kind::Delay, Kind::Accumulate, Kind::Sink])
}

#[test]
fn a_window_closes_by_the_clock_alone_and_makes_one_item_of_all_its_publishers() {
    let (mut engine, mut seen) = (window(), Seen::default());
    engine.push_at(item(1_000, "a", "1"), 1_000, &mut seen);
    engine.push_at(item(2_000, "b", "2"), 2_000, &mut seen);
    engine.push_at(item(9_999, "a", "3"), 9_999, &mut seen);
    assert_eq!(engine.due_ms(), Some(10_001));
    engine.advance(10_000, &mut seen);
    assert_eq!(seen, Seen::default(), "what has just come to the end of the window still belongs to it");
    engine.advance(10_001, &mut seen);
    assert_eq!(seen.out, [(10, "1 2 3".to_owned(), 3)]);
    assert_eq!((engine.due_ms(), engine.held()), (None, 0));
    engine.advance(99_999, &mut seen);
    assert_eq!(seen.out.len(), 1, "an empty window makes nothing");
}

#[test]
fn what_comes_after_its_window_is_dropped_and_counted_unless_lateness_is_allowed() {
    let (mut engine, mut seen) = (window(), Seen::default());
    engine.push_at(item(9_000, "a", "1"), 10_500, &mut seen);
    assert_eq!(seen.dropped, [("delay1".to_owned(), Cause::Late)]);
    assert_eq!(engine.stats().nth(1).unwrap().1.refused, 1);

    let (mut engine, mut seen) = (window(), Seen::default());
    engine.set_lateness_ms(1_000);
    engine.push_at(item(9_000, "a", "1"), 10_500, &mut seen);
    assert_eq!(engine.due_ms(), Some(11_001));
    engine.advance(11_001, &mut seen);
    assert_eq!(seen, Seen { out: vec![(10, "1".to_owned(), 1)], dropped: Vec::new() });
}

#[test]
fn a_clock_that_steps_back_opens_no_window_again() {
    let (mut engine, mut seen) = (window(), Seen::default());
    engine.advance(20_001, &mut seen);
    engine.push_at(item(9_000, "a", "1"), 5_000, &mut seen);
    assert_eq!(seen.dropped, [("delay1".to_owned(), Cause::Late)]);
}

#[test]
fn a_failed_accumulate_keeps_what_was_staged_and_drops_its_batch() {
    let (mut engine, mut seen) = (engine(&[Kind::Source, Kind::Accumulate, Kind::Sink]), Seen::default());
    for n in 0..64 {
        engine.push(item(1_000, "a", &n.to_string().replace("13", "0")), &mut seen);
    }
    engine.push(item(1_000, "a", "13"), &mut seen);
    engine.push(item(1_000, "a", "99"), &mut seen);
    engine.advance(1_001, &mut seen);
    let failed = Cause::Error(OperatorError::Failed("thirteen".to_owned()));
    assert_eq!(
        seen.dropped,
        [("accumulate1".to_owned(), failed.clone()), ("accumulate1".to_owned(), failed)]
    );
    let [(1, combined, 64)] = seen.out.as_slice() else { panic!("{seen:?}") };
    assert!(combined.ends_with("62 63"), "{combined}");
    assert_eq!(engine.stats().nth(1).unwrap().1.errors, 2);
    assert_eq!(engine.held(), 0);
}

#[test]
fn an_accumulate_behind_another_fires_after_it_for_the_same_time() {
    let kinds = [Kind::Source, Kind::Accumulate, Kind::Accumulate, Kind::Sink];
    let (mut engine, mut seen) = (engine(&kinds), Seen::default());
    for (ms, text) in [(1_000, "1"), (2_000, "2"), (1_000, "3")] {
        engine.push(item(ms, "a", text), &mut seen);
    }
    engine.advance(5_000, &mut seen);
    assert_eq!(seen.out, [(1, "1 3".to_owned(), 2), (2, "2".to_owned(), 1)]);
}

#[test]
fn a_delay_gives_its_items_back_in_the_order_of_their_new_time() {
    let (mut engine, mut seen) = (engine(&[Kind::Source, Kind::Delay, Kind::Sink]), Seen::default());
    for (ms, text) in [(15_000, "late"), (5_000, "first"), (4_000, "second")] {
        engine.push_at(item(ms, "a", text), 4_000, &mut seen);
    }
    assert!(seen.out.is_empty() && engine.held() == 3);
    engine.advance(20_001, &mut seen);
    let order: Vec<&str> = seen.out.iter().map(|(_, text, _)| text.as_str()).collect();
    assert_eq!(order, ["first", "second", "late"]);
}

#[test]
fn no_more_waits_inside_than_may() {
    let (mut engine, mut seen) = (window(), Seen::default());
    engine.set_bounds(Bounds { items_max: 2, bytes_max: 1_000 });
    for text in ["1", "2", "3"] {
        engine.push(item(1_000, "a", text), &mut seen);
    }
    assert_eq!(seen.dropped, [("delay1".to_owned(), Cause::Full)]);
    engine.set_bounds(Bounds { items_max: 9, bytes_max: 2 });
    engine.push(item(1_000, "a", "4"), &mut seen);
    assert_eq!(seen.dropped.len(), 2);
}

/// A delay that goes back in time, or names a moment that does not exist, is at fault, and not obeyed.
#[test]
fn a_delay_may_not_go_back_in_time() {
    struct Back(u32);
    impl Operator for Back {
        fn delay(&mut self, _: &Data, time: &Hlc) -> Result<Hlc, OperatorError> {
            Ok(Hlc {
                secs: time.secs - 1 + 2 * u64::from(self.0 / 1_000_000_000),
                nanos: self.0,
                ..time.clone()
            })
        }
    }
    for nanos in [0, 1_000_000_000] {
        let graph = engine(&[Kind::Source, Kind::Delay, Kind::Sink]).graph().clone();
        let mut engine = Engine::new(graph, vec![None, Some(Box::new(Back(nanos))), None]).unwrap();
        let mut seen = Seen::default();
        engine.push(item(5_000, "a", "1"), &mut seen);
        let [(_, Cause::Error(OperatorError::Invalid(_)))] = seen.dropped.as_slice() else {
            panic!("{seen:?}")
        };
    }
}

proptest! {
    /// What windows make of a history does not depend on when the clock was told in between, only on which items
    /// were in time; and nothing is lost without a word.
    #[test]
    fn windows_are_the_same_however_often_time_is_told(
        history in prop::collection::vec((0_u64..60_000, 0_u32..100, prop::bool::ANY), 0..300),
    ) {
        let mut clock = 0;
        let (mut engine, mut seen) = (window(), Seen::default());
        let mut expected: BTreeMap<u64, (String, u32)> = BTreeMap::new();
        let mut late = 0;
        for (at, (ahead, n, told)) in history.iter().enumerate() {
            clock += u64::from(*n) * 10;
            // Some are from the past, some from the future.
            let ms = (clock + ahead).saturating_sub(20_000);
            let text = if *n == 13 { "0".to_owned() } else { n.to_string() };
            if *told {
                engine.advance(clock.saturating_sub(at as u64), &mut seen);
            }
            engine.push_at(item(ms, ["a", "b"][at % 2], &text), clock, &mut seen);
            let end = ms.next_multiple_of(WINDOW_MS);
            if end < clock {
                late += 1;
                continue;
            }
            let (all, count) = expected.entry(end / 1000).or_default();
            *all = format!("{all} {text}").trim().to_owned();
            *count += 1;
        }
        engine.advance(u64::MAX / 2, &mut seen);
        let expected: Vec<_> = expected.into_iter().map(|(end, (all, count))| (end, all, count)).collect();
        prop_assert_eq!(seen.out, expected);
        prop_assert_eq!(seen.dropped.len(), late);
        prop_assert_eq!(engine.held(), 0);
    }
}
