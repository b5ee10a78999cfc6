//! The bridges of a graph: what leads to and from systems other than this broker.
//!
//! What comes in carries a ticket, which goes with everything that is made of it; what goes out carries a receipt, which keeps
//! what it was made of. So a message of a remote system is acknowledged there, and one of the log is done, when what was made
//! of it is delivered; until then both come again after a crash.

use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bridge::{
    DeadLetters, Destination, Health, Instance, Intake, Inward, Names, Output, Outward, Parcel, QueueLimits,
    Receiver, Report, Sender, Ticket, Unusable,
};
use broker_core::message::Message;
use config::resource::graph::OutputSchema;
use config::{DestinationPlan, GraphPlan, RemoteEndpoint, System};
use metrics::{counter, gauge};
use parking_lot::Mutex;
use processing::schema::{SchemaRef, SchemaRegistry};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::origin::Origins;
use super::report::Warnings;
use super::samples::Samples;
use super::{Arrival, Dataflow, Exit, parcel};
use crate::broker::Broker;
use crate::clock;
use crate::translate::{self, Letter};
use crate::turn::Turn;

/// Messages of a remote system that are brought to a graph at a time.
const BATCH: usize = 256;
/// With this many messages in front of the graph, no more are brought.
const BACKLOG_MAX: usize = 1024;
/// How soon it is looked again whether there is room in front of a graph.
const ROOM_WAIT: Duration = Duration::from_millis(2);
/// How long what waits for remote systems may take to be delivered when a graph is stopped.
const STOP_WAIT: Duration = Duration::from_secs(5);

/// What the bridges of a graph are made with.
pub struct Making<'a> {
    /// The graph.
    pub plan: &'a GraphPlan<'a>,
    /// Tells this process from others.
    pub process: &'a str,
    /// What is written to storage is written by a schema of these.
    pub schemas: &'a SchemaRegistry,
    /// Where dead letters are published.
    pub broker: &'a Arc<Broker>,
    /// Where the directories are that stand for volume claims.
    pub volumes: Option<&'a Path>,
}

/// What leads to and from the remote systems of a graph.
pub struct Bridges {
    queues: Vec<Sender>,
    /// Where copies of what comes in wait.
    copies: Option<Sender>,
    reports: Vec<Report>,
    /// Ends the sources.
    stop: watch::Sender<bool>,
    /// Not yet running.
    waiting: Mutex<Vec<Waiting>>,
    running: Mutex<Vec<JoinHandle<()>>>,
    /// Ends with the graph, and not before.
    beside: Mutex<Vec<JoinHandle<()>>>,
}

/// What the ends of a graph are.
pub struct Ends {
    /// What leads to and from remote systems.
    pub bridges: Bridges,
    /// Where its sinks lead to.
    pub exits: Vec<Exit>,
    /// The copies that are made of what comes in.
    pub samples: Option<Samples>,
}

impl Ends {
    /// Those of a graph; its bridges do not run yet.
    ///
    /// # Errors
    /// An endpoint cannot be used as it is.
    pub fn new(making: &Making<'_>) -> Result<Self, Unusable> {
        let mut bridges = Bridges::none();
        for (place, source) in making.plan.sources.iter().enumerate() {
            let System::Remote(endpoint) = &source.system else { continue };
            let report = making.report(endpoint, source.node);
            let data_sources = source.data_sources.clone();
            let instance = making.instance(source.node);
            let bridge = bridge::source(Inward { endpoint: (**endpoint).clone(), data_sources, instance })?;
            bridges.reports.push(report.clone());
            // Unpersisted windows would keep a broker's few unacknowledged messages for as long as they are open.
            let is_mqtt = matches!(endpoint.settings, config::resource::endpoint::EndpointSettings::Mqtt(_));
            let early = is_mqtt && !making.plan.request_disk_persistence;
            bridges.waiting.get_mut().push(Waiting::Source { place, bridge, report, early });
        }
        let mut exits = Vec::new();
        for to in &making.plan.destinations {
            let (exit, report) = bridges.lead_to(making, to)?;
            bridges.queues.extend(exit.queue.clone());
            bridges.reports.extend(report);
            exits.push(exit);
        }
        let samples = making.plan.samples.as_ref().map(|plan| {
            // The graph neither waits for its copies nor is at fault when nobody takes them.
            let (exit, _) = bridges.lead_to(making, &plan.to)?;
            bridges.copies = exit.queue.clone();
            Ok(Samples::new(plan, exit, &making.plan.id.name))
        });
        Ok(Self { samples: samples.transpose()?, bridges, exits })
    }
}

/// A bridge that does not run yet.
enum Waiting {
    Source { place: usize, bridge: Box<dyn bridge::Source>, report: Report, early: bool },
    Destination { bridge: Box<dyn Destination>, shipments: Receiver, report: Report },
}

impl Bridges {
    /// A way to a destination, with a bridge that does not run yet when that is a remote system.
    fn lead_to(
        &mut self,
        making: &Making<'_>,
        to: &DestinationPlan<'_>,
    ) -> Result<(Exit, Option<Report>), Unusable> {
        let exit = Exit::of(to);
        let System::Remote(endpoint) = &to.system else { return Ok((exit, None)) };
        let output = to.output_schema.map(|schema| making.output(schema)).transpose()?;
        let report = making.report(endpoint, to.node);
        let (target, instance) = (to.data_destination.clone().into_owned(), making.instance(to.node));
        let endpoint = (**endpoint).clone();
        let volumes = making.volumes.map(Path::to_path_buf);
        let bridge = bridge::destination(Outward { endpoint, target, output, instance, volumes })?;
        let (queue, shipments) = bridge::queue(making.limits());
        let waiting = Waiting::Destination { bridge, shipments, report: report.clone() };
        self.waiting.get_mut().push(waiting);
        Ok((Exit { queue: Some(queue), ..exit }, Some(report)))
    }

    /// None at all.
    pub fn none() -> Self {
        Self {
            queues: Vec::new(),
            copies: None,
            reports: Vec::new(),
            stop: watch::Sender::new(false),
            waiting: Mutex::default(),
            running: Mutex::default(),
            beside: Mutex::default(),
        }
    }

    /// Begins to bring messages to a graph, and to take away what comes out.
    pub fn start(&self, flow: &Arc<Dataflow>) {
        let keeps_items = flow.keeps_items;
        let mut running = self.running.lock();
        for waiting in self.waiting.lock().drain(..) {
            running.push(match waiting {
                Waiting::Destination { bridge, shipments, report } => {
                    tokio::spawn(bridge.run(shipments, report))
                }
                Waiting::Source { place, bridge, report, early } => {
                    let (intake, out) = Intake::until(BATCH, self.stop.subscribe());
                    let brought = bring(Arc::downgrade(flow), place, out, early && keeps_items);
                    self.beside.lock().push(tokio::spawn(brought));
                    tokio::spawn(bridge.run(intake, report))
                }
            });
        }
        for queue in &self.queues {
            self.beside.lock().push(tokio::spawn(attend(queue.clone(), Arc::downgrade(flow))));
        }
    }

    /// A remote system has so much waiting for it that no more is to be made.
    pub fn is_full(&self) -> bool {
        self.queues.iter().any(|queue| !queue.has_room())
    }

    /// Whether anything leads to a remote system.
    pub fn lead_out(&self) -> bool {
        !self.queues.is_empty()
    }

    /// Brings the metrics of what waits for remote systems up to date.
    pub fn show(&self, graph: &str) {
        if self.lead_out() {
            let sum = |of: fn(&Sender) -> usize| self.queues.iter().map(of).sum::<usize>() as f64;
            gauge!("forebay_bridge_queue_messages", "dataflow_id" => graph.to_owned())
                .set(sum(Sender::messages));
            gauge!("forebay_bridge_queue_bytes", "dataflow_id" => graph.to_owned()).set(sum(Sender::bytes));
        }
    }

    /// AIO's reason code and why, when one does not work.
    pub fn fault(&self) -> Option<(&'static str, String)> {
        self.reports.iter().find_map(|report| match report.health() {
            Health::Unavailable { code, why } => {
                let Names { node, endpoint, .. } = report.names();
                Some((code, format!("{node} ({endpoint}): {why}")))
            }
            _ => None,
        })
    }

    /// Stops: nothing more is brought, and what waits for remote systems is delivered if that is soon done. The rest comes again
    /// from where it came, if that was not memory.
    pub async fn stop(&self) {
        self.stop.send_replace(true);
        self.queues.iter().chain(&self.copies).for_each(Sender::close);
        let running = std::mem::take(&mut *self.running.lock());
        let deadline = tokio::time::Instant::now() + STOP_WAIT;
        for task in running {
            let abort = task.abort_handle();
            if tokio::time::timeout_at(deadline, task).await.is_err() {
                abort.abort();
            }
        }
        let beside = std::mem::take(&mut *self.beside.lock());
        beside.into_iter().for_each(|task| task.abort());
    }
}

impl Making<'_> {
    fn instance(&self, node: &str) -> Instance {
        let (namespace, graph) = (self.plan.id.namespace.clone(), self.plan.id.name.clone());
        Instance { namespace, graph, node: node.to_owned(), process: self.process.to_owned() }
    }

    fn limits(&self) -> QueueLimits {
        let bytes = self.plan.settings.bridge_queue_limit;
        let bytes_max = bytes.map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
        let default = QueueLimits::default();
        QueueLimits { bytes_max: bytes_max.unwrap_or(default.bytes_max), ..default }
    }

    fn output(&self, output: &OutputSchema) -> Result<Output, Unusable> {
        let reference = output.schema_ref.clone().unwrap_or_default();
        let found = SchemaRef::parse(&reference).and_then(|reference| self.schemas.get(&reference));
        let schema = found.map_err(|error| Unusable {
            code: "DataflowGraphSourceSchemaRetrievalFailed",
            why: format!("`outputSchemaSettings.schemaRef`: {error}"),
        })?;
        Ok(Output { format: output.serialization_format, reference, schema: schema.content })
    }

    fn report(&self, endpoint: &RemoteEndpoint, node: &str) -> Report {
        let names = Names {
            graph: self.plan.id.name.clone(),
            node: node.to_owned(),
            endpoint: endpoint.id.name.clone(),
            service_type: bridge::service_type(endpoint),
        };
        let letters = Letters {
            broker: Arc::downgrade(self.broker),
            graph: names.graph.clone(),
            node: names.node.clone(),
            topic: self.plan.settings.dead_letter_topic.clone(),
            warnings: Mutex::default(),
        };
        let dead_letters: DeadLetters = Arc::new(move |parcel, rejection| letters.write(parcel, rejection));
        Report::new(names, dead_letters)
    }
}

/// Keeps what no remote system takes.
struct Letters {
    broker: Weak<Broker>,
    graph: String,
    node: String,
    topic: Option<String>,
    warnings: Mutex<Warnings>,
}

impl Letters {
    fn write(&self, parcel: &Parcel, rejection: &bridge::Rejection) {
        let Self { graph, node, .. } = self;
        let bridge::Rejection { reason, why } = rejection;
        let errors = [("dataflow_id", graph.clone())];
        counter!("aio_dataflow_messages_dropped_processing_errors", &errors).increment(1);
        counter!("aio_dataflow_errors", "dataflow_id" => graph.clone(), "reason" => *reason).increment(1);
        if self.warnings.lock().one_more(graph) {
            tracing::warn!(%graph, %node, topic = parcel.topic, "a message cannot be delivered: {why}");
        }
        let (Some(topic), Some(broker)) = (&self.topic, self.broker.upgrade()) else { return };
        let letter = Letter { graph, operation: node, reason, why, digest: None };
        match parcel::message(parcel).and_then(|message| translate::dead_letter(&message, topic, &letter)) {
            Ok(letter) => {
                counter!("forebay_graph_dead_letters_total", &errors).increment(1);
                let mut turn = Turn::begin(&broker, clock::monotonic());
                turn.publish_derived(Arc::new(letter));
                turn.finish();
            }
            Err(refused) => tracing::warn!(%graph, %node, "it cannot be kept either: {refused}"),
        }
    }
}

/// Brings what comes from a remote system to a graph, as fast as that takes it. `early`: it is acknowledged there when it is
/// in the graph.
async fn bring(flow: Weak<Dataflow>, place: usize, mut out: mpsc::Receiver<(Parcel, Ticket)>, early: bool) {
    let mut batch = Vec::with_capacity(BATCH);
    while out.recv_many(&mut batch, BATCH).await > 0 {
        let Some((flow, broker)) = with_room(&flow).await else { return };
        let mut turn = Turn::begin(&broker, clock::monotonic());
        for (parcel, ticket) in batch.drain(..) {
            match parcel::message(&parcel) {
                Ok(message) => {
                    let origins = if early { Origins::default() } else { Origins::remote(ticket) };
                    leave(&flow, place, message, origins);
                }
                Err(refused) => flow.refuse(&parcel.topic, &refused),
            }
        }
        turn.run(&flow);
        turn.finish();
    }
}

fn leave(flow: &Dataflow, source: usize, message: Message, origins: Origins) {
    flow.leave_message(Arrival { source, message: Arc::new(message), origins });
}

/// Waits until there is room in front of a graph, and for what it makes; nothing when it is gone.
async fn with_room(flow: &Weak<Dataflow>) -> Option<(Arc<Dataflow>, Arc<Broker>)> {
    loop {
        let there = flow.upgrade()?;
        let broker = there.broker.upgrade()?;
        let crowded = broker.persistence().is_some_and(|persistence| persistence.is_crowded());
        if there.backlog() < BACKLOG_MAX && !there.is_full() && !crowded {
            return Some((there, broker));
        }
        drop((there, broker));
        tokio::time::sleep(ROOM_WAIT).await;
    }
}

/// Tells a graph of what is delivered.
async fn attend(queue: Sender, flow: Weak<Dataflow>) {
    loop {
        queue.delivered().await;
        let Some(flow) = flow.upgrade() else { return };
        flow.hear_of_delivery();
    }
}
