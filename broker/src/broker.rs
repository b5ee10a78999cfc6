//! What all connections share: sessions, subscriptions, retained messages.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use broker_core::Millis;
use broker_core::hlc;
use broker_core::message::{Message, Publication};
use broker_core::packet::ReasonCode;
use broker_core::retained::Retained;
use broker_core::router::{Options, Router};
use broker_core::session::{self, Session, Will};
use broker_core::topic;
use foldhash::HashMap;
use parking_lot::{Mutex, RwLock};
use tokio::net::TcpStream;

use crate::client::Client;
use crate::metrics::Metrics;
use crate::ordered::Ordered;
use crate::pipeline::Source;
use crate::route::{Route, ServiceRef, Subscriber};
use crate::services::Service;

/// What clients may ask of the broker.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Per session.
    pub session: session::Limits,
    /// The largest packet taken [MQTT-3.2.2-15].
    pub packet_size_max: usize,
    /// The largest CONNECT taken.
    pub connect_size_max: usize,
    /// How long a connection may take to send its CONNECT, in milliseconds.
    pub connect_ms_max: u64,
    /// QoS 1 and 2 messages a client may have under way to us [MQTT-3.2.2-20].
    pub receive_maximum: u16,
    /// Topic aliases a client may use towards us.
    pub topic_alias_maximum: u16,
    /// The longest a session may outlive its connection, in seconds.
    pub session_expiry_max: u32,
    /// Levels of a topic or filter.
    pub topic_levels_max: usize,
    /// Subscriptions of one session.
    pub subscriptions_max: usize,
    /// Bytes of all retained messages.
    pub retained_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            session: session::Limits::default(),
            packet_size_max: 16 << 20,
            connect_size_max: 64 << 10,
            connect_ms_max: 10_000,
            receive_maximum: 1024,
            topic_alias_maximum: 64,
            session_expiry_max: u32::MAX,
            topic_levels_max: 128,
            subscriptions_max: 100_000,
            retained_bytes_max: 1 << 30,
        }
    }
}

/// The broker's shared state.
pub struct Broker {
    /// For what runs beside it.
    own: Weak<Broker>,
    /// Limits in force.
    pub limits: Limits,
    /// Counters.
    pub metrics: Metrics,
    clients: Mutex<HashMap<Box<str>, Arc<Client>>>,
    /// The same by their numbers.
    numbers: Mutex<HashMap<u64, Weak<Client>>>,
    services: RwLock<Vec<Arc<dyn Service>>>,
    router: RwLock<Router<Subscriber>>,
    generation: AtomicU64,
    retained: RwLock<Retained>,
    clock: Mutex<hlc::Clock>,
    next: AtomicU64,
}

/// A CONNECT that was accepted.
pub struct Opening {
    /// The client identifier; empty to be given one.
    pub client_id: Box<str>,
    /// Begin with a new session [MQTT-3.1.2-4].
    pub clean_start: bool,
    /// Seconds the session outlives this connection.
    pub expiry: u32,
    /// The will.
    pub will: Option<Box<Will>>,
    /// The socket.
    pub socket: Arc<TcpStream>,
    /// Longest silence of the client in milliseconds; 0 is none.
    pub silence_ms_max: u64,
}

/// A session with its new connection.
pub struct Opened {
    /// The client.
    pub client: Arc<Client>,
    /// The number of this connection.
    pub number: u64,
    /// The session existed before.
    pub present: bool,
    /// Wills that the end of the session's former life sets free.
    pub wills: Vec<Arc<Message>>,
}

impl Broker {
    /// A broker without sessions.
    pub fn new(limits: Limits, node: &str) -> Arc<Self> {
        Arc::new_cyclic(|own| Self {
            own: Weak::clone(own),
            limits,
            metrics: Metrics::new(),
            clients: Mutex::default(),
            numbers: Mutex::default(),
            services: RwLock::default(),
            router: RwLock::default(),
            generation: AtomicU64::new(0),
            retained: RwLock::default(),
            clock: Mutex::new(hlc::Clock::new(node)),
            next: AtomicU64::new(1),
        })
    }

    /// A number nothing else has: for sessions, graphs and connections.
    pub fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// The next moment of the broker's hybrid logical clock.
    pub fn timestamp(&self, wall: Millis) -> hlc::Timestamp {
        self.clock.lock().now(wall)
    }

    /// Takes note of a timestamp that came with a message.
    pub fn observe(&self, seen: &hlc::Timestamp, wall: Millis) -> Result<(), hlc::TimestampError> {
        self.clock.lock().observe(seen, wall)
    }

    /// Gives a connection its session: the one it had, or a new one. A connection that had it before is
    /// sent away [MQTT-3.1.4-3].
    pub fn open(&self, opening: Opening, now: Millis) -> Opened {
        let Opening { client_id, clean_start, expiry, will, socket, silence_ms_max } = opening;
        let client_id = if client_id.is_empty() { self.assign_client_id() } else { client_id };
        let number = self.number();
        let mut wills = Vec::new();
        let mut clients = self.clients.lock();
        let known = clients.get(&client_id).cloned();
        let resumed = known.filter(|client| {
            let mut state = client.lock();
            state.kick(ReasonCode::SessionTakenOver);
            let had_connection = state.connection.take().is_some();
            let over =
                clean_start || state.session.expired(now) || (had_connection && state.session.expiry == 0);
            let mut old = state.session.will.take();
            if !over && !had_connection {
                // The client is back before its will was due [MQTT-3.1.3-9].
                old = None;
            }
            if let Some(will) = old.filter(|will| over || will.delay == 0) {
                wills.push(will.message(now));
            }
            if over {
                state.release();
                state.end_ordered();
                let filters: Vec<Box<str>> = state.session.subscriptions().keys().cloned().collect();
                drop(state);
                self.forget(client.id(), &filters);
            }
            !over
        });
        let present = resumed.is_some();
        if let Some(client) = &resumed {
            self.tell_disconnected(client.id());
        }
        let client = resumed.unwrap_or_else(|| {
            let client = Client::new(Session::new(self.number(), &client_id));
            self.numbers.lock().insert(client.id(), Arc::downgrade(&client));
            clients.insert(client_id, Arc::clone(&client));
            client
        });
        let mut state = client.lock();
        state.session.expiry = expiry;
        state.session.will = will;
        state.attach(number, socket, silence_ms_max, now);
        drop(state);
        self.metrics.total_sessions.set(clients.len() as f64);
        self.metrics.connected_sessions.increment(1);
        Opened { client, number, present, wills }
    }

    fn assign_client_id(&self) -> Box<str> {
        // Not to be guessed: whoever knows a client identifier can take its session over.
        let random = RandomState::new().hash_one(self.number());
        let more = RandomState::new().hash_one(random);
        format!("forebay-{random:016x}{more:016x}").into()
    }

    /// The connection is gone. Returns the will, when it is due now.
    pub fn close(
        &self,
        client: &Arc<Client>,
        number: u64,
        now: Millis,
        with_will: bool,
    ) -> Option<Arc<Message>> {
        self.metrics.connected_sessions.decrement(1);
        let mut state = client.lock();
        if !state.detach(number) {
            return None; // another connection has the session already
        }
        state.session.close(now);
        if !with_will {
            state.session.will = None;
        }
        let due = state.session.expiry == 0 || state.session.will.as_ref().is_some_and(|w| w.delay == 0);
        let will = if due { state.session.will.take() } else { None };
        let over = state.session.expiry == 0;
        drop(state);
        self.tell_disconnected(client.id());
        if over {
            self.end(client, now);
        }
        will.map(|will| will.message(now))
    }

    /// Ends a session that is over and still without a connection.
    pub fn end(&self, client: &Arc<Client>, now: Millis) {
        let mut clients = self.clients.lock();
        let mut state = client.lock();
        if state.connection.is_some() || !state.session.expired(now) {
            return;
        }
        state.end_ordered();
        let id: Box<str> = state.session.client_id().into();
        if clients.get(&id).is_some_and(|c| Arc::ptr_eq(c, client)) {
            clients.remove(&id);
        }
        let filters: Vec<Box<str>> = state.session.subscriptions().keys().cloned().collect();
        drop(state);
        self.metrics.total_sessions.set(clients.len() as f64);
        drop(clients);
        self.forget(client.id(), &filters);
    }

    fn tell_disconnected(&self, session: u64) {
        for service in self.services.read().iter() {
            service.disconnected(session);
        }
    }

    fn forget(&self, id: u64, filters: &[Box<str>]) {
        self.numbers.lock().remove(&id);
        self.tell_disconnected(id);
        for filter in filters {
            self.unsubscribe(filter, id);
        }
    }

    /// The session of this number.
    pub fn client(&self, number: u64) -> Option<Arc<Client>> {
        self.numbers.lock().get(&number)?.upgrade()
    }

    /// Has `service` answer what is published to `topic`.
    pub fn serve(&self, topic: &str, service: Arc<dyn Service>) {
        let options = Options::everything();
        self.services.write().push(Arc::clone(&service));
        self.add(topic, self.number(), Subscriber::Service(ServiceRef(service)), options);
    }

    /// All sessions at this moment.
    pub fn clients(&self) -> Vec<Arc<Client>> {
        self.clients.lock().values().cloned().collect()
    }

    /// Adds a client's subscription; `filter` as the client wrote it. Returns where its messages wait, if they are to
    /// come in order.
    pub fn subscribe(&self, filter: &str, client: &Arc<Client>, options: Options) -> Option<Arc<Ordered>> {
        let ordered = options.order.map(|order| Ordered::start(client, options, order, &self.own));
        let subscriber = match &ordered {
            Some(ordered) => Subscriber::Ordered(Arc::clone(ordered)),
            None => Subscriber::Client(Arc::clone(client)),
        };
        self.add(filter, client.id(), subscriber, options);
        client.lock().order(filter, ordered.clone());
        ordered
    }

    /// Adds a graph's subscription.
    pub fn subscribe_graph(&self, filter: &str, id: u64, source: &Arc<Source>, options: Options) {
        self.add(filter, id, Subscriber::Graph(Arc::clone(source)), options);
    }

    fn add(&self, filter: &str, id: u64, subscriber: Subscriber, options: Options) -> bool {
        let (share, filter) = split_share(filter);
        let mut router = self.router.write();
        let new = router.subscribe(filter, share, id, subscriber, options);
        self.changed(&router);
        new
    }

    /// Removes a subscription; `filter` as it was written.
    pub fn unsubscribe(&self, filter: &str, id: u64) -> bool {
        let (share, filter) = split_share(filter);
        let mut router = self.router.write();
        let existed = router.unsubscribe(filter, share, id);
        self.changed(&router);
        existed
    }

    fn changed(&self, router: &Router<Subscriber>) {
        self.generation.store(router.generation(), Ordering::Release);
        self.metrics.total_subscriptions.set(router.len() as f64);
    }

    /// The generation of the subscriptions: routes of an older one are stale.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Works out the route of a topic, and says for which generation it holds.
    pub fn find_route(&self, topic: &str) -> (u64, Route) {
        let router = self.router.read();
        (router.generation(), Route::find(&router, topic))
    }

    /// Keeps a message as its topic's retained one; one over the limit is not kept and counted.
    pub fn retain(&self, publication: &mut Publication<'_>) {
        let message = publication.owned();
        let mut retained = self.retained.write();
        let freed = retained.get(message.topic()).map_or(0, |old| old.size());
        if !message.payload().is_empty()
            && retained.bytes() - freed + message.size() > self.limits.retained_bytes_max
        {
            self.metrics.dropped(session::DropCause::QueueFull);
            return;
        }
        retained.set(message);
        self.show_retained(&retained);
    }

    fn show_retained(&self, retained: &Retained) {
        self.metrics.retained_messages.set(retained.len() as f64);
        self.metrics.retained_bytes.set(retained.bytes() as f64);
    }

    /// The retained messages that match a filter.
    pub fn retained(&self, filter: &str, now: Millis) -> Vec<Arc<Message>> {
        let mut found = Vec::new();
        self.retained.read().matching(filter, now, &mut |message| {
            found.push(Arc::clone(message));
            true
        });
        found
    }

    /// Drops retained messages whose time is over.
    pub fn expire_retained(&self, now: Millis) {
        let mut retained = self.retained.write();
        if retained.expire(now) > 0 {
            self.show_retained(&retained);
        }
    }
}

/// Takes a shared filter apart: group, then the filter proper.
pub fn split_share(filter: &str) -> (Option<&str>, &str) {
    match topic::SharedFilter::parse(filter) {
        Ok(Some(shared)) => (Some(shared.group), shared.filter),
        _ => (None, filter),
    }
}
