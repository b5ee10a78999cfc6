//! Operators and graphs under test, and what goes in and comes out.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use config::graph_definition;
use processing::host::{Host, Identity, Options};
use processing::instance::{Configuration, Instance, ModuleSchema, StartError};
use processing::limits::Limits;
use processing::module::Modules;
use processing::runtime::{Flow, GraphRuntime, Stage};
use processing::state_store::Set;
#[cfg(feature = "wasi-nn")]
use processing_core::engine::Stats;
use processing_core::engine::{Cause, Outlet};
use processing_core::graph::Kind;
use processing_core::item::{Data, Item, Message, Snapshot};
use processing_core::operator::{Operator, OperatorError};
use processing_core::time::Hlc;

/// A photograph of a cat; see `fixtures/README.md`.
pub const CAT: &[u8] = include_bytes!("../fixtures/cat.jpg");
/// Bytes of a frame of 224 by 224 pixels.
pub const FRAME_BYTES: usize = 224 * 224 * 3;

/// Compiled components are kept between runs: the snapshot operator takes a while.
fn cache() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("components")
}

fn modules() -> Modules {
    Modules::new(Host::new(Options::default()).unwrap(), Some(cache()))
}

fn component(name: &str) -> Bytes {
    static READ: OnceLock<parking_lot::Mutex<HashMap<String, Bytes>>> = OnceLock::new();
    let mut read = READ.get_or_init(parking_lot::Mutex::default).lock();
    let path = format!("{}/operators/target/components/{name}.wasm", env!("CARGO_MANIFEST_DIR"));
    let read = read.entry(name.to_owned()).or_insert_with(|| {
        let bytes = std::fs::read(&path);
        Bytes::from(bytes.unwrap_or_else(|e| panic!("{path}: {e}; run processing/operators/build")))
    });
    read.clone()
}

fn pairs(settings: &[(&str, &str)]) -> Vec<(String, String)> {
    settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn schemas(contents: &[&str]) -> Vec<ModuleSchema> {
    let schema = |content: &&str| ModuleSchema {
        name: "test".to_owned(),
        content_type: "application/schema+json".to_owned(),
        content: (*content).to_owned(),
    };
    contents.iter().map(schema).collect()
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap()
}

fn stored(host: &Host, key: &str) -> Option<String> {
    let found = host.state_store().get(key.as_bytes(), now()).unwrap();
    found.map(|(value, _)| String::from_utf8(value).unwrap())
}

fn store(host: &Host, key: &str, value: &str) {
    let set = Set { key: key.as_bytes(), value: value.as_bytes(), ..Set::default() };
    host.state_store().set(&set, now()).unwrap();
}

/// One operator with a host of its own.
pub struct Fixture {
    host: Host,
    instance: Instance,
}

/// Starts one operator.
pub fn try_start(
    name: &str,
    kind: Kind,
    settings: &[(&str, &str)],
    given: &[&str],
    limits: Limits,
) -> Result<Fixture, StartError> {
    let modules = modules();
    let module = modules.load(&component(name))?;
    let host = modules.host().clone();
    let identity = Identity { graph: "test".into(), operation: name.into() };
    let configuration = Configuration { properties: pairs(settings), schemas: schemas(given) };
    let instance = Instance::start(&host, &module, kind, identity, Arc::new(limits), configuration)?;
    Ok(Fixture { host, instance })
}

/// The same, with schemas.
pub fn start_with_schemas(name: &str, kind: Kind, given: &[&str]) -> Result<Fixture, StartError> {
    try_start(name, kind, &[], given, patient())
}

/// Starts one operator that starts.
pub fn start(name: &str, kind: Kind, settings: &[(&str, &str)]) -> Fixture {
    try_start(name, kind, settings, &[], patient()).unwrap()
}

/// Limits under which calls may take long, since tests share the machine.
pub fn patient() -> Limits {
    Limits { call_max: Duration::from_secs(60), init_max: Duration::from_secs(120), ..Limits::default() }
}

/// Why a component cannot be loaded.
#[cfg(not(feature = "wasi-nn"))]
pub fn load_error(name: &str) -> String {
    modules().load(&component(name)).err().unwrap().to_string()
}

impl Fixture {
    /// What the state store has.
    pub fn stored(&self, key: &str) -> Option<String> {
        stored(&self.host, key)
    }
    /// Puts something into the state store.
    pub fn store(&self, key: &str, value: &str) {
        store(&self.host, key, value);
    }
}

impl Operator for Fixture {
    fn memory_bytes(&self) -> usize {
        self.instance.memory_bytes()
    }
    fn map(&mut self, data: Data) -> Result<Data, OperatorError> {
        self.instance.map(data)
    }
    fn filter(&mut self, data: &Data) -> Result<bool, OperatorError> {
        self.instance.filter(data)
    }
    fn branch(&mut self, time: &Hlc, data: &Data) -> Result<bool, OperatorError> {
        self.instance.branch(time, data)
    }
    fn accumulate(&mut self, staged: &Data, batch: &[Data]) -> Result<Data, OperatorError> {
        self.instance.accumulate(staged, batch)
    }
    fn delay(&mut self, data: &Data, time: &Hlc) -> Result<Hlc, OperatorError> {
        self.instance.delay(data, time)
    }
}

pub fn hlc(secs: u64, counter: u64) -> Hlc {
    Hlc { secs, nanos: 0, counter, node: "node".into() }
}

/// A message made at `secs`, with two user properties.
pub fn message(topic: &'static str, secs: u64, payload: impl Into<Bytes>) -> Message {
    Message {
        topic: topic.into(),
        content_type: Some("application/json".into()),
        payload: payload.into(),
        user_properties: vec![("line".into(), "1".into()), ("line".into(), "2".into())],
        ..Message::empty(hlc(secs, 0))
    }
}

pub fn data(message: Message) -> Data {
    Data::Message(message)
}

pub fn bytes(text: &'static str) -> Data {
    Data::Bytes(text.into())
}

pub fn snapshot(format: &'static str, width: u32, height: u32, frame: impl Into<Bytes>, secs: u64) -> Data {
    Data::Snapshot(Snapshot {
        timestamp: hlc(secs, 0),
        format: format.into(),
        width,
        height,
        frame: frame.into(),
    })
}

/// What an accumulate has so far.
pub fn staged(payload: &'static str) -> Data {
    Data::Message(Message { payload: payload.into(), ..Message::empty(hlc(0, 0)) })
}

pub fn message_of(data: &Data) -> &Message {
    let Data::Message(message) = data else { panic!("no message: {data:?}") };
    message
}

pub fn snapshot_of(data: &Data) -> &Snapshot {
    let Data::Snapshot(snapshot) = data else { panic!("no snapshot: {data:?}") };
    snapshot
}

pub fn payload(data: &Data) -> &str {
    std::str::from_utf8(&message_of(data).payload).unwrap()
}

/// A sample graph, running.
pub struct Running {
    host: Host,
    runtime: GraphRuntime<()>,
}

/// What came out of it.
#[derive(Debug, Default)]
pub struct Out {
    pub items: Vec<Message>,
}

impl Outlet<()> for Out {
    fn emit(&mut self, _: usize, item: Item<()>) {
        self.items.push(message_of(&item.data).clone());
    }
    fn dropped(&mut self, operation: &str, cause: Cause, _: &()) {
        assert_eq!(cause, Cause::Filtered, "at {operation}");
    }
}

impl Out {
    pub fn payloads(&self) -> Vec<&str> {
        self.items.iter().map(|item| std::str::from_utf8(&item.payload).unwrap()).collect()
    }
}

/// Starts a sample graph, with its modules by their names.
pub fn graph(name: &str, settings: &[(&str, &str)]) -> Running {
    graph_with_schemas(name, settings, &[])
}

pub fn graph_with_schemas(name: &str, settings: &[(&str, &str)], given: &[&str]) -> Running {
    let path = format!("{}/../config/samples/graphs/{name}.yaml", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap();
    graph_of(name, &text, settings, given)
}

/// Starts a graph with one map.
#[cfg(feature = "wasi-nn")]
pub fn one_map(module: &str) -> Running {
    let text = format!(
        "metadata: {{$schema: x, name: One map, version: 1.0.0}}
moduleRequirements: {{apiVersion: 1.1.0, runtimeVersion: 1.1.0, features: [{{name: wasi-nn}}]}}
operations:
  - {{operationType: source, name: source}}
  - {{operationType: map, name: map, module: {module}}}
  - {{operationType: sink, name: sink}}
connections:
  - {{from: {{name: source}}, to: {{name: map}}}}
  - {{from: {{name: map}}, to: {{name: sink}}}}
"
    );
    graph_of(module, &text, &[], &[])
}

fn graph_of(name: &str, text: &str, settings: &[(&str, &str)], given: &[&str]) -> Running {
    let checked = graph_definition(name, text).unwrap_or_else(|findings| panic!("{findings:?}"));
    assert!(checked.warnings.is_empty(), "{:?}", checked.warnings);
    let references = checked.graph.nodes().iter().filter_map(|node| node.operation.module.clone());
    let bytes = references
        .map(|reference| {
            let component = component(reference.split(':').next().unwrap());
            (reference, component)
        })
        .collect();
    let stage = Stage {
        name: name.to_owned(),
        graph: checked.graph,
        modules: bytes,
        settings: pairs(settings),
        schemas: schemas(given),
    };
    let modules = modules();
    let runtime = GraphRuntime::start_flow(&modules, Flow::of(stage), &patient());
    Running { host: modules.host().clone(), runtime: runtime.unwrap_or_else(|error| panic!("{error}")) }
}

impl Running {
    /// A message comes, at the time it was made.
    pub fn push(&mut self, message: Message) -> Out {
        let mut out = Out::default();
        self.push_into(message, &mut out);
        out
    }
    /// The same, where messages may end otherwise than by a filter.
    pub fn push_into(&mut self, message: Message, outlet: &mut impl Outlet<()>) {
        let now_ms = message.timestamp.secs * 1000;
        let item = Item { time: message.timestamp.clone(), data: Data::Message(message), carry: () };
        self.runtime.push_at(item, now_ms, outlet);
    }
    /// What one of its operations has done so far.
    #[cfg(feature = "wasi-nn")]
    pub fn stats(&self, operation: &str) -> Stats {
        self.runtime.stats().find(|(name, _)| *name == operation).unwrap().1
    }
    /// Time passes.
    pub fn advance(&mut self, now_ms: u64) -> Out {
        let mut out = Out::default();
        self.runtime.advance(now_ms, &mut out);
        out
    }
    /// What the state store has.
    pub fn stored(&self, key: &str) -> Option<String> {
        stored(&self.host, key)
    }
    /// Puts something into the state store.
    pub fn store(&self, key: &str, value: &str) {
        store(&self.host, key, value);
    }
}
