//! What one client may do, asked for every message: a policy's answer to it, remembered.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use broker_core::message::Publication;
use foldhash::HashMap;
use metrics::Counter;
use parking_lot::{Mutex, RwLock};

use super::category;
use super::policy::{Granted, Policy, Principal};

/// Decisions that are remembered for one client; beyond, it begins anew.
const DECISIONS_MAX: usize = 512;
/// The longest topic that is remembered.
const TOPIC_BYTES_MAX: usize = 1024;

/// The policy of one BrokerAuthorization resource: clients hold on to it while what it says may be replaced.
#[derive(Debug)]
pub struct Guard {
    policy: RwLock<Arc<Policy>>,
    generation: AtomicU64,
}

impl Guard {
    /// Begins with this policy.
    pub fn new(policy: Policy) -> Arc<Self> {
        Arc::new(Self { policy: RwLock::new(Arc::new(policy)), generation: AtomicU64::new(1) })
    }

    /// Another policy holds from now on. Whether it is another.
    pub fn replace(&self, policy: Policy) -> bool {
        let mut held = self.policy.write();
        let changed = **held != policy;
        if changed {
            *held = Arc::new(policy);
            self.generation.fetch_add(1, Ordering::Release);
        }
        changed
    }
}

/// What one client may do. Follows its guard: a policy that is replaced holds from the next question on.
#[derive(Debug)]
pub struct Access {
    guard: Arc<Guard>,
    state: Mutex<State>,
    allow: Counter,
    deny: Counter,
}

#[derive(Debug, Default)]
struct State {
    principal: Principal,
    generation: u64,
    granted: Granted,
    remembers: bool,
    /// By topic: whether it may be published to, whether it may be received.
    publish: HashMap<Box<str>, bool>,
    receive: HashMap<Box<str>, bool>,
}

impl Access {
    /// What `guard` allows this client, counted in this category.
    pub fn new(guard: &Arc<Guard>, principal: Principal, category: &str) -> Arc<Self> {
        Arc::new(Self {
            guard: Arc::clone(guard),
            state: Mutex::new(State { principal, ..State::default() }),
            allow: category::counter("aio_broker_authorization_allow", category),
            deny: category::counter("aio_broker_authorization_deny", category),
        })
    }

    /// Whether this guard watches it.
    pub fn is_under(&self, guard: &Arc<Guard>) -> bool {
        Arc::ptr_eq(&self.guard, guard)
    }

    /// The client has proven anew who it is, maybe with other attributes.
    pub fn identify(&self, principal: Principal) {
        *self.state.lock() = State { principal, ..State::default() };
    }

    /// Whether it may connect.
    pub fn may_connect(&self) -> bool {
        self.count(self.ask(|state| state.granted.connect))
    }

    /// Whether it may connect; not counted.
    pub fn connects(&self) -> bool {
        self.ask(|state| state.granted.connect)
    }

    /// Whether it may publish to a topic.
    pub fn may_publish(&self, topic: &str) -> bool {
        self.count(self.ask(|state| {
            let State { granted, publish, remembers, .. } = state;
            remembered(publish, *remembers, topic, || granted.may_publish(topic))
        }))
    }

    /// Whether it may subscribe; `filter` without the group of a shared subscription.
    pub fn may_subscribe(&self, filter: &str) -> bool {
        self.count(self.ask(|state| state.granted.may_subscribe(filter)))
    }

    /// Whether everything that a filter asks for is allowed; not counted.
    pub fn covers(&self, filter: &str) -> bool {
        self.ask(|state| state.granted.may_subscribe(filter))
    }

    /// Whether a message may be passed to it. Only what is denied is counted: it was allowed when it subscribed.
    pub fn may_receive(&self, topic: &str) -> bool {
        let allowed = self.ask(|state| {
            let State { granted, receive, remembers, .. } = state;
            remembered(receive, *remembers, topic, || granted.may_receive(topic))
        });
        if !allowed {
            self.deny.increment(1);
        }
        allowed
    }

    /// Whether it may read a key of the state store.
    pub fn may_read(&self, key: &[u8]) -> bool {
        self.count(self.ask(|state| state.granted.may_read(key)))
    }

    /// Whether it may write a key of the state store.
    pub fn may_write(&self, key: &[u8]) -> bool {
        self.count(self.ask(|state| state.granted.may_write(key)))
    }

    fn ask(&self, question: impl FnOnce(&mut State) -> bool) -> bool {
        let mut state = self.state.lock();
        let generation = self.guard.generation.load(Ordering::Acquire);
        if state.generation != generation {
            let policy = Arc::clone(&self.guard.policy.read());
            state.granted = policy.grant(&state.principal);
            state.remembers = policy.cache;
            state.publish.clear();
            state.receive.clear();
            state.generation = generation;
        }
        question(&mut state)
    }

    fn count(&self, allowed: bool) -> bool {
        if allowed { &self.allow } else { &self.deny }.increment(1);
        allowed
    }
}

fn remembered(
    decisions: &mut HashMap<Box<str>, bool>,
    remembers: bool,
    topic: &str,
    decide: impl FnOnce() -> bool,
) -> bool {
    if !remembers || topic.len() > TOPIC_BYTES_MAX {
        return decide();
    }
    if let Some(known) = decisions.get(topic) {
        return *known;
    }
    let decision = decide();
    if decisions.len() >= DECISIONS_MAX {
        decisions.clear();
    }
    decisions.insert(topic.into(), decision);
    decision
}

/// Whether a client without or with these bounds may be passed a message.
pub fn may_receive(access: Option<&Arc<Access>>, publication: &Publication<'_>) -> bool {
    access.is_none_or(|access| access.may_receive(publication.topic()))
}
