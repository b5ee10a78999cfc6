//! What one call of an operator costs, with all its lowering and lifting: the nanoseconds that a map adds to a
//! message of 64 bytes.
//!
//! Build the components first (`processing/operators/build`), then
//! `cargo run --profile dist -p processing --example call_cost`.

use std::collections::HashMap;
use std::error::Error;
use std::time::Instant;

use bytes::Bytes;
use processing::host::{Host, Options};
use processing::limits::Limits;
use processing::module::Modules;
use processing::runtime::GraphRuntime;
use processing_core::engine::{Cause, Outlet};
use processing_core::graph::{Connection, Definition, Graph, Kind, Operation};
use processing_core::item::{Data, Item, Message};
use processing_core::time::Hlc;

const CALLS: u32 = 20_000;
const ROUNDS: u32 = 25;

/// Counts what comes out, so that nothing is optimised away.
#[derive(Default)]
struct Count(u64, u64);

impl Outlet<()> for Count {
    fn emit(&mut self, _: Item<()>) {
        self.0 += 1;
    }
    fn dropped(&mut self, _: &str, _: Cause, _: &()) {
        self.1 += 1;
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    println!("{:<46} {:>9} {:>9}", "nanoseconds a message", "minimum", "median");
    measure("no operator (source to sink)", None, 64, 0)?;
    // Reads its payload and gives it back.
    measure("map, 64 bytes read, no user properties", Some("faults"), 64, 0)?;
    measure("map, 64 bytes read, 2 user properties", Some("faults"), 64, 2)?;
    measure("map, 64 KiB read, no user properties", Some("faults"), 64 << 10, 0)?;
    Ok(())
}

fn measure(what: &str, module: Option<&str>, bytes: usize, properties: usize) -> Result<(), Box<dyn Error>> {
    let mut graph = start(module)?;
    let message = message(bytes, properties);
    let (mut count, mut rounds) = (Count::default(), Vec::new());
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        for _ in 0..CALLS {
            let data = Data::Message(message.clone());
            graph.push(Item { time: message.timestamp.clone(), data, carry: () }, &mut count);
        }
        rounds.push(begun.elapsed().as_nanos() / u128::from(CALLS));
    }
    if count.1 > 0 {
        return Err(format!("{what}: {} messages were dropped", count.1).into());
    }
    rounds.sort_unstable();
    println!("{what:<46} {:>9} {:>9}", rounds[0], rounds[rounds.len() / 2]);
    Ok(())
}

fn start(module: Option<&str>) -> Result<GraphRuntime<()>, Box<dyn Error>> {
    let operation = |name: &str, kind| Operation {
        name: name.to_owned(),
        kind,
        module: module.filter(|_| kind == Kind::Map).map(str::to_owned),
    };
    let mut operations = vec![operation("source", Kind::Source), operation("sink", Kind::Sink)];
    let mut modules = HashMap::new();
    if let Some(name) = module {
        operations.insert(1, operation("map", Kind::Map));
        let path = format!("{}/operators/target/components/{name}.wasm", env!("CARGO_MANIFEST_DIR"));
        modules.insert(name.to_owned(), Bytes::from(std::fs::read(path)?));
    }
    let connections = operations
        .windows(2)
        .map(|pair| Connection { from: pair[0].name.clone(), arm: None, to: pair[1].name.clone() })
        .collect();
    let graph = Graph::check(Definition { operations, connections, ..Definition::default() })
        .map_err(|findings| format!("{findings:?}"))?;
    let host = Host::new(Options::default())?;
    Ok(GraphRuntime::start(&Modules::new(host, None), graph, &modules, "cost", &[], &Limits::default())?)
}

fn message(bytes: usize, properties: usize) -> Message {
    let text = |text: &'static str| Bytes::from_static(text.as_bytes());
    Message {
        topic: text("sensor/temperature/raw"),
        content_type: Some(text("application/json")),
        payload: Bytes::from(vec![b'x'; bytes]),
        user_properties: vec![(text("machine"), text("line-1/press-4")); properties],
        ..Message::empty(Hlc { secs: 1_700_000_000, nanos: 0, counter: 0, node: "forebay".into() })
    }
}
