use std::sync::Arc;

use bytes::Bytes;

use super::*;
use crate::graph::{Arm, Connection, Definition, Operation};
use crate::time::Hlc;

/// An operator made of a closure: gets the number in the payload, gives one back.
struct Native<F>(F);

impl<F: FnMut(i64) -> Result<i64, OperatorError> + Send> Operator for Native<F> {
    fn map(&mut self, data: Data) -> Result<Data, OperatorError> {
        (self.0)(number(&data)).map(payload)
    }
    fn filter(&mut self, data: &Data) -> Result<bool, OperatorError> {
        (self.0)(number(data)).map(|n| n != 0)
    }
    fn branch(&mut self, _: &Hlc, data: &Data) -> Result<bool, OperatorError> {
        (self.0)(number(data)).map(|n| n != 0)
    }
}

fn native(f: impl FnMut(i64) -> Result<i64, OperatorError> + Send + 'static) -> Option<Box<dyn Operator>> {
    Some(Box::new(Native(f)))
}

fn number(data: &Data) -> i64 {
    match data {
        Data::Bytes(bytes) => std::str::from_utf8(bytes).unwrap().parse().unwrap(),
        _ => panic!("only bytes here"),
    }
}

fn payload(n: i64) -> Data {
    Data::Bytes(Bytes::from(n.to_string()))
}

fn item(n: i64) -> Item<i64> {
    Item { time: Hlc { secs: 0, nanos: 0, counter: 0, node: Arc::from("n") }, data: payload(n), carry: n }
}

#[derive(Default)]
struct Seen(Vec<String>);

impl Outlet<i64> for Seen {
    fn emit(&mut self, _: usize, item: Item<i64>) {
        self.0.push(format!("{} from {}", number(&item.data), item.carry));
    }
    fn dropped(&mut self, operation: &str, cause: Cause, carry: &i64) {
        self.0.push(format!("{carry} ended at {operation}: {cause:?}"));
    }
}

fn graph(operations: &[(&str, Kind)], connections: &[(&str, Option<Arm>, &str)]) -> Graph {
    let operation = |(name, kind): &(&str, Kind)| Operation {
        name: (*name).to_owned(),
        kind: *kind,
        module: kind.has_module().then(|| "m:1".to_owned()),
    };
    let connection = |(from, arm, to): &(&str, Option<Arm>, &str)| Connection {
        from: (*from).to_owned(),
        arm: *arm,
        to: (*to).to_owned(),
    };
    Graph::check(Definition {
        operations: operations.iter().map(operation).collect(),
        connections: connections.iter().map(connection).collect(),
        ..Definition::default()
    })
    .unwrap()
}

#[test]
fn branches_filters_and_concatenation_keep_the_order_of_what_goes_in() {
    let graph = graph(
        &[
            ("source", Kind::Source),
            ("odd", Kind::Branch),
            ("times ten", Kind::Map),
            ("not two", Kind::Filter),
            ("both", Kind::Concatenate),
            ("sink", Kind::Sink),
        ],
        &[
            ("source", None, "odd"),
            ("odd", Some(Arm::True), "times ten"),
            ("odd", Some(Arm::False), "not two"),
            ("times ten", None, "both"),
            ("not two", None, "both"),
            ("both", None, "sink"),
        ],
    );
    let operators = vec![
        None,
        native(|n| Ok(n % 2)),
        native(|n| match n {
            5 => Err(OperatorError::Failed("no five".to_owned())),
            n => Ok(n * 10),
        }),
        native(|n| Ok(i64::from(n != 2))),
        None,
        None,
    ];
    let mut engine = Engine::new(graph, operators).unwrap();
    let mut seen = Seen::default();
    for n in 1..=5 {
        engine.push(item(n), &mut seen);
    }
    assert_eq!(
        seen.0,
        [
            "10 from 1",
            "2 ended at not two: Filtered",
            "30 from 3",
            "4 from 4",
            "5 ended at times ten: Error(Failed(\"no five\"))",
        ]
    );
    let stats: Vec<Stats> = engine.stats().map(|(_, stats)| stats).collect();
    assert_eq!(stats[2], Stats { received: 3, passed: 2, errors: 1, ..Stats::default() });
    assert_eq!(stats[3], Stats { received: 2, passed: 1, filtered: 1, ..Stats::default() });
    assert_eq!(stats[5].passed, 3);
}

#[test]
fn one_output_may_feed_several_operations_in_the_order_written() {
    let graph = graph(
        &[
            ("source", Kind::Source),
            ("a", Kind::Map),
            ("b", Kind::Map),
            ("sink a", Kind::Sink),
            ("sink b", Kind::Sink),
        ],
        &[("source", None, "a"), ("source", None, "b"), ("a", None, "sink a"), ("b", None, "sink b")],
    );
    let operators = vec![None, native(|n| Ok(n + 1)), native(|n| Ok(n + 2)), None, None];
    let mut engine = Engine::new(graph, operators).unwrap();
    let mut seen = Seen::default();
    engine.push(item(7), &mut seen);
    assert_eq!(seen.0, ["8 from 7", "9 from 7"]);
}

#[test]
fn what_nothing_runs_is_refused_by_name() {
    let chain = |kind| {
        graph(&[("s", Kind::Source), ("x", kind), ("k", Kind::Sink)], &[("s", None, "x"), ("x", None, "k")])
    };
    let none = || vec![None, None, None];
    let error = Engine::<()>::new(chain(Kind::Map), none()).err().unwrap();
    assert_eq!(error.to_string(), "operation `x` has no operator");
    let error = Engine::<()>::new(chain(Kind::Delay), none()).err().unwrap();
    assert_eq!(error.to_string(), "operation `x` has no operator");
}
