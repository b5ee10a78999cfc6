//! One life of the broker: from the opening of its store to whatever ends it.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};

use broker_store::sim::{ByHand, SimDisk};
use broker_store::{OpenError, Options, Recovery};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;

use super::graph::Graph;
use crate::broker::Broker;
use crate::delivery::Delivery;
use crate::limits::Limits;
use crate::listener::{Port, Settings};
use crate::persistence::{Job, Persistence, Policy};
use crate::transport::Transport;
use crate::transport::memory::{self, ClientEnd};
use crate::{clock, connection, housekeeping, turn};

/// A running broker. Dropped, it is gone as if the process had been killed.
pub struct Life {
    /// The tasks of connections. First, so that they go first.
    runtime: Runtime,
    broker: Arc<Broker>,
    hand: ByHand,
    delivery: Delivery,
    inbox: Receiver<Job>,
    port: Arc<Port>,
    stop: watch::Sender<bool>,
    graph: Option<Graph>,
}

impl Life {
    /// Begins with what the disk holds; `with_graph` when there is one, which does not run yet.
    pub fn begin(disk: &SimDisk, options: Options, with_graph: bool) -> Result<(Self, Recovery), OpenError> {
        turn::forget();
        let (store, hand, recovery) = ByHand::open(&disk.process(), options)?;
        let (jobs, inbox) = mpsc::channel();
        let persistence = Persistence::of(store, Policy::dynamic(), jobs);
        let broker = Broker::new(Limits::of(None), "simulated");
        broker.persist(Arc::clone(&persistence), clock::monotonic());
        let graph = with_graph.then(|| Graph::prepare(&broker));
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 1883));
        let life = Self {
            runtime: Builder::new_current_thread().enable_time().build().expect("a runtime"),
            broker,
            hand,
            delivery: Delivery::new(&persistence),
            inbox,
            port: Port::new(address, Settings::open()),
            stop: watch::Sender::new(false),
            graph,
        };
        Ok((life, recovery))
    }

    /// Connects a client; `capacity` bytes for it can be under way.
    pub fn connect(&self, capacity: usize) -> ClientEnd {
        let (end, client) = memory::connection(capacity);
        let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, 40_000));
        let (broker, port) = (Arc::clone(&self.broker), Arc::clone(&self.port));
        let transport = Transport::Memory(end);
        drop(self.runtime.spawn(connection::run(broker, port, transport, peer, None, self.stop.subscribe())));
        client
    }

    /// Lets connections that have something to do have so many turns.
    pub fn serve(&self, turns: usize) {
        self.runtime.block_on(async {
            for _ in 0..turns {
                tokio::task::yield_now().await;
            }
        });
    }

    /// Lets the store's writer do one turn; whether there was anything to do.
    pub fn write(&mut self) -> bool {
        self.hand.step()
    }

    /// Lets the delivering thread do one job; whether there was one.
    pub fn deliver(&mut self) -> bool {
        let Ok(job) = self.inbox.try_recv() else { return false };
        self.delivery.work(&self.broker, job);
        true
    }

    /// The graph runs from now on, if there is one.
    pub fn start_graph(&mut self) {
        self.graph.iter_mut().for_each(|graph| graph.start(&self.broker));
    }

    /// What is due in the graph goes on.
    pub fn pass_time(&self) {
        self.graph.iter().for_each(|graph| graph.pass_time(&self.broker));
    }

    /// A checkpoint is asked for.
    pub fn checkpoint(&self) {
        self.hand.ask_checkpoint();
    }

    /// The store's clock goes on.
    pub fn advance(&self, ms: u64) {
        self.hand.advance(ms);
    }

    /// What is due once a second.
    pub fn tick(&self) {
        housekeeping::tick(&self.broker, clock::monotonic());
    }

    /// Ends in good order: everything is written.
    pub fn close(self) {
        let Self { runtime, broker, hand, delivery, graph, .. } = self;
        drop((runtime, delivery, graph, broker));
        hand.close();
    }
}
