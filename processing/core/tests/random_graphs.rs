//! Random graphs against a naive reference that knows no engine: every operation is a function from all items that ever
//! reach it to all that leave it. The same items must come out of both, however the input is cut into pieces and
//! however often time is told in between.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests are tests

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use processing_core::engine::{Cause, Engine, Outlet};
use processing_core::graph::{Arm, Connection, Definition, Graph, Kind, Operation};
use processing_core::item::{Data, Item};
use processing_core::operator::{Operator, OperatorError};
use processing_core::time::Hlc;
use proptest::prelude::*;

/// What leaves an operation: the operation, and by which arm.
type Port = (usize, Option<Arm>);

/// A graph as the reference sees it: operations in the order in which they were made, each after what leads to it.
#[derive(Debug, Clone)]
struct Shape {
    kinds: Vec<Kind>,
    inputs: Vec<Vec<Port>>,
}

/// Numbers, in the order in which an accumulate met them.
type Numbers = Vec<u64>;

/// An item: its time in milliseconds, and what it holds.
type Fact = (u64, Numbers);

/// What the operation `at` does with an item: the very functions that both sides are told.
mod does {
    use super::*;

    fn sum(numbers: &Numbers) -> u64 {
        numbers.iter().sum()
    }

    pub fn map(at: usize, numbers: &Numbers) -> Result<Numbers, ()> {
        if sum(numbers) % 13 == 5 {
            return Err(());
        }
        Ok(numbers.iter().map(|number| (number * 3 + at as u64) % 1009).collect())
    }

    pub fn filter(at: usize, numbers: &Numbers) -> Result<bool, ()> {
        let sum = sum(numbers) + at as u64;
        if sum % 17 == 3 { Err(()) } else { Ok(!sum.is_multiple_of(3)) }
    }

    pub fn branch(at: usize, time_ms: u64, numbers: &Numbers) -> Result<bool, ()> {
        let sum = sum(numbers) + time_ms + at as u64;
        if sum % 19 == 4 { Err(()) } else { Ok(sum.is_multiple_of(2)) }
    }

    pub fn delay(at: usize, time_ms: u64) -> u64 {
        time_ms.next_multiple_of([7, 10, 50][at % 3])
    }
}

/// The operator of operation `at`.
struct Native(usize);

impl Operator for Native {
    fn map(&mut self, data: Data) -> Result<Data, OperatorError> {
        does::map(self.0, &read(&data)).map(|numbers| write(&numbers)).map_err(failed)
    }
    fn filter(&mut self, data: &Data) -> Result<bool, OperatorError> {
        does::filter(self.0, &read(data)).map_err(failed)
    }
    fn branch(&mut self, time: &Hlc, data: &Data) -> Result<bool, OperatorError> {
        does::branch(self.0, ms(time), &read(data)).map_err(failed)
    }
    fn delay(&mut self, _: &Data, time: &Hlc) -> Result<Hlc, OperatorError> {
        Ok(Hlc::from_millis(does::delay(self.0, ms(time)), time.node.clone()))
    }
    fn accumulate(&mut self, staged: &Data, batch: &[Data]) -> Result<Data, OperatorError> {
        let mut all = match staged {
            Data::Bytes(_) => read(staged),
            _ => Numbers::new(),
        };
        batch.iter().for_each(|data| all.extend(read(data)));
        Ok(write(&all))
    }
}

fn failed((): ()) -> OperatorError {
    OperatorError::Failed("no".to_owned())
}

fn ms(time: &Hlc) -> u64 {
    time.time().to_millis_floor()
}

fn read(data: &Data) -> Numbers {
    let Data::Bytes(bytes) = data else { panic!("numbers only") };
    std::str::from_utf8(bytes).unwrap().split_whitespace().map(|word| word.parse().unwrap()).collect()
}

fn write(numbers: &Numbers) -> Data {
    let words: Vec<String> = numbers.iter().map(u64::to_string).collect();
    Data::Bytes(Bytes::from(words.join(" ")))
}

/// What became of all items: what each sink got, and how many ended where.
#[derive(Debug, Default, PartialEq, Eq)]
struct Outcome {
    sinks: BTreeMap<usize, Vec<Fact>>,
    ended: BTreeMap<(String, &'static str), usize>,
}

impl Outcome {
    fn end(&mut self, at: usize, why: &'static str) {
        *self.ended.entry((at.to_string(), why)).or_default() += 1;
    }

    /// The order in which items of different times reach a sink depends on when time was told; what they are does not.
    fn sorted(mut self) -> Self {
        self.sinks.values_mut().for_each(|facts| facts.sort());
        self
    }

    /// The order inside of windows is that of arrival, which the reference does not know.
    fn without_order(mut self) -> Self {
        self.sinks.values_mut().flatten().for_each(|(_, numbers)| numbers.sort_unstable());
        self.sorted()
    }
}

impl Outlet<()> for Outcome {
    fn emit(&mut self, sink: usize, item: Item<()>) {
        self.sinks.entry(sink).or_default().push((ms(&item.time), read(&item.data)));
    }
    fn dropped(&mut self, operation: &str, cause: Cause, (): &()) {
        let why = match cause {
            Cause::Filtered => "filtered",
            Cause::Error(_) => "error",
            Cause::Late | Cause::Full => panic!("{cause:?} at {operation}"),
        };
        *self.ended.entry((operation.to_owned(), why)).or_default() += 1;
    }
}

/// What an operation does with everything that ever reaches it, with no notion of when.
fn reference(shape: &Shape, sources: &[Vec<Fact>]) -> Outcome {
    let mut outcome = Outcome::default();
    let mut leaving: BTreeMap<Port, Vec<Fact>> = BTreeMap::new();
    let (mut source, mut sink) = (0, 0);
    for (at, kind) in shape.kinds.iter().enumerate() {
        let arriving =
            shape.inputs[at].iter().flat_map(|port| leaving.get(port).cloned().unwrap_or_default());
        let mut facts: Vec<Fact> = arriving.collect();
        let port = (at, None);
        match kind {
            Kind::Source => {
                leaving.insert(port, sources[source].clone());
                source += 1;
            }
            Kind::Sink => {
                if !facts.is_empty() {
                    outcome.sinks.insert(sink, facts);
                }
                sink += 1;
            }
            Kind::Concatenate => drop(leaving.insert(port, facts)),
            Kind::Delay => {
                facts.iter_mut().for_each(|(time, _)| *time = does::delay(at, *time));
                leaving.insert(port, facts);
            }
            Kind::Accumulate => {
                let mut windows: BTreeMap<u64, Numbers> = BTreeMap::new();
                facts
                    .into_iter()
                    .for_each(|(time, numbers)| windows.entry(time).or_default().extend(numbers));
                leaving.insert(port, windows.into_iter().collect());
            }
            Kind::Map | Kind::Filter | Kind::Branch => {
                for (time, numbers) in facts {
                    let goes = match kind {
                        Kind::Map => does::map(at, &numbers).map(|numbers| Some((port, numbers))),
                        Kind::Filter => {
                            does::filter(at, &numbers).map(|goes| goes.then_some((port, numbers)))
                        }
                        _ => does::branch(at, time, &numbers).map(|arm| {
                            let arm = if arm { Arm::True } else { Arm::False };
                            Some(((at, Some(arm)), numbers))
                        }),
                    };
                    match goes {
                        Ok(Some((port, numbers))) => leaving.entry(port).or_default().push((time, numbers)),
                        Ok(None) => outcome.end(at, "filtered"),
                        Err(()) => outcome.end(at, "error"),
                    }
                }
            }
        }
    }
    outcome.without_order()
}

fn engine(shape: &Shape) -> Engine<()> {
    let operation = |(at, &kind): (usize, &Kind)| Operation {
        name: at.to_string(),
        kind,
        module: kind.has_module().then(|| "m:1".to_owned()),
    };
    let connections = shape.inputs.iter().enumerate().flat_map(|(to, inputs)| {
        inputs.iter().map(move |(from, arm)| Connection {
            from: from.to_string(),
            arm: *arm,
            to: to.to_string(),
        })
    });
    let definition = Definition {
        operations: shape.kinds.iter().enumerate().map(operation).collect(),
        connections: connections.collect(),
        ..Definition::default()
    };
    let graph = Graph::check(definition).unwrap_or_else(|findings| panic!("{findings:?}\n{shape:?}"));
    let operator = |node: &processing_core::graph::Node| -> Option<Box<dyn Operator>> {
        let at = node.operation.name.parse().unwrap();
        node.operation.kind.has_module().then(|| Box::new(Native(at)) as Box<dyn Operator>)
    };
    let operators = graph.nodes().iter().map(operator).collect();
    Engine::new(graph, operators).unwrap()
}

/// An item that comes in: by which source, when, and what; and whether time is told before it.
type Arrival = (usize, u64, u64, bool);

fn run(shape: &Shape, arrivals: &[Arrival], tell: bool) -> Outcome {
    let (mut engine, mut outcome) = (engine(shape), Outcome::default());
    for (at, (source, time_ms, number, told)) in arrivals.iter().enumerate() {
        if tell && *told {
            // No further than to the earliest that is still to come: nothing is late.
            let to_come = arrivals[at..].iter().map(|(_, time_ms, ..)| *time_ms).min().unwrap();
            engine.advance(to_come, &mut outcome);
        }
        let time = Hlc::from_millis(*time_ms, ["a", "b", "c"][at % 3].into());
        engine.push_to(*source, Item { time, data: write(&vec![*number]), carry: () }, &mut outcome);
    }
    engine.advance(u64::MAX / 2, &mut outcome);
    assert_eq!((engine.held(), engine.due_ms()), (0, None));
    outcome
}

/// A graph from random numbers: every operation takes what some operation before it gives; what nobody takes goes to a
/// sink.
fn shape(sources: usize, choices: &[(u8, u16, u16)]) -> Shape {
    let mut shape = Shape { kinds: vec![Kind::Source; sources], inputs: vec![Vec::new(); sources] };
    let mut ports: Vec<Port> = (0..sources).map(|at| (at, None)).collect();
    let mut taken: BTreeSet<Port> = BTreeSet::new();
    for (kind, first, second) in choices {
        let mut pick = |choice: &u16| {
            let port = ports[usize::from(*choice) % ports.len()];
            taken.insert(port);
            port
        };
        let mut inputs = vec![pick(first)];
        let kind = match kind % 6 {
            0 => Kind::Map,
            1 => Kind::Filter,
            2 => Kind::Branch,
            3 => Kind::Delay,
            4 => Kind::Accumulate,
            _ => {
                let other = pick(second);
                if other != inputs[0] {
                    inputs.push(other);
                }
                Kind::Concatenate
            }
        };
        let at = shape.kinds.len();
        shape.kinds.push(kind);
        shape.inputs.push(inputs);
        match kind {
            Kind::Branch => ports.extend([(at, Some(Arm::False)), (at, Some(Arm::True))]),
            _ => ports.push((at, None)),
        }
    }
    for port in ports.into_iter().filter(|port| !taken.contains(port)) {
        shape.kinds.push(Kind::Sink);
        shape.inputs.push(vec![port]);
    }
    shape
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn any_graph_does_what_the_reference_does_however_its_input_is_cut(
        sources in 1_usize..3,
        choices in prop::collection::vec((any::<u8>(), any::<u16>(), any::<u16>()), 1..12),
        arrivals in prop::collection::vec((0_usize..2, 0_u64..400, 0_u64..1000, any::<bool>()), 0..150),
    ) {
        let shape = shape(sources, &choices);
        let arrivals: Vec<Arrival> =
            arrivals.into_iter().map(|(source, ms, n, told)| (source % sources, ms, n, told)).collect();
        let mut by_source = vec![Vec::new(); sources];
        for (source, time_ms, number, _) in &arrivals {
            by_source[*source].push((*time_ms, vec![*number]));
        }
        let whole = run(&shape, &arrivals, false).sorted();
        // To the last detail the same: windows hold their items in the order of arrival.
        prop_assert_eq!(&run(&shape, &arrivals, true).sorted(), &whole, "{:?}", shape);
        prop_assert_eq!(&whole.without_order(), &reference(&shape, &by_source), "{:?}", shape);
    }
}
