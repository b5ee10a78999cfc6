//! What all connections share: sessions, subscriptions, retained messages.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use broker_core::Millis;
use broker_core::durable::Durable;
use broker_core::hlc;
use broker_core::memory;
use broker_core::message::{Message, OVERHEAD_BYTES, Publication};
use broker_core::packet::publish::Forward;
use broker_core::packet::{PacketId, PublishProperties, ReasonCode, Role};
use broker_core::retained::Retained;
use broker_core::router::{Options, Router};
use broker_core::session::{Orphan, Session, Will};
use broker_core::topic;
use broker_store::{Event, SessionState};
use foldhash::HashMap;
use parking_lot::{Mutex, RwLock};

use crate::client::{Arrival, Client};
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::ordered::Ordered;
use crate::persistence::asking::{self, Asking};
use crate::persistence::{self, Persistence, Policy};
use crate::pipeline::Source;
use crate::pipeline::cursor::Cursor;
use crate::route::{Route, ServiceRef, Subscriber};
use crate::services::Service;

/// The broker's shared state.
pub struct Broker {
    /// For what runs beside it.
    own: Weak<Broker>,
    /// Limits in force.
    pub limits: Limits,
    /// Counters.
    pub metrics: Metrics,
    /// Sessions by their client identifiers [MQTT-3.1.3-2].
    clients: Mutex<HashMap<Arc<str>, Arc<Client>>>,
    /// The same by their numbers.
    numbers: Mutex<HashMap<u64, Weak<Client>>>,
    services: RwLock<Vec<Arc<dyn Service>>>,
    router: RwLock<Router<Subscriber>>,
    generation: AtomicU64,
    retained: RwLock<Retained>,
    /// What retained messages take of the memory for messages: they have limits of their own.
    retained_weight: AtomicUsize,
    clock: Mutex<hlc::Clock>,
    next: AtomicU64,
    persistence: OnceLock<Arc<Persistence>>,
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
    /// How the client came in.
    pub arrival: Arrival,
    /// Longest silence of the client in milliseconds; 0 is none.
    pub silence_ms_max: u64,
    /// The client asks that all its subscriptions be persisted.
    pub persist: bool,
}

/// How much there is.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    /// Subscriptions, of clients and graphs.
    pub subscriptions: usize,
    /// Shared ones among them.
    pub shared_subscriptions: usize,
    /// Retained messages.
    pub retained_messages: usize,
    /// Bytes of retained messages.
    pub retained_bytes: usize,
}

/// What is left of a connection or a session that has ended.
#[derive(Default)]
pub struct Left {
    /// The will, when it is due.
    pub will: Option<Arc<Message>>,
    /// Messages for other members of shared subscriptions.
    pub orphans: Vec<Orphan>,
}

/// A session with its new connection.
pub struct Opened {
    /// The client.
    pub client: Arc<Client>,
    /// The number of this connection.
    pub number: u64,
    /// The session existed before.
    pub present: bool,
    /// What the end of the session's former life sets free.
    pub left: Left,
    /// The record that the CONNACK waits for, 0 for none; or why the session cannot be written down.
    pub wait: Result<u64, ReasonCode>,
    /// All its subscriptions are persisted.
    pub persisted: bool,
    /// What was before, for when it cannot be written down.
    before: Before,
}

/// What an opening changed.
#[derive(Debug, Default)]
struct Before {
    /// The expiry of a session that goes on.
    expiry: Option<u32>,
    /// A session on disk that ended by it.
    ended: Option<u64>,
    /// It was in memory only.
    in_memory: bool,
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
            retained_weight: AtomicUsize::new(0),
            clock: Mutex::new(hlc::Clock::new(node)),
            next: AtomicU64::new(1),
            persistence: OnceLock::new(),
        })
    }

    /// For what runs beside it.
    pub fn own(&self) -> Weak<Self> {
        Weak::clone(&self.own)
    }

    /// What is kept on disk, if anything is.
    pub fn persistence(&self) -> Option<&Persistence> {
        self.persistence.get().map(|persistence| &**persistence)
    }

    /// How clients ask for persistence, granted or not.
    pub fn asking(&self) -> &Asking {
        self.persistence().map_or(&*asking::USUAL, |persistence| &persistence.policy.asking)
    }

    /// The same, to be held on to.
    pub fn shared_persistence(&self) -> Option<&Arc<Persistence>> {
        self.persistence.get()
    }

    /// From now on, what is asked for is kept on disk. What was kept is here again: sessions with their subscriptions,
    /// which messages are routed to, and retained messages. Called once, before there are clients.
    pub fn persist(&self, persistence: Arc<Persistence>, now: Millis) {
        let mut over = Vec::new();
        {
            let state = persistence.store.state();
            let highest = state.sessions().map(|(number, _)| number).max().unwrap_or(0);
            self.next.fetch_max(highest + 1, Ordering::AcqRel);
            for (number, kept) in state.sessions() {
                if Cursor::graph_of(&kept.client_id).is_some() {
                    continue; // those are found again when the graphs are known
                }
                let client = restore(number, kept, &persistence.policy, now);
                if kept.closed.is_none() {
                    // Its connection ended with the process.
                    over.push(Event::SessionClosed { session: number, at: persistence::to_wall(now) });
                }
                self.numbers.lock().insert(number, Arc::downgrade(&client));
                let known = client.lock().session.subscriptions().clone();
                for (filter, options) in &known {
                    self.add(filter, number, Subscriber::Client(Arc::clone(&client)), *options);
                }
                let client_id = Arc::clone(client.lock().session.client_id());
                self.clients.lock().insert(client_id, client);
            }
        }
        let retained: Vec<u64> = persistence.store.state().retained().map(|(_, number)| number.0).collect();
        for message in retained.into_iter().filter_map(|number| persistence.read(number)) {
            self.retain_message(message);
        }
        if !over.is_empty() {
            persistence.note(over);
        }
        // The wall clock may have stepped back since.
        self.clock.lock().raise(persistence.clock_ms());
        self.metrics.total_sessions.set(self.clients.lock().len() as f64);
        let _ = self.persistence.set(persistence);
    }

    /// Whether the message is kept on disk as its topic's retained one. Where the one before is, it must be: or that
    /// would come back.
    pub fn persists_retained(&self, publication: &Publication<'_>, persistence: &Persistence) -> bool {
        let asked = || {
            let properties = PublishProperties::parse(publication.forward.properties, Role::Client);
            properties.is_ok_and(|properties| self.asking().asked(properties.user_properties()))
        };
        let topic = publication.topic();
        persistence.policy.retained(topic, asked) || persistence.retains(topic)
    }

    /// A number nothing else has: for sessions, graphs and connections.
    pub fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// The next moment of the broker's hybrid logical clock.
    pub fn timestamp(&self, wall: Millis) -> hlc::Timestamp {
        self.clock.lock().now(wall)
    }

    /// Writes down how far the hybrid logical clock is, if anything else was written since the last time.
    pub fn note_clock(&self) {
        if let Some(persistence) = self.persistence() {
            persistence.note_clock(self.clock.lock().last_ms());
        }
    }

    /// Takes note of a timestamp that came with a message.
    pub fn observe(&self, seen: &hlc::Timestamp, wall: Millis) -> Result<(), hlc::TimestampError> {
        self.clock.lock().observe(seen, wall)
    }

    /// Gives a connection its session: the one it had, or a new one. A connection that had it before is
    /// sent away [MQTT-3.1.4-3].
    pub fn open(&self, opening: Opening, now: Millis) -> Opened {
        let Opening { client_id, clean_start, expiry, will, arrival, silence_ms_max, persist } = opening;
        let client_id = if client_id.is_empty() { self.assign_client_id() } else { client_id };
        let number = self.number();
        let mut left = Left::default();
        let mut ended = None;
        let mut clients = self.clients.lock();
        let known = clients.get(&*client_id).cloned();
        let resumed = known.filter(|client| {
            let mut state = client.lock();
            state.kick(ReasonCode::SessionTakenOver);
            let had_connection = state.connection.take().is_some();
            // Clean Start begins anew [MQTT-3.1.2-4] [MQTT-3.1.4-4], otherwise what is there goes on [MQTT-3.1.2-5].
            let over =
                clean_start || state.session.expired(now) || (had_connection && state.session.expiry == 0);
            let mut old = state.session.will.take();
            if !over && !had_connection {
                // The client is back before its will was due [MQTT-3.1.3-9].
                old = None;
            }
            let due = old.filter(|will| (over || will.delay == 0) && state.may_publish(will));
            left.will = due.map(|will| will.message(now));
            if over {
                left.orphans = state.session.orphans();
                ended = state.session.is_durable().then(|| state.session.id());
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
        // A new one where there is none [MQTT-3.1.2-6].
        let client = resumed.unwrap_or_else(|| {
            let client = Client::new(Session::new(self.number(), &client_id));
            self.numbers.lock().insert(client.id(), Arc::downgrade(&client));
            let client_id = Arc::clone(client.lock().session.client_id());
            clients.insert(client_id, Arc::clone(&client));
            client
        });
        let mut state = client.lock();
        let before = Before {
            expiry: present.then_some(state.session.expiry),
            ended,
            in_memory: !state.session.is_durable(),
        };
        state.session.expiry = expiry;
        state.session.will = will;
        let (wait, persisted) = self.persist_opening(&mut state.session, ended, persist);
        state.attach(number, arrival, silence_ms_max, now);
        drop(state);
        self.metrics.total_sessions.set(clients.len() as f64);
        self.metrics.connected_sessions.increment(1);
        Opened { client, number, present, left, wait, persisted, before }
    }

    /// A connection comes to nothing, since what it was to change cannot be written down. A session that went on is what it
    /// was, a new one is not. Returns what is left behind.
    pub fn give_up(&self, opened: &Opened, now: Millis) -> Left {
        if let (Some(session), Some(persistence)) = (opened.before.ended, self.persistence()) {
            // It is gone here, and must not come back.
            persistence.note(vec![Event::SessionEnded { session }]);
        }
        let mut state = opened.client.lock();
        if state.own(opened.number).is_some() {
            state.session.expiry = opened.before.expiry.unwrap_or(0);
            if opened.before.in_memory {
                state.session.persist_no_more();
            }
        }
        drop(state);
        self.close(&opened.client, opened.number, now, false)
    }

    /// Writes down that a session opens, if it is one of those that are, and that the one before has ended. What to wait
    /// for, and whether all its subscriptions are persisted.
    fn persist_opening(
        &self,
        session: &mut Session,
        ended: Option<u64>,
        asked: bool,
    ) -> (Result<u64, ReasonCode>, bool) {
        let Some(persistence) = self.persistence() else { return (Ok(0), false) };
        let all = session.expiry > 0 && persistence.policy.session(session.client_id(), asked);
        let is_new = all && !session.is_durable();
        let mut events: Vec<Event> =
            ended.map(|session| Event::SessionEnded { session }).into_iter().collect();
        if all || session.is_durable() {
            events.push(persistence::opened(session));
        }
        if is_new {
            events.extend(persistence::subscriptions(session));
        }
        if events.is_empty() {
            return (Ok(0), false);
        }
        let wait = persistence.append(events, 0);
        if is_new && wait.is_ok() {
            session.persist(Durable::default());
        }
        let durable = session.durable();
        let persisted = durable.is_some_and(|durable| {
            durable.all |= all;
            durable.all
        });
        (wait, persisted)
    }

    /// An identifier for a client that has none [MQTT-3.1.3-6].
    pub fn assign_client_id(&self) -> Box<str> {
        // Not to be guessed: whoever knows a client identifier can take its session over.
        let random = RandomState::new().hash_one(self.number());
        let more = RandomState::new().hash_one(random);
        format!("forebay-{random:016x}{more:016x}").into()
    }

    /// The connection is gone. Returns what it leaves behind.
    pub fn close(&self, client: &Arc<Client>, number: u64, now: Millis, with_will: bool) -> Left {
        self.metrics.connected_sessions.decrement(1);
        let mut state = client.lock();
        if !state.detach(number) {
            return Left::default(); // another connection has the session already
        }
        state.session.close(now);
        if !with_will {
            state.session.will = None; // [MQTT-3.1.2-10], 3.1.1 [MQTT-3.1.2-12]
        }
        let due = state.session.expiry == 0 || state.session.will.as_ref().is_some_and(|w| w.delay == 0);
        let will = if due { state.session.will.take() } else { None };
        let will = will.filter(|will| state.may_publish(will));
        let over = state.session.expiry == 0;
        if let Some(persistence) = self.persistence().filter(|_| !over && state.session.is_durable()) {
            persistence.note(persistence::closed(&state.session));
        }
        drop(state);
        self.tell_disconnected(client.id());
        let orphans = if over { self.end(client, now) } else { Vec::new() };
        Left { will: will.map(|will| will.message(now)), orphans }
    }

    /// Ends a session that is over and still without a connection [MQTT-4.1.0-2]. Returns what it leaves to others.
    pub fn end(&self, client: &Arc<Client>, now: Millis) -> Vec<Orphan> {
        let mut clients = self.clients.lock();
        let mut state = client.lock();
        // [MQTT-4.1.0-1]
        if state.connection.is_some() || !state.session.expired(now) {
            return Vec::new();
        }
        state.end_ordered();
        let orphans = state.session.orphans();
        let id = Arc::clone(state.session.client_id());
        if clients.get(&id).is_some_and(|c| Arc::ptr_eq(c, client)) {
            clients.remove(&id);
        }
        let filters: Vec<Box<str>> = state.session.subscriptions().keys().cloned().collect();
        if let Some(persistence) = self.persistence().filter(|_| state.session.is_durable()) {
            persistence.note(vec![Event::SessionEnded { session: client.id() }]);
        }
        drop(state);
        self.metrics.total_sessions.set(clients.len() as f64);
        drop(clients);
        self.forget(client.id(), &filters);
        orphans
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

    /// Whether a message can be kept as its topic's retained one: there is room for it.
    pub fn may_retain(&self, publication: &Publication<'_>) -> bool {
        let Forward { topic, properties, payload, .. } = publication.forward;
        let size = topic.len() + properties.len() + payload.len();
        payload.is_empty() || self.has_room_for_retained(&self.retained.read(), publication.topic(), size)
    }

    fn has_room_for_retained(&self, retained: &Retained, topic: &str, size: usize) -> bool {
        let old = retained.get(topic).map(|old| old.size());
        retained.len() + usize::from(old.is_none()) <= self.limits.retained_messages_max
            && retained.bytes() - old.unwrap_or(0) + size <= self.limits.retained_bytes_max
    }

    /// Keeps a message as its topic's retained one; one over the limit is not kept and counted.
    pub fn retain(&self, publication: &mut Publication<'_>) {
        self.retain_message(publication.owned());
    }

    /// The topic has no retained message any more.
    pub fn clear_retained(&self, topic: &str) {
        let mut retained = self.retained.write();
        retained.remove(topic);
        self.show_retained(&retained);
    }

    /// Keeps a message as its topic's retained one; one over the limit is not kept and counted.
    pub fn retain_message(&self, message: Arc<Message>) {
        let mut retained = self.retained.write();
        if !message.payload().is_empty()
            && !self.has_room_for_retained(&retained, message.topic(), message.size())
        {
            self.metrics.retained_refused.increment(1);
            return;
        }
        retained.set(message);
        self.show_retained(&retained);
    }

    fn show_retained(&self, retained: &Retained) {
        self.metrics.retained_messages.set(retained.len() as f64);
        self.metrics.retained_bytes.set(retained.bytes() as f64);
        self.retained_weight.store(retained.bytes() + retained.len() * OVERHEAD_BYTES, Ordering::Relaxed);
    }

    /// The next `max` retained messages that match a filter, behind the topic `after`.
    pub fn retained(&self, filter: &str, after: Option<&str>, now: Millis, max: usize) -> Vec<Arc<Message>> {
        let mut found = Vec::new();
        self.retained.read().matching_after(filter, after, now, &mut |message| {
            found.push(Arc::clone(message));
            found.len() < max
        });
        found
    }

    /// Bytes of messages in memory, other than retained ones.
    pub fn memory_bytes(&self) -> usize {
        memory::held().saturating_sub(self.retained_weight.load(Ordering::Relaxed))
    }

    /// The memory for messages is used up: nothing is taken that could wait.
    pub fn is_pressed(&self) -> bool {
        self.memory_bytes() > self.limits.memory_bytes_max
    }

    /// Subscriptions and retained messages there are.
    pub fn sizes(&self) -> Sizes {
        let (subscriptions, shared_subscriptions) = {
            let router = self.router.read();
            (router.len(), router.shared())
        };
        let retained = self.retained.read();
        Sizes {
            subscriptions,
            shared_subscriptions,
            retained_messages: retained.len(),
            retained_bytes: retained.bytes(),
        }
    }

    /// Drops retained messages whose time is over.
    pub fn expire_retained(&self, now: Millis) {
        let mut retained = self.retained.write();
        if retained.expire(now) > 0 {
            self.show_retained(&retained);
        }
    }
}

/// A session as it was kept.
fn restore(number: u64, kept: &SessionState, policy: &Policy, now: Millis) -> Arc<Client> {
    let mut session = Session::new(number, &kept.client_id);
    session.expiry = kept.expiry;
    session.will = kept
        .will
        .as_ref()
        .map(|will| Box::new(Will { message: persistence::message_of(&will.message), delay: will.delay }));
    session.close(kept.closed.map_or(now, |at| persistence::from_wall(at).min(now)));
    for (filter, (options, persisted)) in &kept.subscriptions {
        session.subscribe(filter, persistence::options_of(options, *persisted));
    }
    let entries = || kept.queue.iter();
    let ids = entries().filter_map(|entry| Some((PacketId::new(entry.packet_id)?, entry.message.0)));
    let first = entries().next().map(|entry| entry.message.0);
    let last = entries().next_back().map_or(0, |entry| entry.message.0);
    let mut durable = Durable::restored(policy.session(&kept.client_id, false), first, last, ids);
    for id in kept.incoming.iter().copied().filter_map(PacketId::new) {
        session.on_publish_qos2(id);
        durable.incoming.insert(id);
    }
    session.persist(durable);
    Client::new(session)
}

/// Takes a shared filter apart: group, then the filter proper.
pub fn split_share(filter: &str) -> (Option<&str>, &str) {
    match topic::SharedFilter::parse(filter) {
        Ok(Some(shared)) => (Some(shared.group), shared.filter),
        _ => (None, filter),
    }
}
