//! A persisted graph in the broker. Its operators need no module, so that it does the same each time: every message goes on as it
//! is, and once more with those of its time together.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use processing::runtime::GraphRuntime;
use processing_core::engine::Engine;
use processing_core::graph::{Connection, Definition, Graph as Shape, Kind, Operation};
use processing_core::item::{Data, Message};
use processing_core::operator::{Operator, OperatorError};
use processing_core::time::{Hlc, Time};

use crate::broker::Broker;
use crate::pipeline::bridges::Bridges;
use crate::pipeline::restore::{self, Prepared};
use crate::pipeline::{Dataflow, Entrance, Exit, Parts};
use crate::translate::Carry;

/// Where each message goes on to, one by one.
pub const EACH: &str = "each/#";
/// Where the messages of a time go to together.
pub const TOGETHER: &str = "together";
/// Where those go that come too late for their time.
pub const LATE: &str = "late";

/// Between what the messages of a time have been made of.
pub const BETWEEN: char = ';';
/// Messages of so many milliseconds are of one time.
const WINDOW_MS: u64 = 100;
/// How much longer a time takes messages, milliseconds.
const LATENESS_MS: u64 = 50;

/// Its resource; the artifact is not looked at.
const RESOURCE: &str = "\
apiVersion: connectivity.iotoperations.azure.com/v1
kind: DataflowGraph
metadata: {name: simulated, namespace: azure-iot-operations}
spec:
  mode: Enabled
  profileRef: default
  requestDiskPersistence: Enabled
  nodes:
    - {nodeType: Source, name: source, sourceSettings: {endpointRef: default, dataSources: ['ledger/#']}}
    - {nodeType: Graph, name: graph, graphSettings: {registryEndpointRef: default, artifact: 'none:1.0.0'}}
    - {nodeType: Destination, name: each, destinationSettings: {endpointRef: default, dataDestination: 'each/${inputTopic.2}'}}
    - {nodeType: Destination, name: together, destinationSettings: {endpointRef: default, dataDestination: together}}
  nodeConnections:
    - {from: {name: source}, to: {name: graph}}
    - {from: {name: graph}, to: {name: each}}
    - {from: {name: graph}, to: {name: together}}
";

/// The graph in one life of the broker.
pub struct Graph {
    prepared: Prepared,
    flow: Option<Arc<Dataflow>>,
}

impl Graph {
    /// Its messages are taken from now on; it does not run yet.
    pub fn prepare(broker: &Arc<Broker>) -> Self {
        let loaded = config::load_str("simulated", RESOURCE);
        let plans = loaded.plans();
        let [plan] = &plans[..] else { panic!("{:?}", loaded.findings) };
        let (prepared, why) = restore::prepare(broker, plan, &[]);
        assert_eq!(why, None);
        Self { prepared, flow: None }
    }

    /// It runs.
    pub fn start(&mut self, broker: &Arc<Broker>) {
        if self.flow.is_some() {
            return;
        }
        let loaded = config::load_str("simulated", RESOURCE);
        let plans = loaded.plans();
        let flow = Dataflow::new(
            Parts {
                name: "simulated",
                graph: runtime(),
                entrances: vec![Entrance::default()],
                exits: plans[0].destinations.iter().map(Exit::of).collect(),
                samples: None,
                bridges: Bridges::none(),
                order: None,
                dead_letter_topic: Some(LATE.to_owned()),
                // No thread of its own: how long a call takes here says nothing.
                inline_budget: Duration::MAX,
                remark: String::new(),
                cursor: self.prepared.cursor.clone(),
            },
            broker,
        );
        self.prepared.sources.iter().for_each(|source| source.attach(&flow));
        let (Some(cursor), Some(persistence)) = (&self.prepared.cursor, broker.persistence()) else {
            panic!("it is persisted")
        };
        cursor.attach(&flow);
        persistence.feed(cursor);
        self.flow = Some(flow);
    }

    /// What is due inside goes on.
    pub fn pass_time(&self, broker: &Broker) {
        if let Some(flow) = self.flow.as_ref().filter(|flow| flow.until_due() == Some(Duration::ZERO)) {
            flow.go_on(broker);
        }
    }
}

fn runtime() -> GraphRuntime<Carry> {
    let operation = |name: &str, kind: Kind| Operation {
        name: name.to_owned(),
        kind,
        module: kind.has_module().then(|| name.to_owned()),
    };
    let connection =
        |from: &str, to: &str| Connection { from: from.to_owned(), arm: None, to: to.to_owned() };
    let shape = Shape::check(Definition {
        name: "simulated".to_owned(),
        operations: vec![
            operation("source", Kind::Source),
            operation("round", Kind::Delay),
            operation("join", Kind::Accumulate),
            operation("each", Kind::Sink),
            operation("together", Kind::Sink),
        ],
        connections: vec![
            connection("source", "each"),
            connection("source", "round"),
            connection("round", "join"),
            connection("join", "together"),
        ],
        ..Definition::default()
    });
    let operators: Vec<Option<Box<dyn Operator>>> =
        vec![None, Some(Box::new(Round)), Some(Box::new(Join)), None, None];
    let mut engine = Engine::new(shape.expect("a graph"), operators).expect("all operators are there");
    engine.set_lateness_ms(LATENESS_MS);
    engine.into()
}

/// Moves a message to the end of its time.
struct Round;

impl Operator for Round {
    fn delay(&mut self, _: &Data, time: &Hlc) -> Result<Hlc, OperatorError> {
        let ms = time.time().to_millis_floor();
        Ok(Time::from_millis((ms / WINDOW_MS + 1) * WINDOW_MS).at(Arc::clone(&time.node)))
    }
}

/// Puts what the messages of a time say behind each other.
struct Join;

impl Operator for Join {
    fn accumulate(&mut self, staged: &Data, batch: &[Data]) -> Result<Data, OperatorError> {
        let Data::Message(staged) = staged else {
            return Err(OperatorError::Invalid("no message".to_owned()));
        };
        let mut payload = staged.payload.to_vec();
        for data in batch {
            let Data::Message(message) = data else { continue };
            let says = message.payload.split(|byte| *byte == b' ').next().unwrap_or_default();
            payload.extend_from_slice(says);
            payload.push(BETWEEN as u8);
        }
        Ok(Data::Message(Message { payload: Bytes::from(payload), ..staged.clone() }))
    }
}
