//! The state store over MQTT (AIO.md §8): requests on one topic, answers on the client's, notifications of keys.

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use broker_core::Millis;
use broker_core::hlc::{Timestamp, TimestampError};
use broker_core::message::Message;
use broker_core::packet::{PropertiesBuilder, Property, PublishProperties, QoS, ReasonCode};
use broker_store::Event;
use metrics::{Counter, Gauge, counter, gauge};
use parking_lot::Mutex;
use processing::state_store::journal::{Journal, OwnedPair, Pair};
use processing::state_store::resp::{self, Answer, Request, RequestError};
use processing::state_store::{Change, Set, StateStore, StoreError};
use processing_core::time::Hlc;
use tokio::sync::mpsc;

use crate::auth::access::Access;
use crate::broker::Broker;
use crate::clock;
use crate::persistence::Persistence;
use crate::persistence::asking::Asking;
use crate::services::call::{Call, Reply};
use crate::services::{Service, access_of};
use crate::translate::{TIMESTAMP, hlc, stamp};
use crate::turn::Turn;

/// Where requests are published.
pub const REQUEST_TOPIC: &str = "statestore/v1/FA9AE35F-2F64-47CD-9BFF-08E2B32A0FE8/command/invoke";
/// How the topics of notifications begin.
const NOTIFY_TOPIC: &str = "clients/statestore/v1/FA9AE35F-2F64-47CD-9BFF-08E2B32A0FE8";
/// The user property of a fencing token.
const FENCE: &str = "__ft";
/// How the names of the store's keys begin in the log.
const KEY: &[u8] = b"state/";
/// The longest key that can be watched: its topic holds two digits for every byte.
const WATCHED_KEY_BYTES_MAX: usize = 16 << 10;
/// Keys that one client may watch.
const WATCHES_MAX: usize = 10_000;
/// Notifications of changes by operators that wait to be published; beyond, they are dropped and counted.
const PENDING_MAX: usize = 10_000;
/// How often expired keys are looked for, and how many are removed at once.
const SWEEP: Duration = Duration::from_secs(1);
const SWEEP_KEYS_MAX: usize = 10_000;

/// Answers requests to the state store, and tells of changes.
pub struct StateStoreService {
    store: Arc<StateStore>,
    watches: Mutex<Watches>,
    pending: mpsc::Sender<Arc<Message>>,
    metrics: Metrics,
}

/// Who wants to know of which key.
#[derive(Default)]
struct Watches {
    by_key: HashMap<Box<[u8]>, Vec<Watcher>>,
    /// How many each session has.
    counts: HashMap<u64, usize>,
}

struct Watcher {
    session: u64,
    /// Its client identifier in hexadecimal.
    client: Box<str>,
}

struct Metrics {
    retrievals: Counter,
    insertions: Counter,
    modifications: Counter,
    deletions: Counter,
    keynotify: Counter,
    notifications: Counter,
    dropped: Counter,
    unanswerable: Counter,
    keys: Gauge,
    bytes: Gauge,
}

impl Metrics {
    fn new() -> Self {
        Self {
            retrievals: counter!("aio_broker_state_store_retrievals"),
            insertions: counter!("aio_broker_state_store_insertions"),
            modifications: counter!("aio_broker_state_store_modifications"),
            deletions: counter!("aio_broker_state_store_deletions"),
            keynotify: counter!("aio_broker_state_store_keynotify_requests"),
            notifications: counter!("aio_broker_state_store_notifications_sent"),
            dropped: counter!("forebay_state_store_notifications_dropped_total"),
            unanswerable: counter!("forebay_state_store_requests_unanswerable_total"),
            keys: gauge!("forebay_state_store_keys"),
            bytes: gauge!("forebay_state_store_bytes"),
        }
    }
}

/// What is answered.
struct Answered {
    answer: Answer,
    /// The version of the value that it is about.
    version: Option<Hlc>,
    /// The record that the answer waits for; 0 for none.
    record: u64,
    /// The key outlives the process.
    kept: bool,
}

impl From<Answer> for Answered {
    fn from(answer: Answer) -> Self {
        Self { answer, version: None, record: 0, kept: false }
    }
}

impl Answered {
    fn of(answer: Answer, change: Option<Change>) -> Self {
        match change {
            Some(Change { version, record, kept }) => Self { answer, version: Some(version), record, kept },
            None => answer.into(),
        }
    }
}

/// Writes keys down in the broker's log.
struct InLog(Arc<Persistence>);

impl Journal for InLog {
    fn keeps(&self, key: &[u8], asked: bool) -> bool {
        self.0.policy.key(key, asked)
    }

    fn set(&self, key: &[u8], pair: &Pair<'_>) -> Result<u64, StoreError> {
        let event = Event::KeySet { key: [KEY, key].concat().into(), value: pair.to_bytes().into() };
        self.0.keep(vec![event]).map_err(|refused| match refused {
            ReasonCode::QuotaExceeded => StoreError::Quota,
            _ => StoreError::Disk,
        })
    }

    fn delete(&self, key: &[u8]) -> u64 {
        // A store that is closed ends with the broker.
        self.0.insist(vec![Event::KeyDeleted { key: [KEY, key].concat().into() }], 0).unwrap_or(0)
    }
}

/// Takes back what was written down, and has changes written down from now on.
fn keep(store: &StateStore, persistence: &Arc<Persistence>) {
    for (key, value) in persistence.store.state().keys() {
        let Some(key) = key.strip_prefix(KEY) else { continue };
        match OwnedPair::from_bytes(value) {
            Some(pair) => store.restore(key, pair),
            None => tracing::error!("a key of the state store cannot be read: {}", key.escape_ascii()),
        }
    }
    store.keep(Box::new(InLog(Arc::clone(persistence))));
}

impl StateStoreService {
    /// Serves `store` on `broker`.
    pub fn start(store: &Arc<StateStore>, broker: &Arc<Broker>) {
        let (pending, waiting) = mpsc::channel(PENDING_MAX);
        if let Some(persistence) = broker.shared_persistence() {
            keep(store, persistence);
        }
        let (store, watches, metrics) = (Arc::clone(store), Mutex::default(), Metrics::new());
        let service = Arc::new(Self { store: Arc::clone(&store), watches, pending, metrics });
        let of_guests = Arc::clone(&service);
        store.observe(Box::new(move |key, value, version| of_guests.changed_by_guest(key, value, version)));
        broker.serve(REQUEST_TOPIC, Arc::clone(&service) as Arc<dyn Service>);
        tokio::spawn(publish(waiting, Arc::downgrade(broker)));
        tokio::spawn(service.sweep());
    }

    fn carry_out(
        &self,
        request: &Message,
        properties: &PublishProperties<'_>,
        access: Option<&Access>,
        broker: &Broker,
        emit: &mut dyn FnMut(Arc<Message>),
    ) -> Result<Answered, RequestError> {
        let wall = clock::wall();
        let now = Duration::from_millis(wall.0);
        let asked = Request::parse(request.payload())?;
        if access.is_some_and(|access| !may(access, &asked)) {
            return Err(RequestError::NotAuthorized);
        }
        counter!("forebay_state_store_requests_total", "verb" => asked.verb()).increment(1);
        let requested =
            properties.user_property(TIMESTAMP).map(|text| timestamp(text, broker, wall)).transpose()?;
        let fence = properties.user_property(FENCE).map(fencing_token).transpose()?;
        match asked {
            Request::Set { key, value, condition, expected, expires } => {
                let requested = Some(requested.ok_or(RequestError::MissingTimestamp)?);
                let existed = self.store.get(key, now)?.is_some();
                let persist = broker.asking().asked(properties.user_properties());
                let set = Set { key, value, condition, expires, expected, token: fence, requested, persist };
                let Some(change) = self.store.put(&set, now)? else { return Ok(Answer::Number(-1).into()) };
                if existed { &self.metrics.modifications } else { &self.metrics.insertions }.increment(1);
                self.notify(key, Some(value), &change.version, emit);
                Ok(Answered::of(Answer::Ok, Some(change)))
            }
            Request::Get { key } => {
                self.metrics.retrievals.increment(1);
                let (value, version) = self.store.get(key, now)?.unzip();
                Ok(Answered { version, ..Answer::Value(value).into() })
            }
            Request::Del { key } => self.delete(key, None, fence.as_ref(), now, emit),
            Request::Vdel { key, value } => self.delete(key, Some(value), fence.as_ref(), now, emit),
            Request::KeyNotify { key, stop } => {
                self.metrics.keynotify.increment(1);
                self.watch(key, stop, request.publisher, broker).map(Answered::from)
            }
        }
    }

    fn delete(
        &self,
        key: &[u8],
        expected: Option<&[u8]>,
        fence: Option<&Hlc>,
        now: Duration,
        emit: &mut dyn FnMut(Arc<Message>),
    ) -> Result<Answered, RequestError> {
        let (count, change) = self.store.take(key, expected, fence, now)?;
        if let (1, Some(change)) = (count, &change) {
            self.metrics.deletions.increment(1);
            self.notify(key, None, &change.version, emit);
        }
        Ok(Answered::of(Answer::Number(count), change))
    }

    fn watch(&self, key: &[u8], stop: bool, session: u64, broker: &Broker) -> Result<Answer, RequestError> {
        if stop {
            let known = self.watches.lock().remove(key, session);
            return Ok(if known { Answer::Ok } else { Answer::Number(0) });
        }
        // A session's lock is never taken under that of the watches.
        let client = broker.client(session).ok_or(RequestError::Syntax)?;
        let name = hexadecimal(client.lock().session.client_id().as_bytes());
        let mut watches = self.watches.lock();
        let many = watches.counts.get(&session).is_some_and(|count| *count >= WATCHES_MAX);
        if many || key.len() > WATCHED_KEY_BYTES_MAX {
            return Err(StoreError::Quota.into());
        }
        watches.add(key, session, name);
        Ok(Answer::Ok)
    }

    /// Tells all who watch `key`; `None` that it is gone.
    fn notify(&self, key: &[u8], value: Option<&[u8]>, version: &Hlc, emit: &mut dyn FnMut(Arc<Message>)) {
        let watches = self.watches.lock();
        let Some(watchers) = watches.by_key.get(key) else { return };
        let payload = bytes::Bytes::from(resp::notification(value));
        for watcher in watchers {
            let topic = format!("{NOTIFY_TOPIC}/{}/command/notify/{}", watcher.client, hexadecimal(key));
            let mut properties = PropertiesBuilder::new();
            let version = stamp(version).map(|version| version.to_string()).unwrap_or_default();
            // Neither is longer than a property may be.
            let _ = properties.put(Property::UserProperty((TIMESTAMP, &version)));
            let mut message = Message::new(
                topic.into(),
                properties.into_bytes().into(),
                payload.clone(),
                clock::monotonic(),
            );
            message.qos = QoS::AtLeastOnce;
            self.metrics.notifications.increment(1);
            emit(Arc::new(message));
        }
    }

    /// A guest changed a key, in the middle of a turn: what there is to tell is published after it.
    fn changed_by_guest(&self, key: &[u8], value: Option<&[u8]>, version: &Hlc) {
        self.notify(key, value, version, &mut |message| {
            if self.pending.try_send(message).is_err() {
                self.metrics.dropped.increment(1);
            }
        });
    }

    /// Removes what has expired, for ever, and shows how full the store is.
    async fn sweep(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(SWEEP);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let now = Duration::from_millis(clock::wall().0);
            for (key, version) in self.store.sweep(now, SWEEP_KEYS_MAX) {
                self.changed_by_guest(&key, None, &version);
            }
            let usage = self.store.usage();
            self.metrics.keys.set(usage.keys as f64);
            self.metrics.bytes.set(usage.bytes as f64);
        }
    }
}

impl Service for StateStoreService {
    fn answer(&self, request: &Arc<Message>, broker: &Broker, emit: &mut dyn FnMut(Arc<Message>)) {
        let Some(call) = Call::of(request) else {
            // There is nowhere to say so.
            return self.metrics.unanswerable.increment(1);
        };
        let response_topic = call.response_topic;
        if response_topic == REQUEST_TOPIC || response_topic.starts_with(NOTIFY_TOPIC) {
            self.metrics.unanswerable.increment(1);
            if let Some(client) = broker.client(request.publisher) {
                client.kick(ReasonCode::TopicNameInvalid);
            }
            return;
        }
        let access = access_of(request, broker);
        if access.as_ref().is_some_and(|access| !access.may_subscribe(response_topic)) {
            // The broker is not to publish for a client where that could not even listen.
            return self.metrics.unanswerable.increment(1);
        }
        let mut messages = Vec::new();
        let answered = self
            .carry_out(request, &call.properties, access.as_deref(), broker, &mut |message| {
                messages.push(message)
            })
            .unwrap_or_else(|error| Answer::Error(error).into());
        match response(&call, &answered, broker.asking()) {
            Some(message) => messages.push(Arc::new(message)),
            None => self.metrics.unanswerable.increment(1),
        }
        // Nobody hears of a change that is to be kept before it is on disk.
        let now = match broker.persistence().filter(|_| answered.record > 0) {
            Some(persistence) => persistence.after(answered.record, messages),
            None => messages,
        };
        now.into_iter().for_each(emit);
    }

    fn disconnected(&self, session: u64) {
        self.watches.lock().forget(session);
    }
}

/// Whether a client may do with a key what it asks for (AIO.md §5.9).
fn may(access: &Access, asked: &Request<'_>) -> bool {
    match asked {
        Request::Get { key } | Request::KeyNotify { key, .. } => access.may_read(key),
        Request::Set { key, .. } | Request::Del { key } | Request::Vdel { key, .. } => access.may_write(key),
    }
}

impl Watches {
    fn add(&mut self, key: &[u8], session: u64, client: Box<str>) {
        let watchers = self.by_key.entry(key.into()).or_default();
        if watchers.iter().all(|watcher| watcher.session != session) {
            watchers.push(Watcher { session, client });
            *self.counts.entry(session).or_default() += 1;
        }
    }

    fn remove(&mut self, key: &[u8], session: u64) -> bool {
        let Some(watchers) = self.by_key.get_mut(key) else { return false };
        let before = watchers.len();
        watchers.retain(|watcher| watcher.session != session);
        let known = watchers.len() < before;
        if watchers.is_empty() {
            self.by_key.remove(key);
        }
        if known && let Some(count) = self.counts.get_mut(&session) {
            *count -= 1;
        }
        known
    }

    fn forget(&mut self, session: u64) {
        if self.counts.remove(&session).is_some_and(|count| count > 0) {
            self.by_key.retain(|_, watchers| {
                watchers.retain(|watcher| watcher.session != session);
                !watchers.is_empty()
            });
        }
    }
}

/// The answer as a message; `None` when it cannot be published.
fn response(call: &Call<'_>, answered: &Answered, asking: &Asking) -> Option<Message> {
    let version = answered.version.as_ref().and_then(stamp).map(|version| version.to_string());
    let mut user_properties = Vec::new();
    user_properties.extend(version.as_deref().map(|version| (TIMESTAMP, version)));
    if asking.asked(call.properties.user_properties()) {
        user_properties.push(asking.answer(answered.kept));
    }
    call.answer(Reply {
        status: 200,
        content_type: "application/octet-stream",
        user_properties: &user_properties,
        payload: answered.answer.to_bytes().into(),
    })
}

fn timestamp(text: &str, broker: &Broker, wall: Millis) -> Result<Hlc, RequestError> {
    let parsed = Timestamp::parse(text).map_err(|_| RequestError::MalformedTimestamp)?;
    match broker.observe(&parsed, wall) {
        Ok(()) => Ok(hlc(&parsed)),
        Err(TimestampError::Drift) => Err(RequestError::TimestampAhead),
        Err(_) => Err(RequestError::MalformedTimestamp),
    }
}

fn fencing_token(text: &str) -> Result<Hlc, RequestError> {
    Timestamp::parse(text).map(|token| hlc(&token)).map_err(|_| RequestError::MalformedTimestamp)
}

fn hexadecimal(bytes: &[u8]) -> Box<str> {
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            let _ = write!(text, "{byte:02X}");
            text
        })
        .into()
}

/// Publishes what guests' changes gave rise to.
async fn publish(mut waiting: mpsc::Receiver<Arc<Message>>, broker: std::sync::Weak<Broker>) {
    while let Some(message) = waiting.recv().await {
        let Some(broker) = broker.upgrade() else { return };
        let mut turn = Turn::begin(&broker, clock::monotonic());
        turn.publish_derived(message);
        turn.finish();
    }
}
