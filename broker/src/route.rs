//! Who gets the messages of one topic: worked out once, then looked up.

use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use broker_core::message::Publication;
use broker_core::packet::{PublishProperties, QoS, Role};
use broker_core::router::{Match, Router};
use foldhash::HashMap;

use crate::client::Client;
use crate::ordered::Ordered;
use crate::pipeline::Source;
use crate::services::Service;

/// Whatever subscribes.
#[derive(Debug, Clone)]
pub enum Subscriber {
    /// A session.
    Client(Arc<Client>),
    /// A subscription of a session that is fed in order.
    Ordered(Arc<Ordered>),
    /// A graph's source.
    Graph(Arc<Source>),
    /// Something that the broker answers itself.
    Service(ServiceRef),
}

/// A service that can be told from another.
#[derive(Clone)]
pub struct ServiceRef(pub Arc<dyn Service>);

impl std::fmt::Debug for ServiceRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Service")
    }
}

/// How one client takes the messages of a topic; all its matching subscriptions taken together.
#[derive(Debug)]
pub struct Target {
    /// The client.
    pub client: Arc<Client>,
    /// The highest QoS asked for [MQTT-3.3.4-2]; a member of a share has its own [MQTT-4.8.2-3].
    pub qos: QoS,
    /// Every matching subscription refuses the client's own messages.
    pub no_local: bool,
    /// How it takes its own messages, where some of its subscriptions refuse them [MQTT-3.8.3-3].
    pub own: Option<Box<Own>>,
    /// Keep the retain flag.
    pub retain_as_published: bool,
    /// Identifiers of all matching subscriptions [MQTT-3.3.4-4].
    pub identifiers: Box<[u32]>,
    /// Where it waits for its turn.
    pub ordered: Option<Arc<Ordered>>,
    /// One of the subscriptions is persisted.
    pub persisted: bool,
    /// The share it is a member of, as `group/filter`.
    pub share: Option<Arc<str>>,
}

/// What a client takes its own messages with: those of its subscriptions that do not refuse them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Own {
    /// The highest QoS asked for.
    pub qos: QoS,
    /// Keep the retain flag.
    pub retain_as_published: bool,
    /// Identifiers of these subscriptions.
    pub identifiers: Box<[u32]>,
}

/// A shared subscription: one member gets each message.
#[derive(Debug)]
pub struct Share {
    /// Its group and filter, as `group/filter`.
    pub name: Arc<str>,
    members: Vec<Target>,
    /// Sources of graphs that are members, too.
    graphs: Vec<Arc<Source>>,
    next: AtomicUsize,
}

/// A member of a share.
#[derive(Clone, Copy, Debug)]
pub enum Member<'a> {
    /// A session.
    Client(&'a Target),
    /// A graph.
    Graph(&'a Arc<Source>),
}

/// The user property by which publishers say which messages belong together (AIO.md §7.1).
const PARTITION: &str = "$partition";

impl Share {
    /// Who gets the next message.
    pub fn choose(&self, publication: &Publication<'_>) -> Option<Member<'_>> {
        if self.graphs.is_empty() {
            let start = self.next.fetch_add(1, Ordering::Relaxed);
            return self.choose_client(publication, start).map(Member::Client);
        }
        let place = self.place(publication) % (self.graphs.len() + self.members.len());
        if let Some(place) = place.checked_sub(self.graphs.len())
            && let Some(client) = self.choose_client(publication, place)
        {
            return Some(Member::Client(client));
        }
        let mut graphs = from(&self.graphs, place);
        graphs.clone().find(|source| source.takes()).or_else(|| graphs.next()).map(Member::Graph)
    }

    /// The one in this place, unless it is away and another is there.
    fn choose_client(&self, publication: &Publication<'_>, place: usize) -> Option<&Target> {
        let takes = |t: &&Target| !(t.no_local && t.client.id() == publication.publisher);
        let mut members = from(&self.members, place).filter(takes);
        let first = members.next();
        let online = |t: &&Target| t.client.lock().connection.is_some();
        first.filter(online).or_else(|| members.find(online)).or(first)
    }

    /// AIO's rule where graphs share: what belongs together goes to one of them, by `$partition`, or by topic where the filter
    /// has wildcards; everything else in turn.
    fn place(&self, publication: &Publication<'_>) -> usize {
        let properties = PublishProperties::parse(publication.forward.properties, Role::Client);
        let partition = properties.as_ref().ok().and_then(|properties| properties.user_property(PARTITION));
        let key = match partition {
            Some(partition) => partition,
            None if self.name.contains(['+', '#']) => publication.topic(),
            None => return self.next.fetch_add(1, Ordering::Relaxed),
        };
        // The same for every thread, and for the next start.
        let hash = foldhash::fast::FixedState::default().hash_one(key);
        usize::try_from(hash >> 1).unwrap_or(0)
    }

    /// No message is to be brought, for none of its members has room for what it would become.
    pub fn refuses(&self) -> bool {
        self.members.is_empty() && self.graphs.iter().all(|source| source.refuses())
    }

    /// One of its members takes messages from the log.
    fn is_persisted(&self) -> bool {
        self.members.iter().any(|target| target.persisted)
            || self.graphs.iter().any(|source| source.cursor.is_some())
    }
}

/// Everyone who gets the messages of one topic.
#[derive(Debug, Default)]
pub struct Route {
    /// Sessions.
    pub clients: Vec<Target>,
    /// Shared subscriptions of sessions.
    pub shares: Vec<Share>,
    /// Graphs: empty for a topic that none wants, which then pays nothing for graphs.
    pub graphs: Vec<Arc<Source>>,
    /// What the broker answers itself.
    pub services: Vec<ServiceRef>,
    /// One of the sessions' subscriptions or graphs is persisted.
    pub persisted: bool,
}

impl Route {
    /// Works out the route of `topic`.
    pub fn find(router: &Router<Subscriber>, topic: &str) -> Self {
        let mut found = Self::default();
        let mut places: HashMap<u64, usize> = HashMap::default();
        let mut shares: HashMap<Arc<str>, Share> = HashMap::default();
        router.matches(topic, &mut |m| match (m.subscriber, m.share) {
            (Subscriber::Graph(source), Some(share)) => {
                let graphs = &mut shared(&mut shares, share).graphs;
                if !graphs.iter().any(|g| Arc::ptr_eq(g, source)) {
                    graphs.push(Arc::clone(source));
                }
            }
            (Subscriber::Graph(source), None) => {
                if !found.graphs.iter().any(|g| Arc::ptr_eq(g, source)) {
                    found.graphs.push(Arc::clone(source));
                }
            }
            (Subscriber::Service(service), _) => found.services.push(service.clone()),
            (Subscriber::Client(client), Some(share)) => {
                join(&mut shares, share, target(client, &m));
            }
            // Not taken together with others of the same session: those do not wait.
            (Subscriber::Ordered(ordered), share) => {
                let Some(client) = ordered.client() else { return };
                let target = Target { ordered: Some(Arc::clone(ordered)), ..target(&client, &m) };
                match share {
                    Some(share) => join(&mut shares, share, target),
                    None => found.clients.push(target),
                }
            }
            (Subscriber::Client(client), None) => match places.get(&m.id) {
                Some(&at) => merge(&mut found.clients[at], &m),
                None => {
                    places.insert(m.id, found.clients.len());
                    found.clients.push(target(client, &m));
                }
            },
        });
        found.shares = shares.into_values().collect();
        found.persisted = found.clients.iter().any(|target| target.persisted)
            || found.shares.iter().any(Share::is_persisted)
            || found.graphs.iter().any(|graph| graph.cursor.is_some());
        found
    }
}

/// All of them, beginning in this place.
fn from<T>(members: &[T], place: usize) -> impl Iterator<Item = &T> + Clone {
    let (before, after) = members.split_at(place % members.len().max(1));
    after.iter().chain(before)
}

fn shared<'a>(shares: &'a mut HashMap<Arc<str>, Share>, name: &str) -> &'a mut Share {
    let name = shares.get_key_value(name).map_or_else(|| name.into(), |(name, _)| Arc::clone(name));
    shares.entry(Arc::clone(&name)).or_insert_with(|| Share {
        name,
        members: Vec::new(),
        graphs: Vec::new(),
        next: AtomicUsize::new(0),
    })
}

fn join(shares: &mut HashMap<Arc<str>, Share>, share: &str, target: Target) {
    let share = shared(shares, share);
    share.members.push(Target { share: Some(Arc::clone(&share.name)), ..target });
}

fn target(client: &Arc<Client>, m: &Match<'_, Subscriber>) -> Target {
    Target {
        client: Arc::clone(client),
        qos: m.options.qos,
        no_local: m.options.no_local,
        own: None,
        retain_as_published: m.options.retain_as_published,
        identifiers: m.options.identifier.into_iter().collect(),
        ordered: None,
        persisted: m.options.persisted,
        share: None,
    }
}

fn merge(target: &mut Target, m: &Match<'_, Subscriber>) {
    merge_own(target, m);
    target.qos = target.qos.max(m.options.qos);
    target.no_local &= m.options.no_local;
    target.retain_as_published |= m.options.retain_as_published;
    target.persisted |= m.options.persisted;
    add(&mut target.identifiers, m.options.identifier);
}

/// Keeps apart what the client takes its own messages with, once its subscriptions do not agree on them.
fn merge_own(target: &mut Target, m: &Match<'_, Subscriber>) {
    match (&mut target.own, m.options.no_local) {
        (Some(own), false) => {
            own.qos = own.qos.max(m.options.qos);
            own.retain_as_published |= m.options.retain_as_published;
            add(&mut own.identifiers, m.options.identifier);
        }
        (None, false) if target.no_local => {
            target.own = Some(Box::new(Own {
                qos: m.options.qos,
                retain_as_published: m.options.retain_as_published,
                identifiers: m.options.identifier.into_iter().collect(),
            }));
        }
        (None, true) if !target.no_local => {
            target.own = Some(Box::new(Own {
                qos: target.qos,
                retain_as_published: target.retain_as_published,
                identifiers: target.identifiers.clone(),
            }));
        }
        _ => {}
    }
}

fn add(identifiers: &mut Box<[u32]>, identifier: Option<u32>) {
    if let Some(identifier) = identifier {
        let mut all = std::mem::take(identifiers).into_vec();
        all.push(identifier);
        *identifiers = all.into();
    }
}

/// Routes that one thread has looked up, each valid for one generation of the router.
#[derive(Debug, Default)]
pub struct Cache {
    routes: HashMap<Arc<str>, (u64, Arc<Route>)>,
    /// The last topic asked for: bursts on one topic need no hash.
    last: Option<(Arc<str>, u64, Arc<Route>)>,
}

/// Topics remembered by a thread; beyond, it begins anew.
const TOPICS_MAX: usize = 8192;

impl Cache {
    /// The route of `topic` under `generation`, worked out by `find` if need be; `find` also says which
    /// generation it saw.
    pub fn get(
        &mut self,
        topic: &str,
        generation: u64,
        find: impl FnOnce(&str) -> (u64, Route),
    ) -> Arc<Route> {
        if let Some((last, seen, route)) = &self.last
            && *seen == generation
            && **last == *topic
        {
            return Arc::clone(route);
        }
        let (name, seen, route) = match self.routes.get_key_value(topic) {
            Some((name, (seen, route))) if *seen == generation => {
                (Arc::clone(name), *seen, Arc::clone(route))
            }
            _ => self.insert(topic, find),
        };
        self.last = Some((name, seen, Arc::clone(&route)));
        route
    }

    fn insert(
        &mut self,
        topic: &str,
        find: impl FnOnce(&str) -> (u64, Route),
    ) -> (Arc<str>, u64, Arc<Route>) {
        let (seen, route) = find(topic);
        let route = Arc::new(route);
        if self.routes.len() >= TOPICS_MAX && !self.routes.contains_key(topic) {
            self.routes.clear();
        }
        let name: Arc<str> = topic.into();
        self.routes.insert(Arc::clone(&name), (seen, Arc::clone(&route)));
        (name, seen, route)
    }
}
